//! Two connections to one server, so that what is long does not hold up what is short.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::{Connection, Exchange, Server};
use crate::error::Error;
use crate::store::StoreHealth;

/// Responses of this size, and longer ones, take the lane of their own.
const LONG: usize = 64 * 1024;

/// The connections that a store sends its commands on.
pub(crate) struct Lanes {
    server: Arc<Server>,
    data: Connection,
    /// Opened for the first long response. Outside a runtime there is none.
    bulk: OnceLock<Option<Connection>>,
}

impl Lanes {
    /// Connects to a server.
    ///
    /// # Errors
    ///
    /// When the server does not answer in time, or refuses.
    pub(crate) async fn open(server: Arc<Server>) -> Result<Self, Error> {
        let data = Connection::open(Arc::clone(&server)).await?;
        Ok(Self::new(server, data))
    }

    /// Connects to a server in the background, trying until it succeeds.
    ///
    /// # Errors
    ///
    /// Outside a Tokio runtime.
    pub(crate) fn open_lazily(server: Arc<Server>) -> Result<Self, Error> {
        let data = Connection::open_lazily(Arc::clone(&server))?;
        Ok(Self::new(server, data))
    }

    fn new(server: Arc<Server>, data: Connection) -> Self {
        Self {
            server,
            data,
            bulk: OnceLock::new(),
        }
    }

    /// Whether something of this size is to take the lane of its own.
    pub(crate) fn is_long(size: usize) -> bool {
        size >= LONG
    }

    /// Begins an exchange that has to end by `deadline`.
    ///
    /// # Errors
    ///
    /// While the connection is down, or the breaker open.
    pub(crate) fn begin(&self, deadline: Instant) -> Result<Exchange<'_>, Error> {
        self.data.begin_until(deadline)
    }

    /// Begins an exchange of something long; among the short ones while there is no other lane.
    ///
    /// # Errors
    ///
    /// As [`begin`](Self::begin).
    pub(crate) fn begin_bulk(&self, deadline: Instant) -> Result<Exchange<'_>, Error> {
        let among_others = self.data.begin_until(deadline)?;
        let open = || Connection::open_lazily(Arc::clone(&self.server)).ok();
        let bulk = self.bulk.get_or_init(open).as_ref();
        let alone = bulk.and_then(|bulk| bulk.begin_until(deadline).ok());
        Ok(alone.unwrap_or(among_others))
    }

    /// Returns how the connection that all depends on is doing.
    pub(crate) fn health(&self) -> StoreHealth {
        self.data.health()
    }

    /// Ends the connections for good, once the commands under way are answered or out of time.
    pub(crate) async fn close(&self) {
        if let Some(Some(bulk)) = self.bulk.get() {
            bulk.close().await;
        }
        self.data.close().await;
    }
}

/// As the one that all depends on.
impl fmt::Debug for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.data.fmt(f)
    }
}
