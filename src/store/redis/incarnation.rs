//! Whether a server still lives the life in which its content was stored.
//!
//! A server that is started from a dump of an hour ago has the epochs of then, and the responses
//! under them: all that was invalidated since would come back. But each life of a server has an
//! identity of its own, and a note beside the content says of which life it is. On each new
//! connection the two are compared before anything is believed; if they differ, the epoch of the
//! namespace is deleted and the note written, by one of all who find that out at the same time.
//!
//! # One server
//!
//! `master_replid` is the identity. It changes with a start and with a failover: a new primary may
//! not have heard of the last invalidations either.
//!
//! # A server of a cluster
//!
//! There each failover of a part would end what all parts hold, so it matters where a process
//! (`run_id`) has its content from:
//!
//! * From another one, as the replica that it was (`total_net_repl_input_bytes`), or from nobody but
//!   its clients. It is believed, and needs no note. What its primary had not told it yet, the
//!   journals of the last minute tell it again.
//! * From a file (`rdb_last_load_keys_loaded`, `aof_enabled`), so it is doubted until a note of its
//!   process is found. To keep no files is no help: a replica leaves on disk what it was sent when it
//!   joined, and loads that if it is started again as the primary that it has become. After a day,
//!   nothing is left of what was loaded.
//!
//! The note is under a name that is in one of the server's own slots. When that slot moves, or the
//! note is evicted, the namespace is emptied once more than needed.
//!
//! The epochs of a response are of several servers, and what one of them said of the namespace may
//! be from before the deletion that the note of another stands for. Therefore what finds a server
//! that was in doubt fails, once for each connection: what begins afterwards asks anew.
//!
//! # What remains
//!
//! A server that does not tell all this is believed; that is Redis before 7.0 in a cluster. So is a
//! replica that was started from a file and takes its primary's place in the midst of being sent the
//! content. And like any other, the deletion is lost in a failover that comes too soon after it.

use std::time::Duration;

use parking_lot::RwLock;
use redis::{Pipeline, Value};
use smallvec::SmallVec;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::sleep;

use super::connection::{Exchange, get};
use super::epochs::{EPOCH_TTL, millis};
use super::layout::{self, Name};
use crate::epoch::Scope;
use crate::error::{Error, ErrorKind};
use crate::key::Namespace;

/// Who has begun to empty a namespace has so long until another one does.
const TURN: Duration = Duration::from_secs(1);
/// How often the others look whether it is done.
const PAUSE: Duration = Duration::from_millis(5);

/// The namespaces that have been found to be of the life of the server that a connection is to.
#[derive(Debug, Default)]
pub(super) struct Trusted {
    /// With the generation from which on each is believed.
    namespaces: RwLock<SmallVec<[(Namespace, u64); 1]>>,
    turn: Mutex<()>,
}

impl Trusted {
    /// Returns the generation from which on a namespace is believed, once that is known.
    pub(super) fn since(&self, namespace: &Namespace) -> Option<u64> {
        let namespaces = self.namespaces.read();
        let (_, since) = namespaces.iter().find(|(known, _)| known == namespace)?;
        Some(*since)
    }

    pub(super) fn insert(&self, namespace: &Namespace, since: u64) {
        self.namespaces.write().push((namespace.clone(), since));
    }

    /// Waits for the turn to find out, which one takes for all who use the connection.
    pub(super) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }
}

/// A life of a server.
#[derive(Debug, PartialEq, Eq)]
struct Life<'a> {
    identity: &'a [u8],
    /// Whether the server may hold what is of another one.
    is_doubtful: bool,
}

/// Makes sure that what the namespace holds is of this life of the server; returns whether there was
/// any doubt.
///
/// The `tag` is one of a slot that the server has; `home` leads to the server that has the epoch of
/// the namespace, if that is another one.
///
/// # Errors
///
/// When the server cannot be asked, or the namespace not be emptied. Nothing may be believed then.
pub(super) async fn check<'h>(
    exchange: &mut Exchange<'_>,
    namespace: &Namespace,
    tag: &str,
    home: impl FnOnce() -> Result<Option<Exchange<'h>>, Error>,
) -> Result<bool, Error> {
    let note = layout::incarnation(namespace, tag);
    let mut commands = Pipeline::with_capacity(2);
    commands.cmd("INFO");
    commands.add_command(get(&note));
    let mut replies = exchange.send(&commands).await?;
    let info = tolerate(replies.bytes())?.flatten();
    let noted = tolerate(replies.bytes())?.flatten();
    let life = match (info.as_deref(), exchange.is_of_cluster()) {
        (Some(info), true) => Life::of_part(info),
        (Some(info), false) => Life::of_whole(info),
        (None, _) => None,
    };
    let Some(life) = life else {
        tracing::debug!(%namespace, "redis does not tell whether it was restored from a dump");
        return Ok(false);
    };
    if !life.is_doubtful || noted.as_deref() == Some(life.identity) {
        return Ok(life.is_doubtful);
    }
    let lock = layout::emptying(namespace, tag);
    if take_turn(exchange, &lock, &note, &life).await? {
        let mut commands = Pipeline::with_capacity(1);
        let everything = Scope::namespace(namespace.as_str());
        commands
            .cmd("DEL")
            .arg(layout::epoch(namespace, everything));
        let mut replies = match home()? {
            Some(mut home) => home.send(&commands).await?,
            None => exchange.send(&commands).await?,
        };
        replies.done()?;
        commands.clear();
        commands.cmd("SET").arg(&note).arg(life.identity);
        commands.cmd("DEL").arg(&lock);
        // A server without memory refuses the note; then the next connection empties it again.
        tolerate(exchange.send(&commands).await?.done())?;
        tracing::info!(%namespace, "redis has begun a new life: what it held is invalidated");
    }
    Ok(true)
}

/// Waits until nobody else empties the namespace; returns whether that is still to be done.
async fn take_turn(
    exchange: &mut Exchange<'_>,
    lock: &Name,
    note: &Name,
    life: &Life<'_>,
) -> Result<bool, Error> {
    let mut commands = Pipeline::with_capacity(2);
    let set = commands.cmd("SET").arg(lock).arg(1).arg("NX");
    set.arg("PX").arg(millis(TURN));
    commands.add_command(get(note));
    loop {
        let mut replies = exchange.send(&commands).await?;
        // A server without memory refuses, to all of them.
        let is_taken = replies.value()? == Value::Nil;
        let noted = tolerate(replies.bytes())?.flatten();
        if noted.as_deref() == Some(life.identity) {
            return Ok(false);
        }
        if !is_taken {
            return Ok(true);
        }
        exchange.wait_for(sleep(PAUSE)).await?;
    }
}

/// Does without what a server refuses, unless it does so only now.
fn tolerate<T>(reply: Result<T, Error>) -> Result<Option<T>, Error> {
    match reply {
        Err(error) if error.kind() == ErrorKind::Unavailable => Err(error),
        reply => Ok(reply.ok()),
    }
}

impl<'a> Life<'a> {
    /// Reads the life of a server that has everything from what it says of itself.
    fn of_whole(info: &'a [u8]) -> Option<Self> {
        Some(Self {
            identity: field(info, "master_replid:")?,
            is_doubtful: true,
        })
    }

    /// Reads the life of a server that has a part.
    fn of_part(info: &'a [u8]) -> Option<Self> {
        let number = |name| std::str::from_utf8(field(info, name)?).ok()?.parse().ok();
        let (dumped, logged) = (
            number("rdb_last_load_keys_loaded:")?,
            number("aof_enabled:")?,
        );
        let replicated: u64 = number("total_net_repl_input_bytes:")?;
        let is_young = number("uptime_in_seconds:")? <= EPOCH_TTL.as_secs();
        Some(Self {
            identity: field(info, "run_id:")?,
            is_doubtful: (dumped > 0 || logged > 0) && replicated == 0 && is_young,
        })
    }
}

/// Finds what a server says about one thing.
fn field<'a>(info: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut lines = info.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    lines.find_map(|line| line.strip_prefix(name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_is_found_among_what_a_server_says() {
        let info = b"# Replication\r\nrole:master\r\nmaster_replid:0f1e\r\nmaster_replid2:0000\r\n";
        let life = Life::of_whole(info).unwrap();
        assert_eq!(life.identity, b"0f1e");
        assert!(life.is_doubtful);
        assert_eq!(Life::of_whole(b"role:master\r\n"), None);
        assert_eq!(Life::of_whole(b""), None);
    }

    #[test]
    fn a_part_is_in_doubt_for_a_day_if_it_is_from_a_file() {
        let day = EPOCH_TTL.as_secs();
        for (keys, log, replicated, uptime, is_doubtful) in [
            (0, 0, 0, 1, false),
            (1, 0, 0, 1, true),
            (0, 1, 0, 1, true),
            (1, 1, 0, day, true),
            (1, 1, 0, day + 1, false),
            (1, 1, 1, 1, false),
        ] {
            let info = format!(
                "run_id:0f1e\r\nuptime_in_seconds:{uptime}\r\n# Persistence\r\n\
                 rdb_last_load_keys_loaded:{keys}\r\naof_enabled:{log}\r\n\
                 total_net_repl_input_bytes:{replicated}\r\n"
            );
            let life = Life::of_part(info.as_bytes()).unwrap();
            assert_eq!(life.identity, b"0f1e");
            assert_eq!(life.is_doubtful, is_doubtful, "{info}");
            for line in info.lines().filter(|line| line.contains(':')) {
                let without = info.replace(line, "");
                assert_eq!(Life::of_part(without.as_bytes()), None, "{without}");
            }
        }
    }
}
