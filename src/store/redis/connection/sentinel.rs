//! Asking Sentinels which server is the primary.

use std::fmt;
use std::io;
use std::time::Duration;

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
    /// After so long the next one is asked.
    const PATIENCE: Duration = Duration::from_millis(100);

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

    /// Returns the present primary, by the first of them that names one.
    pub(super) async fn primary(&self, tls: Option<&Tls>) -> RedisResult<Endpoint> {
        let mut failure = io::Error::from(io::ErrorKind::TimedOut).into();
        for sentinel in &self.hosts {
            match timeout(Self::PATIENCE, self.ask(sentinel, tls)).await {
                Ok(Ok(primary)) => return Ok(primary),
                Ok(Err(error)) => failure = error,
                Err(_elapsed) => {}
            }
        }
        Err(failure)
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

impl fmt::Display for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the primary of {}", self.service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
