use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::wire::{
    Reader, Wire, byte_by_variant, field_by_field, write_bytes, write_count, write_list,
};
use crate::entry::{Tagged, Variant};
use crate::epoch::{Epoch, Scope, ScopeKind, Stamp};
use crate::semantics::date::HttpDate;
use crate::semantics::freshness::{Basis, Terms};
use crate::semantics::vary::{Nominated, NormalForm, Vary};

field_by_field! {
    Variant {
        vary,
        nominated,
        form,
    }
}

byte_by_variant! {
    NormalForm {
        Lists = 0,
        Sets = 1,
        SetsInOneLanguage = 2,
    }
}

field_by_field! {
    Terms {
        lifetime,
        basis,
        initial_age,
        date,
        last_modified,
        stale_while_revalidate,
        stale_if_error,
        validate_always,
        forbids_stale,
        shared_lifetime,
        immutable,
        omitted,
    }
}

byte_by_variant! {
    Basis {
        Explicit = 0,
        Heuristic = 1,
        Assigned = 2,
        None = 3,
    }
}

byte_by_variant! {
    Tagged {
        ByOrigin = 0,
        ByCache = 1,
    }
}

/// Whether a request can match at all, then the names.
impl Wire for Vary {
    fn write(&self, out: &mut Vec<u8>) {
        let names = self.fields();
        names.is_some().write(out);
        write_list(names.unwrap_or_default(), out);
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let matchable = bool::read(from)?;
        let names: Box<[HeaderName]> = from.list()?;
        match (matchable, names.is_empty()) {
            (true, true) => Some(Self::None),
            (true, false) => Some(Self::Fields(names)),
            (false, true) => Some(Self::Any),
            (false, false) => None,
        }
    }
}

impl Wire for Nominated {
    fn write(&self, out: &mut Vec<u8>) {
        write_bytes(self.as_bytes(), out);
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        Some(Self::from_bytes(from.prefixed()?.as_bytes().into()))
    }
}

/// Interim responses are never stored (RFC 9111 §3).
impl Wire for StatusCode {
    fn write(&self, out: &mut Vec<u8>) {
        self.as_u16().write(out);
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let status = Self::from_u16(u16::read(from)?).ok()?;
        (!status.is_informational()).then_some(status)
    }
}

/// Every line, in order.
impl Wire for HeaderMap {
    fn write(&self, out: &mut Vec<u8>) {
        write_count(self.len(), out);
        for (name, value) in self {
            name.write(out);
            value.write(out);
        }
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        /// Two lengths, one letter, one flag.
        const SHORTEST_LINE: usize = 10;
        let lines = from.count()?;
        let possible = from.as_bytes().len() / SHORTEST_LINE;
        let mut fields = Self::try_with_capacity(lines.min(possible)).ok()?;
        for _ in 0..lines {
            fields
                .try_append(HeaderName::read(from)?, Wire::read(from)?)
                .ok()?;
        }
        Some(fields)
    }
}

/// In lower case: another spelling would not be found again.
impl Wire for HeaderName {
    fn write(&self, out: &mut Vec<u8>) {
        write_bytes(self.as_str().as_bytes(), out);
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        Self::from_lowercase(from.prefixed()?.as_bytes()).ok()
    }
}

/// Whether it must be kept out of compression contexts and logs, then any bytes that a field may
/// have.
impl Wire for HeaderValue {
    fn write(&self, out: &mut Vec<u8>) {
        self.is_sensitive().write(out);
        write_bytes(self.as_bytes(), out);
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let sensitive = bool::read(from)?;
        let mut value = Self::from_maybe_shared(from.prefixed()?.to_bytes()).ok()?;
        value.set_sensitive(sensitive);
        Some(value)
    }
}

impl Wire for HttpDate {
    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        Wire::read(from).map(Self)
    }
}

impl Wire for Stamp {
    fn write(&self, out: &mut Vec<u8>) {
        write_count(self.len(), out);
        for held in self.iter() {
            held.write(out);
        }
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        from.list()
    }
}

impl Wire for (Scope, Epoch) {
    fn write(&self, out: &mut Vec<u8>) {
        let (scope, epoch) = self;
        scope.kind().byte().write(out);
        scope.digest().write(out);
        epoch.value().write(out);
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let kind = ScopeKind::from_byte(u8::read(from)?)?;
        let scope = Scope::from_parts(kind, Wire::read(from)?);
        Some((scope, Epoch::new(Wire::read(from)?)?))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn read<T: Wire>(bytes: &[u8]) -> Option<T> {
        let entry = Bytes::copy_from_slice(bytes);
        let mut from = Reader::new(&entry);
        T::read(&mut from).filter(|_| from.is_empty())
    }

    fn prefixed(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write_bytes(bytes, &mut out);
        out
    }

    #[test]
    fn only_names_in_lower_case_are_read() {
        for valid in ["etag", "x-custom", "!#$%&'*+-.^_`|~9"] {
            let name = read::<HeaderName>(&prefixed(valid.as_bytes()));
            assert_eq!(name, Some(HeaderName::from_static(valid)));
        }
        let long = "x".repeat(100);
        for invalid in [
            "", "ETag", "X-custom", "a b", "a:", "a\r\nb", "a\0", "\u{e4}",
        ] {
            for name in [invalid.to_owned(), format!("{invalid}{long}\n")] {
                assert_eq!(
                    read::<HeaderName>(&prefixed(name.as_bytes())),
                    None,
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn values_are_any_bytes_but_those_that_end_or_hide_a_line() {
        for valid in [&b""[..], b" a\tb ", b"\x80\xff"] {
            let bytes = [vec![0], prefixed(valid)].concat();
            assert_eq!(read::<HeaderValue>(&bytes).unwrap().as_bytes(), valid);
        }
        for invalid in [&b"a\rb"[..], b"\n", b"\0", b"\x7f"] {
            let bytes = [vec![0], prefixed(invalid)].concat();
            assert_eq!(read::<HeaderValue>(&bytes), None, "{invalid:?}");
        }
    }

    #[test]
    fn only_final_statuses_of_three_digits_are_read() {
        for (status, valid) in [
            (0, false),
            (99, false),
            (100, false),
            (103, false),
            (200, true),
            (999, true),
            (1000, false),
            (u16::MAX, false),
        ] {
            let read = read::<StatusCode>(&status.to_be_bytes());
            assert_eq!(read.is_some(), valid, "{status}");
        }
    }

    #[test]
    fn more_lines_than_there_are_bytes_or_than_10_000_are_not_read() {
        let line = [prefixed(b"a"), vec![0], prefixed(b"")].concat();
        for (claimed, held, readable) in [
            (0, 0, true),
            (1, 0, false),
            (u32::MAX, 1, false),
            (9_999, 10_000, false),
            (10_000, 10_000, true),
            (10_001, 10_001, false),
        ] {
            let bytes = [claimed.to_be_bytes().to_vec(), line.repeat(held)].concat();
            let fields = read::<HeaderMap>(&bytes);
            assert_eq!(fields.is_some(), readable, "{claimed}");
        }
    }

    #[test]
    fn a_byte_that_no_variant_has_is_not_read() {
        assert_eq!(read::<NormalForm>(&[3]), None);
        assert_eq!(read::<Basis>(&[4]), None);
        assert_eq!(read::<Tagged>(&[2]), None);
    }

    #[test]
    fn vary_is_read_in_its_one_form_only() {
        let names = [vec![0, 0, 0, 1], prefixed(b"accept")].concat();
        assert_eq!(read::<Vary>(&[1, 0, 0, 0, 0]), Some(Vary::None));
        assert_eq!(read::<Vary>(&[0, 0, 0, 0, 0]), Some(Vary::Any));
        assert_eq!(read::<Vary>(&[&[0], &names[..]].concat()), None);
    }

    #[test]
    fn epochs_have_a_kind_and_a_value() {
        let held = |kind, value| [&[kind], &[9; 16][..], &[value; 8]].concat();
        assert!(read::<(Scope, Epoch)>(&held(b't', 1)).is_some());
        assert_eq!(read::<(Scope, Epoch)>(&held(b'x', 1)), None);
        assert_eq!(read::<(Scope, Epoch)>(&held(b't', 0)), None);
    }
}
