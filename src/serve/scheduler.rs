//! The scheduler: it starts what is due, one run at a time, and records how each run ended.
//!
//! It does everything in [`Scheduler::pass`], which comes at least every 30 seconds and after each
//! thing that happens. A pass reads the history for what was handled, so that a restart, a sleep or
//! another agent never begins a run twice.

mod active_run;
mod begin;
mod clock_watch;
mod end;
mod journal;
mod plan;
mod recover;
mod request;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio::sync::{broadcast, oneshot, watch};

use super::after_change::{Aftermath, Change};
use super::child_log;
use super::handle::{
    AgentCommand, AgentEvent, AgentState, CommandRefused, RunRequest, ScheduledJob,
};
use super::log::{AgentLog, LogLevel};
use super::service_manager::ServiceManager;
use super::wake::{ChildEvent, Wake, Waker};
use crate::base::{clock, units};
use crate::config::Config;
use crate::state::history::{OperatorMark, RunRow};
use active_run::{ActiveRun, EndReason};
use clock_watch::ClockWatch;
use journal::RunJournal;
use plan::RetryTimes;

/// Longest time between two passes.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Shortest time between two passes that nothing but a fast clock calls for.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
/// Time between two passes while the agent ends.
const PAUSE_OF_THE_END: Duration = Duration::from_secs(5);
/// Time between two looks at what changes by itself.
const MINUTE: Duration = Duration::from_secs(60);
/// A pause of the operator's without an end ends after this.
const LONGEST_OPERATOR_PAUSE: chrono::Duration = chrono::Duration::hours(24);

/// Whether the agent goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServeMode {
    /// Until it is stopped.
    Serve,
    /// Until nothing is due any more.
    Once,
}

/// Whether and how the agent ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopping {
    No,
    /// The run that is under way was asked to end.
    Gently,
}

/// What connects the scheduler with the other parts.
pub(super) struct SchedulerLinks {
    pub(super) state: watch::Sender<AgentState>,
    pub(super) events: broadcast::Sender<AgentEvent>,
    pub(super) waker: Waker,
    pub(super) log: Arc<dyn AgentLog>,
    pub(super) aftermath: Aftermath,
}

/// A request that waits for the run under way to give way.
struct WaitingRequest {
    request: RunRequest,
    answer: oneshot::Sender<Result<String, CommandRefused>>,
}

/// The scheduler.
pub(super) struct Scheduler {
    config: Arc<Config>,
    /// The configuration file as the operator named it.
    config_file: Option<PathBuf>,
    mode: ServeMode,
    links: SchedulerLinks,
    manager: ServiceManager,
    journal: RunJournal,
    clock: ClockWatch,
    running: Option<ActiveRun>,
    waiting: Option<WaitingRequest>,
    times: RetryTimes,
    /// A job is due, and another process holds the state directory.
    waits_for_lock: bool,
    stopping: Stopping,
    schedule: Vec<ScheduledJob>,
    last_minute: Instant,
    /// The exit code that stands for the worst run.
    worst: u8,
}

impl Scheduler {
    /// Makes the scheduler, and looks for runs that an earlier agent left.
    pub(super) fn new(
        config: Arc<Config>,
        config_file: Option<PathBuf>,
        mode: ServeMode,
        links: SchedulerLinks,
    ) -> Self {
        let now = clock::now();
        let journal = RunJournal::new(config.state.clone(), Arc::clone(&links.log));
        let mut scheduler = Self {
            times: RetryTimes::begin(&config, mode, now),
            config,
            config_file,
            mode,
            links,
            manager: ServiceManager::of_environment(),
            journal,
            clock: ClockWatch::begin(mode, now),
            running: None,
            waiting: None,
            waits_for_lock: false,
            stopping: Stopping::No,
            schedule: Vec::new(),
            last_minute: Instant::now(),
            worst: 0,
        };
        scheduler.recover(now);
        scheduler
    }

    /// Reports that the agent is ready.
    pub(super) fn ready(&self) {
        self.manager.ready();
    }

    /// Returns the exit code that stands for the worst run.
    pub(super) fn worst(&self) -> u8 {
        self.worst
    }

    /// Does what is due now. Returns the time until the next pass; `None`: the agent ends.
    pub(super) fn pass(&mut self) -> Option<Duration> {
        let now = clock::now();
        self.watch_clock(now);
        self.tend_running();
        if self.stopping != Stopping::No {
            self.running.as_ref()?;
            self.manager.extend();
            self.publish(now, None);
            return Some(PAUSE_OF_THE_END);
        }
        let paused_until = self.paused_until(now);
        let next = self.plan(now, paused_until.is_some());
        let is_idle = self.running.is_none() && !self.waits_for_lock;
        if self.mode == ServeMode::Once && is_idle {
            return None;
        }
        self.show_life();
        self.publish(now, paused_until);
        if self.last_minute.elapsed() >= MINUTE {
            self.last_minute = Instant::now();
            self.changed(None, now);
        }
        Some(self.pause_until(next, now))
    }

    /// Takes in what the scheduler was woken for.
    pub(super) fn take(&mut self, wake: Wake) {
        match wake {
            Wake::Tick | Wake::ClockSet => {}
            Wake::Stop => self.stop(),
            Wake::Reload => drop(self.reload()),
            Wake::Command(AgentCommand::Start(request, answer)) => self.request(request, answer),
            Wake::Command(AgentCommand::Cancel(id, answer)) => {
                let _ = answer.send(self.cancel(&id));
            }
            Wake::Command(AgentCommand::Reload(answer)) => {
                let _ = answer.send(self.reload());
            }
            Wake::Command(AgentCommand::Refresh) => self.changed(None, clock::now()),
            Wake::Event(id, event) => self.reported(&id, event),
            Wake::Ended(child) => self.ended(child),
        }
    }

    /// Begins to end, or ends at once if it is the second time.
    fn stop(&mut self) {
        if self.stopping == Stopping::Gently {
            if let Some(active) = &mut self.running {
                self.links
                    .log
                    .warn("killing", "asked to end again: the run is killed");
                active.kill();
            }
            return;
        }
        self.stopping = Stopping::Gently;
        self.links.log.info("stopping", "the agent ends");
        self.manager.stopping();
        if let Some(active) = &mut self.running {
            active.ask_to_end(EndReason::Stopping);
        }
        if let Some(waiting) = self.waiting.take() {
            let _ = waiting.answer.send(Err(CommandRefused::Stopping));
        }
    }

    fn cancel(&mut self, id: &str) -> Result<(), CommandRefused> {
        let active = self.running.as_mut().filter(|active| active.shown.id == id);
        let active = active.ok_or_else(|| CommandRefused::NotRunning(id.to_owned()))?;
        active.ask_to_end(EndReason::Cancelled);
        Ok(())
    }

    /// Takes in what the child of the run `id` reports.
    fn reported(&mut self, id: &str, event: ChildEvent) {
        let Some(active) = self.running.as_mut().filter(|active| active.shown.id == id) else {
            return;
        };
        active.report(event);
        let shown = active.shown.clone();
        self.links
            .state
            .send_modify(|state| state.running = Some(shown.clone()));
        let _ = self.links.events.send(AgentEvent::Progress(shown));
    }

    /// Ends a run that takes too long, and cuts a log that is too long.
    fn tend_running(&mut self) {
        let Some(active) = &mut self.running else {
            return;
        };
        let id = &active.shown.id;
        if let Err(error) = child_log::cut(&child_log::path(&self.config.state, id)) {
            tracing::warn!(%error, "cannot cut the log of a run");
        }
        if active.limit(self.config.schedule.max_run) {
            let text = EndReason::TooLong.text().to_owned();
            let (log, id) = (&self.links.log, &active.shown.id);
            log.of_run(LogLevel::Warning, "run_overlong", id, text);
        }
    }

    /// Returns until when scheduled jobs wait because the operator said so; `None`: they do not.
    fn paused_until(&mut self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let mark = self
            .journal
            .with(|history| history.mark(OperatorMark::PAUSE));
        let mark = mark.flatten()?;
        let until = mark.until.unwrap_or(mark.made_at + LONGEST_OPERATOR_PAUSE);
        (until > now).then_some(until)
    }

    /// Tells the service manager that this loop goes round and the history can be read.
    fn show_life(&mut self) {
        if self.manager.is_sign_due()
            && self
                .journal
                .with(|history| history.mark(OperatorMark::PAUSE))
                .is_some()
        {
            self.manager.sign_of_life();
        }
    }

    /// Shows the state to the other parts and to the service manager.
    fn publish(&mut self, now: DateTime<Utc>, paused_until: Option<DateTime<Utc>>) {
        let running = self.running.as_ref().map(|active| active.shown.clone());
        let status = match (
            &running,
            paused_until,
            self.schedule.iter().filter_map(|job| job.next).min(),
        ) {
            (Some(run), ..) => {
                let since = units::duration((now - run.started_at).to_std().unwrap_or_default());
                format!("{} for {since}", run.kind.as_str())
            }
            (None, Some(until), _) => {
                format!("paused until {}", until.format("%Y-%m-%d %H:%M UTC"))
            }
            (None, None, Some(next)) => format!("next run {}", next.format("%Y-%m-%d %H:%M UTC")),
            (None, None, None) => "nothing is scheduled".to_owned(),
        };
        self.manager.status(status);
        let (config, schedule) = (Arc::clone(&self.config), self.schedule.clone());
        self.links.state.send_modify(|state| {
            (state.config, state.running, state.schedule) = (config, running, schedule);
            (state.paused_until, state.beat) = (paused_until, Instant::now());
        });
    }

    /// Passes on that a run began or ended, or that a minute passed.
    fn changed(&self, run: Option<&RunRow>, now: DateTime<Utc>) {
        self.links.aftermath.take(Change {
            config: Arc::clone(&self.config),
            run: run.cloned(),
            now,
        });
    }

    /// Returns the time until the next pass, which comes at `next` at the latest.
    fn pause_until(&self, next: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Duration {
        let until = next.and_then(|next| (next - now).to_std().ok());
        let pause = until.map_or(LONGEST_PAUSE, |until| until.min(LONGEST_PAUSE));
        let pause = clock::real_time(pause).max(SHORTEST_PAUSE);
        pause.min(self.manager.longest_pause().unwrap_or(LONGEST_PAUSE))
    }
}
