//! Requests that may change what is stored (RFC 9111 §4.4).

use std::sync::Arc;

use http::response::Parts;
use http::{Method, Request, Uri};

use super::forward::Nominated;
use super::tasks::within;
use super::{Arrived, Engine, Exchange, Forward, Recorder};
use crate::epoch::{Captured, Scope};
use crate::extension::Told;
use crate::key::{authority, decoded_path};
use crate::reason::Miss;
use crate::rules::WriteTarget;
use crate::semantics::cache_status::Fwd;
use crate::semantics::uri::Target;
use crate::semantics::{groups, invalidation};

/// A request with an unsafe method, on its way to the handler and back.
///
/// Dropped before the handler has answered, it invalidates what a success would have: the handler
/// may have done its work before it failed or its client went away. Dropped before the store has
/// forgotten what the answer invalidates, it leaves that to be done in the background.
#[derive(Debug)]
pub(crate) struct Write {
    engine: Arc<Engine>,
    method: Method,
    uri: Uri,
    authority: Option<Vec<u8>>,
    /// The scope of the target URI.
    path: Scope,
    /// What a success invalidates whatever its answer says; emptied once that is known.
    scopes: Vec<Scope>,
    /// What becomes of an answer that serves later GETs (RFC 9110 §9.3.3).
    read: Option<Box<Forward>>,
}

impl Write {
    /// Takes a write up, with the GET whose later requests its answer may serve.
    pub(super) fn new<B>(
        engine: &Arc<Engine>,
        request: &Request<B>,
        read: Option<Box<Exchange>>,
    ) -> Self {
        let namespace = engine.options.namespace.as_str();
        let path = request.uri().path();
        let own = Scope::path(namespace, &decoded_path(path));
        let targets = engine
            .options
            .rules
            .written(path)
            .into_iter()
            .map(|target| match target {
                WriteTarget::Path(path) => Scope::path(namespace, &path),
                WriteTarget::Pattern(pattern) => Scope::route(namespace, &pattern),
            });
        let authority = authority(request.uri(), request.headers()).ok().flatten();
        let read = read.map(|exchange| {
            let mut read = Forward::new(exchange, Miss::Method, Nominated::new(), None, None);
            read.client = request.headers().clone();
            Box::new(read)
        });
        Self {
            path: own,
            scopes: std::iter::once(own).chain(targets).collect(),
            read,
            authority: authority.map(<[u8]>::to_vec),
            method: request.method().clone(),
            uri: request.uri().clone(),
            engine: Arc::clone(engine),
        }
    }

    /// Notes what the answer would stand under; to be called before the handler is.
    pub(crate) async fn prepare(&mut self) {
        if let Some(read) = &mut self.read {
            read.captured = read.exchange.capture().await;
        }
    }

    /// Invalidates what the handler's answer makes stale, before anybody can have read it, and
    /// returns what records an answer, of at least so many bytes, that serves later GETs.
    pub(crate) async fn answered(mut self, head: &mut Parts, least: u64) -> Option<Recorder> {
        let mut read = self.read.take().filter(|_| {
            head.status.is_success() && invalidation::represents(self.target(), &head.headers)
        });
        let captured = read.as_mut().and_then(|read| read.captured.take());
        let limit = self.engine.options.invalidation_wait;
        let renewed = match within(limit, self.invalidate(head, captured)).await {
            Some(renewed) => {
                // From here on nothing is left to be done in the background.
                self.scopes.clear();
                renewed
            }
            None => {
                tracing::warn!(?limit, "an answer does not wait for what it invalidates");
                None
            }
        };
        if let (Some(mut read), Some(renewed)) = (read, renewed) {
            read.captured = Some(renewed);
            return match read.arrived(head, least, None::<()>) {
                Arrived::Record(recorder, _) => Some(recorder),
                _ => None,
            };
        }
        Told::take(&mut head.extensions);
        self.engine
            .sign_passed(&mut head.headers, Fwd::Method, None);
        None
    }

    /// Invalidates as the answer's head demands, and brings what was captured for the answer past
    /// that, unless another invalidation has come between.
    async fn invalidate(&mut self, head: &Parts, captured: Option<Captured>) -> Option<Captured> {
        if !invalidation::invalidates(&self.method, head.status) {
            return None;
        }
        let named = self.named_by(head);
        self.scopes.extend(named);
        let mut scopes = self.scopes.clone();
        scopes.retain(|scope| captured.is_none() || *scope != self.path);
        let outcome = self.engine.invalidate(&scopes).await;
        tracing::debug!(scopes = scopes.len(), ?outcome, "invalidated by a write");
        self.engine.renew(self.path, captured?).await
    }

    /// Returns the scopes that only the answer names: URIs of the same origin, and groups.
    fn named_by(&self, head: &Parts) -> Vec<Scope> {
        let namespace = self.engine.options.namespace.as_str();
        let uris = invalidation::named_by(self.target(), &head.headers);
        let groups = groups::invalidated_by(&self.method, head.status, &head.headers);
        // Those of its own origin, and of what all hosts share.
        let scheme = self.uri.scheme_str().unwrap_or("http").as_bytes();
        let own = self.authority.as_deref().unwrap_or_default();
        let groups = groups.iter().flat_map(|group| {
            [own, b""].map(|host| Scope::group(namespace, (scheme, host), group))
        });
        uris.map(|uri| Scope::path(namespace, &decoded_path(uri.path())))
            .chain(groups)
            .collect()
    }

    fn target(&self) -> Target<'_> {
        Target {
            scheme: self.uri.scheme_str(),
            authority: self.authority.as_deref(),
            path: self.uri.path(),
            query: self.uri.query(),
        }
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        let scopes = std::mem::take(&mut self.scopes);
        if !scopes.is_empty() {
            let engine = Arc::clone(&self.engine);
            self.engine.tasks.finish(async move {
                let _ = engine.invalidate(&scopes).await;
            });
        }
    }
}
