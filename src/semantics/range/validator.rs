//! Validators that prove equality byte by byte, and `If-Range` (RFC 9110
//! §8.8.1, §13.1.5).

use http::header::{ETAG, HeaderMap, HeaderName, IF_RANGE, LAST_MODIFIED};

use crate::semantics::date::HttpDate;
use crate::semantics::etag::EntityTag;

/// A response's strong validator: parts are of one representation if theirs
/// are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StrongValidator<'a> {
    /// The opaque part of a strong entity-tag.
    Tag(&'a [u8]),
    /// A `Last-Modified` that cannot change again within its second.
    Date(HttpDate),
}

impl<'a> StrongValidator<'a> {
    /// Takes a response's strong validator from its validators and `Date`.
    ///
    /// A weak tag rules the date out too: whoever weakens the tag, as
    /// compression does, leaves `Last-Modified` as it was.
    pub(crate) fn new(
        etag: Option<&'a [u8]>,
        last_modified: Option<HttpDate>,
        date: HttpDate,
    ) -> Option<Self> {
        match etag.map(EntityTag::new) {
            Some(EntityTag::Strong(opaque)) => Some(Self::Tag(opaque)),
            Some(_) => None,
            None => last_modified
                .filter(|modified| is_strong(*modified, date))
                .map(Self::Date),
        }
    }

    /// Returns the field that holds the validator, to be repeated in
    /// `If-Range`.
    pub(crate) fn field(self) -> HeaderName {
        match self {
            Self::Tag(_) => ETAG,
            Self::Date(_) => LAST_MODIFIED,
        }
    }
}

/// Says whether a request's `If-Range` lets its `Range` count (RFC 9110
/// §13.1.5): it is absent, or it is a strong validator of the stored response.
pub(crate) fn if_range_holds(
    request: &HeaderMap,
    etag: Option<&[u8]>,
    last_modified: Option<HttpDate>,
    date: HttpDate,
    now: HttpDate,
) -> bool {
    let mut lines = request.get_all(IF_RANGE).iter();
    let Some(line) = lines.next() else {
        return true;
    };
    let condition = EntityTag::new(line.as_bytes());
    let holds = match condition {
        EntityTag::Strong(_) => etag.is_some_and(|etag| EntityTag::new(etag).strong_eq(condition)),
        EntityTag::Weak(_) => false,
        EntityTag::Malformed(value) => last_modified.is_some_and(|modified| {
            is_strong(modified, date) && HttpDate::parse(value, now) == Some(modified)
        }),
    };
    holds && lines.next().is_none()
}

/// RFC 9110 §8.8.2.2: a second or more lies between it and the `Date`.
fn is_strong(last_modified: HttpDate, date: HttpDate) -> bool {
    last_modified < date
}

#[cfg(test)]
mod tests {
    use super::StrongValidator::{Date, Tag};
    use super::*;
    use crate::semantics::fields::tests::headers;

    /// Sat, 21 Nov 2026 09:00:00 GMT.
    const NINE: HttpDate = HttpDate(1_795_251_600);
    const LATER: HttpDate = HttpDate(NINE.0 + 1);

    #[test]
    fn a_strong_validator_is_a_strong_tag_or_else_a_date_of_the_past() {
        for (etag, modified, expected) in [
            (Some(r#""a""#), Some(NINE), Some(Tag(b"a"))),
            (Some(r#"W/"a""#), Some(NINE), None),
            (Some("a"), Some(NINE), None),
            (None, Some(NINE), Some(Date(NINE))),
            (None, Some(LATER), None),
            (None, None, None),
        ] {
            let found = StrongValidator::new(etag.map(str::as_bytes), modified, LATER);
            assert_eq!(found, expected, "{etag:?} {modified:?}");
        }
    }

    #[test]
    fn if_range_holds_for_the_same_strong_validator_only() {
        let at = "Sat, 21 Nov 2026 09:00:00 GMT";
        for (lines, etag, date, expected) in [
            (&[][..], None, NINE, true),
            (&[r#""a""#], Some(r#""a""#), NINE, true),
            (&[r#""a""#], Some(r#""b""#), NINE, false),
            (&[r#""a""#], Some(r#"W/"a""#), NINE, false),
            (&[r#"W/"a""#], Some(r#"W/"a""#), NINE, false),
            (&[r#""a""#], None, NINE, false),
            (&["a"], Some("a"), NINE, false),
            (&[r#""a""#, r#""a""#], Some(r#""a""#), NINE, false),
            (&[r#""a", "b""#], Some(r#""a""#), NINE, false),
            (&["*"], Some(r#""a""#), NINE, false),
            (&[at], None, LATER, true),
            (&[at], Some(r#""a""#), LATER, true),
            (&["Sat Nov 21 09:00:00 2026"], None, LATER, true),
            (&[at], None, NINE, false),
            (&["Sat, 21 Nov 2026 09:00:01 GMT"], None, LATER, false),
            (&["Sat, 21 Nov 2026 08:59:59 GMT"], None, LATER, false),
            (&[""], None, LATER, false),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| ("if-range", *line)).collect();
            let etag = etag.map(str::as_bytes);
            let found = if_range_holds(&headers(&lines), etag, Some(NINE), date, LATER);
            assert_eq!(found, expected, "{lines:?} {etag:?} {date:?}");
        }
    }
}
