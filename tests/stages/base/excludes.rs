//! `exclude` against git: Sealift leaves out what `git check-ignore` calls ignored, in generated trees with
//! generated patterns.
//!
//! The trees of a run are directories of one repository, each with its patterns as its `.gitignore`, so one
//! call of git judges them all. `SEALIFT_EXCLUDES_SEED=n` and `SEALIFT_EXCLUDES_CASES=n` choose others and more.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use sealift::base::openat::Dir;
use sealift::base::walk::{Filter, Walked, walk};

use crate::support::is_long;
use crate::support::random::Random;

const CASES: u64 = 250;
const CASES_LONG: u64 = 20_000;
/// Trees of one repository.
const BATCH: u64 = 400;

/// Names, many of which a wildcard, a set or an escape tells apart.
const NAMES: &[&str] = &[
    "a", "b", "ab", "aXb", "A", "a.log", "keep.log", "build", "x.txt", "x.txt{}", "{old}", "old",
    "a{b,c}d", "abd", "a b", "a ", "a\t", "#x", "!x", "\\x", "[a]", "a-b", "a]b", "1", "é", "~",
    "*", "a?", "foo", "foobar", ".hidden",
];

/// What patterns are made of.
const PIECES: &[&str] = &[
    "a",
    "b",
    "A",
    "x",
    "log",
    ".",
    "foo",
    "bar",
    "build",
    "old",
    "keep",
    "1",
    "é",
    "{",
    "}",
    ",",
    " ",
    "\t",
    "#",
    "!",
    "-",
    "]",
    "~",
    "*",
    "*",
    "*",
    "**",
    "**",
    "***",
    "?",
    "?",
    "[ab]",
    "[a-c]",
    "[!a]",
    "[^a-b]",
    "[]a]",
    "[a-]",
    "[-a]",
    "[\\]]",
    "[\\a-c]",
    "[a-\\c]",
    "[[:alpha:]]",
    "[[:digit:]]",
    "[[:space:]]",
    "[![:upper:]]",
    "[[:punct:]]",
    "[[:print:]]",
    "[[:graph:]]",
    "[[:cntrl:]]",
    "[[:blank:]]",
    "[[:xdigit:]a]",
    "[[:nope:]]",
    "[[:a]",
    "[[:",
    "[a",
    "[",
    "\\*",
    "\\?",
    "\\[",
    "\\ ",
    "\\#",
    "\\!",
    "\\a",
    "\\\\",
    "\\",
    "/",
    "/",
    "/",
    "/",
    "/**/",
    "**/",
    "/**",
    "/*/",
    "\\/",
];

/// Lines that show what generated ones may miss.
const KNOWN: &[&str] = &[
    "{old}",
    "*.txt{}",
    "a\t",
    "a ",
    "a  ",
    "a\\ ",
    "a\\  ",
    "\\ ",
    " ",
    "#x",
    "\\#x",
    "!x",
    "\\!x",
    "/",
    "//",
    "!",
    "!!x",
    "foo**/bar",
    "a**b",
    "**",
    "**/",
    "/**",
    "a/**",
    "**/a",
    "a/**/b",
    "a**/b",
    "a/**b",
    "***/a",
    "a/***/b",
    "\\",
    "a\\",
    "a\\\\",
    "[a",
    "[[:alpha:]]",
    "[!]a-]",
    "build/",
    "/build/",
    "/build",
    "*/",
    "/*",
    "*",
    "!*/",
    "~",
    ".",
    "..",
    "./a",
    "a//b",
    "**\\/a",
    "a/**\\/b",
    "/a\\/b",
    "a/",
    "é",
    "?",
    "[[:space:]]",
    "a\r",
    "a \r",
];

fn pattern(random: &mut Random) -> String {
    if random.below(6) == 0 {
        return random.pick(KNOWN).to_owned();
    }
    // Names with a change, so that many patterns match something.
    let mut text = String::new();
    if random.below(6) == 0 {
        text.push('!');
    }
    if random.below(5) == 0 {
        text.push('/');
    }
    for at in 0..1 + random.below(3) {
        if at > 0 && random.below(2) == 0 {
            text.push('/');
        }
        match random.below(3) {
            0 => text.push_str(random.pick(NAMES)),
            _ => (0..=random.below(3)).for_each(|_| text.push_str(random.pick(PIECES))),
        }
    }
    if random.below(5) == 0 {
        text.push('/');
    }
    text
}

/// Makes a tree below `dir`.
fn make_tree(dir: &Path, random: &mut Random) {
    let mut dirs = vec![dir.to_owned()];
    for _ in 0..6 + random.below(14) {
        let path = dirs[random.below(dirs.len())].join(random.pick(NAMES));
        if random.below(5) < 2 && path.components().count() < dir.components().count() + 5 {
            if fs::create_dir(&path).is_ok() || path.is_dir() {
                dirs.push(path);
            }
        } else if !path.exists() {
            fs::write(path, b"").unwrap();
        }
    }
}

/// Everything below `root`, relative to it; directories end with `/`.
fn everything(root: &Path) -> BTreeSet<Vec<u8>> {
    taken(root, &Filter::everything())
}

fn taken(root: &Path, filter: &Filter) -> BTreeSet<Vec<u8>> {
    let walk = walk(&Dir::open(root).unwrap(), filter).unwrap();
    walk.filter_map(|walked| match walked {
        Walked::Found(found) => Some(found.rel),
        Walked::Note(_) => None,
        Walked::Skipped(skipped) => panic!("{skipped:?}"),
    })
    .collect()
}

/// The paths of `paths` that git ignores.
fn ignored_by_git(repository: &Path, paths: &BTreeSet<Vec<u8>>) -> BTreeSet<Vec<u8>> {
    let mut git = Command::new("git");
    git.args([
        "-c",
        "core.ignorecase=false",
        "-c",
        "core.excludesFile=/dev/null",
    ]);
    git.args(["check-ignore", "--no-index", "-z", "--stdin"]);
    git.current_dir(repository).env("GIT_CONFIG_NOSYSTEM", "1");
    let mut git = git
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = git.stdin.take().unwrap();
    let lines: Vec<u8> = paths
        .iter()
        .flat_map(|path| [path, &b"\0"[..]].concat())
        .collect();
    let writer = std::thread::spawn(move || input.write_all(&lines).unwrap());
    let output = git.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.code().is_some_and(|code| code < 2));
    let found = output.stdout.split(|byte| *byte == 0);
    found
        .filter(|path| !path.is_empty())
        .map(<[u8]>::to_vec)
        .collect()
}

struct Case {
    seed: u64,
    name: String,
    lines: Vec<String>,
}

fn make_case(repository: &Path, seed: u64) -> Case {
    let mut random = Random::new(seed);
    let name = format!("t{seed}");
    let root = repository.join(&name);
    fs::create_dir(&root).unwrap();
    make_tree(&root, &mut random);
    let lines: Vec<String> = (0..1 + random.below(5))
        .map(|_| pattern(&mut random))
        .collect();
    Case { seed, name, lines }
}

#[test]
fn excludes_are_read_as_git_reads_them() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().unwrap())
    };
    let cases =
        number("SEALIFT_EXCLUDES_CASES").unwrap_or(if is_long() { CASES_LONG } else { CASES });
    let first = number("SEALIFT_EXCLUDES_SEED").unwrap_or(1);
    let (mut compared, mut left_out) = (0, 0);
    let mut seed = first;
    while seed < first + cases {
        let end = (seed + BATCH).min(first + cases);
        let temp = tempfile::tempdir().unwrap();
        let repository = temp.path();
        let made = Command::new("git")
            .args(["init", "-q"])
            .current_dir(repository)
            .status();
        assert!(made.expect("git is needed; ./test installs it").success());
        let cases: Vec<Case> = (seed..end)
            .map(|seed| make_case(repository, seed))
            .collect();
        let mut all = BTreeSet::new();
        for case in &cases {
            let root = repository.join(&case.name);
            let prefixed = |rel: Vec<u8>| [case.name.as_bytes(), b"/", &rel].concat();
            all.extend(everything(&root).into_iter().map(prefixed));
        }
        // Only now: the file is no part of the tree.
        for case in &cases {
            let text: String = case.lines.iter().map(|line| format!("{line}\n")).collect();
            fs::write(repository.join(&case.name).join(".gitignore"), text).unwrap();
        }
        let ignored = ignored_by_git(repository, &all);
        for case in &cases {
            let root = repository.join(&case.name);
            fs::remove_file(root.join(".gitignore")).unwrap();
            let filter = Filter {
                excludes: case.lines.clone(),
                ..Filter::everything()
            };
            let of_case = |set: &BTreeSet<Vec<u8>>| -> BTreeSet<String> {
                let prefix = format!("{}/", case.name);
                let rels = set
                    .iter()
                    .filter_map(|path| path.strip_prefix(prefix.as_bytes()));
                rels.map(|rel| String::from_utf8(rel.to_vec()).unwrap())
                    .collect()
            };
            let ours = taken(&root, &filter).into_iter();
            let ours: BTreeSet<String> = ours.map(|rel| String::from_utf8(rel).unwrap()).collect();
            let (all, ignored) = (of_case(&all), of_case(&ignored));
            let gits: BTreeSet<String> = all.difference(&ignored).cloned().collect();
            assert_eq!(
                ours, gits,
                "case {}: exclude = {:?}; ours on the left, git's on the right",
                case.seed, case.lines
            );
            compared += all.len();
            left_out += ignored.len();
        }
        seed = end;
    }
    println!("{cases} trees, {compared} paths, {left_out} of them left out");
    assert!(left_out * 20 > compared, "too few patterns match");
}
