//! The proxy: the cache, and what has to be done to messages on both sides of it.

use std::convert::{Infallible, identity};

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, MAX_FORWARDS, TE, TRANSFER_ENCODING,
    UPGRADE, VIA,
};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use tower::{Layer, ServiceExt};
use tower_response_cache::{CacheLayer, CacheService, KeyedByContent, RequestBody, ResponseBody};

use crate::origin::Origin;

/// What clients read: a response through the cache, or a line from the proxy.
pub(crate) type Body = Either<ResponseBody<Incoming>, Full<Bytes>>;

/// What the origin reads: a request through the cache, which reads the content of a QUERY first.
pub(crate) type Content = RequestBody<Incoming>;

type Cache = CacheService<Origin, KeyedByContent<fn(Content) -> Content>>;

/// Answers clients from the cache in front of the origin.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    cache: Cache,
    /// What this process and no other adds to `CDN-Loop`.
    id: HeaderValue,
}

impl Proxy {
    pub(crate) fn new(origin: Origin, cache: CacheLayer) -> Result<Self, getrandom::Error> {
        let id = format!("tower-response-cache-{:016x}", getrandom::u64()?);
        Ok(Self {
            cache: cache.keyed_by_content(identity as fn(_) -> _).layer(origin),
            id: HeaderValue::try_from(id).expect("letters and digits are visible ASCII"),
        })
    }

    /// Answers a request, come what may.
    ///
    /// An origin that fails is an error up to here and a 502 from here on, so that the cache in
    /// between can serve what it has.
    pub(crate) async fn answer(
        self,
        mut request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        if let Err(why) = admit(&mut request, &self.id) {
            return Ok(refusal(why));
        }
        match self.cache.oneshot(request).await {
            Ok(response) => Ok(response.map(Either::Left)),
            Err(error) => {
                tracing::warn!(?error, "the origin failed");
                Ok(refusal(error.to_refusal()))
            }
        }
    }
}

/// A status and what to say with it.
pub(crate) type Refusal = (StatusCode, &'static str);

/// Turns what a client sent into a request that cache and origin can take, or says why not.
fn admit(request: &mut Request<Incoming>, id: &HeaderValue) -> Result<(), Refusal> {
    if request.method() == Method::CONNECT {
        return Err((StatusCode::NOT_IMPLEMENTED, "this proxy makes no tunnels\n"));
    }
    let takes_trailers =
        members(request.headers(), TE).any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
    // Before the cache, so that no field that the origin will not see can choose a variant.
    strip_connection_fields(request.headers_mut());
    agree_on_host(request)?;
    count_hop(request)?;
    break_loops(request.headers_mut(), id)?;
    let via = match request.version() {
        Version::HTTP_10 => "1.0 tower-response-cache",
        Version::HTTP_11 => "1.1 tower-response-cache",
        _ => "2.0 tower-response-cache",
    };
    let headers = request.headers_mut();
    headers.append(VIA, HeaderValue::from_static(via));
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    join_cookies(headers);
    Ok(())
}

/// Counts down how far a request that looks at its way may go (RFC 9110 §7.6.2).
fn count_hop(request: &mut Request<Incoming>) -> Result<(), Refusal> {
    if !matches!(*request.method(), Method::OPTIONS | Method::TRACE) {
        return Ok(());
    }
    let left = request.headers().get(MAX_FORWARDS);
    match left.and_then(|left| left.to_str().ok()?.parse::<u64>().ok()) {
        None => Ok(()),
        Some(0) if request.method() == Method::OPTIONS => Err((StatusCode::OK, "")),
        Some(0) => Err((
            StatusCode::NOT_IMPLEMENTED,
            "this proxy does not show what it receives\n",
        )),
        Some(left) => {
            let headers = request.headers_mut();
            headers.insert(MAX_FORWARDS, HeaderValue::from(left.saturating_sub(1)));
            Ok(())
        }
    }
}

/// Refuses a request that has been here before, and marks others (RFC 8586).
fn break_loops(headers: &mut HeaderMap, id: &HeaderValue) -> Result<(), Refusal> {
    const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
    let is_own = |member: &[u8]| {
        let name = member.split(|&byte| byte == b';').next();
        name.map(<[u8]>::trim_ascii) == Some(id.as_bytes())
    };
    if members(headers, CDN_LOOP).any(is_own) {
        return Err((
            StatusCode::LOOP_DETECTED,
            "this request has been here before\n",
        ));
    }
    headers.append(CDN_LOOP, id.clone());
    Ok(())
}

/// Leaves one `Host`, which is that of the target.
fn agree_on_host(request: &mut Request<Incoming>) -> Result<(), Refusal> {
    // An authority in the target stands above `Host` (RFC 9112 §3.2.2, RFC 9113 §8.3.1).
    if let Some(host) = request.uri().authority().and_then(host_of) {
        request.headers_mut().insert(HOST, host);
    }
    match (
        request.version(),
        request.headers().get_all(HOST).iter().count(),
    ) {
        (_, 1) | (Version::HTTP_10, 0) => Ok(()),
        // RFC 9112 §3.2
        _ => Err((StatusCode::BAD_REQUEST, "exactly one Host is needed\n")),
    }
}

/// Returns host and port, without userinfo, which has no place in `Host`.
pub(crate) fn host_of(authority: &Authority) -> Option<HeaderValue> {
    let host = authority.as_str();
    HeaderValue::from_str(host.rsplit_once('@').map_or(host, |(_, host)| host)).ok()
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

/// Leaves one of several `Content-Length`s that say the same (RFC 9110 §8.6).
pub(crate) fn merge_lengths(headers: &mut HeaderMap) {
    let first = members(headers, CONTENT_LENGTH).next();
    if let Some(Ok(length)) = first.map(HeaderValue::from_bytes) {
        headers.insert(CONTENT_LENGTH, length);
    }
}

fn refusal((status, why): Refusal) -> Response<Body> {
    let mut response = Response::new(Either::Right(Full::from(why)));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}
