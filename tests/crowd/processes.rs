//! Processes that share a Redis, of which one may be killed.

use std::env;
use std::io::{BufRead, BufReader, Read, Write, stdin, stdout};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use bytes::Bytes;
use http::Version;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tower_response_cache::{CacheLayer, RedisStore, Rule, Rules};

use crate::handler::{Handler, Pace};
use crate::redis_server::RedisServer;
use crate::server::{Client, PATIENCE, Server, ask};
use crate::stamp::Stamp;

/// The variable with what a process is told: the URL of Redis, and where the origin listens.
const ORDERS: &str = "CROWD_ORDERS";
const LISTENS: &str = "listens on ";
/// How many ask each process.
const EACH: usize = 100;
const KEY: u64 = 9;
const PACE: Pace = Pace {
    length: 4 << 10,
    piece: 1 << 10,
    work: Duration::from_millis(1),
};
/// So long the origin is held back, while all that asked settle who fetches; who is later finds what
/// has been stored.
const HELD: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_misses_of_three_processes_are_one_call() {
    let (redis, handler) = (RedisServer::start(), Handler::new(PACE));
    let origin = Server::start(handler.router()).await;
    let processes = three(&redis, &origin).await;
    let hold = handler.hold();
    let asking: Vec<_> = processes.iter().flat_map(Process::asking).collect();
    handler.called(KEY, 1).await;
    sleep(HELD).await;
    drop(hold);
    for each in asking {
        check(&each.await.unwrap(), 1);
    }
    assert_eq!(handler.calls(KEY), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_while_it_fetches_for_all_lets_nobody_down() {
    /// So long its lock stands.
    const LOCK: Duration = Duration::from_secs(5);
    /// For what a busy machine makes longer.
    const ALLOWANCE: Duration = Duration::from_secs(5);
    let (redis, handler) = (RedisServer::start(), Handler::new(PACE));
    let origin = Server::start(handler.router()).await;
    let [killed, others @ ..] = three(&redis, &origin).await;
    let hold = handler.hold();
    let mut lost = TcpStream::connect(killed.address).await.unwrap();
    ask(&mut lost, KEY).await;
    handler.called(KEY, 1).await;
    let asking: Vec<_> = others.iter().flat_map(Process::asking).collect();
    sleep(HELD).await;
    assert_eq!(handler.calls(KEY), 1);
    let generation = handler.change();
    drop(killed);
    let began = Instant::now();
    handler.called(KEY, 2).await;
    drop(hold);
    for each in asking {
        check(&each.await.unwrap(), generation);
    }
    let took = began.elapsed();
    assert!(took < LOCK + ALLOWANCE, "{took:?}");
    assert!(handler.calls(KEY) <= 3, "each asks at most once");
    // Nobody is there to answer.
    assert_eq!(lost.read(&mut [0]).await.unwrap_or_default(), 0);
}

/// Starts processes that know each their Redis: who meets a new one empties it.
async fn three(redis: &RedisServer, origin: &Server) -> [Process; 3] {
    let processes = [(); 3].map(|()| Process::start(redis, origin));
    for process in &processes {
        process.client.ask(KEY + 1).await;
    }
    processes
}

fn check(body: &[u8], generation: u64) {
    let expected = Stamp {
        key: KEY,
        generation,
        length: PACE.length,
    };
    assert_eq!(Stamp::of(body), expected);
}

/// A process with a cache, which asks the origin for what it has not. Dropped, it is killed.
struct Process {
    child: Child,
    address: SocketAddr,
    client: Client,
}

impl Process {
    fn start(redis: &RedisServer, origin: &Server) -> Self {
        let one = [
            "--exact",
            "processes::one_of_them",
            "--ignored",
            "--nocapture",
        ];
        let mut child = Command::new(env::current_exe().unwrap())
            .args(one)
            .env(ORDERS, format!("{} {}", redis.url(), origin.address()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = said.map(Result::unwrap);
        let address = said.find_map(|line| line.strip_prefix(LISTENS)?.parse().ok());
        let address = address.expect("it listens");
        Self {
            child,
            address,
            client: Client::new(address, Version::HTTP_2),
        }
    }

    /// Asks so often at once.
    fn asking(&self) -> Vec<JoinHandle<Bytes>> {
        (0..EACH).map(|_| self.client.asking(KEY)).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // By SIGKILL.
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
#[ignore = "started by the other tests"]
fn one_of_them() {
    // Without orders it is somebody who runs all that is ignored.
    let Ok(orders) = env::var(ORDERS) else { return };
    let (redis, origin) = orders.split_once(' ').unwrap();
    let origin = Client::new(origin.parse().unwrap(), Version::HTTP_2);
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(async {
        // On a busy machine a server may take longer than the defaults allow.
        let store = RedisStore::builder(redis).read_timeout(PATIENCE);
        let store = store.capture_timeout(PATIENCE).write_timeout(PATIENCE);
        // They are one site, each at a port of its own.
        let rule = Rule::ttl(Duration::from_secs(60)).any_host();
        let rules = Rules::builder().route("/{key}", rule).build().unwrap();
        let cache = CacheLayer::new(store.connect().await.unwrap()).rules(rules);
        let cache = cache.collapse_wait(PATIENCE).store_wait(PATIENCE);
        let handler = async move |Path(key)| origin.ask(key).await;
        Server::start(Router::new().route("/{key}", get(handler)).layer(cache)).await
    });
    writeln!(stdout(), "\n{LISTENS}{}", server.address()).unwrap();
    // Until it is killed, or nobody is there who would.
    stdin().read_to_end(&mut Vec::new()).unwrap();
}
