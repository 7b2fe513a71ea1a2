//! Readers that take their time.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join, join_all};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tower_response_cache::CacheHandle;

use crate::handler::{Handler, Pace};
use crate::server::{PATIENCE, SOCKET, Server, ask, cache};
use crate::stamp::{Stamp, assert_same};

const LENGTH: usize = 8 << 20;
const KEY: u64 = 1;
/// What 200 connections may cost beside the body.
const REST: u64 = 1 << 20;
/// A slow reader reads 64 KiB a second.
const SIP: usize = 16 << 10;
const PAUSE: Duration = Duration::from_millis(250);

/// All is done by one thread, whose allocations are counted: the server's and its clients'.
#[test]
fn two_hundred_slow_readers_hold_up_nobody_and_take_the_memory_of_two_bodies() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let handler = Handler::new(Pace {
        length: LENGTH,
        piece: 64 << 10,
        work: Duration::ZERO,
    });
    let (server, handle, slow, fast) = runtime.block_on(async {
        let cache = cache();
        let handle = cache.handle();
        let server = Server::start(handler.router().layer(cache)).await;
        let expected = Stamp {
            key: KEY,
            generation: 1,
            length: LENGTH,
        };
        let expected = expected.body();
        let connect = || Reader::connected(server.address(), expected.clone());
        let slow = join_all((0..200).map(|_| connect())).await;
        let fast = connect().await;
        (server, handle, slow, fast)
    });
    let used = allocation_counter::measure(|| runtime.block_on(read(&handle, slow, fast)));
    assert!(used.bytes_max <= 2 * LENGTH as u64 + REST, "{used:?}");
    assert_eq!(handler.calls(KEY), 1);
    drop(server);
}

/// Lets the fast one read while the slow ones do; then these hurry too.
async fn read(handle: &CacheHandle, slow: Vec<Reader>, mut fast: Reader) {
    let furthest = Arc::new(AtomicUsize::new(0));
    let hurry = watch::Sender::new(false);
    let sipping = slow.into_iter().map(async |mut reader| {
        reader.begin().await;
        while !*hurry.borrow() && reader.sip().await {
            furthest.fetch_max(reader.place, Ordering::Relaxed);
            sleep(PAUSE).await;
        }
        while reader.sip().await {}
    });
    let passing = async {
        sleep(PAUSE * 6).await;
        fast.begin().await;
        while fast.sip().await {}
        let furthest = furthest.load(Ordering::Relaxed);
        assert!(furthest < LENGTH / 8, "they have read {furthest} bytes");
        assert_eq!(handle.stats().stored(), 1);
        sleep(PAUSE * 2).await;
        hurry.send_replace(true);
    };
    join(join_all(sipping), passing).await;
}

/// A connection with all that it needs to read.
struct Reader {
    socket: TcpStream,
    buffer: Vec<u8>,
    expected: Bytes,
    place: usize,
}

impl Reader {
    /// Connects, and asks for what is not there, so that the server has all it needs too.
    async fn connected(address: SocketAddr, expected: Bytes) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(SOCKET).unwrap();
        let mut reader = Self {
            socket: socket.connect(address).await.unwrap(),
            buffer: vec![0; SIP],
            expected,
            place: 0,
        };
        reader.ask("not/there").await;
        reader
    }

    async fn begin(&mut self) {
        self.ask(KEY).await;
    }

    /// Asks, and reads the head of the answer.
    async fn ask(&mut self, path: impl Display) {
        ask(&mut self.socket, path).await;
        let mut head = Vec::with_capacity(512);
        while !head.ends_with(b"\r\n\r\n") {
            let byte = timeout(PATIENCE, self.socket.read_u8()).await;
            head.push(byte.expect("nobody is stuck").unwrap());
        }
    }

    /// Reads a little; returns whether there is more.
    async fn sip(&mut self) -> bool {
        let read = timeout(PATIENCE, self.socket.read(&mut self.buffer)).await;
        let read = read.expect("nobody is stuck").unwrap();
        assert_ne!(read, 0, "it is cut off at {}", self.place);
        let expected = &self.expected[self.place..][..read];
        assert_same(&self.buffer[..read], expected);
        self.place += read;
        self.place < LENGTH
    }
}
