//! The authority of a request's target (RFC 9110 §7.2).

use http::{HeaderMap, Uri, header::HOST};

use super::NoKey;

/// Returns host and port of the target URI, from the URI itself or else from `Host`.
///
/// A default port is cut off; letters stay as received, so callers compare without regard to case.
/// URI and `Host` that name different targets are refused: which of the two the handler listens to
/// is not known, and a response stored for the other one would poison the cache.
pub(crate) fn authority<'a>(
    uri: &'a Uri,
    headers: &'a HeaderMap,
) -> Result<Option<&'a [u8]>, NoKey> {
    let default_port: &[u8] = match uri.scheme_str() {
        Some(scheme) if scheme.eq_ignore_ascii_case("https") => b"443",
        _ => b"80",
    };
    let mut from_host = headers.get_all(HOST).iter().map(|host| host.as_bytes());
    let from_uri = uri.authority().map(|host| host.as_str().as_bytes());
    let Some(first) = from_uri.or_else(|| from_host.next()) else {
        return Ok(None);
    };
    let target = without_default_port(first, default_port)?;
    for other in from_host {
        if !without_default_port(other, default_port)?.eq_ignore_ascii_case(target) {
            return Err(NoKey::ConflictingHost);
        }
    }
    Ok(Some(target))
}

/// Checks `uri-host [ ":" port ]` (RFC 9110 §7.2), which has no userinfo.
fn without_default_port<'a>(raw: &'a [u8], default_port: &[u8]) -> Result<&'a [u8], NoKey> {
    let colon = raw.iter().rposition(|&byte| byte == b':');
    let (host, port) = match colon.and_then(|colon| raw.split_at_checked(colon)) {
        Some((host, [_, port @ ..])) if !raw.ends_with(b"]") => (host, port),
        _ => (raw, &[][..]),
    };
    let valid_host = match host {
        [b'[', address @ .., b']'] => address.iter().all(|&byte| byte == b':' || in_name(byte)),
        name => name.iter().copied().all(in_name),
    };
    if !valid_host || !port.iter().all(u8::is_ascii_digit) {
        Err(NoKey::InvalidHost)
    } else if port.is_empty() || port == default_port {
        Ok(host)
    } else {
        Ok(raw)
    }
}

/// A byte of `reg-name` or `IPv4address` (RFC 3986 §3.2.2).
fn in_name(byte: u8) -> bool {
    const IN_NAME: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 256 {
            table[byte] = matches!(
                byte as u8,
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'%' | b'!'
                    | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
            );
            byte += 1;
        }
        table
    };
    IN_NAME.get(usize::from(byte)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn of(uri: &str, hosts: &[&str]) -> Result<Option<String>, NoKey> {
        let uri: Uri = uri.parse().unwrap();
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap());
        }
        let found = authority(&uri, &headers)?;
        Ok(found.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()))
    }

    #[test]
    fn the_default_port_of_the_scheme_is_cut_off() {
        for (uri, hosts, expected) in [
            ("/", &["a.example"][..], "a.example"),
            ("/", &["a.example:80"], "a.example"),
            ("/", &["a.example:"], "a.example"),
            ("/", &["a.example:443"], "a.example:443"),
            ("/", &["a.example:8080"], "a.example:8080"),
            ("/", &["[::1]:80"], "[::1]"),
            ("/", &["[::1]"], "[::1]"),
            ("/", &[""], ""),
            ("https://a.example:443/", &[], "a.example"),
            ("https://a.example:80/", &[], "a.example:80"),
            ("http://a.example:80/", &["A.EXAMPLE"], "a.example"),
            ("/", &["a.example", "a.example:80"], "a.example"),
        ] {
            assert_eq!(
                of(uri, hosts).unwrap().as_deref(),
                Some(expected),
                "{uri} {hosts:?}"
            );
        }
        assert_eq!(of("/", &[]), Ok(None));
    }

    #[test]
    fn targets_that_disagree_have_no_key() {
        for (uri, hosts) in [
            ("http://a.example/", &["b.example"][..]),
            ("http://a.example/", &[""]),
            ("http://a.example:8080/", &["a.example"]),
            ("/", &["a.example", "b.example"]),
        ] {
            assert_eq!(
                of(uri, hosts),
                Err(NoKey::ConflictingHost),
                "{uri} {hosts:?}"
            );
        }
    }

    #[test]
    fn a_host_outside_the_grammar_has_no_key() {
        for host in [
            "user@a.example",
            "a b",
            "a/b",
            "a?b",
            "a:b",
            "a:80:80",
            "::1",
            "[::1]x",
            "[a",
            "a\u{e4}",
        ] {
            assert_eq!(of("/", &[host]), Err(NoKey::InvalidHost), "{host}");
        }
        assert_eq!(of("http://user@a.example/", &[]), Err(NoKey::InvalidHost));
    }

    proptest! {
        #[test]
        fn any_host_is_answered_and_what_is_kept_is_stable(raw: Vec<u8>) {
            if let Ok(kept) = without_default_port(&raw, b"80") {
                prop_assert!(raw.starts_with(kept));
                prop_assert_eq!(without_default_port(kept, b"80"), Ok(kept));
            }
        }
    }
}
