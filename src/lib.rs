//! An HTTP response cache for any Tower stack.

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
mod clock;
mod error;
pub mod metrics;
pub mod reason;

pub use clock::Clock;
#[cfg(any(test, feature = "test-util"))]
pub use clock::ManualClock;
pub use config::Settings;
pub use entry::StoredResponse;
pub use epoch::{Captured, Epoch, Scope, ScopeKind, Stamp};
pub use error::{Error, ErrorKind};
pub use extension::{CacheFor, NoStore, Tags};
pub use handle::{CacheHandle, Target};
pub use invalidation::Invalidated;
pub use key::{InvalidNamespace, Namespace, PrimaryKey};
pub use middleware::{CacheLayer, CacheService, ResponseBody, ResponseFuture};
pub use rules::{Policy, Rule, Rules, RulesBuilder, RulesError};
#[cfg(feature = "memory")]
pub use store::MemoryStore;
#[cfg(feature = "redis")]
pub use store::{RedisStore, RedisStoreBuilder};
