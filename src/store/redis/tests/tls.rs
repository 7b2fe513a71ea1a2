//! Over TLS the store is the same, and speaks to nobody whom it does not trust.

use std::error::Error as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
};
use tempfile::TempDir;

use super::*;
use crate::store::redis::redis_cluster::RedisCluster;
use crate::store::redis::redis_server::free_port;

/// An authority, and a server that shows a certificate of it and asks for one.
struct Guarded {
    authority: CertifiedIssuer<'static, KeyPair>,
    redis: RedisServer,
    port: u16,
    _directory: TempDir,
}

impl Guarded {
    fn start(asks_for_certificates: &str) -> Self {
        let authority = authority();
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut args = guards(&authority, "localhost", directory.path());
        args.extend(["--tls-port".to_owned(), port.to_string()]);
        args.extend(["--tls-auth-clients", asks_for_certificates].map(str::to_owned));
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let redis = RedisServer::with_args(&args);
        Self {
            authority,
            redis,
            port,
            _directory: directory,
        }
    }

    fn builder(&self) -> RedisStoreBuilder {
        patient(&format!("rediss://localhost:{}/1", self.port))
    }
}

/// Returns the arguments for a server that shows a certificate with this name, and trusts the
/// authority.
fn guards(authority: &CertifiedIssuer<'_, KeyPair>, name: &str, directory: &Path) -> Vec<String> {
    let (chain, key) = identity(authority, name);
    let files = [("cert", chain), ("key", key), ("ca-cert", authority.pem())];
    let args = files.into_iter().flat_map(|(name, content)| {
        let path = directory.join(name);
        std::fs::write(&path, content).unwrap();
        [
            format!("--tls-{name}-file"),
            path.to_str().unwrap().to_owned(),
        ]
    });
    args.collect()
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = certificate("authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn certificate(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// Returns a certificate and its key.
fn identity(authority: &CertifiedIssuer<'_, KeyPair>, name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = certificate(name).signed_by(&key, authority).unwrap();
    (certificate.pem(), key.serialize_pem())
}

/// Makes sure that there is no connection, and returns why.
async fn refusal(builder: RedisStoreBuilder) -> String {
    let error = builder.connect().await.unwrap_err();
    format!("{error}: {}", error.source().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_the_store_conforms() {
    let guarded = Guarded::start("no");
    let builder = guarded.builder().tls_roots(guarded.authority.pem());
    let store = builder.connect().await.unwrap();
    conformance::run(Arc::new(store)).await;
    assert_eq!(
        guarded.redis.command(&["DBSIZE"]),
        "0",
        "all is in database 1"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_cluster_that_speaks_tls_the_store_conforms() {
    let (authority, directory) = (authority(), tempfile::tempdir().unwrap());
    let guards = guards(&authority, "127.0.0.1", directory.path());
    let mut cluster = RedisCluster::with_args(|| {
        // The servers speak to each other 10,000 ports above it.
        let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        let mut ports = std::iter::repeat_with(free_port);
        let port = ports.find(|port| port.checked_add(10_000).is_some_and(is_free));
        let all = "--tls-cluster yes --tls-replication yes --tls-auth-clients no --tls-port";
        let all = all.split(' ').map(str::to_owned);
        let all = all.chain([port.unwrap().to_string()]);
        all.chain(guards.clone()).collect()
    });
    let port = cluster.tls_port(0).unwrap();
    let url = format!("rediss+cluster://127.0.0.1:{port}");
    let trusting = || patient(&url).tls_roots(authority.pem());
    let store = trusting().connect().await.unwrap();
    conformance::run(Arc::new(store)).await;
    let refusal = refusal(patient(&url).tls_roots(self::authority().pem())).await;
    assert!(refusal.contains("invalid peer certificate"), "{refusal}");

    let desk = Desk::of(trusting().connect().await.unwrap());
    let sample = desk.sample("/a");
    desk.fill(&sample, &[]).await;
    let [.., path] = sample.scopes();
    let owner = cluster.owner(cluster.slot(&layout::epoch(&desk.namespace, path).to_string()));
    cluster.until_in_step(owner);
    cluster.kill(owner);
    // Its replica takes its place.
    while desk.look_up(&sample).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(desk.body(&sample).await.is_some());
}

#[tokio::test]
async fn a_server_that_shows_another_name_or_authority_is_not_spoken_to() {
    let guarded = Guarded::start("no");
    let trusted = guarded.authority.pem();
    let by_number = format!("rediss://127.0.0.1:{}", guarded.port);
    for builder in [
        guarded.builder(),
        guarded.builder().tls_roots(authority().pem()),
        RedisStore::builder(&by_number).tls_roots(trusted),
    ] {
        let refusal = refusal(builder).await;
        assert!(refusal.contains("invalid peer certificate"), "{refusal}");
    }
}

#[tokio::test]
async fn a_server_that_asks_who_we_are_is_shown_our_certificate() {
    let guarded = Guarded::start("yes");
    let builder = || guarded.builder().tls_roots(guarded.authority.pem());
    let (chain, key) = identity(&guarded.authority, "app");
    let store = builder().tls_identity(chain, key).connect().await.unwrap();
    store.check().await.unwrap();
    let (chain, key) = identity(&authority(), "app");
    refusal(builder().tls_identity(chain, key)).await;
    refusal(builder()).await;
}

#[test]
fn certificates_for_a_server_without_tls_are_refused() {
    for url in [
        "redis://localhost",
        "redis+cluster://localhost",
        "redis+sentinel://localhost/cache",
        "redis+unix:///redis.sock",
    ] {
        let builder = || RedisStore::builder(url);
        for builder in [
            builder().tls_roots("any"),
            builder().tls_identity("any", "any"),
        ] {
            let error = builder.connect_lazily().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains("not one of TLS"), "{error}");
        }
    }
}

#[tokio::test]
async fn what_is_no_certificate_or_key_is_refused_and_not_shown() {
    let guarded = Guarded::start("no");
    let (chain, key) = identity(&guarded.authority, "app");
    let other = KeyPair::generate().unwrap().serialize_pem();
    let builder = || guarded.builder().tls_roots(guarded.authority.pem());
    for (builder, what) in [
        (builder().tls_roots("s3cret"), "a trusted authority"),
        (
            builder().tls_identity("s3cret", key.as_str()),
            "the client certificate",
        ),
        (
            builder().tls_identity(chain.as_str(), "s3cret"),
            "the client key",
        ),
        (
            builder().tls_identity(chain.as_str(), other),
            "the client certificate",
        ),
    ] {
        assert!(!format!("{builder:?}").contains("s3cret"));
        let error = builder.connect_lazily().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().starts_with(what), "{error}");
        assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
    }
}
