//! A connection to a server that is up, or being re-established.
//!
//! The client's own `ConnectionManager` lets a command wait while it reconnects. A cache must not:
//! here commands fail at once while the connection is down, and a task of the connection's own
//! brings it up again ([`upkeep`]). A store has two, for what is short and what is long ([`lanes`]).

mod address;
mod breaker;
mod bulletin;
mod condition;
mod lanes;
mod link;
mod names;
mod reply;
mod sentinel;
mod target;
mod terms;
#[cfg(feature = "redis-tls")]
mod tls;
#[cfg(not(feature = "redis-tls"))]
#[path = "no_tls.rs"]
mod tls;
mod upkeep;

use std::fmt;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisResult, ToRedisArgs, Value};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::error::Elapsed;
use tokio::time::{timeout, timeout_at};

pub(crate) use self::address::{Address, AddressOptions, Endpoint};
pub(crate) use self::breaker::{Breaker, BreakerPolicy};
pub(crate) use self::bulletin::Bulletin;
use self::condition::Condition;
pub(crate) use self::lanes::Lanes;
use self::link::Link;
pub(crate) use self::names::Names;
use self::reply::Health;
pub(crate) use self::reply::{Replies, sent_on};
pub(crate) use self::target::Target;
pub(crate) use self::terms::Terms;
use self::upkeep::Upkeep;
use super::control::Tracker;
use super::incarnation::Trusted;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind};
use crate::store::StoreHealth;

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
        handle: MultiplexedConnection,
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
    /// While the connection is down or leads to where the server was, or the breaker is open.
    pub(crate) fn begin_until(&self, deadline: Instant) -> Result<Exchange<'_>, Error> {
        // Timers panic outside a runtime.
        runtime()?;
        let server = &self.shared.server;
        if server.breaker.is_open() {
            return Err(server.away("it does not answer; its circuit breaker is open"));
        }
        match &**self.shared.state.load() {
            State::Up { term, .. } if server.terms.is_over(*term) => {
                self.shared.alarm.notify_one();
                Err(server.away(upkeep::LEFT_BEHIND))
            }
            State::Up {
                handle, trusted, ..
            } => {
                self.shared.exchanges.fetch_add(1, Ordering::Relaxed);
                Ok(Exchange {
                    shared: &self.shared,
                    handle: handle.clone(),
                    trusted: Arc::clone(trusted),
                    deadline,
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

/// Where it is; nobody who reads a log wants to know more.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({})", self.address)
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

/// Commands and their replies, under one deadline.
pub(crate) struct Exchange<'a> {
    shared: &'a Shared,
    handle: MultiplexedConnection,
    trusted: Arc<Trusted>,
    deadline: Instant,
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
        let reply = self.handle.send_packed_command(names.command());
        let outcome = timeout_at(self.deadline.into(), reply).await;
        let reply = self.shared.received(outcome, slice::from_ref)?;
        Replies::of_array(Some(reply))
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
        let replies = self
            .handle
            .send_packed_commands(commands, 0, commands.len());
        let outcome = timeout_at(self.deadline.into(), replies).await;
        self.shared
            .received(outcome, Vec::as_slice)
            .map(Replies::new)
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

impl State {
    fn up(link: &Link) -> Self {
        Self::Up {
            handle: link.handle(),
            trusted: link.trusted(),
            term: link.term(),
        }
    }
}

impl Server {
    async fn dial(&self, tracker: Option<&Arc<Tracker>>) -> Result<Link, Error> {
        self.reach(Link::establish(self, tracker)).await
    }

    /// Finds out where the server is at present.
    async fn locate(&self) -> RedisResult<Endpoint> {
        // Half of the time is left to connect to it.
        self.address.endpoint(self.connect_timeout / 2).await
    }

    /// Whether the server still is where it was found last; `None` while nobody says.
    async fn is_in_place(&self) -> Option<bool> {
        if !self.address.moves() {
            return Some(true);
        }
        /// Sooner than whoever looks after a connection gives up.
        const LIMIT: Duration = Duration::from_millis(500);
        let limit = LIMIT.min(self.connect_timeout / 2);
        let present = self.address.endpoint(limit).await.ok()?;
        Some(self.terms.is_at(&present))
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

    fn away(&self, reason: &str) -> Error {
        let message = format!("redis at {} is away: {reason}", self.address);
        Error::new(ErrorKind::Unavailable, message)
    }
}

impl Shared {
    /// Notes how an exchange fared, by the values received.
    fn received<T>(
        &self,
        outcome: Result<RedisResult<T>, Elapsed>,
        values: fn(&T) -> &[Value],
    ) -> Result<T, Error> {
        let address = &self.server.address;
        let error = match outcome {
            Ok(Ok(received)) => {
                self.answered(values(&received));
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
            Health::Well | Health::Alone => breaker.succeeded(clock.now()),
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

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use tokio::time::sleep;

    use super::*;
    use crate::store::redis::redis_server::RedisServer;

    /// As good as at once, on a machine that is busy with other tests.
    const AT_ONCE: Duration = Duration::from_millis(20);
    const READ: Duration = Duration::from_millis(100);

    fn server(url: &str) -> Server {
        Server {
            address: Address::parse(url, &AddressOptions::default()).unwrap(),
            connect_timeout: Duration::from_millis(500),
            check_interval: Duration::from_secs(5),
            breaker: Breaker::new(BreakerPolicy::default()),
            clock: Clock::system(),
            bulletin: Arc::new(Bulletin::new()),
            pulse: ArcSwapOption::empty(),
            terms: Terms::default(),
        }
    }

    async fn try_open(url: &str) -> Result<Connection, Error> {
        Connection::open(Arc::new(server(url))).await
    }

    async fn open(redis: &RedisServer) -> Connection {
        try_open(&redis.url()).await.unwrap()
    }

    async fn echo(connection: &Connection, text: &str, limit: Duration) -> Result<String, Error> {
        let mut exchange = connection.begin(limit)?;
        let mut commands = Pipeline::new();
        commands.cmd("ECHO").arg(text);
        let text = exchange.send(&commands).await?.bytes()?.unwrap();
        Ok(String::from_utf8(text.to_vec()).unwrap())
    }

    async fn until<F: Future<Output = bool>>(limit: Duration, mut condition: impl FnMut() -> F) {
        let end = Instant::now() + limit;
        while !condition().await {
            assert!(Instant::now() < end, "not within {limit:?}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn until_answered(connection: &Connection, limit: Duration) {
        until(limit, || async {
            echo(connection, "x", READ).await.is_ok()
        })
        .await;
    }

    /// Makes sure that a command fails, and without being waited for.
    async fn assert_fails_at_once(connection: &Connection) {
        let began = Instant::now();
        let error = echo(connection, "x", READ).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    }

    /// How many clients the server has, but for the one that asks.
    fn clients(redis: &RedisServer) -> usize {
        redis.command(&["CLIENT", "LIST"]).matches("addr=").count() / 2 - 1
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_an_error_of_open_and_nothing_to_wait_for_otherwise() {
        let mut redis = RedisServer::start();
        redis.kill();
        let error = try_open(&redis.url()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(
            error
                .source()
                .is_some_and(|cause| cause.to_string().contains("refused"))
        );

        let connection = Connection::open_lazily(Arc::new(server(&redis.url()))).unwrap();
        assert_fails_at_once(&connection).await;
        redis.restart();
        until_answered(&connection, Duration::from_secs(3)).await;
    }

    #[tokio::test]
    async fn after_a_crash_commands_fail_at_once_until_the_server_is_back() {
        let mut redis = RedisServer::start();
        let connection = open(&redis).await;
        assert_eq!(echo(&connection, "before", READ).await.unwrap(), "before");
        redis.kill();
        until(READ, || async {
            echo(&connection, "x", READ).await.is_err()
        })
        .await;
        for _ in 0..50 {
            assert_fails_at_once(&connection).await;
            sleep(Duration::from_millis(4)).await;
        }
        redis.restart();
        until_answered(&connection, Duration::from_secs(3)).await;
    }

    #[tokio::test]
    async fn a_server_that_hangs_is_waited_for_to_the_deadline_and_then_not_at_all() {
        let redis = RedisServer::start();
        let connection = open(&redis).await;
        redis.stop();
        for _ in 0..5 {
            let began = Instant::now();
            let error = echo(&connection, "x", READ).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout);
            assert!(
                (READ..READ + AT_ONCE).contains(&began.elapsed()),
                "{:?}",
                began.elapsed()
            );
        }
        for _ in 0..200 {
            assert_fails_at_once(&connection).await;
            sleep(Duration::from_millis(10)).await;
        }
        redis.cont();
        until_answered(&connection, Duration::from_secs(3)).await;
    }

    #[tokio::test]
    async fn a_connection_that_the_server_ends_is_replaced() {
        let redis = RedisServer::start();
        let connection = open(&redis).await;
        for _ in 0..3 {
            redis.command(&["CLIENT", "KILL", "TYPE", "normal"]);
            until_answered(&connection, Duration::from_millis(500)).await;
        }
    }

    #[tokio::test]
    async fn a_server_that_hangs_while_nobody_asks_is_noticed() {
        let redis = RedisServer::start();
        let server = Server {
            check_interval: Duration::from_millis(50),
            ..server(&redis.url())
        };
        let connection = Connection::open(Arc::new(server)).await.unwrap();
        redis.stop();
        until(Duration::from_secs(3), || async {
            !connection.health().connected
        })
        .await;
        assert_fails_at_once(&connection).await;
        redis.cont();
        until_answered(&connection, Duration::from_secs(3)).await;
        assert!(connection.health().connected);
    }

    #[tokio::test]
    async fn replies_that_come_too_late_are_never_taken_for_those_of_later_commands() {
        let redis = RedisServer::start();
        let policy = BreakerPolicy {
            consecutive: u32::MAX,
            sample: u32::MAX,
            ..Default::default()
        };
        let server = Server {
            breaker: Breaker::new(policy),
            ..server(&redis.url())
        };
        let connection = Connection::open(Arc::new(server)).await.unwrap();
        for round in 0..20 {
            let mut pause = Pipeline::new();
            pause.cmd("CLIENT").arg("PAUSE").arg(20).arg("ALL");
            connection
                .begin(READ)
                .unwrap()
                .send(&pause)
                .await
                .unwrap()
                .done()
                .unwrap();
            for late in 0..3 {
                let text = format!("late {late}");
                let reply = echo(&connection, &text, Duration::from_millis(4));
                assert_eq!(reply.await.unwrap_err().kind(), ErrorKind::Timeout);
            }
            let text = format!("round {round}");
            assert_eq!(
                echo(&connection, &text, Duration::from_secs(1))
                    .await
                    .unwrap(),
                text
            );
        }
    }

    #[tokio::test]
    async fn the_task_and_the_socket_end_with_the_connection() {
        let redis = RedisServer::start();
        let connection = open(&redis).await;
        echo(&connection, "x", READ).await.unwrap();
        assert_eq!(clients(&redis), 1);
        drop(connection);
        until(Duration::from_secs(1), || async { clients(&redis) == 0 }).await;
    }

    #[tokio::test]
    async fn closing_answers_what_is_under_way_and_refuses_what_comes_later() {
        let redis = RedisServer::start();
        let connection = open(&redis).await;
        redis.command(&["CLIENT", "PAUSE", "50", "ALL"]);
        let (reply, ()) = tokio::join!(echo(&connection, "last", Duration::from_secs(1)), async {
            sleep(Duration::from_millis(5)).await;
            connection.close().await;
        });
        assert_eq!(reply.unwrap(), "last");
        assert_fails_at_once(&connection).await;
        connection.close().await;
    }

    #[tokio::test]
    async fn closing_does_not_wait_for_a_server_that_is_away() {
        let mut redis = RedisServer::start();
        redis.kill();
        let connection = Connection::open_lazily(Arc::new(server(&redis.url()))).unwrap();
        sleep(Duration::from_millis(100)).await;
        let began = Instant::now();
        connection.close().await;
        assert!(began.elapsed() < AT_ONCE);
    }

    #[test]
    fn a_connection_whose_runtime_has_ended_is_down() {
        let redis = RedisServer::start();
        let runtime = || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
        };
        let first = runtime();
        let connection = first.block_on(open(&redis));
        let error = connection.begin(READ).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Invalid, "outside a runtime");
        drop(first);
        runtime().block_on(async {
            assert_fails_at_once(&connection).await;
            connection.close().await;
        });
    }

    #[tokio::test]
    async fn a_wrong_or_missing_password_is_refused_without_being_told() {
        let redis = RedisServer::with_args(&["--requirepass", "s3cret"]);
        let with = |login: &str| redis.url().replace("redis://", &format!("redis://{login}"));
        for url in [redis.url(), with(":wr0ng@"), with("nobody:wr0ng@")] {
            let error = try_open(&url).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
            assert!(!format!("{error:?}").contains("wr0ng"), "{error:?}");
        }
        let connection = try_open(&with(":s3cret@")).await.unwrap();
        assert_eq!(echo(&connection, "x", READ).await.unwrap(), "x");
        assert!(!format!("{connection:?}").contains("s3cret"));
    }

    #[tokio::test]
    async fn a_server_without_room_for_another_client_is_away() {
        let redis = RedisServer::with_args(&["--maxclients", "1"]);
        let first = open(&redis).await;
        let error = try_open(&redis.url()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        let second = Connection::open_lazily(Arc::new(server(&redis.url()))).unwrap();
        drop(first);
        until_answered(&second, Duration::from_secs(3)).await;
    }

    #[tokio::test]
    async fn a_server_that_runs_a_long_script_is_left_alone_until_it_is_done() {
        let redis = RedisServer::with_args(&["--busy-reply-threshold", "1"]);
        let connection = open(&redis).await;
        let script = "local t = redis.call('TIME')
            repeat local n = redis.call('TIME') until n[1] - t[1] + (n[2] - t[2]) / 1e6 > 1";
        let _running = redis.send(&["EVAL", script, "0"]);
        sleep(Duration::from_millis(50)).await;
        for _ in 0..5 {
            let error = echo(&connection, "x", READ).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            assert!(error.to_string().contains("BUSY"), "{error}");
        }
        assert!(connection.shared.server.breaker.is_open());
        until_answered(&connection, Duration::from_secs(3)).await;
    }

    #[tokio::test]
    async fn a_server_that_loads_its_data_is_away_until_it_has() {
        let redis = RedisServer::with_args(&[
            "--enable-debug-command",
            "yes",
            "--rdbcompression",
            "no",
            "--loading-process-events-interval-bytes",
            "1024",
            "--key-load-delay",
            "10000",
        ]);
        redis.command(&["DEBUG", "POPULATE", "100", "key", "1000"]);
        let connection = open(&redis).await;
        let _reloading = redis.send(&["DEBUG", "RELOAD"]);
        let get = || async {
            let mut get = Pipeline::new();
            get.cmd("GET").arg("x");
            connection.begin(READ)?.send(&get).await?.bytes()
        };
        let is_loading = || async {
            get()
                .await
                .is_err_and(|e| e.to_string().contains("LOADING"))
        };
        until(Duration::from_secs(2), is_loading).await;
        until(Duration::from_secs(5), || async { get().await.is_ok() }).await;
    }
}
