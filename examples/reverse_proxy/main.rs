//! A caching reverse proxy in front of any HTTP/1.1 origin.
//!
//! ```text
//! cargo run --release --example reverse_proxy -- --listen 127.0.0.1:9000 --origin http://127.0.0.1:8000
//! curl -i http://127.0.0.1:9000/
//! ```
//!
//! The `Cache-Status` of an answer says whether it came from the cache, and why; with
//! `RUST_LOG=debug` the log says more. Clients speak HTTP/1.1 or, by prior knowledge, HTTP/2.
//!
//! Here the parts are put together and connections accepted; `proxy.rs` has the cache and what is
//! done to messages, `origin.rs` the way to the origin, and `interim.rs` brings interim responses
//! such as 103 (Early Hints) to clients.

mod interim;
mod options;
mod origin;
mod proxy;

use std::error::Error as StdError;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tower_response_cache::{CacheLayer, Error, ErrorKind, MemoryStore, RedisStore, TieredStore};
use tracing_subscriber::EnvFilter;

use self::interim::Interims;
use self::options::{Options, Storage, USAGE};
use self::origin::Origin;
use self::proxy::Proxy;

/// How much the store in memory holds, in bytes.
const MEMORY: u64 = 256 << 20;

/// How long a client may take to begin, or to go on with, its next request.
const IDLE: Duration = Duration::from_secs(75);

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&*error);
            let invalid = |error: &Error| error.kind() == ErrorKind::Invalid;
            if error.downcast_ref().is_some_and(invalid) {
                eprintln!("{USAGE}");
                ExitCode::from(2)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn report(error: &dyn StdError) {
    eprintln!("reverse_proxy: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("  because: {error}");
        cause = error.source();
    }
}

fn run() -> Result<(), Box<dyn StdError>> {
    let options = Options::parse(std::env::args_os().skip(1))?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = options.threads {
        runtime.worker_threads(threads.get());
    }
    runtime.enable_all().build()?.block_on(serve(options))
}

async fn serve(options: Options) -> Result<(), Box<dyn StdError>> {
    let cache = match options.store {
        Storage::Memory => CacheLayer::new(MemoryStore::new(MEMORY)),
        Storage::Redis(url) => CacheLayer::new(RedisStore::connect(&url).await?),
        Storage::Tiered(url) => {
            let redis = RedisStore::connect(&url).await?;
            CacheLayer::new(TieredStore::new(MemoryStore::new(MEMORY), redis))
        }
    };
    let proxy = Proxy::new(Origin::new(options.origin), cache.policy(options.preset))?;
    let listener = TcpListener::bind(options.listen).await?;
    writeln!(
        std::io::stdout(),
        "listening on http://{}",
        listener.local_addr()?
    )?;
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                tokio::spawn(converse(client, proxy.clone()));
            }
            Err(error) => {
                // Out of file descriptors, most likely: some may soon be free.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Answers the requests of one connection.
async fn converse(client: TcpStream, proxy: Proxy) {
    let interims = Interims::default();
    // Small answers are not to wait for the acknowledgement of earlier ones.
    if let Err(error) = client.set_nodelay(true) {
        tracing::debug!(%error, "the connection is gone already");
        return;
    }
    let io = TokioIo::new(interims.wrap(client));
    let service = service_fn(move |mut request| {
        let exchange = interims.begin(&mut request);
        let answer = proxy.clone().answer(request);
        async move {
            let response = answer.await;
            drop(exchange);
            response
        }
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE);
    if let Err(error) = server.serve_connection(io, service).await {
        tracing::debug!(error, "a connection ended early");
    }
}
