//! The store against real servers.

use std::sync::Arc;

use super::redis_server::RedisServer;
use super::*;
use crate::store::conformance;

#[tokio::test(flavor = "multi_thread")]
async fn the_store_conforms() {
    let redis = RedisServer::start();
    let store = RedisStore::connect(&redis.url()).await.unwrap();
    conformance::run(Arc::new(store)).await;
}
