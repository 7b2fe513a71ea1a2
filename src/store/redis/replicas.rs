//! Seeing to it that replicas know of an invalidation before it counts as one.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::Pipeline;
use tokio::sync::Mutex;

use super::connection::{Connection, Exchange, Server};
use super::epochs::millis;
use super::incarnation::Trusted;
use crate::error::{Error, ErrorKind};

/// The server waits for its replicas for so long at first, and then for twice as long each time: as
/// long as it takes them, whatever is told meanwhile. In between it does what has come behind that,
/// and shows whoever looks after the connection that it is there.
const FIRST_TURN: Duration = Duration::from_millis(50);
const LONGEST_TURN: Duration = Duration::from_millis(400);

/// How many replicas have to know, and how long that may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quorum {
    pub(crate) replicas: u32,
    pub(crate) within: Duration,
}

/// A connection for invalidations that replicas have to know of.
///
/// The server answers nothing on it while it waits for them, so it carries nothing else. And there
/// is one wait at a time, for all that has been told by then: however many invalidations there are at
/// once, none takes longer than two waits.
pub(super) struct Replicas {
    connection: Connection,
    quorum: Quorum,
    /// How many invalidations have been told.
    told: AtomicU64,
    /// What the last wait has shown; locked during a wait.
    shown: Mutex<Option<Shown>>,
}

/// So many replicas know of the first invalidations, as far as they were told on this connection.
struct Shown {
    /// Stands for the connection.
    link: Arc<Trusted>,
    first: u64,
    replicas: i64,
}

impl Replicas {
    /// Connects to the primary.
    ///
    /// # Errors
    ///
    /// When it does not answer in time, or refuses.
    pub(super) async fn open(server: Arc<Server>, quorum: Quorum) -> Result<Self, Error> {
        let connection = Connection::open(server).await?;
        Ok(Self::new(connection, quorum))
    }

    /// Connects to the primary in the background.
    ///
    /// # Errors
    ///
    /// Outside a Tokio runtime.
    pub(super) fn open_lazily(server: Arc<Server>, quorum: Quorum) -> Result<Self, Error> {
        let connection = Connection::open_lazily(server)?;
        Ok(Self::new(connection, quorum))
    }

    fn new(connection: Connection, quorum: Quorum) -> Self {
        Self {
            connection,
            quorum,
            told: AtomicU64::new(0),
            shown: Mutex::default(),
        }
    }

    /// Begins an exchange that has to end by `deadline`, but for the time of the two waits that
    /// [`know`](Self::know) takes at most.
    ///
    /// # Errors
    ///
    /// While the connection is down, or the breaker open.
    pub(super) fn begin(&self, deadline: Instant) -> Result<Exchange<'_>, Error> {
        self.connection
            .begin_until(deadline + self.quorum.within * 2)
    }

    /// Waits until enough replicas know of all that the exchange has changed.
    ///
    /// # Errors
    ///
    /// When they do not, or not in time.
    pub(super) async fn know(&self, exchange: &mut Exchange<'_>) -> Result<(), Error> {
        let number = self.told.fetch_add(1, Ordering::AcqRel).saturating_add(1);
        let mut shown = exchange.wait_for(self.shown.lock()).await?;
        let link = exchange.trusted();
        let known = match &*shown {
            Some(shown) if number <= shown.first && Arc::ptr_eq(&shown.link, &link) => {
                shown.replicas
            }
            _ => {
                let first = self.told.load(Ordering::Acquire);
                let replicas = self.wait(exchange).await?;
                *shown = Some(Shown {
                    link,
                    first,
                    replicas,
                });
                replicas
            }
        };
        let wanted = self.quorum.replicas;
        if known >= i64::from(wanted) {
            return Ok(());
        }
        let message = format!("only {known} of {wanted} replicas know of the invalidation");
        Err(Error::new(ErrorKind::Timeout, message))
    }

    /// Waits for replicas, and returns how many know of all that was told on the connection.
    async fn wait(&self, exchange: &mut Exchange<'_>) -> Result<i64, Error> {
        let Quorum { replicas, within } = self.quorum;
        let (mut left, mut next) = (within, FIRST_TURN);
        loop {
            let turn = left.min(next);
            next = next.saturating_mul(2).min(LONGEST_TURN);
            let mut commands = Pipeline::new();
            // Zero would be for ever.
            let wait = commands.cmd("WAIT").arg(replicas);
            wait.arg(millis(turn).max(1));
            let known = exchange.send(&commands).await?.integer()?;
            left = left.saturating_sub(turn);
            if known >= i64::from(replicas) || left.is_zero() {
                return Ok(known);
            }
        }
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
