//! The epochs that this process knows to be current, without asking.
//!
//! An epoch is a random number that one scope has once. So the mirror can be read as a set of
//! numbers: what is in it is current, of what is not in it nothing is known. It can also be asked
//! which epoch a scope has. A reader takes no lock and writes to no memory.
//!
//! # Why nothing dead stays
//!
//! A key that was read on a tracking connection is told of once, when it changes. That message
//! takes an epoch out, but only one that is in: one that was read before the change, and whose
//! reply is handled after the message, would stay for ever. Therefore each [`Load`] remembers the
//! number of messages when it began, and nothing is taken in of which a message came since.
//!
//! The message may also never come, when the network fails without a word. Therefore the whole
//! mirror is valid for no longer than [`LEASE`] from when a question was asked that has been
//! answered; the answer came behind all messages that were due.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::clock::Clock;
use crate::epoch::{Epoch, Scope, Stamp};
use crate::key::Namespace;
use crate::store::MirrorHealth;
use crate::store::redis::layout;

/// For so long after the last sign of life the server is believed to tell of every change.
pub(crate) const LEASE: Duration = Duration::from_secs(2);
/// Longer than this an epoch is not believed without having been read again, for the changes that
/// a server does not tell of: `SWAPDB`, and slots that a cluster's node has lost.
const MAX_AGE: Duration = Duration::from_secs(30);
/// With [`WAYS`], room for 32,768 epochs.
const SETS: usize = 8192;
const WAYS: usize = 4;

/// A bounded set of current epochs.
pub(crate) struct Mirror {
    /// Each scope has its place in one of the sets.
    sets: Box<[[Cell; WAYS]]>,
    /// Nothing is believed from then on.
    lease: AtomicU64,
    log: Mutex<Log>,
    clock: Clock,
    /// Times count in nanoseconds from here.
    began: Instant,
}

/// Room for one epoch; 0 is none.
#[derive(Default)]
struct Cell {
    epoch: AtomicU64,
    /// Stands for the epoch's name.
    name: AtomicU64,
    until: AtomicU64,
}

/// What has been told so far.
struct Log {
    sequence: u64,
    /// The number of the latest message about each set.
    told: Box<[u64]>,
    /// The number of the latest message about everything.
    cleared: u64,
    /// Whether the server has to be told to tell.
    tracks: bool,
    /// For how long what is read may be believed.
    max_age: Duration,
}

/// Epochs being read; begun before the server is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    sequence: u64,
    asked: u64,
    /// Whether the server has to be told to tell of changes, before it is asked.
    pub(super) tracks: bool,
}

impl Mirror {
    pub(super) fn new(clock: Clock) -> Self {
        Self::with_sets(SETS, clock)
    }

    fn with_sets(sets: usize, clock: Clock) -> Self {
        Self {
            sets: (0..sets).map(|_| Default::default()).collect(),
            lease: AtomicU64::new(0),
            log: Mutex::new(Log {
                sequence: 0,
                told: vec![0; sets].into(),
                cleared: 0,
                tracks: false,
                max_age: Duration::ZERO,
            }),
            began: clock.now(),
            clock,
        }
    }

    /// Whether every epoch of a stamp is known to be current.
    pub(crate) fn confirms(&self, stamp: &Stamp) -> bool {
        let Some(now) = self.leased() else {
            return false;
        };
        let holds = |(scope, epoch)| self.cells(scope).any(|cell| cell.holds(epoch, now));
        stamp.iter().all(holds)
    }

    /// Whether an epoch of a scope is known to be current.
    pub(crate) fn holds(&self, scope: Scope, epoch: Epoch) -> bool {
        let holds = |now| self.cells(scope).any(|cell| cell.holds(epoch, now));
        self.leased().is_some_and(holds)
    }

    /// Returns the current epoch of a scope, if it is known.
    pub(crate) fn epoch(&self, namespace: &Namespace, scope: Scope) -> Option<Epoch> {
        let now = self.leased()?;
        let name = layout::number(namespace, scope);
        self.cells(scope).find_map(|cell| cell.held(name, now))
    }

    /// Returns how it is kept current, and how long it would stay so by itself.
    pub(crate) fn health(&self) -> MirrorHealth {
        let Log {
            tracks, max_age, ..
        } = *self.log.lock();
        let end = self.lease.load(Ordering::Acquire);
        let left = end.saturating_sub(self.nanos(self.clock.now()));
        MirrorHealth {
            told: tracks,
            lease: Duration::from_nanos(left).min(max_age),
        }
    }

    /// Returns the present, unless nothing is believed now.
    fn leased(&self) -> Option<u64> {
        let now = self.nanos(self.clock.now());
        (now < self.lease.load(Ordering::Acquire)).then_some(now)
    }

    fn cells(&self, scope: Scope) -> impl Iterator<Item = &Cell> {
        let set = self.sets.get(self.place(layout::slot(scope)));
        set.into_iter().flatten()
    }

    /// Begins with a server that tells of changes; what was known before is forgotten.
    pub(super) fn track(&self) {
        let log = &mut *self.log.lock();
        (log.tracks, log.max_age) = (true, MAX_AGE);
        self.wipe(log);
    }

    /// Begins with a server that tells of nothing: what was read is believed for so long.
    pub(super) fn poll(&self, max_staleness: Duration) {
        let log = &mut *self.log.lock();
        (log.tracks, log.max_age) = (false, max_staleness);
        self.wipe(log);
        self.lease.store(u64::MAX, Ordering::Release);
    }

    /// Begins to read epochs.
    pub(super) fn begin(&self) -> Load {
        let log = self.log.lock();
        Load {
            sequence: log.sequence,
            asked: self.nanos(self.clock.now()),
            tracks: log.tracks,
        }
    }

    /// Notes that what was asked has been answered, behind all that had to be told. Where the server
    /// may have been replaced, it counts from when it was last `confirmed` that it was not.
    pub(super) fn renew(&self, load: Load, confirmed: Option<Instant>) {
        let confirmed = confirmed.map_or(u64::MAX, |moment| self.nanos(moment));
        let end = load.asked.min(confirmed).saturating_add(nanos(LEASE));
        self.lease.fetch_max(end, Ordering::AcqRel);
    }

    /// Takes in an epoch that was read, unless its scope may have changed since.
    pub(super) fn insert(&self, load: Load, namespace: &Namespace, scope: Scope, epoch: Epoch) {
        let name = layout::number(namespace, scope);
        let place = self.place(layout::slot(scope));
        let log = self.log.lock();
        let told = log.told.get(place).copied().unwrap_or(u64::MAX);
        let Some(set) = self.sets.get(place) else {
            return;
        };
        if load.sequence < told.max(log.cleared) {
            return;
        }
        // The place that it had, else the one whose time is up first; an empty one's was long ago.
        let held = set.iter().find(|cell| cell.name() == name);
        let first = || set.iter().min_by_key(|cell| cell.until());
        if let Some(cell) = held.or_else(first) {
            cell.set(name, epoch, load.asked.saturating_add(nanos(log.max_age)));
        }
    }

    /// Forgets what is known of a slot, and what is being read.
    pub(crate) fn forget(&self, slot: u16) {
        let place = self.place(slot);
        let log = &mut *self.log.lock();
        log.sequence += 1;
        if let (Some(told), Some(set)) = (log.told.get_mut(place), self.sets.get(place)) {
            *told = log.sequence;
            set.iter().for_each(Cell::clear);
        }
    }

    /// Forgets everything, and what is being read.
    pub(crate) fn forget_all(&self) {
        self.empty(&mut self.log.lock());
    }

    /// Forgets everything, and believes nothing until the lease is renewed.
    pub(super) fn clear(&self) {
        self.wipe(&mut self.log.lock());
    }

    fn wipe(&self, log: &mut Log) {
        self.lease.store(0, Ordering::Release);
        self.empty(log);
    }

    fn empty(&self, log: &mut Log) {
        log.sequence += 1;
        log.cleared = log.sequence;
        self.sets.iter().flatten().for_each(Cell::clear);
    }

    fn place(&self, slot: u16) -> usize {
        usize::from(slot)
            .checked_rem(self.sets.len())
            .unwrap_or_default()
    }

    fn nanos(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.began))
    }
}

impl Cell {
    /// Whether it holds this epoch, and may be believed.
    fn holds(&self, epoch: Epoch, now: u64) -> bool {
        // Read again behind the time: the cell may have been taken for another epoch in between,
        // and then the time is that one's.
        self.epoch() == epoch.value() && now < self.until() && self.epoch() == epoch.value()
    }

    /// Returns the epoch of this name, if that is what it holds and it may be believed.
    fn held(&self, name: u64, now: u64) -> Option<Epoch> {
        let epoch = Epoch::new(self.epoch())?;
        (self.name() == name && self.holds(epoch, now)).then_some(epoch)
    }

    fn set(&self, name: u64, epoch: Epoch, until: u64) {
        self.epoch.store(0, Ordering::Relaxed);
        self.name.store(name, Ordering::Release);
        self.until.store(until, Ordering::Release);
        self.epoch.store(epoch.value(), Ordering::Release);
    }

    fn clear(&self) {
        self.epoch.store(0, Ordering::Relaxed);
        self.until.store(0, Ordering::Release);
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    fn name(&self) -> u64 {
        self.name.load(Ordering::Acquire)
    }

    fn until(&self) -> u64 {
        self.until.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = self.lease.load(Ordering::Relaxed);
        let left = left.saturating_sub(self.nanos(self.clock.now()));
        f.debug_struct("Mirror")
            .field("lease", &Duration::from_nanos(left))
            .finish_non_exhaustive()
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::clock::ManualClock;

    /// A server with a few epochs, the wire to it, and a process with a mirror.
    struct World {
        mirror: Mirror,
        scopes: Vec<Scope>,
        /// What the server holds, and whether it has to tell of its change.
        server: Vec<(Option<Epoch>, bool)>,
        /// What is on its way here, in order.
        wire: VecDeque<Arrival>,
        /// Replies that have arrived and are not handled yet.
        replies: Vec<(Load, usize, Epoch)>,
        /// All epochs that there were, with their scopes.
        made: Vec<(usize, Epoch)>,
        /// What this process invalidated and heard confirmed.
        dead: Vec<(usize, Epoch)>,
    }

    enum Arrival {
        Changed(usize),
        Reply(Load, usize, Epoch),
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// Another process makes the epoch, if there is none.
        Make,
        /// Another process invalidates.
        Invalidate,
        /// This process invalidates, and hears that it is done.
        InvalidateHere,
        /// This process asks, and the server replies at once.
        Ask,
        /// The next thing on the wire arrives.
        Arrive,
        /// The reply that arrived first, or last, is handled.
        HandleFirst,
        HandleLast,
    }

    const STEPS: [Step; 7] = [
        Step::Make,
        Step::Invalidate,
        Step::InvalidateHere,
        Step::Ask,
        Step::Arrive,
        Step::HandleFirst,
        Step::HandleLast,
    ];

    impl World {
        /// All scopes share what few sets there are.
        fn new(scopes: usize) -> Self {
            let mirror = Mirror::with_sets(2, ManualClock::new().clock());
            mirror.track();
            mirror.renew(mirror.begin(), None);
            let scope = |n: usize| Scope::tag("a", n.to_string().as_bytes());
            Self {
                mirror,
                scopes: (0..scopes).map(scope).collect(),
                server: vec![(None, false); scopes],
                wire: VecDeque::new(),
                replies: Vec::new(),
                made: Vec::new(),
                dead: Vec::new(),
            }
        }

        fn step(&mut self, step: Step, which: usize) {
            let (epoch, tracked) = &mut self.server[which];
            match step {
                Step::Make if epoch.is_none() => {
                    let new = Epoch::new(1 + u64::try_from(self.made.len()).unwrap()).unwrap();
                    self.made.push((which, new));
                    *epoch = Some(new);
                    if std::mem::take(tracked) {
                        self.wire.push_back(Arrival::Changed(which));
                    }
                }
                Step::Invalidate | Step::InvalidateHere => {
                    let here = matches!(step, Step::InvalidateHere);
                    if let Some(dead) = epoch.take() {
                        if std::mem::take(tracked) {
                            self.wire.push_back(Arrival::Changed(which));
                        }
                        self.dead.extend(here.then_some((which, dead)));
                    }
                    if here {
                        self.mirror.forget(layout::slot(self.scopes[which]));
                    }
                }
                Step::Ask => {
                    let load = self.mirror.begin();
                    *tracked = true;
                    if let Some(epoch) = *epoch {
                        self.wire.push_back(Arrival::Reply(load, which, epoch));
                    }
                }
                Step::Arrive => match self.wire.pop_front() {
                    Some(Arrival::Changed(which)) => {
                        self.mirror.forget(layout::slot(self.scopes[which]));
                    }
                    Some(Arrival::Reply(load, which, epoch)) => {
                        self.replies.push((load, which, epoch));
                    }
                    None => {}
                },
                Step::HandleFirst if !self.replies.is_empty() => self.handle(0),
                Step::HandleLast if !self.replies.is_empty() => self.handle(self.replies.len() - 1),
                _ => {}
            }
            self.audit();
        }

        fn handle(&mut self, place: usize) {
            let (load, which, epoch) = self.replies.remove(place);
            let namespace = Namespace::default();
            self.mirror
                .insert(load, &namespace, self.scopes[which], epoch);
        }

        fn confirms(&self, which: usize, epoch: Epoch) -> bool {
            let scope = self.scopes[which];
            let confirms = self.mirror.confirms(&Stamp::from_iter([(scope, epoch)]));
            let told = self.mirror.epoch(&Namespace::default(), scope);
            assert_eq!(told == Some(epoch), confirms);
            confirms
        }

        /// A dead epoch is confirmed only while the message of its death is on the wire, and never
        /// if it died here.
        fn audit(&self) {
            for (which, epoch) in &self.made {
                let is_change =
                    |arrival: &Arrival| matches!(arrival, Arrival::Changed(w) if w == which);
                let untold = self.wire.iter().any(is_change);
                if self.server[*which].0 != Some(*epoch) && !untold {
                    assert!(!self.confirms(*which, *epoch), "{epoch:?} is dead");
                }
            }
            for (which, epoch) in &self.dead {
                assert!(!self.confirms(*which, *epoch), "{epoch:?} died here");
            }
        }
    }

    #[test]
    fn no_order_of_six_steps_leaves_a_dead_epoch() {
        let choices = STEPS.len();
        for mut number in 0..choices.pow(6) {
            let mut world = World::new(1);
            world.step(Step::Make, 0);
            for _ in 0..6 {
                world.step(STEPS[number % choices], 0);
                number /= choices;
            }
        }
    }

    proptest! {
        #[test]
        fn no_order_of_many_steps_leaves_a_dead_epoch(
            steps in proptest::collection::vec((0..STEPS.len(), 0..7_usize), 0..200),
        ) {
            let mut world = World::new(7);
            for (step, which) in steps {
                world.step(STEPS[step], which);
            }
        }
    }

    /// A mirror that tracks, whose clock stands still, and a stamp that it has read.
    fn mirror() -> (Mirror, ManualClock, Stamp) {
        let hands = ManualClock::new();
        let mirror = Mirror::new(hands.clock());
        mirror.track();
        let scope = Scope::path("a", b"/");
        let epoch = Epoch::new(7).unwrap();
        read(&mirror, scope, epoch);
        (mirror, hands, Stamp::from_iter([(scope, epoch)]))
    }

    fn read(mirror: &Mirror, scope: Scope, epoch: Epoch) {
        let load = mirror.begin();
        mirror.insert(load, &Namespace::default(), scope, epoch);
        mirror.renew(load, None);
    }

    #[test]
    fn what_was_read_is_confirmed_under_its_own_epoch_alone() {
        let (mirror, _, stamp) = mirror();
        assert!(mirror.confirms(&stamp));
        let (scope, _) = stamp.iter().next().unwrap();
        let other = Stamp::from_iter([(scope, Epoch::new(8).unwrap())]);
        assert!(!mirror.confirms(&other));
        let both: Stamp = stamp.iter().chain(other.iter()).collect();
        assert!(!mirror.confirms(&both));
    }

    #[test]
    fn a_scope_has_the_epoch_of_its_own_name_in_each_namespace() {
        let (mirror, ..) = mirror();
        let [one, other] = ["one", "other"].map(|name| name.parse::<Namespace>().unwrap());
        // They share a bucket, as the same path does in all namespaces.
        let scope = Scope::path("one", b"/");
        let epochs = [8, 9].map(|value| Epoch::new(value).unwrap());
        for (namespace, epoch) in [&one, &other].into_iter().zip(epochs) {
            mirror.insert(mirror.begin(), namespace, scope, epoch);
        }
        assert_eq!(mirror.epoch(&one, scope), Some(epochs[0]));
        assert_eq!(mirror.epoch(&other, scope), Some(epochs[1]));
        assert_eq!(mirror.epoch(&one, Scope::tag("one", b"/")), None);
        mirror.forget(layout::slot(scope));
        assert_eq!(mirror.epoch(&one, scope), None);
    }

    #[test]
    fn nothing_is_confirmed_when_the_lease_is_over_until_it_is_renewed() {
        let (mirror, hands, stamp) = mirror();
        hands.advance(LEASE - Duration::from_nanos(1));
        assert!(mirror.confirms(&stamp));
        let asked = mirror.begin();
        hands.advance(Duration::from_nanos(1));
        assert!(!mirror.confirms(&stamp));
        mirror.renew(asked, None);
        assert!(mirror.confirms(&stamp));
        // The lease counts from the question, however late the answer.
        hands.advance(LEASE - Duration::from_nanos(1));
        assert!(!mirror.confirms(&stamp));
    }

    #[test]
    fn an_epoch_has_to_be_read_again_after_its_time() {
        let (mirror, hands, stamp) = mirror();
        hands.advance(MAX_AGE);
        mirror.renew(mirror.begin(), None);
        assert!(!mirror.confirms(&stamp));
        let (scope, epoch) = stamp.iter().next().unwrap();
        read(&mirror, scope, epoch);
        assert!(mirror.confirms(&stamp));
    }

    #[test]
    fn polling_needs_no_lease_and_believes_for_its_time() {
        let (mirror, hands, stamp) = mirror();
        mirror.poll(Duration::from_secs(1));
        assert!(!mirror.confirms(&stamp), "read under other terms");
        let (scope, epoch) = stamp.iter().next().unwrap();
        mirror.insert(mirror.begin(), &Namespace::default(), scope, epoch);
        hands.advance(Duration::from_millis(999));
        assert!(mirror.confirms(&stamp));
        hands.advance(Duration::from_millis(1));
        assert!(!mirror.confirms(&stamp));
    }

    #[test]
    fn clearing_forgets_what_is_known_and_what_is_being_read() {
        let (mirror, _, stamp) = mirror();
        let load = mirror.begin();
        mirror.clear();
        assert!(!mirror.confirms(&stamp));
        let (scope, epoch) = stamp.iter().next().unwrap();
        mirror.insert(load, &Namespace::default(), scope, epoch);
        mirror.renew(load, None);
        assert!(!mirror.confirms(&stamp));
    }

    #[test]
    fn of_a_hundred_thousand_epochs_the_latest_are_held_within_bounds() {
        let hands = ManualClock::new();
        let mirror = Mirror::new(hands.clock());
        mirror.track();
        let stamp = |n: u64| {
            let scope = Scope::tag("a", &n.to_be_bytes());
            Stamp::from_iter([(scope, Epoch::new(n).unwrap())])
        };
        for n in 1..=100_000 {
            for (scope, epoch) in stamp(n).iter() {
                read(&mirror, scope, epoch);
            }
            hands.advance(Duration::from_nanos(1));
        }
        let held = |range: std::ops::RangeInclusive<u64>| {
            range.filter(|n| mirror.confirms(&stamp(*n))).count()
        };
        let all = held(1..=100_000);
        assert!((30_000..=SETS * WAYS).contains(&all), "{all}");
        let latest = held(92_001..=100_000);
        assert!(latest > 7_900, "{latest}");
    }

    #[test]
    fn readers_never_see_what_died_before_they_asked() {
        // One thread reads and forgets, the other asks; the death is announced between.
        let mirror = Mirror::with_sets(1, Clock::system());
        mirror.track();
        let scope = Scope::tag("a", b"");
        let dead = AtomicU64::new(0);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                for n in 1..50_000 {
                    read(&mirror, scope, Epoch::new(n).unwrap());
                    mirror.forget(layout::slot(scope));
                    dead.store(n, Ordering::Release);
                }
            });
            while dead.load(Ordering::Acquire) < 49_999 {
                if let Some(epoch) = Epoch::new(dead.load(Ordering::Acquire)) {
                    assert!(!mirror.confirms(&Stamp::from_iter([(scope, epoch)])));
                }
            }
        });
    }
}
