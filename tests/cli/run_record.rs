//! What `status` says of the last run, and what interrupted runs leave on the host.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::support::host::Host;
use crate::support::small_disk::SmallDisk;
use crate::support::tree::noise;

/// A host whose backup waits in a source until the file `go` exists.
fn waiting_host() -> Host {
    let host = Host::new();
    fs::write(host.data().join("a"), "a").unwrap();
    host.backup();
    let source = "\n[[source]]\nkind = \"command\"\nname = \"slow\"\n\
                  command = \"touch waits; while [ -e waits ] && [ ! -e go ]; do sleep 0.05; done; echo done\"\n";
    let dir = host.temp.path().display();
    let source = source.replace("touch waits", &format!("cd {dir}; touch waits"));
    fs::write(host.path("c.toml"), host.config() + &source).unwrap();
    host
}

fn begin(host: &Host) -> Child {
    let mut command = host.command(&["backup"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !host.path("waits").exists() {
        assert!(Instant::now() < deadline, "the source was never taken");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

fn end(mut child: Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, signal).unwrap();
    child.wait().unwrap();
}

#[test]
fn a_run_is_under_way_interrupted_or_killed() {
    let host = waiting_host();
    let child = begin(&host);
    let running = host.ok(&["status"]);
    let expected = format!("(pid {})", child.id());
    assert!(
        running.contains("running since ") && running.contains(&expected),
        "{running}"
    );
    end(child, rustix::process::Signal::INT);
    let (said, _) = host.exits(&["status"], 3);
    assert!(
        said.contains(": interrupted") && !said.contains("running"),
        "{said}"
    );
    assert!(said.contains("last complete run "), "{said}");

    fs::remove_file(host.path("waits")).unwrap();
    end(begin(&host), rustix::process::Signal::KILL);
    let (said, _) = host.exits(&["status"], 3);
    assert!(said.contains("did not finish"), "{said}");
    let status = host.json_exits(&["status"], &[3]);
    assert_eq!(status["last_run"]["outcome"], "unfinished");

    fs::write(host.path("go"), "").unwrap();
    host.backup();
    let said = host.ok(&["status"]);
    assert!(
        said.contains(": complete") && !said.contains("last complete run"),
        "{said}"
    );
}

/// Kind: a run that fails at once writes into the record of one that is under way.
#[test]
fn a_run_that_cannot_begin_leaves_the_record_to_the_one_that_is_under_way() {
    let host = waiting_host();
    let child = begin(&host);
    // As if it were being written right now.
    let record = host.path("c.state/run.json");
    let written = fs::read(&record).unwrap();
    fs::write(&record, vec![b'{'; written.len()]).unwrap();
    let config = host.config();
    let line = config.lines().find(|line| line.starts_with("signer = "));
    host.edit_config(line.unwrap(), "signer = \"nowhere\"");
    host.exits_any(&["backup"], &[1, 2]);
    assert!(fs::read(&record).unwrap().iter().all(|byte| *byte == b'{'));
    fs::write(&record, written).unwrap();
    fs::write(host.path("c.toml"), config).unwrap();
    end(child, rustix::process::Signal::INT);
    // Once no other process is at work, it is recorded.
    let line = host.config();
    let line = line
        .lines()
        .find(|line| line.starts_with("signer = "))
        .unwrap()
        .to_owned();
    host.edit_config(&line, "signer = \"nowhere\"");
    host.exits_any(&["backup"], &[1, 2]);
    let record = fs::read_to_string(record).unwrap();
    assert!(
        record.contains("\"failed\"") && record.contains("nowhere"),
        "{record}"
    );
}

/// The directory of a run that failed before it packed anything goes after a complete backup, and one that the
/// operator made by hand stays.
#[test]
fn what_a_failed_run_left_goes_once_a_later_backup_was_complete() {
    let mut host = Host::new();
    let keep = "\n[snapshots]\nkeep = \"all\"\n\n[retention]\n";
    host.edit_config("\n[retention]\n", keep);
    fs::write(host.data().join("a"), "a").unwrap();
    host.clock = Some("2026-04-01T06:00:00Z".to_owned());
    host.backup();
    host.clock = Some("2026-04-01T07:00:00Z".to_owned());
    host.ok(&["snapshot"]);
    host.clock = Some("2026-04-01T08:00:00Z".to_owned());
    // A target that never answers: the run is killed after it made its snapshot, before it packed it.
    let hang = host.path("hang");
    let script = format!(
        "#!/bin/sh\ntouch {}\nexec sleep 60\n",
        host.path("waits").display()
    );
    fs::write(&hang, script).unwrap();
    fs::set_permissions(&hang, fs::Permissions::from_mode(0o700)).unwrap();
    let config = host.config();
    let far = format!(
        "\n[[target]]\nname = \"far\"\nurl = \"sftp://far/x\"\nssh = \"{}\"\n",
        hang.display()
    );
    fs::write(host.path("c.toml"), format!("{config}{far}")).unwrap();
    end(begin(&host), rustix::process::Signal::KILL);
    fs::write(host.path("c.toml"), config).unwrap();
    let here = |host: &Host| {
        let list = host.json(&["list"]);
        let all = list["backups"].as_array().unwrap().clone();
        let hours = all
            .iter()
            .map(|one| one["stamp"].as_str().unwrap()[9..11].to_owned());
        hours.collect::<Vec<_>>()
    };
    // Nothing supersedes it yet.
    assert!(
        host.ok(&["prune", "--local", "--dry-run"])
            .contains("nothing to delete")
    );
    assert_eq!(here(&host), ["06", "07", "08"]);
    host.clock = Some("2026-04-01T09:00:00Z".to_owned());
    let report = host.backup();
    let notes = report["notes"].to_string();
    assert!(
        notes.contains("1 snapshot of runs that did not finish deleted"),
        "{notes}"
    );
    assert_eq!(here(&host), ["06", "07", "09"]);
}

/// A failure before the run begins is recorded, too; the cause and the next step are said.
#[test]
fn status_says_why_the_last_run_failed() {
    let host = Host::new();
    host.backup();
    let config = host.config();
    let bad = config.replace(&host.recipient, "age1bad");
    fs::write(host.path("c.toml"), bad).unwrap();
    let (_, err) = host.exits(&["backup"], 2);
    let (offline, _) = host.exits(&["status", "--offline"], 3);
    assert!(offline.contains("RED backup_refused: "), "{offline}\n{err}");
    assert!(
        offline.contains("the last backup failed: "),
        "{offline}\n{err}"
    );
    fs::write(host.path("c.toml"), config).unwrap();
    let (said, _) = host.exits(&["status"], 3);
    assert!(
        said.contains("the last backup failed: ") && said.contains("last complete run"),
        "{said}"
    );
    host.backup();
    host.ok(&["status"]);
}

/// Skipped files are counted and named, and all of them are in a file.
#[test]
fn status_says_what_the_last_run_skipped() {
    let host = Host::new();
    fs::create_dir(host.path("elsewhere")).unwrap();
    for number in 0..5 {
        // A database with a name outside of the source is stored, and reported as skipped.
        let name = format!("{number}.db");
        let database = rusqlite::Connection::open(host.data().join(&name)).unwrap();
        database.execute_batch("CREATE TABLE t(a)").unwrap();
        drop(database);
        let other = host.path("elsewhere").join(&name);
        fs::hard_link(host.data().join(&name), other).unwrap();
    }
    host.exits(&["backup"], 3);
    let (said, _) = host.exits(&["status"], 3);
    let expected =
        "lacks something: skipped 5 paths: \"data/0.db\", \"data/1.db\", \"data/2.db\" and 2 more";
    assert!(said.contains(expected), "{said}");
    let listed = host.path("c.state/run.skipped");
    assert!(said.contains(&listed.display().to_string()), "{said}");
    let listed = fs::read_to_string(listed).unwrap();
    assert_eq!(listed.lines().count(), 5, "{listed}");
    assert!(
        listed.contains("\"data/4.db\": stored, but 1 of its names"),
        "{listed}"
    );
}

/// The state directory is full to the last byte: the record of the run that failed is still written.
#[test]
fn status_says_that_the_last_run_failed_on_a_full_disk() {
    let host = Host::new();
    let state = host.path("c.state");
    fs::create_dir_all(&state).unwrap();
    let Some(disk) = SmallDisk::mount(&state) else {
        return;
    };
    fs::write(host.data().join("a"), noise(1, 1_000_000)).unwrap();
    host.backup();
    fs::write(host.data().join("a"), noise(2, 3_000_000)).unwrap();
    disk.fill(0);
    let (_, err) = host.exits(&["backup"], 1);
    let (said, _) = host.exits(&["status"], 3);
    let line = said
        .lines()
        .find(|line| line.starts_with("RED run_failed: "));
    let line = line.unwrap_or_else(|| panic!("{said}{err}"));
    assert!(
        line.contains("full") || line.contains("No space left"),
        "{said}{err}"
    );
    assert!(said.contains("  next: make room there"), "{said}{err}");
    assert!(said.contains("last complete run "), "{said}");
    disk.empty();
    host.backup();
    assert!(host.ok(&["status"]).contains(": complete"));
}

/// Several runs in one second get stamps ahead of the clock.
#[test]
fn runs_within_one_second_are_not_in_the_future() {
    let mut host = Host::new();
    host.clock = Some("2026-04-01T06:00:00Z".to_owned());
    (0..4).for_each(|_| drop(host.backup()));
    let said = host.ok(&["status"]);
    assert!(
        said.contains("just now") && !said.contains("future"),
        "{said}"
    );
}

/// In a container each run has the same process number.
#[test]
fn a_failure_before_the_run_begins_is_recorded_in_a_container_too() {
    if !crate::support::is_root_for("processes of a namespace of their own") {
        return;
    }
    let host = Host::new();
    fs::write(host.data().join("a"), "a").unwrap();
    let contained = |code: i32| {
        let plain = host.command(&["backup"]);
        let mut inside = std::process::Command::new("unshare");
        inside
            .args(["--pid", "--fork"])
            .arg(plain.get_program())
            .args(plain.get_args());
        inside
            .current_dir(host.path("."))
            .env("SEALIFT_MACHINE_ID", &host.machine);
        let output = inside.output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    };
    contained(0);
    std::thread::sleep(Duration::from_millis(1100));
    fs::rename(host.path("c.signer"), host.path("away")).unwrap();
    contained(2);
    fs::rename(host.path("away"), host.path("c.signer")).unwrap();
    let (said, _) = host.exits(&["status"], 3);
    assert!(said.contains(": failed"), "{said}");
}
