use std::{borrow::Cow, sync::Arc, time::Duration};

use http::StatusCode;
use smallvec::SmallVec;

use super::{
    Policy, Rule,
    error::{Mistakes, Place},
    pattern::Pattern,
    rule::Lifetime,
    tags::{TagTooLong, Tags},
};
use crate::key::decoded_path;

/// A rule with its pattern, checked and ready for requests.
#[derive(Debug)]
pub(crate) struct Route {
    /// Its place among the routes, as they were given.
    pub(crate) index: usize,
    pub(crate) pattern: Pattern,
    pub(crate) rule: Rule,
    /// What the rule says beside the policy is already part of it.
    pub(crate) policy: Policy,
    tags: Tags,
}

impl Route {
    /// The longest lifetime or window that a rule may set.
    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

    /// Reports what is wrong with `rule`, and returns a route all the same, so that the mistakes of
    /// other rules can be found too.
    pub(super) fn compile(
        index: usize,
        pattern: Pattern,
        rule: Rule,
        policy: &Policy,
        mistakes: &mut Mistakes,
    ) -> Self {
        let text = Arc::clone(pattern.text());
        let mut report = |problem: String| mistakes.report(&Place::Route(&text), problem);
        check_lifetimes(&rule, &mut report);
        check_times(&rule, &mut report);
        check_limits(&rule, &mut report);
        let tags = Tags::compile(&rule.tags, &pattern, &mut report);
        let mut policy = rule.policy.as_ref().unwrap_or(policy).clone();
        policy.obey_client |= rule.obey_client;
        policy.shared_despite_cookies |= rule.shared_despite_cookies;
        policy.trusted_proxy |= rule.trusted_proxy;
        Self {
            index,
            pattern,
            rule,
            policy,
            tags,
        }
    }

    /// Whether responses of this route can be in the cache.
    pub(super) fn is_cached(&self) -> bool {
        self.rule.lifetime != Lifetime::Bypass
    }
}

/// The route of a request and what its path says of the parameters.
#[derive(Debug)]
pub(crate) struct Match<'r, 'p> {
    pub(crate) route: &'r Arc<Route>,
    pub(super) params: matchit::Params<'r, 'p>,
}

impl<'p> Match<'_, 'p> {
    /// The percent-decoded value of a parameter.
    pub(crate) fn param(&self, name: &str) -> Option<Cow<'p, [u8]>> {
        self.params.get(name).map(decoded_path)
    }

    /// The tags of the rule with the parameters filled in.
    pub(crate) fn tags(&self) -> Result<SmallVec<[String; 4]>, TagTooLong> {
        self.route.tags.render(|name| self.param(name))
    }
}

fn check_lifetimes(rule: &Rule, report: &mut impl FnMut(String)) {
    let ttl = match rule.lifetime {
        Lifetime::Ttl(ttl) => Some(ttl),
        Lifetime::Bypass | Lifetime::FromOrigin => None,
    };
    if ttl == Some(Duration::ZERO) {
        report("ttl is zero: give a lifetime, or use `bypass` for what is not to be cached".into());
    }
    if ttl.is_none() && rule.override_origin {
        report("override_origin needs a ttl to put in place of the origin's".into());
    }
    for (name, duration) in [
        ("ttl", ttl),
        ("stale_while_revalidate", rule.stale_while_revalidate),
        ("stale_if_error", rule.stale_if_error),
        ("client_max_age", rule.client.max_age()),
        ("handler_timeout", rule.handler_timeout),
    ] {
        if let Some(duration) = duration.filter(|&duration| duration > Route::YEAR) {
            report(format!(
                "{name} is {duration:?}: at most a year (365 days) is possible"
            ));
        }
    }
}

fn check_times(rule: &Rule, report: &mut impl FnMut(String)) {
    for (name, duration) in [
        ("refresh_ahead", rule.refresh_ahead),
        ("handler_timeout", rule.handler_timeout),
        ("soft_handler_timeout", rule.soft_handler_timeout),
    ] {
        if duration == Some(Duration::ZERO) {
            report(format!("{name} is zero: give a time, or leave it out"));
        }
    }
    let ttl = match rule.lifetime {
        Lifetime::Ttl(ttl) => Some(ttl),
        Lifetime::Bypass | Lifetime::FromOrigin => None,
    };
    for (name, duration, longer, limit) in [
        ("refresh_ahead", rule.refresh_ahead, "ttl", ttl),
        (
            "soft_handler_timeout",
            rule.soft_handler_timeout,
            "handler_timeout",
            rule.handler_timeout,
        ),
    ] {
        if let (Some(duration), Some(limit)) = (duration, limit)
            && duration >= limit
        {
            report(format!(
                "{name} is {duration:?}: it must be shorter than the {longer}, {limit:?}"
            ));
        }
    }
}

fn check_limits(rule: &Rule, report: &mut impl FnMut(String)) {
    for (name, limit) in [("max_body", rule.max_body), ("max_fields", rule.max_fields)] {
        if limit == Some(0) {
            report(format!(
                "{name} is zero, so nothing could be stored: give a number of bytes"
            ));
        }
    }
    for status in &rule.statuses {
        if status.is_informational()
            || [StatusCode::PARTIAL_CONTENT, StatusCode::NOT_MODIFIED].contains(status)
        {
            let status = status.as_u16();
            report(format!(
                "status {status} is never stored for itself: name final, complete ones"
            ));
        }
    }
    for name in &rule.key.cookies {
        let in_name = |byte: u8| byte.is_ascii_graphic() && !b"=;,\"\\".contains(&byte);
        if name.is_empty() || !name.bytes().all(in_name) {
            report(format!(
                "no cookie is named {name:?}: give a name as it stands before the `=`"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Rules, *};

    fn rule() -> Rule {
        Rule::ttl(Duration::from_secs(60))
    }

    #[test]
    fn parameters_are_decoded() {
        let rules = Rules::builder().route("/{a}/{*b}", rule()).build().unwrap();
        let found = rules.find("/%41%zz/b%2F/c").unwrap();
        assert_eq!(found.param("a").as_deref(), Some(&b"A%zz"[..]));
        assert_eq!(found.param("b").as_deref(), Some(&b"b//c"[..]));
        assert_eq!(found.param("c"), None);
    }

    #[test]
    fn what_the_rule_says_beside_the_policy_is_part_of_it() {
        let rules = Rules::builder()
            .policy(Policy::guarded().heuristics(true))
            .route("/plain", rule())
            .route("/obeying", rule().obey_client().trusted_proxy())
            .route(
                "/own",
                rule().shared_despite_cookies().policy(Policy::guarded()),
            )
            .build()
            .unwrap();
        let policy = |path| rules.find(path).unwrap().route.policy.clone();
        let outer = Policy::guarded().heuristics(true);
        assert_eq!(rules.policy(), &outer);
        assert_eq!(policy("/plain"), outer);
        assert_eq!(
            policy("/obeying"),
            outer.obey_client(true).trusted_proxy(true)
        );
        assert_eq!(
            policy("/own"),
            Policy::guarded().shared_despite_cookies(true)
        );
    }
}
