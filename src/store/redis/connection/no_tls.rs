//! In place of TLS where it is not built in.

use std::convert::Infallible;
use std::io;

use crate::error::{Error, ErrorKind};

/// There is nothing to choose.
#[derive(Clone, Default)]
pub(crate) struct TlsOptions;

impl TlsOptions {
    pub(super) fn are_given(&self) -> bool {
        false
    }
}

/// There is none.
#[derive(Clone, Debug)]
pub(crate) struct Tls(Infallible);

impl Tls {
    /// Says how there can be TLS.
    ///
    /// # Errors
    ///
    /// Always.
    pub(crate) fn new(_: &TlsOptions) -> Result<Self, Error> {
        let message = "TLS to Redis is not built in: switch on the feature `redis-tls`";
        Err(Error::new(ErrorKind::Invalid, message))
    }

    pub(super) async fn wrap<S>(&self, _: &str, _: S) -> io::Result<S> {
        match self.0 {}
    }
}
