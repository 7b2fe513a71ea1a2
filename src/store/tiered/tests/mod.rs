//! Memory over a store that may be away, and over Redis.

mod away;
mod confined;
mod second;

use bytes::Bytes;
use tokio::join;

use self::second::Second;
use super::*;
use crate::clock::ManualClock;
use crate::store::conformance::{self, sample::Sample};

/// A process: memory of its own over a store that it may share.
struct Desk {
    store: TieredStore,
    namespace: Namespace,
    tier: Option<Tier>,
    time: ManualClock,
}

impl Desk {
    fn over(second: &Second) -> Self {
        Self::of(TieredStore::new(MemoryStore::new(16 << 20), second.clone()))
    }

    fn of(store: TieredStore) -> Self {
        Self {
            store,
            namespace: Namespace::default(),
            tier: None,
            time: ManualClock::new(),
        }
    }

    fn sample(&self) -> Sample {
        Sample::new(&self.namespace, "/a")
    }

    async fn capture(&self, sample: &Sample) -> Captured {
        let captured = self.store.capture(&self.namespace, &sample.scopes()).await;
        captured.unwrap()
    }

    async fn put(&self, sample: &Sample, captured: Captured, late: &[Scope]) -> Kept {
        let fill = Fill {
            namespace: self.namespace.clone(),
            response: Arc::new(sample.response(&self.time.clock())),
            captured,
            late: late.into(),
            retain: Duration::from_secs(600),
            tier: self.tier,
            clock: self.time.clock(),
        };
        self.store.put(fill).await.unwrap()
    }

    async fn fill(&self, sample: &Sample) -> Kept {
        self.put(sample, self.capture(sample).await, &[]).await
    }

    async fn invalidate(&self, scopes: &[Scope]) -> Result<(), Error> {
        self.store.invalidate(&self.namespace, scopes).await
    }

    async fn look_up(&self, sample: &Sample) -> Result<Found, Error> {
        let clock = self.time.clock();
        let wanted = self.wanted(sample, &clock);
        self.store.lookup(wanted, &sample.scopes()).await
    }

    async fn body(&self, sample: &Sample) -> Option<Bytes> {
        body_of(self.look_up(sample).await.ok()?)
    }

    /// Returns the body if memory knows without asking.
    fn peek(&self, sample: &Sample) -> Option<Bytes> {
        let clock = self.time.clock();
        body_of(self.store.peek(&self.wanted(sample, &clock))?)
    }

    fn wanted<'a>(&'a self, sample: &'a Sample, clock: &'a Clock) -> Wanted<'a> {
        Wanted {
            namespace: &self.namespace,
            key: &sample.key,
            fields: &sample.request,
            tier: self.tier,
            clock,
        }
    }
}

const TIERS: [Option<Tier>; 3] = [None, Some(Tier::Memory), Some(Tier::Shared)];

fn body_of(found: Found) -> Option<Bytes> {
    match found.outcome {
        Outcome::Response(response) => Some(response.body().clone()),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_conforms_over_another_in_memory() {
    let second = Second::of(64 << 20);
    let tiered = Desk::over(&second).store;
    for tier in TIERS {
        conformance::run_in(Arc::new(tiered.clone()), tier).await;
    }
    second.mute();
    for tier in TIERS {
        conformance::run_in(Arc::new(tiered.clone()), tier).await;
    }
}

#[cfg(feature = "redis")]
#[tokio::test(flavor = "multi_thread")]
async fn the_store_conforms_over_redis() {
    use crate::store::redis::{RedisStore, redis_server::RedisServer};

    let redis = RedisServer::start();
    // A busy machine is no fault of the store.
    let patience = Duration::from_secs(5);
    let builder = RedisStore::builder(&redis.url())
        .read_timeout(patience)
        .capture_timeout(patience);
    let second = builder.connect().await.unwrap();
    let tiered = TieredStore::new(MemoryStore::new(64 << 20), second);
    for tier in TIERS {
        conformance::run_in(Arc::new(tiered.clone()), tier).await;
    }
}

#[cfg(feature = "redis")]
#[tokio::test]
async fn a_hit_in_memory_over_redis_is_no_command() {
    use crate::store::redis::{RedisStore, redis_server::RedisServer};

    let redis = RedisServer::start();
    let second = RedisStore::connect(&redis.url()).await.unwrap();
    let desk = Desk::of(TieredStore::new(MemoryStore::new(16 << 20), second));
    let sample = desk.sample();
    desk.fill(&sample).await;
    while desk.peek(&sample).is_none() {
        assert!(desk.body(&sample).await.is_some());
    }
    redis.command(&["CONFIG", "RESETSTAT"]);
    for _ in 0..1000 {
        assert!(desk.peek(&sample).is_some());
    }
    let commands = redis.command(&["INFO", "commandstats"]);
    assert!(!commands.contains("get:calls"), "{commands}");
}

#[tokio::test]
async fn what_is_vouched_for_is_served_without_asking() {
    let second = Second::new();
    let desk = Desk::over(&second);
    let sample = desk.sample();
    assert_eq!(desk.fill(&sample).await, Kept::Stored);
    assert_eq!(desk.peek(&sample), Some("/a".into()));
    assert_eq!(second.asked(), (0, 0));
}

#[tokio::test]
async fn what_is_not_vouched_for_is_confirmed_and_not_looked_up() {
    let second = Second::new();
    let desk = Desk::over(&second);
    let sample = desk.sample();
    desk.fill(&sample).await;
    second.mute();
    assert_eq!(desk.peek(&sample), None);
    assert_eq!(desk.body(&sample).await, Some("/a".into()));
    assert_eq!(second.asked(), (0, 1));
}

#[tokio::test]
async fn what_the_second_store_finds_comes_up_and_is_the_same() {
    let second = Second::new();
    let [one, other] = [(); 2].map(|()| Desk::over(&second));
    let sample = one.sample();
    one.fill(&sample).await;
    assert_eq!(other.peek(&sample), None);
    let Ok(Found {
        outcome: Outcome::Response(found),
        ..
    }) = other.look_up(&sample).await
    else {
        panic!("it is there");
    };
    assert_eq!(other.peek(&sample), Some("/a".into()));
    other.store.remove(&found).await.unwrap();
    assert_eq!(other.store.usage().responses, 0);
    assert_eq!(other.body(&sample).await, None, "removed from both");
}

#[tokio::test]
async fn what_one_process_invalidates_no_other_serves() {
    let second = Second::new();
    let [one, other] = [(); 2].map(|()| Desk::over(&second));
    let sample = one.sample();
    for vouching in [true, false] {
        if !vouching {
            second.mute();
        }
        for scope in sample.scopes() {
            one.fill(&sample).await;
            other.body(&sample).await;
            one.invalidate(&[scope]).await.unwrap();
            for desk in [&one, &other] {
                assert_eq!(desk.peek(&sample), None);
                assert_eq!(desk.body(&sample).await, None, "{scope:?}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_stale_here_another_process_may_have_renewed() {
    let second = Second::new();
    let [one, other] = [(); 2].map(|()| Desk::over(&second));
    let [old, new] = ["old", "new"].map(|body| one.sample().body(body));
    one.fill(&old).await;
    assert_eq!(other.body(&old).await, Some("old".into()));
    for desk in [&one, &other] {
        desk.time.advance(Duration::from_secs(60));
    }
    assert_eq!(one.peek(&old), None);
    one.fill(&new).await;
    assert_eq!(other.peek(&old), None);
    assert_eq!(other.body(&old).await, Some("new".into()));
}

#[tokio::test]
async fn each_store_keeps_what_it_has_room_for() {
    let second = Second::new();
    let desk = Desk::over(&second);
    let desk = Desk::of(desk.store.memory_max_body(1 << 19));
    let held = |body: usize, in_memory: bool, below: bool| {
        let (desk, second) = (&desk, &second);
        let sample = desk.sample().body(vec![b'x'; body]);
        async move {
            let kept = desk.fill(&sample).await;
            assert_eq!(kept == Kept::Stored, in_memory || below);
            assert_eq!(desk.peek(&sample).is_some(), in_memory, "{body}");
            let other = Desk::over(second);
            assert_eq!(other.body(&sample).await.is_some(), below, "{body}");
            desk.invalidate(&sample.scopes()).await.unwrap();
            assert_eq!(desk.peek(&sample), None);
        }
    };
    // The second store takes an eighth of a mebibyte.
    held(1 << 10, true, true).await;
    held(1 << 18, true, false).await;
    held(1 << 20, false, false).await;
    let small = Desk::of(Desk::over(&second).store.memory_max_body(100));
    let sample = small.sample().body(vec![b'x'; 101]);
    small.fill(&sample).await;
    assert_eq!(small.peek(&sample), None);
    assert!(small.body(&sample).await.is_some());
}

#[tokio::test]
async fn a_response_with_late_tags_supersedes_the_one_in_memory() {
    let second = Second::new();
    let desk = Desk::over(&second);
    let [old, new] = ["old", "new"].map(|body| desk.sample().body(body));
    desk.fill(&old).await;
    let tag = Scope::tag("default", b"t");
    let captured = desk.capture(&new).await;
    assert_eq!(desk.put(&new, captured, &[tag]).await, Kept::Stored);
    assert_eq!(desk.peek(&new), None);
    assert_eq!(desk.body(&new).await, Some("new".into()));
    assert_eq!(desk.peek(&new), Some("new".into()));
    Desk::over(&second).invalidate(&[tag]).await.unwrap();
    assert_eq!(desk.peek(&new), None);
}

#[tokio::test]
async fn what_was_invalidated_while_it_came_up_is_not_held() {
    let second = Second::new();
    let desk = Desk::over(&second);
    let sample = desk.sample();
    desk.fill(&sample).await;
    let other = Desk::of(
        Desk::over(&second)
            .store
            .when_away(WhenAway::Serve(Duration::MAX)),
    );
    second.hold_back();
    let (_, ()) = join!(other.look_up(&sample), async {
        other.invalidate(&sample.scopes()).await.unwrap();
        second.release();
    });
    assert_eq!(other.store.usage().responses, 0);
    second.set_away(true);
    assert_eq!(other.body(&sample).await, None);
}
