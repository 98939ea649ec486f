//! Commands: as a source, and around one; and the lock file.

use std::fs;
use std::time::{Duration, Instant};

use super::host::Host;
use crate::support::files::names_in;

fn command(line: &str, more: &str) -> String {
    format!(
        "[[source]]\nkind = \"command\"\nname = \"dump\"\nto = \"db/dump.sql\"\ncommand = {line:?}\n{more}"
    )
}

#[test]
fn standard_output_is_the_source() {
    let host = Host::new(&command(
        "echo $SEALIFT_SOURCE $SEALIFT_STAMP; echo noise >&2",
        "mode = \"0640\"\n",
    ));
    let made = host.produce();
    let copy = made.dir.join("db/dump.sql");
    assert_eq!(
        fs::read_to_string(&copy).unwrap(),
        "dump 20260407T060000Z\n"
    );
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(
        fs::metadata(&copy).unwrap().permissions().mode() & 0o777,
        0o640
    );
    assert_eq!(made.snapshot.sources[0].kind, "command");
}

#[test]
fn a_command_that_fails_fails_the_snapshot_and_says_why() {
    let host = Host::new(&command(
        "echo half of it; echo the server is gone >&2; exit 3",
        "",
    ));
    let said = host.failure();
    for word in ["\"dump\"", "exit status: 3", "the server is gone"] {
        assert!(said.contains(word), "{said}");
    }
    assert!(host.snapshots().is_empty(), "half a dump is no dump");
    let host = Host::new(
        "[[source]]\nkind = \"command\"\nname = \"x\"\ncommand = [\"/no/such/program\"]\n",
    );
    assert!(host.failure().contains("cannot start `/no/such/program`"));
}

#[test]
fn a_command_that_does_not_end_is_ended_with_its_children() {
    let host = Host::new(&command("sleep 60 & sleep 60", "timeout = \"1s\"\n"));
    let start = Instant::now();
    let said = host.failure();
    assert!(start.elapsed() < Duration::from_secs(20));
    assert!(said.contains("no end after 1 s"), "{said}");
}

#[test]
fn hooks_run_around_the_copy_and_after_runs_always() {
    let source = |before: &str, path: &str, after: &str| {
        format!(
            "[[source]]\nkind = \"json\"\npath = \"@/live/{path}\"\nto = \"x.json\"\n\
             before = {before:?}\nafter = {after:?}\n"
        )
    };
    let log = "echo after >> @/log";
    let mut host = Host::new(&source(
        "echo before > @/log; echo {} > @/live/x.json",
        "x.json",
        log,
    ));
    fs::create_dir(host.path("live")).unwrap();
    let said = || fs::read_to_string(host.path("log")).unwrap();
    let made = host.produce();
    assert_eq!(said(), "before\nafter\n");
    assert_eq!(fs::read(made.dir.join("x.json")).unwrap(), b"{}\n");

    host.reconfigure(&source("echo before > @/log", "missing.json", log));
    assert!(host.failure().contains("missing.json is not there"));
    assert_eq!(
        fs::read_to_string(host.path("log")).unwrap(),
        "before\nafter\n"
    );

    host.reconfigure(&source("echo before > @/log; exit 1", "x.json", log));
    assert!(host.failure().contains("exit status: 1"));
    assert_eq!(
        fs::read_to_string(host.path("log")).unwrap(),
        "before\nafter\n"
    );

    // The copy is good, but what was stopped may still be: the run must not look complete.
    host.reconfigure(&source(
        "true",
        "x.json",
        "echo no such container >&2; exit 1",
    ));
    let made = host.produce();
    assert!(
        made.snapshot.skipped[0]
            .reason
            .contains("no such container")
    );

    host.reconfigure(&source("exit 4", "x.json", "exit 5"));
    let said = host.failure();
    assert!(
        said.contains("exit status: 4") && said.contains("exit status: 5"),
        "{said}"
    );
}

#[test]
fn a_held_lock_file_is_waited_for_and_then_named() {
    let host = Host::new(
        "[[source]]\nkind = \"json\"\npath = \"@/x.json\"\nlock = \"@/ingest.lock\"\nlock_timeout = \"1s\"\n",
    );
    host.write("x.json", b"{}");
    let held = fs::File::create(host.path("ingest.lock")).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let said = host.failure();
    assert!(
        said.contains("ingest.lock") && said.contains("1 s"),
        "{said}"
    );
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(300));
            rustix::fs::flock(&held, rustix::fs::FlockOperation::Unlock).unwrap();
        });
        host.produce();
    });
    assert_eq!(names_in(&host.config.snapshots_dir).len(), 1);
}

#[test]
fn a_lock_file_is_a_file_and_nothing_that_is_waited_for() {
    let host = Host::new(
        "[[source]]\nkind = \"json\"\npath = \"@/x.json\"\nlock = \"@/ingest.lock\"\nlock_timeout = \"1s\"\n",
    );
    host.write("x.json", b"{}");
    let lock = host.path("ingest.lock");
    let made = std::process::Command::new("mkfifo").arg(&lock).status();
    assert!(made.unwrap().success());
    let start = Instant::now();
    let said = host.failure();
    assert!(said.contains("not a regular file"), "{said}");
    fs::remove_file(&lock).unwrap();
    // A link that leads nowhere would have a file made somewhere else.
    std::os::unix::fs::symlink(host.path("elsewhere"), &lock).unwrap();
    host.failure();
    assert!(!host.path("elsewhere").exists() && start.elapsed() < Duration::from_secs(20));
}

#[test]
fn what_a_command_leaves_running_is_ended() {
    let host = Host::new(&command(
        "(sleep 1; echo late >> @/late) & echo whole",
        "timeout = \"20s\"\n",
    ));
    let made = host.produce();
    let failing = Host::new(&command("(sleep 1; echo late >> @/late) & exit 3", ""));
    failing.failure();
    std::thread::sleep(Duration::from_millis(2000));
    for host in [&host, &failing] {
        assert!(!host.path("late").exists());
    }
    assert_eq!(fs::read(made.dir.join("db/dump.sql")).unwrap(), b"whole\n");
}
