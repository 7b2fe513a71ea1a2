//! Crowds of clients over real sockets: who asks for the same at the same time shares one call of
//! the handler, and nothing that one of them does harms another.
//!
//! All that arrives is compared, byte for byte, with what the handler gave for that key and
//! generation. A `sleep` here is the work of a handler, the pace of a reader or a moment at which
//! something happens; nothing waits for luck.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod elsewhere;
mod exclusive;
mod handler;
mod leaders;
mod many;
mod processes;
mod random;
mod readers;
#[path = "../support/redis_server.rs"]
#[expect(dead_code, reason = "other tests need the rest")]
mod redis_server;
mod reentry;
mod resets;
mod server;
mod stamp;
mod streams;
