//! What a server tells of its own accord.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::{AsyncPushSender, SendError};
use redis::{PushInfo, PushKind, Value};

use super::mirror::{LEASE, Mirror};
use super::watches::Watches;
use crate::clock::Clock;
use crate::store::redis::layout;

/// How a process learns that an epoch has ended which it holds for current.
///
/// It matters to what is served from [memory over Redis](crate::TieredStore): a hit there asks
/// nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mirroring {
    /// The server tells (`CLIENT TRACKING`, Redis 6.2.14, or 7.0.5 and later), within a
    /// millisecond or so; while it is silent for 2 s, nothing is held for current.
    ///
    /// A server that refuses, or a proxy that speaks no RESP3, is polled every second.
    #[default]
    Tracking,
    /// The server is asked again after so long: what another process invalidated may be served
    /// for that time.
    Poll {
        /// How long an epoch is held for current, from when it was asked for; longer than no time.
        max_staleness: Duration,
    },
    /// The server is asked each time.
    Off,
}

impl Mirroring {
    /// What becomes of tracking where the server does not tell.
    const FALLBACK: Duration = Duration::from_secs(1);

    /// Returns how long an epoch may be taken for current that no longer is, by a process that is cut
    /// off; a server that `moves` may have been replaced for a lease before that is noticed.
    pub(crate) fn staleness(self, moves: bool) -> Duration {
        let replaced = match moves {
            true => LEASE,
            false => Duration::ZERO,
        };
        match self {
            // Its lease counts from when the server was known to be in its place, but where the server
            // does not tell there is none.
            Self::Tracking => LEASE.max(replaced.saturating_add(Self::FALLBACK)),
            Self::Poll { max_staleness } => replaced.saturating_add(max_staleness),
            Self::Off => replaced,
        }
    }
}

/// The mirror, and the terms that it works on.
#[derive(Debug)]
pub(crate) struct Tracker {
    pub(super) mirror: Mirror,
    pub(super) watches: Watches,
    mode: Mirroring,
    /// Whether it has been said that it does not.
    warned: AtomicBool,
}

impl Tracker {
    pub(super) fn new(mode: Mirroring, clock: Clock) -> Self {
        Self {
            mirror: Mirror::new(clock),
            watches: Watches::default(),
            mode,
            warned: AtomicBool::new(false),
        }
    }

    /// Begins with a new connection; returns what has to listen on it.
    pub(crate) fn listen(self: &Arc<Self>) -> Option<Listener> {
        match self.mode {
            Mirroring::Tracking => {
                self.mirror.track();
                Some(Listener(Arc::clone(self)))
            }
            Mirroring::Poll { max_staleness } => {
                self.mirror.poll(max_staleness);
                None
            }
            Mirroring::Off => None,
        }
    }

    /// Goes on without being told.
    pub(crate) fn refused(&self, reason: &dyn fmt::Display) {
        let poll = Mirroring::FALLBACK;
        self.mirror.poll(poll);
        self.watches.end_all();
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(%reason, ?poll, "redis does not tell of invalidations, so it is polled");
        }
    }

    /// Notes that a key has changed.
    fn told_of(&self, name: &Value) {
        match name {
            Value::BulkString(name) if layout::is_lock(name) => self.watches.end(name),
            Value::BulkString(name) => match layout::slot_of(name) {
                Some(slot) => self.mirror.forget(slot),
                None => self.told_of_everything(),
            },
            _ => self.told_of_everything(),
        }
    }

    fn told_of_everything(&self) {
        self.mirror.clear();
        self.watches.end_all();
    }
}

/// Hears what is told on one connection.
///
/// It lives as long as the connection. When it is dropped, whatever the reason, nothing that was
/// read on that connection is believed any more.
pub(crate) struct Listener(Arc<Tracker>);

impl AsyncPushSender for Listener {
    fn send(&self, push: PushInfo) -> Result<(), SendError> {
        if push.kind != PushKind::Invalidate {
            return Ok(());
        }
        match push.data.as_slice() {
            [Value::Array(names)] => names.iter().for_each(|name| self.0.told_of(name)),
            // Everything is gone, by FLUSHALL or a full resynchronisation.
            _ => self.0.told_of_everything(),
        }
        Ok(())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.told_of_everything();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epoch::{Epoch, Scope, Stamp};
    use crate::key::Namespace;

    fn invalidate(data: Vec<Value>) -> PushInfo {
        PushInfo {
            kind: PushKind::Invalidate,
            data,
        }
    }

    #[test]
    fn behind_sentinels_a_former_server_may_be_believed_for_a_lease_more() {
        let max_staleness = Duration::from_secs(5);
        let poll = Mirroring::Poll { max_staleness };
        for (mode, seconds) in [
            (Mirroring::Tracking, [2, 3]),
            (poll, [5, 7]),
            (Mirroring::Off, [0, 2]),
        ] {
            let staleness = [false, true].map(|moves| mode.staleness(moves));
            assert_eq!(staleness, seconds.map(Duration::from_secs), "{mode:?}");
        }
    }

    #[test]
    fn a_message_takes_out_what_it_names_and_any_other_takes_out_everything() {
        let tracker = Arc::new(Tracker::new(Mirroring::Tracking, Clock::system()));
        let listener = tracker.listen().unwrap();
        let namespace = Namespace::default();
        let stamps = ["a", "b"].map(|tag| {
            let scope = Scope::tag("default", tag.as_bytes());
            Stamp::from_iter([(scope, Epoch::new(1 + u64::from(tag.as_bytes()[0])).unwrap())])
        });
        let name = |stamp: &Stamp| {
            let (scope, _) = stamp.iter().next().unwrap();
            Value::BulkString(layout::epoch(&namespace, scope).to_string().into_bytes())
        };
        let everything = [
            vec![Value::Nil],
            vec![],
            vec![Value::Array(vec![Value::BulkString(b"who knows".to_vec())])],
        ];
        let named = vec![Value::Array(vec![name(&stamps[0])])];
        for (data, survives) in everything
            .into_iter()
            .map(|data| (data, false))
            .chain([(named, true)])
        {
            for (scope, epoch) in stamps.iter().flat_map(|stamp| stamp.iter()) {
                let load = tracker.mirror.begin();
                tracker.mirror.insert(load, &namespace, scope, epoch);
                tracker.mirror.renew(load, None);
            }
            assert!(stamps.iter().all(|stamp| tracker.mirror.confirms(stamp)));
            listener.send(invalidate(data)).unwrap();
            assert!(!tracker.mirror.confirms(&stamps[0]));
            assert_eq!(tracker.mirror.confirms(&stamps[1]), survives);
        }
        drop(listener);
        assert!(!tracker.mirror.confirms(&stamps[1]));
    }
}
