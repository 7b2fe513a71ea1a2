//! Waiting for the server to tell of a lock.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::Tracker;
use crate::store::redis::layout::Name;

/// The locks that somebody waits for.
#[derive(Debug, Default)]
pub(super) struct Watches(Mutex<HashMap<Box<[u8]>, CancellationToken>>);

impl Watches {
    /// Ends the waits for one lock.
    pub(super) fn end(&self, name: &[u8]) {
        if let Some(told) = self.0.lock().remove(name) {
            told.cancel();
        }
    }

    /// Ends all waits.
    pub(super) fn end_all(&self) {
        for (_, told) in self.0.lock().drain() {
            told.cancel();
        }
    }
}

/// A wait for what the server tells of one lock; begun before the lock is read.
pub(crate) struct Watch {
    tracker: Arc<Tracker>,
    name: Name,
    told: CancellationToken,
}

impl Watch {
    pub(super) fn begin(tracker: &Arc<Tracker>, name: &Name) -> Self {
        let mut watches = tracker.watches.0.lock();
        let told = watches.entry(name.as_bytes().into()).or_default().clone();
        Self {
            tracker: Arc::clone(tracker),
            name: name.clone(),
            told,
        }
    }

    /// Waits until the lock may have ended, or nobody would tell.
    pub(crate) async fn told(&self) {
        self.told.cancelled().await;
    }
}

impl Drop for Watch {
    /// Who leaves untold lets others who wait for the same lock look once more, for nothing.
    fn drop(&mut self) {
        if !self.told.is_cancelled() {
            self.tracker.watches.end(self.name.as_bytes());
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}
