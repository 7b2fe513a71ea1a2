//! What a process holds for current without asking, and when it stops to.

use std::fmt::Write as _;

use tokio::time::{Instant, sleep, timeout};

use super::log::Log;
use super::proxy::{Mood, Proxy};
use super::*;
use crate::epoch::Stamp;

/// How long a lease lasts, and what a busy machine may add to it.
const LEASE: Duration = Duration::from_secs(2);
const SLACK: Duration = Duration::from_millis(300);

/// Waits until the store vouches for a stamp, asking for it again and again.
async fn warm(desk: &Desk, stamp: &Stamp) {
    let end = Instant::now() + Duration::from_secs(5);
    while !desk.store.vouches_for(stamp) {
        assert!(Instant::now() < end, "not within five seconds");
        // Not confirmed where the connection is being made anew.
        let _ = desk.store.confirm(&desk.namespace, stamp).await;
        sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until the store does not vouch any more, and returns how long that took.
async fn cooled(desk: &Desk, stamp: &Stamp, limit: Duration) -> Duration {
    let began = Instant::now();
    while desk.store.vouches_for(stamp) {
        assert!(began.elapsed() < limit, "not within {limit:?}");
        sleep(Duration::from_millis(1)).await;
    }
    began.elapsed()
}

/// Makes epochs for scopes of three kinds, and waits until they are held.
async fn held(desk: &Desk) -> Stamp {
    let scopes = desk.sample("/a").scopes();
    let stamp = desk.capture(&scopes).await.unwrap().stamp;
    warm(desk, &stamp).await;
    stamp
}

/// Does the same where the server is away at times.
async fn until_held(desk: &Desk) -> Stamp {
    while desk.store.check().await.is_err() {
        sleep(Duration::from_millis(5)).await;
    }
    held(desk).await
}

fn names(desk: &Desk, stamp: &Stamp) -> Vec<String> {
    let scopes = stamp.iter().map(|(scope, _)| scope);
    scopes
        .map(|scope| layout::epoch(&desk.namespace, scope).to_string())
        .collect()
}

fn builder(url: &str, mode: Mirroring) -> Desk {
    Desk::of(
        RedisStore::builder(url)
            .mirroring(mode)
            .connect_lazily()
            .unwrap(),
    )
}

#[tokio::test]
async fn what_was_confirmed_is_vouched_for_until_it_is_invalidated_here_or_elsewhere() {
    let redis = RedisServer::start();
    let [one, other] = [Desk::new(&redis).await, Desk::new(&redis).await];
    for invalidating in [&one, &other] {
        let stamp = held(&one).await;
        for (scope, epoch) in stamp.iter() {
            let stamp = Stamp::from_iter([(scope, epoch)]);
            warm(&one, &stamp).await;
            invalidating.invalidate(&[scope]).await.unwrap();
            let limit = match std::ptr::eq(invalidating, &one) {
                true => Duration::ZERO,
                false => SLACK,
            };
            if limit.is_zero() {
                assert!(!one.store.vouches_for(&stamp), "invalidated here");
            }
            cooled(&one, &stamp, SLACK).await;
            assert!(!one.store.confirm(&one.namespace, &stamp).await.unwrap());
            assert!(!one.store.vouches_for(&stamp));
        }
    }
}

#[tokio::test]
async fn a_store_that_is_asked_for_responses_alone_opens_no_second_connection() {
    let redis = RedisServer::start();
    let desk = Desk::new(&redis).await;
    desk.fill(&desk.sample("/a"), &[]).await;
    assert!(desk.body(&desk.sample("/a")).await.is_some());
    let clients = || {
        redis
            .command(&["CLIENT", "LIST"])
            .matches(" laddr=")
            .count()
            - 1
    };
    assert_eq!(clients(), 1);
    held(&desk).await;
    assert_eq!(clients(), 2);
    desk.store.close().await;
    assert_eq!(clients(), 0);
}

#[tokio::test]
async fn whatever_becomes_of_an_epoch_is_told() {
    let redis = RedisServer::start();
    let desk = Desk::new(&redis).await;
    for command in [
        "DEL $",
        "UNLINK $",
        "PEXPIRE $ 20",
        "RENAME $ elsewhere",
        "SET $ x",
        "GETDEL $",
        "FLUSHDB",
        "FLUSHALL",
    ] {
        redis.command(&["FLUSHALL"]);
        sleep(Duration::from_millis(20)).await;
        let stamp = held(&desk).await;
        let name = names(&desk, &stamp).remove(1);
        let words: Vec<_> = command.split(' ').collect();
        let words: Vec<_> = words.iter().map(|word| word.replace('$', &name)).collect();
        redis.command(&words);
        cooled(&desk, &stamp, SLACK).await;
        // Expiry is told when it comes; renewing a time is told too, and costs a question.
        if command.starts_with("PEXPIRE") {
            sleep(Duration::from_millis(50)).await;
            assert!(!desk.store.confirm(&desk.namespace, &stamp).await.unwrap());
        }
    }
}

#[tokio::test]
async fn an_epoch_that_the_server_evicts_is_told() {
    let redis = RedisServer::with_args(&["--maxmemory-policy", "allkeys-random"]);
    let desk = Desk::new(&redis).await;
    let stamp = held(&desk).await;
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    cooled(&desk, &stamp, SLACK).await;
}

#[tokio::test]
async fn a_server_with_a_small_tracking_table_tells_too_much_and_not_too_little() {
    let redis = RedisServer::with_args(&["--tracking-table-max-keys", "10"]);
    let [desk, other] = [Desk::new(&redis).await, Desk::new(&redis).await];
    let tags: Vec<_> = (0..200).map(|n| desk.tag(&n.to_string())).collect();
    let stamp = desk.capture(&tags).await.unwrap().stamp;
    let single: Vec<_> = stamp
        .iter()
        .map(|epoch| Stamp::from_iter([epoch]))
        .collect();
    warm(&desk, &single[0]).await;
    desk.store.confirm(&desk.namespace, &stamp).await.unwrap();
    other.invalidate(&tags).await.unwrap();
    let began = Instant::now();
    while single.iter().any(|stamp| desk.store.vouches_for(stamp)) {
        assert!(began.elapsed() < SLACK);
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_lost_connection_ends_all_trust_and_the_next_begins_anew() {
    let redis = RedisServer::start();
    let [desk, other] = [Desk::new(&redis).await, Desk::new(&redis).await];
    for _ in 0..5 {
        let stamp = held(&desk).await;
        redis.command(&["CLIENT", "KILL", "TYPE", "normal"]);
        cooled(&desk, &stamp, SLACK).await;
        while desk.store.check().await.is_err() || other.store.check().await.is_err() {
            sleep(Duration::from_millis(5)).await;
        }
        warm(&desk, &stamp).await;
        other.invalidate(&desk.sample("/a").scopes()).await.unwrap();
        cooled(&desk, &stamp, SLACK).await;
    }
}

#[tokio::test]
async fn a_server_that_falls_silent_is_trusted_no_longer_than_the_lease() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(&redis).await;
    let behind = Desk::of(RedisStore::connect(&proxy.url()).await.unwrap());
    let other = Desk::new(&redis).await;
    let stamp = held(&behind).await;
    sleep(LEASE + SLACK).await;
    assert!(
        behind.store.vouches_for(&stamp),
        "heartbeats renew the lease"
    );

    proxy.set(Mood::Hole);
    other
        .invalidate(&behind.sample("/a").scopes())
        .await
        .unwrap();
    let took = cooled(&behind, &stamp, LEASE + SLACK).await;
    assert!(took > Duration::from_secs(1), "{took:?}");
}

#[tokio::test]
async fn a_server_that_another_has_replaced_is_trusted_no_longer_than_the_lease() {
    let redis = RedisServer::start();
    let often = |builder: RedisStoreBuilder| builder.check_interval(Duration::from_millis(100));
    let desk = Desk::with(&redis, often).await;
    let stamp = held(&desk).await;
    let clients = redis.command(&["CLIENT", "LIST"]);
    let clients = clients
        .lines()
        .filter(|client| !client.contains("cmd=client|list"));
    let ids = clients.filter_map(|client| Some(client.split_once(' ')?.0.to_owned() + " "));
    let first: Vec<_> = ids.collect();
    assert_eq!(first.len(), 2);
    redis.command(&["REPLICAOF", "127.0.0.1", "1"]);
    cooled(&desk, &stamp, LEASE + SLACK).await;
    // It can be read, as for responses; but what it says is not held for current.
    let confirmed = desk.store.confirm(&desk.namespace, &stamp).await;
    assert!(confirmed.unwrap() && !desk.store.vouches_for(&stamp));
    // Where it is known by a name, the name leads to the other one by then.
    let end = Instant::now() + Duration::from_secs(15);
    let named = |id: &String| redis.command(&["CLIENT", "LIST"]).contains(id.as_str());
    while first.iter().any(named) {
        assert!(Instant::now() < end, "both connections are made anew");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_server_that_stands_still_is_trusted_again_when_it_goes_on() {
    let redis = RedisServer::start();
    let desk = Desk::new(&redis).await;
    let stamp = held(&desk).await;
    redis.stop();
    cooled(&desk, &stamp, LEASE + SLACK).await;
    redis.cont();
    warm(&desk, &stamp).await;
}

#[tokio::test]
async fn late_replies_never_leave_a_dead_epoch() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(&redis).await;
    let behind = Desk::of(RedisStore::connect(&proxy.url()).await.unwrap());
    let direct = Desk::new(&redis).await;
    let scopes = behind.sample("/a").scopes();
    let mut random = Random(7);
    held(&behind).await;
    for _ in 0..100 {
        let stamp = direct.capture(&scopes).await.unwrap().stamp;
        proxy.set(match random.below(3) {
            0 => Mood::Pass,
            1 => Mood::Dribble,
            _ => Mood::Delay(Duration::from_millis(2)),
        });
        let confirmed = async {
            for _ in 0..random.below(3) {
                let _ = behind.store.confirm(&behind.namespace, &stamp).await;
            }
        };
        let invalidated = async {
            sleep(Duration::from_micros(500)).await;
            direct.invalidate(&scopes[1..2]).await.unwrap();
        };
        tokio::join!(confirmed, invalidated);
        proxy.set(Mood::Pass);
        cooled(&behind, &stamp, SLACK).await;
        let _ = behind.store.confirm(&behind.namespace, &stamp).await;
        assert!(!behind.store.vouches_for(&stamp));
    }
}

#[tokio::test]
async fn a_reply_that_the_message_of_its_change_has_overtaken_is_not_believed() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(&redis).await;
    let behind = Desk::of(patient(&proxy.url()).connect().await.unwrap());
    let direct = Desk::new(&redis).await;
    let scopes = behind.sample("/a").scopes();
    held(&behind).await;
    proxy.set(Mood::Overtaken(Duration::from_millis(20)));
    for round in 0..30 {
        let stamp = direct.capture(&scopes).await.unwrap().stamp;
        let confirmed = behind.store.confirm(&behind.namespace, &stamp);
        let invalidated = async {
            sleep(Duration::from_millis(round % 20)).await;
            direct.invalidate(&scopes[1..2]).await.unwrap();
        };
        let (confirmed, ()) = tokio::join!(confirmed, invalidated);
        confirmed.unwrap();
        cooled(&behind, &stamp, SLACK).await;
    }
    let stamp = direct.capture(&scopes).await.unwrap().stamp;
    warm(&behind, &stamp).await;
}

#[tokio::test]
async fn a_server_that_will_not_tell_is_polled() {
    let redis = RedisServer::start();
    let user = "app on nopass ~* +@all -client|tracking";
    let mut words = vec!["ACL", "SETUSER"];
    words.extend(user.split(' '));
    assert_eq!(redis.command(&words), "OK");
    let url = redis.url().replace("redis://", "redis://app:any@");
    let [refused, other] = [builder(&url, Mirroring::Tracking), Desk::new(&redis).await];
    let stamp = until_held(&refused).await;
    other
        .invalidate(&refused.sample("/a").scopes())
        .await
        .unwrap();
    cooled(&refused, &stamp, Duration::from_secs(1) + SLACK).await;
    assert!(
        !refused
            .store
            .confirm(&refused.namespace, &stamp)
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn a_server_that_does_not_know_hello_is_polled_and_that_is_said_once() {
    let redis = RedisServer::with_args(&["--rename-command", "HELLO", ""]);
    let words = "ACL SETUSER app on >s3cret ~* +@all -hello";
    let words: Vec<_> = words.split(' ').collect();
    assert_eq!(redis.command(&words), "OK");
    let url = redis.url().replace("redis://", "redis://app:s3cret@");
    let log = Log::default();
    let _guard = log.begin();
    let desk = builder(&url, Mirroring::Tracking);
    let stamp = until_held(&desk).await;
    let mirror = desk.store.health().mirror.unwrap();
    assert!(!mirror.told);
    assert_eq!(mirror.lease, Duration::from_secs(1));

    let other = Desk::of(patient(&url).connect().await.unwrap());
    other.invalidate(&desk.sample("/a").scopes()).await.unwrap();
    cooled(&desk, &stamp, Duration::from_secs(1) + SLACK).await;
    redis.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    until_held(&desk).await;
    assert_eq!(log.count("so it is polled"), 1);
    assert_eq!(log.count("s3cret"), 0, "it cites what it does not know");
}

#[tokio::test]
async fn polling_holds_for_its_time_and_off_holds_nothing() {
    let redis = RedisServer::start();
    let max_staleness = Duration::from_millis(200);
    let polled = builder(&redis.url(), Mirroring::Poll { max_staleness });
    let off = builder(&redis.url(), Mirroring::Off);
    let other = Desk::new(&redis).await;
    let stamp = other
        .capture(&other.sample("/a").scopes())
        .await
        .unwrap()
        .stamp;
    warm(&polled, &stamp).await;
    let took = cooled(&polled, &stamp, max_staleness + SLACK).await;
    assert!(took > max_staleness / 2, "{took:?}");

    while off.store.check().await.is_err() {
        sleep(Duration::from_millis(5)).await;
    }
    assert!(off.store.confirm(&off.namespace, &stamp).await.unwrap());
    assert!(!off.store.vouches_for(&stamp));
}

#[tokio::test]
async fn health_says_how_long_what_is_held_is_believed() {
    let redis = RedisServer::start();
    let mirror = |desk: &Desk| desk.store.health().mirror.map(|m| (m.told, m.lease));
    let max_staleness = Duration::from_millis(200);
    let polled = builder(&redis.url(), Mirroring::Poll { max_staleness });
    let told = builder(&redis.url(), Mirroring::Tracking);
    let off = builder(&redis.url(), Mirroring::Off);
    for desk in [&polled, &told, &off] {
        while desk.store.check().await.is_err() {
            sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(mirror(desk), None, "nothing was to be held yet");
    }
    let stamp = held(&polled).await;
    assert_eq!(mirror(&polled), Some((false, max_staleness)));
    assert!(off.store.confirm(&off.namespace, &stamp).await.unwrap());
    assert_eq!(mirror(&off), None);

    warm(&told, &stamp).await;
    let (is_told, lease) = mirror(&told).unwrap();
    assert!(is_told && lease <= LEASE && lease > LEASE / 2, "{lease:?}");
    redis.stop();
    cooled(&told, &stamp, LEASE + SLACK).await;
    assert_eq!(mirror(&told).unwrap().1, Duration::ZERO);
}

#[tokio::test]
async fn what_a_server_had_in_an_earlier_life_is_not_believed() {
    // A dump of then, and a log that goes no further.
    assert_forgets_earlier_life(&["--dbfilename", "dump.rdb"], &["SAVE"]).await;
    let stop_logging = ["CONFIG", "SET", "appendonly", "no"];
    assert_forgets_earlier_life(&["--appendonly", "yes"], &stop_logging).await;
}

async fn assert_forgets_earlier_life(args: &[&str], preserve: &[&str]) {
    let mut redis = RedisServer::with_args(args);
    let desk = Desk::new(&redis).await;
    let sample = desk.sample("/a");
    desk.fill(&sample, &[]).await;
    let stamp = held(&desk).await;
    assert_eq!(redis.command(preserve), "OK");
    desk.invalidate(&sample.scopes()[2..]).await.unwrap();
    redis.restart();
    let name = desk.entry(&sample);
    assert_eq!(redis.command(&["EXISTS", &name]), "1", "it is back");
    while desk.store.check().await.is_err() {
        sleep(Duration::from_millis(5)).await;
    }
    // Whichever connection comes first: neither believes what came back.
    let asked = Duration::from_millis(500);
    let end = Instant::now() + asked;
    while Instant::now() < end {
        assert!(!desk.store.vouches_for(&stamp));
        assert!(!matches!(
            desk.store.confirm(&desk.namespace, &stamp).await,
            Ok(true)
        ));
        if let Ok(found) = desk.look_up(&sample).await {
            assert!(matches!(found.outcome, Outcome::Invalidated), "{found:?}");
        }
        sleep(Duration::from_millis(10)).await;
    }
    desk.fill(&sample, &[]).await;
    assert!(desk.body(&sample).await.is_some());
}

#[tokio::test]
async fn of_many_who_find_a_server_restored_one_empties_it() {
    let mut redis = RedisServer::with_args(&["--dbfilename", "dump.rdb"]);
    let desk = Desk::new(&redis).await;
    let sample = desk.sample("/a");
    desk.fill(&sample, &[]).await;
    assert_eq!(redis.command(&["SAVE"]), "OK");
    redis.restart();
    let mut desks = Vec::new();
    for _ in 0..20 {
        desks.push(Desk::new(&redis).await);
    }
    let captures = desks.iter().map(async |desk| {
        let captured = desk.capture(&sample.scopes()).await;
        captured.unwrap().stamp
    });
    let stamps = futures_util::future::join_all(captures).await;
    let first = stamps[0].clone();
    assert!(stamps.iter().all(|stamp| *stamp == first), "{stamps:?}");
    let other = &desks[1];
    assert!(other.store.confirm(&other.namespace, &first).await.unwrap());
}

#[tokio::test]
async fn while_another_process_empties_a_restored_server_it_is_waited_for() {
    let redis = RedisServer::start();
    let desk = Desk::new(&redis).await;
    let scopes = desk.sample("/a").scopes();
    let earlier = desk.capture(&scopes).await.unwrap().stamp;
    let [note, lock] =
        [layout::incarnation, layout::emptying].map(|name| name(&desk.namespace, "n"));
    let [note, lock] = [note, lock].map(|name| name.to_string());
    let present = redis.command(&["GET", &note]);
    redis.command(&["SET", &note, "of another life"]);
    redis.command(&["SET", &lock, "1"]);
    let late = Desk::new(&redis).await;
    let mut capture = Box::pin(late.capture(&scopes));
    let waited = timeout(Duration::from_millis(50), &mut capture).await;
    assert!(waited.is_err(), "{waited:?}");
    redis.command(&["SET", &note, &present]);
    assert_eq!(capture.await.unwrap().stamp, earlier);
    redis.command(&["SET", &note, "of another life"]);
    redis.command(&["DEL", &lock]);
    let late = Desk::new(&redis).await;
    assert_ne!(late.capture(&scopes).await.unwrap().stamp, earlier);
    assert_eq!(redis.command(&["GET", &note]), present);
}

#[tokio::test]
async fn a_hundred_epochs_are_confirmed_in_one_round_trip() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(&redis).await;
    let desk = Desk::of(RedisStore::connect(&proxy.url()).await.unwrap());
    let mut tags = Vec::new();
    for n in 0..100 {
        let mut name = String::new();
        write!(name, "tag {n}").unwrap();
        tags.push(desk.tag(&name));
    }
    let stamp = desk.capture(&tags).await.unwrap().stamp;
    warm(&desk, &stamp).await;
    proxy.take_requests();
    assert!(desk.store.confirm(&desk.namespace, &stamp).await.unwrap());
    assert!(proxy.take_requests() <= 2, "one, and perhaps a heartbeat");
}
