//! Ranges: which part of a stored response a request gets (RFC 9110 §14, RFC 9111 §3.3).

use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::Engine;
use super::request::Facts;
use crate::entry::StoredResponse;
use crate::semantics::date::HttpDate;
use crate::semantics::range::{
    ContentRange, HeldPart, Joined, Part, Partial, Ranges, Rest, Selection, Spans, StrongValidator,
    forget_content, if_range_holds, join,
};
use crate::semantics::validation;

/// What of a stored response answers a request.
#[derive(Debug)]
pub(super) enum Portion {
    /// The whole of it.
    Whole,
    /// These bytes of it: a 206.
    Some(Partial),
    /// Nothing, for it has no such bytes: a 416.
    Unsatisfiable,
    /// It is a part that does not hold what is wanted.
    Missing,
}

/// Chooses what of `stored` answers a request.
pub(super) fn portion(
    engine: &Engine,
    stored: &StoredResponse,
    request: &HeaderMap,
    facts: &Facts,
) -> Portion {
    match stored.status {
        StatusCode::OK if facts.range && !facts.head => of_complete(engine, stored, request),
        StatusCode::PARTIAL_CONTENT => of_part(engine, stored, request),
        _ => Portion::Whole,
    }
}

fn of_complete(engine: &Engine, stored: &StoredResponse, request: &HeaderMap) -> Portion {
    let (Some(ranges), Some(part)) = (ranges(engine, stored, request), Part::whole(length(stored)))
    else {
        return Portion::Whole;
    };
    match ranges.of_complete(length(stored)) {
        Selection::Whole => Portion::Whole,
        Selection::Unsatisfiable => Portion::Unsatisfiable,
        Selection::Spans(spans) => cut(stored, &part, &spans).map_or(Portion::Whole, Portion::Some),
    }
}

fn of_part(engine: &Engine, stored: &StoredResponse, request: &HeaderMap) -> Portion {
    let cut = || {
        let part = held(stored)?;
        let spans = ranges(engine, stored, request)?.of_part(&part)?;
        cut(stored, &part, &spans)
    };
    cut().map_or(Portion::Missing, Portion::Some)
}

/// Returns where the bytes of a stored 206 lie.
fn held(stored: &StoredResponse) -> Option<Part> {
    let range = ContentRange::of_field(&stored.fields)?;
    Some(Part::new(range, length(stored)))
}

/// Returns how to ask the handler for what a stored prefix lacks.
///
/// It may send the rest of another representation all the same: handlers that know `Range` need not
/// know `If-Range`.
pub(super) fn rest(stored: &StoredResponse, request: &HeaderMap) -> Option<Rest> {
    if request.contains_key(RANGE) {
        return None;
    }
    let held = held(stored)?;
    // Where the length is unknown there may be no rest, and what arrives cannot be seen to be all.
    held.range().complete?;
    held.rest(validator(stored), &stored.fields)
}

/// Whether a response is the rest that was asked for; if so, turns its head into that of the whole
/// representation.
pub(super) fn completes(stored: &StoredResponse, head: &mut Parts) -> bool {
    let rest = &head.headers;
    let fits = || {
        let held = held(stored)?;
        let rest = ContentRange::of_field(rest)?;
        let follows = held.span_held()?.end() == rest.span.first();
        let ends = rest.reaches_end() && rest.complete == held.range().complete;
        let is_part = head.status == StatusCode::PARTIAL_CONTENT;
        (is_part && follows && ends).then_some(rest.span.end())
    };
    let Some(length) = fits().filter(|_| has_validator_of(stored, rest)) else {
        return false;
    };
    let mut whole = validation::freshen(&stored.fields, rest);
    forget_content(&mut whole);
    whole.insert(CONTENT_LENGTH, HeaderValue::from(length));
    head.headers = whole;
    head.status = StatusCode::OK;
    true
}

fn has_validator_of(stored: &StoredResponse, rest: &HeaderMap) -> bool {
    validator(stored).is_some_and(|validator| {
        let field = validator.field();
        rest.get(&field) == stored.fields.get(&field)
    })
}

/// Joins a part that has arrived with one that was stored, if they are of one representation; alone
/// or together they may be all of it (RFC 9110 §15.3.7.3).
pub(super) fn joined(
    stored: Option<&StoredResponse>,
    mut arrived: StoredResponse,
) -> StoredResponse {
    let joined = || {
        let b = held(&arrived)?;
        if b.is_complete() {
            return Some(Joined::Complete(arrived.body.clone()));
        }
        let (stored, b_validator) = (stored?, validator(&arrived));
        let (a, a_validator) = (held(stored)?, validator(stored));
        join(
            HeldPart {
                part: a,
                validator: a_validator,
                body: &stored.body,
            },
            HeldPart {
                part: b,
                validator: b_validator,
                body: &arrived.body,
            },
        )
    };
    let Some(joined) = joined() else {
        return arrived;
    };
    forget_content(&mut arrived.fields);
    match joined {
        Joined::Complete(body) => {
            arrived.status = StatusCode::OK;
            arrived.body = body;
        }
        Joined::Part(part, body) => {
            let range = part.range().to_header_value();
            arrived.fields.insert(CONTENT_RANGE, range);
            arrived.body = body;
        }
    }
    let length = HeaderValue::from(arrived.body.len());
    arrived.fields.insert(CONTENT_LENGTH, length);
    arrived
}

/// Returns what proves that parts are of one representation.
fn validator(stored: &StoredResponse) -> Option<StrongValidator<'_>> {
    let etag = stored.etag().map(HeaderValue::as_bytes);
    StrongValidator::new(etag, stored.terms.last_modified, stored.terms.date)
}

/// Reads the ranges that count: `If-Range` may say that they do not.
fn ranges(engine: &Engine, stored: &StoredResponse, request: &HeaderMap) -> Option<Ranges> {
    let ranges = Ranges::of_request(&Method::GET, request)?;
    let terms = &stored.terms;
    let etag = stored.etag().map(HeaderValue::as_bytes);
    let now = HttpDate::from(engine.options.clock.wall());
    if_range_holds(request, etag, terms.last_modified, terms.date, now).then_some(ranges)
}

fn cut(stored: &StoredResponse, part: &Part, spans: &Spans) -> Option<Partial> {
    let boundary = match spans.as_slice() {
        [_] => 0,
        // Whoever wrote the body must not have known it.
        _ => u128::from(getrandom::u64().ok()?) << 64 | u128::from(getrandom::u64().ok()?),
    };
    Partial::new(
        part,
        &stored.body,
        spans,
        stored.fields.get(CONTENT_TYPE),
        boundary,
    )
}

fn length(stored: &StoredResponse) -> u64 {
    u64::try_from(stored.body.len()).unwrap_or(u64::MAX)
}
