//! Adds targets to a host's configuration, removes one, and tries them again.

use serde::Serialize;

use super::config_edit::{EditReport, EditedConfig};
use super::context::{FrontEnd, open_catalog};
use super::error::JobError;
use super::init::TriedTarget;
use super::init::try_targets::{Occasion, try_all};
use super::targets::no_such_target;
use crate::config::{Config, NewTarget, TableKind, TargetConfig, render_target};
use crate::state::catalog::{Catalog, CatalogError, PublicationState};
use crate::storage::TargetSpec;

/// Report of added targets.
#[derive(Debug, Serialize)]
pub(crate) struct AddedTargets {
    #[serde(flatten)]
    pub(crate) edit: EditReport,
    pub(crate) targets: Vec<TriedTarget>,
}

/// Report of a removed target.
#[derive(Debug, Serialize)]
pub(crate) struct RemovedTarget {
    #[serde(flatten)]
    pub(crate) edit: EditReport,
    /// Its URL, without secrets.
    pub(crate) url: String,
    /// Number of snapshots that no other configured target has.
    pub(crate) snapshots_only_there: u64,
    /// Number of targets that are left.
    pub(crate) targets_left: usize,
}

/// Adds the targets to the configuration, then tries them.
pub(crate) fn add(
    config: &Config,
    new: &[NewTarget],
    front: &dyn FrontEnd,
) -> Result<AddedTargets, JobError> {
    let mut edited = EditedConfig::open(config)?;
    for target in new {
        edited.add_target(target)?;
    }
    let blocks: Vec<String> = new.iter().map(render_target).collect();
    edited.save(Some(&blocks.join("\n")))?;
    let names: Vec<String> = new.iter().map(|target| target.name.clone()).collect();
    let mut after = edited.config().clone();
    after.set_patience(&config.patience);
    let added = after
        .targets
        .iter()
        .filter(|target| names.contains(&target.name));
    let targets = try_all(&after, added, Occasion::Added, front)?;
    let edit = edited.report(names, Vec::new());
    Ok(AddedTargets { edit, targets })
}

/// Removes the target `name` from the configuration. What is stored there stays.
pub(crate) fn remove(config: &Config, name: &str) -> Result<RemovedTarget, JobError> {
    let mut edited = EditedConfig::open(config)?;
    let removed = edited.config().target(name);
    let removed = removed.ok_or_else(|| no_such_target(config, name))?;
    let url = TargetSpec::from_url(&removed.url).label();
    edited.remove(TableKind::Target, name)?;
    // Counted before the file changes: a catalog that cannot be read stops the removal.
    let snapshots_only_there = match open_catalog(config)? {
        Some(catalog) => only_on(&catalog, name, &edited.config().targets)?,
        None => 0,
    };
    edited.save(None)?;
    Ok(RemovedTarget {
        url,
        snapshots_only_there,
        targets_left: edited.config().targets.len(),
        edit: edited.report(Vec::new(), vec![name.to_owned()]),
    })
}

/// Returns how many snapshots the target `name` has and none of `others`, as the catalog knows it.
fn only_on(catalog: &Catalog, name: &str, others: &[TargetConfig]) -> Result<u64, CatalogError> {
    let mut elsewhere = Vec::new();
    for other in others {
        elsewhere.push(catalog.publications(&other.name)?);
    }
    let is_there = |state: Option<&PublicationState>| state == Some(&PublicationState::Published);
    let here = catalog.publications(name)?;
    let only = here.iter().filter(|(core, state)| {
        let is_elsewhere = elsewhere.iter().any(|states| is_there(states.get(*core)));
        is_there(Some(*state)) && !is_elsewhere
    });
    Ok(only.count() as u64)
}

/// Tries the targets with these names, or all if there are none.
pub(crate) fn test(
    config: &Config,
    names: &[String],
    front: &dyn FrontEnd,
) -> Result<Vec<TriedTarget>, JobError> {
    if let Some(name) = names.iter().find(|name| config.target(name).is_none()) {
        return Err(no_such_target(config, name));
    }
    if config.targets.is_empty() {
        return Err(JobError::request("no target is configured")
            .with_next("add one: sealift target add URL"));
    }
    let is_chosen = |target: &&TargetConfig| names.is_empty() || names.contains(&target.name);
    let chosen = config.targets.iter().filter(is_chosen);
    try_all(config, chosen, Occasion::Again, front)
}
