//! Field lines as lists, and the fields that end at this hop.
//!
//! Everything works on the bytes of a value: obs-text in one member must not
//! make the others vanish.

use std::borrow::Cow;

use http::header::{self, HeaderMap, HeaderName};

/// Returns all lines of a field as the one value they stand for, joined by
/// `", "` (RFC 9110 §5.3); `None` when the field is absent.
pub(crate) fn joined<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut lines = headers.get_all(name).iter();
    let mut value = Cow::Borrowed(lines.next()?.as_bytes());
    for line in lines {
        let value = value.to_mut();
        value.extend_from_slice(b", ");
        value.extend_from_slice(line.as_bytes());
    }
    Some(value)
}

/// Splits a list at the commas outside quoted strings (RFC 9110 §5.6.1).
///
/// Members come without the blanks around them, empty ones not at all. A
/// quoted string that never ends is none: its quote is an ordinary byte, and
/// what follows is split at every comma.
pub(crate) fn members(list: &[u8]) -> Members<'_> {
    Members {
        rest: Some(list),
        open: false,
    }
}

/// The members of a list; see [`members`].
#[derive(Debug)]
pub(crate) struct Members<'a> {
    rest: Option<&'a [u8]>,
    open: bool,
}

impl Members<'_> {
    /// Says whether the member last returned stands in or after a quoted
    /// string that never ends, so that it may be less than it seems.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.open
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while let Some(list) = self.rest {
            let mut quoting = Quoting::Outside;
            let mut parts = list.splitn(2, |&byte| quoting.delimits(byte));
            let mut first = parts.next();
            self.rest = parts.next();
            // Checked once: after it no quote opens, so the scan stays linear.
            if self.open || quoting != Quoting::Outside {
                self.open = true;
                let mut parts = list.splitn(2, |&byte| byte == b',');
                first = parts.next();
                self.rest = parts.next();
            }
            match first.map(trim) {
                None | Some([]) => {}
                member => return member,
            }
        }
        None
    }
}

/// Where in a list a scan stands (RFC 9110 §5.6.4).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quoting {
    Outside,
    Inside,
    Escaped,
}

impl Quoting {
    /// Steps over one byte and says whether it is a comma that ends a member.
    fn delimits(&mut self, byte: u8) -> bool {
        *self = match (*self, byte) {
            (Self::Outside, b',') => return true,
            (Self::Outside, b'"') | (Self::Escaped, _) => Self::Inside,
            (Self::Inside, b'\\') => Self::Escaped,
            (Self::Inside, b'"') => Self::Outside,
            (state, _) => state,
        };
        false
    }
}

/// Returns a value without the blanks around it: SP and HTAB, nothing else
/// (RFC 9110 §5.6.3).
pub(crate) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// The fields that end at this hop whether or not `Connection` names them
/// (RFC 9111 §3.1, RFC 9110 §7.6.1).
static HOP_BY_HOP: [HeaderName; 10] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    HeaderName::from_static("proxy-authentication-info"),
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Removes the fields that end at this hop and all that `Connection` names
/// (RFC 9110 §7.6.1).
pub(crate) fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = joined(headers, &header::CONNECTION)
        .iter()
        .flat_map(|options| members(options))
        .filter_map(|option| HeaderName::from_bytes(option).ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    /// Returns the fields of a table row; shared by the tests of this room.
    pub(crate) fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            headers.append(HeaderName::from_static(name), value);
        }
        headers
    }

    /// Returns how parsers are tested: with 4,096 values, or as many as `PROPTEST_CASES` says if
    /// those are more.
    pub(crate) fn thoroughly() -> ProptestConfig {
        let config = ProptestConfig::default();
        ProptestConfig {
            cases: config.cases.max(4096),
            ..config
        }
    }

    #[test]
    fn lines_are_joined_in_order_and_one_line_is_borrowed() {
        let headers = headers(&[("vary", "a"), ("etag", "x"), ("vary", ""), ("vary", "b")]);
        assert_eq!(
            joined(&headers, &header::VARY).as_deref(),
            Some(&b"a, , b"[..])
        );
        assert!(matches!(
            joined(&headers, &header::ETAG),
            Some(Cow::Borrowed(b"x"))
        ));
        assert_eq!(joined(&headers, &header::AGE), None);
    }

    #[test]
    fn lists_split_at_commas_outside_quotes() {
        let table: &[(&str, &[&str])] = &[
            ("", &[]),
            (" ,\t, ", &[]),
            ("a", &["a"]),
            (" a ,b\t,, c", &["a", "b", "c"]),
            (r#"a="x, y", b"#, &[r#"a="x, y""#, "b"]),
            (r#"a="x\", y", b"#, &[r#"a="x\", y""#, "b"]),
            (r#"a="x\\", b"#, &[r#"a="x\\""#, "b"]),
            ("a\\, b", &["a\\", "b"]),
            ("a\u{e9}, b", &["a\u{e9}", "b"]),
        ];
        for (list, expected) in table {
            let found: Vec<&[u8]> = members(list.as_bytes()).collect();
            let expected: Vec<&[u8]> = expected.iter().map(|m| m.as_bytes()).collect();
            assert_eq!(found, expected, "{list}");
        }
    }

    #[test]
    fn quoted_string_without_end_hides_nothing() {
        let mut list = members(br#"a="x, y", b="no, c, \"d"#);
        let mut found = Vec::new();
        while let Some(member) = list.next() {
            found.push((std::str::from_utf8(member).unwrap(), list.is_doubtful()));
        }
        let expected = [
            (r#"a="x, y""#, false),
            (r#"b="no"#, true),
            ("c", true),
            (r#"\"d"#, true),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn hop_by_hop_fields_and_those_connection_names_are_stripped() {
        // HD1, HD4
        let mut stripped = headers(&[
            ("connection", "close, X-Gone"),
            ("connection", "\u{e9}, bad name, x-too"),
            ("keep-alive", "timeout=5"),
            ("proxy-authenticate", "Basic"),
            ("proxy-authentication-info", "a"),
            ("proxy-authorization", "a"),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers"),
            ("trailer", "x-sum"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("x-gone", "1"),
            ("x-gone", "2"),
            ("x-too", "1"),
            ("x-kept", "b"),
            ("x-kept", "a"),
            ("content-range", "meaningless"),
        ]);
        strip(&mut stripped);
        let kept = headers(&[
            ("x-kept", "b"),
            ("x-kept", "a"),
            ("content-range", "meaningless"),
        ]);
        assert_eq!(stripped, kept);
    }

    proptest! {
        #![proptest_config(thoroughly())]
        #[test]
        fn any_bytes_split_into_trimmed_members(list in proptest::collection::vec(any::<u8>(), 0..64)) {
            for member in members(&list) {
                prop_assert!(!member.is_empty());
                prop_assert_eq!(trim(member), member);
            }
        }

        #[test]
        fn without_quotes_members_are_what_stands_between_commas(list in "[a-c ,\t\\\\]{0,32}") {
            let found: Vec<&[u8]> = members(list.as_bytes()).collect();
            let plain: Vec<&[u8]> = list
                .split(',')
                .map(|member| member.trim_matches([' ', '\t']).as_bytes())
                .filter(|member| !member.is_empty())
                .collect();
            prop_assert_eq!(found, plain);
        }
    }
}
