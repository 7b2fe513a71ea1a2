//! What a cache has to know of gRPC: content types, messages and the status of a call
//! ("gRPC over HTTP2", `PROTOCOL-HTTP2.md` in gRPC's own repository).

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, StatusCode};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Says whether a content type is gRPC's, or that of a relation such as gRPC-Web.
pub(crate) fn is_grpc(content_type: &[u8]) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let essence = content_type.get(..GRPC.len());
    essence.is_some_and(|essence| essence.eq_ignore_ascii_case(GRPC))
}

/// Returns how long content is that ends with its first message, once the five bytes before the
/// message are there: whether it is compressed, and its length.
pub(crate) fn message_end(content: &[u8]) -> Option<u64> {
    let (_, rest) = content.split_first()?;
    let length = u32::from_be_bytes(*rest.first_chunk()?);
    Some(u64::from(length).saturating_add(5))
}

/// Says whether content is one whole message.
pub(crate) fn is_one_message(content: &[u8]) -> bool {
    matches!(content, [0 | 1, ..]) && message_end(content) == u64::try_from(content.len()).ok()
}

/// Says whether an answer with this head may have the one result of a unary call.
///
/// One with a status in its head has no content ("Trailers-Only"), so it is a failure, or a success
/// without the message that a unary call must have.
pub(crate) fn may_have_result(status: StatusCode, headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE);
    status == StatusCode::OK
        && content_type.is_some_and(|value| is_grpc(value.as_bytes()))
        && !headers.contains_key(GRPC_STATUS)
}

/// Says whether this is the one result of a unary call: one message, and `grpc-status: 0` behind it.
pub(crate) fn is_result(content: &[u8], trailers: Option<&HeaderMap>) -> bool {
    let mut status = trailers
        .into_iter()
        .flat_map(|all| all.get_all(GRPC_STATUS));
    is_one_message(content)
        && status
            .next()
            .is_some_and(|status| status.as_bytes() == b"0")
        && status.next().is_none()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::semantics::fields::tests::{headers, thoroughly};

    #[test]
    fn content_types_of_grpc_begin_alike() {
        for (value, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/gRPC; charset=utf-8", true),
            ("application/grpc-web-text", true),
            ("application/grp", false),
            ("application/json", false),
            ("", false),
        ] {
            assert_eq!(is_grpc(value.as_bytes()), expected, "{value}");
        }
    }

    #[test]
    fn a_message_is_as_long_as_the_five_bytes_before_it_say() {
        for (content, end, one) in [
            (&b""[..], None, false),
            (b"\0\0\0\0", None, false),
            (b"\0\0\0\0\0", Some(5), true),
            (b"\x01\0\0\0\0", Some(5), true),
            (b"\x02\0\0\0\0", Some(5), false),
            (b"\x80\0\0\0\0", Some(5), false),
            (b"\0\0\0\0\x02ab", Some(7), true),
            (b"\0\0\0\0\x02a", Some(7), false),
            (b"\0\0\0\0\x02abc", Some(7), false),
            (b"\0\0\0\0\x01a\0\0\0\0\x01b", Some(6), false),
            (b"\0\xff\xff\xff\xff", Some(0x1_0000_0004), false),
        ] {
            assert_eq!(message_end(content), end, "{content:?}");
            assert_eq!(is_one_message(content), one, "{content:?}");
        }
    }

    #[test]
    fn only_an_answer_that_goes_on_behind_its_head_may_have_a_result() {
        const GRPC: (&str, &str) = ("content-type", "application/grpc+proto");
        for (status, lines, expected) in [
            (200, &[GRPC][..], true),
            (200, &[GRPC, ("grpc-encoding", "gzip")], true),
            (200, &[GRPC, ("grpc-status", "0")], false),
            (200, &[GRPC, ("grpc-status", "5")], false),
            (200, &[("content-type", "text/html")], false),
            (200, &[], false),
            (203, &[GRPC], false),
            (503, &[GRPC], false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let found = may_have_result(status, &headers(lines));
            assert_eq!(found, expected, "{status} {lines:?}");
        }
    }

    #[test]
    fn a_result_is_one_message_and_the_status_0() {
        const OK: (&str, &str) = ("grpc-status", "0");
        for (lines, expected) in [
            (&[OK][..], true),
            (&[OK, ("grpc-message", "")], true),
            (&[OK, ("x-took", "5ms")], true),
            (&[], false),
            (&[("grpc-status", "5")], false),
            (&[("grpc-status", "00")], false),
            (&[("grpc-status", "")], false),
            (&[OK, OK], false),
            (&[OK, ("grpc-status", "5")], false),
            (&[("grpc-message", "")], false),
        ] {
            let trailers = headers(lines);
            let message = b"\0\0\0\0\x01a";
            assert_eq!(is_result(message, Some(&trailers)), expected, "{lines:?}");
            assert!(!is_result(b"", Some(&trailers)), "{lines:?}");
            assert!(!is_result(message, None));
        }
    }

    proptest! {
        #![proptest_config(thoroughly())]
        #[test]
        fn any_content_is_one_message_or_not(content: Vec<u8>, flag in 0..=1_u8) {
            let whole = is_one_message(&content);
            prop_assert_eq!(whole && message_end(&content) != Some(content.len() as u64), false);
            let length = u32::try_from(content.len()).unwrap().to_be_bytes();
            let framed = [&[flag], &length[..], &content].concat();
            prop_assert!(is_one_message(&framed));
            prop_assert!(!is_one_message(&framed[..framed.len() - 1]));
            prop_assert!(!is_one_message(&[&framed[..], &[0]].concat()));
        }
    }
}
