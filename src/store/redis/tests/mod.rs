//! The store against real servers.

mod claims;
mod cluster;
mod commands;
#[cfg(feature = "compression")]
mod compression;
mod damage;
mod faults;
mod invalidation;
mod log;
mod mirror;
mod proxy;
mod seal;
mod sentinel;
#[cfg(feature = "redis-tls")]
mod tls;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::redis_server::RedisServer;
use super::*;
use crate::epoch::ScopeKind;
use crate::store::conformance::{self, sample::Sample};
use crate::store::{Outcome, Wanted};

/// A store, and how the tests speak to it.
#[derive(Clone, Debug)]
struct Desk {
    store: RedisStore,
    namespace: Namespace,
    clock: Clock,
}

impl Desk {
    async fn new(redis: &RedisServer) -> Self {
        Self::with(redis, |builder| builder).await
    }

    async fn with(
        redis: &RedisServer,
        setup: impl FnOnce(RedisStoreBuilder) -> RedisStoreBuilder,
    ) -> Self {
        let builder = setup(patient(&redis.url()));
        Self::of(builder.connect().await.unwrap())
    }

    fn of(store: RedisStore) -> Self {
        Self {
            store,
            namespace: Namespace::default(),
            clock: Clock::system(),
        }
    }

    fn sample(&self, path: &str) -> Sample {
        Sample::new(&self.namespace, path)
    }

    fn tag(&self, name: &str) -> Scope {
        Scope::tag(self.namespace.as_str(), name.as_bytes())
    }

    async fn capture(&self, scopes: &[Scope]) -> Result<Captured, Error> {
        self.store.capture(&self.namespace, scopes).await
    }

    async fn put(
        &self,
        sample: &Sample,
        captured: Captured,
        late: &[Scope],
    ) -> Result<Kept, Error> {
        let fill = Fill {
            namespace: self.namespace.clone(),
            response: Arc::new(sample.response(&self.clock)),
            captured,
            late: late.into(),
            retain: Duration::from_secs(60),
            tier: None,
            clock: self.clock.clone(),
        };
        self.store.put(fill).await
    }

    /// Stores a sample as nothing hinders.
    async fn fill(&self, sample: &Sample, late: &[Scope]) {
        let captured = self.capture(&sample.scopes()).await.unwrap();
        assert_eq!(
            self.put(sample, captured, late).await.unwrap(),
            Kept::Stored
        );
    }

    async fn look_up(&self, sample: &Sample) -> Result<Found, Error> {
        let scopes = sample.scopes();
        self.store.lookup(self.wanted(sample), &scopes).await
    }

    fn wanted<'a>(&'a self, sample: &'a Sample) -> Wanted<'a> {
        Wanted {
            namespace: &self.namespace,
            key: &sample.key,
            fields: &sample.request,
            tier: None,
            clock: &self.clock,
        }
    }

    async fn outcome(&self, sample: &Sample) -> Outcome {
        self.look_up(sample).await.unwrap().outcome
    }

    async fn claim(
        &self,
        sample: &Sample,
        captured: Option<Captured>,
    ) -> Result<(Captured, Claim), Error> {
        let scopes = sample.scopes();
        self.store
            .claim(self.wanted(sample), &scopes, captured)
            .await
    }

    async fn body(&self, sample: &Sample) -> Option<Bytes> {
        match self.outcome(sample).await {
            Outcome::Response(response) => Some(response.body().clone()),
            _ => None,
        }
    }

    async fn invalidate(&self, scopes: &[Scope]) -> Result<(), Error> {
        self.store.invalidate(&self.namespace, scopes).await
    }

    /// Returns the name of a sample's response in Redis.
    fn entry(&self, sample: &Sample) -> String {
        let scopes = sample.scopes().into_iter();
        let place = Place::of(&self.namespace, &sample.key, scopes);
        let name = place.entry(place.digest(&sample.response(&self.clock).variant));
        name.to_string()
    }
}

/// Returns a builder of stores that wait for a server on a busy machine.
fn patient(url: &str) -> RedisStoreBuilder {
    let limit = Duration::from_secs(10);
    RedisStore::builder(url)
        .connect_timeout(limit)
        .read_timeout(limit)
        .capture_timeout(limit)
        .write_timeout(limit)
}

fn in_language(desk: &Desk, language: &'static str) -> Sample {
    desk.sample("/hello")
        .asked_with("accept-language", language)
        .field("vary", b"accept-language")
        .body(language)
}

/// Pseudo-random numbers, the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(bound).unwrap()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_conforms() {
    let redis = RedisServer::start();
    let store = patient(&redis.url()).connect().await.unwrap();
    conformance::run(Arc::new(store)).await;
}

#[tokio::test]
async fn what_one_process_stores_and_invalidates_others_find_and_miss() {
    let redis = RedisServer::start();
    let [one, other] = [Desk::new(&redis).await, Desk::new(&redis).await];
    let sample = one.sample("/a").body("from one");
    one.fill(&sample, &[one.tag("t")]).await;
    assert_eq!(other.body(&sample).await, Some("from one".into()));
    other.invalidate(&[one.tag("t")]).await.unwrap();
    assert!(matches!(one.outcome(&sample).await, Outcome::Invalidated));
}

#[tokio::test]
async fn a_response_without_vary_answers_what_no_variant_does() {
    let redis = RedisServer::start();
    let desk = Desk::new(&redis).await;
    let [german, english, french] = ["de", "en", "fr"].map(|language| in_language(&desk, language));
    desk.fill(&german, &[]).await;
    assert!(matches!(
        desk.outcome(&french).await,
        Outcome::OtherVariants(_)
    ));
    desk.fill(&desk.sample("/hello").body("any"), &[]).await;
    desk.fill(&english, &[]).await;
    for (sample, body) in [(&german, "de"), (&english, "en"), (&french, "any")] {
        assert_eq!(desk.body(sample).await, Some(body.into()));
    }
}

#[tokio::test]
async fn where_no_variant_is_selected_those_that_are_current_are_offered() {
    let redis = RedisServer::start();
    let desk = Desk::new(&redis).await;
    let variant = |language| in_language(&desk, language).field("etag", b"\"of the origin\"");
    let offered = async || match desk.outcome(&variant("fr")).await {
        Outcome::OtherVariants(others) => {
            let bodies = others.iter().map(|other| other.body().clone());
            bodies.collect::<Vec<_>>()
        }
        outcome => panic!("{outcome:?}"),
    };
    for language in ["a", "b", "c", "d", "e"] {
        desk.fill(&variant(language), &[desk.tag(language)]).await;
    }
    assert_eq!(offered().await, ["e", "d", "c", "b"]);
    desk.invalidate(&[desk.tag("d")]).await.unwrap();
    redis.command(&[b"SET", desk.entry(&variant("c")).as_bytes(), b"damaged"]);
    assert_eq!(offered().await, ["e", "b"]);
    desk.invalidate(&desk.sample("/hello").scopes()[2..])
        .await
        .unwrap();
    assert!(offered().await.is_empty());
}

#[tokio::test]
async fn of_33_variants_the_oldest_makes_way() {
    let redis = RedisServer::start();
    let desk = Desk::new(&redis).await;
    let variant = |n: usize| {
        let value = n.to_string();
        let sample = desk.sample("/").asked_with("x-n", &value);
        sample.field("vary", b"x-n").body(value)
    };
    for n in 0..33 {
        desk.fill(&variant(n), &[]).await;
    }
    assert_eq!(desk.body(&variant(0)).await, None);
    assert_eq!(desk.body(&variant(1)).await, Some("1".into()));
    assert_eq!(desk.body(&variant(32)).await, Some("32".into()));
}

#[tokio::test]
async fn what_is_larger_than_the_limit_is_not_stored() {
    let redis = RedisServer::start();
    let builder = RedisStore::builder(&redis.url()).max_entry_size(4096);
    let desk = Desk::of(builder.connect().await.unwrap());
    let fits = desk.sample("/").body(vec![0; 3000]);
    desk.fill(&fits, &[]).await;
    for (sample, late) in [
        (desk.sample("/").body(vec![0; 4097]), vec![]),
        (desk.sample("/").body(vec![0; 4096]), vec![]),
        (
            desk.sample("/")
                .body(vec![0; 3000])
                .field("x", &[b'x'; 1000]),
            vec![],
        ),
        (
            desk.sample("/").body(vec![0; 3000]),
            (0..64).map(|n| desk.tag(&n.to_string())).collect(),
        ),
    ] {
        let captured = desk.capture(&sample.scopes()).await.unwrap();
        assert_eq!(
            desk.put(&sample, captured, &late).await.unwrap(),
            Kept::TooLarge
        );
    }
    assert_eq!(desk.body(&fits).await.map(|body| body.len()), Some(3000));
}

#[tokio::test]
async fn long_responses_have_a_connection_of_their_own() {
    let redis = RedisServer::start();
    let desk = Desk::new(&redis).await;
    let [short, long] = ["/short", "/long"].map(|path| desk.sample(path));
    let long = long.body(vec![7; 1 << 20]);
    // The connections by the commands that were last sent on them.
    let commands = || {
        let clients = redis.command(&["CLIENT", "LIST"]);
        let clients = clients
            .lines()
            .filter(|client| !client.contains("cmd=client"));
        let commands = clients.filter_map(|client| client.split_once(" cmd=")?.1.split(' ').next());
        commands.map(str::to_owned).collect::<Vec<_>>()
    };
    desk.fill(&short, &[]).await;
    assert_eq!(commands(), ["set"]);
    // The first one opens the connection and does not wait for it.
    desk.fill(&long, &[]).await;
    while commands() != ["set", "info"] {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    desk.fill(&long, &[]).await;
    assert_eq!(commands(), ["mget", "set"]);
    desk.capture(&short.scopes()).await.unwrap();
    assert_eq!(desk.body(&long).await.map(|body| body.len()), Some(1 << 20));
    assert_eq!(commands(), ["get", "mget"]);
    desk.fill(&long.clone().body("short"), &[]).await;
    desk.invalidate(&[desk.tag("t")]).await.unwrap();
    assert_eq!(desk.body(&long).await, Some("short".into()));
    assert_eq!(commands(), ["mget", "mget"]);
}

#[tokio::test]
async fn everything_stored_ends_by_itself() {
    let redis = RedisServer::start();
    let desk = Desk::new(&redis).await;
    let sample = in_language(&desk, "de");
    desk.fill(&sample, &[desk.tag("t")]).await;
    desk.invalidate(&[desk.tag("t")]).await.unwrap();
    let keys = redis.command(&["EVAL", "return #redis.call('KEYS', '*')", "0"]);
    let ending = "local n = 0 for _, k in ipairs(redis.call('KEYS', '*')) do
        if redis.call('PTTL', k) > 0 then n = n + 1 end end return n";
    // Response, variants, three epochs, the tag's mark; all but the note of the server's life.
    assert_eq!(redis.command(&["EVAL", ending, "0"]), "6");
    assert_eq!(keys, "7");
    let left: u64 = redis
        .command(&["PTTL", &desk.entry(&sample)])
        .parse()
        .unwrap();
    assert!((50_000..=60_000).contains(&left), "{left}");
}

#[tokio::test]
async fn a_closed_store_fails_at_once() {
    let redis = RedisServer::start();
    let desk = Desk::new(&redis).await;
    desk.store.close().await;
    let error = desk.store.check().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn neither_the_store_nor_its_errors_show_the_password() {
    let redis = RedisServer::with_args(&["--requirepass", "s3cret"]);
    let url = redis.url().replace("redis://", "redis://:s3cret@");
    let store = RedisStore::connect(&url).await.unwrap();
    store.check().await.unwrap();
    assert!(!format!("{store:?}").contains("s3cret"), "{store:?}");
}

/// What the store needs of a server that grants nothing else; as in the documentation of
/// [`RedisStore`].
const LEAST_ACL: &str =
    "~hc1:* +get +mget +set +del +pttl +pexpire +ping +info +hello +client|tracking +select +wait";

/// Makes a user `app` with the password `s3cret`, who may do no more than the least, and `more`.
fn admit_app(redis: &RedisServer, more: &[&str]) {
    let user = ["ACL", "SETUSER", "app", "on", ">s3cret", "-@all"];
    let words = user.into_iter().chain(LEAST_ACL.split(' '));
    let words: Vec<_> = words.chain(more.iter().copied()).collect();
    assert_eq!(redis.command(&words), "OK");
    // Refused by a Redis before 7.2, which would not understand it either.
    redis.command(&["ACL", "SETUSER", "app", "+client|setinfo"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_conforms_under_the_least_acl() {
    let redis = RedisServer::start();
    admit_app(&redis, &[]);
    let url = redis.url().replace("redis://", "redis://app:s3cret@");
    let url = url.replace("/0", "/1");
    let builder = patient(&url).wait_replicas(0, Duration::from_millis(100));
    let store = builder.connect().await.unwrap();
    assert!(store.health().server.is_some());
    let desk = Desk::of(store.clone());
    let sample = desk.sample("/a");
    desk.fill(&sample, &[]).await;
    let stamp = desk.capture(&sample.scopes()).await.unwrap().stamp;
    assert!(store.confirm(&desk.namespace, &stamp).await.unwrap());
    conformance::run(Arc::new(store)).await;
    let errors = redis.command(&["INFO", "errorstats"]);
    assert!(!errors.contains("NOPERM"), "{errors}");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn over_a_unix_socket_the_store_conforms() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("redis.sock");
    let socket = socket.to_str().unwrap();
    let redis = RedisServer::with_args(&["--unixsocket", socket]);
    let url = format!("redis+unix://{socket}?db=1");
    let store = patient(&url).connect().await.unwrap();
    conformance::run(Arc::new(store)).await;
    assert_eq!(redis.command(&["DBSIZE"]), "0", "all is in database 1");
}
