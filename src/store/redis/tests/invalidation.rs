//! Nothing is read that is older than an invalidation of one of its scopes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join_all;
use redis::ConnectionLike;
use tokio::time::{Instant, sleep};

use super::*;
use crate::epoch::Stamp;
use crate::store::redis::connection::Replies;
use crate::store::redis::epochs::Known;

/// Longer than the margin within which ages are not believed.
const AWHILE: Duration = Duration::from_millis(80);

/// What the tests know of a scope: how often its epoch was lost.
type Losses = HashMap<Scope, u64>;

fn losses(losses: &Losses, scopes: &[Scope]) -> Vec<u64> {
    scopes
        .iter()
        .map(|scope| losses.get(scope).copied().unwrap_or_default())
        .collect()
}

/// A response on its way: captured, and not stored yet.
struct Pending {
    sample: Sample,
    body: String,
    scopes: Vec<Scope>,
    captured: Captured,
    losses: Vec<u64>,
}

#[tokio::test]
async fn an_epoch_that_was_lost_in_any_way_never_comes_back() {
    let redis = RedisServer::start();
    let desks = [Desk::new(&redis).await, Desk::new(&redis).await];
    let [desk, _] = &desks;
    let samples: Vec<_> = (0..6).map(|n| desk.sample(&format!("/{n}"))).collect();
    let tags: Vec<_> = (0..3).map(|n| desk.tag(&n.to_string())).collect();
    let mut every_scope: Vec<_> = samples.iter().flat_map(Sample::scopes).collect();
    every_scope.extend(&tags);
    every_scope.sort_unstable();
    every_scope.dedup();

    let mut random = Random(42);
    let (mut lost, mut pending, mut stored) =
        (Losses::new(), Vec::<Pending>::new(), HashMap::new());
    let (mut hits, mut misses) = (0, 0);
    for step in 0..10_000 {
        let desk = &desks[random.below(2)];
        let place = random.below(samples.len());
        let sample = &samples[place];
        let scope = every_scope[random.below(every_scope.len())];
        match random.below(100) {
            0 => {
                desk.invalidate(&[scope]).await.unwrap();
                *lost.entry(scope).or_default() += 1;
            }
            1 => {
                // As eviction or expiry would.
                redis.command(&["DEL", &layout::epoch(&desk.namespace, scope).to_string()]);
                *lost.entry(scope).or_default() += 1;
            }
            2 if random.below(50) == 0 => {
                redis.command(&["FLUSHALL"]);
                every_scope
                    .iter()
                    .for_each(|scope| *lost.entry(*scope).or_default() += 1);
            }
            3..25 => {
                let mut scopes = sample.scopes().to_vec();
                scopes.extend(tags.iter().take(random.below(3)));
                pending.push(Pending {
                    sample: sample.clone(),
                    body: step.to_string(),
                    captured: desk.capture(&scopes).await.unwrap(),
                    losses: losses(&lost, &scopes),
                    scopes,
                });
            }
            25..50 if !pending.is_empty() => {
                let late = pending.swap_remove(random.below(pending.len()));
                let sample = late.sample.clone().body(late.body.clone());
                let kept = desk.put(&sample, late.captured, &[]).await.unwrap();
                let current = losses(&lost, &late.scopes) == late.losses;
                assert_eq!(kept == Kept::Stored, current, "step {step}");
                if current {
                    stored.insert(late.sample.key, (late.body, late.scopes, late.losses));
                }
            }
            _ => {
                let expected = stored
                    .get(&sample.key)
                    .filter(|(_, scopes, then)| losses(&lost, scopes) == *then);
                let body = desk.body(sample).await;
                if body.is_some() {
                    let expected = expected.map(|(body, ..)| body.clone().into());
                    assert_eq!(body, expected, "step {step}");
                    hits += 1;
                } else {
                    misses += 1;
                }
            }
        }
    }
    assert!(hits > 500 && misses > 500, "{hits} hits, {misses} misses");
}

#[tokio::test]
async fn an_invalidation_that_too_few_replicas_know_of_is_not_applied() {
    let redis = RedisServer::start();
    let port = redis.port().to_string();
    let replica = RedisServer::with_args(&["--replicaof", "127.0.0.1", &port]);
    while redis.command(&["WAIT", "1", "100"]) != "1" {}
    let builder = patient(&redis.url()).wait_replicas(1, Duration::from_secs(2));
    let desk = Desk::of(builder.connect().await.unwrap());
    let sample = desk.sample("/a");
    let path = [sample.scopes()[2]];
    desk.fill(&sample, &[]).await;
    desk.invalidate(&path).await.unwrap();
    let name = layout::epoch(&desk.namespace, path[0]).to_string();
    assert_eq!(replica.command(&["EXISTS", &name]), "0");

    desk.fill(&sample, &[]).await;
    replica.stop();
    let (invalidated, found) = tokio::join!(desk.invalidate(&path), async {
        sleep(Duration::from_millis(50)).await;
        desk.outcome(&sample).await
    });
    assert!(
        matches!(found, Outcome::Invalidated),
        "nobody waits for the replica but who asked"
    );
    let error = invalidated.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("0 of 1 replicas"), "{error}");
    replica.cont();
    desk.invalidate(&path).await.unwrap();
}

#[tokio::test]
async fn invalidations_wait_for_a_replica_that_lags_all_at_once_and_nothing_else_does() {
    let redis = RedisServer::start();
    let port = redis.port().to_string();
    let replica = RedisServer::with_args(&["--replicaof", "127.0.0.1", &port]);
    while redis.command(&["WAIT", "1", "100"]) != "1" {}
    let builder = patient(&redis.url())
        .write_timeout(Duration::from_secs(1))
        .wait_replicas(1, Duration::from_millis(200));
    let desk = Desk::of(builder.connect().await.unwrap());
    let sample = desk.sample("/a");
    desk.fill(&sample, &[]).await;
    replica.stop();
    let scopes: Vec<_> = (0..20).map(|n| desk.tag(&n.to_string())).collect();
    let began = Instant::now();
    let all = join_all(scopes.chunks(1).map(|scope| desk.invalidate(scope))).await;
    assert!(began.elapsed() < Duration::from_secs(1));
    for invalidated in all {
        let error = invalidated.unwrap_err();
        assert!(error.to_string().contains("0 of 1 replicas"), "{error}");
    }
    assert_eq!(desk.store.health().degraded_since, None);
    assert!(desk.body(&sample).await.is_some());
    replica.cont();
    while desk.invalidate(&scopes).await.is_err() {}
}

#[tokio::test]
async fn each_connection_to_the_server_is_of_another_generation() {
    let redis = RedisServer::start();
    let desk = Desk::new(&redis).await;
    let first = desk.store.generation();
    desk.fill(&desk.sample("/a"), &[]).await;
    assert_eq!(desk.store.generation(), first);
    redis.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    while desk.store.check().await.is_ok() {}
    assert_ne!(
        desk.store.generation(),
        first,
        "before there is another one"
    );
}

/// Two processes; the data has versions, and each change is announced by an invalidation.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_miss_is_never_read_after_the_invalidation_that_overtook_it() {
    let redis = RedisServer::start();
    let desks = [Desk::new(&redis).await, Desk::new(&redis).await];
    let version = AtomicU64::new(0);
    for round in 0..1000 {
        let [one, other] = &desks;
        let sample = one.sample(&format!("/{round}"));
        let tag = one.tag("t");
        let scope = sample
            .scopes()
            .into_iter()
            .chain([tag])
            .nth(round % 4)
            .unwrap();
        let late: &[Scope] = if round % 4 == 3 { &[tag] } else { &[] };
        let pause = |turn: usize| async move {
            for _ in 0..(round / 4 * 7 + turn * 5) % 11 {
                tokio::task::yield_now().await;
            }
        };
        let miss = async {
            let captured = one.capture(&sample.scopes()).await.unwrap();
            pause(1).await;
            let read = version.load(Ordering::SeqCst);
            pause(2).await;
            one.put(&sample.clone().body(read.to_string()), captured, late)
                .await
                .unwrap();
        };
        let change = async {
            pause(3).await;
            let newest = version.fetch_add(1, Ordering::SeqCst) + 1;
            other.invalidate(&[scope]).await.unwrap();
            newest
        };
        let ((), newest) = tokio::join!(miss, change);
        for desk in &desks {
            if let Some(body) = desk.body(&sample).await {
                let seen: u64 = std::str::from_utf8(&body).unwrap().parse().unwrap();
                assert!(seen >= newest, "round {round}: {seen} after {newest}");
            }
        }
    }
}

/// Who takes the next step: a fill that learns of its tag late, a change of the data with its
/// invalidation, or another fill that only makes the epoch.
const FILL: usize = 0;
const CHANGE: usize = 1;
const OTHER: usize = 2;

/// Returns every order of so many steps of each.
fn orders(left: [usize; 3]) -> Vec<Vec<usize>> {
    if left == [0; 3] {
        return vec![vec![]];
    }
    let mut all = Vec::new();
    for first in [FILL, CHANGE, OTHER] {
        let mut rest = left;
        if let Some(fewer) = rest[first].checked_sub(1) {
            rest[first] = fewer;
            all.extend(
                orders(rest)
                    .into_iter()
                    .map(|order| [&[first], &*order].concat()),
            );
        }
    }
    all
}

/// The order in which a fill asks of its late tag, and in which a change invalidates it.
#[derive(Clone, Copy)]
struct Protocol {
    ask: [usize; 4],
    forget: [usize; 2],
}

const PROTOCOL: Protocol = Protocol {
    ask: [0, 1, 2, 3],
    forget: [0, 1],
};

#[tokio::test]
async fn in_no_order_of_commands_does_a_late_tag_keep_an_old_response() {
    let redis = RedisServer::start();
    let desk = Desk::new(&redis).await;
    for old in [false, true] {
        let joins = try_every_order(&redis, &desk, old, PROTOCOL).await.unwrap();
        assert!(joins > 50, "{joins}, old: {old}");
    }
}

#[tokio::test]
async fn a_protocol_in_another_order_keeps_an_old_response() {
    let redis = RedisServer::start();
    let desk = Desk::new(&redis).await;
    let mark_last = Protocol {
        forget: [1, 0],
        ..PROTOCOL
    };
    let read_last = Protocol {
        ask: [0, 2, 3, 1],
        ..PROTOCOL
    };
    for (protocol, old) in [(mark_last, false), (read_last, true)] {
        assert!(try_every_order(&redis, &desk, old, protocol).await.is_err());
    }
}

/// Lets a fill, a change and another fill take their steps in every order, with a tag of which the
/// epoch is `old` or absent; returns how often the response joined, or the order in which one was
/// kept that was made of old data.
async fn try_every_order(
    redis: &RedisServer,
    desk: &Desk,
    old: bool,
    protocol: Protocol,
) -> Result<usize, Vec<usize>> {
    let client = redis::Client::open(redis.url()).unwrap();
    let mut server = client.get_connection().unwrap();
    let namespace = &desk.namespace;
    let commands = |add: &dyn Fn(&mut Pipeline)| {
        let mut commands = Pipeline::new();
        add(&mut commands);
        commands.cmd_iter().cloned().collect::<Vec<_>>()
    };
    // A fill reads the data and then asks; a change changes it and then invalidates.
    let orders = orders([5, 3, 1]);
    assert_eq!(orders.len(), 504);
    let scenario = (protocol.ask, protocol.forget, old);
    let tags: Vec<_> = (0..orders.len())
        .map(|n| desk.tag(&format!("{scenario:?} {n}")))
        .collect();
    if old {
        desk.capture(&tags).await.unwrap();
        sleep(AWHILE).await;
    }
    let mut joins = 0;
    for (order, tag) in orders.into_iter().zip(tags) {
        let ask = commands(&|all| epochs::ask_late(all, namespace, &[tag]).unwrap());
        let made = [&[7; 8][..], &86_400_u32.to_be_bytes()].concat();
        let mut make = redis::cmd("SET");
        make.arg(layout::epoch(namespace, tag))
            .arg(made)
            .arg("NX")
            .arg("PX")
            .arg(86_400_000);
        let forget = commands(&|all| epochs::forget(all, namespace, &[tag]));
        let (mut asking, mut forgetting) = (protocol.ask.iter(), protocol.forget.iter());
        let (mut changed, mut read_changed) = (false, None);
        let (mut replies, began) = (vec![redis::Value::Nil; ask.len()], Instant::now());
        for actor in &order {
            match *actor {
                FILL if read_changed.is_none() => read_changed = Some(changed),
                FILL => {
                    let step = *asking.next().unwrap();
                    replies[step] = server.req_command(&ask[step]).unwrap();
                }
                CHANGE if !changed => changed = true,
                CHANGE => {
                    let step = *forgetting.next().unwrap();
                    server.req_command(&forget[step]).unwrap();
                }
                _ => drop(server.req_command(&make).unwrap()),
            }
        }
        let (mut stamp, elapsed) = (Stamp::default(), began.elapsed());
        let mut replies = Replies::new(replies);
        let joined = epochs::read_late(&mut replies, &[tag], elapsed, false, &mut stamp);
        if joined.unwrap() {
            joins += 1;
            let name = layout::epoch(namespace, tag);
            let now = server.req_command(&get(&name)).unwrap();
            let mut current = Known::new();
            current.read(&mut Replies::new(vec![now]), &[tag]).unwrap();
            if stamp.is_current(|scope| current.get(scope)) && read_changed != Some(true) {
                return Err(order);
            }
        }
    }
    Ok(joins)
}

/// What happens to a tag that only the response names, and what becomes of the response.
#[tokio::test]
async fn a_late_tag_joins_only_what_it_was_not_invalidated_under() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Event {
        Use,
        Invalidate,
        LoseMark,
        Wait,
    }
    use Event::{Invalidate, LoseMark, Use, Wait};

    /// Before the handler, during it, stored by default, stored by a strict store.
    type Case = (&'static [Event], &'static [Event], bool, bool);
    let cases: [Case; 14] = [
        (&[], &[], true, false),
        (&[Use], &[], true, false),
        (&[Use, Wait], &[], true, true),
        (&[Use, Wait], &[LoseMark], true, true),
        (&[Invalidate, Wait], &[], true, false),
        (&[Use, Invalidate, Wait], &[], true, false),
        // So close that it may have been meanwhile.
        (&[Invalidate], &[], false, false),
        (&[], &[Invalidate], false, false),
        (&[Use, Wait], &[Invalidate], false, false),
        (&[Use, Wait], &[Invalidate, Use], false, false),
        (&[Use, Wait], &[Wait, Invalidate], false, false),
        (&[Use, Wait], &[Invalidate, Wait], false, false),
        (&[Use, Wait], &[Invalidate, Use, Wait], false, false),
        // What the option is for.
        (&[Use, Wait], &[Invalidate, LoseMark], true, false),
    ];
    let redis = RedisServer::start();
    let strict = RedisStore::builder(&redis.url())
        .strict_tags()
        .connect()
        .await
        .unwrap();
    let desks = [(Desk::new(&redis).await, false), (Desk::of(strict), true)];
    for (number, (before, during, by_default, by_strict)) in cases.into_iter().enumerate() {
        for (desk, strict) in &desks {
            let tag = desk.tag(&format!("{number} {strict}"));
            let sample = desk.sample(&format!("/{number}/{strict}"));
            let happens = async |events: &[Event]| {
                for event in events {
                    match event {
                        Use => drop(desk.capture(&[tag]).await.unwrap()),
                        Invalidate => desk.invalidate(&[tag]).await.unwrap(),
                        LoseMark => {
                            redis
                                .command(&["DEL", &layout::mark(&desk.namespace, tag).to_string()]);
                        }
                        Wait => sleep(AWHILE).await,
                    }
                }
            };
            happens(before).await;
            let captured = desk.capture(&sample.scopes()).await.unwrap();
            happens(during).await;
            let kept = desk.put(&sample, captured, &[tag]).await.unwrap();
            let expected = if *strict { by_strict } else { by_default };
            let case = format!("{before:?} {during:?}, strict: {strict}");
            assert_eq!(kept == Kept::Stored, expected, "{case}");
            assert_eq!(desk.body(&sample).await.is_some(), expected, "{case}");
        }
    }
}

#[tokio::test]
async fn a_moment_of_the_future_admits_no_late_tag() {
    let redis = RedisServer::start();
    let desk = Desk::new(&redis).await;
    let sample = desk.sample("/a");
    let captured = desk.capture(&sample.scopes()).await.unwrap();
    let from_elsewhere = Captured {
        moment: u64::MAX,
        ..captured
    };
    let kept = desk
        .put(&sample, from_elsewhere, &[desk.tag("t")])
        .await
        .unwrap();
    assert_eq!(kept, Kept::Invalidated);
}

#[tokio::test]
async fn epochs_in_use_are_renewed_and_keep_their_value() {
    let redis = RedisServer::start();
    let desk = Desk::new(&redis).await;
    let scope = desk.tag("t");
    let name = layout::epoch(&desk.namespace, scope).to_string();
    let stamp = desk.capture(&[scope]).await.unwrap().stamp;
    let hours = |left: u64| left * 60 * 60 * 1000;
    for (left, renewed) in [(hours(13), false), (hours(11), true)] {
        redis.command(&["PEXPIRE", &name, &left.to_string()]);
        for _ in 0..32 {
            assert_eq!(desk.capture(&[scope]).await.unwrap().stamp, stamp);
        }
        let left: u64 = redis.command(&["PTTL", &name]).parse().unwrap();
        assert_eq!(left > hours(23), renewed, "{left}");
    }
}

#[tokio::test]
async fn one_purge_takes_all_variants_and_queries_of_a_path() {
    let redis = RedisServer::start();
    let desk = Desk::new(&redis).await;
    let mut samples = ["de", "en"]
        .map(|language| in_language(&desk, language))
        .to_vec();
    samples.push(desk.sample("/hello"));
    for sample in &samples {
        desk.fill(sample, &[]).await;
    }
    let path = samples[0].scopes()[2];
    assert_eq!(path.kind(), ScopeKind::Path);
    desk.invalidate(&[path]).await.unwrap();
    for sample in &samples {
        assert!(matches!(desk.outcome(sample).await, Outcome::Invalidated));
    }
}
