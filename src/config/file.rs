//! Settings and rules in one file.

use std::path::Path;

use serde_json::{Map, Value};

use super::Settings;
use super::reader::Reader;
use crate::error::{Error, ErrorKind};
use crate::rules::Rules;

pub(super) fn read(path: &Path) -> Result<Settings, Error> {
    let invalid =
        |message: String| Error::new(ErrorKind::Invalid, format!("{}: {message}", path.display()));
    let mut document = load(path).map_err(invalid)?;
    let cache = match document.remove("cache") {
        None => Map::new(),
        Some(Value::Object(cache)) => cache,
        Some(_) => return Err(invalid("`cache` is no table".to_owned())),
    };
    let mut reader = Reader::new(|field| {
        let value = match cache.get(field)? {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        Some((format!("cache.{field}"), value))
    });
    let unknown = cache
        .keys()
        .filter(|field| !Settings::FIELDS.contains(&field.as_str()));
    reader.mistakes.extend(unknown.map(|field| {
        format!(
            "cache.{field}: there is no such field, but {}",
            Settings::FIELDS.join(", ")
        )
    }));
    let settings = Settings::read(&mut reader);
    match rules_in(document) {
        Ok(rules) => reader.finish(settings.rules(rules)),
        Err(problem) => {
            reader.mistakes.push(problem);
            reader.finish(settings)
        }
    }
    .map_err(|error| invalid(error.to_string()))
}

/// Reads the rules in a file; a table `cache` in it is left alone.
pub(super) fn rules(path: &str) -> Result<Rules, String> {
    let mut document = load(Path::new(path)).map_err(|problem| format!("{path}: {problem}"))?;
    document.remove("cache");
    rules_in(document).map_err(|problem| format!("{path}: {problem}"))
}

fn rules_in(document: Map<String, Value>) -> Result<Rules, String> {
    serde_json::from_value(Value::Object(document)).map_err(|error| error.to_string())
}

fn load(path: &Path) -> Result<Map<String, Value>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let extension = path.extension().and_then(std::ffi::OsStr::to_str);
    match extension {
        Some("toml") => toml::from_str(&text).map_err(|error| {
            // Shown whole, it would quote the line, on which a password may be.
            let place = error.span().map_or(0, |span| span.start);
            let line = text
                .bytes()
                .take(place)
                .filter(|byte| *byte == b'\n')
                .count();
            format!("line {}: {}", line.saturating_add(1), error.message())
        }),
        Some("json") => serde_json::from_str(&text).map_err(|error| error.to_string()),
        Some("yaml" | "yml") => serde_norway::from_str(&text).map_err(|error| error.to_string()),
        _ => Err("the name of a file of settings ends in .toml, .json, .yaml or .yml".to_owned()),
    }
}
