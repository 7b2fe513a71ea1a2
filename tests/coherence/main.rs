//! Processes with memory over one Redis, in bad weather: does any serve what it must not?
//!
//! Three processes read, write and invalidate a few things of which another server holds the
//! versions, while Redis is killed, frozen and cut off, the slots of a Redis Cluster move and its
//! primaries change, or Sentinels replace one primary by the next. Some of the things are in memory
//! and in Redis, others in one of them alone. Afterwards all that they saw is [checked]:
//!
//! * No process has served a version older than one whose invalidation it had acknowledged.
//! * No process has served a version older than one that another had invalidated in Redis, longer
//!   than a lease ago.
//!
//! It lasts some seconds, or `COHERENCE_SECONDS`, and prints what it found:
//!
//! ```sh
//! COHERENCE_SECONDS=60 cargo test --all-features --test coherence -- --nocapture
//! ```
//!
//! [checked]: history::History

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod faults;
mod ground;
mod history;
mod process;
#[expect(dead_code, reason = "other tests need more of it")]
#[path = "../support/redis_cluster.rs"]
mod redis_cluster;
#[expect(dead_code, reason = "other tests need more of it")]
#[path = "../support/redis_sentinels.rs"]
mod redis_sentinels;
#[expect(dead_code, reason = "other tests need more of it")]
#[path = "../support/redis_server.rs"]
mod redis_server;
mod succession;
mod weather;

use std::env;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use self::faults::{Scene, rage};
use self::ground::Ground;
use self::history::{History, Report};
use self::process::ORDERS;
use self::redis_cluster::RedisCluster;
use self::redis_sentinels::RedisSentinels;
use self::redis_server::RedisServer;
use self::succession::Succession;
use self::weather::Weather;

const PROCESSES: usize = 3;

#[test]
fn no_process_serves_what_is_invalidated() {
    let server = RedisServer::start();
    let url = server.url();
    assert_coherent(&url, 6, Weather::over(server));
}

#[test]
fn no_process_serves_what_is_invalidated_in_a_cluster() {
    let cluster = RedisCluster::start();
    let url = cluster.url();
    assert_coherent(&url, 12, Ground::under(cluster));
}

#[test]
fn no_process_serves_what_is_invalidated_behind_sentinels() {
    let set = RedisSentinels::start(2, 3);
    let url = set.url();
    assert_coherent(&url, 15, Succession::of(set));
}

/// Makes sure that no process sees what it must not while things happen to what holds the cache.
#[expect(clippy::print_stdout, reason = "what was seen is of interest, too")]
fn assert_coherent(cache: &str, seconds: u64, mut scene: impl Scene) {
    let mut faults = String::new();
    let report = observe(cache, seconds, |time| faults = rage(&mut scene, time));
    println!("{faults}\n{report}");
    assert_eq!(report.violations, [""; 0]);
    assert!(report.hits > report.responses / 4, "the caches are used");
    assert!(report.applied > 0, "and invalidated");
}

/// Lets processes use a cache for some seconds while something happens to it, and returns what they
/// saw.
fn observe(cache: &str, seconds: u64, happen: impl FnOnce(Duration)) -> Report {
    let seconds = env::var("COHERENCE_SECONDS").map_or(seconds, |text| text.parse().unwrap());
    let origin = RedisServer::start();
    let folder = tempfile::tempdir().unwrap();
    let logs: Vec<_> = (0..PROCESSES)
        .map(|number| folder.path().join(number.to_string()))
        .collect();
    let children: Vec<Child> = logs
        .iter()
        .map(|log| {
            let orders = format!("{cache} {} {seconds} {}", origin.url(), log.display());
            Command::new(env::current_exe().unwrap())
                .args(["--exact", "one_of_the_processes", "--ignored"])
                .env(ORDERS, orders)
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();

    happen(Duration::from_secs(seconds).mul_f32(0.9));
    for mut child in children {
        assert!(child.wait().unwrap().success(), "a process failed");
    }

    History::read(&logs).check()
}

#[test]
#[ignore = "started by the other test"]
fn one_of_the_processes() {
    process::run();
}
