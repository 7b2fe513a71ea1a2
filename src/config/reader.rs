//! Reading settings from wherever they stand.

use crate::error::{Error, ErrorKind};

/// Finds a setting by its name in a file; returns its name where it was found, and its value.
type Find<'a> = Box<dyn Fn(&str) -> Option<(String, String)> + 'a>;

/// Reads settings one by one and collects what is wrong with them.
pub(super) struct Reader<'a> {
    find: Find<'a>,
    pub(super) mistakes: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(find: impl Fn(&str) -> Option<(String, String)> + 'a) -> Self {
        Self {
            find: Box::new(find),
            mistakes: Vec::new(),
        }
    }

    pub(super) fn take<T>(
        &mut self,
        field: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let (name, value) = (self.find)(field)?;
        match parse(value.trim()) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.mistakes.push(format!("{name}: {problem}"));
                None
            }
        }
    }

    pub(super) fn finish<T>(self, settings: T) -> Result<T, Error> {
        match self.mistakes.is_empty() {
            true => Ok(settings),
            false => Err(Error::new(ErrorKind::Invalid, self.mistakes.join("\n"))),
        }
    }
}
