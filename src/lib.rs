//! An HTTP response cache for any Tower stack.

mod key;
mod semantics;

pub use key::{InvalidNamespace, Namespace, PrimaryKey};
