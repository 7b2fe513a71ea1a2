//! How long a response is fresh, and what else its reuse depends on
//! (RFC 9111 §4.2).

use std::time::Duration;

use http::StatusCode;
use http::header::{DATE, EXPIRES, HeaderMap, HeaderName, LAST_MODIFIED, SET_COOKIE};

use super::age::{self, Exchange};
use super::cache_control::{self, Extent};
use super::date::HttpDate;
use super::targeted::Binding;

/// The terms a stored response is reused on: all that a hit has to know of
/// the head, read once when the response is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// The freshness lifetime, zero where there is none.
    pub(crate) lifetime: Duration,
    pub(crate) basis: Basis,
    /// The age on arrival.
    pub(crate) initial_age: Duration,
    /// The response's `Date`, or the time of its arrival.
    pub(crate) date: HttpDate,
    pub(crate) last_modified: Option<HttpDate>,
    pub(crate) stale_while_revalidate: Option<Duration>,
    pub(crate) stale_if_error: Option<Duration>,
    /// `no-cache`: every reuse needs a successful validation.
    pub(crate) validate_always: bool,
    /// `must-revalidate` or `proxy-revalidate`: no reuse when stale.
    pub(crate) forbids_stale: bool,
    /// `s-maxage`: no reuse when stale either, unless a stale window is stated
    /// beside it.
    pub(crate) shared_lifetime: bool,
    /// While fresh a reload needs no validation (RFC 8246).
    pub(crate) immutable: bool,
    /// The fields `no-cache` names: left out of a reuse without validation.
    pub(crate) omitted: Vec<HeaderName>,
}

/// Where a freshness lifetime comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Basis {
    /// The response states it.
    Explicit,
    /// Estimated from `Last-Modified`.
    Heuristic,
    /// A rule of the application gives it.
    Assigned,
    /// There is none: never fresh.
    None,
}

/// How a response's head is read where RFC 9111 leaves a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Whether `Date` may make a response older than its `Age` says.
    pub(crate) apparent_age: bool,
    /// The percentage of the time since `Last-Modified` that is taken for the
    /// lifetime of a response that states none.
    pub(crate) heuristic_percent: u32,
    /// The longest lifetime so estimated.
    pub(crate) heuristic_cap: Duration,
}

impl Default for Reading {
    /// Apparent age, 10 % and a day.
    fn default() -> Self {
        Self {
            apparent_age: true,
            heuristic_percent: 10,
            heuristic_cap: Duration::from_secs(86_400),
        }
    }
}

impl Terms {
    /// Reads the terms from a response's head.
    pub(crate) fn of(
        status: StatusCode,
        headers: &HeaderMap,
        binding: &Binding,
        exchange: Exchange,
        reading: Reading,
    ) -> Self {
        let now = exchange.response_time;
        let valid = |name| HttpDate::of_field(headers, name, now).ok().flatten();
        let stated_date = valid(&DATE);
        let date = stated_date.unwrap_or(now);
        let last_modified = valid(&LAST_MODIFIED);
        let estimate = || {
            let since = date.since(last_modified?);
            may_estimate(status, headers, binding).then(|| reading.estimate(since))
        };
        let (lifetime, basis) = match stated_lifetime(headers, binding, date, now) {
            Some(stated) => (stated, Basis::Explicit),
            None => estimate().map_or((Duration::ZERO, Basis::None), |estimated| {
                (estimated, Basis::Heuristic)
            }),
        };
        let directives = &binding.directives;
        Self {
            lifetime,
            basis,
            initial_age: age::initial_age(
                headers,
                stated_date.filter(|_| reading.apparent_age),
                exchange,
            ),
            date,
            last_modified,
            stale_while_revalidate: directives.stale_while_revalidate,
            stale_if_error: directives.stale_if_error,
            validate_always: directives.no_cache == Extent::Whole,
            forbids_stale: directives.must_revalidate || directives.proxy_revalidate,
            shared_lifetime: directives.s_maxage.is_some(),
            immutable: directives.immutable,
            omitted: directives.no_cache.fields().to_vec(),
        }
    }

    /// Returns the current age after so long in the store (RFC 9111 §4.2.3).
    pub(crate) fn age(&self, resident: Duration) -> Duration {
        self.initial_age.saturating_add(resident)
    }

    /// Says whether a response of this age is fresh.
    pub(crate) fn is_fresh(&self, age: Duration) -> bool {
        self.lifetime > age
    }

    /// Returns for how long a response of this age has been stale.
    pub(crate) fn staleness(&self, age: Duration) -> Duration {
        age.saturating_sub(self.lifetime)
    }

    /// Returns the whole seconds left of the lifetime, negative once it is over.
    pub(crate) fn remaining(&self, age: Duration) -> i64 {
        let whole = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        match self.lifetime.checked_sub(age) {
            Some(left) => whole(left).saturating_add(i64::from(left.subsec_nanos() > 0)),
            None => {
                let over = self.staleness(age);
                -whole(over).saturating_add(i64::from(over.subsec_nanos() > 0))
            }
        }
    }

    /// Ends the freshness lifetime, whatever it was.
    pub(crate) fn expire(&mut self) {
        self.lifetime = Duration::ZERO;
    }
}

impl Reading {
    fn estimate(self, since_modified: Duration) -> Duration {
        (since_modified / 100)
            .saturating_mul(self.heuristic_percent)
            .min(self.heuristic_cap)
    }
}

/// Returns the lifetime a response states, zero where it states a wrong one
/// (RFC 9111 §4.2.1).
///
/// `Expires` counts from `Date`, both by the origin's clock.
fn stated_lifetime(
    headers: &HeaderMap,
    binding: &Binding,
    date: HttpDate,
    now: HttpDate,
) -> Option<Duration> {
    let directives = &binding.directives;
    directives.s_maxage.or(directives.max_age).or_else(|| {
        if binding.targeted {
            return None;
        }
        match HttpDate::of_field(headers, &EXPIRES, now) {
            Ok(expires) => expires.map(|expires| expires.since(date)),
            Err(_) => Some(Duration::ZERO),
        }
    })
}

/// Says whether a lifetime may be estimated (RFC 9111 §4.2.2): not for
/// responses that are likely one user's or were meant to be uncacheable.
fn may_estimate(status: StatusCode, headers: &HeaderMap, binding: &Binding) -> bool {
    (binding.directives.public || is_heuristically_cacheable(status))
        && !headers.contains_key(SET_COOKIE)
        && (binding.targeted || !cache_control::pragma_no_cache(headers))
}

/// Says whether responses of a status may be stored and reused though they
/// state no lifetime (RFC 9110 §15.1; 451: RFC 7725 §3).
pub(crate) fn is_heuristically_cacheable(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 451 | 501
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::semantics::fields::tests::headers;

    /// Sun, 06 Nov 1994 08:49:37 GMT
    const ARRIVAL: HttpDate = HttpDate(784_111_777);
    const DATE_THEN: (&str, &str) = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
    const HOUR_LATER: (&str, &str) = ("expires", "Sun, 06 Nov 1994 09:49:37 GMT");
    const HOUR_BEFORE: (&str, &str) = ("expires", "Sun, 06 Nov 1994 07:49:37 GMT");
    const MODIFIED_100_MINUTES_BEFORE: (&str, &str) =
        ("last-modified", "Sun, 06 Nov 1994 07:09:37 GMT");

    /// Returns the terms of a response that has just arrived.
    pub(crate) fn terms(status: u16, lines: &[(&'static str, &str)]) -> Terms {
        let headers = headers(lines);
        let binding = Binding::of(&headers, &[HeaderName::from_static("cdn-cache-control")]);
        let exchange = Exchange {
            response_time: ARRIVAL,
            delay: Duration::ZERO,
        };
        let status = StatusCode::from_u16(status).unwrap();
        Terms::of(status, &headers, &binding, exchange, Reading::default())
    }

    fn lifetime(lines: &[(&'static str, &str)]) -> (u64, Basis) {
        let terms = terms(200, lines);
        (terms.lifetime.as_secs(), terms.basis)
    }

    #[test]
    fn most_specific_statement_is_the_lifetime() {
        use Basis::{Explicit, None};
        let cc = |value| ("cache-control", value);
        let cdn = |value| ("cdn-cache-control", value);
        #[rustfmt::skip]
        let table: &[(&[_], _)] = &[
            // FR1
            (&[], (0, None)),
            (&[cc("public")], (0, None)),
            // FR2
            (&[cc("max-age=60")], (60, Explicit)),
            // FR3
            (&[cc("max-age=0")], (0, Explicit)),
            (&[cc("max-age=x"), HOUR_LATER], (0, Explicit)),
            // FR7
            (&[cc("max-age=60"), HOUR_BEFORE, DATE_THEN], (60, Explicit)),
            (&[cc("max-age=60"), ("expires", "0")], (60, Explicit)),
            (&[cc("max-age=0"), HOUR_LATER, DATE_THEN], (0, Explicit)),
            // FR8
            (&[cc("s-maxage=60, max-age=1"), HOUR_BEFORE], (60, Explicit)),
            (&[cc("max-age=1, s-maxage=60")], (60, Explicit)),
            (&[cc("max-age=60"), cc("s-maxage=1")], (1, Explicit)),
            (&[cc("s-maxage=0, max-age=60"), HOUR_LATER], (0, Explicit)),
            // EX1
            (&[HOUR_LATER, DATE_THEN], (3600, Explicit)),
            (&[HOUR_BEFORE, DATE_THEN], (0, Explicit)),
            (&[("expires", DATE_THEN.1), DATE_THEN], (0, Explicit)),
            // EX3
            (&[("expires", "0"), DATE_THEN], (0, Explicit)),
            (&[("expires", ""), DATE_THEN], (0, Explicit)),
            (&[HOUR_LATER, ("date", "yesterday")], (3600, Explicit)),
            (&[HOUR_LATER], (3600, Explicit)),
            // ED4
            (&[HOUR_LATER, HOUR_BEFORE, DATE_THEN], (0, Explicit)),
            (&[HOUR_LATER, HOUR_LATER, DATE_THEN], (3600, Explicit)),
            // CD1, CD2
            (&[cdn("max-age=60"), cc("max-age=1"), HOUR_BEFORE], (60, Explicit)),
            (&[cdn("max-age=0"), cc("max-age=60"), HOUR_LATER], (0, Explicit)),
            (&[cdn("public"), cc("max-age=60"), HOUR_LATER], (0, None)),
        ];
        for (lines, expected) in table {
            assert_eq!(lifetime(lines), *expected, "{lines:?}");
        }
    }

    #[test]
    fn expires_counts_by_the_clock_of_the_origin() {
        // EX2
        let date = ("date", "Sun, 06 Nov 1994 10:49:37 GMT");
        let expires = ("expires", "Sun, 06 Nov 1994 11:49:37 GMT");
        assert_eq!(lifetime(&[date, expires]), (3600, Basis::Explicit));
        let slow = terms(
            200,
            &[("date", "Sun, 06 Nov 1994 06:49:37 GMT"), HOUR_BEFORE],
        );
        assert_eq!(slow.lifetime, Duration::from_secs(3600));
        assert_eq!(slow.initial_age, Duration::from_secs(7200));
        assert!(!slow.is_fresh(slow.age(Duration::ZERO)));
    }

    #[test]
    fn lifetime_is_estimated_for_the_statuses_that_allow_it() {
        // HE1, HE3
        for status in 200..600 {
            let known = [
                200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 451, 501,
            ];
            let found = terms(status, &[DATE_THEN, MODIFIED_100_MINUTES_BEFORE]);
            if known.contains(&status) {
                assert_eq!(found.lifetime, Duration::from_secs(600), "{status}");
                assert_eq!(found.basis, Basis::Heuristic, "{status}");
            } else {
                assert_eq!(found.lifetime, Duration::ZERO, "{status}");
                assert_eq!(found.basis, Basis::None, "{status}");
            }
        }
    }

    #[test]
    fn public_lets_the_lifetime_of_any_status_be_estimated() {
        // HE2
        let public = ("cache-control", "public");
        let found = terms(599, &[DATE_THEN, MODIFIED_100_MINUTES_BEFORE, public]);
        assert_eq!(found.lifetime, Duration::from_secs(600));
        assert_eq!(terms(599, &[DATE_THEN, public]).basis, Basis::None);
    }

    #[test]
    fn estimate_is_a_tenth_and_a_day_at_most() {
        // HE4
        let modified = |date| lifetime(&[DATE_THEN, ("last-modified", date)]).0;
        assert_eq!(modified("Sun, 06 Nov 1994 08:49:27 GMT"), 1);
        assert_eq!(modified("Sun, 06 Nov 1994 08:49:37 GMT"), 0);
        assert_eq!(modified("Sun, 06 Nov 1994 09:49:37 GMT"), 0);
        assert_eq!(modified("Thu, 06 Nov 1969 08:49:37 GMT"), 86_400);
    }

    #[test]
    fn lifetime_is_not_estimated_against_the_responses_word() {
        let table: &[&[_]] = &[
            // PG2
            &[("pragma", "no-cache")],
            &[("set-cookie", "a=b")],
            // ST2
            &[HOUR_BEFORE],
            &[("cache-control", "max-age=0")],
            &[("cache-control", "s-maxage=x")],
        ];
        for lines in table {
            let lines = [*lines, &[DATE_THEN, MODIFIED_100_MINUTES_BEFORE]].concat();
            assert_eq!(lifetime(&lines).0, 0, "{lines:?}");
        }
        // PG1
        for field in ["cache-control", "cdn-cache-control"] {
            let lines = [
                DATE_THEN,
                MODIFIED_100_MINUTES_BEFORE,
                ("pragma", "no-cache"),
                (field, "public"),
            ];
            assert_eq!(lifetime(&lines), (600, Basis::Heuristic), "{field}");
        }
    }

    #[test]
    fn set_cookie_does_not_shorten_a_stated_lifetime() {
        // HD3, OT4
        let lines = [("set-cookie", "a=b"), ("cache-control", "max-age=60")];
        assert_eq!(lifetime(&lines), (60, Basis::Explicit));
    }

    #[test]
    fn received_age_and_date_count() {
        // FR5, FR6
        let age = terms(200, &[("cache-control", "max-age=60"), ("age", "60")]);
        assert!(!age.is_fresh(age.age(Duration::ZERO)));
        let lines = [("cache-control", "max-age=3600"), ("date", HOUR_BEFORE.1)];
        assert!(!terms(200, &lines).is_fresh(Duration::from_secs(3600)));
        assert_eq!(terms(200, &lines).initial_age, Duration::from_secs(3600));

        let headers = headers(&lines);
        let trusting = Terms::of(
            StatusCode::OK,
            &headers,
            &Binding::of(&headers, &[]),
            Exchange {
                response_time: ARRIVAL,
                delay: Duration::ZERO,
            },
            Reading {
                apparent_age: false,
                ..Reading::default()
            },
        );
        assert_eq!(trusting.initial_age, Duration::ZERO);
    }

    #[test]
    fn freshness_ends_when_the_age_reaches_the_lifetime() {
        // FR2, FR3, FR4
        let terms = terms(200, &[("cache-control", "max-age=60")]);
        let half = Duration::from_millis(500);
        let minute = Duration::from_secs(60);
        let table = [
            (Duration::ZERO, true, 60),
            (minute - half, true, 1),
            (minute, false, 0),
            (minute + half, false, -1),
            (minute * 2, false, -60),
            (Duration::MAX, false, i64::MIN + 1),
        ];
        for (age, fresh, remaining) in table {
            assert_eq!(terms.is_fresh(age), fresh, "{age:?}");
            assert_eq!(terms.remaining(age), remaining, "{age:?}");
        }
        assert_eq!(terms.age(Duration::MAX), Duration::MAX);
    }

    #[test]
    fn other_terms_come_from_the_directives() {
        let found = terms(
            200,
            &[
                MODIFIED_100_MINUTES_BEFORE,
                (
                    "cache-control",
                    "s-maxage=1, no-cache=\"a, b\", immutable, proxy-revalidate, \
                     stale-while-revalidate=2, stale-if-error=3",
                ),
            ],
        );
        let expected = Terms {
            lifetime: Duration::from_secs(1),
            basis: Basis::Explicit,
            initial_age: Duration::ZERO,
            date: ARRIVAL,
            last_modified: Some(HttpDate(ARRIVAL.0 - 6000)),
            stale_while_revalidate: Some(Duration::from_secs(2)),
            stale_if_error: Some(Duration::from_secs(3)),
            validate_always: false,
            forbids_stale: true,
            shared_lifetime: true,
            immutable: true,
            omitted: vec![HeaderName::from_static("a"), HeaderName::from_static("b")],
        };
        assert_eq!(found, expected);
        let bound = terms(200, &[("cache-control", "no-cache, must-revalidate")]);
        assert!(bound.validate_always && bound.forbids_stale && !bound.shared_lifetime);
    }
}
