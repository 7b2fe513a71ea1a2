//! The 206 that answers a range request (RFC 9110 §15.3.7).

use bytes::Bytes;
use http::header::{
    CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
};
use smallvec::SmallVec;

use super::{ContentRange, Part, Span, Spans};

/// The body of a 206 and the fields that describe it.
///
/// The stored body is not copied: what is sent are slices of it, and between
/// them the heads of the parts if there are several.
#[derive(Clone, Debug)]
pub(crate) struct Partial {
    /// The body, in order.
    pub(crate) chunks: SmallVec<[Bytes; 1]>,
    framing: Framing,
}

#[derive(Clone, Debug)]
enum Framing {
    /// The `Content-Range` of the one part.
    Single(HeaderValue),
    /// The `Content-Type` of `multipart/byteranges`.
    Multiple(HeaderValue),
}

impl Partial {
    /// Cuts spans out of the body of a stored part; `None` if the body does not
    /// hold them.
    ///
    /// `boundary` has to be random: the body must not hold it.
    pub(crate) fn new(
        part: &Part,
        body: &Bytes,
        spans: &Spans,
        content_type: Option<&HeaderValue>,
        boundary: u128,
    ) -> Option<Self> {
        if let [span] = spans.as_slice() {
            return Some(Self {
                chunks: SmallVec::from_iter([slice(part, body, *span)?]),
                framing: Framing::Single(content_range(part, *span).to_header_value()),
            });
        }
        let mut chunks = SmallVec::new();
        for span in spans.as_slice() {
            chunks.push(head(content_range(part, *span), content_type, boundary));
            chunks.push(slice(part, body, *span)?);
        }
        chunks.push(Bytes::from(format!("\r\n--{boundary:032x}--\r\n")));
        let content_type = format!("multipart/byteranges; boundary={boundary:032x}");
        Some(Self {
            chunks,
            framing: Framing::Multiple(content_type.try_into().ok()?),
        })
    }

    /// Turns the fields of the stored response into those of the 206.
    pub(crate) fn write_fields(&self, headers: &mut HeaderMap) {
        forget_content(headers);
        let lengths = self.chunks.iter().map(Bytes::len);
        let length = lengths.fold(0, usize::saturating_add);
        headers.insert(CONTENT_LENGTH, length.into());
        match &self.framing {
            Framing::Single(range) => headers.insert(CONTENT_RANGE, range.clone()),
            Framing::Multiple(content_type) => headers.insert(CONTENT_TYPE, content_type.clone()),
        };
    }
}

/// Removes what fields say of one message's content, where they are to stand
/// for another's: which range it is, and its digests (RFC 9530 §2).
pub(crate) fn forget_content(headers: &mut HeaderMap) {
    headers.remove(CONTENT_RANGE);
    headers.remove(HeaderName::from_static("content-digest"));
    headers.remove(HeaderName::from_static("content-md5"));
}

/// The range that is sent. A part may hold more than the length it claims; then
/// the length is not known.
fn content_range(part: &Part, span: Span) -> ContentRange {
    let complete = part.range().complete;
    ContentRange {
        span,
        complete: complete.filter(|complete| span.last() < *complete),
    }
}

fn slice(part: &Part, body: &Bytes, span: Span) -> Option<Bytes> {
    let offset = span.first().checked_sub(part.range().span.first())?;
    let start = usize::try_from(offset).ok()?;
    let end = start.checked_add(usize::try_from(span.length()).ok()?)?;
    Some(body.slice_ref(body.get(start..end)?))
}

/// What stands in front of one part of several (RFC 9110 §14.6).
fn head(range: ContentRange, content_type: Option<&HeaderValue>, boundary: u128) -> Bytes {
    let mut head = format!("\r\n--{boundary:032x}\r\n").into_bytes();
    if let Some(content_type) = content_type {
        head.extend_from_slice(b"content-type: ");
        head.extend_from_slice(content_type.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"content-range: ");
    head.extend_from_slice(range.to_header_value().as_bytes());
    head.extend_from_slice(b"\r\n\r\n");
    head.into()
}

#[cfg(test)]
mod tests {
    use http::method::Method;

    use super::*;
    use crate::semantics::fields::tests::headers;
    use crate::semantics::range::{Ranges, Selection};

    const BODY: Bytes = Bytes::from_static(b"0123456789");

    fn cut(range: &str) -> Partial {
        let ranges = Ranges::of_request(&Method::GET, &headers(&[("range", range)])).unwrap();
        let Selection::Spans(spans) = ranges.of_complete(10) else {
            panic!("{range} selects nothing");
        };
        let content_type = HeaderValue::from_static("text/plain");
        let part = Part::whole(10).unwrap();
        Partial::new(&part, &BODY, &spans, Some(&content_type), 0xb0).unwrap()
    }

    fn stored_fields() -> HeaderMap {
        headers(&[
            ("content-type", "text/plain"),
            ("content-length", "10"),
            ("content-range", "bytes 0-9/10"),
            ("content-digest", "sha-256=:AA==:"),
            ("content-md5", "AA=="),
            ("repr-digest", "sha-256=:AA==:"),
            ("etag", r#""a""#),
        ])
    }

    #[test]
    fn one_range_is_a_slice_of_the_stored_body() {
        // PA1
        let partial = cut("bytes=2-4");
        let [chunk] = partial.chunks.as_slice() else {
            panic!("one range is one chunk");
        };
        assert_eq!(chunk, "234");
        assert_eq!(chunk.as_ptr(), BODY[2..].as_ptr());
        let mut fields = stored_fields();
        partial.write_fields(&mut fields);
        let expected = headers(&[
            ("content-type", "text/plain"),
            ("content-length", "3"),
            ("content-range", "bytes 2-4/10"),
            ("repr-digest", "sha-256=:AA==:"),
            ("etag", r#""a""#),
        ]);
        assert_eq!(fields, expected);
    }

    #[test]
    fn several_ranges_are_slices_between_heads() {
        let partial = cut("bytes=7-,0-1");
        let body = partial.chunks.concat();
        let expected = "\r\n--000000000000000000000000000000b0\r\n\
            content-type: text/plain\r\n\
            content-range: bytes 7-9/10\r\n\r\n\
            789\
            \r\n--000000000000000000000000000000b0\r\n\
            content-type: text/plain\r\n\
            content-range: bytes 0-1/10\r\n\r\n\
            01\
            \r\n--000000000000000000000000000000b0--\r\n";
        assert_eq!(std::str::from_utf8(&body).unwrap(), expected);
        assert_eq!(partial.chunks[1].as_ptr(), BODY[7..].as_ptr());
        let mut fields = stored_fields();
        partial.write_fields(&mut fields);
        let length = expected.len().to_string();
        let expected = headers(&[
            (
                "content-type",
                "multipart/byteranges; boundary=000000000000000000000000000000b0",
            ),
            ("content-length", &length),
            ("repr-digest", "sha-256=:AA==:"),
            ("etag", r#""a""#),
        ]);
        assert_eq!(fields, expected);
    }

    #[test]
    fn a_part_is_cut_at_its_offset_and_says_what_is_sent() {
        // PA3: six bytes claimed, five or eight held
        for (body, range, sent, expected) in [
            ("45678", "bytes=8-", "8", "bytes 8-8/10"),
            ("456789ab", "bytes=-8", "456789ab", "bytes 4-11/*"),
        ] {
            let range = headers(&[("range", range)]);
            let ranges = Ranges::of_request(&Method::GET, &range).unwrap();
            let claimed = ContentRange {
                span: Span::new(4, 9).unwrap(),
                complete: Some(10),
            };
            let body = Bytes::from_static(body.as_bytes());
            let part = Part::new(claimed, body.len().try_into().unwrap());
            let spans = ranges.of_part(&part).unwrap();
            let partial = Partial::new(&part, &body, &spans, None, 0).unwrap();
            assert_eq!(partial.chunks.concat(), sent.as_bytes());
            let mut fields = HeaderMap::new();
            partial.write_fields(&mut fields);
            assert_eq!(fields[CONTENT_RANGE], expected);
            assert!(Partial::new(&part, &Bytes::new(), &spans, None, 0).is_none());
        }
    }
}
