//! QUERY, whose content is part of its key (RFC 10008).

use std::convert::identity;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::{self as streams, StreamExt};
use http::{HeaderMap, Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use parking_lot::Mutex;
use tower::util::BoxCloneSyncService;
use tower::{Layer, ServiceExt, service_fn};
use tower_response_cache::{
    CacheLayer, ManualClock, MemoryStore, RequestBody, ResponseBody, Rule, RulesBuilder,
};

use crate::support::{
    Answer, Body, Broken, Cache, Origin, everywhere, response, settle, stream, ttl,
};

/// What the handler was given of a request.
#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    content: String,
    trailers: bool,
    failed: bool,
}

impl Seen {
    async fn read(mut body: RequestBody<Body>) -> Self {
        let mut seen = Self::default();
        while let Some(frame) = body.frame().await {
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) => seen.content.push_str(std::str::from_utf8(&data).unwrap()),
                Ok(Err(_)) => seen.trailers = true,
                Err(error) => {
                    assert_eq!(error.to_string(), Broken.to_string());
                    seen.failed = true;
                    break;
                }
            }
        }
        seen
    }
}

/// A handler that reads all of a request and answers with its number and its content.
struct Library {
    service: BoxCloneSyncService<Request<Body>, Response<ResponseBody<Body>>, Broken>,
    seen: Arc<Mutex<Vec<Seen>>>,
    clock: ManualClock,
}

impl Library {
    fn new() -> Self {
        Self::ruled(everywhere(ttl(60)))
    }

    fn ruled(rules: RulesBuilder) -> Self {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let noted = Arc::clone(&seen);
        let handler = service_fn(move |request: Request<RequestBody<Body>>| {
            let noted = Arc::clone(&noted);
            async move {
                let seen = Seen::read(request.into_body()).await;
                let answer = format!("{}: {}", noted.lock().len() + 1, seen.content);
                noted.lock().push(seen);
                Ok::<_, Broken>(response(&[], answer))
            }
        });
        let clock = ManualClock::new();
        let layer = CacheLayer::new(MemoryStore::new(16 << 20))
            .rules(rules.build().unwrap())
            .clock(clock.clock())
            .keyed_by_content(identity)
            .max_content(100);
        Self {
            service: BoxCloneSyncService::new(layer.layer(handler)),
            seen,
            clock,
        }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        Answer::read(self.service.clone().oneshot(request).await.unwrap()).await
    }

    async fn query(&self, content: &'static str) -> Answer {
        self.send(query(&[], content)).await
    }

    fn calls(&self) -> usize {
        self.seen.lock().len()
    }

    fn last(&self) -> Seen {
        self.seen.lock().last().unwrap().clone()
    }
}

fn query(fields: &[(&str, &str)], content: &'static str) -> Request<Body> {
    request(Method::QUERY, fields, response(&[], content).into_body())
}

fn request(method: Method, fields: &[(&str, &str)], body: Body) -> Request<Body> {
    crate::support::request(method, "/books", fields).map(|_| body)
}

/// The frames of a body whose length nobody knows beforehand.
fn pieces(pieces: &[&'static str]) -> Vec<Result<Frame<Bytes>, Broken>> {
    let pieces = pieces
        .iter()
        .map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes()))));
    pieces.collect()
}

/// A body with trailers.
fn trailed(first: &[&'static str]) -> Body {
    let trailers = Ok(Frame::trailers(HeaderMap::new()));
    stream(
        pieces(first)
            .into_iter()
            .chain([trailers])
            .collect::<Vec<_>>(),
    )
}

#[tokio::test]
async fn a_query_is_answered_by_what_was_stored_for_its_content() {
    let library = Library::new();
    let first = library.query("author=Eco").await;
    assert_eq!(first.cache_status(), "fwd=uri-miss; stored");
    let hit = library.query("author=Eco").await;
    assert_eq!(
        (hit.text(), hit.cache_status()),
        ("1: author=Eco", "hit; ttl=60")
    );
    let pieces = stream(pieces(&["author", "", "=Eco"]));
    let hit = library.send(request(Method::QUERY, &[], pieces)).await;
    assert_eq!(hit.text(), "1: author=Eco", "however it is framed");
    assert_eq!(library.query("author=Poe").await.text(), "2: author=Poe");
    assert_eq!(library.query("").await.text(), "3: ");
    assert_eq!(library.query("").await.text(), "3: ");
    assert_eq!(library.calls(), 3);
}

#[tokio::test]
async fn the_fields_of_the_content_are_part_of_the_key() {
    let library = Library::new();
    let fields: [&[(&str, &str)]; 7] = [
        &[],
        &[("content-type", "text/plain")],
        &[("content-type", "text/plain; charset=utf-8")],
        &[("content-encoding", "gzip")],
        &[("content-language", "de")],
        &[("content-language", "de"), ("content-language", "en")],
        &[("content-type", "text/plain"), ("content-language", "de")],
    ];
    for round in 1..=2 {
        for (place, fields) in fields.iter().enumerate() {
            let answer = library.send(query(fields, "x")).await;
            assert_eq!(
                answer.text(),
                format!("{}: x", place + 1),
                "{round} {fields:?}"
            );
        }
    }
}

#[tokio::test]
async fn other_methods_have_other_keys_and_their_bodies_untouched() {
    let library = Library::new();
    library.query("").await;
    let empty = || response(&[], "").into_body();
    for way in ["fwd=uri-miss; stored", "hit; ttl=60"] {
        let answer = library.send(request(Method::GET, &[], empty())).await;
        assert_eq!((answer.text(), answer.cache_status()), ("2: ", way));
    }
    let trailed = request(Method::OPTIONS, &[], trailed(&["o", "n"]));
    library.send(trailed).await;
    let untouched = Seen {
        content: "on".to_owned(),
        trailers: true,
        failed: false,
    };
    assert_eq!(library.last(), untouched);
}

#[tokio::test]
async fn a_write_invalidates_queries_of_its_path_and_a_query_invalidates_nothing() {
    let library = Library::new();
    library.query("x").await;
    library.query("y").await;
    assert_eq!(library.query("x").await.cache_status(), "hit; ttl=60");
    library
        .send(request(Method::PUT, &[], response(&[], "new").into_body()))
        .await;
    assert_eq!(library.last().content, "new");
    for content in ["x", "y"] {
        let after = library.query(content).await;
        assert_eq!(after.cache_status(), "fwd=miss; stored; detail=invalidated");
    }
}

#[tokio::test]
async fn conditions_and_ranges_are_answered_as_for_get() {
    let library = Library::new();
    library.query("x").await;
    let hit = library.query("x").await;
    let condition = [("if-none-match", hit.header("etag"))];
    let unmodified = library.send(query(&condition, "x")).await;
    assert_eq!((unmodified.status.as_u16(), unmodified.text()), (304, ""));
    let part = library.send(query(&[("range", "bytes=0-1")], "x")).await;
    assert_eq!((part.status.as_u16(), part.text()), (206, "1:"));
    assert_eq!(library.calls(), 1);
}

#[tokio::test]
async fn a_refresh_asks_with_the_same_content() {
    let library = Library::ruled(everywhere(
        ttl(10).stale_while_revalidate(Duration::from_secs(60)),
    ));
    library.query("x").await;
    library.clock.advance(Duration::from_secs(20));
    assert_eq!(library.query("x").await.text(), "1: x");
    settle().await;
    assert_eq!(library.query("x").await.text(), "2: x");
}

#[tokio::test]
async fn content_over_the_limit_reaches_the_handler_whole_and_is_not_keyed() {
    let library = Library::new();
    let half = "fifty bytes and a few more, which is half too much";
    let bodies: [fn(&'static str) -> Request<Body>; 3] = [
        |half| request(Method::QUERY, &[], stream(pieces(&[half, half, "!"]))),
        |half| {
            request(
                Method::QUERY,
                &[("content-length", "101")],
                stream(pieces(&[half, half, "!"])),
            )
        },
        |half| request(Method::QUERY, &[], trailed(&[half, half, "!"])),
    ];
    assert_eq!(half.len(), 50);
    for (place, body) in bodies.iter().enumerate() {
        let answer = library.send(body(half)).await;
        assert_eq!(
            answer.cache_status(),
            "fwd=bypass; detail=content-too-large"
        );
        let seen = Seen {
            content: format!("{half}{half}!"),
            trailers: place == 2,
            failed: false,
        };
        assert_eq!(library.last(), seen);
    }
    let most = request(Method::QUERY, &[], stream(pieces(&[half, half])));
    assert_eq!(
        library.send(most).await.cache_status(),
        "fwd=uri-miss; stored"
    );
}

#[tokio::test]
async fn content_that_is_not_what_it_says_is_not_keyed_and_reaches_the_handler_as_it_is() {
    let library = Library::new();
    let broken = || {
        let frames = pieces(&["ha", "lf"]).into_iter().chain([Err(Broken)]);
        stream(frames.collect::<Vec<_>>())
    };
    for _ in 0..2 {
        let answer = library.send(request(Method::QUERY, &[], broken())).await;
        assert_eq!(
            answer.cache_status(),
            "fwd=bypass; detail=content-incomplete"
        );
        let seen = Seen {
            content: "half".to_owned(),
            trailers: false,
            failed: true,
        };
        assert_eq!(library.last(), seen);
    }
    for lie in ["3", "5"] {
        let answer = library
            .send(query(&[("content-length", lie)], "four"))
            .await;
        assert_eq!(
            answer.cache_status(),
            "fwd=bypass; detail=content-incomplete"
        );
        assert_eq!(library.last().content, "four");
    }
    let answer = library
        .send(request(Method::QUERY, &[], trailed(&["x"])))
        .await;
    assert_eq!(answer.cache_status(), "fwd=bypass; detail=request-trailers");
    assert!(library.last().trailers);
}

#[tokio::test(start_paused = true)]
async fn content_that_takes_too_long_reaches_the_handler_as_it_comes() {
    let library = Library::new();
    let last = streams::once(async {
        tokio::time::sleep(Duration::from_secs(6)).await;
        Ok(Frame::data("last".into()))
    });
    let slow = StreamBody::new(streams::iter(pieces(&["first "])).chain(last));
    let slow = request(Method::QUERY, &[], slow.boxed_unsync());
    let answer = library.send(slow).await;
    assert_eq!(answer.text(), "1: first last");
    assert_eq!(answer.cache_status(), "fwd=bypass; detail=content-timeout");
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_its_content_leaves_nothing_behind() {
    let library = Library::new();
    {
        let hanging = streams::iter(pieces(&["x"])).chain(streams::pending());
        let hanging = StreamBody::new(hanging).boxed_unsync();
        let mut leaving = pin!(library.send(request(Method::QUERY, &[], hanging)));
        let mut context = Context::from_waker(Waker::noop());
        assert!(leaving.as_mut().poll(&mut context).is_pending());
    }
    settle().await;
    assert_eq!(library.calls(), 0);
    assert_eq!(
        library.query("x").await.cache_status(),
        "fwd=uri-miss; stored"
    );
}

#[tokio::test]
async fn queries_for_the_same_at_the_same_time_are_one_call() {
    let library = Library::new();
    let both = [library.query("x"), library.query("x")];
    let both = futures_util::future::join_all(both).await;
    assert_eq!((both[0].text(), both[1].text()), ("1: x", "1: x"));
    assert_eq!(library.calls(), 1);
}

#[test]
fn content_is_read_outside_a_runtime_too() {
    let library = Library::new();
    for way in ["fwd=uri-miss; stored", "hit; ttl=60"] {
        let answer = library.query("x").now_or_never().unwrap();
        assert_eq!(answer.cache_status(), way);
    }
}

#[tokio::test]
async fn a_rule_that_caches_nothing_reads_nothing() {
    let library = Library::ruled(everywhere(Rule::bypass()));
    let answer = library.query("x").await;
    assert_eq!(answer.cache_status(), "fwd=bypass; detail=rule");
    assert_eq!(library.last().content, "x");
}

#[tokio::test]
async fn a_layer_that_reads_no_content_lets_queries_pass() {
    let cache = Cache::new(&Origin::counting(&[]), everywhere(ttl(60)));
    for calls in ["1", "2"] {
        let answer = cache.method("QUERY", "/books").await;
        assert_eq!(answer.text(), calls);
        assert_eq!(answer.cache_status(), "fwd=bypass; detail=content-unread");
    }
}

#[tokio::test]
async fn a_query_is_asked_once_more_where_a_304_fits_nothing() {
    let origin = Origin::new(|call| {
        let fields = [("cache-control", "max-age=10"), ("etag", "\"v\"")];
        match (call.number, call.header("if-none-match")) {
            (1, _) => response(&fields, "old"),
            (_, "") => response(&fields, "new"),
            _ => crate::support::status(304, &[("etag", "\"other\"")], ""),
        }
    });
    let cache = Cache::new(&origin, everywhere(Rule::from_origin()));
    let query = || {
        let method = Method::from_bytes(b"QUERY").unwrap();
        let fields = [("content-type", "text/plain")];
        crate::support::request(method, "/a", &fields).map(|_| http_body_util::Full::from("words"))
    };
    assert_eq!(cache.fetch_by_content(query()).await.text(), "old");
    cache.advance(11);
    assert_eq!(cache.fetch_by_content(query()).await.text(), "new", "U34");
    assert_eq!(origin.calls(), 3);
}
