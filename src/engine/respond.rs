//! From a stored response to an answer (RFC 9111 §4, RFC 9110 §15).

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::ops::Deref;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AGE, CACHE_CONTROL, CACHE_STATUS, CONTENT_RANGE, CONTENT_TYPE, EXPIRES};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};

use super::Engine;
use super::ahead::Ahead;
use super::decide::Service;
use super::partial::{self, Portion};
use super::request::Facts;
use crate::entry::StoredResponse;
use crate::entry::said::{Moment, Words};
use crate::flight::along::{BoxError, Source};
use crate::key::PrimaryKey;
use crate::semantics::cache_status::{CacheStatus, Fwd, Handling};
use crate::semantics::date::HttpDate;
use crate::semantics::preconditions::{self, Precondition};
use crate::semantics::range;

/// The content of an answer that the cache makes: no body of a handler's.
#[derive(Default)]
pub(crate) struct Content {
    first: Option<Bytes>,
    /// What follows the first chunk; empty, and free of cost, for all but multipart answers.
    rest: VecDeque<Bytes>,
    trailers: Option<Box<HeaderMap>>,
    /// All of it, where it is still arriving.
    arriving: Option<Source>,
}

impl Content {
    /// Makes content of a body that is whole.
    pub(crate) fn whole(body: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self {
            trailers: trailers.map(Box::new),
            ..body.into()
        }
    }

    /// Makes content of a body that is still arriving.
    pub(crate) fn arriving(body: Source) -> Self {
        Self {
            arriving: Some(body),
            ..Self::default()
        }
    }

    /// Makes content of a body that comes behind what is at hand.
    pub(crate) fn behind(prefix: Bytes, rest: Source) -> Self {
        Self::arriving(Box::pin(Ahead::new(Some(prefix), rest)))
    }

    /// Returns the same content once more; `None` if it is still arriving.
    pub(crate) fn again(&self) -> Option<Self> {
        self.arriving.is_none().then(|| Self {
            first: self.first.clone(),
            rest: self.rest.clone(),
            trailers: self.trailers.clone(),
            arriving: None,
        })
    }

    /// Returns the length of the data at hand, in bytes.
    pub(crate) fn len(&self) -> u64 {
        let data = self.first.iter().chain(&self.rest);
        data.map(|bytes| u64::try_from(bytes.len()).unwrap_or(u64::MAX))
            .sum()
    }

    /// Returns what a server may state of the length.
    ///
    /// Beside trailers not all that is known: over HTTP/1.1 a stated length leaves them out.
    pub(crate) fn size_hint(&self) -> SizeHint {
        if let Some(body) = &self.arriving {
            return body.size_hint();
        }
        let mut hint = SizeHint::new();
        hint.set_lower(self.len());
        if self.trailers.is_none() {
            hint.set_exact(self.len());
        }
        hint
    }

    /// Whether there is no frame left.
    pub(crate) fn is_empty(&self) -> bool {
        match &self.arriving {
            Some(body) => body.is_end_stream(),
            None => self.first.is_none() && self.trailers.is_none(),
        }
    }

    /// Takes the next frame out.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.arriving {
            Some(body) => body.as_mut().poll_frame(cx),
            None => Poll::Ready(self.next_frame().map(Ok)),
        }
    }

    fn next_frame(&mut self) -> Option<Frame<Bytes>> {
        let next = self.rest.pop_front();
        let data = mem::replace(&mut self.first, next);
        data.map(Frame::data).or_else(|| {
            self.trailers
                .take()
                .map(|trailers| Frame::trailers(*trailers))
        })
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content")
            .field("length", &self.size_hint())
            .finish_non_exhaustive()
    }
}

impl FromIterator<Bytes> for Content {
    fn from_iter<I: IntoIterator<Item = Bytes>>(chunks: I) -> Self {
        let mut chunks = chunks.into_iter().filter(|bytes| !bytes.is_empty());
        Self {
            first: chunks.next(),
            rest: chunks.collect(),
            ..Self::default()
        }
    }
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Self {
        Self {
            first: Some(bytes).filter(|bytes| !bytes.is_empty()),
            ..Self::default()
        }
    }
}

/// A stored response to answer with.
pub(super) enum Held<'a> {
    /// Others have it too, or will.
    Shared(&'a StoredResponse),
    /// Nobody needs it after this answer, which takes what it can use.
    Last(&'a mut StoredResponse),
}

impl Held<'_> {
    fn take_fields(&mut self) -> HeaderMap {
        match self {
            Self::Shared(stored) => stored.fields.clone(),
            Self::Last(stored) => mem::take(&mut stored.fields),
        }
    }

    fn take_content(&mut self) -> Content {
        match self {
            Self::Shared(stored) => content(stored),
            Self::Last(stored) => {
                Content::whole(mem::take(&mut stored.body), stored.trailers.take())
            }
        }
    }
}

impl Deref for Held<'_> {
    type Target = StoredResponse;

    fn deref(&self) -> &StoredResponse {
        match self {
            Self::Shared(stored) => stored,
            Self::Last(stored) => stored,
        }
    }
}

/// Answers a request from a stored response, whatever its state, and says which tier it was in.
pub(super) fn from_store(
    engine: &Engine,
    mut stored: Held<'_>,
    request: &HeaderMap,
    facts: &Facts,
    service: Service,
    tier: Option<&'static str>,
    now: Instant,
) -> Response<Content> {
    let age = stored.age(now);
    let mut response = represent(engine, &mut stored, request, facts);
    let fields = response.headers_mut();
    for name in &stored.terms.omitted {
        fields.remove(name);
    }
    let detail = match service {
        Service::Fresh => tier,
        Service::Stale(allowance) => Some(allowance.as_str()),
    };
    let words = words(engine, &stored, age, detail);
    write_age(fields, words.age);
    write_status(fields, words.cache_status);
    response
}

/// Returns what a hit says of itself.
fn words(engine: &Engine, stored: &Held<'_>, age: Duration, detail: Option<&'static str>) -> Words {
    let ttl = stored.terms.remaining(age);
    let put = || Words {
        age: age_value(age),
        cache_status: engine.status(Some(&stored.key), Handling::Hit, Some(ttl), detail),
    };
    let Held::Shared(stored) = stored else {
        return put();
    };
    let moment = Moment {
        age: age.as_secs(),
        ttl,
        detail,
    };
    stored.said.at(&engine.options.signature, moment, put)
}

/// Chooses what the request gets of a stored response: all of it, its head, or only the news that
/// nothing has changed.
pub(super) fn represent(
    engine: &Engine,
    stored: &mut Held<'_>,
    request: &HeaderMap,
    facts: &Facts,
) -> Response<Content> {
    if is_unmodified(engine, stored, request, facts) {
        return not_modified(stored);
    }
    if facts.range || stored.status == StatusCode::PARTIAL_CONTENT {
        match partial::portion(engine, stored, request, facts) {
            Portion::Some(portion) => {
                let mut fields = stored.take_fields();
                portion.write_fields(&mut fields);
                let mut response = Response::new(portion.chunks.into_iter().collect());
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                *response.headers_mut() = fields;
                return response;
            }
            Portion::Unsatisfiable => return unsatisfiable(stored),
            Portion::Whole | Portion::Missing => {}
        }
    }
    let mut response = Response::new(match facts.head {
        true => Content::default(),
        false => stored.take_content(),
    });
    *response.status_mut() = stored.status;
    *response.headers_mut() = stored.take_fields();
    response
}

/// Returns the content of a stored response, sharing its bytes.
pub(super) fn content(stored: &StoredResponse) -> Content {
    Content::whole(stored.body.clone(), stored.trailers.clone())
}

/// Makes the 304 that stands for a stored response (RFC 9110 §15.4.5).
pub(super) fn not_modified(stored: &StoredResponse) -> Response<Content> {
    let mut response = Response::new(Content::default());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    *response.headers_mut() = preconditions::not_modified_fields(&stored.fields);
    response
}

/// Says that no byte of a stored response is in the range (RFC 9110 §15.5.17).
fn unsatisfiable(stored: &StoredResponse) -> Response<Content> {
    let mut response = not_modified(stored);
    *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
    let length = u64::try_from(stored.body.len()).unwrap_or(u64::MAX);
    // For how long the whole may be used says nothing of this.
    for name in [CACHE_CONTROL, EXPIRES] {
        response.headers_mut().remove(name);
    }
    response
        .headers_mut()
        .insert(CONTENT_RANGE, range::unsatisfied(length));
    response
}

/// Returns the fields of a response that is to be stored, with places before all others for what
/// each answer adds: a hit clones them once, and finds the places without a search.
pub(super) fn prepared(fields: &HeaderMap) -> HeaderMap {
    /// The two places, a date, and what is said of the content: its length and its tag.
    const MORE: usize = 5;
    let mut prepared = HeaderMap::with_capacity(fields.keys_len() + MORE);
    prepared.insert(AGE, HeaderValue::from_static("0"));
    prepared.insert(CACHE_STATUS, EMPTY);
    let others = |(name, _): &(_, _)| *name != AGE && *name != CACHE_STATUS;
    for (name, value) in fields.iter().filter(others) {
        prepared.append(name, value.clone());
    }
    let mut earlier = fields.get_all(CACHE_STATUS).iter().cloned();
    if let Some(first) = earlier.next() {
        prepared.insert(CACHE_STATUS, first);
    }
    for further in earlier {
        prepared.append(CACHE_STATUS, further);
    }
    prepared
}

/// Returns the place that [`prepared`] made for this field, or another that it has.
fn place<'a>(fields: &'a mut HeaderMap, name: &HeaderName) -> Option<&'a mut HeaderValue> {
    match fields.iter().take(2).position(|(found, _)| found == name) {
        Some(near) => fields.values_mut().nth(near),
        None => fields.get_mut(name),
    }
}

/// Marks the place of a `Cache-Status` where no cache before this one has written one.
const EMPTY: HeaderValue = HeaderValue::from_static("");

/// States the age in place of the stored one (RFC 9111 §5.1).
pub(super) fn state_age(fields: &mut HeaderMap, age: Duration) {
    write_age(fields, age_value(age));
}

fn age_value(age: Duration) -> HeaderValue {
    HeaderValue::from(age.as_secs())
}

fn write_age(fields: &mut HeaderMap, age: HeaderValue) {
    match place(fields, &AGE) {
        Some(place) => *place = age,
        None => drop(fields.insert(AGE, age)),
    }
}

/// Adds what this cache says, if it does, behind what those nearer to the origin have said; leaves
/// it out where no further line fits.
fn write_status(fields: &mut HeaderMap, status: Option<HeaderValue>) {
    match (status, place(fields, &CACHE_STATUS)) {
        (Some(status), Some(place)) if place.is_empty() => *place = status,
        (Some(status), _) => drop(fields.try_append(CACHE_STATUS, status)),
        (None, Some(place)) if place.is_empty() => drop(fields.remove(CACHE_STATUS)),
        (None, _) => {}
    }
}

/// The answer where only a stored response would do and there is none (RFC 9111 §5.2.1.7), or
/// where nothing may be served without a validation that failed (§5.2.2.2).
pub(super) fn gateway_timeout(why: &'static str) -> Response<Content> {
    let mut response = Response::new(Bytes::from_static(why.as_bytes()).into());
    *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

/// Whether the client has what is stored (RFC 9110 §13.2.2).
pub(super) fn is_unmodified(
    engine: &Engine,
    stored: &StoredResponse,
    request: &HeaderMap,
    facts: &Facts,
) -> bool {
    if !facts.conditional || !stored.status.is_success() {
        return false;
    }
    let terms = &stored.terms;
    let etag = stored.etag().map(HeaderValue::as_bytes);
    let now = HttpDate::from(engine.options.clock.wall());
    preconditions::evaluate(request, etag, terms.last_modified, terms.date, now)
        == Precondition::NotModified
}

impl Engine {
    /// Adds what this cache has to say to `Cache-Status`, unless that is switched off.
    pub(super) fn sign(
        &self,
        fields: &mut HeaderMap,
        key: Option<&PrimaryKey>,
        handling: Handling,
        ttl: Option<i64>,
        detail: Option<&str>,
    ) {
        write_status(fields, self.status(key, handling, ttl, detail));
    }

    /// Returns what this cache has to say.
    fn status(
        &self,
        key: Option<&PrimaryKey>,
        handling: Handling,
        ttl: Option<i64>,
        detail: Option<&str>,
    ) -> Option<HeaderValue> {
        let signature = &self.options.signature;
        let key = key.filter(|_| signature.tells_key);
        let key = key.map(PrimaryKey::to_hex);
        let status = CacheStatus {
            cache: signature.name.as_ref()?,
            handling,
            ttl,
            key: key.as_deref(),
            detail: detail.filter(|_| signature.tells_detail),
        };
        Some(status.to_header_value())
    }

    /// Signs a response that the handler gave for a request that passed by the store.
    pub(super) fn sign_passed(&self, fields: &mut HeaderMap, why: Fwd, detail: Option<&str>) {
        let handling = Handling::Forwarded {
            why,
            status: None,
            stored: false,
            collapsed: None,
        };
        self.sign(fields, None, handling, None, detail);
    }
}
