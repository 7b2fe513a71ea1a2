//! Groups of stored responses that become invalid together (RFC 9875).

use http::header::{HeaderMap, HeaderName};
use http::method::Method;
use http::status::StatusCode;
use sfv::{BareItem, List, ListEntry};

use super::{invalidation, structured};

const CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");
const CACHE_GROUP_INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");

/// More groups than this, or longer ones, count as not there. RFC 9875 §2 asks
/// for at least 32 of 32 characters.
const MAX_GROUPS: usize = 32;
const MAX_LENGTH: usize = 128;

/// Returns the groups that a response is in, on its own origin.
pub(crate) fn of_response(response: &HeaderMap) -> Vec<String> {
    strings(response, &CACHE_GROUPS)
}

/// Returns the groups that a response invalidates, on its own origin. The
/// answer to a safe method invalidates none, nor does an error (§3).
pub(crate) fn invalidated_by(
    method: &Method,
    status: StatusCode,
    response: &HeaderMap,
) -> Vec<String> {
    match invalidation::invalidates(method, status) {
        true => strings(response, &CACHE_GROUP_INVALIDATION),
        false => Vec::new(),
    }
}

/// A list with anything but Strings in it is void as a whole; parameters mean
/// nothing.
fn strings(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let list: List = structured::parse(headers, name).unwrap_or_default();
    let strings = list.into_iter().map(|entry| match entry {
        ListEntry::Item(item) => match item.bare_item {
            BareItem::String(string) => Some(string.into()),
            _ => None,
        },
        ListEntry::InnerList(_) => None,
    });
    let strings: Vec<String> = strings.collect::<Option<_>>().unwrap_or_default();
    strings
        .into_iter()
        .take(MAX_GROUPS)
        .filter(|group| group.len() <= MAX_LENGTH)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::semantics::fields::tests::{headers, thoroughly};

    fn groups(lines: &[&str]) -> Vec<String> {
        let lines: Vec<_> = lines.iter().map(|line| ("cache-groups", *line)).collect();
        of_response(&headers(&lines))
    }

    #[test]
    fn groups_are_the_strings_of_all_lines() {
        for (lines, expected) in [
            (&[r#""scripts""#][..], &["scripts"][..]),
            (&[r#""a", "b""#, r#""A""#], &["a", "b", "A"]),
            (&[r#""a";x=1, "b c\"""#], &["a", "b c\""]),
            (&[r#""a", b"#], &[]),
            (&[r#"("a" "b")"#], &[]),
            (&[r#""a", 1"#], &[]),
            (&[r#""a","#], &[]),
            (&["a"], &[]),
            (&[""], &[]),
            (&[], &[]),
        ] {
            assert_eq!(groups(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn groups_beyond_the_bounds_are_not_there() {
        let many: Vec<_> = (0..40).map(|n| format!("\"{n}\"")).collect();
        assert_eq!(groups(&[&many.join(",")]).len(), 32);
        let long = "x".repeat(128);
        assert_eq!(groups(&[&format!(r#""{long}", "{long}x""#)]), [long]);
    }

    #[test]
    fn only_a_successful_unsafe_method_invalidates_groups() {
        let response = headers(&[("cache-group-invalidation", r#""a", "b""#)]);
        for (method, status, expected) in [
            (Method::POST, 200, &["a", "b"][..]),
            (Method::DELETE, 303, &["a", "b"]),
            (Method::GET, 200, &[]),
            (Method::HEAD, 200, &[]),
            (Method::POST, 404, &[]),
            (Method::POST, 500, &[]),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let found = invalidated_by(&method, status, &response);
            assert_eq!(found, expected, "{method} {status}");
        }
    }

    proptest! {
        #![proptest_config(thoroughly())]
        #[test]
        fn any_value_is_read_within_the_bounds(line in "[ -~\u{80}-\u{ff}]{0,60}") {
            prop_assert!(groups(&[&line]).len() <= MAX_GROUPS);
        }
    }
}
