//! A request that goes to the handler, and what to do with what comes back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, DATE, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    LAST_MODIFIED, RANGE,
};
use http::response::Parts;
use http::{HeaderMap, Request, Response, StatusCode};
use smallvec::SmallVec;

use super::admit::Admission;
use super::collapse::Lead;
use super::fill::{self, Aboard};
use super::interim::Listener;
use super::refresh::Refreshing;
use super::respond::{self, Content, Held};
use super::{Engine, Exchange, Recorder, partial, refresh};
use crate::entry::{StoredResponse, Tagged};
use crate::epoch::{Captured, Scope, ScopeKind};
use crate::extension::Told;
use crate::reason::{Miss, Refusal};
use crate::rules::Rule;
use crate::semantics::age;
use crate::semantics::cache_status::{Fwd, Handling};
use crate::semantics::date::HttpDate;
use crate::semantics::freshness::Basis;
use crate::semantics::reuse::{self, AfterFailure, Failure, Leniency};
use crate::semantics::validation::{self, AfterHead, Nominee, NotModified};

/// Stored responses that the handler is asked about; usually none or one.
pub(super) type Nominated = SmallVec<[Arc<StoredResponse>; 1]>;

/// A request on its way to the handler.
#[derive(Debug)]
pub(crate) struct Forward {
    pub(super) exchange: Box<Exchange>,
    pub(super) why: Miss,
    /// What the request selected, to fall back on should the handler fail.
    pub(super) selected: Option<Arc<StoredResponse>>,
    /// What the handler is asked to confirm.
    pub(super) nominated: Nominated,
    /// A stored part that lacks what is wanted.
    pub(super) part: Option<Arc<StoredResponse>>,
    /// Whether the handler is asked for the rest of it alone.
    completing: bool,
    /// Without it nothing is stored.
    pub(super) captured: Option<Captured>,
    /// Others wait for what the handler says.
    pub(super) lead: Option<Lead>,
    /// Its client hears the interim responses to the request that it leads or waits for.
    pub(super) listener: Option<Listener>,
    /// Its client has been answered.
    pub(super) refreshing: Option<Refreshing>,
    /// Whether it shares another's answer, or tried to.
    pub(super) collapsed: Option<bool>,
    /// The request's fields as the client sent them.
    pub(super) client: HeaderMap,
    sent: Instant,
}

/// What to do with a response that the handler gave.
#[derive(Debug)]
pub(crate) enum Arrived<R> {
    /// Answer this in its stead.
    Answer(Response<Content>),
    /// Forward this request, which asks for nothing but what the client wants.
    Again(Box<Forward>, R),
    /// Pass it on, behind what is stored of it.
    Pass(Option<Bytes>),
    /// Pass it on, behind what is stored of it, and record all.
    Record(Recorder, Option<Bytes>),
}

impl Forward {
    pub(super) fn new(
        exchange: Box<Exchange>,
        why: Miss,
        mut nominated: Nominated,
        part: Option<Arc<StoredResponse>>,
        captured: Option<Captured>,
    ) -> Self {
        let selected = nominated.first().filter(|_| why != Miss::Variant);
        let selected = selected.map(Arc::clone);
        let validates = exchange.validates();
        nominated.retain(|stored| validates && nominee(stored, why).is_some());
        Self {
            part,
            selected,
            completing: false,
            sent: exchange.started,
            collapsed: exchange.alone.then_some(false),
            exchange,
            why,
            nominated,
            captured,
            lead: None,
            listener: None,
            refreshing: None,
            client: HeaderMap::new(),
        }
    }

    /// Whether the request is to ask what the cache wants to know, so that the answer may not be
    /// one for the client.
    pub(crate) fn has_questions(&self) -> bool {
        !self.nominated.is_empty() || self.part.is_some()
    }

    /// Makes the request ask what the cache wants to know, and notes when it is sent. Only one that
    /// can be repeated asks what may not be answered in a way that can be trusted.
    pub(crate) fn prepare(&mut self, request: &mut HeaderMap, repeatable: bool) {
        self.client = request.clone();
        if !repeatable {
            self.ask_about_one(request);
        }
        let nominees = nominees(&self.nominated, self.why);
        let part = self.part.as_ref().filter(|_| repeatable);
        if let Some(rest) = part.and_then(|part| partial::rest(part, request)) {
            self.completing = true;
            request.insert(RANGE, rest.range);
            request.extend(rest.if_range.map(|validator| (IF_RANGE, validator)));
        } else if nominees.is_empty() {
            self.ask_for_all(request);
        } else {
            validation::conditional(request, &nominees);
        }
        self.sent = self.exchange.engine.options.clock.now();
    }

    /// Has the handler confirm one stored response alone, and nothing that the client has: a 304
    /// need not say what it is about.
    fn ask_about_one(&mut self, request: &mut HeaderMap) {
        let latest = self
            .nominated
            .drain(..)
            .max_by_key(|stored| stored.terms.date);
        if let Some(latest) = latest {
            request.remove(IF_NONE_MATCH);
            self.nominated.push(latest);
        }
    }

    /// Takes out of the request what is its sender's alone, so that anybody may have the answer.
    pub(crate) fn anonymise<B>(&mut self, request: &mut Request<B>) {
        let Exchange {
            engine,
            route,
            facts,
            ..
        } = &mut *self.exchange;
        let spec = engine.key_spec(route.as_deref());
        refresh::anonymise(request.headers_mut(), spec);
        facts.forget_wishes();
        let without = &engine.options.refresh_without;
        if !without.is_empty() {
            // Else its extensions may still tell the handler who asks.
            facts.forget_identity(request.headers());
        }
        for remove in without {
            remove(request.extensions_mut());
        }
    }

    /// Whether others wait for the answer.
    pub(crate) fn is_awaited(&self) -> bool {
        self.lead.is_some()
    }

    /// Returns the cache that forwards.
    pub(crate) fn engine(&self) -> Arc<Engine> {
        Arc::clone(&self.exchange.engine)
    }

    /// Decides what becomes of the handler's response, whose body has at least so many bytes, and
    /// adds to its head what the cache says. `again` is the client's request once more, if it can
    /// be repeated.
    pub(crate) fn arrived<R>(
        mut self: Box<Self>,
        head: &mut Parts,
        least: u64,
        again: Option<R>,
    ) -> Arrived<R> {
        let told = Told::take(&mut head.extensions);
        let options = &self.exchange.engine.options;
        let now = options.clock.now();
        self.exchange
            .counters()
            .forwarded(now - self.exchange.started);
        let arrival = age::Exchange {
            response_time: HttpDate::from(options.clock.wall()),
            delay: now - self.sent,
        };
        if head.status == StatusCode::NOT_MODIFIED {
            return self.confirmed(head, &told, arrival, again);
        }
        if let Some(response) = self.excused(Failure::Status(head.status)) {
            return Arrived::Answer(response);
        }
        self.judge_by_head(head, &told, arrival);
        let mut completed = None;
        if self.completing && is_about_range(head.status) {
            match (self.part.take(), again) {
                (Some(part), _) if partial::completes(&part, head) => completed = Some(part),
                (part, Some(request)) => return self.contradicted(part, request),
                (_, None) => {}
            }
        }
        let status = completed.is_some().then_some(StatusCode::PARTIAL_CONTENT);
        let prefix = completed.as_ref().map(|part| part.body.clone());
        let admitted = match self.exchange.facts.head {
            true => Err(Refusal::Method),
            false => self
                .exchange
                .admit(&self.client, head, least, &told, arrival),
        };
        let captured = self.captured.take();
        let refusal = match admitted {
            // What the store cannot take others can still share.
            Ok(mut admission) if captured.is_some() || self.lead.is_some() => {
                admission
                    .late
                    .extend(completed.iter().flat_map(|part| tags_of(part)));
                if !head.headers.contains_key(DATE)
                    && let Some(date) = admission.fields.get(DATE)
                {
                    head.headers.insert(DATE, date.clone());
                }
                self.drop_former(&admission);
                let detail = match captured {
                    Some(_) => self.detail(),
                    None => self.detail().or(Some(Refusal::StoreError.as_str())),
                };
                self.sign(head, status, captured.is_some(), detail);
                return Arrived::Record(Recorder::new(*self, admission, captured), prefix);
            }
            Ok(_) => Refusal::StoreError,
            Err(refusal) => {
                self.drop_replaced(head.status, refusal);
                refusal
            }
        };
        self.exchange
            .counters()
            .refused(refusal, &self.exchange.key);
        self.refuse_others(head.status, refusal);
        let detail = self.detail().unwrap_or(refusal.as_str());
        self.sign(head, status, false, Some(detail));
        Arrived::Pass(prefix)
    }

    /// Drops what the request selected before, if what comes now is the resource's new answer though
    /// it cannot be stored (RFC 9111 §4.3.3).
    fn drop_replaced(&mut self, status: StatusCode, refusal: Refusal) {
        let tells_of_resource = status.is_success()
            || status.is_redirection()
            || matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE);
        let facts = &self.exchange.facts;
        if tells_of_resource
            && !is_about_range(status)
            && !(facts.head || facts.range || concerns_requester(refusal))
            && let Some(former) = self.selected.take()
        {
            self.exchange.engine.discard(&former);
        }
    }

    /// Drops what the request selected before, if what comes now answers other requests: a resource
    /// that has changed its `Vary` or `No-Vary-Search` would else go on selecting the old one.
    fn drop_former(&self, admission: &Admission) {
        if let Some(former) = &self.selected
            && (former.variant != admission.variant || former.key != admission.key)
        {
            self.exchange.engine.discard(former);
        }
    }

    /// Returns an answer in place of the handler's error, if there is one.
    pub(crate) fn failed(&self) -> Option<Response<Content>> {
        self.excused(Failure::Unreachable)
    }

    /// A rule's lifetime is for the whole response: what the client already has does not matter
    /// to the handler, it is compared with what will be stored.
    fn ask_for_all(&self, request: &mut HeaderMap) {
        if self.asks_for_all() {
            request.remove(IF_NONE_MATCH);
            request.remove(IF_MODIFIED_SINCE);
        }
    }

    /// Renews what an answer to HEAD confirms, and drops what it shows to be of yesterday
    /// (RFC 9111 §4.3.5).
    fn judge_by_head(&mut self, head: &Parts, told: &Told, arrival: age::Exchange) {
        let Some(stored) = self.selected.take_if(|_| self.exchange.facts.head) else {
            return;
        };
        let length = u64::try_from(stored.body.len()).unwrap_or(u64::MAX);
        match validation::after_head(&stored.fields, length, head.status, &head.headers) {
            AfterHead::Freshen => drop(self.renew(&stored, head, told, arrival)),
            AfterHead::Expire => self.exchange.engine.discard(&stored),
            AfterHead::Keep => {}
        }
    }

    /// Answers a 304 (RFC 9111 §4.3.3, §4.3.4).
    fn confirmed<R>(
        mut self: Box<Self>,
        head: &mut Parts,
        told: &Told,
        arrival: age::Exchange,
        again: Option<R>,
    ) -> Arrived<R> {
        let nominees = nominees(&self.nominated, self.why);
        // What cannot be repeated asked about nothing that the client has.
        let nothing = HeaderMap::new();
        let client = match again {
            Some(_) => &self.client,
            None => &nothing,
        };
        let subject = validation::identify(&head.headers, &nominees, client);
        drop(nominees);
        match (subject, self.nominated.first(), again) {
            (NotModified::Nominee(place), ..) if place < self.nominated.len() => {
                let stored = self.nominated.swap_remove(place);
                Arrived::Answer(self.freshened(&stored, head, told, arrival))
            }
            (NotModified::Client, ..) | (_, None, _) => {
                self.ground(false);
                self.sign(head, None, false, self.detail());
                Arrived::Pass(None)
            }
            (_, Some(_), Some(request)) => self.contradicted(None, request),
            (_, Some(stored), None) => Arrived::Answer(self.taken_for(stored)),
        }
    }

    /// Answers with the only stored response that the handler was asked about, where its 304 names
    /// another: it was confirmed, but nothing that is said of the other is true of it.
    fn taken_for(&self, stored: &Arc<StoredResponse>) -> Response<Content> {
        self.exchange.engine.discard(stored);
        self.answer_with(stored, Some(StatusCode::NOT_MODIFIED), self.detail())
    }

    /// Goes on where the handler confirmed what it was not asked about, or sent another part than
    /// it was asked for: what was stored goes, and the request is sent again without questions.
    fn contradicted<R>(
        mut self: Box<Self>,
        part: Option<Arc<StoredResponse>>,
        again: R,
    ) -> Arrived<R> {
        for stored in self.nominated.drain(..).chain(part) {
            self.exchange.engine.discard(&stored);
        }
        self.completing = false;
        Arrived::Again(self, again)
    }

    /// Renews a stored response by a 304 and answers with it.
    fn freshened(
        mut self,
        stored: &Arc<StoredResponse>,
        not_modified: &Parts,
        told: &Told,
        arrival: age::Exchange,
    ) -> Response<Content> {
        let renewed = self.renew(stored, not_modified, told, arrival);
        self.answer_with(&renewed, Some(StatusCode::NOT_MODIFIED), self.detail())
    }

    /// Returns a stored response with what the handler's answer says of it, and stores it so.
    fn renew(
        &mut self,
        stored: &Arc<StoredResponse>,
        answer: &Parts,
        told: &Told,
        arrival: age::Exchange,
    ) -> Arc<StoredResponse> {
        let exchange = &self.exchange;
        let (mut head, ()) = Response::new(()).into_parts();
        head.status = stored.status;
        head.headers = validation::freshen(&stored.fields, &answer.headers);
        exchange.forget_own_control(stored, &answer.headers, &mut head.headers);
        let mut renewed = StoredResponse {
            fields: head.headers.clone(),
            received: exchange.engine.options.clock.now(),
            ..StoredResponse::clone(stored)
        };
        let admission = match exchange.admit(&self.client, &mut head, 0, told, arrival) {
            Ok(admission) => admission,
            Err(refusal) => {
                exchange.counters().refused(refusal, &exchange.key);
                if !concerns_requester(refusal) {
                    exchange.engine.discard(stored);
                }
                self.refuse_others(renewed.status, refusal);
                return Arc::new(renewed);
            }
        };
        renewed.key = admission.key;
        renewed.fields = admission.fields;
        renewed.terms = admission.terms;
        renewed.variant = admission.variant;
        let renewed = Arc::new(renewed);
        exchange.counters().revalidated();
        if !fill::is_of_use(&renewed.terms, renewed.terms.age(Duration::ZERO)) {
            self.ground(true);
        }
        let exchange = &self.exchange;
        let aboard = Aboard::new(self.lead.take(), self.refreshing.take());
        match self.captured.take() {
            Some(captured) => {
                let mut late = admission.late;
                // The answer need not repeat the tags that the handler gave the content.
                late.extend(tags_of(stored));
                exchange.engine.keep(
                    exchange.route.clone(),
                    Arc::clone(&renewed),
                    admission.retain,
                    captured,
                    late,
                    aboard,
                );
            }
            None => aboard.land(&renewed, false),
        }
        renewed
    }

    /// Answers from what is stored though the handler has failed, or says that there is no answer
    /// where nothing may be served unvalidated (RFC 9111 §4.2.4).
    fn excused(&self, failure: Failure) -> Option<Response<Content>> {
        self.stale(failure).or_else(|| {
            (self.after(failure)? == AfterFailure::GatewayTimeout)
                .then(|| respond::gateway_timeout("the response cannot be validated now\n"))
        })
    }

    /// Answers from what is stored though the handler has failed.
    pub(super) fn stale(&self, failure: Failure) -> Option<Response<Content>> {
        let AfterFailure::ServeStale(allowance) = self.after(failure)? else {
            return None;
        };
        let status = match failure {
            Failure::Status(status) => Some(status),
            Failure::Unreachable => None,
        };
        let stored = self.selected.as_ref()?;
        let mut response = self.answer_with(stored, status, Some(allowance.as_str()));
        // Only a validated response has the fields that `no-cache` names (RFC 9111 §5.2.2.4).
        for name in &stored.terms.omitted {
            response.headers_mut().remove(name);
        }
        Some(response)
    }

    fn after(&self, failure: Failure) -> Option<AfterFailure> {
        let stored = self.selected.as_ref()?;
        let exchange = &self.exchange;
        let age = stored.age(exchange.engine.options.clock.now());
        let directives = &exchange.facts.directives;
        let leniency = exchange.leniency();
        Some(reuse::after_failure(
            &stored.terms,
            age,
            directives,
            failure,
            leniency,
        ))
    }

    pub(super) fn rule(&self) -> Option<&Rule> {
        self.exchange.route.as_ref().map(|route| &route.rule)
    }

    fn answer_with(
        &self,
        stored: &StoredResponse,
        status: Option<StatusCode>,
        detail: Option<&str>,
    ) -> Response<Content> {
        let exchange = &self.exchange;
        let engine = &exchange.engine;
        let age = stored.age(engine.options.clock.now());
        let mut response = respond::represent(
            engine,
            &mut Held::Shared(stored),
            &self.client,
            &exchange.facts,
        );
        respond::state_age(response.headers_mut(), age);
        let ttl = Some(stored.terms.remaining(age));
        engine.sign(
            response.headers_mut(),
            Some(&stored.key),
            self.handling(status, false),
            ttl,
            detail,
        );
        response
    }

    fn sign(
        &self,
        head: &mut Parts,
        status: Option<StatusCode>,
        stored: bool,
        detail: Option<&str>,
    ) {
        let handling = self.handling(status, stored);
        let Exchange { engine, key, .. } = &*self.exchange;
        engine.sign(&mut head.headers, Some(key), handling, None, detail);
    }

    pub(super) fn handling(&self, status: Option<StatusCode>, stored: bool) -> Handling {
        Handling::Forwarded {
            why: fwd(self.why),
            status,
            stored,
            collapsed: self.collapsed,
        }
    }

    pub(super) fn detail(&self) -> Option<&'static str> {
        detail(self.why)
    }
}

impl Exchange {
    /// Takes out the `Cache-Control` that the cache itself put into a response cached by rule, so
    /// that it is not taken for the origin's word.
    fn forget_own_control(
        &self,
        stored: &StoredResponse,
        answer: &HeaderMap,
        fields: &mut HeaderMap,
    ) {
        let own = self.client_control();
        // The origin's own `no-cache` has made it one that is always validated.
        if stored.terms.basis == Basis::Assigned
            && !stored.terms.validate_always
            && !answer.contains_key(CACHE_CONTROL)
            && fields.get_all(CACHE_CONTROL).iter().eq(&own)
        {
            fields.remove(CACHE_CONTROL);
        }
    }

    pub(super) fn leniency(&self) -> Leniency {
        const LONGEST: Duration = Duration::from_secs(24 * 3600);
        let limit = match self.policy().stale_on_disconnect {
            true => LONGEST,
            false => Duration::ZERO,
        };
        Leniency {
            unreachable: limit,
            unavailable: limit,
        }
    }
}

fn nominees(nominated: &[Arc<StoredResponse>], why: Miss) -> SmallVec<[Nominee<'_>; 1]> {
    let nominees = nominated.iter();
    nominees.filter_map(|stored| nominee(stored, why)).collect()
}

/// Returns a stored response as one the handler can be asked about: by validators of its own.
fn nominee(stored: &StoredResponse, why: Miss) -> Option<Nominee<'_>> {
    let etag = stored.etag().filter(|_| stored.tagged == Tagged::ByOrigin);
    let nominee = Nominee::new(
        stored.status,
        etag,
        stored.fields.get(LAST_MODIFIED),
        stored.terms.date,
    )?;
    match why {
        // Many handlers have one tag for all codings, of which the client may not accept each.
        Miss::Variant if stored.fields.contains_key(CONTENT_ENCODING) => None,
        Miss::Variant => nominee.of_other_variant(),
        _ => Some(nominee),
    }
}

/// Returns the tags that a stored response stands under.
pub(super) fn tags_of(stored: &StoredResponse) -> impl Iterator<Item = Scope> + '_ {
    stored
        .stamp
        .iter()
        .map(|(scope, _)| scope)
        .filter(|scope| scope.kind() == ScopeKind::Tag)
}

/// Whether a response tells of a range that was asked for.
fn is_about_range(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE
    )
}

/// Whether a refusal says nothing against the response, only that this request's is not stored.
pub(super) fn concerns_requester(refusal: Refusal) -> bool {
    use Refusal::{Authorization, Cookie, RequestNoStore, VaryCookie};
    matches!(
        refusal,
        Authorization | Cookie | RequestNoStore | VaryCookie
    )
}

/// Returns how `Cache-Status` says it (RFC 9211 §2.2).
pub(super) fn fwd(why: Miss) -> Fwd {
    match why {
        Miss::Absent => Fwd::UriMiss,
        Miss::Variant => Fwd::VaryMiss,
        Miss::Stale | Miss::NoCache => Fwd::Stale,
        Miss::Request | Miss::Cookie | Miss::Authorization => Fwd::Request,
        Miss::Method => Fwd::Method,
        Miss::Partial => Fwd::Partial,
        Miss::Invalidated
        | Miss::Damaged
        | Miss::StoreUnavailable
        | Miss::StoreTimeout
        | Miss::StoreError => Fwd::Miss,
    }
}

/// Returns what `fwd` alone does not say.
pub(super) fn detail(why: Miss) -> Option<&'static str> {
    match why {
        Miss::Absent
        | Miss::Variant
        | Miss::Stale
        | Miss::Request
        | Miss::Partial
        | Miss::Method => None,
        _ => Some(why.as_str()),
    }
}
