//! The response body: the handler's own, one that is copied on its way, or a stored one.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::engine::{Content, Recorder};

pin_project! {
    /// The body of a response that passed through a [`CacheLayer`](crate::CacheLayer).
    ///
    /// It yields what the handler's body `B` yields, as it comes, or what is stored. Its error is
    /// `B`'s: the cache adds none of its own. Trailers pass through and are stored with the body.
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
        Recording { tee: Tee<B> },
        Made { content: Content },
    }
}

/// A body with the recorder that sees its frames on their way to the client.
///
/// The body is boxed because reading ahead polls it before it has found its place.
struct Tee<B: Body> {
    body: Pin<Box<B>>,
    read: VecDeque<Result<Frame<Bytes>, B::Error>>,
    recorder: Option<Recorder>,
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

impl<B: Body> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().kind.project() {
            KindProj::Passing { body } => body.poll_frame(cx).map_ok(into_bytes),
            KindProj::Made { content } => Poll::Ready(content.next_frame().map(Ok)),
            KindProj::Recording { tee } => tee.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Passing { body } => body.is_end_stream(),
            Kind::Recording { tee } => tee.read.is_empty() && tee.body.is_end_stream(),
            Kind::Made { content } => content.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Passing { body } => body.size_hint(),
            Kind::Recording { tee } => tee.size_hint(),
            Kind::Made { content } => content.size_hint(),
        }
    }
}

impl<B: Body> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Passing { .. } => "ResponseBody(passing)",
            Kind::Recording { .. } => "ResponseBody(recording)",
            Kind::Made { .. } => "ResponseBody(made)",
        })
    }
}

/// What reading ahead came to.
pub(super) enum Ahead<B: Body> {
    /// The body was complete at hand; the recorder holds all of it.
    Whole(Recorder),
    /// There is more to come, or the body failed.
    Partly(ResponseBody<B>),
}

/// Reads what `body` has at hand, without waiting, into `recorder`.
///
/// A body made of bytes in memory ends here, so that its answer can leave with the entity-tag that
/// its hits will have.
pub(super) async fn read_ahead<B: Body>(body: B, recorder: Recorder) -> Ahead<B> {
    let mut tee = Tee::new(body, Some(recorder));
    let ended = poll_fn(|cx| Poll::Ready(tee.read_ahead(cx))).await;
    match tee.recorder.take() {
        Some(recorder) if ended => Ahead::Whole(recorder),
        recorder => {
            tee.recorder = recorder;
            Ahead::Partly(tee.into_body())
        }
    }
}

/// Starts to copy `body`, behind a prefix of it, into `recorder` as the client reads it.
pub(super) fn record<B: Body>(
    prefix: Option<Bytes>,
    body: B,
    recorder: Option<Recorder>,
) -> ResponseBody<B> {
    let mut tee = Tee::new(body, recorder);
    if let Some(prefix) = prefix {
        let frame = Frame::data(prefix);
        tee.record(&frame);
        tee.read.push_back(Ok(frame));
    }
    tee.finish_if_ended();
    tee.into_body()
}

impl<B: Body> Tee<B> {
    fn new(body: B, recorder: Option<Recorder>) -> Self {
        Self {
            body: Box::pin(body),
            read: VecDeque::new(),
            recorder,
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if let Some(frame) = self.read.pop_front() {
            return Poll::Ready(Some(frame));
        }
        let frame = ready!(self.body.as_mut().poll_frame(cx)).map(|frame| frame.map(into_bytes));
        match &frame {
            Some(Ok(frame)) => {
                self.record(frame);
                // A server need not poll again after the last frame; trailers are one.
                match frame.is_trailers() {
                    true => self.finish(),
                    false => self.finish_if_ended(),
                }
            }
            Some(Err(_)) => self.recorder = None,
            None => self.finish(),
        }
        Poll::Ready(frame)
    }

    fn record(&mut self, frame: &Frame<Bytes>) {
        if let Some(recorder) = self.recorder.take() {
            self.recorder = recorder.record(frame);
        }
    }

    fn finish_if_ended(&mut self) {
        if self.body.is_end_stream() {
            self.finish();
        }
    }

    fn finish(&mut self) {
        if let Some(recorder) = self.recorder.take() {
            recorder.finish();
        }
    }

    /// Reads until there is nothing at hand; returns whether that was the end of the body.
    fn read_ahead(&mut self, cx: &mut Context<'_>) -> bool {
        /// A body may yield empty frames for ever.
        const MAX_FRAMES: usize = 64;

        while self.read.len() < MAX_FRAMES && !self.body.is_end_stream() {
            match self.body.as_mut().poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let frame = into_bytes(frame);
                    self.record(&frame);
                    self.read.push_back(Ok(frame));
                }
                Poll::Ready(Some(Err(error))) => {
                    self.recorder = None;
                    self.read.push_back(Err(error));
                    return false;
                }
                Poll::Ready(None) => return true,
                Poll::Pending => return false,
            }
        }
        self.body.is_end_stream()
    }

    fn into_body(self) -> ResponseBody<B> {
        ResponseBody {
            kind: Kind::Recording { tee: self },
        }
    }

    fn size_hint(&self) -> SizeHint {
        let ahead = length(self.read.iter().flatten().filter_map(Frame::data_ref));
        let rest = self.body.size_hint();
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(ahead));
        }
        hint.set_lower(rest.lower().saturating_add(ahead));
        hint
    }
}

fn into_bytes<D: Buf>(frame: Frame<D>) -> Frame<Bytes> {
    frame.map_data(|mut data| data.copy_to_bytes(data.remaining()))
}

fn length<'a>(chunks: impl Iterator<Item = &'a Bytes>) -> u64 {
    chunks.fold(0, |sum: u64, chunk| {
        sum.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX))
    })
}
