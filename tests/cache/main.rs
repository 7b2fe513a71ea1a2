//! What a whole cache does: a layer over a store, in front of a scripted handler.

#[path = "../support/mod.rs"]
mod support;

mod bodies;
mod identity;
mod invalidation;
mod policy;
mod ranges;
mod status;
mod stores;
mod tower;
mod validation;
