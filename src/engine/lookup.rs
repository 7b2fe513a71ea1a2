//! Asking the store.

use std::time::Duration;

use http::HeaderMap;

use super::budget::Budget;
use super::{Engine, Exchange, storing};
use crate::epoch::{Captured, Scope};
use crate::error::{Error, ErrorKind};
use crate::invalidation::Moment;
use crate::key::PrimaryKey;
use crate::reason::Miss;
use crate::rules::Route;
use crate::store::{Found, Outcome, Wanted};

impl Engine {
    /// Asks the store for what it can tell at once.
    pub(super) fn glance(
        &self,
        key: &PrimaryKey,
        fields: &HeaderMap,
        route: Option<&Route>,
    ) -> Option<Found> {
        let asked = self.journal.moment();
        let mut found = self.store.peek(&self.wanted(key, fields, route))?;
        self.refuse_invalidated(&mut found, asked);
        Some(found)
    }

    /// Asks the store.
    pub(super) async fn find(&self, wanted: Wanted<'_>, scopes: &[Scope]) -> Result<Found, Error> {
        let asked = self.journal.moment();
        let mut found = self.store.lookup(wanted, scopes).await?;
        self.refuse_invalidated(&mut found, asked);
        Ok(found)
    }

    /// Says what a request wants of the store.
    pub(super) fn wanted<'a>(
        &'a self,
        key: &'a PrimaryKey,
        fields: &'a HeaderMap,
        route: Option<&Route>,
    ) -> Wanted<'a> {
        Wanted {
            namespace: &self.options.namespace,
            key,
            fields,
            tier: route.and_then(|route| route.rule.tier),
            clock: &self.options.clock,
        }
    }

    /// Takes out of what was found, since the store was `asked`, what the journal refuses.
    fn refuse_invalidated(&self, found: &mut Found, asked: Moment) {
        if let Outcome::Response(stored) = &found.outcome
            && self.journal.blocks(asked, stored.stamp())
        {
            found.outcome = Outcome::Invalidated;
        }
    }
}

impl Exchange {
    /// Asks the store, unless it has told already.
    pub(super) async fn look_up(&mut self, request: &HeaderMap) -> Result<Found, Miss> {
        let mut found = match self.peeked.take() {
            // What was seen at once may be what is just being replaced.
            Some(found) if !self.engine.storing.holds(&self.key) => found,
            _ => {
                self.waited = true;
                self.ask_store(request).await?
            }
        };
        if let Outcome::Absent = found.outcome
            && let Some(exact) = self.exact.take()
        {
            // What the resource has answered without `No-Vary-Search`.
            self.key = exact;
            found = self.ask_store(request).await?;
        }
        if matches!(found.outcome, Outcome::Damaged) {
            self.engine.metrics.entry_damaged();
        }
        Ok(found)
    }

    /// Captures the epochs that what the handler is about to make will stand under.
    ///
    /// `None` if the store cannot tell; the response is then not stored.
    pub(super) async fn capture(&mut self) -> Option<Captured> {
        let Engine { options, store, .. } = &*self.engine;
        let capturing = store.capture(&options.namespace, &self.scopes);
        let waiting = self.budget.wait(&options.clock, Duration::MAX, capturing);
        match waiting.await.unwrap_or_else(|| Err(Budget::exceeded())) {
            Ok(captured) => Some(captured),
            Err(error) => {
                self.store_failed(&error, "capture");
                None
            }
        }
    }

    /// Asks the store, behind what it is just being given for the same.
    pub(super) async fn ask_store(&mut self, request: &HeaderMap) -> Result<Found, Miss> {
        let Self {
            engine,
            key,
            route,
            scopes,
            budget,
            ..
        } = self;
        let clock = &engine.options.clock;
        let stored = engine.storing.end(key);
        let asking = match budget.wait(clock, storing::PATIENCE, stored).await {
            None => None,
            Some(()) => {
                let wanted = engine.wanted(key, request, route.as_deref());
                let longest = engine.store.longest_lookup();
                budget
                    .wait(clock, longest, engine.find(wanted, scopes))
                    .await
            }
        };
        let found = asking.unwrap_or_else(|| Err(Budget::exceeded()));
        found.map_err(|error| self.not_found(&error))
    }

    /// Counts a look-up that failed, and returns the reason for the miss that it is.
    pub(super) fn not_found(&self, error: &Error) -> Miss {
        self.store_failed(error, "lookup");
        match error.kind() {
            ErrorKind::Unavailable => Miss::StoreUnavailable,
            ErrorKind::Timeout => Miss::StoreTimeout,
            _ => Miss::StoreError,
        }
    }

    pub(super) fn store_failed(&self, error: &Error, operation: &'static str) {
        self.engine.metrics.store_failed();
        tracing::debug!(%error, operation, "store failed");
    }
}
