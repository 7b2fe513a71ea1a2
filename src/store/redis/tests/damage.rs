//! Whatever stands in Redis under our names, a look-up returns what was stored or nothing.

use super::*;

/// Makes sure that a sample's response counts as damaged, is dropped, and can be stored again.
async fn assert_damaged(desk: &Desk, redis: &RedisServer, sample: &Sample, what: &str) {
    let outcome = desk.outcome(sample).await;
    assert!(matches!(outcome, Outcome::Damaged), "{what}: {outcome:?}");
    assert_eq!(
        redis.command(&["EXISTS", &desk.entry(sample)]),
        "0",
        "{what}"
    );
    let outcome = desk.outcome(sample).await;
    assert!(matches!(outcome, Outcome::Absent), "{what}: {outcome:?}");
    desk.fill(sample, &[]).await;
    assert_eq!(desk.body(sample).await, Some("right".into()), "{what}");
}

#[tokio::test]
async fn what_is_no_entry_is_dropped() {
    let redis = RedisServer::start();
    let desk = Desk::new(&redis).await;
    let sample = desk.sample("/a").body("right");
    desk.capture(&sample.scopes()).await.unwrap();
    let name = desk.entry(&sample);
    for garbage in [
        &b""[..],
        b"x",
        b"\xc5TRC",
        b"\xc5TRC\x02",
        &[0; 1000],
        &[0xff; 100_000],
    ] {
        redis.command(&[b"SET", name.as_bytes(), garbage]);
        assert_damaged(&desk, &redis, &sample, &garbage.escape_ascii().to_string()).await;
    }
}

#[tokio::test]
async fn what_is_no_string_is_absent_and_replaced() {
    let redis = RedisServer::start();
    let desk = Desk::new(&redis).await;
    let sample = desk.sample("/a").body("right");
    let name = desk.entry(&sample);
    redis.command(&["RPUSH", &name, "a", "list"]);
    assert!(matches!(desk.outcome(&sample).await, Outcome::Absent));
    desk.fill(&sample, &[]).await;
    assert_eq!(desk.body(&sample).await, Some("right".into()));
}

#[tokio::test]
async fn an_entry_that_was_changed_or_cut_is_dropped() {
    let redis = RedisServer::start();
    let desk = Desk::new(&redis).await;
    let sample = desk.sample("/a").body("right");
    let name = desk.entry(&sample);
    desk.fill(&sample, &[]).await;
    let length: usize = redis.command(&["STRLEN", &name]).parse().unwrap();
    let mut random = Random(7);
    for _ in 0..100 {
        let place = random.below(length).to_string();
        let flip = "local v = redis.call('GETRANGE', KEYS[1], ARGV[1], ARGV[1])
            redis.call('SETRANGE', KEYS[1], ARGV[1], string.char((v:byte() + ARGV[2]) % 256))";
        let by = (1 + random.below(255)).to_string();
        redis.command(&["EVAL", flip, "1", &name, &place, &by]);
        assert_damaged(
            &desk,
            &redis,
            &sample,
            &format!("byte {place} changed by {by}"),
        )
        .await;

        let end = random.below(length - 1).to_string();
        let cut = "redis.call('SET', KEYS[1], redis.call('GETRANGE', KEYS[1], 0, ARGV[1]))";
        redis.command(&["EVAL", cut, "1", &name, &end]);
        assert_damaged(&desk, &redis, &sample, &format!("cut after {end}")).await;
    }
}

#[tokio::test]
async fn the_entry_of_another_key_or_variant_is_dropped() {
    let redis = RedisServer::start();
    let desk = Desk::new(&redis).await;
    let sample = desk.sample("/a").body("right");
    desk.fill(&desk.sample("/b").body("wrong"), &[]).await;
    redis.command(&[
        "COPY",
        &desk.entry(&desk.sample("/b")),
        &desk.entry(&sample),
        "REPLACE",
    ]);
    assert_damaged(&desk, &redis, &sample, "another key's").await;

    let [german, english] = ["de", "en"].map(|language| in_language(&desk, language));
    desk.fill(&german, &[]).await;
    desk.fill(&english.body("right"), &[]).await;
    let english = in_language(&desk, "en").body("right");
    redis.command(&[
        "COPY",
        &desk.entry(&german),
        &desk.entry(&english),
        "REPLACE",
    ]);
    assert_damaged(&desk, &redis, &english, "another variant's").await;
}

#[tokio::test]
async fn a_damaged_list_of_variants_costs_misses_and_is_replaced() {
    let redis = RedisServer::start();
    let desk = Desk::new(&redis).await;
    let sample = in_language(&desk, "de");
    let place = Place::of(&desk.namespace, &sample.key, sample.scopes().into_iter());
    let name = place.variants().to_string();
    for _ in 0..2 {
        desk.fill(&sample, &[]).await;
        assert_eq!(desk.body(&sample).await, Some("de".into()));
        redis.command(&["APPEND", &name, "x"]);
        assert_eq!(desk.body(&sample).await, None);
    }
    redis.command(&["DEL", &name]);
    redis.command(&["RPUSH", &name, "a", "list"]);
    assert_eq!(desk.body(&sample).await, None);
    desk.fill(&sample, &[]).await;
    assert_eq!(desk.body(&sample).await, Some("de".into()));
}

#[tokio::test]
async fn what_is_no_epoch_is_not_current_and_is_replaced() {
    let redis = RedisServer::start();
    let desk = Desk::new(&redis).await;
    let sample = desk.sample("/a");
    for scope in sample.scopes() {
        let name = layout::epoch(&desk.namespace, scope).to_string();
        for garbage in [&b""[..], b"123", &[0; 12], &[7; 13], b"a list"] {
            desk.fill(&sample, &[]).await;
            redis.command(&["DEL", &name]);
            match garbage {
                b"a list" => redis.command(&["RPUSH", &name, "a", "list"]),
                _ => redis.command(&[b"SET", name.as_bytes(), garbage]),
            };
            let found = desk.look_up(&sample).await.unwrap();
            assert!(
                matches!(found.outcome, Outcome::Invalidated),
                "{:?}",
                found.outcome
            );
            assert_eq!(found.captured, None);
            let error = desk.capture(&sample.scopes()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        }
    }
    desk.fill(&sample, &[]).await;
}
