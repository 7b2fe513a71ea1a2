//! Which request finds which response.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::sample::Sample;
use super::{Outcome, Trial, within_limits};

pub(super) async fn a_response_is_found_under_an_equal_key_only(trial: Trial) {
    let long = format!("/{}", "a".repeat(50_000));
    for stored in ["/a", "/a/b", "/a?b", &long] {
        let sample = trial.sample(stored);
        trial.fill(&sample, &[]).await;
        let body = trial.body(&sample).await;
        assert_eq!(
            body.as_deref(),
            Some(stored.as_bytes()),
            "found under its own key"
        );
    }
    let longer = format!("{long}b");
    for other in [
        "/", "/A", "/a/", "/a//b", "/a%62", "/a?", "/a?B", "/a?b=", &longer,
    ] {
        let outcome = trial.look_up(&trial.sample(other)).await;
        assert!(
            matches!(outcome, Outcome::Absent),
            "nothing is stored under {other:?}: {outcome:?}"
        );
    }
}

pub(super) async fn keys_that_share_much_are_kept_apart(trial: Trial) {
    let samples: Vec<_> = (0..256)
        .map(|n| trial.sample(&format!("/item/{n}")))
        .collect();
    for sample in &samples {
        trial.fill(sample, &[]).await;
    }
    for (n, sample) in samples.iter().enumerate() {
        let body = trial.body(sample).await;
        assert_eq!(
            body,
            Some(format!("/item/{n}").into()),
            "each key has its own response"
        );
    }
}

pub(super) async fn namespaces_are_kept_apart(trial: Trial) {
    let other = Trial::new(Arc::clone(&trial.store), trial.tier);
    let (sample, twin) = (trial.sample("/a"), other.sample("/a"));
    trial.fill(&sample.clone().body("one"), &[]).await;
    assert_eq!(
        other.body(&twin).await,
        None,
        "another namespace has its own keys"
    );

    other.fill(&twin.clone().body("two"), &[]).await;
    other.invalidate(&twin.scopes()).await;
    assert_eq!(other.body(&twin).await, None, "invalidated");
    assert_eq!(
        trial.body(&sample).await,
        Some("one".into()),
        "another namespace has its own scopes"
    );
}

pub(super) async fn variants_are_selected_by_nominated_fields(trial: Trial) {
    let [english, german, french] =
        ["en", "de", "fr"].map(|language| in_language(&trial, language));
    trial.fill(&english, &[]).await;
    trial.fill(&german, &[]).await;
    assert_eq!(
        trial.body(&english).await,
        Some("en".into()),
        "the variant asked for"
    );
    assert_eq!(
        trial.body(&german).await,
        Some("de".into()),
        "the variant asked for"
    );

    match trial.look_up(&french).await {
        Outcome::OtherVariants(others) => {
            let bodies: BTreeSet<_> = others.iter().map(|other| &other.body()[..]).collect();
            let expected = BTreeSet::from([&b"en"[..], b"de"]);
            assert!(
                bodies.is_subset(&expected),
                "only what is stored: {others:?}"
            );
        }
        outcome => panic!("there are variants, but not in French: {outcome:?}"),
    }
}

pub(super) async fn a_variant_is_replaced_by_its_newer_self_alone(trial: Trial) {
    let [english, german] = ["en", "de"].map(|language| in_language(&trial, language));
    trial.fill(&english, &[]).await;
    trial.fill(&german, &[]).await;
    trial.fill(&english.clone().body("newer"), &[]).await;
    assert_eq!(
        trial.body(&english).await,
        Some("newer".into()),
        "the newer replaces the older"
    );
    assert_eq!(
        trial.body(&german).await,
        Some("de".into()),
        "and leaves the other variant alone"
    );
}

pub(super) async fn of_a_thousand_variants_few_are_kept(trial: Trial) {
    let variant = |n: u32| {
        trial
            .sample("/many")
            .asked_with("x-n", &n.to_string())
            .field("vary", b"x-n")
            .body(n.to_string())
    };
    for n in 0..1000 {
        trial.fill(&variant(n), &[]).await;
    }
    assert_eq!(
        trial.body(&variant(999)).await,
        Some("999".into()),
        "the newest is kept"
    );
    let mut kept = 0;
    for n in 0..1000 {
        kept += u32::from(trial.body(&variant(n)).await.is_some());
    }
    assert!(kept <= 64, "{kept} variants of a key are kept");
}

pub(super) async fn remove_drops_the_one_response_if_it_is_held(trial: Trial) {
    let [english, german] = ["en", "de"].map(|language| in_language(&trial, language));
    trial.fill(&german, &[]).await;
    trial.fill(&english, &[]).await;
    let older = trial.response(&english).await;
    trial.fill(&english.clone().body("newer"), &[]).await;

    within_limits(trial.store.remove(&older)).await;
    assert_eq!(
        trial.body(&english).await,
        Some("newer".into()),
        "what replaced it stays"
    );

    let newer = trial.response(&english).await;
    within_limits(trial.store.remove(&newer)).await;
    assert_eq!(trial.body(&english).await, None, "removed");
    assert_eq!(
        trial.body(&german).await,
        Some("de".into()),
        "the other variant stays"
    );
    within_limits(trial.store.remove(&newer)).await;
}

fn in_language(trial: &Trial, language: &'static str) -> Sample {
    trial
        .sample("/hello")
        .asked_with("accept-language", language)
        .field("vary", b"accept-language")
        .body(language)
}
