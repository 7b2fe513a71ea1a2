use std::{borrow::Cow, fmt, sync::Arc};

use super::template::{Part, Template};
use crate::key::{decoded_path, has_valid_escapes};

/// A path with parameters, in the syntax of axum's routes: `/a/{id}`, `/a/{*rest}`.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    text: Arc<str>,
    template: Template,
}

impl Pattern {
    const MAX_LEN: usize = 1024;

    pub(super) fn parse(text: &str) -> Result<Self, Flaw> {
        if text.len() > Self::MAX_LEN {
            return Err(Flaw::TooLong);
        }
        if !text.starts_with('/') {
            return Err(Flaw::NoSlash);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) || !has_valid_escapes(text.as_bytes())
        {
            return Err(Flaw::NotAPath);
        }
        let old_syntax = |segment: &&str| segment.starts_with([':', '*']);
        if let Some(segment) = text.split('/').find(old_syntax) {
            return Err(Flaw::OldSyntax(segment.to_owned()));
        }
        let template = Template::parse(text).ok_or(Flaw::Braces)?;
        let mut names: Vec<_> = template.names().collect();
        names.sort_unstable();
        if let Some([name, ..]) = names
            .windows(2)
            .find(|pair| matches!(pair, [a, b] if a == b))
        {
            return Err(Flaw::RepeatedName((*name).to_owned()));
        }
        Ok(Self {
            text: text.into(),
            template,
        })
    }

    /// The pattern as it was written, which identifies its route.
    pub(crate) fn text(&self) -> &Arc<str> {
        &self.text
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.template.names()
    }

    /// The one path that a pattern without parameters matches.
    pub(super) fn as_path(&self) -> Option<&str> {
        match self.template.parts() {
            [Part::Literal(path)] => Some(path),
            _ => None,
        }
    }

    /// The pattern without the names of its parameters: equal for patterns that match the same
    /// paths.
    pub(super) fn shape(&self) -> String {
        self.template
            .parts()
            .iter()
            .map(|part| match part {
                Part::Literal(text) => Cow::Owned(text.replace('{', "{{")),
                Part::Param { rest: false, .. } => Cow::Borrowed("{}"),
                Part::Param { rest: true, .. } => Cow::Borrowed("{*}"),
            })
            .collect()
    }

    /// The percent-decoded path with all parameters filled in, if all have a value.
    pub(super) fn bind<'v>(
        &self,
        value: impl Fn(&str) -> Option<Cow<'v, [u8]>>,
    ) -> Option<Vec<u8>> {
        self.template.render(decoded_path, value)
    }
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    TooLong,
    NoSlash,
    NotAPath,
    OldSyntax(String),
    Braces,
    RepeatedName(String),
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "a pattern has at most {} bytes", Pattern::MAX_LEN),
            Self::NoSlash => f.write_str("a pattern starts with `/`"),
            Self::NotAPath => f.write_str(
                "a pattern is written as the path arrives: visible ASCII, the rest percent-encoded",
            ),
            Self::OldSyntax(segment) => {
                let name = segment.get(1..).unwrap_or_default();
                let star = if segment.starts_with('*') { "*" } else { "" };
                write!(f, "`{segment}` is no parameter: write `{{{star}{name}}}`")
            }
            Self::Braces => f.write_str(
                "a parameter is a name in braces, `{id}` or `{*rest}`; a plain brace is doubled",
            ),
            Self::RepeatedName(name) => {
                write!(
                    f,
                    "two parameters are named `{name}`: each needs a name of its own"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_that_differ_in_names_alone_have_one_shape() {
        let shape = |text| Pattern::parse(text).unwrap().shape();
        assert_eq!(shape("/a/{id}/{*rest}"), shape("/a/{x}/{*y}"));
        let different = [
            "/a/{id}", "/a/{*id}", "/a/id", "/a/{id}/", "/a/{{}}", "/a/{id}x", "/a",
        ];
        for (i, one) in different.iter().enumerate() {
            for other in different.iter().skip(i + 1) {
                assert_ne!(shape(one), shape(other), "{one} {other}");
            }
        }
    }

    #[test]
    fn a_flaw_says_what_would_be_right() {
        let long = format!("/{}", "a".repeat(1024));
        for (text, hint) in [
            ("", "starts with `/`"),
            ("a/b", "starts with `/`"),
            (&long, "at most 1024 bytes"),
            ("/caf\u{e9}", "percent-encoded"),
            ("/a b", "percent-encoded"),
            ("/a%2", "percent-encoded"),
            ("/a/:id", "write `{id}`"),
            ("/a/*rest", "write `{*rest}`"),
            ("/a/{id", "name in braces"),
            ("/a/{}", "name in braces"),
            ("/{id}/{id}", "named `id`"),
        ] {
            let flaw = Pattern::parse(text).unwrap_err().to_string();
            assert!(flaw.contains(hint), "{text}: {flaw}");
        }
    }

    #[test]
    fn binding_yields_the_decoded_path_or_nothing() {
        let pattern = Pattern::parse("/caf%C3%A9/{id}").unwrap();
        let path = pattern.bind(|name| (name == "id").then(|| Cow::Borrowed(&b"4%2"[..])));
        assert_eq!(path.unwrap(), "/caf\u{e9}/4%2".as_bytes());
        assert_eq!(pattern.bind(|_| None), None);
        assert_eq!(pattern.as_path(), None);
        assert_eq!(
            Pattern::parse("/a/{{b}}").unwrap().as_path(),
            Some("/a/{b}")
        );
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in "/[a-c{}*/:%]{0,16}|.*") {
            if let Ok(pattern) = Pattern::parse(&text) {
                pattern.shape();
                prop_assert_eq!(&**pattern.text(), text);
            }
        }
    }
}
