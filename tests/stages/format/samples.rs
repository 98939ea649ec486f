//! Samples of every format version that was ever written, read by today's code. They were made once, and are never
//! made again: tests/samples/README.md.

mod make;
mod read;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use read::{Expected, listing};

use crate::support::files::files;
use crate::support::host::{SEALIFT, texts};
use crate::support::is_long;

/// In everyday runs each sixteenth file; all of them with `./test --long`.
const EVERYDAY: usize = 16;
/// Days after the last of them.
const CLOCK: &str = "2026-04-20T06:00:00Z";

fn samples(name: &str) -> PathBuf {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples");
    all.join(name)
}

/// The sample `name` in a directory of its own, with the identity that opens it.
fn copied(name: &str) -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    let done = Command::new("cp")
        .arg("-r")
        .arg(samples(name))
        .arg(temp.path().join("it"))
        .status();
    assert!(done.unwrap().success());
    fs::write(temp.path().join("key.txt"), make::identity()).unwrap();
    temp
}

fn run(temp: &Path, program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", temp)
        .env("TMPDIR", std::env::temp_dir())
        .env("SEALIFT_CLOCK", CLOCK)
        .current_dir(temp)
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn the_first_sample_is_read_by_every_command() {
    is_read_by_every_command("format-1");
}

#[test]
fn the_sample_with_pages_of_earlier_snapshots_is_read_by_every_command() {
    is_read_by_every_command("format-1-pages");
}

fn is_read_by_every_command(name: &str) {
    let temp = copied(name);
    let dir = temp.path();
    let expected = Expected::read(&dir.join("it"));
    let from = ["--from", "it/repo", "--signer", "it/allowed_signers"];
    let sealift = |command: &[&str], code: i32| {
        let output = run(dir, SEALIFT, &[command, &from].concat());
        let (out, err) = texts(&output);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{command:?}: {out}\n{err}"
        );
        out
    };
    let listed: serde_json::Value = serde_json::from_str(&sealift(&["--json", "list"], 0)).unwrap();
    let listed = listed["snapshots"].as_array().unwrap();
    let sequences: Vec<u64> = listed
        .iter()
        .map(|one| one["sequence"].as_u64().unwrap())
        .collect();
    assert_eq!(sequences, expected.sequences);
    for (at, sequence) in expected.sequences.iter().enumerate() {
        let (number, tree) = (
            sequence.to_string(),
            expected.tree(&dir.join("it"), *sequence),
        );
        let names = sealift(&["ls", &number, "--identity", "key.txt"], 0);
        assert_eq!(names.lines().count(), tree.len(), "{names}");
        let to = format!("out-{number}");
        // A device is made on demand only, and named.
        let code = if tree.iter().any(|line| line.starts_with("device")) {
            3
        } else {
            0
        };
        sealift(
            &["restore", &number, "--identity", "key.txt", "--to", &to],
            code,
        );
        assert_eq!(listing(&dir.join(&to)), read::without_devices(&tree));
        let by_hand = format!("by-hand-{number}");
        let arguments = [
            "-B",
            "recover.py",
            "it/repo/sample",
            "--identity",
            "key.txt",
            "--to",
            &by_hand,
        ];
        let signer = ["--signer", "it/allowed_signers", "--snapshot", &number];
        fs::write(
            dir.join("recover.py"),
            include_str!("../../../deploy/recover.py"),
        )
        .unwrap();
        let output = run(dir, "python3", &[&arguments[..], &signer].concat());
        let (out, err) = texts(&output);
        assert_eq!(output.status.code(), Some(code), "{at}: {out}\n{err}");
        assert_eq!(listing(&dir.join(&by_hand)), read::without_devices(&tree));
    }
    sealift(&["verify"], 0);
    sealift(&["verify", "--data", "--identity", "key.txt"], 0);
    let plan = sealift(
        &[
            "--json",
            "prune",
            "--dry-run",
            "--yes",
            "--policy",
            "daily=2",
        ],
        0,
    );
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    let stamps: Vec<&str> = plan["targets"][0]["snapshots"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["stays"] == false)
        .map(|one| one["stamp"].as_str().unwrap())
        .collect();
    assert_eq!(stamps, expected.pruned_to_two, "{plan}");
    let archive = files(&dir.join("it/repo/sample/archives")).remove(0);
    let arguments = ["open", "--identity", "key.txt", archive.to_str().unwrap()];
    let output = run(dir, SEALIFT, &arguments);
    assert!(output.status.success() && output.stdout.len().is_multiple_of(512));
}

/// Each file is there for a reason: without it, or with another bit in it, the reading fails.
#[test]
fn every_file_of_the_first_sample_is_needed() {
    every_file_is_needed("format-1");
}

#[test]
fn every_file_of_the_sample_with_pages_of_earlier_snapshots_is_needed() {
    every_file_is_needed("format-1-pages");
}

fn every_file_is_needed(name: &str) {
    let temp = copied(name);
    let dir = temp.path().join("it");
    let key = temp.path().join("key.txt");
    let read = || read::everything(&dir, &key);
    read().unwrap();
    let all = files(&dir);
    let (mut tried, mut useless) = (0, Vec::new());
    for (at, path) in all.iter().enumerate() {
        if !is_long() && at % EVERYDAY != 0 {
            continue;
        }
        let good = fs::read(path).unwrap();
        let mut changed = good.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        for (what, bytes) in [("changed", Some(changed)), ("removed", None)] {
            match bytes {
                Some(bytes) => fs::write(path, bytes).unwrap(),
                None => fs::remove_file(path).unwrap(),
            }
            if read().is_ok() {
                useless.push(format!("{} {what}", path.display()));
            }
            fs::write(path, &good).unwrap();
            tried += 1;
        }
    }
    read().unwrap();
    println!("{tried} of {} changes tried", 2 * all.len());
    assert_eq!(useless, Vec::<String>::new());
}

#[test]
fn the_samples_are_small_and_hold_no_private_key() {
    for name in ["format-1", "format-1-pages"] {
        let mut bytes = 0;
        for path in files(&samples(name)) {
            let content = fs::read(&path).unwrap();
            bytes += content.len();
            for secret in [&b"PRIVATE KEY"[..], b"AGE-SECRET-KEY"] {
                let found = content.windows(secret.len()).any(|window| window == secret);
                assert!(!found, "{}", path.display());
            }
        }
        assert!(bytes < 200_000, "{name}: {bytes}");
    }
}
