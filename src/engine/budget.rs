//! How long a request waits for the store, all in all.

use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use super::tasks::within;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind};

/// What is left of the time that a request may wait for the store before its handler is called, or
/// its answer given. What it waits for others, or for its own content, does not count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    left: Duration,
}

impl Budget {
    pub(super) fn new(left: Duration) -> Self {
        Self { left }
    }

    /// Waits for `asked`, which ends by itself within `longest`; `None` if there is no time left, or
    /// not enough.
    ///
    /// What is ready at once reads no clock, and what ends in time by itself sets no timer.
    pub(super) async fn wait<T>(
        &mut self,
        clock: &Clock,
        longest: Duration,
        asked: impl Future<Output = T>,
    ) -> Option<T> {
        if self.left.is_zero() {
            // Not even begun: who is asked and not heard to the end might take a lock for nobody.
            return None;
        }
        let (mut asked, mut began) = (pin!(asked), None);
        let asked = poll_fn(|cx| {
            let polled = asked.as_mut().poll(cx);
            if polled.is_pending() {
                began.get_or_insert_with(|| clock.now());
            }
            polled
        });
        let answer = match longest <= self.left {
            true => Some(asked.await),
            false => within(self.left, asked).await,
        };
        let waited = match (&answer, began) {
            (Some(_), None) => Duration::ZERO,
            (Some(_), Some(began)) => clock.now().saturating_duration_since(began),
            (None, _) => self.left,
        };
        self.left = self.left.saturating_sub(waited);
        answer
    }

    /// Says that there was no time left.
    pub(super) fn exceeded() -> Error {
        Error::new(
            ErrorKind::Timeout,
            "the request has waited for the store as long as it may",
        )
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::clock::ManualClock;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn waits_add_up_to_the_budget_and_no_further() {
        let hands = ManualClock::new();
        let clock = hands.clock();
        let began = Instant::now();
        let mut budget = Budget::new(3 * SECOND);
        for _ in 0..2 {
            let asked = async {
                sleep(SECOND).await;
                hands.advance(SECOND);
            };
            assert_eq!(budget.wait(&clock, SECOND, asked).await, Some(()));
        }
        let slow = sleep(5 * SECOND);
        assert_eq!(budget.wait(&clock, 5 * SECOND, slow).await, None);
        assert_eq!(began.elapsed(), 3 * SECOND);
        let asked = async { panic!("there is no time left for it") };
        assert_eq!(budget.wait::<()>(&clock, SECOND, asked).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_ends_in_time_by_itself_is_believed_to() {
        let clock = ManualClock::new().clock();
        let mut budget = Budget::new(SECOND);
        let (began, asked) = (Instant::now(), sleep(2 * SECOND));
        assert_eq!(budget.wait(&clock, SECOND, asked).await, Some(()));
        assert_eq!(began.elapsed(), 2 * SECOND, "no timer was set");
        assert_eq!(budget.wait(&clock, SECOND, async {}).await, Some(()));
    }
}
