//! What a stored response is good for, to one request.

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::Engine;
use super::partial::{self, Portion};
use super::refresh;
use super::request::Facts;
use crate::entry::StoredResponse;
use crate::reason::Miss;
use crate::rules::{Policy, Route};
use crate::semantics::freshness::Basis;
use crate::semantics::reuse::{self, Allowance, Reuse};
use crate::semantics::targeted::Binding;

/// What to do with the stored response that a request selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Serve(Service),
    /// Serve it, and have it refreshed.
    ServeAndRefresh(Service),
    /// Ask the handler whether it still holds.
    Validate(Miss),
    /// Ask the handler as if there were none.
    Forward(Miss),
    /// Ask the handler for what the stored part lacks.
    Complete,
}

impl Decision {
    /// Has what is served fresh refreshed too, if the rule and chance will have it.
    pub(super) fn or_ahead(
        self,
        route: Option<&Route>,
        stored: &StoredResponse,
        age: Duration,
    ) -> Self {
        if self == Self::Serve(Service::Fresh)
            && let Some(window) = route.and_then(|route| route.rule.refresh_ahead)
            && refresh::is_due_ahead(window, stored.terms.lifetime.saturating_sub(age))
        {
            return Self::ServeAndRefresh(Service::Fresh);
        }
        self
    }
}

/// In what state a stored response is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    Fresh,
    Stale(Allowance),
}

impl Service {
    pub(super) fn is_stale(self) -> bool {
        self != Self::Fresh
    }
}

/// Decides by the law, after the policy has had its say about whose response it is.
pub(super) fn on_stored(
    engine: &Engine,
    stored: &StoredResponse,
    age: Duration,
    request: &HeaderMap,
    facts: &Facts,
    policy: &Policy,
) -> Decision {
    if let Some(reason) = foreign(stored, facts, policy) {
        return Decision::Forward(reason);
    }
    if facts.range && !policy.serve_ranges {
        return Decision::Forward(Miss::Partial);
    }
    if stored.status == StatusCode::PARTIAL_CONTENT && facts.head {
        // Ranges are for GET (RFC 9110 §14.2), and a part's head is not that of the whole.
        return Decision::Forward(Miss::Partial);
    }
    if stored.status == StatusCode::PARTIAL_CONTENT
        && matches!(
            partial::portion(engine, stored, request, facts),
            Portion::Missing
        )
    {
        return Decision::Complete;
    }
    match reuse::decide(&stored.terms, age, &facts.directives) {
        Reuse::ServeFresh => Decision::Serve(Service::Fresh),
        Reuse::ServeStale(allowance @ Allowance::WhileRevalidate) => {
            Decision::ServeAndRefresh(Service::Stale(allowance))
        }
        Reuse::ServeStale(allowance) => Decision::Serve(Service::Stale(allowance)),
        Reuse::Validate(reason) => Decision::Validate(reason),
    }
}

/// Says why a response that only the rule calls cacheable is not for this requester: it was made
/// for somebody without the identity that this request shows, and does not say that anybody may
/// have it.
fn foreign(stored: &StoredResponse, facts: &Facts, policy: &Policy) -> Option<Miss> {
    let reason = match stored.terms.basis {
        Basis::Assigned if facts.authorization => Miss::Authorization,
        Basis::Assigned if facts.cookie && !policy.shared_despite_cookies => Miss::Cookie,
        _ => return None,
    };
    let binding = Binding::of(&stored.fields, &policy.targeted_fields);
    (!binding.directives.public).then_some(reason)
}
