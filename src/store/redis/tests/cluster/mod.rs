//! The store over a cluster: all of it at once, and while parts of it move and fail.

mod servers;

use tokio::time::sleep;

use self::servers::RedisCluster;
use super::*;
use crate::store::redis::shards;

impl RedisCluster {
    async fn desk(&self) -> Desk {
        Desk::of(patient(&self.url()).connect().await.unwrap())
    }

    /// Makes sure that no server was sent what is not its own, or spans slots.
    fn assert_no_errors(&self) {
        for server in self.all() {
            let errors = server.command(&["INFO", "errorstats"]);
            // The client names itself, which Redis learned to understand with 7.2.
            let errors = errors
                .lines()
                .filter(|line| !line.starts_with("errorstat_ERR:"));
            assert_eq!(errors.collect::<Vec<_>>(), ["# Errorstats"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_cluster_the_store_conforms() {
    let cluster = RedisCluster::start();
    let store = patient(&cluster.url()).connect().await.unwrap();
    conformance::run(Arc::new(store)).await;
    cluster.assert_no_errors();
    for server in cluster.primaries() {
        let keys = server.command(&["DBSIZE"]);
        assert_ne!(keys, "0", "each has a part");
    }
}
