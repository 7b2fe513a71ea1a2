//! The part of a key that stands for the query.

use std::borrow::Cow;

use percent_encoding::percent_decode;
use smallvec::SmallVec;

use super::{
    KeySpec, NoKey, QuerySpec,
    encoding::{Encoder, Tag},
    has_valid_escapes,
};

/// Writes what `spec` selects of `query`; an absent query differs from an empty one.
pub(super) fn put(encoder: &mut Encoder, query: Option<&str>, spec: &KeySpec) -> Result<(), NoKey> {
    let query = query.map(str::as_bytes);
    match &spec.query {
        QuerySpec::Nothing => return encoder.put(Tag::NO_QUERY, b""),
        QuerySpec::All if !spec.sorted => {
            return query.map_or(Ok(()), |query| encoder.put(Tag::QUERY, query));
        }
        QuerySpec::All => {}
        QuerySpec::Keep(names) => encoder.put(Tag::KEPT_PARAMS, names.digest())?,
        QuerySpec::Ignore(names) => encoder.put(Tag::IGNORED_PARAMS, names.digest())?,
    }
    query.map_or(Ok(()), |query| put_params(encoder, query, spec))
}

fn put_params(encoder: &mut Encoder, query: &[u8], spec: &KeySpec) -> Result<(), NoKey> {
    // Some parsers split at `;`, and each reads an invalid escape its own way: which parameters the
    // handler will see is not known, so all of them count.
    if query.contains(&b';') || !has_valid_escapes(query) {
        return encoder.put(Tag::UNFILTERED_QUERY, query);
    }
    let mut params: SmallVec<[NamedParam<'_>; 16]> = query
        .split(|&byte| byte == b'&')
        .map(|param| (decoded_name(param), param))
        .filter(|(name, _)| match &spec.query {
            QuerySpec::Keep(names) => names.contains(name),
            QuerySpec::Ignore(names) => !names.contains(name),
            QuerySpec::All | QuerySpec::Nothing => true,
        })
        .collect();
    if spec.sorted {
        // Stable, and by name alone: in `role=user&role=admin` the order is what the handler sees.
        params.sort_by(|(one, _), (other, _)| one.cmp(other));
    }
    let tag = if spec.sorted {
        Tag::SORTED_PARAM
    } else {
        Tag::PARAM
    };
    params
        .iter()
        .try_for_each(|(_, param)| encoder.put(tag, param))
}

/// A raw parameter after its decoded name.
type NamedParam<'q> = (Cow<'q, [u8]>, &'q [u8]);

/// The name of a parameter as a form decoder reads it: `%70age` is `page` to the handler.
fn decoded_name(param: &[u8]) -> Cow<'_, [u8]> {
    let name = param.split(|&byte| byte == b'=').next().unwrap_or_default();
    if !name.contains(&b'+') {
        return percent_decode(name).into();
    }
    let spaced: Vec<u8> = name
        .iter()
        .map(|&byte| if byte == b'+' { b' ' } else { byte })
        .collect();
    Cow::Owned(percent_decode(&spaced).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::ParamNames, *};

    fn encoded(query: Option<&str>, spec: &KeySpec) -> Vec<u8> {
        let mut encoder = Encoder::new();
        put(&mut encoder, query, spec).unwrap();
        encoder.finish().unwrap().to_vec()
    }

    fn keep(names: &[&str]) -> KeySpec {
        let query = QuerySpec::Keep(ParamNames::new(names.iter().copied()));
        KeySpec {
            query,
            ..KeySpec::default()
        }
    }

    fn ignore(names: &[&str]) -> KeySpec {
        let query = QuerySpec::Ignore(ParamNames::new(names.iter().copied()));
        KeySpec {
            query,
            ..KeySpec::default()
        }
    }

    fn sorted() -> KeySpec {
        KeySpec {
            sorted: true,
            ..KeySpec::default()
        }
    }

    #[test]
    fn queries_that_a_spec_holds_equal_are_encoded_alike() {
        for (spec, one, other) in [
            (keep(&["page"]), Some("page=1&utm=x"), Some("page=1")),
            (keep(&["page"]), Some("utm=x"), None),
            (ignore(&["utm"]), Some("a=1&utm=x&b=2"), Some("a=1&b=2")),
            (ignore(&["utm"]), Some("%75tm=x"), None),
            (ignore(&["a b"]), Some("a+b=1"), Some("a%20b=2")),
            (sorted(), Some("b=2&a=1"), Some("a=1&b=2")),
            (
                KeySpec {
                    query: QuerySpec::Nothing,
                    ..KeySpec::default()
                },
                Some("a=1;%"),
                None,
            ),
        ] {
            assert_eq!(
                encoded(one, &spec),
                encoded(other, &spec),
                "{spec:?} {one:?} {other:?}"
            );
        }
    }

    #[test]
    fn queries_that_a_handler_can_tell_apart_are_encoded_apart() {
        for (spec, one, other) in [
            (KeySpec::default(), None, Some("")),
            (KeySpec::default(), Some("a=1&b=2"), Some("b=2&a=1")),
            (KeySpec::default(), Some("a=%41"), Some("a=A")),
            (keep(&["page"]), Some("%70age=2"), None),
            (keep(&["page"]), Some("page=1"), Some("page=2")),
            (keep(&["page"]), Some("page"), Some("page=")),
            (
                keep(&["page"]),
                Some("page=1&page=2"),
                Some("page=1%26page=2"),
            ),
            (keep(&["a b"]), Some("a+b=1"), None),
            (ignore(&["utm"]), Some(""), None),
            (ignore(&["utm"]), Some("utm2=1"), None),
            (ignore(&["utm"]), Some("UTM=1"), None),
            (
                sorted(),
                Some("role=user&role=admin"),
                Some("role=admin&role=user"),
            ),
            (sorted(), Some("a=1&&b"), Some("a=1&b")),
        ] {
            assert_ne!(
                encoded(one, &spec),
                encoded(other, &spec),
                "{spec:?} {one:?} {other:?}"
            );
        }
    }

    #[test]
    fn a_query_that_parsers_read_differently_is_not_filtered() {
        for spec in [keep(&["page"]), ignore(&["utm"]), sorted()] {
            for (one, other) in [
                ("utm=1;page=2", "utm=1;page=3"),
                ("utm=%&page=2", "utm=%25&page=2"),
                ("utm=%1&x=2", "utm=%2&x=2"),
                ("b=1;a=1&a=2", "a=2&b=1;a=1"),
            ] {
                let (one_key, other_key) = (encoded(Some(one), &spec), encoded(Some(other), &spec));
                assert_ne!(one_key, other_key, "{spec:?} {one} {other}");
            }
        }
    }

    #[test]
    fn a_changed_spec_makes_other_keys() {
        let none = KeySpec {
            query: QuerySpec::Nothing,
            ..KeySpec::default()
        };
        let specs = [
            KeySpec::default(),
            none,
            keep(&["a"]),
            keep(&["a", "b"]),
            ignore(&["a"]),
            ignore(&["b"]),
        ];
        for (i, one) in specs.iter().enumerate() {
            for other in specs.iter().skip(i + 1) {
                assert_ne!(
                    encoded(Some("a=1"), one),
                    encoded(Some("a=1"), other),
                    "{one:?} {other:?}"
                );
            }
        }
    }

    #[test]
    fn thousands_of_parameters_are_sorted_and_filtered() {
        let params = |range: Vec<u32>| {
            range
                .iter()
                .map(|n| format!("p{n}=1"))
                .collect::<Vec<_>>()
                .join("&")
        };
        let (up, down) = (
            params((0..5_000).collect()),
            params((0..5_000).rev().collect()),
        );
        assert_eq!(
            encoded(Some(&up), &sorted()),
            encoded(Some(&down), &sorted())
        );
        assert_eq!(
            encoded(Some(&up), &keep(&["p7"])),
            encoded(Some("p7=1"), &keep(&["p7"]))
        );
    }

    proptest! {
        #[test]
        fn the_whole_query_is_encoded_injectively(one in ".{0,20}", other in ".{0,20}") {
            let spec = KeySpec::default();
            prop_assert_eq!(
                one == other,
                encoded(Some(&one), &spec) == encoded(Some(&other), &spec)
            );
        }

        #[test]
        fn only_ignored_parameters_are_lost(
            one in "[au&=;%+614]{0,12}", other in "[au&=;%+614]{0,12}"
        ) {
            let spec = ignore(&["a"]);
            let seen = |query: &str| -> Vec<(Vec<u8>, String)> {
                query.split('&')
                    .map(|param| (decoded_name(param.as_bytes()).into_owned(), param.to_owned()))
                    .filter(|(name, _)| name != b"a")
                    .collect()
            };
            if encoded(Some(&one), &spec) == encoded(Some(&other), &spec) {
                prop_assert_eq!(seen(&one), seen(&other));
            }
        }
    }
}
