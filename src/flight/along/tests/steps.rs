//! Readers polled by hand.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame};
use tokio::time::{Instant, sleep};

use super::origin::{Feed, Morsel, Notes, Told};
use crate::flight::along::{BoxError, Reader};

/// Counts how often it was woken.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn bell() -> (Arc<Bell>, Waker) {
    let bell = Arc::new(Bell::default());
    (Arc::clone(&bell), Waker::from(bell))
}

impl Bell {
    fn rings(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

fn poll_with(reader: &mut Reader, waker: &Waker) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
    Pin::new(reader).poll_frame(&mut Context::from_waker(waker))
}

fn poll(reader: &mut Reader) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
    poll_with(reader, Waker::noop())
}

#[track_caller]
fn data(reader: &mut Reader) -> Bytes {
    match poll(reader) {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().unwrap(),
        other => panic!("{other:?}"),
    }
}

async fn next(reader: &mut Reader) -> Bytes {
    let frame = poll_fn(|cx| Pin::new(&mut *reader).poll_frame(cx)).await;
    frame.unwrap().unwrap().into_data().unwrap()
}

#[track_caller]
fn error(reader: &mut Reader) -> String {
    match poll(reader) {
        Poll::Ready(Some(Err(error))) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_end(reader: &mut Reader) {
    assert!(matches!(poll(reader), Poll::Ready(None)));
    assert!(reader.is_end_stream());
}

fn trailers() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("7"));
    trailers
}

#[test]
fn each_reads_all_at_its_own_pace() {
    let (feed, notes) = (Feed::default(), Notes::default());
    let (along, mut first) = feed.along(100, &notes);
    let mut second = along.reader().unwrap();
    feed.data("one ");
    assert_eq!(data(&mut first), "one ");
    feed.data("two");
    assert_eq!(data(&mut first), "two");
    assert!(poll(&mut first).is_pending());
    // Small chunks may have been joined behind the fastest.
    assert_eq!(data(&mut second).slice(..4), "one ");
    feed.give(Morsel::End);
    assert_end(&mut first);
    assert_eq!(notes.told(), [Told::Whole("one two".into(), None)]);
    let mut late = along.reader().unwrap();
    assert_eq!(data(&mut late), "one two");
    assert_end(&mut late);
    assert!(feed.is_dropped());
}

#[test]
fn the_readers_share_one_copy_with_the_tap() {
    let (feed, notes) = (Feed::default(), Notes::default());
    let (along, mut first) = feed.along(100, &notes);
    feed.data("one ");
    feed.data("two");
    feed.give(Morsel::End);
    while !first.is_end_stream() {
        let _ = poll(&mut first);
    }
    let [Told::Whole(body, None)] = &notes.told()[..] else {
        panic!("{:?}", notes.told());
    };
    for _ in 0..2 {
        assert_eq!(data(&mut along.reader().unwrap()).as_ptr(), body.as_ptr());
    }
}

#[test]
fn nothing_is_asked_of_the_source_that_nobody_wants() {
    let (feed, notes) = (Feed::default(), Notes::default());
    let (along, mut first) = feed.along(100, &notes);
    let mut second = along.reader().unwrap();
    feed.data("one");
    feed.data("two");
    assert_eq!(feed.polls(), 0);
    assert_eq!(data(&mut first), "one");
    assert_eq!(data(&mut second), "one");
    assert_eq!(feed.polls(), 1);
}

#[test]
fn trailers_are_shared() {
    let (feed, notes) = (Feed::default(), Notes::default());
    let (along, mut first) = feed.along(100, &notes);
    let mut second = along.reader().unwrap();
    feed.data("one");
    feed.give(Morsel::Trailers(trailers()));
    for reader in [&mut first, &mut second] {
        assert_eq!(data(reader), "one");
        assert!(!reader.is_end_stream());
        match poll(reader) {
            Poll::Ready(Some(Ok(frame))) => assert_eq!(frame.into_trailers().unwrap(), trailers()),
            other => panic!("{other:?}"),
        }
        assert_end(reader);
    }
    assert_eq!(notes.told(), [Told::Whole("one".into(), Some(trailers()))]);
}

#[test]
fn the_end_is_seen_with_the_last_frame_and_the_tap_knows_before() {
    let (feed, notes) = (Feed::announcing(6), Notes::default());
    let (along, mut first) = feed.along(100, &notes);
    assert_eq!(first.size_hint().exact(), Some(6));
    feed.data("one");
    feed.data("two");
    assert_eq!(data(&mut first), "one");
    assert_eq!(first.size_hint().exact(), Some(3));
    assert_eq!(along.reader().unwrap().size_hint().exact(), Some(6));
    assert_eq!(data(&mut first), "two");
    assert!(first.is_end_stream());
    assert_eq!(notes.told(), [Told::Whole("onetwo".into(), None)]);
    assert_eq!(along.reader().unwrap().size_hint().exact(), Some(6));
}

#[test]
fn only_what_ends_with_its_data_has_a_length() {
    let endings = [
        (Morsel::End, Some(3)),
        (Morsel::Trailers(trailers()), None),
        (Morsel::Failure("the disk is gone"), None),
    ];
    for (ending, length) in endings {
        let (feed, notes) = (Feed::default(), Notes::default());
        let (along, mut first) = feed.along(100, &notes);
        let second = along.reader().unwrap();
        feed.data("one");
        feed.give(ending);
        assert_eq!(data(&mut first), "one");
        let _ = poll(&mut first);
        assert_eq!(second.size_hint().lower(), 3);
        assert_eq!(second.size_hint().exact(), length);
    }
}

#[test]
fn an_empty_body_is_a_body() {
    let (feed, notes) = (Feed::default(), Notes::default());
    let (along, mut first) = feed.along(0, &notes);
    feed.give(Morsel::End);
    assert_end(&mut first);
    assert_end(&mut along.reader().unwrap());
    assert_eq!(notes.told(), [Told::Whole("".into(), None)]);
}

#[test]
fn a_body_that_has_ended_need_not_be_polled() {
    let (feed, notes) = (Feed::announcing(0), Notes::default());
    let (_along, first) = feed.along(100, &notes);
    assert!(first.is_end_stream());
    assert_eq!(feed.polls(), 0);
    assert_eq!(notes.told(), [Told::Whole("".into(), None)]);
}

#[test]
fn empty_frames_without_end_let_others_have_their_turn() {
    let (feed, notes) = (Feed::default(), Notes::default());
    let (along, mut first) = feed.along(100, &notes);
    let mut second = along.reader().unwrap();
    let (bell, waker) = bell();
    assert!(poll_with(&mut second, &waker).is_pending());
    feed.data("");
    feed.data("one");
    assert_eq!(bell.rings(), 1);
    assert!(poll_with(&mut second, &waker).is_pending());
    assert_eq!(bell.rings(), 2, "it asks to be polled again");
    assert_eq!(data(&mut first), "one");
}

#[test]
fn all_who_wait_are_woken_by_the_source_and_by_each_other() {
    let (feed, notes) = (Feed::default(), Notes::default());
    let (along, mut first) = feed.along(100, &notes);
    let mut second = along.reader().unwrap();
    let ((one, one_waker), (two, two_waker)) = (bell(), bell());
    assert!(poll_with(&mut first, &one_waker).is_pending());
    assert!(poll_with(&mut second, &two_waker).is_pending());
    feed.data("one");
    assert_eq!((one.rings(), two.rings()), (1, 1));
    assert_eq!(data(&mut first), "one");
    assert!(poll_with(&mut first, &one_waker).is_pending());
    assert_eq!(data(&mut second), "one");
    drop((first, second, along));
    assert_eq!(Arc::strong_count(&one), 2, "no waker is kept");
}

#[test]
fn the_reader_that_polled_may_go() {
    let (feed, notes) = (Feed::default(), Notes::default());
    let (along, mut first) = feed.along(100, &notes);
    let mut second = along.reader().unwrap();
    let (bell, waker) = bell();
    assert!(poll_with(&mut second, &waker).is_pending());
    assert!(poll(&mut first).is_pending());
    drop(first);
    feed.data("one");
    assert_eq!(bell.rings(), 1);
    assert_eq!(data(&mut second), "one");
}

#[test]
fn an_error_reaches_every_reader() {
    let (feed, notes) = (Feed::default(), Notes::default());
    let (along, mut first) = feed.along(100, &notes);
    let mut second = along.reader().unwrap();
    feed.data("one");
    feed.give(Morsel::Failure("the disk is gone"));
    for reader in [&mut first, &mut second] {
        assert_eq!(data(reader), "one");
        assert_eq!(error(reader), "the disk is gone");
        assert!(matches!(poll(reader), Poll::Ready(None)));
    }
    assert!(along.reader().is_none());
    assert_eq!(notes.told(), [Told::Dropped]);
    assert!(feed.is_dropped());
}

#[test]
fn a_source_that_panics_fails_for_the_others() {
    let (feed, notes) = (Feed::default(), Notes::default());
    let (along, mut first) = feed.along(100, &notes);
    let mut second = along.reader().unwrap();
    let (bell, waker) = bell();
    assert!(poll_with(&mut second, &waker).is_pending());
    feed.give(Morsel::Panic);
    let panicked = catch_unwind(AssertUnwindSafe(|| poll(&mut first)));
    assert!(panicked.is_err());
    assert_eq!(bell.rings(), 1);
    assert_eq!(error(&mut second), "the body panicked");
    assert_eq!(error(&mut first), "the body panicked");
    assert_eq!(notes.told(), [Told::Dropped]);
}

#[test]
fn a_tap_that_panics_fails_the_body_for_all() {
    // At the end, and over the cap.
    for keep in [100, 2] {
        let (feed, notes) = (Feed::default(), Notes::panicking());
        let (along, mut first) = feed.along(keep, &notes);
        let mut second = along.reader().unwrap();
        feed.data("one");
        feed.give(Morsel::End);
        let reads = || while data(&mut first) == "one" {};
        assert!(catch_unwind(AssertUnwindSafe(reads)).is_err());
        assert_eq!(data(&mut second), "one");
        assert_eq!(error(&mut second), "the body panicked");
        assert!(feed.is_dropped());
    }
}

#[test]
fn a_body_over_the_cap_is_read_on_and_joined_by_nobody() {
    let (feed, notes) = (Feed::default(), Notes::default());
    let (along, mut first) = feed.along(6, &notes);
    let mut second = along.reader().unwrap();
    feed.data("one ");
    feed.data("two ");
    feed.data("three");
    feed.give(Morsel::End);
    assert_eq!(data(&mut first), "one ");
    assert_eq!(data(&mut second), "one ");
    assert_eq!(data(&mut first), "two ");
    assert_eq!(notes.told(), [Told::TooLong]);
    assert!(along.reader().is_none());
    assert_eq!(data(&mut second), "two ");
    assert_eq!(data(&mut second), "three");
    assert_end(&mut second);
    assert_eq!(data(&mut first), "three");
    assert_end(&mut first);
}

#[test]
fn a_reader_that_stays_behind_is_cut_off() {
    let (feed, notes) = (Feed::default(), Notes::default());
    let (along, mut first) = feed.along(6, &notes);
    let mut second = along.reader().unwrap();
    for word in ["one ", "two "] {
        feed.data(word);
        assert_eq!(data(&mut first), word);
    }
    feed.data("three ");
    assert!(poll(&mut first).is_pending(), "the other has a turn");
    assert_eq!(data(&mut first), "three ");
    assert_eq!(error(&mut second), "read too slowly to be held a place");
    assert!(matches!(poll(&mut second), Poll::Ready(None)));
    drop(first);
    assert!(feed.is_dropped());
}

/// A fast and a slow reader of a body over its cap that wait a second for each other; the fast one
/// has come to where the source is held back.
fn held_back(feed: &Feed, notes: &Notes) -> [Reader; 2] {
    let (along, mut fast) = feed.along_waiting(10, Duration::from_secs(1), notes);
    let slow = along.reader().unwrap();
    run_ahead(feed, &mut fast);
    assert_eq!(notes.told(), [Told::TooLong]);
    [fast, slow]
}

/// Lets a reader come ahead of the others by more than the cap; what comes next is "six ".
fn run_ahead(feed: &Feed, fast: &mut Reader) {
    // Each is shorter than the one before, so that they are not joined.
    for word in ["three ", "four ", "six "] {
        feed.data(word);
    }
    assert_eq!(data(fast), "three ");
    assert_eq!(data(fast), "four ");
}

#[tokio::test(start_paused = true)]
async fn over_the_cap_the_source_is_held_back_until_the_slowest_has_read_on() {
    let (feed, notes) = (Feed::default(), Notes::default());
    let [mut fast, mut slow] = held_back(&feed, &notes);
    let (bell, waker) = bell();
    for _ in 0..3 {
        assert!(poll_with(&mut fast, &waker).is_pending());
    }
    assert_eq!((feed.polls(), bell.rings()), (2, 0));
    assert_eq!(data(&mut slow), "three ");
    assert_eq!(bell.rings(), 1, "it is woken once there is room");
    assert_eq!(data(&mut fast), "six ");
    assert_eq!(data(&mut slow), "four ");
    assert_eq!(data(&mut slow), "six ");
    feed.give(Morsel::End);
    assert_end(&mut slow);
    assert_end(&mut fast);
}

#[tokio::test(start_paused = true)]
async fn over_the_cap_the_source_is_held_back_until_the_slowest_has_gone() {
    let (feed, notes) = (Feed::default(), Notes::default());
    let [mut fast, slow] = held_back(&feed, &notes);
    let (bell, waker) = bell();
    assert!(poll_with(&mut fast, &waker).is_pending());
    drop(slow);
    assert_eq!(bell.rings(), 1);
    assert_eq!(data(&mut fast), "six ");
}

#[tokio::test(start_paused = true)]
async fn of_two_that_are_held_back_one_may_go() {
    let (feed, notes) = (Feed::default(), Notes::default());
    let (along, mut going) = feed.along_waiting(10, Duration::from_secs(1), &notes);
    let (mut staying, mut slow) = (along.reader().unwrap(), along.reader().unwrap());
    run_ahead(&feed, &mut going);
    assert_eq!(data(&mut staying), "three ");
    assert_eq!(data(&mut staying), "four ");
    let (bell, waker) = bell();
    assert!(poll_with(&mut staying, &waker).is_pending());
    assert!(poll(&mut going).is_pending());
    drop(going);
    assert!(poll_with(&mut staying, &waker).is_pending());
    let rings = bell.rings();
    assert_eq!(data(&mut slow), "three ");
    assert_eq!(bell.rings(), rings + 1);
    assert_eq!(data(&mut staying), "six ");
}

#[tokio::test(start_paused = true)]
async fn who_is_waited_for_too_long_is_cut_off_and_the_others_go_on() {
    let (feed, notes) = (Feed::default(), Notes::default());
    let [mut fast, mut slow] = held_back(&feed, &notes);
    let began = Instant::now();
    assert_eq!(next(&mut fast).await, "six ");
    assert_eq!(began.elapsed().as_secs(), 1);
    assert_eq!(error(&mut slow), "read too slowly to be held a place");
    feed.give(Morsel::End);
    assert_end(&mut fast);
}

#[tokio::test(start_paused = true)]
async fn all_waiting_together_lasts_no_longer_than_the_limit() {
    let (feed, notes) = (Feed::default(), Notes::default());
    let [mut fast, mut slow] = held_back(&feed, &notes);
    for _ in 0..2 {
        assert!(poll(&mut fast).is_pending());
        sleep(Duration::from_millis(400)).await;
        assert_eq!(data(&mut slow), "three ");
        assert_eq!(data(&mut slow), "four ");
        // Nobody waits now, however long it takes.
        sleep(Duration::from_secs(10)).await;
        assert_eq!(data(&mut fast), "six ");
        assert_eq!(data(&mut slow), "six ");
        run_ahead(&feed, &mut fast);
    }
    let began = Instant::now();
    assert_eq!(next(&mut fast).await, "six ");
    assert_eq!(began.elapsed().as_millis() / 10, 20);
}

#[tokio::test(start_paused = true)]
async fn while_the_body_fits_the_cap_nobody_is_waited_for() {
    let (feed, notes) = (Feed::default(), Notes::default());
    let (along, mut fast) = feed.along_waiting(6, Duration::from_secs(1), &notes);
    let _slow = along.reader().unwrap();
    feed.data("one ");
    feed.data("2 ");
    feed.give(Morsel::End);
    assert_eq!(data(&mut fast), "one ");
    assert_eq!(data(&mut fast), "2 ");
    assert_end(&mut fast);
}

#[test]
fn a_reader_that_reads_on_in_its_turn_is_not_cut_off() {
    let (feed, notes) = (Feed::default(), Notes::default());
    let (along, mut fast) = feed.along(10, &notes);
    let mut other = along.reader().unwrap();
    run_ahead(&feed, &mut fast);
    let (bell, waker) = bell();
    assert!(poll_with(&mut fast, &waker).is_pending());
    assert_eq!(bell.rings(), 1, "it asks to be polled again");
    assert_eq!(data(&mut other), "three ");
    assert_eq!(data(&mut fast), "six ");
    assert_eq!(data(&mut other), "four ");
    assert_eq!(data(&mut other), "six ");
    run_ahead(&feed, &mut fast);
    assert!(poll(&mut fast).is_pending(), "again, the other has a turn");
}

#[test]
fn where_no_timer_would_end_the_wait_nobody_waits() {
    let (feed, notes) = (Feed::default(), Notes::default());
    let [mut fast, mut slow] = held_back(&feed, &notes);
    assert!(poll(&mut fast).is_pending(), "the other has a turn");
    assert_eq!(data(&mut fast), "six ");
    assert_eq!(error(&mut slow), "read too slowly to be held a place");
}

#[test]
fn a_body_that_announces_too_much_is_never_joined() {
    let (feed, notes) = (Feed::announcing(7), Notes::default());
    let (along, mut only) = feed.along(6, &notes);
    assert_eq!(notes.told(), [Told::TooLong]);
    assert!(along.reader().is_none());
    feed.data("one two");
    assert_eq!(data(&mut only), "one two");
    assert_end(&mut only);
}

#[test]
fn when_all_have_left_another_may_finish_the_body() {
    let (feed, notes) = (Feed::default(), Notes::default());
    let (along, mut first) = feed.along(100, &notes);
    feed.data("one ");
    assert_eq!(data(&mut first), "one ");
    drop(first);
    let last = notes.last().unwrap();
    let mut late = along.reader().unwrap();
    feed.data("two");
    feed.give(Morsel::End);
    let mut finish = Box::pin(last.finish());
    assert!(
        finish
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    );
    assert_eq!(notes.told(), [Told::Whole("one two".into(), None)]);
    assert_eq!(data(&mut late), "one two");
}

#[test]
fn when_all_have_left_twice_the_body_is_dropped() {
    let (feed, notes) = (Feed::default(), Notes::default());
    let (along, first) = feed.along(100, &notes);
    drop(first);
    assert!(!feed.is_dropped());
    drop(notes.last());
    assert!(feed.is_dropped());
    assert!(notes.last().is_none());
    assert!(along.reader().is_none());
    assert_eq!(notes.told(), [Told::Dropped]);
}

#[test]
fn nobody_finishes_a_body_over_the_cap() {
    let (feed, notes) = (Feed::default(), Notes::default());
    let (_along, mut first) = feed.along(2, &notes);
    feed.data("one");
    assert_eq!(data(&mut first), "one");
    drop(first);
    assert!(notes.last().is_none());
    assert!(feed.is_dropped());
}

#[test]
fn a_body_that_grows_over_the_cap_is_finished_by_nobody() {
    let (feed, notes) = (Feed::default(), Notes::default());
    let (_along, first) = feed.along(6, &notes);
    drop(first);
    feed.data("one ");
    feed.data("two ");
    let mut finish = Box::pin(notes.last().unwrap().finish());
    assert!(
        finish
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    );
    drop(finish);
    assert_eq!(notes.told(), [Told::TooLong]);
    assert!(feed.is_dropped());
}

#[test]
fn dropped_after_any_number_of_polls_a_reader_harms_no_other() {
    for polls in 0..6 {
        let (feed, notes) = (Feed::default(), Notes::default());
        let (along, mut going) = feed.along(100, &notes);
        let mut staying = along.reader().unwrap();
        for poll_number in 0..polls {
            if poll_number % 2 == 1 {
                feed.data("word ");
            }
            let _ = poll(&mut going);
        }
        let (bell, waker) = bell();
        let mut read = Vec::new();
        drop(going);
        feed.data("end");
        feed.give(Morsel::End);
        while let Poll::Ready(Some(Ok(frame))) = poll_with(&mut staying, &waker) {
            read.extend_from_slice(&frame.into_data().unwrap());
        }
        assert_eq!(bell.rings(), 0);
        let body = "word ".repeat(polls / 2) + "end";
        assert_eq!(read, body.as_bytes());
        assert_eq!(notes.told(), [Told::Whole(body.into(), None)]);
        drop((along, staying));
        assert!(notes.last().is_none() && feed.is_dropped());
    }
}
