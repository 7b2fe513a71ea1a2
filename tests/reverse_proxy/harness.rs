//! The proxy, an origin that says what a script tells it to, and messages as text.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use crate::example::{self, Running};

/// Long enough for anything here, if it happens at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Returns the program, built once.
pub(crate) fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| example::program("reverse_proxy"))
}

/// The proxy in front of one origin.
pub(crate) struct Proxy {
    _process: Running,
    pub(crate) address: SocketAddr,
}

impl Proxy {
    pub(crate) fn before(origin: &Origin) -> Self {
        Self::start(origin.address, &[])
    }

    pub(crate) fn start(origin: SocketAddr, options: &[&str]) -> Self {
        let mut command = Command::new(program());
        command.args(["--listen", "127.0.0.1:0", "--threads", "1"]);
        command.args(["--origin", &format!("http://{origin}")]);
        let process = Running::start(command.args(options));
        Self {
            address: process.address,
            _process: process,
        }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.address).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
    }

    /// Sends bytes and returns all that comes until the connection is closed.
    pub(crate) fn send(&self, request: impl AsRef<[u8]>) -> String {
        let mut client = self.connect();
        client.write_all(request.as_ref()).unwrap();
        read_to_end(&mut client)
    }

    /// Sends a request without content, with `fields` added as they are.
    pub(crate) fn request(&self, method: &str, target: &str, fields: &str) -> String {
        self.send(format!(
            "{method} {target} HTTP/1.1\r\nHost: a.example\r\n{fields}Connection: close\r\n\r\n"
        ))
    }

    pub(crate) fn get(&self, target: &str) -> String {
        self.request("GET", target, "")
    }
}

/// An origin that reads a request, sends what its script says, and closes the connection.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Origin {
    pub(crate) fn always(answer: &'static str) -> Self {
        Self::new(move |_| latin1(answer))
    }

    pub(crate) fn new(script: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
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

    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// An address at which nobody listens; a port of which the system gives out none.
pub(crate) const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// One byte a character, so that any bytes can be written and compared as text.
pub(crate) fn latin1(text: &str) -> Vec<u8> {
    text.chars()
        .map(|char| u8::try_from(u32::from(char)).unwrap())
        .collect()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

pub(crate) fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    text(&bytes)
}

pub(crate) fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut read = String::new();
    while !read.ends_with(end) {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        read.push(char::from(byte[0]));
    }
    read
}

/// Reads a request with its content, which stays as it is framed.
pub(crate) fn read_request(stream: &mut TcpStream) -> String {
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

pub(crate) fn field<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    fields(message, name).next()
}

pub(crate) fn fields<'a>(message: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let (head, _) = message.split_once("\r\n\r\n").unwrap();
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .filter(move |(found, _)| *found == name)
        .map(|(_, value)| value)
}

pub(crate) fn content(message: &str) -> &str {
    message.split_once("\r\n\r\n").unwrap().1
}

pub(crate) fn is_hit(response: &str) -> bool {
    field(response, "cache-status").is_some_and(|status| status.contains("; hit"))
}
