use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use proptest::prelude::*;

use super::{Damage, decode, encode_head};
use crate::entry::said::Said;
use crate::entry::{StoredResponse, Tagged, Variant};
use crate::epoch::{Epoch, Scope, ScopeKind, Stamp};
use crate::key::PrimaryKey;
use crate::semantics::date::HttpDate;
use crate::semantics::freshness::{Basis, Terms};
use crate::semantics::vary::{Nominated, NormalForm, Vary};

/// The most bytes that a compressed body may stand for.
pub(super) const MOST: usize = 1 << 16;

/// A response with everything that one can have; 10 s old on arrival, fresh for 60 s.
pub(super) fn full() -> StoredResponse {
    let fields = [
        ("etag", &b"\"v1\""[..]),
        ("set-cookie", b"a=1"),
        ("set-cookie", b"b=\xe4"),
        ("x-empty", b""),
    ];
    let trailers = lines([("x-sum".to_owned(), b"9".to_vec(), true)]);
    let accept = HeaderName::from_static("accept");
    StoredResponse {
        key: PrimaryKey::from_encoded(b"key"),
        variant: Variant {
            vary: Vary::Fields([accept].into()),
            nominated: Nominated::from_bytes(Box::new(*b"nom")),
            form: NormalForm::Sets,
        },
        status: StatusCode::PARTIAL_CONTENT,
        fields: lines(fields.map(|(name, value)| (name.to_owned(), value.to_vec(), false))),
        body: Bytes::from_static(b"body"),
        trailers: Some(trailers),
        terms: Terms {
            lifetime: Duration::from_secs(60),
            basis: Basis::Assigned,
            initial_age: Duration::from_secs(10),
            date: HttpDate(1_700_000_000),
            last_modified: Some(HttpDate(-1)),
            stale_while_revalidate: Some(Duration::from_nanos(1)),
            stale_if_error: None,
            validate_always: false,
            forbids_stale: true,
            shared_lifetime: false,
            immutable: true,
            omitted: vec![HeaderName::from_static("x-user")],
        },
        tagged: Tagged::ByCache,
        received: Instant::now(),
        said: Said::default(),
        stamp: [(
            Scope::from_parts(ScopeKind::Tag, [0xd1; 16]),
            Epoch::new(7).unwrap(),
        )]
        .into_iter()
        .collect(),
    }
}

pub(super) fn any_response() -> impl Strategy<Value = StoredResponse> {
    let tagged = prop_oneof![Just(Tagged::ByOrigin), Just(Tagged::ByCache)];
    let head = (200_u16..1000, any_fields(), prop::option::of(any_fields()));
    let blobs = (any::<Vec<u8>>(), any::<Vec<u8>>());
    let rest = (any_variant(), any_terms(), any_stamp(), tagged);
    (head, blobs, rest).prop_map(
        |((status, fields, trailers), (key, body), (variant, terms, stamp, tagged))| {
            StoredResponse {
                key: PrimaryKey::from_encoded(&key),
                variant,
                status: StatusCode::from_u16(status).unwrap(),
                fields,
                body: body.into(),
                trailers,
                terms,
                tagged,
                received: Instant::now(),
                stamp,
                said: Said::default(),
            }
        },
    )
}

/// Writes the response the moment it was received, by a clock that shows `at(1)`.
pub(super) fn entry_of(response: &StoredResponse) -> Vec<u8> {
    let mut entry = encode_head(response, None, response.received, at(1));
    entry.extend_from_slice(&response.body);
    entry
}

/// Writes the response as if its body had been compressed to these bytes.
pub(super) fn compressed_entry_of(response: &StoredResponse, block: &[u8]) -> Vec<u8> {
    let mut entry = encode_head(response, Some(block), response.received, at(1));
    entry.extend_from_slice(block);
    entry
}

/// Reads an entry as if `response` was wanted, at the moment it was received.
pub(super) fn read_back(
    entry: Vec<u8>,
    response: &StoredResponse,
) -> Result<StoredResponse, Damage> {
    decode(&entry.into(), &response.key, MOST, response.received, at(1))
}

/// All that is stored, in a form that can be compared.
pub(super) fn content(response: &StoredResponse) -> impl PartialEq + std::fmt::Debug {
    let lines = |fields: &HeaderMap| {
        let line = |(name, value): (&HeaderName, &HeaderValue)| {
            (name.clone(), value.clone(), value.is_sensitive())
        };
        fields.iter().map(line).collect::<Vec<_>>()
    };
    let response = response.clone();
    (
        (response.key, response.variant, response.status),
        (
            lines(&response.fields),
            response.trailers.as_ref().map(lines),
        ),
        (response.body, response.terms),
        (response.tagged, response.stamp),
    )
}

pub(super) fn at(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 {
        UNIX_EPOCH - distance
    } else {
        UNIX_EPOCH + distance
    }
}

fn lines(lines: impl IntoIterator<Item = (String, Vec<u8>, bool)>) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for (name, value, sensitive) in lines {
        let mut value = HeaderValue::from_bytes(&value).unwrap();
        value.set_sensitive(sensitive);
        fields.append(HeaderName::try_from(name).unwrap(), value);
    }
    fields
}

fn any_name() -> impl Strategy<Value = String> {
    prop_oneof![
        "etag|date|set-cookie|accept",
        "[a-z0-9!#$%&'*+.^_`|~-]{1,80}"
    ]
}

fn any_names() -> impl Strategy<Value = Vec<HeaderName>> {
    let name = any_name().prop_map(|name| HeaderName::try_from(name).unwrap());
    prop::collection::vec(name, 0..4)
}

fn any_fields() -> impl Strategy<Value = HeaderMap> {
    let byte = prop_oneof![Just(b'\t'), b' '..=b'~', 0x80..=u8::MAX];
    let value = prop::collection::vec(byte, 0..40);
    prop::collection::vec((any_name(), value, any::<bool>()), 0..12).prop_map(lines)
}

fn any_variant() -> impl Strategy<Value = Variant> {
    let vary = (any_names(), any::<bool>()).prop_map(|(names, any)| match (any, &names[..]) {
        (true, _) => Vary::Any,
        (false, []) => Vary::None,
        (false, _) => Vary::Fields(names.into()),
    });
    let form = prop_oneof![
        Just(NormalForm::Lists),
        Just(NormalForm::Sets),
        Just(NormalForm::SetsInOneLanguage)
    ];
    (vary, any::<Box<[u8]>>(), form).prop_map(|(vary, nominated, form)| Variant {
        vary,
        nominated: Nominated::from_bytes(nominated),
        form,
    })
}

fn any_terms() -> impl Strategy<Value = Terms> {
    let basis = prop_oneof![
        Just(Basis::Explicit),
        Just(Basis::Heuristic),
        Just(Basis::Assigned),
        Just(Basis::None)
    ];
    let numbers = any::<(u64, u64, i64, Option<i64>, Option<u64>, Option<u64>)>();
    (numbers, any::<[bool; 4]>(), basis, any_names()).prop_map(
        |((lifetime, age, date, modified, revalidate, on_error), flags, basis, omitted)| Terms {
            lifetime: Duration::from_nanos(lifetime),
            basis,
            initial_age: Duration::from_nanos(age),
            date: HttpDate(date),
            last_modified: modified.map(HttpDate),
            stale_while_revalidate: revalidate.map(Duration::from_nanos),
            stale_if_error: on_error.map(Duration::from_nanos),
            validate_always: flags[0],
            forbids_stale: flags[1],
            shared_lifetime: flags[2],
            immutable: flags[3],
            omitted,
        },
    )
}

fn any_stamp() -> impl Strategy<Value = Stamp> {
    let kind = prop_oneof![
        Just(ScopeKind::Namespace),
        Just(ScopeKind::Route),
        Just(ScopeKind::Path),
        Just(ScopeKind::Tag)
    ];
    let held = (kind, any::<[u8; 16]>(), 1..=u64::MAX).prop_map(|(kind, digest, epoch)| {
        (Scope::from_parts(kind, digest), Epoch::new(epoch).unwrap())
    });
    prop::collection::vec(held, 0..8).prop_map(Stamp::from_iter)
}
