use http::header::COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode;

/// What of a request enters its key, beside method class, scheme and path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeySpec {
    pub(crate) query: QuerySpec,
    /// The order of query parameters with different names is insignificant.
    pub(crate) sorted: bool,
    /// The authority does not enter the key: every host has the same responses.
    pub(crate) any_host: bool,
    pub(crate) fields: Vec<HeaderName>,
    pub(crate) cookies: Vec<String>,
}

impl KeySpec {
    /// Whether a request field enters the key.
    pub(crate) fn covers_field(&self, name: &str) -> bool {
        self.fields.iter().any(|field| field == name)
    }

    /// Whether every cookie of a request enters the key.
    pub(crate) fn covers_cookies(&self, headers: &HeaderMap) -> bool {
        let covered =
            |(name, _): (&[u8], _)| self.cookies.iter().any(|known| is_named(name, known));
        self.covers_field(COOKIE.as_str())
            || !self.cookies.is_empty() && cookie_pairs(headers).all(covered)
    }

    /// Returns the cookies of a request that are part of its key, as one line; `None` if none are,
    /// or all the field is.
    pub(crate) fn cookies_in_key(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let is_in_key = |name| self.cookies.iter().any(|known| is_named(name, known));
        let pairs = cookie_pairs(headers).filter(|(name, _)| is_in_key(name));
        let pairs: Vec<_> = pairs.map(|(_, pair)| pair).collect();
        if pairs.is_empty() || self.covers_field(COOKIE.as_str()) {
            return None;
        }
        HeaderValue::from_bytes(&pairs.join(&b"; "[..])).ok()
    }
}

/// The cookies of a request: each name, and the pair that it stands in, as received.
pub(super) fn cookie_pairs(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&byte| byte == b';'))
        .map(<[u8]>::trim_ascii)
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let name = pair.split(|&byte| byte == b'=').next().unwrap_or_default();
            (name.trim_ascii(), pair)
        })
}

/// Compares a cookie's name percent-decoded, as cookie jars that encode their names read it.
pub(super) fn is_named(cookie: &[u8], name: &str) -> bool {
    percent_decode(cookie).eq(name.bytes())
}

/// Which query parameters enter the key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum QuerySpec {
    #[default]
    All,
    Keep(ParamNames),
    Ignore(ParamNames),
    Nothing,
}

/// A set of query parameter names, in decoded form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ParamNames {
    sorted: Box<[Box<str>]>,
    digest: [u8; 16],
}

impl ParamNames {
    pub(crate) fn new(names: impl IntoIterator<Item = impl Into<Box<str>>>) -> Self {
        let mut sorted: Vec<Box<str>> = names.into_iter().map(Into::into).collect();
        sorted.sort_unstable();
        sorted.dedup();
        let mut hasher = blake3::Hasher::new();
        for name in &sorted {
            // No UTF-8 text contains this byte, so it ends a name unmistakably.
            hasher.update(name.as_bytes()).update(&[0xff]);
        }
        let mut digest = [0; 16];
        hasher.finalize_xof().fill(&mut digest);
        Self {
            sorted: sorted.into(),
            digest,
        }
    }

    pub(crate) fn contains(&self, name: &[u8]) -> bool {
        self.sorted
            .binary_search_by(|known| known.as_bytes().cmp(name))
            .is_ok()
    }

    /// Stands for the set within a key, so that a key made before the set was changed is not found
    /// after it.
    pub(super) fn digest(&self) -> &[u8; 16] {
        &self.digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_covered_only_if_each_of_them_is() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, "lang=de; s%69d=1".parse().unwrap());
        let spec = |cookies: &[&str]| KeySpec {
            cookies: cookies.iter().map(|name| (*name).to_owned()).collect(),
            ..KeySpec::default()
        };
        assert!(spec(&["lang", "sid"]).covers_cookies(&headers));
        assert!(!spec(&["lang"]).covers_cookies(&headers));
        assert!(!spec(&[]).covers_cookies(&headers));
        let whole = KeySpec {
            fields: vec![COOKIE],
            ..KeySpec::default()
        };
        assert!(whole.covers_cookies(&headers));
    }

    #[test]
    fn names_are_a_set() {
        let names = ParamNames::new(["b", "a", "b"]);
        assert_eq!(names, ParamNames::new(["a", "b"]));
        assert!(names.contains(b"a") && names.contains(b"b"));
        assert!(!names.contains(b"") && !names.contains(b"ab") && !names.contains(b"\xff"));
    }

    #[test]
    fn different_sets_have_different_digests() {
        let sets: [&[&str]; 5] = [&[], &[""], &["ab"], &["a", "b"], &["a", "b", ""]];
        for (i, one) in sets.iter().enumerate() {
            for other in sets.iter().skip(i + 1) {
                let digest = |names: &[&str]| *ParamNames::new(names.iter().copied()).digest();
                assert_ne!(digest(one), digest(other), "{one:?} {other:?}");
            }
        }
    }
}
