//! What a successful unsafe request makes unusable (RFC 9111 §4.4).

use http::header::{CONTENT_LOCATION, HeaderMap, LOCATION};
use http::method::Method;
use http::status::StatusCode;
use http::uri::PathAndQuery;

use super::uri::Target;

/// Says whether a method is known to change nothing (RFC 9110 §9.2.1, RFC
/// 10008, and the registry for WebDAV's).
pub(crate) fn is_safe(method: &Method) -> bool {
    matches!(
        method.as_str(),
        "GET" | "HEAD" | "OPTIONS" | "TRACE" | "QUERY" | "PROPFIND" | "REPORT" | "SEARCH"
    )
}

/// Says whether an answer invalidates what is stored for the target URI: it
/// is no error, and its method may have changed something.
pub(crate) fn invalidates(method: &Method, status: StatusCode) -> bool {
    !is_safe(method) && (status.is_success() || status.is_redirection())
}

/// Returns what else such an answer invalidates: the URIs of the same origin
/// that `Location` and `Content-Location` name.
pub(crate) fn named_by(
    target: Target<'_>,
    response: &HeaderMap,
) -> impl Iterator<Item = PathAndQuery> {
    [LOCATION, CONTENT_LOCATION]
        .into_iter()
        .flat_map(|name| response.get_all(name))
        .filter_map(move |reference| target.resolve(reference.as_bytes()))
}

/// Says whether a response represents the target URI itself, so that a POST
/// may leave it for later GETs (RFC 9110 §9.3.3).
pub(crate) fn represents(target: Target<'_>, response: &HeaderMap) -> bool {
    let mut references = response.get_all(CONTENT_LOCATION).iter();
    let first = references.next();
    references.next().is_none()
        && first.is_some_and(|reference| target.is_named_by(reference.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::semantics::fields::tests::headers;

    const TARGET: Target<'_> = Target {
        scheme: Some("https"),
        authority: Some(b"example.com"),
        path: "/a/b",
        query: None,
    };

    #[test]
    fn a_success_of_a_method_that_may_change_something_invalidates() {
        // IV1, IV2
        for (method, changes) in [
            ("POST", true),
            ("PUT", true),
            ("PATCH", true),
            ("DELETE", true),
            ("M-SEARCH", true),
            ("get", true),
            ("GET", false),
            ("HEAD", false),
            ("OPTIONS", false),
            ("TRACE", false),
            ("QUERY", false),
            ("PROPFIND", false),
            ("REPORT", false),
            ("SEARCH", false),
        ] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            for (status, success) in [
                (200, true),
                (204, true),
                (303, true),
                (304, true),
                (101, false),
                (404, false),
                (500, false),
                (599, false),
            ] {
                let status = StatusCode::from_u16(status).unwrap();
                let expected = changes && success;
                assert_eq!(invalidates(&method, status), expected, "{method} {status}");
            }
        }
    }

    #[test]
    fn location_and_content_location_of_the_same_origin_are_named() {
        // IV3
        let response = headers(&[
            ("location", "c?x#y"),
            ("location", "//other.example/d"),
            ("content-location", "https://example.com:443/e"),
            ("content-location", "http://example.com/f"),
            ("content-location", "\u{e9}"),
            ("link", "</g>"),
        ]);
        let named: Vec<_> = named_by(TARGET, &response).collect();
        assert_eq!(named, ["/a/c?x", "/e", "/a/\u{e9}"]);
    }

    #[test]
    fn a_response_to_post_represents_the_target_if_content_location_says_so() {
        // ME1
        for (lines, expected) in [
            (&["/a/b"][..], true),
            (&["b"], true),
            (&["https://example.com/a/b"], true),
            (&["/a"], false),
            (&["//other.example/a/b"], false),
            (&["/a/b", "/a/b"], false),
            (&[], false),
        ] {
            let lines: Vec<_> = lines
                .iter()
                .map(|line| ("content-location", *line))
                .collect();
            let found = represents(TARGET, &headers(&lines));
            assert_eq!(found, expected, "{lines:?}");
        }
    }
}
