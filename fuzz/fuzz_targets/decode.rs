//! Reads any bytes as the entry of a key, as they are and sealed.
//!
//! ```sh
//! mkdir -p fuzz/corpus/decode
//! cargo +nightly fuzz run decode fuzz/corpus/decode fuzz/seeds/decode -- -malloc_limit_mb=8
//! ```
//!
//! The limit holds the decoder to its word that a claimed length or number reserves no memory.

#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use http::{Request, Response};
use libfuzzer_sys::fuzz_target;
use tower_response_cache::{Clock, StoredResponse};

static WANTED: LazyLock<StoredResponse> = LazyLock::new(|| {
    let response = Response::new(Bytes::new());
    StoredResponse::sample(&Request::new(()), response, &Clock::system())
});

fuzz_target!(|data: &[u8]| {
    let clock = Clock::system();
    let read = |entry: Bytes| StoredResponse::decode(&entry, WANTED.key(), &clock);
    let _ = read(Bytes::copy_from_slice(data));
    if let Some(entry) = seal(data)
        && let Ok(response) = read(entry)
    {
        read(response.encode(&clock).into()).expect("what was read can be written and read again");
    }
});

/// Makes an entry of the wanted key that is sound outside.
///
/// The first byte is the length of the body; what follows is the head behind the key, then the
/// body.
fn seal(data: &[u8]) -> Option<Bytes> {
    const MAGIC_AND_VERSION: &[u8] = b"\xc5TRC\x01";
    let (&body_length, data) = data.split_first()?;
    let body_length = usize::from(body_length).min(data.len());
    let key = WANTED.key().as_bytes();
    let head_length = 4 + key.len() + data.len() - body_length;
    let sealed = [
        &u64::try_from(head_length).ok()?.to_be_bytes()[..],
        &u64::try_from(body_length).ok()?.to_be_bytes(),
        &u32::try_from(key.len()).ok()?.to_be_bytes(),
        key,
        data,
    ]
    .concat();
    let checksum = crc32c::crc32c(&sealed).to_be_bytes();
    Some([MAGIC_AND_VERSION, &checksum, &sealed].concat().into())
}
