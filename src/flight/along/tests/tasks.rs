//! Readers in tasks of their own.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::LazyLock;

use bytes::Bytes;
use http_body::Body;

use super::origin::{Feed, Morsel, Notes, Told};
use crate::flight::along::{BoxError, Reader};

const CHUNK: usize = 64 * 1024;
const CHUNKS: usize = 128;
const READERS: usize = 200;

static BODY: LazyLock<Bytes> =
    LazyLock::new(|| (0..CHUNK * CHUNKS).map(|n| (n / 7 % 251) as u8).collect());

/// Returns how many bytes came, all of them right.
async fn read(mut reader: Reader) -> Result<usize, BoxError> {
    let mut read = 0;
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut reader).poll_frame(cx)).await {
        let data = frame?.into_data().unwrap();
        assert_eq!(data, BODY[read..read + data.len()]);
        read += data.len();
    }
    Ok(read)
}

async fn feed_all(feed: Feed) {
    for index in 0..CHUNKS {
        let chunk = index * CHUNK..(index + 1) * CHUNK;
        feed.give(Morsel::Data(BODY.slice(chunk)));
        tokio::task::yield_now().await;
    }
    feed.give(Morsel::End);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_read_eight_mebibytes_and_one_stalls() {
    let (feed, notes) = (Feed::default(), Notes::default());
    let (along, first) = feed.along(BODY.len() as u64, &notes);
    let mut stalled = along.reader().unwrap();
    let readers = (1..READERS).map(|_| along.reader().unwrap());
    let reading: Vec<_> = readers
        .chain([first])
        .map(|each| tokio::spawn(read(each)))
        .collect();
    let feeding = tokio::spawn(feed_all(feed));
    for each in reading {
        assert_eq!(each.await.unwrap().unwrap(), BODY.len());
    }
    feeding.await.unwrap();
    assert!(matches!(&notes.told()[..], [Told::Whole(body, None)] if *body == *BODY));
    let late = poll_fn(|cx| Pin::new(&mut stalled).poll_frame(cx)).await;
    assert!(late.unwrap().unwrap().is_data());
    assert_eq!(read(along.reader().unwrap()).await.unwrap(), BODY.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn over_the_cap_those_who_keep_up_read_all_and_the_stalled_one_nothing() {
    let (feed, notes) = (Feed::default(), Notes::default());
    let (along, first) = feed.along(4 * CHUNK as u64, &notes);
    let stalled = along.reader().unwrap();
    let feeding = tokio::spawn(feed_all(feed));
    assert_eq!(read(first).await.unwrap(), BODY.len());
    assert!(read(stalled).await.is_err());
    feeding.await.unwrap();
    assert_eq!(notes.told(), [Told::TooLong]);
}
