//! Requests that may change what is stored (RFC 9111 §4.4).

use std::sync::Arc;

use http::response::Parts;
use http::{Method, Request, Uri};

use super::Engine;
use crate::epoch::Scope;
use crate::extension::Told;
use crate::key::{authority, decoded_path};
use crate::rules::WriteTarget;
use crate::semantics::cache_status::Fwd;
use crate::semantics::uri::Target;
use crate::semantics::{groups, invalidation};

/// A request with an unsafe method, on its way to the handler and back.
///
/// Dropped before the handler has answered, it invalidates what a success would have: the handler
/// may have done its work before it failed or its client went away.
#[derive(Debug)]
pub(crate) struct Write {
    engine: Arc<Engine>,
    method: Method,
    uri: Uri,
    authority: Option<Vec<u8>>,
    /// What a success invalidates whatever its answer says; emptied once that is known.
    scopes: Vec<Scope>,
}

impl Write {
    pub(super) fn new<B>(engine: &Arc<Engine>, request: &Request<B>) -> Self {
        let namespace = engine.options.namespace.as_str();
        let path = request.uri().path();
        let targets = engine
            .options
            .rules
            .written(path)
            .into_iter()
            .map(|target| match target {
                WriteTarget::Path(path) => Scope::path(namespace, &path),
                WriteTarget::Pattern(pattern) => Scope::route(namespace, &pattern),
            });
        let scopes = std::iter::once(Scope::path(namespace, &decoded_path(path))).chain(targets);
        let authority = authority(request.uri(), request.headers()).ok().flatten();
        Self {
            scopes: scopes.collect(),
            authority: authority.map(<[u8]>::to_vec),
            method: request.method().clone(),
            uri: request.uri().clone(),
            engine: Arc::clone(engine),
        }
    }

    /// Invalidates what the handler's answer makes stale, before anybody can have read it.
    pub(crate) async fn answered(mut self, head: &mut Parts) {
        Told::take(&mut head.extensions);
        self.engine
            .sign_passed(&mut head.headers, Fwd::Method, None);
        if !invalidation::invalidates(&self.method, head.status) {
            self.scopes.clear();
            return;
        }
        let named = self.named_by(head);
        self.scopes.extend(named);
        // Cleared when done: dropped at the await, the rest is done in the background.
        let outcome = self.engine.invalidate(&self.scopes).await;
        tracing::debug!(
            scopes = self.scopes.len(),
            ?outcome,
            "invalidated by a write"
        );
        self.scopes.clear();
    }

    /// Returns the scopes that only the answer names: URIs of the same origin, and groups.
    fn named_by(&self, head: &Parts) -> Vec<Scope> {
        let namespace = self.engine.options.namespace.as_str();
        let target = Target {
            scheme: self.uri.scheme_str(),
            authority: self.authority.as_deref(),
            path: self.uri.path(),
            query: self.uri.query(),
        };
        let uris = invalidation::named_by(target, &head.headers);
        let groups = groups::invalidated_by(&self.method, head.status, &head.headers);
        uris.map(|uri| Scope::path(namespace, &decoded_path(uri.path())))
            .chain(
                groups
                    .iter()
                    .map(|group| Scope::tag(namespace, group.as_bytes())),
            )
            .collect()
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
