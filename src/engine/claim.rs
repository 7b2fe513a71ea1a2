//! One of the processes that share a store fetches for all.

use std::time::Duration;

use http::{HeaderMap, Response};

use super::collapse::Landing;
use super::forward::{self, Forward};
use super::respond::Content;
use super::tasks::within;
use crate::store::{Claim, FillWait, Outcome, Settled};

/// The longest wait for another process; the store may have lost sight of it.
const LONGEST_WAIT: Duration = Duration::from_secs(3);

impl Forward {
    /// Claims the fetch, and waits for the process that has it; returns what that has brought.
    ///
    /// Those who follow here wait meanwhile, and get the same.
    pub(crate) async fn claim(&mut self, request: &HeaderMap) -> Option<Response<Content>> {
        if self.asks_to_confirm() {
            // That is cheap for the handler, and no second wait for the store is worth it.
            return None;
        }
        let limit = self.exchange.engine.options.collapse_wait.min(LONGEST_WAIT);
        // Another one may come first again, but not for ever.
        for _ in 0..2 {
            let wait = self.claimed_elsewhere(request).await?;
            match within(limit, wait).await {
                Some(Settled::Released) => {}
                Some(Settled::Uncacheable) => {
                    self.ground(true);
                    return None;
                }
                None => return None,
            }
            let brought = self.brought_elsewhere(request).await;
            if brought.is_some() {
                return brought;
            }
        }
        None
    }

    /// Claims a refresh; returns whether another process has it.
    pub(crate) async fn is_fetched_elsewhere(&mut self, request: &HeaderMap) -> bool {
        let elsewhere = self.claimed_elsewhere(request).await.is_some();
        if elsewhere && let Some(refreshing) = self.refreshing.take() {
            refreshing.succeeded();
        }
        elsewhere
    }

    async fn claimed_elsewhere(&mut self, request: &HeaderMap) -> Option<FillWait> {
        let (exchange, lead) = (&self.exchange, self.lead.as_mut()?);
        let captured = self.captured.take()?;
        let store = &exchange.engine.store;
        let claim = store.claim(exchange.wanted(request), &exchange.scopes, Some(captured));
        match claim.await {
            Ok((captured, claim)) => {
                self.captured = Some(captured);
                match claim {
                    Claim::Granted(lock) => lead.hold(lock),
                    Claim::Elsewhere(wait) => return Some(wait),
                    Claim::Uncacheable => self.ground(true),
                }
            }
            Err(error) => exchange.store_failed(&error, "claim"),
        }
        None
    }

    /// Answers with what another process has stored, and gives it to those who follow.
    async fn brought_elsewhere(&mut self, request: &HeaderMap) -> Option<Response<Content>> {
        let found = self.exchange.ask_store(request).await.ok()?;
        if found.captured.is_some() {
            self.captured = found.captured;
        }
        let Outcome::Response(stored) = found.outcome else {
            return None;
        };
        let response = self.share(&stored, None, request)?;
        self.exchange.counters().collapsed();
        // Whether a tag that only the response names is invalidated, the store alone knows.
        let scopes = &self.exchange.scopes;
        let is_known = forward::tags_of(&stored).all(|tag| scopes.contains(&tag));
        let landing = match is_known {
            true => Landing::Response(stored, None),
            false => Landing::Stored,
        };
        drop(self.lead.take().map(|lead| lead.land(landing)));
        Some(response)
    }
}
