//! A tonic service behind the cache, and a client that shows what the cache does with its calls.
//!
//! ```sh
//! cargo run --release --example tonic
//! ```
//!
//! Each line is a call: what it asked for, the answer, how long it took, and what the cache says in
//! `cache-status`. To find a price takes 50 ms; the second time it is known by the message. To
//! change one is a write, after which it has to be found again; a call that fails is not kept.

use std::collections::HashMap;
use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::io::{Write, stdout};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prost::Message;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tonic::body::Body;
use tonic::client;
use tonic::codegen::http::{self, uri::PathAndQuery};
use tonic::server::{self, NamedService};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};
use tower_response_cache::{CacheLayer, MemoryStore, Rule, Rules};

const FIND: &str = "/shop.Prices/Find";
const CHANGE: &str = "/shop.Prices/Change";

#[derive(Clone, PartialEq, Message)]
struct Price {
    #[prost(string, tag = "1")]
    product: String,
    #[prost(uint32, tag = "2")]
    cents: u32,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let rules = Rules::builder()
        .route(FIND, Rule::ttl(Duration::from_secs(60)).grpc_unary())
        .on_write(CHANGE, [FIND])
        .build()?;
    let cache = CacheLayer::new(MemoryStore::new(64 << 20)).rules(rules);
    let mut server = Server::builder().layer(cache.keyed_by_content(Body::new));

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let router = server.add_service(Prices::default());
    tokio::spawn(router.serve_with_incoming(TcpIncoming::from(listener)));

    let channel = Channel::from_shared(format!("http://{address}"))?
        .connect()
        .await?;
    let mut client = client::Grpc::new(channel);
    call(&mut client, CHANGE, "teapot", 1999).await?;
    call(&mut client, FIND, "teapot", 0).await?;
    call(&mut client, FIND, "teapot", 0).await?;
    call(&mut client, CHANGE, "teapot", 1499).await?;
    call(&mut client, FIND, "teapot", 0).await?;
    call(&mut client, FIND, "teapot", 0).await?;
    call(&mut client, FIND, "samovar", 0).await?;
    call(&mut client, FIND, "samovar", 0).await
}

/// Makes a call and shows what came of it.
async fn call(
    client: &mut client::Grpc<Channel>,
    method: &'static str,
    product: &str,
    cents: u32,
) -> Result<(), Box<dyn Error>> {
    let product = product.to_owned();
    let request = Request::new(Price {
        product: product.clone(),
        cents,
    });
    let started = Instant::now();
    client.ready().await?;
    let path = PathAndQuery::from_static(method);
    let codec = ProstCodec::<Price, Price>::default();
    let answer = client.unary(request, path, codec).await;
    let took = started.elapsed().as_millis();
    let (found, metadata) = match &answer {
        Ok(answer) => (
            format!("{} cents", answer.get_ref().cents),
            answer.metadata(),
        ),
        Err(status) => (status.message().to_owned(), status.metadata()),
    };
    let cache = metadata.get("cache-status").map(|value| value.to_str());
    let cache = cache.transpose()?.unwrap_or_default();
    writeln!(
        stdout(),
        "{method:20} {product:8} {found:10} {took:3} ms  {cache}"
    )?;
    Ok(())
}

/// What things cost, by their names. Written out here is what tonic generates from a file of
/// definitions.
#[derive(Clone, Default)]
struct Prices(Arc<Mutex<HashMap<String, u32>>>);

impl Prices {
    async fn find(self, request: Request<Price>) -> Result<Response<Price>, Status> {
        sleep(Duration::from_millis(50)).await;
        let product = request.into_inner().product;
        let cents = self.0.lock().get(&product).copied();
        let cents = cents.ok_or_else(|| Status::not_found("no price"))?;
        Ok(Response::new(Price { product, cents }))
    }

    async fn change(self, request: Request<Price>) -> Result<Response<Price>, Status> {
        let price = request.into_inner();
        self.0.lock().insert(price.product.clone(), price.cents);
        Ok(Response::new(price))
    }
}

impl NamedService for Prices {
    const NAME: &'static str = "shop.Prices";
}

impl Service<http::Request<Body>> for Prices {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let prices = self.clone();
        Box::pin(async move {
            let mut grpc = server::Grpc::new(ProstCodec::<Price, Price>::default());
            let find = service_fn(|request| prices.clone().find(request));
            let change = service_fn(|request| prices.clone().change(request));
            Ok(match request.uri().path() {
                FIND => grpc.unary(find, request).await,
                CHANGE => grpc.unary(change, request).await,
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}
