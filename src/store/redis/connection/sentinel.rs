//! Asking Sentinels which server is the primary.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use redis::{FromRedisValue, RedisConnectionInfo, RedisResult};
use tokio::time::timeout;

use super::address::{Endpoint, endpoint};
use super::link::Link;
use super::tls::Tls;

/// Those who know which server is the primary of a service.
#[derive(Clone, Debug)]
pub(super) struct Sentinels {
    hosts: Vec<Endpoint>,
    service: String,
    login: RedisConnectionInfo,
}

impl Sentinels {
    const PORT: u16 = 26379;

    /// Reads `host[:port]`, with commas between several; `None` if they are none.
    pub(super) fn parse(hosts: &str, service: &str, login: RedisConnectionInfo) -> Option<Self> {
        let hosts: Option<Vec<_>> = hosts
            .split(',')
            .map(|host| endpoint(host, Self::PORT))
            .collect();
        Some(Self {
            hosts: hosts?,
            service: (!service.is_empty()).then(|| service.to_owned())?,
            login,
        })
    }

    /// Returns the present primary, as most of them say that answer within `limit`; it takes half of
    /// all, lest this process believes a few that are cut off with it.
    pub(super) async fn primary(
        &self,
        tls: Option<&Tls>,
        limit: Duration,
    ) -> RedisResult<Endpoint> {
        let asked = self.hosts.iter().enumerate();
        let asked = asked.map(|(place, host)| async move { (place, self.ask(host, tls).await) });
        let mut answers: FuturesUnordered<_> = asked.collect();
        let mut named = BTreeMap::new();
        let mut failure = io::Error::from(io::ErrorKind::TimedOut).into();
        let counting = async {
            while let Some((place, answer)) = answers.next().await {
                match answer {
                    Ok(primary) => drop(named.insert(place, primary)),
                    Err(error) => failure = error,
                }
                // What is left could not outvote them.
                if most(&named).is_some_and(|(_, votes)| votes > self.hosts.len() / 2) {
                    break;
                }
            }
        };
        // Those who are late have no say.
        let _ = timeout(limit, counting).await;
        match most(&named) {
            Some((primary, votes)) if votes.saturating_mul(2) >= self.hosts.len() => {
                Ok(primary.clone())
            }
            Some(_) => Err(io::Error::other("too few Sentinels name the same primary").into()),
            None => Err(failure),
        }
    }

    async fn ask(&self, sentinel: &Endpoint, tls: Option<&Tls>) -> RedisResult<Endpoint> {
        let mut question = redis::cmd("SENTINEL");
        question.arg("get-master-addr-by-name").arg(&self.service);
        let answer = Link::ask_once(sentinel, &self.login, tls, &question).await?;
        let answer = Option::<(String, u16)>::from_redis_value(answer)?;
        let unknown = || io::Error::new(io::ErrorKind::NotFound, "no Sentinel knows the service");
        let (host, port) = answer.ok_or_else(unknown)?;
        Ok(Endpoint::Tcp { host, port })
    }
}

/// Returns who is named most often, and how often; of several, always the same: whom the first of
/// the hosts names.
fn most(named: &BTreeMap<usize, Endpoint>) -> Option<(&Endpoint, usize)> {
    let votes = |one| named.values().filter(|other| *other == one).count();
    let counted = named.values().map(|one| (one, votes(one)));
    counted.rev().max_by_key(|(_, votes)| *votes)
}

impl fmt::Display for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the primary of {}", self.service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_named_most_often_is_the_primary() {
        let tcp = |port| Endpoint::Tcp {
            host: "a".to_owned(),
            port,
        };
        let most_of = |named: &[u16]| {
            let named = named.iter().copied().map(tcp).enumerate().collect();
            most(&named).map(|(primary, votes)| (primary.clone(), votes))
        };
        assert_eq!(most_of(&[]), None);
        assert_eq!(most_of(&[1, 2, 1]), Some((tcp(1), 2)));
        assert_eq!(most_of(&[1, 2, 2]), Some((tcp(2), 2)));
        assert_eq!(most_of(&[1, 2]), Some((tcp(1), 1)));
    }

    #[test]
    fn hosts_have_the_port_of_a_sentinel_unless_they_name_one() {
        let tcp = |host: &str, port| Endpoint::Tcp {
            host: host.to_owned(),
            port,
        };
        let parse = |hosts| Sentinels::parse(hosts, "cache", RedisConnectionInfo::default());
        let sentinels = parse("a,b:1,[::1]:2,[::2],10.0.0.1").unwrap();
        let expected = [
            tcp("a", 26379),
            tcp("b", 1),
            tcp("::1", 2),
            tcp("::2", 26379),
            tcp("10.0.0.1", 26379),
        ];
        assert_eq!(sentinels.hosts, expected);
        for wrong in ["", "a,", ",a", "a:x", "a:", "a:70000", ":1", "a b"] {
            assert!(parse(wrong).is_none(), "{wrong}");
        }
        assert!(Sentinels::parse("a", "", RedisConnectionInfo::default()).is_none());
    }
}
