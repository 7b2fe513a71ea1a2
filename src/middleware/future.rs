//! The response future.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

use super::ResponseBody;
use crate::engine::{Content, Passage};

pin_project! {
    /// The response future of a [`CacheService`](crate::CacheService).
    ///
    /// A hit in memory is ready when it is made; a request that passes by is the inner future. Only
    /// what asks a store or stores is boxed.
    pub struct ResponseFuture<F, B, E>
    where
        B: Body,
    {
        #[pin]
        state: State<F, B, E>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, B, E>
    where
        B: Body,
    {
        Ready { response: Option<Response<Content>> },
        Passing { #[pin] inner: F, passage: Passage },
        Boxed { future: Boxed<B, E> },
    }
}

type Boxed<B, E> = Pin<Box<dyn Future<Output = Result<Response<ResponseBody<B>>, E>> + Send>>;

impl<F, B: Body, E> ResponseFuture<F, B, E> {
    pub(super) fn ready(response: Response<Content>) -> Self {
        Self {
            state: State::Ready {
                response: Some(response),
            },
        }
    }

    pub(super) fn passing(inner: F, passage: Passage) -> Self {
        Self {
            state: State::Passing { inner, passage },
        }
    }

    pub(super) fn boxed(
        future: impl Future<Output = Result<Response<ResponseBody<B>>, E>> + Send + 'static,
    ) -> Self {
        Self {
            state: State::Boxed {
                future: Box::pin(future),
            },
        }
    }
}

impl<F, B, E> Future for ResponseFuture<F, B, E>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<ResponseBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Ready { response } => {
                let response = response
                    .take()
                    .expect("a future is not polled after it was ready");
                Poll::Ready(Ok(response.map(ResponseBody::made)))
            }
            StateProj::Passing { inner, passage } => {
                let mut response = ready!(inner.poll(cx))?;
                passage.finish(&mut response);
                Poll::Ready(Ok(response.map(ResponseBody::passing)))
            }
            StateProj::Boxed { future } => future.as_mut().poll(cx),
        }
    }
}

impl<F, B: Body, E> fmt::Debug for ResponseFuture<F, B, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            State::Ready { .. } => "ResponseFuture(ready)",
            State::Passing { .. } => "ResponseFuture(passing)",
            State::Boxed { .. } => "ResponseFuture(boxed)",
        })
    }
}
