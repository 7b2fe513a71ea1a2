//! A handler that answers by a script.

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, pending};
use std::panic::panic_any;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, StreamBody};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::yield_now;
use tower::Service;

use super::{Body, response};

/// Answers by a script, counts its calls and remembers what it was asked. Clones are one origin.
#[derive(Clone)]
pub(crate) struct Origin(Arc<Shared>);

struct Shared {
    script: Mutex<Script>,
    mood: Mutex<Mood>,
    calls: Mutex<Vec<Call>>,
    made: AtomicUsize,
    pauses: AtomicUsize,
    /// Whether calls that have their answer wait.
    held: watch::Sender<bool>,
}

type Script = Arc<dyn Fn(&Call) -> Response<Body> + Send + Sync>;

#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Answers,
    Fails,
    Hangs,
    Panics,
}

/// One call of the origin.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// Counts from 1.
    pub(crate) number: usize,
    pub(crate) head: Parts,
}

/// An error of the origin, or of one of its bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken;

/// Holds calls that have made their answer back, until it is dropped.
pub(crate) struct Hold(Origin);

impl Origin {
    pub(crate) fn new(script: impl Fn(&Call) -> Response<Body> + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared {
            script: Mutex::new(Arc::new(script)),
            mood: Mutex::new(Mood::Answers),
            calls: Mutex::default(),
            made: AtomicUsize::new(0),
            pauses: AtomicUsize::new(0),
            held: watch::Sender::new(false),
        }))
    }

    /// Answers every request with these fields and the number of the call as the body.
    pub(crate) fn counting(fields: &[(&'static str, &'static str)]) -> Self {
        let fields = fields.to_vec();
        Self::new(move |call| response(&fields, call.number.to_string()))
    }

    /// Replaces the script.
    pub(crate) fn answer(&self, script: impl Fn(&Call) -> Response<Body> + Send + Sync + 'static) {
        *self.0.script.lock() = Arc::new(script);
        *self.0.mood.lock() = Mood::Answers;
    }

    /// Answers by its script again.
    pub(crate) fn recover(&self) {
        *self.0.mood.lock() = Mood::Answers;
    }

    /// Waits so often between making an answer and giving it.
    pub(crate) fn dawdle(&self, pauses: usize) {
        self.0.pauses.store(pauses, Ordering::SeqCst);
    }

    /// Returns an error from now on.
    pub(crate) fn fail(&self) {
        *self.0.mood.lock() = Mood::Fails;
    }

    /// Never answers from now on.
    pub(crate) fn hang(&self) {
        *self.0.mood.lock() = Mood::Hangs;
    }

    /// Panics from now on.
    pub(crate) fn panic(&self) {
        *self.0.mood.lock() = Mood::Panics;
    }

    /// Holds calls back that have made their answer already, as a slow handler that has read its
    /// data.
    pub(crate) fn hold(&self) -> Hold {
        self.0.held.send_replace(true);
        Hold(self.clone())
    }

    /// Lets go of the calls that are held.
    pub(crate) fn release(&self) {
        self.0.held.send_replace(false);
    }

    pub(crate) fn calls(&self) -> usize {
        self.0.calls.lock().len()
    }

    /// Returns how many answers have been made, those that are held included.
    pub(crate) fn made(&self) -> usize {
        self.0.made.load(Ordering::SeqCst)
    }

    /// Returns the last call.
    pub(crate) fn last(&self) -> Call {
        self.0
            .calls
            .lock()
            .last()
            .cloned()
            .expect("the origin was called")
    }

    async fn serve(self, head: Parts) -> Result<Response<Body>, Broken> {
        let call = {
            let mut calls = self.0.calls.lock();
            let call = Call {
                number: calls.len() + 1,
                head,
            };
            calls.push(call.clone());
            call
        };
        let (script, mood) = (Arc::clone(&self.0.script.lock()), *self.0.mood.lock());
        match mood {
            Mood::Answers => {}
            Mood::Fails => return Err(Broken),
            Mood::Hangs => pending().await,
            Mood::Panics => panic_any("the handler panics"),
        }
        let response = script(&call);
        self.0.made.fetch_add(1, Ordering::SeqCst);
        for _ in 0..self.0.pauses.load(Ordering::SeqCst) {
            yield_now().await;
        }
        let mut held = self.0.held.subscribe();
        held.wait_for(|held| !held)
            .await
            .expect("the sender is here");
        Ok(response)
    }
}

impl Call {
    /// Returns a field of the request; empty if it has none.
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.head.headers.get(name);
        value.map_or("", |value| value.to_str().expect("a field of letters"))
    }

    pub(crate) fn path(&self) -> &str {
        self.head.uri.path()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl<B> Service<Request<B>> for Origin {
    type Response = Response<Body>;
    type Error = Broken;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Broken>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        Box::pin(self.clone().serve(request.into_parts().0))
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("broken")
    }
}

impl std::error::Error for Broken {}

impl From<Infallible> for Broken {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Makes a body of these frames, whose length nobody knows beforehand.
pub(crate) fn stream<I>(frames: I) -> Body
where
    I: IntoIterator<Item = Result<Frame<Bytes>, Broken>, IntoIter: Send + 'static>,
{
    StreamBody::new(tokio_stream::iter(frames)).boxed_unsync()
}

/// Makes a body that is sent piece by piece, as its reader takes it.
pub(crate) fn pieces(
    pieces: impl IntoIterator<Item = Bytes, IntoIter: Send> + Send + 'static,
) -> Body {
    let (mut sender, channel) = Channel::<Bytes, Broken>::new(1);
    tokio::spawn(async move {
        for piece in pieces {
            if sender.send_data(piece).await.is_err() {
                return;
            }
            yield_now().await;
        }
    });
    channel.boxed_unsync()
}
