//! Streams without an end in sight: each piece arrives before the handler makes the next.
//!
//! That they pass at once is shown without a clock: a handler goes on only when what it gave before
//! has arrived. How long that took is measured besides; of twenty times it is the one in the middle
//! that counts, so that it says something of the cache and not of a busy machine.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::any;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version};
use http_body_util::channel::{Channel, Sender};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::time::{Instant, timeout};
use tower_response_cache::{Rule, Rules};

use crate::server::{PATIENCE, Server, cache};

/// A handler's side of a stream.
type Giving = Sender<Bytes, std::io::Error>;

/// Answers each call with a stream, whose other side comes out here.
fn streaming(content_type: &'static str) -> (Router, UnboundedReceiver<Giving>) {
    let (calls, called) = mpsc::unbounded_channel();
    let handler = async move || {
        let (giving, body) = Channel::new(1);
        calls.send(giving).unwrap();
        ([("content-type", content_type)], Body::new(body))
    };
    (Router::new().route("/{*path}", any(handler)), called)
}

/// Gives one piece after the other, as it arrives.
async fn pass(
    giving: &mut Giving,
    response: &mut Response<Incoming>,
    piece: impl Fn(u32) -> Vec<u8>,
) {
    const PIECES: usize = 20;
    const LIMIT: Duration = Duration::from_millis(50);
    let mut times = [Duration::ZERO; PIECES];
    for (number, time) in (0..).zip(&mut times) {
        let piece = Bytes::from(piece(number));
        let given = Instant::now();
        giving.send_data(piece.clone()).await.unwrap();
        let mut came = Vec::new();
        while came.len() < piece.len() {
            let frame = timeout(PATIENCE, response.body_mut().frame()).await;
            let frame = frame.expect("it is not held back").unwrap().unwrap();
            came.extend_from_slice(&frame.into_data().unwrap());
        }
        assert_eq!(came, piece);
        *time = given.elapsed();
    }
    times.sort();
    assert!(times[PIECES / 2] < LIMIT, "{times:?}");
}

#[tokio::test]
async fn events_arrive_as_they_are_made() {
    let (app, mut called) = streaming("text/event-stream");
    let server = Server::start(app.layer(cache())).await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let client = server.client(version);
        for (accept, way) in [("*/*", "fwd=uri-miss"), ("text/event-stream", "fwd=bypass")] {
            let listen = async || {
                let request = Request::get(client.uri("events")).header("accept", accept);
                client.send(request.body(Full::default()).unwrap()).await
            };
            // Who listens at the same time has a stream of their own.
            let mut listening = Vec::new();
            for _ in 0..3 {
                let response = listen().await;
                let handling = response.headers()["cache-status"].to_str().unwrap();
                assert!(handling.contains(way), "{handling}");
                listening.push((called.recv().await.unwrap(), response));
            }
            for (listener, (giving, response)) in listening.iter_mut().enumerate() {
                let event = |number| format!("data: {listener} {number}\n\n").into_bytes();
                pass(giving, response, event).await;
            }
        }
    }
}

#[tokio::test]
async fn messages_of_a_grpc_stream_arrive_as_they_are_made() {
    const PATH: &str = "/test.Counter/Count";
    let unary = Rule::ttl(Duration::from_secs(60)).grpc_unary();
    let rules = Rules::builder().route(PATH, unary).build().unwrap();
    let knowing = cache().rules(rules).keyed_by_content(Body::new);
    let (app, mut called) = streaming("application/grpc");
    for app in [app.clone().layer(cache()), app.layer(knowing)] {
        let server = Server::start(app).await;
        let client = server.client(Version::HTTP_2);
        for call in 0..3 {
            let request = Request::post(client.uri(&PATH[1..]))
                .header("content-type", "application/grpc")
                .header("te", "trailers");
            let request = request.body(Full::from(message(call))).unwrap();
            let mut response = client.send(request).await;
            let mut giving = called.recv().await.unwrap();
            pass(&mut giving, &mut response, |number| {
                message(call << 8 | number)
            })
            .await;
            let status = ("grpc-status".parse().unwrap(), "0".parse().unwrap());
            let trailers = HeaderMap::from_iter([status]);
            giving.send_trailers(trailers.clone()).await.unwrap();
            let last = response.body_mut().frame().await.unwrap().unwrap();
            assert_eq!(last.into_trailers().unwrap(), trailers);
        }
    }
}

/// Returns a message of gRPC, of four bytes.
fn message(number: u32) -> Vec<u8> {
    [&[0, 0, 0, 0, 4], &number.to_be_bytes()[..]].concat()
}
