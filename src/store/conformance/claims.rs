//! Whether of several who miss the same one fetches, and nobody waits for ever.

use super::sample::Sample;
use super::{Trial, within_limits};
use crate::epoch::Captured;
use crate::store::{Claim, FillLock, Kept, Settled};

/// Claims a sample's fetch, which nobody else does.
async fn granted(trial: &Trial, sample: &Sample) -> (Captured, FillLock) {
    match trial.claim(sample, None).await {
        (captured, Claim::Granted(lock)) => (captured, lock),
        (_, claim) => panic!("nobody fetches {sample:?}, and yet the claim is {claim:?}"),
    }
}

pub(super) async fn a_claim_captures_as_well_as_a_capture(trial: Trial) {
    let sample = trial.sample("/a");
    let (captured, lock) = granted(&trial, &sample).await;
    let kept = trial.put(&sample, captured.clone(), &[]).await;
    drop(lock);
    assert_eq!(kept, Kept::Stored, "nothing was invalidated");
    assert!(trial.body(&sample).await.is_some(), "stored");

    let (same, _claim) = trial.claim(&sample, Some(captured.clone())).await;
    assert_eq!(same, captured, "what is captured is not captured again");

    for scope in sample.scopes() {
        let (captured, _claim) = trial.claim(&sample, None).await;
        trial.invalidate(&[scope]).await;
        trial.put(&sample, captured, &[]).await;
        assert_eq!(
            trial.body(&sample).await,
            None,
            "claimed before the invalidation of {scope:?}"
        );
    }
}

pub(super) async fn a_released_claim_ends_the_wait_for_it(trial: Trial) {
    let [sample, other] = ["/a", "/b"].map(|path| trial.sample(path));
    let (_, lock) = granted(&trial, &sample).await;
    drop(granted(&trial, &other).await);
    if let (_, Claim::Elsewhere(wait)) = trial.claim(&sample, None).await {
        drop(lock);
        let settled = within_limits(async { Ok(wait.await) }).await;
        assert_eq!(settled, Settled::Released, "the lock was dropped");
        drop(granted(&trial, &sample).await);
    }
}

pub(super) async fn nobody_waits_for_what_is_uncacheable(trial: Trial) {
    let sample = trial.sample("/a");
    let (_, lock) = granted(&trial, &sample).await;
    if let (_, Claim::Elsewhere(wait)) = trial.claim(&sample, None).await {
        lock.uncacheable();
        let settled = within_limits(async { Ok(wait.await) }).await;
        assert_eq!(settled, Settled::Uncacheable, "it was said to be");
    } else {
        lock.uncacheable();
    }
    // A lock that is far away is settled by and by, so the first of them may still wait for it.
    for _ in 0..2 {
        match trial.claim(&sample, None).await {
            (_, Claim::Elsewhere(wait)) => _ = within_limits(async { Ok(wait.await) }).await,
            (_, Claim::Granted(_) | Claim::Uncacheable) => return,
        }
    }
    panic!("whoever comes after an uncacheable answer does not wait: {sample:?}");
}
