//! A body of which something has been read before its reader came.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use crate::flight::along::{BoxError, Source};

/// A body behind what has been read of it, or what is stored of it.
pub(super) struct Ahead {
    read: VecDeque<Result<Frame<Bytes>, BoxError>>,
    rest: Source,
    /// Whether the rest has been seen to end.
    ended: bool,
    /// What is still to come of an announced length.
    due: Option<u64>,
}

impl Ahead {
    pub(super) fn new(prefix: Option<Bytes>, rest: Source) -> Self {
        let prefix = prefix.map(|prefix| Ok(Frame::data(prefix)));
        Self {
            read: prefix.into_iter().collect(),
            rest,
            ended: false,
            due: None,
        }
    }

    /// Looks for the end as soon as so much has come.
    ///
    /// Servers of HTTP/1 do not look for it there, and whoever else reads may be far behind.
    pub(super) fn announced(mut self, length: Option<u64>) -> Self {
        self.due = length;
        self
    }

    /// Puts a frame, or the end, behind what has been read.
    pub(super) fn push(&mut self, frame: Result<Frame<Bytes>, BoxError>) {
        self.read.push_back(frame);
    }

    /// Reads what is at hand, without waiting, until there are more bytes than `most` says of the
    /// first data; returns whether that is all of the body.
    pub(super) fn read(&mut self, cx: &mut Context<'_>, most: impl Fn(&[u8]) -> u64) -> bool {
        /// A body may yield empty frames for ever.
        const MAX_FRAMES: usize = 64;

        while self.read.len() < MAX_FRAMES
            && self.length() <= most(self.first())
            && !self.rest.is_end_stream()
        {
            match self.rest.as_mut().poll_frame(cx) {
                Poll::Ready(Some(frame)) => {
                    let failed = frame.is_err();
                    self.read.push_back(frame);
                    if failed {
                        return false;
                    }
                }
                Poll::Ready(None) => return true,
                Poll::Pending => return false,
            }
        }
        self.rest.is_end_stream()
    }

    /// Returns the first data that has been read.
    pub(super) fn first(&self) -> &[u8] {
        let first = self.read.iter().flatten().find_map(Frame::data_ref);
        first.map(|data| &data[..]).unwrap_or_default()
    }

    /// Returns the whole body, of which nothing is left to read.
    ///
    /// It is a copy: the frames may be corners of large read buffers.
    pub(super) fn into_whole(self) -> (Bytes, Option<HeaderMap>) {
        let mut body = BytesMut::with_capacity(usize::try_from(self.length()).unwrap_or_default());
        let mut trailers: Option<HeaderMap> = None;
        for frame in self.read.into_iter().flatten() {
            match frame.into_data() {
                Ok(data) => body.extend_from_slice(&data),
                Err(frame) => {
                    let more = frame.into_trailers().unwrap_or_default();
                    trailers.get_or_insert_default().extend(more);
                }
            }
        }
        (body.freeze(), trailers)
    }

    fn length(&self) -> u64 {
        let data = self.read.iter().flatten().filter_map(Frame::data_ref);
        data.map(length).fold(0, u64::saturating_add)
    }

    /// Looks for the end behind this data if it is due, without waiting.
    fn look_for_end(&mut self, data: &Bytes, cx: &mut Context<'_>) {
        self.due = self.due.map(|due| due.saturating_sub(length(data)));
        if self.due != Some(0) || !self.read.is_empty() || self.is_end_stream() {
            return;
        }
        match self.rest.as_mut().poll_frame(cx) {
            Poll::Ready(None) => self.ended = true,
            Poll::Ready(Some(frame)) => self.read.push_back(frame),
            Poll::Pending => {}
        }
    }
}

fn length(data: &Bytes) -> u64 {
    u64::try_from(data.len()).unwrap_or(u64::MAX)
}

impl Body for Ahead {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match self.read.pop_front() {
            None if self.ended => return Poll::Ready(None),
            None => ready!(self.rest.as_mut().poll_frame(cx)),
            read => read,
        };
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.look_for_end(data, cx);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && (self.ended || self.rest.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let (ahead, rest) = (self.length(), self.rest.size_hint());
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(ahead));
        }
        hint.set_lower(rest.lower().saturating_add(ahead));
        hint
    }
}
