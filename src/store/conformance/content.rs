//! Whether a response comes back as it was stored.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Trial;
use crate::semantics::freshness::Terms;

pub(super) async fn bodies_come_back_byte_for_byte(trial: Trial) {
    let megabyte: Vec<u8> = (0..1_u32 << 20)
        .flat_map(|n| (n % 251).to_be_bytes().into_iter().last())
        .collect();
    let every_byte: Vec<u8> = (0..=u8::MAX).collect();
    for body in [
        Bytes::new(),
        Bytes::from_static(b"\0"),
        every_byte.into(),
        megabyte.into(),
    ] {
        let sample = trial.sample(&format!("/{}", body.len())).body(body.clone());
        trial.fill(&sample, &[]).await;
        let found = trial.body(&sample).await;
        assert!(
            found.is_some_and(|found| found == body),
            "a body of {} bytes",
            body.len()
        );
    }
}

pub(super) async fn fields_come_back_as_they_were(trial: Trial) {
    let sample = trial
        .sample("/")
        .field("link", b"</a>; rel=preload")
        .field("x-empty", b"")
        .field("link", b"</b>; rel=preload, </c>")
        .field("x-obs-text", b"caf\xe9 \x80\xff")
        .field("content-type", b"text/plain");
    trial.fill(&sample, &[]).await;
    let (stored, found) = (sample.response(&trial.clock), trial.response(&sample).await);
    assert_eq!(found.status, stored.status, "the status");
    assert_eq!(
        found.fields, stored.fields,
        "all lines, in order within a field, byte for byte"
    );
    assert_eq!(found.trailers, None, "no trailers");
}

pub(super) async fn trailers_come_back(trial: Trial) {
    let sample = trial
        .sample("/")
        .trailer("grpc-status", b"0")
        .trailer("x-part", b"1")
        .trailer("x-part", b"\xff");
    trial.fill(&sample, &[]).await;
    let (stored, found) = (sample.response(&trial.clock), trial.response(&sample).await);
    assert_eq!(found.trailers, stored.trailers, "the trailers");
    assert_eq!(found.fields, stored.fields, "apart from the fields");
}

pub(super) async fn the_terms_and_the_age_come_back(trial: Trial) {
    let sample = trial
        .sample("/")
        .field(
            "cache-control",
            b"s-maxage=60, stale-while-revalidate=30, no-cache=\"x-user\"",
        )
        .field("last-modified", b"Sun, 06 Nov 1994 08:49:37 GMT")
        .field("age", b"7")
        .field("etag", b"\"a\"")
        .field("vary", b"x-a, x-b");
    let captured = trial.capture(&sample.scopes()).await;
    let fill = trial.fill_of(&sample, captured, &[]);
    let stored = Arc::clone(&fill.response);
    super::within_limits(trial.store.put(fill)).await;

    let found = trial.response(&sample).await;
    assert_eq!(found.key, stored.key, "the key");
    assert_eq!(found.variant, stored.variant, "the variant");
    let stored_terms = Terms {
        // The time in the store may be part of it; the age as a whole is compared below.
        initial_age: found.terms.initial_age,
        ..stored.terms.clone()
    };
    assert_eq!(found.terms, stored_terms, "the terms of reuse");
    assert_eq!(found.tagged, stored.tagged, "whose word the entity-tag is");
    let now = trial.clock.now();
    let difference = found.age(now).abs_diff(stored.age(now));
    assert!(
        difference < Duration::from_secs(2),
        "the age is off by {difference:?}"
    );
}
