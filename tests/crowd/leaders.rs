//! Leaders whose sockets are reset.

use std::sync::Arc;
use std::time::Duration;

use http::Version;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::handler::{Handler, Pace};
use crate::random::Random;
use crate::server::{Client, PATIENCE, Server, ask, cache};
use crate::stamp::Stamp;

const LENGTH: usize = 64 << 10;
const WORK: Duration = Duration::from_millis(1);
const FOLLOWERS: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_leaders_that_are_killed_take_nobody_with_them() {
    const KILLED: u64 = 1_000;
    let handler = Handler::new(Pace {
        length: LENGTH,
        piece: LENGTH / 8,
        work: WORK,
    });
    let cache = cache();
    let handle = cache.handle();
    let server = Arc::new(Server::start(handler.router().layer(cache)).await);
    let clients = [Version::HTTP_11, Version::HTTP_2].map(|version| server.client(version));
    let at_once = Arc::new(Semaphore::new(20));
    let mut exchanges = JoinSet::new();
    for key in 0..KILLED {
        let exchange = Exchange {
            key,
            server: Arc::clone(&server),
            handler: handler.clone(),
            client: clients[key as usize % 2].clone(),
        };
        let turn = Arc::clone(&at_once).acquire_owned().await.unwrap();
        exchanges.spawn(async move {
            exchange.run().await;
            drop(turn);
        });
    }
    exchanges.join_all().await;
    // On a busy machine some come when all is over, and find it stored.
    let collapsed = handle.stats().routes[0].collapsed;
    assert!(collapsed > KILLED, "{collapsed}");
}

/// One leader, and those who follow it.
struct Exchange {
    key: u64,
    server: Arc<Server>,
    handler: Handler,
    client: Client,
}

/// When a leader is killed.
#[derive(Debug)]
enum Moment {
    /// It has only just asked; it may not even be the leader yet.
    Asked,
    /// The handler has been working on the head for some microseconds.
    Waiting(u64),
    /// So many bytes have come.
    Reading(usize),
}

impl Exchange {
    async fn run(self) {
        let mut random = Random::seeded(self.key);
        let moment = match random.below(4) {
            0 => Moment::Asked,
            1 => Moment::Waiting(random.below(1_500)),
            // The head is some 200 bytes.
            _ => Moment::Reading(1 + random.below(LENGTH as u64 + 100) as usize),
        };
        let mut leader = TcpStream::connect(self.server.address()).await.unwrap();
        leader.set_zero_linger().unwrap();
        ask(&mut leader, self.key).await;
        if !matches!(moment, Moment::Asked) {
            self.handler.called(self.key, 1).await;
        }
        let followers = [(); FOLLOWERS].map(|()| self.client.asking(self.key));
        match moment {
            Moment::Asked => {}
            Moment::Waiting(micros) => sleep(Duration::from_micros(micros)).await,
            Moment::Reading(bytes) => read(&mut leader, bytes).await,
        }
        // Without linger that is a reset.
        drop(leader);
        for follower in followers {
            let expected = Stamp {
                key: self.key,
                generation: 1,
                length: LENGTH,
            };
            assert_eq!(Stamp::of(&follower.await.unwrap()), expected);
        }
        assert_eq!(self.handler.calls(self.key), 1, "{moment:?}");
    }
}

async fn read(socket: &mut TcpStream, bytes: usize) {
    let mut buffer = vec![0; bytes];
    let read = timeout(PATIENCE, socket.read_exact(&mut buffer)).await;
    read.expect("nobody is stuck").unwrap();
}
