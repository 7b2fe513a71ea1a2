use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::wire::{Reader, Wire, write_bytes};
use crate::entry::{Part, StoredResponse};
use crate::key::PrimaryKey;
use crate::semantics::freshness::Terms;

/// How far another machine's clock may be ahead.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);

/// Writes all that stands before the body.
pub(super) fn write(response: &StoredResponse, now: Instant, wall: SystemTime) -> Vec<u8> {
    let StoredResponse {
        key,
        variant,
        status,
        fields,
        body: _,
        trailers,
        part,
        terms,
        tagged,
        received: _,
        stamp,
    } = response;
    let terms = Terms {
        initial_age: response.age(now),
        ..terms.clone()
    };
    let mut head = Vec::with_capacity(1024);
    write_bytes(key.as_bytes(), &mut head);
    since_1970(wall).write(&mut head);
    terms.write(&mut head);
    variant.write(&mut head);
    status.write(&mut head);
    fields.write(&mut head);
    trailers.write(&mut head);
    part.write(&mut head);
    tagged.write(&mut head);
    stamp.write(&mut head);
    head
}

/// Reads what stands behind the key.
pub(super) fn read(
    from: &mut Reader<'_>,
    key: &PrimaryKey,
    body: Bytes,
    now: Instant,
    wall: SystemTime,
) -> Option<StoredResponse> {
    let written = Duration::read(from)?;
    let response = StoredResponse {
        // Not the entry's copy: this one may have its fingerprint computed already.
        key: key.clone(),
        terms: resumed(Wire::read(from)?, written, since_1970(wall)),
        variant: Wire::read(from)?,
        status: Wire::read(from)?,
        fields: Wire::read(from)?,
        trailers: Wire::read(from)?,
        part: Wire::read(from)?,
        tagged: Wire::read(from)?,
        stamp: Wire::read(from)?,
        received: now,
        body,
    };
    let part_is_possible = response
        .part
        .is_none_or(|part| part.can_be_of(response.body.len()));
    part_is_possible.then_some(response)
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

impl Part {
    /// Whether a part of this length lies within what is said to be the whole.
    fn can_be_of(self, length: usize) -> bool {
        let end = u64::try_from(length)
            .ok()
            .and_then(|length| self.first.checked_add(length));
        end.is_some_and(|end| self.complete_length.is_none_or(|whole| end <= whole))
    }
}

/// A clock before 1970 counts as 1970.
fn since_1970(wall: SystemTime) -> Duration {
    wall.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{at, entry_of, full, read_back};
    use super::super::{Damage, decode, encode_head};
    use super::*;

    #[test]
    fn a_part_beyond_the_whole_is_damage() {
        for (first, complete_length, possible) in [
            (5, Some(9), true),
            (6, Some(9), false),
            (u64::MAX - 4, None, true),
            (u64::MAX - 3, None, false),
        ] {
            let mut response = full();
            response.part = Some(Part {
                first,
                complete_length,
            });
            let damage = read_back(entry_of(&response), &response).map(drop);
            let expected = possible.then_some(()).ok_or(Damage::Malformed);
            assert_eq!(damage, expected, "{first}");
        }
    }

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
            let mut entry = encode_head(&response, response.received + in_the_writer, at(written));
            entry.extend_from_slice(&response.body);
            let now = response.received + Duration::from_secs(1000);
            let response = decode(&entry.into(), &response.key, now, at(read)).unwrap();
            assert_eq!(response.received, now);
            assert_eq!(response.age(now).as_secs(), age, "{case}");
            assert_eq!(response.terms.is_fresh(response.age(now)), fresh, "{case}");
        }
    }
}
