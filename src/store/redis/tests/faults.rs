//! A server that fails costs misses: none wrong, none late.

use tokio::time::{Instant, sleep};

use super::log::Log;
use super::proxy::{Mood, Proxy};
use super::*;

/// As good as at once, on a machine that is busy with other tests.
const AT_ONCE: Duration = Duration::from_millis(20);
const READ: Duration = Duration::from_millis(100);

/// Waits until the store answers again; gives up after three seconds.
async fn until_answered(desk: &Desk) {
    let end = Instant::now() + Duration::from_secs(3);
    while desk.store.check().await.is_err() {
        assert!(Instant::now() < end, "not within three seconds");
        sleep(Duration::from_millis(10)).await;
    }
}

async fn timed<T>(call: impl Future<Output = T>) -> (T, Duration) {
    let began = Instant::now();
    (call.await, began.elapsed())
}

/// Makes sure that no operation waits for a server that is known to be away.
async fn assert_away(desk: &Desk, captured: &Captured) {
    let sample = desk.sample("/a");
    for (error, took) in [
        timed(async { desk.look_up(&sample).await.err() }).await,
        timed(async { desk.capture(&sample.scopes()).await.err() }).await,
        timed(async { desk.claim(&sample, None).await.err() }).await,
        timed(async { desk.put(&sample, captured.clone(), &[]).await.err() }).await,
        timed(async { desk.invalidate(&sample.scopes()).await.err() }).await,
        timed(async { desk.store.check().await.err() }).await,
    ] {
        assert_eq!(
            error.map(|error| error.kind()),
            Some(ErrorKind::Unavailable)
        );
        assert!(took < AT_ONCE, "{took:?}");
    }
}

#[tokio::test]
async fn a_store_starts_without_its_server_if_it_may() {
    let mut redis = RedisServer::start();
    redis.kill();
    let error = RedisStore::connect(&redis.url()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);

    let desk = Desk::of(RedisStore::builder(&redis.url()).connect_lazily().unwrap());
    let nothing = Captured {
        stamp: Default::default(),
        moment: 0,
    };
    assert_away(&desk, &nothing).await;
    redis.restart();
    until_answered(&desk).await;
    desk.fill(&desk.sample("/a"), &[]).await;
}

#[tokio::test]
async fn a_server_that_was_killed_comes_back_empty_and_clean() {
    let mut redis = RedisServer::start();
    let desk = Desk::new(&redis).await;
    let sample = desk.sample("/a");
    desk.fill(&sample, &[]).await;
    let captured = desk.capture(&sample.scopes()).await.unwrap();
    redis.kill();
    while desk.look_up(&sample).await.is_ok() {}
    for _ in 0..20 {
        assert_away(&desk, &captured).await;
    }
    redis.restart();
    until_answered(&desk).await;
    assert!(matches!(desk.outcome(&sample).await, Outcome::Absent));
    let kept = desk.put(&sample, captured, &[]).await.unwrap();
    assert_eq!(kept, Kept::Invalidated, "its epochs are of another life");
    desk.fill(&sample, &[]).await;
    assert!(desk.body(&sample).await.is_some());
}

#[tokio::test]
async fn a_server_that_hangs_costs_its_deadline_a_few_times_and_then_nothing() {
    let redis = RedisServer::start();
    let desk = Desk::new(&redis).await;
    let sample = desk.sample("/a");
    desk.fill(&sample, &[]).await;
    let captured = desk.capture(&sample.scopes()).await.unwrap();
    redis.stop();
    let mut waits = 0;
    loop {
        let (error, took) = timed(async { desk.look_up(&sample).await.unwrap_err() }).await;
        if error.kind() == ErrorKind::Unavailable {
            break;
        }
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(took < READ + AT_ONCE, "{took:?}");
        waits += 1;
    }
    assert!(waits <= 5, "{waits}");
    assert_away(&desk, &captured).await;
    sleep(Duration::from_secs(1)).await;
    assert_away(&desk, &captured).await;
    redis.cont();
    until_answered(&desk).await;
    assert!(desk.body(&sample).await.is_some());
}

#[tokio::test]
async fn the_log_says_when_a_trouble_begins_and_when_it_ends() {
    let mut redis = RedisServer::start();
    let log = Log::default();
    let _guard = log.begin();
    let desk = Desk::of(RedisStore::connect(&redis.url()).await.unwrap());
    let sample = desk.sample("/a");
    let fails_for = async |kind| desk.look_up(&sample).await.is_err_and(|e| e.kind() == kind);
    assert!(desk.look_up(&sample).await.is_ok());
    assert_eq!(log.count(" WARN ") + log.count("at last"), 0);

    redis.stop();
    while !fails_for(ErrorKind::Unavailable).await {}
    assert_eq!(log.count("requests do without it"), 1);
    redis.cont();
    until_answered(&desk).await;
    assert_eq!(log.count("requests use it"), 1);

    let troubles = log.count("lost redis");
    redis.kill();
    while desk.store.health().connected {
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(log.count("lost redis"), troubles + 1);
    let late = Desk::of(RedisStore::builder(&redis.url()).connect_lazily().unwrap());
    while late.store.health().last_error.is_none() {
        sleep(Duration::from_millis(5)).await;
    }
    redis.restart();
    until_answered(&desk).await;
    until_answered(&late).await;
    assert_eq!(log.count("connected to redis at last"), troubles + 2);
}

#[tokio::test]
async fn health_tells_since_when_and_why_requests_do_without_the_server() {
    let mut redis = RedisServer::with_args(&["--requirepass", "s3cret"]);
    let url = redis.url().replace("redis://", "redis://:s3cret@");
    let desk = Desk::of(RedisStore::connect(&url).await.unwrap());
    let health = || desk.store.health();
    assert!(health().connected);
    assert_eq!((health().degraded_since, health().last_error), (None, None));
    let server = health().server.unwrap();
    assert!(
        ["Redis ", "Valkey "]
            .iter()
            .any(|name| server.starts_with(name)),
        "{server}"
    );

    let before = desk.clock.wall();
    redis.stop();
    while desk
        .store
        .check()
        .await
        .is_err_and(|e| e.kind() == ErrorKind::Timeout)
    {}
    let since = health().degraded_since.unwrap();
    assert!((before..=desk.clock.wall()).contains(&since));
    redis.cont();
    until_answered(&desk).await;
    assert_eq!(health().degraded_since, None);

    redis.kill();
    while health().connected {
        sleep(Duration::from_millis(5)).await;
    }
    let (since, error) = (
        health().degraded_since.unwrap(),
        health().last_error.unwrap(),
    );
    assert!(since > before);
    sleep(Duration::from_millis(300)).await;
    let still = health().degraded_since.unwrap();
    assert!(
        still.duration_since(since).unwrap_or_default() < AT_ONCE,
        "one outage, however many attempts"
    );
    redis.restart();
    until_answered(&desk).await;
    assert!(health().connected && health().degraded_since.is_none());
    assert!(!format!("{error} {:?}", health()).contains("s3cret"));
}

#[tokio::test]
async fn look_up_and_capture_together_wait_no_longer_than_150_ms() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(&redis).await;
    let desk = Desk::of(RedisStore::connect(&proxy.url()).await.unwrap());
    let sample = desk.sample("/a");
    proxy.set(Mood::Hole);
    let both = async {
        let _ = desk.look_up(&sample).await;
        let _ = desk.capture(&sample.scopes()).await;
    };
    let ((), took) = timed(both).await;
    assert!(took < Duration::from_millis(150) + AT_ONCE, "{took:?}");
}

#[tokio::test]
async fn a_network_that_swallows_everything_is_noticed_and_left() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(&redis).await;
    let desk = Desk::of(RedisStore::connect(&proxy.url()).await.unwrap());
    let sample = desk.sample("/a");
    desk.fill(&sample, &[]).await;
    proxy.set(Mood::Hole);
    // One request a second, so the breaker does not open.
    assert_eq!(
        desk.look_up(&sample).await.unwrap_err().kind(),
        ErrorKind::Timeout
    );
    sleep(Duration::from_millis(1200)).await;
    let error = desk.look_up(&sample).await.unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Unavailable,
        "the connection has been given up: {error}"
    );
    proxy.set(Mood::Pass);
    until_answered(&desk).await;
    assert!(desk.body(&sample).await.is_some());
}

#[tokio::test]
async fn replies_that_are_slow_late_cut_or_dribble_are_whole_or_errors() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(&redis).await;
    let desk = Desk::of(RedisStore::connect(&proxy.url()).await.unwrap());
    let samples: Vec<_> = (0..4).map(|n| desk.sample(&format!("/{n}"))).collect();
    for sample in &samples {
        desk.fill(sample, &[]).await;
    }
    let mut random = Random(3);
    for round in 0..60 {
        proxy.set(match random.below(6) {
            0 => Mood::Delay(Duration::from_millis(5)),
            1 => Mood::Delay(Duration::from_millis(150)),
            2 => Mood::Cut(random.below(400)),
            3 => Mood::Dribble,
            _ => Mood::Pass,
        });
        for (n, sample) in samples.iter().enumerate() {
            let (found, took) = timed(desk.look_up(sample)).await;
            assert!(took < READ + AT_ONCE, "round {round}: {took:?}");
            match found.map(|found| found.outcome) {
                Ok(Outcome::Response(response)) => assert_eq!(response.body(), &format!("/{n}")),
                Ok(outcome) => panic!("round {round}: {outcome:?}"),
                Err(error) => assert!(
                    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout),
                    "round {round}: {error}"
                ),
            }
        }
    }
    proxy.set(Mood::Pass);
    until_answered(&desk).await;
    assert!(desk.body(&samples[0]).await.is_some());
}

#[tokio::test]
async fn a_server_without_memory_goes_on_serving_and_invalidating() {
    let redis = RedisServer::start();
    let desk = Desk::new(&redis).await;
    let [one, other] = ["/a", "/b"].map(|path| desk.sample(path));
    let tag = desk.tag("t");
    desk.fill(&one, &[tag]).await;
    desk.fill(&other, &[tag]).await;
    let captured = desk.capture(&one.scopes()).await.unwrap();
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    assert!(desk.body(&one).await.is_some());
    for _ in 0..10 {
        let error = desk.put(&one, captured.clone(), &[]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        assert!(error.to_string().contains("OOM"), "{error}");
    }
    assert!(
        desk.body(&one).await.is_some(),
        "refused commands do not open the breaker"
    );
    assert!(
        desk.capture(&one.scopes()).await.is_ok(),
        "epochs that are there can be had"
    );

    desk.invalidate(&one.scopes()[2..]).await.unwrap();
    assert!(matches!(desk.outcome(&one).await, Outcome::Invalidated));
    assert_eq!(
        desk.capture(&one.scopes()).await.unwrap_err().kind(),
        ErrorKind::Refused
    );
    // The mark cannot be left, so the caller has to repeat it; the epoch has gone all the same.
    assert_eq!(
        desk.invalidate(&[tag]).await.unwrap_err().kind(),
        ErrorKind::Refused
    );
    assert!(matches!(desk.outcome(&other).await, Outcome::Invalidated));

    redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
    desk.invalidate(&[tag]).await.unwrap();
    desk.fill(&one, &[]).await;
}

#[tokio::test]
async fn a_server_that_has_become_a_replica_is_read_and_not_written() {
    let redis = RedisServer::start();
    let desk = Desk::new(&redis).await;
    let sample = desk.sample("/a");
    desk.fill(&sample, &[]).await;
    let captured = desk.capture(&sample.scopes()).await.unwrap();
    redis.command(&["REPLICAOF", "127.0.0.1", "1"]);
    for _ in 0..10 {
        assert!(desk.body(&sample).await.is_some());
        for error in [
            desk.put(&sample, captured.clone(), &[]).await.unwrap_err(),
            desk.invalidate(&sample.scopes()).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        }
    }

    redis.command(&["CONFIG", "SET", "replica-serve-stale-data", "no"]);
    let error = desk.look_up(&sample).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    redis.command(&["REPLICAOF", "NO", "ONE"]);
    assert!(desk.body(&sample).await.is_some());
    desk.invalidate(&sample.scopes()).await.unwrap();
}

#[tokio::test]
async fn a_server_that_refuses_writes_is_read_and_confirms_no_invalidation() {
    let redis = RedisServer::with_args(&["--enable-protected-configs", "yes"]);
    let desk = Desk::new(&redis).await;
    let sample = desk.sample("/a");
    desk.fill(&sample, &[]).await;
    let set = |name, value| redis.command(&["CONFIG", "SET", name, value]);
    // Nothing can be saved there.
    set("save", "3600 1");
    set("dir", "/proc");
    for code in ["NOREPLICAS", "MISCONF"] {
        match code {
            "NOREPLICAS" => drop(set("min-replicas-to-write", "1")),
            _ => {
                while !refuses_writes(&redis) {
                    redis.command(&["BGSAVE"]);
                }
            }
        }
        assert!(desk.body(&sample).await.is_some(), "{code}");
        for _ in 0..10 {
            let error = desk.invalidate(&sample.scopes()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
            assert!(error.to_string().contains(code), "{error}");
        }
        assert!(
            desk.body(&sample).await.is_some(),
            "the breaker is closed: {code}"
        );
        let failed = desk.store.health().last_error.unwrap();
        assert!(failed.contains(code), "{failed}");
        set("min-replicas-to-write", "0");
    }
    set("stop-writes-on-bgsave-error", "no");
    desk.invalidate(&sample.scopes()).await.unwrap();
    assert!(desk.body(&sample).await.is_none());
}

#[tokio::test]
async fn a_server_that_cannot_save_is_connected_to_and_comes_back_from_a_hiccup() {
    let redis = RedisServer::with_args(&["--enable-protected-configs", "yes"]);
    let before = Desk::of(RedisStore::connect(&redis.url()).await.unwrap());
    let sample = before.sample("/a");
    before.fill(&sample, &[]).await;
    for (name, value) in [("save", "3600 1"), ("dir", "/proc")] {
        redis.command(&["CONFIG", "SET", name, value]);
    }
    while !refuses_writes(&redis) {
        redis.command(&["BGSAVE"]);
    }
    let after = Desk::of(RedisStore::connect(&redis.url()).await.unwrap());
    assert!(after.body(&sample).await.is_some());

    redis.stop();
    while before.look_up(&sample).await.unwrap_err().kind() == ErrorKind::Timeout {}
    redis.cont();
    let end = Instant::now() + Duration::from_secs(3);
    while before.look_up(&sample).await.is_err() {
        assert!(Instant::now() < end, "the breaker stays open");
        sleep(Duration::from_millis(10)).await;
    }
}

fn refuses_writes(redis: &RedisServer) -> bool {
    redis.command(&["SET", "x", "x"]).starts_with("MISCONF")
}

#[tokio::test]
async fn a_user_without_permission_is_refused_and_the_breaker_stays_closed() {
    let redis = RedisServer::start();
    redis.command(&["ACL", "SETUSER", "app", "on", ">pw", "~*", "+ping", "+mget"]);
    let url = redis.url().replace("redis://", "redis://app:pw@");
    let desk = Desk::of(RedisStore::connect(&url).await.unwrap());
    let sample = desk.sample("/a");
    for _ in 0..10 {
        assert!(matches!(desk.outcome(&sample).await, Outcome::Absent));
        let error = desk.capture(&sample.scopes()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.to_string().contains("NOPERM"), "{error}");
    }
    redis.command(&["ACL", "SETUSER", "app", "-mget"]);
    assert_eq!(
        desk.look_up(&sample).await.unwrap_err().kind(),
        ErrorKind::Refused
    );
}

#[tokio::test]
async fn a_node_of_a_cluster_that_is_not_one_is_away() {
    let redis = RedisServer::with_args(&["--cluster-enabled", "yes"]);
    let desk = Desk::new(&redis).await;
    let error = desk.look_up(&desk.sample("/a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("CLUSTERDOWN"), "{error}");
}

#[tokio::test]
async fn a_server_that_is_loading_is_away_until_it_has_loaded() {
    let redis = RedisServer::with_args(&[
        "--enable-debug-command",
        "yes",
        "--key-load-delay",
        "2000",
        "--loading-process-events-interval-bytes",
        "1024",
    ]);
    let desk = Desk::new(&redis).await;
    let samples: Vec<_> = (0..200).map(|n| desk.sample(&format!("/{n}"))).collect();
    for sample in &samples {
        desk.fill(sample, &[]).await;
    }
    let _reloading = redis.send(&["DEBUG", "RELOAD"]);
    assert_unable(&desk, &samples[0], "LOADING").await;
    until_answered(&desk).await;
    assert_eq!(desk.body(&samples[0]).await, Some("/0".into()));
}

#[tokio::test]
async fn a_server_that_is_busy_with_a_script_is_away_until_it_is_done() {
    let redis = RedisServer::with_args(&["--busy-reply-threshold", "20"]);
    let desk = Desk::new(&redis).await;
    let sample = desk.sample("/a");
    desk.fill(&sample, &[]).await;
    let _busy = redis.send(&["EVAL", "while true do end", "0"]);
    assert_unable(&desk, &sample, "BUSY").await;
    assert_eq!(redis.command(&["SCRIPT", "KILL"]), "OK");
    until_answered(&desk).await;
    assert_eq!(desk.body(&sample).await, Some("/a".into()));
}

/// Makes sure that a server says why it does nothing, and that nothing waits for it then.
async fn assert_unable(desk: &Desk, sample: &Sample, code: &str) {
    let mut refused = 0;
    let end = Instant::now() + Duration::from_secs(2);
    while refused < 20 {
        assert!(Instant::now() < end, "{code}: {refused}");
        match timed(desk.look_up(sample)).await {
            (Ok(found), _) => {
                assert!(matches!(found.outcome, Outcome::Response(_)), "{found:?}");
            }
            (Err(error), took) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                refused += usize::from(took < AT_ONCE);
            }
        }
    }
    let health = desk.store.health();
    let error = health.last_error.unwrap();
    assert!(error.contains(code), "{error}");
    assert!(health.degraded_since.is_some());
}

#[tokio::test]
async fn a_server_that_has_changed_its_password_is_away_and_says_so() {
    let redis = RedisServer::start();
    let desk = Desk::new(&redis).await;
    let sample = desk.sample("/a");
    desk.fill(&sample, &[]).await;
    redis.command(&["CONFIG", "SET", "requirepass", "s3cret"]);
    // Who is in may stay.
    assert!(desk.body(&sample).await.is_some());
    let client = ["AUTH", "s3cret", "CLIENT", "KILL", "TYPE", "normal"];
    redis.commands(&[&client[..2], &client[2..]]);
    while desk.store.check().await.is_ok() {}
    let end = Instant::now() + Duration::from_secs(2);
    while !desk.store.health().last_error.unwrap().contains("NOAUTH") {
        assert!(Instant::now() < end, "{:?}", desk.store.health());
        sleep(Duration::from_millis(5)).await;
    }
    let (error, took) = timed(async { desk.look_up(&sample).await.unwrap_err() }).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(took < AT_ONCE, "{took:?}");
    redis.commands(&[&client[..2], &["CONFIG", "SET", "requirepass", ""]]);
    until_answered(&desk).await;
    assert_eq!(desk.body(&sample).await, Some("/a".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_response_does_not_hold_up_what_is_short() {
    let redis = RedisServer::start();
    let desk = Desk::with(&redis, |builder| builder.max_entry_size(16 << 20)).await;
    let [short, long] = ["/short", "/long"].map(|path| desk.sample(path));
    let long = long.body(vec![7; 8 << 20]);
    desk.fill(&short, &[]).await;
    desk.fill(&long, &[]).await;
    while desk.body(&long).await.is_none() {}
    let stamp = desk.capture(&short.scopes()).await.unwrap().stamp;
    let reading = tokio::spawn({
        let desk = desk.clone();
        async move {
            loop {
                assert!(desk.body(&long).await.is_some());
            }
        }
    });
    let mut times = Vec::new();
    for _ in 0..40 {
        let confirmed = desk.store.confirm(&desk.namespace, &stamp);
        let (confirmed, took) = timed(confirmed).await;
        assert!(confirmed.unwrap());
        times.push(took);
        sleep(Duration::from_millis(5)).await;
    }
    assert!(!reading.is_finished());
    reading.abort();
    times.sort_unstable();
    assert!(times[30] < Duration::from_millis(50), "{times:?}");
}

#[tokio::test]
async fn connections_that_are_cut_again_and_again_cost_no_wrong_answer() {
    let redis = RedisServer::start();
    let desk = Desk::new(&redis).await;
    let sample = desk.sample("/a");
    desk.fill(&sample, &[]).await;
    let mut found = 0;
    for round in 0..200 {
        if round % 20 == 0 {
            redis.command(&["CLIENT", "KILL", "TYPE", "normal"]);
        }
        if let Ok(look_up) = desk.look_up(&sample).await {
            assert!(matches!(look_up.outcome, Outcome::Response(_)));
            found += 1;
        }
        sleep(Duration::from_millis(5)).await;
    }
    assert!(found > 20, "{found}");
}

#[tokio::test]
async fn what_is_evicted_or_flushed_is_a_miss_and_nothing_else() {
    let redis =
        RedisServer::with_args(&["--maxmemory", "4mb", "--maxmemory-policy", "allkeys-lru"]);
    let desk = Desk::new(&redis).await;
    let samples: Vec<_> = (0..500)
        .map(|n| desk.sample(&format!("/{n}")).body(format!("{n:0>16000}")))
        .collect();
    for sample in &samples {
        let captured = desk.capture(&sample.scopes()).await.unwrap();
        desk.put(sample, captured, &[desk.tag("t")]).await.unwrap();
    }
    let mut held = 0;
    for (n, sample) in samples.iter().enumerate() {
        if let Some(body) = desk.body(sample).await {
            assert_eq!(body, format!("{n:0>16000}"));
            held += 1;
        }
    }
    assert!((1..400).contains(&held), "{held}");
    redis.command(&["FLUSHALL"]);
    assert!(matches!(desk.outcome(&samples[499]).await, Outcome::Absent));
}
