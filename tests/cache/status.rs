//! `Cache-Status`, and the counters: one word for each reason.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body::Frame;
use http_body_util::Full;
use tower_response_cache::{Policy, Rule, Rules, Target};

use crate::support::{Cache, Origin, everywhere, request, response, status, stream, ttl};

const MODIFIED: (&str, &str) = ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT");

#[tokio::test]
async fn an_answer_says_how_it_came_about() {
    let origin = Origin::new(|call| match call.header("if-none-match") {
        "" => response(&[("etag", "\"v\""), ("vary", "x-v")], "body"),
        _ => status(304, &[("etag", "\"v\"")], ""),
    });
    let rule = ttl(10)
        .stale_if_error(Duration::from_secs(1000))
        .policy(Policy::guarded().obey_client(true));
    let cache = Cache::new(&origin, everywhere(rule));
    assert_eq!(cache.get("/a").await.cache_status(), "fwd=uri-miss; stored");
    assert_eq!(cache.get("/a").await.cache_status(), "hit; ttl=10");
    cache.advance(4);
    assert_eq!(cache.get("/a").await.cache_status(), "hit; ttl=6");
    let unmodified = cache.get_with("/a", &[("if-none-match", "\"v\"")]).await;
    assert_eq!(unmodified.cache_status(), "hit; ttl=6");
    let variant = cache.get_with("/a", &[("x-v", "2")]).await;
    assert_eq!(
        variant.cache_status(),
        "fwd=vary-miss; fwd-status=304; ttl=10"
    );
    let reload = cache.get_with("/a", &[("cache-control", "no-cache")]).await;
    assert_eq!(reload.cache_status(), "fwd=request; fwd-status=304; ttl=10");
    cache.advance(13);
    assert_eq!(
        cache.get("/a").await.cache_status(),
        "fwd=stale; fwd-status=304; ttl=10"
    );
    cache.advance(11);
    origin.answer(|_| status(503, &[], ""));
    let stale = "fwd=stale; fwd-status=503; ttl=-1; detail=stale-if-error";
    assert_eq!(cache.get("/a").await.cache_status(), stale);
    origin.fail();
    let unreachable = "fwd=stale; ttl=-1; detail=stale-if-error";
    assert_eq!(cache.get("/a").await.cache_status(), unreachable);
    origin.answer(|_| response(&[("etag", "\"w\"")], "new"));
    assert_eq!(cache.get("/a").await.cache_status(), "fwd=stale; stored");
    let _ = cache.handle().invalidate(Target::uri("/a")).await.unwrap();
    assert_eq!(
        cache.get("/a").await.cache_status(),
        "fwd=miss; stored; detail=invalidated"
    );
    assert_eq!(
        cache.method("POST", "/a").await.cache_status(),
        "fwd=method"
    );
    assert_eq!(
        cache.method("OPTIONS", "/a").await.cache_status(),
        "fwd=method"
    );
}

#[tokio::test]
async fn the_key_and_the_detail_are_told_as_the_layer_says() {
    let origin = Origin::counting(&[("vary", "x")]);
    let told = |key, detail| {
        Cache::new(&origin, everywhere(ttl(10)))
            .with(|layer| layer.cache_status_key(key).cache_status_detail(detail))
    };
    let cache = told(true, true);
    let miss = cache.get("/a").await;
    let (others, key) = miss.cache_status().split_once("; key=").unwrap();
    assert_eq!(others, "fwd=uri-miss; stored");
    let digits = key.trim_matches('"');
    assert!(digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
    let variant = cache.get_with("/a", &[("x", "2")]).await;
    assert!(
        variant.cache_status().ends_with(key),
        "one for all variants"
    );
    let hit = cache.get("/a").await;
    assert_eq!(hit.cache_status(), format!("hit; ttl=10; key={key}"));
    assert!(!cache.get("/b").await.cache_status().contains(key));
    let write = cache.method("POST", "/a").await;
    assert_eq!(write.cache_status(), "fwd=method");

    for (detail, expected) in [(true, "fwd=bypass; detail=upgrade"), (false, "fwd=bypass")] {
        let answer = told(false, detail)
            .get_with("/a", &[("upgrade", "h2c")])
            .await;
        assert_eq!(answer.cache_status(), expected);
    }
}

#[tokio::test]
async fn a_stale_answer_says_so() {
    let origin = Origin::counting(&[("cache-control", "max-age=10, stale-while-revalidate=20")]);
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    cache.get("/a").await;
    cache.advance(15);
    let stale = cache.get("/a").await;
    assert_eq!(
        stale.cache_status(),
        "hit; ttl=-5; detail=stale-while-revalidate"
    );
}

#[tokio::test]
async fn a_refusal_says_its_reason() {
    let rule = || ttl(60).max_body(1000).max_fields(2000);
    let long: &str = Box::leak("x".repeat(3000).into_boxed_str());
    let tag: &str = Box::leak("t".repeat(129).into_boxed_str());
    #[rustfmt::skip]
    let cases: &[(&[(&str, &str)], u16, &[(&'static str, &'static str)], &str)] = &[
        (&[], 200, &[("cache-control", "no-store")], "no-store"),
        (&[], 200, &[("cache-control", "max-age=60, No-Store")], "no-store"),
        (&[], 200, &[("cache-control", "max-age=60"), ("cache-control", "a=\"b, c\", NO-STORE")], "no-store"),
        (&[], 200, &[("cache-control", "no-store ")], "no-store"),
        (&[], 200, &[("cache-control", "no-store = x")], "no-store"),
        (&[], 200, &[("cache-control", "private")], "private"),
        (&[], 200, &[("cache-control", "public, PRIVATE, max-age=9")], "private"),
        (&[], 200, &[("cache-control", "private=set-cookie")], "private"),
        (&[], 200, &[("cdn-cache-control", "private")], "private"),
        (&[], 200, &[("set-cookie", "a=1")], "set-cookie"),
        (&[], 200, &[("set-cookie", "a=1"), ("cache-control", "public, max-age=60")], "set-cookie"),
        (&[], 200, &[("vary", "*")], "vary-any"),
        (&[], 200, &[("vary", "accept"), ("vary", "x, *")], "vary-any"),
        (&[("cookie", "a=1")], 200, &[], "cookie"),
        (&[("cookie", "a=1")], 200, &[("cache-control", "max-age=60")], "cookie"),
        (&[("cookie", "a=1")], 200, &[("cache-control", "public, max-age=60"), ("vary", "Cookie")], "vary-cookie"),
        (&[("authorization", "Basic YQ==")], 200, &[], "authorization"),
        (&[("authorization", "Basic YQ==")], 200, &[("cache-control", "max-age=60")], "authorization"),
        (&[], 200, &[("content-type", "text/event-stream")], "event-stream"),
        (&[], 200, &[("content-type", "Text/Event-Stream; charset=utf-8")], "event-stream"),
        (&[], 200, &[("content-length", "1001")], "body-too-large"),
        (&[], 200, &[("x-long", long)], "fields-too-large"),
        (&[], 200, &[("cache-tag", tag)], "tags"),
        (&[], 200, &[("cache-control", "must-understand, no-store, max-age=9, private")], "private"),
        (&[], 206, &[("content-range", "bytes 0-3/9"), ("cache-control", "max-age=9")], "partial"),
        (&[], 201, &[], "status"),
        (&[], 302, &[], "status"),
        (&[], 400, &[], "status"),
        (&[], 403, &[("cache-control", "max-age=60")], "status"),
        (&[], 404, &[], "status"),
        (&[], 410, &[("cache-control", "public, max-age=60")], "status"),
        (&[], 429, &[("cache-control", "max-age=60")], "status"),
        (&[], 500, &[], "status"),
        (&[], 503, &[("cache-control", "max-age=60")], "status"),
    ];
    for (asks, code, fields, reason) in cases {
        let (code, owned) = (*code, fields.to_vec());
        let origin = Origin::new(move |_| status(code, &owned, "body"));
        let cache = Cache::new(&origin, everywhere(rule().response_tags()));
        let expected = format!("fwd=uri-miss; detail={reason}");
        for _ in 0..2 {
            let answer = cache.get_with("/a", asks).await;
            assert_eq!(
                answer.cache_status(),
                expected,
                "{asks:?} {code} {fields:?}"
            );
            assert_eq!(answer.status, code);
            assert_eq!(answer.text(), "body");
            assert!(
                !answer.headers.contains_key("etag"),
                "untouched: {fields:?}"
            );
        }
        assert_eq!(origin.calls(), 2);
        let stats = cache.handle().stats();
        let route = stats.route("/{*path}").unwrap();
        assert_eq!(route.refusals.get(reason), Some(&2), "{:?}", route.refusals);
    }
}

#[tokio::test]
async fn without_a_lifetime_the_reason_is_that() {
    #[rustfmt::skip]
    let cases: [(&[(&str, &str)], u16, &str); 4] = [
        (&[], 200, "no-freshness"),
        (&[MODIFIED], 302, "no-freshness"),
        (&[("cache-control", "no-cache, max-age=60")], 200, "no-validator"),
        (&[("cache-control", "must-understand, max-age=60")], 299, "must-understand"),
    ];
    for (fields, code, reason) in cases {
        let owned = fields.to_vec();
        let origin = Origin::new(move |_| status(code, &owned, ""));
        let cache = Cache::new(
            &origin,
            everywhere(Rule::from_origin().policy(Policy::rfc9111())),
        );
        let expected = format!("fwd=uri-miss; detail={reason}");
        assert_eq!(
            cache.get("/a").await.cache_status(),
            expected,
            "{code} {fields:?}"
        );
    }
}

#[tokio::test]
async fn a_request_that_wants_nothing_stored_is_a_reason() {
    let origin = Origin::counting(&[]);
    let cache = Cache::new(&origin, everywhere(ttl(60).policy(Policy::rfc9111())));
    let answer = cache.get_with("/a", &[("cache-control", "no-store")]).await;
    assert_eq!(
        answer.cache_status(),
        "fwd=uri-miss; detail=request-no-store"
    );
}

#[tokio::test]
async fn a_bypass_says_its_reason() {
    let rules = Rules::builder()
        .route("/a", ttl(60))
        .route("/off", Rule::bypass());
    let origin = Origin::counting(&[]);
    let cache = Cache::new(&origin, rules);
    cache.get("/a").await;
    let long = format!("/a?{}", "x".repeat(65_520));
    #[rustfmt::skip]
    let cases: &[(&str, &[(&str, &str)], &str)] = &[
        ("/off", &[], "rule"),
        ("/a", &[("upgrade", "websocket"), ("connection", "upgrade")], "upgrade"),
        ("/a", &[("accept", "text/event-stream")], "event-stream"),
        ("/a", &[("accept", "text/html, Text/Event-Stream;q=0.5")], "event-stream"),
        ("/a", &[("content-length", "4")], "request-content"),
        ("/a", &[("transfer-encoding", "chunked")], "request-content"),
        ("/a", &[("x-forwarded-host", "evil.example")], "routing-field"),
        ("/a", &[("x-original-url", "/admin")], "routing-field"),
        ("/a", &[("x-rewrite-url", "/admin")], "routing-field"),
        ("/a", &[("x-http-method-override", "DELETE")], "routing-field"),
        ("/a", &[("x-forwarded-proto", "http")], "routing-field"),
        ("/a", &[("x-forwarded-prefix", "/x")], "routing-field"),
        ("/a", &[("forwarded", "host=evil.example")], "routing-field"),
        ("/a", &[("if-match", "\"x\"")], "precondition"),
        ("/a", &[("if-unmodified-since", "Sun, 06 Nov 1994 08:49:37 GMT")], "precondition"),
        ("http://a.example/a", &[("host", "b.example")], "conflicting-host"),
        ("/a", &[("host", "a b")], "invalid-host"),
        (&long, &[], "key-too-long"),
    ];
    for (n, (uri, fields, reason)) in cases.iter().enumerate() {
        let answer = cache.get_with(uri, fields).await;
        let expected = format!("fwd=bypass; detail={reason}");
        assert_eq!(answer.cache_status(), expected, "{fields:?}");
        assert_eq!(answer.text(), (n + 2).to_string(), "asked the handler");
        for name in ["etag", "cache-control", "date", "age"] {
            assert!(!answer.headers.contains_key(name), "untouched: {name}");
        }
    }
    assert_eq!(
        cache.handle().stats().bypasses(),
        u64::try_from(cases.len()).unwrap()
    );
}

#[tokio::test]
async fn content_of_a_get_over_http_2_needs_no_field_to_be_seen() {
    let origin = Origin::counting(&[]);
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    let ask = |body: &'static str| {
        let request = Request::builder().uri("/a").version(http::Version::HTTP_2);
        cache.fetch(request.body(Full::new(Bytes::from(body))).unwrap())
    };
    assert_eq!(
        ask("query").await.cache_status(),
        "fwd=bypass; detail=request-content"
    );
    assert_eq!(ask("").await.cache_status(), "fwd=uri-miss; stored");
}

#[tokio::test]
async fn a_routing_field_is_harmless_where_it_is_part_of_the_key_or_trusted() {
    let key = ttl(60).key_field("x-forwarded-host".parse().unwrap());
    for (rule, shared) in [(key, false), (ttl(60).trusted_proxy(), true)] {
        let origin = Origin::counting(&[]);
        let cache = Cache::new(&origin, everywhere(rule));
        let ask = |host| async move { [("x-forwarded-host", host)] };
        let first = cache.get_with("/a", &ask("a.example").await).await;
        assert_eq!(first.cache_status(), "fwd=uri-miss; stored");
        let again = cache.get_with("/a", &ask("a.example").await).await;
        assert_eq!(again.cache_status(), "hit; ttl=60");
        let other = cache.get_with("/a", &ask("b.example").await).await;
        assert_eq!(other.text() == "1", shared);
    }
}

#[tokio::test]
async fn only_if_cached_is_answered_here_and_unsigned() {
    let origin = Origin::counting(&[]);
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    let asks = [("cache-control", "only-if-cached")];
    let missing = cache.get_with("/a", &asks).await;
    assert_eq!((missing.status.as_u16(), origin.calls()), (504, 0), "RQ4");
    assert!(!missing.headers.contains_key("cache-status"));
    cache.get("/a").await;
    assert_eq!(
        cache.get_with("/a", &asks).await.cache_status(),
        "hit; ttl=60"
    );
}

#[tokio::test]
async fn the_cache_can_be_named_or_say_nothing() {
    let origin = Origin::counting(&[]);
    let named = |name: &'static str| {
        Cache::new(&origin, everywhere(ttl(60))).with(|layer| layer.cache_status(name))
    };
    let status = async |cache: &Cache| cache.get("/a").await.header("cache-status").to_owned();
    assert_eq!(status(&named("edge")).await, "edge; fwd=uri-miss; stored");
    assert_eq!(
        status(&named("my edge")).await,
        "\"my edge\"; fwd=uri-miss; stored"
    );
    let silent =
        Cache::new(&origin, everywhere(ttl(60))).with(|layer| layer.without_cache_status());
    for request in [Method::GET, Method::GET, Method::POST, Method::OPTIONS] {
        let answer = silent.fetch(self::request(request, "/a", &[])).await;
        assert!(!answer.headers.contains_key("cache-status"));
    }
}

#[tokio::test]
async fn what_caches_upstream_said_is_kept_before_our_own_word() {
    let origin = Origin::counting(&[("cache-status", "origin-cache; hit; ttl=3")]);
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    for own in ["fwd=uri-miss; stored", "hit; ttl=60", "hit; ttl=60"] {
        let answer = cache.get("/a").await;
        let lines: Vec<_> = answer.headers.get_all("cache-status").iter().collect();
        let own = format!("tower-response-cache; {own}");
        assert_eq!(lines, ["origin-cache; hit; ttl=3", own.as_str()]);
    }
}

#[tokio::test]
async fn a_hit_signs_once_whatever_the_response_took_out_of_itself() {
    for fields in [
        [("connection", "age"), ("x-b", "1"), ("x-b", "2")],
        [
            ("cache-control", "private=\"age\""),
            ("x-b", "1"),
            ("x-b", "2"),
        ],
        [
            ("connection", "cache-status"),
            ("cache-status", "x; hit"),
            ("x-b", "1"),
        ],
    ] {
        let origin = Origin::counting(&fields);
        let cache = Cache::new(&origin, everywhere(ttl(60)));
        cache.get("/a").await;
        let answer = cache.get("/a").await;
        let lines: Vec<_> = answer.headers.get_all("cache-status").iter().collect();
        assert_eq!(lines, ["tower-response-cache; hit; ttl=60"], "{fields:?}");
    }
}

#[tokio::test]
async fn a_body_over_the_cap_is_not_said_to_be_stored_if_its_length_is_known() {
    let origin = Origin::new(|_| response(&[], "x".repeat(101)));
    let cache = Cache::new(&origin, everywhere(ttl(60).max_body(100)));
    let answer = cache.get("/a").await;
    assert_eq!(answer.cache_status(), "fwd=uri-miss; detail=body-too-large");
    assert!(!answer.headers.contains_key("etag"));
}

#[tokio::test]
async fn the_counters_match_what_was_done() {
    let origin = Origin::new(|call| match call.path() {
        "/stream" => {
            let frames = ["x"; 9].map(|data| Ok(Frame::data(data.into())));
            response(&[], "").map(|_| stream(frames))
        }
        _ => response(&[], "12345"),
    });
    let rules = Rules::builder()
        .route("/a", ttl(60))
        .route("/stream", ttl(60).max_body(8))
        .route(
            "/swr",
            ttl(1).stale_while_revalidate(Duration::from_secs(60)),
        );
    let cache = Cache::new(&origin, rules);
    for uri in ["/a", "/a", "/a", "/a?x", "/stream", "/nowhere", "/swr"] {
        cache.get(uri).await;
    }
    cache.get_with("/a", &[("upgrade", "websocket")]).await;
    cache.method("PUT", "/a").await;
    cache.get("/a").await;
    cache.advance(2);
    cache.get("/swr").await;
    let stats = cache.handle().stats();
    let a = stats.route("/a").unwrap();
    assert_eq!((a.hits, a.stale_hits, a.stored), (2, 0, 3));
    assert_eq!(a.misses, [("absent", 2), ("invalidated", 1)].into());
    assert_eq!(a.bypasses, [("upgrade", 1)].into());
    // One hit in 16 is timed, the first being one.
    assert_eq!((a.hit_time.count(), a.miss_time.count()), (1, 3));
    assert!(a.refusals.is_empty());
    let streamed = stats.route("/stream").unwrap();
    assert_eq!(streamed.refusals, [("body-too-large", 1)].into());
    assert_eq!(streamed.stored, 0);
    let unruled = stats.route("(no rule)").unwrap();
    assert_eq!(unruled.refusals, [("no-freshness", 1)].into());
    assert_eq!(stats.route("/swr").unwrap().stale_hits, 1);
    assert_eq!(stats.store.tier, "memory");
    assert_eq!(stats.store.bytes_stored, 4 * 5);
    assert_eq!(stats.store.bytes_served, 3 * 5);
    assert_eq!(stats.store.invalidations, 1);
    assert_eq!(stats.store.responses, 3);
    assert_eq!((stats.store.errors, stats.store.damaged), (0, 0));
}
