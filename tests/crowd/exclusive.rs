//! Answers that are of no use to anybody else.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::routing::get;
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Version};
use http_body_util::BodyExt;
use tokio::time::{Instant, sleep};
use tower::ServiceExt;

use crate::server::{Server, cache};
use crate::stamp::Stamp;

const WORK: Duration = Duration::from_millis(200);
const ALL: usize = 30;
const KEY: u64 = 3;

/// Answers each call in its own way.
fn app() -> Router {
    let calls = Arc::new(AtomicU64::new(0));
    let handler = async move |Path(key)| {
        let stamp = Stamp {
            key,
            generation: calls.fetch_add(1, Ordering::SeqCst),
            length: 4 << 10,
        };
        sleep(WORK).await;
        ([("cache-control", "no-store")], stamp.body())
    };
    Router::new().route("/{key}", get(handler)).layer(cache())
}

/// Each has an answer of its own.
fn check(bodies: &[Bytes]) {
    let generation = |body: &Bytes| {
        let stamp = Stamp::of(body);
        assert_eq!(stamp.key, KEY);
        stamp.generation
    };
    let own: BTreeSet<_> = bodies.iter().map(generation).collect();
    assert_eq!(own.len(), ALL);
}

#[tokio::test(start_paused = true)]
async fn thirty_who_cannot_share_take_as_long_as_one_and_as_two_at_first() {
    let app = app();
    for expected in [WORK * 2, WORK, WORK] {
        let began = Instant::now();
        let asking = (0..ALL).map(|_| {
            let request = Request::get(format!("/{KEY}")).body(Body::empty());
            let answer = app.clone().oneshot(request.unwrap());
            async { answer.await.unwrap().into_body().collect().await.unwrap() }
        });
        let bodies = join_all(asking).await;
        assert_eq!(began.elapsed(), expected);
        check(
            &bodies
                .into_iter()
                .map(|body| body.to_bytes())
                .collect::<Vec<_>>(),
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_clients_who_cannot_share_wait_side_by_side() {
    /// For what a busy machine makes longer. One after the other they would take six seconds.
    const ALLOWANCE: Duration = Duration::from_secs(1);
    let server = Server::start(app()).await;
    let client = server.client(Version::HTTP_11);
    for least in [WORK * 2, WORK] {
        let began = Instant::now();
        let bodies = join_all((0..ALL).map(|_| client.ask(KEY))).await;
        let took = began.elapsed();
        assert!((least..least + ALLOWANCE).contains(&took), "{took:?}");
        check(&bodies);
    }
}
