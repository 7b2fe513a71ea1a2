//! The store follows the primary that the Sentinels name.

use tokio::time::{Instant, sleep};

use super::*;
use crate::epoch::Stamp;
use crate::store::redis::control::LEASE;
use crate::store::redis::redis_sentinels::{RedisSentinels, Sentinel};

async fn desk(url: &str) -> Desk {
    let builder = RedisStore::builder(url).check_interval(Duration::from_millis(100));
    Desk::of(builder.connect().await.unwrap())
}

/// Waits until the server is the primary and what the store is given is there.
async fn until_stored_at(desk: &Desk, server: &RedisServer) {
    let end = Instant::now() + Duration::from_secs(20);
    for attempt in 0.. {
        assert!(Instant::now() < end, "not within twenty seconds");
        sleep(Duration::from_millis(20)).await;
        // From then on nothing comes to it from the other.
        let leads = server
            .command(&["INFO", "replication"])
            .contains("role:master");
        let sample = desk.sample(&format!("/{attempt}"));
        if leads
            && let Ok(captured) = desk.capture(&sample.scopes()).await
            && let Ok(Kept::Stored) = desk.put(&sample, captured, &[]).await
            && server.command(&["EXISTS", &desk.entry(&sample)]) == "1"
        {
            return assert!(desk.body(&sample).await.is_some());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_the_store_follows_to_the_replica() {
    let mut set = RedisSentinels::start(1, 1);
    let desk = desk(&set.url()).await;
    let sample = desk.sample("/a").body("before");
    desk.fill(&sample, &[]).await;
    let generation = desk.store.generation();
    set.kill(0);
    until_stored_at(&desk, set.server(1)).await;
    assert_ne!(desk.store.generation(), generation);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_planned_failover_the_store_leaves_the_old_primary() {
    let set = RedisSentinels::start(1, 1);
    let desk = desk(&set.url()).await;
    desk.fill(&desk.sample("/a"), &[]).await;
    // It has to have heard of the replica's health first.
    while set.ask(&["SENTINEL", "FAILOVER", "cache"]) != "OK" {
        sleep(Duration::from_millis(100)).await;
    }
    until_stored_at(&desk, set.server(1)).await;
}

/// Holds epochs for current, asking until the control connection is up.
async fn held(desk: &Desk) -> Stamp {
    let scopes = desk.sample("/a").scopes();
    loop {
        if let Ok(captured) = desk.capture(&scopes).await {
            let _ = desk.store.confirm(&desk.namespace, &captured.stamp).await;
            if desk.store.vouches_for(&captured.stamp) {
                return captured.stamp;
            }
        }
        sleep(Duration::from_millis(10)).await;
    }
}

async fn until(limit: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + limit;
    while !condition().await {
        assert!(Instant::now() < end, "not within {limit:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_is_left_alone_is_asked_each_time_and_then_left() {
    let mut set = RedisSentinels::start(1, 1);
    let order = ["CONFIG", "SET", "min-replicas-to-write", "1"];
    set.server(0).command(&order);
    let desk = desk(&set.url()).await;
    let sample = desk.sample("/a");
    desk.fill(&sample, &[]).await;
    let stamp = held(&desk).await;
    set.kill(1);
    let limit = Duration::from_secs(3);
    until(limit, async || !desk.store.vouches_for(&stamp)).await;
    assert!(desk.body(&sample).await.is_some(), "a Sentinel names it");
    set.kill_sentinel(0);
    until(limit, async || desk.look_up(&sample).await.is_err()).await;
}

/// Has a Sentinel name another primary, though the former one answers as ever.
fn replace(sentinel: &Sentinel, present: &str) {
    sentinel.ask(&["SENTINEL", "REMOVE", "cache"]);
    sentinel.ask(&["SENTINEL", "MONITOR", "cache", "127.0.0.1", present, "1"]);
}

/// As long as what was said of a primary holds, and what a busy machine may add.
const HOLDS: Duration = LEASE.saturating_add(Duration::from_millis(500));

#[tokio::test(flavor = "multi_thread")]
async fn a_former_primary_that_still_answers_is_read_from_for_a_lease_at_most() {
    let servers = [RedisServer::start(), RedisServer::start()];
    let [former, present] = servers.each_ref().map(|server| server.port().to_string());
    let mut sentinels = [(); 3].map(|()| Sentinel::start(&former, 1));
    let ports = sentinels.each_ref().map(Sentinel::port);
    let hosts = ports.map(|port| format!("127.0.0.1:{port}")).join(",");
    let url = format!("redis+sentinel://{hosts}/cache");
    let builder = RedisStore::builder(&url).check_interval(Duration::from_secs(60));
    let desk = Desk::of(builder.connect().await.unwrap());
    let waits = LEASE + Duration::from_secs(1);
    assert_eq!(desk.store.staleness(), waits, "it might be polled as well");
    let sample = desk.sample("/a");
    desk.fill(&sample, &[]).await;
    let stamp = held(&desk).await;
    let is_served = async || {
        let found = desk.look_up(&sample).await;
        let found = found.is_ok_and(|found| matches!(found.outcome, Outcome::Response(_)));
        found || desk.store.vouches_for(&stamp)
    };

    // Most of them know of the new one, and the one that does not is cut off with this process.
    replace(&sentinels[0], &present);
    let began = Instant::now();
    while began.elapsed() < HOLDS {
        assert!(is_served().await, "one of three is no reason to leave");
        sleep(Duration::from_millis(20)).await;
    }
    for sentinel in &mut sentinels[..2] {
        sentinel.kill();
    }
    until(HOLDS, async || !is_served().await).await;
    // Both are back, and name the new one.
    for sentinel in &mut sentinels[..2] {
        sentinel.restart();
    }
    replace(&sentinels[1], &present);
    until_stored_at(&desk, &servers[1]).await;
    assert!(!is_served().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_primary_holds_is_served_again_when_sentinels_are_back() {
    let server = RedisServer::start();
    let mut sentinel = Sentinel::start(&server.port().to_string(), 1);
    let desk = desk(&sentinel.url()).await;
    let sample = desk.sample("/a");
    desk.fill(&sample, &[]).await;
    sentinel.kill();
    until(HOLDS, async || desk.look_up(&sample).await.is_err()).await;
    sentinel.restart();
    let limit = Duration::from_secs(10);
    until(limit, async || desk.look_up(&sample).await.is_ok()).await;
    assert!(desk.body(&sample).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn once_one_connection_has_followed_no_other_is_asked_at_the_former_primary() {
    let servers = [RedisServer::start(), RedisServer::start()];
    let [former, present] = servers.each_ref().map(|server| server.port().to_string());
    let sentinel = Sentinel::start(&former, 1);
    let builder = RedisStore::builder(&sentinel.url()).check_interval(Duration::from_secs(60));
    let desk = Desk::of(builder.connect().await.unwrap());
    let stamp = held(&desk).await;

    replace(&sentinel, &present);
    // The one on which the server does not tell is the one for data.
    let clients = servers[0].command(&["CLIENT", "LIST"]);
    let data = clients
        .lines()
        .find(|client| !client.contains("cmd=client") && client.contains("resp=2"));
    let id = data.and_then(|client| client.strip_prefix("id=")?.split_once(' '));
    servers[0].command(&["CLIENT", "KILL", "ID", id.unwrap().0]);
    until(Duration::from_secs(3), async || {
        !desk.store.vouches_for(&stamp) && desk.capture(&desk.sample("/a").scopes()).await.is_ok()
    })
    .await;
    let confirmed = desk.store.confirm(&desk.namespace, &stamp).await;
    assert!(!confirmed.unwrap(), "the former primary would say so");
}

#[tokio::test]
async fn sentinels_are_given_their_password_and_take_no_more_than_they_have_to() {
    let server = RedisServer::start();
    for login in [
        "requirepass s3cret",
        "user default on >s3cret -@all +ping +sentinel|get-master-addr-by-name",
    ] {
        let sentinel = Sentinel::with_config(&server.port().to_string(), 1, login);
        let connect = async |password| {
            let builder = patient(&sentinel.url()).sentinel_password(password);
            builder.connect().await
        };
        let desk = Desk::of(connect("s3cret").await.unwrap());
        desk.fill(&desk.sample("/a"), &[]).await;
        held(&desk).await;
        let error = connect("other").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(RedisStore::connect(&sentinel.url()).await.is_err());
    }
}

#[tokio::test]
async fn sentinels_that_are_away_or_know_nothing_are_passed_over_or_told_of() {
    let server = RedisServer::start();
    let sentinel = Sentinel::start(&server.port().to_string(), 1);
    let port = sentinel.port();
    let url = format!("redis+sentinel://127.0.0.1:1,127.0.0.1:{port}/cache");
    RedisStore::connect(&url).await.unwrap();
    let url = format!("redis+sentinel://:s3cret@127.0.0.1:{port}/other");
    let error = RedisStore::connect(&url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let error = format!("{error} {error:?}");
    assert!(error.contains("the primary of other"), "{error}");
    assert!(error.contains("no Sentinel knows"), "{error}");
    assert!(!error.contains("s3cret"), "{error}");
}
