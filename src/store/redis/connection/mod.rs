//! A connection to a server that is up, or being re-established.
//!
//! The client's own `ConnectionManager` lets a command wait while it reconnects. A cache must not:
//! here commands fail at once while the connection is down, and a task of the connection's own
//! brings it up again ([`upkeep`]). A store has two, for what is short and what is long ([`lanes`]).
//! The client logs in and reads replies; what moves on the connection is our own ([`wire`]).

mod address;
mod breaker;
mod bulletin;
mod condition;
mod exchange;
mod frame;
mod lanes;
mod lent;
mod link;
mod names;
mod reply;
mod sentinel;
mod server;
mod target;
mod terms;
#[cfg(test)]
mod tests;
#[cfg(feature = "redis-tls")]
mod tls;
#[cfg(not(feature = "redis-tls"))]
#[path = "no_tls.rs"]
mod tls;
mod upkeep;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use redis::{Cmd, RedisResult, Value};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::error::Elapsed;

pub(crate) use self::address::{Address, AddressOptions, Endpoint};
pub(crate) use self::breaker::{Breaker, BreakerPolicy};
pub(crate) use self::bulletin::Bulletin;
use self::condition::Condition;
pub(crate) use self::exchange::{Exchange, get};
pub(crate) use self::lanes::Lanes;
use self::link::Link;
pub(crate) use self::names::Names;
use self::reply::Health;
pub(crate) use self::reply::{Replies, sent_on};
pub(crate) use self::server::Server;
pub(crate) use self::target::Target;
use self::upkeep::Upkeep;
use self::wire::Wire;
use super::control::Tracker;
use super::incarnation::Trusted;
use crate::error::{Error, ErrorKind};
use crate::store::StoreHealth;

/// One connection to a server, kept up by a task that ends when this value is dropped.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    task: AbortHandle,
}

/// What commands and the task know of each other.
struct Shared {
    server: Arc<Server>,
    /// What listens on the connection, if anything does.
    tracker: Option<Arc<Tracker>>,
    state: ArcSwap<State>,
    condition: Condition,
    stage: watch::Sender<Stage>,
    /// Wakes the task: the server did not answer, takes no writes, or is no longer needed.
    alarm: Notify,
    /// How many exchanges are under way.
    exchanges: AtomicUsize,
}

enum State {
    Up {
        wire: Wire,
        trusted: Arc<Trusted>,
        term: u64,
    },
    /// With the reason.
    Down(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Running,
    Closing,
    Closed,
}

impl Connection {
    /// Connects to a server.
    ///
    /// # Errors
    ///
    /// When the server does not answer in time, or refuses.
    pub(crate) async fn open(server: Arc<Server>) -> Result<Self, Error> {
        runtime()?;
        let link = server.dial(None).await?;
        Self::start(server, None, Some(link))
    }

    /// Connects to a server in the background, trying until it succeeds.
    ///
    /// # Errors
    ///
    /// Outside a Tokio runtime.
    pub(crate) fn open_lazily(server: Arc<Server>) -> Result<Self, Error> {
        Self::start(server, None, None)
    }

    /// Connects to a server in the background, with this to listen to it.
    ///
    /// # Errors
    ///
    /// Outside a Tokio runtime.
    pub(crate) fn open_for(server: Arc<Server>, tracker: Arc<Tracker>) -> Result<Self, Error> {
        Self::start(server, Some(tracker), None)
    }

    fn start(
        server: Arc<Server>,
        tracker: Option<Arc<Tracker>>,
        link: Option<Link>,
    ) -> Result<Self, Error> {
        let runtime = runtime()?;
        let condition = Condition::new(server.clock.now());
        let state = match &link {
            Some(link) => {
                condition.connected(link.version());
                State::up(link)
            }
            None => State::Down("it has not been connected yet".to_owned()),
        };
        let shared = Arc::new(Shared {
            server,
            tracker,
            state: ArcSwap::from_pointee(state),
            condition,
            stage: watch::Sender::new(Stage::Running),
            alarm: Notify::new(),
            exchanges: AtomicUsize::new(0),
        });
        let upkeep = Upkeep::new(Arc::clone(&shared));
        let task = runtime.spawn(upkeep.run(link)).abort_handle();
        Ok(Self { shared, task })
    }

    /// Begins an exchange that has to end within `limit`.
    ///
    /// # Errors
    ///
    /// While the connection is down, or the breaker open.
    pub(crate) fn begin(&self, limit: Duration) -> Result<Exchange<'_>, Error> {
        self.begin_until(self.shared.server.clock.now() + limit)
    }

    /// Begins an exchange that has to end by `deadline`.
    ///
    /// # Errors
    ///
    /// While the connection is down, or leads to where the server was or may have been, and while the
    /// breaker is open.
    pub(crate) fn begin_until(&self, deadline: Instant) -> Result<Exchange<'_>, Error> {
        // Timers panic outside a runtime.
        runtime()?;
        let server = &self.shared.server;
        if server.breaker.is_open() {
            return Err(server.away("it does not answer; its circuit breaker is open"));
        }
        // Before the term: what is said of the next one ends this one first.
        let confirmed = server.address.moves().then(|| server.terms.confirmed());
        match &**self.shared.state.load() {
            State::Up { term, .. } if server.terms.is_over(*term) => {
                self.shared.alarm.notify_one();
                Err(server.away(upkeep::LEFT_BEHIND))
            }
            State::Up { .. } if !server.is_confirmed() => Err(server.away(upkeep::UNCONFIRMED)),
            State::Up { wire, trusted, .. } => {
                self.shared.exchanges.fetch_add(1, Ordering::Relaxed);
                Ok(Exchange {
                    shared: &self.shared,
                    wire: wire.clone(),
                    trusted: Arc::clone(trusted),
                    deadline,
                    confirmed: confirmed.flatten(),
                })
            }
            State::Down(reason) => Err(server.away(reason)),
        }
    }

    /// Returns the command that shows that the server is the one to ask, unless it has nothing.
    pub(crate) fn pulse(&self) -> Option<Arc<Cmd>> {
        self.shared.server.pulse.load_full()
    }

    /// Returns how the connection is doing.
    pub(crate) fn health(&self) -> StoreHealth {
        self.shared.condition.health(&self.shared.server)
    }

    /// Ends the connection for good, once the commands under way are answered or out of time.
    pub(crate) async fn close(&self) {
        let mut stage = self.shared.stage.subscribe();
        self.shared.stage.send_if_modified(|stage| {
            let running = *stage == Stage::Running;
            if running {
                *stage = Stage::Closing;
            }
            running
        });
        self.shared.alarm.notify_one();
        // The sender, without which this fails, lives as long as `self`.
        let _ = stage.wait_for(|stage| *stage == Stage::Closed).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Connection");
        debug.field("server", &self.shared.server);
        match &**self.shared.state.load() {
            State::Up { .. } => debug.field("state", &"up"),
            State::Down(reason) => debug.field("state", reason),
        };
        debug.finish_non_exhaustive()
    }
}

impl State {
    fn up(link: &Link) -> Self {
        Self::Up {
            wire: link.wire(),
            trusted: link.trusted(),
            term: link.term(),
        }
    }
}

impl Shared {
    /// Notes how an exchange fared, by the replies received.
    fn received(&self, outcome: Result<RedisResult<Replies>, Elapsed>) -> Result<Replies, Error> {
        let address = &self.server.address;
        let error = match outcome {
            Ok(Ok(received)) => {
                self.answered(received.values());
                return Ok(received);
            }
            Ok(Err(error)) => {
                let message = format!("redis at {address} closed the connection");
                reply::failed(error, message)
            }
            Err(_elapsed) => {
                self.unanswered();
                self.late()
            }
        };
        self.condition.failed(&error);
        Err(error)
    }

    fn late(&self) -> Error {
        let address = &self.server.address;
        let message = format!("redis at {address} did not answer in time");
        Error::new(ErrorKind::Timeout, message)
    }

    fn answered(&self, replies: &[Value]) {
        let Server { breaker, clock, .. } = &*self.server;
        let refusal = reply::gravest_refusal(replies);
        let health = refusal.map_or(Health::Well, |(health, error)| {
            self.condition.failed(&error);
            health
        });
        match health {
            Health::Well => breaker.succeeded(clock.now()),
            Health::Elsewhere => {
                breaker.succeeded(clock.now());
                self.server.bulletin.strayed();
            }
            Health::ReadOnly => {
                breaker.succeeded(clock.now());
                self.alarm.notify_one();
            }
            Health::Unable => {
                self.unanswered();
                self.server.bulletin.strayed();
            }
        }
    }

    fn unanswered(&self) {
        let Server {
            breaker,
            clock,
            address,
            ..
        } = &*self.server;
        if breaker.failed(clock.now()) {
            tracing::warn!(%address, "redis does not answer: requests do without it");
        }
        self.alarm.notify_one();
    }
}

pub(crate) fn runtime() -> Result<Handle, Error> {
    Handle::try_current().map_err(|error| {
        let message = "the Redis store works inside a Tokio runtime only";
        Error::new(ErrorKind::Invalid, message).with_source(error)
    })
}
