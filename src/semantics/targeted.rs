//! Targeted fields such as `CDN-Cache-Control` (RFC 9213).

use std::time::Duration;

use http::header::{HeaderMap, HeaderName};
use sfv::{BareItem, Dictionary, ListEntry};

use super::cache_control::{Extent, LONGEST, ResponseDirectives};
use super::structured;

/// The directives of a response that bind this cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Binding {
    pub(crate) directives: ResponseDirectives,
    /// They come from a targeted field, so that `Expires` and `Pragma` say
    /// nothing (RFC 9213 §2.2).
    pub(crate) targeted: bool,
}

impl Binding {
    /// Reads the first field of `targets` that is there and valid, else
    /// `Cache-Control` (RFC 9213 §2.2).
    pub(crate) fn of(headers: &HeaderMap, targets: &[HeaderName]) -> Self {
        let targeted = targets
            .iter()
            .filter_map(|name| structured::parse::<Dictionary>(headers, name))
            .filter(|members| !members.is_empty())
            .find_map(|members| directives_of(&members));
        Self {
            targeted: targeted.is_some(),
            directives: targeted.unwrap_or_else(|| ResponseDirectives::parse(headers)),
        }
    }

    /// Whether the response says itself that it is for a shared cache.
    pub(crate) fn declares_shared(&self) -> bool {
        self.directives.public || self.directives.s_maxage.is_some() || self.targeted
    }
}

/// Reads the members this cache knows; `None` if one of them has a value of
/// the wrong type (RFC 9213 §2.1).
fn directives_of(members: &Dictionary) -> Option<ResponseDirectives> {
    let mut directives = ResponseDirectives::default();
    for (name, value) in members {
        match name.as_str() {
            "no-store" => directives.no_store = flag(value)?,
            "no-cache" => directives.no_cache = extent(value)?,
            "private" => directives.private = extent(value)?,
            "must-revalidate" => directives.must_revalidate = flag(value)?,
            "proxy-revalidate" => directives.proxy_revalidate = flag(value)?,
            "must-understand" => directives.must_understand = flag(value)?,
            "public" => directives.public = flag(value)?,
            "immutable" => directives.immutable = flag(value)?,
            "max-age" => directives.max_age = Some(seconds(value)?),
            "s-maxage" => directives.s_maxage = Some(seconds(value)?),
            "stale-while-revalidate" => {
                directives.stale_while_revalidate = Some(seconds(value)?);
            }
            "stale-if-error" => directives.stale_if_error = Some(seconds(value)?),
            _ => {}
        }
    }
    Some(directives)
}

fn item(value: &ListEntry) -> Option<&BareItem> {
    match value {
        ListEntry::Item(item) => Some(&item.bare_item),
        ListEntry::InnerList(_) => None,
    }
}

fn flag(value: &ListEntry) -> Option<bool> {
    item(value)?.as_boolean().filter(|stands| *stands)
}

fn extent(value: &ListEntry) -> Option<Extent> {
    match item(value)? {
        BareItem::Boolean(true) => Some(Extent::Whole),
        BareItem::String(list) => Some(Extent::of_fields(list.as_str().as_bytes())),
        _ => None,
    }
}

fn seconds(value: &ListEntry) -> Option<Duration> {
    let seconds = u64::try_from(item(value)?.as_integer()?).ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::semantics::fields::tests::{headers, thoroughly};

    const TARGETS: [HeaderName; 2] = [
        HeaderName::from_static("my-cache-control"),
        HeaderName::from_static("cdn-cache-control"),
    ];

    fn binding(lines: &[(&'static str, &str)]) -> Binding {
        Binding::of(&headers(lines), &TARGETS)
    }

    fn max_age(seconds: u64) -> ResponseDirectives {
        ResponseDirectives {
            max_age: Some(Duration::from_secs(seconds)),
            ..ResponseDirectives::default()
        }
    }

    #[test]
    fn valid_targeted_field_binds_alone() {
        let table = [
            // CD1, CD4
            ("max-age=60", max_age(60)),
            ("max-age=2147483648", max_age(1 << 31)),
            ("max-age=99999999999", max_age(1 << 31)),
            ("foo=bar, max-age=60;x", max_age(60)),
            ("max-age=1, max-age=60", max_age(60)),
            ("foo", ResponseDirectives::default()),
            // CD2
            ("max-age=0", max_age(0)),
        ];
        for (line, directives) in table {
            let found = binding(&[
                ("cache-control", "no-store, max-age=5"),
                ("cdn-cache-control", line),
            ]);
            let expected = Binding {
                directives,
                targeted: true,
            };
            assert_eq!(found, expected, "{line}");
        }
    }

    #[test]
    fn all_directives_are_read() {
        // CD3
        let found = binding(&[
            ("cache-control", "max-age=5"),
            (
                "cdn-cache-control",
                "no-store, no-cache=\"a\", private, must-revalidate, proxy-revalidate, \
                 must-understand, public=?1, immutable, s-maxage=1, \
                 stale-while-revalidate=2, stale-if-error=3",
            ),
        ]);
        let expected = ResponseDirectives {
            no_store: true,
            no_cache: Extent::Fields(vec![HeaderName::from_static("a")]),
            private: Extent::Whole,
            max_age: None,
            s_maxage: Some(Duration::from_secs(1)),
            must_revalidate: true,
            proxy_revalidate: true,
            must_understand: true,
            public: true,
            immutable: true,
            stale_while_revalidate: Some(Duration::from_secs(2)),
            stale_if_error: Some(Duration::from_secs(3)),
        };
        assert_eq!(found.directives, expected);
    }

    #[test]
    fn invalid_targeted_field_is_as_if_absent() {
        // CD5, CD6
        for line in [
            "",
            "max-age=\"10000\"",
            "max-age=10000.0",
            "max-age=-1",
            "max-age",
            "max-age=(1)",
            "max-age =10000",
            "max-age= 10000",
            "Max-Age=10000",
            "max-age=10000,",
            "max-age=10000, no-store=?0",
            "max-age=10000, no-store=1",
            "max-age=10000, private=a",
            "max-age=10000, no-cache=?0",
            "max-age=10000, stale-if-error=a",
            "max-age=10000 \u{e9}",
        ] {
            let found = binding(&[("cache-control", "max-age=5"), ("cdn-cache-control", line)]);
            let expected = Binding {
                directives: max_age(5),
                targeted: false,
            };
            assert_eq!(found, expected, "{line}");
        }
    }

    #[test]
    fn first_valid_field_of_the_target_list_wins() {
        let first = ("my-cache-control", "max-age=1");
        let second = ("cdn-cache-control", "max-age=2");
        assert_eq!(binding(&[second, first]).directives, max_age(1));
        let void = ("my-cache-control", "Max-Age=1");
        assert_eq!(binding(&[void, second]).directives, max_age(2));
    }

    #[test]
    fn fields_that_are_not_on_the_list_say_nothing() {
        let found = binding(&[("other-cache-control", "no-store")]);
        assert_eq!(found.directives, ResponseDirectives::default());
        assert!(!found.targeted);
    }

    proptest! {
        #![proptest_config(thoroughly())]
        #[test]
        fn any_value_binds_or_does_not(value in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let [name, _] = TARGETS
                && let Ok(value) = HeaderValue::from_bytes(&value)
            {
                Binding::of(&HeaderMap::from_iter([(name, value)]), &TARGETS);
            }
        }
    }
}
