//! What an application keeps of its cache.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;

use crate::engine::Engine;
use crate::epoch::Scope;
use crate::error::{Error, ErrorKind};
use crate::invalidation::Invalidated;
use crate::key::decoded_path;
use crate::metrics::Snapshot;
use crate::rules::WriteTarget;
use crate::store::StoreHealth;

/// A handle to a cache: invalidates, counts, checks and shuts down.
///
/// Cheap to clone; all clones, and the layer it was taken from, mean the same cache.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "memory")]
/// # async fn example() -> Result<(), tower_response_cache::Error> {
/// use tower_response_cache::{CacheLayer, Invalidated, MemoryStore, Target};
///
/// let cache = CacheLayer::new(MemoryStore::new(64 << 20));
/// let handle = cache.handle();
/// // After the price list has been committed to the database:
/// let outcome = handle.invalidate(Target::tag("prices")).await?;
/// assert_eq!(outcome, Invalidated::Applied);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct CacheHandle {
    engine: Arc<Engine>,
}

/// How a cache is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// How its store is doing.
    pub store: StoreHealth,
    /// How many scopes the store has not been told of yet; see [`Invalidated::Queued`].
    pub invalidations_pending: usize,
}

/// What is to be invalidated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Uri(String),
    Pattern(String, Vec<(String, String)>),
    Tag(String),
    Everything,
}

impl Target {
    /// One URI, absolute or only its path: on all hosts, with all queries and variants, however its
    /// path is percent-encoded.
    pub fn uri(uri: impl Into<String>) -> Self {
        Self(Kind::Uri(uri.into()))
    }

    /// All that was stored by the rule of a route pattern.
    ///
    /// With all its parameters [bound](Self::bind), it is the one path that they make.
    pub fn pattern(pattern: impl Into<String>) -> Self {
        Self(Kind::Pattern(pattern.into(), Vec::new()))
    }

    /// Gives a parameter of the pattern its value, not percent-encoded.
    #[must_use]
    pub fn bind(mut self, name: impl Into<String>, value: impl fmt::Display) -> Self {
        if let Kind::Pattern(_, bindings) = &mut self.0 {
            bindings.push((name.into(), format!("{value}")));
        }
        self
    }

    /// All responses with this tag, be it of a rule or of a handler.
    pub fn tag(tag: impl Into<String>) -> Self {
        Self(Kind::Tag(tag.into()))
    }

    /// All that is stored in the namespace.
    pub fn everything() -> Self {
        Self(Kind::Everything)
    }
}

impl CacheHandle {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }

    /// Invalidates what was stored, and what handlers are about to make of data they have read
    /// already: call it after the change has been committed.
    ///
    /// From the call on this process serves nothing older. [`Invalidated`] says whether other
    /// processes know.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if the URI is none, or no cached route has the pattern or parameter;
    /// nothing is invalidated then.
    pub async fn invalidate(&self, target: Target) -> Result<Invalidated, Error> {
        let scope = self.scope(&target)?;
        Ok(self.engine.invalidate(&[scope]).await)
    }

    /// Waits until no process serves any more what was invalidated before the call.
    ///
    /// That takes until the store knows, be it away or not, and for as long as other processes may
    /// then go on believing what they have read. Over Redis that is two seconds, be there memory over
    /// it or not, the time of [`Mirroring::Poll`](crate::Mirroring::Poll), or none with
    /// [`Off`](crate::Mirroring::Off); behind Sentinels two seconds more, of which tracking takes
    /// one; and longer where [`WhenAway`](crate::WhenAway) allows it to a process that is cut off.
    /// All processes are taken to be set up as this one is. What Redis itself may forget is not
    /// waited for: [`Invalidated`] lists it; nor is a process that is cut off together with a former
    /// primary of a cluster, which may be longer in noticing.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime, if there is something to wait for.
    pub async fn barrier(&self) {
        self.engine.barrier().await;
    }

    /// Reads all counters.
    pub fn stats(&self) -> Snapshot {
        self.engine.stats()
    }

    /// Returns how the cache is doing, without asking the store.
    ///
    /// A cache whose store is away answers all requests all the same, so this is for dashboards
    /// rather than for taking the process out of service.
    pub fn health(&self) -> Health {
        Health {
            store: self.engine.store().health(),
            invalidations_pending: self.engine.invalidations_pending(),
        }
    }

    /// Makes sure that the store answers.
    ///
    /// # Errors
    ///
    /// When it does not, saying why.
    pub async fn check(&self) -> Result<(), Error> {
        self.engine.store().check().await
    }

    /// Finishes what is being stored and refreshed, and closes the store: without its connections
    /// it finds nothing more, and requests pass through.
    ///
    /// Returns whether everything was finished within `limit`; what was not is ended then. A call of
    /// the handler that a client waits for goes on.
    pub async fn shutdown(&self, limit: Duration) -> bool {
        self.engine.shutdown(limit).await
    }

    fn scope(&self, target: &Target) -> Result<Scope, Error> {
        let namespace = self.engine.options.namespace.as_str();
        let invalid = |message: String| Error::new(ErrorKind::Invalid, message);
        Ok(match &target.0 {
            Kind::Everything => Scope::namespace(namespace),
            Kind::Tag(tag) if tag.is_empty() => {
                return Err(invalid("an empty tag: no response can have it".to_owned()));
            }
            Kind::Tag(tag) => Scope::tag(namespace, tag.as_bytes()),
            Kind::Uri(text) => {
                let uri = text
                    .parse::<Uri>()
                    .ok()
                    .filter(|uri| uri.path().starts_with('/'));
                let uri = uri.ok_or_else(|| {
                    invalid(format!(
                        "`{text:.200}` is no URI: give a path like `/products/42`, or http://…"
                    ))
                })?;
                Scope::path(namespace, &decoded_path(uri.path()))
            }
            Kind::Pattern(pattern, bindings) => {
                let bindings: Vec<(&str, &str)> = bindings
                    .iter()
                    .map(|(name, value)| (&**name, &**value))
                    .collect();
                let rules = &self.engine.options.rules;
                match rules
                    .pattern(pattern, &bindings)
                    .map_err(|error| invalid(error.to_string()))?
                {
                    WriteTarget::Path(path) => Scope::path(namespace, &path),
                    WriteTarget::Pattern(pattern) => Scope::route(namespace, &pattern),
                }
            }
        })
    }
}
