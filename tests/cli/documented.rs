//! The commands that README.md and docs/*.md show: those of README's "Five minutes" run as they are written, those of
//! docs/operations.md as far as they need no other machine, and the program knows the options of all others.

use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

use super::shell::{Scene, Shell};

fn document(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The commands in the indented blocks of `text` that begin with one of `programs`, without their comments.
fn commands(text: &str, programs: &[&str]) -> Vec<String> {
    let comment = Regex::new(r" +# .*$").unwrap();
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(code) = line.strip_prefix("    ") else {
            continue;
        };
        if !programs.iter().any(|program| code.starts_with(program)) {
            continue;
        }
        let mut command = comment.replace(code, "").into_owned();
        while command.ends_with('\\') {
            command.pop();
            command += lines.next().unwrap().trim_start();
        }
        found.push(command);
    }
    found
}

#[test]
fn five_minutes_of_the_readme_run_as_they_are_written() {
    let readme = document("README.md");
    let (_, section) = readme.split_once("\n## Five minutes\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let shell = Shell::new(Scene::Nothing);
    shell.ok("mkdir data && echo hello >data/notes.txt");
    let dir = shell.dir().to_str().unwrap();
    let names = Regex::new(r"age1[0-9a-z]{58}|SHA256:[A-Za-z0-9+/]{43}").unwrap();
    let mut replacements = vec![
        ("file:///repo".to_owned(), format!("file://{dir}/repo")),
        ("--tree /data".to_owned(), format!("--tree {dir}/data")),
    ];
    let commands = commands(section, &["sealift ", "python3 "]);
    for command in &commands {
        let mut script = command.clone();
        for (from, to) in &replacements {
            script = script.replace(from, to);
        }
        // `init` compares the clock of the target with this machine's.
        let said = shell.ok(&format!("unset SEALIFT_CLOCK SEALIFT_CONFIG; {script}"));
        for name in names.find_iter(&said) {
            let placeholder = match name.as_str().starts_with("age1") {
                true => "age1…",
                false => "SHA256:…",
            };
            replacements.push((placeholder.to_owned(), name.as_str().to_owned()));
        }
    }
    assert!(commands.len() >= 9, "{commands:?}");
    for restored in ["out/data/notes.txt", "out-by-hand/data/notes.txt"] {
        let content = fs::read_to_string(shell.dir().join(restored)).unwrap();
        assert_eq!(content, "hello\n");
    }
}

/// Whether `command` needs a machine, a file or a value that the scene does not have.
fn has_a_placeholder(command: &str) -> bool {
    let words = [
        "…",
        "s3",
        "laptop",
        "http",
        "/etc/",
        "/srv/",
        "/mnt/",
        "chroma",
        "allowed_signers",
    ];
    let upper = Regex::new(r"\b[A-Z]{3,}\b").unwrap();
    words.iter().any(|word| command.contains(word)) || upper.is_match(command)
}

#[test]
fn commands_of_the_operations_manual_run() {
    let mut ran = 0;
    for command in commands(&document("docs/operations.md"), &["sealift "]) {
        match has_a_placeholder(&command) {
            true => println!("not run: {command}"),
            false => {
                Shell::new(Scene::Backup).ok(&command);
                ran += 1;
            }
        }
    }
    assert!(ran > 10, "{ran}");
}

fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let entries = fs::read_dir(root.join("docs")).unwrap();
    let all = entries.map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = all
        .filter(|path| path.extension().is_some_and(|e| e == "md"))
        .collect();
    found.push(root.join("README.md"));
    let topics = fs::read_dir(root.join("src/cli/help")).unwrap();
    let topics = topics.map(|entry| entry.unwrap().path());
    found.extend(topics.filter(|path| path.extension().is_some_and(|e| e == "txt")));
    found.sort();
    found
}

/// Commands that the documents announce for a later version.
const ANNOUNCED: &[&str] = &["sealift drill", "sealift serve"];

/// `command` with a value for each placeholder that is checked, up to a pipe.
fn with_values(command: &str) -> String {
    let own = command.split(" | ").next().unwrap();
    let own = own
        .replace("[SNAPSHOT…]", "latest")
        .replace("SEQUENCE", "1")
        .replace("STAMP", "20260407T060000Z");
    let mut words: Vec<&str> = Vec::new();
    for word in own.split(' ') {
        // "…" is the value of an option, or says that something is left out here.
        if word != "…" || words.last().is_some_and(|last| last.starts_with("--")) {
            words.push(word);
        }
    }
    words.join(" ")
}

#[test]
fn every_command_in_the_documents_has_options_that_exist() {
    let shell = Shell::new(Scene::Nothing);
    let inline = Regex::new(r"`(sealift [^`]+)`").unwrap();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for path in documents() {
        let text = fs::read_to_string(&path).unwrap();
        let mut found = commands(&text, &["sealift "]);
        let one_line = text.replace('\n', " ");
        found.extend(
            inline
                .captures_iter(&one_line)
                .map(|found| found[1].to_owned()),
        );
        for command in found.iter().filter(|command| !command.contains("COMMAND")) {
            seen += 1;
            // `--help` ends the reading of options, once those before it are known.
            let (code, said) = shell.run(&format!("set -f; {} --help", with_values(command)));
            // An option may be named without its value.
            let is_known = code == 0 || said.contains("a value is required for");
            if is_known == ANNOUNCED.contains(&command.as_str()) {
                wrong.push(format!("{}: {command}\n{said}", path.display()));
            }
        }
    }
    assert!(seen > 60, "{seen}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
