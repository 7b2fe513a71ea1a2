//! One established connection: socket, login and the future that drives both.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, ProtocolVersion, RedisConnectionInfo, RedisError,
    RedisResult, Value,
};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::time::sleep;

use super::Server;
use super::address::{Address, Endpoint};
use super::lent::Lent;
use super::reply::{self, Health};
use super::tls::Tls;
use super::wire::{Carrier, Wire};
use crate::store::redis::control::{Listener, Tracker};
use crate::store::redis::incarnation::Trusted;

/// A peer that acknowledges nothing for so long is gone.
#[cfg(any(target_os = "linux", target_os = "android"))]
const USER_TIMEOUT: Duration = Duration::from_secs(5);

/// An established connection.
///
/// Nothing moves on it but while [`drive`](Self::drive) is awaited. Dropped, it ends at once, and
/// what is under way on it fails.
pub(super) struct Link {
    wire: Wire,
    trusted: Arc<Trusted>,
    /// `None` once it has ended.
    carrier: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    version: Option<String>,
    /// The one of the server's terms in which it was found there.
    term: u64,
}

impl Link {
    /// Connects, logs in, and makes sure that the server answers.
    ///
    /// A tracker hears what the server tells of its own accord, if both can.
    pub(super) async fn establish(
        server: &Server,
        tracker: Option<&Arc<Tracker>>,
    ) -> RedisResult<Self> {
        let Address { login, tls, .. } = &server.address;
        let asked = server.clock.now();
        let endpoint = server.locate().await?;
        let listener = tracker.and_then(Tracker::listen);
        let listens = listener.is_some();
        let mut link = match Self::connect(&endpoint, login, tls.as_ref(), listener).await {
            // Should it be something else that is refused, it is refused again.
            Err(refusal) if listens && may_be_of_resp3(&refusal) => {
                let link = Self::connect(&endpoint, login, tls.as_ref(), None).await?;
                if let Some(tracker) = tracker {
                    tracker.refused(&refusal);
                }
                link
            }
            connected => connected?,
        };
        if server.address.moves() && link.leads_to_replica().await {
            return Err(io::Error::other("the Sentinels name a replica").into());
        }
        let info = link.info("server").await;
        link.version = info.as_deref().and_then(version);
        let term = server.terms.enter(endpoint, asked);
        let left = || io::Error::other("another server has become the primary meanwhile");
        link.term = term.ok_or_else(left)?;
        Ok(link)
    }

    /// Connects to one server, logs in, and makes sure that it answers.
    pub(super) async fn connect(
        endpoint: &Endpoint,
        login: &RedisConnectionInfo,
        tls: Option<&Tls>,
        listener: Option<Listener>,
    ) -> RedisResult<Self> {
        let mut link = match endpoint {
            Endpoint::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                tune(&stream)?;
                match tls {
                    Some(tls) => {
                        let stream = tls.wrap(host, stream).await?;
                        Self::log_in(stream, login, listener).await?
                    }
                    None => Self::log_in(stream, login, listener).await?,
                }
            }
            #[cfg(unix)]
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path).await?;
                Self::log_in(stream, login, listener).await?
            }
        };
        // A server that is loading its data, or wants a password, takes connections all the same.
        let ping = link.ask(redis::cmd("PING"));
        let hung_up = || Err(io::Error::from(io::ErrorKind::ConnectionAborted).into());
        let answer = link.drive(&AtomicUsize::new(0), ping).await;
        match answer.unwrap_or_else(hung_up) {
            // It cannot save its data and takes no writes; to `PING` it says so, but it can be read.
            Err(refusal) if refusal.code() == Some("MISCONF") => Ok(link),
            answer => answer.map(|()| link),
        }
    }

    /// Asks a server one question, on a connection for that alone.
    pub(super) async fn ask_once(
        endpoint: &Endpoint,
        login: &RedisConnectionInfo,
        tls: Option<&Tls>,
        question: &Cmd,
    ) -> RedisResult<Value> {
        let mut link = Self::connect(endpoint, login, tls, None).await?;
        let wire = link.wire();
        let hung_up = || Err(io::Error::from(io::ErrorKind::ConnectionAborted).into());
        let answer = link.drive(&AtomicUsize::new(0), wire.ask(question)).await;
        answer.unwrap_or_else(hung_up)
    }

    async fn log_in<S>(
        stream: S,
        login: &RedisConnectionInfo,
        listener: Option<Listener>,
    ) -> RedisResult<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut login = login.clone();
        if listener.is_some() {
            login = login.set_protocol(ProtocolVersion::RESP3);
        }
        let stream = Lent::new(stream);
        let config = AsyncConnectionConfig::new();
        let logged_in = MultiplexedConnection::new_with_config(&login, stream.clone(), config);
        let logged_in = logged_in.await;
        drop(logged_in.map_err(|refusal| discreet(refusal, login.password()))?);
        let stream = stream
            .returned()
            .ok_or_else(|| io::Error::other("the login goes on"))?;
        let (wire, carrier) = Carrier::new(stream, listener);
        Ok(Self {
            wire,
            trusted: Arc::default(),
            carrier: Some(Box::pin(carrier.run())),
            version: None,
            term: 0,
        })
    }

    /// Returns what commands are sent with.
    pub(super) fn wire(&self) -> Wire {
        self.wire.clone()
    }

    /// Returns what the server says it is, such as `Redis 7.2.4`, if it says so.
    pub(super) fn version(&self) -> Option<String> {
        self.version.clone()
    }

    /// Returns the term of the server that it is of.
    pub(super) fn term(&self) -> u64 {
        self.term
    }

    /// Returns the namespaces that have been found trustworthy on it.
    pub(super) fn trusted(&self) -> Arc<Trusted> {
        Arc::clone(&self.trusted)
    }

    /// Moves the connection until `other` is done, or returns `None` when it ended before, be it
    /// long ago.
    ///
    /// `exchanges` says how many there are under way.
    pub(super) async fn drive<T>(
        &mut self,
        exchanges: &AtomicUsize,
        other: impl Future<Output = T>,
    ) -> Option<T> {
        let mut other = pin!(other);
        let mut let_pass = false;
        poll_fn(|cx| {
            // Whoever sends a command wakes this, and a runtime lets the woken task run next. Others
            // that are about to send are let pass first, so that one write takes the commands of all.
            let_pass = !let_pass && exchanges.load(Ordering::Relaxed) > 1;
            if let_pass {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let Some(carrier) = &mut self.carrier else {
                return Poll::Ready(None);
            };
            if carrier.as_mut().poll(cx).is_ready() {
                self.carrier = None;
                return Poll::Ready(None);
            }
            other.as_mut().poll(cx).map(Some)
        })
        .await
    }

    /// Asks for a sign of life; to be driven.
    ///
    /// # Errors
    ///
    /// When the server refuses, as while it is loading.
    pub(super) fn ask(&self, question: Cmd) -> impl Future<Output = RedisResult<()>> + use<> {
        let wire = self.wire();
        async move { wire.ask(&question).await.map(drop) }
    }

    /// Whether the server said to be a replica; one that does not say is believed to be none.
    async fn leads_to_replica(&mut self) -> bool {
        let info = self.info("replication").await;
        info.is_some_and(|info| info.lines().any(|line| line == "role:slave"))
    }

    /// Asks what the server says of itself, before anybody else asks anything.
    async fn info(&mut self, section: &str) -> Option<String> {
        let wire = self.wire();
        let question = redis::cmd("INFO").arg(section).take();
        let answer = self
            .drive(&AtomicUsize::new(0), wire.ask(&question))
            .await?;
        redis::from_redis_value(answer.ok()?).ok()
    }

    /// Ends the connection when the exchanges under way are over.
    pub(super) async fn drain(mut self, exchanges: &AtomicUsize) {
        /// A short part of the longest time that anything takes.
        const PAUSE: Duration = Duration::from_millis(2);
        let over = async {
            while exchanges.load(Ordering::Relaxed) > 0 {
                sleep(PAUSE).await;
            }
        };
        self.drive(exchanges, over).await;
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

/// Takes out of a refusal what it repeats of the login: servers cite commands that they do not know,
/// with the password.
fn discreet(refusal: RedisError, password: Option<&str>) -> RedisError {
    let Some(words) = refusal.detail() else {
        return refusal;
    };
    let mut shown = words.split(", with args").next().unwrap_or_default();
    if password.is_some_and(|password| !password.is_empty() && shown.contains(password)) {
        shown = "what it says has the password in it";
    }
    if shown == words {
        return refusal;
    }
    match refusal.code() {
        Some(code) => redis::make_extension_error(code.to_owned(), Some(shown.to_owned())),
        None => (refusal.kind(), "the login failed", shown.to_owned()).into(),
    }
}

/// Whether a server that refuses a login may take one without `HELLO`, for which old servers, proxies
/// and users without the right to it have words of their own.
fn may_be_of_resp3(error: &RedisError) -> bool {
    match error.code() {
        // One wrong password is not to count as two.
        Some("WRONGPASS") => false,
        Some(_) => reply::health_after(error) == Health::Well,
        None => error.kind() == ErrorKind::RESP3NotSupported,
    }
}

/// Finds name and version among what a server says of itself.
fn version(info: &str) -> Option<String> {
    // Valkey says both, the former for old clients.
    [("Valkey", "valkey_version:"), ("Redis", "redis_version:")]
        .into_iter()
        .find_map(|(name, field)| {
            let version = info.lines().find_map(|line| line.strip_prefix(field))?;
            Some(format!("{name} {version}"))
        })
}

/// Sends at once, and notices a peer that vanished without a word.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5))
        .with_retries(3);
    let socket = SockRef::from(stream);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_refuses_hello_in_whatever_words_is_asked_without_and_no_other() {
        let falls_back = |refusal: &str| {
            let refusal = redis::parse_redis_value(refusal.as_bytes()).unwrap();
            may_be_of_resp3(&refusal.extract_error().unwrap_err())
        };
        for refusal in [
            "-ERR unknown command 'HELLO', with args beginning with: '3'\r\n",
            "-ERR unknown command `HELLO`, with args beginning with: `3`\r\n",
            "-ERR unsupported command 'hello'\r\n",
            "-NOPERM this user has no permissions to run the 'hello' command\r\n",
            "-NOPROTO unsupported protocol version\r\n",
            "-NOAUTH Authentication required.\r\n",
        ] {
            assert!(falls_back(refusal), "{refusal}");
        }
        for other in [
            "-WRONGPASS invalid username-password pair or user is disabled.\r\n",
            "-LOADING Redis is loading the dataset in memory\r\n",
            "-BUSY Redis is busy running a script.\r\n",
        ] {
            assert!(!falls_back(other), "{other}");
        }
        let cut = io::Error::from(io::ErrorKind::ConnectionReset);
        assert!(!may_be_of_resp3(&cut.into()));
    }

    #[test]
    fn a_server_is_called_by_its_own_name() {
        let redis = "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n";
        let valkey =
            "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.1\r\n";
        assert_eq!(version(redis).as_deref(), Some("Redis 7.0.15"));
        assert_eq!(version(valkey).as_deref(), Some("Valkey 8.0.1"));
        assert_eq!(version("# Server\r\n"), None);
    }
}
