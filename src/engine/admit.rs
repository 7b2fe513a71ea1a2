//! Whether a response may be stored, and as what.

use std::time::Duration;

use http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, ETAG, EXPIRES, SET_COOKIE,
};
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use smallvec::SmallVec;

use super::{Engine, Exchange, respond};
use crate::entry::Variant;
use crate::entry::packing::pack;
use crate::epoch::Scope;
use crate::extension::Told;
use crate::key::PrimaryKey;
use crate::reason::Refusal;
use crate::rules::{ClientCaching, Lifetime, Policy, Route};
use crate::semantics::age;
use crate::semantics::freshness::{Basis, Reading, Terms};
use crate::semantics::groups;
use crate::semantics::grpc;
use crate::semantics::range::ContentRange;
use crate::semantics::storing::{Arrival, keep_dated, keep_storable};
use crate::semantics::targeted::Binding;
use crate::semantics::vary::Vary;

/// Tags that one response may carry, and the bytes of each: the store notes every tag of a
/// response, whoever chose them.
const MAX_TAGS: usize = 64;
const MAX_TAG_LENGTH: usize = 128;

/// Lines that a stored header section may have, however short they are: fewer than an entry of a
/// store can hold, and than a `HeaderMap` can.
const MAX_LINES: usize = 8 << 10;

/// For how long a stale response that can be validated is kept.
const VALIDATION_WINDOW: Duration = Duration::from_secs(3600);

/// A response that may be stored.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) key: PrimaryKey,
    pub(super) status: StatusCode,
    pub(super) fields: HeaderMap,
    pub(super) variant: Variant,
    pub(super) terms: Terms,
    /// Tags that only the response names.
    pub(super) late: SmallVec<[Scope; 2]>,
    pub(super) max_body: u64,
    /// How long it can be of use.
    pub(super) retain: Duration,
    /// Whether the cache gives it an entity-tag.
    pub(super) tag: bool,
}

impl Exchange {
    /// Decides whether a response with this head, and a body of at least so many bytes, may be
    /// stored. If so, adds to the head what the cache tells clients.
    ///
    /// # Errors
    ///
    /// Returns the first reason against it.
    pub(super) fn admit(
        &self,
        request: &HeaderMap,
        head: &mut Parts,
        least: u64,
        told: &Told,
        arrival: age::Exchange,
    ) -> Result<Admission, Refusal> {
        let policy = self.policy();
        if told.no_store {
            return Err(Refusal::Handler);
        }
        let binding = Binding::of(&head.headers, &policy.targeted_fields);
        let terms = self.terms(head, &binding, told, arrival);
        // Before the law: that a status has no lifetime would be true, and no help.
        self.guard_status(head, &terms)?;
        let vary = Vary::parse(&head.headers);
        Arrival {
            method: &self.method,
            authorized: self.facts.authorization,
            request: &self.facts.directives,
            status: head.status,
            headers: &head.headers,
            directives: &binding.directives,
            vary: &vary,
            terms: &terms,
            // A POST that does not is not asked about.
            names_target: self.method == Method::POST,
        }
        .may_store()?;
        self.guard(head, &binding, &vary)?;
        let max_body = self.refuse_large(head, least)?;
        let late = self.late_tags(&head.headers, told)?;

        let retain = self.retention(&head.headers, &terms);
        let tag = self.address_clients(head, &terms);
        let mut fields = respond::prepared(&head.headers);
        keep_storable(&mut fields, &binding.directives);
        pack(&mut fields);
        keep_dated(&mut fields, arrival.response_time);
        let variant = Variant::of(&head.headers, request, policy.normalise_vary);
        Ok(Admission {
            key: self.key_of(&fields),
            status: head.status,
            fields,
            variant,
            terms,
            late,
            max_body,
            retain,
            tag,
        })
    }

    /// Returns the key under which a response with these fields is stored.
    fn key_of(&self, fields: &HeaderMap) -> PrimaryKey {
        let exact = self.exact.as_ref().unwrap_or(&self.key);
        let canonical = self.engine.searches.learn(exact, fields);
        canonical.unwrap_or_else(|| exact.clone())
    }

    /// Reads the terms of reuse, with the lifetime that handler or rule assign where the response
    /// states none.
    fn terms(&self, head: &Parts, binding: &Binding, told: &Told, arrival: age::Exchange) -> Terms {
        let policy = self.policy();
        let reading = Reading {
            apparent_age: policy.apparent_age,
            ..Reading::default()
        };
        let mut terms = Terms::of(head.status, &head.headers, binding, arrival, reading);
        if terms.basis == Basis::Heuristic && !policy.heuristics {
            terms.basis = Basis::None;
            terms.lifetime = Duration::ZERO;
        }
        let rule = self.route.as_ref().map(|route| &route.rule);
        let overrides = told.cache_for.is_some() || rule.is_some_and(|rule| rule.override_origin);
        let assigned = told
            .cache_for
            .or_else(|| self.lifetime_by_rule(head.status));
        if let Some(lifetime) = assigned
            && (overrides || terms.basis != Basis::Explicit)
        {
            terms.lifetime = lifetime;
            terms.basis = Basis::Assigned;
        }
        if let Some(rule) = rule {
            terms.stale_while_revalidate =
                terms.stale_while_revalidate.or(rule.stale_while_revalidate);
            terms.stale_if_error = terms.stale_if_error.or(rule.stale_if_error);
        }
        terms
    }

    fn lifetime_by_rule(&self, status: StatusCode) -> Option<Duration> {
        let lifetime = match self.route.as_ref().map(|route| route.rule.lifetime) {
            Some(Lifetime::Ttl(lifetime)) => Some(lifetime),
            Some(_) => None,
            None => self.engine.options.default_ttl,
        };
        lifetime.filter(|_| self.stores_status(status))
    }

    /// Refuses statuses that rule and policy do not store, and parts that cannot be kept.
    fn guard_status(&self, head: &Parts, terms: &Terms) -> Result<(), Refusal> {
        let policy = self.policy();
        let fits = policy.store_any_status && terms.basis != Basis::Assigned
            || self.stores_status(head.status);
        match head.status {
            StatusCode::PARTIAL_CONTENT => {
                let kept = policy.store_partial && ContentRange::of_field(&head.headers).is_some();
                kept.then_some(()).ok_or(Refusal::Partial)
            }
            _ => fits.then_some(()).ok_or(Refusal::Status),
        }
    }

    /// Refuses what the law allows and applications regret: what is for one client alone, or is no
    /// response of one piece.
    fn guard(&self, head: &Parts, binding: &Binding, vary: &Vary) -> Result<(), Refusal> {
        let policy = self.policy();
        let headers = &head.headers;
        let declared_shared = binding.declares_shared();
        let refusals = [
            (is_event_stream(headers), Refusal::EventStream),
            (
                self.facts.is_grpc_unary() && !grpc::may_have_result(head.status, headers),
                Refusal::Grpc,
            ),
            (
                !policy.store_set_cookie && headers.contains_key(SET_COOKIE),
                Refusal::SetCookie,
            ),
            (
                self.facts.cookie && !policy.shared_despite_cookies && !declared_shared,
                Refusal::Cookie,
            ),
            (
                self.facts.cookie && !policy.shared_despite_cookies && names(vary, &COOKIE),
                Refusal::VaryCookie,
            ),
        ];
        match refusals.iter().find(|(applies, _)| *applies) {
            Some((_, refusal)) => Err(*refusal),
            None => Ok(()),
        }
    }

    fn stores_status(&self, status: StatusCode) -> bool {
        match &self.route {
            Some(route) => route.rule.stores(status),
            None => matches!(status.as_u16(), 200 | 203 | 204 | 301 | 308),
        }
    }

    /// Refuses heads, and bodies of known length, over the limits; returns the body's limit.
    fn refuse_large(&self, head: &Parts, least: u64) -> Result<u64, Refusal> {
        let route = self.route.as_deref();
        if !self.engine.takes_fields(route, &head.headers) {
            return Err(Refusal::FieldsTooLarge);
        }
        let max_body = route
            .and_then(|route| route.rule.max_body)
            .unwrap_or(self.engine.options.max_body);
        if announced_length(&head.headers).unwrap_or(least).max(least) > max_body {
            return Err(Refusal::BodyTooLarge);
        }
        Ok(max_body)
    }

    /// Returns how long from its arrival a response can be of use: while it is fresh, in its stale
    /// windows, while it may stand in for the handler, and, if the handler can confirm it, a while
    /// longer.
    fn retention(&self, headers: &HeaderMap, terms: &Terms) -> Duration {
        let validates = headers.contains_key(ETAG) || terms.last_modified.is_some();
        let windows = [
            terms.stale_while_revalidate,
            terms.stale_if_error,
            Some(self.leniency().unreachable),
            (validates && self.validates()).then_some(VALIDATION_WINDOW),
        ];
        let window = windows.into_iter().flatten().max().unwrap_or_default();
        terms
            .lifetime
            .saturating_sub(terms.initial_age)
            .saturating_add(window)
    }

    /// Returns the scopes of the tags that the handler and, where the rule trusts them, the
    /// response's fields name; and those of its groups, of which there are 32 at most.
    fn late_tags(&self, headers: &HeaderMap, told: &Told) -> Result<SmallVec<[Scope; 2]>, Refusal> {
        let groups;
        let mut tags: SmallVec<[&[u8]; 4]> = told.tags.iter().map(String::as_bytes).collect();
        if self
            .route
            .as_ref()
            .is_some_and(|route| route.rule.response_tags)
        {
            tags.extend(listed(headers, &CACHE_TAG, b','));
            tags.extend(listed(headers, &SURROGATE_KEY, b' '));
            groups = groups::of_response(headers);
            tags.extend(groups.iter().map(String::as_bytes));
        }
        let fits = |tag: &&[u8]| (1..=MAX_TAG_LENGTH).contains(&tag.len());
        let by_rule = self.tags.ok_or(Refusal::Tags)?;
        if tags.len().saturating_add(by_rule) > MAX_TAGS || !tags.iter().all(fits) {
            return Err(Refusal::Tags);
        }
        let namespace = self.engine.options.namespace.as_str();
        let origin = self.key.origin();
        let in_groups = groups::of_response(headers);
        let in_groups = in_groups
            .iter()
            .map(|group| Scope::group(namespace, origin, group));
        let tags = tags.into_iter().map(|tag| Scope::tag(namespace, tag));
        Ok(tags.chain(in_groups).collect())
    }

    /// Tells clients how to hold a response that only rule or handler call cacheable: to ask every
    /// time, so that an invalidation reaches them. Returns whether the cache is to tag it.
    fn address_clients(&self, head: &mut Parts, terms: &Terms) -> bool {
        let headers = &mut head.headers;
        let Some(control) = self
            .client_control()
            .filter(|_| terms.basis == Basis::Assigned && !self.facts.is_grpc_unary())
        else {
            return false;
        };
        if !headers.contains_key(CACHE_CONTROL) && !headers.contains_key(EXPIRES) {
            headers.insert(CACHE_CONTROL, control);
        }
        let validates = headers.contains_key(ETAG) || terms.last_modified.is_some();
        head.status == StatusCode::OK && !validates
    }

    /// Returns the `Cache-Control` of a response that only rule or handler call cacheable.
    pub(super) fn client_control(&self) -> Option<HeaderValue> {
        match self
            .route
            .as_ref()
            .map(|route| route.rule.client)
            .unwrap_or_default()
        {
            ClientCaching::Validate => Some(HeaderValue::from_static("no-cache")),
            ClientCaching::MaxAge(age) => Some(max_age(age)),
            ClientCaching::Untouched => None,
        }
    }

    /// Whether the handler may be asked if a stored response still holds.
    pub(super) fn validates(&self) -> bool {
        self.policy().validate && !self.facts.is_grpc_unary()
    }

    pub(super) fn policy(&self) -> &Policy {
        self.engine.policy(self.route.as_deref())
    }
}

impl Engine {
    /// Whether a section of fields is within the limits.
    pub(super) fn takes_fields(&self, route: Option<&Route>, fields: &HeaderMap) -> bool {
        let limit = route.and_then(|route| route.rule.max_fields);
        let limit = limit.map_or(self.options.max_fields, |limit| {
            usize::try_from(limit).unwrap_or(usize::MAX)
        });
        fields.len() <= MAX_LINES && section_length(fields) <= limit
    }
}

const CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");
const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");

fn listed<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    separator: u8,
) -> impl Iterator<Item = &'a [u8]> {
    headers
        .get_all(name)
        .iter()
        .flat_map(move |line| line.as_bytes().split(move |byte| *byte == separator))
        .map(<[u8]>::trim_ascii)
        .filter(|tag| !tag.is_empty())
}

/// Returns the length of a header section as HTTP/1.1 writes it.
fn section_length(headers: &HeaderMap) -> usize {
    const COLON_BLANK_CRLF: usize = 4;
    let line = |(name, value): (&HeaderName, &HeaderValue)| {
        name.as_str().len() + value.len() + COLON_BLANK_CRLF
    };
    headers.iter().map(line).sum()
}

fn names(vary: &Vary, name: &HeaderName) -> bool {
    vary.fields().is_some_and(|fields| fields.contains(name))
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    const EVENT_STREAM: &[u8] = b"text/event-stream";
    let essence = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.as_bytes().get(..EVENT_STREAM.len()));
    essence.is_some_and(|essence| essence.eq_ignore_ascii_case(EVENT_STREAM))
}

pub(super) fn announced_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn max_age(age: Duration) -> HeaderValue {
    HeaderValue::try_from(format!("max-age={}", age.as_secs()))
        .expect("digits and letters are visible ASCII")
}
