//! Readers that come, read and go under thousands of schedules. One that is not woken is a
//! deadlock, which `shuttle` reports.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http_body::Body;
use shuttle::future::block_on;
use shuttle::rand::{Rng, thread_rng};
use shuttle::thread::{self, JoinHandle};
use shuttle::{check_pct, check_random};

use super::origin::{Feed, Morsel, Notes, Panic, Told};
use crate::flight::along::Reader;

const SCHEDULES: usize = 3_000;
const BODY: &[u8] = b"one two three ";

fn schedules(test: impl Fn() + Send + Sync + Clone + 'static) {
    check_random(test.clone(), SCHEDULES);
    check_pct(test, SCHEDULES, 3);
}

/// What a reader has read, and whether the end came without an error.
type Read = (Vec<u8>, bool);

/// Reads so many frames, and goes.
async fn read_on(mut reader: Reader, frames: usize) -> Read {
    let mut read = Vec::new();
    for _ in 0..frames {
        match poll_fn(|cx| Pin::new(&mut reader).poll_frame(cx)).await {
            Some(Ok(frame)) => read.extend_from_slice(&frame.into_data().unwrap()),
            Some(Err(_)) => return (read, false),
            None => return (read, true),
        }
    }
    (read, false)
}

/// Does so in a thread of its own.
fn read(reader: Reader, frames: usize) -> JoinHandle<Read> {
    thread::spawn(move || block_on(read_on(reader, frames)))
}

/// Reads all in a thread of its own; `None` if the source panics there.
fn read_or_panic(reader: Reader) -> JoinHandle<Option<Read>> {
    thread::spawn(move || {
        let reading = AssertUnwindSafe(|| block_on(read_on(reader, usize::MAX)));
        match catch_unwind(reading) {
            Ok(read) => Some(read),
            Err(panic) if panic.is::<Panic>() => None,
            Err(panic) => resume_unwind(panic),
        }
    })
}

/// Feeds the body, and ends it like this.
fn feed_all(feed: &Feed, end: Morsel) -> JoinHandle<()> {
    let feed = feed.clone();
    thread::spawn(move || {
        for word in ["one ", "two ", "three "] {
            feed.data(word);
        }
        feed.give(end);
    })
}

#[test]
fn who_reads_on_reads_all_whoever_goes() {
    schedules(|| {
        let (feed, notes) = (Feed::default(), Notes::default());
        let (along, first) = feed.along(100, &notes);
        let (second, third) = (along.reader().unwrap(), along.reader().unwrap());
        let going = [
            read(first, thread_rng().gen_range(0..4)),
            read(second, thread_rng().gen_range(0..4)),
        ];
        let staying = read(third, usize::MAX);
        let feeding = feed_all(&feed, Morsel::End);
        let (all, ended) = staying.join().unwrap();
        assert!(ended && all == BODY, "{all:?}");
        for each in going {
            assert!(BODY.starts_with(&each.join().unwrap().0));
        }
        feeding.join().unwrap();
        assert_eq!(notes.told(), [Told::Whole(BODY.into(), None)]);
        assert!(notes.last().is_none());
    });
}

#[test]
fn over_the_cap_a_reader_gets_a_prefix_and_the_fastest_all() {
    schedules(|| {
        let (feed, notes) = (Feed::default(), Notes::default());
        let (along, first) = feed.along(7, &notes);
        let reading = [
            read(along.reader().unwrap(), usize::MAX),
            read(first, usize::MAX),
        ];
        let feeding = feed_all(&feed, Morsel::End);
        let read = reading.map(|each| each.join().unwrap());
        assert!(read.iter().all(|(read, _)| BODY.starts_with(read)));
        assert!(read.iter().any(|(read, ended)| *ended && read == BODY));
        feeding.join().unwrap();
        assert_eq!(notes.told(), [Told::TooLong]);
        assert!(feed.is_dropped());
    });
}

/// Lets two read a body over its cap along, who wait so long for each other.
fn read_over_the_cap(wait: Duration) -> [Read; 2] {
    let (feed, notes) = (Feed::default(), Notes::default());
    let (along, first) = feed.along_waiting(7, wait, &notes);
    let reading = [
        read(along.reader().unwrap(), usize::MAX),
        read(first, usize::MAX),
    ];
    let feeding = feed_all(&feed, Morsel::End);
    let read = reading.map(|each| each.join().unwrap());
    feeding.join().unwrap();
    assert_eq!(notes.told(), [Told::TooLong]);
    assert!(feed.is_dropped());
    read
}

#[test]
fn over_the_cap_readers_that_wait_for_each_other_read_all() {
    schedules(|| {
        for (read, ended) in read_over_the_cap(Duration::from_secs(60)) {
            assert!(ended && read == BODY, "{read:?}");
        }
    });
}

#[test]
fn over_the_cap_no_wait_that_ends_loses_anybody() {
    schedules(|| {
        let read = read_over_the_cap(Duration::from_millis(2));
        assert!(read.iter().all(|(read, _)| BODY.starts_with(read)));
        assert!(read.iter().any(|(read, ended)| *ended && read == BODY));
    });
}

#[test]
fn over_the_cap_readers_that_go_lose_nobody_who_waits_for_them() {
    schedules(|| {
        let (feed, notes) = (Feed::default(), Notes::default());
        let (along, first) = feed.along_waiting(7, Duration::from_secs(60), &notes);
        let (second, third) = (along.reader().unwrap(), along.reader().unwrap());
        let going = [
            read(first, thread_rng().gen_range(0..4)),
            read(second, thread_rng().gen_range(0..4)),
        ];
        let staying = read(third, usize::MAX);
        let feeding = feed_all(&feed, Morsel::End);
        assert_eq!(staying.join().unwrap(), (BODY.to_vec(), true));
        for each in going {
            assert!(BODY.starts_with(&each.join().unwrap().0));
        }
        feeding.join().unwrap();
    });
}

#[test]
fn a_failure_reaches_all() {
    schedules(|| {
        let (feed, notes) = (Feed::default(), Notes::default());
        let (along, first) = feed.along(100, &notes);
        let reading = [
            read(along.reader().unwrap(), usize::MAX),
            read(first, usize::MAX),
        ];
        let feeding = feed_all(&feed, Morsel::Failure("gone"));
        for each in reading {
            assert_eq!(each.join().unwrap(), (BODY.to_vec(), false));
        }
        feeding.join().unwrap();
        assert_eq!(notes.told(), [Told::Dropped]);
    });
}

#[test]
fn a_source_that_panics_in_one_readers_poll_fails_for_the_others() {
    schedules(|| {
        // Below its cap and above.
        for keep in [100, 7] {
            let (feed, notes) = (Feed::default(), Notes::default());
            let (along, first) = feed.along_waiting(keep, Duration::from_secs(60), &notes);
            let readers = [along.reader().unwrap(), along.reader().unwrap(), first];
            let reading = readers.map(read_or_panic);
            let feeding = feed_all(&feed, Morsel::Panic);
            let read = reading.map(|each| each.join().unwrap());
            let (panicked, failed): (Vec<_>, Vec<_>) = read.iter().partition(|read| read.is_none());
            assert_eq!(panicked.len(), 1);
            assert!(
                failed
                    .iter()
                    .all(|read| **read == Some((BODY.to_vec(), false)))
            );
            feeding.join().unwrap();
            assert!(feed.is_dropped());
        }
    });
}

#[test]
fn when_all_go_the_body_is_finished_or_dropped_once() {
    schedules(|| {
        let (feed, notes) = (Feed::default(), Notes::default());
        let (along, first) = feed.along(100, &notes);
        let reading = [
            read(along.reader().unwrap(), thread_rng().gen_range(0..4)),
            read(first, thread_rng().gen_range(0..4)),
        ];
        let feeding = feed_all(&feed, Morsel::End);
        let late = along.reader().map(|late| read(late, usize::MAX));
        for each in reading {
            each.join().unwrap();
        }
        let late = late.map(|late| late.join().unwrap());
        feeding.join().unwrap();
        if let Some(last) = notes.last() {
            block_on(last.finish());
        }
        assert!(late.is_none_or(|late| late == (BODY.to_vec(), true)));
        assert_eq!(notes.told(), [Told::Whole(BODY.into(), None)]);
        assert_eq!(Arc::strong_count(&along), 1);
        assert!(feed.is_dropped());
    });
}
