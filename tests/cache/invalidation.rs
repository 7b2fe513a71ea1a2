//! Nothing older than an acknowledged invalidation is served.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::Method;
use tower::{Layer, ServiceExt};
use tower_response_cache::{
    CacheLayer, ErrorKind, Invalidated, Rule, Rules, RulesBuilder, Tags, Target,
};

use crate::support::{
    Answer, Body, Cache, Call, Double, Origin, everywhere, get, request, response, settle, status,
    ttl,
};

/// Data that writes change and reads answer with.
fn database() -> (Arc<AtomicUsize>, Origin) {
    let version = Arc::new(AtomicUsize::new(1));
    let data = Arc::clone(&version);
    let origin = Origin::new(move |call: &Call| {
        if call.head.method != Method::GET {
            data.fetch_add(1, Ordering::SeqCst);
        }
        response(&[], data.load(Ordering::SeqCst).to_string())
    });
    (version, origin)
}

fn shop() -> RulesBuilder {
    Rules::builder()
        .route("/products", ttl(60))
        .route("/products/{id}", ttl(60).tag("product:{id}"))
        .route("/users/{user}/posts", ttl(60))
        .route("/users/{user}/posts/{post}", ttl(60))
        .route("/search", ttl(60))
        .route("/account", Rule::bypass())
        .on_write("/products/{id}", ["/products", "/search"])
        .on_write("/posts/{id}", ["/users/{user}/posts"])
        .on_write("/users/{user}/posts", ["/users/{user}/posts/{post}"])
        .on_write("/account", ["/products"])
}

/// Asks for all of these; returns those that were not answered from the store.
async fn missed<'u>(cache: &Cache, uris: &[&'u str]) -> Vec<&'u str> {
    let mut missed = Vec::new();
    for uri in uris {
        if !cache.get(uri).await.cache_status().starts_with("hit") {
            missed.push(*uri);
        }
    }
    missed
}

#[tokio::test]
async fn a_success_of_an_unsafe_method_invalidates_its_target() {
    for method in ["POST", "PUT", "PATCH", "DELETE", "M-SEARCH", "UNHEARD-OF"] {
        for code in [200, 201, 204, 301, 303, 304] {
            let cache = Cache::new(&Origin::counting(&[]), everywhere(ttl(60)));
            cache.get("/a").await;
            cache.origin.answer(move |_| status(code, &[], ""));
            assert_eq!(cache.method(method, "/a").await.status, code);
            let answer = cache.get("/a").await;
            assert!(
                !answer.cache_status().starts_with("hit"),
                "IV1: {method} {code}"
            );
        }
    }
}

#[tokio::test]
async fn an_error_and_a_safe_method_invalidate_nothing() {
    let safe = [
        "OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH", "QUERY", "HEAD",
    ];
    let errors = [400, 401, 403, 404, 405, 409, 412, 422, 429, 500, 502, 503];
    let cases = safe.iter().map(|method| (*method, 200));
    let cases = cases.chain(errors.iter().map(|code| ("POST", *code)));
    for (method, code) in cases {
        let cache = Cache::new(&Origin::counting(&[]), everywhere(ttl(60)));
        cache.get("/a").await;
        cache.origin.answer(move |_| status(code, &[], ""));
        cache.method(method, "/a").await;
        assert_eq!(cache.get("/a").await.text(), "1", "IV2: {method} {code}");
    }
}

#[tokio::test]
async fn a_write_invalidates_all_queries_variants_hosts_and_spellings_of_its_path() {
    let cache = Cache::new(
        &Origin::counting(&[("vary", "accept")]),
        everywhere(ttl(60)),
    );
    let asks: [(&str, (&str, &str)); 6] = [
        ("/caf%C3%A9", ("accept", "a")),
        ("/caf%C3%A9", ("accept", "b")),
        ("/caf%c3%a9?page=2", ("accept", "a")),
        ("/caf%C3%A9", ("host", "other.example")),
        ("http://third.example/caf%C3%A9", ("accept", "a")),
        ("/%63af%C3%A9", ("accept", "a")),
    ];
    for written in ["/caf%C3%A9", "/caf%c3%a9?q", "/%63a%66%C3%A9"] {
        for (uri, field) in asks {
            cache.get_with(uri, &[field]).await;
            assert!(
                cache
                    .get_with(uri, &[field])
                    .await
                    .cache_status()
                    .starts_with("hit")
            );
        }
        cache.get("/other").await;
        cache.method("PUT", written).await;
        for (uri, field) in asks {
            let answer = cache.get_with(uri, &[field]).await;
            assert!(
                answer.cache_status().starts_with("fwd"),
                "{uri} {field:?} by {written}"
            );
        }
        assert!(cache.get("/other").await.cache_status().starts_with("hit"));
    }
}

#[tokio::test]
async fn a_write_invalidates_what_its_rule_names() {
    let all = [
        "/products",
        "/products?page=2",
        "/products/7",
        "/products/8",
        "/search?q=x",
        "/users/ann/posts",
        "/users/bob/posts",
        "/users/ann/posts/1",
        "/users/bob/posts/1",
    ];
    #[rustfmt::skip]
    let cases: [(&str, &[&str]); 6] = [
        ("/products/7", &["/products", "/products?page=2", "/products/7", "/search?q=x"]),
        ("/products/%37", &["/products", "/products?page=2", "/products/7", "/search?q=x"]),
        // No parameter says whose posts: all of the pattern.
        ("/posts/1", &["/users/ann/posts", "/users/bob/posts"]),
        // Nor which post: all of the pattern, whoever they are by.
        ("/users/ann/posts", &["/users/ann/posts", "/users/ann/posts/1", "/users/bob/posts/1"]),
        ("/account", &["/products", "/products?page=2"]),
        ("/nowhere", &[]),
    ];
    let cache = Cache::new(&Origin::counting(&[]), shop());
    for (written, expected) in cases {
        missed(&cache, &all).await;
        assert_eq!(missed(&cache, &all).await, [""; 0]);
        cache.method("PUT", written).await;
        assert_eq!(missed(&cache, &all).await, expected, "by {written}");
    }
}

#[tokio::test]
async fn a_parameter_is_bound_to_its_decoded_value() {
    let cache = Cache::new(&Origin::counting(&[]), {
        Rules::builder()
            .route("/list/{name}", ttl(60))
            .on_write("/item/{name}", ["/list/{name}"])
    });
    let all = ["/list/a%20b", "/list/%61%20b", "/list/a+b", "/list/a"];
    missed(&cache, &all).await;
    cache.method("PUT", "/item/%61%20b").await;
    assert_eq!(missed(&cache, &all).await, ["/list/a%20b", "/list/%61%20b"]);
}

#[tokio::test]
async fn uris_of_the_same_origin_that_the_answer_names_are_invalidated() {
    #[rustfmt::skip]
    let cases: [(&str, &str, &str, bool); 10] = [
        ("http://a.example/x/new", "location", "/x/a", true),
        ("http://a.example/x/new", "location", "a", true),
        ("http://a.example/x/new", "location", "http://a.example/x/a", true),
        ("http://a.example/x/new", "location", "http://A.EXAMPLE:80/x/a?q", true),
        ("http://a.example/x/new", "location", "//a.example/x/%61", true),
        ("http://a.example/x/new", "content-location", "../x/a", true),
        ("http://a.example/x/new", "content-location", "http://b.example/x/a", false),
        ("http://a.example/x/new", "location", "https://a.example/x/a", false),
        ("http://a.example/x/new", "location", "http://a.example:81/x/a", false),
        ("/x/new", "location", "http://a.example/x/a", true),
    ];
    for (written, name, reference, expected) in cases {
        let cache = Cache::new(&Origin::counting(&[]), everywhere(ttl(60)));
        cache.get_with("/x/a", &[("host", "a.example")]).await;
        cache
            .origin
            .answer(move |_| status(201, &[(name, reference)], ""));
        cache
            .fetch(request(Method::POST, written, &[("host", "a.example")]))
            .await;
        let answer = cache.get_with("/x/a", &[("host", "a.example")]).await;
        let invalidated = answer.cache_status().starts_with("fwd");
        assert_eq!(invalidated, expected, "IV3: {name}: {reference}");
    }
}

#[tokio::test]
async fn groups_that_the_answer_to_a_write_names_are_invalidated() {
    let fields = [
        ("cache-groups", "\"news\", \"Sport\""),
        ("cache-tag", "a, b"),
    ];
    for (method, code, groups, expected) in [
        ("POST", 200, "\"Sport\"", true),
        ("POST", 200, "\"x\", \"news\"", true),
        ("POST", 200, "\"sport\"", false),
        // A tag is no group.
        ("POST", 200, "\"b\"", false),
        ("POST", 200, "news", false),
        ("POST", 404, "\"news\"", false),
        ("OPTIONS", 200, "\"news\"", false),
    ] {
        let cache = Cache::new(
            &Origin::counting(&fields),
            everywhere(ttl(60).response_tags()),
        );
        cache.get("/a").await;
        let named = [("cache-group-invalidation", groups)];
        cache.origin.answer(move |_| status(code, &named, ""));
        cache.method(method, "/elsewhere").await;
        let invalidated = cache.get("/a").await.cache_status().starts_with("fwd");
        assert_eq!(invalidated, expected, "{method} {code} {groups}");
    }
}

#[tokio::test]
async fn an_application_invalidates_what_it_names() {
    let all = [
        "/products",
        "/products/7",
        "/products/7?x",
        "/products/a%20b",
        "/search",
    ];
    let a_b = ["/products/a%20b"];
    let seven = ["/products/7", "/products/7?x"];
    let each = ["/products/7", "/products/7?x", "/products/a%20b"];
    let bound = |id: &str| Target::pattern("/products/{id}").bind("id", id);
    #[rustfmt::skip]
    let cases: [(Target, &[&str]); 12] = [
        (Target::uri("/products/7"), &seven),
        (Target::uri("https://any.example/products/7?y"), &seven),
        (Target::uri("/products/%37"), &seven),
        (Target::uri("/products/a%20b"), &a_b),
        (bound("7"), &seven),
        (Target::pattern("/products/{any}").bind("any", 7), &seven),
        (bound("a b"), &a_b),
        (Target::pattern("/products/{id}"), &each),
        (Target::pattern("/products"), &["/products"]),
        (Target::tag("product:a b"), &a_b),
        (Target::tag("product:*"), &[]),
        (Target::everything(), &all),
    ];
    let cache = Cache::new(&Origin::counting(&[]), shop());
    for (target, expected) in cases {
        missed(&cache, &all).await;
        let outcome = cache.handle().invalidate(target.clone()).await.unwrap();
        assert_eq!(outcome, Invalidated::Applied);
        assert_eq!(missed(&cache, &all).await, expected, "{target:?}");
    }
}

#[tokio::test]
async fn what_names_nothing_is_an_error_and_invalidates_nothing() {
    let cache = Cache::new(&Origin::counting(&[]), shop());
    cache.get("/products").await;
    let targets = [
        Target::uri(""),
        Target::uri("products"),
        Target::uri("/a b"),
        Target::pattern("/nowhere/{id}"),
        Target::pattern("/account"),
        Target::pattern("/products/{id"),
        Target::pattern("/products/{id}").bind("name", 7),
        Target::pattern("/*"),
        Target::pattern(""),
        Target::tag(""),
    ];
    for target in targets {
        let error = cache.handle().invalidate(target.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{target:?}");
    }
    assert_eq!(cache.get("/products").await.text(), "1");
    assert_eq!(cache.handle().stats().store.invalidations, 0);
}

#[tokio::test]
async fn a_response_is_invalidated_by_any_of_its_handlers_tags() {
    let cache = Cache::new(&Origin::counting(&[]), everywhere(ttl(60).tag("rule")));
    for tag in ["rule", "one", "two", "ümlaut *"] {
        cache.origin.answer(|_| {
            let mut response = response(&[], "tagged");
            let tags = Tags::new(["one", "two", "ümlaut *"]);
            response.extensions_mut().insert(tags);
            response
        });
        cache.get("/a").await;
        assert!(cache.get("/a").await.cache_status().starts_with("hit"));
        let _ = cache.handle().invalidate(Target::tag(tag)).await.unwrap();
        let answer = cache.get("/a").await;
        assert_eq!(
            answer.cache_status(),
            "fwd=miss; stored; detail=invalidated",
            "{tag}"
        );
    }
}

#[tokio::test]
async fn whoever_has_the_answer_to_a_write_reads_what_was_written() {
    let store = Double::new();
    let (version, origin) = database();
    let cache = Cache::over(CacheLayer::new(store.clone()), &origin, everywhere(ttl(60)));
    // Another process that shares the store, and knows nothing of this one.
    let rules = everywhere(ttl(60)).build().unwrap();
    let other = CacheLayer::new(store).rules(rules).layer(origin);
    for _ in 0..10 {
        for _ in 0..2 {
            assert_eq!(
                cache.get("/a").await.text(),
                version.load(Ordering::SeqCst).to_string()
            );
        }
        cache.method("PUT", "/a").await;
        let read = other.clone().oneshot(get("/a")).await.unwrap();
        let expected = version.load(Ordering::SeqCst).to_string();
        assert_eq!(Answer::read(read).await.text(), expected);
    }
}

#[tokio::test]
async fn a_slow_miss_that_began_before_an_invalidation_is_never_served_after_it() {
    // The miss is left after every possible number of polls, once in the middle of reading.
    for polls in 0..40 {
        let (version, origin) = database();
        let store = CacheLayer::new(Double::new());
        let cache = Cache::over(store, &origin, everywhere(ttl(60).tag("t")));
        let mut miss = Box::pin(async {
            let mut answer = cache.send(get("/a")).await.unwrap();
            tokio::task::yield_now().await;
            let frame = http_body_util::BodyExt::frame(answer.body_mut()).await;
            tokio::task::yield_now().await;
            drop(frame);
        });
        let mut done = false;
        for _ in 0..polls {
            let mut context = Context::from_waker(Waker::noop());
            done = done || miss.as_mut().poll(&mut context) == Poll::Ready(());
            tokio::task::yield_now().await;
        }
        version.store(2, Ordering::SeqCst);
        let target = if polls % 2 == 0 {
            Target::tag("t")
        } else {
            Target::uri("/a")
        };
        let _ = cache.handle().invalidate(target).await.unwrap();
        if !done {
            miss.await;
        }
        assert!(
            cache
                .handle()
                .shutdown(std::time::Duration::from_secs(1))
                .await
        );
        for _ in 0..3 {
            assert_eq!(cache.get("/a").await.text(), "2", "after {polls} polls");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_slow_misses_never_bring_back_what_was_invalidated() {
    for (wait, calls) in [(Duration::ZERO, 8), (Duration::from_secs(5), 1)] {
        slow_misses(wait, calls).await;
    }
}

/// Eight misses at a time wait so long for each other, and so many of them go to the handler.
async fn slow_misses(wait: Duration, forwarded: usize) {
    let (version, origin) = database();
    let cache = Cache::new(&origin, everywhere(ttl(60))).with(|layer| layer.collapse_wait(wait));
    let cache = Arc::new(cache);
    for round in 0..100 {
        let uri = format!("/{round}");
        let hold = origin.hold();
        let calls = origin.made();
        let misses: Vec<_> = (0..8)
            .map(|_| {
                let (cache, uri) = (Arc::clone(&cache), uri.clone());
                tokio::spawn(async move { cache.get(&uri).await })
            })
            .collect();
        while origin.made() < calls + forwarded {
            tokio::task::yield_now().await;
        }
        let new = version.fetch_add(1, Ordering::SeqCst) + 1;
        let invalidated = if round % 2 == 0 {
            cache.handle().invalidate(Target::uri(&uri)).await
        } else {
            cache.handle().invalidate(Target::everything()).await
        };
        assert_eq!(invalidated.unwrap(), Invalidated::Applied);
        drop(hold);
        for miss in misses {
            let answer = miss.await.unwrap();
            // What came to share an answer may have come after the invalidation.
            let is_late = forwarded == 1 && answer.text() == new.to_string();
            assert!(
                answer.text() == (new - 1).to_string() || is_late,
                "its own old answer"
            );
        }
        for _ in 0..2 {
            assert_eq!(
                cache.get(&uri).await.text(),
                new.to_string(),
                "round {round}"
            );
        }
    }
    let stats = cache.handle().stats();
    let refusals = &stats.route("/{*path}").unwrap().refusals;
    assert!(refusals["invalidated"] >= 100 * u64::try_from(forwarded).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_and_readers_on_all_threads_read_what_was_written() {
    let (_, origin) = database();
    let cache = Arc::new(Cache::new(&origin, everywhere(ttl(60))));
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let cache = Arc::clone(&cache);
            tokio::spawn(async move {
                for round in 0..300 {
                    if (round + task) % 4 == 0 {
                        let written = cache.method("PUT", "/a").await;
                        let written: usize = written.text().parse().unwrap();
                        let read: usize = cache.get("/a").await.text().parse().unwrap();
                        assert!(read >= written, "{read} after {written} was written");
                    } else {
                        cache.get("/a").await;
                        tokio::task::yield_now().await;
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert!(cache.handle().stats().hits() > 0);
}

#[tokio::test]
async fn a_write_whose_client_goes_away_is_still_an_invalidation() {
    for polls in 1..12 {
        let (version, origin) = database();
        let store = CacheLayer::new(Double::new());
        let cache = Cache::over(store, &origin, everywhere(ttl(60)));
        cache.get("/a").await;
        settle().await;
        assert!(cache.get("/a").await.cache_status().starts_with("hit"));
        let hold = origin.hold();
        let mut write = Box::pin(cache.method("PUT", "/a"));
        for n in 0..polls {
            let mut context = Context::from_waker(Waker::noop());
            if write.as_mut().poll(&mut context).is_ready() {
                break;
            }
            if n == polls / 2 {
                origin.release();
            }
        }
        assert_eq!(version.load(Ordering::SeqCst), 2, "committed");
        drop((write, hold));
        let answer = cache.get("/a").await;
        assert_eq!(answer.text(), "2", "gone after {polls} polls: {answer:?}");
    }
}

#[tokio::test]
async fn a_write_that_fails_without_an_answer_invalidates_for_it_may_have_been_done() {
    for panics in [false, true] {
        let (_, origin) = database();
        let cache = Cache::new(&origin, shop());
        cache.get("/products").await;
        cache.get("/products/7").await;
        if panics {
            origin.panic();
        } else {
            origin.fail();
        }
        let service = cache.service();
        let write = service.oneshot(request(Method::PUT, "/products/7", &[]));
        let failed = tokio::spawn(write).await;
        assert!(failed.is_err() == panics && failed.is_ok_and(|answer| answer.is_err()) != panics);
        let (_, healthy) = database();
        let cache = Cache {
            origin: healthy,
            ..cache
        };
        assert_eq!(missed(&cache, &["/products", "/products/7"]).await.len(), 2);
    }
}

#[tokio::test]
async fn no_field_of_a_write_keeps_it_from_invalidating() {
    #[rustfmt::skip]
    let fields: [(&str, &str); 8] = [
        ("upgrade", "h2c"),
        ("content-type", "application/grpc"),
        ("accept", "text/event-stream"),
        ("x-http-method-override", "GET"),
        ("if-match", "\"x\""),
        ("host", "in valid"),
        ("cache-control", "only-if-cached"),
        ("authorization", "Basic YQ=="),
    ];
    for method in [Method::POST, Method::DELETE] {
        for field in fields {
            let cache = Cache::new(&Origin::counting(&[]), shop());
            cache.get("/products/7").await;
            cache.get("/products").await;
            cache
                .fetch(request(method.clone(), "/products/7", &[field]))
                .await;
            let both = ["/products/7", "/products"];
            assert_eq!(missed(&cache, &both).await, both, "{method} {field:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_made_while_a_write_is_under_way_does_not_outlive_it() {
    let (_, origin) = database();
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    cache.get("/a").await;
    let hold = origin.hold();
    let mut write = Box::pin(cache.method("PUT", "/a"));
    let mut context = Context::from_waker(Waker::noop());
    assert!(write.as_mut().poll(&mut context).is_pending());
    assert_eq!(
        cache.get("/a").await.text(),
        "1",
        "nothing is acknowledged yet"
    );
    drop(hold);
    write.await;
    assert_eq!(cache.get("/a").await.text(), "2");
}

#[tokio::test]
async fn a_streamed_answer_to_a_write_comes_after_the_invalidation_and_untouched() {
    use http_body::Frame;
    let (_, origin) = database();
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    cache.get("/a").await;
    origin.answer(|_| {
        let frames = ["one", "two"].map(|data| Ok(Frame::data(data.into())));
        response(&[("x-own", "1")], "").map(|_: Body| crate::support::stream(frames))
    });
    let answer = cache.send(request(Method::POST, "/a", &[])).await.unwrap();
    origin.answer(|_| response(&[], "new"));
    assert_eq!(
        cache.get("/a").await.text(),
        "new",
        "before its body is read"
    );
    let answer = Answer::read(answer).await;
    assert_eq!((answer.text(), answer.header("x-own")), ("onetwo", "1"));
}

#[tokio::test]
async fn groups_are_of_one_origin_and_need_no_rule() {
    let origin = Origin::new(|call| match call.head.method {
        Method::GET => response(
            &[("cache-control", "max-age=60"), ("cache-groups", "\"g\"")],
            call.number.to_string(),
        ),
        _ => response(&[("cache-group-invalidation", "\"g\"")], ""),
    });
    let cache = Cache::new(&origin, Rules::builder());
    let host = |host: &'static str| [("host", host)];
    for name in ["a.example", "b.example"] {
        cache.get_with("/x", &host(name)).await;
    }
    let post = request(Method::POST, "/y", &host("A.example:80"));
    cache.fetch(post).await;
    let changed = cache.get_with("/x", &host("a.example")).await;
    assert_eq!(changed.text(), "4", "RFC 9875 §3");
    let other = cache.get_with("/x", &host("b.example")).await;
    assert_eq!(other.text(), "2", "RFC 9875 §2");
}
