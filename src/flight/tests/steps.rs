//! Leaders and followers polled by hand, one step at a time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use crate::flight::{Boarded, Boarding, Flights, Follower, Leader, Limits, Why};

type Table = Arc<Flights<&'static str, u32, Arc<str>>>;
type Leads = Leader<&'static str, u32, Arc<str>>;
type Follows = Follower<&'static str, u32, Arc<str>>;

const LIMITS: Limits = Limits {
    flights: 4,
    followers: 20_000,
    wait: Duration::from_secs(5),
    age: Duration::from_secs(10),
    grounded: 64,
};

/// Counts how often it was woken.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Bell {
    fn rings(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A table and a moment at which to board.
fn flights(limits: Limits) -> (Table, Instant) {
    (Flights::new(limits), Instant::now())
}

/// Whether a landing is given to those who board.
fn serves(landing: &Arc<str>) -> bool {
    &**landing != "stale"
}

fn lead(flights: &Table, key: &'static str, generation: u32, now: Instant) -> Leads {
    match flights.board(key, generation, u32::eq, serves, now) {
        Boarding::Lead(leader) => leader,
        other => panic!("{other:?}"),
    }
}

fn follow(flights: &Table, key: &'static str, generation: u32, now: Instant) -> Follows {
    match flights.board(key, generation, u32::eq, serves, now) {
        Boarding::Follow(follower) => follower,
        other => panic!("{other:?}"),
    }
}

fn alone(flights: &Table, key: &'static str, generation: u32, now: Instant) -> Why {
    match flights.board(key, generation, u32::eq, serves, now) {
        Boarding::Alone(why) => why,
        other => panic!("{other:?}"),
    }
}

fn poll(follower: &mut Follows) -> Poll<Boarded<&'static str, u32, Arc<str>>> {
    poll_with(follower, Waker::noop())
}

fn poll_with(follower: &mut Follows, waker: &Waker) -> Poll<Boarded<&'static str, u32, Arc<str>>> {
    Pin::new(follower).poll(&mut Context::from_waker(waker))
}

#[track_caller]
fn landing(follower: &mut Follows) -> Arc<str> {
    match poll(follower) {
        Poll::Ready(Boarded::Landed(landing)) => landing,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn reason(follower: &mut Follows) -> Why {
    match poll(follower) {
        Poll::Ready(Boarded::Alone(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn elected(follower: &mut Follows) -> Leads {
    match poll(follower) {
        Poll::Ready(Boarded::Lead(leader)) => leader,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_empty(flights: &Table) {
    assert_eq!(flights.table.lock().open.len(), 0);
    assert_eq!(flights.followers.load(Ordering::Relaxed), 0);
}

#[test]
fn all_who_follow_get_what_the_leader_landed_with() {
    let (flights, now) = flights(LIMITS);
    let leader = lead(&flights, "a", 0, now);
    let mut followers: Vec<_> = (0..3).map(|_| follow(&flights, "a", 0, now)).collect();
    assert!(followers.iter_mut().all(|each| poll(each).is_pending()));
    leader.land("tea".into());
    let first = landing(&mut followers[0]);
    for follower in &mut followers[1..] {
        assert!(Arc::ptr_eq(&first, &landing(follower)));
    }
    drop((leader, followers));
    assert_empty(&flights);
}

#[test]
fn a_landing_is_given_at_once_until_it_is_dropped() {
    let (flights, now) = flights(LIMITS);
    let leader = lead(&flights, "a", 0, now);
    leader.land("tea".into());
    let late = now + LIMITS.age * 2;
    assert_eq!(&*landing(&mut follow(&flights, "a", 0, late)), "tea");
    let mut aboard = follow(&flights, "a", 0, late);
    drop(leader);
    assert_eq!(&*landing(&mut aboard), "tea", "who is aboard still gets it");
    drop(lead(&flights, "a", 0, late));
    assert_empty(&flights);
}

#[test]
fn flights_of_different_keys_have_nothing_to_do_with_each_other() {
    let (flights, now) = flights(LIMITS);
    let first = lead(&flights, "a", 0, now);
    let second = lead(&flights, "b", 0, now);
    let mut follower = follow(&flights, "b", 0, now);
    first.land("tea".into());
    drop(first);
    assert!(poll(&mut follower).is_pending());
    second.land("milk".into());
    drop(second);
    assert_eq!(&*landing(&mut follower), "milk");
}

#[test]
fn who_waits_is_woken_once_and_not_in_vain() {
    let (flights, now) = flights(LIMITS);
    let leader = lead(&flights, "a", 0, now);
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(Arc::clone(&bell));
    let mut follower = follow(&flights, "a", 0, now);
    for _ in 0..3 {
        assert!(poll_with(&mut follower, &waker).is_pending());
    }
    assert_eq!(bell.rings(), 0);
    leader.land("tea".into());
    drop(leader);
    assert_eq!(bell.rings(), 1);
    drop(follower);
    assert_eq!(Arc::strong_count(&bell), 2, "no waker is kept");
}

#[test]
fn the_last_waker_given_is_the_one_that_is_woken() {
    let (flights, now) = flights(LIMITS);
    let leader = lead(&flights, "a", 0, now);
    let (before, after) = (Arc::new(Bell::default()), Arc::new(Bell::default()));
    let mut follower = follow(&flights, "a", 0, now);
    assert!(poll_with(&mut follower, &Waker::from(Arc::clone(&before))).is_pending());
    assert!(poll_with(&mut follower, &Waker::from(Arc::clone(&after))).is_pending());
    leader.land("tea".into());
    drop(leader);
    assert_eq!((before.rings(), after.rings()), (0, 1));
}

#[test]
fn grounded_followers_go_alone_and_so_do_those_who_come_before_the_mark_is_gone() {
    let (flights, now) = flights(LIMITS);
    let leader = lead(&flights, "a", 0, now);
    let mut follower = follow(&flights, "a", 0, now);
    assert!(poll(&mut follower).is_pending());
    let until = now + Duration::from_secs(1);
    leader.ground(Some(until));
    assert_eq!(reason(&mut follower), Why::Grounded);
    assert_eq!(alone(&flights, "a", 1, now), Why::Grounded);
    drop(lead(&flights, "b", 0, now));
    drop(lead(&flights, "a", 0, until));
    assert_empty(&flights);
}

#[test]
fn without_a_mark_only_those_aboard_are_grounded() {
    let (flights, now) = flights(LIMITS);
    let leader = lead(&flights, "a", 0, now);
    let mut follower = follow(&flights, "a", 0, now);
    leader.ground(None);
    assert_eq!(reason(&mut follower), Why::Grounded);
    drop(lead(&flights, "a", 0, now));
    assert_empty(&flights);
}

#[test]
fn what_has_landed_can_be_grounded_for_those_to_come() {
    let (flights, now) = flights(LIMITS);
    let leader = lead(&flights, "a", 0, now);
    let mut aboard = follow(&flights, "a", 0, now);
    leader.land("tea".into());
    let until = now + Duration::from_secs(1);
    leader.ground(Some(until));
    assert_eq!(&*landing(&mut aboard), "tea");
    assert_eq!(alone(&flights, "a", 0, now), Why::Grounded);
    drop(lead(&flights, "a", 0, until));
    drop((leader, aboard));
    assert_empty(&flights);
}

#[test]
fn what_is_grounded_does_not_land() {
    let (flights, now) = flights(LIMITS);
    let leader = lead(&flights, "a", 0, now);
    let mut aboard = follow(&flights, "a", 0, now);
    leader.ground(None);
    leader.land("tea".into());
    assert_eq!(reason(&mut aboard), Why::Grounded);
    drop(lead(&flights, "a", 0, now));
}

#[test]
fn a_landing_that_serves_no_longer_is_left_to_those_aboard() {
    let (flights, now) = flights(LIMITS);
    let stale = lead(&flights, "a", 0, now);
    let mut aboard = follow(&flights, "a", 0, now);
    stale.land("stale".into());
    let next = lead(&flights, "a", 0, now);
    drop(stale);
    assert_eq!(&*landing(&mut aboard), "stale");
    drop(follow(&flights, "a", 0, now));
    drop((next, aboard));
    assert_empty(&flights);
}

#[test]
fn a_lost_leader_is_replaced_once() {
    let (flights, now) = flights(LIMITS);
    let first = lead(&flights, "a", 0, now);
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(Arc::clone(&bell));
    let mut followers: Vec<_> = (0..3).map(|_| follow(&flights, "a", 0, now)).collect();
    for follower in &mut followers {
        assert!(poll_with(follower, &waker).is_pending());
    }
    drop(first);
    assert_eq!(bell.rings(), 3);
    let second = elected(&mut followers[1]);
    assert!(poll(&mut followers[0]).is_pending(), "one leads");
    let mut late = follow(&flights, "a", 0, now);
    drop(second);
    assert_eq!(reason(&mut followers[0]), Why::Failed);
    assert_eq!(reason(&mut followers[2]), Why::Failed);
    assert_eq!(reason(&mut late), Why::Failed);
    drop(lead(&flights, "a", 0, now));
    drop((followers, late));
    assert_empty(&flights);
}

#[test]
fn who_leads_in_place_of_another_lands_for_all() {
    let (flights, now) = flights(LIMITS);
    let first = lead(&flights, "a", 0, now);
    let mut followers: Vec<_> = (0..2).map(|_| follow(&flights, "a", 0, now)).collect();
    drop(first);
    let second = elected(&mut followers[0]);
    second.land("tea".into());
    assert_eq!(&*landing(&mut followers[1]), "tea");
    assert_eq!(&*landing(&mut follow(&flights, "a", 0, now)), "tea");
    drop((second, followers));
    assert_empty(&flights);
}

#[test]
fn who_boards_a_flight_without_a_leader_leads_it() {
    let (flights, now) = flights(LIMITS);
    let first = lead(&flights, "a", 0, now);
    let mut follower = follow(&flights, "a", 0, now);
    drop(first);
    let second = lead(&flights, "a", 0, now);
    assert!(poll(&mut follower).is_pending());
    second.land("tea".into());
    drop(second);
    assert_eq!(&*landing(&mut follower), "tea");
}

#[test]
fn a_leader_that_panics_has_failed() {
    let (flights, now) = flights(LIMITS);
    let leader = lead(&flights, "a", 0, now);
    let mut follower = follow(&flights, "a", 0, now);
    assert!(poll(&mut follower).is_pending());
    let panicked = catch_unwind(AssertUnwindSafe(move || {
        let _leader = leader;
        panic!("the handler");
    }));
    assert!(panicked.is_err());
    elected(&mut follower).land("tea".into());
    assert_empty(&flights);
}

#[test]
fn a_leader_lost_without_followers_leaves_nothing() {
    let (flights, now) = flights(LIMITS);
    drop(lead(&flights, "a", 0, now));
    assert_empty(&flights);
    let leader = lead(&flights, "a", 0, now);
    drop(follow(&flights, "a", 0, now));
    drop(leader);
    assert_empty(&flights);
}

#[test]
fn followers_that_leave_a_flight_without_a_leader_close_it() {
    let (flights, now) = flights(LIMITS);
    let leader = lead(&flights, "a", 0, now);
    let followers: Vec<_> = (0..3).map(|_| follow(&flights, "a", 0, now)).collect();
    drop(leader);
    drop(followers);
    assert_empty(&flights);
    drop(lead(&flights, "a", 0, now));
}

#[test]
fn a_flight_is_joined_only_in_its_generation() {
    let (flights, now) = flights(LIMITS);
    let old = lead(&flights, "a", 0, now);
    let mut before = follow(&flights, "a", 0, now);
    let new = lead(&flights, "a", 1, now);
    let mut after = follow(&flights, "a", 1, now);
    old.land("old".into());
    drop(old);
    assert_eq!(&*landing(&mut before), "old");
    assert!(poll(&mut after).is_pending());
    new.land("new".into());
    assert_eq!(&*landing(&mut after), "new");
    drop((new, before, after));
    assert_empty(&flights);
}

#[test]
fn retired_flights_are_joined_by_nobody_and_go_on() {
    let (flights, now) = flights(LIMITS);
    let leader = lead(&flights, "a", 0, now);
    let landed = lead(&flights, "b", 0, now);
    landed.land("milk".into());
    let untouched = lead(&flights, "c", 0, now);
    let mut aboard = follow(&flights, "a", 0, now);
    flights.retire(|key, _| *key != "c");
    let next = lead(&flights, "a", 0, now);
    drop(lead(&flights, "b", 0, now));
    drop(follow(&flights, "c", 0, now));
    leader.land("tea".into());
    drop(leader);
    assert_eq!(&*landing(&mut aboard), "tea");
    drop(follow(&flights, "a", 0, now));
    drop((next, landed, untouched, aboard));
    assert_empty(&flights);
}

#[test]
fn a_flight_too_old_is_left_to_those_aboard() {
    let (flights, now) = flights(LIMITS);
    let hung = lead(&flights, "a", 0, now);
    let just = now + LIMITS.age - Duration::from_millis(1);
    let mut aboard = follow(&flights, "a", 0, just);
    let second = lead(&flights, "a", 0, now + LIMITS.age);
    hung.land("late".into());
    drop(hung);
    assert_eq!(&*landing(&mut aboard), "late");
    drop(follow(&flights, "a", 0, now + LIMITS.age));
    drop(second);
    assert_empty(&flights);
}

#[test]
fn flights_are_bounded() {
    let (flights, now) = flights(LIMITS);
    let leaders: Vec<_> = ["a", "b", "c", "d"]
        .map(|key| lead(&flights, key, 0, now))
        .into_iter()
        .collect();
    assert_eq!(alone(&flights, "e", 0, now), Why::Full);
    drop(follow(&flights, "a", 0, now));
    drop(lead(&flights, "a", 1, now));
    drop(lead(&flights, "e", 0, now));
    drop(leaders);
    assert_empty(&flights);
}

#[test]
fn followers_are_bounded_over_all_flights() {
    let limits = Limits {
        followers: 2,
        ..LIMITS
    };
    let (flights, now) = flights(limits);
    let leaders = [lead(&flights, "a", 0, now), lead(&flights, "b", 0, now)];
    let first = follow(&flights, "a", 0, now);
    let second = follow(&flights, "b", 0, now);
    assert_eq!(alone(&flights, "a", 0, now), Why::Full);
    drop(second);
    let third = follow(&flights, "a", 0, now);
    drop((leaders, first, third));
    assert_empty(&flights);
}

#[test]
fn ten_thousand_followers_are_cheap() {
    const MANY: usize = 10_000;
    let (flights, now) = flights(LIMITS);
    let leader = lead(&flights, "a", 0, now);
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(Arc::clone(&bell));
    let mut followers: Vec<_> = (0..MANY).map(|_| follow(&flights, "a", 0, now)).collect();
    for follower in &mut followers {
        assert!(poll_with(follower, &waker).is_pending());
    }
    drop(followers.split_off(MANY / 2));
    leader.land("tea".into());
    assert_eq!(bell.rings(), MANY / 2);
    for follower in &mut followers {
        assert_eq!(&*landing(follower), "tea");
    }
    drop((leader, followers));
    assert_empty(&flights);
    assert!(size_of::<Follows>() <= 64);
}

#[test]
fn dropped_at_any_step_nothing_is_left() {
    /// What happens to one flight, step by step; dropped after `steps` of them.
    fn run(flights: &Table, now: Instant, steps: usize) -> Option<()> {
        let mut left = steps;
        let mut step = || {
            left = left.checked_sub(1)?;
            Some(())
        };
        step()?;
        let first = lead(flights, "a", 0, now);
        step()?;
        let mut one = follow(flights, "a", 0, now);
        step()?;
        let mut two = follow(flights, "a", 0, now);
        step()?;
        assert!(poll(&mut one).is_pending());
        step()?;
        assert!(poll(&mut two).is_pending());
        step()?;
        drop(first);
        step()?;
        let second = elected(&mut two);
        step()?;
        assert!(poll(&mut one).is_pending());
        step()?;
        second.land("tea".into());
        step()?;
        let _at_once = follow(flights, "a", 0, now);
        step()?;
        landing(&mut one);
        step()
    }
    let (flights, now) = flights(LIMITS);
    let mut steps = 0;
    while run(&flights, now, steps).is_none() {
        assert_empty(&flights);
        steps += 1;
    }
    assert_empty(&flights);
    assert_eq!(steps, 12);
}

#[tokio::test(start_paused = true)]
async fn a_follower_waits_no_longer_than_its_limit() {
    let (flights, now) = flights(LIMITS);
    let _leader = lead(&flights, "a", 0, now);
    let began = tokio::time::Instant::now();
    let boarded = follow(&flights, "a", 0, now).await;
    assert!(matches!(boarded, Boarded::Alone(Why::Late)));
    assert_eq!(began.elapsed().as_secs(), LIMITS.wait.as_secs());
    assert_eq!(flights.followers.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_follower_waits_no_longer_than_the_flight_may_be_old() {
    let (flights, now) = flights(LIMITS);
    let _leader = lead(&flights, "a", 0, now);
    let began = tokio::time::Instant::now();
    let late = now + LIMITS.age - Duration::from_secs(1);
    let boarded = follow(&flights, "a", 0, late).await;
    assert!(matches!(boarded, Boarded::Alone(Why::Late)));
    assert_eq!(began.elapsed().as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_landing_at_the_last_moment_is_taken() {
    let (flights, now) = flights(LIMITS);
    let leader = lead(&flights, "a", 0, now);
    let mut follower = follow(&flights, "a", 0, now);
    assert!(poll(&mut follower).is_pending());
    tokio::time::sleep(LIMITS.wait * 2).await;
    leader.land("tea".into());
    assert_eq!(&*landing(&mut follower), "tea");
}
