//! Origins and stores that fail.

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::harness::{NOWHERE, Origin, PATIENCE, Proxy, content, is_hit, latin1, program, text};
use crate::redis_server::RedisServer;

#[test]
fn a_request_is_sent_once_whatever_becomes_of_it() {
    let origin = Origin::new(|request| {
        let answer: &[u8] = match request {
            first if first.contains("/kept") => {
                b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"
            }
            _ => b"",
        };
        answer.to_vec()
    });
    let proxy = Proxy::before(&origin);
    for (sent, method) in ["GET", "HEAD", "POST", "PUT"].into_iter().enumerate() {
        assert_eq!(content(&proxy.get("/kept")), "ok");
        let response = proxy.request(method, "/", "");
        assert!(response.starts_with("HTTP/1.1 502 "), "{response}");
        assert_eq!(origin.requests().len(), 2 * (sent + 1));
    }
}

#[test]
fn an_origin_that_gives_no_response_is_a_502_with_a_body() {
    for answer in [
        "",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "not HTTP\r\n\r\n",
        "HTTP/1.1 099 Low\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nCache-Control: no-\0store\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ] {
        let response = Proxy::before(&Origin::always(answer)).get("/");
        assert!(
            response.starts_with("HTTP/1.1 502 Bad Gateway\r\n"),
            "{answer:?}: {response}"
        );
        assert!(
            content(&response).starts_with("the origin "),
            "{answer:?}: {response}"
        );
    }
    let response = Proxy::start(NOWHERE, &[]).get("/");
    assert!(
        response.starts_with("HTTP/1.1 502 Bad Gateway\r\n"),
        "{response}"
    );
    assert_eq!(content(&response), "the origin cannot be reached\n");
}

#[test]
fn a_body_that_breaks_off_breaks_off_for_the_client_and_is_not_stored() {
    let origin = Origin::always(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nCache-Control: max-age=60\r\n\r\n\
         5\r\nhello\r\n",
    );
    let proxy = Proxy::before(&origin);
    for _ in 0..2 {
        let response = proxy.get("/");
        assert!(
            !response.contains("0\r\n\r\n") && !is_hit(&response),
            "{response}"
        );
    }
}

#[test]
fn an_origin_that_fails_leaves_the_cache_to_answer() {
    let origin = Origin::new(|request| {
        let control = match request {
            validation if validation.contains("if-none-match") => return Vec::new(),
            strict if strict.contains("/strict") => "max-age=0, must-revalidate",
            _ => "max-age=0",
        };
        format!(
            "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nCache-Control: {control}\r\n\
             Content-Length: 2\r\n\r\nok"
        )
        .into_bytes()
    });
    let proxy = Proxy::before(&origin);
    for (target, status) in [("/lenient", 200), ("/strict", 504)] {
        proxy.get(target);
        let response = proxy.get(target);
        assert!(
            response.starts_with(&format!("HTTP/1.1 {status} ")),
            "{response}"
        );
        assert!(!content(&response).is_empty());
    }
    assert_eq!(origin.requests().len(), 4);
}

#[test]
fn proxies_share_what_is_stored_in_redis_and_do_without_when_it_dies() {
    let origin = Origin::always(
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nok",
    );
    for prefix in ["", "tiered+"] {
        let mut redis = RedisServer::start();
        let store = format!("{prefix}{}", redis.url());
        let proxies = [(); 2].map(|()| Proxy::start(origin.address, &["--store", &store]));
        assert!(!is_hit(&proxies[0].get("/")));
        // Storing is not waited for.
        until(|| is_hit(&proxies[1].get("/")));
        redis.kill();
        for proxy in proxies {
            // Until its end is noticed, memory may still be vouched for.
            until(|| {
                let response = proxy.get("/");
                assert_eq!(content(&response), "ok");
                !is_hit(&response)
            });
        }
    }
}

#[test]
fn a_write_through_one_proxy_is_seen_in_the_memory_of_another() {
    let version = AtomicU64::new(1);
    let origin = Origin::new(move |request| {
        let step = u64::from(request.starts_with("POST"));
        let version = version.fetch_add(step, Ordering::SeqCst) + step;
        let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 1";
        latin1(&format!("{head}\r\n\r\n{version}"))
    });
    let redis = RedisServer::start();
    let store = format!("tiered+{}", redis.url());
    let [writer, reader] = [(); 2].map(|()| Proxy::start(origin.address, &["--store", &store]));
    for expected in ["1", "2", "3"] {
        until(|| {
            let response = reader.get("/");
            is_hit(&response) && content(&response) == expected
        });
        // Once the epochs are mirrored, hits ask Redis for nothing.
        until(|| {
            redis.command(&["CONFIG", "RESETSTAT"]);
            assert!((0..10).all(|_| is_hit(&reader.get("/"))));
            !redis.command(&["INFO", "commandstats"]).contains("get:")
        });
        writer.request("POST", "/", "Content-Length: 0\r\n");
    }
}

/// Waits until something has come about.
fn until(mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE);
    }
}

#[test]
fn a_store_that_cannot_be_reached_is_told_at_once() {
    let store = format!("redis://{NOWHERE}/0");
    let output = Command::new(program())
        .args(["--listen", "127.0.0.1:0", "--origin", "http://127.0.0.1:1"])
        .args(["--store", &store])
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("reverse_proxy: redis at "), "{said}");
}
