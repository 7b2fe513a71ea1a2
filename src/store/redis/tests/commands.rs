//! What each operation costs the server: commands and round trips.

use std::collections::BTreeMap;

use tokio::time::sleep;

use super::proxy::Proxy;
use super::*;

/// A desk whose round trips are counted, behind a server whose commands are.
struct Counted {
    desk: Desk,
    redis: RedisServer,
    proxy: Proxy,
}

impl Counted {
    async fn new() -> Self {
        Self::with(Mirroring::Tracking).await
    }

    async fn with(mirroring: Mirroring) -> Self {
        let redis = RedisServer::start();
        let proxy = Proxy::before(&redis).await;
        // Nothing else is asked meanwhile.
        let builder = RedisStore::builder(&proxy.url())
            .check_interval(Duration::from_secs(60))
            .mirroring(mirroring);
        let desk = Desk::of(builder.connect().await.unwrap());
        // The first capture renews epochs; those that follow are like most.
        desk.capture(&[desk.tag("first")]).await.unwrap();
        Self { desk, redis, proxy }
    }

    /// Makes sure that an operation takes so many round trips and these commands.
    async fn costs<T>(&self, call: impl Future<Output = T>, trips: usize, commands: &str) -> T {
        let (value, counts, taken) = self.counts(call).await;
        let counts = counts
            .iter()
            .map(|(name, count)| format!("{count} {name}"))
            .collect::<Vec<_>>();
        assert_eq!(counts.join(", "), commands);
        assert_eq!(taken, trips, "round trips for {commands}");
        value
    }

    /// Counts the commands that are carried out meanwhile, and the round trips.
    async fn counts<T>(
        &self,
        call: impl Future<Output = T>,
    ) -> (T, BTreeMap<String, usize>, usize) {
        self.proxy.take_requests();
        self.redis.command(&["CONFIG", "RESETSTAT"]);
        let value = call.await;
        let statistics = self.redis.command(&["INFO", "commandstats"]);
        let counts = statistics.lines().filter_map(|line| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            let count = rest.split(',').next()?.parse().ok()?;
            (!name.starts_with("config")).then(|| (name.to_owned(), count))
        });
        (value, counts.collect(), self.proxy.take_requests())
    }
}

#[tokio::test]
async fn a_hit_is_one_command() {
    let counted = Counted::new().await;
    let desk = &counted.desk;
    let sample = desk.sample("/a");
    // Variants, response, and the epochs of namespace, route and path.
    counted.costs(desk.outcome(&sample), 1, "1 mget").await;
    desk.fill(&sample, &[]).await;
    for _ in 0..3 {
        assert!(
            counted
                .costs(desk.body(&sample), 1, "1 mget")
                .await
                .is_some()
        );
    }
}

#[tokio::test]
async fn a_hit_asks_for_no_epoch_that_is_mirrored() {
    let counted = Counted::new().await;
    let desk = &counted.desk;
    let sample = desk.sample("/a");
    desk.fill(&sample, &[desk.tag("t")]).await;
    let Outcome::Response(response) = desk.outcome(&sample).await else {
        panic!("it is there");
    };
    while !desk.store.vouches_for(response.stamp()) {
        let confirmed = desk.store.confirm(&desk.namespace, response.stamp()).await;
        assert!(confirmed.unwrap());
    }
    for _ in 0..3 {
        counted.redis.command(&["CONFIG", "RESETSTAT"]);
        let found = desk.look_up(&sample).await.unwrap();
        let statistics = counted.redis.command(&["INFO", "stats"]);
        for count in ["keyspace_hits:1", "keyspace_misses:1"] {
            assert!(statistics.lines().any(|line| line == count), "{statistics}");
        }
        assert!(matches!(found.outcome, Outcome::Response(_)));
        assert!(desk.store.vouches_for(&found.captured.unwrap().stamp));
    }
    desk.invalidate(&[desk.tag("t")]).await.unwrap();
    assert!(matches!(desk.outcome(&sample).await, Outcome::Invalidated));
}

#[tokio::test]
async fn epochs_that_are_mirrored_cost_nothing_and_others_one_round_trip() {
    let mirroring = Mirroring::Poll {
        max_staleness: Duration::from_secs(60),
    };
    let counted = Counted::with(mirroring).await;
    let desk = &counted.desk;
    let [mirrored, other] = ["/a", "/b"].map(|path| desk.sample(path));
    let mut stamps = Vec::new();
    for sample in [&mirrored, &other] {
        stamps.push(desk.capture(&sample.scopes()).await.unwrap().stamp);
        desk.fill(sample, &[]).await;
    }
    let confirm = async |stamp| desk.store.confirm(&desk.namespace, stamp).await.unwrap();
    while !desk.store.vouches_for(&stamps[0]) {
        assert!(confirm(&stamps[0]).await);
    }
    counted
        .costs(async { desk.store.vouches_for(&stamps[0]) }, 0, "")
        .await;
    counted
        .costs(desk.body(&mirrored), 1, "1 mget")
        .await
        .unwrap();
    assert!(!desk.store.vouches_for(&stamps[1]));
    // The deletion of nothing shows that the server still takes writes.
    let cost = "1 del, 3 get";
    assert!(counted.costs(confirm(&stamps[1]), 1, cost).await);
    assert!(desk.store.vouches_for(&stamps[1]));
}

#[tokio::test]
async fn the_server_is_asked_twice_a_second_whether_it_would_tell() {
    let counted = Counted::new().await;
    let desk = &counted.desk;
    let stamp = desk.capture(&desk.sample("/a").scopes()).await.unwrap();
    while !desk.store.vouches_for(&stamp.stamp) {
        let confirmed = desk.store.confirm(&desk.namespace, &stamp.stamp).await;
        assert!(confirmed.unwrap());
    }
    // Real time, which the server's silence is measured in.
    let ((), counts, _) = counted.counts(sleep(Duration::from_millis(1750))).await;
    let names: Vec<&str> = counts.keys().map(String::as_str).collect();
    assert_eq!(names, ["client|tracking", "del"]);
    let mut beats = counts.values();
    assert!(beats.all(|beats| (2..=4).contains(beats)), "{counts:?}");
}

#[tokio::test]
async fn a_variant_is_guessed_right_from_the_second_look_up_on() {
    let counted = Counted::new().await;
    let desk = &counted.desk;
    let [german, english, french] = ["de", "en", "fr"].map(|language| in_language(desk, language));
    desk.fill(&german, &[]).await;
    desk.fill(&english, &[]).await;
    counted
        .costs(desk.body(&german), 2, "2 mget")
        .await
        .unwrap();
    counted
        .costs(desk.body(&german), 1, "1 mget")
        .await
        .unwrap();
    counted
        .costs(desk.body(&english), 1, "1 mget")
        .await
        .unwrap();
    // The origin gave neither an entity-tag, so it is not asked about them.
    counted.costs(desk.outcome(&french), 1, "1 mget").await;
    // Another variant changes the list, but not which one a request for German selects.
    desk.fill(&french, &[]).await;
    counted
        .costs(desk.body(&german), 1, "1 mget")
        .await
        .unwrap();
}

#[tokio::test]
async fn other_variants_to_be_offered_take_a_second_round_trip() {
    let counted = Counted::new().await;
    let desk = &counted.desk;
    let [german, french] = ["de", "fr"].map(|language| in_language(desk, language));
    desk.fill(&german.field("etag", b"\"1\""), &[]).await;
    let outcome = counted.costs(desk.outcome(&french), 2, "2 mget").await;
    assert!(matches!(outcome, Outcome::OtherVariants(others) if others.len() == 1));
}

#[tokio::test]
async fn tags_of_the_response_are_guessed_right_from_the_second_look_up_on() {
    let counted = Counted::new().await;
    let desk = &counted.desk;
    let sample = desk.sample("/a");
    let other = Desk::new(&counted.redis).await;
    other.fill(&sample, &[desk.tag("s"), desk.tag("t")]).await;
    counted
        .costs(desk.body(&sample), 2, "2 mget")
        .await
        .unwrap();
    counted
        .costs(desk.body(&sample), 1, "1 mget")
        .await
        .unwrap();
    other.fill(&sample, &[desk.tag("t"), desk.tag("u")]).await;
    counted
        .costs(desk.body(&sample), 2, "2 mget")
        .await
        .unwrap();
    counted
        .costs(desk.body(&sample), 1, "1 mget")
        .await
        .unwrap();
    desk.fill(&sample, &[desk.tag("v")]).await;
    counted
        .costs(desk.body(&sample), 1, "1 mget")
        .await
        .unwrap();
}

#[tokio::test]
async fn a_capture_is_one_round_trip_and_one_in_32_asks_how_old_epochs_are() {
    let counted = Counted::new().await;
    let desk = &counted.desk;
    let scopes = desk.sample("/a").scopes();
    for _ in 0..31 {
        counted
            .costs(desk.capture(&scopes), 1, "3 get, 3 set")
            .await
            .unwrap();
    }
    counted
        .costs(desk.capture(&scopes), 1, "3 get, 3 pttl, 3 set")
        .await
        .unwrap();
    for _ in 0..31 {
        desk.capture(&scopes).await.unwrap();
    }
    // One of them has lived for more than half of its time.
    let name = layout::epoch(&desk.namespace, scopes[0]).to_string();
    counted.redis.command(&["PEXPIRE", &name, "3600000"]);
    counted
        .costs(desk.capture(&scopes), 2, "3 get, 1 pexpire, 3 pttl, 3 set")
        .await
        .unwrap();
}

#[tokio::test]
async fn a_warm_miss_needs_no_capture() {
    let counted = Counted::new().await;
    let desk = &counted.desk;
    let sample = desk.sample("/a");
    assert_eq!(desk.look_up(&sample).await.unwrap().captured, None);
    let captured = desk.capture(&sample.scopes()).await.unwrap();
    let found = counted
        .costs(desk.look_up(&sample), 1, "1 mget")
        .await
        .unwrap();
    assert_eq!(
        found.captured.map(|found| found.stamp),
        Some(captured.stamp)
    );
}

#[tokio::test]
async fn a_claim_goes_along_with_the_capture_and_is_released_by_one_command() {
    let counted = Counted::new().await;
    let desk = &counted.desk;
    let sample = desk.sample("/a");
    let (captured, claim) = counted
        .costs(desk.claim(&sample, None), 1, "4 get, 4 set")
        .await
        .unwrap();
    counted
        .costs(desk.claim(&sample, Some(captured)), 1, "1 get, 1 set")
        .await
        .unwrap();
    let release = async {
        drop(claim);
        // A task does it.
        sleep(Duration::from_millis(50)).await;
    };
    counted.costs(release, 1, "1 del").await;
}

#[tokio::test]
async fn an_uncacheable_answer_is_told_by_one_command() {
    let counted = Counted::new().await;
    let desk = &counted.desk;
    let (_, claim) = desk.claim(&desk.sample("/a"), None).await.unwrap();
    let Claim::Granted(lock) = claim else {
        panic!("{claim:?}");
    };
    let tell = async {
        lock.uncacheable();
        // A task does it.
        sleep(Duration::from_millis(50)).await;
    };
    counted.costs(tell, 1, "1 set").await;
}

#[tokio::test]
async fn storing_asks_for_epochs_and_then_sets() {
    let counted = Counted::new().await;
    let desk = &counted.desk;
    let sample = desk.sample("/a");
    let captured = desk.capture(&sample.scopes()).await.unwrap();
    let put = async |sample: &Sample, late: &[Scope]| {
        let kept = desk.put(sample, captured.clone(), late).await.unwrap();
        assert_eq!(kept, Kept::Stored);
    };
    counted.costs(put(&sample, &[]), 2, "1 mget, 1 set").await;
    let tags = [desk.tag("s"), desk.tag("t")];
    counted
        .costs(put(&sample, &tags), 2, "2 get, 1 mget, 4 pttl, 3 set")
        .await;
    let varying = sample.field("vary", b"x");
    counted
        .costs(put(&varying, &[]), 2, "1 mget, 1 pttl, 2 set")
        .await;
}

#[tokio::test]
async fn a_fill_that_comes_too_late_is_not_sent() {
    let counted = Counted::new().await;
    let desk = &counted.desk;
    let sample = desk.sample("/a");
    let captured = desk.capture(&sample.scopes()).await.unwrap();
    desk.invalidate(&sample.scopes()[2..]).await.unwrap();
    let kept = counted
        .costs(desk.put(&sample, captured, &[]), 1, "1 mget")
        .await;
    assert_eq!(kept.unwrap(), Kept::Invalidated);
}

#[tokio::test]
async fn an_invalidation_is_one_round_trip_whatever_it_reaches() {
    let counted = Counted::new().await;
    let desk = &counted.desk;
    let [namespace, route, path] = desk.sample("/a").scopes();
    for scope in [namespace, route, path] {
        counted
            .costs(desk.invalidate(&[scope]), 1, "1 del")
            .await
            .unwrap();
    }
    let tags: Vec<_> = (0..256).map(|n| desk.tag(&n.to_string())).collect();
    counted
        .costs(desk.invalidate(&tags[..1]), 1, "1 del, 1 set")
        .await
        .unwrap();
    counted
        .costs(desk.invalidate(&tags[..20]), 1, "20 del, 20 set")
        .await
        .unwrap();
    counted.costs(desk.invalidate(&[]), 0, "").await.unwrap();
}

#[tokio::test]
async fn a_removal_compares_before_it_deletes() {
    let counted = Counted::new().await;
    let desk = &counted.desk;
    let sample = desk.sample("/a");
    desk.fill(&sample, &[]).await;
    let Outcome::Response(response) = desk.outcome(&sample).await else {
        panic!("it is stored");
    };
    counted
        .costs(desk.store.remove(&response), 2, "1 del, 1 get")
        .await
        .unwrap();
    counted
        .costs(desk.store.remove(&response), 1, "1 get")
        .await
        .unwrap();
}
