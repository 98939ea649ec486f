//! The snapshots of this host in the order in which they were made, and which target has them.
//!
//! The job looks at targets that are folders of this machine: snapshots may have been removed
//! there, or brought by `sync`. For other targets it reports what the catalog remembers; `status`
//! asks them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use serde::Serialize;

use super::context::{FrontEnd, open_catalog, runtime};
use super::error::JobError;
use super::local_snapshots;
use super::push::OrderedSnapshot;
use super::targets::{open_target, own_trust};
use crate::base::error_chain::with_causes;
use crate::base::ids::{Hash, Stamp};
use crate::base::progress::Stage;
use crate::config::{Config, TargetConfig};
use crate::format::manifest::ManifestName;
use crate::producer::LocalSnapshot;
use crate::repository::HostFolder;
use crate::state::catalog::{Catalog, PublicationState, SnapshotRow};
use crate::storage::{self, TargetError};

/// The snapshots of this host.
#[derive(Debug, Serialize)]
pub(crate) struct ListReport {
    /// The directory of local snapshots.
    pub(crate) backup_dir: String,
    /// Oldest first.
    pub(crate) backups: Vec<ListedSnapshot>,
    /// Why a target could not be looked at.
    #[serde(skip)]
    pub(crate) warnings: Vec<String>,
}

/// A snapshot that is on this host, in the catalog, or both.
#[derive(Debug, Serialize)]
pub(crate) struct ListedSnapshot {
    pub(crate) stamp: Option<Stamp>,
    /// `None`, as the next two: it was never packed.
    pub(crate) sequence: Option<u64>,
    /// Bytes of its files.
    pub(crate) bytes: Option<u64>,
    /// Bytes that no earlier snapshot had.
    pub(crate) new_bytes: Option<u64>,
    /// Its directory. `None`: it is not on this host any more.
    pub(crate) path: Option<String>,
    /// Whether its directory is valid. `None`: it is not there, or was not validated.
    pub(crate) valid: Option<bool>,
    /// Names of the sources that it lacks because they failed.
    pub(crate) lacks: Vec<String>,
    /// Its state on each configured target, such as `published`. `None`: the target is behind, or
    /// the snapshot was never packed.
    pub(crate) targets: BTreeMap<String, Option<String>>,
    /// The content of its `backup-metadata.json`.
    pub(crate) metadata: Option<serde_json::Value>,
}

/// A snapshot in the course of the job.
struct Row {
    local: Option<LocalSnapshot>,
    known: Option<SnapshotRow>,
    /// By target.
    states: BTreeMap<String, Option<String>>,
}

/// Lists the snapshots of this host.
pub(crate) fn run(config: &Config, front: &dyn FrontEnd) -> Result<ListReport, JobError> {
    let catalog = open_catalog(config)?;
    let known = catalog.as_ref().map(Catalog::snapshots).transpose()?;
    let mut rows = rows(
        local_snapshots::ordered(config, front)?,
        known.map(|rows| rows.to_vec()).unwrap_or_default(),
    );
    let mut warnings = Vec::new();
    for target in &config.targets {
        let shown = look(config, target, &rows, front)?;
        if let Some(Err(error)) = &shown {
            warnings.push(with_causes(error));
        }
        let shown = shown.as_ref().map(Result::as_ref);
        for row in &mut rows {
            let state = match (&catalog, &row.known) {
                (Some(catalog), Some(known)) => {
                    let remembered = catalog.publication(&target.name, &known.known.core)?;
                    state(remembered, known, shown)
                }
                _ => None,
            };
            row.states.insert(target.name.clone(), state);
        }
    }
    Ok(ListReport {
        backup_dir: config.snapshots_dir.display().to_string(),
        backups: rows.into_iter().map(ListedSnapshot::of).collect(),
        warnings,
    })
}

impl Row {
    fn new(local: Option<LocalSnapshot>, known: Option<SnapshotRow>) -> Self {
        Self {
            local,
            known,
            states: BTreeMap::new(),
        }
    }

    fn stamp(&self) -> Option<Stamp> {
        let local = self.local.as_ref().map(|local| local.stamp);
        local.or(self.known.as_ref().map(|row| row.known.stamp))
    }
}

impl ListedSnapshot {
    fn of(row: Row) -> Self {
        let stamp = row.stamp();
        let known = row.known.as_ref();
        let path: Option<&PathBuf> = row.local.as_ref().map(|local| &local.path);
        let mut listed = Self {
            stamp,
            sequence: known.map(|row| row.known.sequence),
            bytes: known.map(|row| row.bytes),
            new_bytes: known.map(|row| row.new_bytes),
            path: path.map(|path| path.display().to_string()),
            valid: row.local.as_ref().and_then(|local| local.valid),
            lacks: Vec::new(),
            targets: row.states,
            metadata: row.local.and_then(|local| local.metadata),
        };
        listed.lacks = listed.left_out();
        listed
    }

    fn left_out(&self) -> Vec<String> {
        let sources = self.metadata.as_ref();
        let sources = sources.and_then(|all| all["sealift"]["sources"].as_array());
        let names = sources.into_iter().flatten();
        let names = names.filter_map(|source| source["left_out"]["source"].as_str());
        names.map(str::to_owned).collect()
    }

    /// Returns its tags, as far as its directory is still on this host.
    pub(crate) fn tags(&self) -> Vec<&str> {
        let tags = self.metadata.as_ref();
        let tags = tags.and_then(|all| all["sealift"]["tags"].as_array());
        let tags = tags.into_iter().flatten();
        tags.filter_map(serde_json::Value::as_str).collect()
    }
}

/// Merges local and packed snapshots. A directory belongs to the last snapshot of its stamp.
fn rows(local: Vec<OrderedSnapshot>, known: Vec<SnapshotRow>) -> Vec<Row> {
    let mut by_sequence: BTreeMap<u64, Vec<Row>> = BTreeMap::new();
    let mut last_of: HashMap<Stamp, u64> = HashMap::new();
    for row in known {
        let sequence = row.known.sequence;
        last_of.insert(row.known.stamp, sequence);
        let same = by_sequence.entry(sequence).or_default();
        same.push(Row::new(None, Some(row)));
    }
    let mut before = 0;
    for one in local {
        before = one.sequence.unwrap_or(before);
        let (stamp, after) = (one.snapshot.stamp, by_sequence.entry(before).or_default());
        let is_same = |row: &&mut Row| row.stamp() == Some(stamp) && row.local.is_none();
        let packed = match one.sequence == last_of.get(&stamp).copied() {
            true => after.iter_mut().rev().find(is_same),
            false => None,
        };
        match packed {
            Some(row) => row.local = Some(one.snapshot),
            None => after.push(Row::new(Some(one.snapshot), None)),
        }
    }
    by_sequence.into_values().flatten().collect()
}

/// Snapshots on a target.
struct ShownThere {
    manifests: HashSet<ManifestName>,
    /// Core hashes of snapshots that trusted tombstones declare as deleted.
    deleted: HashSet<Hash>,
}

/// Looks at a target, if it is a folder of this machine that this host can read.
fn look(
    config: &Config,
    target: &TargetConfig,
    rows: &[Row],
    front: &dyn FrontEnd,
) -> Result<Option<Result<ShownThere, TargetError>>, JobError> {
    if target.write_only || storage::folder_path(&target.url).is_none() {
        return Ok(None);
    }
    front.stage(Stage::InspectingTargets, Some(&target.name));
    let opened = open_target(target)?;
    let folder = HostFolder::new(opened.target, config.host.clone());
    // Without its own signer this host believes no deletions.
    let trust = own_trust(config, front).ok();
    let shown = runtime()?.block_on(async {
        let manifests = HashSet::from_iter(folder.manifest_names().await?);
        let known = rows.iter().filter_map(|row| row.known.as_ref());
        let absent = known.filter(|known| !manifests.contains(&known.name));
        let absent = absent.map(|known| (known.known.sequence, known.known.stamp));
        let deleted = match &trust {
            Some(trust) => folder.deletions(trust, &[], &absent.collect()).await?,
            None => HashSet::new(),
        };
        Ok(ShownThere { manifests, deleted })
    });
    Ok(Some(shown))
}

/// Returns the state of a snapshot on a target: `published`, `gone` and so on.
fn state(
    remembered: Option<PublicationState>,
    row: &SnapshotRow,
    shown: Option<Result<&ShownThere, &TargetError>>,
) -> Option<String> {
    match (shown, remembered) {
        (Some(Ok(shown)), _) if shown.manifests.contains(&row.name) => Some("published".to_owned()),
        (Some(Ok(shown)), _) if shown.deleted.contains(&row.known.core) => {
            Some("pruned".to_owned())
        }
        (Some(Ok(_)), Some(PublicationState::Published)) => Some("gone".to_owned()),
        (Some(Err(_)), Some(PublicationState::Published)) => Some("not seen".to_owned()),
        _ => remembered.map(|state| state.to_string()),
    }
}
