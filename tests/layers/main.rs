//! DESIGN's layers, held by reading what the sources import.
//!
//! `cli → serve → jobs → stages (producer, packer, shipper, restore, prune, scrub, checks, notify) → repository, config → storage, keys, state
//! → format, retention → base`.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit
)]
#![allow(clippy::too_many_arguments, unreachable_pub, missing_docs, unsafe_code)]

mod paths;
mod type_names;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The folders of `src` by layer, lowest first. A file imports from its own folder and from lower layers only.
const LAYERS: &[&[&str]] = &[
    &["base"],
    &["format", "retention"],
    &["storage", "keys", "state"],
    &["repository", "config"],
    &[
        "producer", "packer", "shipper", "restore", "prune", "scrub", "checks", "notify",
    ],
    &["browse"],
    &["jobs"],
    &["serve"],
    &["cli"],
];
/// Imports against the layers, to be mended.
const EXCEPTIONS: &[(&str, &str)] = &[];

struct Source {
    /// Relative to `src`, such as `packer/seal.rs`.
    path: String,
    /// Such as `["packer", "seal"]`.
    module: Vec<String>,
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
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

fn read(root: &Path, path: PathBuf) -> Source {
    let text = fs::read_to_string(&path).unwrap();
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let relative = path.strip_prefix(root).unwrap();
    let relative = relative.to_string_lossy().into_owned();
    let module = relative.trim_end_matches(".rs").split('/');
    Source {
        module: module.map(str::to_owned).collect(),
        path: relative,
        code: lines.map(|line| format!("{line}\n")).collect(),
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The paths that `code` of module `own` names by `crate::` or `super::`, from the root of the crate.
fn imports(own: &[String], code: &str) -> BTreeSet<Vec<String>> {
    let mut found = BTreeSet::new();
    // Inside `mod tests { … }` `super` is the file itself.
    let code = without_tests(code);
    for (at, _) in code.match_indices("::") {
        let before = &code[..at];
        let start = before.rfind(|c| !is_word(c)).map_or(0, |at| at + 1);
        let first = &before[start..];
        let is_root = !before[..start].ends_with("::");
        let mut base = match first {
            "crate" if is_root => Vec::new(),
            "super" if is_root => own[..own.len() - 1].to_vec(),
            _ => continue,
        };
        let mut rest = &code[at + 2..];
        while let Some(further) = rest.strip_prefix("super::") {
            base.pop();
            rest = further;
        }
        collect(&base, rest, &mut found);
    }
    found
}

/// Adds the paths of one use tree, or of a path in code, to `found`. Returns what follows it.
fn collect<'a>(base: &[String], mut rest: &'a str, found: &mut BTreeSet<Vec<String>>) -> &'a str {
    let mut path = base.to_vec();
    loop {
        rest = rest.trim_start();
        if let Some(mut group) = rest.strip_prefix('{') {
            loop {
                group = collect(&path, group, found).trim_start();
                match group.strip_prefix(',') {
                    Some(next) if !next.trim_start().starts_with('}') => group = next,
                    Some(next) => return next.trim_start().strip_prefix('}').unwrap_or(next),
                    None => return group.strip_prefix('}').unwrap_or(group),
                }
            }
        }
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        if end > 0 {
            path.push(rest[..end].to_owned());
        }
        rest = &rest[end..];
        match rest.strip_prefix("::") {
            Some(next) => rest = next,
            None => break,
        }
    }
    found.insert(path);
    match rest.strip_prefix(" as ") {
        Some(alias) => &alias[alias.find(|c| !is_word(c)).unwrap_or(alias.len())..],
        None => rest,
    }
}

/// The files that each file imports from, both as module paths.
fn arrows(sources: &[Source]) -> BTreeSet<(Vec<String>, Vec<String>)> {
    let files: BTreeSet<&[String]> = sources.iter().map(|source| &source.module[..]).collect();
    let mut arrows = BTreeSet::new();
    for source in sources {
        for path in imports(&source.module, &source.code) {
            let file = (1..=path.len()).rev().map(|n| &path[..n]);
            let Some(file) = file.into_iter().find(|path| files.contains(path)) else {
                continue;
            };
            if *file != source.module[..] {
                arrows.insert((source.module.clone(), file.to_vec()));
            }
        }
    }
    arrows
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

#[test]
fn arrows_point_down_and_stages_do_not_know_each_other() {
    let sources = sources();
    let folders: BTreeSet<&str> = sources.iter().map(|source| &source.module[0][..]).collect();
    let known: BTreeSet<&str> = LAYERS
        .iter()
        .flat_map(|layer| layer.iter().copied())
        .collect();
    let others: Vec<&&str> = folders.symmetric_difference(&known).collect();
    assert_eq!(others, [&"lib", &"main"], "not in LAYERS, or gone");
    let mut wrong = Vec::new();
    for (from, to) in arrows(&sources) {
        let (Some(own), Some(theirs)) = (layer(&from[0]), layer(&to[0])) else {
            continue;
        };
        let (from_path, to_path) = (from.join("/"), to.join("/"));
        let is_known = EXCEPTIONS.contains(&(&from_path[..], &to_path[..]));
        if from[0] != to[0] && theirs >= own && !is_known {
            wrong.push(format!("{from_path} imports {to_path}"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// What packs or ships cannot load an identity, not even by way of other files.
#[test]
fn no_identity_is_within_reach_of_what_packs_or_ships() {
    let arrows = arrows(&sources());
    let identities = ["keys", "identities"].map(str::to_owned).to_vec();
    assert!(arrows.iter().any(|(_, to)| *to == identities));
    for stage in [
        "packer", "shipper", "producer", "prune", "scrub", "state", "storage",
    ] {
        let mut reached: BTreeSet<&Vec<String>> = BTreeSet::new();
        let mut next: Vec<&Vec<String>> = arrows
            .iter()
            .filter(|(from, _)| from[0] == stage)
            .map(|(from, _)| from)
            .collect();
        while let Some(file) = next.pop() {
            if reached.insert(file) {
                let onward = arrows.iter().filter(|(from, _)| from == file);
                next.extend(onward.map(|(_, to)| to));
            }
        }
        assert!(!reached.contains(&identities), "{stage}");
    }
}

/// Neither files nor folders import from each other in a circle. A file and the folder of its own submodules are one.
/// A target in front of another one answers each question as that one does: what it leaves to the trait's own answers
/// would be wrong for some kind of target.
#[test]
fn a_target_around_another_passes_everything_on() {
    let methods = |body: &str| -> BTreeSet<String> {
        let parts = body.split("fn ").skip(1);
        parts
            .map(|part| part.split(['(', '<']).next().unwrap().to_owned())
            .collect()
    };
    let all = sources();
    let body_of = |code: &str, begin: &str| {
        let rest = code.split_once(begin)?.1;
        Some(rest.split("\n}\n").next().unwrap().to_owned())
    };
    let contract = all.iter().find(|one| one.path == "storage/contract.rs");
    let expected = methods(&body_of(&contract.unwrap().code, "pub trait Storage").unwrap());
    assert!(expected.len() > 15, "{expected:?}");
    let mut found = 0;
    for source in &all {
        let is_around = source.path.starts_with("storage/")
            && (source.code.contains("target: Arc<dyn Storage>")
                || source.code.contains("target: Option<Arc<dyn Storage>>"));
        let body = body_of(&source.code, "impl Storage for ");
        if let (true, Some(body)) = (is_around, body) {
            found += 1;
            let lacking: Vec<_> = expected.difference(&methods(&body)).cloned().collect();
            assert_eq!(lacking, Vec::<String>::new(), "{}", source.path);
        }
    }
    assert!(found >= 3, "{found}");
}

#[test]
fn nothing_goes_in_a_circle() {
    // By folder: which of its files (each with its own folder) imports from which, and one arrow as proof.
    let mut floors: BTreeMap<String, BTreeMap<(String, String), String>> = BTreeMap::new();
    for (from, to) in arrows(&sources()) {
        let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
        if common < from.len() && common < to.len() {
            let proof = format!("{} -> {}", from.join("/"), to.join("/"));
            let ends = (from[common].clone(), to[common].clone());
            let floor = floors.entry(from[..common].join("/")).or_default();
            floor.entry(ends).or_insert(proof);
        }
    }
    let mut circles = Vec::new();
    for floor in floors.values_mut() {
        // What nothing imports, or what imports nothing, is in no circle.
        loop {
            let starts: BTreeSet<String> = floor.keys().map(|(from, _)| from.clone()).collect();
            let ends: BTreeSet<String> = floor.keys().map(|(_, to)| to.clone()).collect();
            let all = floor.len();
            floor.retain(|(from, to), _| ends.contains(from) && starts.contains(to));
            if floor.len() == all {
                break;
            }
        }
        circles.extend(floor.values().cloned());
    }
    assert_eq!(circles, Vec::<String>::new());
}

/// Whether `needle` is in `code`, not as the end of a longer name.
fn names(code: &str, needle: &str) -> bool {
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
        only_in(needle, &["packer/seal", "restore/open", "keys"]);
    }
    for needle in [
        "Decryptor",
        "x25519::Identity",
        "IdentityFile",
        "ssh::Identity",
        "IdentityPluginV1",
    ] {
        only_in(
            needle,
            &[
                "restore/open",
                "keys/generate.rs",
                "keys/identities.rs",
                "keys/plugin.rs",
            ],
        );
    }
    for needle in ["Encryptor", "RecipientPluginV1"] {
        only_in(needle, &["packer/seal", "keys"]);
    }
}

#[test]
fn only_targets_name_object_store() {
    only_in("object_store", &["storage"]);
    only_in("reqwest", &["storage"]);
    only_in("openssh_sftp_client", &["storage/sftp"]);
    only_in("lettre", &["notify/email.rs", "config/notify"]);
}

#[test]
fn only_the_catalog_and_the_history_keep_state_in_sqlite() {
    // `sqlite` reads and copies users' databases; the demo makes one.
    only_in(
        "rusqlite",
        &["state/catalog", "state/history", "base/sqlite", "cli/demo"],
    );
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
        // Tests print the figures that they measure.
        only_in(needle, &["cli", "main.rs", "serve/http/tests"]);
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
            "state",
            "base/sqlite",
            "base/walk",
            "keys",
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
    "base/walk.rs",
    "jobs/restore_in_place",
    "jobs/test_restore.rs",
    "packer/file_content",
    "packer/file_packer",
    "packer/entry_metadata.rs",
    "packer/merge_parts.rs",
    "packer/reindex.rs",
    "packer/prefetch.rs",
    "producer",
    "restore/extract",
    "scrub",
    "storage/folder",
];
/// What reaches a file by its path. (`is_dir()` and the like of a path look the same as those of metadata.)
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
    ("packer/file_packer/live_database.rs", "File::open", 1),
    ("packer/file_packer/live_database.rs", "std::fs::", 2),
    // What the last staging saw, in our own state directory.
    ("producer/staged_files.rs", "std::fs::", 2),
    ("producer/staged_files.rs", "File::open", 1),
];

/// `code` up to its tests.
fn without_tests(code: &str) -> &str {
    let end = code.find("#[cfg(test)]\nmod tests");
    &code[..end.unwrap_or(code.len())]
}

/// How often `needle` is named in `code`, but for `std::fs::File`, which is a type.
fn count(code: &str, needle: &str) -> usize {
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
fn comments_are_at_most_100_columns_wide() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wide = Vec::new();
    for source in sources() {
        let text = fs::read_to_string(root.join(&source.path)).unwrap();
        let comments = text.lines().zip(1..);
        let comments = comments.filter(|(line, _)| line.trim_start().starts_with("//"));
        let too_wide = comments.filter(|(line, _)| line.chars().count() > 100);
        wide.extend(too_wide.map(|(_, number)| format!("src/{}:{number}", source.path)));
    }
    assert_eq!(wide, Vec::<String>::new());
}

#[test]
fn nothing_is_left_to_be_written() {
    for needle in ["todo!(", "unimplemented!(", "dbg!(", "FIXME"] {
        only_in(needle, &[]);
    }
}

#[test]
fn imports_are_found_in_every_form() {
    let code = "use crate::ids::Hash;\nuse crate::{clock, fs as files, a::{B, c::D}};\nlet x = crate::walk::walk();\n\
                use super::super::e;\nsuper::f::<T>();";
    let own: Vec<String> = ["x", "y", "z"].map(String::from).into();
    let found = imports(&own, code).into_iter();
    let found: Vec<String> = found.map(|path| path.join("/")).collect();
    let expected = [
        "a/B",
        "a/c/D",
        "clock",
        "fs",
        "ids/Hash",
        "walk/walk",
        "x/e",
        "x/y/f",
    ];
    assert_eq!(found, expected);
}
