//! A stored 206: an incomplete response (RFC 9111 §3.3).

use http::header::{HeaderMap, HeaderValue};

use super::{ContentRange, Span, StrongValidator};

/// What a stored response holds of its representation.
///
/// The bytes that came can be other than `Content-Range` claims. Then the
/// bytes are believed: they still answer ranges, but are joined with nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    range: ContentRange,
    held: u64,
}

/// What to add to a plain GET so that its answer completes a stored prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rest {
    pub(crate) range: HeaderValue,
    pub(crate) if_range: Option<HeaderValue>,
}

impl Part {
    /// A response with this `Content-Range` and a body of `held` bytes.
    pub(crate) fn new(range: ContentRange, held: u64) -> Self {
        Self { range, held }
    }

    /// A complete response, as the part that is all of it; `None` if it is
    /// empty.
    pub(crate) fn whole(length: u64) -> Option<Self> {
        let range = ContentRange {
            span: Span::whole(length)?,
            complete: Some(length),
        };
        Some(Self::new(range, length))
    }

    /// Returns the range that the response claims.
    pub(crate) fn range(&self) -> ContentRange {
        self.range
    }

    /// Returns where the bytes held lie; `None` if there are none.
    pub(crate) fn span_held(&self) -> Option<Span> {
        let first = self.range.span.first();
        Span::new(first, first.checked_add(self.held)?.checked_sub(1)?)
    }

    /// Says whether the bytes held are those that were claimed.
    pub(crate) fn is_consistent(&self) -> bool {
        self.held == self.range.span.length()
    }

    /// Says whether the part is the complete representation.
    pub(crate) fn is_complete(&self) -> bool {
        self.is_consistent() && self.range.complete == Some(self.held)
    }

    /// Returns how to ask for what follows a stored prefix; `None` if the part
    /// is no prefix, or nothing is missing. `stored` are the response's fields.
    pub(crate) fn rest(
        &self,
        validator: Option<StrongValidator<'_>>,
        stored: &HeaderMap,
    ) -> Option<Rest> {
        let is_prefix = self.range.span.first() == 0 && !self.range.reaches_end();
        if !is_prefix || !self.is_consistent() {
            return None;
        }
        let range = HeaderValue::try_from(format!("bytes={}-", self.held)).ok()?;
        let if_range = validator.and_then(|validator| stored.get(validator.field()));
        Some(Rest {
            range,
            if_range: if_range.cloned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::semantics::date::HttpDate;
    use crate::semantics::fields::tests::headers;

    fn part(first: u64, last: u64, complete: Option<u64>, held: u64) -> Part {
        let span = Span::new(first, last).unwrap();
        Part::new(ContentRange { span, complete }, held)
    }

    #[test]
    fn the_bytes_held_are_believed_not_the_range_claimed() {
        // PA3
        for (part, held, consistent, complete) in [
            (part(0, 9, Some(10), 10), Some((0, 9)), true, true),
            (part(0, 9, None, 10), Some((0, 9)), true, false),
            (part(2, 9, Some(10), 8), Some((2, 9)), true, false),
            (part(2, 9, Some(10), 5), Some((2, 6)), false, false),
            (part(0, 9, Some(10), 11), Some((0, 10)), false, false),
            (part(0, 9, Some(10), 0), None, false, false),
        ] {
            let span = part.span_held().map(|span| (span.first(), span.last()));
            assert_eq!(span, held, "{part:?}");
            assert_eq!(part.is_consistent(), consistent, "{part:?}");
            assert_eq!(part.is_complete(), complete, "{part:?}");
        }
        assert!(Part::whole(1).is_some_and(|part| part.is_complete()));
        assert_eq!(Part::whole(0), None);
    }

    #[test]
    fn the_rest_of_a_prefix_is_asked_for_from_its_end() {
        // PA4
        for (part, expected) in [
            (part(0, 4, Some(10), 5), Some("bytes=5-")),
            (part(0, 4, None, 5), Some("bytes=5-")),
            (part(0, 4, Some(10), 4), None),
            (part(0, 9, Some(10), 10), None),
            (part(1, 4, Some(10), 4), None),
        ] {
            let rest = part.rest(None, &HeaderMap::new());
            assert_eq!(
                rest.as_ref().map(|rest| rest.if_range.is_none()),
                expected.map(|_| true)
            );
            assert_eq!(
                rest.map(|rest| rest.range),
                expected.map(HeaderValue::from_static)
            );
        }
    }

    #[test]
    fn the_rest_is_asked_for_only_if_it_is_of_the_same_representation() {
        let modified = "Sat, 21 Nov 2026 09:00:00 GMT";
        let stored = headers(&[("etag", r#""a""#), ("last-modified", modified)]);
        for (validator, expected) in [
            (StrongValidator::Tag(b"a"), r#""a""#),
            (StrongValidator::Date(HttpDate(1_795_251_600)), modified),
        ] {
            let rest = part(0, 4, Some(10), 5).rest(Some(validator), &stored);
            let if_range = rest.unwrap().if_range;
            assert_eq!(if_range, Some(HeaderValue::from_static(expected)));
        }
    }
}
