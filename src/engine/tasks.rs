//! Work that goes on when the request is over.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

/// The tasks that a cache has spawned.
#[derive(Debug, Default)]
pub(crate) struct Tasks(TaskTracker);

impl Tasks {
    /// Carries `future` on to its end: at once if it has nothing to wait for, else in a task.
    ///
    /// Outside a runtime nothing that waits can go on; the future is dropped.
    pub(super) fn finish(&self, future: impl Future<Output = ()> + Send + 'static) {
        let mut future: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(future);
        // The task polls anew and leaves its own waker.
        let polled = future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        if polled == Poll::Pending
            && let Ok(runtime) = Handle::try_current()
        {
            self.0.spawn_on(future, &runtime);
        }
    }

    /// Runs `future` in a task that a shutdown waits for.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        if let Ok(runtime) = Handle::try_current() {
            self.0.spawn_on(future, &runtime);
        }
    }

    /// Runs `future` in a task that a shutdown does not wait for.
    pub(super) fn spawn_aside(&self, future: impl Future<Output = ()> + Send + 'static) {
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(future);
        }
    }

    /// Waits until every task is done, at most for `limit`. Returns whether they are.
    pub(super) async fn drain(&self, limit: Duration) -> bool {
        self.0.close();
        tokio::time::timeout(limit, self.0.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn what_is_ready_is_done_at_once_and_needs_no_runtime() {
        let done = Arc::new(AtomicBool::new(false));
        let set = Arc::clone(&done);
        Tasks::default().finish(async move { set.store(true, Ordering::SeqCst) });
        assert!(done.load(Ordering::SeqCst));
    }

    #[test]
    fn what_waits_outside_a_runtime_is_dropped_in_silence() {
        Tasks::default().finish(std::future::pending());
    }

    #[tokio::test(start_paused = true)]
    async fn draining_waits_for_what_is_under_way_and_no_longer_than_its_limit() {
        let tasks = Tasks::default();
        tasks.finish(tokio::time::sleep(Duration::from_secs(1)));
        assert!(!tasks.drain(Duration::from_millis(10)).await);
        assert!(tasks.drain(Duration::from_secs(2)).await);
    }
}
