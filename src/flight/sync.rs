//! What this room locks, counts and waits with: the real things, or those of which `shuttle` tries
//! all orders.

#[cfg(not(all(test, shuttle)))]
pub(super) use self::real::{AtomicUsize, Mutex, Timer, timer};
#[cfg(all(test, shuttle))]
pub(super) use self::tried::{AtomicUsize, Mutex, Timer, timer};

#[cfg(not(all(test, shuttle)))]
mod real {
    use std::pin::Pin;
    pub(in crate::flight) use std::sync::atomic::AtomicUsize;
    use std::task::{Context, Poll};
    use std::time::Duration;

    pub(in crate::flight) use parking_lot::Mutex;
    use tokio::runtime::Handle;
    use tokio::time::{Sleep, sleep};

    pub(in crate::flight) struct Timer {
        limit: Duration,
        sleep: Pin<Box<Sleep>>,
    }

    /// Returns a timer that ends after `limit`; `None` outside a tokio runtime, where none would.
    pub(in crate::flight) fn timer(limit: Duration) -> Option<Timer> {
        Handle::try_current().is_ok().then(|| Timer {
            limit,
            sleep: Box::pin(sleep(limit)),
        })
    }

    impl Timer {
        /// Returns how long it has still to run, by the clock that ends it.
        pub(in crate::flight) fn rest(&self) -> Duration {
            let started = self.sleep.deadline().checked_sub(self.limit);
            let run = started.map_or(Duration::ZERO, |started| started.elapsed());
            self.limit.saturating_sub(run)
        }
    }

    impl Future for Timer {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            self.sleep.as_mut().poll(cx)
        }
    }
}

#[cfg(all(test, shuttle))]
mod tried {
    use std::pin::Pin;
    use std::sync::PoisonError;
    use std::task::{Context, Poll};
    use std::time::Duration;

    pub(in crate::flight) use shuttle::sync::atomic::AtomicUsize;
    use shuttle::sync::{self, MutexGuard};

    /// A mutex without poison, like the real one.
    #[derive(Default)]
    pub(in crate::flight) struct Mutex<T>(sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(in crate::flight) fn new(value: T) -> Self {
            Self(sync::Mutex::new(value))
        }

        pub(in crate::flight) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }

        pub(in crate::flight) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }

    /// A timer of as many turns of the scheduler as its limit has milliseconds; one of a second and
    /// more does not end, so that whoever is not woken is seen to be lost.
    pub(in crate::flight) struct Timer {
        turns: u128,
    }

    pub(in crate::flight) fn timer(limit: Duration) -> Option<Timer> {
        Some(Timer {
            turns: limit.as_millis(),
        })
    }

    impl Timer {
        pub(in crate::flight) fn rest(&self) -> Duration {
            Duration::from_millis(self.turns.try_into().unwrap_or(u64::MAX))
        }
    }

    impl Future for Timer {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            match self.turns {
                0 => return Poll::Ready(()),
                1..1000 => {
                    self.turns -= 1;
                    cx.waker().wake_by_ref();
                }
                _ => {}
            }
            Poll::Pending
        }
    }
}
