//! Interim responses.

use std::io::Write;
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use crate::harness::{
    Origin, PATIENCE, Proxy, content, is_hit, read_request, read_to_end, read_until,
};

/// A response after interim ones, of which those to come are the 103, the 102 and the 199.
pub(crate) const HINTED: &str = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\
    Connection: x-hop\r\nX-Hop: 1\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 199 Odd\r\n\r\n\
    HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn interim_responses_pass_on_a_miss_and_only_then() {
    let proxy = Proxy::before(&Origin::always(HINTED));
    let miss = proxy.get("/");
    let interims = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n\
         HTTP/1.1 199 \r\n\r\nHTTP/1.1 200 OK\r\n";
    assert!(miss.starts_with(interims), "IN1: {miss}");
    assert!(miss.ends_with("\r\n\r\nok"), "IN1: {miss}");
    let hit = proxy.get("/");
    assert!(
        hit.starts_with("HTTP/1.1 200 OK\r\n") && is_hit(&hit) && !hit.contains("link: "),
        "IN2: {hit}"
    );
}

#[test]
fn interim_responses_are_sent_when_they_come() {
    let (go, wait) = mpsc::channel::<()>();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap(), &[]);
    thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        read_request(&mut connection);
        let (interim, end) = HINTED.split_at(HINTED.find("HTTP/1.1 102").unwrap());
        connection.write_all(interim.as_bytes()).unwrap();
        wait.recv().unwrap();
        connection.write_all(end.as_bytes()).unwrap();
    });
    let mut client = proxy.connect();
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .unwrap();
    let interim = read_until(&mut client, "\r\n\r\n");
    assert!(interim.starts_with("HTTP/1.1 103 "), "{interim}");
    go.send(()).unwrap();
    assert!(read_to_end(&mut client).ends_with("ok"));
}

#[test]
fn all_who_wait_for_a_miss_are_sent_its_interim_responses() {
    let (go, wait) = mpsc::channel::<()>();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap(), &[]);
    let origin = thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        read_request(&mut connection);
        let (hints, rest) = HINTED.split_at(HINTED.find("HTTP/1.1 102").unwrap());
        let (processing, end) = rest.split_at(rest.find("HTTP/1.1 200").unwrap());
        for part in [hints, processing, end] {
            wait.recv().unwrap();
            connection.write_all(part.as_bytes()).unwrap();
        }
        listener.set_nonblocking(true).unwrap();
        listener.accept().map(drop)
    });
    let request = |version| {
        let mut client = proxy.connect();
        write!(
            client,
            "GET / {version}\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        client
    };
    let mut leader = request("HTTP/1.1");
    let mut follower = request("HTTP/1.1");
    let mut old = request("HTTP/1.0");
    go.send(()).unwrap();
    for client in [&mut leader, &mut follower] {
        let hints = read_until(client, "\r\n\r\n");
        assert!(hints.starts_with("HTTP/1.1 103 "), "{hints}");
    }
    let mut late = request("HTTP/1.1");
    let hints = read_until(&mut late, "\r\n\r\n");
    assert!(hints.starts_with("HTTP/1.1 103 "), "{hints}");
    go.send(()).unwrap();
    for client in [&mut leader, &mut follower, &mut late] {
        let processing = read_until(client, "\r\n\r\n");
        assert!(processing.starts_with("HTTP/1.1 102 "), "{processing}");
    }
    go.send(()).unwrap();
    for client in [&mut leader, &mut follower, &mut late] {
        let rest = read_to_end(client);
        let end = rest.strip_prefix("HTTP/1.1 199 \r\n\r\n").unwrap();
        assert!(
            end.starts_with("HTTP/1.1 200 ") && end.ends_with("\r\n\r\nok"),
            "{end}"
        );
    }
    assert!(read_to_end(&mut old).starts_with("HTTP/1.0 200 "));
    assert!(origin.join().unwrap().is_err(), "the origin is asked once");
}

#[test]
fn http_1_0_clients_are_sent_no_interim_responses() {
    let proxy = Proxy::before(&Origin::always(HINTED));
    let response = proxy.send("GET / HTTP/1.0\r\nHost: a.example\r\n\r\n");
    assert!(response.starts_with("HTTP/1.0 200 OK\r\n"), "{response}");
}

#[test]
fn interim_responses_of_background_requests_reach_no_client() {
    let origin = Origin::always(
        "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\
         Cache-Control: max-age=0, stale-while-revalidate=60\r\n\r\nok",
    );
    let proxy = Proxy::before(&origin);
    proxy.get("/");
    let mut client = proxy.connect();
    let start = Instant::now();
    while origin.requests().len() < 4 {
        assert!(start.elapsed() < PATIENCE, "{:?}", origin.requests());
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
            .unwrap();
        let stale = read_until(&mut client, "\r\n\r\nok");
        assert!(
            stale.starts_with("HTTP/1.1 200 OK\r\n") && is_hit(&stale),
            "{stale}"
        );
    }
}

#[test]
fn interim_responses_never_stand_inside_another_response() {
    const LENGTH: usize = 8 << 20;
    let origin = Origin::new(|request| {
        if request.contains("/long") {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
            [head.as_bytes(), &vec![b'.'; LENGTH]].concat()
        } else {
            HINTED.as_bytes().to_vec()
        }
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.connect();
    let long = "GET /long HTTP/1.1\r\nHost: a.example\r\n\r\n";
    let hinted = "GET /hinted HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
    client
        .write_all([long, hinted].concat().as_bytes())
        .unwrap();
    let read = read_to_end(&mut client);
    let (body, rest) = content(&read).split_at(LENGTH);
    assert!(body.bytes().all(|byte| byte == b'.'));
    assert!(rest.starts_with("HTTP/1.1 103 Early Hints\r\n"), "{rest}");
    assert!(rest.ends_with("\r\n\r\nok"), "{rest}");
}
