//! What a layer does with the content of requests.

use std::fmt;

/// The content of requests is not read: the handler gets their bodies as they are.
///
/// What a [`CacheLayer`](crate::CacheLayer) does unless it is
/// [keyed by content](crate::CacheLayer::keyed_by_content).
#[derive(Clone, Copy, Debug, Default)]
pub struct UnreadContent;

/// The content of requests is read where it is part of their key, and `F` makes the handler's
/// request body of a [`RequestBody`](crate::RequestBody).
///
/// What a [`CacheLayer`](crate::CacheLayer) does that is
/// [keyed by content](crate::CacheLayer::keyed_by_content).
#[derive(Clone, Copy)]
pub struct KeyedByContent<F> {
    pub(super) wrap: F,
}

impl<F> fmt::Debug for KeyedByContent<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyedByContent")
    }
}
