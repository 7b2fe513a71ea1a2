//! Clients as users have them.

use std::process::Command;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::harness::{Origin, Proxy, content, field, fields, is_hit, text};
use crate::interims::HINTED;

#[tokio::test]
async fn http_2_clients_share_what_is_stored_with_those_of_http_1() {
    let origin = Origin::always(HINTED);
    let proxy = Proxy::before(&origin);
    let client = tokio::net::TcpStream::connect(proxy.address).await.unwrap();
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(client))
        .await
        .unwrap();
    tokio::spawn(connection);
    for hit in [false, true] {
        let request = http::Request::get("http://a.example/a?b")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(Empty::<Bytes>::new())
            .unwrap();
        let response = client.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let status = response.headers()["cache-status"].to_str().unwrap();
        assert_eq!(status.contains("; hit"), hit, "{status}");
        let content = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(content, "ok");
    }
    let request = origin.requests().pop().unwrap();
    assert!(request.starts_with("GET /a?b HTTP/1.1\r\n"), "{request}");
    assert_eq!(field(&request, "host"), Some("a.example"));
    assert_eq!(fields(&request, "cookie").collect::<Vec<_>>(), ["a=1; b=2"]);
    assert_eq!(field(&request, "via"), Some("2.0 tower-response-cache"));
    assert!(is_hit(&proxy.get("/a?b")));
}

#[test]
fn curl_sees_misses_hits_and_304s_with_both_versions() {
    let origin = Origin::always(
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nETag: \"1\"\r\n\
         Cache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nok",
    );
    let proxy = Proxy::before(&origin);
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let url = format!("http://{}/{version}", proxy.address);
        let curl = |options: &[&str]| {
            let output = Command::new("curl")
                .args(["--silent", "--include", "--max-time", "10", version, &url])
                .args(options)
                .output();
            output.map(|output| text(&output.stdout))
        };
        let Ok(miss) = curl(&[]) else {
            return leave_out("curl");
        };
        assert!(
            miss.contains("fwd=uri-miss") && miss.ends_with("\r\n\r\nok"),
            "{miss}"
        );
        assert_eq!(miss.contains("103"), version == "--http1.1", "{miss}");
        let hit = curl(&[]).unwrap();
        assert!(is_hit(&hit) && hit.ends_with("\r\n\r\nok"), "{hit}");
        let range = curl(&["--range", "1-"]).unwrap();
        assert!(range.contains(" 206") && content(&range) == "k", "{range}");
        let confirmed = curl(&["--header", "If-None-Match: \"1\""]).unwrap();
        assert!(
            confirmed.contains(" 304") && content(&confirmed).is_empty(),
            "{confirmed}"
        );
    }
    assert_eq!(origin.requests().len(), 2);
}

/// Leaves a test out for want of a client, but not where `tests/run` has seen to it that all are
/// there.
fn leave_out(client: &str) {
    assert!(
        std::env::var_os("REQUIRE_CLIENTS").is_none(),
        "there is no {client}"
    );
    eprintln!("left out: there is no {client}");
}

/// CacheControl, which comes with pip, is a cache for the client's own use.
const CACHING_CLIENT: &str = r#"
import sys
try:
    import cachecontrol, requests
except ImportError:
    from pip._vendor import cachecontrol, requests
session = cachecontrol.CacheControl(requests.Session())
for _ in range(3):
    answer = session.get(sys.argv[1])
    print(answer.from_cache, answer.text)
"#;

#[test]
fn a_client_with_a_cache_of_its_own_keeps_and_validates_what_the_proxy_has_stored() {
    let origin = Origin::new(|request| {
        let control = match request {
            kept if kept.contains("/kept") => "max-age=60",
            _ => "max-age=0, s-maxage=60",
        };
        format!(
            "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nCache-Control: {control}\r\n\
             Content-Length: 2\r\n\r\nok"
        )
        .into_bytes()
    });
    let proxy = Proxy::before(&origin);
    for target in ["/kept", "/validated"] {
        let client = Command::new("python3")
            .args(["-c", CACHING_CLIENT])
            .arg(format!("http://{}{target}", proxy.address))
            .output();
        let output = client.map(|client| text(&client.stdout));
        let Some(output) = output.ok().filter(|output| !output.is_empty()) else {
            return leave_out("python3 with CacheControl");
        };
        let expected = ["False ok", "True ok", "True ok"];
        assert_eq!(output.lines().collect::<Vec<_>>(), expected, "{target}");
    }
    // Its conditional requests were answered by the proxy, without the origin.
    assert_eq!(origin.requests().len(), 2);
}
