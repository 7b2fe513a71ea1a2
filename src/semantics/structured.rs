//! Structured fields (RFC 9651), read with `sfv`.

use http::header::{HeaderMap, HeaderName};
use sfv::{FieldType, Parser};

use super::fields;

/// Reads all lines of a field as one [`sfv::Dictionary`] or [`sfv::List`].
///
/// `None` when the field is absent and when it has an error anywhere: a
/// structured field is right as a whole or not there (RFC 9651 §4.2).
pub(crate) fn parse<T: FieldType>(headers: &HeaderMap, name: &HeaderName) -> Option<T> {
    let value = fields::joined(headers, name)?;
    Parser::new(&value).parse().ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;
    use sfv::{Dictionary, List};

    use super::*;
    use crate::semantics::fields::tests::{headers, thoroughly};

    const FIELD: HeaderName = HeaderName::from_static("x-field");

    fn dictionary(lines: &[&str]) -> Option<Dictionary> {
        let lines: Vec<_> = lines.iter().map(|line| ("x-field", *line)).collect();
        parse(&headers(&lines), &FIELD)
    }

    #[test]
    fn lines_are_one_value_and_the_last_duplicate_wins() {
        let found = dictionary(&["a=1, b", "a=2"]).unwrap();
        let expected: Dictionary = Parser::new("a=2, b").parse().unwrap();
        assert_eq!(found, expected);
    }

    #[test]
    fn blanks_around_the_value_and_its_commas_are_insignificant() {
        assert_eq!(dictionary(&[" a=1 \t,\tb "]), dictionary(&["a=1, b"]));
    }

    #[test]
    fn one_error_voids_all_lines() {
        for line in ["a,", "A=1", "a = 1", "a=1 b", "a=\"\u{e9}\"", ",", "a=\"b"] {
            assert_eq!(dictionary(&["good=1", line]), None, "{line}");
        }
    }

    #[test]
    fn absent_and_empty_fields_differ() {
        assert_eq!(dictionary(&[]), None);
        assert_eq!(dictionary(&[""]), Some(Dictionary::new()));
    }

    proptest! {
        #![proptest_config(thoroughly())]
        #[test]
        fn any_value_parses_or_does_not(value in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let headers = HeaderMap::from_iter([(FIELD, value)]);
                let _ = parse::<Dictionary>(&headers, &FIELD);
                let _ = parse::<List>(&headers, &FIELD);
            }
        }
    }
}
