//! `No-Vary-Search`: which differences between queries mean nothing to a
//! response (draft-ietf-httpbis-no-vary-search-05).

use std::borrow::Cow;
use std::fmt;

use http::header::{HeaderMap, HeaderName};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode, percent_encode};
use sfv::{BareItem, Dictionary, InnerList, ListEntry};

use super::structured;

const NO_VARY_SEARCH: HeaderName = HeaderName::from_static("no-vary-search");

/// What a response says about the query of its URI: not the query as it stands
/// counts, but the parameters it holds.
///
/// Rules that say the same are written the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoVarySearch {
    /// Whether parameters of different names may stand in any order.
    any_order: bool,
    significant: Significant,
}

/// The parameters that make a difference; names are decoded, sorted and single.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Significant {
    AllBut(Vec<Name>),
    Only(Vec<Name>),
}

/// A decoded name. Bytes, though the draft has them read as UTF-8: what is no
/// UTF-8 would else be the same, whatever it is to the handler.
type Name = Vec<u8>;

impl NoVarySearch {
    /// Reads a response's field; `None` where the query counts as it stands.
    ///
    /// That is so if the field is absent, asks for nothing else, or has a
    /// member of the wrong type; unknown members do not matter (§5.1).
    pub(crate) fn parse(response: &HeaderMap) -> Option<Self> {
        let members: Dictionary = structured::parse(response, &NO_VARY_SEARCH)?;
        let any_order = match members.get("key-order") {
            None => false,
            Some(order) => boolean(order)?,
        };
        let significant = match (members.get("params"), members.get("except")) {
            (None, None) => Significant::AllBut(Vec::new()),
            (Some(ListEntry::InnerList(params)), None) => Significant::AllBut(names(params)?),
            (Some(params), except) => match (boolean(params)?, except) {
                (true, None) => Significant::Only(Vec::new()),
                (true, Some(ListEntry::InnerList(except))) => Significant::Only(names(except)?),
                (false, None) => Significant::AllBut(Vec::new()),
                _ => return None,
            },
            (None, Some(_)) => return None,
        };
        let is_default = !any_order && significant == Significant::AllBut(Vec::new());
        (!is_default).then_some(Self {
            any_order,
            significant,
        })
    }

    /// Returns the query without what makes no difference to the response: the
    /// response serves all URIs for which this is equal (§6).
    pub(crate) fn canonical(&self, query: Option<&str>) -> String {
        let mut kept: Vec<_> = parameters(query.unwrap_or_default())
            .filter(|(name, _)| self.significant.contains(name))
            .collect();
        if self.any_order {
            // Stable: the values of one name keep their order.
            kept.sort_by(|(a, _), (b, _)| a.cmp(b));
        }
        let kept = kept
            .iter()
            .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)));
        kept.collect::<Vec<_>>().join("&")
    }
}

impl fmt::Display for NoVarySearch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, names) = match &self.significant {
            Significant::AllBut(names) => ("params", names),
            Significant::Only(names) => ("params, except", names),
        };
        let order = if self.any_order { "key-order, " } else { "" };
        write!(f, "{order}{kind}=(")?;
        for name in names {
            write!(f, " \"{}\"", encoded(name))?;
        }
        f.write_str(" )")
    }
}

impl Significant {
    fn contains(&self, name: &Name) -> bool {
        match self {
            Self::AllBut(names) => names.binary_search(name).is_err(),
            Self::Only(names) => names.binary_search(name).is_ok(),
        }
    }
}

fn boolean(entry: &ListEntry) -> Option<bool> {
    match entry {
        ListEntry::Item(item) => match item.bare_item {
            BareItem::Boolean(value) => Some(value),
            _ => None,
        },
        ListEntry::InnerList(_) => None,
    }
}

fn names(list: &InnerList) -> Option<Vec<Name>> {
    let names = list.items.iter().map(|item| match &item.bare_item {
        BareItem::String(name) => Some(decoded(name.as_str())),
        _ => None,
    });
    let mut names: Vec<Name> = names.collect::<Option<_>>()?;
    names.sort_unstable();
    names.dedup();
    Some(names)
}

/// Reads a query as `application/x-www-form-urlencoded` (WHATWG URL §5.1).
fn parameters(query: &str) -> impl Iterator<Item = (Name, Vec<u8>)> {
    query
        .split('&')
        .filter(|parameter| !parameter.is_empty())
        .map(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            (decoded(name), decoded(value))
        })
}

fn decoded(encoded: &str) -> Vec<u8> {
    let encoded = match encoded.contains('+') {
        true => Cow::Owned(encoded.replace('+', " ")),
        false => Cow::Borrowed(encoded),
    };
    percent_decode(encoded.as_bytes()).collect()
}

fn encoded(text: &[u8]) -> impl fmt::Display {
    percent_encode(text, NON_ALPHANUMERIC)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::semantics::fields::tests::{headers, thoroughly};

    fn parse(line: &str) -> Option<NoVarySearch> {
        NoVarySearch::parse(&headers(&[("no-vary-search", line)]))
    }

    fn equates(line: &str, a: Option<&str>, b: Option<&str>) -> bool {
        match parse(line) {
            Some(rule) => rule.canonical(a) == rule.canonical(b),
            None => a == b,
        }
    }

    #[test]
    fn an_error_anywhere_leaves_the_exact_query() {
        for line in [
            "",
            "key-order=1",
            "key-order=\"a\"",
            "key-order=(\"a\")",
            "params=1",
            "params=\"a\"",
            "params=a",
            "params=(a)",
            "params=(\"a\" 1)",
            "params=((\"a\"))",
            "except=(\"a\")",
            "params=?0, except=(\"a\")",
            "params=(\"a\"), except=(\"a\")",
            "params, except=\"a\"",
            "params, except",
            "params, except=(a)",
            "params, key-order=2",
            "params, ",
            "params=?0",
            "params=()",
            "key-order=?0, unknown",
            "Params",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
        assert_eq!(NoVarySearch::parse(&HeaderMap::new()), None);
    }

    #[test]
    fn several_lines_are_one_dictionary_and_its_last_duplicate_wins() {
        let lines = headers(&[
            ("no-vary-search", "key-order, params=(\"a\")"),
            ("no-vary-search", "params=(\"b\";x \"c\"), unknown=1"),
        ]);
        let expected = NoVarySearch {
            any_order: true,
            significant: Significant::AllBut(vec!["b".into(), "c".into()]),
        };
        assert_eq!(NoVarySearch::parse(&lines), Some(expected));
    }

    #[test]
    fn what_says_the_same_is_written_the_same() {
        for (line, written) in [
            ("params=(\"b\" \"%61\" \"b\");x", "params=( \"a\" \"b\" )"),
            ("params, except=(\"a+b\")", "params, except=( \"a%20b\" )"),
            ("params", "params, except=( )"),
            ("unknown, key-order", "key-order, params=( )"),
        ] {
            assert_eq!(parse(line).unwrap().to_string(), written, "{line}");
        }
    }

    #[test]
    fn queries_are_equated_as_the_response_says() {
        for (line, a, b, equal) in [
            // The exact query
            ("", Some("a=1"), Some("a=1"), true),
            ("", Some("a=1"), Some("a=%31"), false),
            ("", Some("a=1&b=2"), Some("b=2&a=1"), false),
            ("", Some(""), None, false),
            // All parameters, however they are written
            ("params=(\"-\")", Some("a=1"), Some("a=%31"), true),
            ("params=(\"-\")", Some("a+b=c%20d"), Some("a%20b=c+d"), true),
            ("params=(\"-\")", Some("a=%2B"), Some("a=+"), false),
            ("params=(\"-\")", Some("a=%2b"), Some("a=%2B"), true),
            ("params=(\"-\")", Some("&&a&"), Some("a="), true),
            ("params=(\"-\")", Some("a"), Some("b"), false),
            ("params=(\"-\")", Some(""), None, true),
            ("params=(\"-\")", Some("a=1=2"), Some("a=1%3D2"), true),
            ("params=(\"-\")", Some("a=1&b=2"), Some("b=2&a=1"), false),
            ("params=(\"-\")", Some("="), None, false),
            ("params=(\"-\")", Some("a=%26b"), Some("a=&b"), false),
            ("params=(\"-\")", Some("a=%FE"), Some("a=%FF"), false),
            // Any order
            ("key-order", Some("a=1&b=2"), Some("b=2&a=1"), true),
            ("key-order", Some("a=1&b=2&a=3"), Some("b=2&a=1&a=3"), true),
            ("key-order", Some("a=1&a=3"), Some("a=3&a=1"), false),
            (
                "key-order, params=(\"c\")",
                Some("a=1&b=2&c"),
                Some("b=2&a=1"),
                true,
            ),
            // All but some
            (
                "params=(\"utm\")",
                Some("a=1&utm=x"),
                Some("utm=y&a=1"),
                true,
            ),
            ("params=(\"utm\")", Some("utm=x"), None, true),
            ("params=(\"utm\")", Some("a=1"), Some("a=2"), false),
            ("params=(\"utm\")", Some("UTM=1"), Some("UTM=2"), false),
            (
                "params=(\"a+b\" \"%C3%A9\")",
                Some("a%20b=1&\u{e9}=1"),
                Some("a+b=2"),
                true,
            ),
            // Only some
            ("params", Some("a=1"), Some("b=2"), true),
            (
                "params, except=(\"id\")",
                Some("id=1&x=1"),
                Some("y=2&id=1"),
                true,
            ),
            ("params, except=(\"id\")", Some("id=1"), Some("id=2"), false),
            ("params, except=(\"id\")", Some("id=1"), None, false),
            (
                "params, except=(\"a\" \"b\")",
                Some("a=1&b=2"),
                Some("b=2&a=1"),
                false,
            ),
            (
                "key-order, params, except=(\"a\" \"b\")",
                Some("a=1&c&b=2"),
                Some("b=2&a=1"),
                true,
            ),
        ] {
            assert_eq!(equates(line, a, b), equal, "{line} | {a:?} | {b:?}");
        }
    }

    proptest! {
        #![proptest_config(thoroughly())]
        #[test]
        fn any_field_and_query_are_read(line in "[ -~]{0,40}", query: String) {
            if let Some(rule) = parse(&line) {
                let once = rule.canonical(Some(&query));
                prop_assert_eq!(&rule.canonical(Some(&once)), &once);
                prop_assert_eq!(parse(&rule.to_string()), Some(rule));
            }
        }

        #[test]
        fn with_any_order_all_orders_of_distinct_names_are_equal(mut values: Vec<u8>) {
            let query = |values: &[u8]| {
                let parameters = values.iter().map(|value| format!("n{value}=v"));
                parameters.collect::<Vec<_>>().join("&")
            };
            let forward = query(&values);
            values.reverse();
            let reverse = query(&values);
            prop_assert!(equates("key-order", Some(&forward), Some(&reverse)));
        }
    }
}
