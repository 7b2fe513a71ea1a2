//! Redis hits beside the raw `GET` of the same bytes.

use criterion::Criterion;

use super::Ratios;

pub(crate) fn hits(_criterion: &mut Criterion, _ratios: &mut Ratios) {}
