//! An HTTP response cache for any Tower stack: one [`.layer(..)`](CacheLayer) in front of axum,
//! hyper or tonic.
//!
//! It answers GET and HEAD from memory or Redis with `ETag`, `Age` and `Cache-Status`, stores what
//! it may on a miss with the lifetime of the route's [`Rule`], and invalidates routes, paths and
//! tags when something is written. Without rules it is a plain HTTP cache that obeys the response's
//! own fields (RFC 9111). [Keyed by content](CacheLayer::keyed_by_content), it answers QUERY
//! (RFC 10008) and safe gRPC calls too.
//!
//! ```
//! # #[cfg(feature = "memory")]
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use axum::Router;
//! use axum::routing::get;
//! use tower_response_cache::{CacheLayer, MemoryStore, Rule, Rules, Target};
//!
//! let rules = Rules::builder()
//!     .route("/products", Rule::ttl(Duration::from_secs(60)))
//!     .route("/products/{id}", Rule::ttl(Duration::from_secs(300)).tag("product:{id}"))
//!     .route("/account/{*rest}", Rule::bypass())
//!     // What a successful PUT, POST, PATCH or DELETE invalidates, beside its own path:
//!     .on_write("/products/{id}", ["/products"])
//!     .build()?;
//!
//! let cache = CacheLayer::new(MemoryStore::new(64 << 20)).rules(rules);
//! let handle = cache.handle();
//! let app: Router = Router::new()
//!     .route("/products/{id}", get(|| async { "a teapot" }).put(|| async { "changed" }))
//!     .layer(cache);
//!
//! // From a job, after the change was committed:
//! let _ = handle.invalidate(Target::tag("product:42")).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//!
//! * Nothing older than an acknowledged invalidation is served, and nothing of one user reaches
//!   another: see [`Policy`] for what is not stored, and [`Invalidated`] for what is acknowledged.
//! * A store that is down, slow or full never fails a request. To the request it is a miss.
//! * What is not cached passes through untouched: streams, trailers, upgrades, gRPC.
//! * Each answer says in `Cache-Status` why it was a hit or a miss, in the words of [`reason`],
//!   which are also those of the counters in [`metrics`] and of the `tracing` events.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `memory` | yes | `MemoryStore`: a bounded map in the process; `TieredStore`: the same over another store |
//! | `redis` | yes | `RedisStore`: a Redis or Valkey server, the primary that Sentinels name, or a cluster |
//! | `redis-tls` | no | TLS to it: `rediss://` |
//! | `compression` | no | compressed bodies in it |
//! | `config` | no | [`Rules`] and [`Settings`] from TOML, JSON and YAML files |
//! | `test-util` | no | the conformance suite for stores of your own, a manual clock, and what the benches measure |
//!
//! # The house
//!
//! The modules below are listed by floor. Each imports only from floors below its own, which
//! `tests/house.rs` sees to:
//!
//! | floor | rooms |
//! |---|---|
//! | 8 | `config`: the environment or a file, to a store, rules and a layer |
//! | 7 | `middleware`: layer, service, future, body; translates and decides nothing |
//! | 6 | `handle`: what an application keeps |
//! | 5 | `engine`: where law, policy and storage meet |
//! | 4 | `invalidation`: what still has to be told to the store |
//! | 3 | [`store`]: the contract, memory, Redis, memory over Redis, and the conformance suite |
//! | 2 | `entry`: what is stored, and its wire form; `rules`: patterns, rules, policy |
//! | 1 | `semantics`: the RFCs as pure functions; `key`; `epoch`; `extension`; [`metrics`] |
//! | 0 | `error`, `clock`, `flight`: know nothing of HTTP caching; [`reason`]: the words for it |

#![cfg_attr(docsrs, feature(doc_cfg))]

mod config;
mod middleware;
mod handle;
mod engine;
mod invalidation;
pub mod store;
mod entry;
mod rules;
mod extension;
mod semantics;
mod key;
mod epoch;
pub mod metrics;
mod flight;
mod clock;
mod error;
pub mod reason;

pub use clock::Clock;
#[cfg(any(test, feature = "test-util"))]
pub use clock::ManualClock;
pub use config::Settings;
pub use entry::StoredResponse;
pub use epoch::{Captured, Epoch, Scope, ScopeKind, Stamp};
pub use error::{Error, ErrorKind};
pub use extension::{CacheFor, NoStore, OnInterim, Tags};
pub use handle::{CacheHandle, Health, Target};
pub use invalidation::Invalidated;
pub use key::{InvalidNamespace, Namespace, PrimaryKey};
pub use middleware::{
    CacheLayer, CacheService, KeyedByContent, RequestBody, ResponseBody, ResponseFuture,
    UnreadContent,
};
pub use rules::{Policy, Rule, Rules, RulesBuilder, RulesError, Tier};
#[cfg(feature = "test-util")]
pub use semantics::{ParsedHeads, SampleExchange};
#[cfg(feature = "memory")]
pub use store::{MemoryStore, TieredStore, WhenAway};
#[cfg(feature = "redis")]
pub use store::{Mirroring, RedisStore, RedisStoreBuilder};

/// The README's examples are tests.
#[cfg(all(doctest, feature = "memory", feature = "redis"))]
#[doc = include_str!("../README.md")]
struct Readme;
