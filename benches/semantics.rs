//! What the law costs: reading the heads of an exchange, deciding to store its response, and
//! deciding to reuse it.
//!
//! `cargo bench --bench semantics --features test-util`

use std::time::{Duration, SystemTime};

use criterion::Criterion;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, DATE,
    ETAG, EXPIRES, LAST_MODIFIED, SERVER, USER_AGENT, VARY,
};
use http::{HeaderName, Request, Response};
use tower_response_cache::SampleExchange;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for (name, fields) in responses() {
        steps(&mut criterion, name, fields);
    }
    criterion.final_summary();
}

fn responses() -> [(&'static str, &'static [(HeaderName, &'static str)]); 3] {
    [
        (
            "api",
            &[
                (CONTENT_TYPE, "application/json"),
                (CONTENT_LENGTH, "1024"),
                (
                    CACHE_CONTROL,
                    "public, max-age=60, stale-while-revalidate=30",
                ),
                (ETAG, "\"33a64df551425fcc55e4d42a148795d9f25f89d4\""),
            ],
        ),
        (
            "page",
            &[
                (SERVER, "nginx"),
                (DATE, "Sun, 06 Nov 1994 08:49:37 GMT"),
                (CONTENT_TYPE, "text/html; charset=utf-8"),
                (CONTENT_LENGTH, "20480"),
                (LAST_MODIFIED, "Sat, 05 Nov 1994 08:49:37 GMT"),
                (CACHE_CONTROL, "s-maxage=600, max-age=60, must-revalidate"),
                (VARY, "Accept-Encoding"),
                (ETAG, "\"4f80f-1b6-3e1cb03b\""),
            ],
        ),
        (
            "languages",
            &[
                (DATE, "Sun, 06 Nov 1994 08:49:37 GMT"),
                (EXPIRES, "Sun, 06 Nov 1994 09:49:37 GMT"),
                (CONTENT_TYPE, "text/html; charset=utf-8"),
                (VARY, "Accept-Encoding, Accept-Language"),
            ],
        ),
    ]
}

fn steps(criterion: &mut Criterion, name: &str, fields: &[(HeaderName, &str)]) {
    let received = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    let exchange = SampleExchange::new(&request(), &response(fields), received);
    let parsed = exchange.parse();
    let resident = Duration::from_secs(10);
    assert!(exchange.store(&parsed).is_some() && exchange.reuse(&parsed, resident));

    let mut group = criterion.benchmark_group(name);
    group.bench_function("parse", |bencher| bencher.iter(|| exchange.parse()));
    group.bench_function("store", |bencher| bencher.iter(|| exchange.store(&parsed)));
    group.bench_function("reuse", |bencher| {
        bencher.iter(|| exchange.reuse(&parsed, resident));
    });
}

/// What a browser sends.
fn request() -> Request<()> {
    Request::get("http://a.example/")
        .header(USER_AGENT, "Mozilla/5.0 (X11; Linux x86_64; rv:140.0)")
        .header(ACCEPT, "text/html,application/xhtml+xml,*/*;q=0.8")
        .header(ACCEPT_ENCODING, "gzip, deflate, br, zstd")
        .header(ACCEPT_LANGUAGE, "en-US,en;q=0.7,de;q=0.3")
        .body(())
        .expect("a request")
}

fn response(fields: &[(HeaderName, &str)]) -> Response<()> {
    let response = fields
        .iter()
        .fold(Response::builder(), |response, (name, value)| {
            response.header(name, *value)
        });
    response.body(()).expect("a response")
}
