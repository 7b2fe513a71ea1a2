//! What is stored: a response, the request fields it depends on, the terms of
//! its reuse and the epochs it stands under.

pub(crate) mod codec;
pub(crate) mod packing;
pub(crate) mod said;
#[cfg(any(test, feature = "test-util"))]
mod sample;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_LANGUAGE, ETAG};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use self::said::Said;
use crate::epoch::Stamp;
use crate::key::PrimaryKey;
use crate::semantics::freshness::Terms;
use crate::semantics::vary::{self, Nominated, NormalForm, Vary};

/// A stored response (RFC 9111 §1.2).
///
/// Made by the cache and given to a [`Store`](crate::store::Store) and back in an `Arc`: it never
/// changes. Cloning copies no body.
#[derive(Clone)]
pub struct StoredResponse {
    pub(crate) key: PrimaryKey,
    pub(crate) variant: Variant,
    pub(crate) status: StatusCode,
    /// All fields as they are served, but for those that each answer adds.
    pub(crate) fields: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) terms: Terms,
    /// Whose word the `ETag` is.
    pub(crate) tagged: Tagged,
    /// When it arrived here; its age then is in the terms.
    pub(crate) received: Instant,
    pub(crate) stamp: Stamp,
    pub(crate) said: Said,
}

/// What sets a stored response apart from others under the same key (RFC 9111 §4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Variant {
    pub(crate) vary: Vary,
    /// What the request held in the nominated fields.
    pub(crate) nominated: Nominated,
    pub(crate) form: NormalForm,
}

/// Who gave a stored response its entity-tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tagged {
    /// The handler, or nobody: what validators there are, the handler knows.
    ByOrigin,
    /// The cache: clients may validate with it, the handler knows nothing of it.
    ByCache,
}

impl StoredResponse {
    /// Returns the key it is stored under.
    pub fn key(&self) -> &PrimaryKey {
        &self.key
    }

    /// Returns the content. Of a partial response that is the part alone.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Returns the entity-tag as the field's value, if it has one.
    pub fn etag(&self) -> Option<&HeaderValue> {
        self.fields.get(ETAG)
    }

    /// Returns the epochs it stands under; empty until a store has completed it.
    pub fn stamp(&self) -> &Stamp {
        &self.stamp
    }

    /// Puts the response under these epochs, as a store does when it keeps it. Copies it, but for
    /// the bytes of body and values, if others have it too.
    #[must_use]
    pub fn stamped(mut self: Arc<Self>, stamp: Stamp) -> Arc<Self> {
        Arc::make_mut(&mut self).stamp = stamp;
        self
    }

    /// Whether both answer the same requests, so that the newer replaces the older.
    pub fn is_same_variant(&self, other: &Self) -> bool {
        self.variant == other.variant
    }

    /// Whether it answers every request with its key: no `Vary` tells them apart.
    pub fn answers_all(&self) -> bool {
        self.variant.vary == Vary::None
    }

    /// Returns the place of the response that a request with these fields selects, among those
    /// stored under its key (RFC 9111 §4.1).
    pub fn select<'a, I>(candidates: I, request: &HeaderMap) -> Option<usize>
    where
        I: Iterator<Item = &'a Self> + Clone,
    {
        vary::select(candidates.map(Self::candidate), request)
    }

    /// Returns the memory that it takes, in bytes: body, key, fields and an allowance for the rest.
    pub fn size(&self) -> usize {
        /// The struct, what the bytes of body and values are held by, and the allocator's rounding.
        const OVERHEAD: usize = 1200;
        [
            OVERHEAD,
            self.key.as_bytes().len(),
            self.variant.nominated.as_bytes().len(),
            self.body.len(),
            fields_size(&self.fields),
            self.trailers.as_ref().map_or(0, fields_size),
        ]
        .into_iter()
        .fold(0, usize::saturating_add)
    }

    /// Returns how old the response is (RFC 9111 §4.2.3).
    pub(crate) fn age(&self, now: Instant) -> Duration {
        self.terms.age(now.saturating_duration_since(self.received))
    }

    /// Returns for how long it is fresh yet.
    pub(crate) fn fresh_for(&self, now: Instant) -> Duration {
        self.terms.lifetime.saturating_sub(self.age(now))
    }

    fn candidate(&self) -> vary::Candidate<'_> {
        vary::Candidate {
            vary: &self.variant.vary,
            nominated: &self.variant.nominated,
            form: self.variant.form,
            date: self.terms.date,
            content_language: self.fields.get(CONTENT_LANGUAGE).map(HeaderValue::as_bytes),
        }
    }
}

impl Variant {
    /// Takes from a request what the response's `Vary` nominates.
    pub(crate) fn of(response: &HeaderMap, request: &HeaderMap, normalise: bool) -> Self {
        let vary = Vary::parse(response);
        let form = NormalForm::for_response(normalise, response);
        let names = vary.fields().unwrap_or_default();
        Self {
            nominated: Nominated::new(names, request, form),
            vary,
            form,
        }
    }
}

impl fmt::Debug for StoredResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredResponse")
            .field("key", &self.key)
            .field("status", &self.status)
            .field("body_length", &self.body.len())
            .field("terms", &self.terms)
            .finish_non_exhaustive()
    }
}

/// Returns what the fields take, roughly: the places of their table, taken or not, their names and
/// values, and a little for each, as measured.
fn fields_size(fields: &HeaderMap) -> usize {
    const PER_PLACE: usize = 112;
    const PER_LINE: usize = 32;
    let size =
        |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + PER_LINE;
    let lines: usize = fields.iter().map(size).sum();
    // Further lines of one name have places of their own.
    let places = fields.capacity().max(fields.len());
    places.saturating_mul(PER_PLACE).saturating_add(lines)
}
