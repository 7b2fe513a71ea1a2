//! What is kept for how long, and what clients are told of it.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tower::ServiceExt;
use tower_response_cache::{
    CacheFor, CacheLayer, MemoryStore, NoStore, Policy, Rule, Rules, Tags, Target,
};

use crate::support::{
    Cache, Origin, everywhere, get, request, response, settle, status, stream, ttl,
};

#[tokio::test]
async fn a_response_is_stored_for_the_ttl_of_its_route() {
    let origin = Origin::counting(&[]);
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    assert_eq!(cache.get("/a").await.text(), "1");
    assert_eq!(cache.get("/a").await.text(), "1");
    cache.advance(59);
    assert_eq!(cache.get("/a").await.text(), "1");
    cache.advance(1);
    assert_eq!(cache.get("/a").await.text(), "2");
    assert_eq!(origin.calls(), 2);
}

#[tokio::test]
async fn the_most_specific_route_counts_whatever_the_order() {
    let origin = Origin::counting(&[]);
    let rules = Rules::builder()
        .route("/{*rest}", ttl(1000))
        .route("/p/{id}", ttl(100))
        .route("/p/top", ttl(10))
        .route("/p/live", Rule::bypass());
    let cache = Cache::new(&origin, rules);
    let mut left = Vec::new();
    for path in ["/p/top", "/p/7", "/q", "/p/live"] {
        cache.get(path).await;
        left.push(cache.get(path).await.cache_status().to_owned());
    }
    assert_eq!(
        left,
        [
            "hit; ttl=10",
            "hit; ttl=100",
            "hit; ttl=1000",
            "fwd=bypass; detail=rule"
        ]
    );
}

#[tokio::test]
async fn without_rule_and_lifetime_nothing_is_stored() {
    let origin = Origin::counting(&[]);
    let cache = Cache::new(&origin, Rules::builder());
    cache.get("/a").await;
    assert_eq!(cache.get("/a").await.text(), "2");
}

#[tokio::test]
async fn the_default_ttl_is_for_requests_without_a_rule() {
    let origin = Origin::counting(&[]);
    let rules = Rules::builder().route("/own", Rule::from_origin());
    let cache =
        Cache::new(&origin, rules).with(|layer| layer.default_ttl(Some(Duration::from_secs(5))));
    cache.get("/other").await;
    assert_eq!(cache.get("/other").await.cache_status(), "hit; ttl=5");
    cache.get("/own").await;
    assert_eq!(
        cache.get("/own").await.cache_status(),
        "fwd=uri-miss; detail=no-freshness"
    );
}

#[tokio::test]
async fn the_responses_own_lifetime_wins_over_the_rules() {
    let origin = Origin::counting(&[("cache-control", "max-age=10")]);
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    cache.get("/a").await;
    assert_eq!(cache.get("/a").await.cache_status(), "hit; ttl=10");
}

#[tokio::test]
async fn a_rule_that_overrides_the_origin_wins_but_not_over_a_refusal() {
    let origin = Origin::counting(&[("cache-control", "max-age=10")]);
    let cache = Cache::new(&origin, everywhere(ttl(60).override_origin()));
    cache.get("/a").await;
    assert_eq!(cache.get("/a").await.cache_status(), "hit; ttl=60");
    for refusal in [
        "no-store",
        "private",
        "max-age=10, no-store",
        "private, max-age=10",
    ] {
        let origin = Origin::new(move |_| response(&[("cache-control", refusal)], ""));
        let cache = Cache::new(&origin, everywhere(ttl(60).override_origin()));
        cache.get("/a").await;
        cache.get("/a").await;
        assert_eq!(origin.calls(), 2, "{refusal}");
    }
}

#[tokio::test]
async fn a_targeted_field_is_heard_before_cache_control_and_rule() {
    let fields = [
        ("cdn-cache-control", "max-age=7"),
        ("cache-control", "no-store"),
    ];
    let origin = Origin::counting(&fields);
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    cache.get("/a").await;
    let hit = cache.get("/a").await;
    assert_eq!(hit.cache_status(), "hit; ttl=7");
    assert_eq!(hit.header("cdn-cache-control"), "max-age=7");
    assert_eq!(hit.header("cache-control"), "no-store");
}

#[tokio::test]
async fn handlers_speak_through_extensions() {
    let origin = Origin::new(|call| {
        let mut response = response(&[], call.number.to_string());
        let extensions = response.extensions_mut();
        match call.path() {
            "/for" => drop(extensions.insert(CacheFor(Duration::from_secs(9)))),
            "/no" => drop(extensions.insert(NoStore)),
            _ => drop(extensions.insert(Tags::new(["t"]))),
        }
        response
    });
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    for path in ["/for", "/no", "/tags"] {
        cache.get(path).await;
    }
    assert_eq!(cache.get("/for").await.cache_status(), "hit; ttl=9");
    assert_eq!(
        cache.get("/no").await.cache_status(),
        "fwd=uri-miss; detail=handler"
    );
    assert_eq!(cache.get("/tags").await.cache_status(), "hit; ttl=60");
    let _ = cache.handle().invalidate(Target::tag("t")).await.unwrap();
    assert_eq!(
        cache.get("/tags").await.cache_status(),
        "fwd=miss; stored; detail=invalidated"
    );
}

#[tokio::test]
async fn a_handler_can_give_a_lifetime_without_any_rule() {
    let origin = Origin::new(|call| {
        let mut response = response(&[], call.number.to_string());
        response
            .extensions_mut()
            .insert(CacheFor(Duration::from_secs(9)));
        response
    });
    let cache = Cache::new(&origin, Rules::builder());
    cache.get("/a").await;
    assert_eq!(cache.get("/a").await.cache_status(), "hit; ttl=9");
}

#[tokio::test]
async fn extensions_for_the_cache_never_leave_it() {
    let origin = Origin::new(|call| {
        let fields: &[_] = match call.header("x-case") {
            "refused" => &[("cache-control", "no-store")],
            _ => &[],
        };
        let code = if call.header("x-case") == "error" {
            500
        } else {
            200
        };
        let mut response = status(code, fields, "");
        response
            .extensions_mut()
            .insert(CacheFor(Duration::from_secs(9)));
        response.extensions_mut().insert(Tags::new(["t"]));
        response.extensions_mut().insert(NoStore);
        response.extensions_mut().insert("the application's own");
        response
    });
    let rules = Rules::builder()
        .route("/a", ttl(60))
        .route("/bypass", Rule::bypass());
    let cache = Cache::new(&origin, rules);
    let off = Cache::new(&origin, Rules::builder()).with(|layer| layer.enabled(false));
    #[rustfmt::skip]
    let cases = [
        (&cache, Method::GET, "/a", ("x-case", "")),
        (&cache, Method::GET, "/a", ("x-case", "refused")),
        (&cache, Method::GET, "/a", ("x-case", "error")),
        (&cache, Method::HEAD, "/a", ("x-case", "")),
        (&cache, Method::POST, "/a", ("x-case", "")),
        (&cache, Method::POST, "/a", ("x-case", "error")),
        (&cache, Method::OPTIONS, "/a", ("x-case", "")),
        (&cache, Method::GET, "/bypass", ("x-case", "")),
        (&cache, Method::GET, "/no-rule", ("x-case", "")),
        (&cache, Method::GET, "/a", ("upgrade", "websocket")),
        (&cache, Method::GET, "/a", ("if-match", "\"x\"")),
        (&off, Method::GET, "/a", ("x-case", "")),
    ];
    for (cache, method, path, field) in cases {
        let answer = cache
            .send(request(method.clone(), path, &[field]))
            .await
            .unwrap();
        let left = answer.extensions();
        let what = format!("{method} {path} {field:?}");
        assert!(left.get::<CacheFor>().is_none(), "{what}");
        assert!(left.get::<Tags>().is_none(), "{what}");
        assert!(left.get::<NoStore>().is_none(), "{what}");
        assert_eq!(left.get::<&str>(), Some(&"the application's own"), "{what}");
    }
}

#[tokio::test]
async fn clients_of_a_response_cached_by_rule_are_told_to_ask_and_what_with() {
    let origin = Origin::counting(&[]);
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    let miss = cache.get("/a").await;
    assert_eq!(miss.header("cache-control"), "no-cache");
    assert!(miss.header("etag").starts_with('"'), "{miss:?}");
    let hit = cache.get("/a").await;
    assert_eq!(hit.header("cache-control"), "no-cache");
    assert_eq!(hit.header("etag"), miss.header("etag"));
    let other = cache.get("/b").await;
    assert_ne!(
        other.header("etag"),
        miss.header("etag"),
        "other bytes have another tag"
    );
}

#[tokio::test]
async fn a_rule_can_let_clients_keep_a_response_for_a_while() {
    let origin = Origin::counting(&[]);
    let rule = ttl(60).client_max_age(Duration::from_secs(5));
    let cache = Cache::new(&origin, everywhere(rule));
    for answer in [cache.get("/a").await, cache.get("/a").await] {
        assert_eq!(answer.header("cache-control"), "max-age=5");
        assert!(!answer.header("etag").is_empty());
    }
}

#[tokio::test]
async fn a_rule_can_leave_what_clients_are_told_untouched() {
    let origin = Origin::counting(&[]);
    let cache = Cache::new(&origin, everywhere(ttl(60).client_untouched()));
    for answer in [cache.get("/a").await, cache.get("/a").await] {
        assert!(!answer.headers.contains_key("cache-control"));
        assert!(!answer.headers.contains_key("etag"));
    }
    assert_eq!(origin.calls(), 1);
}

#[tokio::test]
async fn the_handlers_own_validators_and_cache_control_are_never_changed() {
    let cases: [&[(&str, &str)]; 6] = [
        &[("etag", "\"mine\"")],
        &[("etag", "W/\"weak\"")],
        &[("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")],
        &[("cache-control", "max-age=5, public"), ("etag", "\"mine\"")],
        &[("cache-control", "public")],
        &[("expires", "Sun, 06 Nov 2095 08:49:37 GMT")],
    ];
    for fields in cases {
        let own = fields.to_vec();
        let origin = Origin::new(move |_| response(&own, "body"));
        let cache = Cache::new(&origin, everywhere(ttl(60)));
        for answer in [cache.get("/a").await, cache.get("/a").await] {
            for (name, value) in fields {
                let lines: Vec<_> = answer.headers.get_all(*name).iter().collect();
                assert_eq!(lines, [value], "{name} of {fields:?}");
            }
        }
        assert_eq!(origin.calls(), 1, "{fields:?}");
    }
}

#[tokio::test]
async fn a_streamed_body_has_its_etag_from_the_first_hit_on() {
    use http_body::Frame;
    let origin = Origin::new(|_| {
        let frames = ["one ", "two"].map(|data| Ok(Frame::data(data.into())));
        response(&[], "").map(|_| stream(frames))
    });
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    let miss = cache.get("/a").await;
    assert!(!miss.headers.contains_key("etag"));
    let (first, second) = (cache.get("/a").await, cache.get("/a").await);
    assert_eq!(first.text(), "one two");
    assert!(first.header("etag").starts_with('"'));
    assert_eq!(first.header("etag"), second.header("etag"));
}

#[tokio::test]
async fn a_body_too_long_to_hash_ahead_has_its_etag_from_the_first_hit_on() {
    let origin = Origin::counting(&[]);
    let cache = Cache::new(&origin, everywhere(ttl(60))).with(|layer| layer.hash_ahead(0));
    assert!(!cache.get("/a").await.headers.contains_key("etag"));
    assert!(cache.get("/a").await.headers.contains_key("etag"));
    assert_eq!(origin.calls(), 1);
}

#[tokio::test]
async fn date_and_age_agree_on_every_answer() {
    let origin = Origin::counting(&[]);
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    let miss = cache.get("/a").await;
    assert!(!miss.headers.contains_key("age"), "OT5");
    cache.advance(42);
    let hit = cache.get("/a").await;
    assert_eq!(hit.header("age"), "42");
    assert_eq!(hit.header("date"), miss.header("date"), "OT2");
}

#[tokio::test]
async fn the_origins_date_and_age_count() {
    let origin = Origin::counting(&[("age", "10"), ("date", "Sun, 06 Nov 1994 08:49:37 GMT")]);
    let policy = Policy::guarded().apparent_age(false);
    let cache = Cache::new(&origin, everywhere(ttl(60).policy(policy)));
    let miss = cache.get("/a").await;
    assert_eq!(miss.header("age"), "10");
    cache.advance(49);
    let hit = cache.get("/a").await;
    assert_eq!(hit.header("age"), "59", "OT1");
    assert_eq!(hit.header("date"), "Sun, 06 Nov 1994 08:49:37 GMT");
    assert_eq!(hit.cache_status(), "hit; ttl=1");
    cache.advance(1);
    assert_eq!(cache.get("/a").await.text(), "2");
}

#[tokio::test]
async fn a_head_is_answered_from_a_stored_get_with_its_length() {
    let origin = Origin::new(|_| response(&[("x-own", "field")], "twelve bytes"));
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    let miss = cache.get("/a").await;
    let head = cache.method("HEAD", "/a").await;
    assert_eq!(origin.calls(), 1);
    assert_eq!(
        (head.status, head.header("content-length")),
        (StatusCode::OK, "12")
    );
    assert!(head.body.is_empty());
    for name in ["x-own", "etag", "date", "cache-control"] {
        assert_eq!(head.header(name), miss.header(name), "{name}");
    }
}

#[tokio::test]
async fn a_head_that_misses_goes_to_the_handler_as_head_and_stores_nothing() {
    let origin = Origin::counting(&[]);
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    let miss = cache.method("HEAD", "/a").await;
    assert_eq!(miss.cache_status(), "fwd=uri-miss; detail=method");
    assert_eq!(origin.last().head.method, Method::HEAD);
    assert_eq!(cache.get("/a").await.text(), "2");
}

#[tokio::test]
async fn what_the_client_has_is_not_sent_again() {
    let origin = Origin::new(|_| response(&[("x-own", "field"), ("vary", "accept")], "body"));
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    let first = cache.get("/a").await;
    let asks = [("if-none-match", first.header("etag"))];
    cache.advance(7);
    let hit = cache.get_with("/a", &asks).await;
    assert_eq!(hit.status, StatusCode::NOT_MODIFIED);
    assert!(hit.body.is_empty());
    assert_eq!(hit.cache_status(), "hit; ttl=53");
    for name in ["etag", "date", "cache-control", "vary"] {
        assert_eq!(hit.header(name), first.header(name), "ET1: {name}");
    }
    assert_eq!(hit.header("age"), "7");
    assert!(!hit.headers.contains_key("content-length"));
    let other = cache
        .get_with("/a", &[("if-none-match", "\"other\"")])
        .await;
    assert_eq!((other.status, other.text()), (StatusCode::OK, "body"));
    assert_eq!(origin.calls(), 1);
}

#[tokio::test]
async fn what_the_client_has_is_not_sent_again_on_a_miss_either() {
    let origin = Origin::new(|_| response(&[], "body"));
    let cache = Cache::new(&origin, everywhere(ttl(1)));
    let etag = cache.get("/a").await.header("etag").to_owned();
    cache.advance(1);
    let miss = cache.get_with("/a", &[("if-none-match", &etag)]).await;
    assert_eq!(origin.calls(), 2);
    assert_eq!(
        origin.last().header("if-none-match"),
        "",
        "a whole response is stored"
    );
    assert_eq!(miss.status, StatusCode::NOT_MODIFIED);
    assert!(miss.body.is_empty());
    assert!(!miss.headers.contains_key("age"), "OT5");
    assert_eq!(miss.header("etag"), etag);
    assert_eq!(cache.get("/a").await.text(), "body");
    assert_eq!(origin.calls(), 2);
}

#[tokio::test]
async fn a_modification_date_is_compared_as_a_time() {
    let modified = "Sun, 06 Nov 1994 08:49:37 GMT";
    let origin = Origin::new(move |_| response(&[("last-modified", modified)], "body"));
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    cache.get("/a").await;
    let cases = [
        (modified, 304),
        ("Sun, 06 Nov 1994 08:49:38 GMT", 304),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 304),
        ("Sun Nov  6 08:49:37 1994", 304),
        ("Sun, 06 Nov 1994 08:49:36 GMT", 200),
        ("yesterday", 200),
    ];
    for (since, expected) in cases {
        let answer = cache.get_with("/a", &[("if-modified-since", since)]).await;
        assert_eq!(answer.status, expected, "LM1: {since}");
    }
}

#[tokio::test]
async fn a_hit_repeats_every_field_of_the_miss() {
    let origin = Origin::new(|_| {
        let mut response = response(&[("x-twice", "a"), ("x-twice", "b"), ("x-empty", "")], "");
        let latin = http::HeaderValue::from_bytes(b"caf\xe9").unwrap();
        response.headers_mut().insert("x-latin", latin);
        response
    });
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    let mut miss = cache.get("/a").await.headers;
    let mut hit = cache.get("/a").await.headers;
    assert_eq!(hit.remove("age"), Some("0".parse().unwrap()));
    for fields in [&mut miss, &mut hit] {
        fields.remove("cache-status");
    }
    assert_eq!(hit, miss, "HD2");
    assert_eq!(hit.get_all("x-twice").iter().count(), 2);
}

#[tokio::test]
async fn fields_of_the_connection_are_not_stored() {
    let fields = [
        ("connection", "x-private, close"),
        ("x-private", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-authenticate", "Basic"),
        ("x-public", "2"),
    ];
    let origin = Origin::counting(&fields);
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    cache.get("/a").await;
    let hit = cache.get("/a").await;
    assert_eq!(hit.header("x-public"), "2");
    for name in [
        "connection",
        "x-private",
        "keep-alive",
        "proxy-authenticate",
    ] {
        assert!(!hit.headers.contains_key(name), "HD1, HD4: {name}");
    }
}

#[tokio::test]
async fn requests_with_different_keys_share_nothing() {
    let uris = [
        "/a", "/a/", "/a?", "/a?x", "/a?x=1", "/A", "/%61", "/a//", "/a/.", "//a", "/a;",
    ];
    let origin = Origin::counting(&[]);
    let cache = Cache::new(&origin, everywhere(ttl(60)).route("/", ttl(60)));
    for round in 0..2 {
        for (n, uri) in uris.iter().enumerate() {
            assert_eq!(
                cache.get(uri).await.text(),
                (n + 1).to_string(),
                "{uri} {round}"
            );
        }
    }
    for host in ["a.example", "b.example", "a.example:81"] {
        assert_ne!(
            cache.get_with("/a", &[("host", host)]).await.text(),
            "1",
            "{host}"
        );
    }
    assert_eq!(origin.calls(), uris.len() + 3);
}

#[tokio::test]
async fn the_rule_chooses_which_query_parameters_make_a_key() {
    let rules = Rules::builder()
        .route("/keep", ttl(60).keep_query(["page"]))
        .route("/ignore", ttl(60).ignore_query(["utm"]))
        .route("/none", ttl(60).without_query())
        .route("/sorted", ttl(60).sorted_query());
    let origin = Origin::counting(&[]);
    let cache = Cache::new(&origin, rules);
    let same = [
        ("/keep?page=1&x=2", "/keep?x=3&page=1"),
        ("/ignore?a=1&utm=2", "/ignore?a=1"),
        ("/none?a", "/none"),
        ("/sorted?a=1&b=2", "/sorted?b=2&a=1"),
    ];
    for (one, other) in same {
        assert_eq!(
            cache.get(one).await.body,
            cache.get(other).await.body,
            "{one} {other}"
        );
    }
    let different = [
        ("/keep?page=1", "/keep?page=2"),
        ("/ignore?a=1", "/ignore?a=2"),
        ("/sorted?a=1&a=2", "/sorted?a=2&a=1"),
    ];
    for (one, other) in different {
        assert_ne!(
            cache.get(one).await.body,
            cache.get(other).await.body,
            "{one} {other}"
        );
    }
}

#[tokio::test]
async fn a_policy_can_be_set_on_the_layer_and_on_a_rule() {
    let origin = Origin::counting(&[("set-cookie", "a=1"), ("cache-control", "max-age=60")]);
    let rules = everywhere(Rule::from_origin())
        .route("/guarded", Rule::from_origin().policy(Policy::guarded()));
    let cache = Cache::new(&origin, rules).with(|layer| layer.policy(Policy::rfc9111()));
    cache.get("/a").await;
    assert_eq!(cache.get("/a").await.header("set-cookie"), "a=1", "HD3");
    cache.get("/guarded").await;
    let answer = cache.get("/guarded").await;
    assert_eq!(answer.cache_status(), "fwd=uri-miss; detail=set-cookie");
}

#[tokio::test]
async fn rules_bring_their_policy_and_the_layer_may_replace_it() {
    let fields = [("set-cookie", "a=1"), ("cache-control", "max-age=60")];
    let stored = async |change: fn(CacheLayer) -> CacheLayer| {
        let origin = Origin::counting(&fields);
        let rules = Rules::builder().policy(Policy::rfc9111());
        let cache = Cache::new(&origin, rules).with(change);
        cache.get("/a").await;
        cache.get("/a").await.text() == "1"
    };
    assert!(stored(|layer| layer).await);
    assert!(!stored(|layer| layer.policy(Policy::guarded())).await);
    assert!(!stored(|layer| layer.policy(Policy::rfc9111()).rules(Rules::default())).await);
}

#[tokio::test]
async fn statuses_that_the_rule_names_are_stored() {
    let origin = Origin::new(|_| status(404, &[], "none"));
    let cache = Cache::new(
        &origin,
        everywhere(ttl(60).statuses([StatusCode::NOT_FOUND])),
    );
    for _ in 0..2 {
        let answer = cache.get("/a").await;
        assert_eq!((answer.status.as_u16(), answer.text()), (404, "none"));
    }
    assert_eq!(origin.calls(), 1);
    let etag = cache.get("/a").await.header("etag").to_owned();
    let answer = cache.get_with("/a", &[("if-none-match", &etag)]).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND, "an error has no 304");
}

#[tokio::test]
async fn a_policy_can_do_without_validation() {
    let origin = Origin::counting(&[("etag", "\"v\"")]);
    let policy = Policy::guarded().validate(false);
    let cache = Cache::new(&origin, everywhere(ttl(10).policy(policy)));
    cache.get("/a").await;
    cache.advance(11);
    assert_eq!(cache.handle().stats().store.responses, 0, "of no more use");
    assert_eq!(cache.get("/a").await.text(), "2");
    assert_eq!(origin.last().header("if-none-match"), "");
}

#[tokio::test]
async fn a_wall_clock_that_jumps_neither_revives_nor_kills() {
    let origin = Origin::counting(&[]);
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    cache.get("/a").await;
    let year = Duration::from_secs(365 * 24 * 3600);
    let now = SystemTime::now();
    for wall in [
        now + year,
        now - year,
        SystemTime::UNIX_EPOCH,
        SystemTime::UNIX_EPOCH - year,
    ] {
        cache.clock.set_wall(wall);
        assert_eq!(cache.get("/a").await.cache_status(), "hit; ttl=60");
        cache.get(&format!("/{}", origin.calls())).await;
    }
    cache.advance(60);
    assert!(cache.get("/a").await.cache_status().starts_with("fwd"));
}

#[tokio::test]
async fn a_response_with_very_many_fields_passes_as_it_is() {
    let repeated = |n: u32| ("x-many".to_owned(), n);
    let different = |n: u32| (format!("x-{n}"), n);
    let cases: [(fn(u32) -> (String, u32), u32, bool); 4] = [
        (repeated, 8000, true),
        (repeated, 10_000, false),
        (different, 8000, true),
        (different, 24_000, false),
    ];
    for (field, count, stored) in cases {
        let lines = move || {
            let line = |n| {
                let (name, value) = field(n);
                (HeaderName::try_from(name).expect("a name"), value.into())
            };
            HeaderMap::from_iter((0..count).map(line))
        };
        let origin = Origin::new(move |_| {
            let mut response = response(&[], "body");
            *response.headers_mut() = lines();
            response
        });
        let cache = Cache::new(&origin, everywhere(ttl(60)));
        let cache = cache.with(|layer| layer.max_fields(1 << 20));
        for _ in 0..2 {
            let answer = cache.get("/a").await;
            let is_there = |(name, value): (&HeaderName, &HeaderValue)| {
                answer
                    .headers
                    .get_all(name)
                    .iter()
                    .any(|found| found == value)
            };
            assert!(lines().iter().step_by(100).all(is_there), "{count}");
        }
        assert_eq!(origin.calls() == 1, stored, "{count}");
    }
}

#[tokio::test]
async fn a_response_has_64_tags_at_most() {
    for (count, stored) in [(63, true), (64, false)] {
        let origin = Origin::new(move |call| {
            let mut response = response(&[], call.number.to_string());
            let tags = Tags::new((0..count).map(|n| format!("tag {n}")));
            response.extensions_mut().insert(tags);
            response
        });
        let cache = Cache::new(&origin, everywhere(ttl(60).tag("one more")));
        cache.get("/a").await;
        assert_eq!(cache.get("/a").await.text() == "1", stored, "{count}");
    }
}

#[test]
fn one_cache_serves_several_runtimes() {
    let origin = Origin::counting(&[("cache-control", "max-age=10, stale-while-revalidate=60")]);
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    // Missed, stale and refreshed, and hit, each elsewhere.
    for (text, seconds) in [("1", 11), ("1", 0), ("2", 0)] {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        runtime.unwrap().block_on(async {
            assert_eq!(cache.get("/a").await.text(), text);
            settle().await;
        });
        cache.advance(seconds);
    }
    assert_eq!(origin.calls(), 2);
}

#[tokio::test]
async fn namespaces_share_a_store_and_nothing_else() {
    let origin = Origin::counting(&[]);
    let one = Cache::new(&origin, everywhere(ttl(60)));
    let other = one.layer.clone().namespace("other".parse().unwrap());
    one.get("/a").await;
    let answer = tower::Layer::layer(&other, origin.clone())
        .oneshot(get("/a"))
        .await
        .unwrap();
    assert!(
        answer.headers()["cache-status"]
            .to_str()
            .unwrap()
            .contains("fwd=uri-miss")
    );
    let _ = other
        .handle()
        .invalidate(Target::everything())
        .await
        .unwrap();
    assert_eq!(one.get("/a").await.text(), "1");
}

#[tokio::test]
async fn a_cache_that_is_switched_off_lets_all_pass() {
    let origin = Origin::counting(&[]);
    let cache = Cache::new(&origin, everywhere(ttl(60))).with(|layer| layer.enabled(false));
    cache.get("/a").await;
    let answer = cache.get("/a").await;
    assert_eq!(
        (answer.text(), answer.cache_status()),
        ("2", "fwd=bypass; detail=disabled")
    );
    assert!(!answer.headers.contains_key("etag"));
}

#[tokio::test]
async fn a_cache_that_is_switched_off_invalidates_what_others_have_stored() {
    let origin = Origin::counting(&[("cache-control", "max-age=60"), ("content-location", "/a")]);
    let layer = CacheLayer::new(MemoryStore::new(16 << 20));
    let storing = || Rules::builder().route("/{*path}", ttl(60).policy(Policy::rfc9111()));
    let on = Cache::over(layer.clone(), &origin, storing());
    let off = Cache::over(layer.enabled(false), &origin, storing());
    on.get("/a").await;
    settle().await;
    assert_eq!(off.get("/a").await.text(), "2", "it serves nothing");
    assert_eq!(on.get("/a").await.text(), "1");
    for (method, calls) in [("PUT", 4), ("DELETE", 6), ("POST", 8)] {
        let answer = off.method(method, "/a").await;
        assert_eq!(answer.cache_status(), "fwd=method");
        settle().await;
        let answer = on.get("/a").await;
        let invalidated = "fwd=miss; stored; detail=invalidated";
        assert_eq!(answer.cache_status(), invalidated, "{method}");
        assert_eq!(answer.text(), calls.to_string());
        settle().await;
    }
}
