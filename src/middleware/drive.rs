//! Drives the inner service through what the engine wants of it.

use std::future::poll_fn;
use std::pin::pin;

use bytes::Bytes;
use http::response::Parts;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;
use tracing::Instrument;

use super::body::{self, RequestBody, ResponseBody};
use crate::engine::{
    Arrived, BoxError, Content, Exchange, Forward, LONGEST_FETCH, Reading, Recorder, Step, Write,
};

/// The service inside the cache.
pub(super) trait Inner<ReqBody>:
    Service<
        Request<ReqBody>,
        Response = Response<<Self as Inner<ReqBody>>::Body>,
        Error: Send + 'static,
        Future: Send,
    > + Send
    + 'static
{
    type Body: Body<Data: Send, Error: Into<BoxError>> + Send + 'static;
}

impl<S, ReqBody, ResBody> Inner<ReqBody> for S
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>, Error: Send + 'static, Future: Send>
        + Send
        + 'static,
    ResBody: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    type Body = ResBody;
}

/// The service inside, ready to be called, and how to call it once more.
pub(super) struct Inside<S, ReqBody> {
    service: S,
    /// Makes the request's body once more, if that can be done.
    body: Option<Repeated<ReqBody>>,
}

type Repeated<ReqBody> = Box<dyn FnOnce() -> ReqBody + Send>;

impl<S, ReqBody> Inside<S, ReqBody> {
    /// The service, which can be sent a request only once.
    pub(super) fn once(service: S) -> Self {
        Self {
            service,
            body: None,
        }
    }

    /// The service, which can be sent a request again whose body `body` makes.
    pub(super) fn again(service: S, body: impl FnOnce() -> ReqBody + Send + 'static) -> Self {
        Self {
            service,
            body: Some(Box::new(body)),
        }
    }
}

type Answer<S, ReqBody> = Result<
    Response<ResponseBody<<S as Inner<ReqBody>>::Body>>,
    <S as Service<Request<ReqBody>>>::Error,
>;

/// Answers a request whose content is part of its key.
pub(super) async fn read<S, F, B, ReqBody>(
    mut service: S,
    wrap: F,
    request: Request<B>,
    reading: Reading,
) -> Answer<S, ReqBody>
where
    S: Inner<ReqBody>,
    F: Fn(RequestBody<B>) -> ReqBody + Send + 'static,
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
    ReqBody: Send + 'static,
{
    let (request, taken_up) = reading.read(request.map(body::source)).await;
    let again = request.body().again();
    let request = request.map(|content| wrap(RequestBody::read(content)));
    match taken_up {
        Ok(exchange) => {
            let inside = match again {
                Some(content) => Inside::again(service, move || wrap(RequestBody::read(content))),
                None => Inside::once(service),
            };
            self::exchange(inside, request, exchange).await
        }
        Err(passage) => {
            let mut response = service.call(request).await?;
            passage.finish(&mut response);
            Ok(response.map(ResponseBody::passing))
        }
    }
}

/// Answers a request from the store or from the service inside.
pub(super) async fn exchange<S, ReqBody>(
    inside: Inside<S, ReqBody>,
    request: Request<ReqBody>,
    exchange: Box<Exchange>,
) -> Answer<S, ReqBody>
where
    S: Inner<ReqBody>,
    ReqBody: Send + 'static,
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
                return lead(inside, Request::from_parts(head, body), to).await;
            }
            Step::Refresh(response, to) => {
                refresh(inside, Request::from_parts(head, body), to);
                return Ok(response.map(ResponseBody::made));
            }
        }
    }
}

/// Answers a request that may change what is stored.
pub(super) async fn write<S, ReqBody>(
    mut inner: S,
    request: Request<ReqBody>,
    mut write: Write,
) -> Answer<S, ReqBody>
where
    S: Inner<ReqBody>,
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
async fn lead<S, ReqBody>(
    inside: Inside<S, ReqBody>,
    mut request: Request<ReqBody>,
    to: Box<Forward>,
) -> Answer<S, ReqBody>
where
    S: Inner<ReqBody>,
    ReqBody: Send + 'static,
{
    to.share_interims(request.extensions_mut());
    let stand_in = to.stand_in(request.headers());
    if !to.is_awaited() && stand_in.is_none() {
        return forward(inside, request, to).await;
    }
    let engine = to.engine();
    let fetch = engine
        .tasks
        .carry(fetch(inside, request, to).in_current_span(), LONGEST_FETCH);
    match stand_in {
        None => fetch.await,
        Some(stand_in) => match stand_in.unless(fetch).await {
            Ok(answer) => answer,
            Err(stale) => Ok(stale.map(ResponseBody::made)),
        },
    }
}

/// Forwards a request, unless another process has brought what it wants by then.
async fn fetch<S, ReqBody>(
    inside: Inside<S, ReqBody>,
    request: Request<ReqBody>,
    mut to: Box<Forward>,
) -> Answer<S, ReqBody>
where
    S: Inner<ReqBody>,
{
    // Only the fields are borrowed across the await: a request body need not be `Sync`.
    let (head, body) = request.into_parts();
    if let Some(response) = to.claim(&head.headers).await {
        return Ok(response.map(ResponseBody::made));
    }
    forward(inside, Request::from_parts(head, body), to).await
}

/// Forwards a request, and once more if the answer is of no use to anybody.
async fn forward<S, ReqBody>(
    inside: Inside<S, ReqBody>,
    mut request: Request<ReqBody>,
    mut forward: Box<Forward>,
) -> Answer<S, ReqBody>
where
    S: Inner<ReqBody>,
{
    let Inside { mut service, body } = inside;
    let mut again = body
        .filter(|_| forward.has_questions())
        .map(|body| with_body(&request, body()));
    let mut is_ready = true;
    loop {
        forward.prepare(request.headers_mut(), again.is_some());
        let answer = {
            // Pinned here, lest what waits for it holds it twice.
            let call = pin!(async {
                if !is_ready {
                    poll_fn(|cx| service.poll_ready(cx)).await?;
                }
                service.call(request).await
            });
            forward.bounded(call).await
        };
        let response = match answer {
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
                (forward, request) = (to, repeated);
                is_ready = false;
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

/// Returns a request once more, with another body.
fn with_body<B>(request: &Request<B>, body: B) -> Request<B> {
    let mut again = Request::new(body);
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.version_mut() = request.version();
    *again.headers_mut() = request.headers().clone();
    *again.extensions_mut() = request.extensions().clone();
    again
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
fn refresh<S, ReqBody>(
    inside: Inside<S, ReqBody>,
    mut request: Request<ReqBody>,
    mut to: Box<Forward>,
) where
    S: Inner<ReqBody>,
    ReqBody: Send + 'static,
{
    to.anonymise(&mut request);
    let engine = to.engine();
    let fetch = async move {
        let (mut head, body) = request.into_parts();
        if to.is_fetched_elsewhere(&head.headers).await {
            return;
        }
        to.share_interims(&mut head.extensions);
        let request = Request::from_parts(head, body);
        if let Ok(response) = forward(inside, request, to).await {
            drain(response.into_body()).await;
        }
    };
    engine.tasks.spawn(fetch, LONGEST_FETCH);
}

/// Reads a body to its end, so that what records it sees all of it.
async fn drain<B: Body>(body: B) {
    let mut body = pin!(body);
    while let Some(Ok(_)) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {}
}
