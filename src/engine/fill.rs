//! From a response on its way to the client to one that is stored.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, ETAG, TRAILER};
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::Frame;
use smallvec::SmallVec;
use tracing::Instrument;

use super::admit::{Admission, announced_length};
use super::request::Facts;
use super::respond::{self, Content};
use super::{Engine, Forward, forward, partial};
use crate::entry::{StoredResponse, Tagged};
use crate::epoch::{Captured, Scope, Stamp};
use crate::reason::{Miss, Refusal};
use crate::semantics::cache_status::Handling;
use crate::semantics::etag;
use crate::store::{Fill, Kept};

/// Copies a response on its way to the client, and stores it once it is whole.
///
/// Dropped before it [finished](Self::finish), it stores nothing: the body failed, or its reader
/// went away.
#[derive(Debug)]
pub(crate) struct Recorder {
    /// Taken when the recording ends.
    recording: Option<Box<Recording>>,
}

#[derive(Debug)]
struct Recording {
    engine: Arc<Engine>,
    route: Option<usize>,
    /// The response without its body.
    draft: StoredResponse,
    /// What the client asked with, and why it was forwarded.
    client: HeaderMap,
    facts: Facts,
    why: Miss,
    /// A stored part of the same representation, perhaps.
    part: Option<Arc<StoredResponse>>,
    captured: Captured,
    late: SmallVec<[Scope; 2]>,
    tag: bool,
    max_body: u64,
    retain: Duration,
    announced: Option<u64>,
    /// A copy: the frames may be corners of large read buffers, or a million of one byte each.
    body: BytesMut,
}

impl Recorder {
    /// Starts to record what was admitted.
    pub(super) fn new(forward: Forward, admission: Admission, captured: Captured) -> Self {
        let exchange = forward.exchange;
        let now = exchange.engine.options.clock.now();
        let draft = StoredResponse {
            key: admission.key,
            variant: admission.variant,
            status: admission.status,
            body: Bytes::new(),
            trailers: None,
            terms: admission.terms,
            tagged: Tagged::ByOrigin,
            received: now,
            stamp: Stamp::default(),
            fields: admission.fields,
        };
        Self {
            recording: Some(Box::new(Recording {
                route: exchange.route.as_ref().map(|route| route.index),
                engine: exchange.engine,
                announced: announced_length(&draft.fields),
                draft,
                client: forward.client,
                facts: exchange.facts,
                why: forward.why,
                part: forward.part,
                captured,
                late: admission.late,
                tag: admission.tag,
                max_body: admission.max_body,
                retain: admission.retain,
                body: BytesMut::new(),
            })),
        }
    }

    /// Takes a frame in; `None` if there is no more use in it.
    pub(crate) fn record(mut self, frame: &Frame<Bytes>) -> Option<Self> {
        let recording = self.recording.as_mut()?;
        if let Some(data) = frame.data_ref() {
            if !recording.takes(data) {
                self.refuse(Refusal::BodyTooLarge);
                return None;
            }
            recording.body.extend_from_slice(data);
        } else if let Some(trailers) = frame.trailers_ref() {
            let held = recording.draft.trailers.get_or_insert_with(HeaderMap::new);
            held.extend(trailers.clone());
        }
        Some(self)
    }

    /// Stores the response: the body has come to its end.
    pub(crate) fn finish(mut self) {
        if let Some(recording) = self.recording.take() {
            recording.complete();
        }
    }

    /// Up to this length a body is worth reading ahead of its client.
    pub(crate) fn hash_ahead(&self) -> u64 {
        self.recording
            .as_ref()
            .map_or(0, |recording| recording.engine.options.hash_ahead)
    }

    /// Stores the response, whose body was complete at hand, and answers with it.
    pub(crate) fn finish_and_answer(mut self, mut head: Parts) -> Response<Content> {
        let Some(recording) = self.recording.take() else {
            return Response::from_parts(head, Content::default());
        };
        let (engine, why) = (Arc::clone(&recording.engine), recording.why);
        let (facts, client) = (recording.facts.clone(), recording.client.clone());
        let stored = recording.complete();
        if respond::is_unmodified(&engine, &stored, &client, &facts) {
            let handling = Handling::Forwarded {
                why: forward::fwd(why),
                status: Some(stored.status),
                stored: true,
                collapsed: None,
            };
            let mut response = respond::not_modified(&stored);
            engine.sign(response.headers_mut(), handling, None, forward::detail(why));
            return response;
        }
        // What the hits will say of the body.
        for name in [ETAG, CONTENT_LENGTH] {
            if let Some(value) = stored.fields.get(&name) {
                head.headers.insert(name, value.clone());
            }
        }
        Response::from_parts(head, respond::content(&stored))
    }

    fn refuse(&mut self, refusal: Refusal) {
        if let Some(recording) = self.recording.take() {
            recording
                .engine
                .metrics
                .route(recording.route)
                .refused(refusal);
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.refuse(Refusal::Incomplete);
    }
}

impl Recording {
    /// Makes room for more of the body, at first for all that was announced; says whether it is
    /// within the cap.
    fn takes(&mut self, data: &Bytes) -> bool {
        let more = u64::try_from(data.len()).unwrap_or(u64::MAX);
        let fits = length(&self.body).saturating_add(more) <= self.max_body;
        if fits && self.body.is_empty() {
            let announced = self.announced.unwrap_or(more).min(self.max_body);
            self.body
                .reserve(usize::try_from(announced).unwrap_or(data.len()));
        }
        fits
    }

    /// Gives the whole response to the store, unless it is not as long as it announced.
    fn complete(self) -> StoredResponse {
        let mut response = self.draft;
        let arrived = length(&self.body);
        response.body = trimmed(self.body);
        announce_content(&mut response);
        if self.tag {
            let digest = blake3::hash(&response.body);
            response
                .fields
                .insert(ETAG, etag::strong_from_digest(digest.as_bytes()));
            response.tagged = Tagged::ByCache;
        }
        if self.announced.is_some_and(|announced| announced != arrived) {
            self.engine
                .metrics
                .route(self.route)
                .refused(Refusal::Incomplete);
            return response;
        }
        let mut late = self.late;
        let whole = match self.part {
            Some(part) if response.status == StatusCode::PARTIAL_CONTENT => {
                late.extend(forward::tags_of(&part));
                partial::joined(&part, response.clone())
            }
            _ => response.clone(),
        };
        self.engine
            .keep(self.route, whole, self.retain, self.captured, late);
        response
    }
}

impl Engine {
    /// Gives a response to the store for so long: at once where the store need not wait, else in a
    /// task.
    pub(super) fn keep(
        self: &Arc<Self>,
        route: Option<usize>,
        response: StoredResponse,
        retain: Duration,
        captured: Captured,
        late: SmallVec<[Scope; 2]>,
    ) {
        let engine = Arc::clone(self);
        let length = response.body.len();
        let fill = Fill {
            namespace: self.options.namespace.clone(),
            retain,
            response,
            captured,
            late,
            clock: self.options.clock.clone(),
        };
        let span = tracing::debug_span!("cache_store", key = ?fill.response.key);
        let store = async move {
            let kept = engine.store.put(fill).await;
            let metrics = engine.metrics.route(route);
            match kept {
                Ok(Kept::Stored) => {
                    metrics.stored();
                    engine.metrics.body_stored(length);
                }
                Ok(Kept::Invalidated) => metrics.refused(Refusal::Invalidated),
                Ok(Kept::TooLarge) => metrics.refused(Refusal::BodyTooLarge),
                Err(error) => {
                    tracing::debug!(%error, operation = "put", "store failed");
                    metrics.refused(Refusal::StoreError);
                    engine.metrics.store_failed();
                }
            }
        };
        self.tasks.finish(store.instrument(span));
    }
}

fn length(body: &[u8]) -> u64 {
    u64::try_from(body.len()).unwrap_or(u64::MAX)
}

/// States the length that is now known: HEAD needs it, and servers need not find it out each time.
///
/// Beside trailers, which HTTP/1.1 can only send behind a body of no stated length, it is their
/// names: servers send none that are not announced (RFC 9110 §6.6.2).
fn announce_content(response: &mut StoredResponse) {
    if let Some(trailers) = &response.trailers {
        let names: Vec<&str> = trailers.keys().map(HeaderName::as_str).collect();
        let names = HeaderValue::try_from(names.join(", "));
        response
            .fields
            .extend(names.ok().map(|names| (TRAILER, names)));
    } else if response.status != StatusCode::NO_CONTENT {
        let length = HeaderValue::from(response.body.len());
        response.fields.entry(CONTENT_LENGTH).or_insert(length);
    }
}

/// Takes the body out of the buffer it grew in, without keeping what the buffer has left over.
fn trimmed(body: BytesMut) -> Bytes {
    match body.capacity() - body.len() <= body.len() / 8 {
        true => body.freeze(),
        false => Bytes::copy_from_slice(&body),
    }
}
