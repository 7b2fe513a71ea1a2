use http::header::COOKIE;
use http::{HeaderMap, HeaderName};

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
        self.covers_field(COOKIE.as_str())
            || !self.cookies.is_empty() && cookie_names(headers).all(|name| {
                self.cookies.iter().any(|covered| covered.as_bytes() == name)
            })
    }
}

fn cookie_names(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b';'))
        .map(|pair| pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii())
        .filter(|name| !name.is_empty())
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
