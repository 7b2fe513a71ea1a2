//! Anything at all in any field: nothing panics, and what is doubtful is read
//! as a restriction.

use std::time::Duration;

use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use proptest::collection::vec;
use proptest::prelude::*;

use super::age::Exchange;
use super::cache_control::RequestDirectives;
use super::date::HttpDate;
use super::freshness::{Reading, Terms};
use super::preconditions;
use super::range::{ContentRange, Ranges, Selection, if_range_holds};
use super::reuse::{self, AfterFailure, Failure, Leniency, Reuse};
use super::storing::{Arrival, keep_dated, keep_storable};
use super::targeted::Binding;
use super::uri::Target;
use super::validation::{self, Nominee};
use super::vary::{Candidate, Nominated, NormalForm, Vary, select};
use super::{fields, groups, invalidation, no_vary_search::NoVarySearch};

/// Sat, 21 Nov 2026 09:00:00 GMT.
const NOW: HttpDate = HttpDate(1_795_251_600);

const NAMES: [&str; 30] = [
    "accept-encoding",
    "accept-language",
    "age",
    "cache-control",
    "cache-group-invalidation",
    "cache-groups",
    "cdn-cache-control",
    "connection",
    "content-language",
    "content-length",
    "content-location",
    "content-range",
    "date",
    "etag",
    "expires",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "no-vary-search",
    "pragma",
    "range",
    "set-cookie",
    "te",
    "transfer-encoding",
    "vary",
    "x",
];

/// What makes nearly sense, more often than bytes alone would.
const WORDS: [&str; 50] = [
    "max-age=",
    "s-maxage=",
    "stale-while-revalidate=",
    "stale-if-error=",
    "min-fresh=",
    "max-stale",
    "no-store",
    "no-cache",
    "no-cache=\"a, etag\", ",
    "private",
    "private=\"",
    "must-revalidate",
    "must-understand",
    "public",
    "bytes=",
    "bytes ",
    "W/\"",
    "\"a\"",
    "/../",
    "http://b",
    "http://c",
    "?q=1",
    "params",
    "params=(",
    "key-order",
    "except=",
    "connection",
    "cache-control",
    "accept-language",
    "en",
    "de;q=0.5",
    "Sat, 21 Nov 2026 09:00:00 GMT",
    "Saturday, 21-Nov-26 09:00:00 GMT",
    "Sat Nov 21 09:00:00 2026",
    "0-",
    "-1",
    "/10",
    "0",
    "60",
    "18446744073709551616",
    "4294967296",
    ", ",
    ", ",
    ", ",
    "=",
    "\"",
    "\"",
    "\\",
    ";",
    "*",
];

/// Makes fields of bytes: some begin a line, some stand for a word, the rest for themselves.
fn anything() -> impl Strategy<Value = HeaderMap> {
    vec(any::<u8>(), 0..160).prop_map(|bytes| {
        let mut headers = HeaderMap::new();
        for line in bytes.split(|byte| *byte < b'\t') {
            let Some((name, pieces)) = line.split_first() else {
                continue;
            };
            let value: Vec<u8> = pieces.iter().copied().flat_map(piece).collect();
            headers.append(
                HeaderName::from_static(NAMES[usize::from(*name) % NAMES.len()]),
                HeaderValue::from_bytes(&value).expect("no control characters but HTAB"),
            );
        }
        headers
    })
}

fn piece(byte: u8) -> Vec<u8> {
    match byte {
        b'\t' | b' '..=b'~' | 0xf0.. => vec![byte],
        _ => WORDS[usize::from(byte) % WORDS.len()].into(),
    }
}

fn anyhow() -> impl Strategy<Value = StatusCode> {
    (100..1000_u16).prop_map(|status| StatusCode::from_u16(status).expect("three digits"))
}

/// What a cache would know of a response.
struct Read {
    binding: Binding,
    terms: Terms,
    vary: Vary,
}

fn read(status: StatusCode, response: &HeaderMap) -> Read {
    let targets = [HeaderName::from_static("cdn-cache-control")];
    let binding = Binding::of(response, &targets);
    let exchange = Exchange {
        response_time: NOW,
        delay: Duration::from_secs(1),
    };
    Read {
        terms: Terms::of(status, response, &binding, exchange, Reading::default()),
        vary: Vary::parse(response),
        binding,
    }
}

fn may_store(request: &HeaderMap, status: StatusCode, response: &HeaderMap) -> bool {
    let read = read(status, response);
    let arrival = Arrival {
        method: &Method::GET,
        authorized: false,
        request: &RequestDirectives::parse(request),
        status,
        headers: response,
        directives: &read.binding.directives,
        vary: &read.vary,
        terms: &read.terms,
        names_target: true,
    };
    arrival.may_store().is_ok()
}

/// Puts a line before all others of its name.
fn led_by(name: &'static str, value: &'static str, headers: &HeaderMap) -> HeaderMap {
    let mut led = HeaderMap::new();
    led.append(name, HeaderValue::from_static(value));
    led.extend(
        headers
            .iter()
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    led
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn no_store_and_private_hold_whatever_else_is_said(
        request in anything(), status in anyhow(), mut response in anything(),
    ) {
        response.remove("cdn-cache-control");
        let understands = read(status, &response).binding.directives.must_understand;
        for refusal in ["private", "no-store"] {
            let refused = led_by("cache-control", refusal, &response);
            let overruled = refusal == "no-store" && understands;
            prop_assert!(overruled || !may_store(&request, status, &refused), "{refusal}");
        }
        let refused = led_by("cache-control", "no-store", &request);
        prop_assert!(!may_store(&refused, status, &response));
    }

    #[test]
    fn an_asterisk_in_vary_holds_whatever_else_is_said(
        request in anything(), status in anyhow(), response in anything(),
    ) {
        prop_assert!(!may_store(&request, status, &led_by("vary", "*", &response)));
    }

    #[test]
    fn what_is_stale_is_not_served_where_that_is_forbidden(
        request in anything(), status in anyhow(), response in anything(), resident: u32,
    ) {
        let terms = read(status, &response).terms;
        let age = terms.age(Duration::from_secs(resident.into()));
        let directives = RequestDirectives::parse(&request);
        let decision = reuse::decide(&terms, age, &directives);
        if terms.validate_always {
            prop_assert!(matches!(decision, Reuse::Validate(_)));
        }
        if !terms.is_fresh(age) {
            prop_assert_ne!(decision, Reuse::ServeFresh);
        }
        if terms.forbids_stale && !terms.is_fresh(age) {
            prop_assert!(matches!(decision, Reuse::Validate(_)));
            let leniency = Leniency { unreachable: Duration::MAX, unavailable: Duration::MAX };
            let failed = |failure| reuse::after_failure(&terms, age, &directives, failure, leniency);
            prop_assert_eq!(failed(Failure::Unreachable), AfterFailure::GatewayTimeout);
        }
    }

    #[test]
    fn what_is_stored_has_a_date_and_nothing_of_the_connection(
        status in anyhow(), response in anything(),
    ) {
        let directives = read(status, &response).binding.directives;
        let mut stored = response;
        keep_storable(&mut stored, &directives);
        keep_dated(&mut stored, NOW);
        prop_assert!(matches!(HttpDate::of_field(&stored, &http::header::DATE, NOW), Ok(Some(_))));
        for name in ["connection", "te", "transfer-encoding"] {
            prop_assert!(!stored.contains_key(name), "{name}");
        }
        let mut again = stored.clone();
        fields::strip(&mut again);
        prop_assert_eq!(again, stored);
    }

    #[test]
    fn a_304_never_changes_the_length(stored in anything(), answer in anything()) {
        let length = |fields: &HeaderMap| fields.get_all(CONTENT_LENGTH).iter().cloned().collect::<Vec<_>>();
        let fresh = validation::freshen(&stored, &answer);
        prop_assert_eq!(length(&fresh), length(&stored));
        validation::after_head(&stored, 7, StatusCode::OK, &answer);
    }

    #[test]
    fn a_request_selects_the_response_that_it_brought(
        request in anything(), other in anything(), response in anything(),
    ) {
        let vary = Vary::parse(&response);
        let form = NormalForm::for_response(true, &response);
        let names = vary.fields().unwrap_or_default();
        let nominated = Nominated::new(names, &request, form);
        let language = response.get("content-language").map(HeaderValue::as_bytes);
        let candidate = Candidate {
            vary: &vary,
            nominated: &nominated,
            form,
            date: NOW,
            content_language: language,
        };
        let selected = |request| select([candidate].into_iter(), request).is_some();
        prop_assert_eq!(selected(&request), vary != Vary::Any);
        if vary == Vary::Any {
            prop_assert!(!selected(&other));
        }
    }

    #[test]
    fn whatever_is_asked_of_a_stored_response_has_an_answer(
        request in anything(), response in anything(), length: u64,
    ) {
        let terms = read(StatusCode::OK, &response).terms;
        let etag = response.get("etag");
        let tag = etag.map(HeaderValue::as_bytes);
        preconditions::evaluate(&request, tag, terms.last_modified, terms.date, NOW);
        if_range_holds(&request, tag, terms.last_modified, terms.date, NOW);
        if let Some(Selection::Spans(spans)) =
            Ranges::of_request(&Method::GET, &request).map(|ranges| ranges.of_complete(length))
        {
            prop_assert!(spans.as_slice().iter().all(|span| span.last() < length));
        }
        let not_modified = preconditions::not_modified_fields(&response);
        prop_assert!(!not_modified.contains_key(CONTENT_LENGTH));

        let nominee = Nominee::new(StatusCode::OK, etag, response.get("last-modified"), terms.date);
        let nominees: Vec<_> = nominee.into_iter().collect();
        let mut conditional = request.clone();
        validation::conditional(&mut conditional, &nominees);
        if let (Some(tag), [_]) = (etag, &nominees[..]) {
            let asked = conditional.get("if-none-match").map(HeaderValue::as_bytes);
            let holds = |line: &[u8]| line.windows(tag.len().max(1)).any(|part| part == tag.as_bytes());
            prop_assert!(tag.is_empty() || asked.is_some_and(holds));
        }
        validation::identify(&response, &nominees, &request);
    }

    #[test]
    fn what_an_answer_names_is_of_its_own_origin(status in anyhow(), response in anything()) {
        let target = Target {
            scheme: Some("http"),
            authority: Some(b"b"),
            path: "/a/b",
            query: None,
        };
        for named in invalidation::named_by(target, &response) {
            prop_assert!(named.as_str().starts_with('/'));
        }
        invalidation::represents(target, &response);
        groups::of_response(&response);
        groups::invalidated_by(&Method::POST, status, &response);
        ContentRange::of_field(&response);
        if let Some(rule) = NoVarySearch::parse(&response) {
            rule.canonical(Some("q=1&a"));
        }
    }
}
