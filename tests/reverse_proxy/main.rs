//! The example `reverse_proxy` between raw clients and an origin that answers with any bytes.
//!
//! The tests drive the program itself.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on fails the test"
)]

mod clients;
#[path = "../support/example.rs"]
mod example;
mod exchanges;
mod failures;
mod harness;
mod interims;
mod messages;
mod options;
#[expect(dead_code, reason = "other tests need more of it")]
#[path = "../support/redis_server.rs"]
mod redis_server;
