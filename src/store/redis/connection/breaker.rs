//! Keeps commands away from a server that does not answer them.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BreakerPolicy {
    /// Opens after so many failures in a row.
    pub(crate) consecutive: u32,
    /// Opens when at least half of at least so many commands within `window` failed.
    pub(super) sample: u32,
    pub(super) window: Duration,
    /// How long it stays open the first time; doubled each time it opens again.
    pub(crate) pause: Duration,
    pub(crate) longest_pause: Duration,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self {
            consecutive: 5,
            sample: 20,
            window: Duration::from_secs(1),
            pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(10),
        }
    }
}

/// A circuit breaker: closed, it lets commands pass and counts how they fare; open, it lets none
/// pass until a probe has been answered.
///
/// No command is let through to find out whether the server is back: the task that keeps the
/// connection up sends a probe of its own, so no request is the one that waits.
#[derive(Debug)]
pub(crate) struct Breaker {
    policy: BreakerPolicy,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open_since: Option<Instant>,
    /// How often it opened, or stayed open, since a command last succeeded.
    trips: u32,
    consecutive: u32,
    window: Option<Window>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    commands: u32,
    failures: u32,
}

impl Breaker {
    pub(crate) fn new(policy: BreakerPolicy) -> Self {
        Self {
            policy,
            state: Mutex::default(),
        }
    }

    /// Whether commands are held back.
    pub(super) fn is_open(&self) -> bool {
        self.open_since().is_some()
    }

    /// Returns since when commands are held back.
    pub(super) fn open_since(&self) -> Option<Instant> {
        self.state.lock().open_since
    }

    /// Notes a command that was answered.
    pub(super) fn succeeded(&self, now: Instant) {
        let mut state = self.state.lock();
        state.trips = 0;
        state.consecutive = 0;
        state.count(now, &self.policy);
    }

    /// Notes a command that was not answered; returns whether that opened the breaker.
    pub(super) fn failed(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        state.consecutive = state.consecutive.saturating_add(1);
        let in_a_row = state.consecutive >= self.policy.consecutive;
        let window = state.count(now, &self.policy);
        window.failures = window.failures.saturating_add(1);
        let half_of_many = window.commands >= self.policy.sample
            && window.failures.saturating_mul(2) >= window.commands;
        // Commands that were under way when it opened are no reason to stay open for longer.
        let opens = state.open_since.is_none() && (in_a_row || half_of_many);
        if opens {
            state.open_since = Some(now);
            state.lengthen();
        }
        opens
    }

    /// Returns how long an open breaker waits for its next probe.
    pub(super) fn pause(&self) -> Option<Duration> {
        let state = self.state.lock();
        let doublings = state.trips.saturating_sub(1);
        let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
        let pause = self.policy.pause.saturating_mul(factor);
        state
            .open_since
            .map(|_| pause.min(self.policy.longest_pause))
    }

    /// Notes that a probe failed, which makes the next pause longer.
    pub(super) fn stay_open(&self) {
        let mut state = self.state.lock();
        if state.open_since.is_some() {
            state.lengthen();
        }
    }

    /// Lets commands pass again, and returns whether it did not before. Should they fail, the next
    /// pause is longer than the last.
    pub(super) fn close(&self) -> bool {
        let mut state = self.state.lock();
        state.consecutive = 0;
        state.window = None;
        state.open_since.take().is_some()
    }
}

impl State {
    fn lengthen(&mut self) {
        self.trips = self.trips.saturating_add(1);
    }

    /// Counts a command in the present window.
    fn count(&mut self, now: Instant, policy: &BreakerPolicy) -> &mut Window {
        let fresh = Window {
            began: now,
            commands: 0,
            failures: 0,
        };
        let window = self.window.get_or_insert(fresh);
        if now.saturating_duration_since(window.began) >= policy.window {
            (window.began, window.commands, window.failures) = (now, 0, 0);
        }
        window.commands = window.commands.saturating_add(1);
        window
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn breaker() -> (Breaker, Instant) {
        (Breaker::new(BreakerPolicy::default()), Instant::now())
    }

    fn fail(breaker: &Breaker, now: Instant, times: u32) {
        for _ in 0..times {
            breaker.failed(now);
        }
    }

    #[test]
    fn five_failures_in_a_row_open_it_and_four_do_not() {
        let (breaker, now) = breaker();
        fail(&breaker, now, 4);
        breaker.succeeded(now);
        fail(&breaker, now, 4);
        assert!(!breaker.is_open());
        assert!(breaker.failed(now), "and says so");
        assert!(breaker.is_open());
        assert!(!breaker.failed(now), "once");
    }

    #[test]
    fn half_of_twenty_commands_failing_within_a_second_open_it() {
        let (breaker, now) = breaker();
        for step in 0..19 {
            assert!(!breaker.is_open(), "{step}");
            if step % 2 == 0 {
                breaker.failed(now);
            } else {
                breaker.succeeded(now);
            }
        }
        breaker.failed(now);
        assert!(breaker.is_open());
    }

    #[test]
    fn failures_of_an_earlier_second_do_not_count() {
        let (breaker, start) = breaker();
        for second in 0..30 {
            let now = start + Duration::from_secs(second);
            fail(&breaker, now, 4);
            (0..5).for_each(|_| breaker.succeeded(now));
        }
        assert!(!breaker.is_open());
    }

    #[test]
    fn pauses_double_to_their_limit_until_a_command_succeeds() {
        let (breaker, now) = breaker();
        assert_eq!(breaker.pause(), None);
        for seconds in [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0] {
            fail(&breaker, now, 5);
            assert_eq!(breaker.pause(), Some(Duration::from_secs_f32(seconds)));
            assert!(breaker.close() && !breaker.close());
        }
        breaker.succeeded(now);
        fail(&breaker, now, 5);
        assert_eq!(breaker.pause(), Some(Duration::from_millis(500)));
        breaker.stay_open();
        assert_eq!(breaker.pause(), Some(Duration::from_secs(1)));
    }

    #[test]
    fn a_probe_that_fails_while_it_is_closed_changes_nothing() {
        let (breaker, _) = breaker();
        breaker.stay_open();
        assert!(!breaker.is_open());
    }

    proptest! {
        #[test]
        fn while_open_it_always_names_a_pause_within_bounds(steps: Vec<u8>) {
            let (breaker, mut now) = breaker();
            for step in steps {
                match step % 4 {
                    0 => breaker.succeeded(now),
                    1 => _ = breaker.failed(now),
                    2 => breaker.stay_open(),
                    _ => _ = breaker.close(),
                }
                now += Duration::from_millis(u64::from(step));
                let pause = breaker.pause();
                prop_assert_eq!(breaker.is_open(), pause.is_some());
                let bounds = Duration::from_millis(500)..=Duration::from_secs(10);
                prop_assert!(pause.is_none_or(|pause| bounds.contains(&pause)));
            }
        }
    }
}
