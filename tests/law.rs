//! Each statement of the law has a test that carries its name: one beside the code, and one between
//! real clients and origins.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The statements: HTTP caching by subject, as numbered in the tests.
const STATEMENTS: &[(&str, u8)] = &[
    ("FR", 8), // freshness by Cache-Control
    ("CP", 3), // parsing of Cache-Control
    ("AG", 4), // parsing of Age
    ("EX", 3), // freshness by Expires
    ("ED", 4), // parsing of dates
    ("CR", 6), // response directives
    ("SV", 7), // stale responses
    ("HE", 4), // freshness by heuristics
    ("ME", 1), // methods
    ("ST", 4), // statuses
    ("RQ", 4), // request directives
    ("PG", 2), // Pragma
    ("VA", 6), // Vary
    ("VP", 1), // parsing of Vary
    ("LM", 3), // conditional requests by modification
    ("ET", 5), // conditional requests by entity-tag
    ("HD", 6), // stored fields
    ("U3", 4), // updates by a 304
    ("UH", 3), // updates by HEAD
    ("IV", 3), // invalidation
    ("PA", 4), // partial content
    ("AU", 2), // authorization
    ("OT", 5), // other fields of answers
    ("CD", 6), // CDN-Cache-Control
    ("IN", 2), // interim responses
];

/// Where a message ends is the server's part and the client's, so it shows only between them.
const FRAMING: &str = "HD6";

#[test]
fn every_statement_has_a_test_beside_the_code() {
    let mut named = names_in("src");
    named.extend(names_in("tests/cache"));
    named.insert(FRAMING.to_owned());
    assert_eq!(named, statements());
}

#[test]
fn every_statement_has_a_test_between_real_parts() {
    assert_eq!(names_in("tests/reverse_proxy"), statements());
}

fn statements() -> BTreeSet<String> {
    let subjects = STATEMENTS.iter();
    subjects
        .flat_map(|(subject, count)| (1..=*count).map(move |n| format!("{subject}{n}")))
        .collect()
}

/// Returns the names of statements in the sources of a folder.
fn names_in(folder: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    collect(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join(folder),
        &mut names,
    );
    names
}

fn collect(path: &Path, names: &mut BTreeSet<String>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a folder") {
            collect(&entry.expect("an entry").path(), names);
        }
        return;
    }
    let text = fs::read_to_string(path).expect("a source file");
    let is_name = |word: &&str| {
        let subject = word.get(..2);
        word.len() == 3
            && word.ends_with(|last: char| last.is_ascii_digit())
            && STATEMENTS.iter().any(|(known, _)| subject == Some(known))
    };
    let words = text.split(|char: char| !char.is_alphanumeric());
    names.extend(words.filter(is_name).map(str::to_owned));
}
