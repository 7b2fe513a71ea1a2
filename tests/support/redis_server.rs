//! A real `redis-server` of a test's own, on a loopback port.

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

/// A running server, which ends with this value.
#[derive(Debug)]
pub(crate) struct RedisServer {
    process: Child,
    port: u16,
    args: Vec<String>,
    directory: TempDir,
}

impl RedisServer {
    /// Starts a server that keeps nothing on disk, and waits until it takes connections.
    pub(crate) fn start() -> Self {
        Self::with_args(&[])
    }

    /// Starts a server with more arguments, such as `--maxmemory 1mb`.
    pub(crate) fn with_args(args: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory for redis-server");
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        // Another process may take the port before the server does, so the next one is tried.
        for _ in 0..20 {
            let port = free_port();
            if let Some(process) = spawn(port, &args, directory.path()) {
                return Self {
                    process,
                    port,
                    args,
                    directory,
                };
            }
        }
        panic!("redis-server does not start");
    }

    /// Returns the address of database 0.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Returns the port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Ends the server at once, by SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("redis-server is killed");
        self.process.wait().expect("redis-server has ended");
    }

    /// Starts the server again on the same port, and waits until it takes connections.
    pub(crate) fn restart(&mut self) {
        // Fails if it ended before, which is as well.
        let _ = self.process.kill();
        let _ = self.process.wait();
        self.process = spawn(self.port, &self.args, self.directory.path())
            .expect("redis-server starts on its port again");
    }

    /// Freezes the server: connections stay up and nothing is answered.
    pub(crate) fn stop(&self) {
        self.signal("-STOP");
    }

    /// Lets a frozen server go on.
    pub(crate) fn cont(&self) {
        self.signal("-CONT");
    }

    /// Sends a command on a connection of its own and returns the reply's text, be it an error's.
    ///
    /// The reply must not be an array; what is absent has no text.
    pub(crate) fn command<A: AsRef<[u8]>>(&self, words: &[A]) -> String {
        Self::command_at(self.port, words)
    }

    /// Sends a [`command`](Self::command) to whoever answers on a port, such as a Sentinel.
    pub(crate) fn command_at<A: AsRef<[u8]>>(port: u16, words: &[A]) -> String {
        read(&mut BufReader::new(send(port, words)))
    }

    /// Sends a command on a connection of its own and returns the texts of the reply's array.
    pub(crate) fn strings<A: AsRef<[u8]>>(&self, words: &[A]) -> Vec<String> {
        Self::strings_at(self.port, words)
    }

    /// Does the same with whoever answers on a port.
    pub(crate) fn strings_at<A: AsRef<[u8]>>(port: u16, words: &[A]) -> Vec<String> {
        let mut reply = BufReader::new(send(port, words));
        let count = read(&mut reply).parse().expect("the reply is an array");
        let texts = (0..count).map(|_: usize| {
            let text = read(&mut reply);
            // What ends the text.
            reply
                .read_line(&mut String::new())
                .expect("redis-server answers");
            text
        });
        texts.collect()
    }

    /// Sends commands one after the other on one connection, and waits until all are done.
    pub(crate) fn commands<A: AsRef<[u8]>>(&self, commands: &[&[A]]) {
        let mut stream = send(self.port, &["PING"]);
        for words in commands {
            stream
                .write_all(&request(words))
                .expect("redis-server takes the command");
        }
        stream
            .write_all(&request(&["QUIT"]))
            .expect("redis-server takes the command");
        // It may have ended this connection too.
        let _ = stream.read_to_end(&mut Vec::new());
    }

    /// Sends a command without waiting for the reply. Dropping the connection may cancel it.
    pub(crate) fn send<A: AsRef<[u8]>>(&self, words: &[A]) -> TcpStream {
        send(self.port, words)
    }

    fn signal(&self, signal: &str) {
        let pid = self.process.id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status();
        assert!(status.expect("kill runs").success(), "kill {signal} {pid}");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // A test may have killed it already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Reads a reply, or of an array the number of its elements.
fn read(reply: &mut impl BufRead) -> String {
    let mut line = String::new();
    reply.read_line(&mut line).expect("redis-server answers");
    let text = line.get(1..).unwrap_or_default().trim_end();
    let mut bulk = match line.strip_prefix('$').and_then(|_| text.parse().ok()) {
        Some(length) => vec![0; length],
        None => return text.to_owned(),
    };
    reply.read_exact(&mut bulk).expect("redis-server answers");
    String::from_utf8_lossy(&bulk).into_owned()
}

fn send<A: AsRef<[u8]>>(port: u16, words: &[A]) -> TcpStream {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect(address).expect("redis-server takes the connection");
    stream
        .write_all(&request(words))
        .expect("redis-server takes the command");
    stream
}

fn request<A: AsRef<[u8]>>(words: &[A]) -> Vec<u8> {
    let mut request = format!("*{}\r\n", words.len()).into_bytes();
    for word in words.iter().map(AsRef::as_ref) {
        request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        request.extend_from_slice(word);
        request.extend_from_slice(b"\r\n");
    }
    request
}

/// Returns a port that nobody uses at present.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener
        .local_addr()
        .expect("a bound listener has an address")
        .port()
}

/// Starts the server, or returns `None` when it ended before it was ready.
///
/// It is ready when it says so. That somebody answers on its port proves nothing: the port may
/// have gone to another test's server.
fn spawn(port: u16, args: &[String], directory: &Path) -> Option<Child> {
    // Another server that understands the same, such as `valkey-server`.
    let program = env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into());
    let mut process = Command::new(program)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no", "--dir"])
        .arg(directory)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is installed");
    let mut log = BufReader::new(process.stdout.take().expect("standard output is piped"));
    let mut line = String::new();
    while log.read_line(&mut line).is_ok_and(|length| length > 0) {
        if line.contains("Ready to accept connections") {
            // The rest of the log is drained, lest the server blocks on a full pipe.
            thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
            return Some(process);
        }
        line.clear();
    }
    let _ = process.wait();
    thread::sleep(Duration::from_millis(10));
    None
}
