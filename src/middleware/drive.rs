//! Drives the inner service through what the engine wants of it.

use std::future::poll_fn;
use std::pin::pin;

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;
use tracing::Instrument;

use super::ResponseBody;
use super::body::{self, Ahead};
use crate::engine::{Arrived, Exchange, Forward, Recorder, Refreshing, Step, Write};

/// Answers a request from the store or from `inner`, which is ready.
pub(super) async fn exchange<S, ReqBody, ResBody>(
    inner: S,
    request: Request<ReqBody>,
    exchange: Exchange,
) -> Result<Response<ResponseBody<ResBody>>, S::Error>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Send + 'static,
    S::Future: Send,
    S::Error: Send + 'static,
    ReqBody: Send + 'static,
    ResBody: Body + Send + 'static,
    ResBody::Data: Send,
    ResBody::Error: Send,
{
    // Only the fields are borrowed across the await: a request body need not be `Sync`.
    let (head, body) = request.into_parts();
    let span = tracing::debug_span!("cache_lookup", key = ?exchange.key());
    let step = exchange.resolve(&head.headers).instrument(span).await;
    let request = Request::from_parts(head, body);
    match step {
        Step::Answer(response) => Ok(response.map(ResponseBody::made)),
        Step::Forward(to) => forward(inner, request, *to).await,
        Step::Refresh(response, to, refreshing) => {
            refresh(inner, request, *to, refreshing);
            Ok(response.map(ResponseBody::made))
        }
    }
}

/// Answers a request that may change what is stored.
pub(super) async fn write<S, ReqBody, ResBody>(
    mut inner: S,
    request: Request<ReqBody>,
    mut write: Write,
) -> Result<Response<ResponseBody<ResBody>>, S::Error>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body,
{
    write.prepare().await;
    let (mut head, body) = inner.call(request).await?.into_parts();
    let body = match write.answered(&mut head, body.size_hint().lower()).await {
        Some(recorder) => body::record(None, body, Some(recorder)),
        None => ResponseBody::passing(body),
    };
    Ok(Response::from_parts(head, body))
}

async fn forward<S, ReqBody, ResBody>(
    mut inner: S,
    mut request: Request<ReqBody>,
    mut forward: Forward,
) -> Result<Response<ResponseBody<ResBody>>, S::Error>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body,
{
    forward.prepare(request.headers_mut());
    let response = match inner.call(request).await {
        Ok(response) => response,
        Err(error) => {
            let stale = forward.failed();
            return stale
                .map(|response| response.map(ResponseBody::made))
                .ok_or(error);
        }
    };
    let (mut head, body) = response.into_parts();
    match forward.arrived(&mut head, body.size_hint().lower()) {
        Arrived::Answer(response) => Ok(response.map(ResponseBody::made)),
        Arrived::Pass(None) => Ok(Response::from_parts(head, ResponseBody::passing(body))),
        Arrived::Pass(Some(prefix)) => Ok(Response::from_parts(
            head,
            body::record(Some(prefix), body, None),
        )),
        Arrived::Record(recorder, None) if is_short(&body, &recorder) => {
            match body::read_ahead(body, recorder).await {
                Ahead::Whole(recorder) => {
                    Ok(recorder.finish_and_answer(head).map(ResponseBody::made))
                }
                Ahead::Partly(body) => Ok(Response::from_parts(head, body)),
            }
        }
        Arrived::Record(recorder, prefix) => Ok(Response::from_parts(
            head,
            body::record(prefix, body, Some(recorder)),
        )),
    }
}

/// Forwards a request though its client has been answered, to renew what is stored.
fn refresh<S, ReqBody, ResBody>(
    inner: S,
    mut request: Request<ReqBody>,
    mut to: Forward,
    refreshing: Refreshing,
) where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Send + 'static,
    S::Future: Send,
    S::Error: Send + 'static,
    ReqBody: Send + 'static,
    ResBody: Body + Send + 'static,
    ResBody::Data: Send,
    ResBody::Error: Send,
{
    to.anonymise(request.headers_mut());
    let engine = to.engine();
    engine.tasks.spawn(async move {
        if let Ok(response) = forward(inner, request, to).await {
            drain(response.into_body()).await;
        }
        drop(refreshing);
    });
}

/// Reads a body to its end, so that what records it sees all of it.
async fn drain<B: Body>(body: B) {
    let mut body = pin!(body);
    while let Some(Ok(_)) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {}
}

/// Whether the whole of a body may be at hand, and is small enough to be read ahead.
fn is_short<B: Body>(body: &B, recorder: &Recorder) -> bool {
    body.size_hint()
        .exact()
        .is_some_and(|length| length <= recorder.hash_ahead())
}
