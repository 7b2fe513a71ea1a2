//! What an invalidation hides, and for how long.

use super::sample::Sample;
use super::{Kept, Trial, within_limits};
use crate::epoch::{Captured, Epoch, Scope};

/// The scopes of a sample and one tag: one of each kind.
fn every_kind(trial: &Trial, sample: &Sample) -> Vec<Scope> {
    let mut scopes = sample.scopes().to_vec();
    scopes.push(trial.tag("tag"));
    scopes
}

pub(super) async fn what_is_stored_stands_under_all_its_scopes(trial: Trial) {
    let sample = trial.sample("/a");
    let late = trial.tag("late");
    let captured = trial.capture(&sample.scopes()).await;
    let scopes: Vec<_> = captured.stamp.iter().map(|(scope, _)| scope).collect();
    assert_eq!(
        scopes,
        sample.scopes(),
        "each scope is captured, in the order asked for"
    );

    trial.put(&sample, captured, &[late]).await;
    let found = trial.response(&sample).await;
    for scope in sample.scopes().into_iter().chain([late]) {
        assert!(
            found.stamp().contains(scope),
            "the stamp is complete: {scope:?}"
        );
    }
}

pub(super) async fn an_invalidated_scope_hides_what_was_stored(trial: Trial) {
    let sample = trial.sample("/a");
    for scope in every_kind(&trial, &sample) {
        trial.fill(&sample, &[trial.tag("tag")]).await;
        assert!(
            trial.body(&sample).await.is_some(),
            "stored, and nothing is invalidated"
        );
        trial.invalidate(&[scope]).await;
        assert_eq!(trial.body(&sample).await, None, "invalidated by {scope:?}");
    }
    trial.fill(&sample, &[]).await;
    assert!(trial.body(&sample).await.is_some(), "stored anew");
}

pub(super) async fn an_invalidation_hides_nothing_else(trial: Trial) {
    let [one, other] = ["/a", "/b"].map(|path| trial.sample(path));
    let [red, blue] = ["red", "blue"].map(|name| trial.tag(name));
    trial.fill(&one, &[red]).await;
    trial.fill(&other, &[blue]).await;
    trial.invalidate(&[red, one.scopes()[2]]).await;
    assert_eq!(trial.body(&one).await, None, "invalidated");
    assert!(
        trial.body(&other).await.is_some(),
        "of another path and tag"
    );
}

pub(super) async fn a_fill_overtaken_by_an_invalidation_is_never_read(trial: Trial) {
    let sample = trial.sample("/a");
    let scopes = every_kind(&trial, &sample);
    for scope in &scopes {
        let captured = trial.capture(&scopes).await;
        trial.invalidate(&[*scope]).await;
        trial.put(&sample, captured, &[]).await;
        assert_eq!(
            trial.body(&sample).await,
            None,
            "made before the invalidation of {scope:?}"
        );
    }
}

pub(super) async fn an_invalidated_epoch_never_comes_back(trial: Trial) {
    let sample = trial.sample("/a").body("old");
    let scopes = every_kind(&trial, &sample);
    for scope in &scopes {
        let old = trial.capture(&scopes).await;
        trial.invalidate(&[*scope]).await;
        let new = trial.capture(&scopes).await;
        trial.put(&sample, old.clone(), &[]).await;
        assert_eq!(
            trial.body(&sample).await,
            None,
            "captured before the invalidation of {scope:?}"
        );

        let newer = sample.clone().body("new");
        assert_eq!(
            trial.put(&newer, new, &[]).await,
            Kept::Stored,
            "captured after it"
        );
        trial.put(&sample, old, &[]).await;
        let body = trial.body(&sample).await;
        assert_ne!(
            body,
            Some("old".into()),
            "captured before the invalidation of {scope:?}"
        );
    }
}

pub(super) async fn what_a_look_up_captured_is_as_good(trial: Trial) {
    let sample = trial.sample("/a");
    let scopes = sample.scopes();
    let look_up = async || within_limits(trial.store.lookup(trial.wanted(&sample), &scopes)).await;
    if look_up().await.captured.is_none() {
        return;
    }
    let captured = async || {
        let captured = look_up().await.captured;
        captured.expect("a look-up that captures does so whenever it finds nothing")
    };
    for scope in scopes {
        let captured = captured().await;
        trial.invalidate(&[scope]).await;
        trial.put(&sample, captured, &[]).await;
        assert_eq!(
            trial.body(&sample).await,
            None,
            "looked up before the invalidation of {scope:?}"
        );
    }
    trial.put(&sample, captured().await, &[]).await;
    assert!(
        trial.body(&sample).await.is_some(),
        "stored under what the look-up captured"
    );
}

pub(super) async fn an_epoch_the_store_never_gave_is_not_current(trial: Trial) {
    let sample = trial.sample("/a");
    let captured = trial.capture(&sample.scopes()).await;
    let made_up = |epoch: Epoch| Epoch::new(epoch.value() ^ 1 << 62).unwrap_or(epoch);
    let forged = Captured {
        stamp: captured
            .stamp
            .iter()
            .map(|(scope, epoch)| (scope, made_up(epoch)))
            .collect(),
        moment: captured.moment,
    };
    trial.put(&sample, forged, &[]).await;
    assert_eq!(
        trial.body(&sample).await,
        None,
        "epochs that the store does not know"
    );
}

pub(super) async fn invalidation_may_be_repeated_and_may_find_nothing(trial: Trial) {
    let sample = trial.sample("/a");
    let unknown = trial.tag("unknown");
    trial.invalidate(&[]).await;
    trial.invalidate(&[unknown, unknown]).await;

    trial.fill(&sample, &[]).await;
    trial.invalidate(&sample.scopes()).await;
    trial.invalidate(&sample.scopes()).await;
    assert_eq!(trial.body(&sample).await, None, "invalidated twice");
    trial.fill(&sample, &[]).await;
    assert!(trial.body(&sample).await.is_some(), "stored anew");
}

pub(super) async fn renewing_hides_what_was_stored_and_what_was_under_way(trial: Trial) {
    let sample = trial.sample("/a");
    let scopes = every_kind(&trial, &sample);
    let path = sample.scopes()[2];
    trial.fill(&sample, &[]).await;
    let under_way = trial.capture(&scopes).await;
    let _ = trial.renew(path, trial.capture(&scopes).await).await;
    assert_eq!(trial.body(&sample).await, None, "stored before it");
    trial.put(&sample, under_way, &[]).await;
    assert_eq!(trial.body(&sample).await, None, "under way before it");
}

pub(super) async fn what_a_renewal_returns_is_overtaken_by_nothing(trial: Trial) {
    let sample = trial.sample("/a");
    let scopes = every_kind(&trial, &sample);
    let path = sample.scopes()[2];
    if let Some(renewed) = trial.renew(path, trial.capture(&scopes).await).await {
        assert_eq!(
            trial.put(&sample, renewed, &[]).await,
            Kept::Stored,
            "nothing was invalidated but by the renewal"
        );
        assert!(trial.body(&sample).await.is_some(), "stored after it");
    }
    for scope in &scopes {
        let captured = trial.capture(&scopes).await;
        trial.invalidate(&[*scope]).await;
        if let Some(renewed) = trial.renew(path, captured).await {
            trial.put(&sample, renewed, &[]).await;
            let body = trial.body(&sample).await;
            assert_eq!(body, None, "{scope:?} was invalidated before the renewal");
        }
        let captured = trial.capture(&scopes).await;
        if let Some(renewed) = trial.renew(path, captured).await {
            trial.invalidate(&[*scope]).await;
            trial.put(&sample, renewed, &[]).await;
            let body = trial.body(&sample).await;
            assert_eq!(body, None, "{scope:?} was invalidated after the renewal");
        }
    }
}

pub(super) async fn a_late_tag_joins_if_it_was_not_invalidated_since(trial: Trial) {
    let sample = trial.sample("/a");
    let [new, used] = ["new", "used"].map(|name| trial.tag(name));
    trial.fill(&trial.sample("/b"), &[used]).await;

    let captured = trial.capture(&sample.scopes()).await;
    let kept = trial.put(&sample, captured, &[new, used]).await;
    assert_eq!(kept, Kept::Stored, "neither tag was invalidated");
    assert!(
        trial.body(&sample).await.is_some(),
        "neither tag was invalidated"
    );

    trial.invalidate(&[new]).await;
    assert_eq!(
        trial.body(&sample).await,
        None,
        "invalidated by a tag that came late"
    );
    assert!(
        trial.body(&trial.sample("/b")).await.is_some(),
        "which this one does not carry"
    );
}

pub(super) async fn a_late_tag_invalidated_meanwhile_is_never_read(trial: Trial) {
    let sample = trial.sample("/a");
    let [new, used] = ["new", "used"].map(|name| trial.tag(name));
    trial.fill(&trial.sample("/b"), &[used]).await;
    for tag in [new, used] {
        let captured = trial.capture(&sample.scopes()).await;
        trial.invalidate(&[tag]).await;
        // Another response that carries the tag must not make it good again for this one.
        trial.fill(&trial.sample("/c"), &[tag]).await;
        trial.put(&sample, captured, &[tag]).await;
        assert_eq!(
            trial.body(&sample).await,
            None,
            "{tag:?} was invalidated meanwhile"
        );
    }
}

pub(super) async fn what_is_admitted_stands_under_all_its_scopes(trial: Trial) {
    let sample = trial.sample("/a");
    let tag = trial.tag("late");
    for late in [&[][..], &[tag]] {
        let scopes: Vec<_> = sample
            .scopes()
            .into_iter()
            .chain(late.iter().copied())
            .collect();
        let fill = trial.fill_of(&sample, trial.capture(&sample.scopes()).await, late);
        if let Some(stamp) = trial.admit(&fill).await {
            for scope in &scopes {
                assert!(stamp.contains(*scope), "{scope:?} is one of its scopes");
            }
            let current = within_limits(trial.store.confirm(&trial.namespace, &stamp)).await;
            assert!(current, "nothing was invalidated");
        }
        for scope in scopes {
            let fill = trial.fill_of(&sample, trial.capture(&sample.scopes()).await, late);
            trial.invalidate(&[scope]).await;
            let stamp = trial.admit(&fill).await;
            assert_eq!(stamp, None, "{scope:?} was invalidated meanwhile");
        }
    }
    assert_eq!(trial.body(&sample).await, None, "nothing was stored");
}
