//! What the behaviour tests share: a scripted origin, and a cache in front of it.

mod origin;
mod store;

use std::convert::identity;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use tower::{Layer, ServiceExt};
use tower_response_cache::{
    CacheHandle, CacheLayer, CacheService, ManualClock, MemoryStore, ResponseBody, Rule, Rules,
    RulesBuilder,
};

pub(crate) use self::origin::{Broken, Call, Origin, pieces, stream};
pub(crate) use self::store::{Double, Fault, Operation};

/// The body of the origin's responses.
pub(crate) type Body = UnsyncBoxBody<Bytes, Broken>;

/// A cache over a memory store in front of a scripted origin, with a clock that tests move.
pub(crate) struct Cache {
    pub(crate) origin: Origin,
    pub(crate) clock: ManualClock,
    pub(crate) layer: CacheLayer,
}

impl Cache {
    pub(crate) fn new(origin: &Origin, rules: RulesBuilder) -> Self {
        Self::over(CacheLayer::new(MemoryStore::new(16 << 20)), origin, rules)
    }

    pub(crate) fn over(layer: CacheLayer, origin: &Origin, rules: RulesBuilder) -> Self {
        let clock = ManualClock::new();
        let rules = rules.build().expect("the rules of a test are right");
        Self {
            layer: layer.rules(rules).clock(clock.clock()),
            origin: origin.clone(),
            clock,
        }
    }

    /// Changes the layer.
    pub(crate) fn with(mut self, change: impl FnOnce(CacheLayer) -> CacheLayer) -> Self {
        self.layer = change(self.layer);
        self
    }

    pub(crate) fn handle(&self) -> CacheHandle {
        self.layer.handle()
    }

    pub(crate) fn service(&self) -> CacheService<Origin> {
        self.layer.layer(self.origin.clone())
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// Sends a request, whose body or handler may fail.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<ResponseBody<Body>>, Broken> {
        self.service().oneshot(request).await
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn fetch(&self, request: Request<Full<Bytes>>) -> Answer {
        Answer::read(self.send(request).await.expect("the origin answers")).await
    }

    /// Does the same through a layer that is keyed by content.
    pub(crate) async fn fetch_by_content(&self, request: Request<Full<Bytes>>) -> Answer {
        let service = self.layer.clone().keyed_by_content(identity);
        let response = service.layer(self.origin.clone()).oneshot(request).await;
        Answer::read(response.expect("the origin answers")).await
    }

    pub(crate) async fn get(&self, uri: &str) -> Answer {
        self.get_with(uri, &[]).await
    }

    pub(crate) async fn get_with(&self, uri: &str, fields: &[(&str, &str)]) -> Answer {
        self.fetch(request(Method::GET, uri, fields)).await
    }

    pub(crate) async fn method(&self, method: &str, uri: &str) -> Answer {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        self.fetch(request(method, uri, &[])).await
    }
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Answer {
    pub(crate) async fn read<B>(response: Response<B>) -> Self
    where
        B: http_body::Body<Data = Bytes, Error: fmt::Debug>,
    {
        let (head, body) = response.into_parts();
        let collected = body.collect().await.expect("the body is whole");
        Self {
            status: head.status,
            headers: head.headers,
            trailers: collected.trailers().cloned(),
            body: collected.to_bytes(),
        }
    }

    /// Returns the first line of a field; empty if there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).map(|value| value.to_str());
        value
            .transpose()
            .expect("a field of letters")
            .unwrap_or_default()
    }

    /// Returns what this cache, under its default name, says that it did.
    pub(crate) fn cache_status(&self) -> &str {
        let all = self.headers.get_all("cache-status").iter();
        let mut own =
            all.filter_map(|line| line.to_str().ok()?.strip_prefix("tower-response-cache; "));
        own.next_back().unwrap_or_default()
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of letters")
    }
}

pub(crate) fn request(method: Method, uri: &str, fields: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Full::default()).expect("a request")
}

pub(crate) fn get(uri: &str) -> Request<Full<Bytes>> {
    request(Method::GET, uri, &[])
}

/// Makes a 200 whose body is at hand.
pub(crate) fn response(fields: &[(&str, &str)], body: impl Into<Bytes>) -> Response<Body> {
    status(200, fields, body)
}

pub(crate) fn status(
    status: u16,
    fields: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::builder().status(status);
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    let body = Full::new(body.into()).map_err(|never| match never {});
    response.body(body.boxed_unsync()).expect("a response")
}

/// Lets everything that can go on do so.
pub(crate) async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// Makes a rule that keeps responses for so many seconds.
pub(crate) fn ttl(seconds: u64) -> Rule {
    Rule::ttl(Duration::from_secs(seconds))
}

/// Starts rules with one for all paths.
pub(crate) fn everywhere(rule: Rule) -> RulesBuilder {
    Rules::builder().route("/{*path}", rule)
}
