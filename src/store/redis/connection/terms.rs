//! Where a server was found, and how often elsewhere than before.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::address::Endpoint;

/// The terms of a server, each of which begins where it is found elsewhere than before.
///
/// The connections to a server that moves find out one by one. What is told on one must not be looked
/// for on another that still leads to where the server was, so that one is of no use any more.
#[derive(Debug, Default)]
pub(crate) struct Terms {
    present: AtomicU64,
    place: Mutex<Option<Endpoint>>,
}

impl Terms {
    /// Notes where a connection has found the server; returns the term that it is of.
    pub(super) fn enter(&self, found: Endpoint) -> u64 {
        let mut place = self.place.lock();
        if place.as_ref() != Some(&found) {
            *place = Some(found);
            self.present.fetch_add(1, Ordering::Release);
        }
        self.present.load(Ordering::Acquire)
    }

    /// Whether another term has begun.
    pub(super) fn is_over(&self, term: u64) -> bool {
        self.present.load(Ordering::Acquire) != term
    }

    /// Whether the server was last found there.
    pub(super) fn is_at(&self, endpoint: &Endpoint) -> bool {
        self.place.lock().as_ref() == Some(endpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_ends_when_the_server_is_found_elsewhere() {
        let [here, there] = ["here", "there"].map(|host| Endpoint::Tcp {
            host: host.to_owned(),
            port: 1,
        });
        let terms = Terms::default();
        let first = terms.enter(here.clone());
        assert_eq!(terms.enter(here.clone()), first);
        assert!(!terms.is_over(first) && terms.is_at(&here));
        let second = terms.enter(there.clone());
        assert!(terms.is_over(first) && !terms.is_over(second));
        assert!(terms.is_at(&there) && !terms.is_at(&here));
        terms.enter(here);
        assert!(terms.is_over(first), "it is back, and yet another");
    }
}
