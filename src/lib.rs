//! An HTTP response cache for any Tower stack.

mod rules;

mod key;
mod semantics;

pub use key::{InvalidNamespace, Namespace, PrimaryKey};
pub use rules::{Policy, Rule, Rules, RulesBuilder, RulesError};
