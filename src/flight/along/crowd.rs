//! The readers that wait for more of a body, and whose turn it is to ask for it.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;
use std::task::{Wake, Waker};

use crate::flight::sync::Mutex;

/// Wakes all readers that wait; it is the waker under which their source is polled.
///
/// It is apart from what holds the source: a source holds its waker, and would hold itself. All are
/// woken, not one: a reader that was woken need not be polled again.
#[derive(Default)]
pub(super) struct Crowd(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    wakers: BTreeMap<u64, Waker>,
    /// Whether it is some reader's turn.
    taken: bool,
    /// Whether the source has woken during that turn.
    woken: bool,
}

/// What a reader does that finds nothing to read.
pub(super) enum Turn {
    /// Poll the source, and then [pause](Crowd::pause) or [go on](Crowd::go_on).
    Poll,
    /// Wait; the waker that the reader left before is to be dropped when no lock is held.
    Wait(Option<Waker>),
}

impl Crowd {
    /// Gives reader `number` the turn, or has it woken when that may be had.
    pub(super) fn turn(&self, number: u64, waker: &Waker) -> Turn {
        let mut waiting = self.0.lock();
        if waiting.taken {
            return Turn::Wait(waiting.wait(number, waker));
        }
        waiting.taken = true;
        waiting.woken = false;
        Turn::Poll
    }

    /// Ends a turn in which the source had nothing; its reader waits with the others.
    pub(super) fn pause(&self, number: u64, waker: &Waker) {
        let mut waiting = self.0.lock();
        waiting.taken = false;
        let replaced = waiting.wait(number, waker);
        let woken = match waiting.woken {
            true => mem::take(&mut waiting.wakers),
            false => BTreeMap::new(),
        };
        drop(waiting);
        drop(replaced);
        wake(woken);
    }

    /// Ends a turn that brought something.
    pub(super) fn go_on(&self) {
        let mut waiting = self.0.lock();
        waiting.taken = false;
        let woken = mem::take(&mut waiting.wakers);
        drop(waiting);
        wake(woken);
    }

    /// Forgets a reader.
    pub(super) fn leave(&self, number: u64) {
        let waker = self.0.lock().wakers.remove(&number);
        // Not under the lock: with its waker a task may go, and with the task another reader.
        drop(waker);
    }
}

impl Wake for Crowd {
    fn wake(self: Arc<Self>) {
        let mut waiting = self.0.lock();
        // During a turn the readers would find it taken, and wait for what has been.
        waiting.woken = true;
        let woken = match waiting.taken {
            true => BTreeMap::new(),
            false => mem::take(&mut waiting.wakers),
        };
        drop(waiting);
        wake(woken);
    }
}

impl Waiting {
    fn wait(&mut self, number: u64, waker: &Waker) -> Option<Waker> {
        match self.wakers.get(&number) {
            Some(held) if held.will_wake(waker) => None,
            _ => self.wakers.insert(number, waker.clone()),
        }
    }
}

fn wake(wakers: BTreeMap<u64, Waker>) {
    wakers.into_values().for_each(Waker::wake);
}
