//! A server on a port of its own, and its clients.

use std::fmt::Display;
use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;
use tower::util::MapFutureLayer;
use tower_response_cache::{CacheLayer, MemoryStore, Rule, Rules};

/// Longer than any wait here, shorter than a test that hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How many streams a connection of HTTP/2 may have.
pub(crate) const STREAMS: usize = 250;

/// What a socket holds for those who do not read; the rest waits in the server.
pub(crate) const SOCKET: u32 = 64 << 10;

/// A cache that keeps what `/{key}` gives for a minute. However busy the machine, who follows waits.
pub(crate) fn cache() -> CacheLayer {
    let rule = Rule::ttl(Duration::from_secs(60)).max_body(8 << 20);
    let rules = Rules::builder().route("/{key}", rule).build().unwrap();
    let cache = CacheLayer::new(MemoryStore::new(256 << 20)).rules(rules);
    cache.collapse_wait(PATIENCE)
}

/// A server of HTTP/1 and HTTP/2. Dropped, it takes no more connections.
pub(crate) struct Server {
    address: SocketAddr,
    inside: watch::Sender<usize>,
    task: AbortHandle,
}

impl Server {
    pub(crate) async fn start(app: Router) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_send_buffer_size(SOCKET).unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let listener = socket.listen(1024).unwrap();
        let inside = watch::Sender::new(0);
        Self {
            address: listener.local_addr().unwrap(),
            task: tokio::spawn(serve(listener, counting(app, &inside))).abort_handle(),
            inside,
        }
    }

    /// Waits until so many requests have been taken up, could not be answered at once, and are not
    /// answered or given up yet.
    pub(crate) async fn holds(&self, requests: usize) {
        let mut inside = self.inside.subscribe();
        let held = timeout(PATIENCE, inside.wait_for(|inside| *inside == requests));
        held.await.expect("so many requests wait").unwrap();
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn client(&self, version: Version) -> Client {
        Client::new(self.address, version)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, app: Router) {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http2().max_concurrent_streams(STREAMS as u32);
    while let Ok((socket, _)) = listener.accept().await {
        let (server, app) = (server.clone(), TowerToHyperService::new(app.clone()));
        tokio::spawn(async move {
            // Fails when the client goes, as some are meant to.
            let _ = server.serve_connection(TokioIo::new(socket), app).await;
        });
    }
}

fn counting(app: Router, inside: &watch::Sender<usize>) -> Router {
    let inside = inside.clone();
    app.layer(MapFutureLayer::new(move |answering| {
        counted(answering, inside.clone())
    }))
}

/// Counts a request as long as it waits.
async fn counted<F: Future>(answering: F, inside: watch::Sender<usize>) -> F::Output {
    struct Inside(watch::Sender<usize>);

    impl Drop for Inside {
        fn drop(&mut self) {
            self.0.send_modify(|inside| *inside -= 1);
        }
    }

    let mut answering = pin!(answering);
    let first = poll_fn(|cx| Poll::Ready(answering.as_mut().poll(cx))).await;
    if let Poll::Ready(answer) = first {
        return answer;
    }
    inside.send_modify(|inside| *inside += 1);
    let _inside = Inside(inside);
    answering.await
}

/// Asks by a socket, and reads nothing.
pub(crate) async fn ask(socket: &mut TcpStream, path: impl Display) {
    // Like that of clients that are given an address: the host is part of the key.
    let host = socket.peer_addr().unwrap();
    let request = format!("GET /{path} HTTP/1.1\r\nhost: {host}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
}

#[derive(Clone)]
pub(crate) struct Client {
    address: SocketAddr,
    http: hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>,
}

impl Client {
    /// Makes a client of any number of connections of HTTP/1, or one of HTTP/2.
    pub(crate) fn new(address: SocketAddr, version: Version) -> Self {
        let mut builder = hyper_util::client::legacy::Client::builder(TokioExecutor::new());
        builder.http2_only(version == Version::HTTP_2);
        Self {
            address,
            http: builder.build_http(),
        }
    }

    pub(crate) fn uri(&self, path: impl Display) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// Asks, up to the head of the answer.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let response = timeout(PATIENCE, self.http.request(request)).await;
        let response = response.expect("nobody is stuck").expect("an answer");
        assert_eq!(response.status(), 200);
        response
    }

    /// Asks for a key, up to the head of the answer.
    pub(crate) async fn head(&self, key: u64) -> Response<Incoming> {
        let request = Request::get(self.uri(key)).body(Full::default());
        self.send(request.unwrap()).await
    }

    /// Asks for a key.
    pub(crate) async fn ask(&self, key: u64) -> Bytes {
        read(self.head(key).await).await
    }

    /// Asks for a key in a task of its own.
    pub(crate) fn asking(&self, key: u64) -> JoinHandle<Bytes> {
        let client = self.clone();
        tokio::spawn(async move { client.ask(key).await })
    }
}

/// Reads an answer to its end.
pub(crate) async fn read(response: Response<Incoming>) -> Bytes {
    let whole = timeout(PATIENCE, response.into_body().collect()).await;
    let whole = whole.expect("nobody is stuck").expect("a whole body");
    whole.to_bytes()
}
