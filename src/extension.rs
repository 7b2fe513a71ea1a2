//! What handlers tell the cache in types instead of header strings.
//!
//! Put one into the response's extensions; the cache takes it out again before
//! the response leaves, whether or not it was stored. [`EmptyBody`] alone is
//! for requests.
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

use std::fmt;
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

/// Makes an empty request body, for the cache to repeat a request with.
///
/// Beside what its client wants, a request can ask what the cache wants to know: whether a stored
/// response still holds, or what a stored part lacks. A handler may answer something that fits
/// neither. Then the cache asks once more for the client alone (RFC 9111 §4.3.4), if it can make
/// such a request: if the first had no content, and in its extensions the way to make a body of its
/// type without any. Else the client gets a stale response or a 502, and the next one is asked for
/// alone.
///
/// ```
/// use http_body_util::Empty;
/// use tower_response_cache::EmptyBody;
///
/// let mut request = http::Request::new(Empty::<bytes::Bytes>::new());
/// request.extensions_mut().insert(EmptyBody(Empty::<bytes::Bytes>::new));
/// ```
pub struct EmptyBody<B>(pub fn() -> B);

// Not derived, which would ask the same of the body.
impl<B> Clone for EmptyBody<B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for EmptyBody<B> {}

impl<B> fmt::Debug for EmptyBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmptyBody").finish_non_exhaustive()
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
