//! The history of runs: what each command writes, and how a run ends in it that did not end by itself.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sealift::state::history::{History, NewRun, RunFilter, RunRow};
use serde_json::Value;

use crate::support::host::Host;

fn host() -> Host {
    let host = Host::new();
    fs::write(host.data().join("a"), "a").unwrap();
    host
}

/// A host whose backup waits in a source until the file `go` exists.
fn waiting_host() -> Host {
    let host = host();
    host.backup();
    let dir = host.temp.path().display();
    let command = format!(
        "cd {dir}; echo \\\"[$SEALIFT_RUN]\\\" >seen; touch waits; while [ -e waits ] && [ ! -e go ]; do sleep 0.05; done; echo done"
    );
    let source =
        format!("\n[[source]]\nkind = \"command\"\nname = \"slow\"\ncommand = \"{command}\"\n");
    fs::write(host.path("c.toml"), host.config() + &source).unwrap();
    host
}

fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_true() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn begin(host: &Host, mut command: Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().unwrap();
    wait_until("the source was never taken", || host.path("waits").exists());
    child
}

fn end(mut child: Child, signal: Signal) {
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, signal).unwrap();
    child.wait().unwrap();
}

fn history(host: &Host) -> History {
    History::open(&host.path("c.state")).unwrap()
}

fn rows(host: &Host) -> Vec<RunRow> {
    history(host).runs(&RunFilter::default()).unwrap()
}

/// Command and outcome of each run, oldest first.
fn outcomes(host: &Host) -> Vec<(String, String)> {
    let runs = host.json(&["runs", "--limit", "100"]);
    let runs = runs.as_array().unwrap().iter().rev();
    let text = |value: &Value| value.as_str().unwrap_or("open").to_owned();
    runs.map(|run| (text(&run["kind"]), text(&run["outcome"])))
        .collect()
}

fn expected(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter()
        .map(|(kind, outcome)| ((*kind).to_owned(), (*outcome).to_owned()))
        .collect()
}

#[test]
fn each_run_is_in_the_history_and_no_dry_run_is() {
    let host = host();
    // Only `init` and a backup make a state directory.
    fs::remove_dir_all(host.path("c.state")).unwrap();
    host.exits_any(&["verify"], &[0, 1, 3]);
    assert_eq!(host.json(&["runs"]), Value::Array(Vec::new()));
    host.backup();
    host.ok(&["push"]);
    host.ok(&["verify"]);
    host.ok(&["prune"]);
    let out = host.path("out");
    let out = out.to_str().unwrap();
    host.ok(&["sync", "folder", "./copy"]);
    host.ok(&[
        "restore",
        "--target",
        "folder",
        "--identity",
        "key.txt",
        "--to",
        out,
    ]);
    host.exits_any(
        &[
            "restore",
            "--target",
            "folder",
            "--identity",
            "key.txt",
            "--to",
            "/proc/x",
        ],
        &[1, 2],
    );
    for dry in [
        &["backup", "--dry-run"][..],
        &["prune", "--dry-run"],
        &["sync", "folder", "./copy", "--dry-run"],
        &["rollback", "--list"],
        &["status"],
        &["list"],
    ] {
        host.ok(dry);
    }
    host.exits_any(&["rollback", "--yes"], &[1, 2]);
    let all = [
        ("backup", "complete"),
        ("push", "complete"),
        ("verify", "complete"),
        ("prune", "complete"),
        ("sync", "complete"),
        ("restore", "complete"),
        ("restore", "failed"),
        ("rollback", "failed"),
    ];
    assert_eq!(outcomes(&host), expected(&all));
    let rows = rows(&host);
    let backup = rows.last().unwrap();
    let ended = backup.end.as_ref().unwrap();
    assert_eq!((ended.exit_code, ended.sequence), (Some(0), Some(1)));
    let report: Value = serde_json::from_str(ended.report.as_ref().unwrap()).unwrap();
    assert_eq!(report["id"], backup.run.id);
    let stages = report["stages"].as_array().unwrap();
    let has = |stage: &str| stages.iter().any(|one| one["stage"] == stage);
    assert!(has("producing") && has("packing"), "{stages:?}");
    let failed = rows[1].end.as_ref().unwrap();
    assert!(
        !failed.message.is_empty() && failed.exit_code == Some(1),
        "{failed:?}"
    );
    // What was sent is counted, also once the row is gone.
    let sent = history(&host).totals("sent_bytes").unwrap();
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert!(sent[0].0 == "folder" && sent[0].2 > 100, "{sent:?}");
    let chosen = host.json(&["runs", "--kind", "restore", "--outcome", "failed"]);
    assert_eq!(chosen.as_array().unwrap().len(), 1);
}

#[test]
fn one_run_is_shown_with_its_report_and_its_log() {
    let host = host();
    fs::write(host.path("data/b"), "b").unwrap();
    host.backup();
    let id = rows(&host)[0].run.id.clone();
    let logs = host.path("c.state/logs");
    fs::create_dir(&logs).unwrap();
    fs::write(logs.join(format!("{id}.log")), "a line\n\x1b[31mred\n").unwrap();
    let said = host.ok(&["runs", &id[..20].to_lowercase()]);
    for part in [
        &format!("backup {id}: complete"),
        "exit code 0",
        "(sequence 1): 3 files",
        "stages:\n",
        "  packing: ",
        "  folder: published, ",
        "\n  a line\n",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains('\x1b'), "{said:?}");
    let shown = host.json(&["runs", &id]);
    assert_eq!(shown["report"]["id"], shown["id"]);
    assert_eq!(shown["log"], "a line\n\u{1b}[31mred\n");
    let (_, err) = host.exits(&["runs", "01ZZ"], 2);
    assert!(err.contains("no run") && err.contains("next: "), "{err}");
}

/// Kind: the agent's row stays open, or the run gets a second one.
#[test]
fn a_child_of_the_agent_ends_the_row_that_the_agent_wrote() {
    let host = waiting_host();
    let id = "01ARYZ6S410000000000000000";
    let run = |id: &str| NewRun {
        id: id.to_owned(),
        kind: "backup".to_owned(),
        trigger: "schedule".to_owned(),
        started_at: chrono::DateTime::UNIX_EPOCH,
        pid: 1,
        pid_started: 1,
        note: None,
    };
    history(&host).begin_run(&run(id)).unwrap();
    let mut command = host.command(&["backup", "--trigger", "schedule"]);
    command.env("SEALIFT_RUN", id);
    let mut child = begin(&host, command);
    // A command of the configuration could take over the run.
    let seen = fs::read_to_string(host.path("seen")).unwrap();
    assert!(!seen.contains(id), "{seen}");
    let row = history(&host).run(id).unwrap().unwrap();
    assert_eq!(row.run.pid, child.id());
    assert!(row.run.pid_started > 1 && row.end.is_none());
    let listed = host.json(&["runs", id]);
    assert_eq!(listed["stage"], "producing");
    fs::write(host.path("go"), "").unwrap();
    assert!(child.wait().unwrap().success());
    let row = history(&host).run(id).unwrap().unwrap();
    let end = row.end.unwrap();
    assert_eq!((end.outcome.as_str(), end.exit_code), ("complete", Some(0)));
    let report: Value = serde_json::from_str(&end.report.unwrap()).unwrap();
    assert_eq!(
        (&report["id"], &report["trigger"]),
        (&id.into(), &"schedule".into())
    );
    assert_eq!(rows(&host).len(), 2);
    // The row has ended: a second run leaves it alone, and says so.
    let mut again = host.command(&["backup"]);
    let output = again.env("SEALIFT_RUN", id).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && err.contains("has ended before"),
        "{err}"
    );
    assert_eq!(rows(&host).len(), 2);
    // Without a row of the agent's, it writes one; another word in the variable names no run.
    let other = "01ARYZ6S420000000000000000";
    for (word, id) in [(other, Some(other)), ("backup", None)] {
        let mut command = host.command(&["verify"]);
        assert!(command.env("SEALIFT_RUN", word).status().unwrap().success());
        let newest = rows(&host).into_iter().find(|row| row.run.kind == "verify");
        let newest = newest.unwrap();
        assert_eq!(newest.run.id == other, id.is_some(), "{word}");
        assert!(newest.end.is_some());
    }
}

#[test]
fn a_run_is_cancelled_by_a_signal_and_closed_after_a_kill() {
    let host = waiting_host();
    let child = begin(&host, host.command(&["backup"]));
    let running = host.ok(&["runs"]);
    assert!(running.contains("running: producing"), "{running}");
    end(child, Signal::TERM);
    fs::remove_file(host.path("waits")).unwrap();
    end(begin(&host, host.command(&["backup"])), Signal::KILL);
    let all = [
        ("backup", "complete"),
        ("backup", "cancelled"),
        ("backup", "killed"),
    ];
    assert_eq!(outcomes(&host), expected(&all));
    let killed = host.ok(&["runs", "--outcome", "killed"]);
    assert!(killed.contains("its process (pid "), "{killed}");
    // The next command that is recorded closes it, too.
    fs::remove_file(host.path("waits")).unwrap();
    end(begin(&host, host.command(&["backup"])), Signal::KILL);
    host.ok(&["verify"]);
    let rows = rows(&host);
    assert_eq!(rows[1].end.as_ref().unwrap().outcome, "killed");
    let cancelled = rows[3].end.as_ref().unwrap();
    let report: Value = serde_json::from_str(cancelled.report.as_ref().unwrap()).unwrap();
    assert_eq!(
        (&report["outcome"], cancelled.exit_code),
        (&"cancelled".into(), Some(1))
    );
}

#[test]
fn a_backup_waits_for_the_one_at_work_or_names_it() {
    let host = waiting_host();
    let mut first = begin(&host, host.command(&["backup"]));
    let id = rows(&host)[0].run.id.clone();
    let (_, err) = host.exits(&["backup"], 1);
    let named = format!(
        "another sealift is at work: run {id} by hand, pid {}, producing, since ",
        first.id()
    );
    assert!(err.contains(&named), "{err}");
    assert!(err.contains("next: ") && err.contains("--wait 2h"), "{err}");
    let (_, err) = host.exits(&["backup", "--wait", "1s"], 1);
    assert!(err.contains("waiting for it, at most 1.0 s"), "{err}");
    // What did nothing is no run.
    assert_eq!(rows(&host).len(), 2);
    let waiting = host.command(&["backup", "--wait"]);
    let mut waiting = { waiting }
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(waiting.try_wait().unwrap().is_none());
    fs::write(host.path("go"), "").unwrap();
    assert!(first.wait().unwrap().success() && waiting.wait().unwrap().success());
    let all = [("backup", "complete"); 3];
    assert_eq!(outcomes(&host), expected(&all));
}

#[test]
fn a_history_that_cannot_be_written_fails_no_backup() {
    let host = host();
    host.backup();
    let path = host.path("c.state/history.db");
    for ending in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{ending}", path.display()));
    }
    fs::create_dir(&path).unwrap();
    let (_, err) = host.exits(&["backup"], 0);
    assert!(
        err.contains("warning: this run is not in the history"),
        "{err}"
    );
    fs::remove_dir(&path).unwrap();
    // A damaged one is moved aside, and a new one begins.
    fs::write(&path, vec![7; 8192]).unwrap();
    let (_, err) = host.exits(&["backup"], 0);
    assert!(
        err.contains("warning: the history of runs was damaged"),
        "{err}"
    );
    assert_eq!(outcomes(&host), expected(&[("backup", "complete")]));
}

/// A database whose index has an old value of its table: `quick_check` passes, `integrity_check` does not.
fn database_with_a_wrong_index(path: &std::path::Path) {
    let db = rusqlite::Connection::open(path).unwrap();
    db.execute_batch(
        "CREATE TABLE t(a); CREATE INDEX i ON t(a); INSERT INTO t VALUES(1), (2);
         CREATE TABLE kept AS SELECT * FROM sqlite_schema WHERE name='i';
         PRAGMA writable_schema=ON; DELETE FROM sqlite_schema WHERE name='i';",
    )
    .unwrap();
    drop(db);
    let db = rusqlite::Connection::open(path).unwrap();
    db.execute_batch(
        "UPDATE t SET a=9 WHERE a=1;
         PRAGMA writable_schema=ON; INSERT INTO sqlite_schema SELECT * FROM kept; PRAGMA writable_schema=RESET;",
    )
    .unwrap();
    drop(db);
    let old = std::time::SystemTime::now() - Duration::from_secs(3600);
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(old).unwrap();
}

/// Kind: a database that looks unchanged is not read, or only by `quick_check`.
#[test]
fn the_backup_after_an_incident_checks_every_database_in_full() {
    let mut host = Host::new();
    let path = host.data().join("x.db");
    database_with_a_wrong_index(&path);
    host.clock = Some("2026-04-01T06:00:00Z".to_owned());
    host.ok(&["incident"]);
    // Before anything else: it fails its check, and so stays to be checked.
    for _ in 0..2 {
        let (_, err) = host.exits(&["backup"], 3);
        assert!(err.contains("fails SQLite's integrity_check"), "{err}");
    }
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch("REINDEX").unwrap();
    drop(db);
    let (_, err) = host.exits(&["backup"], 0);
    assert!(
        err.contains("after the incident of 2026-04-01 06:00"),
        "{err}"
    );
    let (_, err) = host.exits(&["backup"], 0);
    assert!(!err.contains("incident"), "{err}");
    let mark = |name| history(&host).mark(name).unwrap().unwrap();
    assert_eq!(mark("incident").made_at, mark("incident_checked").made_at);
    // A wrong index that came without a trace in the file's times is seen after the next one only.
    fs::remove_file(&path).unwrap();
    database_with_a_wrong_index(&path);
    host.exits(&["backup"], 0);
    host.exits(&["backup"], 0);
    host.clock = Some("2026-04-02T06:00:00Z".to_owned());
    let said = host.json(&["incident", "--note", "the controller was changed"]);
    assert_eq!(said["note"], "the controller was changed");
    host.exits(&["backup"], 3);
}

#[test]
fn a_pause_ends_by_itself_or_by_resume() {
    let mut host = Host::new();
    host.clock = Some("2026-04-01T06:00:00Z".to_owned());
    let paused = |said: &Value| said["paused_until"].as_str().map(str::to_owned);
    assert_eq!(
        paused(&host.json(&["pause"])).unwrap(),
        "2026-04-02T06:00:00Z"
    );
    let again = host.json(&["pause", "--for", "4h", "--note", "moving disks"]);
    assert_eq!(paused(&again).unwrap(), "2026-04-01T10:00:00Z");
    assert_eq!(again["was_paused_until"], "2026-04-02T06:00:00Z");
    let long = host.json(&["pause", "--until", "2026-05-01 18:00Z"]);
    assert_eq!(paused(&long).unwrap(), "2026-05-01T18:00:00Z");
    for (wrong, needle) in [
        (&["pause", "--for", "25h"][..], "--until"),
        (&["pause", "--for", "0"], "--until"),
        (&["pause", "--until", "2026-04-01 06:00Z"], "is past"),
        (&["pause", "--until", "soon"], "is no time"),
    ] {
        let (_, err) = host.exits(wrong, 2);
        assert!(err.contains(needle), "{err}");
    }
    let mark = history(&host).mark("pause").unwrap().unwrap();
    assert_eq!(
        mark.until.unwrap().to_rfc3339(),
        "2026-05-01T18:00:00+00:00"
    );
    let resumed = host.json(&["resume"]);
    assert_eq!(
        (paused(&resumed), &resumed["was_paused_until"]),
        (None, &long["paused_until"])
    );
    assert!(host.ok(&["resume"]).contains("were not paused"));
    assert!(host.ok(&["pause"]).contains("wait until "));
}
