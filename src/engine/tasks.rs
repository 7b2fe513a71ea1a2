//! Work that goes on when the request is over.

use std::future::{Future, pending, poll_fn};
use std::panic::resume_unwind;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Sleep, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The tasks that a cache has spawned.
///
/// Futures are boxed before anything is made of them: each `async` around one holds it twice.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    /// Ends those for which nobody waits.
    end: CancellationToken,
}

impl Tasks {
    /// Carries `future` on to its end: at once if it has nothing to wait for, else in a task.
    ///
    /// Outside a runtime nothing that waits can go on; the future is dropped.
    pub(super) fn finish(&self, future: impl Future<Output = ()> + Send + 'static) {
        let mut future: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(future);
        if poll_once(future.as_mut()).is_pending()
            && let Ok(runtime) = Handle::try_current()
        {
            self.spawn_until_end(future, &runtime);
        }
    }

    /// Whether there is a runtime to spawn tasks on.
    pub(super) fn can_spawn(&self) -> bool {
        Handle::try_current().is_ok()
    }

    /// Carries `future` on in a task of its own, unless it is ready at once. If its caller goes
    /// away, it has `limit` to come to its end.
    ///
    /// A panic in the task is one in its caller.
    pub(crate) fn carry<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
        limit: Duration,
    ) -> impl Future<Output = T> + Send {
        let mut future = Box::pin(future);
        async move {
            if let Poll::Ready(value) = poll_once(future.as_mut()) {
                return value;
            }
            let Ok(runtime) = Handle::try_current() else {
                return future.await;
            };
            let carried = Carried {
                task: Some(self.tracker.spawn_on(future, &runtime)),
                limit,
                end: self.end.clone(),
                runtime,
            };
            match carried.await {
                Ok(value) => value,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => resume_unwind(panic),
                    // The runtime shuts down, and this task with it.
                    Err(_) => pending().await,
                },
            }
        }
    }

    /// Runs `future` for at most `limit`, in a task that a shutdown waits for.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static, limit: Duration) {
        if let Ok(runtime) = Handle::try_current() {
            let future = Box::pin(future);
            let limited = async move { drop(timeout(limit, future).await) };
            self.spawn_until_end(limited, &runtime);
        }
    }

    fn spawn_until_end(&self, future: impl Future<Output = ()> + Send + 'static, on: &Handle) {
        let end = self.end.clone();
        let ended = async move { end.run_until_cancelled(future).await.unwrap_or_default() };
        self.tracker.spawn_on(ended, on);
    }

    /// Runs `future` in a task that a shutdown does not wait for.
    pub(super) fn spawn_aside(&self, future: impl Future<Output = ()> + Send + 'static) {
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(future);
        }
    }

    /// Waits until every task is done, at most for `limit`; then ends those in the background.
    /// Returns whether all were done.
    pub(super) async fn drain(&self, limit: Duration) -> bool {
        self.tracker.close();
        let done = timeout(limit, self.tracker.wait()).await.is_ok();
        self.end.cancel();
        done
    }
}

/// Waits for `future`, at most for `limit`; without one outside a runtime.
///
/// What is ready at once needs no timer.
pub(super) async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let (mut future, mut alarm) = (pin!(future), pin!(None::<Sleep>));
    poll_fn(|cx| {
        if let Poll::Ready(value) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(value));
        }
        if alarm.is_none() && Handle::try_current().is_ok() {
            alarm.set(Some(sleep(limit)));
        }
        match alarm.as_mut().as_pin_mut() {
            Some(alarm) => alarm.poll(cx).map(|()| None),
            None => Poll::Pending,
        }
    })
    .await
}

/// Waits for two futures at once, of which `first` is polled first.
pub(super) async fn both<A, B>(
    first: impl Future<Output = A>,
    second: impl Future<Output = B>,
) -> (A, B) {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let (mut came, mut came_too) = (None, None);
    poll_fn(|cx| {
        if came.is_none() {
            came = ready_or_none(first.as_mut().poll(cx));
        }
        if came_too.is_none() {
            came_too = ready_or_none(second.as_mut().poll(cx));
        }
        match (came.take(), came_too.take()) {
            (Some(first), Some(second)) => Poll::Ready((first, second)),
            (first, second) => {
                (came, came_too) = (first, second);
                Poll::Pending
            }
        }
    })
    .await
}

fn ready_or_none<T>(polled: Poll<T>) -> Option<T> {
    match polled {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// Polls for nobody: the task that takes the future over polls anew and leaves its own waker.
fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// A task that somebody waits for; dropped before its end, it has so long, or until a shutdown
/// ends what nobody waits for.
struct Carried<T: Send + 'static> {
    /// Taken when this is dropped.
    task: Option<JoinHandle<T>>,
    limit: Duration,
    end: CancellationToken,
    runtime: Handle,
}

impl<T: Send + 'static> Future for Carried<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.task {
            Some(task) => Pin::new(task).poll(cx),
            None => Poll::Pending,
        }
    }
}

impl<T: Send + 'static> Drop for Carried<T> {
    fn drop(&mut self) {
        if let Some(task) = self.task.take_if(|task| !task.is_finished()) {
            let (abort, limit, end) = (task.abort_handle(), self.limit, self.end.clone());
            // It does not outlive the task, of which there may be many a second.
            self.runtime.spawn(async move {
                let ended = end.run_until_cancelled(timeout(limit, task)).await;
                if !matches!(ended, Some(Ok(_))) {
                    abort.abort();
                }
            });
        }
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

    /// Carries `future` on, and goes away before its end.
    fn leave(tasks: &Tasks, future: impl Future<Output = ()> + Send + 'static) {
        let mut carried = Box::pin(tasks.carry(future, Duration::from_secs(1)));
        assert!(poll_once(carried.as_mut()).is_pending());
    }

    #[tokio::test(start_paused = true)]
    async fn what_its_caller_has_left_is_carried_on_and_nothing_outlives_it() {
        let (tasks, done) = (Tasks::default(), Arc::new(AtomicBool::new(false)));
        let set = Arc::clone(&done);
        leave(&tasks, async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            set.store(true, Ordering::SeqCst);
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(done.load(Ordering::SeqCst));
        assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_its_caller_has_left_is_ended_after_its_limit() {
        let (tasks, held) = (Tasks::default(), Arc::new(()));
        let inside = Arc::clone(&held);
        leave(&tasks, async move {
            pending::<()>().await;
            drop(inside);
        });
        tokio::time::sleep(Duration::from_millis(990)).await;
        assert_eq!(Arc::strong_count(&held), 2);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn draining_waits_for_what_is_under_way_and_no_longer_than_its_limit() {
        let tasks = Tasks::default();
        tasks.finish(tokio::time::sleep(Duration::from_secs(1)));
        assert!(tasks.drain(Duration::from_secs(2)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_done_by_the_limit_is_ended() {
        let tasks = Tasks::default();
        let held = Arc::new(());
        for spawned in [true, false] {
            let held = Arc::clone(&held);
            let hangs = async move {
                pending::<()>().await;
                drop(held);
            };
            match spawned {
                true => tasks.spawn(hangs, Duration::MAX),
                false => tasks.finish(hangs),
            }
        }
        let inside = Arc::clone(&held);
        leave(&tasks, async move {
            pending::<()>().await;
            drop(inside);
        });
        assert!(!tasks.drain(Duration::from_millis(10)).await);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
