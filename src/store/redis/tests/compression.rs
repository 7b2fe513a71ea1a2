//! Compressed bodies.

use super::*;

/// What one sample's response takes in Redis.
fn size(redis: &RedisServer, name: &str) -> usize {
    redis.command(&["STRLEN", name]).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_conforms_with_a_secret_and_compression() {
    let redis = RedisServer::start();
    let desk = Desk::with(&redis, |builder| {
        builder.secret("at least 16 bytes").compress_above(0)
    });
    conformance::run(Arc::new(desk.await.store)).await;
}

#[tokio::test]
async fn a_compressed_body_takes_less_and_is_read_by_stores_that_compress_none() {
    let redis = RedisServer::start();
    let [plain, compressing] = [
        Desk::new(&redis).await,
        Desk::with(&redis, |builder| builder.compress_above(1024)).await,
    ];
    let text = "All is well. ".repeat(10_000);
    let [long, short] = ["/long", "/short"].map(|path| plain.sample(path));
    let long = long.body(text.clone());
    for (sample, less) in [(&short, false), (&long, true)] {
        let name = plain.entry(sample);
        plain.fill(sample, &[]).await;
        let before = size(&redis, &name);
        let body = compressing.body(sample).await;
        compressing.fill(sample, &[]).await;
        assert_eq!(size(&redis, &name) < before / 10, less);
        assert_eq!(plain.body(sample).await, body);
    }
    assert_eq!(compressing.body(&long).await, Some(text.into()));
    let Outcome::Response(response) = plain.outcome(&long).await else {
        panic!("it is not found");
    };
    plain.store.remove(&response).await.unwrap();
    assert_eq!(plain.body(&long).await, None);
}

#[tokio::test]
async fn a_body_of_more_than_the_store_takes_is_neither_compressed_nor_restored() {
    let redis = RedisServer::start();
    let small = |builder: RedisStoreBuilder| builder.max_entry_size(4096).compress_above(0);
    let [small, large] = [
        Desk::with(&redis, small).await,
        Desk::with(&redis, |builder| builder.compress_above(0)).await,
    ];
    let sample = small.sample("/a").body(vec![0; 4097]);
    large.fill(&sample, &[]).await;
    assert!(size(&redis, &small.entry(&sample)) < 1024);
    assert!(matches!(small.outcome(&sample).await, Outcome::Damaged));
    let captured = small.capture(&sample.scopes()).await.unwrap();
    let kept = small.put(&sample, captured, &[]).await.unwrap();
    assert_eq!(kept, Kept::TooLarge);
}
