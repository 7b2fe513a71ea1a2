//! What the cache makes of a request before it waits for anything.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Request, Response, Version};
use http_body::Body;

use super::decide::{self, Decision, Service};
use super::respond::{self, Content, Held};
use super::{Engine, Exchange, Reading, Write};
use crate::extension::Told;
use crate::key::{ContentKind, KeySpec, NoKey, PrimaryKey, Shown};
use crate::reason::Bypass;
use crate::rules::{Lifetime, Match, Policy, Route};
use crate::semantics::cache_control::RequestDirectives;
use crate::semantics::cache_status::Fwd;
use crate::semantics::grpc;
use crate::semantics::invalidation::is_safe;
use crate::store::{Found, Outcome};

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Reception {
    /// It goes to the handler, and the cache has no more to do with it.
    Pass(Passage),
    /// It is answered.
    Answer(Response<Content>),
    /// Its content is part of its key.
    Read(Box<Reading>),
    /// The store has to be asked, or the handler, or both.
    Exchange(Box<Exchange>),
    /// It may change what is stored.
    Write(Box<Write>),
}

/// A request that passes by the cache.
#[derive(Clone, Debug)]
pub(crate) struct Passage {
    engine: Arc<Engine>,
    fwd: Fwd,
    reason: Bypass,
}

/// What the cache asks of a request's fields, read in one pass.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// HEAD: the answer has no content.
    pub(super) head: bool,
    /// Its content is part of its key.
    pub(super) keyed: Option<ContentKind>,
    /// A cookie that is not part of the key.
    pub(super) cookie: bool,
    /// Credentials that are not part of the key.
    pub(super) authorization: bool,
    /// A field that reroutes requests and is not part of the key.
    routing: bool,
    /// If-None-Match or If-Modified-Since.
    pub(super) conditional: bool,
    pub(super) range: bool,
    /// A precondition that only the origin can judge.
    precondition: bool,
    upgrade: bool,
    event_stream: bool,
    content: bool,
    grpc: bool,
    directed: bool,
    /// What the client asks of caches, as far as the policy obeys it.
    pub(super) directives: RequestDirectives,
}

impl Engine {
    /// Decides what becomes of a request. Nothing here waits.
    pub(crate) fn receive<B: Body>(self: &Arc<Self>, request: &Request<B>) -> Reception {
        let matched = self.options.rules.find(request.uri().path());
        match self.consider(request, matched.as_ref()) {
            Ok(reception) => reception,
            Err(reason) => Reception::Pass(self.pass(request, matched.as_ref(), reason)),
        }
    }

    /// Lets a request pass by.
    pub(super) fn pass<B>(
        self: &Arc<Self>,
        request: &Request<B>,
        matched: Option<&Match<'_, '_>>,
        reason: Bypass,
    ) -> Passage {
        let route = self.metrics.route(index(matched));
        route.bypassed(reason, &Shown::of(request.uri().path().as_bytes()));
        Passage {
            engine: Arc::clone(self),
            fwd: match reason {
                Bypass::Method => Fwd::Method,
                _ => Fwd::Bypass,
            },
            reason,
        }
    }

    fn consider<B: Body>(
        self: &Arc<Self>,
        request: &Request<B>,
        matched: Option<&Match<'_, '_>>,
    ) -> Result<Reception, Bypass> {
        let method = request.method();
        let route = matched.map(|matched| &**matched.route);
        let policy = self.policy(route);
        let spec = self.key_spec(route);
        let mut facts = Facts::of(request, spec, policy);
        if route.is_some_and(|route| route.rule.grpc_unary) {
            facts.take_for_unary(method);
        }
        facts.refuse_tunnels(method, || {
            matched.is_some() || self.options.rules.knows_write(request.uri().path())
        })?;
        if !is_safe(method) && facts.keyed.is_none() {
            let read = self.read_by_post(request, matched, facts, policy, spec);
            return Ok(Reception::Write(Box::new(Write::new(self, request, read))));
        }
        // Not before: what a write makes stale may be in a store that others share.
        if !self.options.enabled {
            return Err(Bypass::Disabled);
        }
        if facts.keyed.is_none() && !matches!(*method, Method::GET | Method::HEAD) {
            return Err(Bypass::Method);
        }
        if route.is_some_and(|route| matches!(route.rule.lifetime, Lifetime::Bypass)) {
            return Err(Bypass::Rule);
        }
        facts.refuse_reads(policy)?;
        if let Some(kind) = facts.keyed {
            let reading = Reading::new(self, kind, facts);
            return Ok(Reception::Read(Box::new(reading)));
        }
        let namespace = &self.options.namespace;
        let key = PrimaryKey::new(namespace, spec, method, request.uri(), request.headers())?;
        Ok(self.peek(request, matched, facts, key))
    }

    /// Returns what of a request on this route enters its key.
    pub(super) fn key_spec<'a>(&'a self, route: Option<&'a Route>) -> &'a KeySpec {
        route.map_or(&self.unruled_key, |route| &route.rule.key)
    }

    /// Returns the GET of the same URI if the answer to a POST may serve it (RFC 9110 §9.3.3).
    fn read_by_post<B>(
        self: &Arc<Self>,
        request: &Request<B>,
        matched: Option<&Match<'_, '_>>,
        mut facts: Facts,
        policy: &Policy,
        spec: &KeySpec,
    ) -> Option<Box<Exchange>> {
        let bypass =
            matched.is_some_and(|matched| matches!(matched.route.rule.lifetime, Lifetime::Bypass));
        if *request.method() != Method::POST
            || !policy.store_post
            || !self.options.enabled
            || bypass
            || facts.is_rerouted(policy)
        {
            return None;
        }
        // No precondition and no range makes the answer to a POST another one (RFC 9110 §13.1.3, §14.2).
        (facts.conditional, facts.range) = (false, false);
        let namespace = &self.options.namespace;
        let (uri, headers) = (request.uri(), request.headers());
        let key = PrimaryKey::new(namespace, spec, &Method::GET, uri, headers).ok()?;
        let now = self.options.clock.now();
        Some(Box::new(Exchange::new(
            self, request, matched, facts, key, now, None,
        )))
    }

    /// Answers from memory if the store can tell at once, else takes the exchange up.
    fn peek<B>(
        self: &Arc<Self>,
        request: &Request<B>,
        matched: Option<&Match<'_, '_>>,
        facts: Facts,
        mut key: PrimaryKey,
    ) -> Reception {
        let started = self.options.clock.now();
        let mut ahead = false;
        let exact = self.searches.widen(&mut key);
        let route = matched.map(|matched| &**matched.route);
        let found = self.glance(&key, request.headers(), route);
        if let Some(Found {
            outcome: Outcome::Response(stored),
            tier,
            ..
        }) = &found
        {
            let policy = self.policy(route);
            let age = stored.age(started);
            let decision = decide::on_stored(self, stored, age, request.headers(), &facts, policy)
                .or_ahead(route, stored, age);
            if let Decision::Serve(service) = decision {
                let fields = request.headers();
                let stored = Held::Shared(stored);
                let response =
                    respond::from_store(self, stored, fields, &facts, service, *tier, started);
                self.metrics.found_in(*tier);
                let route = self.metrics.route(index(matched));
                let took = || self.options.clock.now() - started;
                route.hit(service.is_stale(), &key, took);
                self.metrics.body_served(response.body().len());
                return Reception::Answer(response);
            }
            ahead = decision == Decision::ServeAndRefresh(Service::Fresh);
        }
        let mut exchange = Exchange::new(self, request, matched, facts, key, started, found);
        exchange.exact = exact;
        exchange.ahead = ahead;
        Reception::Exchange(Box::new(exchange))
    }

    /// Returns the policy of a route, or that of requests without a rule.
    pub(super) fn policy<'a>(&'a self, route: Option<&'a Route>) -> &'a Policy {
        route.map_or(self.options.rules.policy(), |route| &route.policy)
    }
}

impl Facts {
    fn of<B: Body>(request: &Request<B>, spec: &KeySpec, policy: &Policy) -> Self {
        let headers = request.headers();
        let mut facts = Self {
            head: *request.method() == Method::HEAD,
            keyed: (*request.method() == Method::QUERY).then_some(ContentKind::Query),
            // HTTP/2 and 3 need no field to announce content.
            content: request.version() > Version::HTTP_11 && !request.body().is_end_stream(),
            ..Self::default()
        };
        for (name, line) in headers {
            facts.note(name.as_str(), line.as_bytes(), headers, spec);
        }
        if facts.directed {
            let asked = RequestDirectives::parse(headers);
            facts.directives = if policy.obey_client {
                asked
            } else {
                asked.not_obeyed()
            };
        }
        facts
    }

    fn note(&mut self, name: &str, line: &[u8], headers: &HeaderMap, spec: &KeySpec) {
        match name {
            "cache-control" | "pragma" => self.directed = true,
            "cookie" => self.cookie = !spec.covers_cookies(headers),
            "authorization" => self.authorization = !spec.covers_field(name),
            "if-none-match" | "if-modified-since" => self.conditional = true,
            "if-match" | "if-unmodified-since" => self.precondition = true,
            "range" => self.range = true,
            "upgrade" => self.upgrade = true,
            "accept" => self.event_stream |= lists(line, b"text/event-stream"),
            "content-length" => self.content |= !lists(line, b"0"),
            "transfer-encoding" => self.content = true,
            "content-type" => self.grpc |= grpc::is_grpc(line),
            _ if is_routing(name) => self.routing |= !spec.covers_field(name),
            _ => {}
        }
    }

    /// Takes a gRPC call for a safe one, as its rule says. What HTTP would read in its metadata is
    /// not meant so: its clients know no 304 and no 206.
    fn take_for_unary(&mut self, method: &Method) {
        if self.grpc && *method == Method::POST {
            self.keyed = Some(ContentKind::GrpcUnary);
            (self.conditional, self.precondition) = (false, false);
            (self.range, self.event_stream) = (false, false);
        }
    }

    pub(super) fn is_grpc_unary(&self) -> bool {
        self.keyed == Some(ContentKind::GrpcUnary)
    }

    /// Forgets what the sender has, and asked of caches.
    pub(super) fn forget_wishes(&mut self) {
        (self.conditional, self.range) = (false, false);
        self.directives = RequestDirectives::default();
    }

    /// Forgets who the sender is, as far as that has been taken out of the request's fields.
    pub(super) fn forget_identity(&mut self, headers: &HeaderMap) {
        // What is left of the cookies is part of the key.
        self.cookie = false;
        self.authorization &= headers.contains_key(AUTHORIZATION);
    }

    /// Refuses what is no exchange of a request and a response.
    ///
    /// No field may keep a write from invalidating: clients offer `Upgrade: h2c` with any method,
    /// and a handler may not look at the type of a request's content. So a gRPC call to a path that
    /// the rules know is a write.
    fn refuse_tunnels(
        &self,
        method: &Method,
        is_ruled: impl FnOnce() -> bool,
    ) -> Result<(), Bypass> {
        match () {
            () if *method == Method::CONNECT => Err(Bypass::Upgrade),
            () if self.upgrade && is_safe(method) => Err(Bypass::Upgrade),
            () if self.grpc && *method == Method::POST && !is_ruled() => Err(Bypass::Grpc),
            () => Ok(()),
        }
    }

    /// Refuses reads that no stored response may answer.
    fn refuse_reads(&self, policy: &Policy) -> Result<(), Bypass> {
        match () {
            () if self.event_stream => Err(Bypass::EventStream),
            () if self.content && self.keyed.is_none() && !policy.get_with_body => {
                Err(Bypass::RequestContent)
            }
            () if self.is_rerouted(policy) => Err(Bypass::RoutingField),
            () if self.precondition => Err(Bypass::Precondition),
            () => Ok(()),
        }
    }

    /// Whether the handler may take the request for another one.
    fn is_rerouted(&self, policy: &Policy) -> bool {
        self.routing && !policy.trusted_proxy
    }
}

/// Fields by which frameworks and proxies let a request be taken for another one. A response made
/// under their influence must not be stored as if they had not been there.
const ROUTING_FIELDS: [&str; 17] = [
    "forwarded",
    "x-forwarded-host",
    "x-forwarded-path",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-host",
    "x-http-host-override",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-host",
    "x-original-url",
    "x-rewrite-url",
];

fn is_routing(name: &str) -> bool {
    (name.starts_with("x-") || name.starts_with('f')) && ROUTING_FIELDS.contains(&name)
}

fn lists(line: &[u8], wanted: &[u8]) -> bool {
    let is_wanted = |member: &[u8]| {
        let value = member.split(|byte| *byte == b';').next();
        let value = value.unwrap_or_default().trim_ascii();
        value.eq_ignore_ascii_case(wanted)
    };
    line.len() >= wanted.len() && line.split(|byte| *byte == b',').any(is_wanted)
}

impl From<NoKey> for Bypass {
    fn from(reason: NoKey) -> Self {
        match reason {
            NoKey::Method => Self::Method,
            NoKey::ConflictingHost => Self::ConflictingHost,
            NoKey::InvalidHost => Self::InvalidHost,
            NoKey::TooLong => Self::KeyTooLong,
        }
    }
}

impl Passage {
    /// Signs the handler's response, and takes from it what was meant for the cache.
    pub(crate) fn finish<B>(&self, response: &mut Response<B>) {
        Told::take(response.extensions_mut());
        let detail = Some(self.reason.as_str()).filter(|_| self.fwd != Fwd::Method);
        self.engine
            .sign_passed(response.headers_mut(), self.fwd, detail);
    }
}

fn index(matched: Option<&Match<'_, '_>>) -> Option<usize> {
    matched.map(|matched| matched.route.index)
}
