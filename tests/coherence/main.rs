//! Processes with memory over one Redis, in bad weather: does any serve what it must not?
//!
//! Three processes read, write and invalidate a few things of which another server holds the
//! versions, while Redis is killed, frozen and cut off. Afterwards all that they saw is [checked]:
//!
//! * No process has served a version older than one whose invalidation it had acknowledged.
//! * No process has served a version older than one that another had invalidated in Redis, longer
//!   than a lease ago.
//!
//! It lasts six seconds, or `COHERENCE_SECONDS`, and prints what it found:
//!
//! ```sh
//! COHERENCE_SECONDS=60 cargo test --all-features --test coherence -- --nocapture
//! ```
//!
//! [checked]: history::History

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod history;
mod process;
#[expect(dead_code, reason = "other tests need more of it")]
#[path = "../support/redis_server.rs"]
mod redis_server;
mod weather;

use std::env;
use std::io::{Write, stdout};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use self::history::History;
use self::process::ORDERS;
use self::redis_server::RedisServer;
use self::weather::Weather;

const PROCESSES: usize = 3;

#[test]
fn no_process_serves_what_is_invalidated() {
    let seconds = env::var("COHERENCE_SECONDS").map_or(6, |seconds| seconds.parse().unwrap());
    let [cache, origin] = [(); 2].map(|()| RedisServer::start());
    let folder = tempfile::tempdir().unwrap();
    let logs: Vec<_> = (0..PROCESSES)
        .map(|number| folder.path().join(number.to_string()))
        .collect();
    let urls = [cache.url(), origin.url()].join(" ");
    let children: Vec<Child> = logs
        .iter()
        .map(|log| {
            Command::new(env::current_exe().unwrap())
                .args(["--exact", "one_of_the_processes", "--ignored"])
                .env(ORDERS, format!("{urls} {seconds} {}", log.display()))
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();

    let mut weather = Weather::over(cache);
    weather.rage(Duration::from_secs(seconds).mul_f32(0.9));
    for mut child in children {
        assert!(child.wait().unwrap().success(), "a process failed");
    }

    let history = History::read(&logs);
    let report = history.check();
    writeln!(stdout(), "{weather}\n{report}").unwrap();
    assert_eq!(report.violations, [""; 0]);
    assert!(report.hits > report.responses / 4, "the caches are used");
    assert!(report.applied > 0, "and invalidated");
}

#[test]
#[ignore = "started by the other test"]
fn one_of_the_processes() {
    process::run();
}
