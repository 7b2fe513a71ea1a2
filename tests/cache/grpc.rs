//! gRPC with messages of prost, services written by hand, and answers by a script.

use std::convert::{Infallible, identity};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self as streams, BoxStream, StreamExt};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method};
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use prost::Message;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::{Layer, Service, ServiceExt};
use tower_response_cache::{
    CacheHandle, CacheLayer, MemoryStore, RequestBody, Rule, Rules, RulesBuilder,
};

use crate::support::{Answer, Origin, everywhere, request, response, stream, ttl};
use crate::wire::Server;

#[derive(Clone, Copy, PartialEq, Message)]
struct Number {
    #[prost(uint32, tag = "1")]
    value: u32,
}

type Numbers = ProstCodec<Number, Number>;

/// Counts its calls, and up to a number.
#[derive(Clone, Default)]
struct Counter(Arc<AtomicU32>);

impl Counter {
    /// The number of the message and that of the call: 100 and 1 are 101.
    fn next(&self, request: Request<Number>) -> Result<Response<Number>, Status> {
        let value = request.into_inner().value + self.0.fetch_add(1, Ordering::SeqCst) + 1;
        match value {
            ..1000 => Ok(Response::new(Number { value })),
            _ => Err(Status::not_found("no such number")),
        }
    }
}

/// Counts up to a number, and then fails.
fn count(request: Request<Number>) -> BoxStream<'static, Result<Number, Status>> {
    let numbers = (1..=request.into_inner().value).map(|value| Ok(Number { value }));
    let end = Err(Status::data_loss("no more numbers"));
    streams::iter(numbers.chain([end])).boxed()
}

impl NamedService for Counter {
    const NAME: &'static str = "test.Counter";
}

impl Service<http::Request<Body>> for Counter {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let counter = self.clone();
        let next = tower::service_fn(move |request| std::future::ready(counter.next(request)));
        let count =
            tower::service_fn(async |request| Ok::<_, Status>(Response::new(count(request))));
        let echo = tower::service_fn(async |request: Request<Streaming<Number>>| {
            Ok::<_, Status>(Response::new(request.into_inner()))
        });
        let mut grpc = tonic::server::Grpc::new(Numbers::default());
        Box::pin(async move {
            Ok(match request.uri().path() {
                "/test.Counter/Count" => grpc.server_streaming(count, request).await,
                "/test.Counter/Echo" => grpc.streaming(echo, request).await,
                _ => grpc.unary(next, request).await,
            })
        })
    }
}

/// A tonic server with a cache, and a client of it.
struct Calls {
    client: tonic::client::Grpc<Channel>,
    handle: CacheHandle,
    _server: Server,
}

impl Calls {
    /// Calls through a cache that is keyed by content.
    async fn keyed(rules: RulesBuilder) -> Self {
        let cache = cache(rules).keyed_by_content(Body::new);
        let handle = cache.handle();
        let server = Server::start(async move |listener| {
            let mut server = tonic::transport::Server::builder().layer(cache);
            let incoming = TcpIncoming::from(listener);
            server
                .add_service(Counter::default())
                .serve_with_incoming(incoming)
                .await
        });
        Self::to(server.await, handle).await
    }

    /// Calls through a cache that reads no content.
    async fn unread(rules: RulesBuilder) -> Self {
        let cache = cache(rules);
        let handle = cache.handle();
        let server = Server::start(async move |listener| {
            let mut server = tonic::transport::Server::builder().layer(cache);
            let incoming = TcpIncoming::from(listener);
            server
                .add_service(Counter::default())
                .serve_with_incoming(incoming)
                .await
        });
        Self::to(server.await, handle).await
    }

    async fn to(server: Server, handle: CacheHandle) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{}", server.address));
        let channel = endpoint.expect("an address").connect().await;
        Self {
            client: tonic::client::Grpc::new(channel.expect("it listens")),
            handle,
            _server: server,
        }
    }

    async fn unary(
        &mut self,
        path: &'static str,
        request: Request<Number>,
    ) -> Result<Response<Number>, Status> {
        self.client.ready().await.expect("it is ready");
        let path = PathAndQuery::from_static(path);
        self.client.unary(request, path, Numbers::default()).await
    }

    /// Asks for the next number after this one.
    async fn next(&mut self, value: u32) -> u32 {
        let answer = self.unary(NEXT, number(value)).await.unwrap();
        let status = answer.metadata().get("grpc-status").expect("trailers");
        assert_eq!(status, "0");
        answer.into_inner().value
    }

    /// Counts up to a number and reads all of it.
    async fn count(&mut self, last: u32) {
        self.client.ready().await.expect("it is ready");
        let path = PathAndQuery::from_static("/test.Counter/Count");
        let answer = self
            .client
            .server_streaming(number(last), path, Numbers::default())
            .await;
        let mut numbers = answer.unwrap().into_inner();
        for value in 1..=last {
            assert_eq!(numbers.message().await.unwrap(), Some(Number { value }));
        }
        let end = numbers.message().await.unwrap_err();
        assert_eq!(
            (end.code(), end.message()),
            (Code::DataLoss, "no more numbers")
        );
    }
}

const NEXT: &str = "/test.Counter/Next";

fn number(value: u32) -> Request<Number> {
    Request::new(Number { value })
}

fn cache(rules: RulesBuilder) -> CacheLayer {
    let rules = rules.build().expect("the rules are right");
    CacheLayer::new(MemoryStore::new(16 << 20)).rules(rules)
}

fn unary() -> Rule {
    ttl(60).grpc_unary()
}

#[tokio::test]
async fn calls_without_a_rule_of_their_own_pass_through_and_nothing_is_stored() {
    // Without rules they pass by; where a rule knows their paths they count as writes.
    for mut calls in [
        Calls::unread(Rules::builder()).await,
        Calls::unread(everywhere(ttl(60))).await,
        Calls::unread(everywhere(unary())).await,
        Calls::keyed(Rules::builder()).await,
        Calls::keyed(everywhere(ttl(60))).await,
    ] {
        for call in 1..=3 {
            assert_eq!(calls.next(100).await, 100 + call);
        }
        calls.count(1000).await;
        assert_eq!(calls.handle.stats().stored(), 0);
    }
}

#[tokio::test]
async fn a_unary_call_is_answered_from_the_cache_by_its_message() {
    let mut calls = Calls::keyed(Rules::builder().route(NEXT, unary())).await;
    let miss = calls.unary(NEXT, number(100)).await.unwrap();
    let hit = calls.unary(NEXT, number(100)).await.unwrap();
    assert_eq!((miss.get_ref().value, hit.get_ref().value), (101, 101));
    let said = |answer: &Response<Number>, name| {
        let value = answer.metadata().get(name);
        value
            .map(|value| value.to_str().unwrap().to_owned())
            .unwrap_or_default()
    };
    assert!(said(&miss, "cache-status").ends_with("fwd=uri-miss; stored"));
    assert!(said(&hit, "cache-status").ends_with("hit; ttl=60"));
    for answer in [&miss, &hit] {
        assert_eq!(said(answer, "grpc-status"), "0", "the trailers");
        for name in ["etag", "cache-control", "trailer", "content-length"] {
            assert_eq!(said(answer, name), "", "{name}");
        }
    }
    assert_eq!(calls.next(200).await, 202, "another message");
    assert_eq!(calls.next(100).await, 101);
}

#[tokio::test]
async fn metadata_counts_if_the_rule_names_it() {
    let rule = unary().key_field("x-tenant".parse().unwrap());
    let mut calls = Calls::keyed(Rules::builder().route(NEXT, rule)).await;
    for (name, value, expected) in [
        ("x-tenant", "a", 101),
        ("x-tenant", "b", 102),
        ("x-tenant", "a", 101),
        ("x-request-id", "7", 103),
        ("x-request-id", "8", 103),
        ("grpc-timeout", "1S", 103),
        ("grpc-timeout", "2S", 103),
        ("if-none-match", "*", 103),
        ("if-match", "\"x\"", 103),
        ("range", "bytes=0-1", 103),
        ("grpc-accept-encoding", "gzip", 104),
        ("authorization", "Bearer x", 105),
        ("authorization", "Bearer x", 106),
    ] {
        let mut request = number(100);
        request.metadata_mut().insert(name, value.parse().unwrap());
        let answer = calls.unary(NEXT, request).await.unwrap();
        assert_eq!(answer.into_inner().value, expected, "{name}: {value}");
    }
}

#[tokio::test]
async fn a_call_that_fails_is_not_stored() {
    let mut calls = Calls::keyed(Rules::builder().route(NEXT, unary())).await;
    for _ in 0..3 {
        let failure = calls.unary(NEXT, number(1000)).await.unwrap_err();
        assert_eq!(
            (failure.code(), failure.message()),
            (Code::NotFound, "no such number")
        );
    }
    assert_eq!(calls.next(100).await, 104);
    assert_eq!(calls.handle.stats().routes[0].refusals["grpc"], 3);
}

#[tokio::test]
async fn a_call_of_another_method_invalidates_what_its_rule_names() {
    let rules = Rules::builder()
        .route(NEXT, unary())
        .on_write("/test.Counter/Change", [NEXT]);
    let mut calls = Calls::keyed(rules).await;
    assert_eq!(calls.next(100).await, 101);
    calls
        .unary("/test.Counter/Change", number(0))
        .await
        .unwrap();
    assert_eq!(calls.next(100).await, 103);
    assert_eq!(calls.next(100).await, 103);
}

#[tokio::test]
async fn calls_for_the_same_at_the_same_time_are_one_call() {
    let calls = Calls::keyed(Rules::builder().route(NEXT, unary())).await;
    let ask = async || {
        let mut client = calls.client.clone();
        client.ready().await.expect("it is ready");
        let path = PathAndQuery::from_static(NEXT);
        client
            .unary(number(100), path, Numbers::default())
            .await
            .unwrap()
            .into_inner()
            .value
    };
    let answers = futures_util::future::join_all((0..20).map(|_| ask())).await;
    assert_eq!(answers, [101; 20]);
}

#[tokio::test]
async fn streams_that_a_rule_takes_for_unary_calls_pass_through() {
    let mut calls = Calls::keyed(everywhere(unary())).await;
    for _ in 0..2 {
        calls.count(1000).await;
        calls.count(0).await;
    }
    let (send, sent) = tokio::sync::mpsc::unbounded_channel();
    send.send(Number { value: 1 }).unwrap();
    let sent = tokio_stream::wrappers::UnboundedReceiverStream::new(sent);
    calls.client.ready().await.expect("it is ready");
    let path = PathAndQuery::from_static("/test.Counter/Echo");
    let echo = calls
        .client
        .streaming(Request::new(sent), path, Numbers::default());
    let mut echo = echo.await.unwrap().into_inner();
    for value in 1..5 {
        // Only now the next one is sent.
        assert_eq!(echo.message().await.unwrap(), Some(Number { value }));
        send.send(Number { value: value + 1 }).unwrap();
    }
    drop(send);
    assert_eq!(echo.message().await.unwrap(), Some(Number { value: 5 }));
    assert_eq!(echo.message().await.unwrap(), None);
    assert_eq!(calls.handle.stats().stored(), 0);
}

const GRPC: (&str, &str) = ("content-type", "application/grpc");

/// Sends content as a call to an origin, through a cache that takes all calls for unary.
async fn call(cache: &CacheLayer, origin: &Origin, content: &'static [u8]) -> Answer {
    let service = cache
        .clone()
        .keyed_by_content(identity::<RequestBody<Full<Bytes>>>);
    let call = request(Method::POST, NEXT, &[GRPC]).map(|_| Full::from(content));
    Answer::read(service.layer(origin.clone()).oneshot(call).await.unwrap()).await
}

const MESSAGE: &[u8] = b"\0\0\0\0\x01x";

/// Answers with this content and these trailers, of which the status is one.
fn scripted(content: &[&'static [u8]], status: &'static str) -> Origin {
    let content = content.concat();
    Origin::new(move |_| {
        let trailers = ("grpc-status".parse().unwrap(), status.parse().unwrap());
        let trailers = Frame::trailers(HeaderMap::from_iter([trailers]));
        let data = Frame::data(Bytes::from(content.clone()));
        response(&[GRPC], "").map(|_| stream([Ok(data), Ok(trailers)]))
    })
}

#[tokio::test]
async fn only_one_message_with_status_0_behind_it_is_stored() {
    let cases: [(&[&'static [u8]], &'static str, bool); 7] = [
        (&[MESSAGE], "0", true),
        (&[b"\x01\0\0\0\x01x"], "0", true),
        (&[MESSAGE], "5", false),
        (&[MESSAGE, MESSAGE], "0", false),
        (&[b"\0\0\0\0\x02x"], "0", false),
        (&[b"\x80\0\0\0\x01x"], "0", false),
        (&[], "0", false),
    ];
    for (content, status, stored) in cases {
        let (cache, origin) = (cache(everywhere(unary())), scripted(content, status));
        for _ in 0..2 {
            let answer = call(&cache, &origin, MESSAGE).await;
            assert_eq!(answer.body, content.concat());
            assert_eq!(answer.trailers.unwrap()["grpc-status"], status);
        }
        let calls = if stored { 1 } else { 2 };
        assert_eq!(origin.calls(), calls, "{content:?} {status}");
    }
    // With the status in its head there is no message.
    let (cache, origin) = (
        cache(everywhere(unary())),
        Origin::counting(&[GRPC, ("grpc-status", "0")]),
    );
    let answer = call(&cache, &origin, MESSAGE).await;
    assert_eq!(answer.cache_status(), "fwd=uri-miss; detail=grpc");
}

#[tokio::test]
async fn a_request_that_is_not_one_message_passes_by() {
    let cache = cache(everywhere(unary()));
    let origin = scripted(&[MESSAGE], "0");
    let cases: [(&'static [u8], &str); 6] = [
        (b"", "grpc"),
        (b"\0\0\0", "grpc"),
        (b"\0\0\0\0\x02x", "grpc"),
        (b"\0\0\0\0\x01x\0\0\0\0\x01x", "grpc"),
        (b"\x02\0\0\0\x01x", "grpc"),
        (b"\0\0\x01\0\0x", "content-too-large"),
    ];
    for (content, reason) in cases {
        let answer = call(&cache, &origin, content).await;
        let status = format!("fwd=bypass; detail={reason}");
        assert_eq!(answer.cache_status(), status, "{content:?}");
    }
}

#[tokio::test]
async fn a_stream_that_a_rule_takes_for_a_unary_call_is_neither_held_back_nor_shared() {
    let cache = cache(everywhere(unary()));
    let origin = Origin::new(|_| {
        let first = streams::iter([Ok(Frame::data(Bytes::from_static(MESSAGE)))]);
        let body = http_body_util::StreamBody::new(first.chain(streams::pending()));
        response(&[GRPC], "").map(|_| body.boxed_unsync())
    });
    let service = cache.keyed_by_content(identity::<RequestBody<Full<Bytes>>>);
    let mut open = Vec::new();
    for calls in 1..=3 {
        let call = request(Method::POST, NEXT, &[GRPC]).map(|_| Full::from(MESSAGE));
        let answer = service.layer(origin.clone()).oneshot(call).await.unwrap();
        let mut body = answer.into_body();
        let first = body.frame().await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), MESSAGE);
        assert_eq!(origin.calls(), calls);
        open.push(body);
    }
}

#[tokio::test]
async fn a_message_that_comes_late_is_stored_when_it_is_whole() {
    let cache = cache(everywhere(unary()));
    let origin = Origin::new(|_| {
        let trailers = ("grpc-status".parse().unwrap(), "0".parse().unwrap());
        let frames = [
            Frame::data(Bytes::from_static(&MESSAGE[..4])),
            Frame::data(Bytes::from_static(&MESSAGE[4..])),
            Frame::trailers(HeaderMap::from_iter([trailers])),
        ];
        let frames = streams::iter(frames).then(async |frame| {
            tokio::task::yield_now().await;
            Ok(frame)
        });
        let body = http_body_util::StreamBody::new(frames);
        response(&[GRPC], "").map(|_| body.boxed_unsync())
    });
    for way in ["fwd=uri-miss; stored", "hit; ttl=60"] {
        let answer = call(&cache, &origin, MESSAGE).await;
        assert_eq!((&answer.body[..], answer.cache_status()), (MESSAGE, way));
        assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");
    }
}

/// What has been logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_rule_that_needs_content_says_once_that_the_layer_reads_none() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let service = cache(everywhere(unary())).layer(scripted(&[MESSAGE], "0"));
    for _ in 0..2 {
        let call = request(Method::POST, NEXT, &[GRPC]);
        let answer = Answer::read(service.clone().oneshot(call).await.unwrap()).await;
        assert_eq!(answer.cache_status(), "fwd=bypass; detail=content-unread");
    }
    let log = String::from_utf8(log.0.lock().clone()).unwrap();
    assert_eq!(log.matches("keyed_by_content").count(), 1, "{log}");
}
