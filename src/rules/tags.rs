use std::borrow::Cow;

use smallvec::SmallVec;

use super::{pattern::Pattern, template::Template};

/// The tags that a rule gives to the responses of its route.
#[derive(Debug)]
pub(super) struct Tags {
    templates: Box<[Template]>,
}

impl Tags {
    /// Tags that one stored response may have.
    const MAX: usize = 64;

    /// Bytes that one tag may have.
    const MAX_LEN: usize = 128;

    /// Reports tags that cannot be filled in from the parameters of `pattern`.
    pub(super) fn compile(
        texts: &[String],
        pattern: &Pattern,
        report: &mut impl FnMut(String),
    ) -> Self {
        if texts.len() > Self::MAX {
            report(format!(
                "{} tags: at most {} are possible",
                texts.len(),
                Self::MAX
            ));
        }
        let known: Vec<_> = pattern.names().collect();
        let mut templates = Vec::with_capacity(texts.len());
        for text in texts.iter().take(Self::MAX) {
            if text.is_empty() || text.len() > Self::MAX_LEN {
                report(format!(
                    "tag `{text:.100}`: a tag has 1 to {} bytes",
                    Self::MAX_LEN
                ));
            }
            let Some(template) = Template::parse(text) else {
                report(format!(
                    "tag `{text:.100}`: write `{{id}}` for a parameter, `{{{{` for a brace"
                ));
                continue;
            };
            for name in template.names().filter(|name| !known.contains(name)) {
                report(format!(
                    "tag `{text:.100}`: no parameter `{name}` in the pattern, but {known:?}"
                ));
            }
            templates.push(template);
        }
        let templates = templates.into();
        Self { templates }
    }

    /// Fills in the parameters.
    ///
    /// Values that are not UTF-8 get replacement characters: such responses share a tag and are
    /// invalidated together.
    pub(super) fn render<'v>(
        &self,
        value: impl Fn(&str) -> Option<Cow<'v, [u8]>>,
    ) -> Result<SmallVec<[String; 4]>, TagTooLong> {
        let rendered = |template: &Template| {
            let tag = template.render(|text| text.as_bytes().into(), &value)?;
            let tag = String::from_utf8_lossy(&tag).into_owned();
            (tag.len() <= Self::MAX_LEN).then_some(tag)
        };
        let templates = self.templates.iter();
        templates
            .map(|template| rendered(template).ok_or(TagTooLong))
            .collect()
    }
}

/// A parameter makes a tag longer than a tag can be.
///
/// The response is not stored: under a shortened tag it would escape its invalidation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TagTooLong;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::{Rule, Rules},
        *,
    };

    fn rule() -> Rule {
        Rule::ttl(Duration::from_secs(60))
    }

    fn tags(pattern: &str, rule: Rule, path: &str) -> Result<Vec<String>, TagTooLong> {
        let rules = Rules::builder().route(pattern, rule).build().unwrap();
        let tags = rules.find(path).unwrap().tags();
        tags.map(SmallVec::into_vec)
    }

    #[test]
    fn tags_are_rendered_with_decoded_parameters() {
        let rule = rule()
            .tag("products")
            .tag("product:{id}")
            .tag("{{{shop}:{id}");
        let found = tags(
            "/{shop}/products/{id}",
            rule,
            "/a%2Fb/products/%E4%BD%A0%ff",
        );
        let product = "product:\u{4f60}\u{fffd}";
        assert_eq!(
            found.unwrap(),
            ["products", product, "{a/b:\u{4f60}\u{fffd}"]
        );
    }

    #[test]
    fn a_parameter_that_makes_a_tag_too_long_is_told() {
        let found = |len: usize| {
            tags(
                "/{id}",
                rule().tag("id:{id}"),
                &format!("/{}", "a".repeat(len)),
            )
        };
        assert!(found(125).is_ok());
        assert_eq!(found(126), Err(TagTooLong));
    }
}
