//! The commands of `[hooks]` around a run.
//!
//! - Once `before` was started, `after` runs in every case, also if a signal ends the
//!   process.
//! - `failed` runs after every run that is not complete, the last of all. So it also runs if the
//!   run failed before it began, such as for a missing signer.
//! - Each learns of the run as JSON on its standard input, and does not see the targets'
//!   credentials.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use super::super::context::FrontEnd;
use super::super::error::JobError;
use super::super::run_report::{ErrorText, ReportedOutcome, RunReport};
use super::report::BackupReport;
use crate::base::cleanup::CleanupGuard;
use crate::base::clock;
use crate::base::error_chain::with_causes;
use crate::base::ids::HostName;
use crate::config::{CommandLine, Config, RunHooks};
use crate::producer::{RunHook, SourceError};
use crate::state::staged_snapshot::LeftOut;

/// Whether the commands of `[hooks]` run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Hooks {
    /// They run.
    #[default]
    Run,
    /// The request says to go without them.
    Skip,
}

/// The hooks of one run, and what they learn of it.
pub(super) struct HookedRun<'a> {
    hooks: RunHooks,
    front: &'a dyn FrontEnd,
    run: RunReport,
    /// Runs `after` and `failed` if the process must end, unless they were started. `None`: the run
    /// has not begun, or has no such hook.
    owed: Option<CleanupGuard>,
    started: Arc<StartedHooks>,
}

/// Which of the last hooks were started.
#[derive(Debug, Default)]
struct StartedHooks {
    after: AtomicBool,
    failed: AtomicBool,
}

impl<'a> HookedRun<'a> {
    pub(super) fn new(config: &Config, hooks: Hooks, front: &'a dyn FrontEnd) -> Self {
        Self {
            hooks: match hooks {
                Hooks::Run => config.hooks.clone(),
                Hooks::Skip => RunHooks::default(),
            },
            front,
            run: RunReport {
                host: Some(config.host.clone()),
                ..front.run_report()
            },
            owed: None,
            started: Arc::default(),
        }
    }

    /// Runs `before`. If it fails, the run must not go on.
    pub(super) fn begin(&mut self) -> Result<(), JobError> {
        let (hooks, mut run) = (self.hooks.clone(), self.run.clone());
        let started = Arc::clone(&self.started);
        if hooks.after.is_some() || hooks.failed.is_some() {
            self.owed = Some(CleanupGuard::register(move || {
                run.cancel(clock::now());
                let both = [
                    ("after", &hooks.after, &started.after),
                    ("failed", &hooks.failed, &started.failed),
                ];
                let lines = both.into_iter().filter_map(|(name, line, started)| {
                    let line = line.as_ref().filter(|_| !started.load(Relaxed))?;
                    let ran = call(&hooks, line, &run, |hook| hook.run_last());
                    Some(match ran {
                        Ok(_) => format!("ran the hook `{name}` of the run"),
                        Err(error) => format!("the hook `{name}` failed: {}", with_causes(&error)),
                    })
                });
                lines.collect::<Vec<_>>().join("\n")
            }));
        }
        let before = self.run_one("before", self.hooks.before.as_ref());
        before.map_err(|error| {
            JobError::work(format!(
                "the hook `before` failed, so nothing was backed up: {error}"
            ))
            .with_next("run that command by hand; `--no-hooks` backs up without it")
        })
    }

    /// Notes the sources that failed, also for a run that failed as a whole.
    pub(super) fn leave_out(&mut self, left_out: &[LeftOut]) {
        let names = left_out.iter().map(|one| one.source.clone());
        self.run.left_out = names.collect();
    }

    /// Runs `after`. If it fails, the run counts as partial.
    pub(super) fn end(&mut self, done: &mut Result<BackupReport, JobError>) {
        self.conclude_report(done.as_ref());
        self.started.after.store(true, Relaxed);
        let Err(error) = self.run_one("after", self.hooks.after.as_ref()) else {
            return;
        };
        let text = format!("the hook `after` failed: {error}");
        match done {
            Ok(report) => report.warn(text),
            Err(_) => self.front.warn(&text),
        }
        self.conclude_report(done.as_ref());
    }

    /// Ends the report as the run ended.
    fn conclude_report(&mut self, done: Result<&BackupReport, &JobError>) {
        self.run.errors.clear();
        let (outcome, exit_code) = match done {
            Err(error) => {
                let text = ErrorText::of(error.error(), error.next());
                self.run.errors.push(text);
                let exit_code = if error.is_request() { 2 } else { 1 };
                (ReportedOutcome::Failed, exit_code)
            }
            Ok(report) => {
                report.add_to(&mut self.run);
                report.outcome()
            }
        };
        self.run.conclude(outcome, exit_code, clock::now());
    }

    /// Runs `failed` unless the run is complete. Its own failure changes nothing.
    pub(super) fn conclude(&self) {
        self.run_failed();
        if let Some(owed) = &self.owed {
            owed.take();
        }
    }

    fn run_failed(&self) {
        if !self.run.is_failure() {
            return;
        }
        self.started.failed.store(true, Relaxed);
        if let Err(error) = self.run_one("failed", self.hooks.failed.as_ref()) {
            self.front
                .warn(&format!("the hook `failed` failed: {error}"));
        }
    }

    /// Notes that the run failed before it began, and runs `failed`. Returns the error.
    pub(super) fn never_began(mut self, error: JobError) -> JobError {
        self.conclude_report(Err(&error));
        self.conclude();
        error
    }

    fn run_one(&self, name: &str, line: Option<&CommandLine>) -> Result<(), String> {
        let Some(line) = line else { return Ok(()) };
        match call(&self.hooks, line, &self.run, |hook| hook.run()) {
            Err(error) => Err(with_causes(&error)),
            Ok(output) if output.is_empty() => Ok(()),
            Ok(output) => {
                self.front.note(&format!(
                    "the hook `{name}` wrote:\n  {}",
                    last_lines(&output)
                ));
                Ok(())
            }
        }
    }
}

/// Lines of a hook's output in a note.
const SHOWN_LINES: usize = 3;

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n  ")
}

fn call(
    hooks: &RunHooks,
    line: &CommandLine,
    run: &RunReport,
    how: impl Fn(&RunHook<'_>) -> Result<String, SourceError>,
) -> Result<String, SourceError> {
    // A struct of numbers and texts can always be written.
    let input = serde_json::to_vec(&run.without_paths()).unwrap_or_default();
    let outcome = run.outcome.map_or("", ReportedOutcome::as_str);
    let host = run.host.as_ref().map_or("", HostName::as_str);
    let environment = [
        ("SEALIFT_HOST", host),
        ("SEALIFT_RUN", run.kind.as_str()),
        ("SEALIFT_OUTCOME", outcome),
    ];
    how(&RunHook {
        line,
        input: &input,
        environment: &environment,
        timeout: hooks.timeout,
    })
}
