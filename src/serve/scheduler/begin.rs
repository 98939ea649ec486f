//! Begins a run: its row in the history, then its process.

use chrono::{DateTime, Utc};

use super::Scheduler;
use super::active_run::ActiveRun;
use crate::base::ids::ulid;
use crate::base::process;
use crate::serve::child;
use crate::serve::handle::{AgentEvent, CommandRefused, RunRequest, RunningRun};
use crate::serve::log::LogLevel;
use crate::serve::run_end;
use crate::state::history::NewRun;

impl Scheduler {
    /// Begins a run, which handles the occurrences `handled`. Returns its id.
    pub(super) fn begin(
        &mut self,
        request: RunRequest,
        handled: &[(String, DateTime<Utc>)],
        now: DateTime<Utc>,
    ) -> Result<String, CommandRefused> {
        let own = std::process::id();
        let row = NewRun {
            id: ulid(now),
            kind: request.kind.as_str().to_owned(),
            trigger: child::trigger(request.trigger).to_owned(),
            started_at: now,
            pid: own,
            pid_started: process::started(own).unwrap_or(0),
            note: request.note.clone(),
        };
        let id = row.id.clone();
        if !self.journal.begin(&row, handled) {
            return Err(CommandRefused::Failed {
                text: "another process has begun this run".to_owned(),
                next: None,
            });
        }
        let started = child::start(&self.config, &request, &id, &self.links.waker);
        let process = match started {
            Ok(process) => process,
            Err(error) => return Err(self.not_started(&row, &error, now)),
        };
        let (pid, started) = (process.pid, process.started);
        self.journal
            .with(|history| history.set_process(&id, pid, started));
        let text = format!("{} began (pid {pid})", row.kind);
        self.links
            .log
            .of_run(LogLevel::Info, "run_started", &id, text);
        let shown = RunningRun {
            id: id.clone(),
            kind: request.kind,
            trigger: request.trigger,
            started_at: now,
            stage: None,
            subject: None,
            progress: None,
            snapshot: None,
        };
        let mut active = ActiveRun::new(row, shown, process);
        active.jobs = handled.iter().map(|(job, _)| job.clone()).collect();
        self.running = Some(active);
        let _ = self.links.events.send(AgentEvent::Run { id: id.clone() });
        Ok(id)
    }

    fn not_started(
        &mut self,
        row: &NewRun,
        error: &std::io::Error,
        now: DateTime<Utc>,
    ) -> CommandRefused {
        let end = run_end::not_started(error, now);
        self.journal.with(|history| history.end_run(&row.id, &end));
        let text = format!("{}: {}", row.kind, end.message);
        self.links
            .log
            .of_run(LogLevel::Error, "run_failed", &row.id, text.clone());
        self.worst = self.worst.max(1);
        CommandRefused::Failed { text, next: None }
    }
}
