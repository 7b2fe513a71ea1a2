//! Whether calls that meet, or that end early, do harm.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use tokio::task::JoinSet;

use super::{Trial, body_of};
use crate::store::Kept;

const TASKS: u64 = 64;
/// A call is dropped after this many polls, or fewer.
const POLLS: usize = 8;

pub(super) async fn a_dropped_future_leaves_a_readable_store(trial: Trial) {
    for polls in 0..=POLLS {
        let sample = trial.sample(&format!("/{polls}")).body(vec![7; 1 << 16]);
        let scopes = sample.scopes();
        drop_after(polls, trial.store.lookup(trial.wanted(&sample), &scopes)).await;
        drop_after(polls, trial.store.capture(&trial.namespace, &scopes)).await;
        let wanted = trial.wanted(&sample);
        drop_after(polls, trial.store.claim(wanted, &scopes, None)).await;
        let captured = trial.capture(&scopes).await;
        drop_after(
            polls,
            trial.store.put(trial.fill_of(&sample, captured, &[])),
        )
        .await;
        let body = trial.body(&sample).await;
        assert!(
            body.is_none_or(|body| body == vec![7; 1 << 16]),
            "whole or not at all"
        );

        trial.fill(&sample, &[]).await;
        let response = trial.response(&sample).await;
        drop_after(polls, trial.store.remove(&response)).await;
        drop_after(polls, trial.store.check()).await;
        trial.fill(&sample, &[]).await;
        assert!(trial.body(&sample).await.is_some(), "the store goes on");
    }
}

pub(super) async fn an_invalidation_that_was_dropped_can_be_repeated(trial: Trial) {
    for polls in 0..=POLLS {
        let sample = trial.sample(&format!("/{polls}"));
        trial.fill(&sample, &[]).await;
        let scopes = sample.scopes();
        drop_after(polls, trial.store.invalidate(&trial.namespace, &scopes)).await;
        trial.invalidate(&scopes).await;
        assert_eq!(
            trial.body(&sample).await,
            None,
            "invalidated at the second try"
        );
    }
}

pub(super) async fn tasks_do_not_disturb_each_other(trial: Trial) {
    let mut tasks = JoinSet::new();
    for n in 0..TASKS {
        let trial = trial.clone();
        tasks.spawn(async move {
            for round in 0..8 {
                let body = format!("{n} {round}");
                let sample = trial.sample(&format!("/{n}")).body(body.clone());
                // A store may let paths share an epoch: what another task invalidates then takes this
                // with it, or keeps it from being stored.
                let captured = trial.capture(&sample.scopes()).await;
                assert_ne!(trial.put(&sample, captured, &[]).await, Kept::TooLarge);
                let found = trial.body(&sample).await;
                assert!(
                    found.is_none_or(|found| found == body),
                    "what this task stored, or nothing"
                );
                trial.invalidate(&sample.scopes()[2..]).await;
                assert_eq!(
                    trial.body(&sample).await,
                    None,
                    "what this task invalidated"
                );
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no task fails");
    }
}

/// Every task reads, changes and stores the same thing. Its version is the body of the response.
pub(super) async fn no_reader_sees_what_is_older_than_an_invalidation(trial: Trial) {
    let version = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for n in 0..TASKS {
        let (trial, version) = (trial.clone(), Arc::clone(&version));
        tasks.spawn(async move {
            let tag = trial.tag("shared");
            let sample = trial.sample("/shared");
            for round in 0..16 {
                let captured = trial.capture(&sample.scopes()).await;
                let read = version.load(Ordering::SeqCst);
                tokio::task::yield_now().await;
                let sample = sample.clone().body(read.to_string());
                trial.put(&sample, captured, &[tag]).await;

                let newest = if (n + round) % 8 == 0 {
                    let newest = version.fetch_add(1, Ordering::SeqCst) + 1;
                    trial.invalidate(&[tag]).await;
                    newest
                } else {
                    0
                };
                if let Some(body) = body_of(&trial.look_up(&sample).await) {
                    let seen = std::str::from_utf8(&body)
                        .ok()
                        .and_then(|body| body.parse().ok());
                    assert!(
                        seen >= Some(newest),
                        "{seen:?} was read after {newest} was announced"
                    );
                }
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no task fails");
    }
}

/// Polls a future a few times, with time for its input and output between, and drops it.
async fn drop_after<T>(polls: usize, call: impl Future<Output = T>) {
    let mut call = pin!(call);
    for _ in 0..polls {
        let ended = poll_fn(|context| Poll::Ready(call.as_mut().poll(context).is_ready())).await;
        if ended {
            return;
        }
        tokio::task::yield_now().await;
    }
}
