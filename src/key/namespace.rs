use std::{error::Error, fmt, str::FromStr, sync::Arc};

/// A name that keeps the entries of one application apart from all others in a shared store.
///
/// 1 to 64 characters out of `A-Z a-z 0-9 . _ -`. The default is `default`.
///
/// # Examples
///
/// ```
/// use tower_response_cache::Namespace;
///
/// let shop: Namespace = "shop-eu.v2".parse()?;
/// assert_eq!(shop.as_str(), "shop-eu.v2");
/// assert!("shop:eu".parse::<Namespace>().is_err());
/// # Ok::<(), tower_response_cache::InvalidNamespace>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Namespace(Arc<str>);

impl Namespace {
    const MAX_LEN: usize = 64;

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self(Arc::from("default"))
    }
}

impl TryFrom<&str> for Namespace {
    type Error = InvalidNamespace;

    fn try_from(name: &str) -> Result<Self, InvalidNamespace> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if (1..=Self::MAX_LEN).contains(&name.len()) && name.bytes().all(allowed) {
            Ok(Self(Arc::from(name)))
        } else {
            Err(InvalidNamespace { name: name.into() })
        }
    }
}

impl FromStr for Namespace {
    type Err = InvalidNamespace;

    fn from_str(name: &str) -> Result<Self, InvalidNamespace> {
        Self::try_from(name)
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that cannot be a [`Namespace`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidNamespace {
    name: Box<str>,
}

impl fmt::Display for InvalidNamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not a namespace: it has 1 to {} characters out of A-Z a-z 0-9 . _ -",
            self.name,
            Namespace::MAX_LEN
        )
    }
}

impl Error for InvalidNamespace {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_the_allowed_characters_is_taken_as_it_is() {
        let longest = "n".repeat(64);
        for name in ["a", "default", "Shop-EU.v2_3", &longest] {
            assert_eq!(Namespace::try_from(name).unwrap().to_string(), name);
        }
    }

    #[test]
    fn other_names_are_refused_with_what_would_be_right() {
        let too_long = "n".repeat(65);
        for name in ["", " ", "a b", "a:b", "a{b}", "a*", "ä", "a\r\n", &too_long] {
            let error = name.parse::<Namespace>().unwrap_err().to_string();
            assert!(error.contains("1 to 64 characters"), "{error}");
        }
    }
}
