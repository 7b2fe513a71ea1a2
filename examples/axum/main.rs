//! A product catalogue behind the cache: 50,000 products in SQLite, and a list that takes
//! milliseconds to make.
//!
//! ```sh
//! cargo run --release --example axum
//! ```
//!
//! starts it on 127.0.0.1:3000 (`--listen ADDR`), with responses kept in memory. Then ask twice,
//! change a product, and ask again:
//!
//! ```sh
//! curl -i localhost:3000/products/42
//! curl -i -X PUT localhost:3000/products/42 --json '{"name": "brass lamp", "price": 19.5}'
//! ```
//!
//! Each answer says in `Cache-Status` what the cache did with it and why; `GET /stats` has the
//! sums, and `RUST_LOG=tower_response_cache=debug` the details. With
//! `CACHE_URL=redis://127.0.0.1:6379` responses are kept in Redis, and any number of processes
//! share them, as they then share one catalogue.

mod catalogue;

use std::env;
use std::error::Error;
use std::io::{IsTerminal, stdout};
use std::process::ExitCode;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::header::{AUTHORIZATION, COOKIE, LOCATION};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::signal;
use tower_response_cache::{CacheHandle, Rule, Rules, RulesError, Settings, Tags, Target};
use tracing::{error, info, warn};
use tracing_subscriber::EnvFilter;

use crate::catalogue::{Catalogue, Draft, Product};

/// What is cached for how long, and what a successful write makes obsolete besides its own path.
fn rules() -> Result<Rules, RulesError> {
    let seconds = Duration::from_secs;
    Rules::builder()
        .route("/products", Rule::ttl(seconds(60)).keep_query(["category"]))
        .route("/products/{id}", Rule::ttl(seconds(300)))
        .route("/search", Rule::ttl(seconds(30)).keep_query(["q"]))
        // A mistake, to show that it does no harm: whoever sends credentials is answered by the
        // handler. What is personal should have `Rule::bypass()`.
        .route("/account", Rule::ttl(seconds(60)))
        .route("/stats", Rule::bypass())
        .on_write("/products", ["/search"])
        .on_write("/products/{id}", ["/products", "/search"])
        .on_write("/categories/{category}/discount", ["/search"])
        .build()
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter);
    log.with_ansi(stdout().is_terminal()).init();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let address = listen_address()?;
    let cache = Settings::from_env()?.rules(rules()?).connect().await?;
    let handle = cache.handle();
    let catalogue = open_catalogue(&handle).await?;
    let app = Router::new()
        .route("/products", get(list).post(add))
        .route("/products/{id}", get(show).put(change).delete(remove))
        .route("/search", get(search))
        .route("/categories/{category}/discount", post(discount))
        .route("/account", get(account))
        .route("/stats", get(stats))
        .layer(Extension(handle.clone()))
        .with_state(catalogue)
        .layer(cache);

    let listener = TcpListener::bind(&address).await?;
    let address = listener.local_addr()?;
    info!("try, twice: curl -i http://{address}/products/42");
    axum::serve(listener, app)
        .with_graceful_shutdown(stopped())
        .await?;
    if !handle.shutdown(Duration::from_secs(5)).await {
        warn!("some responses were not stored in time");
    }
    Ok(())
}

/// Opens the catalogue that goes with the store: processes that share a cache must share the data.
async fn open_catalogue(cache: &CacheHandle) -> Result<Catalogue, Box<dyn Error>> {
    if cache.stats().store.tier == "memory" {
        return Catalogue::private().await;
    }
    let file = env::temp_dir().join("tower-response-cache-example.sqlite");
    info!("the catalogue is kept in {}", file.display());
    let (catalogue, new) = Catalogue::shared(file).await?;
    if new {
        let outcome = cache.invalidate(Target::everything()).await?;
        info!("it is new; invalidation of all that is cached of an older one: {outcome:?}");
    }
    Ok(catalogue)
}

#[derive(Deserialize)]
struct InCategory {
    category: i64,
}

/// Takes milliseconds without the cache.
async fn list(
    State(catalogue): State<Catalogue>,
    Query(InCategory { category }): Query<InCategory>,
) -> Result<(Extension<Tags>, Json<Vec<Product>>), Failure> {
    let products = catalogue.category(category).await?;
    Ok((Extension(Tags::new([tag(category)])), Json(products)))
}

async fn show(
    State(catalogue): State<Catalogue>,
    Path(id): Path<i64>,
) -> Result<(Extension<Tags>, Json<Product>), Failure> {
    let product = catalogue.product(id).await?;
    Ok((Extension(Tags::new([tag(product.category)])), Json(product)))
}

#[derive(Deserialize)]
struct Containing {
    q: String,
}

async fn search(
    State(catalogue): State<Catalogue>,
    Query(Containing { q }): Query<Containing>,
) -> Result<Json<Vec<Product>>, Failure> {
    Ok(Json(catalogue.search(q).await?))
}

/// The cache also invalidates the `Location` that this answer names.
async fn add(
    State(catalogue): State<Catalogue>,
    Json(draft): Json<Draft>,
) -> Result<impl IntoResponse, Failure> {
    let product = catalogue.add(draft).await?;
    let location = format!("/products/{}", product.id);
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(product)))
}

async fn change(
    State(catalogue): State<Catalogue>,
    Path(id): Path<i64>,
    Json(draft): Json<Draft>,
) -> Result<Json<Product>, Failure> {
    Ok(Json(catalogue.change(id, draft).await?))
}

async fn remove(
    State(catalogue): State<Catalogue>,
    Path(id): Path<i64>,
) -> Result<StatusCode, Failure> {
    catalogue.remove(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct Discount {
    percent: u8,
}

/// Changes many products at once. No pattern is theirs alone, so their pages and their list are
/// invalidated by the tag that they have in common.
async fn discount(
    State(catalogue): State<Catalogue>,
    Extension(cache): Extension<CacheHandle>,
    Path(category): Path<i64>,
    Json(Discount { percent }): Json<Discount>,
) -> Result<String, Failure> {
    let changed = catalogue.discount(category, percent.min(100)).await?;
    let invalidated = cache.invalidate(Target::tag(tag(category))).await?;
    Ok(format!(
        "{changed} prices changed, invalidation {invalidated:?}\n"
    ))
}

fn tag(category: i64) -> String {
    format!("category:{category}")
}

/// Answers with the caller's own credentials, which must never reach anyone else.
async fn account(headers: HeaderMap) -> Response {
    let credentials: Vec<_> = [AUTHORIZATION, COOKIE]
        .iter()
        .filter_map(|name| headers.get(name))
        .map(|value| String::from_utf8_lossy(value.as_bytes()))
        .collect();
    if credentials.is_empty() {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    Json(credentials).into_response()
}

async fn stats(Extension(cache): Extension<CacheHandle>) -> String {
    format!("{:#?}\n", cache.stats())
}

/// Why a handler has no answer.
struct Failure(Box<dyn Error + Send + Sync>);

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        if let Some(rusqlite::Error::QueryReturnedNoRows) = self.0.downcast_ref() {
            return StatusCode::NOT_FOUND.into_response();
        }
        error!("no answer: {}", self.0);
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}

fn listen_address() -> Result<String, &'static str> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    match &arguments[..] {
        [] => Ok("127.0.0.1:3000".to_owned()),
        [option, address] if option == "--listen" => Ok(address.clone()),
        _ => Err("the one option is `--listen ADDR`, as in `--listen 127.0.0.1:3000`"),
    }
}

/// Waits for ctrl-c or SIGTERM.
async fn stopped() {
    tokio::select! {
        interrupt = signal::ctrl_c() => interrupt.expect("the signal can be caught"),
        () = terminated() => {}
    }
}

#[cfg(unix)]
async fn terminated() {
    let terminate = signal::unix::signal(signal::unix::SignalKind::terminate());
    terminate.expect("the signal can be caught").recv().await;
}

#[cfg(not(unix))]
use std::future::pending as terminated;
