//! Where a server was found, when that was said last, and how often it was elsewhere than before.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::address::Endpoint;
use crate::store::redis::control::LEASE;

/// The terms of a server, each of which begins where it is found elsewhere than before.
///
/// The connections to a server that moves find out one by one. What is told on one must not be looked
/// for on another that still leads to where the server was, so that one is of no use any more.
///
/// Those who say where it is may also say nothing: this process may be cut off together with a former
/// primary. So what was said holds for the time of a lease, from when they were asked.
#[derive(Debug, Default)]
pub(crate) struct Terms {
    present: AtomicU64,
    place: Mutex<Option<Place>>,
}

#[derive(Debug)]
struct Place {
    endpoint: Endpoint,
    /// When those were asked who said so last.
    asked: Instant,
}

impl Terms {
    /// How often it is asked where the server is: often enough that two failures do not end a lease.
    pub(super) const PERIOD: Duration = Duration::from_millis(600);

    /// Notes where a connection has found the server that was `asked` for then; returns the term
    /// that it is of, or `None` if the server was elsewhere when it was asked for later.
    pub(super) fn enter(&self, endpoint: Endpoint, asked: Instant) -> Option<u64> {
        let mut place = self.place.lock();
        match &mut *place {
            Some(place) if place.endpoint == endpoint => place.asked = place.asked.max(asked),
            Some(place) if asked < place.asked => return None,
            place => {
                *place = Some(Place { endpoint, asked });
                self.present.fetch_add(1, Ordering::Release);
            }
        }
        Some(self.present.load(Ordering::Acquire))
    }

    /// Notes where the server is said to be that was `asked` for then; returns whether it is where it
    /// was found last.
    pub(super) fn confirm(&self, endpoint: &Endpoint, asked: Instant) -> bool {
        let mut place = self.place.lock();
        let place = place.as_mut().filter(|place| place.endpoint == *endpoint);
        if let Some(place) = place {
            place.asked = place.asked.max(asked);
            return true;
        }
        false
    }

    /// Whether another term has begun.
    pub(super) fn is_over(&self, term: u64) -> bool {
        self.present.load(Ordering::Acquire) != term
    }

    /// Returns when it was asked where the server is, of the times that were answered the last.
    pub(super) fn confirmed(&self) -> Option<Instant> {
        self.place.lock().as_ref().map(|place| place.asked)
    }

    /// Whether it was said so lately where the server is that it can be believed to be there.
    pub(super) fn holds(&self, now: Instant) -> bool {
        let confirmed = self.confirmed();
        confirmed.is_some_and(|asked| now.saturating_duration_since(asked) < LEASE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> [Endpoint; 2] {
        ["here", "there"].map(|host| Endpoint::Tcp {
            host: host.to_owned(),
            port: 1,
        })
    }

    #[test]
    fn a_term_ends_when_the_server_is_found_elsewhere() {
        let ([here, there], now) = (places(), Instant::now());
        let terms = Terms::default();
        let enter = |endpoint: &Endpoint| terms.enter(endpoint.clone(), now).unwrap();
        let first = enter(&here);
        assert_eq!(enter(&here), first);
        assert!(!terms.is_over(first) && terms.confirm(&here, now));
        let second = enter(&there);
        assert!(terms.is_over(first) && !terms.is_over(second));
        assert!(terms.confirm(&there, now) && !terms.confirm(&here, now));
        enter(&here);
        assert!(terms.is_over(first), "it is back, and yet another");
    }

    #[test]
    fn a_slow_connection_does_not_lead_back_to_where_the_server_was() {
        let ([here, there], now) = (places(), Instant::now());
        let terms = Terms::default();
        terms.enter(here.clone(), now);
        let later = now + Duration::from_millis(1);
        let second = terms.enter(there.clone(), later);
        assert_eq!(terms.enter(here, now), None);
        assert_eq!(terms.enter(there, now), second);
        assert_eq!(terms.confirmed(), Some(later));
    }

    #[test]
    fn what_was_said_holds_for_a_lease_from_when_it_was_asked() {
        let ([here, there], began) = (places(), Instant::now());
        let terms = Terms::default();
        assert!(!terms.holds(began));
        terms.enter(here.clone(), began);
        let end = began + LEASE;
        assert!(terms.holds(end - Duration::from_nanos(1)) && !terms.holds(end));
        terms.confirm(&there, end);
        assert!(!terms.holds(end), "that is no word for this one");
        terms.confirm(&here, end);
        terms.confirm(&here, began);
        assert!(
            terms.holds(end),
            "an answer that comes late takes nothing back"
        );
    }
}
