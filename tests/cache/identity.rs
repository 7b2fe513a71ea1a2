//! Nothing of one user reaches another.

use std::time::Duration;

use http::{HeaderName, Method};
use tower_response_cache::{CacheFor, Policy, Rule, Rules, RulesBuilder};

use crate::support::{Answer, Cache, Call, Origin, everywhere, request, response, status, ttl};

/// The requesters: nobody, two users with cookies, two with tokens.
const REQUESTERS: [&[(&str, &str)]; 5] = [
    &[],
    &[("cookie", "sid=a")],
    &[("cookie", "sid=b")],
    &[("authorization", "Bearer a")],
    &[("authorization", "Bearer b")],
];

/// Whom the handler makes an answer for, as far as it looks.
fn owner(by: &str, field: impl Fn(&str) -> String) -> String {
    by.split(' ')
        .map(|name| format!("<{}>", field(name)))
        .collect()
}

/// Makes an origin whose every answer is for its requester alone, by these fields of the request.
fn personal(by: &'static str, fields: &'static [(&'static str, &'static str)]) -> Origin {
    Origin::new(move |call: &Call| {
        let owner = owner(by, |name| call.header(name).to_owned());
        let mut response = response(fields, owner.clone());
        response
            .headers_mut()
            .insert("x-owner", owner.parse().unwrap());
        response
    })
}

fn owner_of(by: &str, asks: &[(&str, &str)]) -> String {
    let value = |name: &str| {
        asks.iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    };
    owner(by, |name| {
        value(name).copied().unwrap_or_default().to_owned()
    })
}

fn is_of(answer: &Answer, owner: &str) -> bool {
    let by_field = answer
        .headers
        .get("x-owner")
        .is_none_or(|named| named == owner);
    by_field && (answer.body.is_empty() || answer.text() == owner)
}

/// What else than its own answer a requester may see.
#[derive(Clone, Copy, PartialEq)]
enum Others {
    Nobodys,
    /// That for anonymous requesters, which says for how long anybody may have it.
    Anonymous,
}

/// Lets every three requesters ask one after the other, twice, in different ways.
async fn check(rules: impl Fn() -> RulesBuilder, origin: &Origin, by: &str, others: Others) {
    let ways: [(Method, (&str, &str)); 4] = [
        (Method::GET, ("x", "")),
        (Method::HEAD, ("x", "")),
        (Method::GET, ("range", "bytes=0-99")),
        (Method::GET, ("if-none-match", "\"none\"")),
    ];
    let anonymous = owner_of(by, &[]);
    let threes = REQUESTERS.iter().flat_map(|one| {
        let pairs = REQUESTERS
            .iter()
            .flat_map(|two| REQUESTERS.iter().map(move |three| (two, three)));
        pairs.map(move |(two, three)| [*one, *two, *three])
    });
    for three in threes {
        let cache = Cache::new(origin, rules());
        for (round, asks) in [three, three].iter().flatten().enumerate() {
            let (method, way) = &ways[round % ways.len()];
            let fields: Vec<_> = asks.iter().copied().chain([*way]).collect();
            let answer = cache.fetch(request(method.clone(), "/a", &fields)).await;
            let own = is_of(&answer, &owner_of(by, asks));
            let allowed = others == Others::Anonymous && is_of(&answer, &anonymous);
            assert!(
                own || allowed,
                "{three:?} {round}: {fields:?} got {answer:?}"
            );
            cache.advance(11);
        }
    }
}

#[tokio::test]
async fn what_only_a_ttl_makes_cacheable_goes_to_whom_it_was_made_for() {
    let both = "cookie authorization";
    let cookie = || HeaderName::from_static("cookie");
    let authorization = || HeaderName::from_static("authorization");
    let fields: [&[(&str, &str)]; 5] = [
        &[],
        &[("vary", "accept")],
        &[("etag", "\"same\"")],
        &[(
            "cache-control",
            "stale-while-revalidate=60, stale-if-error=60",
        )],
        &[("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")],
    ];
    let rules: [fn() -> Rule; 6] = [
        || ttl(60),
        || ttl(10).stale_while_revalidate(Duration::from_secs(60)),
        || ttl(10).stale_if_error(Duration::from_secs(60)),
        || ttl(60).override_origin(),
        || ttl(60).key_cookie("sid"),
        || ttl(60).client_untouched(),
    ];
    for fields in fields {
        let origin = personal(both, fields);
        for rule in rules {
            check(|| everywhere(rule()), &origin, both, Others::Nobodys).await;
        }
        check(
            || everywhere(ttl(60).key_field(cookie())),
            &origin,
            both,
            Others::Nobodys,
        )
        .await;
        let keyed = || ttl(60).key_field(authorization());
        check(|| everywhere(keyed()), &origin, both, Others::Nobodys).await;
        check(
            || everywhere(keyed().key_cookie("sid")),
            &origin,
            both,
            Others::Nobodys,
        )
        .await;
    }
}

#[tokio::test]
async fn a_lifetime_from_the_handlers_extension_shares_no_more_than_a_ttl() {
    let both = "cookie authorization";
    let origin = Origin::new(move |call| {
        let mut response = response(&[], owner(both, |name| call.header(name).to_owned()));
        response
            .extensions_mut()
            .insert(CacheFor(Duration::from_secs(60)));
        response
    });
    check(Rules::builder, &origin, both, Others::Nobodys).await;
}

#[tokio::test]
async fn what_forbids_sharing_is_never_shared() {
    let both = "cookie authorization";
    let fields: [&[(&str, &str)]; 5] = [
        &[("cache-control", "private, max-age=60")],
        &[("cache-control", "max-age=60, public, Private")],
        &[("cache-control", "no-store")],
        &[
            ("cache-control", "public, max-age=60"),
            ("cdn-cache-control", "private"),
        ],
        &[("cache-control", "max-age=60"), ("set-cookie", "sid=c")],
    ];
    for fields in fields {
        let origin = personal(both, fields);
        check(Rules::builder, &origin, both, Others::Nobodys).await;
        check(
            || everywhere(ttl(60).override_origin()),
            &origin,
            both,
            Others::Nobodys,
        )
        .await;
        let despite = || everywhere(ttl(60).shared_despite_cookies().trusted_proxy());
        check(despite, &origin, both, Others::Nobodys).await;
    }
    let letter = || everywhere(ttl(60)).policy(Policy::rfc9111());
    for fields in &fields[..4] {
        check(letter, &personal(both, fields), both, Others::Nobodys).await;
    }
}

#[tokio::test]
async fn an_explicit_lifetime_shares_the_answer_for_nobody_and_no_ones_own() {
    let both = "cookie authorization";
    let fields: [&[(&str, &str)]; 4] = [
        &[("cache-control", "max-age=60")],
        &[("expires", "Sun, 06 Nov 2095 08:49:37 GMT")],
        &[("cache-control", "max-age=10, stale-while-revalidate=60")],
        &[
            ("cache-control", "max-age=10, stale-if-error=60"),
            ("etag", "\"same\""),
        ],
    ];
    for fields in fields {
        let origin = personal(both, fields);
        check(Rules::builder, &origin, both, Others::Anonymous).await;
        check(|| everywhere(ttl(60)), &origin, both, Others::Anonymous).await;
        // By the letter only a token forbids to store.
        let origin = personal("authorization", fields);
        let letter = || Rules::builder().policy(Policy::rfc9111());
        check(letter, &origin, "authorization", Others::Anonymous).await;
    }
}

#[tokio::test]
async fn what_varies_on_the_identity_is_kept_apart_by_it() {
    for vary in ["Cookie, Authorization", "authorization,COOKIE", "*"] {
        let both = "cookie authorization";
        for control in ["public, max-age=60", "max-age=60", "s-maxage=60"] {
            let fields = Box::leak(Box::new([("vary", vary), ("cache-control", control)]));
            let origin = personal(both, fields);
            check(Rules::builder, &origin, both, Others::Nobodys).await;
            let letter = || Rules::builder().policy(Policy::rfc9111());
            check(letter, &origin, both, Others::Nobodys).await;
        }
    }
}

#[tokio::test]
async fn a_route_that_reads_no_cookies_is_shared_among_them_and_not_among_tokens() {
    let origin = personal("authorization", &[]);
    let rules = || everywhere(ttl(60).shared_despite_cookies());
    check(rules, &origin, "authorization", Others::Nobodys).await;
    let cache = Cache::new(&origin, rules());
    cache.get_with("/a", REQUESTERS[1]).await;
    assert_eq!(
        cache.get_with("/a", REQUESTERS[2]).await.cache_status(),
        "hit; ttl=60"
    );
    let token = cache.get_with("/a", REQUESTERS[3]).await;
    assert_eq!(token.cache_status(), "fwd=request; detail=authorization");
}

#[tokio::test]
async fn what_says_that_anybody_may_have_it_is_shared_by_all() {
    let controls = ["public, max-age=60", "s-maxage=60"];
    for (control, asks) in controls
        .into_iter()
        .flat_map(|c| REQUESTERS.map(move |r| (c, r)))
    {
        let origin = Origin::new(move |_| response(&[("cache-control", control)], "for all"));
        let cache = Cache::new(&origin, everywhere(ttl(10)));
        cache.get_with("/a", asks).await;
        for asks in REQUESTERS {
            let answer = cache.get_with("/a", asks).await;
            assert_eq!(
                answer.cache_status(),
                "hit; ttl=60",
                "AU2, OT4: {control} {asks:?}"
            );
        }
    }
    // The rule may give the lifetime.
    let cache = Cache::new(
        &Origin::counting(&[("cache-control", "public")]),
        everywhere(ttl(10)),
    );
    for asks in [REQUESTERS, REQUESTERS].iter().flatten() {
        assert_eq!(cache.get_with("/a", asks).await.text(), "1", "{asks:?}");
    }
}

#[tokio::test]
async fn an_identity_in_the_key_has_answers_of_its_own() {
    let origin = Origin::counting(&[]);
    let authorization = HeaderName::from_static("authorization");
    let rule = ttl(60).key_cookie("sid").key_field(authorization);
    let cache = Cache::new(&origin, everywhere(rule));
    for _ in 0..2 {
        for (n, asks) in REQUESTERS.iter().enumerate() {
            assert_eq!(cache.get_with("/a", asks).await.text(), (n + 1).to_string());
        }
    }
    let another = cache
        .get_with("/a", &[("cookie", "sid=a; theme=dark")])
        .await;
    assert_eq!(another.cache_status(), "fwd=request; detail=cookie");
}

#[tokio::test]
async fn a_refresh_is_for_everybody_and_shows_no_ones_identity() {
    let control = "public, max-age=10, stale-while-revalidate=60";
    for asks in &REQUESTERS[1..] {
        let origin = Origin::counting(&[("cache-control", control)]);
        let cache = Cache::new(&origin, everywhere(ttl(60)));
        cache.get("/a").await;
        cache.advance(15);
        let fields: Vec<_> = asks
            .iter()
            .copied()
            .chain([("range", "bytes=0-0")])
            .collect();
        let stale = cache.get_with("/a", &fields).await;
        assert_eq!((stale.status.as_u16(), stale.text()), (206, "1"));
        assert!(cache.handle().shutdown(Duration::from_secs(1)).await);
        assert_eq!(origin.calls(), 2);
        for name in ["cookie", "authorization", "range"] {
            assert_eq!(origin.last().header(name), "", "{name}");
        }
        let stats = cache.handle().stats();
        assert_eq!(stats.stored(), 2, "{:?}", stats.routes);
    }
}

#[tokio::test]
async fn who_may_be_known_by_an_extension_refreshes_only_what_is_for_all() {
    #[derive(Clone)]
    struct User;

    const PUBLIC: &str = "public, max-age=10, stale-while-revalidate=60";
    const SILENT: &str = "max-age=10, stale-while-revalidate=60";
    for (before, after, without, calls, stored) in [
        (PUBLIC, PUBLIC, false, 2, 2),
        (SILENT, PUBLIC, false, 1, 1),
        (PUBLIC, SILENT, false, 2, 1),
        (SILENT, SILENT, true, 2, 2),
    ] {
        for asks in &REQUESTERS[1..] {
            let origin = Origin::counting(&[("cache-control", before)]);
            let cache = Cache::new(&origin, Rules::builder()).with(|layer| match without {
                true => layer.refresh_without::<User>(),
                false => layer,
            });
            cache.get("/a").await;
            cache.advance(15);
            origin.answer(move |call| {
                let known = call.head.extensions.get::<User>().is_some();
                assert_eq!(known, !without);
                response(&[("cache-control", after)], "the user's")
            });
            let mut asking = request(Method::GET, "/a", asks);
            asking.extensions_mut().insert(User);
            assert_eq!(cache.fetch(asking).await.text(), "1");
            assert!(cache.handle().shutdown(Duration::from_secs(1)).await);
            let counted = (origin.calls(), cache.handle().stats().stored());
            assert_eq!(counted, (calls, stored), "{before}, {after}: {asks:?}");
        }
    }
}

#[tokio::test]
async fn what_varies_on_the_identity_is_not_refreshed_for_another() {
    let letter = || Rules::builder().policy(Policy::rfc9111());
    for (vary, asks, rules) in [
        ("Authorization", REQUESTERS[3], Rules::builder()),
        ("Cookie", REQUESTERS[1], letter()),
    ] {
        let origin = Origin::new(move |call| {
            let fields = [
                (
                    "cache-control",
                    "public, max-age=10, stale-while-revalidate=60",
                ),
                ("vary", vary),
                ("etag", "\"v\""),
            ];
            match call.header("if-none-match") {
                "" => response(&fields, call.header(vary).to_owned()),
                _ => status(304, &fields, ""),
            }
        });
        let cache = Cache::new(&origin, rules).with(|layer| layer.refresh_without::<()>());
        cache.get_with("/a", asks).await;
        cache.advance(15);
        let stale = cache.get_with("/a", asks).await;
        assert_eq!(stale.text(), asks[0].1);
        assert!(cache.handle().shutdown(Duration::from_secs(1)).await);
        assert_eq!(origin.calls(), 1, "{vary}");
    }
}

#[tokio::test]
async fn a_token_is_not_answered_with_the_page_of_another_of_the_same_date() {
    let origin = Origin::new(|call| {
        let fields = [
            ("cache-control", "public, max-age=60"),
            ("vary", "Authorization"),
            ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ];
        match call.header("if-modified-since") {
            "" => response(&fields, call.header("authorization").to_owned()),
            _ => status(304, &fields, ""),
        }
    });
    let cache = Cache::new(&origin, Rules::builder());
    for _ in 0..2 {
        for asks in &REQUESTERS[3..] {
            assert_eq!(cache.get_with("/a", asks).await.text(), asks[0].1);
        }
    }
    assert_eq!(origin.calls(), 2);
}

#[tokio::test]
async fn a_clients_word_invalidates_nothing_and_opens_nothing() {
    let origin = Origin::counting(&[]);
    let cache = Cache::new(&origin, everywhere(ttl(60).response_tags().tag("t")));
    cache.get("/a").await;
    for name in [
        "surrogate-key",
        "cache-tag",
        "cache-groups",
        "x-invalidate-cache",
    ] {
        let asks = [
            (name, "t"),
            ("cache-group-invalidation", "\"t\""),
            ("pragma", "no-cache"),
        ];
        assert_eq!(cache.get_with("/a", &asks).await.text(), "1", "{name}");
    }
    for control in [
        "no-cache",
        "max-age=0",
        "no-store",
        "min-fresh=1000",
        "max-stale",
    ] {
        let answer = cache.get_with("/a", &[("cache-control", control)]).await;
        assert_eq!(answer.text(), "1", "{control}");
    }
    for method in ["PURGE", "BAN"] {
        origin.answer(|_| crate::support::status(405, &[], ""));
        cache.method(method, "/a").await;
        assert_eq!(cache.get("/a").await.text(), "1", "{method}");
    }
}
