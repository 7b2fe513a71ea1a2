//! A source that is fed by hand, and a tap that notes what it is told.

use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use crate::flight::along::{Abandoned, Along, BoxError, Reader, Tap};
use crate::flight::sync::Mutex;

/// What a source is fed with.
pub(super) enum Morsel {
    Data(Bytes),
    Trailers(HeaderMap),
    Failure(&'static str),
    Panic,
    End,
}

/// What a source, or a tap, panics with: without the hook, which would report each.
pub(super) struct Panic;

/// Feeds a source.
#[derive(Clone, Default)]
pub(super) struct Feed(Arc<Mutex<Fed>>);

#[derive(Default)]
struct Fed {
    morsels: VecDeque<Morsel>,
    /// What the source says of the length of the whole.
    length: Option<u64>,
    /// Whether the source says that the end comes next.
    tells_the_end: bool,
    polls: usize,
    dropped: bool,
    waker: Option<Waker>,
}

/// The source itself.
struct Fountain(Feed);

/// What a tap was told.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Told {
    Whole(Bytes, Option<HeaderMap>),
    TooLong,
    Dropped,
}

/// What was told to the tap, and the reader that took the last one's place.
#[derive(Clone, Default)]
pub(super) struct Notes {
    told: Arc<Mutex<Vec<Told>>>,
    last: Arc<Mutex<Option<Reader>>>,
    /// Whether the tap panics when it has been told.
    panics: bool,
}

struct Noting(Option<Notes>);

impl Feed {
    /// Announces the length, and the end when it is next.
    pub(super) fn announcing(length: u64) -> Self {
        let feed = Self::default();
        feed.0.lock().length = Some(length);
        feed.0.lock().tells_the_end = true;
        feed
    }

    pub(super) fn give(&self, morsel: Morsel) {
        let mut fed = self.0.lock();
        fed.morsels.push_back(morsel);
        let waker = fed.waker.take();
        drop(fed);
        waker.into_iter().for_each(Waker::wake);
    }

    pub(super) fn data(&self, data: &'static str) {
        self.give(Morsel::Data(data.into()));
    }

    pub(super) fn polls(&self) -> usize {
        self.0.lock().polls
    }

    pub(super) fn is_dropped(&self) -> bool {
        self.0.lock().dropped
    }

    /// Lets the source be read along; nobody waits for those behind.
    pub(super) fn along(&self, keep: u64, notes: &Notes) -> (Arc<Along>, Reader) {
        self.along_waiting(keep, Duration::ZERO, notes)
    }

    /// Lets the source be read along by readers that wait so long for each other.
    pub(super) fn along_waiting(
        &self,
        keep: u64,
        wait: Duration,
        notes: &Notes,
    ) -> (Arc<Along>, Reader) {
        let tap = Box::new(Noting(Some(notes.clone())));
        let last = Arc::clone(&notes.last);
        let abandoned: Abandoned = Box::new(move |reader| *last.lock() = Some(reader));
        Along::new(Box::pin(Fountain(self.clone())), keep, wait, tap, abandoned)
    }
}

impl Notes {
    /// Has the tap panic when it has been told.
    pub(super) fn panicking() -> Self {
        Self {
            panics: true,
            ..Self::default()
        }
    }

    fn note(&self, told: Told) {
        self.told.lock().push(told);
        if self.panics {
            resume_unwind(Box::new(Panic));
        }
    }

    pub(super) fn told(&self) -> Vec<Told> {
        self.told.lock().clone()
    }

    /// Returns the reader that took the place of the last.
    pub(super) fn last(&self) -> Option<Reader> {
        self.last.lock().take()
    }
}

impl Tap for Noting {
    fn end(mut self: Box<Self>, body: Bytes, trailers: Option<HeaderMap>) {
        if let Some(notes) = self.0.take() {
            notes.note(Told::Whole(body, trailers));
        }
    }

    fn too_long(mut self: Box<Self>) {
        if let Some(notes) = self.0.take() {
            notes.note(Told::TooLong);
        }
    }
}

impl Drop for Noting {
    fn drop(&mut self) {
        if let Some(notes) = self.0.take() {
            notes.told.lock().push(Told::Dropped);
        }
    }
}

impl Body for Fountain {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut fed = self.0.0.lock();
        fed.polls += 1;
        let Some(morsel) = fed.morsels.pop_front() else {
            fed.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        if let Morsel::Data(data) = &morsel {
            let length = data.len() as u64;
            fed.length = fed.length.map(|left| left - length);
        }
        drop(fed);
        Poll::Ready(match morsel {
            Morsel::Data(data) => Some(Ok(Frame::data(data))),
            Morsel::Trailers(trailers) => Some(Ok(Frame::trailers(trailers))),
            Morsel::Failure(text) => Some(Err(text.into())),
            Morsel::Panic => resume_unwind(Box::new(Panic)),
            Morsel::End => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        let fed = self.0.0.lock();
        fed.tells_the_end && fed.length == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        let length = self.0.0.lock().length;
        length.map(SizeHint::with_exact).unwrap_or_default()
    }
}

impl Drop for Fountain {
    fn drop(&mut self) {
        self.0.0.lock().dropped = true;
    }
}
