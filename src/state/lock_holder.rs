//! Who holds the lock of the state directory, as far as the history knows.

use std::fmt::{self, Display, Formatter};
use std::path::Path;

use chrono::{DateTime, Utc};

use super::history::{History, RunRow};
use crate::base::{clock, local_time, process};

/// The process that holds the lock of a state directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockHolder {
    /// The state directory.
    pub dir: String,
    /// The run that it does. `None`: the history does not know it.
    pub run: Option<HoldingRun>,
}

/// The run of a process that holds the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldingRun {
    /// A ULID.
    pub id: String,
    /// The command, such as `backup`.
    pub kind: String,
    /// Who began it, as in its report.
    pub trigger: String,
    /// Its process.
    pub pid: u32,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// What it does now, such as `packing`. `None`: it is not known.
    pub stage: Option<String>,
}

impl LockHolder {
    /// Looks for the holder of the lock of `dir`. A history that cannot be read names none.
    pub fn of(dir: &Path) -> Self {
        Self {
            dir: dir.display().to_string(),
            run: newest_run(dir),
        }
    }
}

/// Returns the newest run of another process that is there.
fn newest_run(dir: &Path) -> Option<HoldingRun> {
    let history = History::open_existing(dir).ok()??;
    let own = std::process::id();
    let is_there =
        |row: &RunRow| row.run.pid != own && process::is_running(row.run.pid, row.run.pid_started);
    let run = history.open_runs().ok()?.into_iter().find(is_there)?.run;
    let stage = history.stage(&run.id).ok().flatten();
    Some(HoldingRun {
        stage: stage.map(|(stage, _)| stage),
        id: run.id,
        kind: run.kind,
        trigger: run.trigger,
        pid: run.pid,
        started_at: run.started_at,
    })
}

impl Display for LockHolder {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.run {
            None => write!(
                f,
                "another sealift is at work with the state directory {}",
                self.dir
            ),
            Some(run) => write!(f, "another sealift is at work: {run}"),
        }
    }
}

impl Display for HoldingRun {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let who = match self.trigger.as_str() {
            "schedule" | "api" | "boot" => "of the agent".to_owned(),
            "timer" => "of a timer".to_owned(),
            _ => format!("by hand, pid {}", self.pid),
        };
        let doing = self.stage.as_ref().unwrap_or(&self.kind).replace('_', " ");
        let since = local_time::minute(self.started_at);
        let today = local_time::minute(clock::now());
        // The date says nothing about a run of today.
        let since = match since.split_once(' ') {
            Some((day, time)) if today.starts_with(day) => time.to_owned(),
            _ => since,
        };
        write!(f, "run {} {who}, {doing}, since {since}", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::super::history::NewRun;
    use super::*;

    #[test]
    fn the_history_names_the_run_that_holds_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let shown = || LockHolder::of(dir.path()).to_string();
        let unknown = format!(
            "another sealift is at work with the state directory {}",
            dir.path().display()
        );
        assert_eq!(shown(), unknown);
        let history = History::open(dir.path()).unwrap();
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = child.id();
        let mut run = NewRun {
            id: "01ARYZ6S410000000000000000".to_owned(),
            kind: "backup".to_owned(),
            trigger: "schedule".to_owned(),
            started_at: clock::now(),
            pid,
            pid_started: process::started(pid).unwrap(),
            note: None,
        };
        history.begin_run(&run).unwrap();
        history
            .set_stage(&run.id, "inspecting_targets", clock::now())
            .unwrap();
        let said = shown();
        let begins = "another sealift is at work: run 01ARYZ6S410000000000000000 of the agent, inspecting targets, since ";
        assert!(said.starts_with(begins), "{said}");
        assert_eq!(said.len(), begins.len() + "06:00".len(), "{said}");
        // One that was killed holds no lock.
        run.id = "01ARYZ6S420000000000000000".to_owned();
        run.pid_started += 1;
        history.begin_run(&run).unwrap();
        assert_eq!(shown(), said);
        child.kill().unwrap();
        child.wait().unwrap();
        // This process does not wait for itself.
        run.id = "01ARYZ6S430000000000000000".to_owned();
        run.pid = std::process::id();
        run.pid_started = process::started(run.pid).unwrap();
        history.begin_run(&run).unwrap();
        assert_eq!(shown(), unknown);
    }
}
