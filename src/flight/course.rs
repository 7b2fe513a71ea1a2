//! The course of one flight, as its leader and its followers see it.

use std::collections::BTreeMap;
use std::mem;
use std::task::Waker;
use std::time::Instant;

use super::Why;
use super::sync::Mutex;

/// One flight. It is in the table while it may be joined, and lives as long as anybody aboard.
pub(super) struct Flight<K, G, T> {
    pub(super) key: K,
    pub(super) circumstances: G,
    pub(super) departed: Instant,
    pub(super) course: Mutex<Course<T>>,
}

pub(super) struct Course<T> {
    pub(super) stage: Stage<T>,
    /// Whether a leader has failed.
    pub(super) failed: bool,
    /// The followers that are alive, polled or not.
    pub(super) aboard: usize,
    /// Those of them that wait, by their number.
    waiting: BTreeMap<u64, Waker>,
    boarded: u64,
}

/// Where a flight stands.
pub(super) enum Stage<T> {
    /// A leader is under way.
    Led,
    /// The first leader failed: whoever comes first takes its place.
    Leaderless,
    /// Everybody gets this.
    Landed(T),
    /// Everybody goes alone.
    Over(Why),
}

impl<K, G, T> Flight<K, G, T> {
    pub(super) fn new(key: K, circumstances: G, departed: Instant) -> Self {
        Self {
            key,
            circumstances,
            departed,
            course: Mutex::new(Course {
                stage: Stage::Led,
                failed: false,
                aboard: 0,
                waiting: BTreeMap::new(),
                boarded: 0,
            }),
        }
    }

    /// Ends the flight one way or the other, once.
    pub(super) fn end(&self, stage: Stage<T>) {
        let mut course = self.course.lock();
        if !matches!(course.stage, Stage::Led) {
            return;
        }
        let waiting = course.turn(stage);
        drop(course);
        wake(waiting);
    }

    pub(super) fn has_ended(&self) -> bool {
        !matches!(self.course.lock().stage, Stage::Led)
    }

    /// Ends the lead; returns whether nobody is to join the flight any more. Of one that has not
    /// ended it has failed.
    ///
    /// All are woken, not one: whoever is polled first leads, and one that is never polled again
    /// holds up nobody. It happens once in a flight.
    pub(super) fn fail(&self) -> bool {
        let mut course = self.course.lock();
        if !matches!(course.stage, Stage::Led) {
            return true;
        }
        let over = mem::replace(&mut course.failed, true) || course.aboard == 0;
        let waiting = course.turn(match over {
            true => Stage::Over(Why::Failed),
            false => Stage::Leaderless,
        });
        drop(course);
        wake(waiting);
        over
    }

    /// Takes a follower off; returns whether the flight is over for want of a leader.
    pub(super) fn leave(&self, number: u64) -> bool {
        let mut course = self.course.lock();
        let waker = course.waiting.remove(&number);
        course.aboard = course.aboard.saturating_sub(1);
        let over = course.aboard == 0 && matches!(course.stage, Stage::Leaderless);
        if over {
            course.stage = Stage::Over(Why::Failed);
        }
        drop(course);
        // Not under the lock: with its waker a task may go, and with the task another follower.
        drop(waker);
        over
    }
}

impl<T> Course<T> {
    /// Takes a follower aboard; returns its number.
    pub(super) fn enter(&mut self) -> u64 {
        self.aboard = self.aboard.saturating_add(1);
        self.boarded = self.boarded.wrapping_add(1);
        self.boarded
    }

    /// Has a follower woken at the next turn; returns the waker that it had left before.
    pub(super) fn wait(&mut self, number: u64, waker: &Waker) -> Option<Waker> {
        match self.waiting.get(&number) {
            Some(held) if held.will_wake(waker) => None,
            _ => self.waiting.insert(number, waker.clone()),
        }
    }

    /// Changes the stage; returns whom to wake when the lock is released.
    fn turn(&mut self, stage: Stage<T>) -> BTreeMap<u64, Waker> {
        self.stage = stage;
        mem::take(&mut self.waiting)
    }
}

fn wake(waiting: BTreeMap<u64, Waker>) {
    waiting.into_values().for_each(Waker::wake);
}
