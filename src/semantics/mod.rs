//! The law: RFC 9110, 9111, 9211, 9213, 5861, 8246, 9875 and 10008 as pure functions.
//!
//! Everything here takes `http` types and plain values and gives plain values
//! back. Nothing waits, logs, stores or reads a clock: time comes in as an
//! argument. So a reader with the RFC open can check a file at a time, and the
//! tests are tables.
//!
//! A response's head is parsed once, when it is stored; what reuse needs to
//! know of it is kept as numbers and flags.

pub(crate) mod age;
#[cfg(test)]
mod anything;
pub(crate) mod cache_control;
pub(crate) mod cache_status;
pub(crate) mod date;
pub(crate) mod etag;
pub(crate) mod fields;
pub(crate) mod freshness;
pub(crate) mod groups;
pub(crate) mod grpc;
pub(crate) mod invalidation;
pub(crate) mod no_vary_search;
pub(crate) mod preconditions;
pub(crate) mod range;
pub(crate) mod reuse;
#[cfg(feature = "test-util")]
mod sample;
pub(crate) mod storing;
pub(crate) mod structured;
pub(crate) mod targeted;
pub(crate) mod uri;
pub(crate) mod validation;
pub(crate) mod vary;

#[cfg(feature = "test-util")]
pub use self::sample::{ParsedHeads, SampleExchange};
