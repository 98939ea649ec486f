//! Which messages an agent sends for what happens to its children, its targets and its findings: each begin and each end
//! once, and nothing else. The channel is a command, which keeps what it gets.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::scene::{Agent, Scene, wait_until, wait_within};
use crate::support::files::files;
use crate::support::is_long;

/// Backups each hour, which may be late for some hours on a busy machine, and no verification by itself.
const SCHEDULE: &str =
    "backup = \"0 * * * *\"\nverify = \"off\"\ncatch_up_targets = \"15m\"\ngrace = \"5h\"";
/// While no backup succeeds, nothing looks at the targets and nothing new comes there, so these may begin and end in
/// each step.
const OF_LATE_TARGETS: [&str; 2] = ["target_unknown", "target_stale"];
/// An hour in fifteen seconds: a run ends long before the next one is due.
const RATE: f64 = 240.0;

struct Messages<'s> {
    scene: &'s Scene,
    /// Number of messages that earlier steps got.
    seen: usize,
}

impl Messages<'_> {
    /// All messages so far.
    fn all(&self) -> Vec<Value> {
        let Ok(text) = fs::read_to_string(file(self.scene)) else {
            return Vec::new();
        };
        let stream = serde_json::Deserializer::from_str(&text).into_iter();
        // The last one may be half written.
        stream.map_while(Result::ok).collect()
    }

    /// What the messages since the last step say: `+code` began, `-code` ended, `~code` lasts.
    fn edges(&self) -> Vec<String> {
        let mut edges = Vec::new();
        for message in &self.all()[self.seen..] {
            for (list, sign) in [("new", '+'), ("resolved", '-'), ("lasting", '~')] {
                let findings = message[list].as_array().unwrap().iter();
                edges
                    .extend(findings.map(|one| format!("{sign}{}", one["code"].as_str().unwrap())));
            }
        }
        edges
    }

    /// Waits until a message says this.
    fn wait_for(&self, edge: &str) -> Value {
        wait_until(&format!("the message {edge}"), || {
            self.edges().iter().any(|found| found == edge)
        });
        self.all().pop().unwrap()
    }

    /// Waits for another complete backup, and asserts that the messages of this step were these and no others.
    fn end_step(&mut self, name: &str, expected: &[&str]) {
        let complete = || {
            let runs = self.scene.runs("backup");
            let ends = runs.iter().filter_map(|row| row.end.as_ref());
            ends.filter(|end| end.outcome == "complete").count()
        };
        let before = complete();
        wait_until("two complete backups", || complete() >= before + 2);
        let mut edges = self.edges();
        edges.retain(|edge| !OF_LATE_TARGETS.contains(&&edge[1..]));
        edges.sort();
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(edges, expected, "{name}");
        self.seen = self.all().len();
    }
}

fn file(scene: &Scene) -> PathBuf {
    scene.host.path("messages")
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

/// Waits for a backup that hangs in its hook.
fn hanging_run(scene: &Scene, agent: &Agent) -> u32 {
    let marker = scene.host.path("hangs");
    let _ = fs::remove_file(&marker);
    wait_until("a backup that hangs", || marker.exists());
    scene.wait_for_child("backup", agent).run.pid
}

#[test]
fn each_begin_and_each_end_is_one_message() {
    // It takes minutes, and a machine that has time. `src/jobs/notify/tests` has the table without processes.
    if !is_long() {
        return;
    }
    let scene = Scene::new(RATE, SCHEDULE, "");
    let at = |name: &str| scene.host.path(name);
    let hook = "test ! -e broken || exit 9; if test -e slow; then touch hangs; sleep 600; fi";
    let channel = format!(
        "[hooks]\nbefore = \"cd {dir} && {{ {hook}; }}\"\n\n[[notify]]\nname = \"kept\"\nkind = \"command\"\nrepeat = \"off\"\n\
         min_interval = \"1m\"\ncommand = [\"sh\", \"-c\", \"cat >>{dir}/messages; echo >>{dir}/messages\"]\n",
        dir = at(".").display()
    );
    let config = fs::read_to_string(at("c.toml")).unwrap();
    fs::write(at("c.toml"), config + &channel).unwrap();
    let mut agent = scene.serve();
    let mut messages = Messages {
        scene: &scene,
        seen: 0,
    };
    // The first backup is due at once: it goes well, and nothing is sent.
    scene.wait_for_runs("backup", 1);
    messages.end_step("success", &[]);

    fs::write(at("broken"), "").unwrap();
    let red = messages.wait_for("+run_failed");
    assert_eq!(
        (&red["event"], &red["verdict"]["state"]),
        (&"red".into(), &"red".into())
    );
    fs::remove_file(at("broken")).unwrap();
    assert_eq!(messages.wait_for("-run_failed")["event"], "recovered");
    messages.end_step("a hook fails", &["+run_failed", "-run_failed"]);

    fs::write(at("slow"), "").unwrap();
    let pid = hanging_run(&scene, &agent);
    fs::remove_file(at("slow")).unwrap();
    kill_tree(pid);
    messages.wait_for("-run_failed");
    messages.end_step("the child is killed", &["+run_failed", "-run_failed"]);

    fs::write(at("slow"), "").unwrap();
    let pid = hanging_run(&scene, &agent);
    fs::remove_file(at("slow")).unwrap();
    agent.kill();
    kill_tree(pid);
    agent = scene.serve();
    messages.wait_for("-run_failed");
    messages.end_step(
        "agent and child are killed",
        &["+run_failed", "-run_failed"],
    );

    fs::rename(at("second"), at("away")).unwrap();
    let amber = messages.wait_for("+target_behind");
    assert_eq!(
        (&amber["event"], &amber["new"][0]["target"]),
        (&"amber".into(), &"second".into())
    );
    fs::rename(at("away"), at("second")).unwrap();
    messages.wait_for("-target_behind");
    messages.end_step("a target is away", &["+target_behind", "-target_behind"]);

    // What the operator silences has ended for the channels, and its end is no message.
    fs::rename(at("second"), at("away")).unwrap();
    messages.wait_for("+target_behind");
    scene
        .host
        .ok(&["ack", "target_behind", "--target", "second"]);
    messages.wait_for("-target_behind");
    fs::rename(at("away"), at("second")).unwrap();
    messages.end_step(
        "a finding is acknowledged",
        &["+target_behind", "-target_behind"],
    );

    let archive = files(&scene.host.folder().join("archives")).pop().unwrap();
    let sound = fs::read(&archive).unwrap();
    let mut damaged = sound.clone();
    damaged[sound.len() / 2] ^= 1;
    fs::write(&archive, damaged).unwrap();
    scene.host.exits(&["verify", "--data"], 3);
    messages.wait_for("+lost_archives");
    fs::write(&archive, sound).unwrap();
    // 3: a snapshot that is being made is not there yet.
    scene.host.exits_any(&["verify", "--data"], &[0, 3]);
    messages.wait_for("-lost_archives");
    messages.end_step("verify finds damage", &["+lost_archives", "-lost_archives"]);

    // While scheduled jobs wait, the next backup becomes late.
    scene.host.ok(&["pause", "--for", "20h"]);
    // Within the twenty hours, which are five minutes.
    wait_within(
        Duration::from_secs(400),
        "the message +snapshot_stale",
        || messages.edges().contains(&"+snapshot_stale".to_owned()),
    );
    scene.host.ok(&["resume"]);
    messages.wait_for("-snapshot_stale");
    messages.end_step(
        "a pause, and a late backup",
        &["+paused", "-paused", "+snapshot_stale", "-snapshot_stale"],
    );

    messages.seen = 0;
    let edges = messages.edges();
    for code in OF_LATE_TARGETS {
        let number = |sign: char| {
            edges
                .iter()
                .filter(|edge| **edge == format!("{sign}{code}"))
                .count()
        };
        assert_eq!(number('+'), number('-'), "{code}");
    }
    let all = messages.all();
    let ids: BTreeSet<&str> = all.iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), all.len());
    assert!(agent.stop().success());
    scene.wait_for_silence();
    // Nothing is left that would be sent later.
    assert_eq!(scene.history().outbox().unwrap(), []);
}
