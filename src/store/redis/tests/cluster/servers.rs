//! A real cluster of a test's own.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::RedisServer;

/// Three primaries and a replica of each, which end with this value.
#[derive(Debug)]
pub(super) struct RedisCluster {
    servers: Vec<RedisServer>,
}

impl RedisCluster {
    pub(super) const PRIMARIES: usize = 3;
    const SLOTS: usize = 16_384;

    /// Starts the servers and waits until each of them knows of all and its part.
    pub(super) fn start() -> Self {
        Self::with_args(&[])
    }

    /// Starts the servers with more arguments.
    pub(super) fn with_args(args: &[&str]) -> Self {
        let own = [
            "--cluster-enabled yes",
            "--cluster-node-timeout 1000",
            "--cluster-replica-validity-factor 0",
            "--cluster-require-full-coverage no",
            "--repl-diskless-sync-delay 0",
        ];
        let own = own.iter().flat_map(|option| option.split(' '));
        let all: Vec<_> = own.chain(args.iter().copied()).collect();
        let start = |_| RedisServer::with_args(&all);
        let cluster = Self {
            servers: (0..2 * Self::PRIMARIES).map(start).collect(),
        };
        cluster.join();
        cluster
    }

    fn join(&self) {
        let ids: Vec<_> = self
            .all()
            .map(|server| server.command(&["CLUSTER", "MYID"]))
            .collect();
        for (place, server) in self.all().enumerate() {
            // Of servers that know nothing of each other, each takes another number.
            ok(server, &format!("CLUSTER SET-CONFIG-EPOCH {}", place + 1));
            ok(
                server,
                &format!("CLUSTER MEET 127.0.0.1 {}", self.servers[0].port()),
            );
        }
        for (place, server) in self.primaries().enumerate() {
            let bound = |place| place * Self::SLOTS / Self::PRIMARIES;
            let (first, last) = (bound(place), bound(place + 1) - 1);
            ok(server, &format!("CLUSTER ADDSLOTSRANGE {first} {last}"));
        }
        self.until("all know each other", |server| {
            let info = server.command(&["CLUSTER", "INFO"]);
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:6")
        });
        for (replica, primary) in self.servers[Self::PRIMARIES..].iter().zip(&ids) {
            ok(replica, &format!("CLUSTER REPLICATE {primary}"));
        }
        self.until("all know who replicates whom", |server| {
            let nodes = server.command(&["CLUSTER", "NODES"]);
            let info = server.command(&["INFO", "replication"]);
            nodes.matches(" slave ").count() + nodes.matches("myself,slave ").count() == 3
                && (info.contains("slave0:") && info.contains("state=online")
                    || info.contains("master_link_status:up"))
        });
    }

    fn until(&self, what: &str, mut condition: impl FnMut(&RedisServer) -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while !self.all().all(&mut condition) {
            assert!(Instant::now() < end, "not within 20 s: {what}");
            sleep(Duration::from_millis(20));
        }
    }

    /// Returns the address of the cluster, by one of its servers.
    pub(super) fn url(&self) -> String {
        format!("redis+cluster://127.0.0.1:{}/", self.servers[0].port())
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &RedisServer> {
        self.servers.iter()
    }

    /// Returns the servers that were the primaries at first, in the order of their slots.
    pub(super) fn primaries(&self) -> impl Iterator<Item = &RedisServer> {
        self.servers.iter().take(Self::PRIMARIES)
    }

    /// Returns the server that was the primary of a slot's name at first.
    pub(super) fn owner(&self, name: &str) -> &RedisServer {
        let slot = self.servers[0].command(&["CLUSTER", "KEYSLOT", name]);
        let slot: usize = slot.parse().expect("a slot is a number");
        let place = (0..Self::PRIMARIES).find(|place| slot < (place + 1) * Self::SLOTS / 3);
        &self.servers[place.expect("a slot is below 16,384")]
    }
}

/// Sends a command that succeeds.
pub(super) fn ok(server: &RedisServer, command: &str) {
    let words: Vec<_> = command.split(' ').collect();
    assert_eq!(server.command(&words), "OK", "{command}");
}
