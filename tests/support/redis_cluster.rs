//! A real Redis Cluster of a test's own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::redis_server::RedisServer;

/// Three primaries and a replica of each, which end with this value.
#[derive(Debug)]
pub(crate) struct RedisCluster {
    servers: Vec<RedisServer>,
    /// Which of the servers run.
    up: Vec<bool>,
    _turn: Turn,
}

/// Lets one cluster run at a time: six servers that begin are much for a machine with other tests.
#[derive(Debug)]
struct Turn;

static TAKEN: AtomicBool = AtomicBool::new(false);

impl Turn {
    fn wait_for() -> Self {
        while TAKEN.swap(true, Ordering::Acquire) {
            sleep(Duration::from_millis(20));
        }
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        TAKEN.store(false, Ordering::Release);
    }
}

impl RedisCluster {
    pub(crate) const SERVERS: usize = 6;
    const PRIMARIES: usize = 3;
    const SLOTS: usize = 16_384;

    /// Starts the servers, and waits until each of them knows of all and its part.
    pub(crate) fn start() -> Self {
        Self::with_args(Vec::new)
    }

    /// Starts the servers with more arguments, such as `--tls-cluster yes`, each its own.
    pub(crate) fn with_args(mut more: impl FnMut() -> Vec<String>) -> Self {
        let args = [
            "--cluster-enabled yes",
            "--cluster-node-timeout 1000",
            "--cluster-replica-validity-factor 0",
            "--cluster-require-full-coverage no",
            "--cluster-allow-replica-migration no",
            "--repl-diskless-sync-delay 0",
        ];
        let args: Vec<_> = args.iter().flat_map(|option| option.split(' ')).collect();
        let turn = Turn::wait_for();
        let servers = (0..Self::SERVERS).map(|_| {
            let more = more();
            let more = more.iter().map(String::as_str);
            RedisServer::with_args(&args.iter().copied().chain(more).collect::<Vec<_>>())
        });
        let cluster = Self {
            servers: servers.collect(),
            up: vec![true; Self::SERVERS],
            _turn: turn,
        };
        cluster.join();
        cluster
    }

    fn join(&self) {
        let replicas = Self::PRIMARIES..Self::SERVERS;
        let first = self.tls_port(0).unwrap_or(self.server(0).port());
        for place in 0..Self::SERVERS {
            // Servers that know nothing of each other have to take different numbers.
            self.order(place, &format!("CLUSTER SET-CONFIG-EPOCH {}", place + 1));
            self.order(place, &format!("CLUSTER MEET 127.0.0.1 {first}"));
        }
        for place in 0..Self::PRIMARIES {
            let bound = |place| place * Self::SLOTS / Self::PRIMARIES;
            let slots = (bound(place)..bound(place + 1)).map(|slot| format!(" {slot}"));
            self.order(
                place,
                &format!("CLUSTER ADDSLOTS{}", slots.collect::<String>()),
            );
        }
        self.until("all know each other", |server| {
            let info = server.command(&["CLUSTER", "INFO"]);
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:6")
        });
        for replica in replicas {
            let primary = self.id(replica - Self::PRIMARIES);
            self.order(replica, &format!("CLUSTER REPLICATE {primary}"));
        }
        self.until_replicated();
    }

    /// Waits until all servers run well, and each primary has a replica that keeps up with it.
    pub(crate) fn until_replicated(&self) {
        self.until("each primary has a replica", |server| {
            let nodes = server.command(&["CLUSTER", "NODES"]);
            let info = server.command(&["INFO", "replication"]);
            !nodes.contains("fail")
                && nodes.matches("slave ").count() == Self::SERVERS - Self::PRIMARIES
                && (info.contains("state=online") || info.contains("master_link_status:up"))
        });
    }

    /// Waits until a primary's replica has heard of all that there is.
    pub(crate) fn until_in_step(&self, primary: usize) {
        let server = self.server(primary);
        loop {
            let info = server.command(&["INFO", "replication"]);
            let offset = info.split_once("master_repl_offset:");
            let offset = offset.and_then(|(_, rest)| rest.lines().next());
            let offset = offset.expect("a primary counts what it tells");
            if info.contains(&format!("offset={offset},")) {
                return;
            }
            sleep(Duration::from_millis(20));
        }
    }

    fn until(&self, what: &str, mut condition: impl FnMut(&RedisServer) -> bool) {
        let end = Instant::now() + Duration::from_secs(30);
        while !self.servers.iter().all(&mut condition) {
            assert!(Instant::now() < end, "not within 30 s: {what}");
            sleep(Duration::from_millis(20));
        }
    }

    /// Returns the address of the cluster, by two of its servers.
    pub(crate) fn url(&self) -> String {
        let [one, other] = [0, 1].map(|place| self.server(place).port());
        format!("redis+cluster://127.0.0.1:{one},127.0.0.1:{other}/")
    }

    /// Returns the port on which a server speaks TLS, if it does.
    pub(crate) fn tls_port(&self, place: usize) -> Option<u16> {
        let setting = self.server(place).strings(&["CONFIG", "GET", "tls-port"]);
        let port = setting.last()?.parse().ok();
        port.filter(|port| *port != 0)
    }

    pub(crate) fn server(&self, place: usize) -> &RedisServer {
        &self.servers[place]
    }

    /// Returns the place of a slot's present primary, as a server sees it that runs.
    pub(crate) fn owner(&self, slot: u16) -> usize {
        let running = self.up.iter().position(|up| *up).expect("a server runs");
        let nodes = self.server(running).command(&["CLUSTER", "NODES"]);
        let owner = nodes.lines().find(|node| {
            let slots = node.split(' ').skip(8);
            node.contains("master") && !node.contains("fail") && has(slots, slot)
        });
        let port = owner.and_then(|node| node.split([':', '@']).nth(1)?.parse().ok());
        let at_port = |server: &RedisServer| Some(server.port()) == port;
        let place = self.servers.iter().position(at_port);
        place.unwrap_or_else(|| panic!("nobody has slot {slot}: {nodes}"))
    }

    /// Returns the slot of a name.
    pub(crate) fn slot(&self, name: &str) -> u16 {
        let slot = self.server(0).command(&["CLUSTER", "KEYSLOT", name]);
        slot.parse().expect("a slot is a number")
    }

    /// Returns the place of a server that replicates another.
    pub(crate) fn replica(&self, primary: usize) -> usize {
        let id = self.id(primary);
        let nodes = self.server(primary).command(&["CLUSTER", "NODES"]);
        let node = nodes
            .lines()
            .find(|node| node.contains(&format!("slave {id}")));
        let port = node.and_then(|node| node.split([':', '@']).nth(1)?.parse().ok());
        let at_port = |server: &RedisServer| Some(server.port()) == port;
        let place = self.servers.iter().position(at_port);
        place.expect("each primary has a replica")
    }

    /// Ends a server at once.
    pub(crate) fn kill(&mut self, place: usize) {
        self.up[place] = false;
        self.servers[place].kill();
    }

    /// Lets a server stand still: connections stay up and nothing is answered.
    pub(crate) fn freeze(&mut self, place: usize) {
        self.up[place] = false;
        self.servers[place].stop();
    }

    /// Lets a frozen server go on.
    pub(crate) fn thaw(&mut self, place: usize) {
        self.servers[place].cont();
        self.up[place] = true;
    }

    /// Gives a primary that is away a minute to come back before a replica takes its place.
    pub(crate) fn be_patient(&self) {
        for place in 0..Self::SERVERS {
            self.order(place, "CONFIG SET cluster-node-timeout 60000");
        }
    }

    /// Starts a server again, with what it has on disk: nothing, if it was not told to save.
    pub(crate) fn restart(&mut self, place: usize) {
        self.servers[place].restart();
        self.up[place] = true;
    }

    /// Makes a replica the primary, in agreement with the one so far, and waits until it is.
    pub(crate) fn fail_over(&self, replica: usize) {
        self.order(replica, "CLUSTER FAILOVER");
        let end = Instant::now() + Duration::from_secs(10);
        let server = self.server(replica);
        while !server
            .command(&["INFO", "replication"])
            .contains("role:master")
        {
            assert!(Instant::now() < end, "no failover within 10 s");
            sleep(Duration::from_millis(5));
        }
    }

    /// Begins to move a slot to another server.
    pub(crate) fn begin_move(&self, slot: u16, to: usize) {
        let from = self.owner(slot);
        self.order(
            to,
            &format!("CLUSTER SETSLOT {slot} IMPORTING {}", self.id(from)),
        );
        self.order(
            from,
            &format!("CLUSTER SETSLOT {slot} MIGRATING {}", self.id(to)),
        );
    }

    /// Moves what stands under names with this in them.
    pub(crate) fn move_names(&self, slot: u16, to: usize, part: &str) {
        let (from, to) = (self.server(self.owner(slot)), self.server(to).port());
        let names = from.strings(&["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), "10000"]);
        for name in names.iter().filter(|name| name.contains(part)) {
            let port = to.to_string();
            let moved = from.command(&["MIGRATE", "127.0.0.1", &port, name, "0", "5000"]);
            assert!(["OK", "NOKEY"].contains(&&*moved), "{name}: {moved}");
        }
    }

    /// Moves what is left of a slot, and tells all primaries whose it is.
    pub(crate) fn end_move(&self, slot: u16, to: usize) {
        let from = self.owner(slot);
        self.move_names(slot, to, "");
        let all = (0..Self::SERVERS).filter(|place| ![to, from].contains(place));
        for place in [to, from].into_iter().chain(all) {
            let told = format!("CLUSTER SETSLOT {slot} NODE {}", self.id(to));
            // Replicas refuse, and are told by their primaries.
            self.server(place)
                .command(&told.split(' ').collect::<Vec<_>>());
        }
    }

    fn id(&self, place: usize) -> String {
        self.server(place).command(&["CLUSTER", "MYID"])
    }

    fn order(&self, place: usize, command: &str) {
        let words: Vec<_> = command.split(' ').collect();
        assert_eq!(self.server(place).command(&words), "OK", "{command}");
    }
}

/// Whether a slot is among those of a node, which are numbers and ranges.
fn has<'a>(mut slots: impl Iterator<Item = &'a str>, slot: u16) -> bool {
    slots.any(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let bounds = [first, last].map(|bound| bound.parse::<u16>().ok());
        matches!(bounds, [Some(first), Some(last)] if (first..=last).contains(&slot))
    })
}
