//! `backup --dry-run` against the backup that follows it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;

use serde_json::Value;

use crate::support::files::{files, set_mode};
use crate::support::host::Host;
use crate::support::random::Random;

const NAMES: [&str; 8] = [
    "a", "b.log", "b-c", "cache", "d.tmp", "e f", "keep.log", "x.bin",
];
const PATTERNS: [&str; 8] = [
    "*.log",
    "!keep.log",
    "cache/",
    "/a",
    "*.tmp",
    "b-c/**",
    "nothing",
    "e*",
];

/// Makes a random tree: files, links, markers, databases with their logs.
fn make(random: &mut Random, dir: &Path, depth: u32) {
    fs::create_dir_all(dir).unwrap();
    for _ in 0..2 + random.below(5) {
        let path = dir.join(NAMES[random.below(NAMES.len())]);
        if path.symlink_metadata().is_ok() {
            continue;
        }
        match random.below(8) {
            0 | 1 if depth > 0 => make(random, &path, depth - 1),
            2 => symlink("a", &path).unwrap(),
            3 => {
                let first = fs::read_dir(dir)
                    .unwrap()
                    .flatten()
                    .find(|e| e.path().is_file());
                match first {
                    Some(first) => fs::hard_link(first.path(), &path).unwrap(),
                    None => fs::write(&path, b"x").unwrap(),
                }
            }
            _ => fs::write(&path, vec![7; random.below(5000)]).unwrap(),
        }
    }
    if depth < 2 && random.one_in(6) {
        fs::write(dir.join(".nobackup"), "").unwrap();
    }
}

/// Two databases, one with a log that belongs to it, and a file that only looks like a log.
fn add_databases(dir: &Path) {
    let script = "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1])\nc.execute('create table t(x)')\nc.commit()";
    let made = std::process::Command::new("python3")
        .args(["-c", script])
        .arg(dir.join("plain.db"))
        .status();
    assert!(made.unwrap().success());
    fs::write(dir.join("plain.db-journal"), "").unwrap();
    fs::write(dir.join("text-wal"), "no log").unwrap();
    fs::write(dir.join("text"), "no database").unwrap();
}

/// Every file below the host's directory but the sources: path, size, times, content's length.
fn state(host: &Host) -> BTreeMap<String, (u64, i64, i64, u64)> {
    let mut found = BTreeMap::new();
    for below in ["c.state", "repo"] {
        for path in files(&host.path(below)) {
            let meta = fs::symlink_metadata(&path).unwrap();
            let look = (meta.len(), meta.mtime(), meta.mtime_nsec(), meta.ino());
            found.insert(path.display().to_string(), look);
        }
    }
    found
}

/// Files and bytes of each source, as the index of the newest snapshot has them.
fn taken(host: &Host) -> BTreeMap<String, (u64, u64)> {
    let repo = host.path("repo").display().to_string();
    let entries = host.json(&[
        "ls",
        "latest",
        "--from",
        &repo,
        "--signer",
        &host.signer,
        "--identity",
        "key.txt",
    ]);
    let mut found = BTreeMap::new();
    for entry in entries.as_array().unwrap() {
        let path = entry["path"].as_str().unwrap();
        if entry["type"] != "file" || path == "backup-metadata.json" {
            continue;
        }
        let source = path.split('/').next().unwrap().to_owned();
        let total: &mut (u64, u64) = found.entry(source).or_default();
        total.0 += 1;
        total.1 += entry["size"].as_u64().unwrap();
    }
    found
}

fn planned(report: &Value) -> BTreeMap<String, (u64, u64)> {
    let sources = report["sources"].as_array().unwrap().iter();
    let sources = sources.filter(|source| source["files"] != 0);
    let total = |source: &Value| {
        let number = |key: &str| source[key].as_u64().unwrap();
        (number("files"), number("bytes"))
    };
    let name = |source: &Value| source["to"].as_str().unwrap().to_owned();
    sources
        .map(|source| (name(source), total(source)))
        .collect()
}

#[test]
fn a_dry_run_says_what_the_backup_takes_and_changes_nothing() {
    let host = Host::new();
    host.edit_config(
        "stage = false",
        "stage = false\nshrink_alarm = false\nexclude = []",
    );
    host.edit_config(
        "[[target]]",
        "[[source]]\nshrink_alarm = false\nkind = \"tree\"\npath = \"staged\"\nexclude = [\"*.tmp\"]\n\n[[target]]",
    );
    let mut patterns = "exclude = []".to_owned();
    let mut left_out = 0;
    for seed in 0..6 {
        let mut random = Random::new(seed);
        for name in ["data", "staged"] {
            let dir = host.path(name);
            let _ = fs::remove_dir_all(&dir);
            make(&mut random, &dir, 3);
            add_databases(&dir);
        }
        let chosen = (0..random.below(5)).map(|_| format!("{:?}", PATTERNS[random.below(8)]));
        let lines = chosen.collect::<Vec<_>>().join(", ");
        let now = format!("exclude = [{lines}]");
        host.edit_config(&patterns, &now);
        patterns = now;
        let before = state(&host);
        let report = host.json(&["backup", "--dry-run"]);
        assert_eq!(state(&host), before, "seed {seed}");
        assert_eq!(report["is_exact"], true, "{report:#}");
        host.backup();
        let (planned, taken) = (planned(&report), taken(&host));
        assert_eq!(planned, taken, "seed {seed}: {patterns}\n{report:#}");
        for source in report["sources"].as_array().unwrap() {
            let dropped = source["dropped"].as_array().unwrap().iter();
            left_out += dropped
                .map(|one| one["files"].as_u64().unwrap())
                .sum::<u64>();
        }
    }
    assert!(left_out > 8, "{left_out}");
}

#[test]
fn a_dry_run_names_what_is_left_out_skipped_and_would_run() {
    let host = Host::new();
    let (data, ran) = (host.data(), host.path("ran"));
    fs::create_dir_all(data.join("cache/deep")).unwrap();
    fs::write(data.join("cache/deep/x"), [0; 100]).unwrap();
    fs::write(data.join("cache/y"), [0; 20]).unwrap();
    fs::write(data.join("big"), [0; 5000]).unwrap();
    fs::write(data.join("kept"), [0; 3]).unwrap();
    fs::create_dir(data.join("marked")).unwrap();
    fs::write(data.join("marked/.nobackup"), "").unwrap();
    fs::write(data.join("marked/z"), [0; 7]).unwrap();
    host.edit_config(
        "stage = false",
        "stage = false\nexclude = [\"cache/\", \"*.none\"]\nmax_file_size = \"1kB\"",
    );
    let more = format!(
        "[[source]]\nkind = \"command\"\nname = \"dump\"\ncommand = \"touch {0} secretword\"\nbefore = [\"touch\", \"{0}\"]\n\n\
         [[source]]\nkind = \"json\"\npath = \"gone.json\"\n\n\
         [[source]]\nkind = \"json\"\npath = \"maybe.json\"\noptional = true\n\n\
         [[source]]\nkind = \"json\"\npath = \"asked.json\"\non_request = true\n\n[[target]]",
        ran.display()
    );
    host.edit_config("[[target]]", &more);
    let (out, _) = host.exits(&["backup", "--dry-run"], 3);
    assert!(!ran.exists() && !host.path("c.state/catalog.db").exists());
    for line in [
        "2 files, 3 B",
        "  leaves out 2 files, 120 B: exclude \"cache/\"",
        "  leaves out nothing: exclude \"*.none\"",
        "  leaves out 1 file, 5.00 kB: larger than max_file_size",
        "  leaves out 1 file, 7 B: in a directory with a .nobackup",
        "  would run before: touch ...",
        "  would run command: touch ...",
        "gone.json: FAILS: ",
        "it does not exist, and is optional",
        "taken on request only: --include asked_json",
        "new or changed: unknown",
        "  to folder (file://",
    ] {
        assert!(out.contains(line), "{line}\n{out}");
    }
    assert!(!out.contains("secretword"), "{out}");
    host.edit_config(
        "path = \"gone.json\"",
        "path = \"gone.json\"\nrequired = true",
    );
    let (_, err) = host.exits(&["backup", "--dry-run"], 1);
    assert!(err.contains("would make no snapshot"), "{err}");
    host.exits(&["backup", "--dry-run", "--include", "nothing"], 2);
}

#[test]
fn new_bytes_are_estimated_from_the_last_snapshot() {
    let host = Host::new();
    fs::write(host.data().join("a"), [1; 1000]).unwrap();
    fs::write(host.data().join("b"), [2; 50]).unwrap();
    let first = host.json(&["backup", "--dry-run"]);
    assert_eq!(first["changed_bytes"], Value::Null);
    // A file that is younger than two seconds is read again in any case.
    std::thread::sleep(std::time::Duration::from_millis(2100));
    host.backup();
    fs::write(host.data().join("b"), [3; 60]).unwrap();
    let second = host.json(&["backup", "--dry-run"]);
    assert_eq!(second["changed_bytes"], 60, "{second:#}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    if rustix::process::geteuid().is_root() {
        return;
    }
    let host = Host::new();
    fs::write(host.data().join("closed"), "x").unwrap();
    set_mode(&host.data().join("closed"), 0);
    let (out, _) = host.exits(&["backup", "--dry-run"], 3);
    assert!(
        out.contains("skips data/closed: permission denied"),
        "{out}"
    );
}
