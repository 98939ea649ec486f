//! When jobs run: after a sleep, after a pause, once, and with a configuration that changes.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use sealift::state::history::OperatorMark;

use super::scene::{Scene, wait_until};

const DAILY: &str = "backup = \"0 6 * * *\"\nverify = \"off\"\ncatch_up_targets = \"6h\"";

#[test]
fn a_sleep_over_three_occurrences_is_followed_by_one_run() {
    // A day is four seconds.
    let scene = Scene::new(21_600.0, DAILY, "");
    let agent = scene.serve();
    scene.wait_for_runs("backup", 1);
    let before = scene.runs("backup").len();
    let begin = scene.day().ceil() + 0.5;
    scene.sleep_until(begin);
    let runs_before = scene.wait_for_runs("backup", before).len();
    agent.signal(Signal::SIGSTOP);
    scene.sleep_until(begin + 3.0);
    let slept = scene.runs("backup").len();
    agent.signal(Signal::SIGCONT);
    let woken = scene.now();
    scene.wait_for_runs("backup", slept + 1);
    scene.sleep_until(begin + 3.6);
    let runs = scene.runs("backup");
    assert!(
        slept <= runs_before + 1 && runs.len() == slept + 1,
        "{runs:#?}"
    );
    let late = runs.last().unwrap().run.started_at - woken;
    // Within a second of the machine's own time.
    assert!(late < chrono::Duration::hours(18), "{late}");
    assert!(agent.stop().success());
}

#[test]
fn missed_occurrences_are_left_out_if_the_file_says_so() {
    let scene = Scene::new(14_400.0, &format!("{DAILY}\ncatch_up = \"skip\""), "");
    let agent = scene.serve();
    scene.wait_for_runs("backup", 1);
    scene.sleep_until(scene.day().ceil() + 0.6);
    let before = scene.runs("backup").len();
    assert!(agent.stop().success());
    let begin = scene.day().ceil() + 1.6;
    scene.sleep_until(begin);
    let agent = scene.serve();
    agent.wait_for_log("was missed and is left out");
    let runs = scene.wait_for_runs("backup", before + 1);
    let run = runs.last().unwrap().run.started_at;
    let days = (run - scene.start()).as_seconds_f64() / 86_400.0;
    assert!(days >= begin.ceil() + 0.25, "{days} {begin}");
    assert!(agent.stop().success());
}

#[test]
fn once_runs_what_is_due_and_ends_as_the_worst_run_did() {
    let mut scene = Scene::new(1.0, DAILY, "");
    scene.host.clock = Some("2026-04-01T12:00:00Z".to_owned());
    let (_, said) = scene.host.exits(&["serve", "--once"], 0);
    assert!(said.contains("backup complete"), "{said}");
    let (_, said) = scene.host.exits(&["serve", "--once"], 0);
    assert!(!said.contains("backup"), "{said}");
    scene.host.clock = Some("2026-04-03T12:00:00Z".to_owned());
    fs::rename(scene.host.path("second"), scene.host.path("away")).unwrap();
    scene.host.exits(&["serve", "--once"], 3);
    scene.host.clock = Some("2026-04-04T12:00:00Z".to_owned());
    let failing = scene.host.config() + "\n[hooks]\nbefore = \"false\"\n";
    fs::write(scene.host.path("c.toml"), failing).unwrap();
    let (_, said) = scene.host.exits(&["serve", "--once", "--log", "json"], 1);
    let lines = said.lines().filter(|line| line.starts_with('{'));
    let lines: Vec<serde_json::Value> = lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let failed = lines
        .iter()
        .find(|line| line["event"] == "run_failed")
        .unwrap();
    assert!(
        failed["run"].is_string() && failed["level"] == "error",
        "{said}"
    );
    let runs = scene.runs("backup");
    let outcomes = runs
        .iter()
        .map(|row| row.end.as_ref().unwrap().outcome.as_str());
    assert_eq!(
        outcomes.collect::<Vec<_>>(),
        ["complete", "partial", "failed"]
    );
    assert!(!runs[2].end.as_ref().unwrap().message.is_empty());
}

#[test]
fn a_clock_that_went_back_repeats_no_run_and_is_remembered() {
    let mut scene = Scene::new(1.0, DAILY, "");
    let mut at = |time: &str| {
        scene.host.clock = Some(time.to_owned());
        scene.host.exits_any(&["serve", "--once"], &[0, 3]).1
    };
    at("2026-04-01T12:00:00Z");
    at("2026-04-02T06:30:00Z");
    let said = at("2026-04-02T05:00:00Z");
    assert!(
        said.contains("went back from 2026-04-02 06:30:00 UTC"),
        "{said}"
    );
    let said = at("2026-04-02T06:45:00Z");
    assert!(!said.contains("began"), "{said}");
    at("2026-04-03T06:00:01Z");
    // Once it was in another year: the host does not wait for that.
    at("2030-01-01T12:00:00Z");
    at("2026-04-04T05:00:00Z");
    let said = at("2026-04-04T06:00:01Z");
    assert!(said.contains("backup began"), "{said}");
    assert_eq!(scene.runs("backup").len(), 5);
    let mark = scene.history().mark(OperatorMark::CLOCK).unwrap().unwrap();
    assert!(mark.note.unwrap().contains("from 2030-01-01"));
}

#[test]
fn a_pause_holds_scheduled_jobs_and_ends_by_itself() {
    let scene = Scene::new(14_400.0, DAILY, "");
    let pause = OperatorMark {
        made_at: scene.now(),
        until: None,
        note: None,
    };
    fs::create_dir_all(scene.host.path("c.state")).unwrap();
    scene
        .history()
        .set_mark(OperatorMark::PAUSE, &pause)
        .unwrap();
    let agent = scene.serve();
    let runs = scene.wait_for_runs("backup", 1);
    let paused = runs[0].run.started_at - pause.made_at;
    assert!(paused >= chrono::Duration::hours(24), "{paused}");
    assert!(agent.stop().success());
}

#[test]
fn a_configuration_that_is_wrong_leaves_the_one_before_in_use() {
    let scene = Scene::new(14_400.0, DAILY, "");
    let agent = scene.serve();
    scene.wait_for_runs("backup", 1);
    let good = scene.host.config();
    scene
        .host
        .edit_config("catch_up_targets", "catch_up_targest");
    agent.signal(Signal::SIGHUP);
    agent.wait_for_log("unknown key \"catch_up_targest\"");
    let mark = || scene.history().mark(OperatorMark::CONFIG).unwrap();
    wait_until("the mark", || mark().is_some());
    assert!(mark().unwrap().note.unwrap().contains("did you mean"));
    // Its schedule goes on; the run itself says what is wrong.
    let before = scene.runs("backup").len();
    let runs = scene.wait_for_runs("backup", before + 1);
    let end = runs[before].end.clone().unwrap();
    assert_eq!((end.outcome.as_str(), end.exit_code), ("failed", Some(2)));
    fs::write(scene.host.path("c.toml"), good).unwrap();
    agent.signal(Signal::SIGHUP);
    agent.wait_for_log("was read again");
    wait_until("the end of the mark", || mark().is_none());
    assert!(agent.stop().success());
}

#[test]
fn a_second_agent_does_not_start() {
    let scene = Scene::new(1.0, DAILY, "");
    let agent = scene.serve();
    agent.wait_for_log("the agent serves");
    let (_, said) = scene.host.exits(&["serve"], 1);
    let expected = format!(
        "another agent serves this state directory (pid {})",
        agent.pid()
    );
    assert!(said.contains(&expected), "{said}");
    assert!(agent.stop().success());
    // Its lock is gone with it.
    scene.host.exits(&["serve", "--once"], 0);
}

#[test]
fn a_target_that_was_away_catches_up_between_backups() {
    // Six hours are twelve seconds.
    let schedule = "backup = \"0 */6 * * *\"\nverify = \"off\"\ncatch_up_targets = \"15m\"";
    let scene = Scene::new(1800.0, schedule, "");
    let agent = scene.serve();
    scene.wait_for_runs("backup", 1);
    fs::rename(scene.host.path("second"), scene.host.path("away")).unwrap();
    fs::write(scene.host.data().join("more"), "more").unwrap();
    let runs = scene.wait_for_runs("backup", 2);
    assert_eq!(runs[1].end.as_ref().unwrap().outcome, "partial");
    fs::rename(scene.host.path("away"), scene.host.path("second")).unwrap();
    let complete = || {
        let runs = scene.runs("catch_up").into_iter();
        let ends = runs.filter_map(|row| row.end);
        ends.filter(|end| end.outcome == "complete").count()
    };
    wait_until("a catch-up that is complete", || complete() > 0);
    let manifests = |target: &str| {
        let dir = scene.host.path(target).join("dalidou/manifests");
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    // It made no snapshot of its own.
    let number = scene.runs("backup").len();
    assert_eq!(manifests("repo").len(), 2 * number);
    assert_eq!(manifests("repo"), manifests("second"));
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(complete(), 1, "nothing is behind any more");
    assert!(agent.stop().success());
}

/// Kind: the agent remembers times of a monotonic clock, which begins again with each boot and may be far ahead in a
/// container that was moved.
#[test]
fn a_monotonic_clock_that_jumps_neither_repeats_nor_loses_a_run() {
    // A day is six seconds.
    let scene = Scene::new(14_400.0, DAILY, "");
    let uptime = sealift::base::clock::since_boot();
    if uptime < Duration::from_secs(600) {
        println!("not tested: this machine started just now, so its clocks cannot go back");
        return;
    }
    let mut end = 0.75;
    for (number, offset) in [0, 10 * 86_400, -300, 40 * 86_400, 0]
        .into_iter()
        .enumerate()
    {
        let Some(agent) = scene.serve_in_other_time(offset) else {
            println!(
                "not tested: only root may have other monotonic clocks, with Linux 5.6 or newer"
            );
            return;
        };
        if number == 0 {
            scene.wait_for_runs("backup", 1);
            end += scene.day().floor();
        }
        end += if number % 2 == 0 { 1.0 } else { 2.0 };
        scene.sleep_until(end);
        assert!(agent.stop().success());
        // It is stopped in the evening, and is there again before the next occurrence.
        assert!(
            scene.day().floor() == end.floor(),
            "the machine is too busy"
        );
    }
    scene.wait_for_silence();
    let runs = scene.runs("backup");
    let days: Vec<f64> = runs
        .iter()
        .map(|row| (row.run.started_at - scene.start()).as_seconds_f64() / 86_400.0)
        .collect();
    println!("{days:?} until {end}");
    // The first one did not wait for its time; each occurrence after it at 06:00 has one run.
    let first = (days[0] - 0.25).ceil() as u32;
    let last = (end - 0.25).floor() as u32;
    let expected: Vec<u32> = (first..=last).collect();
    let found: Vec<u32> = days[1..]
        .iter()
        .map(|day| (day - 0.25).floor() as u32)
        .collect();
    assert_eq!(found, expected, "{days:?}");
    let outcomes = runs.iter().filter_map(|row| row.end.as_ref());
    assert!(outcomes.clone().count() == runs.len());
    for row in outcomes {
        assert_eq!(row.outcome, "complete", "{}", row.message);
    }
}
