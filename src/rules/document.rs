//! Rules in a file.
//!
//! ```toml
//! [policy]
//! preset = "guarded"
//!
//! [[route]]
//! path = "/products/{id}"
//! ttl = "5m"
//! tags = ["product:{id}"]
//!
//! [[on_write]]
//! path = "/products/{id}"
//! invalidates = ["/products", "/products/{id}"]
//! ```

use std::{fmt, time::Duration};

use http::{HeaderName, StatusCode};
use serde::Deserialize;

use super::{
    Policy, Rule, Rules, RulesError, Tier,
    error::{Mistakes, Place},
    policy::{PolicyDocument, Preset},
    rule::{ClientCaching, Lifetime},
    units,
};
use crate::key::{KeySpec, ParamNames, QuerySpec};

impl Rules {
    /// Reads rules from TOML.
    ///
    /// The fields of a `[[route]]` are named like the methods of [`Rule`]; a route without `ttl`
    /// and `bypass` is [`Rule::from_origin`]. Durations are texts like `"1h 30m"`, sizes are
    /// numbers of bytes or texts like `"512KiB"`. `[policy]`, also within a route, has a `preset`
    /// and the switches of [`Policy`]. An unknown field is a mistake.
    ///
    /// # Errors
    ///
    /// Returns the first mistake in the syntax, or else all mistakes in the rules, as
    /// [`RulesBuilder::build`](super::RulesBuilder::build) does.
    ///
    /// # Examples
    ///
    /// ```
    /// # use tower_response_cache::Rules;
    /// let rules = Rules::from_toml(r#"
    ///     [[route]]
    ///     path = "/products/{id}"
    ///     ttl = "5m"
    ///     stale_while_revalidate = "30s"
    ///     tags = ["product:{id}"]
    ///
    ///     [[on_write]]
    ///     path = "/products/{id}"
    ///     invalidates = ["/products/{id}"]
    /// "#)?;
    /// # Ok::<(), tower_response_cache::RulesError>(())
    /// ```
    pub fn from_toml(text: &str) -> Result<Self, RulesError> {
        read(toml::from_str(text))
    }

    /// Reads rules from JSON, with the fields that [`from_toml`](Self::from_toml) describes.
    ///
    /// # Errors
    ///
    /// Those of [`from_toml`](Self::from_toml).
    pub fn from_json(text: &str) -> Result<Self, RulesError> {
        read(serde_json::from_str(text))
    }

    /// Reads rules from YAML, with the fields that [`from_toml`](Self::from_toml) describes.
    ///
    /// # Errors
    ///
    /// Those of [`from_toml`](Self::from_toml).
    pub fn from_yaml(text: &str) -> Result<Self, RulesError> {
        read(serde_norway::from_str(text))
    }
}

fn read(document: Result<Document, impl fmt::Display>) -> Result<Rules, RulesError> {
    let document = document.map_err(|error| RulesError::new(error.to_string().trim_end()))?;
    document.try_into()
}

/// All rules in one file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Document {
    policy: PolicyDocument,
    route: Vec<RouteDocument>,
    on_write: Vec<WriteDocument>,
}

impl TryFrom<Document> for Rules {
    type Error = RulesError;

    fn try_from(document: Document) -> Result<Self, RulesError> {
        let mut mistakes = Mistakes::default();
        let policy =
            Reader::new(Place::Rules, &mut mistakes).policy(&document.policy, &Policy::default());
        let mut builder = Self::builder().policy(policy.clone());
        for route in document.route {
            let rule = Reader::new(Place::Route(&route.path), &mut mistakes).rule(&route, &policy);
            builder = builder.route(route.path, rule);
        }
        for write in document.on_write {
            builder = builder.on_write(write.path, write.invalidates);
        }
        builder.mistakes = mistakes;
        builder.build()
    }
}

/// What a successful write to `path` invalidates.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WriteDocument {
    path: String,
    invalidates: Vec<String>,
}

/// A pattern and its [`Rule`], field by field.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteDocument {
    path: String,
    ttl: Option<String>,
    bypass: Option<bool>,
    stale_while_revalidate: Option<String>,
    stale_if_error: Option<String>,
    refresh_ahead: Option<String>,
    handler_timeout: Option<String>,
    soft_handler_timeout: Option<String>,
    statuses: Option<Vec<u16>>,
    keep_query: Option<Vec<String>>,
    ignore_query: Option<Vec<String>>,
    without_query: Option<bool>,
    sorted_query: Option<bool>,
    key_fields: Option<Vec<String>>,
    key_cookies: Option<Vec<String>>,
    any_host: Option<bool>,
    tags: Option<Vec<String>>,
    response_tags: Option<bool>,
    max_body: Option<Size>,
    max_fields: Option<Size>,
    override_origin: Option<bool>,
    grpc_unary: Option<bool>,
    client_max_age: Option<String>,
    client_untouched: Option<bool>,
    tier: Option<Tier>,
    shared_despite_cookies: Option<bool>,
    obey_client: Option<bool>,
    trusted_proxy: Option<bool>,
    policy: Option<PolicyDocument>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a number of bytes or a text like \"512KiB\""
)]
enum Size {
    Bytes(u64),
    Text(String),
}

/// Reads what stands at one place of a file, and reports what is wrong with it.
struct Reader<'a> {
    place: Place<'a>,
    mistakes: &'a mut Mistakes,
}

impl<'a> Reader<'a> {
    fn new(place: Place<'a>, mistakes: &'a mut Mistakes) -> Self {
        Self { place, mistakes }
    }

    fn rule(&mut self, route: &RouteDocument, policy: &Policy) -> Rule {
        let on = |switch: Option<bool>| switch.unwrap_or_default();
        Rule {
            stale_while_revalidate: self.duration(
                "stale_while_revalidate",
                route.stale_while_revalidate.as_deref(),
            ),
            stale_if_error: self.duration("stale_if_error", route.stale_if_error.as_deref()),
            refresh_ahead: self.duration("refresh_ahead", route.refresh_ahead.as_deref()),
            handler_timeout: self.duration("handler_timeout", route.handler_timeout.as_deref()),
            soft_handler_timeout: self.duration(
                "soft_handler_timeout",
                route.soft_handler_timeout.as_deref(),
            ),
            statuses: self.statuses(route.statuses.as_deref().unwrap_or_default()),
            key: KeySpec {
                query: self.query(route),
                sorted: on(route.sorted_query),
                any_host: on(route.any_host),
                fields: self.field_names(route.key_fields.as_deref().unwrap_or_default()),
                cookies: route.key_cookies.clone().unwrap_or_default(),
            },
            tags: route.tags.clone().unwrap_or_default(),
            response_tags: on(route.response_tags),
            max_body: self.size("max_body", route.max_body.as_ref()),
            max_fields: self.size("max_fields", route.max_fields.as_ref()),
            override_origin: on(route.override_origin),
            grpc_unary: on(route.grpc_unary),
            client: self.client(route),
            tier: route.tier,
            shared_despite_cookies: on(route.shared_despite_cookies),
            obey_client: on(route.obey_client),
            trusted_proxy: on(route.trusted_proxy),
            policy: route.policy.as_ref().map(|own| self.policy(own, policy)),
            ..Rule::new(self.lifetime(route))
        }
    }

    fn lifetime(&mut self, route: &RouteDocument) -> Lifetime {
        let bypass = route.bypass == Some(true);
        self.at_most_one(&[("ttl", route.ttl.is_some()), ("bypass", bypass)]);
        match self.duration("ttl", route.ttl.as_deref()) {
            Some(ttl) => Lifetime::Ttl(ttl),
            None if bypass => Lifetime::Bypass,
            None => Lifetime::FromOrigin,
        }
    }

    fn query(&mut self, route: &RouteDocument) -> QuerySpec {
        let without = route.without_query == Some(true);
        self.at_most_one(&[
            ("keep_query", route.keep_query.is_some()),
            ("ignore_query", route.ignore_query.is_some()),
            ("without_query", without),
        ]);
        let names = |names: &[String]| ParamNames::new(names.iter().map(String::as_str));
        match (&route.keep_query, &route.ignore_query) {
            (Some(kept), _) => QuerySpec::Keep(names(kept)),
            (None, Some(ignored)) => QuerySpec::Ignore(names(ignored)),
            (None, None) if without => QuerySpec::Nothing,
            (None, None) => QuerySpec::All,
        }
    }

    fn client(&mut self, route: &RouteDocument) -> ClientCaching {
        let untouched = route.client_untouched == Some(true);
        self.at_most_one(&[
            ("client_max_age", route.client_max_age.is_some()),
            ("client_untouched", untouched),
        ]);
        match self.duration("client_max_age", route.client_max_age.as_deref()) {
            Some(max_age) => ClientCaching::MaxAge(max_age),
            None if untouched => ClientCaching::Untouched,
            None => ClientCaching::Validate,
        }
    }

    fn policy(&mut self, document: &PolicyDocument, outer: &Policy) -> Policy {
        let mut policy = document
            .preset
            .map_or_else(|| outer.clone(), Preset::policy);
        document.switch(&mut policy);
        match &document.targeted_fields {
            Some(names) => policy.targeted_fields(self.field_names(names)),
            None => policy,
        }
    }

    fn duration(&mut self, field: &str, text: Option<&str>) -> Option<Duration> {
        self.valid(field, units::duration(text?))
    }

    fn size(&mut self, field: &str, size: Option<&Size>) -> Option<u64> {
        match size? {
            Size::Bytes(bytes) => Some(*bytes),
            Size::Text(text) => self.valid(field, units::size(text)),
        }
    }

    fn statuses(&mut self, codes: &[u16]) -> Vec<StatusCode> {
        let status = |code: &u16| {
            let status = StatusCode::from_u16(*code);
            self.valid(
                "statuses",
                status.map_err(|_| format!("{code} is no status code")),
            )
        };
        codes.iter().filter_map(status).collect()
    }

    fn field_names(&mut self, names: &[String]) -> Vec<HeaderName> {
        let field_name = |name: &String| {
            let parsed = HeaderName::from_bytes(name.as_bytes());
            self.valid(
                "fields",
                parsed.map_err(|_| format!("{name:?} is no name of a field")),
            )
        };
        names.iter().filter_map(field_name).collect()
    }

    fn valid<T>(&mut self, field: &str, value: Result<T, String>) -> Option<T> {
        match value {
            Ok(value) => Some(value),
            Err(problem) => {
                self.mistakes
                    .report(&self.place, format!("{field}: {problem}"));
                None
            }
        }
    }

    fn at_most_one(&mut self, fields: &[(&str, bool)]) {
        let given = fields.iter().filter(|(_, given)| *given).count();
        if given > 1 {
            let names: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
            self.mistakes
                .report(&self.place, format!("choose one of {}", names.join(", ")));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EVERYTHING: &str = r#"
        [policy]
        preset = "rfc9111"
        heuristics = false
        targeted_fields = ["My-Cache-Control"]

        [[route]]
        path = "/products/{id}"
        ttl = "1h 30m"
        stale_while_revalidate = "30s"
        stale_if_error = "1day"
        refresh_ahead = "5s"
        handler_timeout = "10s"
        soft_handler_timeout = "500ms"
        statuses = [404, 410]
        keep_query = ["page"]
        sorted_query = true
        key_fields = ["Accept-Language"]
        key_cookies = ["session"]
        any_host = true
        tags = ["product:{id}", "products"]
        response_tags = true
        max_body = "512KiB"
        max_fields = 4096
        override_origin = true
        grpc_unary = true
        client_max_age = "10s"
        tier = "memory"
        shared_despite_cookies = true
        obey_client = true
        trusted_proxy = true
        policy = { get_with_body = false }

        [[route]]
        path = "/account/{*rest}"
        bypass = true

        [[on_write]]
        path = "/products/{id}"
        invalidates = ["/products/{id}"]
    "#;

    #[test]
    fn every_field_of_a_route_is_the_method_of_that_name() {
        let rules = Rules::from_toml(EVERYTHING).unwrap();
        let policy = Policy::rfc9111()
            .heuristics(false)
            .targeted_fields([HeaderName::from_static("my-cache-control")]);
        assert_eq!(rules.policy(), &policy);

        let rule = Rule::ttl(Duration::from_secs(5400))
            .stale_while_revalidate(Duration::from_secs(30))
            .stale_if_error(Duration::from_secs(86_400))
            .refresh_ahead(Duration::from_secs(5))
            .handler_timeout(Duration::from_secs(10))
            .soft_handler_timeout(Duration::from_millis(500))
            .statuses([StatusCode::NOT_FOUND, StatusCode::GONE])
            .keep_query(["page"])
            .sorted_query()
            .key_field(http::header::ACCEPT_LANGUAGE)
            .key_cookie("session")
            .any_host()
            .tag("product:{id}")
            .tag("products")
            .response_tags()
            .max_body(512 << 10)
            .max_fields(4096)
            .override_origin()
            .grpc_unary()
            .client_max_age(Duration::from_secs(10))
            .tier(Tier::Memory)
            .shared_despite_cookies()
            .obey_client()
            .trusted_proxy()
            .policy(policy.get_with_body(false));
        assert_eq!(rules.find("/products/1").unwrap().route.rule, rule);
        assert_eq!(
            rules.find("/account/me").unwrap().route.rule,
            Rule::bypass()
        );
        assert_eq!(rules.written("/products/1").len(), 1);
    }

    #[test]
    fn json_and_yaml_have_the_same_fields() {
        let json = r#"{
            "route": [
                {"path": "/a", "ttl": "5m", "ignore_query": ["utm"], "client_untouched": true},
                {"path": "/b", "without_query": true}
            ],
            "on_write": [{"path": "/c", "invalidates": ["/a"]}]
        }"#;
        let yaml = "\
route:
  - path: /a
    ttl: 5m
    ignore_query: [utm]
    client_untouched: true
  - path: /b
    without_query: true
on_write:
  - path: /c
    invalidates: [/a]
";
        let a = Rule::ttl(Duration::from_secs(300))
            .ignore_query(["utm"])
            .client_untouched();
        for rules in [
            Rules::from_json(json),
            Rules::from_yaml(yaml),
            serde_json::from_str(json).map_err(RulesError::new),
        ] {
            let rules = rules.unwrap();
            assert_eq!(rules.policy(), &Policy::guarded());
            assert_eq!(rules.find("/a").unwrap().route.rule, a);
            assert_eq!(
                rules.find("/b").unwrap().route.rule,
                Rule::from_origin().without_query()
            );
            assert_eq!(rules.written("/c").len(), 1);
        }
        assert!(Rules::from_toml("").unwrap().find("/").is_none());
    }

    #[test]
    fn an_unknown_field_is_named() {
        for text in [
            "[[route]]\npath = '/a'\ntll = '5m'",
            "[[on_write]]\npath = '/a'\ninvalidates = []\ntll = 1",
            "[policy]\ntll = true",
            "[[route]]\npath = '/a'\npolicy = { tll = true }",
            "tll = 1",
        ] {
            let error = Rules::from_toml(text).unwrap_err().to_string();
            assert!(error.contains("unknown field `tll`"), "{error}");
        }
    }

    #[test]
    fn wrong_values_are_reported_together_with_the_mistakes_of_the_rules() {
        let error = Rules::from_toml(
            r#"
            [policy]
            targeted_fields = ["a b"]
            [[route]]
            path = "/a"
            ttl = "5 apples"
            bypass = true
            keep_query = []
            ignore_query = []
            client_max_age = "1s"
            client_untouched = true
            statuses = [99]
            max_body = "5kb"
            [[route]]
            path = "b"
            "#,
        )
        .unwrap_err();
        let hints = [
            "rules: fields: \"a b\"",
            "statuses: 99",
            "choose one of keep_query, ignore_query, without_query",
            "max_body: \"5kb\"",
            "choose one of client_max_age, client_untouched",
            "choose one of ttl, bypass",
            "ttl: \"5 apples\" is no duration",
            "route b: a pattern starts with `/`",
        ];
        assert_eq!(error.mistakes().count(), hints.len(), "{error}");
        for (mistake, hint) in error.mistakes().zip(hints) {
            assert!(mistake.contains(hint), "{mistake} / {hint}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(
            text in r#"(\[\[?(route|policy)\]\]?\n|path = '/'\n|ttl = '1s'\n|.){0,8}"#
        ) {
            let _ = (Rules::from_toml(&text), Rules::from_json(&text), Rules::from_yaml(&text));
        }
    }
}
