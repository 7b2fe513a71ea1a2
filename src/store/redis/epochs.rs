//! Epochs in Redis: reading, making and forgetting them.
//!
//! An epoch is a key with a random value. Without it, whatever carries it is unreadable, so to
//! invalidate is to delete it. That works when the server is out of memory, may be repeated, and
//! no repetition can bring an old value back.

use std::time::Duration;

use redis::{Cmd, Pipeline};
use smallvec::SmallVec;

use super::connection::{Names, Replies, get};
use super::layout::{self, Name};
use super::shards::Dispatch;
use crate::epoch::{Epoch, Scope, ScopeKind, Stamp};
use crate::error::{Error, ErrorKind};
use crate::key::Namespace;

/// How long an epoch lives, and the longest that anything stored does. One that ends early costs
/// misses.
pub(super) const EPOCH_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// How long it is known that a tag was invalidated, and so the longest that a handler may take
/// whose response is the first to name a tag.
const MARK_TTL: Duration = Duration::from_secs(120);
/// Covers the rounding of times, and clocks that run at different speeds.
const MARGIN: Duration = Duration::from_millis(50);

/// An epoch as the server holds it.
///
/// With the time that it was given to live, what is left of that time says how old it is, by the
/// server's clock alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct StoredEpoch {
    epoch: Epoch,
    ttl_seconds: u32,
}

impl StoredEpoch {
    fn random() -> Result<Self, Error> {
        let epoch = getrandom::u64().ok().and_then(Epoch::new);
        let epoch = epoch.ok_or_else(|| {
            Error::new(
                ErrorKind::Unavailable,
                "the system has no random number for an epoch",
            )
        })?;
        let ttl_seconds = u32::try_from(EPOCH_TTL.as_secs()).unwrap_or(u32::MAX);
        Ok(Self { epoch, ttl_seconds })
    }

    fn to_bytes(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        let (epoch, ttl) = bytes.split_at_mut(8);
        epoch.copy_from_slice(&self.epoch.value().to_be_bytes());
        ttl.copy_from_slice(&self.ttl_seconds.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (epoch, rest) = bytes.split_first_chunk()?;
        let (ttl, rest) = rest.split_first_chunk()?;
        rest.is_empty().then_some(Self {
            epoch: Epoch::new(u64::from_be_bytes(*epoch))?,
            ttl_seconds: u32::from_be_bytes(*ttl),
        })
    }

    fn ttl(self) -> Duration {
        Duration::from_secs(self.ttl_seconds.into())
    }

    /// Returns how old the epoch is at least, from what is left of its time in milliseconds.
    ///
    /// That is negative for a key that is gone, or that never ends: it may be new.
    fn age(self, left: i64) -> Duration {
        let left = u64::try_from(left).unwrap_or(u64::MAX);
        self.ttl().saturating_sub(Duration::from_millis(left))
    }
}

/// What a server answered when it was asked for epochs.
#[derive(Debug)]
pub(super) struct Known(SmallVec<[(Scope, Option<Epoch>); 8]>);

impl Known {
    pub(super) fn new() -> Self {
        Self(SmallVec::new())
    }

    /// Whether the server was asked for the epoch of a scope.
    pub(super) fn contains(&self, scope: Scope) -> bool {
        self.0.iter().any(|(asked, _)| *asked == scope)
    }

    /// Returns the current epoch of a scope, if it has one.
    pub(super) fn get(&self, scope: Scope) -> Option<Epoch> {
        let (_, epoch) = self.0.iter().find(|(asked, _)| *asked == scope)?;
        *epoch
    }

    /// Takes in an epoch that is known without asking.
    pub(super) fn note(&mut self, scope: Scope, epoch: Epoch) {
        self.0.push((scope, Some(epoch)));
    }

    /// Takes in what was answered elsewhere.
    pub(super) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Takes the replies about the names of [`list`]; what is no epoch is as good as none.
    pub(super) fn read(&mut self, replies: &mut Replies, scopes: &[Scope]) -> Result<(), Error> {
        for scope in scopes {
            let held = replies.bytes()?;
            let held = held.and_then(|bytes| StoredEpoch::from_bytes(&bytes));
            self.0.push((*scope, held.map(|held| held.epoch)));
        }
        Ok(())
    }
}

/// Adds the epochs of scopes to what is to be read.
pub(super) fn list(names: &mut Names, namespace: &Namespace, scopes: &[Scope]) {
    for scope in scopes {
        names.push(&layout::epoch(namespace, *scope));
    }
}

/// Returns the current epochs of scopes, and makes those that are missing.
///
/// With `renew`, epochs that have lived half of their time are given all of it again. The `others`
/// go along; their replies are returned.
///
/// # Errors
///
/// When the server does not answer; and in place of the epochs, when one can be neither had nor
/// made. What stood in its place is deleted then.
pub(super) async fn ensure(
    dispatch: &Dispatch<'_>,
    namespace: &Namespace,
    scopes: &[Scope],
    renew: bool,
    others: impl IntoIterator<Item = Cmd>,
) -> Result<(Result<Stamp, Error>, Replies), Error> {
    let mut commands = Pipeline::new();
    let names = scopes.iter().map(|scope| layout::epoch(namespace, *scope));
    let names: SmallVec<[Name; 4]> = names.collect();
    for name in &names {
        make(&mut commands, name)?;
        if renew {
            commands.cmd("PTTL").arg(name);
        }
    }
    for other in others {
        commands.add_command(other);
    }
    let mut replies = dispatch.send(&commands).await?;
    let mut repairs = Pipeline::new();
    let epochs: SmallVec<[_; 8]> = names
        .iter()
        .map(|name| ensured(&mut replies, name, renew, &mut repairs))
        .collect();
    // No repair is needed now, and each is tried again.
    let _ = dispatch.send(&repairs).await;
    let stamp = scopes.iter().zip(epochs);
    let stamp = stamp.map(|(scope, epoch)| Ok((*scope, epoch?))).collect();
    Ok((stamp, replies))
}

/// Takes the replies about one epoch, and adds what has to be done about it.
fn ensured(
    replies: &mut Replies,
    name: &Name,
    renew: bool,
    repairs: &mut Pipeline,
) -> Result<Epoch, Error> {
    let held = made(replies);
    let left = if renew { replies.integer().ok() } else { None };
    match held {
        Ok(Some(held)) => {
            if left.is_some_and(|left| held.age(left) > held.ttl() / 2) {
                // The time that it says itself, lest it is taken for older than it is.
                repairs.cmd("PEXPIRE").arg(name).arg(millis(held.ttl()));
            }
            Ok(held.epoch)
        }
        // What is made from now on is too late already: it gets an epoch that is nobody's.
        Ok(None) => Ok(StoredEpoch::random()?.epoch),
        Err(error) => {
            if error.kind() == ErrorKind::Damaged {
                repairs.cmd("DEL").arg(name);
            }
            Err(error)
        }
    }
}

/// Asks for all that decides whether tags may join a stamp after the handler has run;
/// [`read_late`] takes the replies.
pub(super) fn ask_late(
    commands: &mut Pipeline,
    namespace: &Namespace,
    tags: &[Scope],
) -> Result<(), Error> {
    for tag in tags {
        let name = layout::epoch(namespace, *tag);
        // In this order. The age has to be that of the epoch returned, or of a younger one; and a
        // mark that is set before the epoch is deleted must be seen if the deletion was not.
        make(commands, &name)?;
        commands.cmd("PTTL").arg(&name);
        commands.cmd("PTTL").arg(layout::mark(namespace, *tag));
    }
    Ok(())
}

/// Takes the replies to [`ask_late`] and puts the tags into a stamp that is `elapsed` old.
///
/// Returns `false` if one of them may have been invalidated within that time.
pub(super) fn read_late(
    replies: &mut Replies,
    tags: &[Scope],
    elapsed: Duration,
    strict: bool,
    stamp: &mut Stamp,
) -> Result<bool, Error> {
    for tag in tags {
        let held = made(replies)?;
        let (left, mark_left) = (replies.integer()?, replies.integer()?);
        let Some(held) = held else {
            return Ok(false);
        };
        let (age, marked) = (held.age(left), mark_age(mark_left));
        if !is_untouched(age, marked, elapsed.saturating_add(MARGIN), strict) {
            return Ok(false);
        }
        stamp.push(*tag, held.epoch);
    }
    Ok(true)
}

/// Forgets the epochs of scopes; [`Replies::done`] takes one reply for each command.
pub(super) fn forget(commands: &mut Pipeline, namespace: &Namespace, scopes: &[Scope]) {
    for scope in scopes {
        if scope.kind() == ScopeKind::Tag {
            // Before the epoch goes: who finds no mark must find the epoch.
            let mark = layout::mark(namespace, *scope);
            commands
                .cmd("SET")
                .arg(mark)
                .arg(1)
                .arg("PX")
                .arg(millis(MARK_TTL));
        }
        commands.cmd("DEL").arg(layout::epoch(namespace, *scope));
    }
}

/// Puts a new epoch in place of the one of a scope, and returns it with the one that it ended.
///
/// Nothing can be invalidated between the two, as it could between a deletion and a new epoch.
pub(super) async fn replace(
    dispatch: &Dispatch<'_>,
    namespace: &Namespace,
    scope: Scope,
) -> Result<(Option<Epoch>, Epoch), Error> {
    let new = StoredEpoch::random()?;
    let mut commands = Pipeline::new();
    let set = commands.cmd("SET").arg(layout::epoch(namespace, scope));
    // Where there is none, nothing is readable, and nothing is to be made.
    let set = set.arg(&new.to_bytes()).arg("XX").arg("GET");
    set.arg("PX").arg(millis(new.ttl()));
    let ended = dispatch.send(&commands).await?.bytes()?;
    let ended = ended.and_then(|bytes| StoredEpoch::from_bytes(&bytes));
    Ok((ended.map(|ended| ended.epoch), new.epoch))
}

/// Makes an epoch unless there is one, and asks which it is; [`made`] takes the replies.
fn make(commands: &mut Pipeline, name: &Name) -> Result<(), Error> {
    let new = StoredEpoch::random()?;
    let set = commands.cmd("SET").arg(name).arg(&new.to_bytes());
    set.arg("NX").arg("PX").arg(millis(new.ttl()));
    commands.add_command(get(name));
    Ok(())
}

/// Takes the replies to [`make`]; `None` if the epoch was forgotten between the two commands.
fn made(replies: &mut Replies) -> Result<Option<StoredEpoch>, Error> {
    let made = replies.done();
    let Some(bytes) = replies.bytes()? else {
        return made.map(|()| None);
    };
    match StoredEpoch::from_bytes(&bytes) {
        Some(held) => Ok(Some(held)),
        None => Err(Error::new(
            ErrorKind::Damaged,
            "redis holds no epoch where one belongs",
        )),
    }
}

/// Whether a tag was certainly not invalidated within the time that has `elapsed` since before the
/// handler ran.
fn is_untouched(age: Duration, marked: Option<Duration>, elapsed: Duration, strict: bool) -> bool {
    if elapsed >= MARK_TTL {
        return false;
    }
    // An epoch that was there all the time is evidence that nothing can take away. A missing mark
    // is weaker: the server may have evicted it.
    age > elapsed || (!strict && marked.is_none_or(|marked| marked > elapsed))
}

/// Returns how long ago a tag was invalidated, from what is left of its mark's time.
fn mark_age(left: i64) -> Option<Duration> {
    const ABSENT: i64 = -2;
    let left = (left != ABSENT).then(|| u64::try_from(left).unwrap_or(u64::MAX))?;
    Some(MARK_TTL.saturating_sub(Duration::from_millis(left)))
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_epoch_stays_what_it_was_in_earlier_releases() {
        let stored = StoredEpoch {
            epoch: Epoch::new(0x0102_0304_0506_0708).unwrap(),
            ttl_seconds: 86_400,
        };
        assert_eq!(
            stored.to_bytes(),
            *b"\x01\x02\x03\x04\x05\x06\x07\x08\0\x01\x51\x80"
        );
        assert_eq!(StoredEpoch::from_bytes(&stored.to_bytes()), Some(stored));
    }

    #[test]
    fn ages_are_never_longer_than_what_is_left_proves() {
        let stored = StoredEpoch {
            epoch: Epoch::new(1).unwrap(),
            ttl_seconds: 10,
        };
        for (left, age) in [
            (0, 10_000),
            (9_999, 1),
            (10_000, 0),
            (20_000, 0),
            (-1, 0),
            (-2, 0),
        ] {
            assert_eq!(stored.age(left), Duration::from_millis(age), "{left}");
        }
        for (left, age) in [
            (0, 120_000),
            (119_999, 1),
            (120_000, 0),
            (500_000, 0),
            (-1, 0),
        ] {
            assert_eq!(mark_age(left), Some(Duration::from_millis(age)), "{left}");
        }
        assert_eq!(mark_age(-2), None);
    }

    #[test]
    fn a_tag_is_untouched_if_its_epoch_or_the_missing_mark_says_so() {
        let seconds = Duration::from_secs;
        for (age, marked, elapsed, by_default, by_strict) in [
            (11, None, 10, true, true),
            (11, Some(5), 10, true, true),
            (10, None, 10, true, false),
            (10, Some(11), 10, true, false),
            (10, Some(10), 10, false, false),
            (0, Some(0), 0, false, false),
            (500, None, 120, false, false),
        ] {
            for (strict, expected) in [(false, by_default), (true, by_strict)] {
                let marked = marked.map(seconds);
                let untouched = is_untouched(seconds(age), marked, seconds(elapsed), strict);
                assert_eq!(
                    untouched, expected,
                    "{age} {marked:?} {elapsed}, strict: {strict}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_epoch_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..16)) {
            let read = StoredEpoch::from_bytes(&bytes);
            prop_assert_eq!(read.map(|read| read.to_bytes().to_vec()), read.map(|_| bytes));
        }

        #[test]
        fn any_time_left_gives_an_age(left: i64, ttl_seconds: u32) {
            let stored = StoredEpoch { epoch: Epoch::new(1).unwrap(), ttl_seconds };
            prop_assert!(stored.age(left) <= stored.ttl());
            prop_assert!(mark_age(left).is_none_or(|age| age <= MARK_TTL));
        }
    }
}
