//! A restore whose process is killed: what other commands say, and how it is finished or undone.

use std::time::{Duration, Instant};

use super::assert_unchanged;
use crate::support::service::Deployment;

/// A restore that is killed while it waits for the service to stop.
pub fn killed_while_it_stops() -> Deployment {
    let deployment = Deployment::new();
    deployment
        .host
        .edit_config("stop = [", "stop = \"sleep 60\"\nunused = [");
    let config = deployment.host.config();
    let lines: Vec<&str> = config
        .lines()
        .filter(|line| !line.starts_with("unused"))
        .collect();
    std::fs::write(deployment.host.path("c.toml"), lines.join("\n")).unwrap();
    let mut child = deployment
        .host
        .command(&["restore", "--in-place", "--yes"])
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    let is_stopping = || {
        let list = deployment.host.run(&["rollback", "--list"]);
        String::from_utf8_lossy(&list.stdout).contains("stopping")
    };
    while !is_stopping() {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    deployment
}

#[test]
fn other_commands_refuse_until_it_is_finished_or_undone() {
    let deployment = killed_while_it_stops();
    let text = "a restore of 2026-04-08 was interrupted while it stopped the service; finish or undo it first: \
                sealift restore --resume";
    for command in [
        vec!["backup"],
        vec!["snapshot"],
        vec!["push"],
        vec!["list"],
        vec!["prune", "--local"],
        vec!["validate"],
        vec!["restore", "--in-place", "--yes"],
        vec!["rollback", "--clean"],
        vec!["source", "list"],
        vec!["verify"],
    ] {
        let (_, said) = deployment.host.exits(&command, 1);
        assert!(said.contains(text), "{command:?}: {said}");
    }
    for command in [
        vec!["rollback", "--list"],
        vec!["help", "restore"],
        vec!["config", "check"],
    ] {
        deployment.host.exits_any(&command, &[0, 3]);
    }
    let status = deployment.host.json_exits(&["status", "--offline"], &[3]);
    assert_eq!(status["restore_open"]["text"], text);
    let (report, said) = deployment.json(vec!["--json", "restore", "--resume"], 1);
    assert_eq!(report["state"], "undone", "{said}");
    assert_eq!(deployment.strangers(), Vec::<String>::new());
    deployment.host.ok(&["snapshot"]);
    let (report, _) = deployment.json(vec!["--json", "restore", "--resume"], 0);
    assert_eq!(report["state"], "none");
}

#[test]
fn a_signal_that_ends_it_while_it_copies_leaves_nothing() {
    let deployment = Deployment::new();
    // It waits in the check of the staged content, after which the service would be stopped.
    deployment.configure_also("[[check]]\nname = \"slow\"\ncommand = [\"sleep\", \"30\"]");
    let before = deployment.state();
    let mut child = deployment
        .host
        .command(&["restore", "--in-place", "--yes"])
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while deployment.strangers().len() < 4 {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    child.wait().unwrap();
    assert_unchanged(&deployment, &before, "after the signal");
    assert_eq!(deployment.strangers(), Vec::<String>::new());
    deployment.host.ok(&["list"]);
}
