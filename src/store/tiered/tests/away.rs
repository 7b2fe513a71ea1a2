//! What is served while the second store is away.

use super::*;
use crate::error::ErrorKind;

const SECOND: Duration = Duration::from_secs(1);

fn desk(second: &Second, mode: WhenAway) -> Desk {
    Desk::of(Desk::over(second).store.when_away(mode))
}

/// Returns why nothing can be served, and what may be made instead.
async fn unreachable(desk: &Desk, sample: &Sample) -> Captured {
    let found = desk.look_up(sample).await.unwrap();
    let Outcome::Unreachable(reason) = found.outcome else {
        panic!("the second store is away, and {:?}", found.outcome);
    };
    assert_eq!(reason.kind(), ErrorKind::Unavailable);
    found.captured.unwrap()
}

#[tokio::test]
async fn what_is_made_meanwhile_is_kept_for_its_time_and_nothing_from_before() {
    let second = Second::new();
    let desk = desk(&second, WhenAway::LocalTtl(2 * SECOND));
    let [before, made] = ["before", "made"].map(|body| desk.sample().body(body));
    desk.fill(&before).await;
    second.set_away(true);
    assert_eq!(desk.peek(&before), None);
    let captured = unreachable(&desk, &made).await;
    assert_eq!(
        desk.put(&made, captured, &[Scope::tag("default", b"t")])
            .await,
        Kept::Stored
    );
    assert_eq!(desk.peek(&made), None, "the second store is asked first");
    assert_eq!(desk.body(&made).await, Some("made".into()));
    desk.time.advance(2 * SECOND);
    unreachable(&desk, &made).await;
}

#[tokio::test]
async fn what_took_long_to_arrive_is_kept_for_less() {
    let second = Second::new();
    let desk = desk(&second, WhenAway::LocalTtl(2 * SECOND));
    let sample = desk.sample();
    second.set_away(true);
    let captured = unreachable(&desk, &sample).await;
    let clock = desk.time.clock();
    let response = sample.response(&clock);
    desk.time.advance(SECOND);
    let fill = Fill {
        namespace: desk.namespace.clone(),
        response: Arc::new(response),
        captured,
        late: Default::default(),
        retain: 600 * SECOND,
        tier: desk.tier,
        clock,
    };
    desk.store.put(fill).await.unwrap();
    assert!(desk.body(&sample).await.is_some());
    desk.time.advance(SECOND);
    unreachable(&desk, &sample).await;
}

#[tokio::test]
async fn what_is_invalidated_meanwhile_is_not_served() {
    let second = Second::new();
    let desk = desk(&second, WhenAway::Serve(60 * SECOND));
    let sample = desk.sample();
    for scope in sample.scopes() {
        second.set_away(false);
        desk.fill(&sample).await;
        second.set_away(true);
        assert!(desk.body(&sample).await.is_some());
        assert!(desk.invalidate(&[scope]).await.is_err());
        let overtaken = unreachable(&desk, &sample).await;
        assert!(desk.invalidate(&[scope]).await.is_err());
        assert_eq!(desk.put(&sample, overtaken, &[]).await, Kept::Invalidated);

        let captured = unreachable(&desk, &sample).await;
        desk.put(&sample, captured, &[]).await;
        assert!(desk.body(&sample).await.is_some());
        assert!(desk.invalidate(&[scope]).await.is_err());
        unreachable(&desk, &sample).await;
    }
}

#[tokio::test]
async fn what_was_made_meanwhile_ends_when_the_second_store_is_back() {
    let second = Second::new();
    let desk = desk(&second, WhenAway::default());
    let sample = desk.sample();
    second.set_away(true);
    let captured = unreachable(&desk, &sample).await;
    desk.put(&sample, captured.clone(), &[]).await;
    assert!(desk.body(&sample).await.is_some());
    second.set_away(false);
    assert_eq!(desk.body(&sample).await, None);
    assert_eq!(desk.put(&sample, captured, &[]).await, Kept::Invalidated);
    second.set_away(true);
    unreachable(&desk, &sample).await;
}

#[tokio::test]
async fn a_write_meanwhile_renews_nothing() {
    let second = Second::new();
    let desk = desk(&second, WhenAway::default());
    let sample = desk.sample();
    let [.., path] = sample.scopes();
    second.set_away(true);
    let captured = desk.capture(&sample).await;
    let renewed = desk
        .store
        .renew(&desk.namespace, path, captured.clone())
        .await;
    assert!(renewed.is_err(), "the caller has to invalidate it later");
    second.set_away(false);
    let renewed = desk.store.renew(&desk.namespace, path, captured).await;
    assert_eq!(renewed.unwrap(), None);
}

#[tokio::test]
async fn a_process_that_passes_by_keeps_nothing() {
    let second = Second::new();
    let desk = desk(&second, WhenAway::Bypass);
    let sample = desk.sample();
    desk.fill(&sample).await;
    second.set_away(true);
    assert!(desk.look_up(&sample).await.is_err());
    let captured = desk.store.capture(&desk.namespace, &sample.scopes()).await;
    assert!(captured.is_err());
    second.set_away(false);
    assert!(desk.peek(&sample).is_some());
}

#[tokio::test]
async fn what_was_known_to_be_current_is_served_for_its_time() {
    let second = Second::new();
    let desk = desk(&second, WhenAway::Serve(10 * SECOND));
    let sample = desk.sample();
    desk.fill(&sample).await;
    for vouching in [true, false, false] {
        second.set_away(false);
        if vouching {
            desk.time.advance(9 * SECOND);
            assert!(desk.peek(&sample).is_some());
        } else {
            second.mute();
            assert!(desk.body(&sample).await.is_some(), "confirmed");
        }
        second.set_away(true);
        desk.time.advance(9 * SECOND);
        assert!(desk.body(&sample).await.is_some());
    }
    desk.time.advance(SECOND);
    unreachable(&desk, &sample).await;
}

#[tokio::test]
async fn what_is_known_to_be_invalid_is_not_served_though_the_store_goes_away() {
    let second = Second::new();
    let desk = desk(&second, WhenAway::Serve(60 * SECOND));
    let sample = desk.sample();
    desk.fill(&sample).await;
    Desk::over(&second)
        .invalidate(&sample.scopes())
        .await
        .unwrap();
    second.leave_after(1);
    unreachable(&desk, &sample).await;
    assert_eq!(second.asked(), (1, 1));
}

#[tokio::test]
async fn what_was_made_meanwhile_is_never_vouched_for() {
    let second = Second::new();
    let desk = desk(&second, WhenAway::default());
    let sample = desk.sample();
    second.set_away(true);
    let captured = unreachable(&desk, &sample).await;
    desk.put(&sample, captured, &[]).await;
    second.set_away(false);
    assert_eq!(desk.peek(&sample), None);
}

#[tokio::test]
async fn what_was_made_for_a_part_that_is_away_outlasts_the_answers_of_the_others() {
    let second = Second::new();
    let desk = desk(&second, WhenAway::default());
    let [lost, other] = ["/lost", "/other"].map(|path| Sample::new(&desk.namespace, path));
    second.set_degraded(true);
    second.set_away(true);
    let captured = unreachable(&desk, &lost).await;
    desk.put(&lost, captured, &[]).await;
    second.set_away(false);
    desk.fill(&other).await;
    assert!(desk.body(&other).await.is_some());
    second.set_away(true);
    assert!(desk.body(&lost).await.is_some(), "its part is away yet");

    second.set_degraded(false);
    second.set_away(false);
    assert!(desk.body(&other).await.is_some());
    second.mute();
    assert!(desk.body(&other).await.is_some(), "and is asked");
    second.set_away(true);
    unreachable(&desk, &lost).await;
}

#[test]
fn other_processes_serve_for_as_long_as_they_may_without_the_second_store() {
    let second = Second::new();
    for (mode, seconds) in [
        (WhenAway::Bypass, 2),
        (WhenAway::LocalTtl(SECOND), 2),
        (WhenAway::LocalTtl(5 * SECOND), 5),
        (WhenAway::Serve(60 * SECOND), 62),
    ] {
        assert_eq!(desk(&second, mode).store.staleness(), seconds * SECOND);
    }
}
