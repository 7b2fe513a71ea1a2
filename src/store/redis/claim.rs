//! Letting one process fetch for all.
//!
//! A lock is a key that ends by itself, with a random token. Nothing depends on it but the number
//! of calls of the handler, so it needs no script that compares the token before it is released: a
//! lock that may have passed to another process by now is left alone, which costs a wait. One that
//! was asked for by somebody who did not hear the answer is given back, if it was taken.
//! Nor is it renewed: those who wait for a fetch that takes so long had better fetch themselves.
//! Nor does it leave a trace: whoever looked before a response was stored, and claims after that,
//! fetches it once more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use redis::Pipeline;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::Shared;
use super::connection::{Replies, get};
use super::control::Watch;
use super::epochs::millis;
use super::layout::{Name, Place};
use super::shards::Lane;
use crate::epoch::{Captured, Scope};
use crate::error::{Error, ErrorKind};
use crate::store::{Claim, FillLock, FillWait, Settled, Wanted};

/// For so long a lock keeps others from fetching, whether its process has died or only its fetch
/// goes on. No request waits longer for another by default, wherever that is.
const LOCK_TTL: Duration = Duration::from_secs(5);
/// From then on a lock may be another's, for all this process knows.
const SURELY_HELD: Duration = Duration::from_secs(4);
/// Stands in the place of a lock after a fetch that was of no use to others.
const UNCACHEABLE: &[u8] = b"U";
const UNCACHEABLE_TTL: Duration = Duration::from_secs(5);
/// How soon a wait looks at the lock where the server does not tell of it; the pauses double.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
/// How soon it looks where the server would have told.
const DOUBT: Duration = Duration::from_secs(1);

impl Shared {
    /// Claims the fetch of what is wanted, and captures the epochs of `scopes` along the way unless
    /// they are `captured`.
    ///
    /// Whoever cannot learn whether another process fetches does so itself.
    pub(super) async fn claim(
        self: &Arc<Self>,
        wanted: Wanted<'_>,
        scopes: &[Scope],
        captured: Option<Captured>,
    ) -> Result<(Captured, Claim), Error> {
        let name = self.lock(wanted, scopes);
        let token = getrandom::u64().unwrap_or_default().to_be_bytes();
        let mut set = redis::cmd("SET");
        set.arg(&name).arg(&token).arg("NX");
        set.arg("PX").arg(millis(LOCK_TTL));
        let asked = self.clock.now();
        let missing = if captured.is_some() { &[] } else { scopes };
        let mut unheard = Unheard {
            shared: self,
            name: &name,
            token: &token,
            asked,
            may_hold: true,
        };
        let answer = self
            .capture_with(wanted.namespace, missing, [set, get(&name)])
            .await;
        let is_late = |error: &Error| error.kind() == ErrorKind::Timeout;
        unheard.may_hold = answer.as_ref().is_err_and(is_late);
        drop(unheard);
        let (new, claim) = match answer {
            Ok((new, replies)) => (new, self.claimed(name, token, replies, asked)),
            Err(error) => (Err(error), Claim::Granted(FillLock::none())),
        };
        let captured = match captured {
            Some(captured) => captured,
            None => new?,
        };
        Ok((captured, claim))
    }

    /// Returns the name of the lock of what is wanted.
    ///
    /// Requests for different variants do not wait for each other, once it is known what varies.
    fn lock(&self, wanted: Wanted<'_>, scopes: &[Scope]) -> Name {
        let place = Place::of(wanted.namespace, wanted.key, scopes.iter().copied());
        let variant = self.hints.expected_variant(&place, wanted.fields);
        place.lock(variant.map_or(place.primary(), |variant| place.digest(&variant)))
    }

    fn claimed(
        self: &Arc<Self>,
        name: Name,
        token: [u8; 8],
        mut replies: Replies,
        asked: Instant,
    ) -> Claim {
        // Whether it was set shows in what stands there now.
        let _ = replies.done();
        match replies.bytes() {
            Ok(Some(held)) if held == UNCACHEABLE => Claim::Uncacheable,
            Ok(Some(held)) if held != token[..] => {
                Claim::Elsewhere(FillWait::new(Arc::clone(self).wait(name, held)))
            }
            Ok(Some(_)) => Claim::Granted(self.hold(name, asked)),
            // Refused, or it ended between the two commands.
            Ok(None) | Err(_) => Claim::Granted(FillLock::none()),
        }
    }

    /// Keeps a lock until it is settled.
    fn hold(self: &Arc<Self>, name: Name, since: Instant) -> FillLock {
        let Ok(runtime) = Handle::try_current() else {
            return FillLock::none();
        };
        let (settle, settled) = oneshot::channel();
        let held = Held {
            shared: Arc::clone(self),
            name,
            since,
        };
        runtime.spawn(held.until(settled));
        FillLock::new(move |how| {
            // Fails if the lock has been lost.
            let _ = settle.send(how);
        })
    }

    /// Waits until a lock with this token has ended, or cannot be seen any more.
    async fn wait(self: Arc<Self>, name: Name, token: Bytes) -> Settled {
        let mut pause = FIRST_PAUSE;
        loop {
            let (held, watch) = self.look(&name).await;
            match held {
                Ok(Some(held)) if held == token => {}
                Ok(Some(held)) if held == UNCACHEABLE => return Settled::Uncacheable,
                _ => return Settled::Released,
            }
            if let Some(watch) = watch {
                let _ = timeout(DOUBT, watch.told()).await;
            } else {
                sleep(pause).await;
                pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
            }
        }
    }

    /// Reads a lock, if possible where the server will tell of its end.
    async fn look(&self, name: &Name) -> (Result<Option<Bytes>, Error>, Option<Watch>) {
        if let Ok((held, watch)) = self.shards.watch(name, self.limits.read).await {
            return (Ok(held), Some(watch));
        }
        let mut commands = Pipeline::new();
        commands.add_command(get(name));
        let dispatch = self.shards.begin(Lane::Short, self.limits.read);
        let held = dispatch.send(&commands).await;
        (held.and_then(|mut held| held.bytes()), None)
    }
}

/// A lock that this process holds.
struct Held {
    shared: Arc<Shared>,
    name: Name,
    /// Before it was taken.
    since: Instant,
}

impl Held {
    /// Ends the lock when it is settled, if it is still held then.
    async fn until(self, settled: oneshot::Receiver<Settled>) {
        let how = settled.await.unwrap_or(Settled::Released);
        self.end(how).await;
    }

    /// Ends the lock if it was taken, with this token.
    async fn end_if_taken(self, token: Bytes) {
        let Shared { shards, limits, .. } = &*self.shared;
        let mut commands = Pipeline::new();
        commands.add_command(get(&self.name));
        // On the connection on which it was asked for, and so behind that.
        let dispatch = shards.begin(Lane::Short, limits.write);
        let held = dispatch.send(&commands).await;
        if let Ok(Some(held)) = held.and_then(|mut held| held.bytes())
            && held == token
        {
            drop(dispatch);
            self.end(Settled::Released).await;
        }
    }

    /// Ends the lock if it is still held.
    async fn end(self, how: Settled) {
        let Shared {
            clock,
            shards,
            limits,
            ..
        } = &*self.shared;
        if clock.now().saturating_duration_since(self.since) >= SURELY_HELD {
            return;
        }
        let mut commands = Pipeline::new();
        match how {
            Settled::Released => commands.cmd("DEL").arg(&self.name),
            Settled::Uncacheable => {
                let mark = commands
                    .cmd("SET")
                    .arg(&self.name)
                    .arg(UNCACHEABLE)
                    .arg("XX");
                mark.arg("PX").arg(millis(UNCACHEABLE_TTL))
            }
        };
        // Without success it ends by itself.
        let dispatch = shards.begin(Lane::Short, limits.capture);
        let _ = dispatch.send(&commands).await;
    }
}

/// A lock that has been asked for and may be held for nobody: who asked has gone, or heard nothing in
/// time. Others would wait for it to end by itself.
struct Unheard<'a> {
    shared: &'a Arc<Shared>,
    name: &'a Name,
    token: &'a [u8],
    asked: Instant,
    may_hold: bool,
}

impl Drop for Unheard<'_> {
    fn drop(&mut self) {
        if let Ok(runtime) = Handle::try_current()
            && self.may_hold
        {
            let held = Held {
                shared: Arc::clone(self.shared),
                name: self.name.clone(),
                since: self.asked,
            };
            runtime.spawn(held.end_if_taken(Bytes::copy_from_slice(self.token)));
        }
    }
}
