//! URI references and what they name (RFC 3986 §5).

use http::uri::PathAndQuery;

use super::fields::trim;

/// The target URI of a request (RFC 9110 §7.1).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    /// `http` or `https`, where known: an origin-form request does not say.
    pub(crate) scheme: Option<&'a str>,
    /// From the URI or from `Host`, as received.
    pub(crate) authority: Option<&'a [u8]>,
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
}

impl Target<'_> {
    /// Resolves a reference and returns what it names on the target's own
    /// origin; `None` if it names another origin, or nothing that a request
    /// could.
    ///
    /// Where the target's scheme is not known, the reference's is taken.
    pub(crate) fn resolve(&self, reference: &[u8]) -> Option<PathAndQuery> {
        let reference = Reference::split(trim(reference));
        if !self.is_origin_of(&reference) {
            return None;
        }
        let (path, query) = match reference.path {
            b"" if reference.authority.is_none() => {
                let own = self.query.map(str::as_bytes);
                (self.path.into(), reference.query.or(own))
            }
            [] | [b'/', ..] => (without_dot_segments(reference.path), reference.query),
            relative => {
                let folder = self.path.rsplit_once('/').map_or("", |(folder, _)| folder);
                let path = [folder.as_bytes(), relative].join(&b'/');
                (without_dot_segments(&path), reference.query)
            }
        };
        let named = match query {
            Some(query) => [&path, query].join(&b'?'),
            None => path,
        };
        PathAndQuery::try_from(named).ok()
    }

    /// Says whether a reference names the target itself.
    pub(crate) fn is_named_by(&self, reference: &[u8]) -> bool {
        self.resolve(reference)
            .is_some_and(|named| (named.path(), named.query()) == (self.path, self.query))
    }

    fn is_origin_of(&self, reference: &Reference<'_>) -> bool {
        let Some(authority) = reference.authority else {
            return reference.scheme.is_none();
        };
        let own_scheme = self.scheme.map(str::as_bytes);
        let scheme = reference.scheme.or(own_scheme);
        let same_scheme = match (own_scheme, scheme) {
            (Some(own), Some(scheme)) => own.eq_ignore_ascii_case(scheme),
            (None, Some(scheme)) => default_port(scheme).is_some(),
            (_, None) => true,
        };
        let default_port = scheme.and_then(default_port);
        let same_host = || {
            let (host, port) = host_and_port(authority, default_port)?;
            let (own_host, own_port) = host_and_port(self.authority?, default_port)?;
            Some(host.eq_ignore_ascii_case(own_host) && port == own_port)
        };
        same_scheme && same_host() == Some(true)
    }
}

/// The parts of a reference without its fragment (RFC 3986 §4.1, §5.2).
struct Reference<'a> {
    scheme: Option<&'a [u8]>,
    authority: Option<&'a [u8]>,
    path: &'a [u8],
    query: Option<&'a [u8]>,
}

impl<'a> Reference<'a> {
    fn split(reference: &'a [u8]) -> Self {
        let (rest, _fragment) = split_before(reference, |byte| byte == b'#');
        let (rest, query) = split_before(rest, |byte| byte == b'?');
        let (scheme, rest) = match split_before(rest, |byte| matches!(byte, b':' | b'/')) {
            (scheme, [b':', rest @ ..]) if is_scheme(scheme) => (Some(scheme), rest),
            _ => (None, rest),
        };
        let (authority, path) = match rest {
            [b'/', b'/', rest @ ..] => {
                let (authority, path) = split_before(rest, |byte| byte == b'/');
                (Some(authority), path)
            }
            path => (None, path),
        };
        Self {
            scheme,
            authority,
            path,
            query: query.strip_prefix(b"?"),
        }
    }
}

/// Splits in front of the first byte that ends the first part.
fn split_before(bytes: &[u8], ends: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| ends(*byte));
    end.and_then(|end| bytes.split_at_checked(end))
        .unwrap_or((bytes, b""))
}

fn is_scheme(scheme: &[u8]) -> bool {
    let is_inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    scheme.first().is_some_and(u8::is_ascii_alphabetic) && scheme.iter().all(is_inner)
}

fn default_port(scheme: &[u8]) -> Option<u16> {
    match scheme.to_ascii_lowercase().as_slice() {
        b"http" => Some(80),
        b"https" => Some(443),
        _ => None,
    }
}

/// Host and port of an authority, whatever its user; `None` without a host or
/// with a port that is no number.
fn host_and_port(authority: &[u8], default: Option<u16>) -> Option<(&[u8], Option<u16>)> {
    let host_and_port = authority.rsplit(|byte| *byte == b'@').next()?;
    // The colons of an IPv6 address stand before its bracket.
    let port_at = host_and_port
        .iter()
        .rposition(|byte| matches!(byte, b':' | b']'));
    let (host, port) = match port_at.and_then(|at| host_and_port.split_at_checked(at)) {
        Some((host, [b':', port @ ..])) => (host, port),
        _ => (host_and_port, &b""[..]),
    };
    let port = match port {
        b"" => default,
        digits if digits.iter().all(u8::is_ascii_digit) => {
            Some(std::str::from_utf8(digits).ok()?.parse().ok()?)
        }
        _ => return None,
    };
    (!host.is_empty()).then_some((host, port))
}

/// Resolves `.` and `..` in an absolute path (RFC 3986 §5.2.4).
fn without_dot_segments(path: &[u8]) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = vec![b""];
    let mut ends_in_dots = path.is_empty();
    for segment in path.split(|byte| *byte == b'/').skip(1) {
        ends_in_dots = matches!(segment, b"." | b"..");
        match segment {
            b".." if kept.len() > 1 => drop(kept.pop()),
            b"." | b".." => {}
            segment => kept.push(segment),
        }
    }
    if ends_in_dots {
        kept.push(b"");
    }
    kept.join(&b'/')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::semantics::fields::tests::thoroughly;

    fn target(path: &str) -> Target<'_> {
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path, None),
        };
        Target {
            scheme: Some("http"),
            authority: Some(b"a"),
            path,
            query,
        }
    }

    fn resolved(target: &Target<'_>, reference: &str) -> Option<String> {
        let named = target.resolve(reference.as_bytes());
        named.map(|named| named.to_string())
    }

    #[test]
    fn references_resolve_as_in_the_examples_of_the_rfc() {
        // RFC 3986 §5.4
        for (reference, expected) in [
            ("g:h", None),
            ("g", Some("/b/c/g")),
            ("./g", Some("/b/c/g")),
            ("g/", Some("/b/c/g/")),
            ("/g", Some("/g")),
            ("//g", None),
            ("?y", Some("/b/c/d;p?y")),
            ("g?y", Some("/b/c/g?y")),
            ("#s", Some("/b/c/d;p?q")),
            ("g#s", Some("/b/c/g")),
            ("g?y#s", Some("/b/c/g?y")),
            (";x", Some("/b/c/;x")),
            ("g;x?y#s", Some("/b/c/g;x?y")),
            ("", Some("/b/c/d;p?q")),
            (".", Some("/b/c/")),
            ("./", Some("/b/c/")),
            ("..", Some("/b/")),
            ("../", Some("/b/")),
            ("../g", Some("/b/g")),
            ("../..", Some("/")),
            ("../../", Some("/")),
            ("../../g", Some("/g")),
            ("../../../g", Some("/g")),
            ("../../../../g", Some("/g")),
            ("/./g", Some("/g")),
            ("/../g", Some("/g")),
            ("g.", Some("/b/c/g.")),
            (".g", Some("/b/c/.g")),
            ("g..", Some("/b/c/g..")),
            ("..g", Some("/b/c/..g")),
            ("./../g", Some("/b/g")),
            ("./g/.", Some("/b/c/g/")),
            ("g/./h", Some("/b/c/g/h")),
            ("g/../h", Some("/b/c/h")),
            ("g;x=1/./y", Some("/b/c/g;x=1/y")),
            ("g;x=1/../y", Some("/b/c/y")),
            ("g?y/./x", Some("/b/c/g?y/./x")),
            ("g?y/../x", Some("/b/c/g?y/../x")),
            ("g#s/../x", Some("/b/c/g")),
            ("http:g", None),
        ] {
            let found = resolved(&target("/b/c/d;p?q"), reference);
            assert_eq!(found.as_deref(), expected, "{reference}");
        }
    }

    #[test]
    fn empty_parts_resolve_too() {
        for (path, reference, expected) in [
            ("/", "g", "/g"),
            ("/x", "g", "/g"),
            ("*", "g", "/g"),
            ("/x?q", "http://a", "/"),
            ("/x?q", "http://a?y", "/?y"),
            ("/x?q", "?", "/x?"),
            ("/x", " /y ", "/y"),
            ("/x", "/y//../z//", "/y/z//"),
            ("/x", "//a//b", "//b"),
            ("/x", "/y:z", "/y:z"),
            ("/x", "./y:z", "/y:z"),
        ] {
            let found = resolved(&target(path), reference);
            assert_eq!(found.as_deref(), Some(expected), "{path} {reference}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        // IV3
        for (scheme, authority, reference, same) in [
            (Some("http"), "a", "http://a/x", true),
            (Some("http"), "a", "HTTP://A/x", true),
            (Some("http"), "a", "http://a:80/x", true),
            (Some("http"), "a", "http://a:/x", true),
            (Some("http"), "a:80", "//a/x", true),
            (Some("http"), "a", "http://user@a/x", true),
            (Some("http"), "a", "https://a/x", false),
            (Some("http"), "a", "http://a:443/x", false),
            (Some("http"), "a", "http://a.b/x", false),
            (Some("http"), "a", "http://a@b/x", false),
            (Some("http"), "a:8080", "http://a:8080/x", true),
            (Some("http"), "a:8080", "http://a/x", false),
            (Some("https"), "a", "//a:443/x", true),
            (Some("http"), "[::1]", "http://[::1]:80/x", true),
            (Some("http"), "[::1]:8", "http://[::1]/x", false),
            (Some("http"), "a", "http://a:99999/x", false),
            (Some("http"), "a", "http://a:+80/x", false),
            (Some("http"), "a", "http:///x", false),
            (Some("http"), "", "http:///x", false),
            (None, "a", "http://a/x", true),
            (None, "a", "https://a/x", true),
            (None, "a:443", "https://a/x", true),
            (None, "a:443", "http://a/x", false),
            (None, "a", "ftp://a/x", false),
        ] {
            let target = Target {
                scheme,
                authority: Some(authority.as_bytes()),
                ..target("/")
            };
            let found = resolved(&target, reference);
            assert_eq!(found.is_some(), same, "{scheme:?} {authority} {reference}");
        }
    }

    #[test]
    fn without_an_authority_only_relative_references_are_known_to_be_ours() {
        let target = Target {
            authority: None,
            ..target("/b")
        };
        assert_eq!(resolved(&target, "c").as_deref(), Some("/c"));
        assert_eq!(resolved(&target, "http://a/c"), None);
    }

    #[test]
    fn a_reference_names_the_target_by_path_and_query() {
        // ME1
        for (reference, named) in [
            ("/b?q", true),
            ("b?q", true),
            ("", true),
            ("?q", true),
            ("http://a/b?q", true),
            ("/b", false),
            ("/b?r", false),
            ("/B?q", false),
            ("//c/b?q", false),
        ] {
            let found = target("/b?q").is_named_by(reference.as_bytes());
            assert_eq!(found, named, "{reference}");
        }
    }

    proptest! {
        #![proptest_config(thoroughly())]
        #[test]
        fn any_bytes_resolve_to_an_absolute_path_or_nothing(
            reference: Vec<u8>,
            authority: Vec<u8>,
            path: String,
        ) {
            let target = Target { authority: Some(&authority), ..target(&path) };
            let named = target.resolve(&reference);
            prop_assert!(named.is_none_or(|named| named.path().starts_with(['/', '*'])));
        }

        #[test]
        fn what_was_resolved_has_no_dot_segments(reference in "/?[a.][a./]{0,12}") {
            let named = resolved(&target("/x/y"), &reference).unwrap();
            prop_assert!(named.split('/').all(|segment| segment != "." && segment != ".."));
        }
    }
}
