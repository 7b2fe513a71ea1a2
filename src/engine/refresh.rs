//! Refreshing what was served stale, once for each key.

use std::collections::HashSet;
use std::sync::Arc;

use http::HeaderMap;
use http::header::{
    AUTHORIZATION, COOKIE, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, PROXY_AUTHORIZATION, RANGE,
};
use parking_lot::Mutex;

use crate::key::{KeySpec, PrimaryKey};

/// More refreshes than these at a time are left to later requests.
const MAX_REFRESHES: usize = 64;

/// The keys that are being refreshed.
#[derive(Debug, Default)]
pub(super) struct Refreshes(Mutex<HashSet<PrimaryKey>>);

/// The right to refresh a key; dropped, it goes to whoever asks next.
#[derive(Debug)]
pub(crate) struct Refreshing {
    key: PrimaryKey,
    refreshes: Arc<Refreshes>,
}

impl Refreshes {
    /// Begins to refresh a key, unless that is under way or too many others are.
    pub(super) fn begin(self: &Arc<Self>, key: &PrimaryKey) -> Option<Refreshing> {
        let mut keys = self.0.lock();
        if keys.len() >= MAX_REFRESHES || !keys.insert(key.clone()) {
            return None;
        }
        Some(Refreshing {
            key: key.clone(),
            refreshes: Arc::clone(self),
        })
    }
}

impl Drop for Refreshing {
    fn drop(&mut self) {
        self.refreshes.0.lock().remove(&self.key);
    }
}

/// Takes out of a request what is its sender's alone: a refresh is for everybody.
pub(super) fn anonymise(request: &mut HeaderMap, spec: &KeySpec) {
    for name in [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION] {
        if !spec.covers_field(name.as_str()) && (name != COOKIE || spec.cookies.is_empty()) {
            request.remove(name);
        }
    }
    for name in [IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, RANGE] {
        request.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, Uri};

    use super::*;
    use crate::key::Namespace;

    fn key(uri: &'static str) -> PrimaryKey {
        let uri = Uri::from_static(uri);
        PrimaryKey::new(
            &Namespace::default(),
            &KeySpec::default(),
            &Method::GET,
            &uri,
            &HeaderMap::new(),
        )
        .unwrap()
    }

    #[test]
    fn a_key_is_refreshed_by_one_at_a_time() {
        let refreshes = Arc::new(Refreshes::default());
        let first = refreshes.begin(&key("/a"));
        assert!(first.is_some());
        assert!(refreshes.begin(&key("/a")).is_none());
        assert!(refreshes.begin(&key("/b")).is_some());
        drop(first);
        assert!(refreshes.begin(&key("/a")).is_some());
    }

    #[test]
    fn refreshes_are_bounded() {
        let refreshes = Arc::new(Refreshes::default());
        let held: Vec<_> = (0..MAX_REFRESHES)
            .map(|n| {
                let uri: Uri = format!("/{n}").parse().unwrap();
                let spec = KeySpec::default();
                let fields = HeaderMap::new();
                PrimaryKey::new(&Namespace::default(), &spec, &Method::GET, &uri, &fields).unwrap()
            })
            .map(|key| refreshes.begin(&key).unwrap())
            .collect();
        assert!(refreshes.begin(&key("/one-more")).is_none());
        drop(held);
        assert!(refreshes.begin(&key("/one-more")).is_some());
    }

    #[test]
    fn what_is_the_senders_alone_is_not_sent() {
        let mut request = HeaderMap::new();
        for name in [AUTHORIZATION, COOKIE, RANGE, IF_NONE_MATCH] {
            request.insert(name, "x".parse().unwrap());
        }
        request.insert("x-tenant", "7".parse().unwrap());
        let spec = KeySpec {
            cookies: vec!["lang".into()],
            ..KeySpec::default()
        };
        anonymise(&mut request, &spec);
        let left: Vec<_> = request.keys().map(http::HeaderName::as_str).collect();
        assert_eq!(left.len(), 2);
        assert!(
            left.contains(&"cookie") && left.contains(&"x-tenant"),
            "{left:?}"
        );
    }
}
