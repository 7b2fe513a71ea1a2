//! Clients that go away, and handlers that die, at any point: nothing of them is left, and nobody
//! else is lost.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::join_all;
use http::{Request, Response};
use http_body_util::Full;
use proptest::prelude::*;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::Instant;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::util::BoxCloneService;
use tower::{Layer, ServiceExt, service_fn};
use tower_response_cache::{CacheHandle, CacheLayer, ResponseBody};

use crate::support::{
    Answer, Body, Broken, Double, everywhere, get, pieces, response, settle, ttl,
};

/// How many calls of the handler there can be at a time.
const PERMITS: usize = 8;
/// More polls than any client needs.
const POLLS: usize = 200;

/// What a cache says of itself when nobody wants anything of it.
const AT_REST: [&str; 5] = [
    "open: Some(0)",
    "followers: 0",
    "under_way: {}",
    "storing: Storing(Mutex { data: {} })",
    "len: 0",
];

type Service = BoxCloneService<Request<Full<Bytes>>, Response<ResponseBody<Body>>, Broken>;
type Client = Pin<Box<dyn Future<Output = Result<Answer, Broken>> + Send>>;

/// A cache over a store of which every call waits, in front of a handler that waits too.
struct Scene {
    service: Service,
    handle: CacheHandle,
    store: Double,
    permits: Arc<Semaphore>,
    calls: Arc<AtomicUsize>,
}

/// What the handler answers with.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    AtHand,
    Streamed,
    /// Streamed, and longer than what is stored.
    TooLong,
}

/// How the first call of the handler comes to nothing, after so many polls.
#[derive(Clone, Copy, Debug)]
enum Death {
    Fails(usize),
    Panics(usize),
}

impl Scene {
    fn new(shape: Shape, death: Option<Death>) -> Self {
        let (store, permits) = (Double::new(), Arc::new(Semaphore::new(PERMITS)));
        let calls = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&calls);
        let handler = service_fn(move |_: Request<Full<Bytes>>| {
            let before = counted.fetch_add(1, Ordering::SeqCst);
            answer(shape, death.filter(|_| before == 0))
        });
        let limited = GlobalConcurrencyLimitLayer::with_semaphore(Arc::clone(&permits));
        let rules = everywhere(ttl(60)).build().unwrap();
        let longest = match shape {
            Shape::TooLong => 20,
            _ => 1 << 20,
        };
        let layer = CacheLayer::new(store.clone())
            .rules(rules)
            .max_body(longest);
        Self {
            handle: layer.handle(),
            service: (layer, limited).layer(handler).boxed_clone(),
            store,
            permits,
            calls,
        }
    }

    /// Asks, and reads the answer a poll later, so that it can be dropped unread.
    fn ask(&self, uri: &str) -> Client {
        let asked = self.service.clone().oneshot(get(uri));
        Box::pin(async move {
            let response = asked.await?;
            yield_now().await;
            Ok(Answer::read(response).await)
        })
    }

    /// Checks that the next one is served, at once, and that then nothing goes on any more.
    async fn assert_at_rest(&self, uri: &str) {
        let began = Instant::now();
        let answer = self.ask(uri).await.unwrap();
        assert_eq!(answer.body, words().concat());
        assert_eq!(began.elapsed(), Duration::ZERO, "it waits for nothing");
        settle().await;
        assert_eq!(self.permits.available_permits(), PERMITS);
        assert_eq!(self.store.claims(), 0);
        assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
        let state = format!("{:?}", self.handle);
        for rest in AT_REST {
            assert!(state.contains(rest), "{rest} in {state}");
        }
    }

    /// Checks that nothing holds the cache but those who use it.
    fn assert_released(self) {
        drop((self.service, self.handle));
        assert!(!self.store.is_shared());
    }
}

async fn answer(shape: Shape, death: Option<Death>) -> Result<Response<Body>, Broken> {
    let waits = match death {
        Some(Death::Fails(polls) | Death::Panics(polls)) => polls,
        None => 3,
    };
    for _ in 0..waits {
        yield_now().await;
    }
    match death {
        Some(Death::Fails(_)) => Err(Broken),
        // Without the hook, which would report each.
        Some(Death::Panics(_)) => resume_unwind(Box::new(Broken)),
        None if shape == Shape::AtHand => Ok(response(&[], words().concat())),
        None => Ok(response(&[], "").map(|_| pieces(words()))),
    }
}

fn words() -> Vec<Bytes> {
    let word = |number| Bytes::from(format!("word {number} "));
    (0..8).map(word).collect()
}

/// Polls a client so often, with time for other tasks in between, and drops it; returns what it
/// came to before.
async fn polled(mut client: Client, polls: usize) -> Option<Result<Answer, Broken>> {
    for _ in 0..polls {
        if let Some(answer) = (&mut client).now_or_never() {
            return Some(answer);
        }
        yield_now().await;
    }
    None
}

#[tokio::test(start_paused = true)]
async fn clients_dropped_after_every_number_of_polls_leave_nothing_behind() {
    let shapes = [Shape::AtHand, Shape::Streamed, Shape::TooLong];
    for (shape, elsewhere) in shapes.map(|shape| [(shape, false), (shape, true)]).concat() {
        let scene = Scene::new(shape, None);
        let mut cases = 0;
        'leader: for leads in 0.. {
            for follows in 0.. {
                let uri = format!("/{leads}/{follows}");
                assert!(leads < POLLS && follows < POLLS, "{uri}: it has no end");
                if elsewhere {
                    scene.store.claim_elsewhere(Duration::ZERO);
                }
                let (leader, follower) = (scene.ask(&uri), scene.ask(&uri));
                let (led, followed) =
                    tokio::join!(polled(leader, leads), polled(follower, follows));
                scene.assert_at_rest(&uri).await;
                cases += 1;
                let calls = scene.calls.load(Ordering::SeqCst);
                let stored = shape != Shape::TooLong;
                assert!(!stored || calls == cases, "{uri}: one call serves all");
                match (led, followed) {
                    (Some(_), Some(_)) => break 'leader,
                    (None, Some(_)) => break,
                    (_, None) => {}
                }
            }
        }
        assert!(cases >= 100, "{cases}");
        scene.assert_released();
    }
}

/// What becomes of a leader, and of those who follow it.
#[derive(Clone, Debug)]
struct Fate {
    shape: Shape,
    /// After how many polls its client goes.
    leaves: usize,
    death: Option<Death>,
    /// After how many polls of its own each of the others comes.
    followers: Vec<usize>,
}

fn fates() -> impl Strategy<Value = Fate> {
    let death = prop_oneof![
        2 => Just(None),
        1 => (0..8_usize).prop_map(|polls| Some(Death::Fails(polls))),
        1 => (0..8_usize).prop_map(|polls| Some(Death::Panics(polls))),
    ];
    let followers = prop::collection::vec(0..30_usize, 1..6);
    let shape = prop_oneof![
        Just(Shape::AtHand),
        Just(Shape::Streamed),
        Just(Shape::TooLong),
    ];
    let fate = (shape, 0..40_usize, death, followers);
    fate.prop_map(|(shape, leaves, death, followers)| Fate {
        shape,
        leaves,
        death,
        followers,
    })
}

/// What a client came to; `None` if it went away, or the handler died on it.
type Came = Option<Answer>;

async fn lead(scene: &Scene, leaves_after: usize) -> Came {
    let asked = polled(scene.ask("/a"), leaves_after);
    let came = AssertUnwindSafe(asked).catch_unwind().await;
    came.ok()??.ok()
}

async fn follow(scene: &Scene, comes_after: usize) -> Came {
    for _ in 0..comes_after {
        yield_now().await;
    }
    let came = AssertUnwindSafe(scene.ask("/a")).catch_unwind().await;
    came.ok()?.ok()
}

async fn befalls(fate: Fate) {
    let scene = Scene::new(fate.shape, fate.death);
    let began = Instant::now();
    let followers = fate.followers.iter().map(|comes| follow(&scene, *comes));
    let (led, followed) = tokio::join!(lead(&scene, fate.leaves), join_all(followers));
    assert_eq!(began.elapsed(), Duration::ZERO, "nobody is stuck");
    // Who calls the handler first may be one of them.
    let died = followed.iter().filter(|came| came.is_none()).count();
    assert!(died <= usize::from(led.is_none() && fate.death.is_some()));
    for answer in followed.into_iter().chain([led]).flatten() {
        assert_eq!(answer.body, words().concat());
    }
    scene.assert_at_rest("/a").await;
    scene.assert_released();
}

fn runtime() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_thousand_leaders_killed_at_any_point_take_nobody_with_them(fate in fates()) {
        runtime().block_on(befalls(fate));
    }
}
