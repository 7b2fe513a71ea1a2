//! Drives the inner service through what the engine wants of it.

use std::future::poll_fn;
use std::pin::pin;

use bytes::Bytes;
use http::response::Parts;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;
use tracing::Instrument;

use super::ResponseBody;
use super::body;
use crate::engine::{
    Arrived, BoxError, Content, Exchange, Forward, LONGEST_FETCH, Recorder, Step, Write,
};
use crate::extension::EmptyBody;

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
    ReqBody: Body + Send + 'static,
    ResBody: Body + Send + 'static,
    ResBody::Data: Send,
    ResBody::Error: Into<BoxError>,
{
    // Only the fields are borrowed across the await: a request body need not be `Sync`.
    let (head, body) = request.into_parts();
    let span = tracing::debug_span!("cache_lookup", key = ?exchange.key());
    let mut step = exchange.resolve(&head.headers).instrument(span).await;
    loop {
        step = match step {
            Step::Follow(to, following) => to.follow(following, &head.headers).await,
            Step::Answer(response) => return Ok(response.map(ResponseBody::made)),
            Step::Forward(to) => {
                return lead(inner, Request::from_parts(head, body), *to).await;
            }
            Step::Refresh(response, to) => {
                refresh(inner, Request::from_parts(head, body), *to);
                return Ok(response.map(ResponseBody::made));
            }
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
    ResBody: Body + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    write.prepare().await;
    let (mut head, body) = inner.call(request).await?.into_parts();
    let recorder = write.answered(&mut head, body.size_hint().lower()).await;
    Ok(match recorder {
        Some(recorder) => record(head, None, body, recorder).await,
        None => Response::from_parts(head, ResponseBody::passing(body)),
    })
}

/// Forwards a request, in a task of its own if others wait for the answer: its client may go away,
/// or stall, and they must not mind.
async fn lead<S, ReqBody, ResBody>(
    inner: S,
    request: Request<ReqBody>,
    to: Forward,
) -> Result<Response<ResponseBody<ResBody>>, S::Error>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Send + 'static,
    S::Future: Send,
    S::Error: Send + 'static,
    ReqBody: Body + Send + 'static,
    ResBody: Body + Send + 'static,
    ResBody::Data: Send,
    ResBody::Error: Into<BoxError>,
{
    let stand_in = to.stand_in(request.headers());
    if !to.is_awaited() && stand_in.is_none() {
        return forward(inner, request, to).await;
    }
    let engine = to.engine();
    let fetch = engine
        .tasks
        .carry(fetch(inner, request, to).in_current_span(), LONGEST_FETCH);
    match stand_in {
        None => fetch.await,
        Some(stand_in) => match stand_in.unless(fetch).await {
            Ok(answer) => answer,
            Err(stale) => Ok(stale.map(ResponseBody::made)),
        },
    }
}

/// Forwards a request, unless another process has brought what it wants by then.
async fn fetch<S, ReqBody, ResBody>(
    inner: S,
    request: Request<ReqBody>,
    mut to: Forward,
) -> Result<Response<ResponseBody<ResBody>>, S::Error>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ReqBody: Body + 'static,
    ResBody: Body + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    // Only the fields are borrowed across the await: a request body need not be `Sync`.
    let (head, body) = request.into_parts();
    if let Some(response) = to.claim(&head.headers).await {
        return Ok(response.map(ResponseBody::made));
    }
    forward(inner, Request::from_parts(head, body), to).await
}

/// Forwards a request, and once more if the answer is of no use to anybody.
async fn forward<S, ReqBody, ResBody>(
    mut inner: S,
    mut request: Request<ReqBody>,
    mut forward: Forward,
) -> Result<Response<ResponseBody<ResBody>>, S::Error>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ReqBody: Body + 'static,
    ResBody: Body + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    let mut again = match forward.has_questions() {
        true => repetition(&request),
        false => None,
    };
    loop {
        forward.prepare(request.headers_mut(), again.is_some());
        let response = match forward.bounded(inner.call(request)).await {
            Some(Ok(response)) => response,
            None => return Ok(forward.timed_out().map(ResponseBody::made)),
            Some(Err(error)) => {
                let stale = forward.failed();
                return stale
                    .map(|response| response.map(ResponseBody::made))
                    .ok_or(error);
            }
        };
        let (mut head, body) = response.into_parts();
        let least = body.size_hint().lower();
        return Ok(match forward.arrived(&mut head, least, again.take()) {
            Arrived::Answer(response) => response.map(ResponseBody::made),
            Arrived::Again(to, repeated) => {
                (forward, request) = (*to, repeated);
                poll_fn(|cx| inner.poll_ready(cx)).await?;
                continue;
            }
            Arrived::Pass(None) => Response::from_parts(head, ResponseBody::passing(body)),
            Arrived::Pass(Some(prefix)) => {
                let behind = Content::behind(prefix, body::source(body));
                Response::from_parts(head, ResponseBody::made(behind))
            }
            Arrived::Record(recorder, prefix) => record(head, prefix, body, recorder).await,
        });
    }
}

/// Returns a request once more, if it has no content and says how to make a body without any.
fn repetition<B: Body + 'static>(request: &Request<B>) -> Option<Request<B>> {
    let EmptyBody(empty) = request.extensions().get::<EmptyBody<B>>()?;
    if !request.body().is_end_stream() {
        return None;
    }
    let mut again = Request::new(empty());
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.version_mut() = request.version();
    *again.headers_mut() = request.headers().clone();
    *again.extensions_mut() = request.extensions().clone();
    Some(again)
}

async fn record<ResBody>(
    head: Parts,
    prefix: Option<Bytes>,
    body: ResBody,
    recorder: Recorder,
) -> Response<ResponseBody<ResBody>>
where
    ResBody: Body + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    let response = recorder.answer(head, prefix, body::source(body)).await;
    response.map(ResponseBody::made)
}

/// Forwards a request though its client has been answered, to renew what is stored.
fn refresh<S, ReqBody, ResBody>(inner: S, mut request: Request<ReqBody>, mut to: Forward)
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Send + 'static,
    S::Future: Send,
    S::Error: Send + 'static,
    ReqBody: Body + Send + 'static,
    ResBody: Body + Send + 'static,
    ResBody::Data: Send,
    ResBody::Error: Into<BoxError>,
{
    to.anonymise(request.headers_mut());
    let engine = to.engine();
    engine.tasks.spawn(async move {
        let (head, body) = request.into_parts();
        if to.is_fetched_elsewhere(&head.headers).await {
            return;
        }
        let request = Request::from_parts(head, body);
        if let Ok(response) = forward(inner, request, to).await {
            drain(response.into_body()).await;
        }
    });
}

/// Reads a body to its end, so that what records it sees all of it.
async fn drain<B: Body>(body: B) {
    let mut body = pin!(body);
    while let Some(Ok(_)) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {}
}
