//! Records the run of a command in the history of the host, whatever the command is.

use super::context::lock;
use super::failure::{Failure, Outcome};
use super::{Command, Context};
use crate::base::clock;
use crate::config::Config;
use crate::jobs::notify::{RunNotifier, agent_is_running};
use crate::jobs::run_history::Recording;
use crate::jobs::run_report::{ReportedOutcome, RunReport};
use crate::jobs::status::remembered_verdict;
use crate::serve::after_change::write_metrics;
use crate::state::history::{History, RunRow};

/// Returns whether and how the runs of `command` are recorded. A run that changes nothing is none.
pub(super) fn of(command: &Command) -> Recording {
    let is_run = match command {
        Command::Backup(args) => !args.is_dry_run(),
        Command::Prune(args) => !args.is_dry_run(),
        Command::Sync(args) => !args.is_dry_run(),
        Command::Restore(args) => !args.is_dry_run(),
        Command::Rollback(args) => args.is_rollback(),
        Command::Push(_) | Command::Verify(_) => true,
        _ => false,
    };
    match (is_run, Recording::id_of_agent()) {
        (false, _) => Recording::Off,
        (true, None) => Recording::Own,
        (true, Some(_)) => Recording::OfAgent,
    }
}

/// Begins the row of the run, if this machine has a configuration and its state directory exists.
pub(super) fn begin(context: &Context) {
    if context.recorder.is_off() {
        return;
    }
    // A configuration that is missing or wrong is the command's business.
    let Ok(found) = Config::find(context.config.as_deref()) else {
        return;
    };
    let config = found.config;
    context.recorder.keep(config.serve.history);
    context.begin_record(&config.state);
    if context.recorder.is_of_agent() || agent_is_running(&config.state) {
        return;
    }
    let config = context.unattended.get_or_init(|| config);
    let now = clock::now();
    if config.channels.is_empty() {
        return;
    }
    // What cannot be read now is reported at the end.
    if let (Some(row), Ok(verdict)) = (row(context, config), remembered_verdict(config, now)) {
        RunNotifier::began(config, &verdict, &row, now);
    }
}

/// Returns the run's row in the history.
fn row(context: &Context, config: &Config) -> Option<RunRow> {
    let id = lock(&context.report).id.clone();
    let history = History::open_existing(&config.state).ok().flatten()?;
    history.run(&id).ok().flatten()
}

/// Sends the messages of a run that no agent watches, and writes the metrics. Returns warnings.
fn announce_end(context: &Context) -> Vec<String> {
    let Some(config) = context.unattended.get() else {
        return Vec::new();
    };
    let is_wanted = !config.channels.is_empty() || config.serve.textfile.is_some();
    if !is_wanted || !config.state.is_dir() || agent_is_running(&config.state) {
        return Vec::new();
    }
    let now = clock::now();
    let verdict = match remembered_verdict(config, now) {
        Ok(verdict) => verdict,
        Err(error) => return vec![format!("no message is sent: {}", error.with_causes())],
    };
    let row = row(context, config);
    let mut warnings = RunNotifier::of(config).ended(&verdict, row.as_ref(), now);
    if let Err(error) = write_metrics(config, &verdict, now) {
        warnings.push(error.with_causes());
    }
    warnings
}

/// Ends the report of the run and its row as the command ended.
pub(super) fn end(context: &Context, result: &Result<Outcome, Failure>) {
    let report = {
        let mut report = lock(&context.report);
        report.stages = context.recorder.stages();
        conclude(&mut report, result);
        report.clone()
    };
    if result.as_ref().is_err_and(Failure::is_locked) {
        context.recorder.withdraw();
    }
    for warning in context.recorder.end(&report) {
        context.warn_now(&warning);
    }
    for warning in announce_end(context) {
        context.warn_now(&warning);
    }
}

/// Ends the report of the run as the command ended.
fn conclude(report: &mut RunReport, result: &Result<Outcome, Failure>) {
    let now = clock::now();
    match result {
        Ok(Outcome::Complete) => report.conclude(ReportedOutcome::Complete, 0, now),
        Ok(Outcome::Partial) => report.conclude(ReportedOutcome::Partial, 3, now),
        Ok(Outcome::Plugin(code)) => {
            let outcome = match code {
                0 => ReportedOutcome::Complete,
                _ => ReportedOutcome::Partial,
            };
            report.conclude(outcome, *code, now);
        }
        Err(failure) => {
            report.errors.push(failure.text());
            report.conclude(ReportedOutcome::Failed, failure.code(), now);
        }
    }
}
