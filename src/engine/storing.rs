//! What is on its way into the store.
//!
//! Nobody waits for a response to be stored. But who asks for it again must find it: a client that
//! has read its answer to the end may ask before the store has it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::key::PrimaryKey;

/// How long a look-up waits, at most. A store that takes longer may as well have failed.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);

/// The keys under which responses are being stored, each with the last of them.
#[derive(Debug, Default)]
pub(super) struct Storing(Mutex<HashMap<PrimaryKey, CancellationToken>>);

impl Storing {
    /// Has look-ups of this key wait until what is returned is dropped.
    pub(super) fn begin(self: &Arc<Self>, key: PrimaryKey) -> BeingStored {
        let ended = CancellationToken::new();
        self.0.lock().insert(key.clone(), ended.clone());
        BeingStored {
            all: Arc::clone(self),
            key,
            ended,
        }
    }

    /// Whether a response is being stored under this key.
    pub(super) fn holds(&self, key: &PrimaryKey) -> bool {
        self.0.lock().contains_key(key)
    }

    /// Waits until nothing is being stored under this key any more, or that takes too long.
    pub(super) async fn end(&self, key: &PrimaryKey) {
        let ended = self.0.lock().get(key).cloned();
        if let Some(ended) = ended {
            let _ = timeout(PATIENCE, ended.cancelled()).await;
        }
    }
}

/// A response that is being stored.
#[derive(Debug)]
pub(super) struct BeingStored {
    all: Arc<Storing>,
    key: PrimaryKey,
    ended: CancellationToken,
}

impl Drop for BeingStored {
    fn drop(&mut self) {
        self.ended.cancel();
        let mut all = self.all.0.lock();
        // A later one may have taken its place.
        if all
            .get(&self.key)
            .is_some_and(CancellationToken::is_cancelled)
        {
            all.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method, Uri};
    use tokio::time::Instant;

    use super::*;
    use crate::key::{KeySpec, Namespace};

    fn key(path: &'static str) -> PrimaryKey {
        let (namespace, spec) = (Namespace::default(), KeySpec::default());
        let uri = Uri::from_static(path);
        PrimaryKey::new(&namespace, &spec, &Method::GET, &uri, &HeaderMap::new()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_up_waits_for_what_is_being_stored_under_its_key_and_not_for_ever() {
        let storing = Arc::new(Storing::default());
        let (first, second) = (storing.begin(key("/a")), storing.begin(key("/a")));
        let start = Instant::now();
        storing.end(&key("/b")).await;
        assert!(storing.holds(&key("/a")) && !storing.holds(&key("/b")));
        assert_eq!(start.elapsed(), Duration::ZERO);
        drop(first);
        storing.end(&key("/a")).await;
        assert_eq!(start.elapsed(), PATIENCE, "the second goes on");

        let waiting = tokio::spawn({
            let storing = Arc::clone(&storing);
            async move { storing.end(&key("/a")).await }
        });
        tokio::task::yield_now().await;
        drop(second);
        waiting.await.unwrap();
        assert_eq!(start.elapsed(), PATIENCE);
        assert!(!storing.holds(&key("/a")));
    }
}
