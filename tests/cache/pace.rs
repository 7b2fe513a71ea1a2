//! Clients that read one body along, longer than may be held of it, each at its own pace.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::time::{Instant, sleep};
use tower_response_cache::ResponseBody;

use crate::support::{Body, Cache, Origin, everywhere, get, response, stream, ttl};

const CAP: usize = 64 << 10;
const PIECE: usize = CAP / 4;
const PIECES: usize = 40;

/// The longest that clients wait for each other.
const WAIT: Duration = Duration::from_secs(2);

/// How long a fast and a slow client are about each frame.
const FAST: Duration = Duration::ZERO;
const SLOW: Duration = Duration::from_millis(10);

/// What a client has read, and whether that was all.
type Read = (Bytes, bool);

fn body() -> Bytes {
    (0..PIECE * PIECES).map(|n| (n / 7 % 251) as u8).collect()
}

/// Opens the same response for so many clients at once.
async fn opened<const CLIENTS: usize>() -> [ResponseBody<Body>; CLIENTS] {
    let whole = body();
    let origin = Origin::new(move |_| {
        let whole = whole.clone();
        let piece = move |n| Ok(Frame::data(whole.slice(n * PIECE..(n + 1) * PIECE)));
        response(&[], "").map(|_| stream((0..PIECES).map(piece)))
    });
    let cache = Cache::new(&origin, everywhere(ttl(60)))
        .with(|layer| layer.max_body(CAP as u64).collapse_wait(WAIT));
    let asked = [(); CLIENTS].map(|()| cache.send(get("/a")));
    let responses = futures_util::future::join_all(asked).await;
    assert_eq!(origin.calls(), 1);
    let bodies = responses.into_iter().map(|each| each.unwrap().into_body());
    bodies.collect::<Vec<_>>().try_into().unwrap()
}

/// Reads to the end, with a pause after each frame.
async fn read(mut body: ResponseBody<Body>, pause: Duration) -> Read {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => read.extend_from_slice(&frame.into_data().unwrap()),
            Err(_) => return (read.freeze(), false),
        }
        sleep(pause).await;
    }
    (read.freeze(), true)
}

#[tokio::test(start_paused = true)]
async fn a_fast_and_a_slow_client_read_every_byte_whoever_came_first() {
    for pauses in [[FAST, SLOW], [SLOW, FAST]] {
        let clients = opened::<2>().await.into_iter().zip(pauses);
        let reading = clients.map(|(body, pause)| tokio::spawn(read(body, pause)));
        for each in reading.collect::<Vec<_>>() {
            let (read, ended) = each.await.unwrap();
            assert!(ended && read == body(), "{} bytes", read.len());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stalls_is_let_go_after_the_limit_and_the_others_read_on() {
    let [mut stalled, first, second] = opened().await;
    let began = Instant::now();
    let reading = [first, second].map(|body| tokio::spawn(read(body, FAST)));
    stalled.frame().await.unwrap().unwrap();
    for each in reading {
        assert!(each.await.unwrap() == (body(), true));
    }
    assert_eq!(began.elapsed().as_secs(), WAIT.as_secs());
    let (rest, ended) = read(stalled, FAST).await;
    assert!(!ended && rest.len() <= CAP, "{} bytes", rest.len());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_is_waited_for_no_longer() {
    let [leaving, staying] = opened().await;
    let began = Instant::now();
    let reading = tokio::spawn(read(staying, FAST));
    sleep(WAIT / 2).await;
    drop(leaving);
    assert!(reading.await.unwrap() == (body(), true));
    assert_eq!(began.elapsed().as_secs(), WAIT.as_secs() / 2);
}
