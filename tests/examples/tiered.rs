//! Two processes of `examples/tiered.rs` share a note over one Redis.

use std::process::Command;
use std::time::Duration;

use tokio::time::timeout;

use crate::client::Client;
use crate::example::{Running, program};
use crate::redis_server::RedisServer;

/// Long enough for anything here, if it happens at all.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_note_written_through_one_process_is_gone_from_the_memory_of_the_other() {
    let redis = RedisServer::start();
    let notes = tempfile::tempdir().unwrap();
    let program = program("tiered");
    let processes = [(); 2].map(|()| {
        let mut command = Command::new(&program);
        command.arg("0").env("REDIS_URL", redis.url());
        Running::start(command.env("TMPDIR", notes.path()))
    });
    let [first, second] = processes
        .each_ref()
        .map(|process| Client::of(process.address));

    for text in ["nothing yet", "buy milk", "buy bread"] {
        if text != "nothing yet" {
            let written = second.ask("PUT", "/note", &[], text).await;
            assert_eq!(written.status, 204, "{written:?}");
        }
        for client in [&first, &second] {
            let asking = find_in_memory(client, text);
            timeout(PATIENCE, asking).await.expect(text);
        }
    }
}

/// Asks for the note until it is this one, and comes from memory.
async fn find_in_memory(client: &Client, text: &str) {
    loop {
        let answer = client.get("/note").await;
        if answer.text == text && answer.cache_status().ends_with("detail=memory") {
            return;
        }
    }
}
