//! The command line as documented: set-up in four lines, exit codes, what is printed.

use std::fs;
use std::process::{Command, Stdio};

use crate::support::host::{Host, SEALIFT, joined, texts};
use crate::support::tree::{describe, make_tree, noise};

#[test]
fn the_four_lines_of_the_readme() {
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join("data")).unwrap();
    make_tree(&temp.path().join("data"));
    let line = r#"
        set -e
        recipient=$(sealift key generate --output key.txt)
        sealift --config c.toml init --host h --recipient $recipient --target file://$PWD/repo --tree $PWD/data
        sealift --config c.toml backup
        sealift restore latest --from file://$PWD/repo --identity key.txt --accept-signer --to out
    "#;
    let bin = std::path::Path::new(SEALIFT).parent().unwrap();
    let output = Command::new("bash")
        .args(["-c", line])
        .env_clear()
        .env(
            "PATH",
            format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()),
        )
        .env("HOME", temp.path())
        .current_dir(temp.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", texts(&output).1);
    assert_eq!(
        describe(&temp.path().join("out/data")),
        describe(&temp.path().join("data"))
    );
}

#[test]
fn demo_tells_its_story_and_leaves_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let (home, scratch) = (temp.path().join("home"), temp.path().join("tmp"));
    fs::create_dir(&home).unwrap();
    fs::create_dir(&scratch).unwrap();
    let output = Command::new(SEALIFT)
        .arg("demo")
        .env("HOME", &home)
        .env("TMPDIR", &scratch)
        .current_dir(&home)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (out, err) = texts(&output);
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    assert!(
        out.contains("identical to the byte") && out.contains("identical again"),
        "{out}"
    );
    assert!(out.lines().count() < 60, "more than a screenful:\n{out}");
    for place in [home, scratch] {
        assert_eq!(fs::read_dir(place).unwrap().count(), 0);
    }
}

#[test]
fn init_replaces_nothing_and_says_what_is_wrong() {
    let host = Host::new();
    let before = host.config();
    let recipient = host.recipient.clone();
    let again = [
        "init",
        "--host",
        "x",
        "--recipient",
        &recipient,
        "--target",
        "repo",
        "--tree",
        "data",
    ];
    let (_, err) = host.exits(&again, 2);
    assert!(err.contains("exists already"), "{err}");
    assert_eq!(host.config(), before);
    let elsewhere = |more: &[&str]| {
        let mut arguments = vec!["--config", "other.toml", "init", "--host", "x"];
        arguments.extend(more);
        // The last --config counts.
        let output = Command::new(SEALIFT)
            .args(&arguments)
            .current_dir(host.temp.path())
            .output()
            .unwrap();
        assert!(!host.path("other.toml").exists());
        (output.status.code().unwrap(), texts(&output).1)
    };
    for (arguments, what) in [
        (vec!["--target", "repo", "--tree", "data"], "--recipient"),
        (
            vec![
                "--recipient",
                "age1nonsense",
                "--target",
                "repo",
                "--tree",
                "data",
            ],
            "age1nonsense",
        ),
        (
            vec!["--recipient", &recipient, "--tree", "data"],
            "init needs --target",
        ),
        (
            vec!["--recipient", &recipient, "--target", "repo"],
            "(what to back up)",
        ),
        (
            vec![
                "--recipient",
                &recipient,
                "--target",
                "repo",
                "--tree",
                "no-such",
            ],
            "no-such is not a directory",
        ),
        (
            vec![
                "--recipient",
                &recipient,
                "--target",
                "ftp://x/y",
                "--tree",
                "data",
            ],
            "ftp",
        ),
        (
            vec![
                "--recipient",
                "key.txt",
                "--target",
                "repo",
                "--tree",
                "data",
            ],
            "identity",
        ),
    ] {
        let (code, err) = elsewhere(&arguments);
        assert_eq!(code, 2, "{err}");
        assert!(err.contains(what), "{what}: {err}");
    }
}

#[test]
fn list_ls_and_status_tell_what_there_is() {
    let host = Host::new();
    make_tree(&host.data());
    host.exits(&["status"], 3);
    host.backup();
    host.backup();
    let list = host.json(&["list"]);
    let rows = list["backups"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[1]["targets"]["folder"], "published");
    assert_eq!(rows[1]["valid"], true);
    assert!(host.ok(&["list"]).contains("published"));
    let remote = [
        "ls",
        "latest",
        "data/dir",
        "--from",
        "repo",
        "--accept-signer",
        "--identity",
        "key.txt",
    ];
    let said = host.ok(&remote);
    assert!(
        said.contains("data/dir/deep/er/file") && !said.contains("dir-beside"),
        "{said}"
    );
    let (_, err) = host.exits(&["ls", "--from", "repo", "--accept-signer"], 2);
    assert!(err.contains("encrypted"), "{err}");
    let status = host.ok(&["status"]);
    assert!(
        status.contains("ok") && status.contains("fully decrypted"),
        "{status}"
    );
    let status = host.json(&["status"]);
    assert_eq!(status["targets"][0]["sequence"], 2);
    assert_eq!(status["last_run"]["outcome"], "complete");
}

#[test]
fn status_says_when_a_backup_is_overdue() {
    let mut host = Host::with_init(&["--tree", "data", "--schedule", "0 6 * * *"]);
    host.clock = Some("2026-04-07T06:00:10Z".to_owned());
    host.backup();
    host.clock = Some("2026-04-08T07:00:00Z".to_owned());
    host.ok(&["status"]);
    host.clock = Some("2026-04-09T07:00:00Z".to_owned());
    let (out, _) = host.exits(&["status"], 3);
    assert!(out.contains("RED snapshot_stale: "), "{out}");
    let (out, _) = host.exits(&["status", "--offline"], 3);
    assert!(out.contains("RED snapshot_stale: "), "{out}");
}

#[test]
fn a_restore_is_planned_first_and_never_mixes_with_what_is_there() {
    let host = Host::new();
    make_tree(&host.data());
    host.backup();
    let common = [
        "restore",
        "--from",
        "repo",
        "--signer",
        &host.signer,
        "--identity",
        "key.txt",
    ];
    let with = |more: &[&'static str]| joined(&common, more);
    let planned = host.ok(&with(&["--to", "out", "--dry-run"]));
    assert!(
        planned.contains("data/notes.txt") && !host.path("out").exists(),
        "{planned}"
    );
    fs::create_dir(host.path("out")).unwrap();
    fs::write(host.path("out/mine"), b"live").unwrap();
    let (_, err) = host.exits(&with(&["--to", "out"]), 1);
    assert!(
        err.contains("not empty") && err.contains("--overwrite"),
        "{err}"
    );
    assert_eq!(fs::read(host.path("out/mine")).unwrap(), b"live");
    let report = host.json(&with(&["--to", "out", "--overwrite"]));
    assert_eq!(describe(&host.path("out/data")), describe(&host.data()));
    let aside = report["moved_aside"].as_str().unwrap();
    assert_eq!(
        fs::read(std::path::Path::new(aside).join("mine")).unwrap(),
        b"live"
    );
    // Single paths.
    let mut some = common.to_vec();
    some.insert(1, "latest");
    some.extend(["data/dir", "./data/notes.txt", "--to", "some"]);
    host.ok(&some);
    assert!(
        host.path("some/data/dir/deep/er/file").exists()
            && host.path("some/data/notes.txt").exists()
    );
    assert!(!host.path("some/data/big.bin").exists());
}

#[test]
fn mistakes_are_told_and_nothing_hangs() {
    let host = Host::new();
    fs::write(host.data().join("a"), b"a").unwrap();
    host.backup();
    let common = ["--identity", "key.txt", "--accept-signer", "--to", "out"];
    let restore = |more: &[&'static str]| joined(&joined(&["restore"], more), &common);
    for (arguments, code, what) in [
        (
            restore(&["latest", "--from", "no-such-folder"]),
            1,
            "no-such-folder",
        ),
        (
            restore(&["latest", "--from", "repo", "--host", "nobody"]),
            1,
            "nobody",
        ),
        (
            restore(&["20200101T000000Z", "--from", "repo"]),
            1,
            "20200101T000000Z",
        ),
        (
            restore(&["latest", "no/such/path", "--from", "repo"]),
            1,
            "no/such/path",
        ),
        (
            vec![
                "restore",
                "--from",
                "repo",
                "--identity",
                "none.txt",
                "--to",
                "out",
            ],
            1,
            "none.txt",
        ),
        (vec!["push", "20200101T000000Z"], 1, "20200101T000000Z"),
        (
            vec!["open", "none.age", "--identity", "key.txt"],
            1,
            "none.age",
        ),
    ] {
        let (_, err) = host.exits(&arguments, code);
        assert!(err.contains(what), "{what}: {err}");
        assert!(!host.path("out").exists() && !host.path("no-such-folder").exists());
    }
    // A part of the snapshot that is gone is a failure, not a smaller backup.
    fs::rename(host.data(), host.path("elsewhere")).unwrap();
    let (_, err) = host.exits(&["backup"], 1);
    assert!(err.contains("data"), "{err}");
    let status = host.json_exits(&["status"], &[3]);
    assert_eq!(status["last_run"]["outcome"], "failed");
}

#[test]
fn push_takes_a_snapshot_that_sealift_did_not_make() {
    let host = Host::new();
    let dir = host.path("20260407T060000Z");
    fs::create_dir_all(dir.join("db")).unwrap();
    fs::create_dir_all(dir.join("config")).unwrap();
    let db = rusqlite::Connection::open(dir.join("db/atocore.db")).unwrap();
    db.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)")
        .unwrap();
    drop(db);
    fs::write(
        dir.join("config/project-registry.json"),
        "{\"projects\": []}",
    )
    .unwrap();
    fs::write(
        dir.join("backup-metadata.json"),
        "{\"created_at\": \"2026-04-07T06:00:00+00:00\"}",
    )
    .unwrap();
    let report = host.json(&["push", "--dir", "20260407T060000Z"]);
    assert_eq!(report["stamp"], "20260407T060000Z");
    let out = host.restore("20260407T060000Z", "out");
    assert_eq!(describe(&out), describe(&dir));
    // A damaged one is not packed.
    fs::write(dir.join("config/project-registry.json"), "{").unwrap();
    let (_, err) = host.exits(&["push", "--dir", "20260407T060000Z"], 1);
    assert!(err.contains("registry_invalid_json"), "{err}");
}

#[test]
fn snapshot_then_validate_then_push() {
    let host = Host::new();
    fs::write(host.data().join("a"), noise(1, 1000)).unwrap();
    let dir = host.ok(&[
        "snapshot",
        "--tag",
        "before-upgrade",
        "--note",
        "just in case",
    ]);
    assert!(std::path::Path::new(dir.trim()).is_dir());
    assert!(host.ok(&["validate"]).contains("valid"));
    assert!(!host.folder().join("manifests").exists());
    assert!(host.ok(&["list"]).contains("before-upgrade"));
    host.ok(&["push"]);
    let from = [
        "ls",
        "--from",
        "repo",
        "--accept-signer",
        "--identity",
        "key.txt",
    ];
    let (_, said) = host.exits(&from, 0);
    assert!(
        said.contains("before-upgrade") && said.contains("just in case"),
        "{said}"
    );
    // Sealed: neither is on the target in the clear.
    for file in crate::support::files::files(&host.folder()) {
        let bytes = fs::read(file).unwrap();
        assert!(!bytes.windows(14).any(|window| window == b"before-upgrade"));
    }
    let out = host.restore("latest", "out");
    assert_eq!(describe(&out.join("data")), describe(&host.data()));
}

#[test]
fn completions_and_the_manual_are_there() {
    let host = Host::new();
    assert!(host.ok(&["completions", "bash"]).contains("_sealift"));
    let manual = host.ok(&["man"]);
    assert!(
        manual.starts_with(".ie") && manual.contains("restore"),
        "{manual}"
    );
    host.ok(&["man", "--dir", "."]);
    let of_verb = host.ok(&["man", "key", "generate"]);
    let file = fs::read_to_string(host.path("sealift-key-generate.1")).unwrap();
    assert_eq!(of_verb, file);
    assert_eq!(manual, fs::read_to_string(host.path("sealift.1")).unwrap());
    for section in ["SYNOPSIS", "OPTIONS", "EXIT STATUS", "EXAMPLES", "SEE ALSO"] {
        let heading = format!("\n.SH \"{section}\"\n");
        let short = format!("\n.SH {section}\n");
        let found = of_verb.matches(&heading).count() + of_verb.matches(&short).count();
        assert_eq!(found, 1, "{section}\n{of_verb}");
    }
    let (_, err) = host.exits(&["man", "forget"], 2);
    assert!(err.contains("forget"), "{err}");
}

/// A service that was stopped for its backup is started again, even if the backup must end.
#[test]
fn a_terminated_backup_runs_what_after_demands() {
    let host = Host::new();
    let source = "\n[[source]]\nkind = \"command\"\nname = \"dump\"\ncommand = [\"sleep\", \"60\"]\n\
                  before = \"touch stopped\"\nafter = \"rm stopped; touch started\"\n";
    fs::write(host.path("c.toml"), host.config() + source).unwrap();
    let running = host
        .command(&["backup"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !host.path("stopped").exists() && std::time::Instant::now() < deadline {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    std::thread::sleep(std::time::Duration::from_millis(100));
    let pid = running.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    let output = running.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        texts(&output).1.contains("interrupted"),
        "{}",
        texts(&output).1
    );
    assert!(!host.path("stopped").exists() && host.path("started").exists());
}

/// Ends what runs beside a test, however the test ends.
struct StopOnDrop<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

/// A file that will not hold still is stored as last read, marked, and named: at the backup and at the
/// restore. Files that come and go while the tree is read do no harm.
#[test]
fn files_that_change_while_they_are_read_are_told_of() {
    use std::os::unix::fs::FileExt as _;
    use std::sync::atomic::{AtomicBool, Ordering};
    let host = Host::new();
    let path = host.data().join("restless");
    fs::write(&path, noise(1, 30_000_000)).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        scope.spawn(|| {
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            let mut n = 0u64;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                let at = n * 8191 % 29_000_000;
                file.write_all_at(&n.to_le_bytes(), at).unwrap();
                let passing = host.data().join(format!("passing-{}", n % 7));
                let _ = fs::write(&passing, b"x");
                let _ = fs::remove_file(&passing);
            }
        });
        // On a busy machine the writer may sleep through a read, which is whole then.
        let is_torn = |_| {
            let report = host.json_exits(&["backup"], &[0, 3]);
            let skipped = report["skipped"].to_string();
            skipped.contains("data/restless") && skipped.contains("torn")
        };
        assert!((0..20).any(is_torn));
    });
    let out = host.restore_exits("latest", "out", &[3]);
    let restored = out.join("data/restless");
    assert_eq!(fs::metadata(restored).unwrap().len(), 30_000_000);
    // Quiet again, it is whole.
    host.backup();
    let out = host.restore("latest", "quiet");
    let restored = fs::read(out.join("data/restless")).unwrap();
    assert_eq!(restored, fs::read(&path).unwrap());
}

/// What a restore decrypted so far does not stay behind when it must end.
#[test]
fn a_terminated_restore_leaves_nothing_decrypted() {
    let host = Host::new();
    fs::write(host.data().join("big"), noise(1, 120_000_000)).unwrap();
    host.backup();
    let mut running = host
        .command(&[
            "restore",
            "--from",
            "repo",
            "--accept-signer",
            "--identity",
            "key.txt",
            "--to",
            "out",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let partial = || {
        let names = fs::read_dir(host.temp.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        names
            .filter(|name| name.to_string_lossy().contains("sealift-partial"))
            .count()
    };
    while partial() == 0 && running.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let pid = running.id().to_string();
    let _ = Command::new("kill")
        .args(["-TERM", &pid])
        .stderr(Stdio::null())
        .status();
    let status = running.wait().unwrap();
    assert_eq!(partial(), 0);
    // It may have been quicker than the signal.
    assert_eq!(host.path("out").exists(), status.success());
}

#[test]
fn a_quiet_backup_that_is_complete_says_nothing() {
    let host = Host::new();
    fs::write(host.data().join("a"), b"a").unwrap();
    let (out, err) = host.exits(&["--quiet", "backup"], 0);
    assert_eq!((out.as_str(), err.as_str()), ("", ""));
}
