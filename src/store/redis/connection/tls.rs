//! TLS, with rustls and the cryptography of `ring`.

use std::fmt;
use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::error::{Error, ErrorKind};

/// Whom to trust, and who we are, in PEM.
#[derive(Clone, Default)]
pub(crate) struct TlsOptions {
    /// The authorities that are trusted; those of the system if there are none.
    pub(crate) roots: Option<Vec<u8>>,
    /// A chain of certificates, our own first, and its key.
    pub(crate) identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl TlsOptions {
    /// Whether anything was chosen, so that there has to be TLS.
    pub(super) fn are_given(&self) -> bool {
        self.roots.is_some() || self.identity.is_some()
    }
}

/// Makes connections private, and makes sure who is at their other end.
#[derive(Clone)]
pub(crate) struct Tls(TlsConnector);

impl Tls {
    /// Reads certificates and keys.
    ///
    /// # Errors
    ///
    /// When they are none, do not fit each other, or nobody is trusted.
    pub(crate) fn new(options: &TlsOptions) -> Result<Self, Error> {
        let roots = match &options.roots {
            Some(pem) => given_roots(pem),
            None => system_roots(),
        }?;
        // The application's own choice counts; without one, the default would panic.
        let provider = match CryptoProvider::get_default() {
            Some(provider) => Arc::clone(provider),
            None => Arc::new(ring::default_provider()),
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong("the cryptography", error))?
            .with_root_certificates(roots);
        let config = match &options.identity {
            None => config.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = certificates(chain).map_err(|e| wrong("the client certificate", e))?;
                let key = PrivateKeyDer::from_pem_slice(key)
                    .map_err(|error| wrong("the client key", error))?;
                config
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| wrong("the client certificate", error))?
            }
        };
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Agrees with the server at `host` on how to go on.
    pub(super) async fn wrap<S>(&self, host: &str, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        self.0.connect(name, stream).await
    }
}

fn given_roots(pem: &[u8]) -> Result<RootCertStore, Error> {
    let roots = certificates(pem).and_then(|certificates| {
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            roots.add(certificate).map_err(invalid)?;
        }
        Ok(roots)
    });
    roots.map_err(|error| wrong("a trusted authority", error))
}

fn system_roots() -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    // A system has certificates that rustls cannot read; they do not matter unless they are needed.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let message = "the system trusts no certificate authority; name one for TLS to Redis";
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    Ok(roots)
}

fn certificates(pem: &[u8]) -> io::Result<Vec<CertificateDer<'static>>> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, pem::Error>>()
        .map_err(invalid)?;
    match certificates.is_empty() {
        true => Err(invalid("there is no certificate in the PEM")),
        false => Ok(certificates),
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn wrong(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    let message = format!("{what} for TLS to Redis is not usable");
    Error::new(ErrorKind::Invalid, message).with_source(error)
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}
