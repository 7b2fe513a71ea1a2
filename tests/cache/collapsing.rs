//! Which requests share a call of the handler, and which go to it themselves.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use tokio::task::{JoinHandle, yield_now};
use tower::Service;
use tower_response_cache::{CacheLayer, MemoryStore, Rule, Tags};

use crate::support::{
    Answer, Body, Broken, Cache, Origin, everywhere, get, pieces, response, settle, ttl,
};

/// Sends a request in a task of its own, up to where it waits.
async fn sent(cache: &Cache, fields: &[(&str, &str)]) -> JoinHandle<Result<Answer, Broken>> {
    let service = cache.service();
    let request = crate::support::request(http::Method::GET, "/a", fields);
    let task = tokio::spawn(async move {
        let response = tower::ServiceExt::oneshot(service, request).await?;
        Ok(Answer::read(response).await)
    });
    for _ in 0..8 {
        yield_now().await;
    }
    task
}

async fn sent_times(count: usize, cache: &Cache) -> Vec<JoinHandle<Result<Answer, Broken>>> {
    let mut tasks = Vec::new();
    for _ in 0..count {
        tasks.push(sent(cache, &[]).await);
    }
    tasks
}

async fn texts(tasks: Vec<JoinHandle<Result<Answer, Broken>>>) -> Vec<String> {
    let answers = join_all(tasks).await;
    let text =
        |answer: Result<Result<Answer, Broken>, _>| answer.unwrap().unwrap().text().to_owned();
    answers.into_iter().map(text).collect()
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_stored() {
    let origin = Origin::counting(&[]);
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    let hold = origin.hold();
    sent(&cache, &[]).await.abort();
    drop(hold);
    while cache.handle().stats().stored() == 0 {
        yield_now().await;
    }
    assert_eq!(cache.get("/a").await.text(), "1");
    assert_eq!(origin.calls(), 1);
}

#[tokio::test]
async fn what_is_not_for_others_is_asked_for_by_each_at_once() {
    for fields in [
        &[("cache-control", "private")][..],
        &[("set-cookie", "a=b")],
        &[("vary", "*")],
        &[("cache-control", "no-cache")],
    ] {
        let origin = Origin::counting(fields);
        let cache = Cache::new(&origin, everywhere(ttl(60)));
        let hold = origin.hold();
        let tasks = sent_times(30, &cache).await;
        assert_eq!(origin.calls(), 1, "{fields:?}");
        drop(hold);
        let mut all = texts(tasks).await;
        all.sort_by_key(|text| text.parse::<u32>().unwrap());
        all.dedup();
        assert_eq!(all.len(), 30, "{fields:?}");

        // The next ones do not wait to be told.
        let hold = origin.hold();
        let tasks = sent_times(5, &cache).await;
        assert_eq!(origin.calls(), 35, "{fields:?}");
        drop(hold);
        texts(tasks).await;
    }
}

#[tokio::test]
async fn each_variant_is_asked_for_once() {
    let origin = Origin::new(|call| {
        let language = call.head.headers["accept-language"].to_str().unwrap();
        response(&[("vary", "accept-language")], language.to_owned())
    });
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    let hold = origin.hold();
    let mut tasks = Vec::new();
    for n in 0..30 {
        let language = ["de", "en", "fr"][n % 3];
        tasks.push(sent(&cache, &[("accept-language", language)]).await);
    }
    assert_eq!(origin.calls(), 1);
    drop(hold);
    let all = texts(tasks).await;
    for (n, text) in all.iter().enumerate() {
        assert_eq!(text, ["de", "en", "fr"][n % 3]);
    }
    assert_eq!(origin.calls(), 3);
}

#[tokio::test]
async fn a_write_does_not_let_later_reads_share_an_earlier_one() {
    let origin = Origin::counting(&[]);
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    let hold = origin.hold();
    let early = sent(&cache, &[]).await;
    origin.release();
    let hold_again = {
        cache.method("PUT", "/a").await;
        drop(hold);
        origin.hold()
    };
    let late = sent(&cache, &[]).await;
    drop(hold_again);
    assert_eq!(early.await.unwrap().unwrap().text(), "1");
    assert_ne!(late.await.unwrap().unwrap().text(), "1");
}

#[tokio::test]
async fn when_the_handler_fails_one_more_tries_and_then_each() {
    let origin = Origin::counting(&[]);
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    origin.dawdle(20);
    origin.fail();
    let tasks = sent_times(5, &cache).await;
    for answer in join_all(tasks).await {
        assert_eq!(answer.unwrap().unwrap_err(), Broken);
    }
    origin.recover();
    assert_eq!(cache.get("/a").await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_hangs_holds_nobody_longer_than_the_limit() {
    let origin = Origin::counting(&[]);
    let cache = Cache::new(&origin, everywhere(ttl(60)))
        .with(|layer| layer.collapse_wait(Duration::from_secs(2)));
    origin.hang();
    let hung = sent(&cache, &[]).await;
    origin.recover();
    let started = tokio::time::Instant::now();
    let waited = sent(&cache, &[]).await.await.unwrap().unwrap();
    assert_eq!(started.elapsed(), Duration::from_secs(2));
    assert_eq!(waited.cache_status(), "fwd=uri-miss; stored; collapsed=?0");
    assert!(!hung.is_finished());
}

#[tokio::test]
async fn with_no_time_to_wait_nobody_does() {
    let origin = Origin::counting(&[]);
    let cache =
        Cache::new(&origin, everywhere(ttl(60))).with(|layer| layer.collapse_wait(Duration::ZERO));
    let hold = origin.hold();
    let tasks = sent_times(3, &cache).await;
    assert_eq!(origin.calls(), 3);
    drop(hold);
    texts(tasks).await;
}

/// Answers with bodies whose frames the test sends.
fn streaming(channel: Channel<Bytes, Broken>) -> Origin {
    let channel = parking_lot::Mutex::new(Some(channel));
    Origin::new(move |_| {
        let channel = channel.lock().take().expect("one call");
        let (head, _) = response(&[], "").into_parts();
        Response::from_parts(head, Body::new(channel))
    })
}

async fn next<B>(body: &mut B) -> Option<Result<Bytes, B::Error>>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let frame = body.frame().await?;
    Some(frame.map(|frame| frame.into_data().unwrap_or_default()))
}

#[tokio::test]
async fn all_read_along_while_the_body_is_made_and_one_that_stalls_harms_nobody() {
    let (mut sender, channel) = Channel::<Bytes, Broken>::new(4);
    let cache = Cache::new(&streaming(channel), everywhere(ttl(60)));
    let _stalled = cache.send(get("/a")).await.unwrap();
    let mut others: Vec<_> = Vec::new();
    for _ in 0..3 {
        others.push(cache.send(get("/a")).await.unwrap().into_body());
    }
    for part in ["one", "two"] {
        sender.send(Frame::data(part.into())).await.unwrap();
        for body in &mut others {
            assert_eq!(next(body).await.unwrap().unwrap(), part);
        }
    }
    // Who comes late begins at the beginning.
    let late = cache.send(get("/a")).await.unwrap();
    drop(sender);
    for body in &mut others {
        assert!(next(body).await.is_none());
    }
    assert_eq!(Answer::read(late).await.text(), "onetwo");
    let hit = cache.get("/a").await;
    assert_eq!(hit.text(), "onetwo");
    assert!(
        hit.cache_status().starts_with("hit"),
        "{}",
        hit.cache_status()
    );
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_store_does_not_wait_for_a_client_that_reads_nothing() {
    let origin = Origin::new(|_| {
        let mut response = response(&[], "").map(|_| pieces(["one", "two"].map(Bytes::from)));
        response.extensions_mut().insert(Tags::new(["late"]));
        response
    });
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    let hold = origin.hold();
    let stalling = tokio::spawn(tower::ServiceExt::oneshot(cache.service(), get("/a")));
    settle().await;
    let tasks = sent_times(3, &cache).await;
    let began = tokio::time::Instant::now();
    drop(hold);
    let _unread = stalling.await.unwrap().unwrap();
    assert_eq!(texts(tasks).await, ["onetwo"; 3]);
    assert_eq!((began.elapsed(), origin.calls()), (Duration::ZERO, 1));
}

#[tokio::test]
async fn what_turns_out_too_long_is_asked_for_by_each_at_once() {
    for (rule, store) in [
        (ttl(60).max_body(1 << 10), MemoryStore::new(16 << 20)),
        (ttl(60), MemoryStore::new(4 << 10)),
    ] {
        let origin = Origin::new(|_| {
            let piece = Bytes::from_static(&[b'a'; 1 << 10]);
            response(&[], "").map(|_| pieces(vec![piece; 8]))
        });
        let cache = Cache::over(CacheLayer::new(store), &origin, everywhere(rule));
        assert_eq!(cache.get("/a").await.text().len(), 8 << 10);
        settle().await;
        let hold = origin.hold();
        let tasks = sent_times(3, &cache).await;
        assert_eq!(origin.calls(), 4);
        drop(hold);
        texts(tasks).await;
    }
}

#[tokio::test]
async fn what_grows_stale_while_it_arrives_makes_way_for_another_flight() {
    let (sender, channel) = Channel::<Bytes, Broken>::new(4);
    let channel = parking_lot::Mutex::new(Some(channel));
    let origin = Origin::new(move |call| {
        let response = response(&[("cache-control", "max-age=1")], call.number.to_string());
        match channel.lock().take() {
            Some(channel) => response.map(|_| Body::new(channel)),
            None => response,
        }
    });
    let cache = Cache::new(&origin, everywhere(Rule::from_origin()));
    let arriving = cache.send(get("/a")).await.unwrap();
    cache.advance(2);
    let hold = origin.hold();
    let tasks = sent_times(5, &cache).await;
    assert_eq!(origin.calls(), 2, "one leads again");
    drop(hold);
    assert_eq!(texts(tasks).await, ["2"; 5]);
    drop(sender);
    Answer::read(arriving).await;
}

#[tokio::test]
async fn queries_that_are_the_same_no_more_do_not_share() {
    let origin = Origin::new(|call| {
        let query = call.head.uri.query().unwrap_or_default().to_owned();
        match call.number {
            1 => response(
                &[("no-vary-search", "params=(\"q\")"), ("etag", "\"v\"")],
                query,
            ),
            _ => response(&[("etag", "\"w\"")], query),
        }
    });
    let cache = Cache::new(&origin, everywhere(ttl(10)));
    assert_eq!(cache.get("/a?q=1").await.text(), "q=1");
    assert_eq!(cache.get("/a?q=2").await.text(), "q=1");
    cache.advance(20);
    // Slow enough for the second to find the first under way.
    origin.dawdle(3);
    let (one, two) = tokio::join!(cache.get("/a?q=1"), cache.get("/a?q=2"));
    assert_eq!((one.text(), two.text()), ("q=1", "q=2"));
    assert!(two.cache_status().contains("collapsed=?0"), "it has waited");
}

#[tokio::test]
async fn who_looked_before_another_stored_looks_once_more() {
    let origin = Origin::counting(&[]);
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    // The look is in the call, all else in the future; this origin is always ready.
    let late = cache.service().call(get("/a"));
    assert_eq!(cache.get("/a").await.text(), "1");
    let late = Answer::read(late.await.unwrap()).await;
    assert_eq!((late.text(), late.cache_status()), ("1", "hit; ttl=60"));
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_has_waited_for_too_long_looks_once_more() {
    let origin = Origin::counting(&[]);
    let store = MemoryStore::new(1 << 20);
    let over = || {
        let layer = CacheLayer::new(store.clone()).collapse_wait(Duration::from_secs(2));
        Cache::over(layer, &origin, everywhere(ttl(60)))
    };
    let (cache, other) = (over(), over());
    origin.hang();
    let hung = sent(&cache, &[]).await;
    let waiting = sent(&cache, &[]).await;
    origin.recover();
    assert_eq!(
        other.get("/a").await.text(),
        "2",
        "as another process would"
    );
    let answer = waiting.await.unwrap().unwrap();
    assert_eq!(answer.text(), "2");
    assert_eq!((hung.is_finished(), origin.calls()), (false, 2));
}

#[tokio::test]
async fn what_is_stale_when_it_is_confirmed_makes_nobody_wait() {
    let fields = [("cache-control", "max-age=0"), ("etag", "\"v\"")];
    let origin = Origin::new(move |call| match call.header("if-none-match") {
        "" => response(&fields, "text"),
        _ => crate::support::status(304, &fields, ""),
    });
    let cache = Cache::new(
        &origin,
        everywhere(tower_response_cache::Rule::from_origin()),
    );
    cache.get("/a").await;
    // That the first answer was of no use to others is forgotten by now.
    cache.advance(20);
    cache.get("/a").await;
    let hold = origin.hold();
    let tasks = sent_times(5, &cache).await;
    assert_eq!(origin.calls(), 7);
    drop(hold);
    assert_eq!(texts(tasks).await, vec!["text"; 5]);
}

#[tokio::test]
async fn a_refresh_that_is_refused_for_its_sender_says_nothing_of_others() {
    let public = [(
        "cache-control",
        "public, max-age=10, stale-while-revalidate=2",
    )];
    let silent = [("cache-control", "max-age=10")];
    let origin = Origin::counting(&public);
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    cache.get("/a").await;
    cache.advance(11);
    origin.answer(move |call| response(&silent, call.number.to_string()));
    let stale = cache.get_with("/a", &[("cookie", "sid=a")]).await;
    assert_eq!(stale.text(), "1");
    assert!(cache.handle().shutdown(Duration::from_secs(1)).await);
    assert_eq!(origin.calls(), 2);
    cache.advance(2);
    let hold = origin.hold();
    let tasks = sent_times(5, &cache).await;
    assert_eq!(origin.calls(), 3);
    drop(hold);
    assert_eq!(texts(tasks).await, vec!["3"; 5]);
}
