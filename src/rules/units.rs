//! Durations and sizes as people write them in files and in the environment.

use std::time::Duration;

/// Reads `250ms`, `30s`, `5m`, `1h 30m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| format!("{text:?} is no duration: write one like `250ms`, `5m` or `1h 30m`"))
}

/// Reads a number of bytes: `1048576`, `512KiB`, `64 MiB`, `1GiB`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let unit = text.trim_start_matches(|char: char| char.is_ascii_digit());
    let number = text
        .strip_suffix(unit)
        .and_then(|digits| digits.parse::<u64>().ok());
    let scale = match unit.trim() {
        "" | "B" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    number
        .zip(scale)
        .and_then(|(number, scale)| number.checked_mul(scale))
        .ok_or_else(|| format!("{text:?} is no size: write bytes, or `512KiB`, `64MiB`, `1GiB`"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_have_units_and_may_have_several() {
        for (text, millis) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h 30m", 5_400_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "m", "-5m", "5 apples", "99999999999999999999s"] {
            assert!(
                duration(text).unwrap_err().contains("write one like"),
                "{text}"
            );
        }
    }

    #[test]
    fn sizes_are_bytes_or_have_a_binary_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("512KiB", 1 << 19),
            ("64 MiB", 1 << 26),
            ("1GiB", 1 << 30),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "KiB",
            "-1",
            "1.5MiB",
            "1kb",
            "1KiB2",
            "99999999999GiB",
            "99999999999999999999",
        ] {
            assert!(size(text).unwrap_err().contains("write bytes"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[0-9 .a-zA-Z-]{0,12}|.*") {
            let _ = (duration(&text), size(&text));
        }
    }
}
