//! The commands that README.md and docs/*.md show: those of README's "Five minutes" run as they are written, those of
//! docs/operations.md as far as they need no other machine, and the program knows the options of all others.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use regex::Regex;

use super::shell::{Scene, Shell};
use crate::support::s3::{BUCKET, S3Server};

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
            command += &comment.replace(lines.next().unwrap().trim_start(), "");
        }
        found.push(command);
    }
    found
}

fn section_of_the_readme(title: &str) -> String {
    let readme = document("README.md");
    let (_, section) = readme.split_once(&format!("\n## {title}\n")).unwrap();
    section.split_once("\n## ").unwrap().0.to_owned()
}

/// Runs the commands one after another, in the same environment. Each of `replacements` takes the place of what a reader
/// replaces; those that a command prints are added to them.
fn run_literally(shell: &Shell, commands: &[String], replacements: &mut Vec<(String, String)>) {
    let names = Regex::new(r"age1[0-9a-z]{58}|SHA256:[A-Za-z0-9+/]{43}").unwrap();
    // `init` compares the clock of the target with this machine's.
    let mut before = "unset SEALIFT_CLOCK SEALIFT_CONFIG".to_owned();
    for command in commands {
        let mut script = command.clone();
        for (from, to) in &*replacements {
            script = script.replace(from, to);
        }
        let said = shell.ok(&format!("{before}; {script}"));
        if script.starts_with("export ") {
            before += &format!("; {script}");
        }
        for name in names.find_iter(&said) {
            let placeholder = match name.as_str().starts_with("age1") {
                true => "age1…",
                false => "SHA256:…",
            };
            replacements.push((placeholder.to_owned(), name.as_str().to_owned()));
        }
    }
}

/// From the first command to a verified restore. A reader needs most of the five minutes.
#[test]
fn own_data_is_in_s3_and_back_by_the_readme_alone() {
    let section = section_of_the_readme("Your own data, in S3");
    let shell = Shell::new(Scene::Nothing);
    let server = S3Server::start();
    shell.ok(
        "mkdir -p srv/photos; for i in 1 2 3 4 5 6 7 8; do head -c 2000000 /dev/urandom >srv/photos/$i.jpg; done
        python3 -c \"
import sqlite3
c = sqlite3.connect('srv/app.db')
c.execute('create table t(a, b)')
c.executemany('insert into t values (?, ?)', [(i, 'x' * 50) for i in range(50000)])
c.commit()\"",
    );
    let dir = shell.dir().to_str().unwrap();
    let replacements = [
        (
            "AWS_ACCESS_KEY_ID=…",
            format!("AWS_ACCESS_KEY_ID={}", server.access_key),
        ),
        (
            "AWS_SECRET_ACCESS_KEY=…",
            format!("AWS_SECRET_ACCESS_KEY={}", server.secret_key),
        ),
        ("https://s3.example.org", server.endpoint()),
        ("s3://bucket/", format!("s3://{BUCKET}/")),
        ("/srv/", format!("{dir}/srv/")),
    ];
    let mut replacements = replacements
        .map(|(from, to)| (from.to_owned(), to))
        .to_vec();
    let commands = commands(&section, &["export ", "sealift ", "diff "]);
    let lines = section.lines().filter(|line| line.starts_with("    "));
    let continued = lines.filter(|line| !line.starts_with("     ")).count();
    assert_eq!(
        commands.len(),
        continued,
        "a command that is not run: {commands:?}"
    );
    assert!((6..=12).contains(&commands.len()), "{commands:?}");
    let began = Instant::now();
    run_literally(&shell, &commands, &mut replacements);
    let took = began.elapsed();
    println!("{} commands of README took {took:?}", commands.len());
    assert!(took < Duration::from_secs(60), "{took:?}");
    let said = shell.ok("python3 -c \"
import sqlite3
print(sqlite3.connect('out/app.db').execute('select count(*), max(a) from t').fetchone())\"");
    assert_eq!(said, "(50000, 49999)\n");
    assert!(server.bucket_dir().join("backups/h/manifests").is_dir());
}

#[test]
fn five_minutes_of_the_readme_run_as_they_are_written() {
    let section = section_of_the_readme("Five minutes");
    let shell = Shell::new(Scene::Nothing);
    shell.ok("mkdir data && echo hello >data/notes.txt");
    let dir = shell.dir().to_str().unwrap();
    let mut replacements = vec![
        ("file:///repo".to_owned(), format!("file://{dir}/repo")),
        ("--tree /data".to_owned(), format!("--tree {dir}/data")),
    ];
    let commands = commands(&section, &["sealift ", "python3 "]);
    run_literally(&shell, &commands, &mut replacements);
    assert!(commands.len() >= 9, "{commands:?}");
    for restored in ["out/data/notes.txt", "out-by-hand/data/notes.txt"] {
        let content = fs::read_to_string(shell.dir().join(restored)).unwrap();
        assert_eq!(content, "hello\n");
    }
}

/// Whether `command` needs a machine, a file or a value that the scene does not have. (A restore in place needs an
/// AtoCore: `procedure.rs` runs it.)
fn has_a_placeholder(command: &str) -> bool {
    let words = [
        "…",
        "s3",
        "laptop",
        "http",
        "/etc/",
        // `procedure.rs` runs these.
        "drill.toml",
        "/srv/",
        "/mnt/",
        "chroma",
        "allowed_signers",
        "--in-place",
        "rollback",
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
const ANNOUNCED: &[&str] = &[];

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
