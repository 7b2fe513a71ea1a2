//! Every ending of a flight under thousands of schedules. A follower that is lost is a deadlock,
//! which `shuttle` reports.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

use shuttle::future::{block_on, yield_now};
use shuttle::rand::{Rng, thread_rng};
use shuttle::{check_pct, check_random, thread};

use crate::flight::{Boarded, Boarding, Flights, Leader, Limits, Why};

type Table = Arc<Flights<&'static str, u32, u32>>;

const SCHEDULES: usize = 3_000;

const LIMITS: Limits = Limits {
    flights: 2,
    followers: 8,
    wait: Duration::from_secs(60),
    age: Duration::from_secs(60),
    grounded: 8,
};

/// What a leader's call of the handler comes to.
#[derive(Clone, Copy)]
enum Handler {
    Answers,
    IsUncacheable,
    Fails,
    Panics,
}

/// What a handler panics with.
struct Panic;

/// What one request has come to.
#[derive(Debug, PartialEq)]
enum Came {
    Led,
    Got(u32),
    Alone(Why),
    Left,
    Panicked,
}

fn schedules(test: impl Fn() + Send + Sync + Clone + 'static) {
    check_random(test.clone(), SCHEDULES);
    check_pct(test, SCHEDULES, 3);
}

fn flights(limits: Limits) -> Table {
    Flights::new(limits)
}

async fn request(flights: Table, now: Instant, handler: Handler) -> Came {
    match flights.board("a", 0, u32::eq, |_| true, now) {
        Boarding::Lead(leader) => fetch(leader, handler).await,
        Boarding::Follow(follower) => match follower.await {
            Boarded::Lead(leader) => fetch(leader, handler).await,
            Boarded::Landed(landing) => Came::Got(landing),
            Boarded::Alone(why) => Came::Alone(why),
        },
        Boarding::Alone(why) => Came::Alone(why),
    }
}

async fn fetch(leader: Leader<&'static str, u32, u32>, handler: Handler) -> Came {
    yield_now().await;
    match handler {
        Handler::Answers => {
            leader.land(7);
            yield_now().await;
        }
        Handler::IsUncacheable => leader.ground(None),
        Handler::Fails => drop(leader),
        // Without the hook, which would report each.
        Handler::Panics => resume_unwind(Box::new(Panic)),
    }
    Came::Led
}

/// Runs a request, whose handler may panic.
fn run(request: impl Future<Output = Came>) -> Came {
    let came = catch_unwind(AssertUnwindSafe(|| block_on(request)));
    came.unwrap_or_else(|panic| match panic.is::<Panic>() {
        true => Came::Panicked,
        false => resume_unwind(panic),
    })
}

/// Drops a request that is not answered after so many polls.
async fn abandoned(request: impl Future<Output = Came>, polls: usize) -> Came {
    let (mut request, mut left) = (pin!(request), polls);
    poll_fn(|cx| {
        let Some(rest) = left.checked_sub(1) else {
            return Poll::Ready(Came::Left);
        };
        left = rest;
        if rest == 0 {
            cx.waker().wake_by_ref();
        }
        request.as_mut().poll(cx)
    })
    .await
}

/// Lets requests come at the same time; returns what they came to.
fn meet(flights: &Table, handlers: &[Handler]) -> Vec<Came> {
    let now = Instant::now();
    let requests: Vec<_> = handlers
        .iter()
        .map(|handler| {
            let request = request(Arc::clone(flights), now, *handler);
            thread::spawn(move || run(request))
        })
        .collect();
    let came = requests.into_iter().map(|each| each.join().unwrap());
    came.collect()
}

#[track_caller]
fn assert_empty(flights: &Table) {
    assert_eq!(flights.table.lock().open.len(), 0);
    assert_eq!(flights.followers.load(Ordering::Relaxed), 0);
}

#[test]
fn landed_flights_lose_nobody() {
    schedules(|| {
        let flights = flights(LIMITS);
        let came = meet(&flights, &[Handler::Answers; 4]);
        assert!(
            came.iter()
                .all(|each| matches!(each, Came::Led | Came::Got(7))),
            "{came:?}"
        );
        assert!(came.contains(&Came::Led));
        assert_empty(&flights);
    });
}

#[test]
fn grounded_flights_lose_nobody() {
    schedules(|| {
        let flights = flights(LIMITS);
        let came = meet(&flights, &[Handler::IsUncacheable; 4]);
        let alone = Came::Alone(Why::Grounded);
        assert!(
            came.iter().all(|each| *each == Came::Led || *each == alone),
            "{came:?}"
        );
        assert_empty(&flights);
    });
}

#[test]
fn failed_flights_lose_nobody() {
    schedules(|| {
        let flights = flights(LIMITS);
        let came = meet(&flights, &[Handler::Fails; 4]);
        let alone = Came::Alone(Why::Failed);
        assert!(
            came.iter().all(|each| *each == Came::Led || *each == alone),
            "{came:?}"
        );
        assert_empty(&flights);
    });
}

#[test]
fn leaders_that_panic_lose_nobody() {
    schedules(|| {
        let flights = flights(LIMITS);
        let came = meet(&flights, &[Handler::Panics; 4]);
        let alone = Came::Alone(Why::Failed);
        assert!(
            came.iter()
                .all(|each| *each == Came::Panicked || *each == alone),
            "{came:?}"
        );
        assert!(came.contains(&Came::Panicked));
        assert_empty(&flights);
    });
}

#[test]
fn a_leader_that_panics_is_replaced_by_one_who_lands_for_all() {
    schedules(|| {
        let flights = flights(LIMITS);
        let [panics, answers] = [Handler::Panics, Handler::Answers];
        let came = meet(&flights, &[panics, answers, answers, answers]);
        assert!(
            came.iter()
                .skip(1)
                .all(|each| [Came::Led, Came::Got(7)].contains(each)),
            "{came:?}"
        );
        assert_empty(&flights);
    });
}

#[test]
fn flights_that_end_each_in_its_way_lose_nobody() {
    schedules(|| {
        let flights = flights(LIMITS);
        let handlers: Vec<_> = (0..5)
            .map(|_| match thread_rng().gen_range(0..4) {
                0 => Handler::Answers,
                1 => Handler::IsUncacheable,
                2 => Handler::Fails,
                _ => Handler::Panics,
            })
            .collect();
        meet(&flights, &handlers);
        assert_empty(&flights);
    });
}

#[test]
fn abandoned_requests_lose_nobody_else() {
    schedules(|| {
        let flights = flights(LIMITS);
        let now = Instant::now();
        let requests: Vec<_> = (0..5)
            .map(|_| {
                let patience = thread_rng().gen_range(0..6);
                let request = request(Arc::clone(&flights), now, Handler::Answers);
                thread::spawn(move || block_on(abandoned(request, patience)))
            })
            .collect();
        requests
            .into_iter()
            .for_each(|each| drop(each.join().unwrap()));
        assert_empty(&flights);
    });
}

#[test]
fn timed_out_followers_leave_nothing() {
    schedules(|| {
        let limits = Limits {
            wait: Duration::from_millis(2),
            ..LIMITS
        };
        let flights = flights(limits);
        meet(&flights, &[Handler::Fails; 4]);
        assert_empty(&flights);
    });
}

#[test]
fn retired_flights_lose_nobody() {
    schedules(|| {
        let flights = flights(LIMITS);
        let retiring = {
            let flights = Arc::clone(&flights);
            thread::spawn(move || flights.retire(|_, _| true))
        };
        let came = meet(&flights, &[Handler::Answers; 4]);
        assert!(
            came.iter()
                .all(|each| matches!(each, Came::Led | Came::Got(7))),
            "{came:?}"
        );
        retiring.join().unwrap();
        assert_empty(&flights);
    });
}
