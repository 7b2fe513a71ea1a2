/// One of the tiers of a [`TieredStore`](crate::TieredStore).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "config",
    derive(serde::Deserialize),
    serde(rename_all = "lowercase")
)]
pub enum Tier {
    /// The memory of each process.
    Memory,
    /// The store that processes share.
    Shared,
}
