use std::time::Duration;

use http::{HeaderName, StatusCode};

use super::{Policy, Tier};
use crate::key::{KeySpec, ParamNames, QuerySpec};

/// What to do with the requests of one route.
///
/// A rule starts with the lifetime ([`ttl`](Self::ttl), [`from_origin`](Self::from_origin)) or with
/// [`bypass`](Self::bypass); everything else has the default that its method states. Mistakes are
/// reported by [`RulesBuilder::build`](super::RulesBuilder::build).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_response_cache::Rule;
///
/// let rule = Rule::ttl(Duration::from_secs(300))
///     .stale_while_revalidate(Duration::from_secs(30))
///     .ignore_query(["utm_source", "utm_campaign"])
///     .tag("product:{id}");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Rule {
    pub(crate) lifetime: Lifetime,
    pub(crate) stale_while_revalidate: Option<Duration>,
    pub(crate) stale_if_error: Option<Duration>,
    pub(crate) refresh_ahead: Option<Duration>,
    pub(crate) handler_timeout: Option<Duration>,
    pub(crate) soft_handler_timeout: Option<Duration>,
    pub(crate) key: KeySpec,
    pub(crate) response_tags: bool,
    pub(crate) max_body: Option<u64>,
    pub(crate) max_fields: Option<u64>,
    pub(crate) override_origin: bool,
    pub(crate) grpc_unary: bool,
    pub(crate) client: ClientCaching,
    pub(crate) tier: Option<Tier>,
    pub(super) statuses: Vec<StatusCode>,
    pub(super) tags: Vec<String>,
    pub(super) shared_despite_cookies: bool,
    pub(super) obey_client: bool,
    pub(super) trusted_proxy: bool,
    pub(super) policy: Option<Policy>,
}

/// Where the freshness lifetime of a route's responses comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lifetime {
    Bypass,
    Ttl(Duration),
    FromOrigin,
}

/// What a response that is cached by the rule's ttl tells the client, if it says nothing itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ClientCaching {
    /// `no-cache`, and an `ETag` to ask with.
    #[default]
    Validate,
    MaxAge(Duration),
    Untouched,
}

impl ClientCaching {
    pub(super) fn max_age(self) -> Option<Duration> {
        match self {
            Self::MaxAge(max_age) => Some(max_age),
            Self::Validate | Self::Untouched => None,
        }
    }
}

impl Rule {
    /// Statuses that every rule stores: the successful ones that RFC 9110 §15.1 calls
    /// heuristically cacheable, and permanent redirects.
    const STATUSES: [StatusCode; 5] = [
        StatusCode::OK,
        StatusCode::NON_AUTHORITATIVE_INFORMATION,
        StatusCode::NO_CONTENT,
        StatusCode::MOVED_PERMANENTLY,
        StatusCode::PERMANENT_REDIRECT,
    ];

    /// Returns a rule that keeps responses fresh for `lifetime` when they state no lifetime of
    /// their own; a year at most.
    ///
    /// A [`MemoryStore`](crate::MemoryStore) keeps them to the end of it, if there is room; where
    /// Redis has a part, be it beneath memory, it is a day at most.
    pub fn ttl(lifetime: Duration) -> Self {
        Self::new(Lifetime::Ttl(lifetime))
    }

    /// Returns a rule that caches nothing: requests go to the handler, responses pass untouched.
    pub fn bypass() -> Self {
        Self::new(Lifetime::Bypass)
    }

    /// Returns a rule without a lifetime: only what the response says of itself counts.
    pub fn from_origin() -> Self {
        Self::new(Lifetime::FromOrigin)
    }

    pub(super) fn new(lifetime: Lifetime) -> Self {
        Self {
            lifetime,
            stale_while_revalidate: None,
            stale_if_error: None,
            refresh_ahead: None,
            handler_timeout: None,
            soft_handler_timeout: None,
            key: KeySpec::default(),
            response_tags: false,
            max_body: None,
            max_fields: None,
            override_origin: false,
            grpc_unary: false,
            client: ClientCaching::Validate,
            tier: None,
            statuses: Vec::new(),
            tags: Vec::new(),
            shared_despite_cookies: false,
            obey_client: false,
            trusted_proxy: false,
            policy: None,
        }
    }

    /// Serves a stale response for this long after its lifetime while one request refreshes it in
    /// the background (RFC 5861 §3).
    ///
    /// Default: the window that the response states, if any.
    pub fn stale_while_revalidate(mut self, window: Duration) -> Self {
        self.stale_while_revalidate = Some(window);
        self
    }

    /// Serves a stale response for this long after its lifetime when the handler fails
    /// (RFC 5861 §4).
    ///
    /// Default: the window that the response states, if any.
    pub fn stale_if_error(mut self, window: Duration) -> Self {
        self.stale_if_error = Some(window);
        self
    }

    /// Refreshes a response in the background while it is still fresh, if it is asked for in the
    /// last `window` of its lifetime.
    ///
    /// A request does so with a chance that grows, from one in fifty when the window begins to
    /// certainty at its end. So what is asked for often never grows stale, what is not is not
    /// fetched in vain, and processes do not act in step. Each key is refreshed by one request at a
    /// time.
    ///
    /// Default: nothing is refreshed before it is stale. It must be shorter than the `ttl`; a tenth
    /// of it is a good choice.
    pub fn refresh_ahead(mut self, window: Duration) -> Self {
        self.refresh_ahead = Some(window);
        self
    }

    /// Gives up on the handler when it has not begun to answer after `limit`.
    ///
    /// Its call is cancelled. The client gets what is stored if that may be served after an error
    /// ([`stale_if_error`](Self::stale_if_error)), else a 504. A response body has all the time that
    /// it needs. Requests that pass by the cache, and those that write, have no limit.
    ///
    /// Default: no limit.
    pub fn handler_timeout(mut self, limit: Duration) -> Self {
        self.handler_timeout = Some(limit);
        self
    }

    /// Answers with what is stored, if that may be served after an error
    /// ([`stale_if_error`](Self::stale_if_error)), when the handler has not begun to answer after
    /// `limit`.
    ///
    /// Its call goes on in the background, for the store and within 30 seconds. Where nothing may
    /// be served the client waits, up to the [`handler_timeout`](Self::handler_timeout).
    ///
    /// Default: the client waits. It must be shorter than the `handler_timeout`.
    pub fn soft_handler_timeout(mut self, limit: Duration) -> Self {
        self.soft_handler_timeout = Some(limit);
        self
    }

    /// Adds statuses whose responses are stored.
    ///
    /// Default: 200, 203, 204, 301 and 308. Informational statuses, 206 and 304 are mistakes.
    pub fn statuses(mut self, statuses: impl IntoIterator<Item = StatusCode>) -> Self {
        self.statuses.extend(statuses);
        self
    }

    /// Lets only the query parameters of these names enter the key.
    ///
    /// The last of `keep_query`, `ignore_query` and `without_query` counts. Default: the whole raw
    /// query enters the key.
    pub fn keep_query(mut self, names: impl IntoIterator<Item = impl Into<Box<str>>>) -> Self {
        self.key.query = QuerySpec::Keep(ParamNames::new(names));
        self
    }

    /// Lets all query parameters but those of these names enter the key.
    ///
    /// Names are compared as the handler sees them, percent-decoded. A query that parsers read in
    /// different ways, with `;` or an invalid escape, enters the key whole.
    ///
    /// The last of `keep_query`, `ignore_query` and `without_query` counts. Default: the whole raw
    /// query enters the key.
    pub fn ignore_query(mut self, names: impl IntoIterator<Item = impl Into<Box<str>>>) -> Self {
        self.key.query = QuerySpec::Ignore(ParamNames::new(names));
        self
    }

    /// Keeps the query out of the key: all queries of a path have one response.
    ///
    /// The last of `keep_query`, `ignore_query` and `without_query` counts. Default: the whole raw
    /// query enters the key.
    pub fn without_query(mut self) -> Self {
        self.key.query = QuerySpec::Nothing;
        self
    }

    /// Makes the order of query parameters with different names insignificant.
    ///
    /// Default: the order counts.
    pub fn sorted_query(mut self) -> Self {
        self.key.sorted = true;
        self
    }

    /// Adds a request field whose value enters the key.
    ///
    /// Default: none; what the response's `Vary` nominates is matched in any case.
    pub fn key_field(mut self, name: HeaderName) -> Self {
        self.key.fields.push(name);
        self
    }

    /// Adds a cookie whose value enters the key.
    ///
    /// Default: none.
    pub fn key_cookie(mut self, name: impl Into<String>) -> Self {
        self.key.cookies.push(name.into());
        self
    }

    /// Keeps the authority out of the key: all hosts have the same responses.
    ///
    /// Default: every host has its own.
    pub fn any_host(mut self) -> Self {
        self.key.any_host = true;
        self
    }

    /// Adds a tag by which responses can be invalidated; parameters of the pattern stand in braces,
    /// as in `product:{id}`.
    ///
    /// Default: none. At most 64 tags of at most 128 bytes; a request whose parameters make a tag
    /// longer than that is not cached.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Reads further tags from the response's `Cache-Tag`, `Surrogate-Key` and `Cache-Groups`.
    ///
    /// Default: these fields mean nothing to the cache.
    pub fn response_tags(mut self) -> Self {
        self.response_tags = true;
        self
    }

    /// Sets the longest body, in bytes, that is stored.
    ///
    /// Default: the limit of the layer.
    pub fn max_body(mut self, bytes: u64) -> Self {
        self.max_body = Some(bytes);
        self
    }

    /// Sets the longest header section, in bytes, that is stored.
    ///
    /// Default: the limit of the layer.
    pub fn max_fields(mut self, bytes: u64) -> Self {
        self.max_fields = Some(bytes);
        self
    }

    /// Says that the gRPC calls of the route are safe, and caches those of one message with one
    /// result; the pattern is that of their path, `/package.Service/Method`.
    ///
    /// Needs a layer that is [keyed by content](crate::CacheLayer::keyed_by_content); in any other
    /// the calls pass by, and a warning is logged once. Part of the key are the message as it was
    /// sent, `Content-Type`, `grpc-encoding` and `grpc-accept-encoding`, and the metadata that
    /// [`key_field`](Self::key_field) names, to which all belongs by which the handler tells callers
    /// apart; `grpc-timeout` is not. Stored is a result with `grpc-status: 0`, with its trailers.
    /// Hits have `age` and `cache-status` as further metadata, and neither conditions nor ranges.
    /// [`stale_if_error`](Self::stale_if_error) knows the errors of HTTP, not those of gRPC.
    ///
    /// The calls invalidate nothing; others do by [`on_write`](super::RulesBuilder::on_write),
    /// whatever their `grpc-status`. A stream whose path matches passes through, with a delay of 40
    /// milliseconds at most where the client does not end its side after the first message.
    ///
    /// Default: gRPC calls are not cached, and count as writes where a pattern matches.
    pub fn grpc_unary(mut self) -> Self {
        self.grpc_unary = true;
        self
    }

    /// Lets the rule's ttl win over a lifetime that the response states, never over `no-store`,
    /// `private` or `no-cache`.
    ///
    /// Default: the response's own lifetime wins.
    pub fn override_origin(mut self) -> Self {
        self.override_origin = true;
        self
    }

    /// Lets clients reuse a response for this long without asking.
    ///
    /// An invalidation does not reach them before. Default: a response that is cached by the ttl
    /// and has no `Cache-Control` of its own tells clients `no-cache`, with an `ETag` to ask with.
    pub fn client_max_age(mut self, max_age: Duration) -> Self {
        self.client = ClientCaching::MaxAge(max_age);
        self
    }

    /// Adds neither `Cache-Control` nor `ETag` to what clients get.
    ///
    /// Default: see [`client_max_age`](Self::client_max_age).
    pub fn client_untouched(mut self) -> Self {
        self.client = ClientCaching::Untouched;
        self
    }

    /// Keeps responses in one tier of a [`TieredStore`](crate::TieredStore) alone.
    ///
    /// In [`Tier::Memory`] each process keeps what its own handler answers, and no body is ever sent
    /// to the other store. In [`Tier::Shared`] no process holds a copy, nor anything at all while
    /// the shared store is away. Invalidations reach either as they reach all else.
    ///
    /// Default: in both. A store without tiers keeps the responses in any case.
    pub fn tier(mut self, tier: Tier) -> Self {
        self.tier = Some(tier);
        self
    }

    /// Shares responses among requests with different cookies, by the ttl alone.
    ///
    /// Only for routes whose handlers read no cookies. Default: as the policy says; in `guarded`, a
    /// request with `Cookie` is stored only if the response itself says that it may be.
    pub fn shared_despite_cookies(mut self) -> Self {
        self.shared_despite_cookies = true;
        self
    }

    /// Obeys the request's `no-cache`, `max-age`, `min-fresh` and `Pragma`.
    ///
    /// Default: as the policy says; `guarded` ignores them, so that no client can go around the
    /// cache at will.
    pub fn obey_client(mut self) -> Self {
        self.obey_client = true;
        self
    }

    /// Trusts that routing fields like `X-Forwarded-Host` come from a proxy that sets them alike
    /// for all clients.
    ///
    /// Default: as the policy says; in `guarded`, requests with such a field are not cached unless
    /// it is part of the key.
    pub fn trusted_proxy(mut self) -> Self {
        self.trusted_proxy = true;
        self
    }

    /// Replaces the policy for this route.
    ///
    /// Default: the policy of the rules.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Whether the rule itself, whatever the policy, stores responses with this status.
    pub(crate) fn stores(&self, status: StatusCode) -> bool {
        Self::STATUSES.contains(&status) || self.statuses.contains(&status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_stores_success_and_what_it_names() {
        let rule = Rule::from_origin().statuses([StatusCode::NOT_FOUND]);
        for status in [200, 203, 204, 301, 308, 404] {
            assert!(
                rule.stores(StatusCode::from_u16(status).unwrap()),
                "{status}"
            );
        }
        for status in [201, 206, 302, 304, 400, 410, 500] {
            assert!(
                !rule.stores(StatusCode::from_u16(status).unwrap()),
                "{status}"
            );
        }
    }

    #[test]
    fn the_last_word_on_the_query_counts() {
        let rule = Rule::bypass().keep_query(["a"]).without_query();
        assert_eq!(rule.key.query, QuerySpec::Nothing);
        let rule = rule.ignore_query(["a"]);
        assert_eq!(rule.key.query, QuerySpec::Ignore(ParamNames::new(["a"])));
    }
}
