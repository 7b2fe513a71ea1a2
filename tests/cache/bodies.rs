//! Bodies reach the client as the handler makes them, and are stored only when they are whole.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, Response};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use proptest::prelude::*;
use tower_response_cache::{Invalidated, ResponseBody, Target};

use crate::support::{Body, Broken, Cache, Origin, everywhere, get, response, settle, stream, ttl};

fn data(text: &'static str) -> Result<Frame<Bytes>, Broken> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

fn trailers(value: &str) -> HeaderMap {
    HeaderMap::from_iter([("x-sum".parse().unwrap(), value.parse().unwrap())])
}

fn streams(frames: Vec<Result<Frame<Bytes>, Broken>>) -> Origin {
    let frames = parking_lot::Mutex::new(frames);
    Origin::new(move |_| {
        let frames = frames.lock();
        let copies: Vec<_> = frames.iter().map(copy).collect();
        response(&[], "").map(|_| stream(copies))
    })
}

fn copy(frame: &Result<Frame<Bytes>, Broken>) -> Result<Frame<Bytes>, Broken> {
    let frame = frame.as_ref().map_err(|error| *error)?;
    let trailers = || frame.trailers_ref().cloned().map(Frame::trailers);
    Ok(frame
        .data_ref()
        .cloned()
        .map(Frame::data)
        .or_else(trailers)
        .unwrap())
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Polls a body once, without anybody to wake.
fn poll(body: &mut ResponseBody<Body>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
    Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()))
}

fn is_data(polled: Poll<Option<Result<Frame<Bytes>, BoxError>>>, expected: &str) -> bool {
    let Poll::Ready(Some(Ok(frame))) = polled else {
        return false;
    };
    frame.data_ref().is_some_and(|data| data == expected)
}

#[tokio::test]
async fn each_frame_leaves_before_the_next_is_made() {
    let (mut sender, channel) = Channel::<Bytes, Broken>::new(1);
    let channel = parking_lot::Mutex::new(Some(channel));
    let origin = Origin::new(move |_| match channel.lock().take() {
        Some(channel) => response(&[], "").map(|_| channel.boxed_unsync()),
        None => response(&[], "another"),
    });
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    let mut body = cache.send(get("/a")).await.unwrap().into_body();
    for text in ["one", "two", "three"] {
        assert!(poll(&mut body).is_pending());
        assert!(!body.is_end_stream());
        sender
            .send_data(Bytes::from_static(text.as_bytes()))
            .await
            .unwrap();
        assert!(is_data(poll(&mut body), text));
    }
    sender.send_trailers(trailers("9")).await.unwrap();
    drop(sender);
    let Poll::Ready(Some(Ok(last))) = poll(&mut body) else {
        panic!("the trailers");
    };
    assert_eq!(last.trailers_ref(), Some(&trailers("9")));
    assert!(matches!(poll(&mut body), Poll::Ready(None)));
    let hit = cache.get("/a").await;
    assert_eq!(hit.text(), "onetwothree");
    assert_eq!(hit.trailers, Some(trailers("9")));
}

#[tokio::test]
async fn a_body_with_trailers_at_hand_is_repeated_with_them() {
    let origin = Origin::new(|_| {
        let with_trailers = response(&[], "body").into_body();
        let with_trailers = with_trailers.with_trailers(async { Some(Ok(trailers("4"))) });
        Response::new(with_trailers.boxed_unsync())
    });
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    for _ in 0..2 {
        let answer = cache.get("/a").await;
        assert_eq!(
            (answer.text(), answer.trailers.clone()),
            ("body", Some(trailers("4")))
        );
    }
    assert_eq!(origin.calls(), 1);
    let head = cache.method("HEAD", "/a").await;
    assert_eq!(
        (head.trailers, head.body.len()),
        (None, 0),
        "a HEAD has none"
    );
}

#[tokio::test]
async fn a_body_that_fails_fails_the_same_way_and_is_not_stored() {
    let origin = streams(vec![data("one"), data("two"), Err(Broken)]);
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    for calls in 1..3 {
        let mut body = cache.send(get("/a")).await.unwrap().into_body();
        assert!(is_data(poll(&mut body), "one"));
        assert!(is_data(poll(&mut body), "two"));
        assert!(matches!(poll(&mut body), Poll::Ready(Some(Err(error))) if error.is::<Broken>()));
        assert_eq!(origin.calls(), calls);
    }
    let stats = cache.handle().stats();
    assert_eq!(
        stats.route("/{*path}").unwrap().refusals,
        [("incomplete", 2)].into()
    );
}

#[tokio::test]
async fn a_body_whose_reader_goes_away_is_read_on_for_the_store() {
    let origin = streams(vec![data("one"), data("two")]);
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    for frames in 0..2 {
        let gone = cache.handle().invalidate(Target::everything()).await;
        assert_eq!(gone.unwrap(), Invalidated::Applied);
        let mut body = cache.send(get("/a")).await.unwrap().into_body();
        for _ in 0..frames {
            assert!(poll(&mut body).is_ready());
        }
        drop(body);
        settle().await;
        let hit = cache.get("/a").await;
        assert_eq!(hit.cache_status(), "hit; ttl=60");
        assert_eq!(hit.text(), "onetwo");
    }
    assert_eq!(origin.calls(), 2);
}

#[tokio::test]
async fn a_body_is_stored_when_its_announced_length_has_come_though_nobody_looks_for_the_end() {
    let frames = || [data("one"), data("two")];
    let origin =
        Origin::new(move |_| response(&[("content-length", "6")], "").map(|_| stream(frames())));
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    let mut body = cache.send(get("/a")).await.unwrap().into_body();
    assert!(is_data(poll(&mut body), "one"));
    assert_eq!(cache.handle().stats().stored(), 0);
    assert!(is_data(poll(&mut body), "two"));
    assert_eq!(cache.handle().stats().stored(), 1);
}

#[tokio::test]
async fn a_body_of_another_length_than_announced_is_not_stored() {
    for (length, stored) in [("6", true), ("5", false), ("7", false)] {
        for at_hand in [true, false] {
            let origin = Origin::new(move |_| match at_hand {
                true => response(&[("content-length", length)], "onetwo"),
                false => response(&[("content-length", length)], "")
                    .map(|_| stream([data("one"), data("two")])),
            });
            let cache = Cache::new(&origin, everywhere(ttl(60)));
            for _ in 0..2 {
                let answer = cache.get("/a").await;
                assert_eq!(
                    (answer.text(), answer.header("content-length")),
                    ("onetwo", length)
                );
            }
            assert_eq!(origin.calls() == 1, stored, "{length}, at hand: {at_hand}");
        }
    }
}

#[tokio::test]
async fn a_body_over_the_cap_streams_on_and_is_not_stored() {
    let origin = Origin::new(|_| {
        let frames = (0..1000).map(|n| Ok(Frame::data(Bytes::from(vec![n as u8; 1000]))));
        response(&[], "").map(|_| stream(frames))
    });
    let cache = Cache::new(&origin, everywhere(ttl(60).max_body(10_000)));
    let expected: Vec<u8> = (0..1000).flat_map(|n| vec![n as u8; 1000]).collect();
    for calls in 1..3 {
        assert_eq!(cache.get("/a").await.body, expected);
        assert_eq!(origin.calls(), calls);
    }
    let exactly = Cache::new(&origin, everywhere(ttl(60).max_body(1_000_000)));
    exactly.get("/a").await;
    let hit = exactly.get("/a").await;
    assert_eq!(hit.body, expected, "up to the cap");
    assert!(hit.cache_status().starts_with("hit"));
}

#[tokio::test]
async fn bodies_of_nothing_and_of_crumbs_are_repeated() {
    let crumbs = (0..10_000).map(|_| data("x")).collect();
    let cases: [(Vec<_>, usize); 5] = [
        (vec![], 0),
        (vec![data("")], 0),
        (
            vec![data(""), data(""), data("a"), data(""), data("b"), data("")],
            2,
        ),
        ((0..200).map(|_| data("")).chain([data("end")]).collect(), 3),
        (crumbs, 10_000),
    ];
    for (frames, length) in cases {
        let origin = streams(frames);
        let cache = Cache::new(&origin, everywhere(ttl(60)));
        let miss = cache.get("/a").await;
        let hit = cache.get("/a").await;
        assert_eq!((miss.body.len(), hit.body), (length, miss.body));
        assert_eq!(origin.calls(), 1, "{length}");
    }
}

#[tokio::test]
async fn answers_without_content_are_repeated() {
    for code in [200, 204, 301] {
        let origin = Origin::new(move |_| crate::support::status(code, &[("x", "1")], ""));
        let cache = Cache::new(&origin, everywhere(ttl(60)));
        for _ in 0..2 {
            let answer = cache.get("/a").await;
            assert_eq!((answer.status.as_u16(), answer.header("x")), (code, "1"));
            assert!(answer.body.is_empty());
            assert!(code != 204 || !answer.headers.contains_key("content-length"));
        }
        assert_eq!(origin.calls(), 1);
    }
}

#[tokio::test]
async fn hits_share_the_bytes_that_are_stored() {
    let origin = Origin::new(|_| response(&[], vec![7; 500_000]));
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    cache.get("/a").await;
    let place = async || cache.get("/a").await.body.as_ptr();
    assert_eq!(place().await, place().await);
}

/// A body that holds its caller to the contract: after its end or its error it is not polled.
struct Strict {
    steps: VecDeque<Step>,
    /// Whether it knows its length beforehand.
    exact: bool,
    /// Whether it knows its end beforehand.
    foresees: bool,
    over: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Wait,
    Data(usize),
    Trailers,
    Failure,
}

impl http_body::Body for Strict {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        assert!(!self.over, "polled after its end");
        let step = self.steps.pop_front();
        self.over = matches!(step, None | Some(Step::Failure));
        Poll::Ready(match step {
            Some(Step::Wait) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(Step::Data(length)) => Some(Ok(Frame::data(vec![b'x'; length].into()))),
            Some(Step::Trailers) => Some(Ok(Frame::trailers(trailers("1")))),
            Some(Step::Failure) => Some(Err(Broken)),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.foresees && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match self.exact {
            true => SizeHint::with_exact(length(&self.steps)),
            false => SizeHint::default(),
        }
    }
}

fn length<'a>(steps: impl IntoIterator<Item = &'a Step>) -> u64 {
    let length = |step: &Step| match step {
        Step::Data(length) => *length as u64,
        _ => 0,
    };
    steps.into_iter().map(length).sum()
}

/// What a reader saw of a body.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    data: u64,
    trailers: bool,
    failed: bool,
}

/// Reads a body to its end; checks at each step that it has told the truth about the rest.
fn read(mut body: ResponseBody<Body>, stops_early: bool) -> Seen {
    let mut seen = Seen::default();
    let mut told = Vec::new();
    while !(stops_early && body.is_end_stream()) {
        let hint = body.size_hint();
        let ended = body.is_end_stream();
        told.push((seen.data, hint.lower(), hint.upper()));
        match poll(&mut body) {
            Poll::Pending => assert!(!ended, "waits after its end"),
            Poll::Ready(None) => break,
            Poll::Ready(Some(frame)) => {
                assert!(!ended, "a frame after the end");
                match frame {
                    Ok(frame) => {
                        seen.trailers |= frame.is_trailers();
                        seen.data += frame.data_ref().map_or(0, |data| data.len() as u64);
                    }
                    Err(error) => {
                        assert!(error.is::<Broken>());
                        seen.failed = true;
                        break;
                    }
                }
            }
        }
    }
    for (before, lower, upper) in told {
        let rest = seen.data - before;
        assert!(seen.failed || lower <= rest, "at least {lower}, but {rest}");
        assert!(
            upper.is_none_or(|upper| rest <= upper),
            "at most {upper:?}, but {rest}"
        );
    }
    seen
}

fn bodies() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0_usize..40).prop_map(Step::Data),
        1 => Just(Step::Wait),
    ];
    let last = prop_oneof![
        3 => Just(None),
        1 => Just(Some(Step::Trailers)),
        1 => Just(Some(Step::Failure)),
    ];
    (prop::collection::vec(step, 0..80), last).prop_map(|(mut steps, last)| {
        steps.extend(last);
        // A reader that trusts `is_end_stream` asks for it after a frame, not after a wait.
        while matches!(steps.last(), Some(Step::Wait)) {
            steps.pop();
        }
        steps
    })
}

proptest! {
    #[test]
    fn a_body_is_passed_on_frame_by_frame_and_stored_if_it_is_whole(
        steps in bodies(),
        exact: bool,
        foresees: bool,
        stops_early: bool,
        announced: bool,
        max_body in 1_u64..2000,
        hash_ahead in prop_oneof![Just(0_u64), 0_u64..2000],
    ) {
        let made = steps.clone();
        let origin = Origin::new(move |_| {
            let body = Strict { steps: made.clone().into(), exact, foresees, over: false };
            let mut response = response(&[], "").map(|_| body.boxed_unsync());
            if announced {
                response.headers_mut().insert("content-length", length(&made).into());
            }
            response
        });
        let cache = Cache::new(&origin, everywhere(ttl(60).max_body(max_body)))
            .with(|layer| layer.hash_ahead(hash_ahead));
        let expected = Seen {
            data: length(&steps),
            trailers: steps.iter().any(|step| matches!(step, Step::Trailers)),
            failed: steps.iter().any(|step| matches!(step, Step::Failure)),
        };
        let stored = !expected.failed && expected.data <= max_body;
        for calls in 1..3 {
            let answer = cache.send(get("/a")).now_or_never().expect("nobody waits");
            prop_assert_eq!(&read(answer.unwrap().into_body(), stops_early), &expected);
            prop_assert_eq!(origin.calls(), if stored { 1 } else { calls });
        }
    }
}
