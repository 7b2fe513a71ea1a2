//! Of the processes that miss the same, one fetches; whatever happens to its lock, the others only
//! fetch too.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::proxy::{Mood, Proxy};
use super::*;
use crate::store::{FillLock, FillWait, Settled};

/// As good as at once, on a machine that is busy with other tests.
const AT_ONCE: Duration = Duration::from_millis(20);
/// Longer than the longest pause between two looks at a lock.
const SOON: Duration = Duration::from_millis(400);

async fn claim(desk: &Desk, sample: &Sample) -> Claim {
    let (_, claim) = desk.claim(sample, None).await.unwrap();
    claim
}

async fn lock(desk: &Desk, sample: &Sample) -> FillLock {
    match claim(desk, sample).await {
        Claim::Granted(lock) => lock,
        claim => panic!("{claim:?}"),
    }
}

async fn wait(desk: &Desk, sample: &Sample) -> FillWait {
    match claim(desk, sample).await {
        Claim::Elsewhere(wait) => wait,
        claim => panic!("{claim:?}"),
    }
}

fn lock_name(desk: &Desk, sample: &Sample) -> String {
    let place = Place::of(&desk.namespace, &sample.key, sample.scopes().into_iter());
    place.lock(place.primary()).to_string()
}

/// What a request does that has missed; notes that it has claimed, and that it has fetched.
async fn resolve(desk: Desk, everyone: Arc<Barrier>, calls: Arc<AtomicUsize>) -> Bytes {
    let sample = desk.sample("/a");
    let (captured, claim) = desk.claim(&sample, None).await.unwrap();
    // The handler takes as long as it takes others to miss, too.
    everyone.wait().await;
    match claim {
        Claim::Granted(_lock) => {
            calls.fetch_add(1, Ordering::Relaxed);
            desk.put(&sample, captured, &[]).await.unwrap();
        }
        Claim::Elsewhere(wait) => assert_eq!(wait.await, Settled::Released),
        Claim::Uncacheable => panic!("nobody said so"),
    }
    desk.body(&sample).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_three_processes_that_miss_the_same_a_hundred_times_one_fetches() {
    let redis = RedisServer::start();
    let (everyone, calls) = (Arc::new(Barrier::new(300)), Arc::default());
    let mut tasks = JoinSet::new();
    for _ in 0..3 {
        let desk = Desk::new(&redis).await;
        for _ in 0..100 {
            let (everyone, calls) = (Arc::clone(&everyone), Arc::clone(&calls));
            tasks.spawn(resolve(desk.clone(), everyone, calls));
        }
    }
    assert!(tasks.join_all().await.iter().all(|body| body == "/a"));
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_lock_that_is_evicted_costs_a_second_fetch_and_no_more() {
    let redis = RedisServer::start();
    let [one, other] = [Desk::new(&redis).await, Desk::new(&redis).await];
    let [old, new] = ["old", "new"].map(|body| one.sample("/a").body(body));
    let (captured, claim) = one.claim(&old, None).await.unwrap();
    redis.command(&["DEL", &lock_name(&one, &old)]);
    one.invalidate(&old.scopes()[2..]).await.unwrap();

    let (later, second) = other.claim(&new, None).await.unwrap();
    assert!(matches!(second, Claim::Granted(_)));
    other.put(&new, later, &[]).await.unwrap();
    let kept = one.put(&old, captured, &[]).await.unwrap();
    assert_eq!(kept, Kept::Invalidated);
    drop((claim, second));
    assert_eq!(one.body(&old).await, Some("new".into()));
}

#[tokio::test]
async fn the_lock_of_a_process_that_died_ends_by_itself() {
    let redis = RedisServer::start();
    let [one, other] = [Desk::new(&redis).await, Desk::new(&redis).await];
    let sample = one.sample("/a");
    let _lock = lock(&one, &sample).await;
    one.store.close().await;
    let wait = wait(&other, &sample).await;
    let name = lock_name(&one, &sample);
    let left: u64 = redis.command(&["PTTL", &name]).parse().unwrap();
    assert!((3_000..=5_000).contains(&left), "{left}");
    // What would happen then, a little earlier.
    redis.command(&["PEXPIRE", &name, "50"]);
    assert_eq!(timeout(SOON, wait).await, Ok(Settled::Released));
    lock(&other, &sample).await.uncacheable();
}

#[tokio::test]
async fn the_lock_of_a_fetch_that_hangs_keeps_others_for_five_seconds() {
    let redis = RedisServer::start();
    let [one, other] = [Desk::new(&redis).await, Desk::new(&redis).await];
    let sample = one.sample("/a");
    let began = Instant::now();
    let hanging = lock(&one, &sample).await;
    let wait = wait(&other, &sample).await;
    // The time is that of the server.
    assert_eq!(wait.await, Settled::Released);
    let took = began.elapsed();
    assert!((4_900..5_400).contains(&took.as_millis()), "{took:?}");
    let _next = lock(&other, &sample).await;
    drop(hanging);
    sleep(Duration::from_millis(50)).await;
    let taken = redis.command(&["EXISTS", &lock_name(&one, &sample)]);
    assert_eq!(taken, "1", "what another holds is left alone");
}

#[tokio::test]
async fn after_an_uncacheable_answer_nobody_waits_for_some_seconds() {
    let redis = RedisServer::start();
    let [one, other] = [Desk::new(&redis).await, Desk::new(&redis).await];
    let sample = one.sample("/a");
    let held = lock(&one, &sample).await;
    let wait = wait(&other, &sample).await;
    held.uncacheable();
    assert_eq!(timeout(SOON, wait).await, Ok(Settled::Uncacheable));
    for desk in [&one, &other] {
        assert!(matches!(claim(desk, &sample).await, Claim::Uncacheable));
    }
    let left: u64 = redis
        .command(&["PTTL", &lock_name(&one, &sample)])
        .parse()
        .unwrap();
    assert!((1..=5_000).contains(&left), "{left}");
}

#[tokio::test]
async fn requests_for_different_variants_do_not_wait_for_each_other() {
    let redis = RedisServer::start();
    let [one, other] = [Desk::new(&redis).await, Desk::new(&redis).await];
    let [german, english, french] = ["de", "en", "fr"].map(|language| in_language(&one, language));
    one.fill(&german, &[]).await;
    for (desk, sample) in [(&one, &english), (&other, &french)] {
        assert!(matches!(
            desk.outcome(sample).await,
            Outcome::OtherVariants(_)
        ));
    }
    let _locks = [lock(&one, &english).await, lock(&other, &french).await];
    let _wait = wait(&other, &english).await;
}

#[tokio::test]
async fn while_the_server_is_away_claims_are_granted_and_waits_end_at_once() {
    let mut redis = RedisServer::start();
    let [one, other] = [Desk::new(&redis).await, Desk::new(&redis).await];
    let sample = one.sample("/a");
    let held = lock(&one, &sample).await;
    let (captured, Claim::Elsewhere(wait)) = other.claim(&sample, None).await.unwrap() else {
        panic!("one holds the lock");
    };
    redis.kill();
    assert_eq!(timeout(SOON, wait).await, Ok(Settled::Released));
    let began = Instant::now();
    let error = other.claim(&sample, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let (same, claim) = other.claim(&sample, Some(captured.clone())).await.unwrap();
    assert_eq!(same, captured);
    assert!(matches!(claim, Claim::Granted(_)));
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    drop(held);
}

#[tokio::test]
async fn a_lock_of_which_nobody_hears_in_time_is_given_back() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(&redis).await;
    let limit = Duration::from_millis(50);
    let hasty = patient(&proxy.url()).capture_timeout(limit);
    let [hasty, leaving, other] = [
        Desk::of(hasty.connect().await.unwrap()),
        Desk::of(patient(&proxy.url()).connect().await.unwrap()),
        Desk::new(&redis).await,
    ];
    let sample = other.sample("/a");
    let captured = other.capture(&sample.scopes()).await.unwrap();
    let claim = |desk: &Desk| {
        let (desk, sample, captured) = (desk.clone(), other.sample("/a"), captured.clone());
        async move { desk.claim(&sample, Some(captured)).await }
    };
    proxy.set(Mood::Delay(Duration::from_millis(150)));
    for (desk, patience) in [(&hasty, SOON), (&leaving, limit)] {
        let _ = timeout(patience, claim(desk)).await;
        // Until the server has been asked twice more.
        sleep(Duration::from_secs(1)).await;
        let taken = redis.command(&["EXISTS", &lock_name(&other, &sample)]);
        assert_eq!(taken, "0", "{patience:?}");
    }
    let _held = lock(&other, &sample).await;
    let _ = timeout(limit, claim(&leaving)).await;
    sleep(Duration::from_secs(1)).await;
    let taken = redis.command(&["EXISTS", &lock_name(&other, &sample)]);
    assert_eq!(taken, "1", "what another holds is left alone");
}

#[tokio::test]
async fn a_lock_that_the_server_refuses_is_not_waited_for() {
    let redis = RedisServer::start();
    let desk = Desk::new(&redis).await;
    let sample = desk.sample("/a");
    desk.capture(&sample.scopes()).await.unwrap();
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    for _ in 0..2 {
        let (captured, claim) = desk.claim(&sample, None).await.unwrap();
        assert_eq!(captured.stamp.iter().count(), 3);
        assert!(matches!(claim, Claim::Granted(_)));
    }
    assert_eq!(redis.command(&["EXISTS", &lock_name(&desk, &sample)]), "0");
}

/// Returns how often the server was asked for a value since the last `CONFIG RESETSTAT`.
fn gets(redis: &RedisServer) -> u32 {
    let counts = redis.command(&["INFO", "commandstats"]);
    let count = counts.split_once("cmdstat_get:calls=");
    count.map_or(0, |(_, rest)| {
        rest.split(',').next().unwrap().parse().unwrap()
    })
}

/// Waits until the store is told by its server.
async fn until_told(desk: &Desk) {
    let sample = desk.sample("/told");
    let stamp = desk.capture(&sample.scopes()).await.unwrap().stamp;
    while !desk.store.vouches_for(&stamp) {
        let _ = desk.store.confirm(&desk.namespace, &stamp).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_another_process_is_told_when_it_has_stored() {
    let redis = RedisServer::start();
    let [one, other] = [Desk::new(&redis).await, Desk::new(&redis).await];
    until_told(&other).await;
    let mut delays = Vec::new();
    for round in 0..20 {
        let sample = one.sample(&format!("/{round}"));
        let (captured, claim) = one.claim(&sample, None).await.unwrap();
        let waiting = wait(&other, &sample).await;
        let waiting = tokio::spawn(async move { (waiting.await, Instant::now()) });
        sleep(Duration::from_millis(30)).await;
        one.put(&sample, captured, &[]).await.unwrap();
        let stored = Instant::now();
        drop(claim);
        let (settled, told) = waiting.await.unwrap();
        assert_eq!(settled, Settled::Released);
        assert!(other.body(&sample).await.is_some());
        delays.push(told.saturating_duration_since(stored));
    }
    delays.sort_unstable();
    assert!(delays[10] < Duration::from_millis(5), "{delays:?}");
}

#[tokio::test]
async fn who_waits_for_another_process_asks_twice() {
    let redis = RedisServer::start();
    let [one, other] = [Desk::new(&redis).await, Desk::new(&redis).await];
    until_told(&other).await;
    let sample = one.sample("/a");
    let held = lock(&one, &sample).await;
    let waiting = wait(&other, &sample).await;
    redis.command(&["CONFIG", "RESETSTAT"]);
    let waiting = tokio::spawn(waiting);
    sleep(Duration::from_millis(700)).await;
    drop(held);
    assert_eq!(waiting.await.unwrap(), Settled::Released);
    assert_eq!(gets(&redis), 2);
}

#[tokio::test]
async fn several_who_wait_for_one_lock_do_not_wake_each_other_for_ever() {
    let redis = RedisServer::start();
    let [one, other] = [Desk::new(&redis).await, Desk::new(&redis).await];
    until_told(&other).await;
    let sample = one.sample("/a");
    let held = lock(&one, &sample).await;
    let mut waits = JoinSet::new();
    for _ in 0..5 {
        waits.spawn(wait(&other, &sample).await);
    }
    let leaving = wait(&other, &sample).await;
    redis.command(&["CONFIG", "RESETSTAT"]);
    let _ = timeout(Duration::from_millis(100), leaving).await;
    sleep(Duration::from_millis(300)).await;
    assert!(
        gets(&redis) <= 11,
        "each looks at most twice: {}",
        gets(&redis)
    );
    drop(held);
    assert_eq!(waits.join_all().await, [Settled::Released; 5]);
}

#[tokio::test]
async fn where_the_server_does_not_tell_it_is_asked() {
    let redis = RedisServer::start();
    let one = Desk::new(&redis).await;
    let other = Desk::with(&redis, |builder| builder.mirroring(Mirroring::Off)).await;
    let sample = one.sample("/a");
    let held = lock(&one, &sample).await;
    let waiting = tokio::spawn(wait(&other, &sample).await);
    sleep(Duration::from_millis(300)).await;
    assert!(gets(&redis) > 4, "{}", gets(&redis));
    drop(held);
    assert_eq!(
        timeout(SOON, waiting).await.unwrap().unwrap(),
        Settled::Released
    );
}
