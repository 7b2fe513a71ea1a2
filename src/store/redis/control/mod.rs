//! The control connection: which epochs are current, told by the server.
//!
//! [`Control`] reads epochs on a connection of its own, on which the server tells when one of them
//! changes ([`tracker`]), and keeps what it read in the [`mirror`]. Only epochs that somebody here
//! holds for current are told of; what others cache costs this process nothing. In the same way the
//! server tells of the end of a lock that somebody here waits for ([`watches`]).
//!
//! Each command on this connection begins by switching tracking on, which costs nothing where it is
//! on already. So there is no state to be set up again after a reconnect, and none to be forgotten.

mod mirror;
mod tracker;
mod watches;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use redis::{Cmd, Pipeline};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use self::mirror::Load;
pub(super) use self::mirror::{LEASE, Mirror};
pub use self::tracker::Mirroring;
pub(super) use self::tracker::{Listener, Tracker};
pub(super) use self::watches::Watch;
use super::connection::{Connection, Exchange, Replies, Server, get};
use super::epochs::Known;
use super::layout::{self, Name};
use crate::epoch::Scope;
use crate::error::{Error, ErrorKind};
use crate::key::Namespace;

/// How often the server has to show that it would tell of a change.
const HEARTBEAT: Duration = Duration::from_millis(500);

/// A connection for epochs, and what is known from it.
#[derive(Debug)]
pub(super) struct Control {
    connection: Arc<Connection>,
    tracker: Arc<Tracker>,
    heart: AbortHandle,
}

impl Control {
    /// Connects in the background. Until that is done, loading fails.
    ///
    /// # Errors
    ///
    /// Outside a Tokio runtime.
    pub(super) fn open(server: Arc<Server>, mode: Mirroring) -> Result<Self, Error> {
        let tracker = Arc::new(Tracker::new(mode, server.clock.clone()));
        let connection = Connection::open_for(server, Arc::clone(&tracker))?;
        let connection = Arc::new(connection);
        let beating = beat(Arc::clone(&connection), Arc::clone(&tracker));
        Ok(Self {
            heart: Handle::current().spawn(beating).abort_handle(),
            connection,
            tracker,
        })
    }

    pub(super) fn mirror(&self) -> &Mirror {
        &self.tracker.mirror
    }

    /// Begins an exchange that has to end by `deadline`.
    ///
    /// # Errors
    ///
    /// While the connection is down, or the breaker open.
    pub(super) fn begin(&self, deadline: Instant) -> Result<Exchange<'_>, Error> {
        self.connection.begin_until(deadline)
    }

    /// Reads the epochs of scopes, and remembers them for as long as they may be believed.
    ///
    /// # Errors
    ///
    /// When the server does not answer in time.
    pub(super) async fn load(
        &self,
        exchange: &mut Exchange<'_>,
        namespace: &Namespace,
        scopes: &[Scope],
    ) -> Result<Known, Error> {
        let mirror = self.mirror();
        let load = mirror.begin();
        let mut commands = Pipeline::with_capacity(scopes.len().saturating_add(2));
        let preface = Preface::write(&mut commands, load, &self.connection);
        // One command each: inside the reply to an `MGET`, Redis 6 may tell of a change.
        for scope in scopes {
            commands.add_command(get(&layout::epoch(namespace, *scope)));
        }
        let mut replies = exchange.send(&commands).await?;
        preface.read(&mut replies, &self.tracker)?;
        let mut known = Known::new();
        known.read(&mut replies, scopes)?;
        for scope in scopes {
            if let Some(epoch) = known.get(*scope) {
                mirror.insert(load, namespace, *scope, epoch);
            }
        }
        mirror.renew(load, exchange.confirmed());
        Ok(known)
    }

    /// Reads a lock, and returns with it what ends when something becomes of it.
    ///
    /// # Errors
    ///
    /// When the server cannot be asked, or not within `limit`, or does not tell.
    pub(super) async fn watch(
        &self,
        name: &Name,
        limit: Duration,
    ) -> Result<(Option<Bytes>, Watch), Error> {
        let load = self.mirror().begin();
        if !load.tracks {
            return Err(Error::new(ErrorKind::Unavailable, "redis does not tell"));
        }
        let watch = Watch::begin(&self.tracker, name);
        let mut exchange = self.connection.begin(limit)?;
        let mut commands = Pipeline::with_capacity(3);
        let preface = Preface::write(&mut commands, load, &self.connection);
        commands.add_command(get(name));
        let mut replies = exchange.send(&commands).await?;
        preface.read(&mut replies, &self.tracker)?;
        Ok((replies.bytes()?, watch))
    }

    pub(super) async fn close(&self) {
        self.heart.abort();
        self.connection.close().await;
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.heart.abort();
    }
}

/// Keeps the lease up while the server answers.
async fn beat(connection: Arc<Connection>, tracker: Arc<Tracker>) {
    loop {
        sleep(HEARTBEAT).await;
        let load = tracker.mirror.begin();
        if load.tracks
            && let Ok(mut exchange) = connection.begin(mirror::LEASE)
        {
            let mut commands = Pipeline::with_capacity(2);
            let preface = Preface::write(&mut commands, load, &connection);
            let answer = exchange.send(&commands).await;
            if answer.is_ok_and(|mut replies| preface.read(&mut replies, &tracker).is_ok()) {
                tracker.mirror.renew(load, exchange.confirmed());
            }
        }
    }
}

/// What a question begins with, for its answer to be believed.
struct Preface {
    /// The server is told to tell of changes.
    tracks: bool,
    /// It shows that it is the one to ask. Another may have taken its place; and one that is cut off
    /// from the others refuses to write at last, where it is told to, but not to read.
    beats: bool,
}

impl Preface {
    fn write(commands: &mut Pipeline, load: Load, connection: &Connection) -> Self {
        if load.tracks {
            commands.cmd("CLIENT").arg("TRACKING").arg("ON");
        }
        let pulse = connection.pulse();
        if let Some(pulse) = &pulse {
            commands.add_command(Cmd::clone(pulse));
        }
        Self {
            tracks: load.tracks,
            beats: pulse.is_some(),
        }
    }

    /// Takes the replies. That the server will not tell is no error here, but leaves nothing to be
    /// believed of what was asked behind it.
    fn read(self, replies: &mut Replies, tracker: &Tracker) -> Result<(), Error> {
        if self.tracks {
            match replies.done() {
                Err(refusal) if refusal.kind() == ErrorKind::Refused => tracker.refused(&refusal),
                done => done?,
            }
        }
        match self.beats {
            true => replies.mine(),
            false => Ok(()),
        }
    }
}
