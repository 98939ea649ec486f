//! Decides what to begin: the jobs of the schedule that are due, in their order, and what comes at
//! intervals.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::active_run::EndReason;
use super::{Scheduler, ServeMode};
use crate::base::error_chain::with_causes;
use crate::config::{Config, MissedRuns, Schedule};
use crate::jobs::catch_up::{targets_behind, was_ever_published};
use crate::jobs::run_report::Trigger;
use crate::serve::calendar::{self, CalendarJob, Occurrences, occurrences};
use crate::serve::handle::{RunKind, RunRequest, ScheduledJob};
use crate::state::history::JobState;
use crate::state::run_file::is_locked;

/// Time from the agent's start to the first look at the targets.
const FIRST_PROBE: chrono::Duration = chrono::Duration::minutes(5);
/// The shortest and the longest time between two looks.
const SHORTEST_PROBE: chrono::Duration = chrono::Duration::minutes(15);
const LONGEST_PROBE: chrono::Duration = chrono::Duration::days(1);
/// Longest time between two tries of a target that is behind.
const LONGEST_CATCH_UP: Duration = Duration::from_secs(6 * 3600);

/// When what has no cron line comes next.
#[derive(Debug)]
pub(super) struct RetryTimes {
    /// Targets that are behind are tried.
    catch_up_at: DateTime<Utc>,
    /// Time to the try after that.
    catch_up_pause: Duration,
    /// The targets are looked at. `None`: they are not.
    probe_at: Option<DateTime<Utc>>,
    /// A verify gave way to a backup and goes on after it.
    pub(super) verify_goes_on: bool,
}

impl RetryTimes {
    pub(super) fn begin(config: &Config, mode: ServeMode, now: DateTime<Utc>) -> Self {
        let pause = config.schedule.catch_up_targets;
        let mut times = Self {
            catch_up_at: now,
            catch_up_pause: pause,
            probe_at: None,
            verify_goes_on: false,
        };
        if mode == ServeMode::Serve {
            times.catch_up_at = after(now, pause);
            times.probe_at = Some(now + FIRST_PROBE);
        }
        times
    }

    /// A backup has tried all targets.
    pub(super) fn backed_up(&mut self, schedule: &Schedule, now: DateTime<Utc>) {
        self.catch_up_pause = schedule.catch_up_targets;
        self.catch_up_at = after(now, self.catch_up_pause);
        self.probed(schedule, now);
    }

    /// Targets that were behind have been tried; another try is later each time.
    fn tried(&mut self, now: DateTime<Utc>) {
        self.catch_up_at = after(now, self.catch_up_pause);
        self.catch_up_pause = (self.catch_up_pause * 2).min(LONGEST_CATCH_UP);
    }

    /// No target is behind.
    pub(super) fn caught_up(&mut self, schedule: &Schedule, now: DateTime<Utc>) {
        self.catch_up_pause = schedule.catch_up_targets;
        self.catch_up_at = after(now, self.catch_up_pause);
    }

    /// The targets have been looked at.
    pub(super) fn probed(&mut self, schedule: &Schedule, now: DateTime<Utc>) {
        if self.probe_at.is_none() {
            return;
        }
        let next = schedule.next(now);
        let interval = next.and_then(|next| Some(schedule.next(next)? - next));
        let interval = interval.unwrap_or(LONGEST_PROBE);
        self.probe_at = Some(now + interval.clamp(SHORTEST_PROBE, LONGEST_PROBE));
    }
}

fn after(now: DateTime<Utc>, time: Duration) -> DateTime<Utc> {
    now + chrono::Duration::from_std(time).unwrap_or(LONGEST_PROBE)
}

/// A job that is due.
struct DueJob {
    job: CalendarJob,
    occurrence: DateTime<Utc>,
}

/// Returns the request of the agent for a run of `kind`.
pub(super) fn scheduled(kind: RunKind) -> RunRequest {
    RunRequest {
        kind,
        trigger: Trigger::Schedule,
        include: Vec::new(),
        target: None,
        note: None,
    }
}

impl Scheduler {
    /// Begins the run that is due, if there is one and nothing is in its way. Returns when
    /// something is due next, if that is known.
    pub(super) fn plan(&mut self, now: DateTime<Utc>, is_paused: bool) -> Option<DateTime<Utc>> {
        let (due, next) = self.look_at_calendar(now);
        let has_backup = |due: &[DueJob]| due.iter().any(|one| one.job.kind == RunKind::Backup);
        if let Some(active) = &mut self.running {
            let is_awaited = self.waiting.is_some() || has_backup(&due) && !is_paused;
            if is_awaited && active.gives_way() && active.end_reason().is_none() {
                let id = &active.shown.id;
                let text = EndReason::Preempted.text().to_owned();
                let level = crate::serve::log::LogLevel::Info;
                self.links.log.of_run(level, "run_preempted", id, text);
                active.ask_to_end(EndReason::Preempted);
            }
            return next;
        }
        // Another process is at work; it is looked for again in the next pass.
        let is_held = is_locked(&self.config.state);
        self.waits_for_lock = is_held && !is_paused && !due.is_empty();
        if is_held {
            return next;
        }
        if let Some(waiting) = self.waiting.take() {
            let begun = self.begin(waiting.request, &[], now);
            let _ = waiting.answer.send(begun);
            return next;
        }
        if is_paused {
            return next;
        }
        self.begin_first_of(due, now);
        let intervals = [Some(self.times.catch_up_at), self.times.probe_at, next];
        intervals.into_iter().flatten().min()
    }

    /// Begins the first of the jobs that are due, in the order of the kinds.
    fn begin_first_of(&mut self, due: Vec<DueJob>, now: DateTime<Utc>) {
        let (backups, others): (Vec<_>, Vec<_>) = due
            .into_iter()
            .partition(|one| one.job.kind == RunKind::Backup);
        if !backups.is_empty() {
            let mut request = scheduled(RunKind::Backup);
            request.include = backups
                .iter()
                .filter_map(|one| one.job.include.clone())
                .collect();
            self.begin_due(request, backups, now);
            return;
        }
        if self.is_catch_up_due(now) {
            self.times.tried(now);
            let _ = self.begin(scheduled(RunKind::CatchUp), &[], now);
            return;
        }
        // They are in the order in which they run.
        let mut others = others.into_iter().peekable();
        let is_verify = others
            .peek()
            .is_some_and(|one| one.job.kind == RunKind::Verify);
        let goes_on = std::mem::take(&mut self.times.verify_goes_on);
        if goes_on && !is_verify {
            let _ = self.begin(scheduled(RunKind::Verify), &[], now);
        } else if let Some(one) = others.next() {
            self.begin_due(scheduled(one.job.kind), vec![one], now);
        } else if self.times.probe_at.is_some_and(|at| at <= now) {
            self.times.probed(&self.config.schedule, now);
            let _ = self.begin(scheduled(RunKind::Probe), &[], now);
        }
    }

    fn begin_due(&mut self, request: RunRequest, due: Vec<DueJob>, now: DateTime<Utc>) {
        let handled = due.into_iter().map(|one| (one.job.name, one.occurrence));
        let handled: Vec<_> = handled.collect();
        // A failure is in the history and in the log.
        let _ = self.begin(request, &handled, now);
    }

    /// Whether a target is behind, and it is time to try it again.
    fn is_catch_up_due(&mut self, now: DateTime<Utc>) -> bool {
        if self.times.catch_up_at > now {
            return false;
        }
        match targets_behind(&self.config) {
            Ok(names) if !names.is_empty() => return true,
            Ok(_) => {}
            Err(error) => {
                let text = format!(
                    "cannot see which targets are behind: {}",
                    error.with_causes()
                );
                self.links.log.warn("catalog_failed", text);
            }
        }
        self.times.caught_up(&self.config.schedule, now);
        false
    }

    /// Returns the jobs that are due, and when the next one will be.
    fn look_at_calendar(&mut self, now: DateTime<Utc>) -> (Vec<DueJob>, Option<DateTime<Utc>>) {
        let config = std::sync::Arc::clone(&self.config);
        let schedule = &config.schedule;
        let (mut due, mut shown) = (Vec::new(), Vec::new());
        for job in calendar::jobs(schedule) {
            let state = self.journal.job(&job.name);
            let found = self.occurrences(&config, &job, state, now);
            shown.push(ScheduledJob {
                job: job.name.clone(),
                cron: job.cron(),
                zone: schedule.zone.name().to_owned(),
                next: found.due.map(|_| now).or(found.next),
                last: state.and_then(|state| state.started_at),
            });
            if let Some(occurrence) = found.due {
                due.push(DueJob { job, occurrence });
            }
        }
        let next = shown
            .iter()
            .filter_map(|job| job.next)
            .filter(|next| *next > now);
        let next = next.min();
        self.schedule = shown;
        (due, next)
    }

    fn occurrences(
        &mut self,
        config: &Config,
        job: &CalendarJob,
        state: Option<JobState>,
        now: DateTime<Utc>,
    ) -> Occurrences {
        let schedule = &config.schedule;
        let mut handled = match state {
            Some(state) => state.handled,
            None if self.is_first_backup(job) => {
                let (due, next) = (Some(now), None);
                return Occurrences { due, next };
            }
            None => {
                self.journal.skip(&job.name, now);
                now
            }
        };
        // The clock was ahead by more than the job's interval: it would wait until then.
        let following = schedule.next_of(&job.lines, handled);
        if following.is_some_and(|following| handled - now > following - handled) {
            self.journal.reset(&job.name, now);
            handled = now;
        }
        let mut found = occurrences(schedule, &config.host, &job.lines, handled, now);
        if let Some(due) = found.due.filter(|_| schedule.catch_up == MissedRuns::Skip)
            && self
                .clock
                .was_missed(due + schedule.jitter_at(&config.host, due))
        {
            let text = format!(
                "{} of {} was missed and is left out",
                job.name,
                due.format("%Y-%m-%d %H:%M UTC")
            );
            self.links.log.warn("occurrence_skipped", text);
            self.journal.skip(&job.name, due);
            found.due = None;
        }
        found
    }

    /// Whether the host has no backup yet: then the first one does not wait for its time.
    fn is_first_backup(&self, job: &CalendarJob) -> bool {
        if job.kind != RunKind::Backup || job.include.is_some() {
            return false;
        }
        match was_ever_published(&self.config) {
            Ok(was_ever) => !was_ever,
            Err(error) => {
                let text = with_causes(error.error());
                self.links.log.warn("catalog_failed", text);
                false
            }
        }
    }
}
