//! Gathers the facts of the verdict from the configuration, the state directory, the catalog and
//! the history. Asks no target.

use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};

use super::last_run::{self, LastRun};
use super::observed_proof::observed_proof;
use super::remembered_target::RememberedTarget;
use super::runs::{last_backup, open_runs};
use super::shown::{LookBook, TargetShown};
use crate::base::clock;
use crate::base::error_chain::with_causes;
use crate::base::fs;
use crate::config::{Config, TargetConfig};
use crate::jobs::error::JobError;
use crate::jobs::notify::channel_states;
use crate::jobs::push::PresentSigner;
use crate::jobs::shrunk::ShrinkFinding;
use crate::jobs::verdict::observed::{
    Observed, ObservedChannel, ObservedDisk, ObservedFailure, ObservedRestore, ObservedSchedule,
    ObservedSnapshot, ObservedSpool, ObservedTarget, ObservedWaiting, RestoreProcess, TargetReach,
};
use crate::keys::recipients::Recipients;
use crate::state::catalog::Catalog;
use crate::state::history::{History, HistoryError, OperatorMark};
use crate::state::restores;
use crate::state::spool;

/// Where the facts are.
#[derive(Clone)]
pub(crate) struct FactSources<'a> {
    pub(crate) config: &'a Config,
    pub(crate) now: DateTime<Utc>,
    /// `None`: there is none yet, or it cannot be read.
    pub(crate) catalog: Option<&'a Catalog>,
    /// `None` as for the catalog.
    pub(crate) history: Option<&'a History>,
    pub(crate) looks: &'a LookBook,
    /// The newest run of `backup` or `push`.
    pub(crate) last_run: Option<&'a LastRun>,
    /// Why the next backup would be refused.
    pub(crate) refusal: Option<String>,
    pub(crate) shrunk: &'a [ShrinkFinding],
}

impl FactSources<'_> {
    /// Returns the sources without the history, which cannot be read.
    pub(super) fn without_history(&self) -> Self {
        Self {
            history: None,
            ..self.clone()
        }
    }
}

/// Gathers the facts.
pub(crate) fn gather(sources: &FactSources<'_>) -> Result<Observed, JobError> {
    let (config, now, history) = (sources.config, sources.now, sources.history);
    let mut targets = Vec::new();
    for target in &config.targets {
        let remembered = RememberedTarget::read(config, sources.catalog, &target.name)?;
        targets.push(observed_target(config, target, &remembered, sources.looks));
    }
    let mark = |name| match history {
        Some(history) => history.mark(name),
        None => Ok(None),
    };
    let acknowledgements = history.map(History::acknowledgements).transpose()?;
    let seen = history.map(History::open_findings).transpose()?;
    Ok(Observed {
        schedule: ObservedSchedule {
            interval: interval(config, now),
            // `next_by` has it.
            grace: TimeDelta::zero(),
        },
        targets,
        last_backup: last_backup(history, sources.catalog, sources.last_run)?,
        open_runs: open_runs(history, now)?,
        refusal: sources.refusal.clone(),
        shrunk: sources.shrunk.iter().map(ShrinkFinding::observed).collect(),
        restore_open: restore_open(config),
        pause: mark(OperatorMark::PAUSE)?,
        incident: mark(OperatorMark::INCIDENT)?,
        clock_set_back: mark(OperatorMark::CLOCK)?,
        config_refused: mark(OperatorMark::CONFIG)?,
        spool: filled_spool(config),
        disks: disks(config),
        verify_max_age: config
            .verify_max_age
            .and_then(|most| TimeDelta::from_std(most).ok()),
        channels: channels(config, history)?,
        proof: observed_proof(config, history, sources.catalog)?,
        acknowledgements: acknowledgements.unwrap_or_default(),
        first_seen: seen.unwrap_or_default().into_iter().collect(),
        ..Observed::nothing(now)
    })
}

fn channels(
    config: &Config,
    history: Option<&History>,
) -> Result<Vec<ObservedChannel>, HistoryError> {
    let Some(history) = history else {
        return Ok(Vec::new());
    };
    let states = channel_states(history, config)?.into_iter();
    Ok(states
        .map(|state| ObservedChannel {
            name: state.name,
            failing: state
                .failing_since
                .zip(state.error)
                .map(|(since, error)| ObservedFailure { since, error }),
        })
        .collect())
}

/// Returns the time between the next two backups; `None` without a schedule.
fn interval(config: &Config, now: DateTime<Utc>) -> Option<TimeDelta> {
    let due = config.schedule.next(now)?;
    Some(config.schedule.next(due)? - due)
}

fn observed_target(
    config: &Config,
    target: &TargetConfig,
    remembered: &RememberedTarget,
    looks: &LookBook,
) -> ObservedTarget {
    let access = match target.write_only {
        true => TargetReach::WriteOnly,
        false => TargetReach::Readable,
    };
    let look = looks.look(&target.name);
    let shown = looks.shown(&target.name);
    let mut observed = ObservedTarget::unknown(&target.name, access);
    observed.max_age = target
        .max_age
        .and_then(|most| TimeDelta::from_std(most).ok());
    observed.looked_at = look.and_then(|look| look.succeeded_at);
    observed.failing = look.and_then(|look| {
        Some(ObservedFailure {
            since: look.failing_since?,
            error: look.error.clone()?,
        })
    });
    observed.newest = match &shown {
        Some(shown) if access == TargetReach::Readable => {
            shown.newest.as_ref().map(|newest| ObservedSnapshot {
                stamp: newest.stamp,
                sequence: newest.sequence,
                due: newest
                    .next_by
                    .or_else(|| config.schedule.next_by(newest.stamp.time())),
            })
        }
        _ => remembered.newest,
    };
    observed.waiting = waiting(remembered, observed.newest, shown.as_ref());
    let shown = shown.unwrap_or_default();
    for problem in shown.problems.iter().chain(&shown.verified) {
        let problem = problem.observed();
        if !observed.problems.contains(&problem) {
            observed.problems.push(problem);
        }
    }
    let partial = shown
        .recipients
        .iter()
        .filter(|access| !access.opens_in_full);
    observed.partial_recipients = partial.map(|access| access.recipient.clone()).collect();
    observed.read_since = shown.reading.map(|cycle| cycle.read_since());
    observed
}

/// Returns the snapshots that wait for a target. Those up to its newest one count only if the last
/// look missed some: `sync` may have brought them without this catalog's knowledge.
fn waiting(
    remembered: &RememberedTarget,
    newest: Option<ObservedSnapshot>,
    shown: Option<&TargetShown>,
) -> Option<ObservedWaiting> {
    let lacks_older = shown.is_none_or(|shown| shown.lacks_older);
    let newest = newest.map_or(0, |newest| newest.sequence);
    let all = remembered.waiting.iter();
    let waiting = all.filter(|(sequence, ..)| lacks_older || *sequence > newest);
    let times: Vec<DateTime<Utc>> = waiting.map(|(_, at, _)| *at).collect();
    Some(ObservedWaiting {
        snapshots: times.len() as u64,
        since: times.into_iter().min()?,
        cause: shown.and_then(|shown| shown.push_error.clone()),
    })
}

/// Returns why the next backup would be refused; `None` if it would not. `signer` is this host's.
pub(crate) fn refusal(
    config: &Config,
    signer: &Result<PresentSigner, JobError>,
    catalog: Option<&Catalog>,
) -> Option<String> {
    refused_recipients(config).or_else(|| match (signer, catalog) {
        (Err(error), _) => Some(error.with_causes()),
        (Ok(signer), Some(catalog)) => {
            let refused = signer.require_introduced(catalog).err();
            refused.map(|error| error.to_string())
        }
        (Ok(_), None) => None,
    })
}

/// Returns why the next backup would refuse the recipients; `None` if it would not.
fn refused_recipients(config: &Config) -> Option<String> {
    let base = config.file.parent().unwrap_or(Path::new("."));
    match config.read_recipients() {
        Ok(lines) => {
            let refused = Recipients::load(&lines, base).err();
            refused.map(|error| with_causes(&error))
        }
        Err(error) => Some(with_causes(&error)),
    }
}

fn restore_open(config: &Config) -> Option<ObservedRestore> {
    let open = super::open_restore(config)?;
    Some(ObservedRestore {
        process: match restores::is_running(&config.state) {
            true => RestoreProcess::Running,
            false => RestoreProcess::Gone,
        },
        text: open.text,
        next: open.next,
    })
}

/// Returns how full the spool is. `None`: it is empty, or that is not known.
fn filled_spool(config: &Config) -> Option<ObservedSpool> {
    let dir = config.state.join("spool");
    let bytes = spool::waiting_bytes(&dir).ok().filter(|bytes| *bytes > 0)?;
    let limit = match config.spool_limit {
        Some(limit) => limit,
        // As a push has it.
        None => spool::default_limit(&dir, bytes).ok()?,
    };
    Some(ObservedSpool { bytes, limit })
}

fn disks(config: &Config) -> Vec<ObservedDisk> {
    let dirs = [&config.state, &config.snapshots_dir];
    let found = dirs.into_iter().filter_map(|dir| {
        let (free, total) = fs::free_and_total_bytes(dir).ok()?;
        Some(ObservedDisk {
            path: dir.display().to_string(),
            free,
            total,
        })
    });
    found.collect()
}

/// Records the findings that are open, for the next verdict.
pub(crate) fn remember(
    history: &History,
    before: &Observed,
    first_seen: &[(crate::jobs::verdict::observed::SeenKey, DateTime<Utc>)],
) -> Result<(), HistoryError> {
    let known = &before.first_seen;
    let is_known = |(key, since): &(_, DateTime<Utc>)| {
        known.get(key).map(|at| clock::in_seconds(*at)) == Some(*since)
    };
    match first_seen.len() == known.len() && first_seen.iter().all(is_known) {
        true => Ok(()),
        false => history.set_open_findings(first_seen),
    }
}

/// Returns the newest run of `backup` or `push`, as the state directory and the catalog know it.
pub(crate) fn read_last_run(
    config: &Config,
    catalog: Option<&Catalog>,
) -> Result<Option<LastRun>, JobError> {
    last_run::read(config, catalog)
}
