//! Seeing to it that replicas know of an invalidation before it counts as one.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::Pipeline;

use super::connection::{Connection, Exchange, Server};
use super::epochs::millis;
use crate::error::{Error, ErrorKind};

/// How many replicas have to know, and how long that may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quorum {
    pub(crate) replicas: u32,
    pub(crate) within: Duration,
}

/// A connection for invalidations that replicas have to know of.
///
/// The server answers nothing on it while it waits for them, so it carries nothing else.
pub(super) struct Replicas {
    connection: Connection,
    quorum: Quorum,
}

impl Replicas {
    /// Connects to the primary.
    ///
    /// # Errors
    ///
    /// When it does not answer in time, or refuses.
    pub(super) async fn open(server: Arc<Server>, quorum: Quorum) -> Result<Self, Error> {
        let connection = Connection::open(server).await?;
        Ok(Self { connection, quorum })
    }

    /// Connects to the primary in the background.
    ///
    /// # Errors
    ///
    /// Outside a Tokio runtime.
    pub(super) fn open_lazily(server: Arc<Server>, quorum: Quorum) -> Result<Self, Error> {
        let connection = Connection::open_lazily(server)?;
        Ok(Self { connection, quorum })
    }

    /// Begins an exchange that has to end by `deadline`, but for the time that [`know`](Self::know)
    /// takes, which tells how far it has got.
    ///
    /// # Errors
    ///
    /// While the connection is down, or the breaker open.
    pub(super) fn begin(&self, deadline: Instant) -> Result<Exchange<'_>, Error> {
        self.connection.begin_until(deadline + self.quorum.within)
    }

    /// Waits until enough replicas know of all that the exchange has changed.
    ///
    /// # Errors
    ///
    /// When they do not, or not in time.
    pub(super) async fn know(&self, exchange: &mut Exchange<'_>) -> Result<(), Error> {
        let Quorum { replicas, within } = self.quorum;
        let mut commands = Pipeline::new();
        commands.cmd("WAIT").arg(replicas).arg(millis(within));
        let known = exchange.send(&commands).await?.integer()?;
        if known >= i64::from(replicas) {
            return Ok(());
        }
        let message = format!("only {known} of {replicas} replicas know of the invalidation");
        Err(Error::new(ErrorKind::Timeout, message))
    }

    pub(super) async fn close(&self) {
        self.connection.close().await;
    }
}

impl fmt::Debug for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replicas")
            .field("quorum", &self.quorum)
            .finish_non_exhaustive()
    }
}
