//! What passes through the cache as types instead of header strings.
//!
//! [`CacheFor`], [`NoStore`] and [`Tags`] are what handlers tell the cache. Put
//! one into the response's extensions; the cache takes it out again before the
//! response leaves, whether or not it was stored. [`OnInterim`] is for requests.
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
use std::sync::Arc;
use std::time::Duration;

use http::{Extensions, Response};

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

/// Hears of the interim responses (1xx) to a request before its final one comes (RFC 9110 §15.2).
///
/// Tower services have no place for them. So a server puts one of these into the extensions of a
/// request, to bring them to its client; and the service inside the cache that hears of interim
/// responses, such as a proxy's client, takes it out there and [calls](Self::call) it.
///
/// The cache in between sees to it that whoever waits in this process for the answer to another's
/// request hears what that one hears, and who comes later first what has passed (the first eight).
/// For that the other's request must have an `OnInterim` too: put one that does nothing into the
/// requests of clients that cannot be sent any. A request in the background has one only for those
/// who wait for it. Interim responses are never stored, and a hit has none.
///
/// # Examples
///
/// ```
/// use http::{Request, Response, StatusCode};
/// use tower_response_cache::OnInterim;
///
/// // In the server:
/// let mut request = Request::new(());
/// request.extensions_mut().insert(OnInterim::new(|interim| {
///     assert_eq!(interim.status(), StatusCode::EARLY_HINTS);
/// }));
///
/// // Inside the cache:
/// let mut hints = Response::new(());
/// *hints.status_mut() = StatusCode::EARLY_HINTS;
/// if let Some(on_interim) = request.extensions().get::<OnInterim>() {
///     on_interim.call(&hints);
/// }
/// ```
#[derive(Clone)]
pub struct OnInterim(Arc<Hook>);

type Hook = dyn Fn(&Response<()>) + Send + Sync;

impl OnInterim {
    /// Makes one of a function, which must neither block nor panic: others are told after it.
    ///
    /// It may be called by several threads at once, and once more when the final response is on its
    /// way already: what writes to a connection has to know whether that has begun.
    pub fn new(hook: impl Fn(&Response<()>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hook))
    }

    /// Tells of an interim response.
    pub fn call(&self, interim: &Response<()>) {
        (self.0)(interim);
    }
}

impl fmt::Debug for OnInterim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnInterim").finish_non_exhaustive()
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
