//! Queries that mean the same to a response (`No-Vary-Search`).

use tower_response_cache::{CacheLayer, Policy, Rules, Target};

use crate::support::{Cache, Call, Double, Origin, everywhere, response, settle, ttl};

const FRESH: (&str, &str) = ("cache-control", "max-age=60");

/// A resource whose responses are for all queries that this rule makes the same.
fn saying(rule: &'static str) -> Origin {
    Origin::counting(&[FRESH, ("no-vary-search", rule)])
}

#[tokio::test]
async fn a_response_serves_the_queries_that_it_calls_the_same_and_no_others() {
    for (rule, first, same, others) in [
        (
            "params=(\"utm\")",
            "/a?id=1&utm=x",
            vec![
                "/a?id=1&utm=y",
                "/a?utm=z&id=1",
                "/a?id=1",
                "/a?%75tm&id=%31",
            ],
            vec!["/a?id=2&utm=x", "/a", "/b?id=1&utm=x", "/a?UTM=x&id=1"],
        ),
        (
            "params, except=(\"id\")",
            "/a?id=1",
            vec!["/a?id=1&anything=else", "/a?x&id=1"],
            vec!["/a?id=2", "/a"],
        ),
        (
            "key-order",
            "/a?x=1&y=2&x=3",
            vec!["/a?y=2&x=1&x=3"],
            vec!["/a?x=3&y=2&x=1", "/a?x=1&y=2"],
        ),
        ("params", "/a?x", vec!["/a", "/a?", "/a?y=1"], vec!["/a/"]),
        (
            "params=?0",
            "/a?x=1",
            vec!["/a?x=1"],
            vec!["/a?x=%31", "/a?x=1&"],
        ),
        (
            "except=(\"id\")",
            "/a?id=1",
            vec!["/a?id=1"],
            vec!["/a?id=1&x"],
        ),
    ] {
        let cache = Cache::new(&saying(rule), Rules::builder());
        cache.get(first).await;
        for uri in same {
            let answer = cache.get(uri).await;
            assert_eq!(
                answer.cache_status(),
                "hit; ttl=60",
                "{rule}: {first} {uri}"
            );
            assert_eq!(answer.text(), "1", "{rule}: {first} {uri}");
        }
        for uri in others {
            let status = cache.get(uri).await.cache_status().to_owned();
            assert!(
                status.starts_with("fwd=uri-miss"),
                "{rule}: {first} {uri}: {status}"
            );
        }
    }
}

#[tokio::test]
async fn responses_without_the_field_are_found_beside_those_with_it() {
    let origin = Origin::new(|call: &Call| {
        let rule = ("no-vary-search", "params");
        let known = !call.head.uri.query().unwrap_or_default().contains("bad");
        let fields = if known {
            vec![FRESH, rule]
        } else {
            vec![FRESH]
        };
        response(&fields, call.number.to_string())
    });
    let cache = Cache::new(&origin, Rules::builder());
    for (uri, number) in [
        ("/a?x", "1"),
        ("/a?y", "1"),
        // Nobody can know that it is bad before it has been asked for.
        ("/a?bad", "1"),
        ("/b?bad", "2"),
        ("/b?x", "3"),
        ("/b?bad", "3"),
    ] {
        assert_eq!(cache.get(uri).await.text(), number, "{uri}");
    }
    assert_eq!(cache.get("/a?z").await.text(), "1");
}

#[tokio::test]
async fn a_resource_that_says_something_else_by_now_is_heard() {
    let cache = Cache::new(&saying("params=(\"a\")"), Rules::builder());
    cache.get("/?a=1&b=1").await;
    cache.advance(60);
    cache.origin.answer(|call| {
        response(
            &[FRESH, ("no-vary-search", "params=(\"b\")")],
            call.number.to_string(),
        )
    });
    assert_eq!(cache.get("/?a=2&b=1").await.text(), "2");
    assert_eq!(
        cache.get("/?a=2&b=2").await.text(),
        "2",
        "b is of no matter now"
    );
    assert_eq!(cache.get("/?a=1&b=1").await.text(), "3", "and a is");

    cache.advance(60);
    cache
        .origin
        .answer(|call| response(&[FRESH], call.number.to_string()));
    assert_eq!(cache.get("/?a=2&b=2").await.text(), "4");
    assert_eq!(
        cache.get("/?a=2&b=2").await.text(),
        "4",
        "under the query as it stands"
    );
    assert_eq!(cache.get("/?a=2&b=3").await.text(), "5");
}

#[tokio::test]
async fn a_304_can_change_what_is_the_same() {
    let cache = Cache::new(
        &Origin::counting(&[
            FRESH,
            ("etag", "\"a\""),
            ("no-vary-search", "params=(\"a\")"),
        ]),
        Rules::builder().policy(Policy::rfc9111()),
    );
    cache.get("/?a=1").await;
    cache.advance(60);
    cache.origin.answer(|_| {
        crate::support::status(
            304,
            &[FRESH, ("etag", "\"a\""), ("no-vary-search", "params")],
            "",
        )
    });
    assert_eq!(cache.get("/?a=2").await.text(), "1");
    assert_eq!(cache.get("/?b").await.cache_status(), "hit; ttl=60");
}

#[tokio::test]
async fn invalidation_vary_and_heads_work_as_ever() {
    let fields = [FRESH, ("no-vary-search", "params"), ("vary", "accept")];
    let cache = Cache::new(&Origin::counting(&fields), Rules::builder());
    cache.get_with("/a?x", &[("accept", "a")]).await;
    cache.get_with("/a?y", &[("accept", "b")]).await;
    assert_eq!(cache.get_with("/a?z", &[("accept", "a")]).await.text(), "1");
    assert_eq!(cache.get_with("/a?z", &[("accept", "b")]).await.text(), "2");
    assert_eq!(cache.get_with("/a?z", &[("accept", "c")]).await.text(), "3");
    cache.method("PUT", "/a?w").await;
    assert_eq!(cache.get_with("/a?z", &[("accept", "a")]).await.text(), "5");
    let _ = cache.handle().invalidate(Target::uri("/a")).await.unwrap();
    let answer = cache.get_with("/a?y", &[("accept", "a")]).await;
    assert_eq!(
        answer.cache_status(),
        "fwd=miss; stored; detail=invalidated"
    );
    assert_eq!(
        cache.method("HEAD", "/a?x").await.cache_status(),
        "fwd=vary-miss; detail=method"
    );
}

#[tokio::test]
async fn the_parameters_that_a_rule_chooses_are_its_own_affair() {
    let rules = everywhere(ttl(60).ignore_query(["ref"]));
    let cache = Cache::new(&saying("params"), rules);
    cache.get("/a?x=1&ref=1").await;
    assert_eq!(cache.get("/a?x=1&ref=2").await.text(), "1");
    assert_eq!(cache.get("/a?x=2").await.text(), "2");
}

#[tokio::test]
async fn a_store_that_waits_finds_them_too() {
    let cache = Cache::over(
        CacheLayer::new(Double::new()),
        &saying("params"),
        Rules::builder(),
    );
    cache.get("/a?x").await;
    settle().await;
    assert_eq!(cache.get("/a?y").await.cache_status(), "hit; ttl=60");
}
