//! `Content-Range`: which part of a representation a message holds (RFC 9110
//! §14.4).

use http::header::{CONTENT_RANGE, HeaderMap, HeaderValue};

use super::{saturating_number, split_once};

/// Bytes of a representation: at least one, at most up to its last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    first: u64,
    last: u64,
}

impl Span {
    /// Makes a span of its first and last position, both included.
    pub(crate) fn new(first: u64, last: u64) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// The span of a whole representation; `None` if that is empty.
    pub(crate) fn whole(length: u64) -> Option<Self> {
        Self::new(0, length.checked_sub(1)?)
    }

    pub(crate) fn first(self) -> u64 {
        self.first
    }

    pub(crate) fn last(self) -> u64 {
        self.last
    }

    /// Returns the position behind the last.
    pub(crate) fn end(self) -> u64 {
        self.last.saturating_add(1)
    }

    pub(crate) fn length(self) -> u64 {
        self.end().saturating_sub(self.first)
    }

    /// Returns the span of both, unless bytes between them are missing.
    pub(crate) fn union(self, other: Self) -> Option<Self> {
        (self.first <= other.end() && other.first <= self.end()).then_some(Self {
            first: self.first.min(other.first),
            last: self.last.max(other.last),
        })
    }
}

/// What a 206 says it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ContentRange {
    pub(crate) span: Span,
    /// The length of the complete representation, if the origin knows it.
    pub(crate) complete: Option<u64>,
}

impl ContentRange {
    /// Reads the field of a 206; `None` unless it is one valid range of bytes.
    pub(crate) fn of_field(response: &HeaderMap) -> Option<Self> {
        let mut lines = response.get_all(CONTENT_RANGE).iter();
        let line = lines.next()?;
        match lines.next() {
            Some(_) => None,
            None => Self::parse(line.as_bytes()),
        }
    }

    fn parse(value: &[u8]) -> Option<Self> {
        let (unit, range) = split_once(value, b' ')?;
        let (span, complete) = split_once(range, b'/')?;
        let (first, last) = split_once(span, b'-')?;
        let span = Span::new(number(first)?, number(last)?)?;
        let complete = match complete {
            b"*" => None,
            digits => Some(number(digits)?),
        };
        let fits = complete.is_none_or(|complete| span.last < complete);
        (unit.eq_ignore_ascii_case(b"bytes") && fits).then_some(Self { span, complete })
    }

    /// Says whether the last byte held is the representation's last.
    pub(crate) fn reaches_end(self) -> bool {
        self.complete == Some(self.span.end())
    }

    /// Returns the field value.
    pub(crate) fn to_header_value(self) -> HeaderValue {
        let Span { first, last } = self.span;
        let value = match self.complete {
            Some(complete) => format!("bytes {first}-{last}/{complete}"),
            None => format!("bytes {first}-{last}/*"),
        };
        HeaderValue::try_from(value).expect("digits and signs are visible ASCII")
    }
}

/// Reads a number that is not too large to be exact.
fn number(digits: &[u8]) -> Option<u64> {
    saturating_number(digits).filter(|number| *number < u64::MAX)
}

/// Returns the `Content-Range` of a 416 (RFC 9110 §15.5.17).
pub(crate) fn unsatisfied(length: u64) -> HeaderValue {
    HeaderValue::try_from(format!("bytes */{length}")).expect("digits and signs are visible ASCII")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::semantics::fields::tests::{headers, thoroughly};

    fn parse(lines: &[&str]) -> Option<ContentRange> {
        let lines: Vec<_> = lines.iter().map(|line| ("content-range", *line)).collect();
        ContentRange::of_field(&headers(&lines))
    }

    #[test]
    fn a_content_range_is_bytes_in_order_within_the_length() {
        for (line, expected) in [
            ("bytes 0-9/10", Some((0, 9, Some(10)))),
            ("bytes 4-4/*", Some((4, 4, None))),
            ("BYTES 1-2/003", Some((1, 2, Some(3)))),
            ("bytes 5-4/10", None),
            ("bytes 0-10/10", None),
            ("bytes */10", None),
            ("bytes 0-9", None),
            ("bytes 0-9/", None),
            ("bytes 0-9/x", None),
            ("bytes -9/10", None),
            ("bytes 0-/10", None),
            ("bytes +0-9/10", None),
            ("bytes  0-9/10", None),
            ("bytes=0-9/10", None),
            ("lines 0-9/10", None),
            ("bytes 0-99999999999999999999/*", None),
            ("bytes 0-9/18446744073709551616", None),
            ("", None),
        ] {
            let found = parse(&[line]).map(|r| (r.span.first, r.span.last, r.complete));
            assert_eq!(found, expected, "{line}");
        }
        assert_eq!(parse(&["bytes 0-9/10", "bytes 0-9/10"]), None);
        assert_eq!(parse(&[]), None);
    }

    #[test]
    fn a_416_names_the_length() {
        assert_eq!(unsatisfied(47), "bytes */47");
    }

    proptest! {
        #![proptest_config(thoroughly())]
        #[test]
        fn what_is_written_is_read_back(first: u32, more: u32, rest: Option<u32>) {
            let last = u64::from(first) + u64::from(more);
            let span = Span::new(first.into(), last).unwrap();
            let complete = rest.map(|rest| last + 1 + u64::from(rest));
            let range = ContentRange { span, complete };
            prop_assert_eq!(ContentRange::parse(range.to_header_value().as_bytes()), Some(range));
            prop_assert_eq!(span.length(), u64::from(more) + 1);
        }

        #[test]
        fn any_bytes_are_read(value: Vec<u8>) {
            ContentRange::parse(&value);
        }

        #[test]
        fn almost_a_range_is_read(value in "bytes [0-9*]{0,21}-?[0-9]{0,21}/[0-9*]{0,21}") {
            if let Some(range) = ContentRange::parse(value.as_bytes()) {
                prop_assert!(range.complete.is_none_or(|complete| range.span.end() <= complete));
            }
        }
    }
}
