//! What `tracing` is told of a request.
//!
//! One test in a process of its own: for each event it is remembered whether anybody listens, and
//! the thread that is the first to reach it may be another test's, where nobody does.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::convert::Infallible;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, COOKIE};
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use tokio::task::yield_now;
use tower::{Layer, ServiceExt, service_fn};
use tower_response_cache::{CacheLayer, MemoryStore, Rule, Rules};
use tracing::Level;

/// What has been logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Takes out what has been told of requests so far, without the spans it was told in.
    fn take(&self) -> Vec<String> {
        let log = String::from_utf8(std::mem::take(&mut self.0.lock())).unwrap();
        log.lines()
            .filter_map(|line| line.split_once("tower_response_cache::metrics: "))
            .map(|(_, event)| event.to_owned())
            .collect()
    }
}

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn handler(_: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, Infallible> {
    yield_now().await;
    Ok(Response::new(Full::from("body")))
}

fn get(path: &str) -> Request<Full<Bytes>> {
    let uri = format!("http://shop.example{path}");
    Request::get(uri).body(Full::default()).unwrap()
}

#[tokio::test]
async fn an_event_says_what_happened_to_which_key_and_why() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone());
    let _listening = tracing::subscriber::set_default(subscriber.finish());

    let rule = || Rule::ttl(Duration::from_secs(60));
    let rules = Rules::builder()
        .route("/a", rule())
        .route("/b", rule())
        .route("/cart", Rule::bypass());
    let cache = CacheLayer::new(MemoryStore::new(1 << 20)).rules(rules.build().unwrap());
    let cache = cache.layer(service_fn(handler));
    let ask = async |request| {
        let answer = cache.clone().oneshot(request).await.unwrap();
        answer.into_body().collect().await.unwrap();
    };

    tokio::join!(ask(get("/a")), ask(get("/a")));
    yield_now().await;
    let mut told = log.take();
    told.sort();
    assert_eq!(
        told,
        [
            "collapsed route=/a key=PrimaryKey(default http://shop.example/a)",
            "miss route=/a reason=absent key=PrimaryKey(default http://shop.example/a)",
            "miss route=/a reason=absent key=PrimaryKey(default http://shop.example/a)",
            "stored route=/a key=PrimaryKey(default http://shop.example/a)",
        ]
    );

    ask(get("/a")).await;
    assert_eq!(
        log.take(),
        ["hit route=/a stale=false key=PrimaryKey(default http://shop.example/a)"]
    );

    let mut with_cookie = get("/b");
    let cookie = "session=1".parse().unwrap();
    with_cookie.headers_mut().insert(COOKIE, cookie);
    ask(with_cookie).await;
    assert_eq!(
        log.take(),
        [
            "miss route=/b reason=absent key=PrimaryKey(default http://shop.example/b)",
            "not stored route=/b reason=cookie key=PrimaryKey(default http://shop.example/b)",
        ]
    );

    ask(get("/cart")).await;
    assert_eq!(log.take(), ["bypass route=/cart reason=rule key=/cart"]);

    let mut long = get(&format!("/{}", "x".repeat(1000)));
    long.headers_mut()
        .insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
    ask(long).await;
    let told = log.take().concat();
    assert!(told.contains("key=/xxx") && told.ends_with('…'), "{told}");
    assert!(told.len() < 300, "{told}");
}
