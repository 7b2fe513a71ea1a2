//! A client's preconditions against a stored response (RFC 9110 §13,
//! RFC 9111 §4.3.2).

use http::header::{
    CACHE_CONTROL, CONTENT_LOCATION, DATE, ETAG, EXPIRES, HeaderMap, HeaderName, IF_MATCH,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE, LAST_MODIFIED, VARY,
};

use super::date::HttpDate;
use super::etag;

/// What to do about a request's preconditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precondition {
    /// Answer as if there were none.
    Proceed,
    /// Answer 304.
    NotModified,
    /// Only the origin can say: `If-Match` or `If-Unmodified-Since`.
    Forward,
}

/// Evaluates the preconditions of a GET, HEAD or QUERY against a stored
/// response whose status is 2xx; with another one they do not count (RFC 9110
/// §13.2.1).
///
/// A condition by date is ignored beside one by tag, and when it is no single
/// valid date. Without a `Last-Modified` the `Date` stands in for it.
pub(crate) fn evaluate(
    request: &HeaderMap,
    etag: Option<&[u8]>,
    last_modified: Option<HttpDate>,
    date: HttpDate,
    now: HttpDate,
) -> Precondition {
    if request.contains_key(IF_MATCH) || request.contains_key(IF_UNMODIFIED_SINCE) {
        return Precondition::Forward;
    }
    let not_modified = if request.contains_key(IF_NONE_MATCH) {
        etag::any_weak_match(&request.get_all(IF_NONE_MATCH), etag)
    } else {
        let since = HttpDate::of_field(request, &IF_MODIFIED_SINCE, now);
        matches!(since, Ok(Some(since)) if last_modified.unwrap_or(date) <= since)
    };
    match not_modified {
        true => Precondition::NotModified,
        false => Precondition::Proceed,
    }
}

/// Returns those of a stored response's fields that a 304 in its place
/// carries (RFC 9110 §15.4.5).
pub(crate) fn not_modified_fields(stored: &HeaderMap) -> HeaderMap {
    let has_etag = stored.contains_key(ETAG);
    let mut fields = HeaderMap::with_capacity(8);
    for (name, value) in stored {
        if guides_caches(name) || (*name == LAST_MODIFIED && !has_etag) {
            fields.append(name, value.clone());
        }
    }
    fields
}

fn guides_caches(name: &HeaderName) -> bool {
    [CACHE_CONTROL, CONTENT_LOCATION, DATE, ETAG, EXPIRES, VARY].contains(name)
        // Such as CDN-Cache-Control: targeted fields go on downstream (RFC
        // 9213 §2.3).
        || name.as_str().ends_with("-cache-control")
}

#[cfg(test)]
mod tests {
    use super::Precondition::{Forward, NotModified, Proceed};
    use super::*;
    use crate::semantics::fields::tests::headers;

    /// Sat, 21 Nov 2026 09:00:00 GMT.
    const NINE: HttpDate = HttpDate(1_795_251_600);

    const AT: &str = "Sat, 21 Nov 2026 09:00:00 GMT";
    const BEFORE: &str = "Sat, 21 Nov 2026 08:59:59 GMT";
    const AFTER: &str = "Sat, 21 Nov 2026 09:00:01 GMT";

    fn by_date(request: &[(&'static str, &str)], last_modified: Option<HttpDate>) -> Precondition {
        let date = match last_modified {
            Some(_) => HttpDate(NINE.0 + 600),
            None => NINE,
        };
        evaluate(&headers(request), Some(b"\"a\""), last_modified, date, date)
    }

    #[test]
    fn a_request_without_preconditions_proceeds() {
        assert_eq!(by_date(&[], Some(NINE)), Proceed);
    }

    #[test]
    fn if_modified_since_is_compared_with_last_modified_or_else_date() {
        // LM1, LM3
        for (since, expected) in [
            (AT, NotModified),
            (AFTER, NotModified),
            (BEFORE, Proceed),
            ("Saturday, 21-Nov-26 09:00:00 GMT", NotModified),
            ("Sat Nov 21 09:00:00 2026", NotModified),
            ("Sat Nov 21 08:59:59 2026", Proceed),
            ("0", Proceed),
            ("", Proceed),
            ("\u{e9}", Proceed),
        ] {
            let request = [("if-modified-since", since)];
            assert_eq!(by_date(&request, Some(NINE)), expected, "{since}");
            assert_eq!(by_date(&request, None), expected, "{since}");
        }
        let two = [("if-modified-since", AT), ("if-modified-since", AFTER)];
        assert_eq!(by_date(&two, Some(NINE)), Proceed);
    }

    #[test]
    fn if_none_match_is_compared_weakly_and_alone() {
        // ET1, ET3
        for (line, etag, expected) in [
            (r#""a""#, Some(r#""a""#), NotModified),
            (r#""a""#, Some(r#"W/"a""#), NotModified),
            (r#"W/"a""#, Some(r#""a""#), NotModified),
            (r#""x", "a", "y""#, Some(r#""a""#), NotModified),
            ("*", Some(r#""a""#), NotModified),
            ("*", None, NotModified),
            ("a", Some("a"), NotModified),
            ("a", Some(r#""a""#), Proceed),
            (r#""x""#, Some(r#""a""#), Proceed),
            (r#""a""#, None, Proceed),
            ("", Some(r#""a""#), Proceed),
        ] {
            for since in [BEFORE, AFTER] {
                let request = headers(&[("if-none-match", line), ("if-modified-since", since)]);
                let etag = etag.map(str::as_bytes);
                let found = evaluate(&request, etag, Some(NINE), NINE, NINE);
                assert_eq!(found, expected, "{line} {etag:?} {since}");
            }
        }
    }

    #[test]
    fn what_only_the_origin_can_evaluate_is_forwarded() {
        let none_match = ("if-none-match", "*");
        for condition in [("if-match", r#""a""#), ("if-unmodified-since", AFTER)] {
            assert_eq!(by_date(&[condition, none_match], Some(NINE)), Forward);
        }
    }

    #[test]
    fn a_304_carries_what_guides_caches_and_nothing_else() {
        // ET1
        let stored = headers(&[
            ("date", AT),
            ("etag", r#""a""#),
            ("vary", "a"),
            ("vary", "b"),
            ("cache-control", "max-age=1"),
            ("cdn-cache-control", "max-age=2"),
            ("expires", AFTER),
            ("content-location", "/x"),
            ("last-modified", BEFORE),
            ("content-type", "text/plain"),
            ("content-length", "3"),
            ("set-cookie", "a=b"),
            ("age", "3"),
        ]);
        let kept = headers(&[
            ("date", AT),
            ("etag", r#""a""#),
            ("vary", "a"),
            ("vary", "b"),
            ("cache-control", "max-age=1"),
            ("cdn-cache-control", "max-age=2"),
            ("expires", AFTER),
            ("content-location", "/x"),
        ]);
        assert_eq!(not_modified_fields(&stored), kept);
        let untagged = headers(&[("last-modified", BEFORE), ("content-type", "text/plain")]);
        let kept = headers(&[("last-modified", BEFORE)]);
        assert_eq!(not_modified_fields(&untagged), kept);
    }
}
