//! Examples as running programs. Cargo lets no test depend on an example, so the tests build them,
//! which is done already where `cargo test` runs all targets.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// Builds an example as this test is built, and returns the program.
pub(crate) fn program(name: &str) -> PathBuf {
    let profile = if cfg!(debug_assertions) {
        "dev"
    } else {
        "release"
    };
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--example", name]);
    cargo.args(["--profile", profile, "--message-format", "json"]);
    for (feature, on) in [
        ("compression", cfg!(feature = "compression")),
        ("config", cfg!(feature = "config")),
        ("redis-tls", cfg!(feature = "redis-tls")),
        ("test-util", cfg!(feature = "test-util")),
    ] {
        if on {
            cargo.args(["--features", feature]);
        }
    }
    let built = cargo.stderr(Stdio::inherit()).output().unwrap();
    serde_json::Deserializer::from_slice(&built.stdout)
        .into_iter::<Value>()
        .map(Result::unwrap)
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .expect("the example is built")
}

/// A running program, which ends with this value.
pub(crate) struct Running {
    process: Child,
    pub(crate) address: SocketAddr,
}

impl Running {
    /// Starts a program, and waits for the line with the address at which it listens.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = lines.map(Result::unwrap).find_map(|line| {
            let (_, address) = line.split_once("http://")?;
            let (address, _) = address.split_once('/').unwrap_or((address, ""));
            Some(address.parse().unwrap())
        });
        Self {
            process,
            address: address.expect("it says where it listens"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
