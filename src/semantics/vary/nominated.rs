//! The nominated fields of a request, in normal form (RFC 9111 §4.1).

use http::header::{ACCEPT_LANGUAGE, CONTENT_LANGUAGE, HeaderMap, HeaderName};
use smallvec::SmallVec;

use super::weighted;
use crate::semantics::fields::{joined, trim};

/// Which differences between two requests mean nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum NormalForm {
    /// Blanks around commas, and how a list is spread over lines.
    Lists,
    /// Also order, letter case and the spelling of weights in the `Accept`
    /// fields.
    Sets,
    /// As `Sets`, but the `Accept-Language` must begin with the same of its
    /// best ranges: handlers that take the first would answer differently.
    SetsInOneLanguage,
}

impl NormalForm {
    /// The form for matching later requests to a stored response: with
    /// `normalise` the `Accept` fields are sets, guarded by language if the
    /// response says what language it is in.
    pub(crate) fn for_response(normalise: bool, response: &HeaderMap) -> Self {
        match (normalise, response.contains_key(CONTENT_LANGUAGE)) {
            (false, _) => Self::Lists,
            (true, false) => Self::Sets,
            (true, true) => Self::SetsInOneLanguage,
        }
    }
}

/// What a request holds in its nominated fields; equal means that the requests
/// match.
///
/// For each field its name, whether it is there, and its normal form, with
/// the lengths in front: an absent field is not an empty one, and no value can
/// imitate two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Nominated(Box<[u8]>);

impl Nominated {
    /// Takes the fields that `names` nominates from a request.
    pub(crate) fn new(names: &[HeaderName], request: &HeaderMap, form: NormalForm) -> Self {
        Self(encode(names, request, form).as_slice().into())
    }

    /// Takes back what [`as_bytes`](Self::as_bytes) gave.
    pub(crate) fn from_bytes(bytes: Box<[u8]>) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The encoding of most requests fits without an allocation.
pub(super) type Encoding = SmallVec<[u8; 256]>;

const ABSENT: u8 = 0;
const PRESENT: u8 = 1;

pub(super) fn encode(names: &[HeaderName], request: &HeaderMap, form: NormalForm) -> Encoding {
    let mut out = Encoding::new();
    for name in names {
        push_prefixed(name.as_str().as_bytes(), &mut out);
        match joined(request, name) {
            None => out.push(ABSENT),
            Some(value) => {
                out.push(PRESENT);
                prefixed(&mut out, |out| write_normal_form(name, &value, form, out));
            }
        }
    }
    out
}

fn write_normal_form(name: &HeaderName, value: &[u8], form: NormalForm, out: &mut Encoding) {
    if form == NormalForm::Lists || !weighted::is_weighted(name) {
        return write_list(value, out);
    }
    if form == NormalForm::SetsInOneLanguage && *name == ACCEPT_LANGUAGE {
        let leading = weighted::leading(value).unwrap_or_default();
        push_prefixed(&leading.to_ascii_lowercase(), out);
    }
    weighted::write_set(value, out);
}

/// Appends a value without the blanks around its commas.
///
/// Empty members stay. They mean nothing in a list, but not every field is
/// one: what looks the same here must look the same to the handler.
fn write_list(value: &[u8], out: &mut Encoding) {
    for (place, member) in split_outside_quotes(value, b',').enumerate() {
        if place > 0 {
            out.push(b',');
        }
        out.extend_from_slice(trim(member));
    }
}

/// Splits at each separator outside quoted strings (RFC 9110 §5.6.4).
pub(super) fn split_outside_quotes(value: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    let has_quotes = value.contains(&b'"');
    value.split(move |&byte| {
        if !has_quotes {
            return byte == separator;
        }
        let plain = !std::mem::take(&mut escaped);
        escaped = plain && quoted && byte == b'\\';
        quoted ^= plain && byte == b'"';
        !quoted && byte == separator
    })
}

fn push_prefixed(bytes: &[u8], out: &mut Encoding) {
    prefixed(out, |out| out.extend_from_slice(bytes));
}

/// Appends what `write` does, after its length.
fn prefixed(out: &mut Encoding, write: impl FnOnce(&mut Encoding)) {
    let prefix = out.len();
    out.extend_from_slice(&[0; size_of::<u64>()]);
    let start = out.len();
    write(out);
    let length = u64::try_from(out.len().saturating_sub(start)).unwrap_or(u64::MAX);
    if let Some(prefix) = out.get_mut(prefix..start) {
        prefix.copy_from_slice(&length.to_be_bytes());
    }
}

/// Reads an encoding back: each field's name and, if it is there, its value.
pub(super) fn fields(mut bytes: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    std::iter::from_fn(move || {
        let (name, rest) = split_prefixed(bytes)?;
        let (presence, rest) = rest.split_first()?;
        let value;
        (value, bytes) = match *presence {
            ABSENT => (None, rest),
            _ => split_prefixed(rest).map(|(value, rest)| (Some(value), rest))?,
        };
        Some((name, value))
    })
}

fn split_prefixed(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let length = usize::try_from(u64::from_be_bytes(*length)).ok()?;
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::NormalForm::{Lists, Sets, SetsInOneLanguage};
    use super::*;
    use crate::semantics::fields::tests::{headers, thoroughly};

    fn nominated(names: &[&'static str], lines: &[(&'static str, &str)]) -> Nominated {
        let names: Vec<_> = names.iter().map(|n| HeaderName::from_static(n)).collect();
        Nominated::new(&names, &headers(lines), Lists)
    }

    #[test]
    fn requests_match_when_every_nominated_field_does() {
        // VA1, VA2, VA3
        for (names, a, b, equal) in [
            (&["foo"][..], &[("foo", "1")][..], &[("foo", "1")][..], true),
            (&["foo"], &[("foo", "1")], &[("foo", "2")], false),
            (&["foo"], &[("foo", "a")], &[("foo", "A")], false),
            (&["foo"], &[("foo", "1")], &[], false),
            (&["foo"], &[], &[], true),
            (&["foo"], &[("foo", "")], &[], false),
            (
                &["foo"],
                &[("foo", "1"), ("bar", "1")],
                &[("foo", "1")],
                true,
            ),
            (
                &["bar", "foo"],
                &[("foo", "1"), ("bar", "a")],
                &[("bar", "a"), ("foo", "1")],
                true,
            ),
            (
                &["bar", "foo"],
                &[("foo", "1"), ("bar", "a")],
                &[("foo", "1")],
                false,
            ),
            (&["bar", "foo"], &[("foo", "1")], &[("bar", "1")], false),
            (
                &["foo"],
                &[("foo", "1"), ("foo", "2")],
                &[("foo", "1, 2")],
                true,
            ),
            (&["foo"], &[("foo", "1,2")], &[("foo", " 1 ,\t2")], true),
            (&["foo"], &[("foo", "1,2")], &[("foo", "2,1")], false),
            (&["foo"], &[("foo", "1 2")], &[("foo", "12")], false),
            (&["foo"], &[("foo", "1,,2")], &[("foo", "1,2")], false),
            (
                &["foo"],
                &[("foo", r#""1 , 2""#)],
                &[("foo", r#""1,2""#)],
                false,
            ),
            (
                &["foo"],
                &[("foo", r#""\" , 1" , 2"#)],
                &[("foo", r#""\" , 1",2"#)],
                true,
            ),
            (
                &["accept-language"],
                &[("accept-language", "en, de")],
                &[("accept-language", "de, en")],
                false,
            ),
        ] {
            assert_eq!(
                nominated(names, a) == nominated(names, b),
                equal,
                "{a:?} {b:?}"
            );
        }
    }

    #[test]
    fn accept_fields_match_as_sets() {
        // VA4
        for (name, a, b) in [
            ("accept-language", "en, de", "de, en"),
            ("accept-language", "en-GB", "EN-gb"),
            ("accept-encoding", "gzip,br", "br, gzip;q=1"),
            ("accept-charset", "utf-8", "UTF-8"),
            ("accept", "a/b, c/d", "c/d, a/b"),
        ] {
            let names = [HeaderName::from_static(name)];
            let take = |value| Nominated::new(&names, &headers(&[(name, value)]), Sets);
            assert_eq!(take(a), take(b), "{name}");
        }
        let names = [HeaderName::from_static("x-own")];
        let take = |value| Nominated::new(&names, &headers(&[("x-own", value)]), Sets);
        assert_ne!(take("a, b"), take("b, a"));
    }

    #[test]
    fn a_response_in_one_language_is_not_for_those_who_prefer_another() {
        // VA4, the guard of part 2
        let response = headers(&[("content-language", "en")]);
        assert_eq!(NormalForm::for_response(false, &response), Lists);
        assert_eq!(NormalForm::for_response(true, &headers(&[])), Sets);
        let form = NormalForm::for_response(true, &response);
        let take = |value| {
            let request = headers(&[("accept-language", value)]);
            Nominated::new(&[ACCEPT_LANGUAGE], &request, form)
        };
        assert_ne!(take("en, de"), take("de, en"));
        assert_eq!(take("en, de, fr"), take("EN, fr, de"));
        assert_eq!(take("en;q=0.5, de"), take("de, en;q=0.5"));
    }

    proptest! {
        #![proptest_config(thoroughly())]
        #[test]
        fn the_encoding_is_injective(a: [Option<Vec<u8>>; 2], b: [Option<Vec<u8>>; 2]) {
            let write = |values: &[Option<Vec<u8>>; 2]| {
                let mut out = Encoding::new();
                for value in values {
                    push_prefixed(b"x", &mut out);
                    out.push(if value.is_some() { PRESENT } else { ABSENT });
                    value.iter().for_each(|value| push_prefixed(value, &mut out));
                }
                out
            };
            prop_assert_eq!(write(&a) == write(&b), a == b);
            let encoding = write(&a);
            let read: Vec<_> = fields(&encoding).map(|(_, value)| value).collect();
            prop_assert_eq!(read, [a[0].as_deref(), a[1].as_deref()]);
        }

        #[test]
        fn any_bytes_can_be_read_as_an_encoding(bytes: Vec<u8>) {
            fields(&bytes).count();
        }

        #[test]
        fn any_value_has_a_normal_form_that_is_stable(value in "[ -~\u{80}-\u{ff}]{0,40}") {
            let take = |value: &[u8]| {
                let mut out = Encoding::new();
                write_list(value, &mut out);
                out
            };
            let once = take(value.as_bytes());
            prop_assert_eq!(&take(&once), &once);
            for form in [Sets, SetsInOneLanguage] {
                write_normal_form(&ACCEPT_LANGUAGE, value.as_bytes(), form, &mut Encoding::new());
            }
        }
    }
}
