//! One of the processes that share a store fetches for all.

use std::time::Duration;

use http::{HeaderMap, Response};

use super::Exchange;
use super::budget::Budget;
use super::collapse::Landing;
use super::forward::{self, Forward};
use super::respond::Content;
use super::tasks::{both, within};
use crate::reason::Miss;
use crate::store::{Claim, FillWait, Found, Outcome, Settled};

/// The longest wait for other processes; the store may have lost sight of them.
const LONGEST_WAIT: Duration = Duration::from_secs(3);

impl Forward {
    /// Claims the fetch, and waits for the process that has it; returns what that has brought.
    ///
    /// Those who follow here wait meanwhile, and get the same.
    pub(crate) async fn claim(&mut self, request: &HeaderMap) -> Option<Response<Content>> {
        if self.selected.is_some() && !self.nominated.is_empty() {
            // To confirm what is selected is cheap for the handler, and no second wait for the
            // store is worth it. For a new variant it usually makes a whole response.
            return None;
        }
        let options = &self.exchange.engine.options;
        let clock = options.clock.clone();
        let deadline = clock.now() + options.collapse_wait.min(LONGEST_WAIT);
        // Another one may come first again, but not for ever.
        for _ in 0..2 {
            let wait = match self.claimed_elsewhere(request).await {
                (Some(wait), _) => wait,
                (None, found) => return self.brought(found?, request),
            };
            let left = deadline.saturating_duration_since(clock.now());
            match within(left, wait).await {
                Some(Settled::Released) => {}
                Some(Settled::Uncacheable) => {
                    self.ground(true);
                    return None;
                }
                None => return None,
            }
            let found = self.exchange.ask_store(request).await.ok()?;
            let brought = self.brought(found, request);
            if brought.is_some() {
                return brought;
            }
        }
        None
    }

    /// Claims a refresh, and lets others wait for it; returns whether another request has it, here
    /// or in another process.
    pub(crate) async fn is_fetched_elsewhere(&mut self, request: &HeaderMap) -> bool {
        if self.captured.is_none() {
            self.captured = self.exchange.capture().await;
        }
        let elsewhere =
            self.is_led_by_another() || self.claimed_elsewhere(request).await.0.is_some();
        if elsewhere && let Some(refreshing) = self.refreshing.take() {
            refreshing.succeeded();
        }
        elsewhere
    }

    /// Claims the fetch; returns a wait for the process that has it, or what is there now.
    ///
    /// Where there was nothing, whoever had the claim before may have stored something since. To
    /// look costs no time if the store is asked both at once, the claim first.
    async fn claimed_elsewhere(
        &mut self,
        request: &HeaderMap,
    ) -> (Option<FillWait>, Option<Found>) {
        let (Some(lead), Some(captured)) = (&mut self.lead, &self.captured) else {
            return (None, None);
        };
        let Exchange {
            engine,
            key,
            route,
            scopes,
            budget,
            waited,
            ..
        } = &mut *self.exchange;
        let wanted = engine.wanted(key, request, route.as_deref());
        let claim = engine.store.claim(wanted, scopes, Some(captured.clone()));
        let may_be_there = *waited && matches!(self.why, Miss::Absent | Miss::Invalidated);
        // What has been answered by then counts, though the other has not.
        let (mut claimed, mut found) = (None, None);
        let asking = async {
            let claiming = async { claimed = Some(claim.await) };
            let looking = async {
                if may_be_there {
                    engine.storing.end(key).await;
                    found = Some(engine.find(wanted, scopes).await);
                }
            };
            both(claiming, looking).await;
        };
        let clock = &engine.options.clock;
        let _ = budget.wait(clock, Duration::MAX, asking).await;
        let mut wait = None;
        match claimed.unwrap_or_else(|| Err(Budget::exceeded())) {
            Ok((captured, claim)) => {
                self.captured = Some(captured);
                match claim {
                    Claim::Granted(lock) => lead.hold(lock),
                    Claim::Elsewhere(other) => wait = Some(other),
                    Claim::Uncacheable => self.ground(true),
                }
            }
            // What was captured is as good as before.
            Err(error) => self.exchange.store_failed(&error, "claim"),
        }
        let found = found.or_else(|| may_be_there.then(|| Err(Budget::exceeded())));
        let found = found.and_then(|found| {
            let found = found.map_err(|error| self.exchange.not_found(&error));
            found.ok()
        });
        (wait, found)
    }

    /// Answers with what another process has stored, and gives it to those who follow.
    fn brought(&mut self, found: Found, request: &HeaderMap) -> Option<Response<Content>> {
        if found.captured.is_some() {
            self.captured = found.captured;
        }
        let Outcome::Response(stored) = found.outcome else {
            return None;
        };
        let response = self.share(&stored, None, request)?;
        self.exchange.counters().collapsed(&self.exchange.key);
        // Whether a tag that only the response names is invalidated, the store alone knows.
        let scopes = &self.exchange.scopes;
        let is_known = forward::tags_of(&stored).all(|tag| scopes.contains(&tag));
        let landing = match is_known {
            true => Landing::Response(stored, None),
            false => Landing::Stored,
        };
        if let Some(lead) = self.lead.take() {
            lead.land(landing);
        }
        Some(response)
    }
}
