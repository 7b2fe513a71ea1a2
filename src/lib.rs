//! An HTTP response cache for any Tower stack.

mod invalidation;
pub mod store;
mod entry;
mod epoch;
mod key;
mod semantics;
mod clock;
mod error;
pub mod metrics;
pub mod reason;

pub use clock::Clock;
pub use entry::StoredResponse;
pub use epoch::{Captured, Epoch, Scope, ScopeKind, Stamp};
pub use error::{Error, ErrorKind};
pub use invalidation::Invalidated;
pub use key::{InvalidNamespace, Namespace, PrimaryKey};
