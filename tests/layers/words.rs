//! Plain English in every text that is read: the program's help, its messages, README, the documents, and the comments
//! of the code.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use regex::{Regex, RegexSet};

use super::sources;

/// What is not written, and what is written instead.
const BANNED: &[(&str, &str)] = &[
    (
        r"\bwhoever\b",
        "the role: caller, operator, host, key holder",
    ),
    (
        r"\b(?:no|some)body\b",
        "the role: caller, operator, host, key holder",
    ),
    (r"\banew\b", "again"),
    (r"\bbesides\b", "also, too"),
    (r"\bfor want of\b", "because there is no …"),
    (r"\ball the same\b", "still"),
    (r"\bso (?:many|much|few)\b", "the number"),
    (
        r"\b(?:lie|lies|lay|stand|stands|stood) (?:in|at|on|below|beside|under|there|here|meanwhile|where)\b",
        "is, are",
    ),
    (
        r"\b(?:is|are|be|was|were) told\b",
        "the program reports, prints or logs it",
    ),
    (r"\b(?:tell|tells|told) of\b", "report, name"),
    (r"\bhears?\b", "receives"),
    (r"\bheed(?:s|ed)?\b", "follow, apply"),
    (r"\bfor ever\b", "permanently, always"),
    (r"\bto be had\b", "available"),
];

/// A line that a user reads, and where it is.
struct Line {
    place: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn lines_of(place: &str, text: &str) -> Vec<Line> {
    let lines = text.lines().enumerate();
    let lines = lines.map(|(index, line)| Line {
        place: format!("{place}:{}", index + 1),
        text: line.to_owned(),
    });
    lines.collect()
}

fn documents() -> Vec<Line> {
    let docs = fs::read_dir(root().join("docs")).unwrap();
    let docs = docs.map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = docs
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    let others = [
        "README.md",
        "bench/README.md",
        "fuzz/README.md",
        "keys/README.md",
        "tests/samples/README.md",
        "deploy/RECOVER.md",
        "deploy/dalidou.toml",
        "deploy/folder.toml",
    ];
    paths.extend(others.map(|name| root().join(name)));
    let topics = fs::read_dir(root().join("src/cli/help")).unwrap();
    let topics = topics.map(|entry| entry.unwrap().path());
    paths
        .extend(topics.filter(|path| path.extension().is_some_and(|extension| extension == "txt")));
    paths.sort();
    let mut lines = Vec::new();
    for path in paths {
        let place = path.strip_prefix(root()).unwrap().display().to_string();
        lines.extend(lines_of(&place, &fs::read_to_string(&path).unwrap()));
    }
    lines
}

/// Everything in `src` but tests: comments, and the strings of messages that are no `#[error]`.
fn code() -> Vec<Line> {
    let mut lines = Vec::new();
    for source in sources() {
        if source.path.contains("tests") {
            continue;
        }
        let path = format!("src/{}", source.path);
        let text = fs::read_to_string(root().join(&path)).unwrap();
        let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
        // `Vouched::Nobody` is a name.
        let text = text[..end].replace("Nobody", "");
        lines.extend(lines_of(&path, &text));
    }
    lines
}

/// The comments of the tests and of what the fuzzer runs.
fn comments_of_tests() -> Vec<Line> {
    let mut lines = Vec::new();
    let mut dirs = vec![root().join("tests"), root().join("fuzz")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            // The patterns of this file are no comments, but they look like words.
            let is_code = path.extension().is_some_and(|extension| extension == "rs");
            if !is_code || path.ends_with("layers/words.rs") {
                continue;
            }
            let place = path.strip_prefix(root()).unwrap().display().to_string();
            let all = lines_of(&place, &fs::read_to_string(&path).unwrap());
            let is_comment = |line: &Line| line.text.trim_start().starts_with("//");
            lines.extend(all.into_iter().filter(is_comment));
        }
    }
    lines
}

/// The help of the command `words` and of its subcommands.
fn help(words: &[String]) -> Vec<Line> {
    let output = Command::new(env!("CARGO_BIN_EXE_sealift"))
        .args(words)
        .arg("--help")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let place = [&["sealift".to_owned()], words, &["--help".to_owned()]]
        .concat()
        .join(" ");
    let mut lines = lines_of(&place, &text);
    for line in text.lines().take_while(|line| *line != "Options:") {
        let Some(row) = line.strip_prefix("  ") else {
            continue;
        };
        // Others are arguments, and second lines of what a command does.
        if row.starts_with(char::is_lowercase) {
            let name = row.split(' ').next().unwrap();
            lines.extend(help(&[words, &[name.to_owned()]].concat()));
        }
    }
    lines
}

/// The texts of `#[error("…")]`, by the line on which each attribute begins.
fn errors() -> Vec<Line> {
    let attribute = Regex::new(r#"#\[error\(\s*((?:[^"\\]|\\.|"(?:[^"\\]|\\.)*")*?)\)\]"#).unwrap();
    let mut lines = Vec::new();
    for source in sources() {
        let path = format!("src/{}", source.path);
        let text = fs::read_to_string(root().join(&path)).unwrap();
        for found in attribute.captures_iter(&text) {
            let line = text[..found.get(0).unwrap().start()].lines().count() + 1;
            lines.push(Line {
                place: format!("{path}:{line}"),
                text: found[1].replace("\\\n", " "),
            });
        }
    }
    lines
}

/// A terminal in `LANG=C` shows a program's own text, whatever names in other alphabets look like there.
#[test]
fn the_program_prints_ascii() {
    let comment = Regex::new(r"(?:^|[^:])//.*$").unwrap();
    let is_text = |line: &&Line| !comment.replace(&line.text, "").is_ascii();
    let code = code();
    let mut wrong: Vec<&Line> = code.iter().filter(is_text).collect();
    let help = help(&[]);
    wrong.extend(help.iter().filter(|line| !line.text.is_ascii()));
    let wrong = wrong
        .iter()
        .map(|line| format!("{}: {}", line.place, line.text));
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "write ... and -:\n{}", wrong.join("\n"));
}

#[test]
fn every_text_is_found() {
    assert!(documents().len() > 1000);
    assert!(comments_of_tests().len() > 1000);
    let help = help(&[]);
    assert!(
        help.iter()
            .any(|line| line.place.starts_with("sealift key check --help"))
    );
    let errors = errors();
    assert!(errors.len() > 150, "{}", errors.len());
}

#[test]
fn what_people_read_is_plain_english() {
    let patterns: Vec<String> = BANNED
        .iter()
        .map(|(pattern, _)| format!("(?i){pattern}"))
        .collect();
    // One look at each line, whatever the number of patterns.
    let banned = RegexSet::new(&patterns).unwrap();
    let mut wrong = Vec::new();
    let lines = [
        documents(),
        help(&[]),
        errors(),
        code(),
        comments_of_tests(),
    ];
    for line in lines.iter().flatten() {
        for number in banned.matches(&line.text) {
            let pattern = Regex::new(&patterns[number]).unwrap();
            let found = pattern.find(&line.text).unwrap().as_str();
            let instead = BANNED[number].1;
            wrong.push(format!("{}: \"{found}\"; write: {instead}", line.place));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} places\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
