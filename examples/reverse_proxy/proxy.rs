//! The proxy: the cache, what clients see in front of it and the origin behind it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, TE, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
};
use http_body_util::{Either, Full};
use hyper::body::{Body as _, Incoming};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::TokioExecutor;
use tower::{Layer, Service, ServiceExt};
use tower_response_cache::{CacheLayer, CacheService, ResponseBody};

/// How long the origin may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the origin may take until its final response begins.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// What clients read: a response through the cache, or a line from the proxy.
pub(crate) type Body = Either<ResponseBody<Incoming>, Full<Bytes>>;

/// Answers clients from the cache in front of the origin.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    cache: CacheService<Origin>,
}

impl Proxy {
    pub(crate) fn new(origin: Authority, cache: &CacheLayer) -> Self {
        Self {
            cache: cache.layer(Origin::new(origin)),
        }
    }

    /// Answers a request, come what may.
    ///
    /// An origin that fails is an error up to here and a 502 from here on, so that the cache in
    /// between can serve what it has.
    pub(crate) async fn answer(
        self,
        mut request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        if let Err((status, why)) = admit(&mut request) {
            return Ok(refusal(status, why));
        }
        match self.cache.oneshot(request).await {
            Ok(response) => Ok(response.map(Either::Left)),
            Err(error) => {
                tracing::warn!(?error, "the origin failed");
                Ok(refusal(error.status(), error.explanation()))
            }
        }
    }
}

/// Turns what a client sent into a request that cache and origin can take, or says why not.
fn admit(request: &mut Request<Incoming>) -> Result<(), (StatusCode, &'static str)> {
    if request.method() == Method::CONNECT {
        return Err((StatusCode::NOT_IMPLEMENTED, "this proxy makes no tunnels\n"));
    }
    let target = request.uri().authority().map(host_of);
    let version = request.version();
    let headers = request.headers_mut();
    let takes_trailers =
        members(headers, TE).any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
    // Before the cache, so that no field that the origin will not see can choose a variant.
    strip_connection_fields(headers);
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    match target {
        // An authority in the target stands above `Host` (RFC 9112 §3.2.2, RFC 9113 §8.3.1).
        Some(Ok(host)) => {
            headers.insert(HOST, host);
        }
        Some(Err(_)) => return Err((StatusCode::BAD_REQUEST, "the target is malformed\n")),
        // RFC 9112 §3.2
        None => match (version, headers.get_all(HOST).iter().count()) {
            (_, 1) | (Version::HTTP_10, 0) => {}
            _ => return Err((StatusCode::BAD_REQUEST, "exactly one Host is needed\n")),
        },
    }
    join_cookies(headers);
    headers.append(
        VIA,
        HeaderValue::from_static(match version {
            Version::HTTP_10 => "1.0 tower-response-cache",
            Version::HTTP_11 => "1.1 tower-response-cache",
            _ => "2.0 tower-response-cache",
        }),
    );
    Ok(())
}

/// Returns host and port, without userinfo, which has no place in `Host`.
fn host_of(authority: &Authority) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
    let host = authority.as_str();
    HeaderValue::from_str(host.rsplit_once('@').map_or(host, |(_, host)| host))
}

/// Joins the cookies that HTTP/2 may send one a line (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let lines: Vec<_> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if lines.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&lines.join(&b"; "[..]))
    {
        headers.insert(COOKIE, joined);
    }
}

/// Removes the fields that are about one connection only (RFC 9110 §7.6.1).
pub(crate) fn strip_connection_fields(headers: &mut HeaderMap) {
    const ALWAYS: [HeaderName; 6] = [
        CONNECTION,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        TE,
        TRANSFER_ENCODING,
        UPGRADE,
    ];
    if headers.contains_key(TRANSFER_ENCODING) {
        // RFC 9112 §6.3: it was not this length that framed the message.
        headers.remove(CONTENT_LENGTH);
    }
    let listed: Vec<_> = members(headers, CONNECTION)
        .filter_map(|option| HeaderName::from_bytes(option).ok())
        .collect();
    for name in listed.iter().chain(&ALWAYS) {
        headers.remove(name);
    }
}

/// Returns the members of a list that may be spread over several field lines (RFC 9110 §5.6.1).
fn members(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(name).into_iter();
    lines
        .flat_map(|line| line.as_bytes().split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
}

fn refusal(status: StatusCode, why: &'static str) -> Response<Body> {
    let mut response = Response::new(Either::Right(Full::from(why)));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

/// The origin server, as the cache's inner service.
#[derive(Clone, Debug)]
struct Origin {
    client: Arc<Client<HttpConnector, Incoming>>,
    authority: Authority,
}

impl Origin {
    fn new(authority: Authority) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            // A connection that was used before may be closing when the next request is sent, and
            // a request whose connection closed may have been carried out: each has a connection
            // of its own, and is sent once.
            .pool_max_idle_per_host(0)
            .retry_canceled_requests(false)
            .set_host(false)
            .http1_max_headers(1000)
            // RFC 9112 §5.1, §5.2: what a proxy has to mend in responses.
            .http1_allow_spaces_after_header_name_in_responses(true)
            .http1_allow_obsolete_multiline_headers_in_responses(true)
            .build(connector);
        Self {
            client: Arc::new(client),
            authority,
        }
    }

    async fn fetch(
        self,
        mut request: Request<Incoming>,
    ) -> Result<Response<Incoming>, OriginError> {
        self.address(&mut request);
        let mut response = tokio::time::timeout(RESPONSE_TIMEOUT, self.client.request(request))
            .await
            .map_err(|_| OriginError::Silent)?
            .map_err(OriginError::Failed)?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(OriginError::Switched);
        }
        strip_connection_fields(response.headers_mut());
        Ok(response)
    }

    /// Makes a request one of HTTP/1.1 to the origin, which keeps its path and `Host`.
    fn address(&self, request: &mut Request<Incoming>) {
        let mut target = std::mem::take(request.uri_mut()).into_parts();
        target.scheme = Some(Scheme::HTTP);
        target.authority = Some(self.authority.clone());
        target
            .path_and_query
            .get_or_insert(PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from_parts(target).expect("scheme, authority and path are there");
        *request.version_mut() = Version::HTTP_11;
        let unsized_body =
            !request.body().is_end_stream() && request.body().size_hint().exact().is_none();
        let headers = request.headers_mut();
        if !headers.contains_key(HOST) {
            headers.extend(host_of(&self.authority).ok().map(|host| (HOST, host)));
        }
        if unsized_body {
            // hyper would drop the content of a GET whose length it does not know.
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let options = if headers.contains_key(TE) {
            "close, te"
        } else {
            "close"
        };
        headers.insert(CONNECTION, HeaderValue::from_static(options));
    }
}

impl Service<Request<Incoming>> for Origin {
    type Response = Response<Incoming>;
    type Error = OriginError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, OriginError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), OriginError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        Box::pin(self.clone().fetch(request))
    }
}

/// Why the origin gave no response.
#[derive(Debug)]
enum OriginError {
    Failed(legacy::Error),
    Silent,
    Switched,
}

impl OriginError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Silent => StatusCode::GATEWAY_TIMEOUT,
            Self::Failed(_) | Self::Switched => StatusCode::BAD_GATEWAY,
        }
    }

    /// Returns what clients may know; the log has the rest.
    fn explanation(&self) -> &'static str {
        match self {
            Self::Failed(error) if error.is_connect() => "the origin cannot be reached\n",
            Self::Failed(_) => "the origin did not answer, or not in HTTP\n",
            Self::Silent => "the origin did not answer in time\n",
            Self::Switched => "the origin changed the protocol unasked\n",
        }
    }
}
