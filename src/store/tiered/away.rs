//! What becomes of requests while the second store cannot be asked.
//!
//! What handlers answer then can be kept in memory alone. It stands under memory's epochs and, so
//! that it can be told from the rest, under one more scope: that of having been made in
//! [solitude](Solitude). No other process can have invalidated it where this one would have heard of
//! it, so it is kept for a short time, and no longer than until the second store is well again: then
//! the scope of solitude is invalidated. That it answers is not enough, since a part of it may be
//! away; but what it does answer is served in its stead.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::epoch::{Captured, Scope, ScopeKind, Stamp};
use crate::store::memory::{LONGEST, MemoryStore, Resident};
use crate::store::{Fill, Store};

/// What a [`TieredStore`](super::TieredStore) does while its second store cannot be asked.
///
/// What is invalidated in this process is not served by it, whatever the mode. What others
/// invalidate is not heard of, and the times bound for how long it may be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenAway {
    /// Serves nothing from before. Keeps what the handlers answer meanwhile, for so long from when
    /// they began to answer.
    LocalTtl(Duration),
    /// Serves nothing and keeps nothing: each request goes to its handler.
    Bypass,
    /// Serves what memory holds while it is fresh, for so long after the second store vouched for it
    /// or confirmed it last; and keeps what the handlers answer meanwhile for as long.
    Serve(Duration),
}

impl Default for WhenAway {
    /// Keeps what the handlers answer for two seconds.
    fn default() -> Self {
        Self::LocalTtl(Duration::from_secs(2))
    }
}

impl WhenAway {
    /// Returns for how long yet what was made in solitude is kept.
    pub(super) fn left_of(self, fill: &Fill) -> Duration {
        let arrived = fill.response.received;
        match self {
            Self::LocalTtl(ttl) | Self::Serve(ttl) => {
                ttl.saturating_sub(fill.clock.now().saturating_duration_since(arrived))
            }
            Self::Bypass => Duration::ZERO,
        }
    }

    /// Returns until when something that is `current` at one time may be served unasked.
    pub(super) fn trusted_until(self, current: Instant) -> Instant {
        match self {
            Self::Serve(limit) => current + limit.min(LONGEST),
            Self::LocalTtl(_) | Self::Bypass => current,
        }
    }

    /// Returns how long something may be served that is not current, if the second store takes so
    /// long to `tell`.
    pub(super) fn staleness(self, tell: Duration) -> Duration {
        match self {
            // What has been vouched for last may have been untold by then.
            Self::Serve(limit) => tell.saturating_add(limit.min(LONGEST)),
            Self::LocalTtl(ttl) => tell.max(ttl.min(LONGEST)),
            Self::Bypass => tell,
        }
    }

    /// Notes that a copy in memory is `current` at one time.
    pub(super) fn trust(self, copy: &Resident, current: Instant) {
        if let Self::Serve(_) = self
            // Whoever has the lock notes the same.
            && let Some(mut trusted) = copy.trusted.try_lock()
        {
            *trusted = self.trusted_until(current);
        }
    }
}

/// The times in which the second store could not be asked.
#[derive(Debug)]
pub(super) struct Solitude {
    scope: Scope,
    /// Whether something may have been made since the second store was well last.
    entered: AtomicBool,
}

impl Default for Solitude {
    fn default() -> Self {
        /// One tiered store may be the second of another.
        static OTHERS: AtomicU64 = AtomicU64::new(0);
        let number = u128::from(OTHERS.fetch_add(1, Ordering::Relaxed));
        Self {
            scope: Scope::from_parts(ScopeKind::Namespace, number.to_be_bytes()),
            entered: AtomicBool::new(false),
        }
    }
}

impl Solitude {
    /// Whether what has this stamp was made in solitude.
    pub(super) fn made(&self, stamp: &Stamp) -> bool {
        stamp.contains(self.scope)
    }

    /// Captures epochs for what is made in solitude: those of memory alone.
    pub(super) fn capture(&self, memory: &MemoryStore, scopes: &[Scope]) -> Captured {
        let epoch = memory.moment();
        let scopes = scopes.iter().copied().chain([self.scope]);
        let captured = Captured {
            stamp: scopes.map(|scope| (scope, epoch)).collect(),
            moment: epoch.value(),
        };
        // Behind the capture: an end that does not see this came before it, and the next one will.
        self.entered.store(true, Ordering::Release);
        captured
    }

    /// Ends it, if it has begun and `second` is well, and with it the use of all that was made.
    pub(super) fn end(&self, memory: &MemoryStore, second: &dyn Store) {
        if self.entered.load(Ordering::Relaxed)
            && second.health().degraded_since.is_none()
            && self.entered.swap(false, Ordering::AcqRel)
        {
            memory.forget(&[self.scope]);
        }
    }
}
