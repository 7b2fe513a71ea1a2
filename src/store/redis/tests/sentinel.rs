//! The store follows the primary that the Sentinels name.

use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::*;
use crate::epoch::Stamp;
use crate::store::redis::redis_server::free_port;

/// A primary, a replica of it, and one Sentinel that watches them.
struct Watched {
    servers: [RedisServer; 2],
    sentinel: Sentinel,
}

struct Sentinel {
    process: Child,
    port: u16,
    _directory: TempDir,
}

impl Watched {
    fn start() -> Self {
        let primary = RedisServer::start();
        let port = primary.port().to_string();
        let replica = RedisServer::with_args(&["--replicaof", "127.0.0.1", &port]);
        while primary.command(&["WAIT", "1", "100"]) != "1" {}
        let sentinel = Sentinel::start(&port);
        let watched = Self {
            servers: [primary, replica],
            sentinel,
        };
        // Until it has heard of the replica, it cannot make it the primary.
        while !watched.ask(&["INFO", "sentinel"]).contains("slaves=1") {
            std::thread::sleep(Duration::from_millis(20));
        }
        watched
    }

    fn ask(&self, words: &[&str]) -> String {
        RedisServer::command_at(self.sentinel.port, words)
    }

    async fn desk(&self) -> Desk {
        let builder =
            RedisStore::builder(&self.sentinel.url()).check_interval(Duration::from_millis(100));
        Desk::of(builder.connect().await.unwrap())
    }
}

impl Sentinel {
    fn start(primary: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("sentinel.conf");
        let port = free_port();
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor cache 127.0.0.1 {primary} 1\n\
            sentinel down-after-milliseconds cache 500\nsentinel failover-timeout cache 5000\n",
            directory.path().display()
        );
        std::fs::write(&config, text).unwrap();
        let process = Command::new("redis-server")
            .arg(&config)
            .arg("--sentinel")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
        Self {
            process,
            port,
            _directory: directory,
        }
    }

    fn url(&self) -> String {
        format!("redis+sentinel://127.0.0.1:{}/cache/0", self.port)
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
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
    let mut watched = Watched::start();
    let desk = watched.desk().await;
    let sample = desk.sample("/a").body("before");
    desk.fill(&sample, &[]).await;
    let generation = desk.store.generation();
    watched.servers[0].kill();
    until_stored_at(&desk, &watched.servers[1]).await;
    assert_ne!(desk.store.generation(), generation);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_planned_failover_the_store_leaves_the_old_primary() {
    let watched = Watched::start();
    let desk = watched.desk().await;
    desk.fill(&desk.sample("/a"), &[]).await;
    // It has to have heard of the replica's health first.
    while watched.ask(&["SENTINEL", "FAILOVER", "cache"]) != "OK" {
        sleep(Duration::from_millis(100)).await;
    }
    until_stored_at(&desk, &watched.servers[1]).await;
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
    let mut watched = Watched::start();
    let [primary, _] = &watched.servers;
    primary.command(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let desk = watched.desk().await;
    let sample = desk.sample("/a");
    desk.fill(&sample, &[]).await;
    let stamp = held(&desk).await;
    watched.servers[1].kill();
    let limit = Duration::from_secs(3);
    until(limit, async || !desk.store.vouches_for(&stamp)).await;
    assert!(desk.body(&sample).await.is_some(), "a Sentinel names it");
    watched.sentinel.process.kill().unwrap();
    until(limit, async || desk.look_up(&sample).await.is_err()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn once_one_connection_has_followed_no_other_is_asked_at_the_former_primary() {
    let servers = [RedisServer::start(), RedisServer::start()];
    let [former, present] = servers.each_ref().map(|server| server.port().to_string());
    let sentinel = Sentinel::start(&former);
    let builder = RedisStore::builder(&sentinel.url()).check_interval(Duration::from_secs(60));
    let desk = Desk::of(builder.connect().await.unwrap());
    let stamp = held(&desk).await;

    let order = |words: &[&str]| RedisServer::command_at(sentinel.port, words);
    order(&["SENTINEL", "REMOVE", "cache"]);
    order(&["SENTINEL", "MONITOR", "cache", "127.0.0.1", &present, "1"]);
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
async fn sentinels_that_are_away_or_know_nothing_are_passed_over_or_told_of() {
    let watched = Watched::start();
    let port = watched.sentinel.port;
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
