//! How long a source is held back for readers that are behind.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::flight::sync::{Timer, timer};

/// A limited time of waiting, spent in as many pieces as it takes; and then one turn of all tasks
/// each time, for readers that are behind only because it is not their turn yet.
pub(super) struct Patience {
    rest: Duration,
    /// Set while somebody waits.
    timer: Option<Timer>,
    /// Whether that one turn is being waited for.
    last_turn: bool,
}

impl Patience {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            rest: limit,
            timer: None,
            last_turn: false,
        }
    }

    /// Goes on waiting; ready when there is no patience left, and all have been woken.
    ///
    /// Outside a tokio runtime no time is spent: nothing would end the wait.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.timer.is_none() && !self.rest.is_zero() {
            self.timer = timer(self.rest);
        }
        if let Some(timer) = &mut self.timer {
            ready!(Pin::new(timer).poll(cx));
        }
        (self.rest, self.timer) = (Duration::ZERO, None);
        self.last_turn = !self.last_turn;
        if self.last_turn {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Stops waiting, and keeps what is left for another time.
    pub(super) fn pause(&mut self) {
        self.last_turn = false;
        if let Some(timer) = self.timer.take() {
            self.rest = timer.rest();
        }
    }
}
