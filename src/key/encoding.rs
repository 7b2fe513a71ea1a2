use smallvec::SmallVec;

use super::NoKey;

/// The format of the encoding; a change of meaning or order needs another number.
const VERSION: u8 = 1;

/// The longest encoding that is a key.
const MAX_LEN: usize = 64 * 1024;

/// What a field of the encoding holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag(u8);

impl Tag {
    pub(super) const NAMESPACE: Self = Self(1);
    pub(super) const CLASS: Self = Self(2);
    pub(super) const SCHEME: Self = Self(3);
    pub(super) const AUTHORITY: Self = Self(4);
    pub(super) const ANY_HOST: Self = Self(5);
    pub(super) const PATH: Self = Self(6);
    pub(super) const QUERY: Self = Self(7);
    pub(super) const NO_QUERY: Self = Self(8);
    pub(super) const KEPT_PARAMS: Self = Self(9);
    pub(super) const IGNORED_PARAMS: Self = Self(10);
    pub(super) const PARAM: Self = Self(11);
    pub(super) const SORTED_PARAM: Self = Self(12);
    pub(super) const UNFILTERED_QUERY: Self = Self(13);
    pub(super) const FIELD: Self = Self(14);
    pub(super) const FIELD_LINE: Self = Self(15);
    pub(super) const COOKIE: Self = Self(16);
    pub(super) const COOKIE_PAIR: Self = Self(17);
    pub(super) const QUERY_RULE: Self = Self(18);
    pub(super) const CANONICAL_QUERY: Self = Self(19);
    pub(super) const CONTENT: Self = Self(20);
}

/// An encoded key; one of ordinary length is made, compared and dropped without an allocation.
pub(super) type Encoded = SmallVec<[u8; 128]>;

/// Writes a version byte and fields of (tag byte, u32 length, bytes).
pub(super) struct Encoder {
    bytes: Encoded,
}

impl Encoder {
    #[inline]
    pub(super) fn new() -> Self {
        let mut bytes = SmallVec::new();
        bytes.push(VERSION);
        Self { bytes }
    }

    /// Takes up an encoding where it was left.
    pub(super) fn resume(encoded: &[u8]) -> Self {
        Self {
            bytes: SmallVec::from_slice(encoded),
        }
    }

    /// Adds fields that are encoded already.
    pub(super) fn put_encoded(&mut self, fields: &[u8]) {
        self.bytes.extend_from_slice(fields);
    }

    pub(super) fn put(&mut self, tag: Tag, field: &[u8]) -> Result<(), NoKey> {
        let len = u32::try_from(field.len()).map_err(|_| NoKey::TooLong)?;
        if self.bytes.len().saturating_add(field.len()) > MAX_LEN {
            return Err(NoKey::TooLong);
        }
        let [a, b, c, d] = len.to_be_bytes();
        self.bytes.reserve(field.len().saturating_add(5));
        self.bytes.extend_from_slice(&[tag.0, a, b, c, d]);
        self.bytes.extend_from_slice(field);
        Ok(())
    }

    pub(super) fn put_lower_case(&mut self, tag: Tag, field: &[u8]) -> Result<(), NoKey> {
        self.put(tag, field)?;
        let start = self.bytes.len().saturating_sub(field.len());
        let written = self.bytes.get_mut(start..).unwrap_or_default();
        written.make_ascii_lowercase();
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Encoded, NoKey> {
        if self.bytes.len() > MAX_LEN {
            return Err(NoKey::TooLong);
        }
        Ok(self.bytes)
    }
}

/// The fields of an encoding, up to the first that is cut short.
pub(super) fn fields(encoded: &[u8]) -> impl Iterator<Item = (Tag, &[u8])> {
    let mut rest = encoded.get(1..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (tag, field, after) = split_field(rest)?;
        rest = after;
        Some((tag, field))
    })
}

/// An encoding that holds the query as it stands, taken apart around it.
pub(super) struct AroundQuery<'a> {
    pub(super) before: &'a [u8],
    pub(super) query: Option<&'a [u8]>,
    pub(super) after: &'a [u8],
}

impl<'a> AroundQuery<'a> {
    /// Takes an encoding apart; `None` if it holds something else in the query's place.
    pub(super) fn of(encoded: &'a [u8]) -> Option<Self> {
        let mut rest = encoded.get(1..)?;
        loop {
            let (tag, _, after) = split_field(rest)?;
            rest = after;
            if tag == Tag::PATH {
                break;
            }
        }
        let before = encoded.strip_suffix(rest)?;
        let (query, after) = match split_field(rest) {
            Some((Tag::QUERY, query, after)) => (Some(query), after),
            Some((Tag::FIELD | Tag::COOKIE, ..)) | None => (None, rest),
            Some(_) => return None,
        };
        Some(Self {
            before,
            query,
            after,
        })
    }
}

/// Splits the first field off.
fn split_field(encoded: &[u8]) -> Option<(Tag, &[u8], &[u8])> {
    let (&tag, after_tag) = encoded.split_first()?;
    let (len, after_len) = after_tag.split_first_chunk()?;
    let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
    let (field, after_field) = after_len.split_at_checked(len)?;
    Some((Tag(tag), field, after_field))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_over_the_bound_is_refused() {
        let mut one_field = Encoder::new();
        assert_eq!(
            one_field.put(Tag::PATH, &[b'a'; MAX_LEN]),
            Err(NoKey::TooLong)
        );

        let mut many_fields = Encoder::new();
        let written = (0..MAX_LEN).try_for_each(|_| many_fields.put(Tag::PARAM, b""));
        assert_eq!(
            written.and_then(|()| many_fields.finish().map(drop)),
            Err(NoKey::TooLong)
        );
    }

    proptest! {
        #[test]
        fn fields_come_back_as_they_were_put(
            written in prop::collection::vec((any::<u8>(), any::<Vec<u8>>()), 0..20)
        ) {
            let mut encoder = Encoder::new();
            for (tag, field) in &written {
                encoder.put(Tag(*tag), field).unwrap();
            }
            let encoded = encoder.finish().unwrap();
            let read = fields(&encoded).map(|(tag, field)| (tag.0, field.to_vec()));
            prop_assert_eq!(read.collect::<Vec<_>>(), written);
        }

        #[test]
        fn any_bytes_can_be_read(bytes: Vec<u8>) {
            fields(&bytes).for_each(drop);
            AroundQuery::of(&bytes);
        }
    }
}
