//! The house of `src/lib.rs` stands: each floor imports only from the floors below it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The floors, from the ground up, with their rooms.
const FLOORS: [&[&str]; 9] = [
    &["error", "clock", "reason", "flight"],
    &["semantics", "key", "epoch", "extension", "metrics"],
    &["entry", "rules"],
    &["store"],
    &["invalidation"],
    &["engine"],
    &["handle"],
    &["middleware"],
    &["config"],
];

struct Source {
    path: PathBuf,
    room: String,
    /// Without comments and tests.
    code: String,
}

#[test]
fn every_room_stands_on_a_floor() {
    let rooms: BTreeSet<String> = sources().into_iter().map(|source| source.room).collect();
    let known: BTreeSet<String> = FLOORS
        .iter()
        .copied()
        .flatten()
        .map(|room| (*room).to_owned())
        .collect();
    assert_eq!(rooms, known);
}

#[test]
fn no_import_runs_upward_or_sideways() {
    let floor = |room: &str| FLOORS.iter().position(|rooms| rooms.contains(&room));
    let mut wrong = Vec::new();
    for source in sources() {
        for imported in imports(&source.code) {
            if imported != source.room && floor(&imported) >= floor(&source.room) {
                wrong.push(format!("{} imports {imported}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Else [`imports`] would not see it.
#[test]
fn another_room_is_named_after_the_crate() {
    for source in sources() {
        // Each module within a room is one `super` further from the crate.
        let within = source.path.components().skip(2);
        let depth = within.filter(|part| part.as_os_str() != "mod.rs").count();
        let out = "super::".repeat(depth + 1);
        for hidden in ["crate::{", "crate::*", "crate as ", &out] {
            assert!(
                !source.code.contains(hidden),
                "{}: {hidden}",
                source.path.display()
            );
        }
    }
}

#[test]
fn the_rooms_import_each_other_in_no_circle() {
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources() {
        let mut imported = imports(&source.code);
        imported.remove(&source.room);
        graph.entry(source.room).or_default().extend(imported);
    }
    // Takes away rooms that import nothing that is left, until nothing is left but circles.
    while let Some(room) = graph
        .iter()
        .find(|(_, imports)| imports.is_empty())
        .map(|(room, _)| room.clone())
    {
        graph.remove(&room);
        for imports in graph.values_mut() {
            imports.remove(&room);
        }
    }
    assert!(graph.is_empty(), "{graph:#?}");
}

#[test]
fn time_is_read_in_the_clock_alone() {
    assert_only(
        "clock",
        &["Instant::now", "SystemTime::now", "UNIX_EPOCH.elapsed"],
    );
}

#[test]
fn redis_is_spoken_in_its_store_alone() {
    let strangers: Vec<PathBuf> = sources()
        .into_iter()
        .filter(|source| !source.path.starts_with("src/store/redis"))
        .filter(|source| {
            // The crate, not this project's own module of that name.
            source.code.contains("use redis::")
                || source.code.contains(" redis::")
                || source.code.contains("<redis::")
        })
        .map(|source| source.path)
        .collect();
    assert!(strangers.is_empty(), "{strangers:?}");
}

#[test]
fn the_law_sees_http_types_and_nothing_that_waits_or_logs() {
    for source in sources()
        .into_iter()
        .filter(|source| source.room == "semantics")
    {
        for foreign in [
            "async ",
            ".await",
            "tokio",
            "tracing",
            "parking_lot",
            "std::sync",
        ] {
            assert!(
                !source.code.contains(foreign),
                "{}: {foreign}",
                source.path.display()
            );
        }
    }
}

#[test]
fn tasks_are_spawned_in_one_place() {
    let spawning: Vec<PathBuf> = sources()
        .into_iter()
        .filter(|source| {
            source.code.contains("spawn_on(")
                || source.code.contains("runtime.spawn(")
                || source.code.contains("tokio::spawn(")
        })
        .map(|source| source.path)
        .filter(|path| !path.starts_with("src/store/redis"))
        .collect();
    assert_eq!(spawning, [PathBuf::from("src/engine/tasks.rs")]);
}

fn assert_only(room: &str, words: &[&str]) {
    for source in sources().into_iter().filter(|source| source.room != room) {
        for word in words {
            assert!(
                !source.code.contains(word),
                "{}: {word}",
                source.path.display()
            );
        }
    }
}

/// The rooms that a source imports, in `use crate::…` and in paths.
fn imports(code: &str) -> BTreeSet<String> {
    let known: Vec<&str> = FLOORS.iter().copied().flatten().copied().collect();
    code.split("crate::")
        .skip(1)
        .filter_map(|rest| {
            rest.split(|c: char| !c.is_alphanumeric() && c != '_')
                .next()
        })
        .filter(|name| known.contains(name))
        .map(str::to_owned)
        .collect()
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    collect(&root.join("src"), &mut |path| {
        let path = path
            .strip_prefix(root)
            .expect("a path under the root")
            .to_owned();
        let mut parts = path
            .components()
            .skip(1)
            .map(|part| part.as_os_str().to_string_lossy());
        let room = parts
            .next()
            .expect("a file in src")
            .trim_end_matches(".rs")
            .to_owned();
        let is_test = ["testing.rs", "tests.rs"]
            .iter()
            .any(|name| path.ends_with(name))
            || path.iter().any(|part| part == "tests");
        if room != "lib" && !is_test {
            let text = fs::read_to_string(root.join(&path)).expect("a source file");
            found.push(Source {
                path,
                room,
                code: stripped(&text),
            });
        }
    });
    assert!(
        found.len() > 40,
        "the sources are not where they were: {}",
        found.len()
    );
    found
}

fn collect(folder: &Path, each: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, each);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            each(&path);
        }
    }
}

/// Drops comments, and what follows the `cfg(test)` at a file's end.
fn stripped(text: &str) -> String {
    let code = text
        .split("\n#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default();
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}
