//! Records how a run ended, and what follows from it.

use super::Scheduler;
use super::active_run::{ActiveRun, EndReason};
use crate::base::clock;
use crate::base::units;
use crate::serve::handle::{AgentEvent, RunKind};
use crate::serve::log::LogLevel;
use crate::serve::run_end;
use crate::serve::wake::EndedChild;
use crate::state::history::{EndedRun, RunRow};

impl Scheduler {
    /// Takes in that a child ended.
    pub(super) fn ended(&mut self, child: EndedChild) {
        let is_it = |active: &&mut ActiveRun| active.shown.id == child.id;
        if self.running.as_mut().filter(is_it).is_none() {
            return;
        }
        let Some(active) = self.running.take() else {
            return;
        };
        let now = clock::now();
        let mut end = match active.is_adopted {
            true => run_end::of_gone(&active.row, &self.config.state, now),
            false => run_end::of_child(child, &self.config.state, now),
        };
        if let Some(reason) = active.end_reason() {
            note_reason(&mut end, reason);
        }
        let id = active.row.id.clone();
        // The child may have recorded its end itself; then that stays.
        self.journal.with(|history| history.end_run(&id, &end));
        if active.end_reason().is_some() {
            // The child knows only that a signal ended it.
            self.journal
                .with(|history| history.explain_cancelled(&id, &end.message));
        }
        for job in &active.jobs {
            self.journal
                .with(|history| history.end_job(job, end.ended_at));
        }
        let recorded = self.journal.with(|history| history.run(&id)).flatten();
        let recorded = recorded.filter(|row| row.end.is_some());
        let row = recorded.unwrap_or_else(|| RunRow {
            run: active.row.clone(),
            end: Some(end.clone()),
        });
        let end = row.end.as_ref().unwrap_or(&end);
        self.log_end(&active, end);
        self.follow(&active, end);
        let running = None;
        self.links
            .state
            .send_modify(|state| state.running = running);
        let _ = self.links.events.send(AgentEvent::Run { id });
        self.changed(Some(&row), now);
    }

    fn log_end(&mut self, active: &ActiveRun, end: &EndedRun) {
        let gave_way = active.end_reason() == Some(EndReason::Preempted);
        let (level, event) = match end.outcome.as_str() {
            "cancelled" if gave_way => (LogLevel::Info, "run_cancelled"),
            "complete" => (LogLevel::Info, "run_complete"),
            "partial" => (LogLevel::Warning, "run_partial"),
            "cancelled" => (LogLevel::Warning, "run_cancelled"),
            _ => (LogLevel::Error, "run_failed"),
        };
        let took = (end.ended_at - active.row.started_at).to_std();
        let took = units::duration(took.unwrap_or_default());
        let message = match end.message.as_str() {
            "" => String::new(),
            message => format!(": {message}"),
        };
        let text = format!("{} {} after {took}{message}", active.row.kind, end.outcome);
        self.links.log.of_run(level, event, &active.row.id, text);
    }

    /// Decides what comes after the run.
    fn follow(&mut self, active: &ActiveRun, end: &EndedRun) {
        let (schedule, now) = (&self.config.schedule, end.ended_at);
        let is_preempted = active.end_reason() == Some(EndReason::Preempted);
        match active.shown.kind {
            RunKind::Backup => self.times.backed_up(schedule, now),
            RunKind::CatchUp if end.outcome == "complete" => self.times.caught_up(schedule, now),
            RunKind::Verify if is_preempted => self.times.verify_goes_on = true,
            RunKind::Probe => self.times.probed(schedule, now),
            _ => {}
        }
        if !is_preempted {
            let code = match end.outcome.as_str() {
                "complete" => 0,
                "partial" => 3,
                _ => end
                    .exit_code
                    .and_then(|code| u8::try_from(code).ok())
                    .unwrap_or(1)
                    .max(1),
            };
            self.worst = worse(self.worst, code);
        }
    }
}

/// Notes in `end` why the agent asked the run to end. One that could not report it, because it had
/// only just begun, was cancelled as well.
fn note_reason(end: &mut EndedRun, reason: EndReason) {
    let is_silent = end.report.is_none() && end.exit_code.is_none();
    if is_silent && end.outcome == "failed" {
        "cancelled".clone_into(&mut end.outcome);
        end.message.clear();
    }
    if end.message.is_empty() || end.outcome == "cancelled" {
        reason.text().clone_into(&mut end.message);
    }
}

/// Returns the worse of two exit codes: 0 is best, then 3, then 2, then 1.
fn worse(one: u8, other: u8) -> u8 {
    let rank = |code: u8| match code {
        0 => 0,
        3 => 1,
        2 => 2,
        _ => 3,
    };
    if rank(other) > rank(one) { other } else { one }
}
