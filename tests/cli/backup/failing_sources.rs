//! One source that fails leaves the others going off-site: for each kind of source and each way to fail.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::files::files;
use crate::support::host::Host;

/// A way in which a source fails: what it is in the configuration, and what keeps it from being taken.
struct Case {
    name: &'static str,
    source: &'static str,
    prepare: fn(&Path),
    /// Words of the report.
    cause: &'static str,
    next: &'static str,
    /// Whether its copy failed a check and is kept aside.
    is_kept: bool,
}

fn database(path: &Path) {
    let db = rusqlite::Connection::open(path).unwrap();
    db.execute_batch(
        "CREATE TABLE t(x); INSERT INTO t SELECT randomblob(50) FROM
         (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<200) SELECT i FROM n)",
    )
    .unwrap();
}

fn damaged_database(path: &Path) {
    use std::os::unix::fs::FileExt as _;
    database(path);
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0xa5; 4096], 4096).unwrap();
}

fn text(path: &Path, text: &[u8]) {
    fs::write(path, text).unwrap();
}

const SQLITE: &str = "kind = \"sqlite\"\npath = \"bad/x\"\n";
const JSON: &str = "kind = \"json\"\npath = \"bad/x\"\n";
const TREE: &str = "kind = \"tree\"\npath = \"bad/x\"\n";
const STRICT: &str = "kind = \"tree\"\npath = \"bad/x\"\ncheck = \"strict\"\n";
const LIVE_TREE: &str = "kind = \"tree\"\npath = \"bad/x\"\nstage = false\n";

const CASES: &[Case] = &[
    Case {
        name: "a database that is missing",
        source: SQLITE,
        prepare: |_| {},
        cause: "bad/x is not there",
        next: "is mounted",
        is_kept: false,
    },
    Case {
        name: "a damaged database",
        source: SQLITE,
        prepare: |dir| damaged_database(&dir.join("x")),
        cause: "bad/x: ",
        next: "suspect the disk",
        is_kept: true,
    },
    Case {
        name: "a file that is no database",
        source: SQLITE,
        prepare: |dir| text(&dir.join("x"), b"no database"),
        cause: "is not a SQLite database",
        next: "check the live database",
        is_kept: true,
    },
    Case {
        name: "a directory where a database should be",
        source: SQLITE,
        prepare: |dir| fs::create_dir(dir.join("x")).unwrap(),
        cause: "cannot read",
        next: "read by hand",
        is_kept: false,
    },
    Case {
        name: "a lock file that stays locked",
        source: "kind = \"json\"\npath = \"bad/x\"\nlock = \"bad/lock\"\nlock_timeout = \"1s\"\n\
                 before = \"true\"\n",
        prepare: |dir| {
            text(&dir.join("x"), b"{}");
            fs::create_dir(dir.join("lock")).unwrap();
        },
        cause: "stayed locked for 1 s",
        next: "`lock_timeout`",
        is_kept: false,
    },
    Case {
        name: "JSON that is missing",
        source: JSON,
        prepare: |_| {},
        cause: "is not there",
        next: "optional = true",
        is_kept: false,
    },
    Case {
        name: "JSON that is cut off",
        source: JSON,
        prepare: |dir| text(&dir.join("x"), b"{\"projects\": ["),
        cause: "it is not JSON: EOF",
        next: "correct the file",
        is_kept: true,
    },
    Case {
        name: "a tree that is missing",
        source: TREE,
        prepare: |_| {},
        cause: "is not there",
        next: "is mounted",
        is_kept: false,
    },
    Case {
        name: "a file where a tree should be",
        source: TREE,
        prepare: |dir| text(&dir.join("x"), b"x"),
        cause: "is not a directory",
        next: "correct `path`",
        is_kept: false,
    },
    Case {
        name: "a strict tree with a damaged database",
        source: STRICT,
        prepare: |dir| {
            fs::create_dir(dir.join("x")).unwrap();
            damaged_database(&dir.join("x/in.db"));
        },
        cause: "bad/x/in.db",
        next: "suspect the disk",
        is_kept: true,
    },
    Case {
        name: "a tree read in place that is missing",
        source: LIVE_TREE,
        prepare: |_| {},
        cause: "is not there",
        next: "is mounted",
        is_kept: false,
    },
    Case {
        name: "a command that fails halfway",
        source: "kind = \"command\"\ncommand = \"echo half; echo the server is gone >&2; exit 3\"\n",
        prepare: |_| {},
        cause: "the server is gone",
        next: "run the command by hand",
        is_kept: false,
    },
    Case {
        name: "a pipeline whose first part fails",
        source: "kind = \"command\"\ncommand = \"(echo half; exit 4) | cat\"\n",
        prepare: |_| {},
        cause: "exit status: 4",
        next: "run the command by hand",
        is_kept: false,
    },
    Case {
        name: "a command that prints nothing",
        source: "kind = \"command\"\ncommand = \"echo no rows >&2\"\n",
        prepare: |_| {},
        cause: "wrote nothing to its standard output: no rows",
        next: "allow_empty = true",
        is_kept: false,
    },
    Case {
        name: "a command that closes its output early",
        source: "kind = \"command\"\ncommand = \"exec >&-; sleep 0.1; true\"\n",
        prepare: |_| {},
        cause: "wrote nothing to its standard output: it wrote nothing to stderr",
        next: "allow_empty = true",
        is_kept: false,
    },
    Case {
        name: "a program that is not found by the shell",
        source: "kind = \"command\"\ncommand = \"no-such-program-here --all\"\n",
        prepare: |_| {},
        cause: "exit status: 127 (the program is not found)",
        next: "run the command by hand",
        is_kept: false,
    },
    Case {
        name: "a program that is not there",
        source: "kind = \"command\"\ncommand = [\"/no/such/program\"]\n",
        prepare: |_| {},
        cause: "cannot start `/no/such/program`",
        next: "full path",
        is_kept: false,
    },
    Case {
        name: "a command that is killed",
        source: "kind = \"command\"\ncommand = [\"/bin/sh\", \"-c\", \"echo x; kill -9 $$\"]\n",
        prepare: |_| {},
        cause: "signal: 9 (SIGKILL) (it was killed",
        next: "run the command by hand",
        is_kept: false,
    },
    Case {
        name: "a command that writes to stderr without end",
        source: "kind = \"command\"\ncommand = \"yes complaint >&2\"\ntimeout = \"1s\"\n",
        prepare: |_| {},
        cause: "no end after 1 s (`timeout`): ",
        next: "`timeout`",
        is_kept: false,
    },
    Case {
        name: "a `before` that fails",
        source: "kind = \"json\"\npath = \"bad/x\"\nbefore = \"echo cannot stop it >&2; false\"\n",
        prepare: |dir| text(&dir.join("x"), b"{}"),
        cause: "cannot stop it",
        next: "run the command by hand",
        is_kept: false,
    },
];

/// The sound sources, one of each kind, beside one that fails.
fn host(case: &Case, required: bool) -> Host {
    let prepare = |dir: &Path| {
        fs::create_dir(dir.join("bad")).unwrap();
        (case.prepare)(&dir.join("bad"));
        fs::create_dir_all(dir.join("good/tree/deep")).unwrap();
        fs::write(dir.join("data/live"), "read in place").unwrap();
        fs::write(dir.join("good/tree/deep/file"), [7; 9000]).unwrap();
        fs::write(dir.join("good/list.json"), "{\"a\": [1]}").unwrap();
        database(&dir.join("good/a.db"));
    };
    let host = Host::prepared(prepare, &["--tree", "data"]);
    let required = if required { "required = true\n" } else { "" };
    let sources = format!(
        "[[source]]\nkind = \"sqlite\"\npath = \"good/a.db\"\nto = \"good/a.db\"\n\
         [[source]]\nname = \"bad\"\nto = \"bad/x\"\n{required}{}\
         [[source]]\nkind = \"json\"\npath = \"good/list.json\"\nto = \"good/list.json\"\n\
         [[source]]\nkind = \"tree\"\npath = \"good/tree\"\nto = \"good/tree\"\n\
         [[source]]\nkind = \"command\"\nname = \"dump\"\nto = \"good/dump\"\ncommand = \"echo dump\"\n",
        case.source
    );
    host.edit_config("[[target]]", &format!("{sources}\n[[target]]"));
    host
}

/// Holds the lock file of a case, if it has one.
fn hold_lock(host: &Host) -> Option<fs::File> {
    let lock = fs::File::open(host.path("bad/lock")).ok()?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    Some(lock)
}

fn assert_sound_sources(host: &Host, restored: &Path, what: &str) {
    for (place, original) in [
        ("data/live", "data/live"),
        ("good/tree/deep/file", "good/tree/deep/file"),
        ("good/list.json", "good/list.json"),
    ] {
        let same =
            fs::read(restored.join(place)).unwrap() == fs::read(host.path(original)).unwrap();
        assert!(same, "{what}: {place}");
    }
    assert_eq!(
        fs::read(restored.join("good/dump")).unwrap(),
        b"dump\n",
        "{what}"
    );
    let rows = rows(&restored.join("good/a.db"));
    assert_eq!(rows, self::rows(&host.path("good/a.db")), "{what}");
    assert!(!restored.join("bad").exists(), "{what}");
}

/// SQLite's copy has a counter of its own in its header, and else the same bytes.
fn rows(path: &Path) -> Vec<(i64, Vec<u8>)> {
    let db = rusqlite::Connection::open(path).unwrap();
    let mut query = db.prepare("SELECT rowid, x FROM t ORDER BY rowid").unwrap();
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    rows.unwrap().map(Result::unwrap).collect()
}

fn check_left_out(case: &Case) {
    let what = case.name;
    let host = host(case, false);
    let _held = hold_lock(&host);
    let (_, err) = host.exits(&["backup"], 3);
    for word in [
        "left out: the source \"bad\" (bad/x)",
        case.cause,
        case.next,
        "  next: ",
    ] {
        assert!(err.contains(word), "{what}: no {word:?} in\n{err}");
    }
    assert_sound_sources(&host, &host.restore_exits("latest", "out", &[3]), what);
    assert_sound_sources(&host, &host.recover_exits("latest", "by-hand", &[3]), what);

    // What is known of it afterwards, on the host and on the target.
    let listed = host.json(&["list"]);
    let row = &listed["backups"][0];
    assert_eq!(row["valid"], true, "{what}");
    assert_eq!(row["lacks"], serde_json::json!(["bad"]), "{what}");
    let sources = row["metadata"]["sealift"]["sources"].as_array().unwrap();
    let bad = sources.iter().find(|one| one["name"] == "bad").unwrap();
    let left_out = &bad["left_out"];
    assert!(
        left_out["cause"].as_str().unwrap().contains(case.cause),
        "{what}: {left_out}"
    );
    assert_eq!(
        left_out["kept"].is_string(),
        case.is_kept,
        "{what}: {left_out}"
    );
    assert_eq!(bad["present"], false, "{what}");
    let (out, _) = host.exits(&["status"], 3);
    assert!(
        out.contains("lacks something: without bad: "),
        "{what}: {out}"
    );
    let (out, _) = host.exits(&["validate"], 3);
    assert!(
        out.contains("valid") && out.contains("it lacks bad/x"),
        "{what}: {out}"
    );
    let (_, err) = host.exits(&["ls", "latest"], 0);
    assert!(err.contains("the snapshot lacks bad/x"), "{what}: {err}");
    let remote = ["--target", "folder", "--identity", "key.txt"];
    let (_, err) = host.exits(&[&["ls", "latest"], &remote[..]].concat(), 0);
    assert!(err.contains("the snapshot lacks bad/x"), "{what}: {err}");
    let (out, _) = host.exits(&["verify", "--identity", "key.txt"], 0);
    assert!(out.contains("it was made without bad/x"), "{what}: {out}");
    let restore = ["restore", "latest", "--to", "part", "bad/x"];
    let (_, err) = host.exits(&[&restore[..], &remote].concat(), 1);
    assert!(
        err.contains("the source \"bad\" was left out"),
        "{what}: {err}"
    );

    // What failed its check is kept aside, never packed, and nothing else is left.
    let mut aside = Vec::new();
    for entry in fs::read_dir(host.path("c.state/snapshots")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        assert!(!name.starts_with('.'), "{what}: {name}");
        if name.starts_with("invalid-") {
            aside.push(entry.path());
        }
    }
    assert_eq!(aside.len(), usize::from(case.is_kept), "{what}");
    for dir in aside {
        let kept = dir.join("bad/x");
        assert_eq!(left_out["kept"].as_str().unwrap(), kept.to_str().unwrap());
        assert!(kept.exists() && !dir.join("good").exists(), "{what}");
        assert_eq!(
            fs::metadata(&dir).unwrap().permissions().mode() & 0o777,
            0o700
        );
        let dir = dir.to_str().unwrap();
        let said = host.json_exits(&["validate", "--dir", dir], &[1]);
        assert_eq!(said["errors"], left_out["errors"], "{what}");
        host.exits(&["push", "--dir", dir], 1);
    }
}

fn check_required(case: &Case) {
    let what = case.name;
    let host = host(case, true);
    let _held = hold_lock(&host);
    let (_, err) = host.exits(&["backup"], 1);
    assert!(
        err.contains(case.cause) && err.contains("next: "),
        "{what}: {err}"
    );
    let shipped = ["manifests", "archives"].map(|dir| files(&host.folder().join(dir)));
    let shipped = shipped.concat();
    assert!(shipped.is_empty(), "{what}: {shipped:?}");
    let listed = host.json(&["list"]);
    assert_eq!(listed["backups"], serde_json::json!([]), "{what}");
}

#[test]
fn each_failure_of_each_kind_leaves_the_other_sources_going() {
    each(check_left_out);
}

#[test]
fn each_failure_of_a_required_source_fails_the_snapshot() {
    each(check_required);
}

/// Two at a time.
fn each(check: fn(&Case)) {
    let (first, second) = CASES.split_at(CASES.len() / 2);
    std::thread::scope(|scope| {
        scope.spawn(|| first.iter().for_each(check));
        second.iter().for_each(check);
    });
}

#[test]
fn if_every_source_fails_there_is_no_snapshot() {
    let host = Host::new();
    fs::remove_dir(host.data()).unwrap();
    let (_, err) = host.exits(&["backup"], 1);
    assert!(
        err.contains("the source \"data\" could not be taken"),
        "{err}"
    );
    assert!(
        err.contains("data is not there") && err.contains("next: check that it is mounted"),
        "{err}"
    );
    host.edit_config(
        "[[target]]",
        "[[source]]\nkind = \"command\"\nname = \"dump\"\ncommand = \"exit 9\"\n\n[[target]]",
    );
    let (_, err) = host.exits(&["backup"], 1);
    assert!(err.contains("every source failed"), "{err}");
    for word in [
        "data: ",
        "is not there",
        "dump: ",
        "exit status: 9",
        "Next: ",
    ] {
        assert!(err.contains(word), "no {word} in {err}");
    }
    // One that may be missing, and is, is no source that was taken.
    host.edit_config(
        "command = \"exit 9\"",
        "command = \"exit 9\"\n[[source]]\nkind = \"json\"\npath = \"x.json\"\noptional = true",
    );
    let (_, err) = host.exits(&["backup"], 1);
    assert!(err.contains("every source failed"), "{err}");
    let (out, _) = host.exits(&["status"], 3);
    assert!(out.contains("failed: no snapshot was made"), "{out}");
}

/// The registry's broken bytes stop nothing; the database's do.
#[test]
fn a_broken_registry_does_not_keep_atocores_database_on_the_host() {
    let prepare = |dir: &Path| {
        fs::create_dir_all(dir.join("live/data/db")).unwrap();
        fs::create_dir_all(dir.join("live/config")).unwrap();
        database(&dir.join("live/data/db/atocore.db"));
        fs::write(
            dir.join("live/config/project-registry.json"),
            "{\"projects\": [",
        )
        .unwrap();
    };
    let host = Host::prepared(prepare, &["--preset", "atocore", "--root", "live"]);
    let report = host.json_exits(&["backup"], &[3]);
    assert_eq!(report["complete"], false);
    assert_eq!(report["left_out"][0]["source"], "registry");
    assert_eq!(
        report["left_out"][0]["errors"],
        serde_json::json!(["registry_invalid_json"])
    );
    assert_eq!(report["targets"][0]["state"], "published");
    let restored = host.restore_exits("latest", "out", &[3]);
    let live = host.path("live/data/db/atocore.db");
    assert_eq!(rows(&restored.join("db/atocore.db")), rows(&live));
    assert!(!restored.join("config").exists());
    let listed = host.json(&["list"]);
    assert_eq!(
        listed["backups"][0]["metadata"]["registry_snapshot_path"],
        ""
    );
    // The snapshot of before is pushed again, and says the same.
    let (_, err) = host.exits(&["push", "latest"], 3);
    assert!(err.contains("left out: the source \"registry\""), "{err}");

    fs::write(host.path("live/config/project-registry.json"), "{}").unwrap();
    host.backup();
    damaged_database(&host.path("other.db"));
    fs::copy(host.path("other.db"), host.path("live/data/db/atocore.db")).unwrap();
    let (_, err) = host.exits(&["backup"], 1);
    assert!(err.contains("db_integrity_check_failed"), "{err}");
}

#[test]
fn of_what_failed_its_check_the_newest_three_are_kept() {
    let mut host = Host::new();
    fs::write(host.path("x.json"), "{").unwrap();
    host.edit_config(
        "[[target]]",
        "[[source]]\nkind = \"json\"\npath = \"x.json\"\n\n[[target]]",
    );
    fs::create_dir(host.path("c.state/snapshots")).ok();
    for day in 1..=5 {
        host.clock = Some(format!("2026-11-0{day}T06:00:00Z"));
        host.exits(&["backup"], 3);
    }
    let snapshots = host.path("c.state/snapshots");
    let kept = || {
        let entries = fs::read_dir(&snapshots).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut kept: Vec<String> = names.filter(|name| name.starts_with("invalid-")).collect();
        kept.sort();
        kept
    };
    let expected = [3, 4, 5].map(|day| format!("invalid-202611{day:02}T060000Z"));
    assert_eq!(kept(), expected);
    // Those of one source do not push out those of another.
    let config = host.config();
    let other = "[[source]]\nkind = \"json\"\npath = \"y.json\"\n\n[[target]]";
    fs::write(host.path("y.json"), "[").unwrap();
    fs::write(host.path("c.toml"), config.replace("[[target]]", other)).unwrap();
    host.clock = Some("2026-11-06T06:00:00Z".to_owned());
    host.exits(&["backup"], 3);
    fs::write(host.path("y.json"), "[]").unwrap();
    for day in 7..=9 {
        host.clock = Some(format!("2026-11-0{day}T06:00:00Z"));
        let (_, err) = host.exits(&["backup"], 3);
        let deleted = format!("invalid-2026110{}T060000Z was deleted", day - 3);
        assert!(day == 9 || err.contains(&deleted), "{err}");
    }
    let expected = [6, 7, 8, 9].map(|day| format!("invalid-202611{day:02}T060000Z"));
    assert_eq!(kept(), expected);
    let copy = host.path("c.state/snapshots/invalid-20261106T060000Z/y.json");
    assert_eq!(fs::read(copy).unwrap(), b"[");
    fs::write(host.path("c.toml"), config).unwrap();
    assert_eq!(host.json(&["list"])["backups"].as_array().unwrap().len(), 9);
}

#[test]
fn what_a_command_writes_to_stderr_is_kept_with_the_run() {
    let host = Host::new();
    host.edit_config(
        "[[target]]",
        "[[source]]\nkind = \"command\"\nname = \"dump\"\ncommand = \"echo dump; seq 9999 >&2; echo 3 rows left out >&2\"\n\
         before = \"echo stopping >&2\"\nafter = \"echo starting >&2\"\n\n[[target]]",
    );
    let (_, err) = host.exits(&["backup"], 0);
    for word in [
        "succeeded, and wrote to stderr",
        "3 rows left out",
        "stopping",
        "starting",
    ] {
        assert!(err.contains(word), "no {word} in {err}");
    }
    let listed = host.json(&["list"]);
    let sources = &listed["backups"][0]["metadata"]["sealift"]["sources"];
    let dump = sources
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["name"] == "dump");
    let stderr = &dump.unwrap()["stderr"];
    assert_eq!(
        (&stderr["before"], &stderr["after"]),
        (&"stopping".into(), &"starting".into())
    );
    let of_command = stderr["command"].as_str().unwrap();
    assert!(
        of_command.ends_with("9999\n3 rows left out"),
        "{of_command}"
    );
    assert!(of_command.len() <= 2048, "{}", of_command.len());
}

#[test]
fn an_empty_output_is_allowed_where_the_configuration_says_so() {
    let host = Host::new();
    host.edit_config(
        "[[target]]",
        "[[source]]\nkind = \"command\"\nname = \"dump\"\ncommand = \"true\"\nallow_empty = true\n\n[[target]]",
    );
    host.backup();
    assert_eq!(
        fs::read(host.restore("latest", "out").join("dump")).unwrap(),
        b""
    );
}

/// A half that is long is not stored either, whatever ends it: a part that fails, or a reader that goes.
#[test]
fn a_pipeline_is_as_good_as_its_worst_part() {
    for (line, is_good) in [
        ("seq 100000 | gzip", true),
        ("(seq 100000; exit 1) | gzip", false),
        ("yes | head -n 2", false),
        ("false || seq 3", true),
        ("true | false | seq 3", false),
    ] {
        let host = Host::new();
        fs::write(host.data().join("x"), "x").unwrap();
        let source = format!(
            "[[source]]\nkind = \"command\"\nname = \"dump\"\ncommand = {line:?}\n\n[[target]]"
        );
        host.edit_config("[[target]]", &source);
        let report: Value = host.json_exits(&["backup"], &[if is_good { 0 } else { 3 }]);
        let left_out = report["left_out"].as_array().unwrap();
        assert_eq!(left_out.is_empty(), is_good, "{line}: {left_out:?}");
        if line.starts_with("yes") {
            let cause = left_out[0]["cause"].as_str().unwrap();
            assert!(
                cause.contains("a later part of the pipeline, such as head, ended"),
                "{cause}"
            );
        }
    }
}

/// Kind: what keeps SQLite from reading a log is named, here a medium that nothing can be written to.
#[test]
fn a_log_on_a_read_only_medium_is_the_named_reason() {
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--", "sh", "-c", script]);
        command
    };
    if !unshare("true")
        .status()
        .is_ok_and(|status| status.success())
    {
        eprintln!("SKIPPED: mounting needs root");
        return;
    }
    let host = Host::new();
    fs::write(host.data().join("x"), "x").unwrap();
    fs::create_dir_all(host.path("medium")).unwrap();
    let db = rusqlite::Connection::open(host.path("live.db")).unwrap();
    db.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t(x); INSERT INTO t VALUES (1)")
        .unwrap();
    for ending in ["", "-wal"] {
        let (from, to) = (format!("live.db{ending}"), format!("medium/a.db{ending}"));
        fs::copy(host.path(&from), host.path(&to)).unwrap();
    }
    host.edit_config(
        "[[target]]",
        "[[source]]\nkind = \"sqlite\"\npath = \"medium/a.db\"\n\n[[target]]",
    );
    let script = format!(
        "mount --bind medium medium && mount -o remount,ro,bind medium && exec {} --config c.toml backup",
        crate::support::host::SEALIFT
    );
    let output = unshare(&script)
        .current_dir(host.temp.path())
        .env("SEALIFT_MACHINE_ID", &host.machine)
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{err}");
    assert!(
        err.contains("the content of its -wal can be read only by writing to"),
        "{err}"
    );
    assert!(
        err.contains("which is mounted read-only") && err.contains("next: mount it writable"),
        "{err}"
    );
    // Elsewhere nothing keeps it.
    host.backup();
}

/// A source of its own kind of failure each, all at once.
#[test]
fn several_sources_fail_in_one_run_and_each_is_named() {
    let host = Host::new();
    fs::write(host.data().join("x"), "x").unwrap();
    fs::write(host.path("a.json"), "{").unwrap();
    let sources = "[[source]]\nkind = \"json\"\npath = \"a.json\"\nto = \"c/a.json\"\n\
                   [[source]]\nkind = \"sqlite\"\npath = \"b.db\"\nto = \"c/b.db\"\n\
                   [[source]]\nkind = \"command\"\nname = \"dump\"\nto = \"c/dump\"\ncommand = \"exit 5\"\n";
    host.edit_config("[[target]]", &format!("{sources}\n[[target]]"));
    let report = host.json_exits(&["backup"], &[3]);
    let left_out = report["left_out"].as_array().unwrap();
    let names: Vec<&str> = left_out
        .iter()
        .map(|one| one["source"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["c_a_json", "c_b_db", "dump"]);
    let restored = host.restore_exits("latest", "out", &[3]);
    assert_eq!(fs::read(restored.join("data/x")).unwrap(), b"x");
    assert!(!restored.join("c").exists());
}

/// What JSON is for the programs that write it, taken as it is.
#[test]
fn json_of_real_programs_is_stored_as_it_is() {
    let utf16: Vec<u8> = "\u{feff}{\"a\": 1}"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let cases: [(&[u8], &str); 3] = [
        (b"\xef\xbb\xbf{}", "begins with a byte order mark"),
        (
            b"{\"loss\": NaN, \"most\": -Infinity}",
            "holds NaN or Infinity",
        ),
        (&utf16, "is UTF-16"),
    ];
    let host = Host::new();
    let mut sources = String::new();
    for (number, (text, _)) in cases.iter().enumerate() {
        fs::write(host.path(&format!("{number}.json")), text).unwrap();
        sources += &format!("[[source]]\nkind = \"json\"\npath = \"{number}.json\"\n");
    }
    host.edit_config("[[target]]", &format!("{sources}\n[[target]]"));
    let (_, err) = host.exits(&["backup"], 0);
    let restored = host.restore("latest", "out");
    for (number, (text, note)) in cases.iter().enumerate() {
        assert!(
            err.contains(&format!("{number}.json: it {note}; stored as it is")),
            "{err}"
        );
        assert_eq!(
            fs::read(restored.join(format!("{number}.json"))).unwrap(),
            *text
        );
    }
}

/// Kind: weeks of snapshots without a source push the last one that has it out of the policy.
#[test]
fn the_last_snapshot_that_has_a_source_which_fails_stays() {
    let mut host = Host::new();
    let more = "\n[[source]]\nkind = \"json\"\nname = \"registry\"\npath = \"registry.json\"\n\n[retention]\nlast = 1\n";
    let config = host.config();
    let config = config.split("[retention]").next().unwrap();
    fs::write(host.path("c.toml"), format!("{config}{more}")).unwrap();
    host.edit_config("[[target]]\n", "[[target]]\nprune = true\n");
    fs::write(host.path("registry.json"), "{}").unwrap();
    let mut day = 0;
    let mut back_up = |host: &mut Host, code: i32| {
        day += 1;
        host.clock = Some(format!("2026-11-{day:02}T06:00:00Z"));
        fs::write(host.data().join("a"), format!("day {day}")).unwrap();
        host.json_exits(&["backup"], &[code]);
        let listed = host.json_exits(&["list", "--target", "folder"], &[0, 3]);
        let snapshots = listed["snapshots"].as_array().unwrap().clone();
        let there = snapshots
            .iter()
            .map(|one| one["sequence"].as_u64().unwrap());
        there.collect::<Vec<u64>>()
    };
    back_up(&mut host, 0);
    back_up(&mut host, 0);
    fs::write(host.path("registry.json"), "{").unwrap();
    for _ in 3..7 {
        let there = back_up(&mut host, 3);
        assert!(there.contains(&2), "{there:?}");
    }
    let said = host.exits_any(&["prune", "--dry-run"], &[0, 3]);
    let said = format!("{}{}", said.0, said.1);
    assert!(said.contains("last before a source failed"), "{said}");
    host.exits(&["prune", "--forget", "2", "--yes"], 1);
    fs::write(host.path("registry.json"), "{}").unwrap();
    let there = back_up(&mut host, 0);
    let there = if there.contains(&2) {
        back_up(&mut host, 0)
    } else {
        there
    };
    assert!(!there.contains(&2), "{there:?}");
}
