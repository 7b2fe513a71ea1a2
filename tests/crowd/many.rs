//! Very many, at once.

use std::time::Duration;

use http::Version;

use crate::handler::{Handler, Pace};
use crate::server::{STREAMS, Server, cache};
use crate::stamp::{Stamp, assert_same};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_get_the_answer_of_one_call() {
    const CONNECTIONS: usize = 40;
    const ALL: usize = CONNECTIONS * STREAMS;
    const KEY: u64 = 7;
    let handler = Handler::new(Pace {
        length: 10 << 10,
        piece: 1 << 10,
        work: Duration::ZERO,
    });
    let cache = cache();
    let handle = cache.handle();
    let server = Server::start(handler.router().layer(cache)).await;
    let hold = handler.hold();
    let mut asking = Vec::new();
    for _ in 0..CONNECTIONS {
        let client = server.client(Version::HTTP_2);
        asking.extend((0..STREAMS).map(|_| client.asking(KEY)));
    }
    server.holds(ALL).await;
    drop(hold);
    let expected = Stamp {
        key: KEY,
        generation: 1,
        length: 10 << 10,
    };
    let expected = expected.body();
    for each in asking {
        assert_same(&each.await.unwrap(), &expected);
    }
    assert_eq!(handler.calls(KEY), 1);
    assert_eq!(handle.stats().routes[0].collapsed, ALL as u64 - 1);
}
