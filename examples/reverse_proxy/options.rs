//! The command line.

use std::ffi::OsString;
use std::net::{SocketAddr, ToSocketAddrs};
use std::num::NonZeroUsize;

use http::Uri;
use http::uri::{Authority, Scheme};
use tower_response_cache::{Error, ErrorKind, Policy};

pub(crate) const USAGE: &str = "\
usage: reverse_proxy --listen HOST:PORT --origin http://HOST[:PORT]
                     [--preset rfc9111|guarded]        (default: rfc9111)
                     [--store memory|[tiered+]redis://HOST:PORT/DB] (default: memory)
                     [--threads N]                     (default: one a core)";

/// What the command line asks for.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) listen: SocketAddr,
    pub(crate) origin: Authority,
    pub(crate) preset: Policy,
    pub(crate) store: Storage,
    pub(crate) threads: Option<NonZeroUsize>,
}

/// Where responses are kept.
#[derive(Debug)]
pub(crate) enum Storage {
    Memory,
    Redis(String),
    /// Memory over Redis.
    Tiered(String),
}

impl Options {
    /// Reads options and their values; the last of several of one name counts.
    pub(crate) fn parse(args: impl Iterator<Item = OsString>) -> Result<Self, Error> {
        let mut args = args.map(|arg| arg.to_string_lossy().into_owned());
        let (mut listen, mut origin, mut threads) = (None, None, None);
        let (mut preset, mut store) = (Policy::rfc9111(), Storage::Memory);
        while let Some(name) = args.next() {
            let mut value = || {
                args.next()
                    .ok_or_else(|| invalid(format!("{name} lacks a value")))
            };
            match name.as_str() {
                "--listen" => listen = Some(address(&value()?)?),
                "--origin" => origin = Some(authority(&value()?)?),
                "--preset" => preset = policy(&value()?)?,
                "--store" => store = storage(&value()?)?,
                "--threads" => threads = Some(count(&value()?)?),
                _ => return Err(invalid(format!("{name} is not an option"))),
            }
        }
        Ok(Self {
            listen: listen.ok_or_else(|| invalid("--listen is missing"))?,
            origin: origin.ok_or_else(|| invalid("--origin is missing"))?,
            preset,
            store,
            threads,
        })
    }
}

fn address(value: &str) -> Result<SocketAddr, Error> {
    let found = value
        .to_socket_addrs()
        .ok()
        .and_then(|mut found| found.next());
    found.ok_or_else(|| invalid(format!("--listen {value}: expected HOST:PORT")))
}

fn authority(value: &str) -> Result<Authority, Error> {
    let uri = value.parse::<Uri>().unwrap_or_default();
    match uri.authority() {
        Some(authority)
            if uri.scheme() == Some(&Scheme::HTTP)
                && !authority.as_str().contains('@')
                && uri.path() == "/"
                && uri.query().is_none() =>
        {
            Ok(authority.clone())
        }
        _ => Err(invalid(format!(
            "--origin {value}: expected http://HOST[:PORT]"
        ))),
    }
}

fn policy(value: &str) -> Result<Policy, Error> {
    match value {
        "rfc9111" => Ok(Policy::rfc9111()),
        "guarded" => Ok(Policy::guarded()),
        _ => Err(invalid(format!(
            "--preset {value}: expected rfc9111 or guarded"
        ))),
    }
}

fn storage(value: &str) -> Result<Storage, Error> {
    let redis = |url: &str| url.starts_with("redis://").then(|| url.to_owned());
    if value == "memory" {
        Ok(Storage::Memory)
    } else if let Some(url) = redis(value) {
        Ok(Storage::Redis(url))
    } else if let Some(url) = value.strip_prefix("tiered+").and_then(redis) {
        Ok(Storage::Tiered(url))
    } else {
        Err(invalid(format!(
            "--store {value}: expected memory or [tiered+]redis://HOST:PORT/DB"
        )))
    }
}

fn count(value: &str) -> Result<NonZeroUsize, Error> {
    value
        .parse()
        .map_err(|_| invalid(format!("--threads {value}: expected a number from 1")))
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, message)
}
