//! Records the run of this process.
//!
//! One recorder accompanies a command. Its row begins as soon as there is a state directory: before
//! the command's work, or when a first backup has made it. Whichever ends first records the end:
//! the command or a signal.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use chrono::{DateTime, Utc};

use super::{RUN_VARIABLE, SENT_BYTES, close_dead, forget, message};
use crate::base::clock;
use crate::base::ids::is_ulid;
use crate::base::lock::lock;
use crate::base::process;
use crate::base::progress::Stage;
use crate::config::HistoryLimits;
use crate::jobs::run_report::{ReportedOutcome, RunReport, StageRun};
use crate::state::history::{EndedRun, History, HistoryError, NewRun};

/// Skipped paths that the report in the history names; their number is there, too.
const MOST_SKIPPED: usize = 100;

/// Whether and how the run of this process is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recording {
    /// It is not.
    Off,
    /// It gets a row of its own.
    Own,
    /// The agent wrote its row, and keeps the history small.
    OfAgent,
}

impl Recording {
    /// Returns the id of the run that the agent began for this process, if there is one. The
    /// commands of `[hooks]` find another word in the variable.
    pub(crate) fn id_of_agent() -> Option<String> {
        let id = std::env::var(RUN_VARIABLE).ok();
        id.filter(|id| is_ulid(id))
    }
}

/// Records the run of this process.
#[derive(Debug)]
pub(crate) struct RunRecorder {
    recording: Recording,
    record: Mutex<Record>,
}

#[derive(Debug)]
struct Record {
    /// `None`: the row has not begun, has ended, or cannot be written.
    open: Option<OpenRow>,
    /// Whether the run has ended, or its row could not be begun: nothing more is written.
    is_over: bool,
    stages: StageTimes,
    /// How long the history is kept.
    limits: HistoryLimits,
}

#[derive(Debug)]
struct OpenRow {
    history: History,
    id: String,
}

impl RunRecorder {
    pub(crate) fn new(recording: Recording) -> Self {
        Self {
            recording,
            record: Mutex::new(Record {
                open: None,
                is_over: recording == Recording::Off,
                stages: StageTimes::default(),
                limits: HistoryLimits::default(),
            }),
        }
    }

    /// Whether the agent began the run.
    pub(crate) fn is_of_agent(&self) -> bool {
        self.recording == Recording::OfAgent
    }

    /// Whether the run is not recorded.
    pub(crate) fn is_off(&self) -> bool {
        self.recording == Recording::Off
    }

    /// Keeps the history as long as the configuration says.
    pub(crate) fn keep(&self, limits: HistoryLimits) {
        lock(&self.record).limits = limits;
    }

    /// Begins the row of the run in the history of the state directory `dir`. Does nothing if that
    /// does not exist or this user may not write there, or if the row has begun. Returns warnings.
    pub(crate) fn begin(&self, dir: &Path, report: &RunReport) -> Vec<String> {
        use rustix::fs::{Access, access};
        let mut record = lock(&self.record);
        let may_write = || access(dir, Access::WRITE_OK | Access::EXEC_OK).is_ok();
        if record.is_over || record.open.is_some() || !dir.is_dir() || !may_write() {
            return Vec::new();
        }
        let begun = History::open(dir).and_then(|history| {
            self.begin_row(&history, report)
                .map(|begun| (history, begun))
        });
        match begun {
            Ok((history, Begun::Row)) => {
                let replaced = history.replaced.as_ref().map(|aside| {
                    let aside = aside.display();
                    format!(
                        "the history of runs was damaged: it is now {aside}, and a new one begins"
                    )
                });
                let id = report.id.clone();
                if let Some(stage) = record.stages.current() {
                    let _ = history.set_stage(&id, &word(stage), clock::now());
                }
                record.open = Some(OpenRow { history, id });
                replaced.into_iter().collect()
            }
            Ok((_, Begun::HadEnded)) => {
                record.is_over = true;
                vec![format!(
                    "the run {} of {RUN_VARIABLE} has ended before: this one is not in the history",
                    report.id
                )]
            }
            Err(error) => {
                record.is_over = true;
                vec![unrecorded(&error)]
            }
        }
    }

    fn begin_row(&self, history: &History, report: &RunReport) -> Result<Begun, HistoryError> {
        let pid = std::process::id();
        let pid_started = process::started(pid).unwrap_or(0);
        let known = match self.recording {
            Recording::OfAgent => history.run(&report.id)?,
            _ => None,
        };
        match known {
            Some(row) if row.end.is_some() => return Ok(Begun::HadEnded),
            Some(_) => history.set_process(&report.id, pid, pid_started)?,
            None => history.begin_run(&NewRun {
                id: report.id.clone(),
                kind: report.kind.clone(),
                trigger: report.trigger.as_str().to_owned(),
                started_at: report.started_at,
                pid,
                pid_started,
                note: None,
            })?,
        }
        // Not before: the process of the agent's row may be gone.
        close_dead(history, clock::now())?;
        Ok(Begun::Row)
    }

    /// Returns the state directory, once the row of the run has begun.
    pub(crate) fn dir(&self) -> Option<PathBuf> {
        let record = lock(&self.record);
        let open = record.open.as_ref();
        open.map(|open| open.history.dir().to_path_buf())
    }

    /// Records that the run does `stage` from now on.
    pub(crate) fn stage(&self, stage: Stage) {
        let mut record = lock(&self.record);
        if record.stages.begin(stage)
            && let Some(open) = &record.open
        {
            // Nothing depends on it, and the run must not wait for it.
            let _ = open.history.set_stage(&open.id, &word(stage), clock::now());
        }
    }

    /// Returns how long each stage took so far.
    pub(crate) fn stages(&self) -> Vec<StageRun> {
        lock(&self.record).stages.so_far()
    }

    /// Records how the run ended, as `report` has it. Returns warnings.
    pub(crate) fn end(&self, report: &RunReport) -> Vec<String> {
        let mut record = lock(&self.record);
        record.is_over = true;
        let Some(open) = record.open.take() else {
            return Vec::new();
        };
        let ended = end_row(&open, report);
        let mut warnings: Vec<String> = ended.err().iter().map(unrecorded).collect();
        // The agent does so each day.
        let is_backup = self.recording == Recording::Own && report.kind == "backup";
        let has_time = report.outcome != Some(ReportedOutcome::Cancelled);
        if is_backup && has_time && warnings.is_empty() {
            let forgotten = forget(&open.history, &record.limits, clock::now());
            warnings.extend(forgotten.err().map(|error| {
                let why = error.with_causes();
                format!("old runs could not be taken out of the history: {why}")
            }));
        }
        warnings
    }

    /// Takes the row back: nothing was done, since another process is at work. The row of an agent
    /// stays and is ended.
    pub(crate) fn withdraw(&self) {
        if self.recording == Recording::Own {
            let mut record = lock(&self.record);
            record.is_over = true;
            if let Some(open) = record.open.take() {
                // If this fails, the row is closed later.
                let _ = open.history.withdraw_run(&open.id);
            }
        }
    }
}

enum Begun {
    Row,
    /// The agent's row had ended before.
    HadEnded,
}

fn end_row(open: &OpenRow, report: &RunReport) -> Result<(), HistoryError> {
    let ended_at: DateTime<Utc> = report.ended_at.unwrap_or_else(clock::now);
    let outcome = report
        .outcome
        .map_or(super::KILLED, |outcome| outcome.as_str());
    let mut short = report.clone();
    short.skipped.truncate(MOST_SKIPPED);
    let end = EndedRun {
        ended_at,
        outcome: outcome.to_owned(),
        exit_code: report.exit_code.map(i32::from),
        stamp: report.stamp.map(|stamp| stamp.to_string()),
        sequence: report.sequence,
        message: message::of(report),
        report: serde_json::to_string(&short).ok(),
    };
    if open.history.end_run(&open.id, &end)? {
        for target in report.targets.iter().filter(|one| one.sent_bytes > 0) {
            let total = (SENT_BYTES, target.name.as_str(), "");
            open.history.add_to_total(total, target.sent_bytes)?;
        }
    }
    open.history.forget_stages()
}

fn unrecorded(error: &HistoryError) -> String {
    let why = crate::base::error_chain::with_causes(error);
    format!("this run is not in the history of runs, or not in full: {why}")
}

/// Returns the stage's name in reports.
fn word(stage: Stage) -> String {
    let value = serde_json::to_value(stage).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

/// How long each stage took.
#[derive(Debug, Default)]
struct StageTimes {
    ended: Vec<StageRun>,
    current: Option<(Stage, Instant)>,
}

impl StageTimes {
    /// Returns whether `stage` differs from the one before.
    fn begin(&mut self, stage: Stage) -> bool {
        if self.current().is_some_and(|current| current == stage) {
            return false;
        }
        self.ended = self.so_far();
        self.current = Some((stage, Instant::now()));
        true
    }

    fn current(&self) -> Option<Stage> {
        self.current.map(|(stage, _)| stage)
    }

    fn so_far(&self) -> Vec<StageRun> {
        let mut all = self.ended.clone();
        let Some((stage, since)) = self.current else {
            return all;
        };
        let seconds = since.elapsed().as_secs_f64();
        match all.iter_mut().find(|one| one.stage == stage) {
            Some(one) => one.seconds += seconds,
            None => all.push(StageRun { stage, seconds }),
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_that_comes_back_is_counted_once() {
        let mut times = StageTimes::default();
        assert!(times.begin(Stage::Producing) && !times.begin(Stage::Producing));
        assert!(times.begin(Stage::Validating) && times.begin(Stage::Producing));
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(times.begin(Stage::Packing));
        let all = times.so_far();
        let stages: Vec<Stage> = all.iter().map(|one| one.stage).collect();
        assert_eq!(
            stages,
            [Stage::Producing, Stage::Validating, Stage::Packing]
        );
        assert!(all[0].seconds >= 0.02 && all[1].seconds < 0.02, "{all:?}");
    }
}
