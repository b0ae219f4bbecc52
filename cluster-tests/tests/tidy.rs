//! The architecture, as a test: who imports whom, who names which crate, how long things are.
//!
//! A new edge between modules is a one-line diff of the first table.

#![expect(clippy::unwrap_used, reason = "a test that meets a surprise panics")]

use std::collections::{BTreeMap, BTreeSet};

use cluster_tests::scenario::Scenario;
use cluster_tests::sources::{self, Source};

/// Each module of `src`, and those that it may import. Imports flow down: a module names only modules
/// above it in this table.
const IMPORTS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("mutant", &[]),
    ("testing", &[]),
    ("bench", &[]),
    ("metrics", &["error"]),
    ("encoding", &["error"]),
    ("kv", &["encoding", "error", "mutant"]),
    ("config", &["kv", "error"]),
    ("script", &["kv", "error", "mutant"]),
    ("storage", &["kv", "encoding", "error"]),
    ("raft", &["storage", "kv", "encoding", "error", "mutant"]),
    ("executor", &["kv", "script", "raft", "storage", "encoding", "error", "mutant"]),
    ("api", &["kv", "error"]),
    (
        "node",
        &[
            "executor", "raft", "script", "storage", "api", "kv", "config", "encoding", "error",
            "mutant",
        ],
    ),
    ("http", &["node", "api", "kv", "script", "encoding", "error", "metrics", "config", "mutant"]),
    ("client", &["api", "error"]),
    (
        "cli",
        &["http", "node", "client", "bench", "api", "config", "error", "kv", "metrics", "mutant"],
    ),
    ("main", &["cli"]),
];

/// Each foreign crate that has a room of its own, and the room.
const ROOMS: &[(&str, &[&str])] = &[
    ("governor", &["src/http/rate.rs"]),
    ("rustix", &["src/main.rs", "src/executor/threads.rs"]),
    ("bincode", &["src/encoding.rs"]),
    ("mlua", &["src/script/"]),
    ("rocksdb", &["src/storage/"]),
    ("openraft", &["src/raft/"]),
    ("clap", &["src/cli/", "src/config.rs"]),
    ("axum", &["src/http/", "src/raft/", "src/node/"]),
    ("reqwest", &["src/client.rs", "src/raft/", "src/node/"]),
];

/// What the core does not know: I/O, waiting, clocks, randomness, an order that differs by process.
const NOT_IN_KV: &[&str] = &[
    "async",
    "await",
    "tokio",
    "fs",
    "net",
    "Instant",
    "SystemTime",
    "HashMap",
    "HashSet",
    "rand",
    "getrandom",
    "thread",
];

/// Lines of a file, without its tests.
const FILE_LINES_MAX: usize = 600;
/// Lines of a function, without blanks and comments.
const FUNCTION_LINES_MAX: usize = 70;
/// Words that say that something is not done. In two parts, or they would be found here.
const UNFINISHED: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("dbg", "!("),
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
];
/// Paths that exist on one machine only.
const MACHINE_PATHS: &[&str] = &["/home", "/root", "/work", "/Users"];
/// Where the project's texts are.
const TEXTS: &[&str] = &[
    "src",
    "cluster-tests",
    "deploy",
    "docs",
    ".ci",
    ".cargo",
    "Makefile",
    "README.md",
    "Cargo.toml",
];
const TEXT_ENDS: &[&str] = &[
    ".rs",
    ".lua",
    ".sh",
    ".toml",
    ".md",
    ".yaml",
    ".yml",
    ".session",
    "Makefile",
    "run",
    "Dockerfile",
];

fn product() -> Vec<Source> {
    sources::read(&Scenario::checkout(), "src", &[".rs"])
}

fn all_rust() -> Vec<Source> {
    let mut all = product();
    all.extend(sources::read(&Scenario::checkout(), "cluster-tests", &[".rs"]));
    all
}

/// The module of `src` that a file belongs to.
fn module(path: &str) -> &str {
    let first = path.trim_start_matches("src/").split('/').next().unwrap();
    first.trim_end_matches(".rs")
}

fn assert_none(failures: &[String]) {
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n"));
}

#[test]
fn imports_flow_down() {
    let table: BTreeMap<_, _> = IMPORTS.iter().copied().collect();
    let mut failures = Vec::new();
    for source in product() {
        let from = module(&source.path);
        if from == "lib" {
            continue;
        }
        let Some(allowed) = table.get(from) else {
            failures.push(format!("{}: the module `{from}` is not in the table", source.path));
            continue;
        };
        for (to, line) in edges(&source) {
            if to != from && !allowed.contains(&to.as_str()) {
                failures.push(format!("{}:{line}: `{from}` may not import `{to}`", source.path));
            }
        }
    }
    assert_none(&failures);
}

/// What a file imports from the crate's root.
fn edges(source: &Source) -> Vec<(String, usize)> {
    let mut edges = source.paths_from("crate");
    edges.extend(source.paths_from("kvdb"));
    let depth = source.path.matches('/').count();
    let at_the_top = depth == 1 || (depth == 2 && source.path.ends_with("/mod.rs"));
    if at_the_top {
        edges.extend(source.paths_from("super"));
    }
    edges
}

#[test]
fn nobody_climbs_past_its_own_module() {
    let mut failures = Vec::new();
    for source in product() {
        for (segment, line) in source.paths_from("super") {
            if segment == "super" {
                failures
                    .push(format!("{}:{line}: write `crate::` for `super::super`", source.path));
            }
        }
    }
    assert_none(&failures);
}

#[test]
fn the_table_itself_flows_down() {
    let names: Vec<_> = IMPORTS.iter().map(|(name, _)| *name).collect();
    let mut above: BTreeSet<&str> = BTreeSet::new();
    for (name, imports) in IMPORTS {
        for import in *imports {
            assert!(names.contains(import), "`{name}` may import `{import}`, which is no module");
            assert!(above.contains(import), "`{name}` imports upwards: `{import}`");
        }
        above.insert(name);
    }
}

#[test]
fn each_foreign_crate_stays_in_its_room() {
    let mut failures = Vec::new();
    for source in product() {
        for (name, rooms) in ROOMS {
            if rooms.iter().any(|room| source.path.starts_with(room)) {
                continue;
            }
            let lines = source.lines_with(name).into_iter();
            failures.extend(
                lines.map(|line| {
                    format!("{}:{line}: only {rooms:?} may name `{name}`", source.path)
                }),
            );
        }
    }
    assert_none(&failures);
}

#[test]
fn the_core_is_pure() {
    let mut failures = Vec::new();
    for source in product().iter().filter(|source| module(&source.path) == "kv") {
        for word in NOT_IN_KV {
            let lines = source.lines_with(word).into_iter();
            failures.extend(
                lines.map(|line| format!("{}:{line}: `{word}` has no place in kv", source.path)),
            );
        }
        for (segment, line) in source.paths_from("std") {
            if segment == "time" || segment == "env" || segment == "process" {
                failures.push(format!("{}:{line}: `std::{segment}` in kv", source.path));
            }
        }
    }
    assert_none(&failures);
}

#[test]
fn files_and_functions_are_short() {
    let mut failures = Vec::new();
    for source in all_rust() {
        let lines = source.shipped_lines();
        if lines > FILE_LINES_MAX {
            failures.push(format!("{}: {lines} lines, beyond {FILE_LINES_MAX}", source.path));
        }
        for function in source.functions() {
            if function.lines > FUNCTION_LINES_MAX {
                failures.push(format!(
                    "{}:{}: `{}` has {} lines, beyond {FUNCTION_LINES_MAX}",
                    source.path, function.line, function.name, function.lines
                ));
            }
        }
    }
    assert_none(&failures);
}

#[test]
fn nothing_is_left_unfinished() {
    let mut failures = Vec::new();
    for source in all_rust() {
        for (index, line) in source.text.lines().enumerate() {
            for word in UNFINISHED {
                if line.contains(word) {
                    failures.push(format!("{}:{}: {word}", source.path, index + 1));
                }
            }
        }
    }
    assert_none(&failures);
}

#[test]
fn every_file_is_compiled() {
    let all: BTreeMap<String, Source> =
        all_rust().into_iter().map(|source| (source.path.clone(), source)).collect();
    let is_root = |path: &str| {
        ["src/main.rs", "src/lib.rs", "cluster-tests/src/lib.rs"].contains(&path)
            || (path.starts_with("cluster-tests/tests/") && path.matches('/').count() == 2)
            || (path.starts_with("cluster-tests/src/bin/") && path.matches('/').count() == 3)
            || ["src/lib.rs", "src/main.rs", "src/bin/steady.rs", "benches/road.rs", "tests/end.rs"]
                .iter()
                .any(|root| path == format!("cluster-tests/bench/{root}"))
    };
    let mut reached = BTreeSet::new();
    let mut next: Vec<&String> = all.keys().filter(|path| is_root(path)).collect();
    while let Some(path) = next.pop() {
        if !reached.insert(path) {
            continue;
        }
        let dir = module_dir(path, is_root(path));
        for name in all[path].declared_modules() {
            let files = [format!("{dir}/{name}.rs"), format!("{dir}/{name}/mod.rs")];
            next.extend(all.keys().filter(|path| files.contains(path)));
        }
    }
    let dead = all.keys().filter(|path| !reached.contains(path));
    let failures: Vec<_> = dead.map(|path| format!("{path}: no `mod` leads here")).collect();
    assert_none(&failures);
}

/// Where the modules that a file declares are.
fn module_dir(path: &str, is_root: bool) -> String {
    let (dir, file) = path.rsplit_once('/').unwrap();
    if is_root || file == "mod.rs" {
        dir.to_owned()
    } else {
        path.trim_end_matches(".rs").to_owned()
    }
}

#[test]
fn links_of_documents_lead_somewhere() {
    let mut failures = Vec::new();
    for under in ["README.md", "docs"] {
        for document in sources::read(&Scenario::checkout(), under, &[".md"]) {
            let path = Scenario::checkout().join(&document.path);
            let dir = path.parent().unwrap();
            let links = document.text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
            for (link, _) in links {
                let file = link.split('#').next().unwrap();
                if !link.contains("://") && !file.is_empty() && !dir.join(file).exists() {
                    failures.push(format!("{}: nothing is at `{link}`", document.path));
                }
            }
        }
    }
    assert_none(&failures);
}

#[test]
fn no_path_of_one_machine() {
    let mut failures = Vec::new();
    for under in TEXTS {
        for source in sources::read(&Scenario::checkout(), under, TEXT_ENDS) {
            for (index, line) in source.text.lines().enumerate() {
                if MACHINE_PATHS.iter().any(|path| names_path(line, path)) {
                    failures.push(format!("{}:{}: {}", source.path, index + 1, line.trim()));
                }
            }
        }
    }
    assert_none(&failures);
}

/// Whether a line holds the path with something below it, as a path of its own.
fn names_path(line: &str, path: &str) -> bool {
    line.match_indices(&format!("{path}/")).any(|(at, _)| {
        let before = line.get(..at).and_then(|before| before.chars().next_back());
        before.is_none_or(|c| !(c.is_alphanumeric() || "._-}/)".contains(c)))
    })
}
