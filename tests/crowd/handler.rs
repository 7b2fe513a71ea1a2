//! A handler that stamps what it gives, and counts its calls.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::routing::get;
use futures_util::{StreamExt, stream};
use http::Response;
use http::header::CONTENT_LENGTH;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::server::PATIENCE;
use crate::stamp::Stamp;

/// Answers `/{key}` with a [`Stamp`]ed body. Clones are one handler.
#[derive(Clone)]
pub(crate) struct Handler(Arc<Shared>);

struct Shared {
    pace: Pace,
    generation: AtomicU64,
    calls: watch::Sender<BTreeMap<u64, usize>>,
    held: watch::Sender<bool>,
}

/// How long a body is, and how it comes.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) length: usize,
    /// How many bytes come at a time.
    pub(crate) piece: usize,
    /// How long the handler works on the head, and on each piece.
    pub(crate) work: Duration,
}

/// Holds the answers back, until it is dropped.
pub(crate) struct Hold(Handler);

impl Handler {
    pub(crate) fn new(pace: Pace) -> Self {
        Self(Arc::new(Shared {
            pace,
            generation: AtomicU64::new(1),
            calls: watch::Sender::default(),
            held: watch::Sender::new(false),
        }))
    }

    pub(crate) fn router(&self) -> Router {
        let handler = self.clone();
        Router::new().route(
            "/{key}",
            get(async move |Path(key)| handler.give(key).await),
        )
    }

    /// Reads the data at once, as a handler would, and takes its time to tell them.
    async fn give(self, key: u64) -> Response<Body> {
        let Pace {
            length,
            piece,
            work,
        } = self.0.pace;
        let stamp = Stamp {
            key,
            generation: self.generation(),
            length,
        };
        self.0
            .calls
            .send_modify(|calls| *calls.entry(key).or_default() += 1);
        let mut held = self.0.held.subscribe();
        held.wait_for(|held| !held).await.unwrap();
        sleep(work).await;
        let starts = stream::iter((0..length).step_by(piece));
        let pieces = starts.then(move |start| async move {
            if start > 0 {
                sleep(work).await;
            }
            Ok::<_, Infallible>(stamp.piece(start..length.min(start + piece)))
        });
        Response::builder()
            .header(CONTENT_LENGTH, length)
            .body(Body::from_stream(pieces))
            .unwrap()
    }

    pub(crate) fn hold(&self) -> Hold {
        self.0.held.send_replace(true);
        Hold(self.clone())
    }

    /// Changes the data; returns their generation from now on.
    pub(crate) fn change(&self) -> u64 {
        self.0.generation.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::SeqCst)
    }

    /// Returns how often it was asked for a key.
    pub(crate) fn calls(&self, key: u64) -> usize {
        self.0.calls.borrow().get(&key).copied().unwrap_or_default()
    }

    /// Waits until it has been asked for a key so often.
    pub(crate) async fn called(&self, key: u64, times: usize) {
        let mut calls = self.0.calls.subscribe();
        let called = calls.wait_for(|calls| calls.get(&key) >= Some(&times));
        let called = timeout(PATIENCE, called).await;
        called.expect("nobody is stuck").unwrap();
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.0.held.send_replace(false);
    }
}
