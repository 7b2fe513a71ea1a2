//! HTTP dates (RFC 9110 §5.6.7): read strictly, in all three formats.
//!
//! `httpdate` formats them here but does not read them: it wants the weekday
//! to fit the date and the letters in one case, and origins get both wrong.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// A point in time to the second, as seconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct HttpDate(pub(crate) i64);

/// The field is there but says no date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InvalidDate;

impl HttpDate {
    /// The first and last second that IMF-fixdate is written for here.
    const WRITABLE: (i64, i64) = (0, 253_402_300_799);

    /// Reads a field that holds one date. Several lines are one date only if
    /// they are all the same (RFC 9111 §4.2.1).
    pub(crate) fn of_field(
        headers: &HeaderMap,
        name: &HeaderName,
        now: Self,
    ) -> Result<Option<Self>, InvalidDate> {
        let mut lines = headers.get_all(name).iter();
        let Some(first) = lines.next() else {
            return Ok(None);
        };
        if lines.any(|line| line != first) {
            return Err(InvalidDate);
        }
        match Self::parse(first.as_bytes(), now) {
            Some(date) => Ok(Some(date)),
            None => Err(InvalidDate),
        }
    }

    /// Reads IMF-fixdate, RFC 850 or asctime. Letters match in any case; the
    /// weekday must be one but need not fit the date. A two-digit year is the
    /// latest one that is not over 50 years after `now`.
    pub(crate) fn parse(value: &[u8], now: Self) -> Option<Self> {
        Cursor(value)
            .imf_fixdate()
            .or_else(|| Cursor(value).rfc850(now))
            .or_else(|| Cursor(value).asctime())
    }

    /// Returns the time from `earlier` to this date; zero if it is not earlier.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        let seconds = self.0.saturating_sub(earlier.0);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }

    /// Returns the date as a field value.
    pub(crate) fn to_header_value(self) -> HeaderValue {
        HeaderValue::try_from(self.to_string()).expect("IMF-fixdate is visible ASCII")
    }

    /// Makes a date of a valid combination of its parts.
    fn from_civil((year, month, day): (u16, u16, u16), time: Duration) -> Option<Self> {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let month_length = match month {
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            4 | 6 | 9 | 11 => 30,
            2 if leap => 29,
            2 => 28,
            _ => return None,
        };
        if !(1..=month_length).contains(&day) {
            return None;
        }
        // The year is taken to begin in March, so that the leap day is its
        // last. Nothing can overflow: all parts come from at most 16 bits.
        let (year, month) = match (i64::from(year), i64::from(month)) {
            (year, month @ ..=2) => (year - 1, month + 9),
            (year, month) => (year, month - 3),
        };
        let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
        let days = year * 365 + leap_days + (month * 153 + 2) / 5 + i64::from(day) - 1;
        let midnight = (days - 719_468) * 86_400;
        Some(Self(midnight.saturating_add_unsigned(time.as_secs())))
    }
}

impl From<SystemTime> for HttpDate {
    fn from(time: SystemTime) -> Self {
        let seconds = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            Err(before) => {
                let before = before.duration();
                let whole = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
                -whole.saturating_add(i64::from(before.subsec_nanos() > 0))
            }
        };
        Self(seconds)
    }
}

/// Writes IMF-fixdate; a date outside 1970–9999 as the nearest one within.
impl fmt::Display for HttpDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.clamp(Self::WRITABLE.0, Self::WRITABLE.1);
        let since_epoch = Duration::from_secs(seconds.unsigned_abs());
        httpdate::HttpDate::from(UNIX_EPOCH + since_epoch).fmt(f)
    }
}

const WEEKDAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// What is left to read of a date.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    /// `Sun, 06 Nov 1994 08:49:37 GMT`
    fn imf_fixdate(mut self) -> Option<HttpDate> {
        self.short_weekday()?;
        self.literal(", ")?;
        let day = self.number(2)?;
        self.literal(" ")?;
        let month = self.month()?;
        self.literal(" ")?;
        let year = self.number(4)?;
        self.literal(" ")?;
        let time = self.time()?;
        self.literal(" GMT")?;
        self.end((year, month, day), time)
    }

    /// `Sunday, 06-Nov-94 08:49:37 GMT`
    fn rfc850(mut self, now: HttpDate) -> Option<HttpDate> {
        WEEKDAYS.iter().find_map(|name| self.literal(name))?;
        self.literal(", ")?;
        let day = self.number(2)?;
        self.literal("-")?;
        let month = self.month()?;
        self.literal("-")?;
        let year = widen_year(self.number(2)?, now)?;
        self.literal(" ")?;
        let time = self.time()?;
        self.literal(" GMT")?;
        self.end((year, month, day), time)
    }

    /// `Sun Nov  6 08:49:37 1994`
    fn asctime(mut self) -> Option<HttpDate> {
        self.short_weekday()?;
        self.literal(" ")?;
        let month = self.month()?;
        self.literal(" ")?;
        let day = match self.literal(" ") {
            Some(()) => self.number(1)?,
            None => self.number(2)?,
        };
        self.literal(" ")?;
        let time = self.time()?;
        self.literal(" ")?;
        let year = self.number(4)?;
        self.end((year, month, day), time)
    }

    /// Makes the date, if nothing is left to read.
    fn end(self, date: (u16, u16, u16), time: Duration) -> Option<HttpDate> {
        let date = HttpDate::from_civil(date, time)?;
        self.0.is_empty().then_some(date)
    }

    fn short_weekday(&mut self) -> Option<()> {
        WEEKDAYS
            .iter()
            .find_map(|name| self.literal(name.get(..3)?))
    }

    fn month(&mut self) -> Option<u16> {
        (1..)
            .zip(MONTHS)
            .find_map(|(number, name)| self.literal(name).map(|()| number))
    }

    /// `08:49:37`; second 60 is a leap second.
    fn time(&mut self) -> Option<Duration> {
        let hours = self.number(2).filter(|hours| *hours < 24)?;
        self.literal(":")?;
        let minutes = self.number(2).filter(|minutes| *minutes < 60)?;
        self.literal(":")?;
        let seconds = self.number(2).filter(|seconds| *seconds <= 60)?;
        let minutes = u64::from(hours) * 60 + u64::from(minutes);
        Some(Duration::from_secs(minutes * 60 + u64::from(seconds)))
    }

    /// Exactly so many digits, at most four.
    fn number(&mut self, digits: usize) -> Option<u16> {
        let (text, rest) = self.0.split_at_checked(digits)?;
        let number = text.iter().try_fold(0_u16, |number, byte| {
            let digit = byte.is_ascii_digit().then(|| u16::from(byte & 0x0f))?;
            number.checked_mul(10)?.checked_add(digit)
        })?;
        self.0 = rest;
        Some(number)
    }

    fn literal(&mut self, text: &str) -> Option<()> {
        let (found, rest) = self.0.split_at_checked(text.len())?;
        if !found.eq_ignore_ascii_case(text.as_bytes()) {
            return None;
        }
        self.0 = rest;
        Some(())
    }
}

/// Returns the latest year that ends in `digits` and is not over 50 years
/// after `now` (RFC 9110 §5.6.7).
fn widen_year(digits: u16, now: HttpDate) -> Option<u16> {
    // In seconds; off by a day at most, and the quotient is far from overflow.
    const MEAN_YEAR: i64 = 31_556_952;
    let this_year = now.0.div_euclid(MEAN_YEAR) + 1970;
    let last = this_year + 50;
    let back = (last - i64::from(digits)).rem_euclid(100);
    u16::try_from(last - back).ok()
}

#[cfg(test)]
mod tests {
    use http::header::EXPIRES;
    use proptest::prelude::*;

    use super::*;
    use crate::semantics::fields::tests::{headers, thoroughly};

    /// Fri, 01 Jan 2027 00:00:00 GMT
    const NOW: HttpDate = HttpDate(1_798_761_600);

    fn parse(value: &str) -> Option<i64> {
        HttpDate::parse(value.as_bytes(), NOW).map(|date| date.0)
    }

    #[test]
    fn all_three_formats_are_read_and_the_weekday_is_not_verified() {
        let table = [
            // ED2
            ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
            ("Sunday, 06-Nov-94 08:49:37 GMT", 784_111_777),
            ("Sun Nov  6 08:49:37 1994", 784_111_777),
            ("Sun Nov 06 08:49:37 1994", 784_111_777),
            ("Sun Nov 16 08:49:37 1994", 784_975_777),
            ("Mon, 06 Nov 1994 08:49:37 GMT", 784_111_777),
            // ED1
            ("Tue, 19 Jan 2038 03:14:08 GMT", 2_147_483_648),
            ("Sat, 20 Nov 2286 17:46:40 GMT", 10_000_000_000),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 253_402_300_799),
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Sat, 01 Jan 0000 00:00:00 GMT", -62_167_219_200),
            // ED3
            ("sUN, 06 nOV 1994 08:49:37 gmt", 784_111_777),
            // leap days and seconds
            ("Thu, 29 Feb 2024 00:00:00 GMT", 1_709_164_800),
            ("Tue, 29 Feb 2000 00:00:00 GMT", 951_782_400),
            ("Sat, 31 Dec 2016 23:59:60 GMT", 1_483_228_800),
        ];
        for (text, seconds) in table {
            assert_eq!(parse(text), Some(seconds), "{text}");
        }
    }

    #[test]
    fn anything_else_is_no_date() {
        let table = [
            // ED4
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 +0000",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun 06 Nov 1994 08:49:37 GMT",
            "Sun, 06  Nov 1994 08:49:37 GMT",
            "Sun,  06 Nov 1994 08:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08.49.37 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun Nov 6 08:49:37 1994",
            "Sun Nov  6 08:49:37 1994 GMT",
            "Sunday, 06 Nov 1994 08:49:37 GMT",
            "Xyz, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:60:00 GMT",
            "Sun, 06 Nov 1994 08:00:61 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Thu, 31 Nov 1994 08:49:37 GMT",
            "Thu, 29 Feb 1900 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT ",
            "Sun, 06 Nov 1994 08:49:37 GM\u{212a}",
            "0",
            "-1",
            "",
        ];
        for text in table {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn two_digit_years_reach_fifty_years_ahead() {
        let year_of = |text: &str, now| {
            let date = HttpDate::parse(text.as_bytes(), now).unwrap();
            date.to_string().get(12..16).map(str::to_owned).unwrap()
        };
        assert_eq!(year_of("Friday, 01-Jan-77 00:00:00 GMT", NOW), "2077");
        assert_eq!(year_of("Friday, 01-Jan-78 00:00:00 GMT", NOW), "1978");
        let in_2080 = HttpDate::parse(b"Mon, 01 Jul 2080 00:00:00 GMT", NOW).unwrap();
        assert_eq!(year_of("Friday, 01-Jan-10 00:00:00 GMT", in_2080), "2110");
    }

    #[test]
    fn several_lines_are_a_date_only_if_they_agree() {
        let line = ("expires", "Sun, 06 Nov 1994 08:49:37 GMT");
        let other = ("expires", "Mon, 07 Nov 1994 08:49:37 GMT");
        let read = |lines: &[_]| HttpDate::of_field(&headers(lines), &EXPIRES, NOW);
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[line, line]), Ok(Some(HttpDate(784_111_777))));
        assert_eq!(read(&[line, other]), Err(InvalidDate));
        assert_eq!(read(&[("expires", "0")]), Err(InvalidDate));
    }

    #[test]
    fn system_times_round_down_on_both_sides_of_the_epoch() {
        let half = Duration::from_millis(500);
        assert_eq!(HttpDate::from(UNIX_EPOCH + half), HttpDate(0));
        assert_eq!(HttpDate::from(UNIX_EPOCH - half), HttpDate(-1));
        assert_eq!(
            HttpDate::from(UNIX_EPOCH - Duration::from_secs(2)),
            HttpDate(-2)
        );
    }

    #[test]
    fn difference_is_never_negative() {
        assert_eq!(HttpDate(9).since(HttpDate(2)), Duration::from_secs(7));
        assert_eq!(HttpDate(2).since(HttpDate(9)), Duration::ZERO);
        assert!(HttpDate(i64::MAX).since(HttpDate(i64::MIN)) > Duration::from_secs(1 << 62));
    }

    proptest! {
        #![proptest_config(thoroughly())]
        #[test]
        fn any_bytes_parse_or_do_not(value in proptest::collection::vec(any::<u8>(), 0..40), now: i64) {
            let _ = HttpDate::parse(&value, HttpDate(now));
        }

        #[test]
        fn near_misses_parse_or_do_not(
            value in "(Sun|Sunday),? [0-3][0-9][ -](Nov|Feb)[ -][0-9]{2,4} [0-2][0-9]:[0-6][0-9]:[0-6][0-9] GMT",
            now: i64,
        ) {
            let _ = HttpDate::parse(value.as_bytes(), HttpDate(now));
        }

        #[test]
        fn any_number_of_seconds_can_be_written(seconds: i64) {
            prop_assert!(HttpDate(seconds).to_header_value().len() == 29);
        }

        #[test]
        fn what_is_written_is_read_back(seconds in 0..253_402_300_800_i64) {
            let written = HttpDate(seconds).to_string();
            prop_assert_eq!(parse(&written), Some(seconds));
        }
    }
}
