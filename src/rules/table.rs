use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use super::{
    Policy, RulesBuilder, RulesError,
    pattern::Pattern,
    route::{Match, Route},
};
use crate::key::decoded_path;

/// Which responses are cached for how long, by route, and what a write invalidates.
///
/// Patterns are those of axum: `/products/{id}` has a parameter for one segment, `/files/{*path}`
/// one for all the rest, which matches `/files/a/b` but neither `/files` nor `/files/`. They are
/// compared with the path as it arrives, not percent-decoded. Where several match, the most
/// specific counts, whatever the order they are given in.
///
/// The default has no routes: a plain HTTP cache that does what responses say of themselves.
/// Cloning is cheap.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_response_cache::{Rule, Rules};
///
/// let rules = Rules::builder()
///     .route("/products", Rule::ttl(Duration::from_secs(60)))
///     .route("/products/{id}", Rule::ttl(Duration::from_secs(300)).tag("product:{id}"))
///     .route("/account/{*rest}", Rule::bypass())
///     .on_write("/products/{id}", ["/products", "/products/{id}"])
///     .build()?;
/// # Ok::<(), tower_response_cache::RulesError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[cfg_attr(
    feature = "config",
    derive(serde::Deserialize),
    serde(try_from = "super::document::Document")
)]
pub struct Rules {
    table: Arc<Table>,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    /// What the table was made of.
    pub(super) source: RulesBuilder,
    pub(super) policy: Policy,
    pub(super) routes: matchit::Router<Arc<Route>>,
    /// The same routes by the shape of their patterns.
    pub(super) shapes: BTreeMap<String, Arc<Route>>,
    pub(super) writes: matchit::Router<Box<[Target]>>,
}

/// What is to be invalidated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WriteTarget {
    /// One path, percent-decoded: all its spellings, queries and variants.
    Path(Vec<u8>),
    /// All paths of the route with this pattern.
    Pattern(Arc<str>),
}

impl Rules {
    /// Returns a builder without routes and with the default policy.
    pub fn builder() -> RulesBuilder {
        RulesBuilder::default()
    }

    /// The same rules under another policy.
    pub(crate) fn under(&self, policy: Policy) -> Self {
        let source = self.table.source.clone();
        source
            .policy(policy)
            .build()
            .expect("no mistake depends on the policy")
    }

    /// The patterns of all routes, in the order of their indexes.
    pub(crate) fn patterns(&self) -> Vec<Arc<str>> {
        let mut routes: Vec<_> = self.table.shapes.values().collect();
        routes.sort_by_key(|route| route.index);
        routes
            .into_iter()
            .map(|route| Arc::clone(route.pattern.text()))
            .collect()
    }

    /// The route of a raw path.
    pub(crate) fn find<'p>(&self, path: &'p str) -> Option<Match<'_, 'p>> {
        let found = self.table.routes.at(path).ok()?;
        Some(Match {
            route: found.value,
            params: found.params,
        })
    }

    /// The policy of requests that have no route.
    pub(crate) fn policy(&self) -> &Policy {
        &self.table.policy
    }

    /// Whether a write to a raw path invalidates more than the path itself.
    pub(crate) fn knows_write(&self, path: &str) -> bool {
        self.table.writes.at(path).is_ok()
    }

    /// What a successful write to a raw path invalidates, beside the path itself.
    pub(crate) fn written(&self, path: &str) -> Vec<WriteTarget> {
        let Ok(found) = self.table.writes.at(path) else {
            return Vec::new();
        };
        let value = |name: &str| found.params.get(name).map(decoded_path);
        found
            .value
            .iter()
            .map(|target| target.bind(value))
            .collect()
    }

    /// What invalidating the pattern of a cached route means: one path, if every parameter is
    /// bound to its (decoded) value, else all paths of the route.
    pub(crate) fn pattern(
        &self,
        text: &str,
        bindings: &[(&str, &str)],
    ) -> Result<WriteTarget, RulesError> {
        let target = self.table.target(text).map_err(RulesError::new)?;
        for (name, _) in bindings {
            if target.pattern.names().all(|known| known != *name) {
                return Err(RulesError::new(format!(
                    "{text:.100} has no parameter `{name}`"
                )));
            }
        }
        let value = |name: &str| {
            let (_, value) = bindings.iter().find(|(bound, _)| *bound == name)?;
            Some(Cow::Borrowed(value.as_bytes()))
        };
        Ok(target.bind(value))
    }
}

impl From<Table> for Rules {
    fn from(table: Table) -> Self {
        Self {
            table: Arc::new(table),
        }
    }
}

impl Table {
    /// A target is the pattern of a cached route, up to the names of its parameters, or a path that
    /// such a route matches.
    pub(super) fn target(&self, text: &str) -> Result<Target, String> {
        let pattern = Pattern::parse(text).map_err(|flaw| flaw.to_string())?;
        let by_path = || Some(self.routes.at(pattern.as_path()?).ok()?.value);
        let route = self.shapes.get(&pattern.shape()).or_else(by_path);
        match route.filter(|route| route.is_cached()) {
            Some(route) => Ok(Target {
                route: Arc::clone(route),
                pattern,
            }),
            None => Err(format!(
                "no cached route has this pattern; {}",
                self.known_patterns()
            )),
        }
    }

    fn known_patterns(&self) -> String {
        const SHOWN: usize = 8;
        let cached = self.shapes.values().filter(|route| route.is_cached());
        let known: Vec<&str> = cached.map(|route| &**route.pattern.text()).collect();
        match known.get(..SHOWN) {
            None if known.is_empty() => "there are none".to_owned(),
            None => format!("there are {}", known.join(", ")),
            Some(first) => format!("there are {}, {} in all", first.join(", "), known.len()),
        }
    }
}

/// A pattern to be bound to a path of the cached route that it stands for.
#[derive(Debug)]
pub(super) struct Target {
    pattern: Pattern,
    route: Arc<Route>,
}

impl Target {
    /// Refuses a parameter that neither a write to `pattern` fills in nor the route knows, as one
    /// that is misspelt: it would silently make one path all paths.
    pub(super) fn filled_in_by(self, pattern: Option<&Pattern>) -> Result<Self, String> {
        let Some(pattern) = pattern else {
            return Ok(self);
        };
        let route = &self.route.pattern;
        let is_known = |name| {
            pattern
                .names()
                .chain(route.names())
                .any(|known| known == name)
        };
        let Some(name) = self.pattern.names().find(|name| !is_known(*name)) else {
            return Ok(self);
        };
        let known: Vec<_> = pattern.names().collect();
        Err(format!(
            "parameter `{name}` is none of the pattern, which has {known:?}, and none of the \
             route {}",
            route.text()
        ))
    }

    fn bind<'v>(&self, value: impl Fn(&str) -> Option<Cow<'v, [u8]>>) -> WriteTarget {
        match self.pattern.bind(value) {
            Some(path) => WriteTarget::Path(path),
            None => WriteTarget::Pattern(Arc::clone(self.route.pattern.text())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::{super::Rule, *};

    fn rules() -> Rules {
        let rule = || Rule::ttl(Duration::from_secs(60));
        Rules::builder()
            .route("/products", rule())
            .route("/products/{id}", rule())
            .route("/products/new", Rule::bypass())
            .route("/users/{user}/posts/{post}", rule())
            .route("/files/{*path}", rule())
            .on_write(
                "/products/{id}",
                ["/products", "/products/{id}", "/files/{*id}"],
            )
            .on_write(
                "/posts/{post}",
                ["/users/{user}/posts/{post}", "/products/7"],
            )
            .on_write("/upload/{*path}", ["/files/{*path}"])
            .build()
            .unwrap()
    }

    fn path(path: &str) -> WriteTarget {
        WriteTarget::Path(path.into())
    }

    fn pattern(pattern: &str) -> WriteTarget {
        WriteTarget::Pattern(pattern.into())
    }

    #[test]
    fn the_most_specific_route_is_found() {
        let rules = rules();
        for (path, expected) in [
            ("/products", Some("/products")),
            ("/products/7", Some("/products/{id}")),
            ("/products/new", Some("/products/new")),
            ("/users/u/posts/p", Some("/users/{user}/posts/{post}")),
            ("/files/a/b", Some("/files/{*path}")),
            ("/files/", None),
            ("/products/", None),
            ("/%70roducts", None),
            ("*", None),
            ("", None),
        ] {
            let found = rules.find(path).map(|found| &**found.route.pattern.text());
            assert_eq!(found, expected, "{path}");
        }
        assert!(Rules::default().find("/").is_none());
    }

    #[test]
    fn a_write_invalidates_the_targets_with_its_parameters_filled_in() {
        let rules = rules();
        for (written, expected) in [
            (
                "/products/7",
                vec![path("/products"), path("/products/7"), path("/files/7")],
            ),
            (
                "/products/%37",
                vec![path("/products"), path("/products/7"), path("/files/7")],
            ),
            (
                "/posts/9",
                vec![pattern("/users/{user}/posts/{post}"), path("/products/7")],
            ),
            ("/upload/a%20b/c", vec![path("/files/a b/c")]),
            ("/users/u/posts/p", vec![]),
        ] {
            assert_eq!(rules.written(written), expected, "{written}");
        }
    }

    #[test]
    fn a_pattern_stands_for_one_path_only_if_all_its_parameters_are_bound() {
        let rules = rules();
        for (text, bindings, expected) in [
            ("/products", &[][..], path("/products")),
            ("/products/7", &[], path("/products/7")),
            ("/products/{id}", &[], pattern("/products/{id}")),
            ("/products/{product}", &[], pattern("/products/{id}")),
            (
                "/products/{product}",
                &[("product", "a%20b")],
                path("/products/a%20b"),
            ),
            (
                "/users/{u}/posts/{p}",
                &[("p", "1")],
                pattern("/users/{user}/posts/{post}"),
            ),
            (
                "/users/{u}/posts/{p}",
                &[("p", "1"), ("u", "2")],
                path("/users/2/posts/1"),
            ),
        ] {
            assert_eq!(
                rules.pattern(text, bindings).unwrap(),
                expected,
                "{text} {bindings:?}"
            );
        }
    }

    #[test]
    fn a_pattern_of_no_cached_route_is_an_error_that_names_the_known_ones() {
        let rules = rules();
        for (text, bindings, hint) in [
            ("/nothing", &[][..], "/products/{id}"),
            ("/products/new", &[], "there are /files/{*path}, /products,"),
            ("/products/{*rest}", &[], "no cached route"),
            ("products", &[], "starts with `/`"),
            ("/products/{id}", &[("ID", "7")], "no parameter `ID`"),
        ] {
            let error = rules.pattern(text, bindings).unwrap_err().to_string();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_path_is_looked_up(path in "/(products|posts|files)?/?[a-c/%{}]{0,8}|.*") {
            let rules = rules();
            if let Some(found) = rules.find(&path) {
                prop_assert!(found.tags().is_ok());
            }
            rules.written(&path);
        }
    }
}
