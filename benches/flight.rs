//! What one flight costs its leader, and what it saves the others.
//!
//! `cargo bench --bench flight` prints criterion's figures and, at the end, those that matter.
//! Everything runs on one thread, so that the figures are of work and not of luck.

#[expect(dead_code, reason = "another bench needs the rest")]
mod support;

use std::convert::Infallible;
use std::future::Future;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use futures_util::future::join_all;
use http::{Request, Response};
use http_body_util::channel::Channel;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_response_cache::{CacheLayer, MemoryStore, Rule, Rules};

use support::Ratios;

const KIB: usize = 1 << 10;
const FOLLOWERS: usize = 64;

type Body = UnsyncBoxBody<Bytes, Infallible>;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut ratios = Ratios::default();
    lone_misses(&mut criterion, &mut ratios);
    first_bytes(&mut criterion, &mut ratios);
    shared_bodies(&mut criterion, &mut ratios);
    criterion.final_summary();
    ratios.print();
}

/// What does a flight cost when nobody follows?
fn lone_misses(criterion: &mut Criterion, ratios: &mut Ratios) {
    let runtime = runtime();
    let body = Bytes::from(vec![b'x'; KIB]);
    let bare = handler(move || {
        let body = body.clone();
        async move { Full::new(body).boxed_unsync() }
    });
    let mut group = criterion.benchmark_group("flight");
    let mut next = numbered();
    group.bench_function("bare handler 1 KiB", |bencher| {
        bencher.iter_batched(
            &mut next,
            |request| runtime.block_on(read(bare.clone(), request)),
            BatchSize::SmallInput,
        );
    });
    let cached = layer().layer(bare.clone());
    group.bench_function("lone miss 1 KiB", |bencher| {
        bencher.iter_batched(
            &mut next,
            |request| runtime.block_on(read(cached.clone(), request)),
            BatchSize::SmallInput,
        );
    });
    group.finish();
    ratios.difference(
        "miss 1 KiB that nobody follows, beyond the bare handler",
        "flight/lone miss 1 KiB",
        "flight/bare handler 1 KiB",
        Duration::from_micros(15),
    );
}

/// How long after the leader's does the first byte of a follower come?
fn first_bytes(criterion: &mut Criterion, ratios: &mut Ratios) {
    let runtime = runtime();
    let streaming = handler(|| async {
        let (mut sender, channel) = Channel::<Bytes, Infallible>::new(1);
        tokio::spawn(async move {
            for _ in 0..16 {
                yield_now().await;
                let piece = Bytes::from_static(&[b'x'; 64]);
                let _ = sender.send_data(piece).await;
            }
        });
        yield_now().await;
        channel.boxed_unsync()
    });
    let cached = layer().layer(streaming);
    let mut group = criterion.benchmark_group("flight");
    let mut next = numbered();
    for (name, who) in [("leader", 0), ("follower", 1)] {
        group.bench_function(format!("first byte of a {name}"), |bencher| {
            bencher.iter_custom(|rounds| {
                let mut came = |_| {
                    let request = next();
                    let both = [request.clone(), request]
                        .map(|request| first_byte(cached.clone(), request));
                    runtime.block_on(join_all(both))[who]
                };
                (0..rounds).map(&mut came).sum()
            });
        });
    }
    group.finish();
    ratios.difference(
        "first byte of a follower, after its leader's",
        "flight/first byte of a follower",
        "flight/first byte of a leader",
        Duration::from_millis(1),
    );
}

/// Do many that share a body get it faster than each its copy?
fn shared_bodies(criterion: &mut Criterion, ratios: &mut Ratios) {
    let runtime = runtime();
    let body = Bytes::from(vec![b'x'; KIB * KIB]);
    let copying = handler(move || {
        let body = Bytes::copy_from_slice(&body);
        async move {
            yield_now().await;
            Full::new(body).boxed_unsync()
        }
    });
    let mut group = criterion.benchmark_group("flight");
    let bytes = u64::try_from(FOLLOWERS * KIB * KIB).expect("64 MiB");
    group.throughput(Throughput::Bytes(bytes));
    let mut next = numbered();
    group.bench_function("64 copies of 1 MiB", |bencher| {
        bencher.iter_batched(
            &mut next,
            |request| runtime.block_on(read_all(&copying, &request)),
            BatchSize::LargeInput,
        );
    });
    let cached = layer().layer(copying.clone());
    group.bench_function("64 followers of 1 MiB", |bencher| {
        bencher.iter_batched(
            &mut next,
            |request| runtime.block_on(read_all(&cached, &request)),
            BatchSize::LargeInput,
        );
    });
    group.finish();
    ratios.compare(
        "64 followers of 1 MiB / 64 copies of it",
        "flight/64 followers of 1 MiB",
        "flight/64 copies of 1 MiB",
        1.0,
    );
}

/// Returns how long the first byte took to come.
async fn first_byte<S, B>(service: S, request: Request<Full<Bytes>>) -> Duration
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = Infallible>,
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let began = Instant::now();
    let response = service.oneshot(request).await.expect("infallible");
    let mut body = response.into_body();
    body.frame().await;
    let came = began.elapsed();
    while body.frame().await.is_some() {}
    came
}

async fn read_all<S, B>(service: &S, request: &Request<Full<Bytes>>)
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = Infallible> + Clone,
    B: http_body::Body<Data = Bytes>,
{
    join_all((0..FOLLOWERS).map(|_| read(service.clone(), request.clone()))).await;
}

async fn read<S, B>(service: S, request: Request<Full<Bytes>>)
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = Infallible>,
    B: http_body::Body<Data = Bytes>,
{
    let response = service.oneshot(request).await.expect("infallible");
    let body = response.into_body().collect().await;
    assert!(body.is_ok(), "the handler's body is whole");
}

fn handler<F>(
    body: impl Fn() -> F + Clone + Send + 'static,
) -> impl Service<Request<Full<Bytes>>, Response = Response<Body>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ 'static
where
    F: Future<Output = Body> + Send + 'static,
{
    service_fn(move |_: Request<Full<Bytes>>| {
        let body = body();
        async move { Ok(Response::new(body.await)) }
    })
}

fn layer() -> CacheLayer {
    let rules = Rules::builder()
        .route("/products/{id}", Rule::ttl(Duration::from_secs(3600)))
        .build()
        .expect("the rules are sound");
    CacheLayer::new(MemoryStore::new(256 << 20)).rules(rules)
}

/// Makes requests that nobody has made before.
fn numbered() -> impl FnMut() -> Request<Full<Bytes>> {
    let mut next = 0_u64;
    move || {
        next += 1;
        Request::get(format!("http://shop.example/products/{next}"))
            .body(Full::default())
            .expect("a request")
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}
