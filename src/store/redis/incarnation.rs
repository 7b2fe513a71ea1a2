//! Whether the server still lives the life in which its content was stored.
//!
//! A server that is started from a dump of an hour ago has the epochs of then, and the responses
//! under them: all that was invalidated since would come back. But each life of a server has an
//! identity of its own (`master_replid`), and the content says of which life it is. On each new
//! connection the two are compared before anything is believed; if they differ, the epoch of the
//! namespace is deleted.
//!
//! Not so in a cluster, where each failover of a part begins another life, and would end what all of
//! them hold. There only the last minute's invalidations are told again.

use parking_lot::RwLock;
use redis::Pipeline;
use smallvec::SmallVec;

use super::connection::{Exchange, get};
use super::layout;
use crate::epoch::Scope;
use crate::error::{Error, ErrorKind};
use crate::key::Namespace;

/// The namespaces that have been found to be of the life of the server that a connection is to.
#[derive(Debug, Default)]
pub(super) struct Trusted {
    namespaces: RwLock<SmallVec<[Namespace; 1]>>,
    /// Held by who compares: two at once would both empty what differs, and the second what the
    /// first one's caller has stored since.
    turn: tokio::sync::Mutex<()>,
}

impl Trusted {
    fn contains(&self, namespace: &Namespace) -> bool {
        self.namespaces.read().contains(namespace)
    }

    fn insert(&self, namespace: &Namespace) {
        self.namespaces.write().push(namespace.clone());
    }
}

/// Makes sure that what the namespace holds is of this life of the server, once for each
/// connection.
///
/// A server that does not tell which life it lives is believed, and so is one of a cluster.
///
/// # Errors
///
/// When the server cannot be asked, or the namespace not be emptied. Nothing may be believed then.
pub(super) async fn check(exchange: &mut Exchange<'_>, namespace: &Namespace) -> Result<(), Error> {
    let trusted = exchange.trusted();
    if exchange.is_of_cluster() || trusted.contains(namespace) {
        return Ok(());
    }
    let _turn = exchange.wait_for(trusted.turn.lock()).await?;
    if !trusted.contains(namespace) {
        compare(exchange, namespace).await?;
        trusted.insert(namespace);
    }
    Ok(())
}

async fn compare(exchange: &mut Exchange<'_>, namespace: &Namespace) -> Result<(), Error> {
    let name = layout::incarnation(namespace);
    let mut commands = Pipeline::with_capacity(2);
    commands.cmd("INFO").arg("replication");
    commands.add_command(get(&name));
    let mut replies = exchange.send(&commands).await?;
    let info = match replies.bytes() {
        Err(error) if error.kind() != ErrorKind::Refused => return Err(error),
        info => info.ok().flatten(),
    };
    let Some(life) = info.as_deref().and_then(identity) else {
        tracing::debug!(%namespace, "redis does not tell whether it was restored from a dump");
        return Ok(());
    };
    if replies.bytes().ok().flatten().as_deref() == Some(life) {
        return Ok(());
    }
    let everything = Scope::namespace(namespace.as_str());
    let mut commands = Pipeline::with_capacity(2);
    commands
        .cmd("DEL")
        .arg(layout::epoch(namespace, everything));
    commands.cmd("SET").arg(&name).arg(life);
    let mut replies = exchange.send(&commands).await?;
    replies.done()?;
    // A server without memory may refuse the note; then the next connection empties it again.
    let _ = replies.done();
    tracing::info!(%namespace, "redis has begun a new life: what it held is invalidated");
    Ok(())
}

/// Finds the identity of a server's life in what it says of itself.
fn identity(info: &[u8]) -> Option<&[u8]> {
    let mut lines = info.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    lines.find_map(|line| line.strip_prefix(b"master_replid:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_is_found_among_what_a_server_says() {
        let info = b"# Replication\r\nrole:master\r\nmaster_replid:0f1e\r\nmaster_replid2:0000\r\n";
        assert_eq!(identity(info), Some(&b"0f1e"[..]));
        assert_eq!(identity(b"role:master\r\n"), None);
        assert_eq!(identity(b""), None);
    }
}
