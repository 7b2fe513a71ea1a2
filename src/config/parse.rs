//! Values as operators write them.

use std::time::Duration;

use crate::key::Namespace;
use crate::rules::units;
use crate::semantics::cache_status::CacheName;
#[cfg(all(feature = "memory", feature = "redis"))]
use crate::store::WhenAway;
#[cfg(feature = "redis")]
use crate::store::{Mirroring, SHORTEST_SECRET, WAITS};

pub(super) fn verbatim(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(format!("{text:?} is neither `true` nor `false`")),
    }
}

pub(super) fn namespace(text: &str) -> Result<Namespace, String> {
    text.parse().map_err(|error| format!("{text:?}: {error}"))
}

/// From what size on bodies are compressed, where they can be.
pub(super) fn threshold(text: &str) -> Result<u64, String> {
    match cfg!(feature = "compression") {
        true => units::size(text),
        false => Err("needs the feature `compression`".to_owned()),
    }
}

/// What a file holds in PEM, where it is of use.
pub(super) fn pem(path: &str) -> Result<Vec<u8>, String> {
    match cfg!(feature = "redis-tls") {
        true => std::fs::read(path).map_err(|error| format!("{path:?}: {error}")),
        false => Err("needs the feature `redis-tls`".to_owned()),
    }
}

/// What a cache calls itself.
pub(super) fn cache_name(text: &str) -> Result<String, String> {
    match CacheName::new(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err(format!("{text:?} is not printable ASCII")),
    }
}

/// How long Redis is waited for.
#[cfg(feature = "redis")]
pub(super) fn wait(text: &str) -> Result<Duration, String> {
    let time = units::duration(text)?;
    let waits = WAITS.contains(&time).then_some(time);
    waits.ok_or_else(|| {
        let (shortest, longest) = (WAITS.start(), WAITS.end());
        format!("{text:?} is not between {shortest:?} and {longest:?}")
    })
}

#[cfg(not(feature = "redis"))]
pub(super) use crate::rules::units::duration as wait;

/// What nobody can guess, and no error shows.
#[cfg(feature = "redis")]
pub(super) fn secret(text: &str) -> Result<String, String> {
    match text.len() < SHORTEST_SECRET {
        true => Err(format!("it is shorter than {SHORTEST_SECRET} bytes")),
        false => verbatim(text),
    }
}

#[cfg(not(feature = "redis"))]
pub(super) use self::verbatim as secret;

/// How often something happens before something is done about it.
pub(super) fn count(text: &str) -> Result<u32, String> {
    let count = text.parse().ok().filter(|count| *count > 0);
    count.ok_or_else(|| format!("{text:?} is no number: write `1`, or more"))
}

/// How long a pause is at first, and at last.
pub(super) fn pauses(text: &str) -> Result<(Duration, Duration), String> {
    let no_pauses = || format!("{text:?} is no time and a longer one: write `500ms to 10s`");
    let (first, longest) = text.split_once(" to ").ok_or_else(no_pauses)?;
    let (first, longest) = (wait(first.trim())?, wait(longest.trim())?);
    let pauses = (first <= longest).then_some((first, longest));
    pauses.ok_or_else(no_pauses)
}

/// How many replicas have to know, and within what time.
pub(super) fn quorum(text: &str) -> Result<(u32, Duration), String> {
    let no_quorum =
        || format!("{text:?} is no number of replicas and a time: write `1 within 100ms`");
    let (replicas, within) = text.split_once(" within ").ok_or_else(no_quorum)?;
    let replicas = replicas.trim().parse().map_err(|_| no_quorum())?;
    Ok((replicas, wait(within.trim())?))
}

#[cfg(feature = "redis")]
pub(super) fn mirroring(text: &str) -> Result<Mirroring, String> {
    match word_and_time(text) {
        Some(("tracking", None)) => Ok(Mirroring::Tracking),
        Some(("poll", Some(max_staleness))) => Ok(Mirroring::Poll { max_staleness }),
        Some(("off", None)) => Ok(Mirroring::Off),
        _ => Err(format!(
            "{text:?} is none of `tracking`, `poll 1s` with a time of your own, and `off`"
        )),
    }
}

#[cfg(all(feature = "memory", feature = "redis"))]
pub(super) fn when_away(text: &str) -> Result<WhenAway, String> {
    match word_and_time(text) {
        Some(("local-ttl", Some(ttl))) => Ok(WhenAway::LocalTtl(ttl)),
        Some(("bypass", None)) => Ok(WhenAway::Bypass),
        Some(("serve", Some(limit))) => Ok(WhenAway::Serve(limit)),
        _ => Err(format!(
            "{text:?} is none of `local-ttl 2s`, `serve 2s` with a time of your own, and `bypass`"
        )),
    }
}

#[cfg(feature = "redis")]
fn word_and_time(text: &str) -> Option<(&str, Option<Duration>)> {
    match text.split_once(' ') {
        Some((word, time)) => Some((word, Some(units::duration(time.trim()).ok()?))),
        None => Some((text, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_is_a_number_and_a_time() {
        assert_eq!(
            quorum("2 within 100ms"),
            Ok((2, Duration::from_millis(100)))
        );
        for text in ["", "2", "100ms", "2 within", "-1 within 1s"] {
            assert!(quorum(text).unwrap_err().contains("`1 within 100ms`"));
        }
        assert!(quorum("2 within soon").unwrap_err().contains("soon"));
    }

    #[test]
    fn pauses_are_two_times_of_which_the_second_is_no_shorter() {
        let (first, longest) = (Duration::from_millis(50), Duration::from_secs(2));
        assert_eq!(pauses("50ms to 2s"), Ok((first, longest)));
        assert_eq!(pauses("2s to 2s"), Ok((longest, longest)));
        for text in ["", "2s", "2s to", "2s to 50ms"] {
            let error = pauses(text).unwrap_err();
            assert!(error.contains("`500ms to 10s`"), "{error}");
        }
    }

    #[test]
    fn a_count_is_one_or_more() {
        assert_eq!(count("7"), Ok(7));
        for text in ["", "0", "-1", "5000000000", "some"] {
            assert!(count(text).unwrap_err().contains("`1`"), "{text}");
        }
    }

    #[cfg(feature = "redis")]
    #[test]
    fn a_wait_is_as_long_as_an_option_of_the_store_can_be() {
        assert_eq!(wait("60s"), Ok(Duration::from_secs(60)));
        for text in ["0s", "61s", "1us"] {
            let error = wait(text).unwrap_err();
            assert!(error.contains("between 1ms and 60s"), "{error}");
        }
    }

    #[cfg(feature = "redis")]
    #[test]
    fn mirroring_is_a_word_and_perhaps_a_time() {
        let max_staleness = Duration::from_millis(1500);
        for (text, mode) in [
            ("tracking", Mirroring::Tracking),
            ("poll 1s 500ms", Mirroring::Poll { max_staleness }),
            ("off", Mirroring::Off),
        ] {
            assert_eq!(mirroring(text), Ok(mode));
        }
        for text in ["poll", "off 1s", "tracking 2", "Poll 1s", ""] {
            assert!(mirroring(text).unwrap_err().contains("`poll 1s`"), "{text}");
        }
    }

    #[cfg(all(feature = "memory", feature = "redis"))]
    #[test]
    fn what_happens_when_redis_is_away_is_a_word_and_perhaps_a_time() {
        let minute = Duration::from_secs(60);
        for (text, mode) in [
            ("local-ttl 1m", WhenAway::LocalTtl(minute)),
            ("serve 60s", WhenAway::Serve(minute)),
            ("bypass", WhenAway::Bypass),
        ] {
            assert_eq!(when_away(text), Ok(mode));
        }
        for text in ["serve", "bypass 1s", "local-ttl", "serve soon", ""] {
            assert!(when_away(text).unwrap_err().contains("`bypass`"), "{text}");
        }
    }
}
