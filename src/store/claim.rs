//! Which of the processes that share a store fetches what none of them has.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::BoxFuture;

/// Who fetches what was wanted and is not stored.
///
/// It saves calls of the handler and decides about nothing else: two processes that both fetch,
/// because a lock was lost, store responses of which both are good.
#[derive(Debug)]
pub enum Claim {
    /// The one who asked, for all others.
    Granted(FillLock),
    /// Another process.
    Elsewhere(FillWait),
    /// Everyone for themselves: what was fetched lately was of use to nobody else.
    Uncacheable,
}

/// How a fetch ended for those who wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// What was fetched is stored, or never will be: look it up again.
    Released,
    /// It is of no use to others: do not wait.
    Uncacheable,
}

/// Keeps other processes from fetching the same, for as long as it is held.
///
/// It is held until the response is stored. Dropped, it lets those who wait look again, and one of
/// them fetch if there is nothing. Should this process die or hang, the store lets go of it by
/// itself.
#[must_use]
pub struct FillLock(Option<Settle>);

type Settle = Box<dyn FnOnce(Settled) + Send + Sync>;

impl FillLock {
    /// Makes a lock that calls `settle`, once, when it ends.
    ///
    /// That must not block; a store whose lock is far away leaves the rest to a task.
    pub fn new(settle: impl FnOnce(Settled) + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(settle)))
    }

    /// Returns a lock that keeps nobody from anything.
    pub fn none() -> Self {
        Self(None)
    }

    /// Ends the lock and lets those who wait, and those who come shortly after, all fetch at once.
    pub fn uncacheable(mut self) {
        self.settle(Settled::Uncacheable);
    }

    fn settle(&mut self, how: Settled) {
        if let Some(settle) = self.0.take() {
            settle(how);
        }
    }
}

impl Drop for FillLock {
    fn drop(&mut self) {
        self.settle(Settled::Released);
    }
}

impl fmt::Debug for FillLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.0.is_some() { "held" } else { "none" };
        f.debug_tuple("FillLock").field(&kind).finish()
    }
}

/// A wait for the fetch of another process.
///
/// It lasts as long as that fetch, and is to be given a limit. A store that cannot be asked any
/// more ends it. Dropped, it leaves nothing behind.
#[must_use]
pub struct FillWait(BoxFuture<'static, Settled>);

impl FillWait {
    /// Makes a wait of the future that ends with the fetch.
    pub fn new(settled: impl Future<Output = Settled> + Send + 'static) -> Self {
        Self(Box::pin(settled))
    }
}

impl Future for FillWait {
    type Output = Settled;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Settled> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for FillWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FillWait").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[test]
    fn a_lock_is_settled_once_however_it_ends() {
        let settled = Arc::new(Mutex::new(Vec::new()));
        let lock = || {
            let settled = Arc::clone(&settled);
            FillLock::new(move |how| settled.lock().push(how))
        };
        drop(lock());
        lock().uncacheable();
        FillLock::none().uncacheable();
        assert_eq!(*settled.lock(), [Settled::Released, Settled::Uncacheable]);
    }
}
