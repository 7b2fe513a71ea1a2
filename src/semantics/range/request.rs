//! `Range`: which bytes a request asks for (RFC 9110 §14.1.2, §14.2).

use http::header::{HeaderMap, RANGE};
use http::method::Method;
use smallvec::SmallVec;

use super::{Part, Span, saturating_number, split_once};
use crate::semantics::fields::{self, trim};

/// The ranges that a request asks for: at least one, at most [`Ranges::MAX`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ranges(SmallVec<[ByteRange; 1]>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ByteRange {
    /// `a-b`, with a <= b.
    Closed(u64, u64),
    /// `a-`.
    Open(u64),
    /// `-n`: the last n bytes.
    Suffix(u64),
}

/// What the ranges select of a complete representation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    /// All of it, as if there were no `Range`: it is empty.
    Whole,
    Spans(Spans),
    /// Nothing: answer 416.
    Unsatisfiable,
}

/// The bytes to send: at least one span, none touching another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spans(SmallVec<[Span; 1]>);

impl Ranges {
    /// With more ranges than this, `Range` is ignored.
    const MAX: usize = 8;

    /// Reads the `Range` of a request; `None` where it is to be ignored: on
    /// other methods than GET and QUERY, in another unit than bytes, with any
    /// error, and with too many ranges.
    pub(crate) fn of_request(method: &Method, request: &HeaderMap) -> Option<Self> {
        if !matches!(method.as_str(), "GET" | "QUERY") {
            return None;
        }
        let mut lines = request.get_all(RANGE).iter();
        let line = lines.next()?;
        match lines.next() {
            Some(_) => None,
            None => Self::parse(trim(line.as_bytes())),
        }
    }

    fn parse(value: &[u8]) -> Option<Self> {
        let (unit, set) = split_once(value, b'=')?;
        if !unit.eq_ignore_ascii_case(b"bytes") {
            return None;
        }
        let ranges: SmallVec<_> = fields::members(set)
            .take(Self::MAX.saturating_add(1))
            .map(ByteRange::parse)
            .collect::<Option<_>>()?;
        (1..=Self::MAX)
            .contains(&ranges.len())
            .then_some(Self(ranges))
    }

    /// Selects from a complete representation. Ranges that overlap or touch
    /// become one, so that nothing is sent twice.
    pub(crate) fn of_complete(&self, length: u64) -> Selection {
        if length == 0 {
            return Selection::Whole;
        }
        let spans = self.0.iter().filter_map(|range| range.of_complete(length));
        Spans::collect(spans).map_or(Selection::Unsatisfiable, Selection::Spans)
    }

    /// Selects from a stored part; `None` unless it holds all that is asked.
    pub(crate) fn of_part(&self, part: &Part) -> Option<Spans> {
        let spans: Option<SmallVec<[Span; 1]>> =
            self.0.iter().map(|range| range.of_part(part)).collect();
        Spans::collect(spans?)
    }
}

impl Spans {
    /// Returns the spans, in the order in which they were asked for.
    pub(crate) fn as_slice(&self) -> &[Span] {
        &self.0
    }

    fn collect(spans: impl IntoIterator<Item = Span>) -> Option<Self> {
        let mut apart = SmallVec::new();
        for mut span in spans {
            apart.retain(|other| match span.union(*other) {
                Some(union) => {
                    span = union;
                    false
                }
                None => true,
            });
            apart.push(span);
        }
        (!apart.is_empty()).then_some(Self(apart))
    }
}

impl ByteRange {
    fn parse(range: &[u8]) -> Option<Self> {
        match split_once(range, b'-')? {
            (b"", length) => saturating_number(length).map(Self::Suffix),
            (first, b"") => saturating_number(first).map(Self::Open),
            (first, last) => {
                let (first, last) = (saturating_number(first)?, saturating_number(last)?);
                (first <= last).then_some(Self::Closed(first, last))
            }
        }
    }

    fn of_complete(self, length: u64) -> Option<Span> {
        let last = length.checked_sub(1)?;
        match self {
            Self::Closed(a, b) => Span::new(a, b.min(last)),
            Self::Open(a) => Span::new(a, last),
            Self::Suffix(n) => Span::new(length.saturating_sub(n), last),
        }
    }

    /// RFC 9111 §3.3, on the bytes really held: what a part claims beyond
    /// them it cannot answer.
    fn of_part(self, part: &Part) -> Option<Span> {
        let range = part.range();
        let held = part.span_held()?;
        let ends_within = |b| range.complete.is_none_or(|complete| b < complete);
        let span = match self {
            Self::Closed(a, b) if ends_within(b) => Span::new(a, b)?,
            _ if !range.reaches_end() => return None,
            Self::Closed(a, _) | Self::Open(a) => Span::new(a, held.last())?,
            Self::Suffix(n) if n <= held.length() => {
                Span::new(held.end().saturating_sub(n), held.last())?
            }
            Self::Suffix(_) => return None,
        };
        (held.first() <= span.first() && span.last() <= held.last()).then_some(span)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::semantics::fields::tests::{headers, thoroughly};
    use crate::semantics::range::ContentRange;

    fn parse(lines: &[&str]) -> Option<Ranges> {
        let lines: Vec<_> = lines.iter().map(|line| ("range", *line)).collect();
        Ranges::of_request(&Method::GET, &headers(&lines))
    }

    fn positions(spans: &Spans) -> Vec<(u64, u64)> {
        let spans = spans.as_slice().iter();
        spans.map(|span| (span.first(), span.last())).collect()
    }

    /// What a range selects of ten bytes; `None` for 416.
    fn of_ten(range: &str) -> Option<Vec<(u64, u64)>> {
        match parse(&[range]).unwrap().of_complete(10) {
            Selection::Spans(spans) => Some(positions(&spans)),
            Selection::Unsatisfiable => None,
            Selection::Whole => unreachable!("ten bytes are not empty"),
        }
    }

    #[test]
    fn a_range_that_cannot_be_read_is_ignored() {
        for line in [
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=5-4",
            "bytes=0-1-2",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=--1",
            "bytes=0 - 1",
            "bytes =0-1",
            "bytes 0-1",
            "bytes=0-1;x",
            "bytes=0-1, x",
            "lines=0-1",
            "0-1",
            "",
            "bytes=0-0,1-1,2-2,3-3,4-4,5-5,6-6,7-7,8-8",
            "\u{e9}",
        ] {
            assert_eq!(parse(&[line]), None, "{line}");
        }
        assert_eq!(parse(&["bytes=0-1", "bytes=0-1"]), None);
        assert_eq!(parse(&[&format!("bytes={}", "0-,".repeat(1300))]), None);
        assert_eq!(parse(&[]), None);
    }

    #[test]
    fn only_get_and_query_have_ranges() {
        let request = headers(&[("range", "bytes=0-1")]);
        for (method, counts) in [
            ("GET", true),
            ("QUERY", true),
            ("HEAD", false),
            ("POST", false),
        ] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let found = Ranges::of_request(&method, &request);
            assert_eq!(found.is_some(), counts, "{method}");
        }
    }

    #[test]
    fn ranges_select_from_a_complete_representation() {
        // PA1
        for (range, expected) in [
            ("bytes=0-0", Some(&[(0, 0)][..])),
            ("BYTES=2-4", Some(&[(2, 4)])),
            (" bytes=2-4 ", Some(&[(2, 4)])),
            ("bytes=2-99", Some(&[(2, 9)])),
            ("bytes=2-", Some(&[(2, 9)])),
            ("bytes=-3", Some(&[(7, 9)])),
            ("bytes=-99", Some(&[(0, 9)])),
            ("bytes=-9223372036854775807", Some(&[(0, 9)])),
            ("bytes=0-99999999999999999999999", Some(&[(0, 9)])),
            ("bytes=007-007", Some(&[(7, 7)])),
            ("bytes=10-", None),
            ("bytes=10-11", None),
            ("bytes=-0", None),
            ("bytes=18446744073709551615-", None),
            ("bytes=99999999999999999999-", None),
            ("bytes=0-0,-1", Some(&[(0, 0), (9, 9)])),
            ("bytes=6-7 ,, 2-3", Some(&[(6, 7), (2, 3)])),
            ("bytes=0-0,10-", Some(&[(0, 0)])),
            ("bytes=10-,-0", None),
        ] {
            assert_eq!(of_ten(range).as_deref(), expected, "{range}");
        }
    }

    #[test]
    fn ranges_that_overlap_or_touch_become_one() {
        for (range, expected) in [
            ("bytes=0-,0-,0-", &[(0, 9)][..]),
            ("bytes=0-2,3-4", &[(0, 4)]),
            ("bytes=0-2,4-5", &[(0, 2), (4, 5)]),
            ("bytes=0-1,8-9,1-8", &[(0, 9)]),
            ("bytes=5-6,0-0,6-7", &[(0, 0), (5, 7)]),
        ] {
            assert_eq!(of_ten(range).as_deref(), Some(expected), "{range}");
        }
    }

    #[test]
    fn a_representation_of_length_zero_is_sent_whole() {
        for range in ["bytes=0-", "bytes=-1", "bytes=5-6"] {
            assert_eq!(parse(&[range]).unwrap().of_complete(0), Selection::Whole);
        }
    }

    #[test]
    fn a_stored_part_answers_the_ranges_inside_it() {
        // PA2, PA3: first, last, complete, held
        let middle = (4, 7, Some(10), 4);
        let tail = (4, 9, Some(10), 6);
        let short = (4, 9, Some(10), 5);
        let long = (4, 9, Some(10), 8);
        let unknown = (4, 7, None, 4);
        let empty = (4, 7, Some(10), 0);
        for ((first, last, complete, held), range, expected) in [
            (middle, "bytes=4-7", Some(&[(4, 7)][..])),
            (middle, "bytes=5-6", Some(&[(5, 6)])),
            (middle, "bytes=3-6", None),
            (middle, "bytes=5-8", None),
            (middle, "bytes=5-99", None),
            (middle, "bytes=5-", None),
            (middle, "bytes=-1", None),
            (middle, "bytes=10-", None),
            (middle, "bytes=4-4,6-7", Some(&[(4, 4), (6, 7)])),
            (middle, "bytes=4-4,8-8", None),
            (tail, "bytes=6-", Some(&[(6, 9)])),
            (tail, "bytes=6-10", Some(&[(6, 9)])),
            (tail, "bytes=4-", Some(&[(4, 9)])),
            (tail, "bytes=3-", None),
            (tail, "bytes=10-", None),
            (tail, "bytes=-1", Some(&[(9, 9)])),
            (tail, "bytes=-6", Some(&[(4, 9)])),
            (tail, "bytes=-7", None),
            (tail, "bytes=-0", None),
            (short, "bytes=8-", Some(&[(8, 8)])),
            (short, "bytes=8-9", None),
            (short, "bytes=9-", None),
            (short, "bytes=-1", Some(&[(8, 8)])),
            (long, "bytes=-8", Some(&[(4, 11)])),
            (unknown, "bytes=5-6", Some(&[(5, 6)])),
            (unknown, "bytes=5-", None),
            (unknown, "bytes=-1", None),
            (empty, "bytes=4-4", None),
            (empty, "bytes=-0", None),
        ] {
            let span = Span::new(first, last).unwrap();
            let part = Part::new(ContentRange { span, complete }, held);
            let found = parse(&[range]).unwrap().of_part(&part);
            let found = found.as_ref().map(positions);
            assert_eq!(found.as_deref(), expected, "{part:?} {range}");
        }
    }

    proptest! {
        #![proptest_config(thoroughly())]
        #[test]
        fn any_bytes_are_read(value: Vec<u8>) {
            Ranges::parse(&value);
        }

        #[test]
        fn what_is_selected_lies_inside_and_is_sent_once(
            set in "([0-9]{0,20}-[0-9]{0,20},){1,8}",
            length: u64,
        ) {
            let ranges = Ranges::parse(format!("bytes={set}").as_bytes());
            if let Some(Selection::Spans(spans)) = ranges.map(|r| r.of_complete(length)) {
                let sent: u128 = spans.as_slice().iter().map(|s| u128::from(s.length())).sum();
                prop_assert!(sent <= u128::from(length));
                prop_assert!(spans.as_slice().iter().all(|span| span.last() < length));
            }
        }

        #[test]
        fn a_consistent_part_answers_as_the_complete_representation_would(
            first in 0_u64..20,
            more in 0_u64..20,
            rest in 0_u64..3,
            range in "(bytes=[0-9]{1,2}-[0-9]{0,2})|(bytes=-[0-9]{1,2})",
        ) {
            let span = Span::new(first, first + more).unwrap();
            let length = span.end() + rest;
            let complete = Some(length);
            let part = Part::new(ContentRange { span, complete }, span.length());
            if let Some(ranges) = parse(&[&range])
                && let Some(spans) = ranges.of_part(&part)
            {
                prop_assert_eq!(ranges.of_complete(length), Selection::Spans(spans));
            }
        }
    }
}
