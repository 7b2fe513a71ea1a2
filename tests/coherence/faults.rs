//! Letting one thing after the other happen.

use std::fmt::Debug;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What things happen to.
pub(crate) trait Scene {
    type Fault: Copy + Debug;

    /// All that happens, in turn.
    const FAULTS: [Self::Fault; 4];
    /// How long nothing happens before each.
    const PAUSE: Duration;

    /// Lets something happen, for the time of that `round`.
    fn strike(&mut self, fault: Self::Fault, round: usize);
}

/// Lets one thing after the other happen for so long, and says how often each did.
pub(crate) fn rage<S: Scene>(scene: &mut S, time: Duration) -> String {
    let began = Instant::now();
    let mut counts = S::FAULTS.map(|fault| (fault, 0));
    for number in 0.. {
        sleep(S::PAUSE);
        if began.elapsed() + S::PAUSE > time {
            break;
        }
        let (fault, count) = &mut counts[number % S::FAULTS.len()];
        *count += 1;
        scene.strike(*fault, number / S::FAULTS.len());
    }
    let counts = counts.map(|(fault, count)| format!("{fault:?} {count}"));
    format!("faults: {}", counts.join(", "))
}
