//! The layer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Extensions;
use tower_layer::Layer;

use super::{CacheService, KeyedByContent, UnreadContent};
use crate::clock::Clock;
use crate::engine::{Engine, Options};
use crate::handle::CacheHandle;
use crate::key::Namespace;
use crate::rules::{Policy, Rules};
use crate::semantics::cache_status::{CacheName, Signature};
use crate::store::Store;

/// Puts an HTTP cache in front of a service.
///
/// Clones, and the services they make, share one cache. Configure the layer first and take its
/// [`handle`](Self::handle) last: each of the configuring methods makes a cache of its own over the
/// same store.
///
/// The cache knows a request by the URI that reaches it. Inside a nested router that is not all of
/// the URI: axum takes the prefix off. Put the layer around the outer router, or give each nested
/// one a [`namespace`](Self::namespace) of its own; two that share one answer for each other.
///
/// A Tokio runtime that the service runs on must have its timers (`enable_time`, as `#[tokio::main]`
/// does); without a runtime the cache works too, but nothing happens in the background.
///
/// # Around the router, or inside it
///
/// `Router::layer` puts the cache behind axum's routing, which costs about as much as a hit. Around
/// the router a hit is not routed:
///
/// ```no_run
/// # #[cfg(feature = "memory")]
/// # async fn example(router: axum::Router) -> Result<(), Box<dyn std::error::Error>> {
/// use axum::body::Body;
/// use axum::extract::Request;
/// use axum::response::Response;
/// use axum::{Router, ServiceExt};
/// use tower::ServiceBuilder;
/// use tower_response_cache::{CacheLayer, MemoryStore};
///
/// let app = ServiceBuilder::new()
///     .map_response(|response: Response<_>| response.map(Body::new))
///     .layer(CacheLayer::new(MemoryStore::new(64 << 20)))
///     .service(router);
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
/// axum::serve(listener, ServiceExt::<Request>::into_make_service(app)).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Requests for the same at the same time
///
/// Of requests that miss the same response at the same time, one goes to the handler; the others
/// wait for its answer and read its body along, each at its own pace. Only those share an answer
/// that show no identity (`Authorization`, or a cookie outside the key), and only what the store
/// could have served them. What turns out not to be for others sends all who wait to the handler at
/// once, and the next ones for ten seconds.
///
/// The call that others wait for is no client's own:
///
/// - It runs in a task of its own, inside the current `tracing` span but without the task-locals of
///   its caller.
/// - A client that leaves does not cancel it. It has 30 seconds to come to its end, for those who
///   wait and for the store.
/// - What passes before its answer, all who wait hear through their [`OnInterim`](crate::OnInterim).
/// - A request that waits has been let in by the services inside: it holds its permit of a
///   `ConcurrencyLimit` there meanwhile.
///
/// [`collapse_wait`](Self::collapse_wait) limits the wait or turns all of this off.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "memory")]
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use axum::{Router, routing::get};
/// use tower_response_cache::{CacheLayer, MemoryStore, Rule, Rules};
///
/// let rules = Rules::builder()
///     .route("/products", Rule::ttl(Duration::from_secs(60)))
///     .build()?;
/// let cache = CacheLayer::new(MemoryStore::new(64 << 20)).rules(rules);
/// let handle = cache.handle();
/// let app: Router = Router::new().route("/products", get(|| async { "…" })).layer(cache);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct CacheLayer<C = UnreadContent> {
    engine: Arc<Engine>,
    content: C,
}

impl CacheLayer {
    /// Makes a cache over `store`, without rules: it does what responses say of themselves.
    pub fn new(store: impl Store) -> Self {
        Self {
            engine: Arc::new(Engine::new(Arc::new(store), Options::default())),
            content: UnreadContent,
        }
    }

    /// Also caches requests whose content is part of what they ask for: QUERY (RFC 10008), and the
    /// gRPC calls that a rule calls [safe](crate::Rule::grpc_unary).
    ///
    /// Their content is read before the store is asked, and `wrap` makes a request body for the
    /// inner service of the [`RequestBody`](crate::RequestBody) that holds it. So the layer, and
    /// with it the service, is of another type.
    ///
    /// For requests of other methods `wrap` is called too, when they go to the inner service, and
    /// one thing changes: the cache can make an empty request. What it asks beside what the client
    /// wants, which of several stored responses still holds or what a stored part lacks, a handler
    /// may answer in a way that fits neither. Then the cache asks once more for the client alone
    /// (RFC 9111 §4.3.4). Without `wrap` it asks about one stored response alone, and completes no
    /// parts.
    ///
    /// A request passes by, whole and uncached, if its content is longer than
    /// [`max_content`](CacheLayer::max_content), takes over 5 seconds to arrive, or fails.
    ///
    /// Default: no content is read, and such requests pass by.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "memory")] {
    /// use axum::Router;
    /// use axum::body::Body;
    /// use axum::routing::any;
    /// use tower_response_cache::{CacheLayer, MemoryStore};
    ///
    /// let cache = CacheLayer::new(MemoryStore::new(64 << 20)).keyed_by_content(Body::new);
    /// let app: Router = Router::new().route("/search", any(|| async { "found" })).layer(cache);
    /// # }
    /// ```
    pub fn keyed_by_content<F>(self, wrap: F) -> CacheLayer<KeyedByContent<F>> {
        CacheLayer {
            engine: self.engine,
            content: KeyedByContent { wrap },
        }
    }
}

impl<F> CacheLayer<KeyedByContent<F>> {
    /// Sets the longest content of a request, in bytes, that is read to be part of its key; a
    /// request with more passes through uncached.
    ///
    /// Default: 64 KiB.
    pub fn max_content(self, bytes: u64) -> Self {
        self.configured(|options| options.max_content = bytes)
    }
}

impl<C> CacheLayer<C> {
    /// Sets the rules: what is cached for how long, and what a write invalidates.
    ///
    /// Default: none. They bring their policy with them.
    pub fn rules(self, rules: Rules) -> Self {
        self.configured(|options| options.rules = rules)
    }

    /// Sets the policy of requests without a rule and of rules without a policy of their own.
    ///
    /// Default: that of the rules, which is [`Policy::guarded`] unless they say otherwise. Set it
    /// after the [`rules`](Self::rules).
    pub fn policy(self, policy: Policy) -> Self {
        self.configured(|options| options.rules = options.rules.under(policy))
    }

    /// Sets the namespace, which keeps applications that share a store apart.
    ///
    /// Default: `default`.
    pub fn namespace(self, namespace: Namespace) -> Self {
        self.configured(|options| options.namespace = namespace)
    }

    /// Sets a lifetime for responses without a rule that state none themselves.
    ///
    /// Default: none, they are not stored. The guards of a rule's ttl apply.
    pub fn default_ttl(self, lifetime: Option<Duration>) -> Self {
        self.configured(|options| options.default_ttl = lifetime)
    }

    /// Sets the longest body that is stored, in bytes; a longer one passes through.
    ///
    /// One that does not announce its length may turn out longer while several clients read it.
    /// From then on no more than so much lies between the slowest and the fastest of them (and at
    /// most one frame more): the fastest wait as long as
    /// [`collapse_wait`](Self::collapse_wait) says, and then who is further behind is cut off.
    ///
    /// Default: 1 MiB. A rule may say otherwise for its route.
    pub fn max_body(self, bytes: u64) -> Self {
        self.configured(|options| options.max_body = bytes)
    }

    /// Sets the longest header section that is stored, in bytes.
    ///
    /// More than 8,192 lines are never stored.
    ///
    /// Default: 64 KiB. A rule may say otherwise for its route.
    pub fn max_fields(self, bytes: usize) -> Self {
        self.configured(|options| options.max_fields = bytes)
    }

    /// Sets up to which length, in bytes, a body that the handler has at hand is hashed before its
    /// first answer leaves, so that this answer has the `ETag` of its hits.
    ///
    /// Default: 64 KiB. Longer and streamed bodies have an `ETag` from the first hit on.
    pub fn hash_ahead(self, bytes: u64) -> Self {
        self.configured(|options| options.hash_ahead = bytes)
    }

    /// Sets how long a request waits for the answer to another one for the same, which is with the
    /// handler. Then it goes there itself, as does whoever comes later than this after the other.
    ///
    /// It is also how long, all in all, those who share a body longer than
    /// [`max_body`](Self::max_body) wait for the slowest of them.
    ///
    /// Default: 5 seconds. With zero no request waits for another; [`Policy::collapse`] is the
    /// switch of a single rule.
    pub fn collapse_wait(self, longest: Duration) -> Self {
        self.configured(|options| options.collapse_wait = longest)
    }

    /// Sets how long a request waits for the store, all in all, before its handler is called or its
    /// answer given. Then the store is taken as away for it: the request goes to its handler, and
    /// what that answers is stored only if the store has said before what it would stand under.
    ///
    /// What the store tells at once, as memory does, is not waited for. That requests wait for
    /// [each other](Self::collapse_wait), here or in another process, does not count.
    ///
    /// Default: 150 ms. With zero, the store is asked only for what it tells at once, and nothing is
    /// stored.
    pub fn store_wait(self, longest: Duration) -> Self {
        self.configured(|options| options.store_wait = longest)
    }

    /// Sets how long the answer to a write waits until the store has forgotten what the write
    /// invalidates, lest its client finds the old in another process. Then it leaves, and the rest is
    /// done in the background; this process serves nothing that is invalidated, in any case.
    ///
    /// Default: 1 second. The store has limits of its own for each of the one or two questions that
    /// this takes; [`CacheHandle::invalidate`] has only those.
    pub fn invalidation_wait(self, longest: Duration) -> Self {
        self.configured(|options| options.invalidation_wait = longest)
    }

    /// Takes `T` out of the extensions of requests that are sent to refresh what is stored.
    ///
    /// A refresh is sent for everybody, in the words of the request that found a stale response:
    /// without its `Authorization` and `Cookie`, but with its extensions, for axum keeps the
    /// parameters of the path there. Name the types in which services outside of this layer keep
    /// who is asking. Of all other requests the handler sees what it would see without a cache.
    ///
    /// Where nothing is named, the handler may still know whom a request with `Authorization`, or a
    /// cookie outside the key, is from. Such a request then refreshes only what says itself that it
    /// is for all (`public`, `s-maxage`, or a targeted field); the rest is left to requests that
    /// show no identity.
    ///
    /// Default: nothing is taken out.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "memory")] {
    /// use tower_response_cache::{CacheLayer, MemoryStore};
    ///
    /// #[derive(Clone)]
    /// struct CurrentUser(u64);
    ///
    /// let cache = CacheLayer::new(MemoryStore::new(64 << 20)).refresh_without::<CurrentUser>();
    /// # let _ = (cache, CurrentUser(1).0);
    /// # }
    /// ```
    pub fn refresh_without<T: Send + Sync + 'static>(self) -> Self {
        let remove = |extensions: &mut Extensions| drop(extensions.remove::<T>());
        self.configured(|options| options.refresh_without.push(remove))
    }

    /// Repeats each invalidation after so long.
    ///
    /// Default: no. It helps where handlers read from a database replica that lags: what they make
    /// of old data just after an invalidation is new to the cache, and would stay until it expires.
    pub fn repeat_invalidations(self, after: Option<Duration>) -> Self {
        self.configured(|options| options.repeat_invalidations = after)
    }

    /// Sets how this cache calls itself in `Cache-Status` (RFC 9211).
    ///
    /// Default: `tower-response-cache`. A name that is empty or not printable ASCII cannot be
    /// written, and adds no field.
    pub fn cache_status(self, name: &str) -> Self {
        self.signed(|signature| signature.name = CacheName::new(name))
    }

    /// States in the `key` of `Cache-Status` which key a response is stored under (RFC 9211 §2.7):
    /// its [fingerprint](crate::PrimaryKey::fingerprint) in 32 hexadecimal digits, the same for all
    /// requests that one stored response answers.
    ///
    /// Default: no. It tells clients what enters the key, and lets them guess at what others hold in
    /// the fields and cookies that do (RFC 9211 §6).
    pub fn cache_status_key(self, stated: bool) -> Self {
        self.signed(|signature| signature.tells_key = stated)
    }

    /// States in the `detail` of `Cache-Status` what RFC 9211 has no word for (§2.8): a [reason], or
    /// the tier that a hit came from.
    ///
    /// Default: yes. Of what is stored for whom it tells clients more than the other parameters.
    ///
    /// [reason]: crate::reason
    pub fn cache_status_detail(self, stated: bool) -> Self {
        self.signed(|signature| signature.tells_detail = stated)
    }

    /// Adds no `Cache-Status` to responses, so that clients do not learn what is cached.
    ///
    /// Default: it is added.
    pub fn without_cache_status(self) -> Self {
        self.signed(|signature| signature.name = None)
    }

    /// Switches the cache off, or on again: nothing is served and nothing stored.
    ///
    /// Writes still invalidate, as do [`CacheHandle`]s: another process that shares the store may be
    /// switched on.
    ///
    /// Default: on.
    pub fn enabled(self, enabled: bool) -> Self {
        self.configured(|options| options.enabled = enabled)
    }

    /// Sets where the time is read; for tests.
    ///
    /// Default: [`Clock::system`].
    pub fn clock(self, clock: Clock) -> Self {
        self.configured(|options| options.clock = clock)
    }

    /// Returns a handle to the cache, for handlers, jobs and operators.
    pub fn handle(&self) -> CacheHandle {
        CacheHandle::new(Arc::clone(&self.engine))
    }

    fn signed(self, change: impl FnOnce(&mut Signature)) -> Self {
        self.configured(|options| change(Arc::make_mut(&mut options.signature)))
    }

    fn configured(self, change: impl FnOnce(&mut Options)) -> Self {
        Self {
            engine: Arc::new(self.engine.reconfigured(change)),
            content: self.content,
        }
    }
}

impl<S, C: Clone> Layer<S> for CacheLayer<C> {
    type Service = CacheService<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        CacheService::new(inner, Arc::clone(&self.engine), self.content.clone())
    }
}

impl<C> fmt::Debug for CacheLayer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheLayer")
            .field("store", self.engine.store())
            .field("namespace", &self.engine.options.namespace)
            .finish_non_exhaustive()
    }
}
