//! Where the server is, and who we are to it.

use std::fmt;
#[cfg(unix)]
use std::path::PathBuf;
use std::time::Duration;

use http::uri::Authority;
use redis::{ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, RedisResult};

use super::sentinel::Sentinels;
use super::tls::{Tls, TlsOptions};
use crate::error::{Error, ErrorKind};

/// The address of one server, parsed once.
///
/// Neither `Debug` nor `Display` shows the password.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    whereabouts: Whereabouts,
    /// Database, user and password.
    pub(super) login: RedisConnectionInfo,
    pub(super) tls: Option<Tls>,
}

/// Where the server is.
#[derive(Clone, Debug)]
enum Whereabouts {
    At(Endpoint),
    /// There, as one of a cluster's.
    Among(Endpoint),
    /// Where they say, each time they are asked.
    Told(Sentinels),
}

/// What a socket is opened to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Tcp {
        host: String,
        port: u16,
    },
    #[cfg(unix)]
    Unix(PathBuf),
}

/// What has to be known of a server beside its URL.
#[derive(Clone, Default)]
pub(crate) struct AddressOptions {
    pub(crate) tls: TlsOptions,
    pub(crate) sentinel_password: Option<String>,
}

impl Address {
    /// Parses `redis[s]://[user[:password]@]host[:port][/db]`,
    /// `redis[s]+sentinel://[user[:password]@]host[:port][,..]/service[/db]` or
    /// `redis+unix:///path[?db=n]`.
    ///
    /// The URL itself is in no error: it may hold a password.
    pub(crate) fn parse(url: &str, options: &AddressOptions) -> Result<Self, Error> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(wrong("it has no scheme"));
        };
        let (scheme, is_told) = match scheme.strip_suffix("+sentinel") {
            Some(scheme) => (scheme, true),
            None => (scheme, false),
        };
        let tls = match scheme {
            "redis" | "valkey" => None,
            "redis+unix" | "valkey+unix" | "unix" if !is_told => None,
            "rediss" | "valkeys" if rest.contains('#') => {
                return Err(wrong("certificates are always verified, and it has a `#`"));
            }
            "rediss" | "valkeys" => Some(Tls::new(&options.tls)?),
            _ => {
                let scheme = scheme.escape_debug();
                return Err(wrong(&format!("`{scheme}` is not a scheme of Redis")));
            }
        };
        if tls.is_none() && options.tls.are_given() {
            return Err(wrong("certificates are given, and it is not one of TLS"));
        }
        let (login, whereabouts) = match (is_told, scheme.ends_with("unix")) {
            (true, _) => told(rest, options)?,
            (false, true) => at(&format!("unix://{rest}"))?,
            (false, false) => at(&format!("redis://{rest}"))?,
        };
        if login.db() < 0 {
            return Err(wrong(&format!("{} is not a database", login.db())));
        }
        Ok(Self {
            whereabouts,
            login: login.set_lib_name(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")),
            tls,
        })
    }

    /// Returns the address of a server of a cluster that is spoken to in the same way.
    pub(crate) fn with(&self, endpoint: Endpoint) -> Self {
        Self {
            whereabouts: Whereabouts::Among(endpoint),
            ..self.clone()
        }
    }

    /// Finds out within `limit` where the server is at present.
    pub(super) async fn endpoint(&self, limit: Duration) -> RedisResult<Endpoint> {
        match &self.whereabouts {
            Whereabouts::At(endpoint) | Whereabouts::Among(endpoint) => Ok(endpoint.clone()),
            Whereabouts::Told(sentinels) => sentinels.primary(self.tls.as_ref(), limit).await,
        }
    }

    /// Returns where the server always is.
    pub(crate) fn fixed(&self) -> Option<&Endpoint> {
        match &self.whereabouts {
            Whereabouts::At(endpoint) | Whereabouts::Among(endpoint) => Some(endpoint),
            Whereabouts::Told(_) => None,
        }
    }

    /// Whether the server is one of a cluster's.
    pub(super) fn is_of_cluster(&self) -> bool {
        matches!(self.whereabouts, Whereabouts::Among(_))
    }

    /// Whether the server may be elsewhere the next time.
    pub(crate) fn moves(&self) -> bool {
        matches!(self.whereabouts, Whereabouts::Told(_))
    }
}

impl Endpoint {
    /// Reads where a server of the same cluster is, as this one says: without a host, on its own.
    pub(crate) fn beside(&self, host: &str, port: u16) -> Option<Self> {
        let host = match (host, self) {
            ("", Self::Tcp { host, .. }) => host,
            ("" | "?", _) => return None,
            (host, _) => host,
        };
        let host = host.to_owned();
        (port != 0).then_some(Self::Tcp { host, port })
    }
}

/// Reads a URL that says where the server is.
fn at(url: &str) -> Result<(RedisConnectionInfo, Whereabouts), Error> {
    let info = url
        .into_connection_info()
        .map_err(|error| wrong("the client cannot read it").with_source(error))?;
    let endpoint = match info.addr() {
        ConnectionAddr::Tcp(host, port) => Endpoint::Tcp {
            host: host.clone(),
            port: *port,
        },
        #[cfg(unix)]
        ConnectionAddr::Unix(path) => Endpoint::Unix(path.clone()),
        _ => return Err(wrong("it is neither a TCP nor a Unix socket")),
    };
    Ok((info.redis_settings().clone(), Whereabouts::At(endpoint)))
}

/// Reads the rest of a URL that says who knows where the server is.
fn told(rest: &str, options: &AddressOptions) -> Result<(RedisConnectionInfo, Whereabouts), Error> {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (service, database) = path.split_once('/').unwrap_or((path, ""));
    let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (login, _) = at(&format!("redis://{user}@host/{database}"))?;
    let mut own = RedisConnectionInfo::default();
    if let Some(password) = &options.sentinel_password {
        own = own.set_password(password);
    }
    let sentinels = Sentinels::parse(hosts, service, own)
        .ok_or_else(|| wrong("it names no Sentinels, or no service that they watch"))?;
    Ok((login, Whereabouts::Told(sentinels)))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.whereabouts {
            Whereabouts::At(endpoint) | Whereabouts::Among(endpoint) => write!(f, "{endpoint}")?,
            Whereabouts::Told(sentinels) => write!(f, "{sentinels}")?,
        }
        write!(f, "/{}", self.login.db())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            #[cfg(unix)]
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Reads `host[:port]`; `None` if it is none.
pub(super) fn endpoint(host: &str, default_port: u16) -> Option<Endpoint> {
    let authority: Authority = host.parse().ok()?;
    let name = authority.host();
    let port = match authority.as_str().strip_prefix(name)? {
        "" => default_port,
        port => port.strip_prefix(':')?.parse().ok()?,
    };
    let host = name.trim_matches(['[', ']']).to_owned();
    (!host.is_empty()).then_some(Endpoint::Tcp { host, port })
}

pub(super) fn wrong(reason: &str) -> Error {
    let expected = "redis[s]://[user[:password]@]host[:port][/db], \
        redis[s]+cluster://[user[:password]@]host[:port][,..], \
        redis[s]+sentinel://[user[:password]@]host[:port][,..]/service[/db] \
        or redis+unix:///path[?db=n]";
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
        Address::parse(url, &AddressOptions::default())
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
            assert!(
                matches!(&address.whereabouts, Whereabouts::At(at) if *at == endpoint),
                "{url}: {address:?}"
            );
            assert_eq!(address.login.db(), db, "{url}");
            assert_eq!(address.login.username(), user, "{url}");
            assert_eq!(address.login.password(), password, "{url}");
        }
    }

    #[test]
    fn a_service_has_sentinels_and_a_login_of_its_own() {
        let url = "redis+sentinel://app:s3cret@one,two:5000/cache/3";
        let address = parse(url).unwrap();
        assert_eq!(address.to_string(), "the primary of cache/3");
        assert_eq!(address.login.username(), Some("app"));
        assert_eq!(address.login.password(), Some("s3cret"));
        assert!(address.moves());
        let plain = parse("valkey+sentinel://one/cache").unwrap();
        assert_eq!(plain.login.username(), None);
        assert_eq!(plain.login.db(), 0);
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
            ("redis+sentinel://one", "it names no Sentinels"),
            ("redis+sentinel:///cache", "it names no Sentinels"),
            ("redis+sentinel://one/cache/x", "the client cannot read it"),
            (
                "redis+unix+sentinel://one/cache",
                "`redis+unix` is not a scheme",
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
            "redis+sentinel://app:s3cret@one",
            "redis+sentinel://app:s3cret@one/cache/x",
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
            let _ = parse(&format!("redis+sentinel://{rest}"));
        }
    }
}
