//! Values as operators write them.

use std::time::Duration;

use crate::key::Namespace;
use crate::rules::units;
#[cfg(feature = "redis")]
use crate::store::Mirroring;
#[cfg(feature = "memory")]
use crate::store::WhenAway;

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

/// How many replicas have to know, and within what time.
pub(super) fn quorum(text: &str) -> Result<(u32, Duration), String> {
    let parts = text.split_once(" within ").and_then(|(replicas, within)| {
        let replicas = replicas.trim().parse().ok()?;
        Some((replicas, units::duration(within.trim()).ok()?))
    });
    parts.ok_or_else(|| {
        format!("{text:?} is no number of replicas and a time: write `1 within 100ms`")
    })
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

#[cfg(feature = "memory")]
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

#[cfg(any(feature = "memory", feature = "redis"))]
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
        for text in [
            "",
            "2",
            "100ms",
            "2 within",
            "2 within soon",
            "-1 within 1s",
        ] {
            assert!(quorum(text).unwrap_err().contains("`1 within 100ms`"));
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

    #[cfg(feature = "memory")]
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
