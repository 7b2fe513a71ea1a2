//! `Cache-Status`: how this cache handled a request (RFC 9211).

use http::header::HeaderValue;
use http::status::StatusCode;
use sfv::TokenRef;
use smallvec::SmallVec;

/// One member of `Cache-Status`: what one cache did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CacheStatus<'a> {
    pub(crate) cache: &'a CacheName,
    pub(crate) handling: Handling,
    /// Seconds of freshness that remain; negative once stale (§2.4).
    pub(crate) ttl: Option<i64>,
    /// The cache key (§2.7). Left out if it is not printable ASCII.
    pub(crate) key: Option<&'a str>,
    /// Why, in the words that log and metrics use (§2.8).
    pub(crate) detail: Option<&'a str>,
}

/// Whether the answer came from the store or from the next hop; never both
/// (§2.1, §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handling {
    /// The next hop was not asked.
    Hit,
    /// The next hop was asked.
    Forwarded {
        why: Fwd,
        /// What it answered, where the client is sent another status (§2.3).
        status: Option<StatusCode>,
        /// Its answer was stored (§2.5).
        stored: bool,
        /// The request joined another one in flight; `Some(false)` if it
        /// tried, but had to go itself (§2.6).
        collapsed: Option<bool>,
    },
}

/// Why a request went to the next hop: the most specific reason known (§2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fwd {
    /// The cache was told not to handle the request.
    Bypass,
    /// The method is not answered from a store.
    Method,
    /// Nothing is stored for the URI.
    UriMiss,
    /// Something is stored for the URI, but not for these nominated fields.
    VaryMiss,
    /// Nothing usable is stored, and no more is known.
    Miss,
    /// A fresh response is stored, but the request does not want it.
    Request,
    /// A stale response is stored.
    Stale,
    /// Parts of the response are stored, but not all that is asked for.
    Partial,
}

impl Fwd {
    /// Returns the token of RFC 9211 §2.2.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Miss => "miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

/// The name of a cache: printable ASCII, not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CacheName {
    name: Box<str>,
    /// How the member of every hit begins.
    hit: Box<str>,
}

impl CacheName {
    /// Takes a name; `None` if it cannot be written.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let writable = !name.is_empty() && is_printable(name);
        writable.then(|| {
            let mut line = Line::default();
            line.put_text(name);
            let name: Box<str> = line.0.iter().map(|byte| char::from(*byte)).collect();
            let hit = format!("{name}; hit; ttl=").into();
            Self { name, hit }
        })
    }
}

/// How much a cache says.
#[derive(Clone, Debug)]
pub(crate) struct Signature {
    /// Without one it says nothing.
    pub(crate) name: Option<CacheName>,
    /// Whether it states the key.
    pub(crate) tells_key: bool,
    /// Whether it states why, in more than RFC 9211 has words for.
    pub(crate) tells_detail: bool,
}

impl Default for Signature {
    fn default() -> Self {
        Self {
            name: CacheName::new("tower-response-cache"),
            tells_key: false,
            tells_detail: true,
        }
    }
}

impl CacheStatus<'_> {
    /// Returns the member as a field value.
    pub(crate) fn to_header_value(self) -> HeaderValue {
        let mut line = Line::default();
        self.write(&mut line);
        HeaderValue::from_bytes(&line.0).expect("all parts are printable ASCII")
    }

    fn write(&self, line: &mut Line) {
        match self.ttl {
            Some(ttl) if self.handling == Handling::Hit => {
                line.put(&self.cache.hit);
                line.put_integer(ttl);
            }
            ttl => {
                line.put(&self.cache.name);
                self.handling.write(line);
                if let Some(ttl) = ttl {
                    line.put("; ttl=");
                    line.put_integer(ttl);
                }
            }
        }
        if let Some(key) = self.key.filter(|key| is_printable(key)) {
            line.put("; key=");
            line.put_string(key);
        }
        if let Some(detail) = self.detail.filter(|detail| is_printable(detail)) {
            line.put("; detail=");
            line.put_text(detail);
        }
    }
}

impl Handling {
    /// Says whether the request joined another one in flight.
    pub(crate) fn set_collapsed(&mut self, joined: bool) {
        if let Self::Forwarded { collapsed, .. } = self {
            *collapsed = Some(joined);
        }
    }

    fn write(&self, line: &mut Line) {
        let Self::Forwarded {
            why,
            status,
            stored,
            collapsed,
        } = self
        else {
            return line.put("; hit");
        };
        line.put("; fwd=");
        line.put(why.as_str());
        if let Some(status) = status {
            line.put("; fwd-status=");
            line.put(status.as_str());
        }
        if *stored {
            line.put("; stored");
        }
        line.put(match collapsed {
            Some(true) => "; collapsed",
            Some(false) => "; collapsed=?0",
            None => "",
        });
    }
}

/// The largest Integer of RFC 9651 §3.3.1.
const MAX_INTEGER: i64 = 999_999_999_999_999;

/// Says whether a String can hold the text (RFC 9651 §3.3.3).
fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// A line on the stack: the value made of it is the only allocation.
#[derive(Default)]
struct Line(SmallVec<[u8; 128]>);

impl Line {
    fn put(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    fn put_integer(&mut self, integer: i64) {
        let within = integer.clamp(-MAX_INTEGER, MAX_INTEGER);
        self.put(itoa::Buffer::new().format(within));
    }

    /// Writes printable ASCII as a Token if it is one, else as a String.
    fn put_text(&mut self, text: &str) {
        match TokenRef::from_str(text) {
            Ok(token) => self.put(token.as_str()),
            Err(_) => self.put_string(text),
        }
    }

    fn put_string(&mut self, text: &str) {
        self.0.push(b'"');
        for byte in text.bytes() {
            if matches!(byte, b'"' | b'\\') {
                self.0.push(b'\\');
            }
            self.0.push(byte);
        }
        self.0.push(b'"');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sfv::{List, Parser};

    use super::*;
    use crate::semantics::fields::tests::thoroughly;

    fn forwarded(why: Fwd) -> Handling {
        Handling::Forwarded {
            why,
            status: None,
            stored: false,
            collapsed: None,
        }
    }

    fn status(cache: &CacheName, handling: Handling) -> CacheStatus<'_> {
        CacheStatus {
            cache,
            handling,
            ttl: None,
            key: None,
            detail: None,
        }
    }

    #[test]
    fn each_way_to_handle_a_request_has_its_member() {
        // Part 4, the mapping
        let cache = CacheName::new("C").unwrap();
        let answered = |why, code, stored| Handling::Forwarded {
            why,
            status: StatusCode::from_u16(code).ok(),
            stored,
            collapsed: None,
        };
        let joined = |collapsed| Handling::Forwarded {
            why: Fwd::UriMiss,
            status: None,
            stored: false,
            collapsed: Some(collapsed),
        };
        for (handling, ttl, detail, expected) in [
            (Handling::Hit, Some(376), None, "C; hit; ttl=376"),
            (Handling::Hit, Some(-412), None, "C; hit; ttl=-412"),
            (Handling::Hit, None, None, "C; hit"),
            (forwarded(Fwd::Method), None, None, "C; fwd=method"),
            (forwarded(Fwd::Bypass), None, None, "C; fwd=bypass"),
            (
                forwarded(Fwd::Miss),
                None,
                Some("no key"),
                "C; fwd=miss; detail=\"no key\"",
            ),
            (
                answered(Fwd::UriMiss, 200, true),
                None,
                None,
                "C; fwd=uri-miss; fwd-status=200; stored",
            ),
            (
                answered(Fwd::VaryMiss, 0, true),
                None,
                None,
                "C; fwd=vary-miss; stored",
            ),
            (
                answered(Fwd::Request, 304, false),
                None,
                None,
                "C; fwd=request; fwd-status=304",
            ),
            (
                answered(Fwd::Partial, 206, false),
                None,
                None,
                "C; fwd=partial; fwd-status=206",
            ),
            (
                answered(Fwd::Stale, 304, false),
                Some(60),
                None,
                "C; fwd=stale; fwd-status=304; ttl=60",
            ),
            (
                answered(Fwd::Stale, 503, false),
                Some(-9),
                Some("stale-if-error"),
                "C; fwd=stale; fwd-status=503; ttl=-9; detail=stale-if-error",
            ),
            (joined(true), None, None, "C; fwd=uri-miss; collapsed"),
            (joined(false), None, None, "C; fwd=uri-miss; collapsed=?0"),
        ] {
            let status = CacheStatus {
                ttl,
                detail,
                ..status(&cache, handling)
            };
            assert_eq!(status.to_header_value(), expected);
        }
    }

    #[test]
    fn a_name_is_a_token_or_a_string() {
        for (name, written) in [
            ("cache", Some("cache")),
            ("Cache.example:80/a", Some("Cache.example:80/a")),
            ("*", Some("*")),
            ("my cache", Some(r#""my cache""#)),
            ("1st", Some(r#""1st""#)),
            (r#"a"b\c"#, Some(r#""a\"b\\c""#)),
            ("", None),
            ("caf\u{e9}", None),
            ("a\nb", None),
        ] {
            let name = CacheName::new(name);
            assert_eq!(name.as_ref().map(|name| &*name.name), written);
        }
    }

    #[test]
    fn a_key_is_always_a_string_and_left_out_if_it_is_not_printable() {
        let cache = CacheName::new("c").unwrap();
        for (key, expected) in [
            ("/a?b=\"c\"", r#"c; hit; key="/a?b=\"c\"""#),
            ("key", r#"c; hit; key="key""#),
            ("/\u{e9}", "c; hit"),
            ("/\r\n", "c; hit"),
        ] {
            let status = CacheStatus {
                key: Some(key),
                ..status(&cache, Handling::Hit)
            };
            assert_eq!(status.to_header_value(), expected);
        }
    }

    proptest! {
        #![proptest_config(thoroughly())]
        #[test]
        fn any_texts_and_numbers_make_a_list_of_one(
            name in "[ -~]{1,20}",
            ttl: i64,
            key: String,
            detail: String,
        ) {
            let cache = CacheName::new(&name).unwrap();
            let status = CacheStatus {
                ttl: Some(ttl),
                key: Some(&key),
                detail: Some(&detail),
                ..status(&cache, Handling::Hit)
            };
            let list: List = Parser::new(status.to_header_value().as_bytes()).parse().unwrap();
            prop_assert_eq!(list.len(), 1);
        }
    }
}
