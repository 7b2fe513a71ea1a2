//! From settings to a store, as far as it is built in.

use super::Settings;
#[cfg(feature = "redis")]
use super::With as _;
use crate::error::{Error, ErrorKind};
use crate::middleware::CacheLayer;
#[cfg(feature = "memory")]
use crate::store::MemoryStore;
#[cfg(all(feature = "memory", feature = "redis"))]
use crate::store::TieredStore;
#[cfg(feature = "redis")]
use crate::store::{RedisStore, RedisStoreBuilder};

impl Settings {
    /// Connects to the store, and makes a layer over it.
    pub(super) async fn store(&self) -> Result<CacheLayer, Error> {
        match self.url.as_deref() {
            None | Some("memory") => self.memory(),
            Some(url) => match url.strip_prefix("tiered+") {
                Some(second) => self.tiered(second).await,
                None => self.redis(url).await,
            },
        }
    }

    #[cfg(feature = "memory")]
    fn memory(&self) -> Result<CacheLayer, Error> {
        Ok(CacheLayer::new(self.memory_store()))
    }

    #[cfg(feature = "memory")]
    fn memory_store(&self) -> MemoryStore {
        MemoryStore::new(self.max_memory.unwrap_or(64 << 20))
    }

    #[cfg(not(feature = "memory"))]
    fn memory(&self) -> Result<CacheLayer, Error> {
        Err(not_built_in("memory"))
    }

    #[cfg(feature = "redis")]
    async fn redis(&self, url: &str) -> Result<CacheLayer, Error> {
        Ok(CacheLayer::new(self.connect_redis(url).await?))
    }

    #[cfg(not(feature = "redis"))]
    async fn redis(&self, _url: &str) -> Result<CacheLayer, Error> {
        Err(not_built_in("redis"))
    }

    #[cfg(all(feature = "memory", feature = "redis"))]
    async fn tiered(&self, url: &str) -> Result<CacheLayer, Error> {
        let redis = self.connect_redis(url).await?;
        let store = TieredStore::new(self.memory_store(), redis)
            .with(
                self.memory_max_body.map(length),
                TieredStore::memory_max_body,
            )
            .with(self.when_away, TieredStore::when_away);
        Ok(CacheLayer::new(store))
    }

    #[cfg(not(all(feature = "memory", feature = "redis")))]
    async fn tiered(&self, url: &str) -> Result<CacheLayer, Error> {
        // One of the two says that it is not built in.
        self.memory().map(drop)?;
        self.redis(url).await
    }

    #[cfg(feature = "redis")]
    async fn connect_redis(&self, url: &str) -> Result<RedisStore, Error> {
        let builder = self.redis_builder(url)?;
        match builder.clone().connect().await {
            Err(error) if error.kind() != ErrorKind::Invalid => {
                tracing::warn!(%error, "starting without the store");
                builder.connect_lazily()
            }
            connected => connected,
        }
    }

    #[cfg(feature = "redis")]
    fn redis_builder(&self, url: &str) -> Result<RedisStoreBuilder, Error> {
        /// What a stored response takes beside its body.
        const ROOM_FOR_FIELDS: usize = 128 << 10;
        let entry = |body| length(body).saturating_add(ROOM_FOR_FIELDS);
        let strict = self.strict_tags.filter(|strict| *strict);
        let builder = RedisStore::builder(url)
            .with(self.connect_timeout, RedisStoreBuilder::connect_timeout)
            .with(self.read_timeout, RedisStoreBuilder::read_timeout)
            .with(self.capture_timeout, RedisStoreBuilder::capture_timeout)
            .with(self.write_timeout, RedisStoreBuilder::write_timeout)
            .with(self.check_interval, RedisStoreBuilder::check_interval)
            .with(self.breaker_threshold, RedisStoreBuilder::breaker_threshold)
            .with(self.breaker_pause, |builder, (first, longest)| {
                builder.breaker_pause(first, longest)
            })
            .with(self.mirroring, RedisStoreBuilder::mirroring)
            .with(self.max_body.map(entry), RedisStoreBuilder::max_entry_size)
            .with(self.wait_replicas, |builder, (replicas, within)| {
                builder.wait_replicas(replicas, within)
            })
            .with(strict, |builder, _| builder.strict_tags())
            .with(self.secret.as_ref(), RedisStoreBuilder::secret)
            .with(
                self.former_secret.as_ref(),
                RedisStoreBuilder::former_secret,
            )
            .with(
                self.sentinel_password.as_ref(),
                RedisStoreBuilder::sentinel_password,
            );
        self.secured(self.compressing(builder))
    }

    #[cfg(feature = "compression")]
    fn compressing(&self, builder: RedisStoreBuilder) -> RedisStoreBuilder {
        builder.with(
            self.compress_above.map(length),
            RedisStoreBuilder::compress_above,
        )
    }

    #[cfg(all(feature = "redis", not(feature = "compression")))]
    fn compressing(&self, builder: RedisStoreBuilder) -> RedisStoreBuilder {
        builder
    }

    #[cfg(feature = "redis-tls")]
    fn secured(&self, builder: RedisStoreBuilder) -> Result<RedisStoreBuilder, Error> {
        let identity = match (&self.tls_certificate, &self.tls_key) {
            (None, None) => None,
            (Some(chain), Some(key)) => Some((chain.as_slice(), key.as_slice())),
            _ => {
                let message = "tls_certificate and tls_key need each other";
                return Err(Error::new(ErrorKind::Invalid, message));
            }
        };
        Ok(builder
            .with(self.tls_roots.as_deref(), RedisStoreBuilder::tls_roots)
            .with(identity, |builder, (chain, key)| {
                builder.tls_identity(chain, key)
            }))
    }

    #[cfg(all(feature = "redis", not(feature = "redis-tls")))]
    fn secured(&self, builder: RedisStoreBuilder) -> Result<RedisStoreBuilder, Error> {
        Ok(builder)
    }
}

/// Returns a size as that of something in memory, which none is beyond.
pub(super) fn length(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(not(all(feature = "memory", feature = "redis")))]
fn not_built_in(feature: &str) -> Error {
    let message = format!("this store needs the feature `{feature}`, which is not built in");
    Error::new(ErrorKind::Invalid, message)
}
