//! What a rule confines to one tier.

use super::*;

fn desk(second: &Second, tier: Tier) -> Desk {
    Desk {
        tier: Some(tier),
        ..Desk::over(second)
    }
}

#[tokio::test]
async fn what_is_for_memory_is_never_in_the_second_store() {
    let second = Second::new();
    let [one, other] = [(); 2].map(|()| desk(&second, Tier::Memory));
    let sample = one.sample();
    assert_eq!(one.fill(&sample).await, Kept::Stored);
    assert_eq!(one.peek(&sample), Some("/a".into()));
    assert_eq!(other.body(&sample).await, None);
    assert_eq!(Desk::over(&second).body(&sample).await, None);
    assert_eq!(second.asked(), (1, 0), "by the one without a rule");
}

#[tokio::test]
async fn what_is_for_memory_is_gone_when_another_process_has_invalidated_it() {
    let second = Second::new();
    let [one, other] = [(); 2].map(|()| desk(&second, Tier::Memory));
    let sample = one.sample();
    let tag = Scope::tag("default", b"named by the response");
    for scope in sample.scopes().into_iter().chain([tag]) {
        let captured = one.capture(&sample).await;
        assert_eq!(one.put(&sample, captured, &[tag]).await, Kept::Stored);
        assert_eq!(one.peek(&sample), Some("/a".into()));
        other.invalidate(&[scope]).await.unwrap();
        assert_eq!(one.peek(&sample), None);
        assert_eq!(one.body(&sample).await, None, "{scope:?}");
    }
}

#[tokio::test]
async fn what_was_overtaken_by_an_invalidation_is_not_kept_in_memory() {
    let second = Second::new();
    let [one, other] = [(); 2].map(|()| desk(&second, Tier::Memory));
    let sample = one.sample();
    let tag = Scope::tag("default", b"named by the response");
    for scope in sample.scopes().into_iter().chain([tag]) {
        let captured = one.capture(&sample).await;
        other.invalidate(&[scope]).await.unwrap();
        let kept = one.put(&sample, captured, &[tag]).await;
        assert_eq!(kept, Kept::Invalidated, "{scope:?}");
        assert_eq!(one.store.usage().responses, 0);
    }
}

#[tokio::test]
async fn a_look_up_for_memory_captures_what_a_fill_needs() {
    let second = Second::new();
    let desk = desk(&second, Tier::Memory);
    let sample = desk.sample();
    let captured = desk.look_up(&sample).await.unwrap().captured.unwrap();
    assert_eq!(desk.put(&sample, captured, &[]).await, Kept::Stored);
}

#[tokio::test]
async fn what_is_stale_in_memory_alone_is_there_to_be_renewed() {
    let second = Second::new();
    let desk = desk(&second, Tier::Memory);
    let sample = desk.sample();
    desk.fill(&sample).await;
    desk.time.advance(Duration::from_secs(599));
    assert!(desk.peek(&sample).is_some(), "stale, and nowhere else");
    desk.time.advance(Duration::from_secs(1));
    assert_eq!(desk.body(&sample).await, None, "of no use any more");
}

#[tokio::test]
async fn variants_in_memory_alone_are_offered_while_they_are_vouched_for() {
    let second = Second::new();
    let desk = desk(&second, Tier::Memory);
    let variant = |language| {
        let sample = desk.sample().asked_with("accept-language", language);
        sample.field("vary", b"accept-language")
    };
    desk.fill(&variant("de")).await;
    let offered = async || match desk.look_up(&variant("fr")).await.unwrap().outcome {
        Outcome::OtherVariants(others) => others.len(),
        outcome => panic!("{outcome:?}"),
    };
    assert_eq!(offered().await, 1);
    second.mute();
    assert_eq!(offered().await, 0);
}

#[tokio::test]
async fn what_is_shared_is_never_in_memory() {
    let second = Second::new();
    let [one, other] = [(); 2].map(|()| desk(&second, Tier::Shared));
    let sample = one.sample();
    assert_eq!(one.fill(&sample).await, Kept::Stored);
    for desk in [&one, &other] {
        assert_eq!(desk.body(&sample).await, Some("/a".into()));
        assert_eq!(desk.peek(&sample), None);
        assert_eq!(desk.store.usage().responses, 0);
    }
    other.invalidate(&sample.scopes()).await.unwrap();
    assert_eq!(one.body(&sample).await, None);
}

#[tokio::test]
async fn while_the_second_store_is_away_only_what_is_shared_is_not_kept() {
    let second = Second::new();
    for (tier, kept) in [(Tier::Memory, true), (Tier::Shared, false)] {
        let desk = desk(&second, tier);
        let sample = desk.sample();
        second.set_away(true);
        let found = desk.look_up(&sample).await;
        assert_eq!(found.is_ok(), kept);
        let captured = desk.capture(&sample).await;
        let put = desk.put(&sample, captured.clone(), &[]).await;
        assert_eq!(put == Kept::Stored, kept);
        assert_eq!(desk.body(&sample).await.is_some(), kept);
        second.set_away(false);
        assert_eq!(desk.body(&sample).await, None, "what is back knows nothing");
        assert_eq!(desk.put(&sample, captured, &[]).await, Kept::Invalidated);
    }
}
