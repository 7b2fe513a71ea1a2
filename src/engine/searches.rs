//! Resources that answer alike to queries that differ (`No-Vary-Search`).
//!
//! A response with the field is stored under a key that stands for all queries that it makes the
//! same. To find it there, a request must know the rule before it has the response: it takes the one
//! with which the resource answered last. The rule is part of the key, so a rule that is forgotten,
//! or another one by now, costs a miss and finds nothing that it should not.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::HeaderMap;
use parking_lot::RwLock;

use crate::key::PrimaryKey;
use crate::semantics::no_vary_search::NoVarySearch;

/// More resources than these are not remembered.
const MAX_RESOURCES: usize = 4096;

/// The rules with which resources answered last.
#[derive(Debug, Default)]
pub(super) struct Searches {
    /// Whether there is any, so that a request takes no lock while there is none.
    any: AtomicBool,
    rules: RwLock<HashMap<Box<[u8]>, Arc<Rule>>>,
}

#[derive(Debug)]
struct Rule {
    meaning: NoVarySearch,
    /// The same in words that keys can hold.
    text: String,
}

impl Searches {
    /// Puts the key for all queries that are the same to the resource, as far as is known, in place
    /// of the exact one, which it returns.
    pub(super) fn widen(&self, key: &mut PrimaryKey) -> Option<PrimaryKey> {
        let canonical = self.canonical(key)?;
        Some(std::mem::replace(key, canonical))
    }

    fn canonical(&self, exact: &PrimaryKey) -> Option<PrimaryKey> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        let (resource, _) = exact.resource_and_query()?;
        let rule = self.rules.read().get(resource).map(Arc::clone)?;
        rule.key(exact)
    }

    /// Returns the key for all queries that a response with these fields answers, if they are more
    /// than one, and remembers what it says.
    pub(super) fn learn(&self, exact: &PrimaryKey, response: &HeaderMap) -> Option<PrimaryKey> {
        let meaning = NoVarySearch::parse(response)?;
        let (resource, _) = exact.resource_and_query()?;
        let known = self.rules.read().get(resource).map(Arc::clone);
        let rule = match known.filter(|known| known.meaning == meaning) {
            Some(known) => known,
            None => self.remember(resource, meaning),
        };
        rule.key(exact)
    }

    fn remember(&self, resource: &[u8], meaning: NoVarySearch) -> Arc<Rule> {
        let text = meaning.to_string();
        let rule = Arc::new(Rule { meaning, text });
        let mut rules = self.rules.write();
        if rules.len() >= MAX_RESOURCES
            && let Some(any) = rules.keys().next().cloned()
        {
            rules.remove(&any);
        }
        rules.insert(resource.into(), Arc::clone(&rule));
        self.any.store(true, Ordering::Relaxed);
        rule
    }
}

impl Rule {
    fn key(&self, exact: &PrimaryKey) -> Option<PrimaryKey> {
        let (_, query) = exact.resource_and_query()?;
        exact.with_canonical_query(&self.text, &self.meaning.canonical(query))
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, Uri};

    use super::*;
    use crate::key::{KeySpec, Namespace};

    fn key(uri: &str) -> PrimaryKey {
        let uri: Uri = uri.parse().unwrap();
        let (namespace, spec) = (Namespace::default(), KeySpec::default());
        PrimaryKey::new(&namespace, &spec, &Method::GET, &uri, &HeaderMap::new()).unwrap()
    }

    fn response(line: &'static str) -> HeaderMap {
        let mut fields = HeaderMap::new();
        fields.insert("no-vary-search", line.parse().unwrap());
        fields
    }

    #[test]
    fn what_a_resource_said_last_is_the_rule_for_its_queries() {
        let searches = Searches::default();
        assert_eq!(searches.canonical(&key("/a?x=1")), None);
        assert_eq!(searches.learn(&key("/a?x=1"), &HeaderMap::new()), None);
        let stored = searches.learn(&key("/a?x=1&utm=2"), &response("params=(\"utm\")"));
        assert!(stored.is_some());
        assert_eq!(searches.canonical(&key("/a?utm=3&x=1")), stored);
        assert_ne!(searches.canonical(&key("/a?x=2")), stored);
        for other in ["/b?x=1", "http://b.example/a?x=1"] {
            assert_eq!(searches.canonical(&key(other)), None, "{other}");
        }
        let newer = searches.learn(&key("/a?x=1&utm=2"), &response("params"));
        assert_eq!(searches.canonical(&key("/a?x=2")), newer);
        assert_ne!(newer, stored);
    }

    #[test]
    fn so_many_resources_are_remembered_and_no_more() {
        let searches = Searches::default();
        for n in 0..=MAX_RESOURCES {
            searches.learn(&key(&format!("/{n}?x")), &response("params"));
        }
        assert_eq!(searches.rules.read().len(), MAX_RESOURCES);
        let last = searches.canonical(&key(&format!("/{MAX_RESOURCES}?y")));
        assert!(last.is_some());
    }
}
