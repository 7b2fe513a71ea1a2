//! Whether a response may be stored, and which of its fields
//! (RFC 9111 §3).

use http::header::{DATE, ETAG, HeaderMap};
use http::{Method, StatusCode};

use super::cache_control::{Extent, RequestDirectives, ResponseDirectives};
use super::date::HttpDate;
use super::fields;
use super::freshness::{Basis, Terms, is_heuristically_cacheable};
use super::vary::Vary;
use crate::reason::Refusal;

/// A response that has arrived, and what of its request the law asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival<'a> {
    pub(crate) method: &'a Method,
    /// The request carries `Authorization`.
    pub(crate) authorized: bool,
    pub(crate) request: &'a RequestDirectives,
    pub(crate) status: StatusCode,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) directives: &'a ResponseDirectives,
    pub(crate) vary: &'a Vary,
    /// With the lifetime and basis that a rule may have given.
    pub(crate) terms: &'a Terms,
    /// `Content-Location` names the target URI.
    pub(crate) names_target: bool,
}

impl Arrival<'_> {
    /// Applies the conditions of RFC 9111 §3 and §3.5.
    ///
    /// # Errors
    ///
    /// Returns the first condition that is not met.
    pub(crate) fn may_store(&self) -> Result<(), Refusal> {
        let directives = self.directives;
        let not_understood = directives.must_understand && !is_understood(self.status);
        let conditions = [
            (self.has_storable_method(), Refusal::Method),
            (is_storable(self.status), Refusal::Status),
            (!self.request.no_store, Refusal::RequestNoStore),
            (!not_understood, Refusal::MustUnderstand),
            // Understanding the status overrides it (RFC 9111 §5.2.2.3).
            (
                !directives.no_store || directives.must_understand,
                Refusal::NoStore,
            ),
            (directives.private != Extent::Whole, Refusal::Private),
            (!self.authorized || self.is_shared(), Refusal::Authorization),
            (*self.vary != Vary::Any, Refusal::VaryAny),
            (self.may_become_fresh(), Refusal::NoFreshness),
            (self.may_be_validated(), Refusal::NoValidator),
        ];
        match conditions.iter().find(|(met, _)| !met) {
            Some((_, refusal)) => Err(*refusal),
            None => Ok(()),
        }
    }

    /// A POST's response is that of a later GET only if it says so
    /// (RFC 9110 §9.3.3).
    fn has_storable_method(&self) -> bool {
        match *self.method {
            Method::GET | Method::HEAD | Method::QUERY => true,
            Method::POST => {
                self.status.is_success() && self.terms.basis == Basis::Explicit && self.names_target
            }
            _ => false,
        }
    }

    /// The response allows what `Authorization` forbids (RFC 9111 §3.5).
    fn is_shared(&self) -> bool {
        let directives = self.directives;
        directives.public || directives.must_revalidate || directives.s_maxage.is_some()
    }

    /// It has a lifetime, or is of a kind that is kept without one and can be validated.
    fn may_become_fresh(&self) -> bool {
        let kept_without = self.directives.public || is_heuristically_cacheable(self.status);
        matches!(self.terms.basis, Basis::Explicit | Basis::Assigned)
            || kept_without && self.has_validator()
    }

    /// A response that is never used without validation is of use only if there is something to
    /// validate it by.
    fn may_be_validated(&self) -> bool {
        !self.terms.validate_always || self.has_validator()
    }

    fn has_validator(&self) -> bool {
        self.headers.contains_key(ETAG) || self.terms.last_modified.is_some()
    }
}

/// A final response that stands on its own, and that its definition does not
/// keep from caches (RFC 6585). A 416 is about one request's range, which no key holds.
fn is_storable(status: StatusCode) -> bool {
    !status.is_informational() && !matches!(status.as_u16(), 304 | 416 | 428 | 429 | 431 | 511)
}

/// The statuses whose caching requirements this cache knows and meets
/// (RFC 9111 §3: "understands").
fn is_understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200..=206
            | 300..=303
            | 307
            | 308
            | 400..=417
            | 421
            | 422
            | 426
            | 451
            | 500..=505
    )
}

/// Leaves of a response's fields those it is stored with (RFC 9111 §3.1): not
/// those that end at this hop or that `private` names.
///
/// What a response says is read before: `Connection` may name any field.
pub(crate) fn keep_storable(fields: &mut HeaderMap, directives: &ResponseDirectives) {
    fields::strip(fields);
    for name in directives.private.fields() {
        fields.remove(name);
    }
}

/// Gives fields that are stored a valid `Date` (RFC 9110 §6.6.1).
pub(crate) fn keep_dated(fields: &mut HeaderMap, date: HttpDate) {
    if !matches!(HttpDate::of_field(fields, &DATE, date), Ok(Some(_))) {
        fields.insert(DATE, date.to_header_value());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::semantics::fields::tests::headers;
    use crate::semantics::freshness::tests::terms;

    const FRESH: Field = ("cache-control", "max-age=60");
    const TAGGED: Field = ("etag", "\"a\"");
    const CREDENTIALS: Field = ("authorization", "Basic eDp5");

    type Field = (&'static str, &'static str);

    fn stored_fields(
        response: &HeaderMap,
        directives: &ResponseDirectives,
        date: HttpDate,
    ) -> HeaderMap {
        let mut stored = response.clone();
        keep_storable(&mut stored, directives);
        keep_dated(&mut stored, date);
        stored
    }

    /// Judges a response to a request with these fields.
    fn judge(
        method: &Method,
        request: &[Field],
        status: u16,
        response: &[Field],
    ) -> Result<(), Refusal> {
        judge_naming_target(method, request, status, response, false)
    }

    fn judge_naming_target(
        method: &Method,
        request: &[Field],
        status: u16,
        response: &[Field],
        names_target: bool,
    ) -> Result<(), Refusal> {
        let request = headers(request);
        let headers = headers(response);
        Arrival {
            method,
            authorized: request.contains_key("authorization"),
            request: &RequestDirectives::parse(&request),
            status: StatusCode::from_u16(status).unwrap(),
            headers: &headers,
            directives: &ResponseDirectives::parse(&headers),
            vary: &Vary::parse(&headers),
            terms: &terms(status, response),
            names_target,
        }
        .may_store()
    }

    fn judge_get(status: u16, response: &[Field]) -> Result<(), Refusal> {
        judge(&Method::GET, &[], status, response)
    }

    #[test]
    fn any_final_status_with_explicit_freshness_is_stored() {
        // ST1
        for status in [
            200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 502, 503, 504,
            599,
        ] {
            assert_eq!(judge_get(status, &[FRESH]), Ok(()), "{status}");
        }
        // IN2, and RFC 6585
        for status in [100, 102, 103, 304, 428, 429, 431, 511] {
            assert_eq!(
                judge_get(status, &[FRESH]),
                Err(Refusal::Status),
                "{status}"
            );
        }
    }

    #[test]
    fn without_explicit_freshness_the_status_or_public_must_allow_storing() {
        let public = ("cache-control", "public");
        let modified = ("last-modified", "Sun, 06 Nov 1994 07:09:37 GMT");
        let expired = ("expires", "0");
        let table: &[(u16, &[Field], _)] = &[
            (200, &[TAGGED], Ok(())),
            (200, &[modified], Ok(())),
            (404, &[modified], Ok(())),
            // HE2, HE3
            (201, &[modified], Err(Refusal::NoFreshness)),
            (599, &[modified], Err(Refusal::NoFreshness)),
            (599, &[modified, public], Ok(())),
            // FR1
            (200, &[], Err(Refusal::NoFreshness)),
            (200, &[public], Err(Refusal::NoFreshness)),
            (200, &[("last-modified", "0")], Err(Refusal::NoFreshness)),
            // ST2: already stale, but there may be a use for it
            (599, &[expired], Ok(())),
            (200, &[("cache-control", "max-age=0")], Ok(())),
        ];
        for (status, response, expected) in table {
            assert_eq!(
                judge_get(*status, response),
                *expected,
                "{status} {response:?}"
            );
        }
    }

    #[test]
    fn directives_forbid_storing() {
        let cc = |value| ("cache-control", value);
        #[rustfmt::skip]
        let table: &[(u16, &[Field], _)] = &[
            // CR1
            (200, &[cc("max-age=60, No-Store")], Err(Refusal::NoStore)),
            (200, &[cc("max-age=60, PRIVATE")], Err(Refusal::Private)),
            (200, &[cc("max-age=60, private=\"a\"")], Ok(())),
            // CR3, CR4
            (200, &[cc("no-cache"), TAGGED], Ok(())),
            (200, &[cc("max-age=60, no-cache"), TAGGED], Ok(())),
            (200, &[cc("max-age=60, no-cache")], Err(Refusal::NoValidator)),
            (200, &[cc("max-age=60, no-cache=\"a\"")], Ok(())),
            // ST3, ST4
            (599, &[cc("max-age=60, must-understand")], Err(Refusal::MustUnderstand)),
            (200, &[cc("max-age=60, must-understand, no-store")], Ok(())),
            (599, &[cc("max-age=60, no-store, must-understand")], Err(Refusal::MustUnderstand)),
            // VA6
            (200, &[FRESH, ("vary", "a, *")], Err(Refusal::VaryAny)),
            // HD3
            (200, &[FRESH, ("set-cookie", "a=b")], Ok(())),
        ];
        for (status, response, expected) in table {
            assert_eq!(judge_get(*status, response), *expected, "{response:?}");
        }
    }

    #[test]
    fn response_to_credentials_is_stored_only_if_it_says_that_it_is_shared() {
        // AU1, AU2
        let judge = |value| {
            judge(
                &Method::GET,
                &[CREDENTIALS],
                200,
                &[("cache-control", value)],
            )
        };
        assert_eq!(judge("max-age=60"), Err(Refusal::Authorization));
        assert_eq!(
            judge("max-age=60, proxy-revalidate"),
            Err(Refusal::Authorization)
        );
        assert_eq!(judge("max-age=60, public"), Ok(()));
        assert_eq!(judge("max-age=60, must-revalidate"), Ok(()));
        assert_eq!(judge("s-maxage=60"), Ok(()));
        assert_eq!(judge("s-maxage=60, private"), Err(Refusal::Private));
    }

    #[test]
    fn request_no_store_forbids_storing() {
        // RQ3
        let judged = judge(
            &Method::GET,
            &[("cache-control", "no-store")],
            200,
            &[FRESH],
        );
        assert_eq!(judged, Err(Refusal::RequestNoStore));
    }

    #[test]
    fn methods_decide_first() {
        for method in [Method::GET, Method::HEAD, Method::QUERY] {
            assert_eq!(judge(&method, &[], 200, &[FRESH]), Ok(()));
        }
        for method in [Method::PUT, Method::DELETE, Method::OPTIONS, Method::POST] {
            assert_eq!(judge(&method, &[], 200, &[FRESH]), Err(Refusal::Method));
        }
        // ME1
        let post =
            |status, response| judge_naming_target(&Method::POST, &[], status, response, true);
        assert_eq!(post(201, &[FRESH]), Ok(()));
        assert_eq!(post(404, &[FRESH]), Err(Refusal::Method));
        assert_eq!(post(200, &[TAGGED]), Err(Refusal::Method));
    }

    #[test]
    fn assigned_lifetime_stands_in_for_a_stated_one() {
        let arriving = |basis| {
            let headers = HeaderMap::new();
            let assigned = Terms {
                basis,
                ..terms(201, &[])
            };
            Arrival {
                method: &Method::GET,
                authorized: false,
                request: &RequestDirectives::default(),
                status: StatusCode::CREATED,
                headers: &headers,
                directives: &ResponseDirectives::default(),
                vary: &Vary::None,
                terms: &assigned,
                names_target: false,
            }
            .may_store()
        };
        assert_eq!(arriving(Basis::Assigned), Ok(()));
        assert_eq!(arriving(Basis::None), Err(Refusal::NoFreshness));
    }

    #[test]
    fn fields_are_stored_but_for_those_of_this_hop_and_of_one_user() {
        // HD1, HD2, HD4, HD5, OT2, OT5
        let response = headers(&[
            ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("expires", "Sun, 06 Nov 1994 09:49:37 GMT"),
            ("cache-control", "max-age=60, private=\"x-user, X-Other\""),
            ("connection", "x-hop"),
            ("transfer-encoding", "odd"),
            ("x-hop", "1"),
            ("x-user", "1"),
            ("x-other", "1"),
            ("x-twice", "b"),
            ("x-twice", "a\u{e9}"),
            ("content-range", "bytes 0-1/2"),
        ]);
        let directives = ResponseDirectives::parse(&response);
        let stored = stored_fields(&response, &directives, HttpDate(0));
        let expected = headers(&[
            ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("expires", "Sun, 06 Nov 1994 09:49:37 GMT"),
            ("cache-control", "max-age=60, private=\"x-user, X-Other\""),
            ("x-twice", "b"),
            ("x-twice", "a\u{e9}"),
            ("content-range", "bytes 0-1/2"),
        ]);
        assert_eq!(stored, expected);
    }

    #[test]
    fn missing_or_invalid_date_is_replaced() {
        // EX3
        let day = "Sun, 06 Nov 1994 08:49:37 GMT";
        let other = "Sun, 06 Nov 1994 08:49:38 GMT";
        let rows: [&[Field]; 4] = [
            &[],
            &[("date", "0")],
            &[("date", other), ("date", day)],
            &[("connection", "date"), ("date", other)],
        ];
        for lines in rows {
            let directives = ResponseDirectives::default();
            let stored = stored_fields(&headers(lines), &directives, HttpDate(784_111_777));
            assert_eq!(stored, headers(&[("date", day)]), "{lines:?}");
        }
    }
}
