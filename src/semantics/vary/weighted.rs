//! Weighted lists: `Accept-Language` and its kin (RFC 9110 §12.4.2, §12.5).

use std::ops::Range;

use http::header::{ACCEPT, ACCEPT_CHARSET, ACCEPT_ENCODING, ACCEPT_LANGUAGE, HeaderName};
use smallvec::SmallVec;

use super::nominated::{Encoding, split_outside_quotes};
use crate::semantics::fields::trim;

/// The weight of a member that states none, in thousandths.
const FULL_WEIGHT: u16 = 1000;

/// Says whether the order of a field's members means nothing.
pub(super) fn is_weighted(name: &HeaderName) -> bool {
    [ACCEPT, ACCEPT_CHARSET, ACCEPT_ENCODING, ACCEPT_LANGUAGE].contains(name)
}

/// Appends `list` as the set it stands for: its members in normal form, each
/// once, sorted.
pub(super) fn write_set(list: &[u8], out: &mut Encoding) {
    // Their places are sorted, not they themselves: that moves less.
    let mut forms = Encoding::new();
    let mut places: SmallVec<[Range<usize>; 16]> = SmallVec::new();
    for member in members(list) {
        let start = forms.len();
        write_normal_form(member, &mut forms);
        places.push(start..forms.len());
    }
    let form = |place: &Range<usize>| forms.get(place.clone()).unwrap_or_default();
    places.sort_unstable_by(|a, b| form(a).cmp(form(b)));
    places.dedup_by(|a, b| form(a) == form(b));
    for place in &places {
        out.extend_from_slice(form(place));
        out.push(b',');
    }
}

/// Returns the first of the ranges with the highest weight.
pub(super) fn leading(list: &[u8]) -> Option<&[u8]> {
    first_of_the_heaviest(list).map(|(range, _)| range)
}

/// Returns the one range that outweighs all others.
pub(super) fn favourite(list: &[u8]) -> Option<&[u8]> {
    let (range, weight) = first_of_the_heaviest(list)?;
    let heaviest = weighted_ranges(list).filter(|(_, other)| *other == weight);
    (weight > 0 && heaviest.count() == 1).then_some(range)
}

/// Returns the weight that an `Accept-Language` gives to a language: that of
/// the longest range that covers it (RFC 4647 §3.3.1), `None` if none does.
pub(super) fn weight_of_language(list: &[u8], language: &[u8]) -> Option<u16> {
    weighted_ranges(list)
        .filter(|(range, _)| covers(range, language))
        .max_by_key(|(range, _)| if *range == b"*" { 0 } else { range.len() })
        .map(|(_, weight)| weight)
}

fn covers(range: &[u8], language: &[u8]) -> bool {
    let starts = || {
        let (start, rest) = language.split_at_checked(range.len())?;
        Some(start.eq_ignore_ascii_case(range) && matches!(rest, [] | [b'-', ..]))
    };
    range == b"*" || starts() == Some(true)
}

fn first_of_the_heaviest(list: &[u8]) -> Option<(&[u8], u16)> {
    weighted_ranges(list).reduce(|best, next| if next.1 > best.1 { next } else { best })
}

fn weighted_ranges(list: &[u8]) -> impl Iterator<Item = (&[u8], u16)> {
    members(list).map(|member| {
        let (range, mut parameters) = parts(member);
        (range, parameters.find_map(weight).unwrap_or(FULL_WEIGHT))
    })
}

fn members(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    split_outside_quotes(list, b',')
        .map(trim)
        .filter(|member| !member.is_empty())
}

/// A member's range and its parameters.
fn parts(member: &[u8]) -> (&[u8], impl Iterator<Item = &[u8]>) {
    let mut parts = split_outside_quotes(member, b';').map(trim);
    (parts.next().unwrap_or(member), parts)
}

/// Appends the range in lower case, its parameters without blanks between them,
/// its weight to the thousandth.
///
/// Parameters keep their case: in some media types it matters.
fn write_normal_form(member: &[u8], out: &mut Encoding) {
    let (range, parameters) = parts(member);
    let start = out.len();
    out.extend_from_slice(range);
    if let Some(range) = out.get_mut(start..) {
        range.make_ascii_lowercase();
    }
    let mut stated = None;
    for parameter in parameters {
        match weight(parameter) {
            Some(weight) if stated.is_none() => stated = Some(weight),
            _ => {
                out.push(b';');
                out.extend_from_slice(parameter);
            }
        }
    }
    // No field value holds this byte: the weight cannot pass for anything else.
    out.push(b'\n');
    out.extend_from_slice(&stated.unwrap_or(FULL_WEIGHT).to_be_bytes());
}

/// Reads a `q` parameter in thousandths; `None` if it is anything else.
fn weight(parameter: &[u8]) -> Option<u16> {
    let [b'q' | b'Q', b'=', value @ ..] = parameter else {
        return None;
    };
    let (whole, fraction) = match value {
        [whole] => (whole, &b""[..]),
        [whole, b'.', fraction @ ..] => (whole, fraction),
        _ => return None,
    };
    if fraction.len() > 3 || !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().chain(b"000").take(3);
    let thousandths = digits.fold(0_u16, |sum, digit| {
        let digit = u16::from(digit.saturating_sub(b'0'));
        sum.saturating_mul(10).saturating_add(digit)
    });
    match (whole, thousandths) {
        (b'0', thousandths) => Some(thousandths),
        (b'1', 0) => Some(FULL_WEIGHT),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::semantics::fields::tests::thoroughly;

    fn set(list: &str) -> Encoding {
        let mut out = Encoding::new();
        write_set(list.as_bytes(), &mut out);
        out
    }

    #[test]
    fn weights_are_read_to_the_thousandth_and_nothing_else_is_one() {
        for (parameter, expected) in [
            ("q=1", Some(1000)),
            ("Q=1.000", Some(1000)),
            ("q=0", Some(0)),
            ("q=0.", Some(0)),
            ("q=0.5", Some(500)),
            ("q=0.05", Some(50)),
            ("q=0.999", Some(999)),
            ("q=1.001", None),
            ("q=0.1234", None),
            ("q=2", None),
            ("q=.5", None),
            ("q=-0", None),
            ("q=0,5", None),
            ("q =1", None),
            ("q=", None),
            ("level=1", None),
        ] {
            assert_eq!(weight(parameter.as_bytes()), expected, "{parameter}");
        }
    }

    #[test]
    fn lists_of_equal_meaning_are_equal_sets() {
        // VA4
        for (a, b, equal) in [
            ("en, de", "de, en", true),
            ("en,de", " EN ,\tde,", true),
            ("en;q=0.5, de", "de;q=1, en ; Q=0.50", true),
            ("en, en", "en", true),
            ("en;q=0.5", "en", false),
            ("en;q=0.5", "en;q=0.501", false),
            ("en;q=0", "", false),
            ("en;q=2", "en", false),
            ("text/HTML; level=1;q=0.7", "text/html;q=0.7;level=1", true),
            ("text/html;p=A", "text/html;p=a", false),
            (r#"a/b;p="x, y""#, r#"a/b;p="x,y""#, false),
            (r#"a/b;p="x, c""#, r#"c", a/b;p="x"#, false),
        ] {
            assert_eq!(set(a) == set(b), equal, "{a} | {b}");
        }
    }

    #[test]
    fn the_leading_range_is_the_first_of_the_heaviest() {
        for (list, first, only) in [
            ("en, de", Some("en"), None),
            ("en;q=0.9, de", Some("de"), Some("de")),
            ("en;q=0.9, de;q=0.8", Some("en"), Some("en")),
            ("en;q=0", Some("en"), None),
            (", ,", None, None),
        ] {
            let (first, only) = (first.map(str::as_bytes), only.map(str::as_bytes));
            assert_eq!(leading(list.as_bytes()), first, "{list}");
            assert_eq!(favourite(list.as_bytes()), only, "{list}");
        }
    }

    #[test]
    fn a_language_has_the_weight_of_the_longest_range_that_covers_it() {
        for (list, language, expected) in [
            ("de;q=0.5, de-CH;q=0.8, *;q=0.1", "de-ch", Some(800)),
            ("de-CH;q=0.8, de;q=0.5, *;q=0.1", "de-AT", Some(500)),
            ("de;q=0.5, *;q=0.1", "den", Some(100)),
            ("de-CH", "de", None),
            ("", "de", None),
        ] {
            let found = weight_of_language(list.as_bytes(), language.as_bytes());
            assert_eq!(found, expected, "{list} {language}");
        }
    }

    proptest! {
        #![proptest_config(thoroughly())]
        #[test]
        fn any_list_is_read(list: Vec<u8>, language: Vec<u8>) {
            write_set(&list, &mut Encoding::new());
            prop_assert!(favourite(&list).is_none() || favourite(&list) == leading(&list));
            weight_of_language(&list, &language);
        }

        #[test]
        fn order_never_changes_a_set(mut list in vec("[ -~\u{80}-\u{ff}]{0,12}", 0..8)) {
            list.retain(|member| !member.contains(['"', ',']));
            let forward = set(&list.join(","));
            list.reverse();
            prop_assert_eq!(forward, set(&list.join(",")));
        }
    }
}
