//! How long a source is held back for readers that are behind.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::flight::sync::{Timer, timer};

/// A limited time of waiting, spent in as many pieces as it takes.
pub(super) struct Patience {
    rest: Duration,
    /// Set while somebody waits.
    timer: Option<Timer>,
}

impl Patience {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            rest: limit,
            timer: None,
        }
    }

    /// Goes on waiting; ready when all of the time is spent.
    ///
    /// Outside a tokio runtime that is at once: nothing would end the wait.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.timer.is_none() && !self.rest.is_zero() {
            self.timer = timer(self.rest);
        }
        if let Some(timer) = &mut self.timer {
            ready!(Pin::new(timer).poll(cx));
        }
        *self = Self::new(Duration::ZERO);
        Poll::Ready(())
    }

    /// Stops waiting, and keeps what is left for another time.
    pub(super) fn pause(&mut self) {
        if let Some(timer) = self.timer.take() {
            self.rest = timer.rest();
        }
    }
}
