//! How a connection is doing, for people to read.

use std::time::Instant;

use parking_lot::Mutex;

use super::Server;
use crate::error::Error;
use crate::store::StoreHealth;

/// What is known of a connection but not needed to use it.
#[derive(Debug)]
pub(super) struct Condition(Mutex<State>);

#[derive(Debug)]
struct State {
    down_since: Option<Instant>,
    last_error: Option<String>,
    version: Option<String>,
}

impl Condition {
    /// Describes a connection that has not been made by `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self(Mutex::new(State {
            down_since: Some(now),
            last_error: None,
            version: None,
        }))
    }

    /// Notes that the connection is up, and to which version of a server.
    pub(super) fn connected(&self, version: Option<String>) {
        let mut state = self.0.lock();
        state.down_since = None;
        state.version = version;
    }

    /// Notes that the connection is down, for whatever time it has been.
    pub(super) fn lost(&self, reason: String, now: Instant) {
        let mut state = self.0.lock();
        state.down_since.get_or_insert(now);
        state.last_error = Some(reason);
    }

    /// Notes what the server refused, or failed to answer.
    pub(super) fn failed(&self, error: &Error) {
        self.0.lock().last_error = Some(error.to_string());
    }

    /// Describes the connection and what the breaker of its server thinks of it.
    pub(super) fn health(&self, server: &Server) -> StoreHealth {
        let state = self.0.lock();
        let since = [state.down_since, server.breaker.open_since()];
        let since = since.into_iter().flatten().min();
        let now = server.clock.now();
        StoreHealth {
            connected: state.down_since.is_none(),
            degraded_since: since.and_then(|since| {
                let ago = now.saturating_duration_since(since);
                server.clock.wall().checked_sub(ago)
            }),
            last_error: state.last_error.clone(),
            server: state.version.clone(),
            mirror: None,
        }
    }
}
