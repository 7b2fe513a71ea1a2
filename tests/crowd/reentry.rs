//! A handler that asks for what it makes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use http::Version;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::server::{Client, Server, cache};
use crate::stamp::Stamp;

const LENGTH: usize = 4 << 10;

/// On one thread: whoever waited for it in vain would be stuck for good.
#[tokio::test]
async fn a_handler_that_asks_for_what_it_makes_is_freed_by_the_limit() {
    const LIMIT: Duration = Duration::from_millis(300);
    let (calls, itself) = (
        Arc::new(AtomicU64::new(0)),
        Arc::<Mutex<Option<Client>>>::default(),
    );
    let (counted, asked) = (Arc::clone(&calls), Arc::clone(&itself));
    let handler = async move |Path(key)| {
        let generation = counted.fetch_add(1, Ordering::SeqCst);
        let itself = asked.lock().clone().filter(|_| generation == 0);
        if let Some(itself) = itself {
            let part = Stamp::of(&itself.ask(key).await);
            assert_eq!((part.key, part.generation), (key, 1));
        }
        let stamp = Stamp {
            key,
            generation,
            length: LENGTH,
        };
        stamp.body()
    };
    let app = Router::new().route("/{key}", get(handler));
    let server = Server::start(app.layer(cache().collapse_wait(LIMIT))).await;
    let client = server.client(Version::HTTP_11);
    *itself.lock() = Some(client.clone());
    let began = Instant::now();
    let stamp = Stamp::of(&client.ask(5).await);
    assert_eq!((stamp.key, stamp.generation), (5, 0));
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    // With an allowance for what a busy machine makes longer.
    let took = began.elapsed();
    assert!((LIMIT..LIMIT * 10).contains(&took), "{took:?}");
}
