//! Processes with memory over one Redis: what is written through one is gone from the memory of
//! all.
//!
//! With a `redis-server` on its usual port, or at `REDIS_URL`, start two of them:
//!
//! ```sh
//! cargo run --release --example tiered -- 3001
//! cargo run --release --example tiered -- 3002
//! ```
//!
//! Read the note from the first until it answers from memory, write it through the second, and read
//! the first again:
//!
//! ```sh
//! curl -i localhost:3001/note
//! curl -X PUT localhost:3002/note -d 'buy milk'
//! curl -i localhost:3001/note
//! ```
//!
//! Each says when its handler reads the file in which the note is: once after each write, whichever
//! process is asked. `redis-cli monitor` shows that hits ask Redis for nothing.

use std::error::Error;
use std::io::{Write, stdout};
use std::path::PathBuf;
use std::time::Duration;
use std::{env, fs};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tower_response_cache::{CacheLayer, MemoryStore, RedisStore, Rule, Rules, TieredStore};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let port = env::args().nth(1).ok_or("usage: tiered PORT")?.parse()?;
    let redis = env::var("REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".to_owned());

    let second = RedisStore::connect(&redis).await?;
    let store = TieredStore::new(MemoryStore::new(16 << 20), second);
    // To clients they are two hosts, of which each would have responses of its own.
    let rule = Rule::ttl(Duration::from_secs(300)).any_host();
    let rules = Rules::builder().route("/note", rule).build()?;
    let app = Router::new()
        .route("/note", get(show).put(change))
        .layer(CacheLayer::new(store).rules(rules));

    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    writeln!(stdout(), "listening on http://{}", listener.local_addr()?)?;
    Ok(axum::serve(listener, app).await?)
}

async fn show() -> String {
    let _ = writeln!(stdout(), "the note is read");
    fs::read_to_string(note()).unwrap_or_else(|_| "nothing yet".to_owned())
}

/// A write that succeeds invalidates its path, before the answer leaves.
async fn change(text: String) -> StatusCode {
    match fs::write(note(), text) {
        Ok(()) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// What the processes share beside Redis, as others share a database.
fn note() -> PathBuf {
    env::temp_dir().join("tower-response-cache-note")
}
