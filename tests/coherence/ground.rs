//! What happens to a cluster.

use std::thread::sleep;
use std::time::Duration;

use crate::faults::Scene;
use crate::redis_cluster::RedisCluster;

/// A cluster to which things happen.
pub(crate) struct Ground {
    cluster: RedisCluster,
    random: usize,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Shift {
    /// The slot of something that is held moves to another primary, in steps.
    Moved,
    /// A primary lets its replica take its place.
    HandedOver,
    /// A primary ends at once. Its replica takes its place, and it comes back empty.
    Killed,
    /// A primary stands still, and does not know when it goes on that it is none any more.
    Frozen,
}

impl Ground {
    pub(crate) fn under(cluster: RedisCluster) -> Self {
        Self { cluster, random: 7 }
    }

    fn move_something(&mut self) {
        const STEP: Duration = Duration::from_millis(5);
        let any = u16::try_from(self.below(16_384)).unwrap();
        let from = self.cluster.owner(any);
        let names = self.cluster.server(from).strings(&["KEYS", "hc1:*"]);
        let Some(name) = names.get(self.below(names.len().max(1))) else {
            return;
        };
        let slot = self.cluster.slot(name);
        let others = (0..RedisCluster::SERVERS).filter(|place| *place != from);
        let owners = [0, 8191, 16_383].map(|slot| self.cluster.owner(slot));
        let Some(to) = others.into_iter().find(|place| owners.contains(place)) else {
            return;
        };
        self.cluster.begin_move(slot, to);
        sleep(STEP);
        for part in [":v:", ":m:", ":e:"] {
            self.cluster.move_names(slot, to, part);
            sleep(STEP);
        }
        self.cluster.end_move(slot, to);
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }
}

impl Scene for Ground {
    type Fault = Shift;

    const FAULTS: [Shift; 4] = [
        Shift::Moved,
        Shift::HandedOver,
        Shift::Killed,
        Shift::Frozen,
    ];
    const PAUSE: Duration = Duration::from_millis(300);

    fn strike(&mut self, shift: Shift, _round: usize) {
        let slot = u16::try_from(self.below(16_384)).unwrap();
        let primary = self.cluster.owner(slot);
        match shift {
            Shift::Moved => (0..10).for_each(|_| self.move_something()),
            Shift::HandedOver => {
                let replica = self.cluster.replica(primary);
                self.cluster.fail_over(replica);
            }
            Shift::Killed => {
                self.cluster.kill(primary);
                sleep(Duration::from_millis(2500));
                self.cluster.restart(primary);
            }
            Shift::Frozen => {
                self.cluster.freeze(primary);
                sleep(Duration::from_millis(2500));
                self.cluster.thaw(primary);
            }
        }
        self.cluster.until_replicated();
    }
}
