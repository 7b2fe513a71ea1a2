//! The form in which a stored response leaves the process, version 1.
//!
//! ```text
//! magic, version           5 bytes
//! checksum                 CRC-32C of all that follows
//! head length              u64
//! body length              u64
//! head   key               the whole encoding: an entry answers no other key
//!        content length    u64, if the body is compressed
//!        written at        nanoseconds since 1970 by the writer's wall clock
//!        terms             their initial age is the age at the time of writing
//!        variant, status, fields, trailers, who gave the entity-tag, stamp
//! body                     as it is, or as an LZ4 block
//! ```
//!
//! Numbers are big-endian, booleans and the presence of what is optional are a
//! byte of 0 or 1, bytes stand behind their length and lists behind their
//! number, both u32. The body comes last and the values of fields stand in one
//! piece, so that what is read shares the allocation of the entry.
//!
//! Whatever bytes a store hands back, reading them ends in a response of the
//! expected key or in [`Damage`]; beside the entry it takes no more memory than
//! the tables for 10,000 lines, and the longest body that the store takes if it
//! is compressed. A change of any of this needs another version; an unknown one
//! is a miss.
//!
//! Monotonic clocks mean nothing in another process, so here, and nowhere else,
//! time in the store is measured by wall clocks.

#[cfg(feature = "compression")]
mod compression;
#[cfg(not(feature = "compression"))]
#[path = "no_compression.rs"]
mod compression;
mod head;
mod parts;
#[cfg(test)]
mod testing;
pub(crate) mod wire;

use std::time::{Instant, SystemTime};

use bytes::Bytes;

use self::wire::{Reader, Wire};
use super::StoredResponse;
use super::packing::pack;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind};
use crate::key::PrimaryKey;

/// Begins with a byte that no text begins with.
const MAGIC: [u8; 4] = *b"\xc5TRC";

const VERSION: u8 = 1;

/// The most bytes before the body. The layer stores far smaller heads.
const MAX_HEAD: usize = 1 << 20;

/// Reading and writing, for stores that keep bytes.
impl StoredResponse {
    /// Returns the bytes to keep in a store outside the process.
    ///
    /// The format carries a version; it is the same on all machines, and a later release that
    /// changes it takes what this one wrote for a miss.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "test-util")] {
    /// use bytes::Bytes;
    /// use http::{Request, Response};
    /// use tower_response_cache::{Clock, ErrorKind, StoredResponse};
    ///
    /// let clock = Clock::system();
    /// let request = Request::get("http://shop.example/products").body(())?;
    /// let response = Response::builder()
    ///     .header("cache-control", "max-age=60")
    ///     .body(Bytes::from("teapots"))?;
    /// let stored = StoredResponse::sample(&request, response, &clock);
    ///
    /// let mut entry = stored.encode(&clock);
    /// let back = StoredResponse::decode(&entry.clone().into(), stored.key(), &clock)?;
    /// assert_eq!(back.body(), "teapots");
    ///
    /// entry.pop();
    /// let error = StoredResponse::decode(&entry.into(), stored.key(), &clock).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Damaged);
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn encode(&self, clock: &Clock) -> Vec<u8> {
        let mut entry = encode_head(self, None, clock.now(), clock.wall());
        entry.extend_from_slice(&self.body);
        entry
    }

    /// Reads what [`encode`](Self::encode) wrote, wherever and whenever that was.
    ///
    /// The time since then counts as time in the store, by the wall clocks of both machines. What
    /// was written in the future is stale. Body and field values share the entry's allocation.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Damaged`] if the bytes are anything but the whole entry of this key, in the
    /// one format known here.
    pub fn decode(entry: &Bytes, key: &PrimaryKey, clock: &Clock) -> Result<Self, Error> {
        // `encode` compresses nothing, so nothing is to be restored.
        decode(entry, key, 0, clock.now(), clock.wall()).map_err(|damage| {
            let message = format!("the stored entry is damaged: {}", damage.as_str());
            Error::new(ErrorKind::Damaged, message)
        })
    }
}

/// Why bytes are not the entry that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// Something else is kept under this name.
    NotAnEntry,
    /// A later release wrote it, or an earlier one, or a build that compresses for one that cannot.
    UnknownVersion,
    /// Its end is missing.
    Truncated,
    /// It has changed since it was written.
    Checksum,
    /// It is the entry of another key.
    OtherKey,
    /// Its bytes stand for no response.
    Malformed,
    /// Its head is over 1 MiB, or its body has more content than the store takes.
    TooLarge,
}

impl Damage {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NotAnEntry => "not-an-entry",
            Self::UnknownVersion => "unknown-version",
            Self::Truncated => "truncated",
            Self::Checksum => "checksum",
            Self::OtherKey => "other-key",
            Self::Malformed => "malformed",
            Self::TooLarge => "too-large",
        }
    }
}

/// Writes an entry in two parts, to spare a copy of the body. It is compressed where that pays, if it
/// is longer than `compress_above`.
pub(crate) fn encode(
    response: &StoredResponse,
    compress_above: Option<usize>,
    now: Instant,
    wall: SystemTime,
) -> (Vec<u8>, Bytes) {
    let compressed = compress_above.and_then(|above| compression::compress(response, above));
    let head = encode_head(response, compressed.as_deref(), now, wall);
    let body = compressed.map_or_else(|| response.body.clone(), Bytes::from);
    (head, body)
}

/// Writes the entry up to its body, which is the response's own or what it was compressed to.
fn encode_head(
    response: &StoredResponse,
    compressed: Option<&[u8]>,
    now: Instant,
    wall: SystemTime,
) -> Vec<u8> {
    let body = compressed.unwrap_or(&response.body);
    let head = head::write(response, compressed.is_some(), now, wall);
    let lengths = [head.len(), body.len()]
        .map(|length| wire::length(length).to_be_bytes())
        .concat();
    let checksum = [&lengths, &head, body]
        .into_iter()
        .fold(0, crc32c::crc32c_append);
    let checksum = checksum.to_be_bytes();
    [&MAGIC[..], &[VERSION], &checksum, &lengths, &head].concat()
}

/// Reads an entry that must be one of this key, and restores a body of at most so many bytes.
pub(crate) fn decode(
    entry: &Bytes,
    expected: &PrimaryKey,
    most: usize,
    now: Instant,
    wall: SystemTime,
) -> Result<StoredResponse, Damage> {
    let (mut head, body) = open(entry)?;
    let key = head.prefixed().ok_or(Damage::Malformed)?;
    if key.as_bytes() != expected.as_bytes() {
        return Err(Damage::OtherKey);
    }
    let compressed = Option::read(&mut head).ok_or(Damage::Malformed)?;
    let body = match compressed {
        Some(length) => restore(&body, length, most)?,
        None => body,
    };
    let response = head::read(&mut head, expected, body, now, wall).filter(|_| head.is_empty());
    let mut response = response.ok_or(Damage::Malformed)?;
    if compressed.is_some() {
        // Its fields would keep what its body was restored from.
        pack(&mut response.fields);
        response.trailers.iter_mut().for_each(pack);
    }
    Ok(response)
}

fn restore(body: &[u8], length: u64, most: usize) -> Result<Bytes, Damage> {
    let length = usize::try_from(length).ok();
    let length = length.filter(|length| *length <= most);
    compression::decompress(body, length.ok_or(Damage::TooLarge)?)
}

/// Takes an entry apart into head and body, if it is whole.
fn open(entry: &Bytes) -> Result<(Reader<'_>, Bytes), Damage> {
    let mut rest = Reader::new(entry);
    if Wire::read(&mut rest) != Some(MAGIC) {
        return Err(Damage::NotAnEntry);
    }
    if u8::read(&mut rest).ok_or(Damage::Truncated)? != VERSION {
        return Err(Damage::UnknownVersion);
    }
    let checksum = u32::read(&mut rest).ok_or(Damage::Truncated)?;
    let sealed = rest.as_bytes();
    let head_length = rest.length().ok_or(Damage::Truncated)?;
    let body_length = rest.length().ok_or(Damage::Truncated)?;
    if head_length > MAX_HEAD {
        return Err(Damage::TooLarge);
    }
    let head = rest.split(head_length).ok_or(Damage::Truncated)?;
    let body = rest.split(body_length).ok_or(Damage::Truncated)?;
    if !rest.is_empty() {
        return Err(Damage::Malformed);
    }
    if crc32c::crc32c(sealed) != checksum {
        return Err(Damage::Checksum);
    }
    Ok((head, body.to_bytes()))
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use proptest::prelude::*;

    use super::testing::{
        MOST, any_response, at, compressed_entry_of, content, entry_of, full, read_back,
    };
    use super::*;
    use crate::semantics::vary::Nominated;

    /// Where the sealed bytes begin: behind magic, version and checksum.
    const SEALED: usize = 9;

    /// Behind the lengths of head and body, the key `key` and the byte that says that it is there.
    const CONTENT_LENGTH: Range<usize> = SEALED + 24..SEALED + 32;

    /// A hundred times `a`: one literal, a match of 94 bytes one byte back, and five literals.
    const BLOCK: &[u8] = b"\x1fa\x01\x00\x4b\x50aaaaa";

    /// Makes the checksum fit again, as whoever can write to the store can.
    fn reseal(entry: &mut [u8]) {
        let checksum = crc32c::crc32c(&entry[SEALED..]);
        entry[SEALED - 4..SEALED].copy_from_slice(&checksum.to_be_bytes());
    }

    #[test]
    fn version_1_stays_what_it_is() {
        let golden = [
            "c5545243 01 4a29f3f6",              // magic, version, checksum
            "00000000000000ea 0000000000000004", // lengths of head and body
            "00000003 6b6579 00",                // key, no content length
            "000000003b9aca00",                  // written at
            "0000000df8475800 02",               // lifetime, basis
            "00000002540be400",                  // age
            "000000006553f100",                  // date
            "01 ffffffffffffffff",               // last modified
            "01 0000000000000001 00",            // stale windows
            "00 01 00 01",                       // terms that hold or not
            "00000001 00000006 782d75736572",    // omitted
            "01 00000001 00000006 616363657074", // vary
            "00000003 6e6f6d 01",                // nominated, normal form
            "00ce 00000004",                     // status, number of lines
            "00000004 65746167 00 00000004 22763122",
            "0000000a 7365742d636f6f6b6965 00 00000003 613d31",
            "0000000a 7365742d636f6f6b6965 00 00000003 623de4",
            "00000007 782d656d707479 00 00000000",
            "01 00000001 00000005 782d73756d 01 00000001 39", // trailers
            "01 00000001",                                    // who tagged it, number of epochs
            "74 d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1 0000000000000007",
            "626f6479", // body
        ];
        let hex: String = golden.concat().split(' ').collect();
        let entry: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|place| u8::from_str_radix(&hex[place..place + 2], 16).unwrap())
            .collect();
        let response = full();
        assert_eq!(entry_of(&response), entry);
        assert_eq!(
            content(&read_back(entry, &response).unwrap()),
            content(&response)
        );
    }

    #[test]
    fn body_and_field_values_share_the_allocation_of_the_entry() {
        let response = full();
        let entry = Bytes::from(entry_of(&response));
        let read = decode(&entry, &response.key, 0, response.received, at(1)).unwrap();
        let etag = read.etag().unwrap().as_bytes();
        for part in [&read.body[..], etag] {
            assert!(entry.as_ptr_range().contains(&part.as_ptr()));
        }
    }

    #[test]
    fn any_other_byte_in_any_place_is_damage() {
        let response = full();
        let entry = entry_of(&response);
        for place in 0..entry.len() {
            for change in 1..=u8::MAX {
                let mut entry = entry.clone();
                entry[place] ^= change;
                let expected = match place {
                    0..4 => Some(Damage::NotAnEntry),
                    4 => Some(Damage::UnknownVersion),
                    // A length may come to be too large or too long first.
                    9..25 => None,
                    _ => Some(Damage::Checksum),
                };
                let damage = read_back(entry, &response).map(drop).unwrap_err();
                assert_eq!(damage, expected.unwrap_or(damage), "byte {place}");
            }
        }
    }

    #[test]
    fn a_part_of_an_entry_and_an_entry_with_more_behind_it_are_damage() {
        let response = full();
        let mut entry = entry_of(&response);
        for length in 0..entry.len() {
            let expected = match length {
                0..4 => Damage::NotAnEntry,
                _ => Damage::Truncated,
            };
            let damage = read_back(entry[..length].to_vec(), &response).map(drop);
            assert_eq!(damage, Err(expected), "{length} bytes");
        }
        entry.push(0);
        assert_eq!(
            read_back(entry, &response).map(drop),
            Err(Damage::Malformed)
        );
    }

    #[test]
    fn the_entry_of_another_key_is_damage() {
        let response = full();
        for other in [&b""[..], b"ke", b"keys", b"kez"] {
            let mut expected = response.clone();
            expected.key = PrimaryKey::from_encoded(other);
            let damage = read_back(entry_of(&response), &expected).map(drop);
            assert_eq!(damage, Err(Damage::OtherKey));
        }
    }

    #[test]
    fn a_head_over_the_bound_is_damage() {
        let mut response = full();
        response.variant.nominated = Nominated::from_bytes(vec![0; MAX_HEAD].into());
        let damage = read_back(entry_of(&response), &response).map(drop);
        assert_eq!(damage, Err(Damage::TooLarge));
    }

    #[test]
    fn a_compressed_body_is_restored_where_that_is_built_in() {
        let mut response = full();
        response.body = Bytes::from(vec![b'a'; 100]);
        let entry = compressed_entry_of(&response, BLOCK);
        assert_eq!(entry[CONTENT_LENGTH], [0, 0, 0, 0, 0, 0, 0, 100]);
        assert_eq!(entry[CONTENT_LENGTH.start - 1], 1);
        assert!(entry.ends_with(BLOCK));
        let read = read_back(entry, &response);
        if cfg!(feature = "compression") {
            assert_eq!(content(&read.unwrap()), content(&response));
        } else {
            assert_eq!(read.map(drop), Err(Damage::UnknownVersion));
        }
    }

    #[test]
    fn a_body_with_more_content_than_the_store_takes_is_not_restored() {
        for (length, too_large) in [(MOST, false), (MOST + 1, true), (usize::MAX, true)] {
            let mut entry = compressed_entry_of(&full(), BLOCK);
            entry[CONTENT_LENGTH].copy_from_slice(&wire::length(length).to_be_bytes());
            reseal(&mut entry);
            let damage = read_back(entry, &full()).map(drop).unwrap_err();
            assert_eq!(
                damage == Damage::TooLarge,
                too_large,
                "{length}: {damage:?}"
            );
        }
    }

    #[test]
    fn the_public_error_says_that_it_is_damage_and_which() {
        let response = full();
        let entry = Bytes::from_static(b"+OK");
        let error = StoredResponse::decode(&entry, &response.key, &Clock::system()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert_eq!(
            error.to_string(),
            "the stored entry is damaged: not-an-entry"
        );
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read_back(response in any_response()) {
            let read = read_back(entry_of(&response), &response).unwrap();
            prop_assert_eq!(content(&read), content(&response));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn any_bytes_can_be_read(
            content_length: Option<u16>,
            bytes: Vec<u8>,
            body_length in 0..16_usize,
        ) {
            let response = full();
            let mut key = [&[0, 0, 0, 3], response.key.as_bytes()].concat();
            content_length.map(u64::from).write(&mut key);
            let head_length = (key.len() + bytes.len()).saturating_sub(body_length);
            let lengths = [head_length, body_length]
                .map(|length| u64::try_from(length).unwrap().to_be_bytes())
                .concat();
            let mut entry = [&MAGIC[..], &[VERSION], &[0; 4], &lengths, &key, &bytes].concat();
            reseal(&mut entry);
            let _ = read_back(entry, &response);
            let _ = read_back(bytes, &response);
        }

        #[test]
        fn an_entry_changed_by_whoever_seals_it_is_damage_or_a_response_like_any_other(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in prop::option::of(any::<prop::sample::Index>()),
            compressed: bool,
        ) {
            let response = full();
            let mut entry = match compressed {
                true => compressed_entry_of(&response, BLOCK),
                false => entry_of(&response),
            };
            for (place, byte) in changes {
                let sealed = &mut entry[SEALED..];
                sealed[place.index(sealed.len())] = byte;
            }
            if let Some(cut) = cut {
                entry.remove(cut.index(entry.len() - SEALED) + SEALED);
            }
            reseal(&mut entry);
            if let Ok(changed) = read_back(entry, &response) {
                let again = read_back(entry_of(&changed), &changed).unwrap();
                prop_assert_eq!(content(&again), content(&changed));
            }
        }
    }
}
