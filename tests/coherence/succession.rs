//! What happens to servers that Sentinels watch.

use std::thread::sleep;
use std::time::Duration;

use crate::faults::Scene;
use crate::redis_sentinels::RedisSentinels;

/// Servers of which one after the other is the primary.
pub(crate) struct Succession {
    set: RedisSentinels,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Turn {
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
        Self { set }
    }
}

impl Scene for Succession {
    type Fault = Turn;

    const FAULTS: [Turn; 4] = [Turn::CutOff, Turn::Killed, Turn::Frozen, Turn::HandedOver];
    const PAUSE: Duration = Duration::from_millis(700);

    fn strike(&mut self, turn: Turn, _round: usize) {
        /// Longer than a lease: who still believes a former primary then would be seen to.
        const AFTERWARDS: Duration = Duration::from_millis(2500);
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
