//! The example `reverse_proxy` between raw clients and an origin that answers with any bytes.
//!
//! The tests drive the program itself, which lies beside their own executable. `cargo test` builds
//! it with them; `cargo test --test reverse_proxy` builds no examples, and uses the one that was
//! built last, or builds it where there is none.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on fails the test"
)]

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

/// Long enough for anything here, if it happens at all.
const PATIENCE: Duration = Duration::from_secs(10);

fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let tests = env::current_exe().unwrap();
        let profile = tests.parent().and_then(Path::parent).unwrap();
        let program = profile
            .join("examples")
            .join(format!("reverse_proxy{}", env::consts::EXE_SUFFIX));
        if !program.exists() {
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["build", "--example", "reverse_proxy"]);
            if profile.ends_with("release") {
                cargo.arg("--release");
            }
            assert!(cargo.status().unwrap().success());
        }
        program
    })
}

/// The proxy in front of one origin.
struct Proxy {
    process: Child,
    address: SocketAddr,
}

impl Proxy {
    fn before(origin: &Origin) -> Self {
        Self::start(origin.address, &[])
    }

    fn start(origin: SocketAddr, options: &[&str]) -> Self {
        let mut process = Command::new(program())
            .args(["--listen", "127.0.0.1:0", "--threads", "1"])
            .args(["--origin", &format!("http://{origin}")])
            .args(options)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line
            .trim_end()
            .strip_prefix("listening on http://")
            .unwrap();
        Self {
            process,
            address: address.parse().unwrap(),
        }
    }

    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.address).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
    }

    /// Sends bytes and returns all that comes until the connection is closed.
    fn send(&self, request: impl AsRef<[u8]>) -> String {
        let mut client = self.connect();
        client.write_all(request.as_ref()).unwrap();
        read_to_end(&mut client)
    }

    /// Sends a request without content, with `fields` added as they are.
    fn request(&self, method: &str, target: &str, fields: &str) -> String {
        self.send(format!(
            "{method} {target} HTTP/1.1\r\nHost: a.example\r\n{fields}Connection: close\r\n\r\n"
        ))
    }

    fn get(&self, target: &str) -> String {
        self.request("GET", target, "")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An origin that reads a request, sends what its script says, and closes the connection.
struct Origin {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Origin {
    fn always(answer: &'static str) -> Self {
        Self::new(move |_| latin1(answer))
    }

    fn new(script: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, script) = (Arc::clone(&requests), Arc::new(script));
        thread::spawn(move || {
            for connection in listener.incoming() {
                let (seen, script) = (Arc::clone(&seen), Arc::clone(&script));
                thread::spawn(move || {
                    let mut connection = connection.unwrap();
                    let request = read_request(&mut connection);
                    seen.lock().unwrap().push(request.clone());
                    // The proxy may have had enough before all is written.
                    let _ = connection.write_all(&script(&request));
                });
            }
        });
        Self { address, requests }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    fn wait_for(&self, requests: usize) {
        let start = Instant::now();
        while self.requests().len() < requests {
            assert!(start.elapsed() < PATIENCE, "{:?}", self.requests());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// An address at which nobody listens.
fn nowhere() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// One byte a character, so that any bytes can be written and compared as text.
fn latin1(text: &str) -> Vec<u8> {
    text.chars()
        .map(|char| u8::try_from(u32::from(char)).unwrap())
        .collect()
}

fn text(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    text(&bytes)
}

fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut read = String::new();
    while !read.ends_with(end) {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        read.push(char::from(byte[0]));
    }
    read
}

/// Reads a request with its content, which stays as it is framed.
fn read_request(stream: &mut TcpStream) -> String {
    let mut request = read_until(stream, "\r\n\r\n");
    if request.contains("transfer-encoding: chunked") {
        request += &read_until(stream, "0\r\n\r\n");
    } else if let Some(length) = field(&request, "content-length") {
        let mut content = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut content).unwrap();
        request += &text(&content);
    }
    request
}

fn field<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    fields(message, name).next()
}

fn fields<'a>(message: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let (head, _) = message.split_once("\r\n\r\n").unwrap();
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .filter(move |(found, _)| *found == name)
        .map(|(_, value)| value)
}

fn content(message: &str) -> &str {
    message.split_once("\r\n\r\n").unwrap().1
}

fn is_hit(response: &str) -> bool {
    field(response, "cache-status").is_some_and(|status| status.contains("; hit"))
}

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
    let response = Proxy::start(nowhere(), &[]).get("/");
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

const HINTED: &str = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\
    Connection: x-hop\r\nX-Hop: 1\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 199 Odd\r\n\r\n\
    HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn interim_responses_pass_on_a_miss_and_only_then() {
    let proxy = Proxy::before(&Origin::always(HINTED));
    let miss = proxy.get("/");
    let interims = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n\
         HTTP/1.1 199 \r\n\r\nHTTP/1.1 200 OK\r\n";
    assert!(miss.starts_with(interims), "{miss}");
    assert!(miss.ends_with("\r\n\r\nok"), "{miss}");
    let hit = proxy.get("/");
    assert!(
        hit.starts_with("HTTP/1.1 200 OK\r\n") && is_hit(&hit),
        "{hit}"
    );
}

#[test]
fn interim_responses_are_sent_when_they_come() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap(), &[]);
    thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        read_request(&mut connection);
        let (interim, end) = HINTED.split_at(HINTED.find("HTTP/1.1 102").unwrap());
        connection.write_all(interim.as_bytes()).unwrap();
        wait.lock().unwrap().recv().unwrap();
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
    // Buffers on the way are full when the second request is taken up.
    origin.wait_for(1);
    let read = read_to_end(&mut client);
    let (body, rest) = content(&read).split_at(LENGTH);
    assert!(body.bytes().all(|byte| byte == b'.'));
    assert!(rest.starts_with("HTTP/1.1 103 Early Hints\r\n"), "{rest}");
    assert!(rest.ends_with("\r\n\r\nok"), "{rest}");
}

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
fn the_presets_differ_over_cookies_that_are_set() {
    let origin = Origin::always(
        "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nCache-Control: max-age=60\r\n\
         Content-Length: 2\r\n\r\nok",
    );
    for (preset, stores) in [("rfc9111", true), ("guarded", false)] {
        let proxy = Proxy::start(origin.address, &["--preset", preset]);
        proxy.get("/");
        assert_eq!(is_hit(&proxy.get("/")), stores, "{preset}");
    }
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
            eprintln!("skipped: there is no curl");
            return;
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
        let Ok(output) = client.map(|client| text(&client.stdout)) else {
            eprintln!("skipped: there is no python3");
            return;
        };
        if output.is_empty() {
            eprintln!("skipped: python3 has no CacheControl");
            return;
        }
        let expected = ["False ok", "True ok", "True ok"];
        assert_eq!(output.lines().collect::<Vec<_>>(), expected, "{target}");
    }
    // Its conditional requests were answered by the proxy, without the origin.
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn mistakes_on_the_command_line_are_explained_and_end_with_2() {
    for (options, complaint) in [
        (&[][..], "--listen is missing"),
        (&["--listen", "127.0.0.1:0"], "--origin is missing"),
        (&["--listen"], "--listen lacks a value"),
        (&["--listen", "here"], "--listen here: expected HOST:PORT"),
        (
            &["--origin", "https://a"],
            "--origin https://a: expected http://HOST[:PORT]",
        ),
        (
            &["--origin", "http://a/b"],
            "--origin http://a/b: expected http://HOST[:PORT]",
        ),
        (
            &["--preset", "none"],
            "--preset none: expected rfc9111 or guarded",
        ),
        (
            &["--store", "disk"],
            "--store disk: expected memory or redis://HOST:PORT/DB",
        ),
        (
            &["--store", "tiered+redis://127.0.0.1:6379/0"],
            "--store tiered+redis://127.0.0.1:6379/0: arrives later; use redis://",
        ),
        (&["--threads", "0"], "--threads 0: expected a number from 1"),
        (&["--verbose"], "--verbose is not an option"),
    ] {
        let output = Command::new(program()).args(options).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert_eq!(
            said.lines().next(),
            Some(&*format!("reverse_proxy: {complaint}"))
        );
        assert!(said.contains("usage: "), "{said}");
    }
}

#[test]
fn a_listening_address_in_use_is_no_mistake_of_the_command_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let status: ExitStatus = Command::new(program())
        .args(["--listen", &listen, "--origin", "http://127.0.0.1:1"])
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
}
