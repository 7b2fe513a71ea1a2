use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::wire::{self, Reader, Wire, write_bytes};
use crate::entry::StoredResponse;
use crate::entry::said::Said;
use crate::key::PrimaryKey;
use crate::semantics::freshness::Terms;

/// How far another machine's clock may be ahead.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);

/// Writes all that stands before the body.
pub(super) fn write(
    response: &StoredResponse,
    compressed: bool,
    now: Instant,
    wall: SystemTime,
) -> Vec<u8> {
    let StoredResponse {
        key,
        variant,
        status,
        fields,
        body,
        trailers,
        terms,
        tagged,
        received: _,
        stamp,
        said: _,
    } = response;
    let terms = Terms {
        initial_age: response.age(now),
        ..terms.clone()
    };
    let mut head = Vec::with_capacity(1024);
    write_bytes(key.as_bytes(), &mut head);
    compressed
        .then(|| wire::length(body.len()))
        .write(&mut head);
    since_1970(wall).write(&mut head);
    terms.write(&mut head);
    variant.write(&mut head);
    status.write(&mut head);
    fields.write(&mut head);
    trailers.write(&mut head);
    tagged.write(&mut head);
    stamp.write(&mut head);
    head
}

/// Reads what stands behind the key and the length of the content.
pub(super) fn read(
    from: &mut Reader<'_>,
    key: &PrimaryKey,
    body: Bytes,
    now: Instant,
    wall: SystemTime,
) -> Option<StoredResponse> {
    let written = Duration::read(from)?;
    Some(StoredResponse {
        // Not the entry's copy: this one may have its fingerprint computed already.
        key: key.clone(),
        terms: resumed(Wire::read(from)?, written, since_1970(wall)),
        variant: Wire::read(from)?,
        status: Wire::read(from)?,
        fields: Wire::read(from)?,
        trailers: Wire::read(from)?,
        tagged: Wire::read(from)?,
        stamp: Wire::read(from)?,
        received: now,
        said: Said::default(),
        body,
    })
}

/// Counts the time between the two wall clocks as time in the store.
///
/// A clock that ran ahead of this one takes nothing off the age. Far ahead, the age is anyone's
/// guess, and the response is stale.
fn resumed(mut terms: Terms, written: Duration, wall: Duration) -> Terms {
    terms.initial_age = terms.age(wall.saturating_sub(written));
    if written.saturating_sub(wall) > CLOCK_TOLERANCE {
        terms.expire();
    }
    terms
}

/// A clock before 1970 counts as 1970.
fn since_1970(wall: SystemTime) -> Duration {
    wall.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{at, full};
    use super::super::{decode, encode_head};
    use super::*;

    #[test]
    fn the_time_between_writing_and_reading_is_time_in_the_store() {
        const TODAY: i64 = 1_700_000_000;
        const IN_9999: i64 = 253_402_300_799;
        // Fresh for 60 s; 10 s old on arrival and written 5 s later.
        for (case, written, read, age, fresh) in [
            ("at once", 100, 100, 15, true),
            ("fresh to the last", 100, 144, 59, true),
            ("over the lifetime", 100, 145, 60, false),
            ("a bit ahead", 105, 100, 15, true),
            ("in the future", 106, 100, 15, false),
            ("written in 1970", 0, TODAY, 1_700_000_015, false),
            ("read in 1970", TODAY, 0, 15, false),
            ("written before 1970", -86_400, 40, 55, true),
            ("read before 1970", 100, -86_400, 15, false),
            ("written in 9999", IN_9999, TODAY, 15, false),
            ("read in 9999", TODAY, IN_9999, 251_702_300_814, false),
            ("both in 9999", IN_9999, IN_9999, 234_955_556_740, false),
        ] {
            let response = full();
            let in_the_writer = Duration::from_secs(5);
            let then = response.received + in_the_writer;
            let mut entry = encode_head(&response, None, then, at(written));
            entry.extend_from_slice(&response.body);
            let now = response.received + Duration::from_secs(1000);
            let response = decode(&entry.into(), &response.key, 0, now, at(read)).unwrap();
            assert_eq!(response.received, now);
            assert_eq!(response.age(now).as_secs(), age, "{case}");
            assert_eq!(response.terms.is_fresh(response.age(now)), fresh, "{case}");
        }
    }
}
