//! Over real sockets: HTTP/1 and HTTP/2, streams and WebSockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::routing::get as on_get;
use bytes::Bytes;
use futures_util::{StreamExt, stream as streams};
use http::{HeaderMap, Method, Request, Response, Version};
use http_body::Frame;
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;
use tokio::task::AbortHandle;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_response_cache::{CacheLayer, MemoryStore, Policy, ResponseBody};

use crate::support::{
    Answer, Body, Broken, Origin, everywhere, get, request, response, settle, stream, ttl,
};

fn layer() -> CacheLayer {
    let rules = everywhere(ttl(60)).build().expect("the rules are right");
    CacheLayer::new(MemoryStore::new(16 << 20)).rules(rules)
}

/// A server on a port of its own; stops when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    task: AbortHandle,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(crate) async fn start<F: Future<Output: Send> + Send + 'static>(
        serve: impl FnOnce(TcpListener) -> F,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let task = tokio::spawn(serve(listener)).abort_handle();
        Self { address, task }
    }

    async fn axum(router: Router) -> Self {
        Self::start(async |listener| axum::serve(listener, router).await.expect("it serves")).await
    }

    /// Serves HTTP/1 and HTTP/2 without any framework.
    async fn hyper(origin: &Origin) -> Self {
        Self::serving(layer().layer(origin.clone())).await
    }

    async fn serving<S>(service: S) -> Self
    where
        S: Service<Request<Incoming>, Response = Response<ResponseBody<Body>>, Error = Broken>,
        S: Clone + Send + 'static,
        S::Future: Send,
    {
        let service = TowerToHyperService::new(service);
        Self::start(async move |listener: TcpListener| {
            while let Ok((socket, _)) = listener.accept().await {
                let service = service.clone();
                tokio::spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    let socket = TokioIo::new(socket);
                    let _ = server.serve_connection_with_upgrades(socket, service).await;
                });
            }
        })
        .await
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("it listens")
    }

    async fn ask(
        &self,
        client: &Client<HttpConnector, Full<Bytes>>,
        method: Method,
        uri: &str,
        fields: &[(&str, &str)],
    ) -> Answer {
        let uri = format!("http://{}{uri}", self.address);
        let mut request = request(method, &uri, fields);
        request
            .headers_mut()
            .insert("te", "trailers".parse().expect("a field"));
        Answer::read(client.request(request).await.expect("it answers")).await
    }
}

fn client(version: Version) -> Client<HttpConnector, Full<Bytes>> {
    let mut client = Client::builder(TokioExecutor::new());
    client.http2_only(version == Version::HTTP_2).build_http()
}

/// Reads until `end` has come; a test that hangs is one that fails.
async fn read_until(socket: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut read = Vec::new();
    let reading = async {
        while !read.windows(end.len()).any(|window| window == end) {
            assert_ne!(
                socket.read_buf(&mut read).await.expect("it is open"),
                0,
                "it is open"
            );
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reading)
        .await
        .expect("in time");
    read
}

async fn is_whole<E>(answer: Result<Response<Incoming>, E>) -> bool {
    match answer {
        Ok(answer) => answer.into_body().collect().await.is_ok(),
        Err(_) => false,
    }
}

const VERSIONS: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

#[tokio::test]
async fn a_plain_hyper_service_is_cached_over_either_version() {
    for version in VERSIONS {
        let origin = Origin::new(|_| response(&[], "body"));
        let server = Server::hyper(&origin).await;
        let client = client(version);
        let miss = server.ask(&client, Method::GET, "/a", &[]).await;
        assert_eq!((miss.text(), miss.header("content-length")), ("body", "4"));
        assert_eq!(miss.cache_status(), "fwd=uri-miss; stored");
        let hit = server.ask(&client, Method::GET, "/a", &[]).await;
        assert_eq!((hit.text(), hit.header("content-length")), ("body", "4"));
        assert!(hit.cache_status().starts_with("hit"), "{version:?}");
        let head = server.ask(&client, Method::HEAD, "/a", &[]).await;
        assert_eq!((head.text(), head.header("content-length")), ("", "4"));
        let etag = [("if-none-match", hit.header("etag"))];
        let unmodified = server.ask(&client, Method::GET, "/a", &etag).await;
        assert_eq!((unmodified.status.as_u16(), unmodified.text()), (304, ""));
        let cut = server
            .ask(&client, Method::GET, "/a", &[("range", "bytes=1-2")])
            .await;
        assert_eq!((cut.status.as_u16(), cut.text()), (206, "od"));
        server.ask(&client, Method::PUT, "/a", &[]).await;
        let after = server.ask(&client, Method::GET, "/a", &[]).await;
        assert_eq!(after.cache_status(), "fwd=miss; stored; detail=invalidated");
        assert_eq!(origin.calls(), 3);
    }
}

#[tokio::test]
async fn streamed_bodies_and_their_trailers_are_the_same_on_miss_and_hit() {
    for version in VERSIONS {
        let origin = Origin::new(|_| {
            let trailers = HeaderMap::from_iter([(
                "x-sum".parse().expect("a name"),
                "9".parse().expect("a value"),
            )]);
            let data = ["one", "two", "three"].map(|data| Frame::data(data.into()));
            let frames = data.into_iter().chain([Frame::trailers(trailers)]).map(Ok);
            let frames: Vec<_> = frames.collect();
            response(&[("trailer", "x-sum")], "").map(|_| stream(frames))
        });
        let server = Server::hyper(&origin).await;
        let client = client(version);
        for way in ["fwd", "hit", "hit"] {
            let answer = server.ask(&client, Method::GET, "/a", &[]).await;
            assert!(answer.cache_status().starts_with(way), "{version:?}");
            assert_eq!(answer.text(), "onetwothree");
            let trailers = answer.trailers.expect("trailers");
            assert_eq!(trailers["x-sum"], "9", "{way} {version:?}");
        }
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_breaks_off_for_the_client_too() {
    for version in VERSIONS {
        let origin = Origin::new(|_| {
            let frames = [Ok(Frame::data("half".into())), Err(Broken)];
            response(&[], "").map(|_| stream(frames))
        });
        let server = Server::hyper(&origin).await;
        let client = client(version);
        for calls in 1..3 {
            let uri = format!("http://{}/a", server.address);
            let answer = client.request(get(&uri)).await;
            assert!(!is_whole(answer).await, "{version:?}");
            assert_eq!(origin.calls(), calls);
        }
    }
}

#[tokio::test]
async fn a_body_that_broke_off_before_a_server_states_its_length_is_not_whole_either() {
    let (mut sender, channel) = Channel::<Bytes, Broken>::new(1);
    let channel = parking_lot::Mutex::new(Some(channel));
    let origin = Origin::new(move |_| {
        let channel = channel.lock().take().expect("one call");
        response(&[], "").map(|_| Body::new(channel))
    });
    let late = Arc::new(Barrier::new(2));
    let (cached, held) = (layer().layer(origin), Arc::clone(&late));
    let service = service_fn(move |request: Request<Incoming>| {
        let (cached, held) = (cached.clone(), Arc::clone(&held));
        async move {
            let is_late = request.headers().contains_key("x-late");
            let response = cached.oneshot(request).await;
            if is_late {
                held.wait().await;
                held.wait().await;
            }
            response
        }
    });
    let server = Server::serving(service).await;
    let (client, uri) = (
        client(Version::HTTP_11),
        format!("http://{}/a", server.address),
    );
    let leader = client.request(get(&uri)).await;
    let follower = request(Method::GET, &uri, &[("x-late", "1")]);
    let follower = tokio::spawn(client.request(follower));
    late.wait().await;
    sender.send_data("half".into()).await.unwrap();
    sender.abort(Broken);
    assert!(!is_whole(leader).await);
    late.wait().await;
    assert!(!is_whole(follower.await.unwrap()).await);
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_leaves_nothing_stored() {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
    let receiver = parking_lot::Mutex::new(Some(receiver));
    let origin = Origin::new(move |_| match receiver.lock().take() {
        Some(mut receiver) => {
            let frames = streams::poll_fn(move |cx| receiver.poll_recv(cx));
            let body = http_body_util::StreamBody::new(frames.map(|data| Ok(Frame::data(data))));
            response(&[], "").map(|_| body.boxed_unsync())
        }
        None => response(&[], "whole"),
    });
    let server = Server::hyper(&origin).await;
    let mut socket = server.connect().await;
    socket
        .write_all(b"GET /a HTTP/1.1\r\nhost: a.example\r\n\r\n")
        .await
        .unwrap();
    sender.send("first".into()).unwrap();
    read_until(&mut socket, b"first").await;
    drop(socket);
    while !sender.is_closed() {
        let _ = sender.send("more".into());
        tokio::task::yield_now().await;
    }
    settle().await;
    let answer = server
        .ask(&client(Version::HTTP_11), Method::GET, "/a", &[])
        .await;
    assert_eq!(
        (answer.text(), answer.cache_status()),
        ("whole", "fwd=uri-miss; stored")
    );
}

#[tokio::test]
async fn a_websocket_passes_untouched() {
    let echo = on_get(|upgrade: WebSocketUpgrade| async {
        upgrade.on_upgrade(|mut socket| async move {
            while let Some(Ok(message)) = socket.recv().await {
                if socket.send(message).await.is_err() {
                    break;
                }
            }
        })
    });
    let server = Server::axum(Router::new().route("/ws", echo).layer(layer())).await;
    for _ in 0..2 {
        let mut socket = server.connect().await;
        let request = "GET /ws HTTP/1.1\r\nhost: a.example\r\nconnection: upgrade\r\n\
            upgrade: websocket\r\nsec-websocket-version: 13\r\n\
            sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        socket.write_all(request.as_bytes()).await.unwrap();
        let head = read_until(&mut socket, b"\r\n\r\n").await;
        let head = String::from_utf8_lossy(&head).into_owned();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        assert!(head.contains("fwd=bypass; detail=upgrade"), "{head}");
        // A masked text frame; it comes back without its mask.
        socket
            .write_all(b"\x81\x82\x01\x02\x03\x04\x69\x6b")
            .await
            .unwrap();
        assert_eq!(read_until(&mut socket, b"hi").await, b"\x81\x02hi");
    }
}

#[tokio::test]
async fn an_upgrade_that_a_write_asks_for_passes_untouched_too() {
    let router = Router::new().route(
        "/up",
        axum::routing::post(|mut request: Request<axum::body::Body>| async move {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut socket = TokioIo::new(upgrade.await.expect("an upgrade"));
                socket.write_all(b"upgraded").await.expect("it is open");
            });
            let fields = [("connection", "upgrade"), ("upgrade", "own")];
            (http::StatusCode::SWITCHING_PROTOCOLS, fields)
        }),
    );
    let server = Server::axum(router.layer(layer())).await;
    let mut socket = server.connect().await;
    let request =
        "POST /up HTTP/1.1\r\nhost: a.example\r\nconnection: upgrade\r\nupgrade: own\r\n\r\n";
    socket.write_all(request.as_bytes()).await.unwrap();
    let read = read_until(&mut socket, b"upgraded").await;
    assert!(read.starts_with(b"HTTP/1.1 101"));
}

#[tokio::test]
async fn rfc9111_keeps_to_the_framing_of_http_1() {
    // What an origin says of its connection is not what the cache says of its own.
    let fields = [
        ("cache-control", "max-age=60"),
        ("connection", "close"),
        ("keep-alive", "timeout=5"),
    ];
    let origin = Origin::new(move |_| response(&fields, "body"));
    let rules = everywhere(ttl(60))
        .policy(Policy::rfc9111())
        .build()
        .unwrap();
    let server = Server::serving(layer().rules(rules).layer(origin)).await;
    let client = client(Version::HTTP_11);
    server.ask(&client, Method::GET, "/a", &[]).await;
    let hit = server.ask(&client, Method::GET, "/a", &[]).await;
    assert_eq!(hit.text(), "body");
    for name in ["connection", "keep-alive", "transfer-encoding"] {
        assert!(!hit.headers.contains_key(name), "HD1, HD4: {name}");
    }
}
