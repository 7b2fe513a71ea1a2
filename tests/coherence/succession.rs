//! What happens to servers that Sentinels watch.

use std::fmt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::redis_sentinels::RedisSentinels;

/// Servers of which one after the other is the primary, and how often it came about in which way.
pub(crate) struct Succession {
    set: RedisSentinels,
    counts: [(Turn, u32); 4],
}

#[derive(Clone, Copy, Debug)]
enum Turn {
    /// All connections to the primary are closed.
    CutOff,
    /// The primary hands over to a replica.
    HandedOver,
    /// The primary ends at once. A replica takes its place, and it comes back empty.
    Killed,
    /// The primary stands still, and when it goes on it takes itself for one as before.
    Frozen,
}

impl Succession {
    pub(crate) fn of(set: RedisSentinels) -> Self {
        let turns = [Turn::CutOff, Turn::Killed, Turn::Frozen, Turn::HandedOver];
        Self {
            set,
            counts: turns.map(|turn| (turn, 0)),
        }
    }

    /// Lets one thing after the other happen, with a pause after each.
    pub(crate) fn proceed(&mut self, time: Duration) {
        const PAUSE: Duration = Duration::from_millis(700);
        let began = Instant::now();
        let kinds = self.counts.len();
        for number in 0.. {
            sleep(PAUSE);
            if began.elapsed() > time {
                return;
            }
            self.turn(number % kinds);
        }
    }

    fn turn(&mut self, kind: usize) {
        /// Longer than a lease: who still believes a former primary then would be seen to.
        const AFTERWARDS: Duration = Duration::from_millis(2500);
        let (turn, count) = &mut self.counts[kind];
        *count += 1;
        let set = &mut self.set;
        let primary = set.primary();
        match turn {
            Turn::CutOff => {
                let order = ["CLIENT", "KILL", "TYPE", "normal"];
                set.server(primary).command(&order);
                return;
            }
            Turn::HandedOver => {
                // A Sentinel that has just seen to another failover refuses.
                while set.ask(&["SENTINEL", "FAILOVER", "cache"]) != "OK" {
                    sleep(Duration::from_millis(100));
                }
                set.until_replaced(primary);
            }
            Turn::Killed => {
                set.kill(primary);
                set.until_replaced(primary);
                set.restart(primary);
                set.demote(primary);
            }
            Turn::Frozen => {
                set.server(primary).stop();
                set.until_replaced(primary);
                set.server(primary).cont();
                sleep(AFTERWARDS);
                set.demote(primary);
            }
        }
        set.until_watched();
    }
}

impl fmt::Display for Succession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts.iter();
        let counts: Vec<_> = counts.map(|(turn, n)| format!("{turn:?} {n}")).collect();
        write!(f, "faults: {}", counts.join(", "))
    }
}
