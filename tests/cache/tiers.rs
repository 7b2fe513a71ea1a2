//! A cache with memory over a second store.

use tower_response_cache::{CacheLayer, ErrorKind, MemoryStore, TieredStore};

use crate::support::{Cache, Double, Fault, Operation, Origin, everywhere, settle, ttl};

fn over(second: &Double, origin: &Origin) -> Cache {
    let store = TieredStore::new(MemoryStore::new(16 << 20), second.clone());
    Cache::over(CacheLayer::new(store), origin, everywhere(ttl(60)))
}

#[tokio::test]
async fn an_answer_says_which_tier_had_it() {
    let origin = Origin::counting(&[]);
    let cache = Cache::over(
        CacheLayer::new(TieredStore::new(
            MemoryStore::new(16 << 20),
            // It vouches for what it holds.
            MemoryStore::new(16 << 20),
        )),
        &origin,
        everywhere(ttl(60)),
    );
    assert_eq!(cache.get("/a").await.cache_status(), "fwd=uri-miss; stored");
    settle().await;
    let again = cache.get("/a").await;
    assert_eq!(again.cache_status(), "hit; ttl=60; detail=memory");
    let stats = cache.handle().stats();
    assert_eq!(stats.store.tier, "tiered");
    assert_eq!(stats.store.hits.get("memory"), Some(&1));

    let second = Double::new();
    for cache in [over(&second, &origin), over(&second, &origin)] {
        cache.get("/b").await;
        settle().await;
        let again = cache.get("/b").await;
        assert_eq!(again.cache_status(), "hit; ttl=60; detail=double");
    }
}

#[tokio::test]
async fn while_the_second_store_is_away_a_process_keeps_its_own_for_a_moment() {
    let (second, origin) = (Double::new(), Origin::counting(&[]));
    let cache = over(&second, &origin);
    for operation in Operation::ALL {
        second.break_down(operation, Fault::Fails(ErrorKind::Unavailable));
    }
    let away = "fwd=miss; stored; detail=store-unavailable";
    for (seconds, status) in [
        (0, away),
        (0, "hit; ttl=60; detail=memory"),
        (2, away),
        (1, "hit; ttl=59; detail=memory"),
    ] {
        cache.advance(seconds);
        assert_eq!(cache.get("/a").await.cache_status(), status);
        settle().await;
    }
    assert!(cache.handle().stats().store.errors > 0);

    cache.method("PUT", "/a").await;
    assert_eq!(cache.get("/a").await.text(), "4", "the write was the third");
    settle().await;
    second.recover();
    let back = cache.get("/a").await;
    assert_eq!(back.cache_status(), "fwd=uri-miss; stored");
}
