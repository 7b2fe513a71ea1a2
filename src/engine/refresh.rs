//! Refreshing what was served, once for each key: what is stale, and what soon will be.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{
    AUTHORIZATION, COOKIE, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, PROXY_AUTHORIZATION, RANGE,
};
use http::{HeaderMap, HeaderName};
use parking_lot::Mutex;

use crate::clock::Clock;
use crate::entry::StoredResponse;
use crate::key::{KeySpec, PrimaryKey};

/// More refreshes than these at a time are left to later requests.
const MAX_REFRESHES: usize = 64;
/// Of so many keys it is remembered that their refresh has failed.
const MAX_RESTING: usize = 4096;
/// How long a key rests whose refresh has failed once; twice as long after each further time.
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);

/// The keys that are being refreshed, and those whose last refresh has failed.
#[derive(Debug)]
pub(super) struct Refreshes {
    clock: Clock,
    keys: Mutex<Keys>,
}

#[derive(Debug, Default)]
struct Keys {
    under_way: HashSet<PrimaryKey>,
    resting: HashMap<PrimaryKey, Rest>,
}

/// After a failure.
#[derive(Clone, Copy, Debug)]
struct Rest {
    length: Duration,
    until: Instant,
}

/// The right to refresh a key. Once its request has [departed](Self::departed), the key is left
/// alone for a while unless it [succeeds](Self::succeeded).
#[derive(Debug)]
pub(crate) struct Refreshing {
    key: PrimaryKey,
    refreshes: Arc<Refreshes>,
    failed: bool,
}

impl Refreshes {
    pub(super) fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            clock,
            keys: Mutex::default(),
        })
    }

    /// Begins to refresh a key, unless that is under way, or too many others are, or it has failed
    /// a moment ago.
    pub(super) fn begin(self: &Arc<Self>, key: &PrimaryKey) -> Option<Refreshing> {
        let mut keys = self.keys.lock();
        let rest = keys.resting.get(key);
        if rest.is_some_and(|rest| self.clock.now() < rest.until)
            || keys.under_way.len() >= MAX_REFRESHES
            || !keys.under_way.insert(key.clone())
        {
            return None;
        }
        Some(Refreshing {
            key: key.clone(),
            refreshes: Arc::clone(self),
            failed: false,
        })
    }
}

impl Refreshing {
    /// Counts the refresh as failed from now on, until it succeeds.
    pub(super) fn departed(mut self) -> Self {
        self.failed = true;
        self
    }

    /// Ends the refresh, because what it has brought is stored, or because others refresh the key.
    pub(super) fn succeeded(mut self) {
        self.failed = false;
    }
}

impl Drop for Refreshing {
    fn drop(&mut self) {
        let now = self.refreshes.clock.now();
        let mut keys = self.refreshes.keys.lock();
        keys.under_way.remove(&self.key);
        let rest = keys.resting.remove(&self.key);
        if !self.failed {
            return;
        }
        if keys.resting.len() >= MAX_RESTING {
            keys.resting.retain(|_, rest| now < rest.until);
        }
        if keys.resting.len() < MAX_RESTING {
            let length = rest.map_or(FIRST_REST, |rest| rest.length.saturating_mul(2));
            let length = length.min(LONGEST_REST);
            let until = now + length;
            keys.resting
                .insert(self.key.clone(), Rest { length, until });
        }
    }
}

/// Whether a request refreshes what stays fresh for `rest`, in the `window` before it grows stale.
///
/// The chance is e⁻⁴, about one in fifty, when the window begins, and grows to one: of many
/// requests one soon does it, of few perhaps none, and processes draw for themselves.
pub(super) fn is_due_ahead(window: Duration, rest: Duration) -> bool {
    if rest >= window {
        return false;
    }
    let chance = (-4.0 * rest.as_secs_f64() / window.as_secs_f64()).exp();
    let drawn = getrandom::u32().unwrap_or(u32::MAX);
    f64::from(drawn) / f64::from(u32::MAX) < chance
}

/// Who asks.
static IDENTITY: [HeaderName; 3] = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION];
/// What its sender has, and how much it wants.
static WISHES: [HeaderName; 4] = [IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, RANGE];

/// Takes out of a request what is its sender's alone: a refresh is for everybody.
pub(super) fn anonymise(request: &mut HeaderMap, spec: &KeySpec) {
    let cookies = spec.cookies_in_key(request);
    for name in &IDENTITY {
        if !spec.covers_field(name.as_str()) {
            request.remove(name);
        }
    }
    if let Some(cookies) = cookies {
        request.insert(COOKIE, cookies);
    }
    for name in &WISHES {
        request.remove(name);
    }
}

/// Whether a request that has selected a response selects it also without what is its sender's
/// alone.
pub(super) fn is_for_others(stored: &StoredResponse, request: &HeaderMap, spec: &KeySpec) -> bool {
    let names = stored.variant.vary.fields().unwrap_or_default();
    let is_own = |name: &HeaderName| IDENTITY.contains(name) || WISHES.contains(name);
    if !names.iter().any(is_own) {
        return true;
    }
    let mut anonymous = request.clone();
    anonymise(&mut anonymous, spec);
    StoredResponse::select(std::iter::once(stored), &anonymous).is_some()
}

#[cfg(test)]
mod tests {
    use http::{Method, Uri};

    use super::*;
    use crate::clock::ManualClock;
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

    fn refreshes() -> (ManualClock, Arc<Refreshes>) {
        let clock = ManualClock::new();
        (clock.clone(), Refreshes::new(clock.clock()))
    }

    #[test]
    fn a_key_is_refreshed_by_one_at_a_time() {
        let (_, refreshes) = refreshes();
        let first = refreshes.begin(&key("/a"));
        assert!(refreshes.begin(&key("/a")).is_none());
        assert!(refreshes.begin(&key("/b")).is_some());
        first.unwrap().succeeded();
        assert!(refreshes.begin(&key("/a")).is_some());
    }

    #[test]
    fn a_key_rests_the_longer_the_more_often_its_refresh_fails() {
        let (clock, refreshes) = refreshes();
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            drop(refreshes.begin(&key("/a")).unwrap().departed());
            clock.advance(Duration::from_millis(seconds * 1000 - 1));
            assert!(refreshes.begin(&key("/a")).is_none(), "{seconds} s");
            clock.advance(Duration::from_millis(1));
        }
        refreshes.begin(&key("/a")).unwrap().succeeded();
        drop(refreshes.begin(&key("/a")).unwrap().departed());
        clock.advance(FIRST_REST);
        assert!(refreshes.begin(&key("/a")).is_some());
    }

    #[test]
    fn refreshes_and_rests_are_bounded() {
        let (_, refreshes) = refreshes();
        let numbered = |n: usize| {
            let uri: Uri = format!("/{n}").parse().unwrap();
            let (spec, fields) = (KeySpec::default(), HeaderMap::new());
            PrimaryKey::new(&Namespace::default(), &spec, &Method::GET, &uri, &fields).unwrap()
        };
        let held: Vec<_> = (0..MAX_REFRESHES)
            .map(|n| refreshes.begin(&numbered(n)).unwrap().departed())
            .collect();
        assert!(refreshes.begin(&key("/one-more")).is_none());
        drop(held);
        for n in MAX_REFRESHES..2 * MAX_RESTING {
            drop(refreshes.begin(&numbered(n)).map(Refreshing::departed));
        }
        assert_eq!(refreshes.keys.lock().resting.len(), MAX_RESTING);
    }

    #[test]
    fn the_chance_of_a_refresh_ahead_grows_from_none_to_certainty() {
        let window = Duration::from_secs(10);
        let times = |rest: u64| {
            let is_due = |_: &u32| is_due_ahead(window, Duration::from_millis(rest));
            (0..10_000).filter(is_due).count()
        };
        assert_eq!(times(10_000), 0);
        let (early, middle) = (times(9_999), times(5_000));
        // 183 and 1353 of 10,000 on average; these are more than five standard deviations off.
        assert!((100..270).contains(&early), "{early}");
        assert!((1_150..1_550).contains(&middle), "{middle}");
        assert!(times(0) > 9_990);
    }

    #[test]
    fn what_is_the_senders_alone_is_not_sent() {
        let mut request = HeaderMap::new();
        for name in [AUTHORIZATION, COOKIE, RANGE, IF_NONE_MATCH] {
            request.insert(name, "x".parse().unwrap());
        }
        request.insert("x-tenant", "7".parse().unwrap());
        request.insert(COOKIE, "sid=1; lang=de; x=lang".parse().unwrap());
        let spec = KeySpec {
            cookies: vec!["lang".into()],
            ..KeySpec::default()
        };
        anonymise(&mut request, &spec);
        assert_eq!(request[COOKIE], "lang=de");
        let left: Vec<_> = request.keys().map(http::HeaderName::as_str).collect();
        assert_eq!(left.len(), 2);
        assert!(
            left.contains(&"cookie") && left.contains(&"x-tenant"),
            "{left:?}"
        );
    }
}
