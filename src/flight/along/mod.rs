//! A body that many read along.
//!
//! There is no task that pumps: whichever reader wants more than there is polls the source, one at
//! a time, under a waker that wakes all who wait. So the fastest reader sets the pace, nobody
//! reading holds the source back, a reader that goes harms no other, and any runtime will do.
//!
//! While the body fits the cap, a reader that stalls harms no other either: all is held for it.
//! Beyond the cap the others wait for it, though for a limited time; then it is cut off.

mod crowd;
mod patience;
mod window;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use self::crowd::{Crowd, Turn};
use self::patience::Patience;
use self::window::{Behind, Window};
use super::sync::Mutex;

/// The error of a body of any kind.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body of any kind.
pub(crate) type Source = Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>;

/// One body, read by any number of readers, each at its own pace, with one copy of the bytes.
///
/// All of it is held while it fits the cap, so that readers can begin late and its [`Tap`] gets it
/// in the end. Beyond the cap only what lies between the slowest and the fastest reader is held.
/// Once that is as much as the cap (and at most one frame more), the source is held back for the
/// slowest, for a limited time over the whole body; after that, who is so far behind is cut off, at
/// the end of the turn of all tasks in which it could have read. Who is alone never is.
pub(crate) struct Along {
    state: Mutex<State>,
    /// `None` when it has ended; locked only by the reader whose turn it is, and the last to leave.
    source: Mutex<Option<Source>>,
    /// Polled in a turn, like the source: whom it wakes then is woken when no lock is held.
    patience: Mutex<Patience>,
    crowd: Arc<Crowd>,
    waker: Waker,
}

/// Takes in a body that others read.
///
/// Dropped without a call it gets none: the body failed, or all its readers went.
pub(crate) trait Tap: Send {
    /// Takes the whole body, before the reader that came to its end sees that.
    fn end(self: Box<Self>, body: Bytes, trailers: Option<HeaderMap>);

    /// Is told that the body is longer than the cap.
    fn too_long(self: Box<Self>);
}

/// Called when the last reader leaves before the end, once: it may have the [`Reader`] that takes
/// the place [finish](Reader::finish) the body for the tap, or drop it, and so the body.
pub(crate) type Abandoned = Box<dyn FnOnce(Reader) + Send>;

/// The body as one reader sees it.
pub(crate) struct Reader {
    along: Arc<Along>,
    number: u64,
    place: u64,
    /// Whether it has been told the end.
    done: bool,
}

struct State {
    window: Window,
    ending: Ending,
    /// What is known of the length of what is still to come.
    rest: SizeHint,
    tap: Option<Box<dyn Tap>>,
    abandoned: Option<Abandoned>,
    readers: u64,
}

/// How the body has ended.
enum Ending {
    Open,
    Whole(Option<HeaderMap>),
    /// With the source's own error, for the first reader that comes to it.
    Failed(Option<BoxError>, Interrupted),
}

/// Why a reader gets no more.
#[derive(Clone, Debug)]
enum Interrupted {
    /// The source failed, and another reader was given its error, which said this.
    Failed(Arc<str>),
    /// The source panicked.
    Panicked,
    /// The reader stayed too far behind the others.
    Behind,
    /// All readers had left.
    Abandoned,
}

impl Along {
    /// Lets `source` be read by many; returns the first reader too.
    ///
    /// `keep` is the cap, in bytes; `wait` is how long those who are ahead wait, all in all, for
    /// those who are behind when the body is longer.
    pub(crate) fn new(
        source: Source,
        keep: u64,
        wait: Duration,
        tap: Box<dyn Tap>,
        abandoned: Abandoned,
    ) -> (Arc<Self>, Reader) {
        let (rest, ended) = (source.size_hint(), source.is_end_stream());
        let mut window = Window::new(keep);
        let (tap, abandoned) = match rest.lower() <= keep {
            true => (Some(tap), Some(abandoned)),
            false => {
                window.let_go();
                tap.too_long();
                (None, None)
            }
        };
        let crowd = Arc::new(Crowd::default());
        let along = Arc::new(Self {
            state: Mutex::new(State {
                window,
                ending: Ending::Open,
                rest,
                tap,
                abandoned,
                readers: 0,
            }),
            source: Mutex::new(Some(source)),
            patience: Mutex::new(Patience::new(wait)),
            waker: Waker::from(Arc::clone(&crowd)),
            crowd,
        });
        let reader = along.enter(&mut along.state.lock());
        if ended {
            // Nobody need poll it.
            along.complete(None);
        }
        (along, reader)
    }

    /// Returns one more reader, from the first byte; `None` when that is no longer held, or the body
    /// has failed.
    pub(crate) fn reader(self: &Arc<Self>) -> Option<Reader> {
        let mut state = self.state.lock();
        let open = state.window.is_whole() && !matches!(state.ending, Ending::Failed(..));
        open.then(|| self.enter(&mut state))
    }

    fn enter(self: &Arc<Self>, state: &mut State) -> Reader {
        state.window.enter();
        state.readers = state.readers.wrapping_add(1);
        Reader {
            along: Arc::clone(self),
            number: state.readers,
            place: 0,
            done: false,
        }
    }

    /// Asks the source for more, in the turn of reader `number`, who found the window `full` or not;
    /// pending if there is none.
    fn advance(&self, number: u64, full: bool, cx: &Context<'_>) -> Poll<()> {
        let unwinding = Unwinding(self);
        let mut polled = Poll::Ready(());
        match self.poll_source(full) {
            Poll::Pending => {
                self.crowd.pause(number, cx.waker());
                polled = Poll::Pending;
            }
            Poll::Ready(came) => {
                if matches!(&came, Came::Data(data, _) if data.is_empty()) {
                    // There may be no end of these: it is the turn of others, and of other tasks.
                    cx.waker().wake_by_ref();
                    polled = Poll::Pending;
                }
                self.take_in(came);
                self.crowd.go_on();
            }
        }
        mem::forget(unwinding);
        polled
    }

    fn poll_source(&self, full: bool) -> Poll<Came> {
        let mut cx = Context::from_waker(&self.waker);
        ready!(self.hold_back(full, &mut cx));
        let mut source = self.source.lock();
        let Some(body) = source.as_mut() else {
            return Poll::Ready(Came::Failure(Interrupted::Abandoned.into()));
        };
        let frame = ready!(body.as_mut().poll_frame(&mut cx));
        Poll::Ready(match frame {
            None => Came::End(None),
            Some(Err(error)) => Came::Failure(error),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if body.is_end_stream() => Came::Last(data),
                Ok(data) => Came::Data(data, body.size_hint()),
                Err(frame) => match frame.into_trailers() {
                    Ok(trailers) => Came::End(Some(trailers)),
                    Err(_) => Came::Data(Bytes::new(), body.size_hint()),
                },
            },
        })
    }

    /// Pending while the slowest reader is waited for, which is as long as the window is `full`, and
    /// there is patience.
    fn hold_back(&self, full: bool, cx: &mut Context<'_>) -> Poll<()> {
        let mut patience = self.patience.lock();
        if full {
            ready!(patience.poll(cx));
            drop(patience);
            self.state.lock().window.cut_off();
        } else {
            patience.pause();
        }
        Poll::Ready(())
    }

    /// Lets those go on who waited for one that has read on, or has gone.
    fn release(&self) {
        self.patience.lock().pause();
        self.waker.wake_by_ref();
    }

    fn take_in(&self, came: Came) {
        match came {
            Came::Data(data, rest) => self.push(data, rest),
            Came::Last(data) => {
                self.push(data, SizeHint::with_exact(0));
                self.complete(None);
            }
            Came::End(trailers) => self.complete(trailers),
            Came::Failure(error) => {
                let text = error.to_string().into();
                self.end(Ending::Failed(Some(error), Interrupted::Failed(text)));
            }
        }
    }

    fn push(&self, data: Bytes, rest: SizeHint) {
        let mut state = self.state.lock();
        state.window.push(data);
        state.rest = rest;
        let whole = state.window.is_whole();
        let (tap, abandoned) = match whole {
            true => (None, None),
            false => (state.tap.take(), state.abandoned.take()),
        };
        drop(state);
        drop(abandoned);
        if let Some(tap) = tap {
            tap.too_long();
        }
    }

    /// Gives the tap what it waits for, and then shows the readers the end.
    fn complete(&self, trailers: Option<HeaderMap>) {
        let mut state = self.state.lock();
        let tap = state.tap.take();
        let whole = tap.map(|tap| (tap, state.window.chunks()));
        drop(state);
        if let Some((tap, chunks)) = whole {
            let body = window::joined(&chunks);
            drop(chunks);
            // From now on the readers share what the tap keeps.
            self.state.lock().window.replace(body.clone());
            tap.end(body, trailers.clone());
        }
        self.end(Ending::Whole(trailers));
    }

    /// Ends the body, and lets go of what made it.
    fn end(&self, ending: Ending) {
        let let_go = self.state.lock().end(ending);
        drop(let_go);
        self.close();
    }

    fn close(&self) {
        let source = self.source.lock().take();
        drop(source);
    }
}

/// What a source gave.
enum Came {
    /// Data, and what is known of the length of the rest.
    Data(Bytes, SizeHint),
    /// The last data.
    Last(Bytes),
    End(Option<HeaderMap>),
    Failure(BoxError),
}

/// Ends the body for all readers when the source, or the tap, panics.
struct Unwinding<'a>(&'a Along);

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        self.0.end(Ending::Failed(None, Interrupted::Panicked));
        self.0.crowd.go_on();
    }
}

impl State {
    /// Reads what comes at `place`; pending if that is not there yet.
    fn read(
        &mut self,
        place: &mut u64,
        done: &mut bool,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if *done {
            return Poll::Ready(None);
        }
        let last = match (self.window.read(place), &mut self.ending) {
            (Ok(Some(data)), _) => return Poll::Ready(Some(Ok(Frame::data(data)))),
            (Ok(None), Ending::Open) => return Poll::Pending,
            (Ok(None), Ending::Whole(trailers)) => trailers.clone().map(Frame::trailers).map(Ok),
            (Ok(None), Ending::Failed(error, interrupted)) => {
                let error = error.take().unwrap_or_else(|| interrupted.clone().into());
                Some(Err(error))
            }
            (Err(Behind), _) => Some(Err(Interrupted::Behind.into())),
        };
        *done = true;
        Poll::Ready(last)
    }

    /// Ends the body; returns what is to be dropped when the lock is released.
    #[must_use = "to be dropped when the lock is released"]
    fn end(&mut self, ending: Ending) -> (Option<Box<dyn Tap>>, Option<Abandoned>) {
        // A length that is stated ends the message where it is reached, without error or trailers.
        self.rest = match ending {
            Ending::Whole(None) => SizeHint::with_exact(0),
            Ending::Open | Ending::Whole(Some(_)) | Ending::Failed(..) => SizeHint::new(),
        };
        self.ending = ending;
        (self.tap.take(), self.abandoned.take())
    }
}

impl Reader {
    /// Reads to the end, unless the body is too long to be of use to the tap.
    pub(crate) async fn finish(mut self) {
        while self.is_of_use()
            && let Some(Ok(_)) = poll_fn(|cx| Pin::new(&mut self).poll_frame(cx)).await
        {}
    }

    fn is_of_use(&self) -> bool {
        self.along.state.lock().window.is_whole()
    }
}

impl Body for Reader {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        loop {
            let mut state = this.along.state.lock();
            let full = state.window.is_full();
            if let Poll::Ready(read) = state.read(&mut this.place, &mut this.done) {
                let released = full && !state.window.is_full();
                drop(state);
                if released {
                    this.along.release();
                }
                return Poll::Ready(read);
            }
            // Under the lock: what comes after it was looked for wakes this reader.
            let turn = this.along.crowd.turn(this.number, cx.waker());
            drop(state);
            match turn {
                Turn::Poll => ready!(this.along.advance(this.number, full, cx)),
                Turn::Wait(replaced) => {
                    drop(replaced);
                    return Poll::Pending;
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let state = self.along.state.lock();
        let read = state.window.ahead(self.place) == 0;
        self.done || (read && matches!(state.ending, Ending::Whole(None)))
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.along.state.lock();
        let ahead = state.window.ahead(self.place);
        let mut hint = SizeHint::new();
        if let Some(upper) = state.rest.upper() {
            hint.set_upper(upper.saturating_add(ahead));
        }
        hint.set_lower(state.rest.lower().saturating_add(ahead));
        hint
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.along.crowd.leave(self.number);
        let mut state = self.along.state.lock();
        let full = state.window.is_full();
        state.window.leave(self.place);
        if state.window.has_readers() || !matches!(state.ending, Ending::Open) {
            drop(state);
            if full {
                self.along.release();
            }
            return;
        }
        if let Some(abandoned) = state.abandoned.take() {
            let reader = self.along.enter(&mut state);
            drop(state);
            abandoned(reader);
        } else {
            let let_go = state.end(Ending::Failed(None, Interrupted::Abandoned));
            drop(state);
            drop(let_go);
            self.along.close();
        }
    }
}

impl fmt::Debug for Along {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Along").finish_non_exhaustive()
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl std::error::Error for Interrupted {}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Failed(text) => text,
            Self::Panicked => "the body panicked",
            Self::Behind => "read too slowly to be held a place",
            Self::Abandoned => "nobody read the body to its end",
        })
    }
}
