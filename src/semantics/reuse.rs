//! Whether a stored response may be reused: when a request selects it
//! (RFC 9111 §4), and when the origin has failed (RFC 9111 §4.2.4, RFC 5861).

use std::time::Duration;

use http::StatusCode;

use super::cache_control::RequestDirectives;
use super::freshness::Terms;
use crate::reason::Miss;

/// What to do with the stored response that a request selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reuse {
    ServeFresh,
    ServeStale(Allowance),
    /// Ask the origin first.
    Validate(Miss),
}

/// Decides how a stored response of this age answers a request.
pub(crate) fn decide(terms: &Terms, age: Duration, request: &RequestDirectives) -> Reuse {
    if terms.validate_always {
        return Reuse::Validate(Miss::NoCache);
    }
    if request.no_cache {
        return Reuse::Validate(Miss::Request);
    }
    let fresh = terms.is_fresh(age);
    match (fresh, satisfies(terms, age, request)) {
        (true, true) => Reuse::ServeFresh,
        (true, false) => Reuse::Validate(Miss::Request),
        (false, true) => stale_allowance(terms, age, request)
            .map_or(Reuse::Validate(Miss::Stale), Reuse::ServeStale),
        (false, false) => Reuse::Validate(Miss::Stale),
    }
}

/// Whether the response is as young as `max-age` asks and stays fresh as long
/// as `min-fresh` asks (RFC 9111 §5.2.1.1, §5.2.1.3).
fn satisfies(terms: &Terms, age: Duration, request: &RequestDirectives) -> bool {
    // A reload; what cannot change needs none (RFC 8246 §2).
    let needless = |limit: Duration| limit.is_zero() && terms.immutable && terms.is_fresh(age);
    let young = |limit| age < limit || needless(limit);
    let stays_fresh = |least| age.saturating_add(least) <= terms.lifetime;
    request.max_age.is_none_or(young) && request.min_fresh.is_none_or(stays_fresh)
}

/// Why a stale response may be served while the origin could be asked.
///
/// A stale window stated beside `s-maxage` is an extension that overrides the
/// `proxy-revalidate` which that implies, never a stated one (RFC 9111
/// §5.2.3).
fn stale_allowance(terms: &Terms, age: Duration, request: &RequestDirectives) -> Option<Allowance> {
    // Who limits the age wants nothing stale, unless saying so.
    let unwelcome = request.max_age.is_some() && request.max_stale.is_none();
    if terms.forbids_stale || unwelcome {
        return None;
    }
    let staleness = terms.staleness(age);
    if within(terms.stale_while_revalidate, staleness) {
        return Some(Allowance::WhileRevalidate);
    }
    let accepted = request.max_stale.is_some_and(|limit| staleness <= limit);
    (accepted && !terms.shared_lifetime).then_some(Allowance::MaxStale)
}

/// What allows a stale response to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allowance {
    /// The request accepts it.
    MaxStale,
    /// The response does, while it is refreshed in the background.
    WhileRevalidate,
    /// The response or the request does, should the origin fail.
    IfError,
    /// The origin gave no answer.
    Unreachable,
    /// The origin, or what stands before it, says that it cannot answer now.
    Unavailable,
}

impl Allowance {
    /// Returns the word for this allowance.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::MaxStale => "max-stale",
            Self::WhileRevalidate => "stale-while-revalidate",
            Self::IfError => "stale-if-error",
            Self::Unreachable => "unreachable",
            Self::Unavailable => "unavailable",
        }
    }
}

/// How asking the origin failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It gave no answer, or not in time.
    Unreachable,
    /// It answered, with this status.
    Status(StatusCode),
}

/// For how long stale responses may be served after a failure where the
/// response sets no `stale-if-error`; zero for never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leniency {
    /// When the origin gives no answer.
    pub(crate) unreachable: Duration,
    /// When it answers 502, 503 or 504.
    pub(crate) unavailable: Duration,
}

/// What to do after a failure to ask the origin about a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterFailure {
    ServeStale(Allowance),
    /// Answer 504: nothing may be served without the validation that failed
    /// (RFC 9111 §5.2.2.2).
    GatewayTimeout,
    /// Give the client the failure.
    PassOn,
}

/// Decides what a request is answered once asking the origin has failed.
pub(crate) fn after_failure(
    terms: &Terms,
    age: Duration,
    request: &RequestDirectives,
    failure: Failure,
    leniency: Leniency,
) -> AfterFailure {
    let forbids_stale = terms.forbids_stale || terms.shared_lifetime;
    let mandatory = terms.validate_always || (forbids_stale && !terms.is_fresh(age));
    match (
        failure_allowance(terms, age, request, failure, leniency),
        failure,
    ) {
        (Some(allowance), _) => AfterFailure::ServeStale(allowance),
        (None, Failure::Unreachable) if mandatory => AfterFailure::GatewayTimeout,
        (None, _) => AfterFailure::PassOn,
    }
}

/// Why a response may be served though asking the origin has failed.
///
/// A `stale-if-error` that the response states is also the limit of leniency
/// (RFC 5861 §4).
fn failure_allowance(
    terms: &Terms,
    age: Duration,
    request: &RequestDirectives,
    failure: Failure,
    leniency: Leniency,
) -> Option<Allowance> {
    let (allowance, limit) = match failure {
        Failure::Unreachable => (Allowance::Unreachable, leniency.unreachable),
        Failure::Status(status) => match status.as_u16() {
            // Not a lack of an answer, so only `stale-if-error` covers it.
            500 => (Allowance::Unavailable, Duration::ZERO),
            502..=504 => (Allowance::Unavailable, leniency.unavailable),
            _ => return None,
        },
    };
    if terms.validate_always || terms.forbids_stale {
        return None;
    }
    let staleness = terms.staleness(age);
    if !terms.shared_lifetime && within(request.stale_if_error, staleness) {
        return Some(Allowance::IfError);
    }
    if request.no_cache {
        return None;
    }
    if terms.stale_if_error.is_some() {
        return within(terms.stale_if_error, staleness).then_some(Allowance::IfError);
    }
    (!terms.shared_lifetime && staleness < limit).then_some(allowance)
}

/// Whether a stale window is stated and not over yet.
fn within(window: Option<Duration>, staleness: Duration) -> bool {
    window.is_some_and(|window| staleness < window)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::semantics::fields::tests::headers;
    use crate::semantics::freshness::tests::terms;

    const FRESH: Reuse = Reuse::ServeFresh;
    const MAX_STALE: Reuse = Reuse::ServeStale(Allowance::MaxStale);
    const REFRESH: Reuse = Reuse::ServeStale(Allowance::WhileRevalidate);
    const STALE: Reuse = Reuse::Validate(Miss::Stale);
    const NO_CACHE: Reuse = Reuse::Validate(Miss::NoCache);
    const REQUEST: Reuse = Reuse::Validate(Miss::Request);

    const IF_ERROR: AfterFailure = AfterFailure::ServeStale(Allowance::IfError);
    const UNREACHABLE: AfterFailure = AfterFailure::ServeStale(Allowance::Unreachable);
    const UNAVAILABLE: AfterFailure = AfterFailure::ServeStale(Allowance::Unavailable);

    fn stored(cache_control: &str) -> Terms {
        terms(200, &[("cache-control", cache_control)])
    }

    fn asked(cache_control: &str) -> RequestDirectives {
        RequestDirectives::parse(&headers(&[("cache-control", cache_control)]))
    }

    #[test]
    fn stored_response_answers_by_its_age_and_both_sides_directives() {
        #[rustfmt::skip]
        let table = [
            // FR2, FR3, CR2
            ("max-age=60", "", 59, FRESH),
            ("max-age=60", "", 60, STALE),
            ("max-age=0", "", 0, STALE),
            ("", "", 0, STALE),
            // CR3, CR5
            ("max-age=60, no-cache", "", 0, NO_CACHE),
            ("max-age=60, no-cache", "max-stale", 70, NO_CACHE),
            ("max-age=60, no-cache=\"a\"", "", 0, FRESH),
            // CR6
            ("max-age=60, must-revalidate", "", 59, FRESH),
            ("max-age=60, must-revalidate", "max-stale", 60, STALE),
            // SV3, SV4
            ("max-age=60, stale-while-revalidate=10", "", 69, REFRESH),
            ("max-age=60, stale-while-revalidate=10", "", 70, STALE),
            ("max-age=60, stale-while-revalidate=10, no-cache", "", 61, NO_CACHE),
            ("max-age=60, stale-while-revalidate=10, must-revalidate", "", 61, STALE),
            ("max-age=60, stale-while-revalidate=10, proxy-revalidate", "", 61, STALE),
            ("max-age=60, stale-while-revalidate=x", "", 60, STALE),
            ("s-maxage=60, stale-while-revalidate=10", "", 69, REFRESH),
            ("max-age=60, stale-while-revalidate=10", "max-stale", 69, REFRESH),
            ("max-age=60, stale-while-revalidate=10", "max-age=90", 69, STALE),
            // RQ1
            ("max-age=60", "no-cache", 0, REQUEST),
            ("max-age=60", "max-age=10", 9, FRESH),
            ("max-age=60", "max-age=10", 10, REQUEST),
            ("max-age=60", "max-age=0", 0, REQUEST),
            ("max-age=60", "max-age=x", 0, REQUEST),
            ("max-age=60", "max-age=90", 70, STALE),
            ("max-age=60", "min-fresh=10", 50, FRESH),
            ("max-age=60", "min-fresh=10", 51, REQUEST),
            ("max-age=60", "min-fresh=99999999999", 0, REQUEST),
            ("max-age=60", "min-fresh=0, max-stale", 61, STALE),
            // RQ2
            ("max-age=60", "max-stale", 1_000_000, MAX_STALE),
            ("max-age=60", "max-stale=10", 70, MAX_STALE),
            ("max-age=60", "max-stale=10", 71, STALE),
            ("max-age=0", "max-stale=10", 5, MAX_STALE),
            ("", "max-stale=10", 5, MAX_STALE),
            ("s-maxage=60", "max-stale=10", 61, STALE),
            ("max-age=60, proxy-revalidate", "max-stale=10", 61, STALE),
            ("max-age=60", "max-stale=10, max-age=65", 64, MAX_STALE),
            ("max-age=60", "max-stale=10, max-age=65", 65, STALE),
            // RQ3
            ("max-age=60", "no-store", 0, FRESH),
            // RFC 8246
            ("max-age=60, immutable", "max-age=0", 59, FRESH),
            ("max-age=60, immutable", "max-age=1", 59, REQUEST),
            ("max-age=60, immutable", "no-cache", 0, REQUEST),
            ("max-age=60, immutable", "max-age=0", 60, STALE),
            ("immutable", "", 0, STALE),
        ];
        for (response, request, age, expected) in table {
            let found = decide(&stored(response), Duration::from_secs(age), &asked(request));
            assert_eq!(found, expected, "{response} | {request} | {age}");
        }
    }

    #[test]
    fn client_that_is_not_obeyed_gets_what_is_fresh() {
        let request = asked("no-cache, max-age=0, min-fresh=90, max-stale").not_obeyed();
        let terms = stored("max-age=60");
        assert_eq!(decide(&terms, Duration::ZERO, &request), FRESH);
        assert_eq!(decide(&terms, Duration::from_secs(61), &request), STALE);
    }

    #[test]
    fn failure_to_ask_is_answered_as_the_directives_allow() {
        use AfterFailure::{GatewayTimeout, PassOn};
        use Failure::Unreachable;
        let status = |status| Failure::Status(StatusCode::from_u16(status).unwrap());
        #[rustfmt::skip]
        let table = [
            // SV1
            ("max-age=60", "", 61, Unreachable, UNREACHABLE),
            ("max-age=60", "", 160, Unreachable, PassOn),
            ("", "", 1, Unreachable, UNREACHABLE),
            // SV2
            ("max-age=60", "", 61, status(503), UNAVAILABLE),
            ("max-age=60", "", 61, status(502), UNAVAILABLE),
            ("max-age=60", "", 61, status(504), UNAVAILABLE),
            ("max-age=60", "", 110, status(503), PassOn),
            ("max-age=60", "", 61, status(500), PassOn),
            ("max-age=60", "", 61, status(501), PassOn),
            ("max-age=60", "", 61, status(404), PassOn),
            // SV5
            ("max-age=60, stale-if-error=10", "", 69, Unreachable, IF_ERROR),
            ("max-age=60, stale-if-error=10", "", 69, status(500), IF_ERROR),
            ("max-age=60, stale-if-error=10", "", 69, status(502), IF_ERROR),
            ("max-age=60, stale-if-error=10", "", 69, status(503), IF_ERROR),
            ("max-age=60, stale-if-error=10", "", 69, status(504), IF_ERROR),
            ("max-age=60, stale-if-error=10", "", 69, status(501), PassOn),
            ("max-age=60, stale-if-error=10", "", 70, Unreachable, PassOn),
            ("max-age=60, stale-if-error=900", "", 800, status(500), IF_ERROR),
            ("max-age=60", "stale-if-error=10", 69, status(500), IF_ERROR),
            ("max-age=60, stale-if-error=1", "stale-if-error=10", 69, status(500), IF_ERROR),
            ("max-age=60", "stale-if-error=10", 70, status(500), PassOn),
            ("s-maxage=60, stale-if-error=10", "", 69, status(500), IF_ERROR),
            // SV6
            ("max-age=60, must-revalidate", "", 61, Unreachable, GatewayTimeout),
            ("max-age=60, proxy-revalidate", "", 61, Unreachable, GatewayTimeout),
            ("max-age=60, no-cache", "", 0, Unreachable, GatewayTimeout),
            ("s-maxage=60", "", 61, Unreachable, GatewayTimeout),
            ("s-maxage=60", "stale-if-error=10", 61, Unreachable, GatewayTimeout),
            ("s-maxage=60, stale-if-error=10", "", 70, Unreachable, GatewayTimeout),
            ("max-age=60, must-revalidate, stale-if-error=10", "", 61, Unreachable, GatewayTimeout),
            ("max-age=60, no-cache, stale-if-error=10", "", 61, Unreachable, GatewayTimeout),
            ("max-age=60, must-revalidate", "", 61, status(503), PassOn),
            ("s-maxage=60", "", 61, status(503), PassOn),
            ("max-age=60, no-cache", "", 61, status(503), PassOn),
            // what is fresh was asked about for the client's sake only
            ("max-age=60", "no-cache", 0, Unreachable, PassOn),
            ("max-age=60, must-revalidate", "no-cache", 0, Unreachable, PassOn),
            ("max-age=60", "no-cache, stale-if-error=10", 0, Unreachable, IF_ERROR),
            ("max-age=60", "max-age=0", 1, Unreachable, UNREACHABLE),
        ];
        let leniency = Leniency {
            unreachable: Duration::from_secs(100),
            unavailable: Duration::from_secs(50),
        };
        for (response, request, age, failure, expected) in table {
            let (terms, age) = (stored(response), Duration::from_secs(age));
            let found = after_failure(&terms, age, &asked(request), failure, leniency);
            assert_eq!(
                found, expected,
                "{response} | {request} | {age:?} | {failure:?}"
            );
        }
    }

    #[test]
    fn without_leniency_only_stale_if_error_allows_stale() {
        let none = Leniency {
            unreachable: Duration::ZERO,
            unavailable: Duration::ZERO,
        };
        let judge = |response, failure| {
            let request = RequestDirectives::default();
            after_failure(
                &stored(response),
                Duration::from_secs(60),
                &request,
                failure,
                none,
            )
        };
        let unavailable = Failure::Status(StatusCode::SERVICE_UNAVAILABLE);
        for failure in [Failure::Unreachable, unavailable] {
            assert_eq!(judge("max-age=60", failure), AfterFailure::PassOn);
            assert_eq!(judge("max-age=60, stale-if-error=10", failure), IF_ERROR);
        }
    }
}
