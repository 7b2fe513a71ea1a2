//! Asking a server, and hearing what it answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use redis::{Cmd, Pipeline, ToRedisArgs};
use tokio::time::timeout_at;

use super::reply::Replies;
use super::wire::Wire;
use super::{Names, Shared};
use crate::error::Error;
use crate::store::redis::incarnation::Trusted;

/// Commands and their replies, under one deadline.
pub(crate) struct Exchange<'a> {
    pub(super) shared: &'a Shared,
    pub(super) wire: Wire,
    pub(super) trusted: Arc<Trusted>,
    pub(super) deadline: Instant,
    pub(super) confirmed: Option<Instant>,
}

impl Exchange<'_> {
    /// Whether the server is one of a cluster's.
    pub(crate) fn is_of_cluster(&self) -> bool {
        self.shared.server.address.is_of_cluster()
    }

    /// Returns the namespaces whose content is known to be of this life of the server.
    pub(crate) fn trusted(&self) -> Arc<Trusted> {
        Arc::clone(&self.trusted)
    }

    /// Returns when it was last asked, and answered, where the server is, if that one may move: as it
    /// was when this began, and so of the server that is spoken to.
    pub(crate) fn confirmed(&self) -> Option<Instant> {
        self.confirmed
    }

    /// Waits for something else, within the same deadline.
    ///
    /// # Errors
    ///
    /// When the deadline passes.
    pub(crate) async fn wait_for<T>(&self, other: impl Future<Output = T>) -> Result<T, Error> {
        let waited = timeout_at(self.deadline.into(), other).await;
        waited.map_err(|_elapsed| self.shared.late())
    }

    /// Reads what stands under names, in one command; what is no string counts as absent.
    ///
    /// The replies are taken by [`Replies::bytes`], one for each name.
    ///
    /// # Errors
    ///
    /// As those of [`send`](Self::send), and when the server refuses.
    pub(crate) async fn read(&mut self, names: &Names) -> Result<Replies, Error> {
        if names.is_empty() {
            return Ok(Replies::new(Vec::new()));
        }
        let reply = self.wire.ask_raw(names.command());
        let outcome = timeout_at(self.deadline.into(), reply).await;
        let outcome = outcome.map(|reply| Replies::of_raw(reply?));
        self.shared.received(outcome)?.into_list()
    }

    /// Sends commands in one piece and waits for all replies.
    ///
    /// When this is dropped in the middle, the commands may or may not be carried out; their
    /// replies are skipped.
    ///
    /// # Errors
    ///
    /// When the connection ends or the deadline passes. A refusal is the error of its own reply.
    pub(crate) async fn send(&mut self, commands: &Pipeline) -> Result<Replies, Error> {
        if commands.is_empty() {
            return Ok(Replies::new(Vec::new()));
        }
        let replies = self.wire.send(commands);
        let outcome = timeout_at(self.deadline.into(), replies).await;
        self.shared
            .received(outcome.map(|replies| replies.map(Replies::new)))
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        self.shared.exchanges.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Makes the command that reads what stands under a name.
pub(crate) fn get(name: &impl ToRedisArgs) -> Cmd {
    redis::cmd("GET").arg(name).take()
}
