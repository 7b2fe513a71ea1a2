//! What handlers tell the cache in types instead of header strings.
//!
//! Put one into the response's extensions; the cache takes it out again before
//! the response leaves, whether or not it was stored.
//!
//! ```
//! use std::time::Duration;
//! use tower_response_cache::{CacheFor, Tags};
//!
//! let mut response = http::Response::new("price list");
//! response.extensions_mut().insert(CacheFor(Duration::from_secs(60)));
//! response.extensions_mut().insert(Tags::new(["prices", "supplier:7"]));
//! # assert_eq!(response.extensions().get(), Some(&CacheFor(Duration::from_secs(60))));
//! ```

use std::time::Duration;

use http::Extensions;

/// Stores this response for so long, whatever the rule of its route and its own fields say of a
/// lifetime; `no-store` and `private` still bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheFor(pub Duration);

/// Does not store this response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoStore;

/// Tags this response, so that it can be invalidated by them.
///
/// At most 64 tags of 1 to 128 bytes, those of the rule included; a response with others is not
/// stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags(pub(crate) Vec<String>);

impl Tags {
    /// Makes a set of tags.
    pub fn new(tags: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(tags.into_iter().map(Into::into).collect())
    }
}

/// What a response's extensions told the cache.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub(crate) cache_for: Option<Duration>,
    pub(crate) no_store: bool,
    pub(crate) tags: Vec<String>,
}

impl Told {
    /// Takes out of a response's extensions what is meant for the cache.
    pub(crate) fn take(extensions: &mut Extensions) -> Self {
        // Most responses have no extensions at all.
        if extensions.is_empty() {
            return Self::default();
        }
        Self {
            cache_for: extensions.remove().map(|CacheFor(lifetime)| lifetime),
            no_store: extensions.remove::<NoStore>().is_some(),
            tags: extensions
                .remove()
                .map(|Tags(tags)| tags)
                .unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_taken_out_and_the_rest_is_left() {
        let mut extensions = Extensions::new();
        extensions.insert(CacheFor(Duration::from_secs(7)));
        extensions.insert(NoStore);
        extensions.insert(Tags::new(["a"]));
        extensions.insert("the application's own");
        let told = Told::take(&mut extensions);
        assert_eq!(told.cache_for, Some(Duration::from_secs(7)));
        assert!(told.no_store);
        assert_eq!(told.tags, ["a"]);
        assert_eq!(extensions.len(), 1);
    }
}
