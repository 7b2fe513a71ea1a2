//! What happens to a server.

use std::fmt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::redis_server::RedisServer;

/// A server to which things happen, and how often each did.
pub(crate) struct Weather {
    redis: RedisServer,
    counts: [(Fault, u32); 4],
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// It ends at once, and begins anew without what it held.
    Killed,
    /// It stands still, for longer or shorter than a lease.
    Frozen,
    /// All connections are closed.
    CutOff,
    /// The connections that tell of invalidations are closed.
    Untold,
}

impl Weather {
    pub(crate) fn over(redis: RedisServer) -> Self {
        let faults = [Fault::Untold, Fault::CutOff, Fault::Frozen, Fault::Killed];
        Self {
            redis,
            counts: faults.map(|fault| (fault, 0)),
        }
    }

    /// Lets one thing after the other happen, with a pause after each.
    pub(crate) fn rage(&mut self, time: Duration) {
        const PAUSE: Duration = Duration::from_millis(700);
        let began = Instant::now();
        let kinds = self.counts.len();
        for number in 0.. {
            sleep(PAUSE);
            if began.elapsed() + PAUSE > time {
                return;
            }
            self.strike(number % kinds, number / kinds);
        }
    }

    fn strike(&mut self, kind: usize, round: usize) {
        /// How long it lasts, in turn; a lease is 2 s.
        const MILLIS: [u64; 3] = [300, 1200, 2600];
        let (fault, count) = &mut self.counts[kind];
        *count += 1;
        let span = Duration::from_millis(MILLIS[round % MILLIS.len()]);
        match fault {
            Fault::Killed => {
                self.redis.kill();
                sleep(span);
                self.redis.restart();
            }
            Fault::Frozen => {
                self.redis.stop();
                sleep(span);
                self.redis.cont();
            }
            Fault::CutOff => drop(self.redis.command(&["CLIENT", "KILL", "TYPE", "normal"])),
            Fault::Untold => {
                let clients = self.redis.command(&["CLIENT", "LIST"]);
                let listeners = clients.lines().filter(|line| line.contains(" flags=t "));
                let ids = listeners.filter_map(|line| line.strip_prefix("id=")?.split(' ').next());
                for id in ids {
                    self.redis.command(&["CLIENT", "KILL", "ID", id]);
                }
            }
        }
    }
}

impl fmt::Display for Weather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts.iter();
        let counts: Vec<_> = counts.map(|(fault, n)| format!("{fault:?} {n}")).collect();
        write!(f, "faults: {}", counts.join(", "))
    }
}
