//! A stretch of network that misbehaves as told.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

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
    /// Replies are late, and what the server tells of its own accord overtakes them.
    Overtaken(Duration),
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
    let mut late = VecDeque::<(Instant, Vec<u8>)>::new();
    loop {
        let due = late.front().map_or_else(Instant::now, |(due, _)| *due);
        let read = tokio::select! {
            read = server.read(&mut bytes) => read,
            () = sleep_until(due), if !late.is_empty() => {
                let (_, replies) = late.pop_front().unwrap();
                match client.write_all(&replies).await {
                    Ok(()) => continue,
                    Err(_) => return,
                }
            }
        };
        let Ok(length @ 1..) = read else { return };
        let mood = *mood.lock();
        let mut reply = &bytes[..length];
        match mood {
            Mood::Pass => {}
            Mood::Delay(delay) => sleep(delay).await,
            Mood::Hole => continue,
            Mood::Overtaken(delay) => {
                let (told, replies) = apart(reply);
                late.push_back((Instant::now() + delay, replies));
                match client.write_all(&told).await {
                    Ok(()) => continue,
                    Err(_) => return,
                }
            }
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

/// Returns what the server tells of its own accord, and apart from it the replies.
fn apart(mut bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut told, mut replies) = (Vec::new(), Vec::new());
    while !bytes.is_empty() {
        // What has not come whole yet is a reply, which are the long ones.
        let (value, rest) = bytes.split_at(length(bytes).unwrap_or(bytes.len()));
        match value[0] {
            b'>' => told.extend(value),
            _ => replies.extend(value),
        }
        bytes = rest;
    }
    (told, replies)
}

/// Returns the length of the value that begins here (RESP3), if all of it does.
fn length(bytes: &[u8]) -> Option<usize> {
    let line = bytes.windows(2).position(|two| two == b"\r\n")? + 2;
    let count = std::str::from_utf8(&bytes[1..line - 2]).ok()?.parse();
    let count: usize = count.unwrap_or_default();
    let parts = match bytes[0] {
        b'$' | b'=' | b'!' if bytes[1] != b'-' => {
            return Some(line + count + 2).filter(|length| *length <= bytes.len());
        }
        b'*' | b'~' | b'>' => count,
        b'%' | b'|' => 2 * count,
        _ => 0,
    };
    (0..parts).try_fold(line, |end, _| Some(end + length(&bytes[end..])?))
}

#[test]
fn what_is_told_is_found_among_replies() {
    let told = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$3\r\nkey\r\n";
    let replies = [
        &b"+OK\r\n"[..],
        b"$3\r\n>1\r\r\n",
        b"%1\r\n:1\r\n_\r\n",
        b"$-1\r\n",
        b"$9\r\nhal",
    ];
    let bytes = [
        replies[0], told, replies[1], replies[2], told, replies[3], replies[4],
    ]
    .concat();
    assert_eq!(apart(&bytes), ([*told, *told].concat(), replies.concat()));
}
