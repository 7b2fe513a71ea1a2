//! A server: where it is, and what all connections to it share.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::{Cmd, RedisResult, Value};
use tokio::time::timeout;

use super::address::{Address, Endpoint};
use super::breaker::Breaker;
use super::bulletin::Bulletin;
use super::link::Link;
use super::reply;
use super::terms::Terms;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind};
use crate::store::redis::control::Tracker;

/// A server, as all connections to it know it.
pub(crate) struct Server {
    pub(crate) address: Address,
    pub(crate) connect_timeout: Duration,
    /// How often a connection on which nothing fails is looked after.
    pub(crate) check_interval: Duration,
    pub(crate) breaker: Breaker,
    pub(crate) clock: Clock,
    /// Shared by all servers of a store.
    pub(crate) bulletin: Arc<Bulletin>,
    /// What shows that it still is the one to ask, unless it has nothing.
    pub(crate) pulse: ArcSwapOption<Cmd>,
    /// Which of the connections lead to where it is.
    pub(crate) terms: Terms,
}

impl Server {
    pub(super) async fn dial(&self, tracker: Option<&Arc<Tracker>>) -> Result<Link, Error> {
        self.reach(Link::establish(self, tracker)).await
    }

    /// Finds out where the server is at present.
    pub(super) async fn locate(&self) -> RedisResult<Endpoint> {
        // Half of the time is left to connect to it.
        self.address.endpoint(self.connect_timeout / 2).await
    }

    /// Whether the server still is where it was found last; `None` while nobody says.
    pub(super) async fn is_in_place(&self) -> Option<bool> {
        /// Sooner than whoever looks after a connection gives up.
        const LIMIT: Duration = Duration::from_millis(500);
        let asked = self.clock.now();
        let confirmed = self.terms.confirmed();
        let is_told = |told| asked.saturating_duration_since(told) < Terms::PERIOD / 2;
        // Another connection may just have asked.
        if !self.address.moves() || confirmed.is_some_and(is_told) {
            return Some(true);
        }
        let limit = LIMIT.min(self.connect_timeout / 2);
        let present = self.address.endpoint(limit).await.ok()?;
        Some(self.terms.confirm(&present, asked))
    }

    /// Whether the server can be believed to be where it was found last.
    pub(super) fn is_confirmed(&self) -> bool {
        !self.address.moves() || self.terms.holds(self.clock.now())
    }

    /// Returns how soon a connection on which nothing fails is looked after again.
    pub(super) fn pause(&self) -> Duration {
        match self.address.moves() {
            true => self.check_interval.min(Terms::PERIOD),
            false => self.check_interval,
        }
    }

    /// Asks a question on a connection for that alone.
    ///
    /// # Errors
    ///
    /// When the server does not answer in time, or refuses.
    pub(crate) async fn ask_once(&self, question: &Cmd) -> Result<Value, Error> {
        let Address { login, tls, .. } = &self.address;
        self.reach(async {
            let endpoint = self.locate().await?;
            Link::ask_once(&endpoint, login, tls.as_ref(), question).await
        })
        .await
    }

    /// Makes the command whose success shows that the server does its work.
    pub(crate) fn sign_of_life(&self) -> Cmd {
        match &*self.pulse.load() {
            Some(pulse) => Cmd::clone(pulse),
            None => redis::cmd("PING"),
        }
    }

    async fn reach<T>(&self, attempt: impl Future<Output = RedisResult<T>>) -> Result<T, Error> {
        let message = format!("redis at {} cannot be reached", self.address);
        match timeout(self.connect_timeout, attempt).await {
            Ok(Ok(reached)) => Ok(reached),
            Ok(Err(error)) => Err(reply::failed(error, message)),
            Err(elapsed) => Err(Error::new(ErrorKind::Timeout, message).with_source(elapsed)),
        }
    }

    pub(super) fn away(&self, reason: &str) -> Error {
        let message = format!("redis at {} is away: {reason}", self.address);
        Error::new(ErrorKind::Unavailable, message)
    }
}

/// Where it is; nobody who reads a log wants to know more.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({})", self.address)
    }
}
