//! How long the handler is waited for, and what a request gets in its stead.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use http::{HeaderMap, Response};

use super::Forward;
use super::respond::{self, Content};
use super::tasks::within;
use crate::semantics::reuse::Failure;

/// A stale answer for a request that will not wait for long.
#[derive(Debug)]
pub(crate) struct StandIn {
    after: Duration,
    /// What the request would be, had the handler failed.
    forward: Box<Forward>,
}

impl StandIn {
    /// Waits for `answer`; `Err` if there is something to answer with before it comes.
    ///
    /// `answer` is dropped then.
    pub(crate) async fn unless<T>(
        self,
        answer: impl Future<Output = T>,
    ) -> Result<T, Response<Content>> {
        let mut answer = pin!(answer);
        match within(self.after, answer.as_mut()).await {
            Some(answer) => Ok(answer),
            None => match self.forward.stale(Failure::Unreachable) {
                Some(stale) => Err(stale),
                None => Ok(answer.await),
            },
        }
    }
}

impl Forward {
    /// Returns what can stand in for the handler's answer, if the rule wants that.
    pub(crate) fn stand_in(&self, request: &HeaderMap) -> Option<StandIn> {
        let after = self.rule()?.soft_handler_timeout?;
        let selected = self.selected.clone()?;
        let mut forward = Self::new(
            self.exchange.clone(),
            self.why,
            [selected].into_iter().collect(),
            None,
            None,
        );
        forward.client.clone_from(request);
        Some(StandIn {
            after,
            forward: Box::new(forward),
        })
    }

    /// Waits for the handler's `answer` as long as the rule allows; `None` if that is not enough.
    pub(crate) async fn bounded<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        match self.rule().and_then(|rule| rule.handler_timeout) {
            Some(limit) => within(limit, answer).await,
            None => Some(answer.await),
        }
    }

    /// Answers for a handler that has taken too long.
    pub(crate) fn timed_out(&self) -> Response<Content> {
        tracing::debug!("the handler has not answered in time");
        self.failed()
            .unwrap_or_else(|| respond::gateway_timeout("the handler has not answered in time\n"))
    }
}
