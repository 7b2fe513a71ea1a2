//! Many clients, one flight: who asks for the same at the same time shares one call of the handler,
//! and nothing that one of them does harms another. Crowds over real sockets are in `tests/crowd`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::join_all;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, Full};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{sleep, timeout};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_response_cache::{CacheLayer, MemoryStore, ResponseBody, Tags, Target};

use crate::support::{
    Answer, Body, Broken, Cache, Origin, everywhere, get, pieces, request, response, settle,
    status, ttl,
};

/// Longer than any wait in a flight, shorter than a test that hangs.
const PATIENCE: Duration = Duration::from_secs(60);

fn cache(origin: &Origin) -> Arc<Cache> {
    Arc::new(Cache::new(origin, everywhere(ttl(60))))
}

/// Asks in a task of its own.
fn asking(cache: &Arc<Cache>, uri: &str, fields: &'static [(&str, &str)]) -> JoinHandle<Answer> {
    let (cache, uri) = (Arc::clone(cache), uri.to_owned());
    tokio::spawn(async move { cache.get_with(&uri, fields).await })
}

async fn answered(asking: JoinHandle<Answer>) -> Answer {
    let answer = timeout(PATIENCE, asking).await;
    answer.expect("nobody is lost").expect("no panic")
}

#[tokio::test]
async fn those_who_follow_say_so() {
    let origin = Origin::counting(&[]);
    let cache = cache(&origin);
    let hold = origin.hold();
    let leader = asking(&cache, "/a", &[]);
    settle().await;
    let follower = asking(&cache, "/a", &[]);
    settle().await;
    drop(hold);
    let leader = answered(leader).await;
    assert_eq!(leader.cache_status(), "fwd=uri-miss; stored");
    let follower = answered(follower).await;
    assert!(
        follower.cache_status().contains("collapsed"),
        "RFC 9211 §2.5"
    );
    assert_eq!(cache.handle().stats().routes[0].collapsed, 1);
}

#[tokio::test]
async fn who_follows_gets_each_frame_as_it_is_made() {
    let (mut sender, channel) = Channel::<Bytes, Broken>::new(1);
    let channel = parking_lot::Mutex::new(Some(channel));
    let origin = Origin::new(move |_| {
        let channel = channel.lock().take().expect("one call");
        response(&[], "").map(|_| channel.boxed_unsync())
    });
    let cache = cache(&origin);
    let (first, second) = tokio::join!(cache.send(get("/a")), cache.send(get("/a")));
    let mut bodies = [first.unwrap().into_body(), second.unwrap().into_body()];
    for word in ["one", "two"] {
        sender.send_data(word.into()).await.unwrap();
        for body in &mut bodies {
            let frame = body.frame().now_or_never().expect("at once");
            assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), word);
        }
        assert!(
            bodies
                .iter_mut()
                .all(|body| body.frame().now_or_never().is_none())
        );
    }
    let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "9".parse().unwrap())]);
    sender.send_trailers(trailers.clone()).await.unwrap();
    drop(sender);
    for body in bodies {
        let collected = body.collect().await.unwrap();
        assert_eq!(collected.trailers(), Some(&trailers));
    }
    assert_eq!(cache.get("/a").await.trailers, Some(trailers));
    assert_eq!(origin.calls(), 1);
}

/// A cache in front of a handler that takes the number of the call, from 1.
fn front<F>(
    handler: impl Fn(usize) -> F + Clone + Send + Sync + 'static,
) -> impl Service<
    Request<Full<Bytes>>,
    Response = Response<ResponseBody<Body>>,
    Error = Broken,
    Future: Send,
> + Clone
+ Send
+ 'static
where
    F: Future<Output = Result<Response<Body>, Broken>> + Send + 'static,
{
    let calls = Arc::new(AtomicUsize::new(0));
    let handler = service_fn(move |_| handler(calls.fetch_add(1, Ordering::SeqCst) + 1));
    let rules = everywhere(ttl(60)).build().unwrap();
    let layer = CacheLayer::new(MemoryStore::new(1 << 20)).rules(rules);
    layer.layer(handler)
}

#[tokio::test]
async fn requests_of_persons_are_not_shared() {
    let origin = Origin::new(|call| {
        let person = call.header("cookie").to_owned() + call.header("authorization");
        response(&[], person)
    });
    let cache = cache(&origin);
    let hold = origin.hold();
    let persons: [&[(&str, &str)]; 4] = [
        &[("cookie", "id=1")],
        &[("cookie", "id=2")],
        &[("authorization", "Basic MQ==")],
        &[],
    ];
    let all = persons.map(|fields| asking(&cache, "/a", fields));
    settle().await;
    drop(hold);
    for (answer, fields) in all.into_iter().zip(persons) {
        let expected = fields.first().map_or("", |(_, value)| *value);
        assert_eq!(answered(answer).await.text(), expected);
    }
}

#[tokio::test]
async fn an_answer_to_other_nominated_fields_is_not_shared() {
    let origin = Origin::new(|call| {
        let language = call.header("accept-language").to_owned();
        response(&[("vary", "accept-language")], language)
    });
    let cache = cache(&origin);
    let hold = origin.hold();
    let languages: [&[(&str, &str)]; 2] =
        [&[("accept-language", "en")], &[("accept-language", "de")]];
    let all = languages.map(|fields| asking(&cache, "/a", fields));
    settle().await;
    drop(hold);
    for (answer, language) in all.into_iter().zip(["en", "de"]) {
        assert_eq!(answered(answer).await.text(), language);
    }
}

#[tokio::test]
async fn an_answer_that_sets_a_cookie_is_not_shared() {
    let origin = Origin::new(|call| {
        let cookie = Box::leak(format!("id={}", call.number).into_boxed_str());
        response(&[("set-cookie", cookie)], call.number.to_string())
    });
    let cache = cache(&origin);
    let hold = origin.hold();
    let all: Vec<_> = (0..5).map(|_| asking(&cache, "/a", &[])).collect();
    settle().await;
    drop(hold);
    let mut numbers = Vec::new();
    for each in all {
        numbers.push(answered(each).await.text().to_owned());
    }
    numbers.sort();
    assert_eq!(numbers, ["1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn who_comes_after_an_invalidation_joins_nothing_from_before() {
    let origin = Origin::counting(&[]);
    let cache = cache(&origin);
    for target in [
        Target::uri("/a"),
        Target::pattern("/{*path}"),
        Target::everything(),
    ] {
        let hold = origin.hold();
        let before = asking(&cache, "/a", &[]);
        settle().await;
        let old = origin.made();
        let _ = cache.handle().invalidate(target).await.unwrap();
        let after = asking(&cache, "/a", &[]);
        settle().await;
        drop(hold);
        assert_eq!(answered(before).await.text(), old.to_string());
        assert_eq!(answered(after).await.text(), (old + 1).to_string());
        let _ = cache
            .handle()
            .invalidate(Target::everything())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn who_comes_after_a_tag_went_gets_nothing_that_turns_out_to_carry_it() {
    let origin = Origin::new(|call| {
        let mut response = response(&[], call.number.to_string());
        let tags = Tags::new(["late"]);
        response.extensions_mut().insert(tags);
        response
    });
    let cache = cache(&origin);
    let hold = origin.hold();
    let before = asking(&cache, "/a", &[]);
    settle().await;
    let _ = cache
        .handle()
        .invalidate(Target::tag("late"))
        .await
        .unwrap();
    let after = asking(&cache, "/a", &[]);
    settle().await;
    drop(hold);
    assert_eq!(answered(before).await.text(), "1");
    assert_eq!(answered(after).await.text(), "2");
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_does_so_for_its_leader_alone() {
    let front = front(|call| async move {
        sleep(Duration::from_millis(10)).await;
        assert_ne!(call, 1, "the handler panics");
        Ok(response(&[], call.to_string()))
    });
    let asking: Vec<_> = (0..5)
        .map(|_| tokio::spawn(front.clone().oneshot(get("/a"))))
        .collect();
    let came = join_all(asking).await;
    let (panicked, answered): (Vec<_>, Vec<_>) = came.into_iter().partition(Result::is_err);
    assert_eq!((panicked.len(), answered.len()), (1, 4));
    for answer in answered {
        assert_eq!(Answer::read(answer.unwrap().unwrap()).await.text(), "2");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_handler_is_its_leaders_alone() {
    let front = front(|call| async move {
        sleep(Duration::from_millis(10)).await;
        match call {
            1 => Err(Broken),
            _ => Ok(response(&[], call.to_string())),
        }
    });
    let came = join_all((0..5).map(|_| front.clone().oneshot(get("/a")))).await;
    let (failed, answered): (Vec<_>, Vec<_>) = came.into_iter().partition(Result::is_err);
    assert_eq!((failed.len(), answered.len()), (1, 4));
    for answer in answered {
        assert_eq!(Answer::read(answer.unwrap()).await.text(), "2");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_breaks_off_for_all_and_is_not_stored() {
    let origin = Origin::new(|_| {
        let (mut sender, channel) = Channel::<Bytes, Broken>::new(1);
        tokio::spawn(async move {
            let _ = sender.send_data("half ".into()).await;
            yield_now().await;
            sender.abort(Broken);
        });
        response(&[], "").map(|_| channel.boxed_unsync())
    });
    let cache = cache(&origin);
    let (first, second) = tokio::join!(cache.send(get("/a")), cache.send(get("/a")));
    for response in [first, second] {
        let collected = response.unwrap().into_body().collect().await;
        assert!(collected.is_err(), "not a whole body");
    }
    let before = origin.calls();
    let _ = cache.send(get("/a")).await;
    assert_eq!(origin.calls(), before + 1, "not stored");
}

#[tokio::test]
async fn a_head_follows_nobody_into_content() {
    let origin = Origin::new(|call| match call.head.method {
        Method::HEAD => response(&[], ""),
        _ => response(&[], "1"),
    });
    let cache = cache(&origin);
    let hold = origin.hold();
    let get = asking(&cache, "/a", &[]);
    settle().await;
    let heading = Arc::clone(&cache);
    let head = tokio::spawn(async move { heading.fetch(request(Method::HEAD, "/a", &[])).await });
    settle().await;
    drop(hold);
    assert_eq!(answered(get).await.text(), "1");
    assert_eq!(answered(head).await.text(), "");
}

#[tokio::test]
async fn errors_of_the_handler_are_not_shared() {
    let origin = Origin::new(|call| status(503, &[], call.number.to_string()));
    let cache = cache(&origin);
    let hold = origin.hold();
    let all: Vec<_> = (0..3).map(|_| asking(&cache, "/a", &[])).collect();
    settle().await;
    drop(hold);
    for each in all {
        assert_eq!(answered(each).await.status, 503);
    }
    assert_eq!(origin.calls(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_answer_is_one_whole_and_no_older_than_what_was_written_before_it_was_asked_for() {
    const KEYS: usize = 4;
    const FRAMES: usize = 8;
    let data: [AtomicUsize; KEYS] = Default::default();
    let origin = Origin::new(move |call| {
        let key: usize = call.path().trim_start_matches('/').parse().unwrap();
        if call.head.method == Method::PUT {
            let before = data[key].fetch_add(1, Ordering::SeqCst);
            return response(&[], (before + 1).to_string());
        }
        let frame = Bytes::from(format!("{key}.{};", data[key].load(Ordering::SeqCst)));
        response(&[], "").map(|_| pieces(vec![frame; FRAMES]))
    });
    origin.dawdle(3);
    let cache = cache(&origin);
    // The newest generation whose write has been answered.
    let written: Arc<[AtomicUsize; KEYS]> = Arc::default();
    let clients = (0..16_usize).map(|client| {
        let (cache, written) = (Arc::clone(&cache), Arc::clone(&written));
        tokio::spawn(async move {
            for step in 0..200 {
                let key = (client * 7 + step * 3) % KEYS;
                let uri = format!("/{key}");
                if (client + step) % 23 == 0 {
                    let generation = cache.method("PUT", &uri).await;
                    let generation = generation.text().parse().unwrap();
                    written[key].fetch_max(generation, Ordering::SeqCst);
                    continue;
                }
                let least = written[key].load(Ordering::SeqCst);
                let answer = cache.get(&uri).await;
                let (frame, _) = answer.text().split_once(';').unwrap();
                assert_eq!(answer.text(), format!("{frame};").repeat(FRAMES));
                let (of, generation) = frame.split_once('.').unwrap();
                assert_eq!(of, key.to_string());
                assert!(generation.parse::<usize>().unwrap() >= least);
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        timeout(PATIENCE, client).await.unwrap().unwrap();
    }
}
