//! What a whole cache does: a layer over a store, in front of a scripted handler.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(
    clippy::type_complexity,
    reason = "the types of tables are those of their rows"
)]

#[path = "../support/mod.rs"]
mod support;

#[path = "../support/redis_server.rs"]
#[expect(dead_code, reason = "other tests need the rest")]
mod redis_server;

mod bodies;
mod collapsing;
mod dropped;
mod flight;
mod grpc;
mod identity;
mod interims;
mod kept;
mod invalidation;
mod methods;
mod model;
mod outages;
mod pace;
mod patience;
mod policy;
mod processes;
mod queries;
mod ranges;
mod searches;
mod status;
mod store_wait;
mod stores;
mod tiers;
mod tower;
mod validation;
mod wire;
