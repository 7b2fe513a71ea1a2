//! Redis that is killed or stands still under a cache, alone and with memory over it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower_response_cache::{CacheLayer, Invalidated, MemoryStore, RedisStore, Target, TieredStore};

use crate::redis_server::RedisServer;
use crate::support::{Cache, Origin, everywhere, response, ttl};

/// A process with Redis alone, and one with memory over it.
async fn processes(server: &RedisServer, origin: &Origin) -> [Cache; 2] {
    let connect = async || RedisStore::connect(&server.url()).await.unwrap();
    let tiered = TieredStore::new(MemoryStore::new(16 << 20), connect().await);
    [CacheLayer::new(connect().await), CacheLayer::new(tiered)]
        .map(|layer| Cache::over(layer, origin, everywhere(ttl(60))))
}

/// An origin that says what it was asked for, and which version of it.
fn versioned() -> (Arc<AtomicUsize>, Origin) {
    let version = Arc::new(AtomicUsize::new(0));
    let current = Arc::clone(&version);
    let origin = Origin::new(move |call| {
        let version = current.load(Ordering::SeqCst);
        response(&[], format!("{} {version}", call.head.uri.path()))
    });
    (version, origin)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_was_killed_costs_no_time() {
    let mut server = RedisServer::start();
    let (_, origin) = versioned();
    let processes = processes(&server, &origin).await;
    for process in &processes {
        process.get("/a").await;
    }
    server.kill();
    for process in &processes {
        while process.handle().health().store.connected {
            sleep(Duration::from_millis(1)).await;
        }
        let mut times = Vec::new();
        for number in 0..200 {
            let (uri, began) = (format!("/{number}"), Instant::now());
            let answer = process.get(&uri).await;
            times.push(began.elapsed());
            assert_eq!(answer.text(), format!("{uri} 0"));
        }
        times.sort_unstable();
        let [usual, slow] = [times[100], times[197]];
        assert!(usual < Duration::from_millis(2), "{usual:?}");
        // On a machine that is busy with other tests.
        assert!(slow < Duration::from_millis(20), "{slow:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_stands_still_is_waited_for_no_longer_than_a_request_may() {
    /// Far beyond what a request may wait; and what a busy machine may add.
    const FAR: Duration = Duration::from_secs(20);
    const SLACK: Duration = Duration::from_millis(350);
    let server = RedisServer::start();
    let (_, origin) = versioned();
    let connect = async || {
        let builder = RedisStore::builder(&server.url()).read_timeout(FAR);
        builder.capture_timeout(FAR).connect().await.unwrap()
    };
    let tiered = TieredStore::new(MemoryStore::new(16 << 20), connect().await);
    let processes = [CacheLayer::new(connect().await), CacheLayer::new(tiered)]
        .map(|layer| Cache::over(layer, &origin, everywhere(ttl(60))));
    for process in &processes {
        process.get("/a").await;
    }
    server.stop();
    for process in &processes {
        // What it holds has to be confirmed, and what it does not hold looked for.
        for uri in ["/a", "/b"] {
            let began = Instant::now();
            let answer = process.get(uri).await;
            assert_eq!(answer.text(), format!("{uri} 0"));
            let waited = began.elapsed();
            assert!(waited < Duration::from_millis(150) + SLACK, "{waited:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_stood_still_brings_no_answer_to_another_question() {
    let server = RedisServer::start();
    let (version, origin) = versioned();
    let processes = processes(&server, &origin).await;
    let ask_all = async |times: usize| {
        for number in 0..times {
            for process in &processes {
                let uri = format!("/{}", number % 7);
                let current = version.load(Ordering::SeqCst);
                let answer = process.get(&uri).await;
                assert_eq!(answer.text(), format!("{uri} {current}"));
            }
        }
    };
    ask_all(14).await;
    server.stop();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        ask_all(7).await;
        sleep(Duration::from_millis(50)).await;
    }
    version.fetch_add(1, Ordering::SeqCst);
    for process in &processes {
        let outcome = process.handle().invalidate(Target::everything()).await;
        assert_eq!(outcome.unwrap(), Invalidated::Queued);
    }
    ask_all(7).await;
    server.cont();
    let end = Instant::now() + Duration::from_secs(5);
    let has_hit = async |process: &Cache| process.get("/0").await.cache_status().starts_with("hit");
    for process in &processes {
        while !has_hit(process).await {
            assert!(Instant::now() < end, "nothing is stored again");
            ask_all(7).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalidation_while_redis_stands_still_holds_here_at_once_and_then_everywhere() {
    let server = RedisServer::start();
    let (version, origin) = versioned();
    let [one, other] = processes(&server, &origin).await;
    for process in [&one, &other] {
        while !process.get("/a").await.cache_status().starts_with("hit") {
            sleep(Duration::from_millis(1)).await;
        }
    }
    server.stop();
    version.store(1, Ordering::SeqCst);
    let outcome = one.handle().invalidate(Target::uri("/a")).await;
    assert_eq!(outcome.unwrap(), Invalidated::Queued);
    assert_eq!(one.get("/a").await.text(), "/a 1", "not in this process");
    server.cont();
    let end = Instant::now() + Duration::from_secs(10);
    while one.handle().health().invalidations_pending > 0 {
        assert!(Instant::now() < end, "it is delivered");
        sleep(Duration::from_millis(5)).await;
    }
    // What has been told to Redis is told to the other within the lease.
    while other.get("/a").await.text() != "/a 1" {
        assert!(Instant::now() < end, "nor in any other");
        sleep(Duration::from_millis(5)).await;
    }
}
