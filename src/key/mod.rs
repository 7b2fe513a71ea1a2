//! From a request to the key under which its response is stored.
//!
//! RFC 9111 §4 asks for "at least the request method and target URI". What exactly enters the key is
//! a [`KeySpec`], made by the rule of the route; the [`Namespace`] keeps applications that share a
//! store apart.
//!
//! A [`PrimaryKey`] is *injective*: two requests that a handler could tell apart by anything that the
//! spec names never have the same key, and neither do requests keyed by different specs. Nothing is
//! normalised but what RFC 9110 §4.2.3 calls equivalent in every scheme-conformant server: letter
//! case of the host and the default port. A request for which no key can be made ([`NoKey`]) is not
//! cached; there is no "empty" key that such requests could share.
//!
//! ```text
//! version, then fields of (tag, u32 length, bytes):
//! namespace · class · scheme · authority · path · query · request fields · cookies
//! · fields of the content · digest of the content
//! ```

mod authority;
mod encoding;
mod namespace;
mod primary;
mod query;
mod spec;

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

pub use self::namespace::{InvalidNamespace, Namespace};
pub use self::primary::PrimaryKey;
pub(crate) use self::{
    authority::authority,
    primary::{ContentKind, NoKey, Shown},
    spec::{KeySpec, ParamNames, QuerySpec},
};

/// The percent-decoded form of a raw path, which names its invalidation scope.
///
/// All spellings of a path share one scope. Responses are stored under the raw path, so this can
/// only invalidate more than necessary, never less.
pub(crate) fn decoded_path(path: &str) -> Cow<'_, [u8]> {
    percent_decode_str(path).into()
}

/// Whether every `%` in `text` is followed by two hexadecimal digits.
pub(crate) fn has_valid_escapes(text: &[u8]) -> bool {
    let mut parts = text.split(|&byte| byte == b'%');
    parts.next();
    parts.all(|part| {
        matches!(part, [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spellings_of_a_path_decode_to_one_scope() {
        assert_eq!(decoded_path("/a%62c"), decoded_path("/abc"));
        assert_eq!(decoded_path("/%e4"), decoded_path("/%E4"));
        assert_eq!(decoded_path("/a%2Fb"), decoded_path("/a/b"));
        assert_ne!(decoded_path("/a//b"), decoded_path("/a/b"));
        assert!(matches!(decoded_path("/plain"), Cow::Borrowed(b"/plain")));
    }

    #[test]
    fn an_escape_needs_two_hexadecimal_digits() {
        for valid in ["", "abc", "%41", "a%e4%C3b", "%25%25"] {
            assert!(has_valid_escapes(valid.as_bytes()), "{valid}");
        }
        for invalid in ["%", "%4", "a%4", "%%41", "%g1", "%1g", "%u0041"] {
            assert!(!has_valid_escapes(invalid.as_bytes()), "{invalid}");
        }
    }

    proptest! {
        #[test]
        fn any_path_decodes(path in ".*") {
            decoded_path(&path);
            has_valid_escapes(path.as_bytes());
        }
    }
}
