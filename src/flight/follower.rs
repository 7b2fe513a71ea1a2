//! Those that wait for what another fetches.

use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use super::course::{Flight, Stage};
use super::sync::{Timer, timer};
use super::{Flights, Leader, Why};

/// Waits for the landing of a flight, within the limits of time; without one outside a tokio
/// runtime.
///
/// Dropped, it leaves the flight.
pub(crate) struct Follower<K: Hash + Eq, G, T> {
    /// Given up when the wait is over.
    seat: Option<Seat<K, G, T>>,
    limit: Duration,
    /// Set when there is something to wait for.
    timer: Option<Timer>,
}

/// What a follower's wait has come to.
#[derive(Debug)]
pub(crate) enum Boarded<K: Hash + Eq, G, T> {
    /// The flight has landed with this.
    Landed(T),
    /// The leader has failed, and this one leads now.
    Lead(Leader<K, G, T>),
    /// There is nothing to wait for, or not for longer.
    Alone(Why),
}

/// A follower's place, among the limited number of them.
struct Seat<K: Hash + Eq, G, T> {
    flights: Arc<Flights<K, G, T>>,
    flight: Arc<Flight<K, G, T>>,
    number: u64,
}

impl<K: Hash + Eq, G, T> Follower<K, G, T> {
    /// Makes a follower of one who entered the flight as `number`, and is counted.
    pub(super) fn new(
        flights: &Arc<Flights<K, G, T>>,
        flight: &Arc<Flight<K, G, T>>,
        number: u64,
        limit: Duration,
    ) -> Self {
        Self {
            seat: Some(Seat {
                flights: Arc::clone(flights),
                flight: Arc::clone(flight),
                number,
            }),
            limit,
            timer: None,
        }
    }

    /// Returns the circumstances of who began the flight, until the wait is over.
    pub(crate) fn circumstances(&self) -> Option<&G> {
        self.seat.as_ref().map(|seat| &seat.flight.circumstances)
    }
}

impl<K: Hash + Eq, G, T: Clone> Future for Follower<K, G, T> {
    type Output = Boarded<K, G, T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let seat = this
            .seat
            .as_ref()
            .expect("a future is not polled after it was ready");
        let boarded = match seat.poll(cx) {
            Poll::Ready(boarded) => boarded,
            Poll::Pending => {
                if this.timer.is_none() {
                    this.timer = timer(this.limit);
                }
                let timer = this.timer.as_mut();
                if !timer.is_some_and(|timer| Pin::new(timer).poll(cx).is_ready()) {
                    return Poll::Pending;
                }
                Boarded::Alone(Why::Late)
            }
        };
        this.seat = None;
        Poll::Ready(boarded)
    }
}

impl<K: Hash + Eq, G, T: Clone> Seat<K, G, T> {
    fn poll(&self, cx: &Context<'_>) -> Poll<Boarded<K, G, T>> {
        let mut course = self.flight.course.lock();
        let replaced = match &course.stage {
            Stage::Landed(landing) => return Poll::Ready(Boarded::Landed(landing.clone())),
            Stage::Over(why) => return Poll::Ready(Boarded::Alone(*why)),
            Stage::Leaderless => {
                course.stage = Stage::Led;
                let leader = Leader::new(&self.flights, &self.flight);
                return Poll::Ready(Boarded::Lead(leader));
            }
            Stage::Led => course.wait(self.number, cx.waker()),
        };
        drop(course);
        drop(replaced);
        Poll::Pending
    }
}

impl<K: Hash + Eq, G, T> Drop for Seat<K, G, T> {
    fn drop(&mut self) {
        self.flights.followers.fetch_sub(1, Ordering::Relaxed);
        if self.flight.leave(self.number) {
            self.flights.close(&self.flight);
        }
    }
}

impl<K: Hash + Eq + fmt::Debug, G, T> fmt::Debug for Follower<K, G, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.seat.as_ref().map(|seat| &seat.flight.key);
        f.debug_tuple("Follower").field(&key).finish()
    }
}
