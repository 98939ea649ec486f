//! The snapshots of this host in the order in which they were made, and which target has them.
//!
//! Tags and sources are in the snapshot's directory, as long as that is here, and afterwards in the
//! catalog.
//!
//! The job looks at targets that are folders of this machine: snapshots may have been removed
//! there, or brought by `sync`. For other targets it reports what the catalog remembers, and since
//! when; `status` asks them.

pub(crate) mod remote;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::context::{FrontEnd, open_catalog, runtime};
use super::error::JobError;
use super::local_retention::pins_of;
use super::local_snapshots;
use super::push::OrderedSnapshot;
use super::targets::{open_target, own_trust};
use crate::base::error_chain::with_causes;
use crate::base::ids::{Hash, Stamp};
use crate::base::progress::Stage;
use crate::base::snapshot_choice::SnapshotChoice;
use crate::config::{Config, TargetConfig};
use crate::format::manifest::ManifestName;
use crate::producer::{self, LeftoverKind, LocalSnapshot};
use crate::repository::HostFolder;
use crate::retention::{Pins, Reason, Reasons, TagMatch};
use crate::state::catalog::{Catalog, PublicationState, SnapshotAbout, SnapshotRow};
use crate::storage::{self, TargetError};

/// The snapshots of this host.
#[derive(Debug, Serialize)]
pub(crate) struct ListReport {
    /// The directory of local snapshots.
    pub(crate) backup_dir: String,
    /// Oldest first.
    pub(crate) backups: Vec<ListedSnapshot>,
    /// Directories of copies that failed their check.
    pub(crate) invalid: Vec<InvalidCopies>,
    /// Snapshots that are being made, or that a run left behind unfinished.
    pub(crate) unfinished: Vec<UnfinishedSnapshot>,
    /// When this host last noted what is on a target that it did not look at now, by target.
    pub(crate) as_of: BTreeMap<String, Option<DateTime<Utc>>>,
    /// Snapshots that are not listed because their tags are not known here; 0 without `--tag`.
    pub(crate) without_known_tags: u64,
    /// Why a target could not be looked at.
    pub(crate) warnings: Vec<String>,
}

/// A snapshot that is on this host, in the catalog, or both.
#[derive(Debug, Serialize)]
pub(crate) struct ListedSnapshot {
    pub(crate) stamp: Option<Stamp>,
    /// The time of the stamp.
    pub(crate) time: Option<DateTime<Utc>>,
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
    /// Names of the sources that it lacks because they failed. `None`: not known, as its directory
    /// is not here.
    pub(crate) lacks: Option<Vec<String>>,
    /// Its state on each configured target, such as `published`. `None`: the target is behind, or
    /// the snapshot was never packed.
    pub(crate) targets: BTreeMap<String, Option<String>>,
    /// `None`: this host does not know them.
    pub(crate) tags: Option<Vec<String>>,
    /// Names of the `on_request` sources that it holds, such as `chroma`. `None`: not known.
    pub(crate) on_request: Option<Vec<String>>,
    /// Why it stays whatever the retention policy says: `pinned`, or the alarm that keeps it.
    pub(crate) kept: Vec<String>,
    /// The content of its `backup-metadata.json`.
    pub(crate) metadata: Option<serde_json::Value>,
}

/// Copies of sources that failed their check and were kept aside.
#[derive(Debug, Serialize)]
pub(crate) struct InvalidCopies {
    /// Their directory.
    pub(crate) path: String,
    pub(crate) stamp: Option<Stamp>,
    /// Where in a snapshot they belong.
    pub(crate) sources: Vec<String>,
}

/// The directory of a snapshot that was not finished.
#[derive(Debug, Serialize)]
pub(crate) struct UnfinishedSnapshot {
    pub(crate) path: String,
    pub(crate) stamp: Option<Stamp>,
    /// Whether a run is making or deleting it now. False: the next backup removes it.
    pub(crate) is_in_use: bool,
}

/// A snapshot in the course of the job.
struct Row {
    local: Option<LocalSnapshot>,
    known: Option<SnapshotRow>,
    /// What the catalog remembers of its content.
    about: Option<SnapshotAbout>,
    /// By target.
    states: BTreeMap<String, Option<String>>,
}

/// Lists the snapshots of this host that `choice`, which is `latest` within bounds, admits.
pub(crate) fn run(
    config: &Config,
    choice: &SnapshotChoice,
    front: &dyn FrontEnd,
) -> Result<ListReport, JobError> {
    let catalog = open_catalog(config)?;
    let known = catalog.as_ref().map(Catalog::snapshots).transpose()?;
    let mut rows = rows(
        local_snapshots::ordered(config, front)?,
        known.map(|rows| rows.to_vec()).unwrap_or_default(),
    );
    let (mut warnings, mut as_of) = (Vec::new(), BTreeMap::new());
    for target in &config.targets {
        let shown = look(config, target, &rows, front)?;
        if let Some(Err(error)) = &shown {
            warnings.push(with_causes(error));
        }
        let is_remembered = !matches!(&shown, Some(Ok(_)));
        if let Some(catalog) = catalog.as_ref().filter(|_| is_remembered) {
            let noted = catalog.noted_at(&target.name)?;
            let noted = noted.and_then(|text| text.parse().ok());
            as_of.insert(target.name.clone(), noted);
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
    if let Some(catalog) = &catalog {
        for row in &mut rows {
            let core = row.known.as_ref().map(|known| known.known.core);
            row.about = core.map(|core| catalog.about(&core)).transpose()?.flatten();
        }
    }
    let pins = pins_of(config)?;
    let all = rows.into_iter();
    let mut backups: Vec<ListedSnapshot> = all
        .map(|row| ListedSnapshot::of(row, config, &pins))
        .collect();
    backups.retain(|one| {
        one.stamp
            .is_none_or(|stamp| choice.admits(stamp, one.sequence, [].into_iter()))
    });
    let mut without_known_tags = 0;
    if !choice.tags().is_empty() {
        without_known_tags = backups.iter().filter(|one| one.tags.is_none()).count() as u64;
        backups.retain(|one| {
            one.tags
                .as_ref()
                .is_some_and(|tags| has_all(choice.tags(), tags))
        });
    }
    let (invalid, unfinished) = leftovers(config)?;
    Ok(ListReport {
        backup_dir: config.snapshots_dir.display().to_string(),
        backups,
        invalid,
        unfinished,
        as_of,
        without_known_tags,
        warnings,
    })
}

/// Whether `tags` has each of `wanted`.
fn has_all(wanted: &[String], tags: &[String]) -> bool {
    wanted.iter().all(|tag| tags.contains(tag))
}

fn leftovers(config: &Config) -> Result<(Vec<InvalidCopies>, Vec<UnfinishedSnapshot>), JobError> {
    let (mut invalid, mut unfinished) = (Vec::new(), Vec::new());
    for one in producer::leftovers(&config.snapshots_dir)? {
        let (path, stamp) = (one.path.display().to_string(), one.stamp);
        match one.kind {
            LeftoverKind::Invalid(sources) => invalid.push(InvalidCopies {
                path,
                stamp,
                sources,
            }),
            LeftoverKind::Unfinished { is_in_use } => unfinished.push(UnfinishedSnapshot {
                path,
                stamp,
                is_in_use,
            }),
        }
    }
    Ok((invalid, unfinished))
}

impl Row {
    fn new(local: Option<LocalSnapshot>, known: Option<SnapshotRow>) -> Self {
        Self {
            local,
            known,
            about: None,
            states: BTreeMap::new(),
        }
    }

    fn stamp(&self) -> Option<Stamp> {
        let local = self.local.as_ref().map(|local| local.stamp);
        local.or(self.known.as_ref().map(|row| row.known.stamp))
    }

    /// Returns tags and sources, by its directory or else by the catalog.
    fn about(&self) -> Option<SnapshotAbout> {
        let metadata = self
            .local
            .as_ref()
            .and_then(|local| local.metadata.as_ref());
        let of_directory = metadata.and_then(local_snapshots::about);
        of_directory.or_else(|| self.about.clone())
    }
}

impl ListedSnapshot {
    fn of(row: Row, config: &Config, pins: &Pins) -> Self {
        let stamp = row.stamp();
        let about = row.about();
        let kept_tags = config.kept_tags();
        let metadata = row.local.as_ref().and_then(|local| local.metadata.as_ref());
        let tags = match (metadata, &about) {
            // That of another tool has no tags.
            (Some(_), None) if row.known.is_none() => TagMatch::None,
            (_, about) => kept_tags.of_tags(about.as_ref().map(|about| about.tags.as_slice())),
        };
        let known = row.known.as_ref();
        let path: Option<&PathBuf> = row.local.as_ref().map(|local| &local.path);
        let mut listed = Self {
            stamp,
            time: stamp.map(|stamp| stamp.time()),
            sequence: known.map(|row| row.known.sequence),
            bytes: known.map(|row| row.bytes),
            new_bytes: known.map(|row| row.new_bytes),
            path: path.map(|path| path.display().to_string()),
            valid: row.local.as_ref().and_then(|local| local.valid),
            lacks: None,
            targets: row.states,
            on_request: about.as_ref().map(|about| on_request(config, about)),
            kept: stamp.map_or_else(Vec::new, |stamp| kept(pins, &stamp, tags)),
            tags: about.map(|about| about.tags),
            metadata: row.local.and_then(|local| local.metadata),
        };
        listed.lacks = listed.left_out();
        listed
    }

    fn left_out(&self) -> Option<Vec<String>> {
        let sources = self.metadata.as_ref()?["sealift"]["sources"].as_array();
        let names = sources.into_iter().flatten();
        let names = names.filter_map(|source| source["left_out"]["source"].as_str());
        Some(names.map(str::to_owned).collect())
    }
}

/// Returns the names of the `on_request` sources that a snapshot holds.
fn on_request(config: &Config, about: &SnapshotAbout) -> Vec<String> {
    let sources = config.sources.iter().filter(|source| source.on_request);
    let held = sources.filter(|source| about.sources.contains(&source.to));
    held.map(|source| source.name.clone()).collect()
}

/// Returns why a snapshot stays whatever the policy says.
fn kept(pins: &Pins, stamp: &Stamp, tags: TagMatch) -> Vec<String> {
    let mut reasons = Reasons::new();
    match tags {
        TagMatch::None => {}
        TagMatch::Kept => drop(reasons.insert(Reason::Tagged)),
        TagMatch::Unknown => drop(reasons.insert(Reason::TagsUnknown)),
    }
    if pins.holds(stamp) {
        reasons.insert(Reason::Pinned);
        pins.explain(stamp, &mut reasons);
    }
    reasons.iter().map(ToString::to_string).collect()
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
