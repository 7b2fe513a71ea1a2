//! Processes that share a Redis: one calls the handler for all.
//!
//! Each has a layer and connections of its own, as processes have; that they live in one here makes
//! no difference to them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tower_response_cache::{CacheLayer, Invalidated, RedisStore, RulesBuilder, Target};

use crate::redis_server::RedisServer;
use crate::support::{Answer, Cache, Origin, everywhere, pieces, response, settle, status, ttl};

/// On a busy machine a server, or another process, may take longer than the defaults allow.
const PATIENCE: Duration = Duration::from_secs(60);

async fn processes(
    server: &RedisServer,
    origin: &Origin,
    rules: fn() -> RulesBuilder,
) -> Vec<Arc<Cache>> {
    let connect = async |_| {
        let builder = RedisStore::builder(&server.url()).read_timeout(PATIENCE);
        let builder = builder.capture_timeout(PATIENCE).write_timeout(PATIENCE);
        let store = builder.connect().await.unwrap();
        let layer = CacheLayer::new(store);
        let layer = layer.collapse_wait(PATIENCE).store_wait(PATIENCE);
        let cache = Cache::over(layer, origin, rules());
        // Whoever is the first to meet a new server, or thinks so, has what is stored invalidated.
        let asks = [("cache-control", "only-if-cached")];
        assert_eq!(cache.get_with("/", &asks).await.status, 504);
        Arc::new(cache)
    };
    join_all((0..3).map(connect)).await
}

/// Asks each process a hundred times at once, while the handler takes its time.
async fn ask(processes: &[Arc<Cache>], origin: &Origin, uri: &'static str) -> Vec<Answer> {
    let hold = origin.hold();
    let tasks: Vec<_> = processes
        .iter()
        .cycle()
        .take(300)
        .map(|process| {
            let process = Arc::clone(process);
            tokio::spawn(async move { process.get(uri).await })
        })
        .collect();
    while origin.made() == 0 {
        tokio::task::yield_now().await;
    }
    // A handler so slow that all have claimed the fetch by then.
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(hold);
    let answers = join_all(tasks).await;
    answers.into_iter().map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_claims_what_another_has_just_stored_finds_it() {
    let server = RedisServer::start();
    let origin = Origin::counting(&[]);
    let processes = processes(&server, &origin, || everywhere(ttl(60))).await;
    for round in 1..=50 {
        let asking = processes.iter().cycle().take(60).map(|process| {
            let (process, uri) = (Arc::clone(process), format!("/{round}"));
            tokio::spawn(async move { process.get(&uri).await })
        });
        for answer in join_all(asking.collect::<Vec<_>>()).await {
            answer.unwrap();
        }
        assert_eq!(origin.calls(), round);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_for_others_makes_no_process_wait() {
    let server = RedisServer::start();
    let origin = Origin::counting(&[("cache-control", "private")]);
    let processes = processes(&server, &origin, || everywhere(ttl(60))).await;
    let began = tokio::time::Instant::now();
    let answers = ask(&processes, &origin, "/a").await;
    let mut texts: Vec<_> = answers.iter().map(Answer::text).collect();
    texts.sort_unstable();
    texts.dedup();
    assert_eq!(texts.len(), 300, "to each its own");
    assert!(began.elapsed() < Duration::from_secs(3), "no convoy");
}

#[tokio::test]
async fn what_has_turned_out_too_long_makes_no_process_wait() {
    let server = RedisServer::start();
    let origin = Origin::new(|_| {
        response(&[], "").map(|_| pieces(vec![Bytes::from_static(&[b'a'; 1 << 10]); 8]))
    });
    let processes = processes(&server, &origin, || everywhere(ttl(60).max_body(1 << 10))).await;
    processes[0].get("/a").await;
    let hold = origin.hold();
    let asking: Vec<_> = processes
        .iter()
        .cycle()
        .take(9)
        .map(|process| {
            let process = Arc::clone(process);
            tokio::spawn(async move { process.get("/a").await })
        })
        .collect();
    // They need the time of a round trip to find the mark that the first one has left.
    let all = async {
        while origin.made() < 10 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let all = tokio::time::timeout(PATIENCE / 4, all).await;
    all.expect("each asks for itself");
    drop(hold);
    for answer in join_all(asking).await {
        assert_eq!(answer.unwrap().text().len(), 8 << 10);
    }
}

#[tokio::test]
async fn a_response_with_tags_of_its_own_is_shared_too() {
    let server = RedisServer::start();
    let origin = Origin::new(|call| {
        let mut response = response(&[], call.number.to_string());
        let tags = tower_response_cache::Tags::new(["late"]);
        response.extensions_mut().insert(tags);
        response
    });
    let processes = processes(&server, &origin, || everywhere(ttl(60))).await;
    let answers = ask(&processes, &origin, "/a").await;
    for answer in answers {
        assert_eq!(answer.text(), "1", "{}", answer.cache_status());
    }
    assert_eq!(origin.calls(), 1);
}

#[tokio::test]
async fn one_process_refreshes_for_all() {
    let server = RedisServer::start();
    let origin = Origin::counting(&[]);
    let rules = || everywhere(ttl(10).stale_while_revalidate(Duration::from_secs(100)));
    let processes = processes(&server, &origin, rules).await;
    processes[0].get("/a").await;
    while processes[0].handle().stats().stored() == 0 {
        tokio::task::yield_now().await;
    }
    for process in &processes {
        process.advance(20);
    }
    let hold = origin.hold();
    for process in &processes {
        assert_eq!(process.get("/a").await.text(), "1");
        while origin.calls() < 2 {
            tokio::task::yield_now().await;
        }
    }
    settle().await;
    drop(hold);
    for process in &processes {
        process.handle().shutdown(Duration::from_secs(1)).await;
    }
    assert_eq!(origin.calls(), 2);
}

#[tokio::test]
async fn a_validation_waits_for_the_store_once() {
    let server = Arc::new(RedisServer::start());
    let counted = Arc::clone(&server);
    let origin = Origin::new(move |call| match call.header("if-none-match") {
        "" => response(&[("etag", "\"v\"")], "text"),
        _ => {
            let counts = counted.command(&["INFO", "commandstats"]);
            assert!(counts.contains("cmdstat_mget:calls=1,"), "{counts}");
            assert!(!counts.contains("cmdstat_set:"), "{counts}");
            status(304, &[("etag", "\"v\"")], "")
        }
    });
    let processes = processes(&server, &origin, || everywhere(ttl(10))).await;
    let process = &processes[0];
    process.get("/a").await;
    while process.handle().stats().stored() == 0 {
        tokio::task::yield_now().await;
    }
    process.advance(20);
    server.command(&["CONFIG", "RESETSTAT"]);
    let answer = process.get("/a").await;
    assert_eq!(answer.text(), "text");
    assert!(answer.cache_status().contains("fwd-status=304"));
    assert_eq!(origin.calls(), 2);
}

#[tokio::test]
async fn without_the_redis_each_process_asks_once() {
    let mut server = RedisServer::start();
    let origin = Origin::counting(&[]);
    let processes = processes(&server, &origin, || everywhere(ttl(60))).await;
    server.kill();
    ask(&processes, &origin, "/a").await;
    // Those of a process still share one call; how soon each notices the loss makes some difference.
    assert!(origin.calls() <= 12, "{} calls", origin.calls());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalidation_that_a_failover_has_lost_is_told_again() {
    let server = RedisServer::start();
    let origin = Origin::counting(&[]);
    let processes = processes(&server, &origin, || everywhere(ttl(60))).await;
    let [one, other, ..] = processes.as_slice() else {
        panic!("there are three")
    };
    one.get("/a").await;
    while other.get("/a").await.cache_status() != "hit; ttl=60" {}
    let stored = other.get("/a").await;
    let old = stored.text();

    let copy = |from: &str, to: &str| {
        let script = "for _, k in ipairs(redis.call('KEYS', ARGV[1]..'hc1:*')) do
            redis.call('COPY', k, ARGV[2]..string.sub(k, #ARGV[1] + 1), 'REPLACE') end";
        server.command(&["EVAL", script, "0", from, to]);
    };
    copy("", "replica:");
    let outcome = one.handle().invalidate(Target::uri("/a")).await.unwrap();
    assert_eq!(outcome, Invalidated::Applied);
    copy("replica:", "");
    assert_eq!(other.get("/a").await.text(), old, "what was lost is back");
    server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    assert_ne!(one.get("/a").await.text(), old, "never in this process");
    let end = tokio::time::Instant::now() + Duration::from_secs(3);
    loop {
        let answer = other.get("/a").await;
        if answer.text() != old && answer.cache_status().starts_with("hit") {
            break;
        }
        assert!(tokio::time::Instant::now() < end, "nor for long in others");
    }
}
