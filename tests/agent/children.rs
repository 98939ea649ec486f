//! The processes of runs: they outlive a killed agent, and end when they must.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sealift::state::history::RunRow;

use super::scene::{Scene, wait_until};
use crate::support::s3::{BUCKET, S3Server};
use crate::support::slow_link::SlowLink;
use crate::support::tree::noise;

const DAILY: &str = "backup = \"0 6 * * *\"\nverify = \"off\"";

/// A source that takes this many seconds.
fn slow(seconds: u32) -> String {
    format!(
        "[[source]]\nname = \"slow\"\nkind = \"command\"\ncommand = \"sleep {seconds}; echo done\"\nto = \"slow.txt\"\n"
    )
}

/// Kills a process and all that it started.
fn kill_tree(pid: u32) {
    let children =
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
    for child in children.split_whitespace() {
        kill_tree(child.parse().unwrap());
    }
}

#[test]
fn a_backup_outlives_its_agent_and_the_next_one_waits_for_it() {
    let scene = Scene::new(1.0, DAILY, &slow(4));
    let agent = scene.serve();
    let run = scene.wait_for_child("backup", &agent).run;
    agent.kill();
    let agent = scene.serve();
    agent.wait_for_log("backup of an earlier agent goes on");
    let runs = scene.wait_for_runs("backup", 1);
    let end = runs[0].end.clone().unwrap();
    assert_eq!(
        (end.outcome.as_str(), runs.len()),
        ("complete", 1),
        "{runs:#?}"
    );
    assert_eq!(runs[0].run.pid, run.pid);
    assert!(agent.stop().success());
    scene.wait_for_silence();
    assert_eq!(scene.runs("backup").len(), 1);
}

#[test]
fn a_backup_that_died_with_its_agent_is_closed_as_killed_and_not_repeated() {
    let scene = Scene::new(1.0, DAILY, &slow(60));
    let agent = scene.serve();
    let run = scene.wait_for_child("backup", &agent).run;
    agent.kill();
    kill_tree(run.pid);
    wait_until("the end of the child", || scene.processes().is_empty());
    let agent = scene.serve();
    agent.wait_for_log("is gone: it was killed, or the machine went down");
    let runs = scene.wait_for_runs("backup", 1);
    let end = runs[0].end.clone().unwrap();
    assert_eq!(
        (end.outcome.as_str(), end.exit_code, runs.len()),
        ("killed", None, 1)
    );
    assert!(agent.stop().success());
    assert_eq!(scene.runs("backup").len(), 1);
}

#[test]
fn a_child_that_is_killed_is_a_failed_run_with_its_last_lines() {
    let scene = Scene::new(1.0, DAILY, &slow(60));
    let agent = scene.serve();
    let run = scene.wait_for_child("backup", &agent).run;
    let log = scene.host.path("c.state/logs");
    let log = log.join(format!("{}.log", run.id));
    let said = || fs::read_to_string(&log).unwrap_or_default();
    wait_until("its first line", || said().contains("SEALIFT_CLOCK is set"));
    kill_tree(run.pid);
    let end = scene.wait_for_runs("backup", 1)[0].end.clone().unwrap();
    assert_eq!((end.outcome.as_str(), end.exit_code), ("killed", None));
    assert!(
        end.message.starts_with("signal 9 ended it"),
        "{}",
        end.message
    );
    assert!(
        end.message.contains("SEALIFT_CLOCK is set"),
        "{}",
        end.message
    );
    assert!(agent.stop().success());
}

/// The scheduler looks at the lock and then starts a child; a command by hand may take the lock in between.
#[test]
fn a_scheduled_backup_waits_for_a_command_that_began_just_before_it() {
    let scene = Scene::new(60.0, "backup = \"* * * * *\"\nverify = \"off\"", "");
    let agent = scene.serve();
    scene.wait_for_runs("backup", 1);
    let state = scene.host.path("c.state");
    let history = scene.history();
    let deadline = Instant::now() + Duration::from_secs(60);
    let (held, id) = loop {
        assert!(Instant::now() < deadline, "the lock was never free");
        let begun = history.open_runs().unwrap().pop();
        if let Some(row) = begun
            && let Ok(held) = sealift::state::lock(&state)
        {
            break (held, row.run.id);
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let log = state.join(format!("logs/{id}.log"));
    wait_until("a child that waits", || {
        fs::read_to_string(&log).is_ok_and(|log| log.contains("waiting for it, at most 2 h"))
    });
    drop(held);
    let end_of = |runs: Vec<RunRow>| {
        let mut runs = runs.into_iter();
        runs.find(|row| row.run.id == id).and_then(|row| row.end)
    };
    wait_until("its end", || end_of(scene.runs("backup")).is_some());
    let end = end_of(scene.runs("backup")).unwrap();
    assert_eq!(end.outcome, "complete", "{}", end.message);
    assert!(agent.stop().success());
}

#[test]
fn a_run_that_takes_too_long_is_ended() {
    let schedule = format!("{DAILY}\nmax_run = \"1s\"");
    let scene = Scene::new(60.0, &schedule, &slow(60));
    let agent = scene.serve();
    scene.wait_for_runs("backup", 1);
    assert!(agent.stop().success());
    // The child records that a signal ended it; the agent, a moment later, why.
    let end = scene.runs("backup")[0].end.clone().unwrap();
    assert_eq!(end.outcome, "cancelled", "{}", end.message);
    assert!(end.message.contains("max_run"), "{}", end.message);
    scene.wait_for_silence();
}

#[test]
fn an_agent_that_is_stopped_ends_its_run_and_leaves_no_process() {
    let scene = Scene::new(1.0, DAILY, &slow(60));
    let agent = scene.serve();
    scene.wait_for_child("backup", &agent);
    wait_until("the slow source", || {
        let logs = fs::read_dir(scene.host.path("c.state/logs")).unwrap();
        logs.count() == 1 && scene.processes().len() >= 2
    });
    assert!(agent.stop().success());
    assert_eq!(scene.processes(), Vec::<String>::new());
    let runs = scene.runs("backup");
    let end = runs[0].end.as_ref().unwrap();
    assert_eq!(end.outcome, "cancelled", "{}", end.message);
    assert!(end.message.contains("stopped"), "{}", end.message);
}

#[test]
fn a_due_backup_ends_a_verify_which_goes_on_after_it() {
    // A verify at each minute, which reads for eight seconds and more, and a backup every ten: one is under way whenever a
    // backup is due.
    let schedule = "backup = \"0 * * * *\"\nverify = \"* * * * *\"\nverify_share = \"all\"";
    let server = S3Server::start();
    let link = SlowLink::start(server.address, 1 << 20, Duration::ZERO);
    let far = format!(
        "[[target]]\nname = \"far\"\nurl = \"s3://{BUCKET}/dalidou\"\nendpoint = \"http://{}\"\n",
        link.address
    );
    let scene = Scene::new(360.0, schedule, &far);
    fs::write(scene.host.data().join("noise"), noise(1, 8 << 20)).unwrap();
    let agent = scene.serve_with(|command| {
        command.envs(server.variables());
    });
    const GAVE_WAY: &str = "gave way to a backup that was due";
    agent.wait_for_log(GAVE_WAY);
    wait_until("a backup and then a verify", || {
        let log = agent.log();
        let (_, after) = log.split_once(GAVE_WAY).unwrap();
        let backup = after.split_once("backup began");
        backup.is_some_and(|(before, after)| {
            !before.contains("verify began") && after.contains("verify began")
        })
    });
    let verifies = scene.runs("verify").into_iter().filter_map(|row| row.end);
    let outcomes: Vec<String> = verifies.map(|end| end.outcome).collect();
    assert!(
        outcomes
            .iter()
            .all(|one| one == "complete" || one == "cancelled"),
        "{outcomes:?}"
    );
    assert!(agent.stop().success());
}
