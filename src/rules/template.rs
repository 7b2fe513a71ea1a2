use std::borrow::Cow;

/// A text with parameters in braces, as in `product:{id}` and `/files/{*path}`.
///
/// `{{` and `}}` stand for the braces themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    parts: Box<[Part]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Literal(String),
    /// With `rest` it takes all that is left of a path, slashes included.
    Param {
        name: String,
        rest: bool,
    },
}

impl Template {
    /// Returns `None` when braces do not pair up or a name is empty or has one of `{ } * /` in it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut chars = text.chars().peekable();
        while let Some(char) = chars.next() {
            match char {
                '{' | '}' if chars.next_if_eq(&char).is_some() => literal.push(char),
                '}' => return None,
                '{' => {
                    let rest = chars.next_if_eq(&'*').is_some();
                    let mut name = String::new();
                    loop {
                        match chars.next()? {
                            '}' => break,
                            '{' | '*' | '/' => return None,
                            char => name.push(char),
                        }
                    }
                    // To the router `}}` is an escape even where it ends a name.
                    if name.is_empty() || chars.peek() == Some(&'}') {
                        return None;
                    }
                    if !literal.is_empty() {
                        parts.push(Part::Literal(std::mem::take(&mut literal)));
                    }
                    parts.push(Part::Param { name, rest });
                }
                char => literal.push(char),
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Some(Self {
            parts: parts.into(),
        })
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Literal(_) => None,
            Part::Param { name, .. } => Some(name.as_str()),
        })
    }

    /// Fills in the parameters; `None` when one of them has no value.
    pub(super) fn render<'v>(
        &self,
        literal: impl Fn(&str) -> Cow<'_, [u8]>,
        value: impl Fn(&str) -> Option<Cow<'v, [u8]>>,
    ) -> Option<Vec<u8>> {
        let mut rendered = Vec::new();
        for part in &self.parts {
            match part {
                Part::Literal(text) => rendered.extend_from_slice(&literal(text)),
                Part::Param { name, .. } => rendered.extend_from_slice(&value(name)?),
            }
        }
        Some(rendered)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn literal(text: &str) -> Part {
        Part::Literal(text.to_owned())
    }

    fn param(name: &str, rest: bool) -> Part {
        let name = name.to_owned();
        Part::Param { name, rest }
    }

    #[test]
    fn literals_and_parameters_are_told_apart() {
        for (text, parts) in [
            ("", vec![]),
            ("plain", vec![literal("plain")]),
            (
                "product:{id}",
                vec![literal("product:"), param("id", false)],
            ),
            (
                "{a}-{b}",
                vec![param("a", false), literal("-"), param("b", false)],
            ),
            ("/f/{*rest}", vec![literal("/f/"), param("rest", true)]),
            ("a{{b}}c", vec![literal("a{b}c")]),
            ("{{{a}", vec![literal("{"), param("a", false)]),
        ] {
            assert_eq!(Template::parse(text).unwrap().parts(), parts, "{text}");
        }
    }

    #[test]
    fn unpaired_braces_and_bad_names_are_refused() {
        for text in [
            "{", "}", "{}", "{*}", "{a", "a}", "{a}}", "{{{a}}}", "{a{b}}", "{a/b}", "{a*}",
        ] {
            assert_eq!(Template::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in "[a-c{}*/:]{0,16}|.*") {
            Template::parse(&text);
        }
    }
}
