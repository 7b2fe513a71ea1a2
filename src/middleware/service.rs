//! The service.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::drive::Inside;
use super::{KeyedByContent, RequestBody, ResponseBody, ResponseFuture, UnreadContent, drive};
use crate::engine::{BoxError, Engine, Reception};

/// A service with a cache in front of it; made by [`CacheLayer`](crate::CacheLayer).
///
/// Its error is the inner service's. The inner service is called only when it has been polled
/// ready, and it is the very one that was. `C` says whether it reads the content of requests.
#[derive(Clone)]
pub struct CacheService<S, C = UnreadContent> {
    inner: S,
    engine: Arc<Engine>,
    content: C,
}

impl<S, C> CacheService<S, C> {
    pub(super) fn new(inner: S, engine: Arc<Engine>, content: C) -> Self {
        Self {
            inner,
            engine,
            content,
        }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for CacheService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send + 'static,
    ReqBody: Body + Send + 'static,
    ResBody: Body + Send + 'static,
    ResBody::Data: Send,
    ResBody::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, ResBody, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        match self.engine.receive(&request) {
            Reception::Answer(response) => ResponseFuture::ready(response),
            Reception::Pass(passage) => ResponseFuture::passing(self.inner.call(request), passage),
            Reception::Read(reading) => {
                let passage = reading.unread(&request);
                ResponseFuture::passing(self.inner.call(request), passage)
            }
            Reception::Exchange(exchange) => {
                let inside = Inside::once(self.take_ready());
                ResponseFuture::boxed(drive::exchange(inside, request, exchange))
            }
            Reception::Write(write) => {
                ResponseFuture::boxed(drive::write(self.take_ready(), request, *write))
            }
        }
    }
}

impl<S, F, B, ReqBody, ResBody> Service<Request<B>> for CacheService<S, KeyedByContent<F>>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send + 'static,
    F: Fn(RequestBody<B>) -> ReqBody + Clone + Send + 'static,
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
    ReqBody: Send + 'static,
    ResBody: Body + Send + 'static,
    ResBody::Data: Send,
    ResBody::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, ResBody, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let reception = self.engine.receive(&request);
        let wrap = self.content.wrap.clone();
        let untouched = |body| wrap(RequestBody::passing(body));
        match reception {
            Reception::Answer(response) => ResponseFuture::ready(response),
            Reception::Pass(passage) => {
                ResponseFuture::passing(self.inner.call(request.map(untouched)), passage)
            }
            Reception::Read(reading) => {
                ResponseFuture::boxed(drive::read(self.take_ready(), wrap, request, *reading))
            }
            Reception::Exchange(exchange) => {
                let service = self.take_ready();
                let is_empty = request.body().is_end_stream();
                let request = request.map(untouched);
                let inside = match is_empty {
                    true => Inside::again(service, move || wrap(RequestBody::empty())),
                    false => Inside::once(service),
                };
                ResponseFuture::boxed(drive::exchange(inside, request, exchange))
            }
            Reception::Write(write) => {
                let request = request.map(untouched);
                ResponseFuture::boxed(drive::write(self.take_ready(), request, *write))
            }
        }
    }
}

impl<S: Clone, C> CacheService<S, C> {
    /// Takes the inner service that was polled ready and leaves a clone, which will be.
    fn take_ready(&mut self) -> S {
        let clone = self.inner.clone();
        std::mem::replace(&mut self.inner, clone)
    }
}

impl<S: fmt::Debug, C> fmt::Debug for CacheService<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheService")
            .field("inner", &self.inner)
            .field("store", self.engine.store())
            .finish_non_exhaustive()
    }
}
