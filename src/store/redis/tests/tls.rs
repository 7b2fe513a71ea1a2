//! Over TLS the store is the same, and speaks to nobody whom it does not trust.

use std::error::Error as _;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
};
use tempfile::TempDir;

use super::*;
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
        let (chain, key) = identity(&authority, "localhost");
        let file = |name: &str, content: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, content).unwrap();
            text(&path)
        };
        let (cert, key) = (file("cert", &chain), file("key", &key));
        let ca = file("ca", &authority.pem());
        let port = free_port();
        let redis = RedisServer::with_args(&[
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            &cert,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &ca,
            "--tls-auth-clients",
            asks_for_certificates,
        ]);
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

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
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
