//! `diff`: what it says is what `diff -rq` of two restores says, and what sqlite3 counts.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::find::{change, set_day};
use crate::support::host::{Host, texts};
use crate::support::random::Random;

fn words<'a>(host: &'a Host, first: &[&'a str]) -> Vec<&'a str> {
    [first, &host.place()].concat()
}

/// What `diff -rq` says of two directories, a line each, with the letters of `diff`. Of a directory that only one side
/// has it names the directory alone.
fn by_system(dir: &Path, before: &str, after: &str) -> Vec<Vec<u8>> {
    let output = Command::new("diff")
        .args([
            "-rq",
            "--no-dereference",
            "-x",
            "restored.jsonl",
            "-x",
            "backup-metadata.json",
        ])
        .args([before, after])
        .current_dir(dir)
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    let mut lines: Vec<Vec<u8>> = Vec::new();
    for line in output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let text = line.to_vec();
        let only = text.strip_prefix(b"Only in ");
        let letter = match only {
            Some(rest) if rest.starts_with(before.as_bytes()) => b'-',
            Some(_) => b'+',
            None => b'*',
        };
        lines.push(vec![letter]);
    }
    lines.sort();
    lines
}

/// The letters that `diff` must have according to the system's, once whole directories count as one.
fn by_program(host: &Host, before: &str, after: &str) -> Vec<Vec<u8>> {
    let said = host.json(&words(host, &["diff", before, after]));
    let mut kinds: BTreeMap<Vec<u8>, String> = BTreeMap::new();
    for one in said["changes"].as_array().unwrap() {
        let path = match one["path"].as_str() {
            Some(path) => path.as_bytes().to_vec(),
            None => {
                use base64::Engine as _;
                let text = one["path_b64"].as_str().unwrap();
                base64::engine::general_purpose::STANDARD
                    .decode(text)
                    .unwrap()
            }
        };
        kinds.insert(path, one["change"].as_str().unwrap().to_owned());
    }
    let mut letters = Vec::new();
    for (path, kind) in &kinds {
        let parent = path
            .iter()
            .rposition(|byte| *byte == b'/')
            .map(|at| path[..at].to_vec());
        let is_below =
            parent.is_some_and(|parent| kinds.get(&parent).is_some_and(|one| one == kind));
        match kind.as_str() {
            "added" if !is_below => letters.push(vec![b'+']),
            "removed" if !is_below => letters.push(vec![b'-']),
            "content" | "type" => letters.push(vec![b'*']),
            _ => {}
        }
    }
    letters.sort();
    letters
}

#[test]
fn differences_are_those_of_two_restores() {
    for seed in [11, 12] {
        let mut host = Host::new();
        let mut random = Random::new(seed);
        for day in 0..4 {
            change(&host.data(), &mut random);
            if day == 1 {
                fs::create_dir_all(host.data().join("gone/deeper")).unwrap();
                fs::write(host.data().join("gone/deeper/file"), "x").unwrap();
                fs::hard_link(
                    host.data().join("gone/deeper/file"),
                    host.data().join("gone/also"),
                )
                .unwrap();
            }
            if day == 2 {
                // The first name of a file goes, and the second one is the same file still.
                fs::remove_file(host.data().join("gone/deeper/file")).unwrap();
            }
            if day == 3 {
                fs::remove_dir_all(host.data().join("gone")).unwrap();
            }
            set_day(&mut host, day);
            host.backup();
            host.restore(&(day + 1).to_string(), &format!("out{}", day + 1));
        }
        for (before, after) in [(1, 2), (2, 3), (3, 4), (4, 1), (1, 4), (2, 2)] {
            let expected = by_system(
                host.temp.path(),
                &format!("out{before}"),
                &format!("out{after}"),
            );
            let found = by_program(&host, &before.to_string(), &after.to_string());
            assert_eq!(found, expected, "seed {seed}: {before}..{after}");
            let line = words(&host, &["diff", "--exit-code", "--names", "A..B"]);
            let range = format!("{before}..{after}");
            let line: Vec<&str> = line
                .into_iter()
                .map(|word| if word == "A..B" { &*range } else { word })
                .collect();
            let code = host.run(&line).status.code();
            let names = host.run(&line).stdout;
            assert_eq!(code, Some(if names.is_empty() { 0 } else { 3 }), "{range}");
        }
    }
}

#[test]
fn a_directory_is_compared_with_the_path_that_it_stands_for() {
    let mut host = Host::new();
    fs::write(host.data().join("same"), "1").unwrap();
    fs::write(host.data().join("changed"), "1").unwrap();
    fs::write(host.data().join("gone"), "1").unwrap();
    set_day(&mut host, 0);
    host.backup();
    host.restore("latest", "out");
    let live = words(
        &host,
        &["diff", "latest..now", "--live", "out", "--exit-code"],
    );
    host.ok(&live);
    let live = words(
        &host,
        &[
            "diff",
            "latest",
            "now",
            "data",
            "--live",
            "data",
            "--exit-code",
        ],
    );
    host.ok(&live);
    fs::write(host.data().join("changed"), "2").unwrap();
    fs::remove_file(host.data().join("gone")).unwrap();
    fs::write(host.data().join("new"), "12345").unwrap();
    let (out, _) = host.exits(&live, 3);
    let lines: Vec<String> = out
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        lines[..3],
        [
            "M 1 B -> 1 B data/changed",
            "- 1 B data/gone",
            "+ 5 B data/new"
        ],
        "{out}"
    );
    assert!(out.lines().all(|line| line.len() <= 80), "{out}");
    for (line, says) in [
        (&["diff", "latest", "now"][..], "--live"),
        (&["diff", "latest"], "second snapshot is missing"),
        (
            &["diff", "latest", "1", "--live", "data"],
            "takes the place",
        ),
        (&["diff", "1..1", "data", "more"], "names both"),
    ] {
        let (_, err) = host.exits(&words(&host, line), 2);
        assert!(err.contains(says), "{line:?}: {err}");
    }
    let (_, err) = host.exits(&words(&host, &["diff", "1", "1", "none"]), 1);
    assert!(err.contains("neither snapshot has none"), "{err}");
}

#[test]
fn without_an_identity_the_snapshots_of_this_host_are_compared() {
    let mut host = Host::prepared(
        |dir| fs::write(dir.join("registry.json"), "[1]").unwrap(),
        &["--json-file", "registry.json"],
    );
    for day in 0..2 {
        set_day(&mut host, day);
        host.backup();
        fs::write(host.path("registry.json"), "[1, 2]").unwrap();
    }
    let said = host.json(&["diff", "20260301T060000Z", "latest"]);
    assert_eq!(said["totals"]["content"], 1, "{said}");
    assert_eq!(said["before"]["stamp"], "20260301T060000Z");
    let (_, err) = host.exits(&["diff", "1", "latest", "--rows"], 2);
    assert!(err.contains("--identity"), "{err}");
    let (_, err) = host.exits(&["diff", "1", "2", "--from", "repo"], 2);
    assert!(err.contains("encrypted"), "{err}");
}

/// Rows of each table as the system's sqlite3 counts them.
fn counts(file: &Path) -> BTreeMap<String, u64> {
    let count = |sql: &str| {
        let output = Command::new("sqlite3").arg(file).arg(sql).output().unwrap();
        assert!(output.status.success(), "{}", texts(&output).1);
        texts(&output).0
    };
    let tables = count("select name from sqlite_master where type = 'table'");
    tables
        .lines()
        .map(|table| {
            let rows = count(&format!("select count(*) from \"{table}\""));
            (table.to_owned(), rows.trim().parse().unwrap())
        })
        .collect()
}

#[test]
fn row_counts_are_those_of_sqlite3() {
    let make = |dir: &Path| {
        let db = rusqlite::Connection::open(dir.join("app.db")).unwrap();
        db.execute_batch(
            "create table documents(a); create table kept(a); insert into kept values(1)",
        )
        .unwrap();
    };
    let mut host = Host::prepared(make, &["--sqlite", "app.db"]);
    let mut expected = Vec::new();
    for (day, rows) in [3, 1204, 0].into_iter().enumerate() {
        let db = rusqlite::Connection::open(host.path("app.db")).unwrap();
        db.execute("delete from documents", []).unwrap();
        for row in 0..rows {
            db.execute("insert into documents values (?)", [row])
                .unwrap();
        }
        if day == 2 {
            db.execute_batch("create table later(a)").unwrap();
        }
        drop(db);
        set_day(&mut host, day);
        // What lost most of its rows is reported.
        host.json_exits(&["backup"], &[0, 3]);
        let out = host.restore(&(day + 1).to_string(), &format!("out{day}"));
        let restored = crate::support::files::files(&out);
        let restored = restored
            .iter()
            .find(|path| path.ends_with("app.db"))
            .unwrap();
        expected.push(counts(restored));
    }
    for (condition, holds) in [
        ("documents>1000", (|rows| rows > 1000) as fn(u64) -> bool),
        ("documents<=3", |rows| rows <= 3),
        ("documents!=3", |rows| rows != 3),
        ("later=0", |_| true),
    ] {
        let said = host.json(&words(&host, &["find", "--rows", condition]));
        let found: Vec<(u64, u64)> = said["rows"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| {
                (
                    row["sequence"].as_u64().unwrap(),
                    row["rows"].as_u64().unwrap(),
                )
            })
            .collect();
        let table = condition.split(['>', '<', '!', '=']).next().unwrap();
        let meant = expected.iter().zip(1..).filter_map(|(tables, sequence)| {
            let rows = *tables.get(table)?;
            holds(rows).then_some((sequence, rows))
        });
        assert_eq!(found, meant.collect::<Vec<_>>(), "{condition}");
    }
    let text = host.ok(&words(&host, &["diff", "2", "3", "--rows"]));
    assert!(
        text.contains("app.db: documents 1204 -> 0 (-1204)\n"),
        "{text}"
    );
    assert!(
        text.contains("app.db: later none -> 0\n") && !text.contains("kept"),
        "{text}"
    );
}
