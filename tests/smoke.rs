use axum::{Router, body::Body, routing::get};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use std::time::Duration;
use tower::ServiceExt;
use tower_response_cache::*;

#[tokio::test]
async fn smoke() {
    let rules = Rules::builder()
        .route("/p/{id}", Rule::ttl(Duration::from_secs(60)).tag("p:{id}"))
        .build()
        .unwrap();
    let cache = CacheLayer::new(MemoryStore::new(64 << 20)).rules(rules);
    let handle = cache.handle();
    let n = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let n2 = n.clone();
    let app = Router::new()
        .route(
            "/p/{id}",
            get(move || {
                let n = n2.clone();
                async move { format!("v{}", n.fetch_add(1, std::sync::atomic::Ordering::SeqCst)) }
            })
            .put(|| async { StatusCode::NO_CONTENT }),
        )
        .layer(cache);
    for i in 0..3 {
        let r = app
            .clone()
            .oneshot(Request::get("http://h/p/1").body(Body::empty()).unwrap())
            .await
            .unwrap();
        println!("{:?}", r);
        let b = r.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(b, "v0", "{i}");
    }
    let r = app
        .clone()
        .oneshot(Request::put("http://h/p/1").body(Body::empty()).unwrap())
        .await
        .unwrap();
    println!("{:?}", r);
    let r = app
        .clone()
        .oneshot(Request::get("http://h/p/1").body(Body::empty()).unwrap())
        .await
        .unwrap();
    println!("{:?}", r);
    assert_eq!(r.into_body().collect().await.unwrap().to_bytes(), "v1");
    println!("{:#?}", handle.stats());
}
