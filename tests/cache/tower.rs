//! A service like any other: readiness, limits, errors, clones, panics and futures that are dropped.

use std::cell::Cell;
use std::convert::{Infallible, identity};
use std::future::{Future, Ready, pending, ready};
use std::marker::PhantomPinned;
use std::mem::size_of;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use axum::extract::Path;
use axum::routing::get_service;
use axum::{Extension, Router};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;
use tower::buffer::BufferLayer;
use tower::limit::{ConcurrencyLimitLayer, RateLimitLayer};
use tower::load_shed::{LoadShedLayer, error::Overloaded};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_response_cache::{
    CacheHandle, CacheLayer, CacheService, KeyedByContent, MemoryStore, RequestBody, ResponseBody,
    ResponseFuture, Rule, Rules, RulesError,
};

use crate::support::{
    Answer, Body, Broken, Cache, Origin, everywhere, get, request, response, settle, status, ttl,
};

fn rules() -> Result<Rules, RulesError> {
    Rules::builder()
        .route("/off", Rule::bypass())
        .route(
            "/{*path}",
            ttl(10).stale_while_revalidate(Duration::from_secs(100)),
        )
        .build()
}

fn layer() -> CacheLayer {
    CacheLayer::new(MemoryStore::new(16 << 20)).rules(rules().unwrap())
}

/// Requests that take each way through the cache: a miss, a hit, a HEAD, a write, two bypasses.
fn ways() -> [Request<Full<Bytes>>; 6] {
    [
        get("/a"),
        get("/a"),
        request(Method::HEAD, "/a", &[]),
        request(Method::PUT, "/a", &[]),
        get("/off"),
        request(Method::OPTIONS, "/a", &[]),
    ]
}

/// A service whose clones are not ready, and which holds its callers to that.
struct Unready {
    ready: bool,
    origin: Origin,
}

impl Clone for Unready {
    fn clone(&self) -> Self {
        Self {
            ready: false,
            origin: self.origin.clone(),
        }
    }
}

impl Service<Request<Full<Bytes>>> for Unready {
    type Response = Response<Body>;
    type Error = Broken;
    type Future = <Origin as Service<Request<Full<Bytes>>>>::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called unready");
        self.origin.call(request)
    }
}

#[tokio::test]
async fn the_service_that_was_polled_ready_is_the_one_that_is_called() {
    let clock = tower_response_cache::ManualClock::new();
    let origin = Origin::counting(&[]);
    let inner = Unready {
        ready: false,
        origin: origin.clone(),
    };
    let mut service = layer().clock(clock.clock()).layer(inner);
    for _ in 0..3 {
        for request in ways() {
            let answer = service.ready().await.unwrap().call(request).await;
            assert_eq!(answer.unwrap().status(), StatusCode::OK);
        }
        // Stale, so that a refresh calls it too.
        service
            .ready()
            .await
            .unwrap()
            .call(get("/a"))
            .await
            .unwrap();
        clock.advance(Duration::from_secs(20));
        let calls = origin.calls();
        service
            .ready()
            .await
            .unwrap()
            .call(get("/a"))
            .await
            .unwrap();
        settle().await;
        assert_eq!(origin.calls(), calls + 1, "refreshed");
    }
}

#[tokio::test]
async fn readiness_is_that_of_the_inner_service() {
    #[derive(Clone)]
    struct Never;
    impl Service<Request<Full<Bytes>>> for Never {
        type Response = Response<Body>;
        type Error = Broken;
        type Future = Ready<Result<Response<Body>, Broken>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
            Poll::Pending
        }
        fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
            unreachable!("it is never ready")
        }
    }
    let mut service = layer().layer(Never);
    assert!(service.ready().now_or_never().is_none());
}

#[tokio::test]
async fn a_concurrency_limit_inside_is_kept_and_no_permit_is_lost() {
    let origin = Origin::counting(&[]);
    let inner = ConcurrencyLimitLayer::new(1).layer(origin.clone());
    let service = layer().layer(inner);
    for _ in 0..3 {
        for request in ways() {
            let answer = service.clone().oneshot(request).now_or_never();
            assert_eq!(answer.expect("a permit").unwrap().status(), StatusCode::OK);
        }
    }
    let hold = origin.hold();
    let mut first = Box::pin(service.clone().oneshot(get("/slow")));
    assert!(first.as_mut().now_or_never().is_none());
    let mut second = Box::pin(service.clone().oneshot(get("/other")));
    assert!(second.as_mut().now_or_never().is_none());
    assert_eq!(origin.last().path(), "/slow", "the second waits its turn");
    drop(hold);
    for waiting in [first, second] {
        waiting.await.unwrap();
    }
}

#[tokio::test]
async fn permits_come_back_when_requests_are_dropped() {
    let origin = Origin::counting(&[]);
    let service = layer().layer(ConcurrencyLimitLayer::new(1).layer(origin.clone()));
    for request in ways() {
        let hold = origin.hold();
        let mut exchange = Box::pin(service.clone().oneshot(request));
        let _ = exchange.as_mut().now_or_never();
        drop((exchange, hold));
        // What others could wait for goes on to its end, and gives the permit back then.
        settle().await;
        let next = service.clone().oneshot(get("/next")).now_or_never();
        assert!(next.expect("a permit").is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn buffers_rate_limits_and_load_shedding_work_inside() {
    let origin = Origin::counting(&[]);
    let inner = ServiceBuilder::new()
        .layer(BufferLayer::new(4))
        .layer(RateLimitLayer::new(100, Duration::from_secs(1)))
        .service(origin.clone());
    let service = layer().layer(inner);
    for _ in 0..3 {
        for request in ways() {
            let answer: Result<_, BoxError> = service.clone().oneshot(request).await;
            assert_eq!(answer.unwrap().status(), StatusCode::OK);
        }
    }
    let shedding = ServiceBuilder::new()
        .layer(LoadShedLayer::new())
        .layer(ConcurrencyLimitLayer::new(1))
        .service(origin.clone());
    let service = layer().layer(shedding);
    service.clone().oneshot(get("/hot")).await.unwrap();
    let hold = origin.hold();
    let mut busy = Box::pin(service.clone().oneshot(get("/slow")));
    assert!(busy.as_mut().now_or_never().is_none());
    let shed = service.clone().oneshot(get("/other")).await.unwrap_err();
    assert!(shed.is::<Overloaded>(), "the inner service's own error");
    let hit = service.clone().oneshot(get("/hot")).await.unwrap();
    assert!(hit.headers().contains_key("age"), "a hit is not shed");
    drop(hold);
    busy.await.unwrap();
}

#[test]
fn types_are_what_tower_stacks_need() {
    fn is<T: Clone + Send + Sync + 'static>() {}
    fn moves<T: Send + 'static>() {}
    is::<CacheLayer>();
    is::<CacheHandle>();
    is::<CacheService<Origin>>();
    is::<CacheLayer<KeyedByContent<fn()>>>();
    is::<CacheService<Origin, KeyedByContent<fn()>>>();
    moves::<RequestBody<Body>>();
    moves::<ResponseBody<Body>>();
    moves::<ResponseFuture<Ready<Result<Response<Body>, Broken>>, Body, Broken>>();

    fn keeps_the_error<S, R>(_: &S, _: &CacheService<S>)
    where
        S: Service<R>,
        CacheService<S>: Service<R, Error = S::Error>,
    {
    }
    // Neither the error nor the bodies need be anything in particular.
    #[derive(Debug)]
    struct Bare;
    let inner = service_fn(|_: Request<Full<Bytes>>| async {
        Ok::<_, Bare>(Response::new(Full::new(Bytes::new())))
    });
    keeps_the_error(&inner, &layer().layer(inner));
}

#[tokio::test]
async fn a_request_body_need_not_be_sync() {
    struct Unsync(Cell<u8>);
    impl http_body::Body for Unsync {
        type Data = Bytes;
        type Error = Broken;
        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Bytes>, Broken>>> {
            self.0.set(1);
            Poll::Ready(None)
        }
    }
    let request = Request::builder()
        .uri("/a")
        .body(Unsync(Cell::new(0)))
        .unwrap();
    let answer = layer().layer(Origin::counting(&[])).oneshot(request);
    fn moves<T: Send>(value: T) -> T {
        value
    }
    assert!(moves(answer).await.is_ok());
}

#[tokio::test]
async fn clones_share_one_cache() {
    let layer = layer();
    let origin = Origin::counting(&[]);
    let one = layer.layer(origin.clone());
    let another = layer.clone().layer(origin.clone());
    for service in [one.clone(), another, one] {
        let answer = Answer::read(service.oneshot(get("/a")).await.unwrap()).await;
        assert_eq!(answer.text(), "1");
    }
    assert_eq!(layer.handle().stats().hits(), 2);
}

/// A future too large to be overlooked, which says where it was polled.
struct Large {
    _bulk: [u8; 4096],
    seen: Arc<AtomicUsize>,
    _pinned: PhantomPinned,
}

impl Future for Large {
    type Output = Result<Response<Body>, Broken>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        let place = std::ptr::from_ref(&*self).addr();
        self.seen.store(place, Ordering::SeqCst);
        Poll::Ready(Ok(response(&[], "")))
    }
}

#[tokio::test]
async fn the_future_of_a_request_that_passes_by_is_not_boxed() {
    let seen = Arc::new(AtomicUsize::new(0));
    let at = Arc::clone(&seen);
    let inner = service_fn(move |_: Request<Full<Bytes>>| Large {
        _bulk: [0; 4096],
        seen: Arc::clone(&at),
        _pinned: PhantomPinned,
    });
    let mut service = layer().layer(inner);
    for request in [get("/off"), request(Method::OPTIONS, "/a", &[])] {
        let mut future = std::pin::pin!(service.ready().await.unwrap().call(request));
        let start = std::ptr::from_ref(&*future).addr();
        let size = size_of::<ResponseFuture<Large, Body, Broken>>();
        assert!(future.as_mut().await.is_ok());
        let inside = seen.load(Ordering::SeqCst).checked_sub(start);
        assert!(
            inside.is_some_and(|offset| offset < size),
            "polled where it was made"
        );
    }
}

#[test]
fn neither_a_hit_nor_a_miss_in_memory_needs_a_runtime() {
    let cache = Cache::new(&Origin::counting(&[]), everywhere(ttl(60)));
    for expected in ["fwd=uri-miss; stored", "hit; ttl=60"] {
        let answer = cache.get("/a").now_or_never().expect("nothing to wait for");
        assert_eq!(answer.cache_status(), expected);
    }
    let answer = cache.method("PUT", "/a").now_or_never().unwrap();
    assert_eq!(answer.cache_status(), "fwd=method");
    assert!(
        cache
            .get("/a")
            .now_or_never()
            .unwrap()
            .cache_status()
            .starts_with("fwd=miss")
    );
}

#[test]
fn a_stale_answer_outside_a_runtime_is_given_and_not_refreshed() {
    let clock = tower_response_cache::ManualClock::new();
    let origin = Origin::counting(&[]);
    let service = layer().clock(clock.clock()).layer(origin.clone());
    let ask = || {
        service
            .clone()
            .oneshot(get("/a"))
            .now_or_never()
            .unwrap()
            .unwrap()
    };
    drop(Answer::read(ask()).now_or_never());
    clock.advance(Duration::from_secs(20));
    for _ in 0..2 {
        assert!(ask().headers().contains_key("age"));
    }
    assert_eq!(origin.calls(), 1);
}

#[test]
fn a_hit_is_ready_when_it_is_made() {
    let cache = Cache::new(&Origin::counting(&[]), everywhere(ttl(60)));
    cache.get("/a").now_or_never();
    let mut future = cache.service().call(get("/a"));
    let polled = Pin::new(&mut future).poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_ready());
}

#[tokio::test]
async fn a_handler_that_panics_takes_nothing_with_it() {
    let cache = Arc::new(Cache::new(&Origin::counting(&[]), everywhere(ttl(60))));
    for method in ["GET", "HEAD", "PUT", "OPTIONS"] {
        cache.origin.panic();
        let exchange = Arc::clone(&cache);
        let panicked = tokio::spawn(async move { exchange.method(method, "/a").await });
        assert!(panicked.await.unwrap_err().is_panic());
        cache.origin.answer(|_| response(&[], "well"));
        assert_eq!(cache.get("/a").await.text(), "well", "{method}");
        let _ = cache
            .handle()
            .invalidate(tower_response_cache::Target::everything())
            .await;
    }
}

#[tokio::test]
async fn a_handler_that_hangs_holds_nobody_else() {
    let cache = Cache::new(&Origin::counting(&[]), everywhere(ttl(60)));
    cache.origin.hang();
    let mut hanging = Box::pin(cache.get("/a"));
    assert!(hanging.as_mut().now_or_never().is_none());
    cache.origin.answer(|_| response(&[], "well"));
    assert_eq!(cache.get("/a").await.text(), "well");
    assert_eq!(cache.get("/a").await.cache_status(), "hit; ttl=60");
}

#[tokio::test]
async fn a_layer_fits_an_axum_router_and_a_single_route() {
    let origin = Origin::counting(&[]);
    let handler = origin.clone();
    let infallible = service_fn(move |request: Request<axum::body::Body>| {
        let answer = handler.clone().oneshot(request);
        async { Ok::<_, Infallible>(answer.await.expect("it is not told to fail")) }
    });
    let whole: Router = Router::new()
        .route_service("/a", infallible.clone())
        .layer(layer());
    let single: Router = Router::new()
        .route("/a", get_service(infallible.clone()).layer(layer()))
        .route_service("/b", infallible);
    for app in [whole, single] {
        let first = app.clone().oneshot(axum_get("/a")).await.unwrap();
        let etag = first.headers()["etag"].clone();
        let calls = origin.calls();
        let second = app.clone().oneshot(axum_get("/a")).await.unwrap();
        assert_eq!(
            (second.headers()["etag"].clone(), origin.calls()),
            (etag, calls)
        );
        assert!(second.headers().contains_key("age"));
    }
}

fn axum_get(uri: &str) -> Request<axum::body::Body> {
    Request::get(uri).body(axum::body::Body::empty()).unwrap()
}

#[tokio::test]
async fn a_handler_may_ask_the_cache_that_it_stands_behind() {
    type Inner = BoxCloneSyncService<Request<Full<Bytes>>, Response<Body>, Broken>;
    let front: Arc<OnceLock<CacheService<Inner>>> = Arc::default();
    let cache = Arc::clone(&front);
    let handler = service_fn(move |request: Request<Full<Bytes>>| {
        let cache = Arc::clone(&cache);
        async move {
            let next = match request.uri().path() {
                "/a" => "/b",
                "/b" => "/a?again",
                _ => return Ok(response(&[], "the end")),
            };
            let next = match request.uri().query() {
                Some(_) => "/c",
                None => next,
            };
            let service = cache.get().expect("it is set").clone();
            let answer = Box::pin(service.oneshot(get(next))).await?;
            Ok(response(&[], Answer::read(answer).await.body))
        }
    });
    let service = layer().layer(BoxCloneSyncService::new(handler));
    front.set(service.clone()).expect("it is set once");
    for _ in 0..2 {
        let answer = service.clone().oneshot(get("/a")).await.unwrap();
        assert_eq!(Answer::read(answer).await.text(), "the end");
    }
}

#[tokio::test]
async fn nested_routers_have_a_namespace_each() {
    let cache = layer();
    let version = |text: &'static str| {
        let namespace = text.parse().unwrap();
        let routes = Router::new().route("/a", axum::routing::get(async move || text));
        routes.layer(cache.clone().namespace(namespace))
    };
    let app = Router::new()
        .nest("/v1", version("v1"))
        .nest("/v2", version("v2"));
    for (uri, text) in [
        ("/v1/a", "v1"),
        ("/v2/a", "v2"),
        ("/v1/a", "v1"),
        ("/v2/a", "v2"),
    ] {
        let answer = app.clone().oneshot(axum_get(uri)).await.unwrap();
        let body = http_body_util::BodyExt::collect(answer.into_body())
            .await
            .unwrap();
        assert_eq!(body.to_bytes(), text);
    }
}

#[tokio::test]
async fn a_cache_over_a_cache_is_two_caches() {
    let origin = Origin::counting(&[]);
    let inner = layer().cache_status("inner").layer(origin.clone());
    let service = layer().cache_status("outer").layer(inner);
    let ask = async || Answer::read(service.clone().oneshot(get("/a")).await.unwrap()).await;
    assert_eq!(ask().await.text(), "1");
    let hit = ask().await;
    assert_eq!(hit.text(), "1");
    let lines: Vec<_> = hit.headers.get_all("cache-status").iter().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
}

#[tokio::test]
async fn extensions_of_requests_and_responses_pass() {
    #[derive(Clone, Debug, PartialEq)]
    struct Own(u8);
    let inner = service_fn(|request: Request<Full<Bytes>>| {
        let mut answer = response(&[], "");
        answer.extensions_mut().extend(request.extensions().clone());
        ready(Ok::<_, Broken>(answer))
    });
    let service = layer().layer(inner);
    for mut request in ways().into_iter().skip(2).chain([get("/miss")]) {
        request.extensions_mut().insert(Own(7));
        let answer = service.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.extensions().get(), Some(&Own(7)));
    }
}

#[tokio::test]
async fn a_refresh_has_the_parameters_of_its_path_and_not_what_it_is_to_be_without() {
    #[derive(Clone)]
    struct User(&'static str);
    let handler = |Path(name): Path<String>, user: Option<Extension<User>>| async move {
        format!("{name} for {}", user.map_or("nobody", |user| user.0.0))
    };
    let clock = tower_response_cache::ManualClock::new();
    let layer = layer().clock(clock.clock()).refresh_without::<User>();
    let app: Router = Router::new()
        .route("/{name}", axum::routing::get(handler))
        .layer(layer.clone());
    for (expected, seconds) in [("a for Ann", 20), ("a for Ann", 0), ("a for nobody", 0)] {
        let mut request = axum_get("/a");
        request.extensions_mut().insert(User("Ann"));
        let answer = app.clone().oneshot(request).await.unwrap();
        assert_eq!(Answer::read(answer).await.text(), expected);
        clock.advance(Duration::from_secs(seconds));
        settle().await;
    }
}

#[tokio::test]
async fn a_shutdown_waits_for_what_is_being_refreshed_and_no_longer_than_its_limit() {
    let clock = tower_response_cache::ManualClock::new();
    let inner = service_fn({
        let calls = Arc::new(AtomicUsize::new(0));
        move |_: Request<Full<Bytes>>| {
            let first = calls.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                match first {
                    true => Ok::<_, Broken>(response(&[], "")),
                    false => pending().await,
                }
            }
        }
    });
    let layer = layer().clock(clock.clock());
    let service = layer.layer(inner);
    for _ in 0..2 {
        Answer::read(service.clone().oneshot(get("/a")).await.unwrap()).await;
        clock.advance(Duration::from_secs(20));
    }
    assert!(!layer.handle().shutdown(Duration::from_millis(5)).await);
}

/// A service with one connection, which the body of each response holds until it is dropped.
struct OneConnection {
    origin: Origin,
    free: PollSemaphore,
    permit: Option<OwnedSemaphorePermit>,
}

impl OneConnection {
    fn new(origin: &Origin) -> Self {
        Self {
            origin: origin.clone(),
            free: PollSemaphore::new(Arc::new(Semaphore::new(1))),
            permit: None,
        }
    }
}

impl Clone for OneConnection {
    fn clone(&self) -> Self {
        Self {
            origin: self.origin.clone(),
            free: self.free.clone(),
            permit: None,
        }
    }
}

impl Service<Request<RequestBody<Full<Bytes>>>> for OneConnection {
    type Response = Response<Body>;
    type Error = Broken;
    type Future = BoxFuture<'static, Result<Response<Body>, Broken>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if self.permit.is_none() {
            self.permit = ready!(self.free.poll_acquire(cx));
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody<Full<Bytes>>>) -> Self::Future {
        let permit = self.permit.take().expect("it was ready");
        let answer = self.origin.clone().oneshot(request);
        Box::pin(async move {
            let held = move |frame| {
                let _held = &permit;
                frame
            };
            Ok(answer
                .await?
                .map(|body| body.map_frame(held).boxed_unsync()))
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_sent_again_when_its_first_answer_has_left_the_connection() {
    let origin = Origin::counting(&[("etag", "\"v\"")]);
    let clock = tower_response_cache::ManualClock::new();
    let layer = layer().clock(clock.clock()).keyed_by_content(identity);
    let service = layer.layer(OneConnection::new(&origin));
    let ask = async || {
        let answer = service.clone().oneshot(get("/a")).await.unwrap();
        Answer::read(answer).await
    };
    assert_eq!(ask().await.text(), "1");
    clock.advance(Duration::from_secs(200));
    origin.answer(
        |call| match call.head.headers.contains_key("if-none-match") {
            true => status(304, &[("etag", "\"other\"")], ""),
            false => response(&[], "new"),
        },
    );
    let answer = tokio::time::timeout(Duration::from_secs(60), ask()).await;
    assert_eq!(answer.expect("it waits for itself").text(), "new");
}
