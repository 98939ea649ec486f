//! A week of an agent that is killed and stopped, with a target that comes and goes: each occurrence has its run, none
//! has two, and several missed ones have one.

use std::fs;

use chrono::{DateTime, Utc};
use sealift::state::history::RunRow;

use super::scene::{Agent, Scene};
use crate::support::is_long;

/// A day and what happens then.
#[derive(Clone, Copy)]
enum Event {
    /// The agent is killed and starts again.
    Kill(f64),
    /// The agent is stopped until this day.
    Stop(f64, f64),
    /// The second target is away until this day.
    Away(f64, f64),
}

impl Event {
    fn day(self) -> f64 {
        match self {
            Self::Kill(day) | Self::Stop(day, _) | Self::Away(day, _) => day,
        }
    }
}

/// The times at which no agent was there.
type Gaps = Vec<(DateTime<Utc>, DateTime<Utc>)>;

#[test]
fn each_occurrence_of_a_week_has_one_run_whatever_happens_to_the_agent() {
    // An hour, or 42 seconds.
    let (rate, line) = match is_long() {
        true => (168.0, "0 6 * * *"),
        false => (14_400.0, "0 6 * * *"),
    };
    let mut events = vec![
        Event::Away(1.6, 2.4),
        Event::Kill(1.7),
        Event::Stop(3.5, 5.5),
        Event::Kill(5.9),
    ];
    if is_long() {
        events = vec![
            Event::Stop(0.9, 2.9),
            Event::Away(3.1, 4.6),
            Event::Stop(4.8, 6.4),
        ];
        let hours = [0.30, 0.45, 0.6, 3.0, 3.3, 3.55, 4.2, 4.5, 6.6, 6.7];
        events.extend(hours.map(Event::Kill));
        events.sort_by(|a, b| a.day().total_cmp(&b.day()));
    }
    let schedule = format!("backup = \"{line}\"\nverify = \"off\"\ncatch_up_targets = \"3h\"");
    let scene = Scene::new(rate, &schedule, "");
    let mut agent = scene.serve();
    agent.wait_for_log("the agent serves");
    let mut gaps = Gaps::new();
    let mut first = None;
    let mut away: Option<f64> = None;
    for event in events {
        bring_back(&scene, &mut away, event.day());
        scene.sleep_until(event.day());
        // Before anything happens to it: how large an agent is that has done some work.
        first.get_or_insert_with(|| size(&scene, &agent));
        match event {
            Event::Away(_, until) => {
                fs::rename(scene.host.path("second"), scene.host.path("away")).unwrap();
                away = Some(until);
            }
            Event::Kill(_) => {
                let from = scene.now();
                agent.kill();
                agent = scene.serve();
                gaps.push((from, back(&scene, &agent)));
            }
            Event::Stop(_, until) => {
                let from = scene.now();
                assert!(agent.stop().success());
                scene.sleep_until(until);
                agent = scene.serve();
                gaps.push((from, back(&scene, &agent)));
            }
        }
    }
    bring_back(&scene, &mut away, 7.0);
    scene.sleep_until(7.0);
    let (memory, descriptors) = size(&scene, &agent);
    let (memory_before, descriptors_before) = first.unwrap();
    let end = scene.now();
    assert!(agent.stop().success());
    scene.wait_for_silence();
    check(&scene, &gaps, end);
    assert!(
        descriptors <= descriptors_before,
        "{descriptors_before} {descriptors}"
    );
    assert!(
        memory < memory_before + 5000,
        "{memory_before} kB, {memory} kB"
    );
}

/// Brings the second target back, if its time comes before `day`.
fn bring_back(scene: &Scene, away: &mut Option<f64>, day: f64) {
    if let Some(until) = away.take_if(|until| *until <= day) {
        scene.sleep_until(until);
        fs::rename(scene.host.path("away"), scene.host.path("second")).unwrap();
    }
}

/// When the agent that was started just now is there.
fn back(scene: &Scene, agent: &Agent) -> DateTime<Utc> {
    let pid = agent.pid().to_string();
    let lock = scene.host.path("c.state/serve.lock");
    super::scene::wait_until("the agent's lock", || {
        fs::read_to_string(&lock).is_ok_and(|text| text.trim() == pid)
    });
    scene.now()
}

/// Memory and descriptors of the agent while no run is under way.
fn size(scene: &Scene, agent: &Agent) -> (u64, usize) {
    let mut found = (0, 0);
    super::scene::wait_until("a moment without a run", || {
        let is_idle = || scene.history().open_runs().unwrap().is_empty();
        let was_idle = is_idle();
        found = (agent.memory(), agent.descriptors());
        was_idle && is_idle()
    });
    found
}

/// The occurrences of 06:00 in the week that are before `end`.
fn occurrences(scene: &Scene, end: DateTime<Utc>) -> Vec<DateTime<Utc>> {
    let first = scene.start() + chrono::Duration::hours(6);
    let all = (0..8).map(|day| first + chrono::Duration::days(day));
    all.filter(|one| *one < end).collect()
}

fn check(scene: &Scene, gaps: &Gaps, end: DateTime<Utc>) {
    let runs = scene.runs("backup");
    let occurrences = occurrences(scene, end);
    let times: Vec<String> = runs
        .iter()
        .map(|row| row.run.started_at.to_string())
        .collect();
    println!(
        "{} occurrences, gaps {gaps:?}, runs {times:#?}",
        occurrences.len()
    );
    // A host without a backup makes one at once; all others have their occurrences.
    assert!(runs[0].run.started_at < occurrences[0]);
    for pair in runs.windows(2) {
        let (before, this) = (pair[0].run.started_at, pair[1].run.started_at);
        let mine: Vec<_> = occurrences
            .iter()
            .filter(|one| before < **one && **one <= this)
            .collect();
        assert!(!mine.is_empty(), "the run of {this} has no occurrence");
        for merged in mine.windows(2) {
            let (one, next) = (*merged[0], *merged[1]);
            let is_gap = gaps.iter().any(|(from, to)| *from <= one && next <= *to);
            assert!(is_gap || is_busy(&runs, one, next), "{one} was left out");
        }
    }
    let last = runs.last().unwrap().run.started_at;
    assert!(last >= *occurrences.last().unwrap(), "{last}");
    let missed = |(from, to): &(DateTime<Utc>, DateTime<Utc>)| {
        occurrences
            .iter()
            .filter(|one| from < one && *one <= to)
            .count()
    };
    let missed: Vec<usize> = gaps
        .iter()
        .map(missed)
        .filter(|number| *number > 0)
        .collect();
    let expected = occurrences.len() - missed.iter().sum::<usize>() + missed.len() + 1;
    let was_busy = occurrences
        .windows(2)
        .any(|pair| is_busy(&runs, pair[0], pair[1]));
    assert!(
        runs.len() == expected || was_busy,
        "{} {expected} {missed:?}",
        runs.len()
    );
    for row in &runs {
        let end = row.end.as_ref().unwrap();
        let is_good = matches!(end.outcome.as_str(), "complete" | "partial");
        // An agent that is stopped ends the run that is under way.
        let was_stopped = end.outcome == "cancelled" && end.message.contains("stopped");
        assert!(is_good || was_stopped, "{row:?}");
    }
    let outcomes: Vec<&str> = runs
        .iter()
        .map(|row| row.end.as_ref().unwrap().outcome.as_str())
        .collect();
    assert!(
        outcomes.contains(&"partial"),
        "the target was never away: {outcomes:?}"
    );
    assert!(!scene.runs("catch_up").is_empty());
}

/// Whether one run took from the first occurrence to the next, on a machine that is very busy.
fn is_busy(runs: &[RunRow], one: DateTime<Utc>, next: DateTime<Utc>) -> bool {
    let ended = |row: &RunRow| row.end.as_ref().map(|end| end.ended_at);
    runs.iter().any(|row| {
        row.run.started_at <= next
            && ended(row).is_none_or(|ended| ended >= next)
            && row.run.started_at <= one
    })
}
