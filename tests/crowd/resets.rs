//! Streams of one connection, of which half are reset.

use std::time::Duration;

use http::Version;
use http_body_util::BodyExt;

use crate::handler::{Handler, Pace};
use crate::random::Random;
use crate::server::{Client, STREAMS, Server, cache, read};
use crate::stamp::Stamp;

const LENGTH: usize = 64 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_the_streams_of_one_connection_half_may_be_reset() {
    let handler = Handler::new(Pace {
        length: LENGTH,
        piece: 4 << 10,
        work: Duration::from_millis(1),
    });
    let server = Server::start(handler.router().layer(cache())).await;
    let client = server.client(Version::HTTP_2);
    for key in 0..8 {
        let mut random = Random::seeded(key);
        let hold = handler.hold();
        let mut asking = Vec::new();
        for stream in 0..STREAMS as u64 {
            // Each time another one leads.
            let fate = match (key + stream) % 4 {
                0 => Fate::LeavesBeforeTheHead,
                1 => Fate::LeavesInTheBody(random.below(LENGTH as u64) as usize),
                _ => Fate::Stays,
            };
            asking.push((fate, tokio::spawn(fate.meet(client.clone(), key))));
            if stream == 0 {
                server.holds(1).await;
            }
        }
        server.holds(STREAMS).await;
        let (leaving, asking): (Vec<_>, Vec<_>) = asking
            .into_iter()
            .partition(|(fate, _)| matches!(fate, Fate::LeavesBeforeTheHead));
        leaving.iter().for_each(|(_, task)| task.abort());
        server.holds(asking.len()).await;
        drop(hold);
        for (_, each) in asking {
            each.await.unwrap();
        }
        assert_eq!(handler.calls(key), 1);
    }
}

/// What becomes of a stream.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Stays,
    /// While the handler works.
    LeavesBeforeTheHead,
    /// After so many bytes, or a few more.
    LeavesInTheBody(usize),
}

impl Fate {
    async fn meet(self, client: Client, key: u64) {
        let response = client.head(key).await;
        let expected = Stamp {
            key,
            generation: 1,
            length: LENGTH,
        };
        let Self::LeavesInTheBody(bytes) = self else {
            assert_eq!(Stamp::of(&read(response).await), expected);
            return;
        };
        let mut body = response.into_body();
        let mut came = Vec::new();
        while came.len() < bytes {
            let frame = body.frame().await.unwrap().unwrap();
            came.extend_from_slice(&frame.into_data().unwrap());
        }
        assert!(expected.body().starts_with(&came));
    }
}
