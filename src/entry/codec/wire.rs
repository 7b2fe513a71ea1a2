use std::time::Duration;

use bytes::Bytes;

/// What an entry is made of; writing and reading stand side by side, so that they agree.
pub(crate) trait Wire: Sized {
    /// Appends the value.
    fn write(&self, out: &mut Vec<u8>);

    /// Reads a value back; `None` if the bytes are too few or stand for no value.
    fn read(from: &mut Reader<'_>) -> Option<Self>;
}

/// What is left to read of an entry.
pub(crate) struct Reader<'a> {
    entry: &'a Bytes,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// More lines, names or epochs than this are in no entry.
    const MAX_COUNT: usize = 10_000;

    pub(crate) fn new(entry: &'a Bytes) -> Self {
        Self { entry, rest: entry }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn as_bytes(&self) -> &'a [u8] {
        self.rest
    }

    /// Returns what is left as a part of the entry's own allocation.
    pub(crate) fn to_bytes(&self) -> Bytes {
        self.entry.slice_ref(self.rest)
    }

    /// Splits off the next `length` bytes.
    pub(crate) fn split(&mut self, length: usize) -> Option<Self> {
        let (next, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(Self {
            rest: next,
            ..*self
        })
    }

    /// Splits off bytes that stand behind their length.
    pub(crate) fn prefixed(&mut self) -> Option<Self> {
        let length = usize::try_from(u32::read(self)?).ok()?;
        self.split(length)
    }

    /// Reads a length of up to 64 bits.
    pub(crate) fn length(&mut self) -> Option<usize> {
        usize::try_from(u64::read(self)?).ok()
    }

    /// Reads how many values follow. The number is a claim: it bounds a loop, it does not size an
    /// allocation.
    pub(crate) fn count(&mut self) -> Option<usize> {
        let count = usize::try_from(u32::read(self)?).ok()?;
        (count <= Self::MAX_COUNT).then_some(count)
    }

    /// Reads values that stand behind their number. Collecting options reserves nothing.
    pub(crate) fn list<T: Wire, C: FromIterator<T>>(&mut self) -> Option<C> {
        let count = self.count()?;
        (0..count).map(|_| T::read(self)).collect()
    }
}

/// Returns a length in the 64 bits in which lengths are written.
pub(crate) fn length(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Writes a length or a number.
///
/// What has 4 GiB is no part of an entry that can be read: a head is far smaller.
pub(crate) fn write_count(count: usize, out: &mut Vec<u8>) {
    u32::try_from(count).unwrap_or(u32::MAX).write(out);
}

/// Writes bytes behind their length.
pub(crate) fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    write_count(bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// Writes values behind their number.
pub(crate) fn write_list<T: Wire>(values: &[T], out: &mut Vec<u8>) {
    write_count(values.len(), out);
    values.iter().for_each(|value| value.write(out));
}

/// Implements [`Wire`] for a struct as its fields one after another, without gaps.
macro_rules! field_by_field {
    ($name:ident { $($field:ident,)+ }) => {
        impl Wire for $name {
            fn write(&self, out: &mut Vec<u8>) {
                let Self { $($field,)+ } = self;
                $($field.write(out);)+
            }

            fn read(from: &mut Reader<'_>) -> Option<Self> {
                Some(Self { $($field: Wire::read(from)?,)+ })
            }
        }
    };
}

/// Implements [`Wire`] for an enum as one byte.
macro_rules! byte_by_variant {
    ($name:ident { $($variant:ident = $byte:literal,)+ }) => {
        impl Wire for $name {
            fn write(&self, out: &mut Vec<u8>) {
                out.push(match self { $(Self::$variant => $byte,)+ });
            }

            fn read(from: &mut Reader<'_>) -> Option<Self> {
                match u8::read(from)? {
                    $($byte => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

pub(crate) use {byte_by_variant, field_by_field};

impl<const N: usize> Wire for [u8; N] {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let (array, rest) = from.rest.split_first_chunk()?;
        from.rest = rest;
        Some(*array)
    }
}

macro_rules! big_endian {
    ($($integer:ident)+) => {$(
        impl Wire for $integer {
            fn write(&self, out: &mut Vec<u8>) {
                self.to_be_bytes().write(out);
            }

            fn read(from: &mut Reader<'_>) -> Option<Self> {
                Wire::read(from).map(Self::from_be_bytes)
            }
        }
    )+};
}

big_endian! { u8 u16 u32 u64 i64 }

impl Wire for bool {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        match u8::read(from)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl<T: Wire> Wire for Option<T> {
    fn write(&self, out: &mut Vec<u8>) {
        self.is_some().write(out);
        if let Some(value) = self {
            value.write(out);
        }
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        match bool::read(from)? {
            true => T::read(from).map(Some),
            false => Some(None),
        }
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn write(&self, out: &mut Vec<u8>) {
        write_list(self, out);
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        from.list()
    }
}

/// In nanoseconds; what is longer than 584 years is as good as 584 years.
impl Wire for Duration {
    fn write(&self, out: &mut Vec<u8>) {
        u64::try_from(self.as_nanos())
            .unwrap_or(u64::MAX)
            .write(out);
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        u64::read(from).map(Self::from_nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: Wire>(bytes: &[u8]) -> Option<T> {
        T::read(&mut Reader::new(&Bytes::copy_from_slice(bytes)))
    }

    #[test]
    fn a_flag_is_0_or_1() {
        assert_eq!(
            [0, 1, 2, 255].map(|byte| read(&[byte])),
            [Some(false), Some(true), None, None]
        );
        assert_eq!(read::<Option<u8>>(&[2, 7]), None);
    }

    #[test]
    fn what_is_cut_short_is_not_read() {
        assert_eq!(read::<u32>(&[0; 3]), None);
        assert_eq!(read::<Option<u8>>(&[1]), None);
        assert_eq!(read::<Vec<u8>>(&[0, 0, 0, 2, 7]), None);
        let entry = Bytes::from_static(&[0, 0, 0, 2, 7]);
        assert!(Reader::new(&entry).prefixed().is_none());
        let entry = Bytes::from_static(&[255; 8]);
        assert!(Reader::new(&entry).prefixed().is_none());
    }

    #[test]
    fn a_duration_is_exact_up_to_584_years() {
        let longest = Duration::from_nanos(u64::MAX);
        for (written, expected) in [
            (Duration::ZERO, Duration::ZERO),
            (Duration::from_nanos(1), Duration::from_nanos(1)),
            (longest, longest),
            (Duration::MAX, longest),
        ] {
            let mut out = Vec::new();
            written.write(&mut out);
            assert_eq!(read(&out), Some(expected));
        }
    }
}
