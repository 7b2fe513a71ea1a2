//! An HTTP response cache for any Tower stack.

pub mod metrics;
pub mod reason;

mod clock;
mod epoch;
mod error;
mod key;
mod semantics;

pub use clock::Clock;
pub use epoch::{Captured, Epoch, Scope, ScopeKind, Stamp};
pub use error::{Error, ErrorKind};
pub use key::{InvalidNamespace, Namespace, PrimaryKey};
