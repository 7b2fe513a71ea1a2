//! A cache with memory over a second store.

use tower_response_cache::{CacheLayer, ErrorKind, MemoryStore, Tier, TieredStore};

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

/// Two processes over one store, which keep responses in one tier alone.
fn confined(tier: Tier, origin: &Origin) -> (Double, [Cache; 2]) {
    let second = Double::vouching();
    let rules = || everywhere(ttl(60).tier(tier));
    let process = |_| {
        let store = TieredStore::new(MemoryStore::new(16 << 20), second.clone());
        Cache::over(CacheLayer::new(store), origin, rules())
    };
    let processes = [(), ()].map(process);
    (second, processes)
}

#[tokio::test]
async fn a_rule_for_memory_sends_no_response_to_the_second_store() {
    let origin = Origin::counting(&[]);
    let (second, [one, other]) = confined(Tier::Memory, &origin);
    for (number, process) in [("1", &one), ("2", &other)] {
        assert_eq!(process.get("/a").await.text(), number);
        settle().await;
        let again = process.get("/a").await;
        assert_eq!(again.cache_status(), "hit; ttl=60; detail=memory");
        assert_eq!(again.text(), number);
    }
    let calls = |operation| second.calls(operation);
    assert_eq!((calls(Operation::Put), calls(Operation::Lookup)), (0, 0));

    one.method("PUT", "/a").await;
    for process in [&one, &other] {
        let answer = process.get("/a").await;
        assert_eq!(
            answer.cache_status(),
            "fwd=miss; stored; detail=invalidated"
        );
    }
}

#[tokio::test]
async fn a_rule_for_the_second_store_holds_nothing_in_memory() {
    let origin = Origin::counting(&[]);
    let (second, [one, other]) = confined(Tier::Shared, &origin);
    one.get("/a").await;
    settle().await;
    for process in [&one, &other, &one, &other] {
        let answer = process.get("/a").await;
        assert_eq!(answer.cache_status(), "hit; ttl=60; detail=double");
    }
    other.method("PUT", "/a").await;
    assert_eq!(one.get("/a").await.text(), "3", "the write was the second");

    for operation in Operation::ALL {
        second.break_down(operation, Fault::Fails(ErrorKind::Unavailable));
    }
    for _ in 0..2 {
        let away = one.get("/a").await;
        assert_eq!(away.cache_status(), "fwd=miss; detail=store-unavailable");
    }
}
