//! In place of compression where it is not built in.

use bytes::Bytes;

use super::Damage;
use crate::entry::StoredResponse;

/// Leaves the body as it is.
pub(super) fn compress(_: &StoredResponse, _: usize) -> Option<Vec<u8>> {
    None
}

/// Says that the content is out of reach.
pub(super) fn decompress(_: &[u8], _: usize) -> Result<Bytes, Damage> {
    Err(Damage::UnknownVersion)
}
