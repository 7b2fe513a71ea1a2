//! The response body: the handler's own, one that many share, or a stored one; and the request body
//! of a cache that reads content.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::engine::{BoxError, Content, Source};

pin_project! {
    /// The body of a response that passed through a [`CacheLayer`](crate::CacheLayer).
    ///
    /// It yields what the handler's body `B` yields, as it comes, or what is stored. Trailers pass
    /// through and are stored with the body.
    ///
    /// Its error is `B`'s, boxed: several clients may read the body that the handler gave to one,
    /// and when it fails there is one error of type `B::Error` for all of them. The others are told
    /// what it said.
    pub struct ResponseBody<B>
    where
        B: Body,
    {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<B>
    where
        B: Body,
    {
        Passing { #[pin] body: B },
        Made { content: Content },
    }
}

impl<B: Body> ResponseBody<B> {
    /// The handler's body, untouched.
    pub(crate) fn passing(body: B) -> Self {
        Self {
            kind: Kind::Passing { body },
        }
    }

    /// A body out of the store, or one that the cache made.
    pub(crate) fn made(content: Content) -> Self {
        Self {
            kind: Kind::Made { content },
        }
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().kind.project() {
            KindProj::Passing { body } => {
                body.poll_frame(cx).map_ok(into_bytes).map_err(Into::into)
            }
            KindProj::Made { content } => content.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Passing { body } => body.is_end_stream(),
            Kind::Made { content } => content.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Passing { body } => body.size_hint(),
            Kind::Made { content } => content.size_hint(),
        }
    }
}

impl<B: Body> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Passing { .. } => "ResponseBody(passing)",
            Kind::Made { .. } => "ResponseBody(made)",
        })
    }
}

pin_project! {
    /// The body of a request that a [`CacheLayer`](crate::CacheLayer) keyed by content hands on to
    /// the handler.
    ///
    /// It yields what the client's body `B` yields, be it that the cache has read it before or that
    /// it is still arriving: all data, the trailers, and the error if there is one, which is `B`'s,
    /// boxed.
    pub struct RequestBody<B>
    where
        B: Body,
    {
        // Either way a body is one that passes or one that the cache has made.
        #[pin]
        body: ResponseBody<B>,
    }
}

impl<B: Body> RequestBody<B> {
    /// The client's body, untouched.
    pub(super) fn passing(body: B) -> Self {
        Self {
            body: ResponseBody::passing(body),
        }
    }

    /// A body without content.
    pub(super) fn empty() -> Self {
        Self::read(Content::default())
    }

    /// A body that has been read, or a part of it.
    pub(super) fn read(content: Content) -> Self {
        Self {
            body: ResponseBody::made(content),
        }
    }
}

impl<B> Body for RequestBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: Body> fmt::Debug for RequestBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.body.kind {
            Kind::Passing { .. } => "RequestBody(passing)",
            Kind::Made { .. } => "RequestBody(read)",
        })
    }
}

/// Makes a body of any kind of the handler's or the client's.
pub(super) fn source<B>(body: B) -> Source
where
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    Box::pin(ResponseBody::passing(body))
}

fn into_bytes<D: Buf>(frame: Frame<D>) -> Frame<Bytes> {
    frame.map_data(|mut data| data.copy_to_bytes(data.remaining()))
}
