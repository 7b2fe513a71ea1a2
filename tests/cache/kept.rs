//! What a store keeps: for how long, and as it was given.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use tower_response_cache::{CacheLayer, MemoryStore, RedisStore, TieredStore};

use crate::redis_server::RedisServer;
use crate::support::{Answer, Body, Cache, Origin, everywhere, response, settle, stream, ttl};

const DAY: u64 = 24 * 60 * 60;

/// A process with Redis alone, and one with memory over it.
async fn processes(server: &RedisServer, origin: &Origin, seconds: u64) -> [Cache; 2] {
    let connect = async || RedisStore::connect(&server.url()).await.unwrap();
    let tiered = TieredStore::new(MemoryStore::new(16 << 20), connect().await);
    [CacheLayer::new(connect().await), CacheLayer::new(tiered)]
        .map(|layer| Cache::over(layer, origin, everywhere(ttl(seconds))))
}

/// Asks until the answer is a hit: the first answers to come from a new server may be invalidated.
async fn hit(cache: &Cache, uri: &str) -> Answer {
    loop {
        let answer = cache.get(uri).await;
        if answer.cache_status().starts_with("hit") {
            return answer;
        }
    }
}

/// Returns the names of the responses that are in Redis.
fn entries(server: &RedisServer) -> Vec<String> {
    server.strings(&["KEYS", "hc1:*:e:*"])
}

#[tokio::test]
async fn memory_keeps_a_response_for_as_long_as_its_rule_says() {
    let origin = Origin::counting(&[]);
    let cache = Cache::new(&origin, everywhere(ttl(7 * DAY)));
    cache.get("/a").await;
    settle().await;
    for (days, status) in [(2, "hit; ttl=432000"), (4, "hit; ttl=86400")] {
        cache.advance(days * DAY);
        assert_eq!(cache.get("/a").await.cache_status(), status);
    }
    cache.advance(DAY);
    assert_eq!(cache.get("/a").await.text(), "2");
}

#[tokio::test]
async fn redis_keeps_nothing_for_longer_than_a_day() {
    let (server, origin) = (RedisServer::start(), Origin::counting(&[("vary", "x")]));
    for (cache, uri) in processes(&server, &origin, 7 * DAY)
        .await
        .iter()
        .zip(["/a", "/b"])
    {
        assert!(hit(cache, uri).await.cache_status().contains("ttl=604800"));
    }
    assert_eq!(entries(&server).len(), 2);
    for name in server.strings(&["KEYS", "hc1:*:[evy]:*"]) {
        let left: i64 = server.command(&["PTTL", &name]).parse().unwrap();
        assert!((1..=86_400_000).contains(&left), "{name}: {left}");
    }
}

#[tokio::test]
async fn a_response_that_was_damaged_in_redis_is_fetched_and_stored_again() {
    let (server, origin) = (RedisServer::start(), Origin::counting(&[]));
    let [cache, _] = processes(&server, &origin, 60).await;
    let stored = hit(&cache, "/a").await;
    let calls = origin.calls();

    let flip = "local length = redis.call('STRLEN', KEYS[1])
        local byte = string.byte(redis.call('GETRANGE', KEYS[1], -1, -1))
        redis.call('SETRANGE', KEYS[1], length - 1, string.char(bit.bxor(byte, 1)))";
    let names = entries(&server);
    server.command(&["EVAL", flip, "1", &names[0]]);
    let damaged = cache.get("/a").await;
    assert_eq!(damaged.cache_status(), "fwd=miss; stored; detail=damaged");
    assert_eq!(cache.handle().stats().store.damaged, 1);
    assert_eq!(origin.calls(), calls + 1);
    assert_ne!(damaged.text(), stored.text());

    let again = cache.get("/a").await;
    assert_eq!(again.cache_status(), "hit; ttl=60");
    assert_eq!(again.text(), damaged.text());
}

#[tokio::test]
async fn a_stored_response_keeps_nothing_of_the_memory_that_it_came_in() {
    /// All of a response is in corners of a buffer, as if read from a connection.
    fn body_in(buffer: &Bytes, at_hand: bool) -> Body {
        let (data, trailers) = (buffer.slice(10..20), fields(buffer));
        match at_hand {
            true => Full::new(data)
                .map_err(|never| match never {})
                .with_trailers(async { Some(Ok(trailers)) })
                .boxed_unsync(),
            false => stream(vec![Ok(Frame::data(data)), Ok(Frame::trailers(trailers))]),
        }
    }

    fn fields(buffer: &Bytes) -> HeaderMap {
        let value = HeaderValue::from_maybe_shared(buffer.slice(..10));
        HeaderMap::from_iter([(HeaderName::from_static("x-a"), value.unwrap())])
    }

    for at_hand in [true, false] {
        let buffer = Bytes::from(vec![b'x'; 64 << 10]);
        let mut made = response(&[], "").map(|_| body_in(&buffer, at_hand));
        made.headers_mut().extend(fields(&buffer));
        let made = Mutex::new(Some(made));
        let origin = Origin::new(move |_| made.lock().take().unwrap());
        let cache = Cache::new(&origin, everywhere(ttl(60)));
        cache.get("/a").await;
        settle().await;
        let hit = cache.get("/a").await;
        assert!(hit.cache_status().starts_with("hit"), "at hand: {at_hand}");
        assert_eq!(hit.text(), "x".repeat(10));
        assert_eq!(hit.headers["x-a"], "x".repeat(10));
        assert_eq!(hit.trailers, Some(fields(&buffer)));
        assert!(buffer.is_unique(), "at hand: {at_hand}");
    }
}
