//! The task that keeps a connection up.

use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{timeout, timeout_at};

use super::link::Link;
use super::reply::{self, Health};
use super::{Server, Shared, Stage, State};

/// Why a connection is given up whose server has moved.
pub(super) const LEFT_BEHIND: &str = "another server has become the primary";
/// Why one is given up whose server may have moved.
pub(super) const UNCONFIRMED: &str = "too few Sentinels say that it still is the primary";

const FIRST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(2);
/// A connection on which a sign of life takes longer is replaced.
const PATIENCE: Duration = Duration::from_secs(1);
/// A younger connection is not replaced because its server takes no writes: where it leads to has
/// just been resolved.
const SETTLED: Duration = Duration::from_secs(5);

/// Connects, watches, and connects again.
///
/// However it ends, be it with its runtime, the connection is down then.
pub(super) struct Upkeep(Arc<Shared>);

impl Upkeep {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    pub(super) async fn run(self, mut link: Option<Link>) {
        let mut retry = FIRST_RETRY;
        let mut missed = false;
        while !self.is_closing() {
            let dialled = match link.take() {
                Some(link) => Ok(link),
                None => self.0.server.dial(self.0.tracker.as_ref()).await,
            };
            match dialled {
                Ok(link) => {
                    let began = self.now();
                    self.offer(link, missed).await;
                    missed = true;
                    // One that ended at once is no reason to hope for the next.
                    if self.now().saturating_duration_since(began) > LONGEST_RETRY {
                        retry = FIRST_RETRY;
                    }
                }
                Err(error) => {
                    missed = true;
                    tracing::debug!(%error, "still without redis");
                    self.down(match error.source() {
                        Some(reason) => reason.to_string(),
                        None => error.to_string(),
                    });
                }
            }
            self.rest(between(Duration::ZERO, retry)).await;
            retry = retry.saturating_mul(2).min(LONGEST_RETRY);
        }
    }

    /// Lets commands use a connection, which may have been missed, until it ends or has to be
    /// replaced.
    async fn offer(&self, mut link: Link, missed: bool) {
        let address = &self.0.server.address;
        self.0.condition.connected(link.version());
        self.0.state.store(Arc::new(State::up(&link)));
        self.close_breaker();
        match missed {
            true => tracing::info!(%address, "connected to redis at last"),
            false => tracing::debug!(%address, "connected to redis"),
        }
        let reason = self.watch(&mut link).await;
        self.0.server.bulletin.lost();
        self.down(reason.to_owned());
        if self.is_closing() {
            // Commands under way hold handles; those that are not answered by then are given up.
            let _ = timeout(PATIENCE, link.drain(&self.0.exchanges)).await;
        } else {
            tracing::warn!(%address, reason, "lost redis");
        }
    }

    /// Returns why the connection is of no use any more.
    async fn watch(&self, link: &mut Link) -> &'static str {
        const ENDED: &str = "it closed the connection";
        let began = self.now();
        let Shared {
            server, exchanges, ..
        } = &*self.0;
        let breaker = &server.breaker;
        loop {
            let pause = breaker.pause();
            let woken = match pause {
                Some(pause) => {
                    link.drive(exchanges, self.rest(between(pause / 2, pause)))
                        .await
                }
                None => {
                    let alarm = timeout(server.pause(), self.0.alarm.notified());
                    link.drive(exchanges, alarm).await.map(drop)
                }
            };
            if woken.is_none() {
                return ENDED;
            }
            if self.is_closing() {
                return "this store is closed";
            }
            if server.terms.is_over(link.term()) {
                return LEFT_BEHIND;
            }
            let in_place = timeout(PATIENCE, server.is_in_place());
            let in_place = link.drive(exchanges, in_place).await;
            match in_place.and_then(|told| told.ok().flatten()) {
                Some(false) => return LEFT_BEHIND,
                None if !server.is_confirmed() => return UNCONFIRMED,
                _ => {}
            }
            let sign = link.ask(server.sign_of_life());
            let health = match link.drive(exchanges, timeout(PATIENCE, sign)).await {
                None => return ENDED,
                Some(Err(_elapsed)) => return "it does not answer",
                Some(Ok(Ok(()))) => Health::Well,
                Some(Ok(Err(refusal))) => reply::health_after(&refusal),
            };
            let is_settled = self.now().saturating_duration_since(began) > SETTLED;
            match health {
                Health::ReadOnly if is_settled => return "it takes no writes any more",
                Health::Unable => breaker.stay_open(),
                _ if pause.is_some() => self.close_breaker(),
                _ => {}
            }
        }
    }

    /// Waits, but not if the connection is to be closed. What else rings is not urgent now.
    async fn rest(&self, pause: Duration) {
        let end = (self.now() + pause).into();
        let rung = || timeout_at(end, self.0.alarm.notified());
        while !self.is_closing() && rung().await.is_ok() {}
    }

    fn close_breaker(&self) {
        let Server {
            breaker, address, ..
        } = &*self.0.server;
        if breaker.close() {
            tracing::info!(%address, "redis answers again: requests use it");
        }
    }

    fn now(&self) -> Instant {
        self.0.server.clock.now()
    }

    fn is_closing(&self) -> bool {
        *self.0.stage.borrow() != Stage::Running
    }

    fn down(&self, reason: String) {
        self.0.condition.lost(reason.clone(), self.now());
        self.0.state.store(Arc::new(State::Down(reason)));
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.down("its connection has been given up".to_owned());
        self.0.stage.send_replace(Stage::Closed);
    }
}

/// A random time of a range, so that many processes do not come back at the same moment.
fn between(shortest: Duration, longest: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX);
    let fraction = f64::from(random) / f64::from(u32::MAX);
    shortest + longest.saturating_sub(shortest).mul_f64(fraction)
}
