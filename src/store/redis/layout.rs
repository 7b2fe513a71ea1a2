//! The names of things in Redis.
//!
//! | name | holds |
//! |---|---|
//! | `hc1:<namespace>:e:{b<bucket>}<digest>` | a stored response |
//! | `hc1:<namespace>:y:{b<bucket>}<digest>` | what varies under a primary key |
//! | `hc1:<namespace>:v:{b<bucket>}` | the epoch of all paths of a bucket |
//! | `hc1:<namespace>:v:{n}`, `v:{r<digest>}`, `v:{t<digest>}` | the epoch of the namespace, a route, a tag |
//! | `hc1:<namespace>:l:{b<bucket>}<digest>` | the lock of a fetch, by the digest of the response it is for |
//! | `hc1:<namespace>:m:{t<digest>}` | the mark of a tag that was invalidated lately |
//! | `hc1:<namespace>:i:{<tag>}` | the life of the server that what it holds is of |
//! | `hc1:<namespace>:l:{<tag>}` | the lock of who empties the namespace because that was another one |
//! | `hc1:h:{<tag>}` | nothing: who can delete it has a primary |
//!
//! No byte that a client chose is part of a name, only digests are: no request can steer a name to
//! another key, pattern or cluster slot. The braces are the hash tags of Redis Cluster: responses,
//! what varies and the epoch of the path share a slot; routes and tags spread over all of them.
//! `<tag>` is a number that leads to a slot of the server's own; for one that has everything, `n`.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use redis::{RedisWrite, ToRedisArgs};
use smallvec::SmallVec;

use crate::entry::Variant;
use crate::entry::codec::wire::Wire;
use crate::epoch::{Scope, ScopeKind};
use crate::key::{Namespace, PrimaryKey};
use crate::semantics::vary::Vary;

/// 128 bits of BLAKE3.
pub(super) type Digest = [u8; 16];

/// A name in Redis. A hit makes several, so they take no memory of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name(SmallVec<[u8; 128]>);

impl Name {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn push(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }
}

impl ToRedisArgs for Name {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        out.write_arg(&self.0);
    }
}

/// Where the responses under one primary key are kept.
#[derive(Debug)]
pub(super) struct Place<'a> {
    namespace: &'a Namespace,
    bucket: u16,
    primary: Digest,
}

impl<'a> Place<'a> {
    /// Finds the place of a key, of whose scopes the path decides about the bucket.
    pub(super) fn of(
        namespace: &'a Namespace,
        key: &PrimaryKey,
        mut scopes: impl Iterator<Item = Scope>,
    ) -> Self {
        let path = scopes.find(|scope| scope.kind() == ScopeKind::Path);
        Self {
            namespace,
            bucket: path.map_or(0, |path| bucket(path.digest())),
            primary: key.fingerprint(),
        }
    }

    /// Returns the digest of the primary key.
    pub(super) fn primary(&self) -> Digest {
        self.primary
    }

    /// Returns the digest of the response with this variant under the primary key.
    ///
    /// That of a response without `Vary` is the primary key's own.
    pub(super) fn digest(&self, variant: &Variant) -> Digest {
        if variant.vary == Vary::None {
            return self.primary;
        }
        let mut encoding = Vec::new();
        variant.write(&mut encoding);
        let mut digest = [0; 16];
        blake3::Hasher::new_derive_key("tower-response-cache variant v1")
            .update(&self.primary)
            .update(&encoding)
            .finalize_xof()
            .fill(&mut digest);
        digest
    }

    /// Returns the name of what varies under the primary key.
    pub(super) fn variants(&self) -> Name {
        self.name("y", self.primary)
    }

    /// Returns the name of a response.
    pub(super) fn entry(&self, digest: Digest) -> Name {
        self.name("e", digest)
    }

    /// Returns the name of the lock of a response's fetch.
    pub(super) fn lock(&self, digest: Digest) -> Name {
        self.name("l", digest)
    }

    fn name(&self, kind: &str, digest: Digest) -> Name {
        let mut name = begin(self.namespace, kind);
        push_bucket(&mut name, self.bucket);
        name.push("}");
        push_base64(&mut name, digest);
        name
    }
}

/// Returns the name of a scope's epoch.
pub(super) fn epoch(namespace: &Namespace, scope: Scope) -> Name {
    scoped(namespace, "v", scope)
}

/// Returns the name of the mark that the invalidation of a tag leaves.
pub(super) fn mark(namespace: &Namespace, tag: Scope) -> Name {
    scoped(namespace, "m", tag)
}

/// Returns the name of what tells which life of the server its part of the namespace is of.
pub(super) fn incarnation(namespace: &Namespace, tag: &str) -> Name {
    tagged(namespace, "i", tag)
}

/// Returns the name of the lock of who empties the namespace.
pub(super) fn emptying(namespace: &Namespace, tag: &str) -> Name {
    tagged(namespace, "l", tag)
}

/// Returns a name with this hash tag that nobody makes.
pub(super) fn pulse(tag: &str) -> Name {
    let mut name = Name(SmallVec::new());
    for part in ["hc1:h:{", tag, "}"] {
        name.push(part);
    }
    name
}

/// Returns the hash tag of the name of a scope's epoch, which decides about its cluster slot.
pub(super) fn hash_tag(scope: Scope) -> Name {
    let mut name = Name(SmallVec::new());
    push_tag(&mut name, scope);
    name
}

fn tagged(namespace: &Namespace, kind: &str, tag: &str) -> Name {
    let mut name = begin(namespace, kind);
    name.push(tag);
    name.push("}");
    name
}

fn scoped(namespace: &Namespace, kind: &str, scope: Scope) -> Name {
    let mut name = begin(namespace, kind);
    push_tag(&mut name, scope);
    name.push("}");
    name
}

fn push_tag(name: &mut Name, scope: Scope) {
    match scope.kind() {
        ScopeKind::Namespace => name.push("n"),
        ScopeKind::Path => push_bucket(name, bucket(scope.digest())),
        ScopeKind::Route => {
            name.push("r");
            push_base64(name, scope.digest());
        }
        ScopeKind::Tag => {
            name.push("t");
            push_base64(name, scope.digest());
        }
    }
}

fn begin(namespace: &Namespace, kind: &str) -> Name {
    let mut name = Name(SmallVec::new());
    for part in ["hc1:", namespace.as_str(), ":", kind, ":{"] {
        name.push(part);
    }
    name
}

/// Returns a number for the name of a scope's epoch, within this process; chance may give two the
/// same.
pub(super) fn number(namespace: &Namespace, scope: Scope) -> u64 {
    let name = match scope.kind() {
        ScopeKind::Path => u128::from(bucket(scope.digest())),
        _ => u128::from_be_bytes(scope.digest()),
    };
    FixedState::default().hash_one((namespace.as_str(), scope.kind(), name))
}

/// Returns the number that all names of a scope's epoch lead to; others share it.
pub(super) fn slot(scope: Scope) -> u16 {
    bucket(scope.digest())
}

/// Returns the slot of the epoch with this name; `None` if it is no epoch's.
pub(super) fn slot_of(name: &[u8]) -> Option<u16> {
    let name = std::str::from_utf8(name).ok()?;
    let (namespace, scope) = name.strip_prefix("hc1:")?.split_once(":v:{")?;
    let (kind, digest) = scope.strip_suffix('}')?.split_at_checked(1)?;
    match kind {
        "n" => Some(slot(Scope::namespace(namespace))),
        "b" => digest.parse().ok(),
        "r" | "t" => leading(digest).map(fold),
        _ => None,
    }
}

/// Whether this is the name of a lock.
pub(super) fn is_lock(name: &[u8]) -> bool {
    let name = std::str::from_utf8(name).unwrap_or_default();
    let parts = name
        .strip_prefix("hc1:")
        .and_then(|name| name.split_once(':'));
    parts.is_some_and(|(_, rest)| rest.starts_with("l:{"))
}

/// Paths share 16,384 epochs, as many as a cluster has slots.
fn bucket([high, low, ..]: Digest) -> u16 {
    fold(u16::from_be_bytes([high, low]))
}

fn fold(leading: u16) -> u16 {
    leading % 16_384
}

fn push_bucket(name: &mut Name, bucket: u16) {
    name.push("b");
    name.push(itoa::Buffer::new().format(bucket));
}

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Reads the first two bytes of a digest that [`push_base64`] wrote.
fn leading(text: &str) -> Option<u16> {
    let (first, _) = text.as_bytes().split_first_chunk::<3>()?;
    let bits = first.iter().try_fold(0_u32, |bits, letter| {
        let sextet = LETTERS.iter().position(|known| known == letter)?;
        Some(bits << 6 | u32::try_from(sextet).ok()?)
    })?;
    u16::try_from(bits >> 2).ok()
}

/// Writes a digest in 22 letters (RFC 4648 §5, without padding).
fn push_base64(name: &mut Name, digest: Digest) {
    let bits = u128::from_be_bytes(digest);
    // The last letter has two bits of the digest and four of padding.
    let sextets = (0..21)
        .map(|place| bits >> (122 - 6 * place))
        .chain([bits << 4]);
    name.0.extend(sextets.map(|sextet| {
        let place = usize::try_from(sextet & 63).unwrap_or_default();
        LETTERS.get(place).copied().unwrap_or_default()
    }));
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use bytes::Bytes;
    use http::{Request, Response};
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Clock;
    use crate::entry::StoredResponse;

    impl fmt::Display for Name {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(std::str::from_utf8(&self.0).unwrap())
        }
    }

    fn base64(digest: Digest) -> String {
        let mut letters = Name(SmallVec::new());
        push_base64(&mut letters, digest);
        letters.to_string()
    }

    #[test]
    fn digests_are_written_as_rfc_4648_has_it() {
        assert_eq!(base64([0; 16]), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(base64([255; 16]), "_____________________w");
        assert_eq!(base64(*b"any carnal pleas"), "YW55IGNhcm5hbCBwbGVhcw");
    }

    fn hit(language: &'static str) -> StoredResponse {
        let request = Request::get("http://a.example/").header("accept-language", language);
        let response = Response::builder()
            .header("vary", "accept-language")
            .body(Bytes::new());
        let request = request.body(()).unwrap();
        StoredResponse::sample(&request, response.unwrap(), &Clock::system())
    }

    #[test]
    fn names_stay_what_they_were_in_earlier_releases() {
        // Processes of different builds share one server.
        let namespace = Namespace::default();
        let [path, route, tag] = [
            Scope::path("default", b"/a"),
            Scope::route("default", "/a"),
            Scope::tag("default", b"a"),
        ];
        let response = hit("de");
        let place = Place::of(&namespace, response.key(), [path].into_iter());
        for (name, golden) in [
            (epoch(&namespace, Scope::namespace("default")), "v:{n}"),
            (epoch(&namespace, path), "v:{b12908}"),
            (epoch(&namespace, route), "v:{rkGbMV31SiAkGLs-I7Wl24Q}"),
            (epoch(&namespace, tag), "v:{tkeR2tHrQKvSeiBTUbG-6ZA}"),
            (mark(&namespace, tag), "m:{tkeR2tHrQKvSeiBTUbG-6ZA}"),
            (incarnation(&namespace, "n"), "i:{n}"),
            (emptying(&namespace, "17"), "l:{17}"),
            (place.variants(), "y:{b12908}OLcfZMNkrbVDXlkJWlQW6A"),
            (
                place.entry(place.primary()),
                "e:{b12908}OLcfZMNkrbVDXlkJWlQW6A",
            ),
            (
                place.lock(place.primary()),
                "l:{b12908}OLcfZMNkrbVDXlkJWlQW6A",
            ),
            (
                place.entry(place.digest(&response.variant)),
                "e:{b12908}0br-zEQ5gVvcNnUBjC66eg",
            ),
        ] {
            assert_eq!(name.to_string(), format!("hc1:default:{golden}"));
            assert_eq!(is_lock(&name.0), golden.starts_with('l'));
        }
    }

    proptest! {
        #[test]
        fn the_name_of_an_epoch_leads_to_the_slot_of_its_scope(
            namespace in "[A-Za-z0-9._-]{1,64}",
            bytes: Vec<u8>,
        ) {
            let room: Namespace = namespace.parse().unwrap();
            for scope in [
                Scope::namespace(&namespace),
                Scope::path(&namespace, &bytes),
                Scope::route(&namespace, &String::from_utf8_lossy(&bytes)),
                Scope::tag(&namespace, &bytes),
            ] {
                let name = epoch(&room, scope);
                prop_assert_eq!(slot_of(&name.0), Some(slot(scope)), "{:?}", name);
            }
        }

        #[test]
        fn any_bytes_lead_to_a_slot_or_none(bytes: Vec<u8>, rest in ".{0,8}") {
            let _ = slot_of(&bytes);
            let _ = slot_of(format!("hc1:a:v:{{{rest}}}").as_bytes());
        }
    }

    #[test]
    fn variants_have_names_of_their_own_beside_the_one_without() {
        let namespace = Namespace::default();
        let [german, english] = ["de", "en"].map(hit);
        let place = Place::of(&namespace, german.key(), std::iter::empty());
        let digests = [&german, &english].map(|response| place.digest(&response.variant));
        assert_ne!(digests[0], digests[1]);
        assert!(!digests.contains(&place.primary()));
        let without = Variant {
            vary: Vary::None,
            ..german.variant
        };
        assert_eq!(place.digest(&without), place.primary());
    }
}
