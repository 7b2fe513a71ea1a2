//! How old a response is (RFC 9111 §4.2.3).

use std::time::Duration;

use http::header::{AGE, HeaderMap};

use super::cache_control::delta_seconds;
use super::date::HttpDate;
use super::fields;

/// The exchange with the inner service that brought a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exchange {
    /// When the response's head arrived.
    pub(crate) response_time: HttpDate,
    /// How long that took from sending the request, by a clock that never
    /// jumps.
    pub(crate) delay: Duration,
}

/// Returns the `Age` a response came with: the first member, if that is a
/// number of seconds (RFC 9111 §5.1).
fn received_age(headers: &HeaderMap) -> Option<Duration> {
    let line = headers.get(AGE)?.as_bytes();
    delta_seconds(fields::members(line).next()?)
}

/// Returns the corrected initial age: that at the moment of arrival.
///
/// `date` is given where the response's `Date` may count as well, that is
/// where the origin's clock is to be trusted (the apparent age).
pub(crate) fn initial_age(
    headers: &HeaderMap,
    date: Option<HttpDate>,
    exchange: Exchange,
) -> Duration {
    let received = received_age(headers).unwrap_or(Duration::ZERO);
    let corrected = received.saturating_add(exchange.delay);
    let apparent = date.map_or(Duration::ZERO, |date| exchange.response_time.since(date));
    corrected.max(apparent)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::semantics::fields::tests::{headers, thoroughly};

    const ARRIVAL: HttpDate = HttpDate(1_000_000);

    fn initial_age_of(lines: &[&str], date: Option<HttpDate>, delay: u64) -> u64 {
        let lines: Vec<_> = lines.iter().map(|line| ("age", *line)).collect();
        let exchange = Exchange {
            response_time: ARRIVAL,
            delay: Duration::from_secs(delay),
        };
        initial_age(&headers(&lines), date, exchange).as_secs()
    }

    #[test]
    fn first_member_of_age_counts_if_it_is_a_number() {
        let table: &[(&[&str], u64)] = &[
            // FR5
            (&["7200"], 7200),
            (&[], 0),
            // AG1
            (&["abc"], 0),
            (&["-7200"], 0),
            (&["7200.0"], 0),
            (&["\"7200\""], 0),
            (&[""], 0),
            // AG2
            (&["2147483647"], 2_147_483_647),
            (&["2147483648"], 2_147_483_648),
            (&["2147483649"], 2_147_483_648),
            (&["99999999999999999999"], 2_147_483_648),
            // AG3
            (&["7200, 0"], 7200),
            (&["0, 7200"], 0),
            (&["abc, 7200"], 0),
            (&["7200", "0"], 7200),
            (&["0", "7200"], 0),
            // AG4
            (&["7200;foo=bar"], 0),
        ];
        for (lines, expected) in table {
            assert_eq!(initial_age_of(lines, None, 0), *expected, "{lines:?}");
        }
    }

    #[test]
    fn date_in_the_past_makes_a_response_old_without_age() {
        // FR6
        assert_eq!(initial_age_of(&[], Some(HttpDate(999_900)), 0), 100);
        assert_eq!(initial_age_of(&["7"], Some(HttpDate(999_900)), 0), 100);
        assert_eq!(initial_age_of(&["107"], Some(HttpDate(999_900)), 0), 107);
        assert_eq!(initial_age_of(&["7"], None, 0), 7);
    }

    #[test]
    fn date_in_the_future_makes_no_response_younger() {
        assert_eq!(initial_age_of(&["7"], Some(HttpDate(2_000_000)), 0), 7);
    }

    #[test]
    fn time_on_the_way_adds_to_the_received_age_only() {
        assert_eq!(initial_age_of(&["7"], None, 3), 10);
        assert_eq!(initial_age_of(&[], Some(HttpDate(999_998)), 3), 3);
    }

    proptest! {
        #![proptest_config(thoroughly())]
        #[test]
        fn any_values_give_an_age_of_at_least_the_delay(
            line in "[0-9]{1,30}|[ -~\u{80}-\u{ff}]{0,20}", date: i64, delay: u32,
        ) {
            let age = initial_age_of(&[&line], Some(HttpDate(date)), delay.into());
            prop_assert!(age >= delay.into());
        }
    }
}
