//! Interim responses for all who wait for the same final one (RFC 9110 §15.2).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use http::header::SET_COOKIE;
use http::{Extensions, Response};
use parking_lot::Mutex;

use super::Forward;
use crate::extension::OnInterim;

/// So many are remembered for those who join late; hints come early.
const MAX_PASSED: usize = 8;

/// What is told of one request, and who listens.
///
/// No hook is called, or dropped, under the lock: it is the application's.
#[derive(Default)]
pub(super) struct Interims(Mutex<Audience>);

#[derive(Default)]
struct Audience {
    passed: Vec<Response<()>>,
    listeners: BTreeMap<u64, OnInterim>,
    /// How many have ever listened.
    numbered: u64,
}

/// Listens until it is dropped.
#[derive(Debug)]
pub(super) struct Listener {
    interims: Arc<Interims>,
    number: u64,
}

impl Interims {
    /// Has `hook` hear what comes, and first what has passed.
    fn listen(self: &Arc<Self>, hook: &OnInterim) -> Listener {
        let (number, passed) = {
            let mut audience = self.0.lock();
            audience.numbered = audience.numbered.wrapping_add(1);
            let number = audience.numbered;
            audience.listeners.insert(number, hook.clone());
            (number, audience.passed.clone())
        };
        let listener = Listener {
            interims: Arc::clone(self),
            number,
        };
        passed.iter().for_each(|interim| hook.call(interim));
        listener
    }

    /// Tells all of an interim response, but for cookies: the final one may prove to be for one.
    fn tell(&self, interim: &Response<()>) {
        let mut shared = Response::new(());
        *shared.status_mut() = interim.status();
        *shared.headers_mut() = interim.headers().clone();
        shared.headers_mut().remove(SET_COOKIE);
        let listeners: Vec<OnInterim> = {
            let mut audience = self.0.lock();
            if audience.passed.len() < MAX_PASSED {
                audience.passed.push(shared.clone());
            }
            audience.listeners.values().cloned().collect()
        };
        listeners.iter().for_each(|hook| hook.call(&shared));
    }
}

impl Forward {
    /// Has the client of this request hear what is told of the one that it waits for, or leads.
    pub(super) fn listen(&mut self, interims: Option<&Arc<Interims>>) {
        let hook = self.exchange.on_interim.clone();
        self.listener = interims
            .zip(hook)
            .map(|(interims, hook)| interims.listen(&hook));
    }

    /// Has all who wait hear what is told of this request; of one that only renews what is stored,
    /// nobody else.
    pub(crate) fn share_interims(&self, extensions: &mut Extensions) {
        let shared = self.lead.as_ref().and_then(|lead| lead.interims());
        if let Some(interims) = shared.map(Arc::clone) {
            extensions.insert(OnInterim::new(move |interim| interims.tell(interim)));
        } else if self.refreshing.is_some() {
            extensions.remove::<OnInterim>();
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let hook = self.interims.0.lock().listeners.remove(&self.number);
        drop(hook);
    }
}

impl fmt::Debug for Interims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interims").finish_non_exhaustive()
    }
}
