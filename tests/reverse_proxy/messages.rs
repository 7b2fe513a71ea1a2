//! What the proxy changes in messages, and what not.

use std::net::TcpListener;

use crate::harness::{Origin, Proxy, content, field, fields, is_hit, latin1};

#[test]
fn host_path_and_query_reach_the_origin_unchanged() {
    let origin = Origin::always("HTTP/1.1 204 No Content\r\n\r\n");
    let proxy = Proxy::before(&origin);
    for target in [
        "/",
        "/?",
        "//a/../b%2Fc;d?x=%20&x=+&y?&z=%c3",
        "/{a}\"|^?{}|`",
        "*",
    ] {
        proxy.send(format!(
            "OPTIONS {target} HTTP/1.1\r\nHost: Shop.Example:81\r\nConnection: close\r\n\r\n"
        ));
        let request = origin.requests().pop().unwrap();
        assert!(
            request.starts_with(&format!("OPTIONS {target} HTTP/1.1\r\n")),
            "{request}"
        );
        assert_eq!(field(&request, "host"), Some("Shop.Example:81"));
    }
}

#[test]
fn the_authority_of_an_absolute_target_becomes_the_host() {
    let origin = Origin::always("HTTP/1.1 204 No Content\r\n\r\n");
    let proxy = Proxy::before(&origin);
    proxy.request("GET", "http://me@b.example:81/a?b", "");
    let request = origin.requests().pop().unwrap();
    assert!(request.starts_with("GET /a?b HTTP/1.1\r\n"), "{request}");
    assert_eq!(
        fields(&request, "host").collect::<Vec<_>>(),
        ["b.example:81"]
    );
}

#[test]
fn a_request_without_one_host_is_refused() {
    let origin = Origin::always("HTTP/1.1 204 No Content\r\n\r\n");
    let proxy = Proxy::before(&origin);
    for hosts in [
        "",
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nConnection: host\r\n",
    ] {
        let response = proxy.send(format!(
            "GET / HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n"
        ));
        assert!(response.starts_with("HTTP/1.1 400 "), "{response}");
    }
    assert_eq!(origin.requests().len(), 0);
    proxy.send("GET / HTTP/1.0\r\n\r\n");
    let request = origin.requests().pop().unwrap();
    assert_eq!(field(&request, "host"), Some(&*origin.address.to_string()));
}

#[test]
fn connection_fields_are_stripped_both_ways() {
    let origin = Origin::always(
        "HTTP/1.1 200 OK\r\nConnection: X-Hop, close\r\nconnection: x-other\r\nX-Hop: 1\r\n\
         X-Other: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: close\r\nUpgrade: h2c\r\n\
         X-End: 1\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nok",
    );
    let proxy = Proxy::before(&origin);
    let gone = [
        "x-hop",
        "x-other",
        "keep-alive",
        "proxy-connection",
        "upgrade",
        "te",
    ];
    for hit in [false, true] {
        let response = proxy.request(
            "GET",
            "/",
            "Connection: X-Hop\r\nConnection: X-Other , keep-alive\r\nX-Hop: 1\r\nX-Other: 1\r\n\
             Keep-Alive: timeout=5\r\nProxy-Connection: close\r\nTE: gzip\r\nUpgrade: h2c\r\n\
             X-End: 1\r\n",
        );
        assert_eq!(is_hit(&response), hit, "{response}");
        let request = origin.requests().pop().unwrap();
        for name in gone {
            assert_eq!(field(&request, name), None, "{name} in {request}");
            assert_eq!(field(&response, name), None, "{name} in {response}");
        }
        assert_eq!(field(&request, "x-end"), Some("1"));
        assert_eq!(field(&response, "x-end"), Some("1"));
        assert_eq!(field(&request, "connection"), Some("close"));
        assert_eq!(field(&request, "via"), Some("1.1 tower-response-cache"));
    }
}

#[test]
fn trailers_pass_where_they_are_asked_for() {
    let origin = Origin::always(
        "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
         2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n",
    );
    let proxy = Proxy::before(&origin);
    let response = proxy.request("GET", "/", "TE: gzip, Trailers\r\n");
    assert!(
        response.ends_with("2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n"),
        "{response}"
    );
    let request = origin.requests().pop().unwrap();
    assert_eq!(field(&request, "te"), Some("trailers"));
    assert_eq!(field(&request, "connection"), Some("close, te"));
}

#[test]
fn odd_statuses_pass_and_are_replayed() {
    let origin = Origin::new(|request| {
        let status = &request["GET /".len()..][..3];
        format!("HTTP/1.1 {status} Odd\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nok")
            .into_bytes()
    });
    let proxy = Proxy::before(&origin);
    for status in [299, 599, 999] {
        for hit in [false, true] {
            let response = proxy.get(&format!("/{status}"));
            assert!(
                response.starts_with(&format!("HTTP/1.1 {status} ")),
                "{response}"
            );
            assert_eq!((is_hit(&response), content(&response)), (hit, "ok"));
        }
    }
}

#[test]
fn unknown_methods_pass_and_tunnels_do_not() {
    let origin = Origin::always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let proxy = Proxy::before(&origin);
    for method in ["M-SEARCH", "get", "QUERY", "X!"] {
        assert_eq!(content(&proxy.request(method, "/", "")), "ok");
        let request = origin.requests().pop().unwrap();
        assert!(request.starts_with(&format!("{method} / ")), "{request}");
    }
    let response = proxy.request("CONNECT", "b.example:443", "");
    assert!(response.starts_with("HTTP/1.1 501 "), "{response}");
    assert_eq!(origin.requests().len(), 4);
}

#[test]
fn requests_that_look_at_their_way_go_as_far_as_they_say() {
    let origin = Origin::always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let proxy = Proxy::before(&origin);
    for (method, asked, passed) in [
        ("TRACE", "Max-Forwards: 2\r\n", Some("1")),
        ("OPTIONS", "Max-Forwards: 1\r\n", Some("0")),
        ("OPTIONS", "Max-Forwards: all\r\n", Some("all")),
        ("OPTIONS", "", None),
        ("GET", "Max-Forwards: 0\r\n", Some("0")),
    ] {
        assert_eq!(content(&proxy.request(method, "/", asked)), "ok");
        let request = origin.requests().pop().unwrap();
        assert_eq!(field(&request, "max-forwards"), passed, "{method} {asked}");
    }
    for (method, status) in [("OPTIONS", 200), ("TRACE", 501)] {
        let response = proxy.request(method, "/", "Max-Forwards: 0\r\n");
        let expected = format!("HTTP/1.1 {status} ");
        assert!(response.starts_with(&expected), "{response}");
    }
    assert_eq!(origin.requests().len(), 5);
}

#[test]
fn a_request_that_comes_back_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap();
    drop(listener);
    let proxy = Proxy::start(own, &["--listen", &own.to_string()]);
    let response = proxy.request("GET", "/", "CDN-Loop: other; v=\"1, 2\"\r\n");
    assert!(response.starts_with("HTTP/1.1 508 "), "{response}");
    assert_eq!(content(&response), "this request has been here before\n");
}

#[test]
fn queries_are_answered_by_their_content() {
    let origin = Origin::always(
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nok",
    );
    let proxy = Proxy::before(&origin);
    let query = |fields: &str, content: &str| {
        proxy.send(format!(
            "QUERY / HTTP/1.1\r\nHost: a.example\r\n{fields}Connection: close\r\n\r\n{content}"
        ))
    };
    let long = "x".repeat(100_000);
    for (fields, sent, arrived, hit) in [
        ("Content-Length: 3\r\n", "a=1", "a=1", false),
        ("Content-Length: 3\r\n", "a=1", "a=1", true),
        ("Content-Length: 3\r\n", "a=2", "a=2", false),
        (
            "Transfer-Encoding: chunked\r\n",
            "3\r\na=2\r\n0\r\n\r\n",
            "a=2",
            true,
        ),
        ("Content-Length: 100000\r\n", &long, &long, false),
        ("Content-Length: 100000\r\n", &long, &long, false),
    ] {
        let response = query(fields, sent);
        assert_eq!((is_hit(&response), content(&response)), (hit, "ok"));
        assert_eq!(content(origin.requests().last().unwrap()), arrived);
    }
    assert_eq!(origin.requests().len(), 4);
}

#[test]
fn empty_repeated_and_non_ascii_field_lines_pass_and_are_replayed() {
    let origin = Origin::always(
        "HTTP/1.1 200 OK\r\nX-Many: a\r\nX-Empty:\r\nX-Many:\r\nX-Many: b, c\r\nX-Text: \u{e9}\u{80}\u{ff}\r\n\
         X-Blank : 1\r\nX-Fold: a\r\n b\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nok",
    );
    let proxy = Proxy::before(&origin);
    for hit in [false, true] {
        let request = "GET / HTTP/1.1\r\nHost: a.example\r\nX-Many: a\r\nX-Empty:\r\nX-Many:\r\n\
             X-Many: b\r\nX-Text: \u{e9}\u{80}\u{ff}\r\nConnection: close\r\n\r\n";
        let response = proxy.send(latin1(request));
        assert_eq!(is_hit(&response), hit, "{response}");
        assert_eq!(
            fields(&response, "x-many").collect::<Vec<_>>(),
            ["a", "", "b, c"]
        );
        assert_eq!(field(&response, "x-empty"), Some(""));
        assert_eq!(field(&response, "x-text"), Some("\u{e9}\u{80}\u{ff}"));
        assert_eq!(field(&response, "x-blank"), Some("1"));
        assert_eq!(field(&response, "x-fold"), Some("a b"));
    }
    let request = origin.requests().pop().unwrap();
    assert_eq!(
        fields(&request, "x-many").collect::<Vec<_>>(),
        ["a", "", "b"]
    );
    assert_eq!(field(&request, "x-empty"), Some(""));
    assert_eq!(field(&request, "x-text"), Some("\u{e9}\u{80}\u{ff}"));
}

#[test]
fn an_unknown_transfer_coding_is_read_to_the_end_of_the_connection() {
    let origin = Origin::always(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: x-odd\r\nCache-Control: max-age=60\r\n\r\nall of it",
    );
    let proxy = Proxy::before(&origin);
    assert!(proxy.get("/").contains("\r\n9\r\nall of it\r\n0\r\n"));
    let hit = proxy.get("/");
    assert_eq!((is_hit(&hit), content(&hit)), (true, "all of it"));
    assert_eq!(field(&hit, "transfer-encoding"), None);
}

#[test]
fn a_content_length_shorter_than_what_is_sent_ends_the_message() {
    let origin = Origin::always(
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nCache-Control: max-age=60\r\n\r\n\
         0123456789abcdefghijklmnopqrstuvwxyz",
    );
    let proxy = Proxy::before(&origin);
    for hit in [false, true] {
        let response = proxy.get("/");
        assert_eq!((is_hit(&response), content(&response)), (hit, "0123456789"));
    }
    assert_eq!(content(&proxy.get("/another")), "0123456789");
}

#[test]
fn a_content_length_beside_a_transfer_coding_counts_for_nothing() {
    let origin = Origin::always(
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\
         Cache-Control: max-age=60\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    );
    let proxy = Proxy::before(&origin);
    assert!(proxy.get("/").contains("\r\n5\r\nhello\r\n0\r\n"));
    let hit = proxy.get("/");
    assert_eq!(
        (field(&hit, "content-length"), content(&hit)),
        (Some("5"), "hello")
    );
}

#[test]
fn lengths_that_are_repeated_become_one() {
    let origin = Origin::new(|request| {
        let content = if request.starts_with("HEAD") {
            ""
        } else {
            "ok"
        };
        format!("HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\nContent-Length: 2\r\n\r\n{content}")
            .into_bytes()
    });
    let proxy = Proxy::before(&origin);
    for (method, expected) in [("GET", "ok"), ("HEAD", "")] {
        let response = proxy.request(method, "/", "");
        assert_eq!(
            fields(&response, "content-length").collect::<Vec<_>>(),
            ["2"]
        );
        assert_eq!(content(&response), expected);
    }
}

#[test]
fn http_1_0_is_spoken_on_both_sides() {
    let origin = Origin::always("HTTP/1.0 200 OK\r\nCache-Control: max-age=60\r\n\r\nold");
    let proxy = Proxy::before(&origin);
    assert!(proxy.get("/").ends_with("\r\n3\r\nold\r\n0\r\n\r\n"));
    for target in ["/", "/not-stored"] {
        let response = proxy.send(format!("GET {target} HTTP/1.0\r\nHost: a.example\r\n\r\n"));
        assert!(response.starts_with("HTTP/1.0 200 OK\r\n"), "{response}");
        assert_eq!(content(&response), "old");
    }
}

#[test]
fn content_reaches_the_origin_however_it_is_framed() {
    let origin = Origin::always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let proxy = Proxy::before(&origin);
    for method in ["GET", "POST", "DELETE"] {
        let head = format!("{method} / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n");
        proxy.send(format!("{head}Content-Length: 5\r\n\r\nhello"));
        assert_eq!(content(&origin.requests().pop().unwrap()), "hello");
        proxy.send(format!(
            "{head}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        ));
        assert_eq!(
            content(&origin.requests().pop().unwrap()),
            "5\r\nhello\r\n0\r\n\r\n"
        );
    }
    let response = proxy.send(
        "POST / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\nExpect: 100-continue\r\n\
         Content-Length: 5\r\n\r\nhello",
    );
    assert!(
        response.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"),
        "{response}"
    );
}
