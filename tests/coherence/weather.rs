//! What happens to a server.

use std::thread::sleep;
use std::time::Duration;

use crate::faults::Scene;
use crate::redis_server::RedisServer;

/// A server to which things happen.
pub(crate) struct Weather {
    redis: RedisServer,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
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
        Self { redis }
    }
}

impl Scene for Weather {
    type Fault = Fault;

    const FAULTS: [Fault; 4] = [Fault::Untold, Fault::CutOff, Fault::Frozen, Fault::Killed];
    const PAUSE: Duration = Duration::from_millis(700);

    fn strike(&mut self, fault: Fault, round: usize) {
        /// How long it lasts, in turn; a lease is 2 s.
        const MILLIS: [u64; 3] = [300, 1200, 2600];
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
