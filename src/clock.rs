//! The only reader of time.
//!
//! Inside the process everything is measured on the monotonic clock, so a wall
//! clock that jumps neither revives nor kills what is stored here. The wall
//! clock serves two ends: the `Date` arithmetic of RFC 9111 §4.2.3 when a
//! response arrives, and the age of entries that another process wrote.

use std::time::{Instant, SystemTime};

#[cfg(any(test, feature = "test-util"))]
pub use manual::ManualClock;

/// Where a cache reads the time.
#[derive(Clone, Debug, Default)]
pub struct Clock(Source);

#[derive(Clone, Debug, Default)]
enum Source {
    #[default]
    System,
    #[cfg(any(test, feature = "test-util"))]
    Manual(ManualClock),
}

impl Clock {
    /// The system's clocks; what a cache uses unless told otherwise.
    pub fn system() -> Self {
        Self::default()
    }

    /// Returns the monotonic time.
    pub fn now(&self) -> Instant {
        match &self.0 {
            Source::System => Instant::now(),
            #[cfg(any(test, feature = "test-util"))]
            Source::Manual(clock) => clock.now(),
        }
    }

    /// Returns the wall clock's time.
    pub fn wall(&self) -> SystemTime {
        match &self.0 {
            Source::System => SystemTime::now(),
            #[cfg(any(test, feature = "test-util"))]
            Source::Manual(clock) => clock.wall(),
        }
    }
}

#[cfg(any(test, feature = "test-util"))]
mod manual {
    use std::sync::Arc;
    use std::time::{Duration, Instant, SystemTime};

    use parking_lot::Mutex;

    use crate::clock::{Clock, Source};

    /// A clock that stands still until it is moved; clones share the hands.
    #[derive(Clone, Debug)]
    pub struct ManualClock(Arc<Mutex<Hands>>);

    #[derive(Debug)]
    struct Hands {
        now: Instant,
        wall: SystemTime,
    }

    impl ManualClock {
        /// Starts at the system's present time.
        pub fn new() -> Self {
            Self(Arc::new(Mutex::new(Hands {
                now: Instant::now(),
                wall: SystemTime::now(),
            })))
        }

        /// Returns the [`Clock`] that reads these hands.
        pub fn clock(&self) -> Clock {
            Clock(Source::Manual(self.clone()))
        }

        /// Moves the monotonic and the wall clock on together.
        pub fn advance(&self, by: Duration) {
            let mut hands = self.0.lock();
            hands.now += by;
            hands.wall += by;
        }

        /// Sets the wall clock alone, as an operator or NTP would.
        pub fn set_wall(&self, wall: SystemTime) {
            self.0.lock().wall = wall;
        }

        pub(super) fn now(&self) -> Instant {
            self.0.lock().now
        }

        pub(super) fn wall(&self) -> SystemTime {
            self.0.lock().wall
        }
    }

    impl Default for ManualClock {
        fn default() -> Self {
            Self::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_jump_of_the_wall_clock_leaves_monotonic_time_alone() {
        let hands = ManualClock::new();
        let clock = hands.clock();
        let before = clock.now();
        hands.advance(Duration::from_secs(5));
        hands.set_wall(SystemTime::UNIX_EPOCH);
        assert_eq!(clock.now() - before, Duration::from_secs(5));
        assert_eq!(clock.wall(), SystemTime::UNIX_EPOCH);
    }
}
