//! Where the server is, and who we are to it.

use std::fmt;
#[cfg(unix)]
use std::path::PathBuf;

use redis::{ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};

use super::tls::{Tls, TlsOptions};
use crate::error::{Error, ErrorKind};

/// The address of one server, parsed once.
///
/// Neither `Debug` nor `Display` shows the password.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    pub(super) endpoint: Endpoint,
    /// Database, user and password.
    pub(super) login: RedisConnectionInfo,
    pub(super) tls: Option<Tls>,
}

/// What a socket is opened to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Tcp {
        host: String,
        port: u16,
    },
    #[cfg(unix)]
    Unix(PathBuf),
}

impl Address {
    /// Parses `redis[s]://[user[:password]@]host[:port][/db]` or `redis+unix:///path[?db=n]`.
    ///
    /// The URL itself is in no error: it may hold a password.
    pub(crate) fn parse(url: &str, options: &TlsOptions) -> Result<Self, Error> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(wrong("it has no scheme"));
        };
        let (plain, tls) = match scheme {
            "redis" | "valkey" => ("redis", None),
            "rediss" | "valkeys" if rest.contains('#') => {
                return Err(wrong("certificates are always verified, and it has a `#`"));
            }
            "rediss" | "valkeys" => ("redis", Some(Tls::new(options)?)),
            "redis+unix" | "valkey+unix" | "unix" => ("redis+unix", None),
            _ => {
                let scheme = scheme.escape_debug();
                return Err(wrong(&format!("`{scheme}` is not a scheme of Redis")));
            }
        };
        let info = format!("{plain}://{rest}")
            .into_connection_info()
            .map_err(|error| wrong("the client cannot read it").with_source(error))?;
        let login = info.redis_settings().clone();
        let login = login.set_lib_name(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        if login.db() < 0 {
            return Err(wrong(&format!("{} is not a database", login.db())));
        }
        let endpoint = match info.addr() {
            ConnectionAddr::Tcp(host, port) => Endpoint::Tcp {
                host: host.clone(),
                port: *port,
            },
            #[cfg(unix)]
            ConnectionAddr::Unix(path) => Endpoint::Unix(path.clone()),
            _ => return Err(wrong("it is neither a TCP nor a Unix socket")),
        };
        Ok(Self {
            endpoint,
            login,
            tls,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            Endpoint::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}")?,
            Endpoint::Tcp { host, port } => write!(f, "{host}:{port}")?,
            #[cfg(unix)]
            Endpoint::Unix(path) => write!(f, "{}", path.display())?,
        }
        write!(f, "/{}", self.login.db())
    }
}

fn wrong(reason: &str) -> Error {
    let expected = "redis[s]://[user[:password]@]host[:port][/db] or redis+unix:///path[?db=n]";
    Error::new(
        ErrorKind::Invalid,
        format!("the address of the Redis server is wrong: {reason}; expected is {expected}"),
    )
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use proptest::prelude::*;

    use super::*;

    fn parse(url: &str) -> Result<Address, Error> {
        Address::parse(url, &TlsOptions::default())
    }

    fn tcp(host: &str, port: u16) -> Endpoint {
        Endpoint::Tcp {
            host: host.to_owned(),
            port,
        }
    }

    #[test]
    fn an_address_has_defaults_for_all_but_the_host() {
        for (url, endpoint, db, user, password) in [
            ("redis://cache", tcp("cache", 6379), 0, None, None),
            ("valkey://cache:7000/3", tcp("cache", 7000), 3, None, None),
            (
                "redis://:p%40ss@[::1]/",
                tcp("::1", 6379),
                0,
                None,
                Some("p@ss"),
            ),
            (
                "redis://app:s3cret@10.0.0.1/15",
                tcp("10.0.0.1", 6379),
                15,
                Some("app"),
                Some("s3cret"),
            ),
            (
                "redis+unix:///run/redis.sock?db=1",
                Endpoint::Unix("/run/redis.sock".into()),
                1,
                None,
                None,
            ),
            (
                "unix:///run/redis.sock?pass=x",
                Endpoint::Unix("/run/redis.sock".into()),
                0,
                None,
                Some("x"),
            ),
        ] {
            let address = parse(url).unwrap();
            assert_eq!(address.endpoint, endpoint, "{url}");
            assert_eq!(address.login.db(), db, "{url}");
            assert_eq!(address.login.username(), user, "{url}");
            assert_eq!(address.login.password(), password, "{url}");
        }
    }

    #[test]
    fn a_wrong_address_is_refused_with_the_reason() {
        for (url, reason) in [
            ("", "it has no scheme"),
            ("localhost:6379", "it has no scheme"),
            ("http://localhost", "`http` is not a scheme of Redis"),
            (
                "rediss://localhost#insecure",
                "certificates are always verified",
            ),
            ("redis://", "the client cannot read it"),
            ("redis://host:port", "the client cannot read it"),
            ("redis://0.0.0.0", "the client cannot read it"),
            ("redis://localhost/-1", "-1 is not a database"),
            ("redis://localhost/cache", "the client cannot read it"),
        ] {
            let error = parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
            assert!(error.to_string().contains(reason), "{url}: {error}");
        }
    }

    #[test]
    fn a_password_is_shown_nowhere() {
        let address = parse("redis://app:s3cret@cache/2").unwrap();
        assert_eq!(address.to_string(), "cache:6379/2");
        assert!(!format!("{address:?}").contains("s3cret"));
        for url in [
            "redis://app:s3cret@cache/x",
            "redis://app:s3cret@:::/0",
            "http://app:s3cret@h",
        ] {
            let error = parse(url).unwrap_err();
            let source = error.source().map(ToString::to_string);
            assert!(
                !format!("{error} {error:?} {source:?}").contains("s3cret"),
                "{error:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_address_or_an_error(rest in ".*") {
            let _ = parse(&rest);
            let _ = parse(&format!("redis://{rest}"));
            let _ = parse(&format!("unix://{rest}"));
        }
    }
}
