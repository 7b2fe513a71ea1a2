//! Interim responses: who hears of them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use http::{Method, Response, StatusCode};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tower::ServiceExt;
use tower_response_cache::OnInterim;

use crate::support::{Answer, Cache, Origin, everywhere, request, settle, ttl};

/// A client, and the statuses of the interim responses that it has been sent.
struct Client {
    heard: Arc<Mutex<Vec<u16>>>,
    answer: JoinHandle<Answer>,
}

impl Client {
    /// Sends a request up to where it waits.
    async fn send(cache: &Cache, fields: &[(&str, &str)]) -> Self {
        let heard = Arc::<Mutex<Vec<u16>>>::default();
        let hears = Arc::clone(&heard);
        let mut request = request(Method::GET, "/a", fields);
        request
            .extensions_mut()
            .insert(OnInterim::new(move |interim| {
                hears.lock().push(interim.status().as_u16());
            }));
        let service = cache.service();
        let answer =
            tokio::spawn(
                async move { Answer::read(service.oneshot(request).await.unwrap()).await },
            );
        settle().await;
        Self { heard, answer }
    }

    fn heard(&self) -> Vec<u16> {
        self.heard.lock().clone()
    }
}

/// Tells of an interim response to the request that has reached the origin last.
fn tell(origin: &Origin, status: u16) {
    let mut interim = Response::new(());
    *interim.status_mut() = StatusCode::from_u16(status).unwrap();
    let extensions = origin.last().head.extensions;
    extensions
        .get::<OnInterim>()
        .expect("the request has it still")
        .call(&interim);
}

#[tokio::test]
async fn all_who_wait_hear_what_passes_and_who_comes_later_what_has_passed() {
    let origin = Origin::counting(&[]);
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    let hold = origin.hold();
    let leader = Client::send(&cache, &[]).await;
    let early = Client::send(&cache, &[]).await;
    tell(&origin, 103);
    let late = Client::send(&cache, &[]).await;
    let gone = Client::send(&cache, &[]).await;
    gone.answer.abort();
    settle().await;
    tell(&origin, 102);
    assert_eq!(gone.heard(), [103]);
    for client in [&leader, &early, &late] {
        assert_eq!(client.heard(), [103, 102], "IN1");
    }
    drop(hold);
    for client in [leader, early, late] {
        assert_eq!(client.answer.await.unwrap().text(), "1");
    }
    let hit = Client::send(&cache, &[]).await;
    assert_eq!(hit.answer.await.unwrap().text(), "1");
    assert!(hit.heard.lock().is_empty(), "IN2");
}

#[tokio::test]
async fn of_many_that_have_passed_who_comes_later_hears_the_first() {
    let origin = Origin::counting(&[]);
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    let _hold = origin.hold();
    let leader = Client::send(&cache, &[]).await;
    for status in 110..200 {
        tell(&origin, status);
    }
    let late = Client::send(&cache, &[]).await;
    assert_eq!(leader.heard().len(), 90);
    assert_eq!(late.heard(), (110..118).collect::<Vec<_>>());
}

#[tokio::test]
async fn who_goes_alone_hears_its_own() {
    let origin = Origin::counting(&[("cache-control", "no-store")]);
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    let hold = origin.hold();
    let leader = Client::send(&cache, &[]).await;
    let others = [
        Client::send(&cache, &[]).await,
        Client::send(&cache, &[]).await,
    ];
    tell(&origin, 103);
    origin.hang();
    drop(hold);
    settle().await;
    assert_eq!(origin.calls(), 3);
    tell(&origin, 102);
    let heard = others.each_ref().map(Client::heard);
    assert_eq!(leader.heard(), [103]);
    assert!(
        heard.contains(&vec![103]) && heard.contains(&vec![103, 102]),
        "{heard:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn whoever_leads_in_anothers_place_is_heard_by_the_rest() {
    let origin = Origin::counting(&[]);
    let wait = Duration::from_secs(60);
    let cache = Cache::new(&origin, everywhere(ttl(60))).with(|layer| layer.collapse_wait(wait));
    origin.hang();
    let leader = Client::send(&cache, &[]).await;
    let others = [
        Client::send(&cache, &[]).await,
        Client::send(&cache, &[]).await,
    ];
    tell(&origin, 103);
    leader.answer.abort();
    // What a leader whose client has left is given.
    sleep(Duration::from_secs(31)).await;
    assert_eq!(origin.calls(), 2);
    tell(&origin, 102);
    assert_eq!(leader.heard(), [103]);
    for client in others {
        assert_eq!(client.heard(), [103, 102]);
    }
}

#[tokio::test]
async fn a_refresh_is_heard_by_those_who_wait_for_it_alone() {
    let origin = Origin::counting(&[("cache-control", "max-age=3, stale-while-revalidate=2")]);
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    Client::send(&cache, &[]).await.answer.await.unwrap();
    cache.advance(4);
    let hold = origin.hold();
    let stale = Client::send(&cache, &[]).await;
    assert_eq!(stale.answer.await.unwrap().text(), "1");
    assert_eq!(origin.calls(), 2);
    cache.advance(2);
    let waits = Client::send(&cache, &[]).await;
    tell(&origin, 103);
    assert_eq!(waits.heard(), [103]);
    assert!(stale.heard.lock().is_empty());
    drop(hold);
    assert_eq!(waits.answer.await.unwrap().text(), "2");
}

#[tokio::test]
async fn a_client_may_leave_when_it_hears() {
    let origin = Origin::counting(&[]);
    let cache = Cache::new(&origin, everywhere(ttl(60)));
    let hold = origin.hold();
    let leader = Client::send(&cache, &[]).await;
    let waiting = Arc::<Mutex<Option<_>>>::default();
    let leaving = Arc::clone(&waiting);
    let mut request = request(Method::GET, "/a", &[]);
    request
        .extensions_mut()
        .insert(OnInterim::new(move |_| drop(leaving.lock().take())));
    let mut answer = Box::pin(cache.service().oneshot(request));
    assert!((&mut answer).now_or_never().is_none());
    waiting.lock().replace(answer);
    tell(&origin, 103);
    assert!(waiting.lock().is_none());
    drop(hold);
    assert_eq!(leader.heard(), [103]);
    assert_eq!(leader.answer.await.unwrap().text(), "1");
}
