//! Responses to store, and the requests that they answer.

use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, Uri};

use crate::clock::Clock;
use crate::entry::StoredResponse;
use crate::epoch::Scope;
use crate::key::{KeySpec, Namespace, PrimaryKey};
use crate::semantics::freshness::Basis;

/// A lifetime such as a rule gives.
const LIFETIME: Duration = Duration::from_secs(60);

/// A request with the response that is to be stored for it.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) namespace: Namespace,
    pub(crate) key: PrimaryKey,
    pub(crate) request: HeaderMap,
    fields: HeaderMap,
    body: Bytes,
    trailers: Option<HeaderMap>,
    uri: Uri,
}

impl Sample {
    /// Makes a sample without fields, the path as its body.
    pub(crate) fn new(namespace: &Namespace, path: &str) -> Self {
        let uri = Uri::try_from(path).expect("the suite's paths are valid");
        let request = HeaderMap::new();
        let key = PrimaryKey::new(namespace, &KeySpec::default(), &Method::GET, &uri, &request);
        Self {
            namespace: namespace.clone(),
            key: key.expect("the suite's requests have keys"),
            request,
            fields: HeaderMap::new(),
            body: Bytes::copy_from_slice(path.as_bytes()),
            trailers: None,
            uri,
        }
    }

    /// Adds a field to the request.
    pub(crate) fn asked_with(mut self, name: &'static str, value: &str) -> Self {
        self.request
            .append(HeaderName::from_static(name), field_value(value.as_bytes()));
        self
    }

    /// Adds a field to the response.
    pub(crate) fn field(mut self, name: &'static str, value: &[u8]) -> Self {
        self.fields
            .append(HeaderName::from_static(name), field_value(value));
        self
    }

    /// Gives the response a body.
    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Adds a trailer field to the response.
    pub(crate) fn trailer(mut self, name: &'static str, value: &[u8]) -> Self {
        self.trailers
            .get_or_insert_default()
            .append(HeaderName::from_static(name), field_value(value));
        self
    }

    /// Returns the scopes that the request determines: namespace, route and path.
    pub(crate) fn scopes(&self) -> [Scope; 3] {
        let namespace = self.namespace.as_str();
        [
            Scope::namespace(namespace),
            Scope::route(namespace, "/{*path}"),
            Scope::path(namespace, self.uri.path().as_bytes()),
        ]
    }

    /// Returns the response, as a cache would make it now; fresh for a minute unless it states
    /// otherwise.
    pub(crate) fn response(&self, clock: &Clock) -> StoredResponse {
        let mut request = Request::get(&self.uri)
            .body(())
            .expect("the parts are valid");
        *request.headers_mut() = self.request.clone();
        let mut response = Response::new(self.body.clone());
        *response.headers_mut() = self.fields.clone();
        let mut response = StoredResponse::sample(&request, response, clock);
        if response.terms.basis == Basis::None {
            (response.terms.lifetime, response.terms.basis) = (LIFETIME, Basis::Assigned);
        }
        StoredResponse {
            key: self.key.clone(),
            trailers: self.trailers.clone(),
            ..response
        }
    }
}

fn field_value(value: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(value).expect("the suite's field values are valid")
}
