//! A stretch of network that misbehaves as told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::RedisServer;

/// Forwards connections to a server.
#[derive(Debug)]
pub(super) struct Proxy {
    address: SocketAddr,
    mood: Arc<Mutex<Mood>>,
    requests: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

/// What becomes of the bytes that arrive.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mood {
    Pass,
    /// Replies are late.
    Delay(Duration),
    /// Everything vanishes, and no connection ends.
    Hole,
    /// A reply ends after so many bytes, and the connection with it.
    Cut(usize),
    /// Replies come a byte at a time.
    Dribble,
}

impl Proxy {
    pub(super) async fn before(redis: &RedisServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mood = Arc::new(Mutex::new(Mood::Pass));
        let requests = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        let (server, heard, counter) = (redis.port(), Arc::clone(&mood), Arc::clone(&requests));
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (mood, requests) = (Arc::clone(&heard), Arc::clone(&counter));
                connections.spawn(async move {
                    let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    tokio::select! {
                        () = requests_pass(from_client, to_server, &mood, &requests) => {}
                        () = replies_pass(from_server, to_client, &mood) => {}
                    }
                });
            }
        });
        Self {
            address,
            mood,
            requests,
            _tasks: tasks,
        }
    }

    pub(super) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    pub(super) fn set(&self, mood: Mood) {
        *self.mood.lock() = mood;
    }

    /// Returns how many requests have passed since it was last asked.
    ///
    /// What a client writes at once is one request, so to a client that waits for each reply they
    /// are its round trips.
    pub(super) fn take_requests(&self) -> usize {
        self.requests.swap(0, Ordering::Relaxed)
    }
}

async fn requests_pass(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    mood: &Mutex<Mood>,
    requests: &AtomicUsize,
) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(length @ 1..) = client.read(&mut bytes).await {
        requests.fetch_add(1, Ordering::Relaxed);
        if !matches!(*mood.lock(), Mood::Hole) && server.write_all(&bytes[..length]).await.is_err()
        {
            return;
        }
    }
}

async fn replies_pass(mut server: OwnedReadHalf, mut client: OwnedWriteHalf, mood: &Mutex<Mood>) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(length @ 1..) = server.read(&mut bytes).await {
        let mood = *mood.lock();
        let mut reply = &bytes[..length];
        match mood {
            Mood::Pass => {}
            Mood::Delay(delay) => sleep(delay).await,
            Mood::Hole => continue,
            Mood::Cut(after) => reply = &reply[..after.min(length)],
            Mood::Dribble => {
                while let [byte, rest @ ..] = reply {
                    sleep(Duration::from_millis(1)).await;
                    if client.write_all(&[*byte]).await.is_err() {
                        return;
                    }
                    reply = rest;
                }
            }
        }
        if client.write_all(reply).await.is_err() || matches!(mood, Mood::Cut(_)) {
            return;
        }
    }
}
