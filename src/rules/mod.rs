//! Which rule is a request's, and what the rule says.
//!
//! [`Rules`] are built once, from code ([`RulesBuilder`]) or from a file, and everything in them is
//! checked then: patterns are compiled into one router, tags into templates, and what a [`Rule`]
//! says beside the [`Policy`] is merged into it. Every mistake is reported, all at once. What is
//! left for a request is to find its route ([`Rules::find`]), which allocates nothing for a pattern
//! without parameters, and, after a write, what it invalidates ([`Rules::written`]).
//!
//! Nothing here knows of responses, stores or time: rules are data, and the engine reads them.

mod builder;
#[cfg(feature = "config")]
mod document;
mod error;
mod pattern;
mod policy;
mod route;
mod rule;
mod table;
mod tags;
mod template;
mod tier;
pub(crate) mod units;

pub use self::{
    builder::RulesBuilder, error::RulesError, policy::Policy, rule::Rule, table::Rules, tier::Tier,
};
pub(crate) use self::{
    route::{Match, Route},
    rule::{ClientCaching, Lifetime},
    table::WriteTarget,
};
