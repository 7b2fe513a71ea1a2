//! What another process invalidates while the handler is being asked here.

use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use http::Version;
use tokio::time::sleep;
use tower_response_cache::{CacheLayer, Invalidated, RedisStore, Rule, Rules, Tags, Target};

use crate::handler::{Handler, Pace};
use crate::random::Random;
use crate::redis_server::RedisServer;
use crate::server::Server;
use crate::stamp::Stamp;

const LENGTH: usize = 4 << 10;

/// Another process is one with a layer and connections of its own, for all that the first can tell.
async fn process(redis: &RedisServer) -> CacheLayer {
    // On a busy machine a server may take longer than the defaults allow.
    let limit = Duration::from_secs(10);
    let store = RedisStore::builder(&redis.url())
        .read_timeout(limit)
        .capture_timeout(limit)
        .write_timeout(limit);
    let rule = Rule::ttl(Duration::from_secs(60)).tag("thing:{key}");
    let rules = Rules::builder().route("/{key}", rule).build().unwrap();
    let cache = CacheLayer::new(store.connect().await.unwrap());
    cache.rules(rules).store_wait(limit)
}

/// Tags some answers with what the request does not tell: who follows must ask the store for them.
fn tagged(app: Router) -> Router {
    app.layer(middleware::from_fn(async |request: Request, next: Next| {
        let key: u64 = request.uri().path()[1..].parse().unwrap();
        let mut response = next.run(request).await;
        if key % WAYS == LATE {
            response.extensions_mut().insert(Tags::new(["late"]));
        }
        response
    }))
}

/// In how many ways it is said what to invalidate, by turns.
const WAYS: u64 = 5;
const LATE: u64 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_after_another_process_has_invalidated_gets_nothing_from_before() {
    const ROUNDS: u64 = 100;
    let redis = RedisServer::start();
    let handler = Handler::new(Pace {
        length: LENGTH,
        piece: LENGTH / 4,
        work: Duration::from_millis(1),
    });
    let elsewhere = process(&redis).await.handle();
    let app = tagged(handler.router()).layer(process(&redis).await);
    let server = Server::start(app).await;
    let client = server.client(Version::HTTP_2);
    let mut overtaken = 0;
    for key in 0..ROUNDS {
        let mut random = Random::seeded(key);
        let mut pause = async || sleep(Duration::from_micros(random.below(6_000))).await;
        let generation = |body: &[u8]| {
            let stamp = Stamp::of(body);
            assert_eq!((stamp.key, stamp.length), (key, LENGTH));
            stamp.generation
        };
        let before = [(); 4].map(|()| client.asking(key));
        pause().await;
        let least = handler.change();
        let target = match key % WAYS {
            0 => Target::uri(format!("/{key}")),
            1 => Target::pattern("/{key}"),
            2 => Target::tag(format!("thing:{key}")),
            3 => Target::everything(),
            LATE.. => Target::tag("late"),
        };
        let outcome = elsewhere.invalidate(target).await.unwrap();
        assert_eq!(outcome, Invalidated::Applied);
        let mut after = Vec::new();
        for _ in 0..3 {
            after.extend([(); 4].map(|()| client.asking(key)));
            pause().await;
        }
        for each in after {
            let came = generation(&each.await.unwrap());
            assert!(came >= least, "{came} for {least}, {key}");
        }
        for each in before {
            overtaken += u64::from(generation(&each.await.unwrap()) < least);
        }
    }
    assert!(
        overtaken > ROUNDS / 4,
        "only {overtaken} asked before it, and were answered"
    );
}
