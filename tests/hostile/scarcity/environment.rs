//! Readers that go away, streams that are closed, variables that are not set, programs that are not there.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use super::restricted_program::{Run, ran_in_a_namespace, run, wrapped};
use crate::support::checker::assert_sound;
use crate::support::host::Host;
use crate::support::small_disk::SmallDisk;
use crate::support::tree::{describe, noise};

fn host() -> Host {
    let host = Host::new();
    change(&host, 1);
    host.backup();
    host
}

fn change(host: &Host, seed: u64) {
    fs::write(host.data().join("file"), noise(seed, 100_000)).unwrap();
}

fn snapshots(host: &Host) -> usize {
    assert_sound(&host.folder()).manifests.len()
}

/// What the newest snapshot holds is what the data are.
fn assert_backed_up(host: &Host) {
    let out = host.restore("latest", "restored");
    assert_eq!(describe(&out.join("data")), describe(&host.data()));
    fs::remove_dir_all(out).unwrap();
}

#[test]
fn a_reader_that_has_enough_is_no_failure() {
    let host = host();
    let from = ["--from", "repo", "--signer", &host.signer];
    let ls = [&["ls", "latest", "--identity", "key.txt"][..], &from].concat();
    for arguments in [
        &["list"][..],
        &["--json", "list"],
        &ls,
        &["status"],
        &["man"],
        &["completions", "bash"],
    ] {
        let mut command = host.command(arguments);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let run = Run::of(&child.wait_with_output().unwrap());
        assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn nobody_reading_its_messages_does_not_keep_a_backup_from_being_made() {
    let host = host();
    // A note on the way, from the middle of the run.
    host.edit_config("[[target]]", "[[source]]\nkind = \"json\"\npath = \"none.json\"\nto = \"n\"\noptional = true\n\n[[target]]");
    let quiet = |arguments: &[&str]| {
        let mut command = host.command(arguments);
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stderr.take());
        child.wait().unwrap().code()
    };
    change(&host, 2);
    assert_eq!(quiet(&["backup"]), Some(0));
    assert_backed_up(&host);
    // A failure is one still, and a wrong command line too.
    assert_eq!(quiet(&["--config", "none.toml", "backup"]), Some(2));
    assert_eq!(
        quiet(&["ls", "20000101T000000Z", "--identity", "key.txt"]),
        Some(1)
    );
}

#[test]
fn closed_streams_do_not_keep_a_backup_from_being_made() {
    let host = host();
    for (seed, closed) in [">&-", "2>&-", "<&-", "<&- >&- 2>&-"].iter().enumerate() {
        change(&host, 10 + seed as u64);
        let line = format!("exec \"$@\" {closed}");
        let run = run(&mut wrapped(
            &host,
            &["bash", "-c", &line, "bash"],
            &["backup"],
        ));
        assert_eq!(run.code, Some(0), "{closed}: {}", run.said());
        assert_backed_up(&host);
    }
}

#[test]
fn a_report_that_cannot_be_written_is_a_failure_of_the_report_only() {
    let host = host();
    change(&host, 2);
    for arguments in [&["backup"][..], &["list"], &["--json", "list"]] {
        let full = fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let run = run(host.command(arguments).stdout(full));
        assert_eq!(run.code, Some(1), "{}", run.said());
        run.assert_says(&["the standard output", "No space left", "next: make room"]);
    }
    assert_backed_up(&host);
}

#[test]
fn who_cannot_be_asked_is_told_what_was_wanted() {
    let host = host();
    let sealed = ["key", "generate", "--passphrase", "--output", "new.txt"];
    let from = ["--from", "repo", "--signer", &host.signer];
    let restore = ["restore", "--identity", "sealed.txt", "--to", "out"];
    fs::write(host.path("sealed.txt"), sealed_identity()).unwrap();
    for (arguments, code) in [(&sealed[..], 2), (&[&restore[..], &from].concat(), 1)] {
        let line = "exec \"$@\" <&-";
        let prefix = ["bash", "-c", line, "bash"];
        let run = run(&mut wrapped(&host, &prefix, arguments));
        assert_eq!(run.code, Some(code), "{}", run.said());
        run.assert_says(&["passphrase", "next: "]);
        assert!(!host.path("out").exists() && !host.path("new.txt").exists());
    }
}

/// An identity file that takes a passphrase, made now.
fn sealed_identity() -> Vec<u8> {
    use sealift::restore::open::{SecretString, generate, seal_with_passphrase};
    let (text, _) = generate();
    seal_with_passphrase(&text, SecretString::from("words".to_owned())).unwrap()
}

/// What a command does without some of its surroundings.
struct Want {
    arguments: &'static [&'static str],
    code: i32,
    says: &'static [&'static str],
}

const fn want(
    arguments: &'static [&'static str],
    code: i32,
    says: &'static [&'static str],
) -> Want {
    Want {
        arguments,
        code,
        says,
    }
}

/// One variable, its value, and what a command does with no other one.
const WANTS: [(&str, &str, Want); 14] = [
    // Nothing of this needs a variable.
    (
        "",
        "",
        want(&["--config", "c.toml", "--quiet", "backup"], 0, &[]),
    ),
    ("", "", want(&["--config", "c.toml", "list"], 0, &[])),
    (
        "",
        "",
        want(
            &["list"],
            2,
            &[
                "no configuration found",
                "/etc/sealift/sealift.toml",
                "sealift init",
            ],
        ),
    ),
    (
        "HOME",
        "",
        want(&["list"], 2, &["no configuration found", "sealift init"]),
    ),
    (
        "SEALIFT_CONFIG",
        "none.toml",
        want(&["list"], 2, &["none.toml", "No such file"]),
    ),
    (
        "TMPDIR",
        "/none",
        want(&["--config", "c.toml", "--quiet", "backup"], 0, &[]),
    ),
    (
        "TMPDIR",
        "/none",
        want(
            &[
                "restore",
                "--from",
                "repo",
                "--identity",
                "key.txt",
                "--signer",
                "SIGNER",
                "--to",
                "out",
            ],
            0,
            &[],
        ),
    ),
    (
        "TMPDIR",
        "/none",
        want(
            &[
                "ls",
                "latest",
                "--from",
                "repo",
                "--identity",
                "key.txt",
                "--signer",
                "SIGNER",
            ],
            0,
            &[],
        ),
    ),
    (
        "TMPDIR",
        "/none",
        want(
            &["sync", "./repo", "./copy", "--signer", "SIGNER"],
            1,
            &["/none", "--scratch"],
        ),
    ),
    (
        "TMPDIR",
        "/none",
        want(
            &["--config", "c.toml", "verify", "--identity", "key.txt"],
            1,
            &["/none", "--scratch"],
        ),
    ),
    ("TMPDIR", "/none", want(&["demo"], 1, &["/none", "TMPDIR"])),
    (
        "PATH",
        "/none",
        want(
            &["list", "--from", "rsync://me@127.0.0.1/x"],
            1,
            &["rsync", "not on the PATH"],
        ),
    ),
    (
        "PATH",
        "/none",
        want(
            &["list", "--from", "sftp://me@127.0.0.1/x"],
            1,
            &["ssh", "not on the PATH"],
        ),
    ),
    (
        "PATH",
        "",
        want(
            &["list", "--from", "me@127.0.0.1:x"],
            1,
            &["rsync", "not on the PATH"],
        ),
    ),
];

#[test]
fn without_surroundings_it_works_or_says_what_it_misses() {
    let host = host();
    let signer = host.signer.clone();
    for (name, value, want) in WANTS {
        let arguments = want.arguments.iter().map(|word| match *word {
            "SIGNER" => signer.as_str(),
            word => word,
        });
        let mut command = std::process::Command::new(crate::support::host::SEALIFT);
        command
            .args(arguments)
            .env_clear()
            .env("SEALIFT_MACHINE_ID", &host.machine)
            .current_dir(host.temp.path())
            .stdin(Stdio::null());
        if !name.is_empty() {
            command.env(name, value);
        }
        let run = run(&mut command);
        assert_eq!(
            run.code,
            Some(want.code),
            "{name}={value} {:?}: {}",
            want.arguments,
            run.said()
        );
        run.assert_says(want.says);
    }
    assert_eq!(describe(&host.path("out/data")), describe(&host.data()));
    assert_backed_up(&host);
}

#[test]
fn a_full_directory_for_temporary_files_stops_only_what_needs_it() {
    if ran_in_a_namespace(
        "scarcity::environment::a_full_directory_for_temporary_files_stops_only_what_needs_it",
    ) {
        return;
    }
    let host = host();
    fs::create_dir(host.path("tmp")).unwrap();
    let Some(disk) = SmallDisk::mount(&host.path("tmp")) else {
        return;
    };
    disk.fill(0);
    let with_tmp =
        |arguments: &[&str]| run(host.command(arguments).env("TMPDIR", host.path("tmp")));
    change(&host, 2);
    let db = rusqlite::Connection::open(host.data().join("app.db")).unwrap();
    db.pragma_update(None, "journal_mode", "wal").unwrap();
    db.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (zeroblob(300000))")
        .unwrap();
    assert_eq!(with_tmp(&["backup"]).code, Some(0));
    drop(db);
    assert_eq!(snapshots(&host), 2);
    assert_holds_the_file(&host, &host.restore("latest", "restored"));
    let sync = ["sync", "./repo", "./copy", "--signer", &host.signer];
    let verify = ["verify", "--identity", "key.txt"];
    for arguments in [&sync[..], &verify] {
        let run = with_tmp(arguments);
        assert_ne!(run.code, Some(0), "{}", run.said());
        assert!(
            (run.out.clone() + &run.err).contains("No space left"),
            "{}",
            run.said()
        );
    }
    disk.empty();
    for arguments in [&sync[..], &verify] {
        let run = with_tmp(arguments);
        assert_eq!(run.code, Some(0), "{}", run.said());
    }
    assert_eq!(fs::read_dir(host.path("tmp")).unwrap().count(), 0);
    assert_holds_the_file(&host, &host.restore_from(&host.path("copy"), "copied"));
}

fn assert_holds_the_file(host: &Host, out: &Path) {
    let (restored, source) = (out.join("data/file"), host.data().join("file"));
    assert_eq!(fs::read(restored).unwrap(), fs::read(source).unwrap());
}
