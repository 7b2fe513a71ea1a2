//! The examples for readers, run as they are told to run them: `axum` as the README shows it, and
//! two processes of `tiered`.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on fails the test"
)]

mod catalogue;
mod client;
#[path = "../support/example.rs"]
mod example;
#[expect(dead_code, reason = "other tests need more of it")]
#[path = "../support/redis_server.rs"]
mod redis_server;
mod tiered;
