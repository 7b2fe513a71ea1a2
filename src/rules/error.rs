use std::{error::Error, fmt};

/// The mistakes in a set of rules, all of them.
///
/// `Display` shows one mistake a line; each names the pattern and says what would be right.
#[derive(Clone, Debug)]
pub struct RulesError {
    mistakes: Vec<String>,
}

impl RulesError {
    pub(super) fn new(mistake: impl fmt::Display) -> Self {
        Self {
            mistakes: vec![mistake.to_string()],
        }
    }

    /// Returns the mistakes in the order in which the rules were given; there is at least one.
    pub fn mistakes(&self) -> impl Iterator<Item = &str> {
        self.mistakes.iter().map(String::as_str)
    }
}

impl fmt::Display for RulesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.mistakes.join("\n"))
    }
}

impl Error for RulesError {}

/// Collects what is wrong while rules are compiled.
#[derive(Clone, Debug, Default)]
pub(super) struct Mistakes(Vec<String>);

impl Mistakes {
    pub(super) fn report(&mut self, place: &Place<'_>, problem: impl fmt::Display) {
        self.0.push(format!("{place}: {problem}"));
    }

    /// Returns `rules` if nothing was reported.
    pub(super) fn none_in<T>(self, rules: T) -> Result<T, RulesError> {
        if self.0.is_empty() {
            Ok(rules)
        } else {
            Err(RulesError { mistakes: self.0 })
        }
    }
}

/// Where a mistake was made.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place<'a> {
    Rules,
    Route(&'a str),
    OnWrite(&'a str),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rules => f.write_str("rules"),
            Self::Route(pattern) => write!(f, "route {pattern:.100}"),
            Self::OnWrite(pattern) => write!(f, "on_write {pattern:.100}"),
        }
    }
}
