//! The three steps of the law on one exchange, for benches to measure.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method, Request, Response, StatusCode};

use super::age::Exchange;
use super::cache_control::RequestDirectives;
use super::freshness::{Reading, Terms};
use super::reuse::{self, Reuse};
use super::storing::{Arrival, keep_dated, keep_storable};
use super::targeted::Binding;
use super::vary::{Candidate, Nominated, NormalForm, Vary, select};

/// The heads of a request and of its response.
#[derive(Clone, Debug)]
pub struct SampleExchange {
    method: Method,
    request: HeaderMap,
    status: StatusCode,
    response: HeaderMap,
    received: SystemTime,
}

/// What is read from the heads once, when a response is stored.
#[derive(Clone, Debug)]
pub struct ParsedHeads {
    directives: RequestDirectives,
    binding: Binding,
    terms: Terms,
    vary: Vary,
    nominated: Nominated,
    form: NormalForm,
}

impl SampleExchange {
    /// Takes the heads of an exchange whose response came at the time of `received`.
    pub fn new<T, U>(request: &Request<T>, response: &Response<U>, received: SystemTime) -> Self {
        Self {
            method: request.method().clone(),
            request: request.headers().clone(),
            status: response.status(),
            response: response.headers().clone(),
            received,
        }
    }

    /// Parses the heads, as is done when a response arrives.
    pub fn parse(&self) -> ParsedHeads {
        let binding = Binding::of(&self.response, &[]);
        let exchange = Exchange {
            response_time: self.received.into(),
            delay: Duration::ZERO,
        };
        let vary = Vary::parse(&self.response);
        let form = NormalForm::for_response(true, &self.response);
        let names = vary.fields().unwrap_or_default();
        ParsedHeads {
            directives: RequestDirectives::parse(&self.request),
            terms: Terms::of(
                self.status,
                &self.response,
                &binding,
                exchange,
                Reading::default(),
            ),
            nominated: Nominated::new(names, &self.request, form),
            binding,
            vary,
            form,
        }
    }

    /// Decides whether the response may be stored, and if so makes the fields to store; returns
    /// how many lines they are.
    pub fn store(&self, parsed: &ParsedHeads) -> Option<usize> {
        let arrival = Arrival {
            method: &self.method,
            authorized: false,
            request: &parsed.directives,
            status: self.status,
            headers: &self.response,
            directives: &parsed.binding.directives,
            vary: &parsed.vary,
            terms: &parsed.terms,
            names_target: false,
        };
        arrival.may_store().ok()?;
        let received = self.received.into();
        let mut stored = self.response.clone();
        keep_storable(&mut stored, &parsed.binding.directives);
        keep_dated(&mut stored, received);
        Some(stored.len())
    }

    /// Decides whether the request may be answered by the response, stored for so long: reads the
    /// request's directives, selects the response by its `Vary`, and asks for its freshness.
    pub fn reuse(&self, parsed: &ParsedHeads, resident: Duration) -> bool {
        let directives = RequestDirectives::parse(&self.request);
        let stored = Candidate {
            vary: &parsed.vary,
            nominated: &parsed.nominated,
            form: parsed.form,
            date: parsed.terms.date,
            content_language: None,
        };
        let terms = &parsed.terms;
        select(std::iter::once(stored), &self.request).is_some()
            && reuse::decide(terms, terms.age(resident), &directives) == Reuse::ServeFresh
    }
}
