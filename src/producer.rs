//! Makes a snapshot from the configured sources: a stamped directory of copies, validated before it
//! gets its name.
//!
//! The copies are made in `.partial-<stamp>`, checked, and appear as `<stamp>` by one rename.
//!
//! - A source that fails is left out, and the others are taken. If a `required` source fails, or
//!   all do, there is no snapshot.
//! - A copy that fails its check is kept in `invalid-<stamp>` and never packed.
//! - Trees with `stage = false` are not copied: they become parts that the packer reads in place.
//! - The snapshot lists what was left out. A run with such a list does not count as complete.
//!
//! Crash argument: see `snapshot_dir`. A run that died leaves a partial directory, which the next
//! run removes.

mod atocore;
mod atocore_error;
mod backup_metadata;
mod command_stderr;
mod conclude;
mod copy_file;
mod copy_meter;
mod demands;
mod error;
mod freed_bytes;
mod hardlink_unchanged;
mod hooks;
mod json;
mod leftovers;
mod local_snapshots;
mod probe_file;
mod run_hook;
mod snapshot_dir;
mod snapshot_path;
mod source_roots;
mod stage_tree;
mod staged_files;
mod substitute;
mod survey;
mod take_source;
mod taken_source;
mod validate;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::base::ids::Stamp;
use crate::base::openat::Chosen;
use crate::base::progress::{Progress, ProgressEvent, Stage};
use crate::config::{Config, Source};
use crate::state::staged_snapshot::StagedSnapshot;

use conclude::{assemble, describe, give_up, is_lost, set_aside, write_aside};
use copy_meter::CopyMeter;
use error::failed;
use snapshot_dir::{PendingSnapshot, Validity};
use snapshot_path::snapshot_path;
use substitute::Substitute;
use take_source::SourceTaker;
use taken_source::TakenSource;
use validate::{Checker, Findings};

pub use atocore_error::AtoCoreError;
pub use backup_metadata::Validation;
pub(crate) use copy_file::{CopyMtime, Original, dress, dress_entry};
pub use error::{ProduceError, SourceError};
pub use freed_bytes::freed_bytes;
pub use leftovers::{Leftover, LeftoverKind, leftovers};
pub use local_snapshots::{
    InPlaceTrees, LocalSnapshot, SnapshotFacts, SourceFacts, delete, facts_of, from_dir,
    in_place_of, left_out_of, list,
};
pub(crate) use run_hook::RunHook;
pub use survey::{DroppedTotal, SourceSurvey, Surveyor, find_source};
pub use validate::validate;

/// Which files of a staged tree are read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reread {
    /// Those that look changed since the last snapshot.
    #[default]
    Changed,
    /// All of them: something may have changed files without a trace.
    Everything,
}

/// The parameters of one run, beyond the configuration.
#[derive(Debug, Clone)]
pub struct ProduceRequest {
    /// Names of `on_request` sources to take in this run.
    pub include: Vec<String>,
    /// The snapshot's tags.
    pub tags: Vec<String>,
    /// The operator's note on the snapshot, if any.
    pub note: Option<String>,
    /// The time of the run; the snapshot's stamp is this second or the next free one.
    pub now: DateTime<Utc>,
    /// The directory of the previous snapshot: unchanged files become hard links to its files.
    /// `None`: every file is copied.
    pub previous: Option<PathBuf>,
    /// Stamps of snapshots that were packed. Their directories may be gone, and the stamps name
    /// them on the targets.
    pub taken: BTreeSet<Stamp>,
    /// Which files of staged trees are read again.
    pub reread: Reread,
}

/// A snapshot that is valid and has its name.
#[derive(Debug)]
pub struct Produced {
    /// The snapshot, ready for the packer.
    pub snapshot: StagedSnapshot,
    /// The path of the snapshot's directory.
    pub dir: PathBuf,
    /// The content of `backup-metadata.json`.
    pub metadata: serde_json::Value,
    /// Remarks for the operator; nothing is missing because of them.
    pub notes: Vec<String>,
    /// Possible defects of the snapshot that no check can show.
    pub warnings: Vec<String>,
    /// How long each source was copied for, by name.
    pub took: Vec<(String, Duration)>,
}

/// Makes a snapshot of the configured sources, or has AtoCore make it.
pub fn produce(
    config: &Config,
    request: &ProduceRequest,
    progress: &dyn Progress,
) -> Result<Produced, ProduceError> {
    if let Some(source) = &config.atocore {
        return atocore::produce(config, source, request, progress);
    }
    let wanted = wanted_sources(config, &request.include)?;
    produce_copies(config, request, wanted, None, progress)
}

/// Makes a snapshot of the `wanted` sources.
fn produce_copies(
    config: &Config,
    request: &ProduceRequest,
    wanted: Vec<&Source>,
    substitute: Option<&Substitute<'_>>,
    progress: &dyn Progress,
) -> Result<Produced, ProduceError> {
    let snapshots_dir = config.snapshots_dir.as_path();
    let at_dir = |what| failed(what, snapshots_dir);
    let mut notes: BTreeSet<String> = snapshot_dir::clear_stale(snapshots_dir)
        .map_err(at_dir("read the snapshots directory"))?
        .into_iter()
        .collect();
    let mut pending = PendingSnapshot::create(snapshots_dir, request.now, &request.taken)
        .map_err(at_dir("make a snapshot directory in"))?;
    let taker = SourceTaker {
        config,
        stamp: pending.stamp,
        dir: &pending.partial,
        previous: request
            .previous
            .as_deref()
            .and_then(local_snapshots::previous),
        meter: &CopyMeter::default(),
        reread: request.reread,
    };
    let mut took = Vec::new();
    let taken = taker.meter.report_during(progress, || {
        take_all(&taker, &pending, wanted, progress, &mut took)
    });
    let mut taken = taken?;
    if let Some(substitute) = substitute {
        substitute.note(&mut taken);
    }
    notes.extend(taken.iter().flat_map(|one| one.notes.iter().cloned()));
    let mut found = check_all(&pending, &taken, progress);
    if is_lost(&taken, &found) {
        return Err(give_up(config, request, pending, taken, found)?);
    }
    for (one, found) in taken.iter_mut().zip(&mut found) {
        if !found.errors.is_empty() {
            let found = std::mem::take(found);
            notes.extend(set_aside(&mut pending, one, found));
        }
    }
    notes.extend(found.iter().flat_map(|found| found.notes.iter().cloned()));
    let metadata = describe(config, request, &pending, &taken, found, Validity::Valid);
    let value = metadata.write(&pending.partial);
    let value = value.map_err(failed("write the metadata of", pending.partial.path()))?;
    write_aside(config, request, &pending, &taken)?;
    let stamp = pending.stamp;
    let has_aside = pending.aside().is_some();
    let published = pending.publish(Validity::Valid).and_then(Chosen::of_dir);
    let published = published.map_err(at_dir("put the snapshot in its place in"))?;
    if has_aside {
        notes.extend(snapshot_dir::bound_invalid(snapshots_dir, stamp));
    }
    let dir = published.path().to_owned();
    // If this fails, the next snapshot copies more than it must, nothing worse.
    notes.extend(taken.iter().filter_map(|one| one.save_draft(stamp)));
    Ok(Produced {
        warnings: taken.iter().filter_map(|one| one.warning.clone()).collect(),
        snapshot: assemble(config, metadata, published, stamp, taken),
        dir,
        metadata: value,
        notes: notes.into_iter().collect(),
        took,
    })
}

/// Takes the sources one after the other, and notes how long each `took`. Leaves out those that
/// fail and are not required.
fn take_all(
    taker: &SourceTaker<'_>,
    pending: &PendingSnapshot,
    wanted: Vec<&Source>,
    progress: &dyn Progress,
    took: &mut Vec<(String, Duration)>,
) -> Result<Vec<TakenSource>, ProduceError> {
    let mut all: Vec<TakenSource> = Vec::new();
    let mut errors = Vec::new();
    for source in wanted {
        taker.meter.begin();
        begin(progress, Stage::Producing, &source.name);
        let began = Instant::now();
        let taken = taker.take(source);
        took.push((source.name.clone(), began.elapsed()));
        let error = match taken {
            Ok(taken) => {
                all.push(taken);
                continue;
            }
            Err(error) => error,
        };
        let failed = |error| ProduceError::Source {
            name: source.name.clone(),
            source: Box::new(error),
        };
        if source.required {
            return Err(failed(error));
        }
        // Half a copy is useless, and the next source may need its space.
        let discarded = pending.discard(&snapshot_path(&source.to));
        let mut taken = TakenSource::failed(source, &error);
        taken.notes.extend(discarded.err().map(|error| {
            format!(
                "cannot remove the incomplete copy of the source {:?}: {error}",
                source.name
            )
        }));
        all.push(taken);
        errors.push(failed(error));
    }
    if all.iter().any(|one| one.entry.present) || errors.is_empty() {
        return Ok(all);
    }
    Err(match errors.pop() {
        Some(only) if errors.is_empty() => only,
        _ => ProduceError::EverySource {
            failed: all
                .into_iter()
                .filter_map(|one| one.entry.left_out)
                .collect(),
        },
    })
}

fn begin(progress: &dyn Progress, stage: Stage, source: &str) {
    let subject = Some(source);
    progress.report(&ProgressEvent::StageStarted { stage, subject });
}

/// Checks each source's copy.
fn check_all(
    pending: &PendingSnapshot,
    taken: &[TakenSource],
    progress: &dyn Progress,
) -> Vec<Findings> {
    let mut checker = Checker::new(&pending.partial);
    let check = |one: &TakenSource| {
        begin(progress, Stage::Validating, &one.entry.name);
        checker.check(&one.entry, one.databases.as_deref());
        checker.take()
    };
    taken.iter().map(check).collect()
}

/// Returns the sources of this run, in the configuration's order.
pub fn wanted_sources<'a>(
    config: &'a Config,
    include: &[String],
) -> Result<Vec<&'a Source>, ProduceError> {
    if config.sources.is_empty() {
        return Err(ProduceError::NoSources);
    }
    let names = || config.sources.iter().map(|source| source.name.clone());
    for name in include {
        if !names().any(|known| known == *name) {
            return Err(ProduceError::UnknownInclude {
                name: name.clone(),
                known: names().collect(),
            });
        }
    }
    let wanted = |source: &&Source| !source.on_request || include.contains(&source.name);
    Ok(config.sources.iter().filter(wanted).collect())
}
