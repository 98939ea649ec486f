//! DESIGN's layers, held by reading what the sources import.
//!
//! `cli → agent → stages (producer, packer, shipper, restore) → repository, spool, target, catalog,
//! config → snapshot, walk, sqlite → manifest, index → openat → ids,
//! clock, fs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Modules by layer, lowest first. A module imports from lower layers only.
const LAYERS: &[&[&str]] = &[
    &[
        "bandwidth",
        "error",
        "fs",
        "clock",
        "ids",
        "interrupt",
        "ownership",
        "panics",
        "payload",
    ],
    &["openat"],
    &["confine", "journal"],
    // Two halves of the format: an index extent stands in a manifest, and both are canonical JSON.
    &["manifest", "index"],
    &["walk", "sqlite", "retention"],
    &["database_names"],
    &["snapshot", "catalog", "spool", "target", "pins", "figures"],
    // What a target's settings may be, the target knows.
    &["repository", "config"],
    &["producer", "packer", "shipper", "restore", "prune"],
    &["agent", "scrub"],
    &["cli"],
];
/// Within one layer only these know each other.
const FRIENDS: &[(&str, &str)] = &[
    ("manifest", "index"),
    ("index", "manifest"),
    ("config", "walk"),
    // A clock is right if a stamp can be made of what it says.
    ("clock", "ids"),
];

struct Source {
    /// Relative to `src`, such as `packer/seal.rs`.
    path: String,
    module: String,
    /// Without comments.
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut dirs = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                sources.push(read(&root, path));
            }
        }
    }
    assert!(sources.len() > 60);
    sources
}

fn read(root: &Path, path: PathBuf) -> Source {
    let text = fs::read_to_string(&path).unwrap();
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let relative = path
        .strip_prefix(root)
        .unwrap()
        .to_string_lossy()
        .into_owned();
    let module = relative.split(['/', '.']).next().unwrap().to_owned();
    Source {
        path: relative,
        module,
        code: lines.map(|line| format!("{line}\n")).collect(),
    }
}

/// The top-level modules that `code` names by `crate::`.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        let grouped = rest
            .strip_prefix('{')
            .map(|rest| rest.split('}').next().unwrap_or_default());
        let names = match grouped {
            Some(group) => group.split(',').map(first_name).collect(),
            None => vec![first_name(rest)],
        };
        found.extend(names.into_iter().filter(|name| !name.is_empty()));
    }
    found
}

fn first_name(text: &str) -> String {
    let word = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    text.trim_start().chars().take_while(word).collect()
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

#[test]
fn arrows_point_down_and_stages_do_not_know_each_other() {
    let mut wrong = Vec::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for source in sources() {
        if ["lib", "main"].contains(&source.module.as_str()) {
            continue;
        }
        let own =
            layer(&source.module).unwrap_or_else(|| panic!("{} stands in no layer", source.module));
        *seen.entry(source.module.clone()).or_default() += 1;
        for import in imports(&source.code) {
            let Some(theirs) = layer(&import) else {
                continue;
            };
            let same = import == source.module;
            let friends = FRIENDS.contains(&(source.module.as_str(), import.as_str()));
            if !(same || theirs < own || friends) {
                wrong.push(format!("{} imports {import}", source.path));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    let known: usize = LAYERS.iter().map(|layer| layer.len()).sum();
    assert_eq!(
        seen.len(),
        known,
        "a layer names a module that is gone: {seen:?}"
    );
}

/// Whether `needle` stands in `code`, not as the end of a longer name.
fn names(code: &str, needle: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    code.match_indices(needle)
        .any(|(at, _)| !code[..at].chars().next_back().is_some_and(is_word))
}

/// Asserts that `needle` stands only below the `allowed` paths.
fn only_in(needle: &str, allowed: &[&str]) {
    let offenders: Vec<String> = sources()
        .into_iter()
        .filter(|source| names(&source.code, needle))
        .filter(|source| !allowed.iter().any(|prefix| source.path.starts_with(prefix)))
        .map(|source| source.path)
        .collect();
    assert_eq!(offenders, Vec::<String>::new(), "{needle}");
}

#[test]
fn only_sealing_and_opening_name_age() {
    for needle in ["age::", "use age", "age_core"] {
        only_in(needle, &["packer/seal", "restore/open"]);
    }
    for needle in [
        "Decryptor",
        "x25519::Identity",
        "IdentityFile",
        "ssh::Identity",
        "IdentityPluginV1",
    ] {
        only_in(needle, &["restore/open"]);
    }
    for needle in ["Encryptor", "RecipientPluginV1"] {
        only_in(needle, &["packer/seal", "restore/open/identity.rs"]);
    }
}

#[test]
fn only_targets_name_object_store() {
    only_in("object_store", &["target"]);
    only_in("reqwest", &["target"]);
    only_in("openssh_sftp_client", &["target/sftp"]);
}

#[test]
fn only_the_catalog_keeps_state_in_sqlite() {
    // `sqlite` reads and copies users' databases; the demo makes one.
    only_in("rusqlite", &["catalog", "sqlite", "cli/demo"]);
}

#[test]
fn only_the_command_line_prints_or_picks_exit_codes() {
    for needle in [
        "println!",
        "print!(",
        "io::stdout",
        "io::stderr",
        "ExitCode",
        "process::exit",
    ] {
        only_in(needle, &["cli", "main.rs"]);
    }
}

/// These two panic when the pipe behind stderr is closed; `output::tell` does not.
#[test]
fn nothing_ends_for_want_of_a_reader() {
    for needle in ["eprintln!", "eprint!"] {
        only_in(needle, &[]);
    }
}

#[test]
fn disk_work_is_sync() {
    for source in sources() {
        let sync = [
            "producer",
            "packer",
            "catalog",
            "spool",
            "sqlite",
            "walk",
            "restore/open",
            "restore/extract",
        ];
        let is_sync = sync.iter().any(|prefix| source.path.starts_with(prefix));
        assert!(
            !(is_sync && source.code.contains("async ")),
            "{}",
            source.path
        );
        assert!(
            !(is_sync && source.code.contains("tokio")),
            "{}",
            source.path
        );
    }
}

/// Where another user may change what is there while we work, and we may be root: files are reached through
/// `openat` alone, from an open directory.
const BY_DESCRIPTOR: &[&str] = &[
    "walk.rs",
    "packer/content",
    "packer/file",
    "packer/meta.rs",
    "packer/parts.rs",
    "packer/relearn.rs",
    "packer/scout.rs",
    "producer",
    "restore/extract",
    "scrub",
    "target/folder",
];
/// What reaches a file by its path. (`is_dir()` and the like of a path cannot be told from those of metadata.)
const BY_PATH: &[&str] = &[
    "std::fs::",
    "unix::fs::chown",
    "unix::fs::lchown",
    "unix::fs::symlink",
    "File::open",
    "File::create",
    "File::options",
    "OpenOptions",
    "DirBuilder",
    "tempfile",
    "xattr::",
    "CWD",
    ".canonicalize(",
    ".exists(",
    ".try_exists(",
    ".read_dir(",
    ".symlink_metadata(",
];
/// A file, what it may name, and how often.
const ALLOWED_PATHS: &[(&str, &str, usize)] = &[
    // The run's scratch directory, in our own state directory.
    ("packer/file/database.rs", "File::open", 1),
    ("packer/file/database.rs", "std::fs::", 2),
    // What the last staging saw, in our own state directory.
    ("producer/record.rs", "std::fs::", 2),
    ("producer/record.rs", "File::open", 1),
    // A file without a name, for what a command says.
    ("producer/stderr.rs", "tempfile", 2),
];

/// `code` up to its tests.
fn without_tests(code: &str) -> &str {
    let end = code.find("#[cfg(test)]\nmod tests");
    &code[..end.unwrap_or(code.len())]
}

/// How often `needle` is named in `code`, but for `std::fs::File`, which is a type.
fn count(code: &str, needle: &str) -> usize {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let found = code.match_indices(needle).filter(|(at, _)| {
        let is_whole =
            needle.starts_with('.') || !code[..*at].chars().next_back().is_some_and(is_word);
        let rest = &code[at + needle.len()..];
        let is_type = needle == "std::fs::" && rest.starts_with("File;");
        is_whole && !is_type
    });
    found.count()
}

#[test]
fn what_others_may_change_is_reached_by_descriptor() {
    let sources = sources();
    let mut wrong = Vec::new();
    for source in &sources {
        let is_in = |places: &[&str]| places.iter().any(|place| source.path.starts_with(place));
        if !is_in(BY_DESCRIPTOR) || source.path.ends_with("tests.rs") {
            continue;
        }
        let code = without_tests(&source.code);
        for needle in BY_PATH {
            let allowed = ALLOWED_PATHS
                .iter()
                .find(|(path, name, _)| *path == source.path && name == needle)
                .map_or(0, |(.., times)| *times);
            let times = count(code, needle);
            if times != allowed {
                wrong.push(format!(
                    "{} names {needle} {times} times, not {allowed}",
                    source.path
                ));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    for place in BY_DESCRIPTOR {
        let is_there = sources.iter().any(|source| source.path.starts_with(place));
        assert!(is_there, "{place} is gone");
    }
}

#[test]
fn nothing_is_left_to_be_written() {
    for needle in ["todo!(", "unimplemented!(", "dbg!(", "FIXME"] {
        only_in(needle, &[]);
    }
}

#[test]
fn imports_are_found_in_every_form() {
    let code = "use crate::ids::Hash;\nuse crate::{clock, fs};\nlet x = crate::walk::walk();";
    let found: Vec<String> = imports(code).into_iter().collect();
    assert_eq!(found, ["clock", "fs", "ids", "walk"]);
}
