//! What is believed of a server that others can write to.

use super::*;

const SECRET: &str = "what only the processes know";
const FORMER: &str = "what they knew until yesterday";

fn read(redis: &RedisServer, name: &str) -> Vec<u8> {
    // The test client reads text.
    let hex = "return (redis.call('GET', KEYS[1]):gsub('.', function(c)
        return string.format('%02x', c:byte()) end))";
    let hex = redis.command(&["EVAL", hex, "1", name]);
    let pairs = hex.as_bytes().chunks(2).map(str::from_utf8);
    pairs
        .map(|pair| u8::from_str_radix(pair.unwrap(), 16).unwrap())
        .collect()
}

fn write(redis: &RedisServer, name: &str, value: &[u8]) {
    redis.command(&[b"SET", name.as_bytes(), value]);
}

#[tokio::test]
async fn what_others_made_up_or_copied_is_damage_and_deleted() {
    let redis = RedisServer::start();
    let [plain, sealed] = [
        Desk::new(&redis).await,
        Desk::with(&redis, |builder| builder.secret(SECRET)).await,
    ];
    let sample = sealed.sample("/a").body("right");
    let other = sealed.sample("/b").body("wrong");
    let names = [&sample, &other].map(|sample| sealed.entry(sample));
    plain.fill(&sample.clone().body("wrong"), &[]).await;
    let made_up = read(&redis, &names[0]);
    sealed.fill(&sample, &[]).await;
    let tag = read(&redis, &names[0])[..32].to_vec();
    sealed.fill(&other, &[]).await;
    let copied = read(&redis, &names[1]);
    for (what, forged) in [
        ("without a tag", made_up.clone()),
        ("with another's tag", [tag, made_up].concat()),
        ("copied", copied),
        ("nothing", vec![]),
        ("shorter than a tag", vec![0; 31]),
        ("as long as a tag", vec![0; 32]),
    ] {
        write(&redis, &names[0], &forged);
        let outcome = sealed.outcome(&sample).await;
        assert!(matches!(outcome, Outcome::Damaged), "{what}: {outcome:?}");
        assert_eq!(redis.command(&["EXISTS", &names[0]]), "0", "{what}");
        sealed.fill(&sample, &[]).await;
        assert_eq!(sealed.body(&sample).await, Some("right".into()), "{what}");
    }
}

#[tokio::test]
async fn a_list_of_variants_that_others_made_up_is_none() {
    let redis = RedisServer::start();
    let [plain, sealed] = [
        Desk::new(&redis).await,
        Desk::with(&redis, |builder| builder.secret(SECRET)).await,
    ];
    let [german, english] = ["de", "en"].map(|language| in_language(&sealed, language));
    let scopes = german.scopes().into_iter();
    let place = Place::of(&sealed.namespace, &german.key, scopes);
    let name = place.variants().to_string();
    plain.fill(&german, &[]).await;
    let made_up = read(&redis, &name);
    sealed.fill(&german, &[]).await;
    write(&redis, &name, &made_up);
    // Nothing is listed, and nothing stands under the primary key.
    assert!(matches!(sealed.outcome(&german).await, Outcome::Absent));
    sealed.fill(&english, &[]).await;
    assert_eq!(sealed.body(&english).await, Some("en".into()));
    assert_eq!(sealed.body(&german).await, None);
}

#[tokio::test]
async fn processes_with_different_secrets_miss_what_the_others_store() {
    let redis = RedisServer::start();
    let [plain, sealed, other] = [
        Desk::new(&redis).await,
        Desk::with(&redis, |builder| builder.secret(SECRET)).await,
        Desk::with(&redis, |builder| builder.secret(FORMER)).await,
    ];
    let sample = plain.sample("/a");
    for [writer, reader] in [[&plain, &sealed], [&sealed, &plain], [&sealed, &other]] {
        writer.fill(&sample, &[]).await;
        assert!(writer.body(&sample).await.is_some());
        assert!(matches!(reader.outcome(&sample).await, Outcome::Damaged));
    }
}

#[tokio::test]
async fn what_was_stored_with_the_former_secret_is_read_and_removed() {
    let redis = RedisServer::start();
    let [before, after] = [
        Desk::with(&redis, |builder| builder.secret(FORMER)).await,
        Desk::with(&redis, |builder| {
            builder.secret(SECRET).former_secret(FORMER)
        })
        .await,
    ];
    let sample = in_language(&before, "de");
    before.fill(&sample, &[]).await;
    let Outcome::Response(response) = after.outcome(&sample).await else {
        panic!("it is not found");
    };
    after.store.remove(&response).await.unwrap();
    assert_eq!(after.body(&sample).await, None);
    after.fill(&sample, &[]).await;
    assert_eq!(after.body(&sample).await, Some("de".into()));
    assert_eq!(before.body(&sample).await, None);
}

#[tokio::test]
async fn an_epoch_put_back_revives_what_was_invalidated_as_the_documentation_says() {
    let redis = RedisServer::start();
    let desk = Desk::with(&redis, |builder| builder.secret(SECRET)).await;
    let sample = desk.sample("/a");
    desk.fill(&sample, &[]).await;
    let path = sample.scopes()[2];
    let name = layout::epoch(&desk.namespace, path).to_string();
    let epoch = read(&redis, &name);
    desk.invalidate(&[path]).await.unwrap();
    assert!(matches!(desk.outcome(&sample).await, Outcome::Invalidated));
    write(&redis, &name, &epoch);
    assert!(desk.body(&sample).await.is_some());
}

#[tokio::test]
async fn neither_the_store_nor_its_errors_show_the_secret() {
    let redis = RedisServer::start();
    let desk = Desk::with(&redis, |builder| builder.secret(SECRET)).await;
    assert!(!format!("{:?}", desk.store).contains(SECRET));
    let builder = RedisStore::builder(&redis.url()).former_secret(FORMER);
    let error = builder.connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(!format!("{error} {error:?}").contains(FORMER));
}
