//! Parts of responses: cut from what is stored, kept, completed and joined.

use http::StatusCode;
use tower_response_cache::{Policy, Rules, RulesBuilder, Tags, Target};

use crate::support::{Answer, Cache, Call, Origin, everywhere, get, response, status, ttl};

const TEXT: &str = "0123456789";
const LONG_AGO: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

fn letter() -> RulesBuilder {
    Rules::builder().policy(Policy::rfc9111())
}

/// An origin that knows ranges of the form `a-b` and `a-`, and `If-Range` by its entity-tag.
fn ranging(tag: &'static str) -> Origin {
    Origin::new(move |call| ranged(call, tag, TEXT))
}

fn ranged(call: &Call, tag: &str, text: &str) -> http::Response<crate::support::Body> {
    let mut fields = vec![("cache-control", "max-age=60"), ("x-own", "1")];
    if !tag.is_empty() {
        fields.push(("etag", tag));
    }
    let holds = ["", tag].contains(&call.header("if-range"));
    let asked = call
        .header("range")
        .strip_prefix("bytes=")
        .filter(|_| holds);
    let Some((first, last)) = asked.and_then(|range| range.split_once('-')) else {
        return response(&fields, text.to_owned());
    };
    let end = text.len();
    let first: usize = first.parse().expect("a range that this origin knows");
    let last = last.parse().map_or(end, |last: usize| end.min(last + 1));
    if first >= end {
        return status(416, &[("content-range", &format!("bytes */{end}"))], "");
    }
    let range = format!("bytes {first}-{}/{end}", last - 1);
    fields.push(("content-range", &range));
    status(206, &fields, text[first..last].to_owned())
}

async fn part(cache: &Cache, range: &str) -> Answer {
    cache.get_with("/a", &[("range", range)]).await
}

#[tokio::test]
async fn a_range_of_a_complete_stored_response_is_cut_from_it() {
    #[rustfmt::skip]
    let cases = [
        ("bytes=0-0", "0", "bytes 0-0/10"),
        ("bytes=2-5", "2345", "bytes 2-5/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=-99", TEXT, "bytes 0-9/10"),
        ("bytes=5-99", "56789", "bytes 5-9/10"),
        ("bytes=-9223372036854775807", TEXT, "bytes 0-9/10"),
        ("bytes=9-18446744073709551615", "9", "bytes 9-9/10"),
    ];
    let stated: &[_] = &[("cache-control", "max-age=60")];
    for (rules, fields) in [(everywhere(ttl(60)), [].as_slice()), (letter(), stated)] {
        let fields = fields.to_vec();
        let origin = Origin::new(move |_| response(&fields, TEXT));
        let cache = Cache::new(&origin, rules);
        let whole = cache.get("/a").await;
        for (range, bytes, content_range) in cases {
            let answer = part(&cache, range).await;
            assert_eq!(
                (answer.status, answer.text()),
                (StatusCode::PARTIAL_CONTENT, bytes),
                "PA1"
            );
            assert_eq!(
                answer.header("content-range"),
                content_range,
                "PA1: {range}"
            );
            assert_eq!(answer.header("content-length"), bytes.len().to_string());
            assert_eq!(answer.header("etag"), whole.header("etag"));
            assert_eq!(answer.cache_status(), "hit; ttl=60");
        }
        assert_eq!(origin.calls(), 1);
    }
}

#[tokio::test]
async fn several_ranges_are_answered_in_one_message() {
    let cache = Cache::new(
        &Origin::new(|_| response(&[("content-type", "text/plain")], TEXT)),
        everywhere(ttl(60)),
    );
    cache.get("/a").await;
    let answer = part(&cache, "bytes=0-1,4-5,-1").await;
    assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT);
    let (kind, boundary) = answer
        .header("content-type")
        .split_once("; boundary=")
        .unwrap();
    assert_eq!(kind, "multipart/byteranges");
    assert!(!answer.headers.contains_key("content-range"));
    let expected: String = [("0-1", "01"), ("4-5", "45"), ("9-9", "9")]
        .map(|(range, bytes)| {
            let fields = format!("Content-Type: text/plain\r\nContent-Range: bytes {range}/10");
            format!("--{boundary}\r\n{fields}\r\n\r\n{bytes}\r\n")
        })
        .concat();
    let text = answer
        .text()
        .replace("content-", "Content-")
        .replace("-type", "-Type");
    let text = text.replace("-range", "-Range");
    assert_eq!(text.trim_start(), format!("{expected}--{boundary}--\r\n"));
    assert_eq!(
        answer.header("content-length"),
        answer.body.len().to_string()
    );
}

#[tokio::test]
async fn what_is_no_range_or_too_many_gets_the_whole() {
    let cache = Cache::new(&Origin::new(|_| response(&[], TEXT)), everywhere(ttl(60)));
    cache.get("/a").await;
    let many = format!("bytes={}", ["0-0"; 1300].join(","));
    let ranges = [
        "bytes=",
        "bytes=5-4",
        "bytes=a-b",
        "bytes",
        "items=0-1",
        "bytes=1",
        &many,
        "bytes=0-,0-,0-,0-,0-,0-,0-,0-,0-",
    ];
    for range in ranges {
        let answer = part(&cache, range).await;
        assert_eq!(
            (answer.status, answer.text()),
            (StatusCode::OK, TEXT),
            "{range:.20}"
        );
    }
    let upper = part(&cache, "BYTES=0-1").await;
    assert_eq!(
        upper.status,
        StatusCode::PARTIAL_CONTENT,
        "units are case-insensitive"
    );
}

#[tokio::test]
async fn a_range_beyond_the_end_is_a_416_with_the_length() {
    let cache = Cache::new(&Origin::new(|_| response(&[], TEXT)), everywhere(ttl(60)));
    cache.get("/a").await;
    for range in [
        "bytes=10-",
        "bytes=99-100",
        "bytes=-0",
        "bytes=18446744073709551615-",
    ] {
        let answer = part(&cache, range).await;
        assert_eq!(answer.status, StatusCode::RANGE_NOT_SATISFIABLE, "{range}");
        assert_eq!(answer.header("content-range"), "bytes */10");
        assert!(answer.body.is_empty());
    }
    cache.origin.answer(|_| response(&[], ""));
    cache.get("/empty").await;
    let answer = cache.get_with("/empty", &[("range", "bytes=0-")]).await;
    assert!(answer.body.is_empty());
    assert!([200, 416].contains(&answer.status.as_u16()));
}

#[tokio::test]
async fn if_range_decides_whether_the_range_counts() {
    let fields = [
        ("etag", "\"v\""),
        ("last-modified", LONG_AGO),
        ("cache-control", "max-age=60"),
    ];
    let cache = Cache::new(&Origin::new(move |_| response(&fields, TEXT)), letter());
    cache.get("/a").await;
    let cases = [
        ("\"v\"", 206),
        ("\"w\"", 200),
        ("W/\"v\"", 200),
        (LONG_AGO, 206),
        ("Sun, 06 Nov 1994 08:49:38 GMT", 200),
        ("nonsense", 200),
    ];
    for (validator, code) in cases {
        let asks = [("range", "bytes=0-1"), ("if-range", validator)];
        assert_eq!(
            cache.get_with("/a", &asks).await.status,
            code,
            "{validator}"
        );
    }
    let asks = [("range", "bytes=0-1"), ("if-none-match", "\"v\"")];
    assert_eq!(
        cache.get_with("/a", &asks).await.status,
        304,
        "preconditions come first"
    );
    let head = crate::support::request(http::Method::HEAD, "/a", &[("range", "bytes=0-1")]);
    assert_eq!(
        cache.fetch(head).await.status,
        StatusCode::OK,
        "only GET has ranges"
    );
}

#[tokio::test]
async fn a_policy_can_leave_ranges_to_the_handler() {
    let origin = ranging("\"v\"");
    let cache = Cache::new(
        &origin,
        everywhere(ttl(60).policy(Policy::guarded().serve_ranges(false))),
    );
    cache.get("/a").await;
    let answer = part(&cache, "bytes=2-3").await;
    assert_eq!(
        (answer.status, answer.text(), origin.calls()),
        (StatusCode::PARTIAL_CONTENT, "23", 2)
    );
    assert_eq!(cache.get("/a").await.text(), TEXT);
}

#[tokio::test]
async fn a_miss_with_a_range_is_the_handlers_to_answer() {
    let origin = ranging("\"v\"");
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    for calls in 1..3 {
        let answer = part(&cache, "bytes=2-3").await;
        assert_eq!(
            (answer.text(), answer.status.as_u16(), origin.calls()),
            ("23", 206, calls)
        );
    }
    origin.answer(|_| response(&[], TEXT));
    assert_eq!(
        part(&cache, "bytes=2-3").await.text(),
        TEXT,
        "it need not know ranges"
    );
    let cut = part(&cache, "bytes=2-3").await;
    assert_eq!((cut.text(), cut.cache_status()), ("23", "hit; ttl=60"));
}

#[tokio::test]
async fn a_stored_part_answers_for_the_bytes_it_holds() {
    let origin = ranging("\"v\"");
    let cache = Cache::new(&origin, letter());
    let first = part(&cache, "bytes=2-7").await;
    assert_eq!(first.cache_status(), "fwd=uri-miss; stored");
    #[rustfmt::skip]
    let held = [
        ("bytes=2-7", "234567", "bytes 2-7/10"),
        ("bytes=3-4", "34", "bytes 3-4/10"),
        ("bytes=7-7", "7", "bytes 7-7/10"),
    ];
    for (range, bytes, content_range) in held {
        let answer = part(&cache, range).await;
        assert_eq!(
            (answer.status, answer.text()),
            (StatusCode::PARTIAL_CONTENT, bytes),
            "PA2, PA3"
        );
        assert_eq!(answer.header("content-range"), content_range);
        assert_eq!(answer.header("x-own"), "1");
        assert_eq!(answer.cache_status(), "hit; ttl=60");
    }
    assert_eq!(origin.calls(), 1);
    for range in ["bytes=1-3", "bytes=7-8", "bytes=8-9", "bytes=5-"] {
        let cache = Cache::new(&ranging("\"v\""), letter());
        part(&cache, "bytes=2-7").await;
        let answer = part(&cache, range).await;
        assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT);
        assert_eq!(answer.cache_status(), "fwd=partial; stored", "{range}");
    }
}

#[tokio::test]
async fn a_stored_end_answers_open_and_suffix_ranges() {
    let origin = ranging("\"v\"");
    let cache = Cache::new(&origin, letter());
    part(&cache, "bytes=4-").await;
    assert_eq!(part(&cache, "bytes=6-").await.text(), "6789", "PA3");
    assert_eq!(part(&cache, "bytes=5-99").await.text(), "56789", "PA3");
    cache.origin.answer(|_| unreachable!("it is stored"));
    assert_eq!(part(&cache, "bytes=-2").await.text(), "89", "PA3");
}

#[tokio::test]
async fn a_full_request_is_never_answered_from_a_part() {
    for tag in ["\"v\"", "W/\"v\"", ""] {
        let origin = ranging(tag);
        let cache = Cache::new(&origin, letter());
        part(&cache, "bytes=2-7").await;
        let answer = cache.get("/a").await;
        assert_eq!(
            (answer.status, answer.text()),
            (StatusCode::OK, TEXT),
            "{tag}"
        );
        let again = cache.get("/a").await;
        assert_eq!((again.text(), again.cache_status()), (TEXT, "hit; ttl=60"));
        assert_eq!(origin.calls(), 2);
    }
}

#[tokio::test]
async fn a_prefix_is_completed() {
    let origin = ranging("\"v\"");
    let cache = Cache::new(&origin, letter());
    part(&cache, "bytes=0-3").await;
    let answer = cache.fetch_by_content(get("/a")).await;
    let asked = origin.last();
    assert_eq!(asked.header("range"), "bytes=4-", "PA4");
    assert_eq!(asked.header("if-range"), "\"v\"", "PA4");
    assert_eq!(
        (answer.status, answer.text()),
        (StatusCode::OK, TEXT),
        "PA4"
    );
    assert_eq!(answer.header("content-length"), "10");
    assert!(!answer.headers.contains_key("content-range"));
    assert_eq!(answer.cache_status(), "fwd=partial; fwd-status=206; stored");
    assert_eq!(answer.headers.get_all("cache-status").iter().count(), 1);
    let again = cache.get("/a").await;
    assert_eq!((again.text(), again.cache_status()), (TEXT, "hit; ttl=60"));
    assert_eq!(again.header("content-length"), "10");
    assert_eq!(origin.calls(), 2);
}

#[tokio::test]
async fn what_is_made_of_parts_has_the_tags_of_each() {
    // A rest of its own, and a part that is joined.
    for second in ["", "bytes=4-9"] {
        let origin = Origin::new(|call| {
            let mut response = ranged(call, "\"v\"", TEXT);
            if call.number == 1 {
                response.extensions_mut().insert(Tags::new(["first"]));
            }
            response
        });
        let cache = Cache::new(&origin, letter());
        part(&cache, "bytes=0-3").await;
        match second {
            "" => cache.fetch_by_content(get("/a")).await,
            range => part(&cache, range).await,
        };
        assert_eq!(cache.get("/a").await.cache_status(), "hit; ttl=60");
        let _ = cache
            .handle()
            .invalidate(Target::tag("first"))
            .await
            .unwrap();
        assert_eq!(
            cache.get("/a").await.cache_status(),
            "fwd=miss; stored; detail=invalidated"
        );
    }
}

#[tokio::test]
async fn a_prefix_of_what_has_changed_is_replaced() {
    let origin = ranging("\"v\"");
    let cache = Cache::new(&origin, letter());
    part(&cache, "bytes=0-3").await;
    origin.answer(|call| ranged(call, "\"w\"", "abcdefghij"));
    for _ in 0..2 {
        let answer = cache.get("/a").await;
        assert_eq!(
            (answer.status, answer.text()),
            (StatusCode::OK, "abcdefghij"),
            "PA4"
        );
    }
    assert_eq!(origin.calls(), 2);
}

#[tokio::test]
async fn a_rest_of_something_else_is_never_joined() {
    // It ignores If-Range.
    let careless = |tag: &'static str, range: &'static str| {
        move |_: &Call| status(206, &[("etag", tag), ("content-range", range)], "efghij")
    };
    for (tag, range, can_be_repeated) in [
        ("\"w\"", "bytes 4-9/10", true),
        ("\"v\"", "bytes 5-10/11", true),
        ("W/\"v\"", "bytes 4-9/10", true),
        ("\"w\"", "bytes 4-9/10", false),
    ] {
        let origin = ranging("\"v\"");
        let cache = Cache::new(&origin, letter());
        part(&cache, "bytes=0-3").await;
        let careless = careless(tag, range);
        origin.answer(move |call| match call.header("range") {
            "" => ranged(call, "\"w\"", "abcdefghij"),
            _ => careless(call),
        });
        let answer = match can_be_repeated {
            true => cache.fetch_by_content(get("/a")).await,
            false => cache.get("/a").await,
        };
        assert_eq!(
            (answer.status, answer.text()),
            (StatusCode::OK, "abcdefghij"),
            "{tag} {range}"
        );
        assert_eq!(origin.calls(), 2 + usize::from(can_be_repeated));
    }
}

#[tokio::test]
async fn a_rest_without_validator_is_asked_for_but_not_joined() {
    let origin = ranging("");
    let cache = Cache::new(&origin, letter());
    part(&cache, "bytes=0-3").await;
    let answer = cache.fetch_by_content(get("/a")).await;
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, TEXT));
    assert_eq!(
        origin.calls(),
        3,
        "PA4: once for the rest, and once for all"
    );
    assert_eq!(origin.last().header("range"), "");
    assert_eq!(cache.get("/a").await.text(), TEXT);
    assert_eq!(origin.calls(), 3);
}

#[tokio::test]
async fn a_rest_that_fails_leaves_what_is_stored() {
    let origin = ranging("\"v\"");
    let cache = Cache::new(&origin, letter());
    part(&cache, "bytes=0-3").await;
    origin.answer(|_| status(503, &[], "down"));
    let answer = cache.fetch_by_content(get("/a")).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    origin.answer(|call| ranged(call, "\"v\"", TEXT));
    assert_eq!(
        part(&cache, "bytes=1-2").await.cache_status(),
        "hit; ttl=60"
    );
}

#[tokio::test]
async fn parts_of_one_representation_are_joined() {
    let origin = ranging("\"v\"");
    let cache = Cache::new(&origin, letter());
    part(&cache, "bytes=4-6").await;
    part(&cache, "bytes=0-3").await;
    let both = part(&cache, "bytes=1-5").await;
    assert_eq!(
        (both.text(), both.header("content-range")),
        ("12345", "bytes 1-5/10")
    );
    assert_eq!(both.cache_status(), "hit; ttl=60");
    part(&cache, "bytes=5-9").await;
    let whole = cache.get("/a").await;
    assert_eq!((whole.status, whole.text()), (StatusCode::OK, TEXT));
    assert_eq!(whole.cache_status(), "hit; ttl=60");
    assert_eq!(whole.header("content-length"), "10");
    assert!(!whole.headers.contains_key("content-range"));
    assert_eq!(origin.calls(), 3);
}

#[tokio::test]
async fn parts_of_different_representations_are_not_joined() {
    for (one, other) in [("\"v\"", "\"w\""), ("W/\"v\"", "W/\"v\""), ("", "")] {
        let origin = ranging(one);
        let cache = Cache::new(&origin, letter());
        part(&cache, "bytes=0-4").await;
        origin.answer(move |call| ranged(call, other, "abcdefghij"));
        assert_eq!(part(&cache, "bytes=5-9").await.text(), "fghij");
        assert_eq!(cache.get("/a").await.text(), "abcdefghij", "{one} {other}");
    }
}

#[tokio::test]
async fn a_part_whose_length_is_not_what_it_says_is_not_extended() {
    let origin = Origin::new(|_| {
        let fields = [
            ("cache-control", "max-age=60"),
            ("etag", "\"v\""),
            ("content-range", "bytes 0-3/10"),
        ];
        status(206, &fields, "01")
    });
    let cache = Cache::new(&origin, letter());
    part(&cache, "bytes=0-3").await;
    origin.answer(|call| ranged(call, "\"v\"", TEXT));
    assert_eq!(
        part(&cache, "bytes=0-1").await.text(),
        "01",
        "PA3: what is really held"
    );
    assert_eq!(cache.get("/a").await.text(), TEXT);
}

#[tokio::test]
async fn a_part_of_unknown_length_that_is_all_there_is_is_no_error_to_a_full_request() {
    let origin = Origin::new(|call| match call.header("range") {
        "bytes=0-99" => {
            let fields = [
                ("cache-control", "max-age=60"),
                ("etag", "\"v\""),
                ("content-range", "bytes 0-9/*"),
            ];
            status(206, &fields, TEXT)
        }
        _ => ranged(call, "\"v\"", TEXT),
    });
    let cache = Cache::new(&origin, letter());
    part(&cache, "bytes=0-99").await;
    let answer = cache.get("/a").await;
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, TEXT));
}

#[tokio::test]
async fn a_stale_complete_response_is_validated_before_it_is_cut() {
    let fields = [("cache-control", "max-age=10"), ("etag", "\"v\"")];
    let origin = Origin::new(move |call| match call.header("if-none-match") {
        "\"v\"" => status(304, &fields, ""),
        _ => response(&fields, TEXT),
    });
    let cache = Cache::new(&origin, letter());
    cache.get("/a").await;
    cache.advance(11);
    let answer = part(&cache, "bytes=2-3").await;
    assert_eq!(origin.last().header("range"), "", "the whole is validated");
    assert_eq!(
        (answer.status, answer.text()),
        (StatusCode::PARTIAL_CONTENT, "23")
    );
    assert_eq!(answer.cache_status(), "fwd=stale; fwd-status=304; ttl=10");
}

#[tokio::test]
async fn a_part_is_not_confirmed_for_who_asks_for_all() {
    let origin = Origin::new(|call| {
        let fields = [
            ("vary", "x"),
            ("etag", "\"v\""),
            ("cache-control", "max-age=60"),
        ];
        if call.header("if-none-match") == "\"v\"" {
            return status(304, &fields, "");
        }
        if call.header("range").is_empty() {
            return response(&fields, TEXT);
        }
        let mut part = status(206, &fields, &TEXT[..4]);
        let range = "bytes 0-3/10".parse().unwrap();
        part.headers_mut().insert("content-range", range);
        part
    });
    let cache = Cache::new(&origin, letter());
    let fields = [("range", "bytes=0-3"), ("x", "a")];
    assert_eq!(cache.get_with("/a", &fields).await.status, 206);
    let all = cache.get_with("/a", &[("x", "b")]).await;
    assert_eq!((all.status, all.text()), (StatusCode::OK, TEXT), "PA2");
}

#[tokio::test]
async fn a_head_takes_no_part_in_ranges() {
    let origin = ranging("\"v\"");
    let cache = Cache::new(&origin, letter());
    part(&cache, "bytes=0-3").await;
    for fields in [&[][..], &[("range", "bytes=1-2")]] {
        let head = crate::support::request(http::Method::HEAD, "/a", fields);
        cache.fetch(head).await;
        assert_eq!(origin.last().head.method, http::Method::HEAD);
        let asked = fields.first().map_or("", |(_, range)| range);
        assert_eq!(origin.last().header("range"), asked, "nothing is completed");
    }
}

#[tokio::test]
async fn a_range_that_is_nowhere_is_no_answer_for_others() {
    let fields = [("cache-control", "max-age=60")];
    let origin = Origin::new(move |call| match call.header("range") {
        "" => response(&fields, TEXT),
        _ => status(416, &fields, ""),
    });
    let cache = Cache::new(&origin, letter());
    let range = [("range", "bytes=99-")];
    assert_eq!(cache.get_with("/a", &range).await.status, 416);
    assert_eq!(cache.get("/a").await.text(), TEXT);
    let own = cache.get_with("/a", &range).await;
    assert_eq!(
        (own.status.as_u16(), own.header("cache-control")),
        (416, "")
    );
    assert_eq!(origin.calls(), 2);
}
