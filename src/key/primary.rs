use std::{
    fmt::{self, Write},
    hash::{Hash, Hasher},
    sync::OnceLock,
};

use http::header::{CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, Method, Uri};

use super::{
    KeySpec, Namespace, authority,
    encoding::{AroundQuery, Encoded, Encoder, Tag, fields},
    query,
    spec::{cookie_pairs, is_named},
};

/// The key under which the responses to a request are stored (RFC 9111 §4), before `Vary` chooses
/// among them.
///
/// Equality and hash are those of the whole encoding, so keys that are equal stand for requests
/// that are. `Debug` shows a readable form without the values of request fields and cookies.
#[derive(Clone)]
pub struct PrimaryKey {
    encoded: Encoded,
    fingerprint: OnceLock<[u8; 16]>,
}

impl PrimaryKey {
    /// Makes the key of a request.
    pub(crate) fn new(
        namespace: &Namespace,
        spec: &KeySpec,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Self, NoKey> {
        let class = Class::of(method).ok_or(NoKey::Method)?;
        let encoder = encode(namespace, spec, class, uri, headers)?;
        Ok(Self::of(encoder.finish()?))
    }

    /// Makes the key of a request to which its content belongs (RFC 10008 §2.7), for which a digest
    /// stands.
    pub(crate) fn with_content(
        namespace: &Namespace,
        spec: &KeySpec,
        kind: ContentKind,
        uri: &Uri,
        headers: &HeaderMap,
        content: &[u8],
    ) -> Result<Self, NoKey> {
        let mut encoder = encode(namespace, spec, Class::Content(kind), uri, headers)?;
        put_fields(&mut encoder, headers, kind.metadata())?;
        encoder.put(Tag::CONTENT, blake3::hash(content).as_bytes())?;
        Ok(Self::of(encoder.finish()?))
    }

    fn of(encoded: Encoded) -> Self {
        Self {
            encoded,
            fingerprint: OnceLock::new(),
        }
    }

    /// Returns what the keys of one resource share whatever their queries, and the query.
    ///
    /// `None` if the query does not enter the key as it stands.
    pub(crate) fn resource_and_query(&self) -> Option<(&[u8], Option<&str>)> {
        let AroundQuery { before, query, .. } = AroundQuery::of(&self.encoded)?;
        let query = query.map(std::str::from_utf8).transpose().ok()?;
        Some((before, query))
    }

    /// Returns the key of all requests whose queries are the same by a rule, in whose words this
    /// one's is `canonical`; `None` where there can be none.
    pub(crate) fn with_canonical_query(&self, rule: &str, canonical: &str) -> Option<Self> {
        let AroundQuery { before, after, .. } = AroundQuery::of(&self.encoded)?;
        let mut encoder = Encoder::resume(before);
        encoder.put(Tag::QUERY_RULE, rule.as_bytes()).ok()?;
        encoder
            .put(Tag::CANONICAL_QUERY, canonical.as_bytes())
            .ok()?;
        encoder.put_encoded(after);
        Some(Self::of(encoder.finish().ok()?))
    }

    /// Takes an encoding as it may stand in a stored entry.
    ///
    /// The bytes are not trusted: what is no encoding of a request equals no key of a request.
    #[cfg(test)]
    pub(crate) fn from_encoded(encoded: &[u8]) -> Self {
        Self::of(encoded.into())
    }

    /// Returns the scheme and the authority of what it is the key of; no authority for all hosts.
    pub(crate) fn origin(&self) -> (&[u8], &[u8]) {
        let field = |wanted| fields(&self.encoded).find(|(tag, _)| *tag == wanted);
        let [scheme, authority] = [Tag::SCHEME, Tag::AUTHORITY].map(field);
        let value = |field: Option<(Tag, _)>| field.map(|(_, value)| value).unwrap_or_default();
        (value(scheme), value(authority))
    }

    /// Returns the whole encoding, which is compared on every read of a stored response.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.encoded
    }

    /// Returns the namespace that the key was made in.
    #[cfg(feature = "redis")]
    pub(crate) fn namespace(&self) -> Option<Namespace> {
        let (_, name) = fields(&self.encoded).find(|(tag, _)| *tag == Tag::NAMESPACE)?;
        std::str::from_utf8(name).ok()?.parse().ok()
    }

    /// Returns 128 bits of BLAKE3 over the encoding, to name the key in a shared store.
    ///
    /// Computed on first use: a hit in memory never needs it.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 16] {
        *self.fingerprint.get_or_init(|| {
            let mut digest = [0; 16];
            blake3::Hasher::new()
                .update(&self.encoded)
                .finalize_xof()
                .fill(&mut digest);
            digest
        })
    }

    /// Returns the fingerprint in hexadecimal digits.
    pub(crate) fn to_hex(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.fingerprint()))
    }
}

impl PartialEq for PrimaryKey {
    fn eq(&self, other: &Self) -> bool {
        self.encoded == other.encoded
    }
}

impl Eq for PrimaryKey {}

impl Hash for PrimaryKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.encoded.hash(state);
    }
}

impl fmt::Debug for PrimaryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = String::new();
        for (tag, field) in fields(&self.encoded) {
            let before = match tag {
                Tag::NAMESPACE | Tag::PATH => "",
                Tag::SCHEME | Tag::FIELD | Tag::COOKIE => " ",
                Tag::AUTHORITY => "://",
                Tag::ANY_HOST => "://*",
                Tag::QUERY | Tag::UNFILTERED_QUERY | Tag::CANONICAL_QUERY => "?",
                Tag::PARAM | Tag::SORTED_PARAM => "&",
                // Digests say nothing to a reader, and the values of fields and cookies are no
                // business of a log.
                _ => continue,
            };
            let field = field.get(..Shown::MOST).unwrap_or(field);
            write!(shown, "{before}{}", field.escape_ascii())?;
            if shown.len() > Shown::MOST {
                shown.truncate(Shown::MOST);
                shown.push('…');
                break;
            }
        }
        write!(f, "PrimaryKey({shown})")
    }
}

/// What a client sent, for a log: readable, and not long.
pub(crate) struct Shown<'a>(&'a [u8]);

impl<'a> Shown<'a> {
    /// In bytes.
    const MOST: usize = 128;

    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.get(..Self::MOST) {
            Some(first) => write!(f, "{}…", first.escape_ascii()),
            None => write!(f, "{}", self.0.escape_ascii()),
        }
    }
}

/// Why a request has no key; such a request is neither answered from the cache nor stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoKey {
    /// The method has no stored responses.
    Method,
    /// URI and `Host`, or several `Host` lines, name different targets.
    ConflictingHost,
    /// The authority is outside the grammar, or has userinfo.
    InvalidHost,
    /// The encoding is over 64 KiB.
    TooLong,
}

/// Requests of one class can be answered by each other's responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// GET, and HEAD, which a stored GET answers (RFC 9110 §9.3.2).
    Get,
    Content(ContentKind),
}

/// Requests whose content is part of their key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContentKind {
    /// QUERY (RFC 10008).
    Query,
    /// A safe gRPC call of one message, with one result.
    GrpcUnary,
}

impl ContentKind {
    /// The fields without which the content means nothing, or another answer may come.
    fn metadata(self) -> &'static [HeaderName] {
        static QUERY: [HeaderName; 3] = [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LANGUAGE];
        static GRPC: [HeaderName; 3] = [
            CONTENT_TYPE,
            HeaderName::from_static("grpc-encoding"),
            HeaderName::from_static("grpc-accept-encoding"),
        ];

        match self {
            Self::Query => &QUERY,
            Self::GrpcUnary => &GRPC,
        }
    }
}

impl Class {
    fn of(method: &Method) -> Option<Self> {
        match *method {
            Method::GET | Method::HEAD => Some(Self::Get),
            _ => None,
        }
    }

    fn code(self) -> &'static [u8] {
        match self {
            Self::Get => b"G",
            Self::Content(ContentKind::Query) => b"Q",
            Self::Content(ContentKind::GrpcUnary) => b"R",
        }
    }
}

/// Writes what every key has.
fn encode(
    namespace: &Namespace,
    spec: &KeySpec,
    class: Class,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Encoder, NoKey> {
    let mut encoder = Encoder::new();
    encoder.put(Tag::NAMESPACE, namespace.as_str().as_bytes())?;
    put_class_and_scheme(&mut encoder, class, uri.scheme_str())?;
    if spec.any_host {
        encoder.put(Tag::ANY_HOST, b"")?;
    } else if let Some(authority) = authority(uri, headers)? {
        encoder.put_lower_case(Tag::AUTHORITY, authority)?;
    }
    encoder.put(Tag::PATH, uri.path().as_bytes())?;
    query::put(&mut encoder, uri.query(), spec)?;
    put_fields(&mut encoder, headers, &spec.fields)?;
    put_cookies(&mut encoder, headers, spec)?;
    Ok(encoder)
}

/// The scheme of a target without one is that of a plain connection.
fn put_class_and_scheme(
    encoder: &mut Encoder,
    class: Class,
    scheme: Option<&str>,
) -> Result<(), NoKey> {
    /// What the slow way writes for nearly every request.
    const GET_OVER_HTTP: &[u8] = b"\x02\0\0\0\x01G\x03\0\0\0\x04http";

    match (class, scheme.unwrap_or("http")) {
        (Class::Get, "http") => encoder.put_encoded(GET_OVER_HTTP),
        (class, scheme) => {
            encoder.put(Tag::CLASS, class.code())?;
            encoder.put_lower_case(Tag::SCHEME, scheme.as_bytes())?;
        }
    }
    Ok(())
}

/// Every line of every field: absent, empty, joined and split values all differ.
fn put_fields(
    encoder: &mut Encoder,
    headers: &HeaderMap,
    names: &[HeaderName],
) -> Result<(), NoKey> {
    for name in names {
        encoder.put(Tag::FIELD, name.as_str().as_bytes())?;
        for line in headers.get_all(name) {
            encoder.put(Tag::FIELD_LINE, line.as_bytes())?;
        }
    }
    Ok(())
}

/// Every cookie pair of the chosen names, as received.
fn put_cookies(encoder: &mut Encoder, headers: &HeaderMap, spec: &KeySpec) -> Result<(), NoKey> {
    for name in &spec.cookies {
        encoder.put(Tag::COOKIE, name.as_bytes())?;
        for (_, pair) in cookie_pairs(headers).filter(|(cookie, _)| is_named(cookie, name)) {
            encoder.put(Tag::COOKIE_PAIR, pair)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue, header::HOST};
    use proptest::prelude::*;

    use super::{
        super::{ParamNames, QuerySpec},
        *,
    };

    fn headers<'a>(lines: impl IntoIterator<Item = (&'a str, &'a str)>) -> HeaderMap {
        lines
            .into_iter()
            .map(|(name, value)| {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                (name, HeaderValue::from_bytes(value.as_bytes()).unwrap())
            })
            .fold(HeaderMap::new(), |mut map, (name, value)| {
                map.append(name, value);
                map
            })
    }

    fn key(spec: &KeySpec, uri: &str, lines: &[(&str, &str)]) -> Result<PrimaryKey, NoKey> {
        PrimaryKey::new(
            &Namespace::default(),
            spec,
            &Method::GET,
            &uri.parse().unwrap(),
            &headers(lines.iter().copied()),
        )
    }

    fn plain(uri: &str) -> PrimaryKey {
        key(&KeySpec::default(), uri, &[]).unwrap()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn everything() -> KeySpec {
        KeySpec {
            query: QuerySpec::Keep(ParamNames::new(["page", "sort"])),
            sorted: true,
            any_host: false,
            fields: vec![HeaderName::from_static("accept-language")],
            cookies: vec!["session".to_owned()],
        }
    }

    #[test]
    fn fingerprints_stay_what_they_were_in_earlier_releases() {
        let lines = [("accept-language", "de, en"), ("cookie", "a=b; session=s3")];
        let any_host = KeySpec {
            any_host: true,
            ..KeySpec::default()
        };
        for (key, golden) in [
            (plain("/"), "2542d7f614988774dc01361f707ee767"),
            (
                plain("https://Shop.example:443/a%2Fb?x=1&y"),
                "95c2a0fe174d0a74939190b087cd43a8",
            ),
            (
                key(
                    &everything(),
                    "http://a.example/?sort=1&page=2&utm=3",
                    &lines,
                )
                .unwrap(),
                "8170704ad9707760c8581d4c08587301",
            ),
            (
                key(&any_host, "http://a.example/", &[]).unwrap(),
                "5929a07b79abf23b0e7cbd05e8ad24de",
            ),
            (
                keyed(ContentKind::Query, "/a?b", &[("content-type", "c")], b"d"),
                "b624160eb50f5176795aca4d7a18eca3",
            ),
            (
                keyed(
                    ContentKind::GrpcUnary,
                    "/a.B/C",
                    &[("grpc-encoding", "d")],
                    b"\0\0\0\0\0",
                ),
                "ccf623c11cd45da5ae761db2f7c4c1c8",
            ),
        ] {
            assert_eq!(hex(&key.fingerprint()), golden, "{key:?}");
        }
    }

    #[test]
    fn a_rule_of_the_response_makes_keys_of_their_own() {
        let lines = [("accept-language", "de"), ("cookie", "session=s3")];
        let spec = KeySpec {
            query: QuerySpec::All,
            sorted: false,
            ..everything()
        };
        let of = |uri| key(&spec, uri, &lines).unwrap();
        let (one, other) = (of("/a?x=1&utm=2"), of("/a?utm=3&x=1"));
        let (resource, query) = one.resource_and_query().unwrap();
        assert_eq!(query, Some("x=1&utm=2"));
        assert_eq!(
            other.resource_and_query(),
            Some((resource, Some("utm=3&x=1")))
        );
        assert_eq!(of("/a").resource_and_query(), Some((resource, None)));

        let canonical = |key: &PrimaryKey| key.with_canonical_query("rule", "x=1").unwrap();
        assert_eq!(canonical(&one), canonical(&other));
        assert_eq!(canonical(&of("/a")), canonical(&one));
        for different in [
            one.clone(),
            of("/a?x=1"),
            canonical(&of("/b?x=1")),
            canonical(&key(&spec, "/a?x=1", &[]).unwrap()),
            one.with_canonical_query("rules", "x=1").unwrap(),
            one.with_canonical_query("rule", "x=").unwrap(),
        ] {
            assert_ne!(different, canonical(&one));
        }
        assert_eq!(canonical(&one).resource_and_query(), None);
        let filtered = key(&everything(), "/a?x=1", &lines).unwrap();
        assert_eq!(filtered.resource_and_query(), None);
        let long = "x".repeat(70_000);
        assert_eq!(one.with_canonical_query("rule", &long), None);
    }

    #[test]
    fn get_and_head_share_a_key_and_other_methods_have_none() {
        let of = |method: Method| {
            let uri = Uri::from_static("/a");
            PrimaryKey::new(
                &Namespace::default(),
                &KeySpec::default(),
                &method,
                &uri,
                &HeaderMap::new(),
            )
        };
        assert_eq!(of(Method::GET).unwrap(), of(Method::HEAD).unwrap());
        for method in [
            Method::POST,
            Method::OPTIONS,
            Method::from_bytes(b"get").unwrap(),
        ] {
            assert_eq!(of(method), Err(NoKey::Method));
        }
    }

    /// The key of a request with content.
    fn keyed(kind: ContentKind, uri: &str, lines: &[(&str, &str)], content: &[u8]) -> PrimaryKey {
        let headers = headers(lines.iter().copied());
        let (namespace, spec) = (Namespace::default(), KeySpec::default());
        let uri = uri.parse().unwrap();
        PrimaryKey::with_content(&namespace, &spec, kind, &uri, &headers, content).unwrap()
    }

    #[test]
    fn content_and_what_it_means_tell_requests_apart() {
        let query =
            |lines, content: &str| keyed(ContentKind::Query, "/", lines, content.as_bytes());
        let unary =
            |lines, content: &str| keyed(ContentKind::GrpcUnary, "/", lines, content.as_bytes());
        let keys = [
            plain("/"),
            query(&[], ""),
            query(&[], "a"),
            query(&[], "b"),
            query(&[("content-type", "")], "a"),
            query(&[("content-type", "a")], ""),
            query(&[("content-encoding", "a")], ""),
            query(&[("content-language", "a")], ""),
            query(&[("content-language", "a"), ("content-language", "")], ""),
            query(&[("content-type", "a"), ("content-encoding", "a")], ""),
            unary(&[], "a"),
            unary(&[("content-type", "a")], "a"),
            unary(&[("grpc-encoding", "a")], "a"),
            unary(&[("grpc-accept-encoding", "a")], "a"),
        ];
        for (i, one) in keys.iter().enumerate() {
            for other in keys.iter().skip(i + 1) {
                assert_ne!(one, other);
            }
        }
        assert_eq!(query(&[("accept", "a")], "a"), query(&[], "a"));
        assert_eq!(unary(&[("grpc-timeout", "1S")], "a"), unary(&[], "a"));
        let long = "a".repeat(1 << 20);
        assert_ne!(query(&[], &long), query(&[], &long[1..]));
    }

    #[test]
    fn the_content_stays_in_the_key_when_a_rule_of_the_response_replaces_the_query() {
        let of = |uri, content| {
            let key = keyed(ContentKind::Query, uri, &[], content);
            key.with_canonical_query("rule", "x=1").unwrap()
        };
        assert_eq!(of("/a?x=1&utm=2", b"b"), of("/a?utm=3&x=1", b"b"));
        assert_eq!(of("/a", b"b"), of("/a?x=1", b"b"));
        assert_ne!(of("/a?x=1", b"b"), of("/a?x=1", b"c"));
    }

    #[test]
    fn equivalent_targets_share_a_key() {
        let host = |host| key(&KeySpec::default(), "/a", &[("host", host)]).unwrap();
        for (one, other) in [
            (host("a.example"), host("A.Example:80")),
            (host("a.example"), plain("http://a.example/a")),
            (
                plain("https://a.example/a"),
                plain("HTTPS://A.example:443/a"),
            ),
            (plain("http://a.example"), plain("http://a.example/")),
        ] {
            assert_eq!(one, other);
            assert_eq!(one.fingerprint(), other.fingerprint());
        }
    }

    #[test]
    fn targets_that_differ_in_anything_have_different_keys() {
        // OT3
        let uris = [
            "/",
            "//",
            "/a",
            "/a/",
            "/a//b",
            "/a/b",
            "/a%2Fb",
            "/a%2fb",
            "/A",
            "/a/../b",
            "/b",
            "/a/./b",
            "/a;b",
            "/a?",
            "/a?;",
            "/a?b",
            "/a?b=",
            "/a?b&",
            "/a%3Fb",
            "/a?b?",
            "/a??b",
            "/ab?",
            "/a?a",
            "http://a/",
            "http://a/a",
            "https://a/",
            "http://a:8080/",
            "http://a.b/",
            "http://b/a",
        ];
        for (i, one) in uris.iter().enumerate() {
            for other in uris.iter().skip(i + 1) {
                assert_ne!(plain(one), plain(other), "{one} {other}");
            }
        }
    }

    #[test]
    fn keyed_fields_and_cookies_tell_requests_apart() {
        let requests: [&[(&str, &str)]; 13] = [
            &[],
            &[("accept-language", "")],
            &[("accept-language", "de,en")],
            &[("accept-language", "de"), ("accept-language", "en")],
            &[("accept-language", "en"), ("accept-language", "de")],
            &[("accept-language", "\u{e4}")],
            &[("cookie", "session=")],
            &[("cookie", "session")],
            &[("cookie", "session=1")],
            &[("cookie", "%73ession=1")],
            &[("cookie", "session =1")],
            &[("cookie", "session=1; session=2")],
            &[("cookie", "session=2; session=1")],
        ];
        for (i, one) in requests.iter().enumerate() {
            for other in requests.iter().skip(i + 1) {
                let of = |lines| key(&everything(), "/", lines).unwrap();
                assert_ne!(of(one), of(other), "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn what_the_spec_does_not_name_does_not_enter_the_key() {
        let of = |lines| key(&everything(), "/", lines).unwrap();
        assert_eq!(
            of(&[]),
            of(&[
                ("accept", "a"),
                ("cookie", "sessions=1; Session=2; a=session=3")
            ])
        );
        assert_eq!(
            of(&[("cookie", "a=1;session=2 ;b=3")]),
            of(&[("cookie", "b=9"), ("cookie", "session=2")])
        );
        let any_host = KeySpec {
            any_host: true,
            ..KeySpec::default()
        };
        let of = |host| key(&any_host, "/", &[(HOST.as_str(), host)]).unwrap();
        assert_eq!(of("a.example"), of("b.example"));
    }

    #[test]
    fn a_key_over_the_bound_is_none() {
        let value = "a".repeat(64 * 1024);
        let long = key(&everything(), "/", &[("accept-language", &value)]);
        assert_eq!(long, Err(NoKey::TooLong));
    }

    #[test]
    fn debug_is_readable_and_short_and_keeps_secrets() {
        let lines = [("cookie", "session=secret"), ("host", "a.example")];
        let shown = format!("{:?}", key(&everything(), "/%1b?page=2", &lines).unwrap());
        assert_eq!(
            shown,
            "PrimaryKey(default http://a.example/%1b&page=2 accept-language session)"
        );

        let long = format!("{:?}", plain(&format!("/{}", "a".repeat(60_000))));
        assert!(long.len() < 160, "{long}");

        let raw = PrimaryKey::from_encoded(b"\x01\x06\0\0\0\x03a\x1b\x0a\x06\0");
        assert_eq!(format!("{raw:?}"), r"PrimaryKey(a\x1b\n)");
    }

    /// All that may tell two requests apart under [`everything`] but the filter of the query.
    type Parts = (bool, String, String, Option<String>, Vec<String>);

    fn parts() -> impl Strategy<Value = Parts> {
        (
            any::<bool>(),
            "[ab.]{1,2}",
            "/[ab/%;.]{0,3}",
            prop::option::of("[ab=&/]{0,3}"),
            prop::collection::vec(
                "[ab ,]{0,2}".prop_map(|value| value.trim().to_owned()),
                0..3,
            ),
        )
    }

    fn key_of((tls, host, path, query, lines): &Parts) -> PrimaryKey {
        let spec = KeySpec {
            query: QuerySpec::All,
            sorted: false,
            ..everything()
        };
        let scheme = if *tls { "https" } else { "http" };
        let query = query
            .as_ref()
            .map(|query| format!("?{query}"))
            .unwrap_or_default();
        let lines: Vec<_> = lines
            .iter()
            .map(|line| ("accept-language", line.as_str()))
            .collect();
        key(&spec, &format!("{scheme}://{host}{path}{query}"), &lines).unwrap()
    }

    proptest! {
        #[test]
        fn requests_share_a_key_exactly_when_they_are_equal(one in parts(), other in parts()) {
            prop_assert_eq!(key_of(&one), key_of(&one));
            prop_assert_eq!(key_of(&one) == key_of(&other), one == other);
        }

        #[test]
        fn any_bytes_can_be_shown_and_fingerprinted(bytes: Vec<u8>) {
            let key = PrimaryKey::from_encoded(&bytes);
            let shown = format!("{key:?}");
            prop_assert!(shown.len() < 160);
            prop_assert_eq!(key.as_bytes(), bytes);
            prop_assert_eq!(key.fingerprint(), key.fingerprint());
        }
    }
}
