//! A plain HTTP cache that follows RFC 9111 to the letter: freshness, variants, validation, and
//! what happens when the handler fails.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body::Frame;
use tower_response_cache::{Policy, Rule, Rules, RulesBuilder, Tags, Target};

use crate::support::{
    Broken, Cache, Call, Origin, everywhere, get, request, response, settle, status, stream, ttl,
};

const LONG_AGO: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

fn letter() -> RulesBuilder {
    Rules::builder().policy(Policy::rfc9111())
}

/// Answers with these fields, and to a conditional request that nothing has changed.
fn unchanging(fields: &[(&'static str, &'static str)]) -> Origin {
    let fields = fields.to_vec();
    Origin::new(move |call| match asks_for_changes(call) {
        true => status(304, &fields, ""),
        false => response(&fields, call.number.to_string()),
    })
}

fn asks_for_changes(call: &Call) -> bool {
    !call.header("if-none-match").is_empty() || !call.header("if-modified-since").is_empty()
}

fn date(from_now: i64) -> String {
    let by = Duration::from_secs(from_now.unsigned_abs());
    let now = SystemTime::now();
    let time = if from_now < 0 {
        now.checked_sub(by)
    } else {
        now.checked_add(by)
    };
    httpdate::fmt_http_date(time.unwrap())
}

#[tokio::test]
async fn a_response_is_reused_for_as_long_as_it_says() {
    #[rustfmt::skip]
    let cases: [(&[(&str, &str)], u64); 13] = [
        (&[("cache-control", "max-age=50")], 50),
        (&[("cache-control", "MAX-AGE=50, unknown=1")], 50),
        (&[("cache-control", "max-age=\"50\"")], 50),
        (&[("cache-control", "max-age=50"), ("cache-control", "max-age=70")], 50),
        (&[("cache-control", "max-age=9"), ("cache-control", "s-maxage=50")], 50),
        (&[("cache-control", "a=\"max-age=7\", max-age=50")], 50),
        (&[("cache-control", "max-age=60"), ("age", "10")], 50),
        (&[("cache-control", "max-age=50"), ("expires", LONG_AGO)], 50),
        (&[("cdn-cache-control", "max-age=50"), ("cache-control", "max-age=0")], 50),
        (&[("cache-control", "max-age=0")], 0),
        (&[("cache-control", "max-age=-1")], 0),
        (&[("cache-control", "max-age=1.5")], 0),
        (&[("expires", "0")], 0),
    ];
    for (fields, fresh) in cases {
        let origin = Origin::counting(fields);
        let cache = Cache::new(&origin, letter());
        cache.get("/a").await;
        cache.advance(fresh.saturating_sub(1));
        assert_eq!(
            cache.get("/a").await.text() == "1",
            fresh > 0,
            "FR, CP: {fields:?}"
        );
        let (calls, _) = (origin.calls(), cache.advance(1));
        cache.get("/a").await;
        assert_eq!(origin.calls(), calls + 1, "stale: {fields:?}");
    }
}

#[tokio::test]
async fn expires_is_compared_with_date() {
    let origin = Origin::new(|call| {
        // A clock ten minutes fast.
        let fields = [("date", &*date(600)), ("expires", &*date(660))];
        response(&fields, call.number.to_string())
    });
    let cache = Cache::new(&origin, letter());
    cache.get("/a").await;
    cache.advance(55);
    assert_eq!(cache.get("/a").await.text(), "1", "EX2");
    cache.advance(10);
    assert_eq!(cache.get("/a").await.text(), "2", "EX2");
}

#[tokio::test]
async fn a_lifetime_is_estimated_from_the_last_modification() {
    for (code, reused) in [
        (200, true),
        (404, true),
        (410, true),
        (201, false),
        (503, false),
    ] {
        let origin = Origin::new(move |call| {
            let fields = [("last-modified", &*date(-1000)), ("date", &*date(0))];
            status(code, &fields, call.number.to_string())
        });
        let cache = Cache::new(&origin, letter());
        cache.get("/a").await;
        cache.advance(90);
        assert_eq!(
            cache.get("/a").await.text() == "1",
            reused,
            "HE1, HE3: {code}"
        );
        cache.advance(20);
        cache.get("/a").await;
        assert!(origin.calls() > 1, "HE4");
    }
}

#[tokio::test]
async fn any_final_status_with_explicit_freshness_is_reused() {
    for code in [
        200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 502, 503, 504, 599,
    ] {
        let origin = Origin::new(move |_| status(code, &[("cache-control", "max-age=60")], ""));
        let cache = Cache::new(&origin, letter());
        cache.get("/a").await;
        assert_eq!(cache.get("/a").await.status, code, "ST1");
        assert_eq!(origin.calls(), 1, "ST1: {code}");
        cache.advance(60);
        cache.get("/a").await;
        assert_eq!(origin.calls(), 2, "ST2: {code}");
    }
}

#[tokio::test]
async fn the_clients_directives_are_obeyed() {
    let fields = [("cache-control", "max-age=60"), ("etag", "\"v\"")];
    let origin = unchanging(&fields);
    let cache = Cache::new(&origin, letter());
    let ask = async |control: &str| {
        let answer = cache.get_with("/a", &[("cache-control", control)]).await;
        answer.cache_status().to_owned()
    };
    cache.get("/a").await;
    cache.advance(20);
    assert_eq!(ask("max-age=21").await, "hit; ttl=40", "RQ1");
    assert_eq!(ask("min-fresh=40").await, "hit; ttl=40", "RQ1");
    assert_eq!(ask("no-store").await, "hit; ttl=40", "RQ3");
    assert_eq!(
        ask("max-age=20").await,
        "fwd=request; fwd-status=304; ttl=60",
        "RQ1"
    );
    cache.advance(20);
    assert_eq!(
        ask("min-fresh=41").await,
        "fwd=request; fwd-status=304; ttl=60",
        "RQ1"
    );
    cache.advance(20);
    assert_eq!(
        ask("no-cache").await,
        "fwd=request; fwd-status=304; ttl=60",
        "RQ1"
    );
    assert_eq!(origin.last().header("if-none-match"), "\"v\"");
    cache.advance(70);
    assert_eq!(
        ask("max-stale=10").await,
        "hit; ttl=-10; detail=max-stale",
        "RQ2"
    );
    assert_eq!(
        ask("max-stale").await,
        "hit; ttl=-10; detail=max-stale",
        "RQ2"
    );
    assert_eq!(
        ask("max-stale=9").await,
        "fwd=stale; fwd-status=304; ttl=60",
        "RQ2"
    );
    let pragma = cache.get_with("/a", &[("pragma", "no-cache")]).await;
    assert_eq!(pragma.cache_status(), "fwd=request; fwd-status=304; ttl=60");
}

#[tokio::test]
async fn what_never_changes_needs_no_reload_while_it_is_fresh() {
    // RFC 8246
    let fields = [
        ("cache-control", "max-age=60, immutable"),
        ("etag", "\"v\""),
    ];
    let origin = unchanging(&fields);
    let cache = Cache::new(&origin, letter());
    cache.get("/a").await;
    for (seconds, directive, calls) in [
        (0, "max-age=0", 1),
        (59, "max-age=0", 1),
        (0, "no-cache", 2),
        (30, "max-age=10", 3),
        (61, "max-age=0", 4),
    ] {
        cache.advance(seconds);
        cache.get_with("/a", &[("cache-control", directive)]).await;
        assert_eq!(origin.calls(), calls, "{directive} after {seconds} s");
    }
    let endless = Origin::counting(&[("cache-control", "immutable"), ("etag", "\"v\"")]);
    let cache = Cache::new(&endless, letter());
    cache.get("/a").await;
    assert_eq!(cache.get("/a").await.text(), "2", "it is no lifetime");
}

#[tokio::test]
async fn what_must_be_validated_is_each_time() {
    let fields = [
        ("cache-control", "max-age=60, no-cache"),
        ("etag", "W/\"v\""),
    ];
    let origin = unchanging(&fields);
    let cache = Cache::new(&origin, letter());
    cache.get("/a").await;
    for calls in 2..5 {
        let answer = cache.get("/a").await;
        assert_eq!((answer.status, answer.text()), (StatusCode::OK, "1"), "CR4");
        assert_eq!(origin.calls(), calls, "CR3");
        assert_eq!(origin.last().header("if-none-match"), "W/\"v\"", "ET2");
        let expected = "fwd=stale; fwd-status=304; ttl=60; detail=no-cache";
        assert_eq!(answer.cache_status(), expected);
    }
}

#[tokio::test]
async fn fields_that_no_cache_names_are_left_out_of_a_hit() {
    let fields = [
        ("cache-control", "max-age=60, no-cache=\"x-mine\""),
        ("x-mine", "1"),
        ("x", "2"),
    ];
    let cache = Cache::new(&Origin::counting(&fields), letter());
    assert_eq!(cache.get("/a").await.header("x-mine"), "1");
    let hit = cache.get("/a").await;
    assert_eq!((hit.header("x-mine"), hit.header("x")), ("", "2"), "CR5");
}

#[tokio::test]
async fn variants_are_kept_side_by_side() {
    let origin = Origin::new(|call| {
        let fields = [("cache-control", "max-age=60"), ("vary", "X-One, x-two")];
        response(
            &fields,
            format!("{}{}", call.header("x-one"), call.header("x-two")),
        )
    });
    let cache = Cache::new(&origin, letter());
    let variants: [&[(&str, &str)]; 5] = [
        &[],
        &[("x-one", "a")],
        &[("x-two", "a")],
        &[("x-one", "a"), ("x-two", "b")],
        &[("x-one", "a, b")],
    ];
    for round in 0..3 {
        for fields in variants {
            let expected: String = fields.iter().map(|(_, value)| *value).collect();
            assert_eq!(
                cache.get_with("/a", fields).await.text(),
                expected,
                "VA1, VA2: {round}"
            );
        }
    }
    let lines = [("x-one", "a"), ("x-one", "b"), ("x-three", "c")];
    assert_eq!(
        cache.get_with("/a", &lines).await.cache_status(),
        "hit; ttl=60",
        "VA3"
    );
    assert_eq!(origin.calls(), 5);
}

#[tokio::test]
async fn a_resource_that_changes_what_it_varies_on_is_not_answered_for_by_the_old() {
    for validator in [("etag", "\"v\""), ("x-none", "")] {
        let old = [("cache-control", "max-age=10"), validator];
        let origin = Origin::new(move |_| response(&old, "old"));
        let cache = Cache::new(&origin, letter());
        cache.get("/a").await;
        cache.advance(11);
        let new = [("cache-control", "max-age=60"), ("vary", "x")];
        origin.answer(move |call| response(&new, call.header("x").to_owned()));
        for x in ["1", "2", "1", "2"] {
            assert_eq!(cache.get_with("/a", &[("x", x)]).await.text(), x);
        }
        assert_eq!(origin.calls(), 3, "{validator:?}");
    }
}

#[tokio::test]
async fn languages_are_compared_by_meaning() {
    let fields = [("cache-control", "max-age=60"), ("vary", "accept-language")];
    let cache = Cache::new(&Origin::counting(&fields), letter());
    cache
        .get_with("/a", &[("accept-language", "en, de;q=0.5")])
        .await;
    let same = cache
        .get_with("/a", &[("accept-language", "DE;q=0.5 ,en")])
        .await;
    assert_eq!(same.text(), "1", "VA4");
    let other = cache
        .get_with("/a", &[("accept-language", "de, en;q=0.5")])
        .await;
    assert_eq!(other.cache_status(), "fwd=vary-miss; stored");
}

#[tokio::test]
async fn other_variants_are_offered_to_the_origin_which_may_name_one() {
    let origin = Origin::new(|call| {
        let tag = format!(
            "\"{}\"",
            if call.header("x") == "3" {
                "1"
            } else {
                call.header("x")
            }
        );
        let fields = [
            ("cache-control", "max-age=60"),
            ("vary", "x"),
            ("etag", &*tag),
        ];
        match call.header("if-none-match").contains(&tag) {
            true => status(304, &fields, ""),
            false => response(&fields, tag.clone()),
        }
    });
    let cache = Cache::new(&origin, letter());
    for x in ["1", "2"] {
        cache.get_with("/a", &[("x", x)]).await;
    }
    let third = request(Method::GET, "/a", &[("x", "3")]);
    let third = cache.fetch_by_content(third).await;
    let mut offered: Vec<_> = origin
        .last()
        .header("if-none-match")
        .split(", ")
        .map(str::to_owned)
        .collect();
    offered.sort();
    assert_eq!(offered, ["\"1\"", "\"2\""], "ET5");
    assert_eq!(
        (third.status, third.text()),
        (StatusCode::OK, "\"1\""),
        "ET5"
    );
    let again = cache.get_with("/a", &[("x", "3")]).await;
    assert_eq!(
        (again.text(), again.cache_status()),
        ("\"1\"", "hit; ttl=60")
    );
    assert_eq!(origin.calls(), 3);
}

#[tokio::test]
async fn a_coding_that_the_client_may_not_accept_is_not_offered_to_the_origin() {
    let origin = Origin::new(|call| {
        let mut fields = vec![
            ("cache-control", "max-age=60"),
            ("vary", "accept-encoding"),
            ("etag", "\"same\""),
        ];
        let coding = call.header("accept-encoding").to_owned();
        if !coding.is_empty() {
            fields.push(("content-encoding", &coding));
        }
        match call.header("if-none-match") {
            "" => response(&fields, coding.clone()),
            _ => status(304, &fields, ""),
        }
    });
    let cache = Cache::new(&origin, letter());
    let browser = [("accept-encoding", "gzip")];
    cache.get_with("/a", &browser).await;
    for _ in 0..2 {
        assert_eq!(cache.get("/a").await.text(), "");
        assert_eq!(cache.get_with("/a", &browser).await.text(), "gzip");
    }
    assert_eq!(origin.calls(), 2);
}

#[tokio::test]
async fn a_stale_response_is_validated_by_what_it_has() {
    #[rustfmt::skip]
    let cases: [(&[(&str, &str)], &str, &str); 4] = [
        (&[("etag", "\"v\"")], "\"v\"", ""),
        (&[("etag", "W/\"v\"")], "W/\"v\"", ""),
        (&[("last-modified", LONG_AGO)], "", LONG_AGO),
        (&[("etag", "\"v\""), ("last-modified", LONG_AGO)], "\"v\"", LONG_AGO),
    ];
    for (validators, tag, since) in cases {
        let mut fields = validators.to_vec();
        fields.push(("cache-control", "max-age=10"));
        let origin = unchanging(&fields);
        let cache = Cache::new(&origin, letter());
        cache.get("/a").await;
        cache.advance(11);
        let answer = cache.get("/a").await;
        assert_eq!(
            (answer.status, answer.text()),
            (StatusCode::OK, "1"),
            "{validators:?}"
        );
        let asked = origin.last();
        assert_eq!(asked.header("if-none-match"), tag, "ET2");
        assert_eq!(asked.header("if-modified-since"), since, "LM2");
        assert_eq!(
            cache.get("/a").await.cache_status(),
            "hit; ttl=10",
            "validated: {validators:?}"
        );
    }
}

#[tokio::test]
async fn what_a_304_says_replaces_what_is_stored() {
    let fields = [
        ("cache-control", "max-age=10"),
        ("etag", "\"v\""),
        ("x-kept", "old"),
        ("x-changed", "old"),
    ];
    let origin = Origin::new(move |_| response(&fields, "body"));
    let cache = Cache::new(&origin, letter());
    cache.get("/a").await;
    cache.advance(11);
    origin.answer(|_| {
        let fields = [
            ("cache-control", "max-age=100"),
            ("etag", "\"v\""),
            ("x-changed", "new"),
            ("x-new", "1"),
            ("content-length", "7"),
        ];
        status(304, &fields, "")
    });
    for _ in 0..2 {
        let answer = cache.get("/a").await;
        assert_eq!((answer.status, answer.text()), (StatusCode::OK, "body"));
        assert_eq!(answer.header("x-kept"), "old", "U31");
        assert_eq!(answer.header("x-changed"), "new", "U32");
        assert_eq!(answer.header("x-new"), "1", "U32");
        assert_ne!(answer.header("content-length"), "7", "U33");
        assert_eq!(answer.header("age"), "0", "U32");
    }
    assert_eq!(cache.get("/a").await.cache_status(), "hit; ttl=100", "U32");
    assert_eq!(origin.calls(), 2);
}

#[tokio::test]
async fn the_handlers_own_cache_control_survives_a_validation_without_one() {
    // Only what the rule wrote into the response may be written anew.
    for control in ["public", "no-cache", "no-transform"] {
        let origin = Origin::new(move |call| match asks_for_changes(call) {
            true => status(304, &[("etag", "\"v\"")], ""),
            false => response(&[("cache-control", control), ("etag", "\"v\"")], "body"),
        });
        let cache = Cache::new(&origin, everywhere(ttl(10)));
        cache.get("/a").await;
        cache.advance(11);
        for _ in 0..3 {
            assert_eq!(cache.get("/a").await.header("cache-control"), control);
        }
        let calls = if control == "no-cache" { 4 } else { 2 };
        assert_eq!(origin.calls(), calls, "CR3: {control}");
    }
}

#[tokio::test]
async fn a_rules_lifetime_starts_anew_with_a_validation() {
    let origin = unchanging(&[("etag", "\"v\"")]);
    let cache = Cache::new(&origin, everywhere(ttl(10)));
    cache.get("/a").await;
    for calls in 2..4 {
        cache.advance(11);
        let answer = cache.get("/a").await;
        assert_eq!(
            (answer.text(), answer.header("cache-control")),
            ("1", "no-cache")
        );
        assert_eq!(cache.get("/a").await.cache_status(), "hit; ttl=10");
        assert_eq!(origin.calls(), calls);
    }
    assert_eq!(
        cache
            .handle()
            .stats()
            .route("/{*path}")
            .unwrap()
            .revalidated,
        2
    );
}

#[tokio::test]
async fn the_client_gets_a_304_of_its_own_out_of_a_validation() {
    let fields = [
        ("cache-control", "max-age=10"),
        ("etag", "\"v\""),
        ("last-modified", LONG_AGO),
    ];
    let cache = Cache::new(&unchanging(&fields), letter());
    cache.get("/a").await;
    cache.advance(11);
    let with_tag = cache.get_with("/a", &[("if-none-match", "\"v\"")]).await;
    assert_eq!(with_tag.status, StatusCode::NOT_MODIFIED);
    cache.advance(11);
    let with_date = cache
        .get_with("/a", &[("if-modified-since", LONG_AGO)])
        .await;
    assert_eq!(with_date.status, StatusCode::NOT_MODIFIED, "LM2");
    cache.advance(11);
    let with_other = cache
        .get_with("/a", &[("if-none-match", "\"other\"")])
        .await;
    assert_eq!(
        (with_other.status, with_other.text()),
        (StatusCode::OK, "1")
    );
}

#[tokio::test]
async fn a_full_response_to_a_validation_replaces_what_is_stored() {
    let fields = [("cache-control", "max-age=10"), ("etag", "\"v\"")];
    let origin = Origin::counting(&fields);
    let cache = Cache::new(&origin, letter());
    cache.get("/a").await;
    cache.advance(11);
    assert_eq!(cache.get("/a").await.text(), "2");
    assert_eq!(cache.get("/a").await.text(), "2");
    assert_eq!(origin.calls(), 2);
}

#[tokio::test]
async fn a_304_to_nothing_asked_here_is_the_clients() {
    let origin = Origin::new(|_| status(304, &[("etag", "\"v\"")], ""));
    let cache = Cache::new(&origin, letter());
    let answer = cache.get_with("/a", &[("if-none-match", "\"v\"")]).await;
    assert_eq!(origin.last().header("if-none-match"), "\"v\"", "ET4");
    assert_eq!(answer.status, StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn a_304_that_does_not_say_what_it_is_about_is_about_all_that_was_asked() {
    let fields = |x| [("cache-control", "max-age=10"), ("vary", "x"), ("etag", x)];
    let origin = Origin::new(move |call| match call.header("x") {
        "1" => response(&fields("\"1\""), "1"),
        _ => response(&fields("\"2\""), "2"),
    });
    let cache = Cache::new(&origin, letter());
    for x in ["1", "2"] {
        cache.get_with("/a", &[("x", x)]).await;
        cache.advance(1);
    }
    origin.answer(|_| status(304, &[], ""));
    // Another variant, and a stale one while the client has another copy; the request of this
    // layer cannot be repeated.
    for (x, fields) in [("3", &[][..]), ("2", &[("if-none-match", "\"0\"")])] {
        let answer = cache.get_with("/a", &[&[("x", x)], fields].concat()).await;
        assert_eq!((answer.status, answer.text()), (StatusCode::OK, "2"), "{x}");
        assert_eq!(origin.last().header("if-none-match"), "\"2\"", "{x}");
        cache.advance(60);
    }
}

#[tokio::test]
async fn a_304_for_another_response_renews_nothing() {
    let fields = [("cache-control", "max-age=10"), ("etag", "\"v\"")];
    let origin = Origin::counting(&fields);
    let cache = Cache::new(&origin, letter());
    cache.get("/a").await;
    cache.advance(11);
    origin.answer(|_| status(304, &[("etag", "\"other\""), ("x-bad", "1")], ""));
    let answer = cache.get("/a").await;
    assert!(!answer.headers.contains_key("x-bad"), "U34");
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, "1"));
    origin.answer(|_| response(&[("cache-control", "max-age=10")], "new"));
    assert_eq!(cache.get("/a").await.text(), "new");
}

#[tokio::test]
async fn a_304_for_another_response_is_not_the_last_word_where_the_request_can_be_repeated() {
    let fields = [("cache-control", "max-age=10"), ("etag", "\"v\"")];
    let origin = Origin::counting(&fields);
    let cache = Cache::new(&origin, letter());
    cache.get("/a").await;
    cache.advance(11);
    origin.answer(
        move |call| match call.head.headers.contains_key("if-none-match") {
            true => status(304, &[("etag", "\"other\"")], ""),
            false => response(&fields, "new"),
        },
    );
    let answer = cache.fetch_by_content(get("/a")).await;
    assert_eq!((answer.text(), origin.calls()), ("new", 3), "U34");
    assert_eq!(cache.get("/a").await.cache_status(), "hit; ttl=10");

    cache.advance(11);
    origin.answer(
        |call| match call.head.headers.contains_key("if-none-match") {
            true => status(304, &[("etag", "\"other\"")], ""),
            false => status(503, &[], ""),
        },
    );
    let answer = cache.fetch_by_content(get("/a")).await;
    assert_eq!((answer.text(), origin.calls()), ("new", 5), "SV2");
}

#[tokio::test]
async fn a_stale_response_is_served_when_the_handler_fails() {
    let validators: [&[(&str, &str)]; 3] =
        [&[], &[("etag", "\"v\"")], &[("last-modified", LONG_AGO)]];
    for validator in validators {
        let mut fields = validator.to_vec();
        fields.push(("cache-control", "max-age=10"));
        let origin = Origin::counting(&fields);
        let cache = Cache::new(&origin, letter());
        cache.get("/a").await;
        cache.advance(11);
        origin.fail();
        let stale = cache.get("/a").await;
        assert_eq!(stale.text(), "1", "SV1: {validator:?}");
        assert_eq!(
            stale.cache_status(),
            "fwd=stale; ttl=-1; detail=unreachable"
        );
        assert_eq!(stale.header("age"), "11");
        assert!(!stale.headers.contains_key("warning"), "SV7");
        origin.answer(|_| status(503, &[], "down"));
        assert_eq!(cache.get("/a").await.text(), "1", "SV2: {validator:?}");
        origin.answer(|_| status(500, &[], "bug"));
        assert_eq!(
            cache.get("/a").await.text(),
            "bug",
            "an error is an answer: {validator:?}"
        );
    }
}

#[tokio::test]
async fn an_error_of_the_handler_is_the_clients_where_nothing_is_stored() {
    let origin = Origin::counting(&[]);
    origin.fail();
    for rules in [letter(), everywhere(ttl(60)), everywhere(Rule::bypass())] {
        let cache = Cache::new(&origin, rules);
        assert_eq!(cache.send(get("/a")).await.err(), Some(Broken));
    }
}

#[tokio::test]
async fn guarded_passes_a_failure_on_unless_a_rule_or_the_response_says_otherwise() {
    let origin = Origin::counting(&[("etag", "\"v\"")]);
    let cache = Cache::new(&origin, everywhere(ttl(10)));
    cache.get("/a").await;
    cache.advance(11);
    origin.fail();
    assert_eq!(cache.send(get("/a")).await.err(), Some(Broken));
    origin.answer(|_| status(503, &[], "down"));
    assert_eq!(cache.get("/a").await.text(), "down");
}

#[tokio::test]
async fn stale_if_error_covers_errors_within_its_window() {
    let stated = [("cache-control", "max-age=10, stale-if-error=100")];
    let by_rule = || everywhere(ttl(10).stale_if_error(Duration::from_secs(100)));
    let cases: [(&[(&str, &str)], RulesBuilder); 3] = [
        (&stated, letter()),
        (&stated, everywhere(ttl(60))),
        (&[], by_rule()),
    ];
    for (fields, rules) in cases {
        let origin = Origin::counting(fields);
        let cache = Cache::new(&origin, rules);
        cache.get("/a").await;
        cache.advance(109);
        for code in [500, 502, 503, 504] {
            origin.answer(move |_| status(code, &[], "error"));
            let answer = cache.get("/a").await;
            assert_eq!(answer.text(), "1", "SV5: {code} {fields:?}");
            let expected = format!("fwd=stale; fwd-status={code}; ttl=-99; detail=stale-if-error");
            assert_eq!(answer.cache_status(), expected);
        }
        origin.fail();
        assert_eq!(cache.get("/a").await.text(), "1", "SV5: {fields:?}");
        for code in [404, 501] {
            origin.answer(move |_| status(code, &[], "error"));
            assert_eq!(cache.get("/a").await.text(), "error", "no failure: {code}");
        }
        cache.advance(1);
        origin.answer(|_| status(500, &[], "error"));
        assert_eq!(
            cache.get("/a").await.text(),
            "error",
            "after the window: {fields:?}"
        );
    }
}

#[tokio::test]
async fn where_nothing_may_be_served_unvalidated_a_failure_is_a_504() {
    let controls = [
        "max-age=10, must-revalidate",
        "max-age=10, proxy-revalidate",
        "s-maxage=10",
        "max-age=10, no-cache",
        "max-age=10, must-revalidate, stale-if-error=60",
    ];
    for control in controls {
        let fields = [("cache-control", control), ("etag", "\"v\"")];
        let cache = Cache::new(&Origin::counting(&fields), letter());
        cache.get("/a").await;
        cache.advance(11);
        cache.origin.fail();
        let answer = cache.get("/a").await;
        assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT, "SV6: {control}");
        assert!(!answer.body.is_empty());
        for name in ["cache-status", "etag", "age"] {
            assert!(
                !answer.headers.contains_key(name),
                "{name} on a generated answer"
            );
        }
    }
}

#[tokio::test]
async fn a_stale_response_is_refreshed_behind_its_answer_once() {
    let fields = [("cache-control", "max-age=10, stale-while-revalidate=100")];
    let origin = Origin::counting(&fields);
    let cache = Cache::new(&origin, letter());
    cache.get("/a").await;
    cache.advance(20);
    let hold = origin.hold();
    for _ in 0..5 {
        assert_eq!(cache.get("/a").await.text(), "1", "SV3");
        tokio::task::yield_now().await;
    }
    assert_eq!(origin.calls(), 2, "one at a time");
    drop(hold);
    while cache.get("/a").await.text() == "1" {
        tokio::task::yield_now().await;
    }
    assert_eq!(cache.get("/a").await.cache_status(), "hit; ttl=10", "SV3");
    assert_eq!(origin.calls(), 2);
    cache.advance(111);
    assert_eq!(cache.get("/a").await.text(), "3", "SV4");
}

#[tokio::test]
async fn a_refresh_that_fails_leaves_the_stale_response_and_the_way_to_the_next() {
    let fields = [("cache-control", "max-age=10, stale-while-revalidate=100")];
    let origin = Origin::counting(&fields);
    let cache = Cache::new(&origin, letter());
    cache.get("/a").await;
    cache.advance(20);
    origin.fail();
    for calls in 2..4 {
        assert_eq!(cache.get("/a").await.text(), "1");
        while origin.calls() < calls {
            tokio::task::yield_now().await;
        }
        tokio::task::yield_now().await;
        // A key rests whose refresh has failed.
        cache.advance(10);
    }
    origin.panic();
    assert_eq!(cache.get("/a").await.text(), "1");
    while origin.calls() < 4 {
        tokio::task::yield_now().await;
    }
    tokio::task::yield_now().await;
    cache.advance(10);
    origin.answer(|_| response(&[("cache-control", "max-age=10")], "new"));
    while cache.get("/a").await.text() == "1" {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_refresh_whose_body_is_not_stored_has_failed() {
    const LONG: &str = "longer than the limit";
    let fields = [("cache-control", "max-age=10, stale-while-revalidate=100")];
    for breaks_off in [true, false] {
        let origin = Origin::counting(&fields);
        let cache = Cache::new(&origin, letter()).with(|layer| layer.max_body(8));
        cache.get("/a").await;
        cache.advance(20);
        origin.answer(move |_| {
            let data = |text: &'static str| Ok(Frame::data(Bytes::from(text)));
            let frames = match breaks_off {
                true => vec![data("new"), Err(Broken)],
                false => vec![data("new"), data(LONG)],
            };
            response(&fields, "").map(|_| stream(frames))
        });
        for _ in 0..3 {
            assert_eq!(cache.get("/a").await.text(), "1");
            settle().await;
        }
        assert_eq!(origin.calls(), 2, "{breaks_off}: the key rests");
        cache.advance(1);
        origin.answer(move |_| response(&fields, "new"));
        assert_eq!(cache.get("/a").await.text(), "1");
        settle().await;
        assert_eq!(cache.get("/a").await.cache_status(), "hit; ttl=10");
    }
}

#[tokio::test]
async fn a_refresh_validates_what_it_has() {
    let fields = [
        ("cache-control", "max-age=10, stale-while-revalidate=100"),
        ("etag", "\"v\""),
    ];
    let origin = unchanging(&fields);
    let cache = Cache::new(&origin, letter());
    cache.get("/a").await;
    cache.advance(20);
    cache
        .get_with("/a", &[("if-none-match", "\"other\"")])
        .await;
    assert!(cache.handle().shutdown(Duration::from_secs(1)).await);
    assert_eq!(origin.last().header("if-none-match"), "\"v\"");
    assert_eq!(cache.get("/a").await.cache_status(), "hit; ttl=10");
}

#[tokio::test]
async fn a_head_is_forwarded_for_what_is_stale_and_renews_what_it_confirms() {
    let fields = [("cache-control", "max-age=10"), ("etag", "\"v\"")];
    let origin = Origin::new(move |_| response(&fields, "body"));
    let cache = Cache::new(&origin, letter());
    cache.get("/a").await;
    cache.advance(11);
    let newer = [
        ("cache-control", "max-age=50"),
        ("etag", "\"v\""),
        ("x-new", "1"),
    ];
    origin.answer(move |_| response(&newer, ""));
    cache.method("HEAD", "/a").await;
    assert_eq!(origin.last().head.method, Method::HEAD, "UH1");
    let answer = cache.get("/a").await;
    assert_eq!(
        (answer.text(), answer.header("x-new")),
        ("body", "1"),
        "UH2"
    );
    assert_eq!(answer.cache_status(), "hit; ttl=50", "UH2");
}

#[tokio::test]
async fn a_head_that_validates_renews_the_stored_get() {
    let fields = [("cache-control", "max-age=10"), ("etag", "\"v\"")];
    let cache = Cache::new(&unchanging(&fields), letter());
    cache.get("/a").await;
    cache.advance(11);
    let head = cache.method("HEAD", "/a").await;
    assert_eq!(
        (head.status, head.header("content-length")),
        (StatusCode::OK, "1")
    );
    assert_eq!(head.cache_status(), "fwd=stale; fwd-status=304; ttl=10");
    assert_eq!(cache.get("/a").await.cache_status(), "hit; ttl=10");
}

#[tokio::test]
async fn a_head_without_validators_renews_nothing() {
    let origin = Origin::new(|_| response(&[], "body"));
    let cache = Cache::new(&origin, everywhere(ttl(10).policy(Policy::rfc9111())));
    cache.get("/a").await;
    cache.advance(11);
    cache.method("HEAD", "/a").await;
    assert_eq!(cache.get("/a").await.cache_status(), "fwd=stale; stored");
}

#[tokio::test]
async fn a_requester_whose_response_is_not_stored_leaves_what_is() {
    let fields = [("cache-control", "max-age=10"), ("etag", "\"v\"")];
    let cache = Cache::new(&unchanging(&fields), everywhere(ttl(60)));
    cache.get("/a").await;
    cache.advance(11);
    let answer = cache.get_with("/a", &[("cookie", "a=1")]).await;
    assert_eq!((answer.text(), answer.status), ("1", StatusCode::OK));
    assert_eq!(
        cache.get("/a").await.cache_status(),
        "fwd=stale; fwd-status=304; ttl=10"
    );
}

#[tokio::test]
async fn tags_given_with_the_content_survive_its_validation() {
    let fields = [("etag", "\"v\"")];
    let origin = Origin::new(move |call| match asks_for_changes(call) {
        true => status(304, &fields, ""),
        false => {
            let mut response = response(&fields, "body");
            response.extensions_mut().insert(Tags::new(["late"]));
            response
        }
    });
    let cache = Cache::new(&origin, everywhere(ttl(10)));
    cache.get("/a").await;
    cache.advance(11);
    cache.get("/a").await;
    assert_eq!(cache.get("/a").await.cache_status(), "hit; ttl=10");
    let _ = cache
        .handle()
        .invalidate(Target::tag("late"))
        .await
        .unwrap();
    let answer = cache.get("/a").await;
    assert_eq!(
        answer.cache_status(),
        "fwd=miss; stored; detail=invalidated"
    );
}

#[tokio::test]
async fn a_head_that_shows_a_change_makes_the_stored_response_stale() {
    #[rustfmt::skip]
    let cases: [(u16, &[(&str, &str)]); 4] = [
        (200, &[("etag", "\"w\"")]),
        (200, &[("content-length", "9")]),
        (404, &[]),
        (410, &[]),
    ];
    for (code, changed) in cases {
        let fields = [("cache-control", "max-age=60"), ("etag", "\"v\"")];
        let origin = Origin::new(move |_| response(&fields, "body"));
        let cache = Cache::new(&origin, letter());
        cache.get("/a").await;
        let changed = changed.to_vec();
        origin.answer(move |_| status(code, &changed, ""));
        cache
            .fetch(request(
                Method::HEAD,
                "/a",
                &[("cache-control", "no-cache")],
            ))
            .await;
        origin.answer(move |_| response(&fields, "new"));
        assert_eq!(cache.get("/a").await.text(), "new", "UH2, UH3: {code}");
    }
}

#[tokio::test]
async fn what_has_changed_is_not_served_stale_though_the_new_answer_is_not_stored() {
    for (code, fields) in [
        (200, &[("cache-control", "no-store")][..]),
        (404, &[]),
        (410, &[]),
    ] {
        let origin =
            Origin::counting(&[("cache-control", "max-age=10, stale-while-revalidate=100")]);
        let cache = Cache::new(&origin, Rules::builder());
        cache.get("/a").await;
        cache.advance(20);
        origin.answer(move |_| status(code, fields, "new"));
        assert_eq!(cache.get("/a").await.text(), "1");
        while origin.calls() < 2 {
            tokio::task::yield_now().await;
        }
        settle().await;
        assert_eq!(cache.get("/a").await.text(), "new", "SV3: {code}");
    }
}

#[tokio::test]
async fn a_client_that_wants_nothing_of_the_origin_causes_no_refresh() {
    for asked in ["only-if-cached", "no-store"] {
        let origin =
            Origin::counting(&[("cache-control", "max-age=10, stale-while-revalidate=100")]);
        let cache = Cache::new(&origin, letter());
        cache.get("/a").await;
        cache.advance(20);
        let answer = cache.get_with("/a", &[("cache-control", asked)]).await;
        assert_eq!(answer.text(), "1");
        settle().await;
        assert_eq!(origin.calls(), 1, "{asked}");
    }
}

#[tokio::test]
async fn fields_that_no_cache_names_are_left_out_when_the_handler_fails_too() {
    let fields = [
        (
            "cache-control",
            "max-age=1, no-cache=\"x-own\", stale-if-error=100",
        ),
        ("x-own", "alice"),
    ];
    let origin = Origin::counting(&fields);
    let cache = Cache::new(&origin, letter());
    cache.get("/a").await;
    cache.advance(10);
    origin.fail();
    let answer = cache.get("/a").await;
    assert_eq!((answer.text(), answer.header("x-own")), ("1", ""), "CR5");
}
