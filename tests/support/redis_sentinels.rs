//! A real primary with replicas, and Sentinels that watch them, of a test's own.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::redis_server::{RedisServer, free_port};

/// Servers of which one is the primary, and Sentinels, which end with this value.
#[derive(Debug)]
pub(crate) struct RedisSentinels {
    servers: Vec<RedisServer>,
    sentinels: Vec<Sentinel>,
}

/// One that says which server is the primary of `cache`.
#[derive(Debug)]
pub(crate) struct Sentinel {
    process: Child,
    port: u16,
    directory: TempDir,
}

impl RedisSentinels {
    /// Starts a primary, so many replicas of it, and so many Sentinels; waits until each of these
    /// knows all of those.
    pub(crate) fn start(replicas: usize, sentinels: usize) -> Self {
        let primary = RedisServer::start();
        let port = primary.port().to_string();
        let args = ["--replicaof", "127.0.0.1", &port];
        let replicas = (0..replicas).map(|_| RedisServer::with_args(&args));
        let servers: Vec<_> = std::iter::once(primary).chain(replicas).collect();
        let watch = || Sentinel::start(&port, sentinels / 2 + 1);
        let set = Self {
            sentinels: (0..sentinels).map(|_| watch()).collect(),
            servers,
        };
        set.until_watched();
        set
    }

    /// Returns the address that names all Sentinels.
    pub(crate) fn url(&self) -> String {
        Sentinel::url_of(&self.sentinels)
    }

    /// Returns the server at a place.
    pub(crate) fn server(&self, place: usize) -> &RedisServer {
        &self.servers[place]
    }

    /// Returns the place of the server that the first Sentinel names.
    pub(crate) fn primary(&self) -> usize {
        let question = ["SENTINEL", "get-master-addr-by-name", "cache"];
        let named = RedisServer::strings_at(self.sentinels[0].port, &question);
        let is_named = |server: &RedisServer| server.port().to_string() == named[1];
        let place = self.servers.iter().position(is_named);
        place.expect("it is one of the servers")
    }

    /// Asks the first Sentinel.
    pub(crate) fn ask(&self, words: &[&str]) -> String {
        self.sentinels[0].ask(words)
    }

    /// Ends a server at once.
    pub(crate) fn kill(&mut self, place: usize) {
        self.servers[place].kill();
    }

    /// Ends a Sentinel at once.
    pub(crate) fn kill_sentinel(&mut self, place: usize) {
        self.sentinels[place].kill();
    }

    /// Starts a server that has ended.
    pub(crate) fn restart(&mut self, place: usize) {
        self.servers[place].restart();
    }

    /// Makes a server a replica of the primary that the Sentinels name, which they too would do, but
    /// not soon.
    pub(crate) fn demote(&self, place: usize) {
        let port = self.servers[self.primary()].port().to_string();
        self.servers[place].command(&["REPLICAOF", "127.0.0.1", &port]);
    }

    /// Waits until the Sentinels name another primary than the one at this place.
    pub(crate) fn until_replaced(&self, place: usize) {
        until("another primary", || self.primary() != place);
    }

    /// Waits until the primary has heard of all replicas, and the Sentinels of all there are.
    pub(crate) fn until_watched(&self) {
        let replicas = self.servers.len() - 1;
        until("all replicas in step", || {
            let primary = &self.servers[self.primary()];
            let info = primary.command(&["INFO", "replication"]);
            info.matches("state=online").count() == replicas
        });
        let known = [
            format!("slaves={replicas}"),
            format!("sentinels={}", self.sentinels.len()),
        ];
        until("all known to the Sentinels", || {
            self.sentinels.iter().all(|sentinel| {
                let info = sentinel.ask(&["INFO", "sentinel"]);
                known.iter().all(|part| info.contains(part))
            })
        });
    }
}

impl Sentinel {
    /// Starts one for a primary, which is down when so many say so.
    pub(crate) fn start(primary: &str, quorum: usize) -> Self {
        Self::with_config(primary, quorum, "")
    }

    /// Starts one with more lines in its configuration.
    pub(crate) fn with_config(primary: &str, quorum: usize, lines: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory for a Sentinel");
        let port = free_port();
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\n\
            sentinel monitor cache 127.0.0.1 {primary} {quorum}\n\
            sentinel down-after-milliseconds cache 500\nsentinel failover-timeout cache 2000\n\
            {lines}\n",
            directory.path().display()
        );
        std::fs::write(config(directory.path()), text).expect("a file for a Sentinel");
        Self {
            process: spawn(directory.path(), port),
            port,
            directory,
        }
    }

    /// Asks it.
    pub(crate) fn ask(&self, words: &[&str]) -> String {
        RedisServer::command_at(self.port, words)
    }

    /// Returns the address that names it alone.
    pub(crate) fn url(&self) -> String {
        Self::url_of(std::slice::from_ref(self))
    }

    /// Returns the port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Starts it again, with what it knew.
    pub(crate) fn restart(&mut self) {
        self.process = spawn(self.directory.path(), self.port);
    }

    fn url_of(sentinels: &[Self]) -> String {
        let hosts = sentinels
            .iter()
            .map(|one| format!("127.0.0.1:{}", one.port));
        let hosts: Vec<_> = hosts.collect();
        format!("redis+sentinel://{}/cache/0", hosts.join(","))
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        self.kill();
    }
}

fn config(directory: &Path) -> std::path::PathBuf {
    directory.join("sentinel.conf")
}

fn spawn(directory: &Path, port: u16) -> Child {
    let process = Command::new("redis-server")
        .arg(config(directory))
        .arg("--sentinel")
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is installed");
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        sleep(Duration::from_millis(10));
    }
    process
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < end, "not within 30 s: {what}");
        sleep(Duration::from_millis(20));
    }
}
