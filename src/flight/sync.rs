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
    use std::time::Duration;

    pub(in crate::flight) use parking_lot::Mutex;
    use tokio::runtime::Handle;
    use tokio::time::{Sleep, sleep};

    pub(in crate::flight) type Timer = Pin<Box<Sleep>>;

    /// Returns a timer that ends after `limit`; `None` outside a tokio runtime, where none would.
    pub(in crate::flight) fn timer(limit: Duration) -> Option<Timer> {
        Handle::try_current()
            .is_ok()
            .then(|| Box::pin(sleep(limit)))
    }
}

#[cfg(all(test, shuttle))]
mod tried {
    use std::pin::Pin;
    use std::sync::PoisonError;
    use std::time::Duration;

    use shuttle::future::yield_now;
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
    }

    pub(in crate::flight) type Timer = Pin<Box<dyn Future<Output = ()> + Send>>;

    /// Returns a timer of as many turns of the scheduler as `limit` has milliseconds; none of a
    /// second and more, so that whoever is not woken is seen to be lost.
    pub(in crate::flight) fn timer(limit: Duration) -> Option<Timer> {
        (limit < Duration::from_secs(1)).then(|| -> Timer {
            Box::pin(async move {
                for _ in 0..limit.as_millis() {
                    yield_now().await;
                }
            })
        })
    }
}
