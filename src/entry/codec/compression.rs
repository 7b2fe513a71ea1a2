//! Bodies as LZ4 blocks.

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};

use super::Damage;
use crate::entry::StoredResponse;

/// Compresses the body of a response, if it is longer than `above` and an eighth of it is saved.
///
/// What is compressed already, by its coding or its type, is not tried.
pub(super) fn compress(response: &StoredResponse, above: usize) -> Option<Vec<u8>> {
    let StoredResponse { body, fields, .. } = response;
    if body.len() <= above || is_compressed(fields) {
        return None;
    }
    let block = lz4_flex::block::compress(body);
    let saved = body.len().saturating_sub(block.len());
    (saved >= body.len().div_ceil(8)).then_some(block)
}

/// Returns the content of a block, which must have this length.
pub(super) fn decompress(block: &[u8], length: usize) -> Result<Bytes, Damage> {
    // Not the function that allocates by itself: it may panic where the length is too short.
    let mut content = vec![0; length];
    match lz4_flex::block::decompress_into(block, &mut content) {
        Ok(filled) if filled == length => Ok(content.into()),
        _ => Err(Damage::Malformed),
    }
}

fn is_compressed(fields: &HeaderMap) -> bool {
    let content_type = fields.get(CONTENT_TYPE);
    fields.contains_key(CONTENT_ENCODING)
        || content_type.is_some_and(|value| is_compressed_type(value.as_bytes()))
}

/// Whether a media type (RFC 9110 §8.3.1) is known for compressed content. One that is not known
/// costs an attempt.
fn is_compressed_type(content_type: &[u8]) -> bool {
    const MEDIA: [&[u8]; 4] = [b"image/", b"audio/", b"video/", b"font/woff"];
    const ARCHIVES: [&[u8]; 6] = [b"zip", b"/zstd", b"-compressed", b"rar", b"/x-xz", b"/pdf"];
    let essence = content_type.split(|byte| *byte == b';').next();
    let essence = essence
        .unwrap_or_default()
        .trim_ascii()
        .to_ascii_lowercase();
    let is_media = MEDIA.iter().any(|kind| essence.starts_with(kind));
    let is_archive = ARCHIVES.iter().any(|kind| essence.ends_with(kind));
    is_archive || is_media && !essence.ends_with(b"+xml")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::super::testing::{any_response, full};
    use super::super::{decode, encode};
    use super::*;
    use crate::clock::Clock;

    fn response(body: Vec<u8>, fields: &[(&'static str, &'static str)]) -> StoredResponse {
        let mut response = full();
        response.body = body.into();
        for (name, value) in fields {
            response
                .fields
                .append(*name, HeaderValue::from_static(value));
        }
        response
    }

    #[test]
    fn only_what_is_long_enough_is_compressed() {
        let response = response(vec![b'a'; 1000], &[]);
        assert!(compress(&response, 1000).is_none());
        assert!(compress(&response, 999).is_some());
    }

    #[test]
    fn what_saves_less_than_an_eighth_is_left_as_it_is() {
        // Numbers in which LZ4 finds nothing, and then zeros, which vanish nearly.
        let body = |zeros: usize| {
            let noise =
                (0..1000_u32).flat_map(|n| blake3::hash(&n.to_be_bytes()).as_bytes()[..8].to_vec());
            let body: Vec<u8> = noise.chain(vec![0; zeros]).collect();
            response(body, &[])
        };
        assert!(compress(&body(0), 0).is_none());
        assert!(compress(&body(1000), 0).is_none());
        assert!(compress(&body(1300), 0).is_some());
        assert!(compress(&response(vec![], &[]), 0).is_none());
    }

    #[test]
    fn what_is_compressed_already_is_not_tried() {
        for (fields, tried) in [
            (&[][..], true),
            (&[("content-encoding", "br")], false),
            (&[("content-encoding", "identity")], false),
            (&[("content-type", "text/html; charset=utf-8")], true),
            (&[("content-type", "application/json")], true),
            (&[("content-type", "image/svg+xml")], true),
            (&[("content-type", "font/ttf")], true),
            (&[("content-type", "")], true),
            (&[("content-type", "Image/PNG")], false),
            (&[("content-type", "video/mp4; codecs=\"avc1\"")], false),
            (&[("content-type", "application/zip ;a=b")], false),
            (&[("content-type", "application/epub+zip")], false),
            (&[("content-type", "application/x-7z-compressed")], false),
        ] {
            let response = response(vec![b'a'; 1000], fields);
            assert_eq!(compress(&response, 0).is_some(), tried, "{fields:?}");
        }
    }

    #[test]
    fn a_block_of_another_length_is_damage() {
        let response = response(vec![b'a'; 1000], &[]);
        let block = compress(&response, 0).unwrap();
        assert_eq!(decompress(&block, 1000), Ok(response.body));
        for length in [0, 1, 999, 1001, 5000] {
            assert_eq!(decompress(&block, length), Err(Damage::Malformed));
        }
    }

    proptest! {
        #[test]
        fn what_is_compressed_is_restored(mut response in any_response(), times in 1..200_usize) {
            response.body = response.body.repeat(times).into();
            if let Some(block) = compress(&response, 0) {
                prop_assert_eq!(decompress(&block, response.body.len()), Ok(response.body));
            }
        }

        #[test]
        fn what_is_restored_keeps_nothing_of_its_entry(mut response in any_response()) {
            response.body = Bytes::from(vec![b'a'; 10_000]);
            let (now, wall) = (Clock::system().now(), Clock::system().wall());
            let (head, body) = encode(&response, Some(0), now, wall);
            let entry = Bytes::from([&head, &*body].concat());
            let restored = decode(&entry, &response.key, 10_000, now, wall).unwrap();
            prop_assert_eq!(&restored.body, &response.body);
            let is_compressed = compress(&response, 0).is_some();
            prop_assert_eq!(entry.is_unique(), is_compressed);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn any_bytes_are_a_block_of_this_length_or_damage(
            // Tokens of short literals and matches lead further than most bytes do.
            block in prop::collection::vec(prop_oneof![any::<u8>(), 0..3_u8, Just(255)], 0..64),
            length in 0..4096_usize,
        ) {
            if let Ok(content) = decompress(&block, length) {
                prop_assert_eq!(content.len(), length);
            }
        }

        #[test]
        fn a_changed_block_has_the_same_length_or_is_damage(
            body in "[ab]{0,300}",
            place: prop::sample::Index,
            byte: u8,
            off in 0..40_usize,
        ) {
            let mut block = lz4_flex::block::compress(body.as_bytes());
            let place = place.index(block.len());
            block[place] = byte;
            for length in [body.len(), body.len() + off, body.len().saturating_sub(off)] {
                if let Ok(content) = decompress(&block, length) {
                    prop_assert_eq!(content.len(), length);
                }
            }
        }
    }
}
