//! What the connections of a store report to those who look after all of them.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Where connections say that something is not as it was.
#[derive(Debug)]
pub(crate) struct Bulletin {
    generation: AtomicU64,
    alarm: Notify,
}

impl Bulletin {
    pub(crate) fn new() -> Self {
        Self {
            generation: AtomicU64::new(1),
            alarm: Notify::new(),
        }
    }

    /// Counts, from one, how often a server may have lost what it was told.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Notes that a server may have lost what it was told, or that another takes its place; returns
    /// the generation that begins.
    pub(crate) fn lost(&self) -> u64 {
        let former = self.generation.fetch_add(1, Ordering::AcqRel);
        self.alarm.notify_one();
        former.saturating_add(1)
    }

    /// Notes that a server has not what it was asked for, but another.
    pub(crate) fn strayed(&self) {
        self.alarm.notify_one();
    }

    /// Waits until something is noted.
    pub(crate) async fn alarm(&self) {
        self.alarm.notified().await;
    }
}
