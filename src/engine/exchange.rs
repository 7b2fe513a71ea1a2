//! One request through the cache, until it is answered or forwarded.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, Method, Request, Response, StatusCode};
use smallvec::SmallVec;

use super::budget::Budget;
use super::decide::{self, Decision, Service};
use super::forward::{Forward, Nominated};
use super::request::Facts;
use super::respond::{self, Content, Held};
use super::{Engine, Following, refresh};
use crate::entry::StoredResponse;
use crate::epoch::{Captured, Scope};
use crate::extension::OnInterim;
use crate::key::{PrimaryKey, decoded_path};
use crate::metrics;
use crate::reason::Miss;
use crate::rules::{Match, Route};
use crate::semantics::targeted::Binding;
use crate::semantics::vary::Nominated as VariantFields;
use crate::store::{Found, Outcome};

/// A request that the cache has taken up.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    pub(super) engine: Arc<Engine>,
    pub(super) route: Option<Arc<Route>>,
    pub(super) method: Method,
    pub(super) facts: Facts,
    pub(super) key: PrimaryKey,
    /// The key with the query as it stands, where `key` stands for others too.
    pub(super) exact: Option<PrimaryKey>,
    /// The scopes that the request determines.
    pub(super) scopes: SmallVec<[Scope; 4]>,
    /// How many of them are tags; `None` if the path makes one that is too long.
    pub(super) tags: Option<usize>,
    pub(super) started: Instant,
    /// It has waited for another's answer, and does not wait again.
    pub(super) alone: bool,
    /// What it holds in the fields that tell it apart from one it has waited for.
    pub(super) variant: Option<VariantFields>,
    /// Whether chance has chosen it to refresh what is still fresh.
    pub(super) ahead: bool,
    /// Whether the store had to be waited for.
    pub(super) waited: bool,
    /// How long it may wait for the store yet.
    pub(super) budget: Budget,
    /// What the store could tell at once.
    pub(super) peeked: Option<Found>,
    /// Hears the interim responses for its client.
    pub(super) on_interim: Option<OnInterim>,
}

/// What to do next about an exchange.
#[derive(Debug)]
pub(crate) enum Step {
    /// Answer this.
    Answer(Response<Content>),
    /// Answer this, and forward the request in the background.
    Refresh(Response<Content>, Box<Forward>),
    /// Forward the request.
    Forward(Box<Forward>),
    /// [Wait](Forward::follow) for the answer to another request.
    Follow(Box<Forward>, Following),
}

impl Exchange {
    pub(super) fn new<B>(
        engine: &Arc<Engine>,
        request: &Request<B>,
        matched: Option<&Match<'_, '_>>,
        facts: Facts,
        key: PrimaryKey,
        started: Instant,
        peeked: Option<Found>,
    ) -> Self {
        let namespace = engine.options.namespace.as_str();
        let path = decoded_path(request.uri().path());
        let mut scopes = SmallVec::from_slice(&[engine.everything, Scope::path(namespace, &path)]);
        let mut tags = Some(0);
        if let Some(matched) = matched {
            scopes.extend(engine.routes.get(matched.route.index).copied());
            tags = matched.tags().ok().map(|tags| {
                scopes.extend(tags.iter().map(|tag| Scope::tag(namespace, tag.as_bytes())));
                tags.len()
            });
        }
        Self {
            engine: Arc::clone(engine),
            route: matched.map(|matched| Arc::clone(matched.route)),
            method: request.method().clone(),
            facts,
            key,
            exact: None,
            scopes,
            tags,
            started,
            alone: false,
            variant: None,
            ahead: false,
            waited: false,
            budget: Budget::new(engine.options.store_wait),
            peeked,
            on_interim: request.extensions().get().cloned(),
        }
    }

    /// Returns the key under which the response is looked for.
    pub(crate) fn key(&self) -> &PrimaryKey {
        &self.key
    }

    /// Asks the store where that is still to be done, and decides.
    pub(crate) async fn resolve(mut self: Box<Self>, request: &HeaderMap) -> Step {
        let found = match self.look_up(request).await {
            Ok(found) => found,
            // A store that fails to find would fail to keep: no second wait.
            Err(why) => return self.forward(why, Nominated::new(), None, None, request),
        };
        let (why, nominated) = match found.outcome {
            Outcome::Response(mut stored) => match self.judge(&stored, request) {
                Decision::Serve(service) => {
                    let stored = match Arc::get_mut(&mut stored) {
                        Some(own) => Held::Last(own),
                        None => Held::Shared(&stored),
                    };
                    let response = self.serve(stored, request, service, found.tier);
                    return Step::Answer(response);
                }
                Decision::ServeAndRefresh(service) => {
                    let shared = Held::Shared(&stored);
                    let response = self.serve(shared, request, service, found.tier);
                    return self.refresh(response, stored, found.captured, request);
                }
                Decision::Complete => {
                    let captured = self.captured(found.captured).await;
                    let part = Some(stored);
                    return self.forward(Miss::Partial, Nominated::new(), part, captured, request);
                }
                Decision::Validate(why) => (why, Nominated::from_elem(stored, 1)),
                Decision::Forward(why) => (why, Nominated::new()),
            },
            Outcome::OtherVariants(others) => {
                // Who confirms a part would confirm it to one who asked for all.
                let whole =
                    |other: &Arc<StoredResponse>| other.status != StatusCode::PARTIAL_CONTENT;
                (Miss::Variant, others.into_iter().filter(whole).collect())
            }
            Outcome::Invalidated => (Miss::Invalidated, Nominated::new()),
            Outcome::Damaged => (Miss::Damaged, Nominated::new()),
            Outcome::Unreachable(error) => (self.not_found(&error), Nominated::new()),
            Outcome::Absent => (Miss::Absent, Nominated::new()),
        };
        let captured = self.captured(found.captured).await;
        self.forward(why, nominated, None, captured, request)
    }

    /// Answers from what has come into the store since it was asked, if that is seen at once.
    pub(super) fn look_again(&self, request: &HeaderMap) -> Option<Response<Content>> {
        let found = self
            .engine
            .glance(&self.key, request, self.route.as_deref())?;
        let Outcome::Response(stored) = found.outcome else {
            return None;
        };
        let Decision::Serve(service) = self.judge(&stored, request) else {
            return None;
        };
        Some(self.serve(Held::Shared(&stored), request, service, found.tier))
    }

    fn judge(&self, stored: &StoredResponse, request: &HeaderMap) -> Decision {
        let age = stored.age(self.engine.options.clock.now());
        let decision = decide::on_stored(
            &self.engine,
            stored,
            age,
            request,
            &self.facts,
            self.policy(),
        );
        match (decision, self.ahead) {
            (Decision::Serve(Service::Fresh), true) => Decision::ServeAndRefresh(Service::Fresh),
            _ => decision.or_ahead(self.route.as_deref(), stored, age),
        }
    }

    fn serve(
        &self,
        stored: Held<'_>,
        request: &HeaderMap,
        service: Service,
        tier: Option<&'static str>,
    ) -> Response<Content> {
        let (engine, now) = (&self.engine, self.engine.options.clock.now());
        let response =
            respond::from_store(engine, stored, request, &self.facts, service, tier, now);
        engine.metrics.found_in(tier);
        self.counters()
            .hit(service.is_stale(), &self.key, || now - self.started);
        self.engine.metrics.body_served(response.body().len());
        response
    }

    /// Answers at once, and forwards the request behind the answer unless another one does so, or it
    /// would be of no use.
    fn refresh(
        mut self: Box<Self>,
        response: Response<Content>,
        stored: Arc<StoredResponse>,
        captured: Option<Captured>,
        request: &HeaderMap,
    ) -> Step {
        let refreshing = match self.may_refresh(&stored, request) {
            true => self.engine.refreshes.begin(&self.key),
            false => None,
        };
        let Some(refreshing) = refreshing else {
            return Step::Answer(response);
        };
        // Nobody waits with it.
        self.budget = Budget::new(self.engine.options.store_wait);
        let nominated = Nominated::from_elem(stored, 1);
        let mut forward = Forward::new(self, Miss::Stale, nominated, None, captured);
        forward.refreshing = Some(refreshing.departed());
        Step::Refresh(response, Box::new(forward))
    }

    /// Whether this request, without what is its sender's alone, could renew what it was answered
    /// with, and its client does not forbid that.
    fn may_refresh(&self, stored: &StoredResponse, request: &HeaderMap) -> bool {
        let (facts, policy) = (&self.facts, self.policy());
        let directives = &facts.directives;
        // An answer to HEAD could renew nothing.
        if facts.head || directives.only_if_cached || directives.no_store {
            return false;
        }
        let shows_identity = facts.authorization || facts.cookie && !policy.shared_despite_cookies;
        if shows_identity && self.engine.options.refresh_without.is_empty() {
            // The handler may know it from the extensions; only what says that it is for all may
            // be stored, whoever has asked for it.
            let binding = Binding::of(&stored.fields, &policy.targeted_fields);
            if !binding.declares_shared() {
                return false;
            }
        }
        let spec = self.engine.key_spec(self.route.as_deref());
        refresh::is_for_others(stored, request, spec)
    }

    fn forward(
        self: Box<Self>,
        why: Miss,
        nominated: Nominated,
        part: Option<Arc<StoredResponse>>,
        captured: Option<Captured>,
        request: &HeaderMap,
    ) -> Step {
        if self.facts.directives.only_if_cached {
            self.counters().missed(why, &self.key);
            // RFC 9111 §5.2.1.7
            return Step::Answer(respond::gateway_timeout("only-if-cached, and nothing is\n"));
        }
        Box::new(Forward::new(self, why, nominated, part, captured)).collapse(request)
    }

    /// Completes what the look-up captured.
    async fn captured(&mut self, captured: Option<Captured>) -> Option<Captured> {
        match captured {
            Some(captured) => Some(captured),
            None if self.facts.directives.only_if_cached => None,
            None => self.capture().await,
        }
    }

    pub(super) fn counters(&self) -> &metrics::Route {
        self.engine.counters(self.route.as_deref())
    }
}
