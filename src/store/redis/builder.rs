//! The options of a [`RedisStore`].

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::connection::{AddressOptions, BreakerPolicy, Bulletin, Target};
use super::replicas::Quorum;
use super::seal::Seal;
use super::shards::{Plan, Shards};
use super::{Mirroring, RedisStore};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind};

/// Sets up a [`RedisStore`]; made by [`RedisStore::builder`].
///
/// Ends with [`connect`](Self::connect) or [`connect_lazily`](Self::connect_lazily), which also
/// report what is wrong with the options.
#[derive(Clone)]
#[must_use]
pub struct RedisStoreBuilder {
    /// Not shown by `Debug`: it may hold a password.
    url: String,
    address: AddressOptions,
    connect_timeout: Duration,
    check_interval: Duration,
    limits: Limits,
    breaker: BreakerPolicy,
    mirroring: Mirroring,
    quorum: Option<Quorum>,
    /// Neither of the two is shown by `Debug`.
    secret: Option<Box<[u8]>>,
    former_secret: Option<Box<[u8]>>,
}

/// The times that an option of a store can be.
pub(crate) const WAITS: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(60);

/// What a store keeps within.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) read: Duration,
    pub(super) capture: Duration,
    pub(super) write: Duration,
    pub(super) entry_size: usize,
    /// The longest body that is not compressed; `None` compresses none.
    pub(super) compress_above: Option<usize>,
    /// Whether a tag that nobody used before is believed not to have been invalidated.
    pub(super) strict_tags: bool,
}

impl RedisStoreBuilder {
    pub(super) fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            address: AddressOptions::default(),
            connect_timeout: Duration::from_millis(500),
            check_interval: Duration::from_secs(5),
            limits: Limits {
                read: Duration::from_millis(100),
                capture: Duration::from_millis(50),
                write: Duration::from_secs(1),
                entry_size: (1 << 20) + (128 << 10),
                compress_above: None,
                strict_tags: false,
            },
            breaker: BreakerPolicy::default(),
            mirroring: Mirroring::default(),
            quorum: None,
            secret: None,
            former_secret: None,
        }
    }

    /// Gives this password to the Sentinels, which have no part in that of the URL; by default none.
    ///
    /// Their user `default` needs no more than `+ping +sentinel|get-master-addr-by-name`, and `AUTH`,
    /// which is open to all.
    pub fn sentinel_password(mut self, password: impl Into<String>) -> Self {
        self.address.sentinel_password = Some(password.into());
        self
    }

    /// Gives up an attempt to connect after this time; 500 ms by default.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// Makes sure every so often that a server still answers on which nothing fails; 5 s by default.
    ///
    /// So a server that went away is known before the first request of the morning waits for it.
    /// Sentinels are asked more often.
    pub fn check_interval(mut self, interval: Duration) -> Self {
        self.check_interval = interval;
        self
    }

    /// Takes a look-up that lasts longer for a miss; 100 ms by default.
    ///
    /// A request may wait for so long, and for [`capture_timeout`](Self::capture_timeout), before
    /// the handler runs, until the circuit breaker opens; but for all of it together no longer than
    /// [`CacheLayer::store_wait`](crate::CacheLayer::store_wait), which a longer time here should not
    /// exceed: the breaker does not count what a request has given up.
    pub fn read_timeout(mut self, limit: Duration) -> Self {
        self.limits.read = limit;
        self
    }

    /// Does not store the response to a miss if learning the epochs takes longer; 50 ms by default.
    pub fn capture_timeout(mut self, limit: Duration) -> Self {
        self.limits.capture = limit;
        self
    }

    /// Gives up storing, invalidating and removing after this time; 1 s by default.
    pub fn write_timeout(mut self, limit: Duration) -> Self {
        self.limits.write = limit;
        self
    }

    /// Stores no response that takes more bytes than this, key and fields and all; by default 1 MiB
    /// for the body and 128 KiB for the rest.
    pub fn max_entry_size(mut self, bytes: usize) -> Self {
        self.limits.entry_size = bytes;
        self
    }

    /// Compresses bodies of more bytes than this (LZ4), where that pays; by default none.
    ///
    /// This saves memory of the server and time on the network, and costs time of the processor
    /// whenever a response is stored or read. What has a `Content-Encoding`, or a type that is
    /// compressed by itself, such as images, is left alone, and so is what would not become smaller
    /// by an eighth. [`max_entry_size`](Self::max_entry_size) also bounds what a body was before.
    ///
    /// What is stored compressed is a miss for processes that are built without this feature. Of
    /// those that are built with it, each reads what another stored, whatever their options.
    #[cfg(feature = "compression")]
    pub fn compress_above(mut self, bytes: usize) -> Self {
        self.limits.compress_above = Some(bytes);
        self
    }

    /// Opens the circuit breaker after so many commands in a row without an answer, one or more; 5 by
    /// default.
    ///
    /// It also opens when at least half of 20 or more commands within a second went unanswered.
    pub fn breaker_threshold(mut self, failures: u32) -> Self {
        self.breaker.consecutive = failures;
        self
    }

    /// Probes a server first after so long when the breaker has opened, and at last every so often;
    /// 500 ms and 10 s by default. The latter is no shorter than the former.
    pub fn breaker_pause(mut self, first: Duration, longest: Duration) -> Self {
        self.breaker.pause = first;
        self.breaker.longest_pause = longest;
        self
    }

    /// Stores a response under a tag that only the response names only if the tag was in use before
    /// the handler ran.
    ///
    /// Otherwise the store relies on a note of two minutes that each invalidation leaves. A server
    /// that is short of memory may evict that note, and then a response that was produced during
    /// the invalidation is stored as if it came after it. With this option the first response with
    /// a new tag is not stored, but the second is.
    pub fn strict_tags(mut self) -> Self {
        self.limits.strict_tags = true;
        self
    }

    /// Says how this process learns that what it holds in memory has been invalidated elsewhere;
    /// [`Mirroring::Tracking`] by default.
    ///
    /// Without memory over it, a store asks with each look-up, and this does not matter.
    pub fn mirroring(mut self, mode: Mirroring) -> Self {
        self.mirroring = mode;
        self
    }

    /// Counts an invalidation as applied only when so many replicas know of it, and as queued if
    /// that takes longer than `within`; by default none has to know.
    ///
    /// A failover to a replica that does not know of an invalidation brings back what was
    /// invalidated. This makes that less likely; it also makes each write wait for the replicas,
    /// and queues invalidations while too few are there.
    pub fn wait_replicas(mut self, replicas: u32, within: Duration) -> Self {
        self.quorum = Some(Quorum { replicas, within });
        self
    }

    /// Believes only what was stored with the same secret, for a server that others can write to; by
    /// default whatever is whole is believed.
    ///
    /// Each response, and each list of what varies under a key, is stored with a tag (keyed BLAKE3)
    /// over its bytes and its name. What was made up, changed or copied to another name is then a
    /// miss, counted as damaged, and deleted; so is what was stored with another secret or with none.
    /// The secret has at least 16 bytes and cannot be guessed: what `openssl rand -hex 32` prints, no
    /// word that somebody made up. Processes that do not trust each other have different secrets.
    ///
    /// # What it does not prevent
    ///
    /// Whoever can write to the server can still
    ///
    /// * delete anything, and forge locks. This costs calls of the handler, and requests that wait for
    ///   a fetch that nobody makes, as long as they wait for a slow one. No response is changed by it.
    /// * undo invalidations. Epochs have no tag, since one that was deleted could be put back with its
    ///   tag. So an invalidated response may be served again, to the requests that it once answered,
    ///   for as long as its own lifetime and stale windows last.
    /// * put back what stood under the same name before, or stands there in another server or database
    ///   that is used with the same secret and namespace.
    /// * read. Nothing is encrypted.
    pub fn secret(mut self, secret: impl AsRef<[u8]>) -> Self {
        self.secret = Some(secret.as_ref().into());
        self
    }

    /// Also believes what was stored with this secret, which the other one has replaced.
    ///
    /// Without this, a new [`secret`](Self::secret) makes everything stored a miss. It is of use for
    /// as long as responses stay stored, which is a day at most.
    pub fn former_secret(mut self, secret: impl AsRef<[u8]>) -> Self {
        self.former_secret = Some(secret.as_ref().into());
        self
    }

    /// Connects to the server.
    ///
    /// # Errors
    ///
    /// When an option is wrong, when the server does not answer in time, and when it refuses.
    pub async fn connect(self) -> Result<RedisStore, Error> {
        let (target, plan, seal) = (self.target()?, self.plan()?, self.seal()?);
        let shards = Shards::open(target, plan).await?;
        Ok(self.store(shards, seal))
    }

    /// Starts without a connection and connects in the background, trying until it succeeds.
    ///
    /// Until then every method of the store fails at once, which to a request is a miss.
    ///
    /// # Errors
    ///
    /// When an option is wrong, and outside a Tokio runtime.
    pub fn connect_lazily(self) -> Result<RedisStore, Error> {
        let (target, plan, seal) = (self.target()?, self.plan()?, self.seal()?);
        let shards = Shards::open_lazily(target, plan)?;
        Ok(self.store(shards, seal))
    }

    fn store(&self, shards: Shards, seal: Seal) -> RedisStore {
        RedisStore::new(shards, self.limits, seal, Clock::system())
    }

    fn target(&self) -> Result<Target, Error> {
        Target::parse(&self.url, &self.address)
    }

    fn seal(&self) -> Result<Seal, Error> {
        Seal::new(self.secret.as_deref(), self.former_secret.as_deref())
    }

    pub(super) fn plan(&self) -> Result<Plan, Error> {
        self.check()?;
        Ok(Plan {
            connect_timeout: self.connect_timeout,
            check_interval: self.check_interval,
            breaker: self.breaker,
            mirroring: self.mirroring,
            quorum: self.quorum,
            clock: Clock::system(),
            bulletin: Arc::new(Bulletin::new()),
        })
    }

    fn check(&self) -> Result<(), Error> {
        for (name, time) in [
            ("connect_timeout", self.connect_timeout),
            ("check_interval", self.check_interval),
            ("read_timeout", self.limits.read),
            ("capture_timeout", self.limits.capture),
            ("write_timeout", self.limits.write),
            ("breaker_pause", self.breaker.pause),
            ("breaker_pause", self.breaker.longest_pause),
        ]
        .into_iter()
        .chain(self.quorum.map(|quorum| ("wait_replicas", quorum.within)))
        {
            if !WAITS.contains(&time) {
                return Err(wrong(format!(
                    "{name} of {time:?} is not between 1 ms and 60 s"
                )));
            }
        }
        let BreakerPolicy {
            consecutive,
            pause,
            longest_pause,
            ..
        } = self.breaker;
        if consecutive == 0 {
            return Err(wrong("breaker_threshold of 0 is no number of failures"));
        }
        if pause > longest_pause {
            return Err(wrong(format!(
                "breaker_pause of {pause:?} at first is longer than {longest_pause:?} at last"
            )));
        }
        if let Mirroring::Poll {
            max_staleness: Duration::ZERO,
        } = self.mirroring
        {
            return Err(wrong(
                "mirroring by `Poll` of no time holds nothing: that is `Off`",
            ));
        }
        Ok(())
    }
}

fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

#[cfg(feature = "redis-tls")]
impl RedisStoreBuilder {
    /// Trusts these certificate authorities, in PEM, and no others; by default those of the system.
    ///
    /// With this, the URL has to be one of TLS.
    pub fn tls_roots(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.address.tls.roots = Some(pem.into());
        self
    }

    /// Shows a server that asks for it this chain of certificates, our own first, and proves by its
    /// key that they are ours; both in PEM. By default there is nothing to show.
    ///
    /// With this, the URL has to be one of TLS.
    pub fn tls_identity(mut self, chain: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.address.tls.identity = Some((chain.into(), key.into()));
        self
    }
}

impl fmt::Debug for RedisStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStoreBuilder")
            .field("connect_timeout", &self.connect_timeout)
            .field("check_interval", &self.check_interval)
            .field("limits", &self.limits)
            .field("breaker", &self.breaker)
            .field("mirroring", &self.mirroring)
            .field("quorum", &self.quorum)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_that_makes_no_sense_is_refused_by_name() {
        let builder = || RedisStoreBuilder::new("redis://localhost");
        for (builder, name) in [
            (builder().connect_timeout(Duration::ZERO), "connect_timeout"),
            (builder().read_timeout(Duration::MAX), "read_timeout"),
            (builder().capture_timeout(Duration::ZERO), "capture_timeout"),
            (builder().write_timeout(Duration::MAX), "write_timeout"),
            (
                builder().breaker_pause(Duration::ZERO, Duration::from_secs(1)),
                "breaker_pause",
            ),
            (
                builder().breaker_pause(Duration::from_secs(10), Duration::from_secs(1)),
                "breaker_pause",
            ),
            (builder().breaker_threshold(0), "breaker_threshold"),
            (
                builder().mirroring(Mirroring::Poll {
                    max_staleness: Duration::ZERO,
                }),
                "mirroring",
            ),
        ] {
            let error = builder.connect_lazily().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().starts_with(name), "{error}");
        }
    }

    #[test]
    fn outside_a_runtime_it_is_an_error_and_no_panic() {
        let error = RedisStoreBuilder::new("redis://localhost")
            .connect_lazily()
            .unwrap_err();
        assert!(error.to_string().contains("Tokio runtime"), "{error}");
    }

    #[test]
    fn neither_password_nor_secrets_are_shown() {
        let builder = RedisStoreBuilder::new("redis://:s3cret@localhost")
            .secret("s3cret of 16 bytes or more")
            .former_secret("s3cret of 16 bytes before");
        assert!(!format!("{builder:?}").contains("s3cret"));
    }
}
