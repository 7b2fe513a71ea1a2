//! Stored responses in Redis or Valkey, shared by many processes.

mod builder;
mod connection;
mod epochs;
mod layout;
mod memo;

#[cfg(test)]
#[path = "../../../tests/support/redis_server.rs"]
mod redis_server;

use std::sync::Arc;

use self::builder::Limits;
pub use self::builder::RedisStoreBuilder;
use self::connection::Connection;
use crate::error::Error;

/// x
#[derive(Clone, Debug)]
pub struct RedisStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    data: Connection,
    limits: Limits,
}

impl RedisStore {
    /// x
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Self::builder(url).connect().await
    }

    /// x
    pub fn builder(url: &str) -> RedisStoreBuilder {
        RedisStoreBuilder::new(url)
    }

    fn new(data: Connection, limits: Limits) -> Self {
        Self(Arc::new(Inner { data, limits }))
    }
}
