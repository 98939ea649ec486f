//! Brings targets that are behind up to the newest snapshot, from the spool.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::backup::report::PushedTarget;
use super::context::{FrontEnd, open_catalog, open_state_within};
use super::error::JobError;
use super::push::catch_up::{CatchUpRequest, catch_up};
use super::push::waiting_snapshots;
use super::recovery_files::recovery_files;
use super::run_report::{PushedState, RunReport};
use super::targets::{no_such_target, open_for_push, own_trust};
use crate::config::Config;
use crate::state::catalog::Catalog;

/// What came of a push from the spool.
#[derive(Debug, Serialize)]
pub(crate) struct CatchUpReport {
    /// The targets that were behind.
    pub(crate) targets: Vec<PushedTarget>,
    /// Messages that need no attention.
    pub(crate) notes: Vec<String>,
    pub(crate) warnings: Vec<String>,
    /// No target is behind any more, and nothing needs attention.
    pub(crate) complete: bool,
}

impl CatchUpReport {
    /// Adds what was done to the report of the run.
    pub(crate) fn add_to(&self, run: &mut RunReport) {
        run.targets = self.targets.iter().map(PushedTarget::run).collect();
        run.warnings.clone_from(&self.warnings);
    }
}

/// Returns the names of the targets that are behind and for which something waits in the spool, as
/// this host remembers it. Locks nothing.
pub(crate) fn targets_behind(config: &Config) -> Result<Vec<String>, JobError> {
    match open_catalog(config)? {
        Some(catalog) => behind(config, &catalog),
        None => Ok(Vec::new()),
    }
}

/// Returns whether any target ever had a snapshot of this host, as it remembers. Locks nothing.
pub(crate) fn was_ever_published(config: &Config) -> Result<bool, JobError> {
    let Some(catalog) = open_catalog(config)? else {
        return Ok(false);
    };
    for target in &config.targets {
        if catalog.has_published(&target.name)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn behind(config: &Config, catalog: &Catalog) -> Result<Vec<String>, JobError> {
    let spool = config.state.join("spool");
    let mut names = Vec::new();
    for target in &config.targets {
        let waiting = waiting_snapshots(catalog, &target.name)?;
        let is_spooled =
            |name: &crate::format::manifest::ManifestName| spool.join(name.key().as_str()).exists();
        if waiting.iter().any(is_spooled) {
            names.push(target.name.clone());
        }
    }
    Ok(names)
}

/// Sends what waits in the spool to the targets `only`, or to all if none is named. Takes no
/// snapshot. Waits at most `wait` for another process that is at work.
pub(crate) fn run(
    config: &Config,
    only: &[String],
    wait: Duration,
    front: &dyn FrontEnd,
) -> Result<CatchUpReport, JobError> {
    let unknown = only.iter().find(|name| config.target(name).is_none());
    if let Some(unknown) = unknown {
        return Err(no_such_target(config, unknown));
    }
    let mut state = open_state_within(config, wait, front)?;
    let mut targets = Vec::new();
    for target in &config.targets {
        let has_published = state.catalog.has_published(&target.name)?;
        targets.push(open_for_push(target, &config.host, has_published)?);
    }
    let names = config.targets.iter().map(|target| target.name.clone());
    let is_wanted = |name: &String| only.is_empty() || only.contains(name);
    let behind_before = behind(config, &state.catalog)?;
    let names = names.filter(is_wanted);
    let request = CatchUpRequest {
        host: &config.host,
        trust: own_trust(config, front)?,
        targets: &targets,
        names: names.filter(|name| behind_before.contains(name)).collect(),
        spool_limit: config.spool_limit,
        recovery: recovery_files(),
    };
    let display = front.show_push();
    let progress = Arc::clone(&display.progress);
    let done = catch_up(&mut state, &request, &progress);
    drop(display);
    let done = done?;
    let targets: Vec<_> = done.targets.into_iter().map(PushedTarget::of).collect();
    let is_published = |target: &PushedTarget| target.state == PushedState::Published;
    Ok(CatchUpReport {
        complete: targets.iter().all(is_published) && done.warnings.is_empty(),
        notes: done.notes,
        warnings: done.warnings,
        targets,
    })
}
