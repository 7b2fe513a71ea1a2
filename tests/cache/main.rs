//! What a whole cache does: a layer over a store, in front of a scripted handler.

#[path = "../support/mod.rs"]
mod support;

mod identity;
mod policy;
mod status;
