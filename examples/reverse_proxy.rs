//! A caching reverse proxy in front of any HTTP/1.1 origin.
//!
//! ```text
//! cargo run --release --example reverse_proxy -- --listen 127.0.0.1:9000 --origin http://127.0.0.1:8000
//! curl -i http://127.0.0.1:9000/
//! ```
//!
//! The `Cache-Status` of an answer says whether it came from the cache, and why; with
//! `RUST_LOG=debug` the log says more. Clients speak HTTP/1.1 or, by prior knowledge, HTTP/2.
//!
//! Read on for: the program, the proxy with the cache in it, what is done to requests, the origin,
//! fields, interim responses, and the command line.

use std::collections::HashMap;
use std::convert::{Infallible, identity};
use std::error::Error as StdError;
use std::ffi::OsString;
use std::future::Future;
use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, MAX_FORWARDS, TE, TRANSFER_ENCODING,
    UPGRADE, VIA,
};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
};
use http_body_util::{Either, Full};
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tower::{Layer, Service, ServiceExt};
use tower_response_cache::{
    CacheLayer, CacheService, KeyedByContent, MemoryStore, OnInterim, Policy, RedisStore,
    RequestBody, ResponseBody, TieredStore,
};
use tracing_subscriber::EnvFilter;

/// How much the store in memory holds, in bytes.
const MEMORY: u64 = 256 << 20;
/// How long a client may take to begin, or to go on with, its next request.
const IDLE: Duration = Duration::from_secs(75);
/// How long the origin may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request without content may take from its first byte until the final response begins.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::from_default_env())
        .with_writer(io::stderr)
        .init();
    let options = match Options::parse(std::env::args_os().skip(1)) {
        Ok(options) => options,
        Err(mistake) => {
            eprintln!("reverse_proxy: {mistake}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = options.threads {
        runtime.worker_threads(threads.get());
    }
    let runtime = runtime.enable_all().build().expect("threads can be had");
    let Err(error) = runtime.block_on(serve(options));
    eprintln!("reverse_proxy: {error}");
    ExitCode::FAILURE
}

async fn serve(options: Options) -> Result<Infallible, Box<dyn StdError>> {
    let cache = match options.store {
        Storage::Memory => CacheLayer::new(MemoryStore::new(MEMORY)),
        Storage::Redis(url) => CacheLayer::new(RedisStore::connect(&url).await?),
        Storage::Tiered(url) => {
            let redis = RedisStore::connect(&url).await?;
            CacheLayer::new(TieredStore::new(MemoryStore::new(MEMORY), redis))
        }
    };
    let proxy = Proxy::new(Origin::new(options.origin), cache.policy(options.preset))?;
    let listener = TcpListener::bind(options.listen).await?;
    let address = listener.local_addr()?;
    writeln!(io::stdout(), "listening on http://{address}")?;
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                tokio::spawn(converse(client, proxy.clone()));
            }
            Err(error) => {
                // Out of file descriptors, most likely: some may soon be free.
                tracing::warn!(%error, "cannot accept a connection");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Answers the requests of one connection.
async fn converse(client: TcpStream, proxy: Proxy) {
    // Small answers are not to wait for the acknowledgement of earlier ones.
    if let Err(error) = client.set_nodelay(true) {
        tracing::debug!(%error, "the connection is gone already");
        return;
    }
    let line = Arc::<Mutex<Line>>::default();
    let io = TokioIo::new(InterimIo(client, Arc::clone(&line)));
    let service = service_fn(move |mut request| {
        let exchange = Exchange::begin(&line, &mut request);
        let answer = proxy.clone().answer(request);
        async move {
            let response = answer.await;
            drop(exchange);
            Ok::<_, Infallible>(response)
        }
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    let mut http1 = server.http1();
    http1.timer(TokioTimer::new()).header_read_timeout(IDLE);
    if let Err(error) = server.serve_connection(io, service).await {
        tracing::debug!(error, "a connection ended early");
    }
}

// ---- The proxy -----------------------------------------------------------------------------------

/// What clients read: a response through the cache, or a line from the proxy.
type Body = Either<ResponseBody<Incoming>, Full<Bytes>>;

/// What the origin reads: a request through the cache, which reads the content of a QUERY first.
type Content = RequestBody<Incoming>;

type Cache = CacheService<Origin, KeyedByContent<fn(Content) -> Content>>;

/// The answer where there is no response: a status, and what to say with it.
#[derive(Debug)]
struct Refusal(u16, &'static str);

/// Answers clients from the cache in front of the origin.
#[derive(Clone, Debug)]
struct Proxy {
    cache: Cache,
    /// What this process and no other adds to `CDN-Loop`.
    id: HeaderValue,
}

impl Proxy {
    fn new(origin: Origin, cache: CacheLayer) -> Result<Self, Box<dyn StdError>> {
        let id = format!("tower-response-cache-{:016x}", getrandom::u64()?);
        Ok(Self {
            cache: cache.keyed_by_content(identity as fn(_) -> _).layer(origin),
            id: HeaderValue::try_from(id)?,
        })
    }

    /// Answers a request, come what may.
    ///
    /// An origin that fails is an error up to here and a 502 from here on, so that the cache in
    /// between can serve what it has.
    async fn answer(self, mut request: Request<Incoming>) -> Response<Body> {
        let answer = match admit(&mut request, &self.id) {
            Ok(()) => self.cache.oneshot(request).await,
            Err(refusal) => Err(refusal),
        };
        answer.map_or_else(
            |Refusal(status, why)| {
                let response = Response::builder().status(status);
                let response = response.header(CONTENT_TYPE, "text/plain; charset=utf-8");
                let response = response.body(Either::Right(Full::from(why)));
                response.expect("status and field are valid")
            },
            |response| response.map(Either::Left),
        )
    }
}

// ---- Requests ------------------------------------------------------------------------------------

/// Turns what a client sent into a request that cache and origin can take, or says why not.
fn admit(request: &mut Request<Incoming>, id: &HeaderValue) -> Result<(), Refusal> {
    if request.method() == Method::CONNECT {
        return Err(Refusal(501, "this proxy makes no tunnels\n"));
    }
    let takes_trailers =
        members(request.headers(), TE).any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
    // Before the cache, so that no field that the origin will not see can choose a variant.
    strip_connection_fields(request.headers_mut());
    agree_on_host(request)?;
    count_forwards(request)?;
    break_loops(request.headers_mut(), id)?;
    let via = match request.version() {
        Version::HTTP_10 => "1.0 tower-response-cache",
        Version::HTTP_11 => "1.1 tower-response-cache",
        _ => "2.0 tower-response-cache",
    };
    let headers = request.headers_mut();
    headers.append(VIA, HeaderValue::from_static(via));
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    join_cookies(headers);
    Ok(())
}

/// Leaves one `Host`, which is that of the target.
fn agree_on_host(request: &mut Request<Incoming>) -> Result<(), Refusal> {
    // An authority in the target stands above `Host` (RFC 9112 §3.2.2, RFC 9113 §8.3.1).
    if let Some(host) = request.uri().authority().and_then(host_of) {
        request.headers_mut().insert(HOST, host);
    }
    let hosts = request.headers().get_all(HOST).iter().count();
    match (request.version(), hosts) {
        (_, 1) | (Version::HTTP_10, 0) => Ok(()),
        // RFC 9112 §3.2
        _ => Err(Refusal(400, "exactly one Host is needed\n")),
    }
}

/// Returns host and port, without userinfo, which has no place in `Host`.
fn host_of(authority: &Authority) -> Option<HeaderValue> {
    let host = authority.as_str();
    HeaderValue::from_str(host.rsplit_once('@').map_or(host, |(_, host)| host)).ok()
}

/// Lets requests that look at their way go as far as they say (RFC 9110 §7.6.2).
fn count_forwards(request: &mut Request<Incoming>) -> Result<(), Refusal> {
    let left = request.headers().get(MAX_FORWARDS);
    let left = left.and_then(|left| left.to_str().ok()?.parse::<u64>().ok());
    match (request.method(), left) {
        (&Method::OPTIONS, Some(0)) => Err(Refusal(200, "")),
        (&Method::TRACE, Some(0)) => {
            Err(Refusal(501, "this proxy does not show what it receives\n"))
        }
        (&Method::OPTIONS | &Method::TRACE, Some(left)) => {
            let left = HeaderValue::from(left.saturating_sub(1));
            request.headers_mut().insert(MAX_FORWARDS, left);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Refuses a request that has been here before, and marks others (RFC 8586).
fn break_loops(headers: &mut HeaderMap, id: &HeaderValue) -> Result<(), Refusal> {
    const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
    let is_own = |member: &[u8]| {
        let name = member.split(|&byte| byte == b';').next();
        name.map(<[u8]>::trim_ascii) == Some(id.as_bytes())
    };
    if members(headers, CDN_LOOP).any(is_own) {
        return Err(Refusal(508, "this request has been here before\n"));
    }
    headers.append(CDN_LOOP, id.clone());
    Ok(())
}

/// Joins the cookies that HTTP/2 may send one a line (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let lines = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    let lines: Vec<_> = lines.collect();
    if lines.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&lines.join(&b"; "[..]))
    {
        headers.insert(COOKIE, joined);
    }
}

// ---- The origin ----------------------------------------------------------------------------------

/// The origin server, as the cache's inner service.
#[derive(Clone, Debug)]
struct Origin {
    client: Arc<Client<HttpConnector, Content>>,
    authority: Authority,
}

impl Origin {
    fn new(authority: Authority) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            // A connection that was used before may be closing when the next request is sent, and
            // a request whose connection closed may have been carried out: each has a connection
            // of its own, and is sent once.
            .pool_max_idle_per_host(0)
            .retry_canceled_requests(false)
            .set_host(false)
            .http1_max_headers(1000)
            // RFC 9112 §5.1, §5.2: what a proxy has to mend in responses.
            .http1_allow_spaces_after_header_name_in_responses(true)
            .http1_allow_obsolete_multiline_headers_in_responses(true)
            .build(connector);
        Self {
            client: Arc::new(client),
            authority,
        }
    }

    async fn fetch(self, mut request: Request<Content>) -> Result<Response<Incoming>, Refusal> {
        self.address(&mut request);
        pass_interims_on(&mut request);
        // To send content takes as long as its client does.
        let limit = match request.body().is_end_stream() {
            true => RESPONSE_TIMEOUT,
            false => Duration::MAX,
        };
        let answer = timeout(limit, self.client.request(request)).await;
        let answer = answer.map_err(|_| Refusal(504, "the origin did not answer in time\n"))?;
        let mut response = answer.map_err(|error| {
            tracing::warn!(?error, "the origin failed");
            Refusal(
                502,
                match error.is_connect() {
                    true => "the origin cannot be reached\n",
                    false => "the origin did not answer, or not in HTTP\n",
                },
            )
        })?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Refusal(502, "the origin changed the protocol unasked\n"));
        }
        // The version is that of the sender, not of the response (RFC 9110 §2.5).
        *response.version_mut() = Version::HTTP_11;
        strip_connection_fields(response.headers_mut());
        merge_lengths(response.headers_mut());
        Ok(response)
    }

    /// Makes a request one of HTTP/1.1 to the origin, which keeps its path and `Host`.
    fn address(&self, request: &mut Request<Content>) {
        let mut target = std::mem::take(request.uri_mut()).into_parts();
        target.scheme = Some(Scheme::HTTP);
        target.authority = Some(self.authority.clone());
        target
            .path_and_query
            .get_or_insert(PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from_parts(target).expect("scheme, authority and path are there");
        *request.version_mut() = Version::HTTP_11;
        let body = request.body();
        let has_unknown_length = !body.is_end_stream() && body.size_hint().exact().is_none();
        let headers = request.headers_mut();
        if has_unknown_length {
            // Without it hyper drops the content of a GET.
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        if let Some(host) = host_of(&self.authority) {
            headers.entry(HOST).or_insert(host);
        }
        let options = match headers.contains_key(TE) {
            true => "close, te",
            false => "close",
        };
        headers.insert(CONNECTION, HeaderValue::from_static(options));
    }
}

impl Service<Request<Content>> for Origin {
    type Response = Response<Incoming>;
    type Error = Refusal;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Refusal>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Content>) -> Self::Future {
        Box::pin(self.clone().fetch(request))
    }
}

// ---- Fields --------------------------------------------------------------------------------------

/// Removes the fields that are about one connection only (RFC 9110 §7.6.1).
fn strip_connection_fields(headers: &mut HeaderMap) {
    const ALWAYS: [HeaderName; 6] = [
        CONNECTION,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        TE,
        TRANSFER_ENCODING,
        UPGRADE,
    ];
    if headers.contains_key(TRANSFER_ENCODING) {
        // RFC 9112 §6.3: it was not this length that framed the message.
        headers.remove(CONTENT_LENGTH);
    }
    let listed: Vec<_> = members(headers, CONNECTION)
        .filter_map(|option| HeaderName::from_bytes(option).ok())
        .collect();
    for name in listed.iter().chain(&ALWAYS) {
        headers.remove(name);
    }
}

/// Leaves one of several `Content-Length`s that say the same (RFC 9110 §8.6).
fn merge_lengths(headers: &mut HeaderMap) {
    let first = members(headers, CONTENT_LENGTH).next();
    if let Some(Ok(length)) = first.map(HeaderValue::from_bytes) {
        headers.insert(CONTENT_LENGTH, length);
    }
}

/// Returns the members of a list that may be spread over several field lines (RFC 9110 §5.6.1).
fn members(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(name).into_iter();
    lines
        .flat_map(|line| line.as_bytes().split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
}

// ---- Interim responses (RFC 9110 §15.2) ----------------------------------------------------------
//
// hyper's client reports those that it receives, and the cache passes them to all who wait for the
// same response. But hyper's server cannot send any. So each accepted connection is wrapped:
// `Interims` queues those of the exchange that is under way, and `InterimIo` writes them where no
// other response has begun and not ended.

/// Has hyper's client tell the cache what comes before the response.
fn pass_interims_on(request: &mut Request<Content>) {
    if let Some(on_interim) = request.extensions_mut().remove::<OnInterim>() {
        hyper::ext::on_informational(request, move |reported| {
            let mut interim = Response::new(());
            *interim.status_mut() = reported.status();
            *interim.headers_mut() = reported.headers().clone();
            strip_connection_fields(interim.headers_mut());
            on_interim.call(&interim);
        });
    }
}

/// The interim responses of one connection.
#[derive(Debug, Default)]
struct Line {
    /// Changes when an exchange begins and when it ends.
    exchange: u64,
    /// Whether hyper has nothing left to write of what it had before the last flush.
    settled: bool,
    queued: BytesMut,
    /// Wakes the connection, so that it flushes.
    connection: Option<Waker>,
}

/// An exchange whose final response has not begun.
#[derive(Debug)]
struct Exchange(Arc<Mutex<Line>>);

impl Exchange {
    /// Begins an exchange: until its end the client is sent what its request's hook hears.
    fn begin(line: &Arc<Mutex<Line>>, request: &mut Request<Incoming>) -> Self {
        let exchange = line.lock().next_exchange();
        let takes_interims = request.version() == Version::HTTP_11;
        let hears = Arc::clone(line);
        let hook = OnInterim::new(move |interim| {
            // hyper's server sends 100 by itself, when the content is asked for.
            if takes_interims && interim.status() != StatusCode::CONTINUE {
                hears.lock().queue(exchange, interim);
            }
        });
        request.extensions_mut().insert(hook);
        Self(Arc::clone(line))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut line = self.0.lock();
        line.next_exchange();
        if !line.settled {
            // The final response joins what hyper has still to write: there is no place between.
            line.queued.clear();
        }
    }
}

impl Line {
    fn next_exchange(&mut self) -> u64 {
        self.exchange = self.exchange.wrapping_add(1);
        self.exchange
    }

    fn queue(&mut self, exchange: u64, interim: &Response<()>) {
        /// An origin that sends them faster than the client reads loses some.
        const MAX_QUEUED: usize = 64 << 10;
        if self.exchange != exchange || self.queued.len() > MAX_QUEUED {
            return;
        }
        let status = interim.status();
        let reason = status.canonical_reason().unwrap_or_default();
        let start = format!("HTTP/1.1 {} {reason}\r\n", status.as_str());
        self.queued.extend_from_slice(start.as_bytes());
        for (name, value) in interim.headers() {
            let line = [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"];
            self.queued.extend_from_slice(&line.concat());
        }
        self.queued.extend_from_slice(b"\r\n");
        if let Some(connection) = self.connection.take() {
            connection.wake();
        }
    }

    fn poll_write(&mut self, io: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.queued.has_remaining() {
            let written = ready!(Pin::new(&mut *io).poll_write(cx, &self.queued))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.queued.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

/// A connection on which interim responses are written between hyper's messages.
///
/// hyper flushes the connection only when it has nothing left to write, and hands out a request
/// only when it has encoded all of the response before. So what is queued while an exchange is
/// under way may be written at any flush, and before anything that hyper writes first after one:
/// that is the final response of this exchange, or its 100 (Continue).
#[derive(Debug)]
struct InterimIo(TcpStream, Arc<Mutex<Line>>);

impl AsyncWrite for InterimIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self(io, line) = &mut *self;
        let mut line = line.lock();
        if line.settled {
            ready!(line.poll_write(io, cx))?;
        }
        let written = ready!(Pin::new(io).poll_write(cx, bytes))?;
        line.settled = false;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self(io, line) = &mut *self;
        let mut line = line.lock();
        line.settled = true;
        line.connection = Some(cx.waker().clone());
        ready!(line.poll_write(io, cx))?;
        Pin::new(io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl AsyncRead for InterimIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

// ---- The command line ----------------------------------------------------------------------------

const USAGE: &str = "\
usage: reverse_proxy --listen HOST:PORT --origin http://HOST[:PORT]
                     [--preset rfc9111|guarded]        (default: rfc9111)
                     [--store memory|[tiered+]redis://HOST:PORT/DB] (default: memory)
                     [--threads N]                     (default: one a core)";

#[derive(Debug)]
struct Options {
    listen: SocketAddr,
    origin: Authority,
    preset: Policy,
    store: Storage,
    threads: Option<NonZeroUsize>,
}

#[derive(Debug)]
enum Storage {
    Memory,
    Redis(String),
    /// Memory over Redis.
    Tiered(String),
}

impl Options {
    /// Reads options and their values; the last of several of one name counts.
    fn parse(args: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let mut args = args.map(|arg| arg.to_string_lossy().into_owned());
        let mut given = HashMap::new();
        while let Some(name) = args.next() {
            let value = args.next().ok_or(format!("{name} lacks a value"))?;
            given.insert(name, value);
        }
        let given = &mut given;
        let listen = take(given, "--listen", "HOST:PORT", |value| {
            value.to_socket_addrs().ok()?.next()
        })?;
        let origin = take(given, "--origin", "http://HOST[:PORT]", authority)?;
        let preset = take(given, "--preset", "rfc9111 or guarded", preset)?;
        let stores = "memory or [tiered+]redis://HOST:PORT/DB";
        let store = take(given, "--store", stores, storage)?;
        let threads = take(given, "--threads", "a number from 1", |n| n.parse().ok())?;
        if let Some(name) = given.keys().next() {
            return Err(format!("{name} is not an option"));
        }
        Ok(Self {
            listen: listen.ok_or("--listen is missing")?,
            origin: origin.ok_or("--origin is missing")?,
            preset: preset.unwrap_or_else(Policy::rfc9111),
            store: store.unwrap_or(Storage::Memory),
            threads,
        })
    }
}

/// Takes an option out of those that are given.
fn take<T>(
    given: &mut HashMap<String, String>,
    name: &str,
    expected: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, String> {
    let Some(value) = given.remove(name) else {
        return Ok(None);
    };
    let mistake = || format!("{name} {value}: expected {expected}");
    read(&value).map(Some).ok_or_else(mistake)
}

fn authority(value: &str) -> Option<Authority> {
    let uri = value.parse::<Uri>().ok()?.into_parts();
    let has_path = uri.path_and_query.is_some_and(|path| path != "/");
    let is_http = uri.scheme == Some(Scheme::HTTP);
    let authority = uri.authority.filter(|host| !host.as_str().contains('@'));
    authority.filter(|_| is_http && !has_path)
}

fn preset(value: &str) -> Option<Policy> {
    match value {
        "rfc9111" => Some(Policy::rfc9111()),
        "guarded" => Some(Policy::guarded()),
        _ => None,
    }
}

fn storage(value: &str) -> Option<Storage> {
    let redis = |url: &str| url.starts_with("redis://").then(|| url.to_owned());
    match value.strip_prefix("tiered+") {
        Some(url) => redis(url).map(Storage::Tiered),
        None if value == "memory" => Some(Storage::Memory),
        None => redis(value).map(Storage::Redis),
    }
}
