//! Joining parts of one representation (RFC 9110 §15.3.7.3, RFC 9111 §3.4).

use bytes::{Bytes, BytesMut};

use super::{ContentRange, Part, StrongValidator};

/// A part with what proves of which representation it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeldPart<'a> {
    pub(crate) part: Part,
    pub(crate) validator: Option<StrongValidator<'a>>,
    pub(crate) body: &'a Bytes,
}

/// What two parts make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Joined {
    /// The complete representation: a 200.
    Complete(Bytes),
    Part(Part, Bytes),
}

/// Joins two parts; `None` unless they share a strong validator and a length,
/// hold what they claim, and leave no gap between them.
pub(crate) fn join(a: HeldPart<'_>, b: HeldPart<'_>) -> Option<Joined> {
    let same = a.validator.is_some()
        && a.validator == b.validator
        && a.part.range().complete == b.part.range().complete;
    if !same || !a.holds_what_it_claims() || !b.holds_what_it_claims() {
        return None;
    }
    let (a_span, b_span) = (a.part.range().span, b.part.range().span);
    let span = a_span.union(b_span)?;
    let (low, high) = match a_span.first() <= b_span.first() {
        true => (a, b),
        false => (b, a),
    };
    let overlap = low.part.range().span.end();
    let overlap = overlap.saturating_sub(high.part.range().span.first());
    let new = high.body.get(usize::try_from(overlap).ok()?..);
    let body = match new.unwrap_or_default() {
        [] => low.body.clone(),
        new => {
            let mut body = BytesMut::with_capacity(usize::try_from(span.length()).ok()?);
            body.extend_from_slice(low.body);
            body.extend_from_slice(new);
            body.freeze()
        }
    };
    let complete = a.part.range().complete;
    let part = Part::new(ContentRange { span, complete }, span.length());
    Some(match part.is_complete() {
        true => Joined::Complete(body),
        false => Joined::Part(part, body),
    })
}

impl HeldPart<'_> {
    fn holds_what_it_claims(&self) -> bool {
        let length = u64::try_from(self.body.len());
        self.part.is_consistent() && length == Ok(self.part.range().span.length())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::semantics::fields::tests::thoroughly;
    use crate::semantics::range::Span;

    const BODY: &[u8] = b"0123456789";
    const TAG: Option<StrongValidator<'_>> = Some(StrongValidator::Tag(b"a"));

    /// Bytes `first..=last` of ten.
    fn of_ten(first: usize, last: usize) -> (Part, Bytes) {
        let body = Bytes::from_static(&BODY[first..=last]);
        let span = Span::new(first.try_into().unwrap(), last.try_into().unwrap()).unwrap();
        let range = ContentRange {
            span,
            complete: Some(10),
        };
        (Part::new(range, span.length()), body)
    }

    fn held((part, body): &(Part, Bytes)) -> HeldPart<'_> {
        HeldPart {
            part: *part,
            validator: TAG,
            body,
        }
    }

    fn joined(a: (usize, usize), b: (usize, usize)) -> Option<Joined> {
        let (a, b) = (of_ten(a.0, a.1), of_ten(b.0, b.1));
        let found = join(held(&a), held(&b));
        assert_eq!(join(held(&b), held(&a)), found);
        found
    }

    #[test]
    fn parts_that_touch_or_overlap_are_joined() {
        // PA4
        for (a, b, whole) in [
            ((0, 4), (5, 9), (0, 9)),
            ((0, 6), (3, 9), (0, 9)),
            ((0, 2), (3, 5), (0, 5)),
            ((2, 4), (1, 9), (1, 9)),
            ((1, 8), (3, 5), (1, 8)),
            ((1, 5), (1, 8), (1, 8)),
        ] {
            let (part, body) = of_ten(whole.0, whole.1);
            let expected = match whole {
                (0, 9) => Joined::Complete(body),
                _ => Joined::Part(part, body),
            };
            assert_eq!(joined(a, b), Some(expected), "{a:?} {b:?}");
        }
    }

    #[test]
    fn parts_with_a_gap_between_them_are_not() {
        assert_eq!(joined((0, 3), (5, 9)), None);
    }

    #[test]
    fn parts_that_may_be_of_two_representations_are_not() {
        let (a, b) = (of_ten(0, 4), of_ten(5, 9));
        let other = Some(StrongValidator::Tag(b"b"));
        for (first, second) in [(TAG, other), (TAG, None), (None, None)] {
            let a = HeldPart {
                validator: first,
                ..held(&a)
            };
            let b = HeldPart {
                validator: second,
                ..held(&b)
            };
            assert_eq!(join(a, b), None, "{first:?} {second:?}");
        }
        let mut range = b.0.range();
        range.complete = Some(11);
        let longer = (Part::new(range, 5), b.1);
        assert_eq!(join(held(&a), held(&longer)), None);
    }

    #[test]
    fn a_part_that_does_not_hold_what_it_claims_is_joined_with_nothing() {
        let (a, b) = (of_ten(0, 4), of_ten(5, 9));
        let short = b.1.slice(..4);
        for held_by_b in [4, 5] {
            let lying = (Part::new(b.0.range(), held_by_b), short.clone());
            assert_eq!(join(held(&a), held(&lying)), None);
        }
    }

    proptest! {
        #![proptest_config(thoroughly())]
        #[test]
        fn joining_gives_back_the_representation(a in 0_usize..10, b in 0_usize..10) {
            let (low, high) = ((0, a), (b, 9));
            let expected = (b <= a + 1).then_some(Joined::Complete(Bytes::from_static(BODY)));
            prop_assert_eq!(joined(low, high), expected);
        }
    }
}
