//! What the benches ask for, and the rules that cache it.

use std::time::Duration;

use axum::body::Body;
use http::Request;
use tower_response_cache::{Rule, Rules};

pub(crate) fn rules() -> Rules {
    Rules::builder()
        .route("/products/{id}", Rule::ttl(Duration::from_secs(3600)))
        .build()
        .expect("the rules are sound")
}

pub(crate) fn request() -> Request<Body> {
    Request::get("/products/42")
        .header("host", "shop.example")
        .header("user-agent", "curl/8.5.0")
        .header("accept", "*/*")
        .header("accept-encoding", "gzip, br")
        .body(Body::empty())
        .expect("the parts are valid")
}
