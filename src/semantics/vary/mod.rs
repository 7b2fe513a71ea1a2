//! Which of a URI's stored responses a request selects (RFC 9111 §4.1).
//!
//! `Vary` nominates request fields ("selecting header fields" in RFC 7234). A
//! stored response keeps what its own request held in them ([`Nominated`]) and
//! answers only requests that hold the same, in the normal form that
//! [`NormalForm`] names. [`select`] chooses among the variants of one URI.

mod nominated;
mod select;
mod weighted;

use http::header::{HeaderMap, HeaderName, VARY};
use smallvec::SmallVec;

use super::fields;

pub(crate) use nominated::{Nominated, NormalForm};
pub(crate) use select::{Candidate, select};

/// What a response's `Vary` says about its reuse (RFC 9110 §12.5.5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Vary {
    /// No field is nominated: any request matches.
    #[default]
    None,
    /// `*`: no request matches.
    Any,
    /// The nominated request fields: sorted, each once, at least one.
    Fields(Box<[HeaderName]>),
}

impl Vary {
    /// More nominated fields than this count as `*`.
    const MAX_FIELDS: usize = 32;

    /// Reads all lines of `Vary`. A member that is no field name counts as
    /// `*`: what it was meant to nominate cannot be known.
    pub(crate) fn parse(headers: &HeaderMap) -> Self {
        let mut names: SmallVec<[HeaderName; 4]> = SmallVec::new();
        for line in headers.get_all(VARY) {
            for member in fields::members(line.as_bytes()) {
                let Ok(name) = HeaderName::from_bytes(member) else {
                    return Self::Any;
                };
                let place = names.binary_search_by(|other| other.as_str().cmp(name.as_str()));
                if let Err(place) = place {
                    names.insert(place, name);
                }
                if member == b"*" || names.len() > Self::MAX_FIELDS {
                    return Self::Any;
                }
            }
        }
        match names.is_empty() {
            true => Self::None,
            false => Self::Fields(names.into_boxed_slice()),
        }
    }

    /// Returns the nominated fields; `None` if no request can match.
    pub(crate) fn fields(&self) -> Option<&[HeaderName]> {
        match self {
            Self::None => Some(&[]),
            Self::Any => None,
            Self::Fields(names) => Some(names),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::semantics::fields::tests::{headers, thoroughly};

    fn parse(lines: &[&str]) -> Vary {
        let lines: Vec<_> = lines.iter().map(|line| ("vary", *line)).collect();
        Vary::parse(&headers(&lines))
    }

    fn names(names: &[&'static str]) -> Vary {
        Vary::Fields(names.iter().map(|n| HeaderName::from_static(n)).collect())
    }

    #[test]
    fn an_asterisk_anywhere_in_vary_counts() {
        // VP1, VA6
        for lines in [
            &["*"][..],
            &["*, *"],
            &["*", "*"],
            &[", *"],
            &["", "*"],
            &["foo, *"],
            &["*, foo"],
            &["foo", "*"],
            &["foo", "bar,\t*"],
        ] {
            assert_eq!(parse(lines), Vary::Any, "{lines:?}");
        }
    }

    #[test]
    fn field_names_are_sorted_lower_case_and_unique() {
        // VA1
        for (lines, expected) in [
            (&["Foo"][..], names(&["foo"])),
            (&["b, A"], names(&["a", "b"])),
            (&["b", "a, B", ",A ,"], names(&["a", "b"])),
            (&["x-*"], names(&["x-*"])),
            (&["", " , "], Vary::None),
            (&[], Vary::None),
        ] {
            assert_eq!(parse(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_vary_that_cannot_be_obeyed_matches_nothing() {
        for line in ["foo bar", "a, \"b\"", "\u{e9}", "a=b"] {
            assert_eq!(parse(&[line]), Vary::Any, "{line}");
        }
        let many = |count| (0..count).map(|n| format!("x-{n},")).collect::<String>();
        assert!(matches!(parse(&[&many(32)]), Vary::Fields(names) if names.len() == 32));
        for count in [33, 10_000] {
            assert_eq!(parse(&[&many(count)]), Vary::Any, "{count}");
        }
    }

    proptest! {
        #![proptest_config(thoroughly())]
        #[test]
        fn any_value_is_read(line in "[ -~\u{80}-\u{ff}]{0,40}") {
            if let Some(names) = parse(&[&line]).fields() {
                prop_assert!(names.is_sorted_by(|a, b| a.as_str() < b.as_str()));
            }
        }
    }
}
