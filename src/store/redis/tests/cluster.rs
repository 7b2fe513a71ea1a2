//! The store over a cluster: all of it at once, and while parts of it move and fail.

use tokio::time::{Instant, sleep};

use super::*;
use crate::epoch::Stamp;
use crate::store::redis::redis_cluster::RedisCluster;

/// As good as at once, on a machine that is busy with other tests: a tenth of what a store waits for
/// a server that is [`patient`].
const AT_ONCE: Duration = Duration::from_secs(1);

async fn desk(cluster: &RedisCluster) -> Desk {
    Desk::of(patient(&cluster.url()).connect().await.unwrap())
}

/// Makes sure that no server was sent what is not its own, or spans slots.
fn assert_no_errors(cluster: &RedisCluster) {
    for place in 0..RedisCluster::SERVERS {
        let errors = cluster.server(place).command(&["INFO", "errorstats"]);
        // The client names itself, which Redis learned to understand with 7.2.
        let errors = errors
            .lines()
            .filter(|line| !line.starts_with("errorstat_ERR:"));
        assert_eq!(errors.collect::<Vec<_>>(), ["# Errorstats"]);
    }
}

fn slot(cluster: &RedisCluster, desk: &Desk, scope: Scope) -> u16 {
    cluster.slot(&layout::epoch(&desk.namespace, scope).to_string())
}

/// Waits until something holds; gives up after ten seconds.
async fn until(mut condition: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition().await {
        assert!(Instant::now() < end, "not within ten seconds");
        sleep(Duration::from_millis(5)).await;
    }
}

async fn warm(desk: &Desk, stamp: &Stamp) {
    until(async || {
        // Not confirmed where a connection is being made.
        let _ = desk.store.confirm(&desk.namespace, stamp).await;
        desk.store.vouches_for(stamp)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_cluster_the_store_conforms() {
    let cluster = RedisCluster::start();
    let store = patient(&cluster.url()).connect().await.unwrap();
    conformance::run(Arc::new(store)).await;
    assert_no_errors(&cluster);
    for place in 0..3 {
        let names = cluster.server(place).command(&["DBSIZE"]);
        assert_ne!(names, "0", "each has a part");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_cluster_the_store_conforms_under_the_least_acl() {
    let cluster = RedisCluster::start();
    for place in 0..RedisCluster::SERVERS {
        admit_app(cluster.server(place), &["+cluster|slots", "+asking"]);
    }
    let url = cluster.url().replace("://", "://app:s3cret@");
    let desk = Desk::of(patient(&url).connect().await.unwrap());
    assert!(!format!("{desk:?}").contains("s3cret"), "{desk:?}");
    let sample = desk.sample("/a");
    desk.fill(&sample, &[]).await;
    let stamp = desk.capture(&sample.scopes()).await.unwrap().stamp;
    warm(&desk, &stamp).await;
    let slot = slot(&cluster, &desk, sample.scopes()[2]);
    let to = (cluster.owner(slot) + 1) % 3;
    cluster.begin_move(slot, to);
    cluster.move_names(slot, to, "hc1:");
    assert!(desk.body(&sample).await.is_some());
    cluster.end_move(slot, to);
    // What the server is sent that had the slot fails once.
    until(async || desk.capture(&sample.scopes()).await.is_ok()).await;
    conformance::run(Arc::new(desk.store)).await;
    for place in 0..RedisCluster::SERVERS {
        let errors = cluster.server(place).command(&["INFO", "errorstats"]);
        assert!(!errors.contains("NOPERM"), "{errors}");
    }
}

#[tokio::test]
async fn what_is_spread_over_a_cluster_is_found_told_of_and_invalidated() {
    let cluster = RedisCluster::start();
    let [one, other] = [desk(&cluster).await, desk(&cluster).await];
    let samples: Vec<_> = (0..30).map(|n| one.sample(&format!("/{n}"))).collect();
    let tags: Vec<_> = (0..30).map(|n| one.tag(&n.to_string())).collect();
    for (sample, tag) in samples.iter().zip(&tags) {
        one.fill(sample, &[*tag]).await;
        assert!(other.body(sample).await.is_some());
    }
    let found = async |desk: &Desk, sample| match desk.outcome(sample).await {
        Outcome::Response(response) => response,
        outcome => panic!("{outcome:?}"),
    };
    for (sample, tag) in samples.iter().zip(&tags) {
        let stamp = found(&other, sample).await.stamp().clone();
        warm(&other, &stamp).await;
        one.invalidate(&[*tag]).await.unwrap();
        assert!(matches!(one.outcome(sample).await, Outcome::Invalidated));
        until(async || !other.store.vouches_for(&stamp)).await;
    }
    for scope in [2, 1, 0] {
        for sample in &samples {
            one.fill(sample, &[]).await;
        }
        let everything: Vec<_> = samples
            .iter()
            .map(|sample| sample.scopes()[scope])
            .collect();
        one.invalidate(&everything).await.unwrap();
        for sample in &samples {
            // It goes by what it mirrors until it is told.
            until(async || matches!(other.outcome(sample).await, Outcome::Invalidated)).await;
        }
    }
    assert_no_errors(&cluster);
}

#[tokio::test]
async fn a_hit_is_one_question_to_each_server_that_has_a_part() {
    let cluster = RedisCluster::start();
    let desk = desk(&cluster).await;
    let sample = desk.sample("/a");
    desk.fill(&sample, &[]).await;
    assert!(desk.body(&sample).await.is_some());
    let all = 0..RedisCluster::SERVERS;
    for place in all.clone() {
        cluster.server(place).command(&["CONFIG", "RESETSTAT"]);
    }
    assert!(desk.body(&sample).await.is_some());
    let mut gets = 0;
    for place in all {
        let counts = cluster.server(place).command(&["INFO", "commandstats"]);
        assert!(!counts.contains("cmdstat_mget"), "{counts}");
        let count = counts.split_once("cmdstat_get:calls=");
        let count = count.map(|(_, rest)| rest.split(',').next().unwrap());
        gets += count.map_or(0, |count| count.parse::<u32>().unwrap());
    }
    // Variants, response, and the epochs of namespace, route and path.
    assert_eq!(gets, 5);
    assert_no_errors(&cluster);
}

#[tokio::test]
async fn a_slot_that_moves_is_read_and_written_at_both_ends() {
    let cluster = RedisCluster::start();
    let [desk, other] = [desk(&cluster).await, desk(&cluster).await];
    // What has moved already: nothing, response, epoch, list of variants, everything.
    for (n, moved) in ["nothing", ":e:", ":v:", ":y:", "hc1:"].iter().enumerate() {
        let sample = desk.sample(&format!("/{n}"));
        let german = sample.clone().asked_with("accept-language", "de");
        let german = german.field("vary", b"accept-language");
        desk.fill(&german, &[]).await;
        let stamp = desk.capture(&sample.scopes()).await.unwrap().stamp;
        warm(&other, &stamp).await;
        let slot = slot(&cluster, &desk, sample.scopes()[2]);
        let to = (cluster.owner(slot) + 1) % 3;
        cluster.begin_move(slot, to);
        cluster.move_names(slot, to, moved);

        for desk in [&desk, &other] {
            assert!(desk.body(&german).await.is_some(), "{moved}");
        }
        let (_, claim) = desk.claim(&german, None).await.unwrap();
        assert!(matches!(claim, Claim::Granted(_)), "{moved}");
        let (_, denied) = other.claim(&german, None).await.unwrap();
        assert!(matches!(denied, Claim::Elsewhere(_)), "{moved}");
        desk.invalidate(&sample.scopes()[2..]).await.unwrap();
        // It goes by what it mirrors until it is told.
        until(async || !other.store.vouches_for(&stamp)).await;
        assert!(matches!(other.outcome(&german).await, Outcome::Invalidated));
        assert!(!other.store.confirm(&other.namespace, &stamp).await.unwrap());
        desk.fill(&german, &[]).await;
        assert!(other.body(&german).await.is_some(), "{moved}");

        cluster.end_move(slot, to);
        // One request finds out, or a check did before.
        let _ = other.look_up(&german).await;
        until(async || other.look_up(&german).await.is_ok()).await;
        assert!(other.body(&german).await.is_some(), "{moved}");
        until(async || desk.look_up(&german).await.is_ok()).await;
    }
}

#[tokio::test]
async fn a_late_tag_whose_slot_moves_is_not_revived() {
    let cluster = RedisCluster::start();
    let desk = desk(&cluster).await;
    for (n, moved) in ["nothing", ":v:", ":m:", "hc1:"].iter().enumerate() {
        let (sample, tag) = (desk.sample(&format!("/{n}")), desk.tag(moved));
        desk.fill(&sample, &[tag]).await;
        desk.invalidate(&[tag]).await.unwrap();
        desk.fill(&sample, &[]).await;
        desk.invalidate(&[tag]).await.unwrap();
        let slot = slot(&cluster, &desk, tag);
        let to = (cluster.owner(slot) + 1) % 3;
        cluster.begin_move(slot, to);
        cluster.move_names(slot, to, moved);

        let captured = desk.capture(&sample.scopes()).await.unwrap();
        desk.invalidate(&[tag]).await.unwrap();
        let kept = desk.put(&sample, captured, &[tag]).await.unwrap();
        assert_eq!(kept, Kept::Invalidated, "{moved}");
        // Past the margin within which ages are not believed.
        sleep(Duration::from_millis(80)).await;
        desk.fill(&sample, &[tag]).await;
        desk.invalidate(&[tag]).await.unwrap();
        assert!(matches!(desk.outcome(&sample).await, Outcome::Invalidated));
        cluster.end_move(slot, to);
        until(async || desk.invalidate(&[tag]).await.is_ok()).await;
    }
}

#[tokio::test]
async fn what_needs_a_primary_that_was_killed_fails_at_once_and_all_else_goes_on() {
    let mut cluster = RedisCluster::start();
    let desk = desk(&cluster).await;
    let owner = |cluster: &RedisCluster, scope| cluster.owner(slot(cluster, &desk, scope));
    let [everything, route, _] = desk.sample("/").scopes();
    let needed = [everything, route].map(|scope| owner(&cluster, scope));
    let victim = (0..3).find(|place| !needed.contains(place)).unwrap();
    let samples: Vec<_> = (0..40).map(|n| desk.sample(&format!("/{n}"))).collect();
    for sample in &samples {
        desk.fill(sample, &[]).await;
    }
    let (lost, kept): (Vec<_>, Vec<_>) = samples
        .iter()
        .partition(|sample| owner(&cluster, sample.scopes()[2]) == victim);
    assert!(!lost.is_empty() && !kept.is_empty());
    let generation = desk.store.generation();
    cluster.until_in_step(victim);
    cluster.kill(victim);

    let (mut longest, mut failures) = (Duration::ZERO, 0);
    until(async || {
        let began = Instant::now();
        let found = desk.look_up(lost[0]).await.is_ok();
        failures += usize::from(!found);
        longest = longest.max(began.elapsed());
        for sample in &kept {
            let began = Instant::now();
            assert!(desk.body(sample).await.is_some());
            longest = longest.max(began.elapsed());
        }
        found
    })
    .await;
    assert!(failures > 10, "it was away for a while");
    assert!(longest < AT_ONCE, "{longest:?}");
    assert_ne!(desk.store.generation(), generation);
    for sample in &samples {
        let outcome = desk.outcome(sample).await;
        let had_it = matches!(outcome, Outcome::Response(_));
        assert!(had_it, "replicas had it all: {outcome:?}");
        desk.invalidate(&sample.scopes()[2..]).await.unwrap();
        assert!(matches!(desk.outcome(sample).await, Outcome::Invalidated));
    }
    assert!(desk.store.health().connected);

    cluster.restart(victim);
    cluster.until_replicated();
    for sample in &samples {
        desk.fill(sample, &[]).await;
    }
}

/// Makes sure that a primary, started again from its dump, revives nothing that was invalidated
/// since; and that it is taken for restored by one process only, whoever comes later.
async fn assert_revives_nothing(cluster: &mut RedisCluster, desks: &[Desk], sample: &Sample) {
    let scopes = sample.scopes();
    let owner = cluster.owner(slot(cluster, &desks[0], scopes[2]));
    let stamp = desks[0].capture(&scopes).await.unwrap().stamp;
    for desk in desks {
        assert!(desk.body(sample).await.is_some());
        warm(desk, &stamp).await;
    }
    desks[0].invalidate(&scopes[2..]).await.unwrap();
    for desk in desks {
        until(async || !desk.store.vouches_for(&stamp)).await;
    }
    cluster.kill(owner);
    cluster.restart(owner);

    let late = Desk::of(patient(&cluster.url()).connect_lazily().unwrap());
    let all = || desks.iter().chain([&late]);
    let hold = async |desk: &Desk| {
        assert!(!desk.store.vouches_for(&stamp));
        let confirmed = desk.store.confirm(&desk.namespace, &stamp).await;
        assert!(!matches!(confirmed, Ok(true)));
        let found = desk.look_up(sample).await.map(|found| found.outcome);
        assert!(!matches!(found, Ok(Outcome::Response(_))), "{found:?}");
        found.is_ok() && confirmed.is_ok()
    };
    until(async || {
        let held = futures_util::future::join_all(all().map(&hold)).await;
        held.into_iter().all(|held| held)
    })
    .await;
    let name = desks[0].entry(sample);
    assert_eq!(cluster.server(owner).command(&["EXISTS", &name]), "1");

    desks[0].fill(sample, &[]).await;
    let newcomer = self::desk(cluster).await;
    until(async || newcomer.look_up(sample).await.is_ok()).await;
    for desk in all().chain([&newcomer]) {
        assert!(desk.body(sample).await.is_some());
    }
}

#[tokio::test]
async fn a_primary_that_is_started_again_from_a_dump_revives_nothing() {
    let mut cluster = RedisCluster::start();
    cluster.be_patient();
    let desks = [desk(&cluster).await, desk(&cluster).await];
    // Its server has the epoch of the namespace as well, or not.
    let everything = slot(&cluster, &desks[0], desks[0].sample("/").scopes()[0]);
    for at_home in [true, false] {
        let mut samples = (0..).map(|n| desks[0].sample(&format!("/{n}")));
        let sample = samples.find(|sample| {
            let owner = cluster.owner(slot(&cluster, &desks[0], sample.scopes()[2]));
            (owner == cluster.owner(everything)) == at_home
        });
        let sample = sample.unwrap();
        desks[0].fill(&sample, &[]).await;
        let owner = cluster.owner(slot(&cluster, &desks[0], sample.scopes()[2]));
        assert_eq!(cluster.server(owner).command(&["SAVE"]), "OK");
        assert_revives_nothing(&mut cluster, &desks, &sample).await;
    }
}

#[tokio::test]
async fn a_primary_that_left_a_dump_when_it_was_a_replica_revives_nothing() {
    let mut cluster = RedisCluster::start();
    cluster.be_patient();
    let desks = [desk(&cluster).await, desk(&cluster).await];
    let sample = desks[0].sample("/a");
    desks[0].fill(&sample, &[]).await;
    let owner = cluster.owner(slot(&cluster, &desks[0], sample.scopes()[2]));
    cluster.until_in_step(owner);
    let replica = cluster.replica(owner);
    assert_eq!(cluster.server(replica).command(&["SAVE"]), "OK");
    cluster.fail_over(replica);
    cluster.until_replicated();
    until(async || desks[1].look_up(&sample).await.is_ok()).await;
    until(async || desks[0].look_up(&sample).await.is_ok()).await;
    assert_revives_nothing(&mut cluster, &desks, &sample).await;
}

#[tokio::test]
async fn whoever_comes_to_servers_that_keep_a_log_leaves_them_what_they_hold() {
    let log = || ["--appendonly", "yes"].map(str::to_owned).to_vec();
    let cluster = RedisCluster::with_args(log);
    let desk = desk(&cluster).await;
    let samples: Vec<_> = (0..12).map(|n| desk.sample(&format!("/{n}"))).collect();
    // Nobody has been at any of the servers before.
    for sample in &samples {
        until(async || desk.look_up(sample).await.is_ok()).await;
    }
    for sample in &samples {
        desk.fill(sample, &[]).await;
    }
    for _ in 0..2 {
        let newcomer = self::desk(&cluster).await;
        let mut failures = 0;
        for sample in &samples {
            until(async || {
                let found = newcomer.look_up(sample).await.is_ok();
                failures += usize::from(!found);
                found
            })
            .await;
            assert!(newcomer.body(sample).await.is_some());
        }
        assert!(failures <= 3, "one for each server: {failures}");
    }
}

#[tokio::test]
async fn a_failover_and_another_one_back_keep_what_was_stored() {
    let mut cluster = RedisCluster::start();
    let desk = desk(&cluster).await;
    let sample = desk.sample("/a");
    desk.fill(&sample, &[]).await;
    let owner = cluster.owner(slot(&cluster, &desk, sample.scopes()[2]));
    // What it had then is not what it comes back with.
    assert_eq!(cluster.server(owner).command(&["SAVE"]), "OK");
    let kept = desk.sample("/a").body("kept");
    desk.fill(&kept, &[]).await;
    cluster.until_in_step(owner);
    let has_it = async |desk: &Desk| {
        until(async || desk.look_up(&kept).await.is_ok()).await;
        assert_eq!(desk.body(&kept).await, Some("kept".into()));
    };
    cluster.kill(owner);
    has_it(&desk).await;
    cluster.restart(owner);
    cluster.until_replicated();
    cluster.fail_over(owner);
    cluster.until_replicated();
    has_it(&desk).await;
    has_it(&self::desk(&cluster).await).await;
}

#[tokio::test]
async fn the_health_of_a_cluster_is_that_of_its_worst_server() {
    let mut cluster = RedisCluster::start();
    let desk = Desk::of(RedisStore::connect(&cluster.url()).await.unwrap());
    desk.store.check().await.unwrap();
    let health = desk.store.health();
    assert!(health.connected && health.degraded_since.is_none());
    assert!(health.server.is_some());
    cluster.kill(1);
    until(async || !desk.store.health().connected).await;
    assert!(desk.store.health().degraded_since.is_some());
    assert!(desk.store.check().await.is_err());
    // Its replica takes its place.
    until(async || desk.store.check().await.is_ok()).await;
    until(async || desk.store.health().connected).await;
}

#[tokio::test]
async fn a_cluster_is_found_by_any_of_its_servers_and_when_it_comes_up() {
    let mut cluster = RedisCluster::start();
    let [replica, killed] = [3, 5].map(|place| cluster.server(place).port());
    cluster.kill(5);
    let url = format!("redis+cluster://127.0.0.1:{killed},127.0.0.1:{replica}");
    Desk::of(RedisStore::connect(&url).await.unwrap())
        .fill(&desk(&cluster).await.sample("/"), &[])
        .await;

    let url = format!("redis+cluster://127.0.0.1:{killed}");
    let error = RedisStore::connect(&url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let late = Desk::of(patient(&url).connect_lazily().unwrap());
    let began = Instant::now();
    let error = late.look_up(&late.sample("/")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(began.elapsed() < AT_ONCE);
    until(async || late.store.health().last_error.is_some()).await;
    assert!(!late.store.health().connected);
    cluster.restart(5);
    until(async || late.look_up(&late.sample("/")).await.is_ok()).await;

    let alone = RedisServer::start();
    let url = alone.url().replace("redis:", "redis+cluster:");
    assert!(RedisStore::connect(&url).await.is_err(), "it is no cluster");
}

/// Stores, invalidates and looks up until the condition holds, and makes sure that nothing is found
/// that is older than what was invalidated; returns how many answers there were, and errors.
async fn use_until(desk: &Desk, path: &str, done: impl Fn() -> bool) -> (usize, usize) {
    const SAMPLES: usize = 20;
    let (mut version, mut oldest) = (0, [0; SAMPLES]);
    let (mut answers, mut errors) = (0, 0);
    let mut random = Random(11);
    while !done() {
        let place = random.below(SAMPLES);
        let sample = desk.sample(&format!("{path}/{place}"));
        let done = match random.below(8) {
            0 => {
                let done = desk.invalidate(&sample.scopes()[2..]).await;
                if done.is_ok() {
                    (version, oldest[place]) = (version + 1, version + 1);
                }
                done
            }
            1..3 => match desk.capture(&sample.scopes()).await {
                Ok(captured) => {
                    let sample = sample.body(version.to_string());
                    desk.put(&sample, captured, &[desk.tag("t")])
                        .await
                        .map(drop)
                }
                Err(error) => Err(error),
            },
            _ => desk.look_up(&sample).await.map(|found| {
                if let Outcome::Response(response) = found.outcome {
                    let held = std::str::from_utf8(response.body()).unwrap();
                    assert!(held.parse::<usize>().unwrap() >= oldest[place]);
                }
            }),
        };
        answers += 1;
        errors += usize::from(done.is_err());
    }
    (answers, errors)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_hands_over_is_followed_and_nothing_is_revived() {
    let cluster = RedisCluster::start();
    let desk = Desk::of(RedisStore::connect(&cluster.url()).await.unwrap());
    let other = Desk::of(RedisStore::connect(&cluster.url()).await.unwrap());
    let generation = desk.store.generation();
    let handing_over = tokio::task::spawn_blocking(move || {
        for primary in 0..3 {
            cluster.fail_over(cluster.replica(primary));
            cluster.until_replicated();
        }
        cluster
    });
    let done = || handing_over.is_finished();
    let uses = [use_until(&desk, "/a", done), use_until(&other, "/b", done)];
    let [(answers, errors), _] = futures_util::future::join_all(uses).await[..] else {
        unreachable!("two uses")
    };
    // While a primary hands over, it lets its clients wait.
    assert!(errors < answers / 2, "{errors} of {answers}");
    assert_ne!(desk.store.generation(), generation, "journals tell again");
    let _cluster = handing_over.await.unwrap();
    until(async || desk.store.check().await.is_ok()).await;
    desk.fill(&desk.sample("/a"), &[]).await;
}

#[tokio::test]
async fn a_primary_that_stood_still_is_not_believed_when_it_goes_on() {
    let mut cluster = RedisCluster::start();
    let desk = Desk::of(RedisStore::connect(&cluster.url()).await.unwrap());
    let sample = desk.sample("/a");
    desk.fill(&sample, &[]).await;
    let stamp = desk.capture(&sample.scopes()).await.unwrap().stamp;
    warm(&desk, &stamp).await;
    let victim = cluster.owner(slot(&cluster, &desk, sample.scopes()[2]));
    let began = Instant::now();
    cluster.freeze(victim);
    until(async || !desk.store.vouches_for(&stamp)).await;
    assert!(began.elapsed() < Duration::from_millis(2300));
    // Its replica takes its place.
    until(async || desk.invalidate(&sample.scopes()).await.is_ok()).await;
    cluster.thaw(victim);
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {
        assert!(!desk.store.vouches_for(&stamp));
        assert_eq!(desk.body(&sample).await, None);
        sleep(Duration::from_millis(1)).await;
    }
    cluster.until_replicated();
    assert!(desk.store.health().connected);
}

#[tokio::test]
async fn each_primary_waits_for_its_own_replicas() {
    let mut cluster = RedisCluster::start();
    let builder = patient(&cluster.url()).wait_replicas(1, Duration::from_millis(500));
    let desk = Desk::of(builder.connect().await.unwrap());
    let tags: Vec<_> = (0..12).map(|n| desk.tag(&n.to_string())).collect();
    desk.capture(&tags).await.unwrap();
    // Before its first sign of life, a replica is sent nothing.
    (0..3).for_each(|primary| cluster.until_in_step(primary));
    desk.invalidate(&tags).await.unwrap();
    let owner = |cluster: &RedisCluster, tag| cluster.owner(slot(cluster, &desk, tag));
    let alone = owner(&cluster, tags[0]);
    let replica = cluster.replica(alone);
    cluster.kill(replica);
    for tag in tags {
        let done = desk.invalidate(&[tag]).await;
        let kind = done.err().map(|error| error.kind());
        let expected = (owner(&cluster, tag) == alone).then_some(ErrorKind::Timeout);
        assert_eq!(kind, expected);
    }
}
