//! What an earlier agent left: rows without an end. Of some the process is gone; of one it may
//! still be at work, and this agent waits for it.

use chrono::{DateTime, Utc};

use super::Scheduler;
use super::active_run::ActiveRun;
use crate::base::process;
use crate::jobs::run_report::Trigger;
use crate::serve::child::{self, RunProcess};
use crate::serve::handle::{RunKind, RunningRun};
use crate::serve::log::LogLevel;
use crate::serve::run_end;
use crate::state::history::{NewRun, RunFilter};

impl Scheduler {
    /// Closes the rows whose processes are gone, and waits for a run of an earlier agent.
    pub(super) fn recover(&mut self, now: DateTime<Utc>) {
        let newest = RunFilter {
            limit: Some(1),
            ..RunFilter::default()
        };
        let newest = self.journal.with(|history| history.runs(&newest));
        for row in newest.into_iter().flatten() {
            self.clock.has_been_at(row.run.started_at);
        }
        let open = self.journal.with(|history| history.open_runs());
        for row in open.into_iter().flatten() {
            let run = row.run;
            match process::is_running(run.pid, run.pid_started) {
                true => self.adopt(run),
                false => self.close(&run, now),
            }
        }
    }

    fn close(&mut self, run: &NewRun, now: DateTime<Utc>) {
        let end = run_end::of_gone(run, &self.config.state, now);
        self.journal.with(|history| history.end_run(&run.id, &end));
        let text = format!("{} {}: {}", run.kind, end.outcome, end.message);
        self.links
            .log
            .of_run(LogLevel::Warning, "run_closed", &run.id, text);
    }

    /// Waits for a run that an earlier agent began. One that a person began is theirs.
    fn adopt(&mut self, run: NewRun) {
        let kind = RunKind::parse(&run.kind);
        let triggers = [Trigger::Schedule, Trigger::Api, Trigger::Boot];
        let mut triggers = triggers.into_iter();
        let trigger = triggers.find(|one| child::trigger(*one) == run.trigger);
        let (Some(kind), Some(trigger), None) = (kind, trigger, &self.running) else {
            return;
        };
        let process = RunProcess {
            pid: run.pid,
            started: run.pid_started,
        };
        let text = format!("{} of an earlier agent goes on (pid {})", run.kind, run.pid);
        self.links
            .log
            .of_run(LogLevel::Info, "run_adopted", &run.id, text);
        let shown = RunningRun {
            id: run.id.clone(),
            kind,
            trigger,
            started_at: run.started_at,
            stage: None,
            subject: None,
            progress: None,
            snapshot: None,
        };
        child::wait_for(process, run.id.clone(), self.links.waker.clone());
        let mut active = ActiveRun::new(run, shown, process);
        active.is_adopted = true;
        self.running = Some(active);
    }
}
