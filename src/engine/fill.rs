//! From a response on its way to the client to one that is stored.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, ETAG, TRAILER};
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::Body as _;
use smallvec::SmallVec;
use tracing::Instrument;

use super::admit::{Admission, announced_length};
use super::ahead::Ahead;
use super::collapse::{Landing, Lead};
use super::refresh::Refreshing;
use super::request::Facts;
use super::respond::{self, Content};
use super::{Engine, Forward, forward, partial};
use crate::entry::packing::pack;
use crate::entry::said::Said;
use crate::entry::{StoredResponse, Tagged};
use crate::epoch::{Captured, Scope, Stamp};
use crate::error::Error;
use crate::flight::along::{Along, Reader, Source, Tap};
use crate::key::PrimaryKey;
use crate::reason::{Miss, Refusal};
use crate::rules::Route;
use crate::semantics::cache_control::RequestDirectives;
use crate::semantics::cache_status::Handling;
use crate::semantics::etag;
use crate::semantics::freshness::Terms;
use crate::semantics::grpc;
use crate::semantics::reuse::{self, Reuse};
use crate::store::{BoxFuture, Fill, Kept};

/// How long what nobody waits for any more is read for the store.
pub(crate) const LONGEST_FETCH: Duration = Duration::from_secs(30);

/// Stores a response once it is whole.
///
/// Dropped before that, it stores nothing: the body failed, or nobody read on.
#[derive(Debug)]
pub(crate) struct Recorder {
    /// Taken when the recording ends.
    recording: Option<Box<Recording>>,
}

#[derive(Debug)]
struct Recording {
    engine: Arc<Engine>,
    route: Option<Arc<Route>>,
    /// The response, without its body until that is whole.
    draft: Arc<StoredResponse>,
    /// What the client asked with, and why it was forwarded.
    client: HeaderMap,
    facts: Facts,
    why: Miss,
    /// A stored part of the same representation, perhaps.
    part: Option<Arc<StoredResponse>>,
    /// `None` if the store could not tell; then it is for those who wait alone.
    captured: Option<Captured>,
    aboard: Aboard,
    collapsed: Option<bool>,
    late: SmallVec<[Scope; 2]>,
    tag: bool,
    max_body: u64,
    retain: Duration,
    announced: Option<u64>,
}

impl Recorder {
    /// Starts to record what was admitted.
    pub(super) fn new(
        mut forward: Forward,
        admission: Admission,
        captured: Option<Captured>,
    ) -> Self {
        if !is_of_use(&admission.terms, admission.terms.age(Duration::ZERO)) {
            forward.ground(true);
        }
        let exchange = forward.exchange;
        let now = exchange.engine.options.clock.now();
        let draft = Arc::new(StoredResponse {
            key: admission.key,
            variant: admission.variant,
            status: admission.status,
            body: Bytes::new(),
            trailers: None,
            terms: admission.terms,
            tagged: Tagged::ByOrigin,
            received: now,
            stamp: Stamp::default(),
            said: Said::default(),
            fields: admission.fields,
        });
        Self {
            recording: Some(Box::new(Recording {
                route: exchange.route,
                engine: exchange.engine,
                announced: announced_length(&draft.fields),
                draft,
                client: forward.client,
                facts: exchange.facts,
                why: forward.why,
                part: forward.part,
                captured,
                aboard: Aboard::new(forward.lead, forward.refreshing),
                collapsed: forward.collapsed,
                late: admission.late,
                tag: admission.tag,
                max_body: admission.max_body,
                retain: admission.retain,
            })),
        }
    }

    /// Answers with what was admitted, and stores it when its body, which comes behind `prefix`,
    /// has come to its end.
    ///
    /// A body at hand ends here, so that its answer can leave with the entity-tag that its hits
    /// will have. Any other goes to all who want it while it arrives.
    pub(crate) async fn answer(
        mut self,
        head: Parts,
        prefix: Option<Bytes>,
        body: Source,
    ) -> Response<Content> {
        let Some(recording) = &mut self.recording else {
            return Response::from_parts(head, Content::arriving(body));
        };
        let short = body
            .size_hint()
            .exact()
            .is_some_and(|length| length <= recording.engine.options.hash_ahead);
        let unary = recording.facts.is_grpc_unary();
        let (engine, max_body) = (Arc::clone(&recording.engine), recording.max_body);
        let most = |first: &[u8]| match grpc::message_end(first) {
            Some(end) if unary => end.min(max_body),
            _ => max_body,
        };
        let mut ahead = Ahead::new(prefix, body).announced(recording.announced);
        if (short || unary) && poll_fn(|cx| Poll::Ready(ahead.read(cx, most))).await {
            let (body, trailers) = ahead.into_whole();
            return self.answer_whole(head, body, trailers);
        }
        if unary {
            // It may be a stream: nobody waits for its end.
            engine.ground(recording.aboard.lead.take(), false);
        }
        let keep = most(ahead.first());
        let flight = recording.aboard.lead.as_ref().map(Lead::flight);
        // With tags of its own they wait for the store, and not for the client that came first.
        let draft =
            (flight.is_some() && recording.late.is_empty()).then(|| Arc::clone(&recording.draft));
        let in_a_hurry = flight.is_some() && draft.is_none();
        let to_finish = Arc::clone(&engine);
        let wait = engine.options.collapse_wait;
        let finish = Box::new(move |reader: Reader| engine.finish_body(reader));
        let (along, reader) = Along::new(Box::pin(ahead), keep, wait, Box::new(self), finish);
        if in_a_hurry && let Some(more) = along.reader() {
            to_finish.finish_body(more);
        }
        if let (Some(flight), Some(draft)) = (flight, draft) {
            flight.land(Landing::Response(draft, Some(along)));
        }
        Response::from_parts(head, Content::arriving(Box::pin(reader)))
    }

    /// Answers with a response that is whole, and stores it.
    fn answer_whole(
        mut self,
        head: Parts,
        body: Bytes,
        trailers: Option<HeaderMap>,
    ) -> Response<Content> {
        let Some(mut recording) = self
            .recording
            .take_if(|held| length(&body) <= held.max_body)
        else {
            self.refuse(Refusal::BodyTooLarge);
            return Response::from_parts(head, Content::whole(body, trailers));
        };
        let verdict = recording.complete(body, trailers);
        let response = recording.answer(head);
        recording.settle(verdict);
        response
    }

    fn refuse(&mut self, refusal: Refusal) {
        if let Some(recording) = self.recording.take() {
            let counters = recording.engine.counters(recording.route.as_deref());
            counters.refused(refusal, &recording.draft.key);
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.refuse(Refusal::Incomplete);
    }
}

impl Tap for Recorder {
    fn end(mut self: Box<Self>, body: Bytes, trailers: Option<HeaderMap>) {
        if let Some(mut recording) = self.recording.take() {
            let verdict = recording.complete(body, trailers);
            recording.settle(verdict);
        }
    }

    fn too_long(mut self: Box<Self>) {
        if let Some(recording) = &mut self.recording {
            let lead = recording.aboard.lead.take();
            recording.engine.ground(lead, true);
        }
        self.refuse(Refusal::BodyTooLarge);
    }
}

impl Recording {
    /// Makes the response whole.
    ///
    /// # Errors
    ///
    /// Returns why nobody else may have it.
    fn complete(&mut self, body: Bytes, trailers: Option<HeaderMap>) -> Result<(), Refusal> {
        let response = Arc::make_mut(&mut self.draft);
        let arrived = length(&body);
        response.body = body;
        response.trailers = trailers;
        response.trailers.iter_mut().for_each(pack);
        if self.facts.is_grpc_unary() {
            if !grpc::is_result(&response.body, response.trailers.as_ref()) {
                return Err(Refusal::Grpc);
            }
        } else {
            announce_content(response);
        }
        if self.tag {
            let digest = blake3::hash(&response.body);
            response
                .fields
                .insert(ETAG, etag::strong_from_digest(digest.as_bytes()));
            response.tagged = Tagged::ByCache;
        }
        let trailers = response.trailers.as_ref();
        let route = self.route.as_deref();
        if trailers.is_some_and(|trailers| !self.engine.takes_fields(route, trailers)) {
            return Err(Refusal::FieldsTooLarge);
        }
        match self.announced {
            Some(announced) if announced != arrived => Err(Refusal::Incomplete),
            _ => Ok(()),
        }
    }

    /// Answers the client with the response, which is whole.
    fn answer(&self, mut head: Parts) -> Response<Content> {
        let (engine, stored, why) = (&self.engine, &*self.draft, self.why);
        if respond::is_unmodified(engine, stored, &self.client, &self.facts) {
            let handling = Handling::Forwarded {
                why: forward::fwd(why),
                status: Some(stored.status),
                stored: self.captured.is_some(),
                collapsed: self.collapsed,
            };
            let mut response = respond::not_modified(stored);
            let (key, detail) = (Some(&stored.key), forward::detail(why));
            engine.sign(response.headers_mut(), key, handling, None, detail);
            return response;
        }
        // What the hits will say of the body.
        for name in [ETAG, CONTENT_LENGTH] {
            if let Some(value) = stored.fields.get(&name) {
                head.headers.insert(name, value.clone());
            }
        }
        Response::from_parts(head, respond::content(stored))
    }

    /// Gives the response to the store and to those who wait for it, unless there is a verdict
    /// against that.
    fn settle(mut self: Box<Self>, verdict: Result<(), Refusal>) {
        let counters = self.engine.counters(self.route.as_deref());
        if let Err(refusal) = verdict {
            counters.refused(refusal, &self.draft.key);
            // The next one may come whole.
            if refusal != Refusal::Incomplete {
                self.aboard.refused(&self.engine, true);
            }
            return;
        }
        if self.draft.status == StatusCode::PARTIAL_CONTENT {
            self.late
                .extend(self.part.iter().flat_map(|part| forward::tags_of(part)));
            let arrived = Arc::unwrap_or_clone(self.draft);
            self.draft = Arc::new(partial::joined(self.part.as_deref(), arrived));
        }
        let Some(captured) = self.captured else {
            counters.refused(Refusal::StoreError, &self.draft.key);
            self.aboard.land(&self.draft, false);
            return;
        };
        self.engine.keep(
            self.route,
            self.draft,
            self.retain,
            captured,
            self.late,
            self.aboard,
        );
    }
}

/// Those who wait for a response, and the refresh that has brought it.
#[derive(Debug)]
pub(super) struct Aboard {
    /// Others wait for it, or have it as far as it has come.
    lead: Option<Lead>,
    /// Fails unless the response is stored.
    refreshing: Option<Refreshing>,
}

impl Aboard {
    pub(super) fn new(lead: Option<Lead>, refreshing: Option<Refreshing>) -> Self {
        Self { lead, refreshing }
    }

    /// Gives those who wait the response, unless they have it, or had better ask the store, which
    /// has tags to look after.
    pub(super) fn land(&self, response: &Arc<StoredResponse>, late: bool) {
        if let Some(lead) = &self.lead
            && !late
            && !lead.has_ended()
        {
            lead.land(Landing::Response(Arc::clone(response), None));
        }
    }

    /// Sends those who still wait to the store, which has the response.
    fn stored(self) {
        if let Some(refreshing) = self.refreshing {
            refreshing.succeeded();
        }
        if let Some(lead) = self.lead {
            lead.land(Landing::Stored);
        }
    }

    /// Sends those who still wait to the handler: the store has not taken the response.
    fn refused(self, engine: &Engine, for_long: bool) {
        engine.ground(self.lead, for_long);
    }
}

impl Engine {
    /// Reads a body to its end for the store though all who read it have gone, if that does not take
    /// too long.
    fn finish_body(self: &Arc<Self>, reader: Reader) {
        self.tasks.spawn(reader.finish(), LONGEST_FETCH);
    }

    /// Gives a response to the store for so long: at once where the store need not wait, else in a
    /// task.
    pub(super) fn keep(
        self: &Arc<Self>,
        route: Option<Arc<Route>>,
        response: Arc<StoredResponse>,
        retain: Duration,
        captured: Captured,
        late: SmallVec<[Scope; 2]>,
        aboard: Aboard,
    ) {
        let engine = Arc::clone(self);
        aboard.land(&response, !late.is_empty());
        let length = response.body.len();
        let fill = Fill {
            namespace: self.options.namespace.clone(),
            retain,
            response,
            captured,
            late,
            tier: route.as_ref().and_then(|route| route.rule.tier),
            clock: self.options.clock.clone(),
        };
        let key = fill.response.key.clone();
        let span = tracing::debug_span!("cache_store", ?key);
        let store = async move {
            let kept = engine.taken(&key, engine.store.put(fill)).await;
            let counters = engine.counters(route.as_deref());
            match kept {
                Ok(Kept::Stored) => {
                    counters.stored(&key);
                    engine.metrics.body_stored(length);
                    aboard.stored();
                    return;
                }
                Ok(Kept::Invalidated) => counters.refused(Refusal::Invalidated, &key),
                Ok(Kept::TooLarge) => counters.refused(Refusal::BodyTooLarge, &key),
                Err(ref error) => {
                    tracing::debug!(%error, operation = "put", "store failed");
                    counters.refused(Refusal::StoreError, &key);
                    engine.metrics.store_failed();
                }
            }
            aboard.refused(&engine, matches!(kept, Ok(Kept::TooLarge)));
        };
        self.tasks.finish(store.instrument(span));
    }

    /// Waits for the store to take a response; where that takes time, look-ups of its key wait.
    async fn taken(
        &self,
        key: &PrimaryKey,
        mut put: BoxFuture<'_, Result<Kept, Error>>,
    ) -> Result<Kept, Error> {
        let mut being_stored = None;
        poll_fn(|cx| {
            let kept = put.as_mut().poll(cx);
            if kept.is_pending() && being_stored.is_none() {
                being_stored = Some(self.storing.begin(key.clone()));
            }
            kept
        })
        .await
    }
}

/// Whether a response of this age can answer others.
pub(super) fn is_of_use(terms: &Terms, age: Duration) -> bool {
    reuse::decide(terms, age, &RequestDirectives::default()) == Reuse::ServeFresh
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
