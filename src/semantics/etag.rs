//! Entity-tags and how they compare (RFC 9110 §8.8.3).
//!
//! A tag is never rewritten: what a handler sent goes back to it byte by byte.
//! One that does not fit the grammar still names its response, but only to a
//! client that repeats exactly its bytes.

use http::HeaderValue;
use http::header::GetAll;

use super::fields::trim;

/// One entity-tag, as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntityTag<'a> {
    /// `"…"`: byte-for-byte equality of representations.
    Strong(&'a [u8]),
    /// `W/"…"`: equivalence of representations.
    Weak(&'a [u8]),
    /// Anything else, quotes and all.
    Malformed(&'a [u8]),
}

impl<'a> EntityTag<'a> {
    /// Reads the value of an `ETag` field, or one member of a list of tags.
    pub(crate) fn new(value: &'a [u8]) -> Self {
        let value = trim(value);
        match scan(value) {
            Some((tag, b"")) => tag,
            _ => Self::Malformed(value),
        }
    }

    /// The strong comparison of RFC 9110 §8.8.3.2: both are strong and equal.
    pub(crate) fn strong_eq(self, other: Self) -> bool {
        matches!((self, other), (Self::Strong(a), Self::Strong(b)) if a == b)
    }

    /// The weak comparison of RFC 9110 §8.8.3.2: the opaque parts are equal.
    pub(crate) fn weak_eq(self, other: Self) -> bool {
        match (self, other) {
            (Self::Strong(a) | Self::Weak(a), Self::Strong(b) | Self::Weak(b))
            | (Self::Malformed(a), Self::Malformed(b)) => a == b,
            _ => false,
        }
    }

    /// Whether the tag can prove byte-for-byte equality.
    pub(crate) fn is_strong(self) -> bool {
        matches!(self, Self::Strong(_))
    }
}

/// Whether the lines of an `If-None-Match` field name the representation
/// whose `ETag` is `current` (RFC 9110 §13.1.2).
///
/// `*` names any representation, also one without a tag.
pub(crate) fn any_weak_match(lines: &GetAll<'_, HeaderValue>, current: Option<&[u8]>) -> bool {
    let current = current.map(EntityTag::new);
    lines.iter().any(|line| {
        let line = line.as_bytes();
        trim(line) == b"*"
            || current.is_some_and(|current| members(line).any(|tag| tag.weak_eq(current)))
    })
}

/// The tags of one `If-None-Match` or `If-Match` line, in order.
///
/// Not the splitter for other lists: a comma may stand inside a tag, and a
/// backslash there escapes nothing.
pub(crate) fn members(line: &[u8]) -> impl Iterator<Item = EntityTag<'_>> {
    let mut rest = line;
    std::iter::from_fn(move || {
        rest = skip_separators(rest);
        if rest.is_empty() {
            return None;
        }
        let (tag, after) = next_member(rest);
        rest = after;
        Some(tag)
    })
}

/// Returns a strong tag: the first 128 bits of `digest`, in hexadecimal.
pub(crate) fn strong_from_digest(digest: &[u8; 32]) -> HeaderValue {
    let digits = digest
        .iter()
        .take(16)
        .flat_map(|byte| [byte >> 4, byte & 0xf])
        .filter_map(|nibble| char::from_digit(nibble.into(), 16));
    let mut tag = String::with_capacity(34);
    tag.push('"');
    tag.extend(digits);
    tag.push('"');
    HeaderValue::try_from(tag).expect("quotes and hexadecimal digits are visible ASCII")
}

/// A well-formed tag at the start of `bytes`, and what follows it.
fn scan(bytes: &[u8]) -> Option<(EntityTag<'_>, &[u8])> {
    let (quoted, tag): (_, fn(_) -> _) = match bytes.strip_prefix(b"W/") {
        Some(quoted) => (quoted, EntityTag::Weak),
        None => (bytes, EntityTag::Strong),
    };
    let inside = quoted.strip_prefix(b"\"")?;
    let end = inside.iter().position(|byte| !is_etagc(*byte))?;
    let (opaque, after) = inside.split_at_checked(end)?;
    Some((tag(opaque), after.strip_prefix(b"\"")?))
}

fn is_etagc(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x7e | 0x80..)
}

fn next_member(list: &[u8]) -> (EntityTag<'_>, &[u8]) {
    if let Some((tag, after)) = scan(list)
        && matches!(trim(after), [] | [b',', ..])
    {
        return (tag, after);
    }
    let end = list.iter().position(|byte| *byte == b',');
    let (member, after) = end
        .and_then(|end| list.split_at_checked(end))
        .unwrap_or((list, b""));
    (EntityTag::Malformed(trim(member)), after)
}

fn skip_separators(list: &[u8]) -> &[u8] {
    let start = list
        .iter()
        .position(|byte| !matches!(byte, b',' | b' ' | b'\t'));
    start.and_then(|start| list.get(start..)).unwrap_or(b"")
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::IF_NONE_MATCH;
    use proptest::prelude::*;

    use super::EntityTag::{Malformed, Strong, Weak};
    use super::*;
    use crate::semantics::fields::tests::{headers, thoroughly};

    fn if_none_match(lines: &[&str]) -> HeaderMap {
        let lines: Vec<_> = lines.iter().map(|line| ("if-none-match", *line)).collect();
        headers(&lines)
    }

    #[test]
    fn a_tag_is_strong_weak_or_malformed() {
        for (value, tag) in [
            (r#""abc""#, Strong(b"abc")),
            (r#""""#, Strong(b"")),
            (r#"W/"abc""#, Weak(b"abc")),
            (r#" "a,b\" "#, Strong(br"a,b\")),
            ("\"\u{e9}\"", Strong("\u{e9}".as_bytes())),
            (r#"w/"abc""#, Malformed(br#"w/"abc""#)),
            (r#"W/abc"#, Malformed(b"W/abc")),
            (r#"abc"#, Malformed(b"abc")),
            (r#""abc"#, Malformed(br#""abc"#)),
            (r#""a b""#, Malformed(br#""a b""#)),
            (r#""a""b""#, Malformed(br#""a""b""#)),
            (r#""abc"x"#, Malformed(br#""abc"x"#)),
            ("", Malformed(b"")),
        ] {
            assert_eq!(EntityTag::new(value.as_bytes()), tag, "{value}");
        }
    }

    #[test]
    fn comparison_follows_the_table_of_the_rfc() {
        // The table of RFC 9110 §8.8.3.2, and ET3
        for (a, b, strong, weak) in [
            (r#"W/"1""#, r#"W/"1""#, false, true),
            (r#"W/"1""#, r#"W/"2""#, false, false),
            (r#"W/"1""#, r#""1""#, false, true),
            (r#""1""#, r#""1""#, true, true),
            (r#""1""#, r#""2""#, false, false),
            (r#""a""#, r#""A""#, false, false),
            ("1", "1", false, true),
            ("1", r#""1""#, false, false),
            (r#""1"#, r#""1""#, false, false),
        ] {
            let (x, y) = (EntityTag::new(a.as_bytes()), EntityTag::new(b.as_bytes()));
            assert_eq!(x.strong_eq(y), strong, "{a} {b}");
            assert_eq!(y.strong_eq(x), strong, "{b} {a}");
            assert_eq!(x.weak_eq(y), weak, "{a} {b}");
            assert_eq!(y.weak_eq(x), weak, "{b} {a}");
        }
    }

    #[test]
    fn a_list_keeps_commas_inside_tags_and_survives_bad_members() {
        let line = br#", "a,b" ,W/"c",, d , "e f, "g"h, "i" "#;
        let tags: Vec<_> = members(line).collect();
        assert_eq!(
            tags,
            [
                Strong(b"a,b"),
                Weak(b"c"),
                Malformed(b"d"),
                Malformed(br#""e f"#),
                Malformed(br#""g"h"#),
                Strong(b"i"),
            ]
        );
    }

    #[test]
    fn if_none_match_is_compared_weakly_over_all_its_lines() {
        // ET1
        let stored = br#""abc""#;
        for (lines, matched) in [
            (&[r#""abc""#][..], true),
            (&[r#"W/"abc""#], true),
            (&[r#""abc", "x""#], true),
            (&[r#""x", "abc", "y""#], true),
            (&[r#""x", W/"abc""#], true),
            (&[r#""x""#, r#""abc""#], true),
            (&["*"], true),
            (&[r#""x""#, " * "], true),
            (&[r#""x", *"#], false),
            (&[r#""x""#], false),
            (&["abc"], false),
            (&[""], false),
            (&[], false),
        ] {
            let headers = if_none_match(lines);
            let found = any_weak_match(&headers.get_all(IF_NONE_MATCH), Some(stored));
            assert_eq!(found, matched, "{lines:?}");
        }
    }

    #[test]
    fn only_the_asterisk_names_a_response_without_a_tag() {
        for (line, matched) in [("*", true), (r#""abc""#, false), ("", false)] {
            let headers = if_none_match(&[line]);
            let found = any_weak_match(&headers.get_all(IF_NONE_MATCH), None);
            assert_eq!(found, matched, "{line}");
        }
    }

    #[test]
    fn a_malformed_tag_matches_only_its_own_bytes() {
        // ET3
        for (stored, line, matched) in [
            ("abc", "abc", true),
            ("abc", r#""abc""#, false),
            (r#""abc"#, r#""abc"#, true),
            (r#""a b""#, r#""x", "a b""#, true),
            ("", "", false),
        ] {
            let headers = if_none_match(&[line]);
            let found = any_weak_match(&headers.get_all(IF_NONE_MATCH), Some(stored.as_bytes()));
            assert_eq!(found, matched, "{stored} {line}");
        }
    }

    #[test]
    fn a_digest_becomes_a_strong_tag_of_128_bits() {
        let mut digest = [0; 32];
        digest[..3].copy_from_slice(&[0x01, 0xaf, 0x90]);
        let tag = strong_from_digest(&digest);
        assert_eq!(tag, r#""01af9000000000000000000000000000""#);
        assert!(EntityTag::new(tag.as_bytes()).is_strong());
    }

    proptest! {
        #![proptest_config(thoroughly())]
        #[test]
        fn any_bytes_are_a_list_of_tags_equal_to_themselves(line: Vec<u8>) {
            for tag in members(&line) {
                prop_assert!(tag.weak_eq(tag));
                prop_assert_eq!(tag.strong_eq(tag), tag.is_strong());
            }
        }
    }
}
