use std::sync::Arc;

use super::{
    Policy, Rule, Rules, RulesError,
    error::{Mistakes, Place},
    pattern::Pattern,
    route::Route,
    table::{Table, Target},
};

/// Makes [`Rules`]; see there for the syntax of patterns.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct RulesBuilder {
    policy: Policy,
    routes: Vec<(String, Rule)>,
    writes: Vec<(String, Vec<String>)>,
    /// Found before the rules were given, by whoever read them from a file.
    pub(super) mistakes: Mistakes,
}

impl RulesBuilder {
    const MAX_PATTERNS: usize = 10_000;

    /// Sets the policy of requests without a route and of routes whose rule has none.
    ///
    /// Default: [`Policy::guarded`].
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Adds a rule for the requests whose path matches `pattern`.
    pub fn route(mut self, pattern: impl Into<String>, rule: Rule) -> Self {
        self.routes.push((pattern.into(), rule));
        self
    }

    /// Invalidates `targets` when a request with an unsafe method to a path of `pattern` succeeds.
    ///
    /// The path of the request itself is invalidated in any case. A target is the pattern of a
    /// cached route, or a path that one matches. Parameters that have the same name in `pattern`
    /// and in the target are filled in; a target with a parameter that only its route has stands
    /// for all its paths. Where several patterns match a path, only the targets of the most
    /// specific count.
    pub fn on_write(
        mut self,
        pattern: impl Into<String>,
        targets: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let targets = targets.into_iter().map(Into::into).collect();
        self.writes.push((pattern.into(), targets));
        self
    }

    /// Checks and compiles the rules.
    ///
    /// # Errors
    ///
    /// Returns all mistakes at once: patterns that are none or match the same paths as another,
    /// lifetimes and limits out of range, tags and targets with unknown parameters, targets that
    /// no cached route has.
    pub fn build(self) -> Result<Rules, RulesError> {
        let source = self.clone();
        let mut mistakes = self.mistakes;
        let targets = self.writes.iter().map(|(_, targets)| targets.len());
        let patterns = targets.fold(self.routes.len(), usize::saturating_add);
        if patterns > Self::MAX_PATTERNS {
            let most = Self::MAX_PATTERNS;
            mistakes.report(
                &Place::Rules,
                format!("{patterns} patterns: at most {most} are possible"),
            );
            return mistakes.none_in(Rules::default());
        }
        let mut table = Table {
            policy: self.policy,
            source,
            ..Table::default()
        };
        for (index, (text, rule)) in self.routes.into_iter().enumerate() {
            add_route(&mut table, index, &text, rule, &mut mistakes);
        }
        // After all routes, which the targets are looked up in.
        for (text, targets) in self.writes {
            add_write(&mut table, &text, &targets, &mut mistakes);
        }
        mistakes.none_in(table.into())
    }
}

fn add_route(table: &mut Table, index: usize, text: &str, rule: Rule, mistakes: &mut Mistakes) {
    let place = Place::Route(text);
    let pattern = match Pattern::parse(text) {
        Ok(pattern) => pattern,
        Err(flaw) => return mistakes.report(&place, flaw),
    };
    let shape = pattern.shape();
    let route = Arc::new(Route::compile(
        index,
        pattern,
        rule,
        &table.policy,
        mistakes,
    ));
    if let Some(other) = table.shapes.get(&shape) {
        let other = other.pattern.text();
        mistakes.report(
            &place,
            format!("matches the same paths as {other}: keep one of them"),
        );
    } else if let Err(error) = table.routes.insert(text, Arc::clone(&route)) {
        mistakes.report(&place, refusal(&error));
    } else {
        table.shapes.insert(shape, route);
    }
}

fn add_write(table: &mut Table, text: &str, targets: &[String], mistakes: &mut Mistakes) {
    let place = Place::OnWrite(text);
    if targets.is_empty() {
        mistakes.report(
            &place,
            "has no targets: name the patterns that a write invalidates",
        );
    }
    let pattern = match Pattern::parse(text) {
        Ok(pattern) => Some(pattern),
        Err(flaw) => {
            mistakes.report(&place, flaw);
            None
        }
    };
    let mut found: Vec<Target> = Vec::with_capacity(targets.len());
    for target in targets {
        let known = table.target(target);
        match known.and_then(|known| known.filled_in_by(pattern.as_ref())) {
            Ok(target) => found.push(target),
            Err(problem) => mistakes.report(&place, format!("target {target:.100}: {problem}")),
        }
    }
    if pattern.is_some()
        && let Err(error) = table.writes.insert(text, found.into())
    {
        mistakes.report(&place, refusal(&error));
    }
}

/// Why the router does not take a pattern that is well-formed.
fn refusal(error: &matchit::InsertError) -> String {
    match error {
        matchit::InsertError::Conflict { with } => {
            format!("some paths would match both this and {with}, neither being more specific")
        }
        matchit::InsertError::InvalidParamSegment => {
            "a segment has one parameter at most: put a `/` between them".to_owned()
        }
        matchit::InsertError::InvalidCatchAll => {
            "a parameter `{*rest}` is a whole segment, the last one".to_owned()
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;

    use super::*;

    fn rule() -> Rule {
        Rule::ttl(Duration::from_secs(60))
    }

    fn mistakes(builder: RulesBuilder) -> Vec<String> {
        let error = builder.build().unwrap_err();
        assert_eq!(error.to_string().lines().count(), error.mistakes().count());
        error.mistakes().map(str::to_owned).collect()
    }

    #[test]
    fn each_mistake_in_a_rule_names_the_pattern_and_what_would_be_right() {
        let long_tag = "t".repeat(129);
        let decade = Duration::from_secs(3650 * 24 * 60 * 60);
        for (rule, hint) in [
            (Rule::ttl(Duration::ZERO), "give a lifetime"),
            (Rule::ttl(decade), "ttl is 315360000s: at most a year"),
            (
                rule().stale_while_revalidate(decade),
                "stale_while_revalidate is",
            ),
            (rule().stale_if_error(decade), "stale_if_error is"),
            (rule().client_max_age(decade), "client_max_age is"),
            (rule().handler_timeout(decade), "handler_timeout is"),
            (
                rule().handler_timeout(Duration::ZERO),
                "handler_timeout is zero",
            ),
            (rule().refresh_ahead(decade), "must be shorter than the ttl"),
            (
                rule()
                    .handler_timeout(Duration::from_secs(1))
                    .soft_handler_timeout(Duration::from_secs(1)),
                "must be shorter than the handler_timeout",
            ),
            (Rule::from_origin().override_origin(), "needs a ttl"),
            (rule().max_body(0), "max_body is zero"),
            (rule().max_fields(0), "max_fields is zero"),
            (rule().statuses([StatusCode::CONTINUE]), "status 100"),
            (rule().statuses([StatusCode::PARTIAL_CONTENT]), "status 206"),
            (rule().statuses([StatusCode::NOT_MODIFIED]), "status 304"),
            (rule().key_cookie(""), "no cookie is named"),
            (rule().key_cookie("a=b"), "no cookie is named"),
            (rule().tag(""), "1 to 128 bytes"),
            (rule().tag(&long_tag), "1 to 128 bytes"),
            (rule().tag("p:{id"), "write `{id}` for a parameter"),
            (
                rule().tag("p:{ID}"),
                "no parameter `ID` in the pattern, but [\"id\"]",
            ),
            (
                (0..65).fold(rule(), |rule, n| rule.tag(format!("t{n}"))),
                "65 tags: at most 64",
            ),
        ] {
            let found = mistakes(Rules::builder().route("/p/{id}", rule));
            assert_eq!(found.len(), 1, "{found:?}");
            for mistake in found {
                assert!(mistake.starts_with("route /p/{id}: "), "{mistake}");
                assert!(mistake.contains(hint), "{mistake}");
            }
        }
    }

    #[test]
    fn patterns_that_match_the_same_paths_are_refused() {
        for (one, other, hint) in [
            ("/a", "/a", "matches the same paths as /a"),
            ("/a/{id}", "/a/{other}", "matches the same paths as /a/{id}"),
            (
                "/a/{*rest}",
                "/a/{*all}",
                "matches the same paths as /a/{*rest}",
            ),
            ("/a/{id}", "/a/{*rest}", "neither being more specific"),
            ("/a", "/{a}{b}", "one parameter at most"),
            ("/a", "/{*rest}/b", "the last one"),
            ("/a", "a", "starts with `/`"),
        ] {
            let found = mistakes(Rules::builder().route(one, rule()).route(other, rule()));
            assert!(
                matches!(&found[..], [mistake] if mistake.contains(hint)),
                "{found:?}"
            );
        }
        let twice = Rules::builder()
            .route("/a", rule())
            .on_write("/w", ["/a"])
            .on_write("/w", ["/a"]);
        assert!(mistakes(twice)[0].starts_with("on_write /w: some paths"));
    }

    #[test]
    fn a_target_is_a_cached_pattern_or_a_path_of_one() {
        let builder = Rules::builder()
            .route("/a/{id}", rule())
            .route("/b", rule())
            .route("/a/secret", Rule::bypass())
            .route("/users/{user}/orders", rule());
        for target in [
            "/a/{id}",
            "/a/7",
            "/b",
            "/users/{user}/orders",
            "/users/{id}/orders",
        ] {
            assert!(
                builder
                    .clone()
                    .on_write("/w/{id}", [target])
                    .build()
                    .is_ok(),
                "{target}"
            );
        }
        for (target, hint) in [
            ("/c", "there are /a/{id}, /b, /users/{user}/orders"),
            ("/b/{id}", "no cached route has this pattern"),
            ("/a/{*rest}", "no cached route has this pattern"),
            ("/a/secret", "no cached route has this pattern"),
            ("b", "starts with `/`"),
        ] {
            let found = mistakes(builder.clone().on_write("/w/{id}", [target]));
            assert!(
                matches!(&found[..], [mistake] if mistake.contains(hint)),
                "{found:?}"
            );
        }
        let none: [&str; 0] = [];
        assert!(mistakes(builder.on_write("/w", none))[0].contains("has no targets"));
    }

    #[test]
    fn a_parameter_of_a_target_is_one_of_the_write_or_of_the_route() {
        let builder = Rules::builder()
            .route("/products/{id}", rule())
            .route("/users/{user}/orders/{order}", rule());
        let on_write = |written, target: &str| builder.clone().on_write(written, [target]);
        for (written, target) in [
            ("/p/{product}", "/products/{product}"),
            ("/p/{product}", "/products/{id}"),
            ("/u/{id}", "/users/{id}/orders/{order}"),
        ] {
            assert!(on_write(written, target).build().is_ok(), "{target}");
        }
        for (written, target, mistake) in [
            (
                "/products/{id}",
                "/products/{ID}",
                "parameter `ID` is none of the pattern, which has [\"id\"], and none of the route \
                 /products/{id}",
            ),
            (
                "/u/{id}",
                "/users/{user}/orders/{number}",
                "parameter `number` is none of the pattern, which has [\"id\"], and none of the \
                 route /users/{user}/orders/{order}",
            ),
        ] {
            let expected = format!("on_write {written}: target {target}: {mistake}");
            assert_eq!(mistakes(on_write(written, target)), [expected]);
        }
    }

    #[test]
    fn all_mistakes_are_reported_at_once_in_their_order() {
        let found = mistakes(
            Rules::builder()
                .route("a", rule())
                .route("/b", Rule::ttl(Duration::ZERO).max_body(0).tag("{id}"))
                .route("/b", rule())
                .on_write("w", ["/c", "/b"]),
        );
        let places: Vec<_> = found
            .iter()
            .filter_map(|mistake| mistake.split(": ").next())
            .collect();
        let b = "route /b";
        assert_eq!(
            places,
            ["route a", b, b, b, b, "on_write w", "on_write w"],
            "{found:#?}"
        );
    }

    #[test]
    fn ten_thousand_patterns_are_compiled_and_no_more() {
        let many = |count| {
            (0..count).fold(Rules::builder(), |rules, n| {
                rules.route(format!("/{n}/{{id}}"), rule())
            })
        };
        assert!(many(10_000).build().is_ok());
        assert!(mistakes(many(10_001))[0].contains("at most 10000"));
    }

    #[test]
    fn over_long_texts_are_refused_and_not_repeated_whole() {
        let long = format!("/{}", "a".repeat(60_000));
        for mistake in mistakes(
            Rules::builder()
                .route(&long, rule())
                .on_write(&long, [&long]),
        ) {
            assert!(mistake.len() < 400, "{mistake}");
        }
    }
}
