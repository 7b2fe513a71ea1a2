//! Parts of a representation (RFC 9110 §14, RFC 9111 §3.3, §3.4).
//!
//! A request's [`Ranges`] are taken from a complete stored response or from a
//! stored [`Part`], as [`Spans`], and cut out of its body as a [`Partial`]
//! answer. Parts with the same [`StrongValidator`] can be joined into larger
//! ones.
//!
//! Positions are `u64`, first and last both included, as on the wire.

mod combine;
mod content_range;
mod part;
mod partial;
mod request;
mod validator;

pub(crate) use combine::{HeldPart, Joined, join};
pub(crate) use content_range::{ContentRange, Span, unsatisfied};
pub(crate) use part::{Part, Rest};
pub(crate) use partial::{Partial, forget_content};
pub(crate) use request::{Ranges, Selection, Spans};
pub(crate) use validator::{StrongValidator, if_range_holds};

/// Reads digits; `None` if there are others or none. More than fits is the
/// largest number there is.
fn saturating_number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |number: u64, digit| {
        let digit = u64::from(digit.saturating_sub(b'0'));
        number.saturating_mul(10).saturating_add(digit)
    }))
}

/// Splits at the first `separator`, which belongs to neither half.
fn split_once(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| *byte == separator)?;
    let (before, after) = bytes.split_at_checked(at)?;
    Some((before, after.split_first()?.1))
}
