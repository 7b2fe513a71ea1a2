//! What a URL leads to: one server, or the servers of a cluster.

use super::address::{Address, AddressOptions, Endpoint, endpoint, wrong};
use crate::error::Error;

/// Where a store keeps its content.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Server(Address),
    /// In a cluster, whose servers are spoken to like this one, and of which these are asked for the
    /// others.
    Cluster(Address, Vec<Endpoint>),
}

impl Target {
    const PORT: u16 = 6379;

    /// Parses `redis[s]+cluster://[user[:password]@]host[:port][,..][/0]`, with `-` for `+` as well,
    /// or what [`Address::parse`] takes.
    ///
    /// The URL itself is in no error: it may hold a password.
    pub(crate) fn parse(url: &str, options: &AddressOptions) -> Result<Self, Error> {
        let Some((scheme, rest)) = cluster(url) else {
            return Address::parse(url, options).map(Self::Server);
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let one = Address::parse(&format!("{scheme}://{user}@host/{path}"), options)?;
        if one.login.db() != 0 {
            return Err(wrong("a cluster has no database but 0"));
        }
        let hosts = hosts.split(',').map(|host| endpoint(host, Self::PORT));
        let seeds: Option<Vec<_>> = hosts.collect();
        let seeds = seeds.ok_or_else(|| wrong("it names no servers of a cluster"))?;
        Ok(Self::Cluster(one, seeds))
    }
}

/// Takes a URL of a cluster apart: how each of its servers is spoken to, and the rest.
fn cluster(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.strip_suffix("cluster")?.strip_suffix(['+', '-'])?;
    matches!(scheme, "redis" | "valkey" | "rediss" | "valkeys").then_some((scheme, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::ErrorKind;

    fn parse(url: &str) -> Result<Target, Error> {
        Target::parse(url, &AddressOptions::default())
    }

    #[test]
    fn a_cluster_has_hosts_and_one_login() {
        for url in [
            "redis+cluster://app:s3cret@one,two:7000,[::1]:7001/",
            "valkey-cluster://app:s3cret@one,two:7000,[::1]:7001/0",
        ] {
            let Target::Cluster(one, seeds) = parse(url).unwrap() else {
                panic!("{url} is a cluster");
            };
            let names: Vec<_> = seeds.iter().map(ToString::to_string).collect();
            assert_eq!(names, ["one:6379", "two:7000", "[::1]:7001"]);
            let server = one.with(seeds[1].clone());
            assert_eq!(server.to_string(), "two:7000/0");
            assert_eq!(server.login.username(), Some("app"));
            assert_eq!(server.login.password(), Some("s3cret"));
        }
    }

    #[test]
    fn a_wrong_cluster_is_refused_with_the_reason_and_without_the_password() {
        for (url, reason) in [
            ("redis+cluster://:s3cret@", "it names no servers"),
            ("redis+cluster://:s3cret@one,", "it names no servers"),
            ("redis+cluster://:s3cret@one:x", "it names no servers"),
            ("redis+cluster://:s3cret@one/1", "no database but 0"),
            ("redis+unix+cluster://:s3cret@one", "is not a scheme"),
            ("rediscluster://:s3cret@one", "is not a scheme"),
        ] {
            let error = parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
            assert!(error.to_string().contains(reason), "{url}: {error}");
            assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
        }
        assert!(matches!(parse("redis://one"), Ok(Target::Server(_))));
    }

    proptest! {
        #[test]
        fn any_text_is_a_cluster_or_an_error(rest in ".*") {
            let _ = parse(&format!("redis+cluster://{rest}"));
        }
    }
}
