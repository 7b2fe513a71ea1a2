//! The origin server.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{CONNECTION, HOST, TE, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version};
use hyper::body::{Body as _, Incoming};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::TokioExecutor;
use tower::Service;

use crate::proxy::{Content, Refusal, host_of, merge_lengths, strip_connection_fields};

/// How long the origin may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a request without content may take from its first byte until the final response begins.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// The origin server, as the cache's inner service.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    client: Arc<Client<HttpConnector, Content>>,
    authority: Authority,
}

impl Origin {
    pub(crate) fn new(authority: Authority) -> Self {
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

    async fn fetch(self, mut request: Request<Content>) -> Result<Response<Incoming>, OriginError> {
        self.address(&mut request);
        // To send content takes as long as its client does.
        let limit = match request.body().is_end_stream() {
            true => RESPONSE_TIMEOUT,
            false => Duration::MAX,
        };
        let mut response = tokio::time::timeout(limit, self.client.request(request))
            .await
            .map_err(|_| OriginError::Silent)?
            .map_err(OriginError::Failed)?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(OriginError::Switched);
        }
        // The version is that of the sender, not of the response (RFC 9110 §2.5).
        *response.version_mut() = Version::HTTP_11;
        strip_connection_fields(response.headers_mut());
        merge_lengths(response.headers_mut());
        Ok(response)
    }

    /// Makes a request one of HTTP/1.1 to the origin, which keeps its path and `Host`.
    fn address(&self, request: &mut Request<Content>) {
        let mut target = std::mem::take(request.uri_mut()).into_parts();
        target.scheme = Some(Scheme::HTTP);
        target.authority = Some(self.authority.clone());
        target
            .path_and_query
            .get_or_insert(PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from_parts(target).expect("scheme, authority and path are there");
        *request.version_mut() = Version::HTTP_11;
        let has_unknown_length =
            !request.body().is_end_stream() && request.body().size_hint().exact().is_none();
        let headers = request.headers_mut();
        if has_unknown_length {
            // Without it hyper drops the content of a GET.
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        if let Some(host) = host_of(&self.authority) {
            headers.entry(HOST).or_insert(host);
        }
        let options = if headers.contains_key(TE) {
            "close, te"
        } else {
            "close"
        };
        headers.insert(CONNECTION, HeaderValue::from_static(options));
    }
}

impl Service<Request<Content>> for Origin {
    type Response = Response<Incoming>;
    type Error = OriginError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, OriginError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), OriginError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Content>) -> Self::Future {
        Box::pin(self.clone().fetch(request))
    }
}

/// Why the origin gave no response.
#[derive(Debug)]
pub(crate) enum OriginError {
    Failed(legacy::Error),
    Silent,
    Switched,
}

impl OriginError {
    /// Returns what clients may know; the log has the rest.
    pub(crate) fn to_refusal(&self) -> Refusal {
        match self {
            Self::Failed(error) if error.is_connect() => {
                (StatusCode::BAD_GATEWAY, "the origin cannot be reached\n")
            }
            Self::Failed(_) => (
                StatusCode::BAD_GATEWAY,
                "the origin did not answer, or not in HTTP\n",
            ),
            Self::Silent => (
                StatusCode::GATEWAY_TIMEOUT,
                "the origin did not answer in time\n",
            ),
            Self::Switched => (
                StatusCode::BAD_GATEWAY,
                "the origin changed the protocol unasked\n",
            ),
        }
    }
}
