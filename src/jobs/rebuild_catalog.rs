//! Rebuilds a lost, damaged or doubted catalog from what the targets show.
//!
//! Without an identity it learns the host's snapshots; the content of their archives stays sealed,
//! and the next push stores everything again. With an identity an index can be read. If the content
//! that the index describes is still on this host, or can be fetched ([`learn`]), the next push is
//! as small as if nothing had happened.
//!
//! Tags and sources of the snapshots come from the old catalog, from the directories on this host,
//! and with an identity from the indexes. Of the others they stay unknown.
//!
//! The new catalog replaces the old one in one step once it is
//! complete, and the old one is kept beside it.

mod learn;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::context::{FrontEnd, open_state};
use super::error::JobError;
use super::kept_tags;
use super::push::carried_over::CarriedOver;
use super::push::inspect_targets::inspect_targets;
use super::push::lineage::{Reconciled, reconcile};
use super::push::looks::LookPlan;
use super::push::{PushError, Target};
use super::targets::{open_all, own_trust};
use crate::base::clock;
use crate::base::error_chain::with_causes;
use crate::base::ids::{Hash, HostName, Stamp};
use crate::base::progress::Stage;
use crate::base::runtime::runtime;
use crate::config::Config;
use crate::format::index::EntryList;
use crate::format::signature::Trust;
use crate::packer::reindex::{Reindexed, Root, reindex};
use crate::restore::open::Identities;
use crate::state::State;
use crate::state::catalog::{Catalog, CatalogError, NewArchive, SnapshotAbout};
use learn::Learning;

const NEW: &str = "catalog.new.db";

/// Request of a rebuild.
pub(crate) struct RebuildRequest {
    /// Identities that open the newest snapshot. `None`: its content stays unknown.
    pub(crate) identities: Option<Arc<Identities>>,
    pub(crate) fetching: Fetching,
    /// Directory for fetched files. `None`: the system's directory for temporary files.
    pub(crate) scratch: Option<PathBuf>,
}

/// Whether to fetch content that is not on this host any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fetching {
    /// Fetch it.
    Missing,
    /// Fetch the index only: the next push stores that content again.
    IndexOnly,
}

/// Report of a rebuild.
#[derive(Debug, Serialize)]
pub(crate) struct RebuildReport {
    pub(crate) snapshots: usize,
    /// Number of snapshots whose tags and sources are not known: only an identity can decrypt them.
    pub(crate) without_known_tags: usize,
    /// `None` without an identity, or if there is no snapshot.
    pub(crate) content: Option<LearnedContent>,
    /// Path of the old catalog. `None` if there was none.
    pub(crate) kept: Option<PathBuf>,
    pub(crate) warnings: Vec<String>,
}

/// Content of the newest snapshot that the catalog knows again.
#[derive(Debug, Serialize)]
pub(crate) struct LearnedContent {
    /// The snapshot's stamp.
    pub(crate) stamp: String,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) chunks: u64,
    /// Those of the files that had to be fetched.
    pub(crate) fetched_files: u64,
    /// Files that the next push stores again.
    pub(crate) unknown_files: u64,
}

/// Rebuilds the catalog of this host.
pub(crate) fn run(
    config: &Config,
    request: RebuildRequest,
    front: &dyn FrontEnd,
) -> Result<RebuildReport, JobError> {
    let trust = own_trust(config, front)?;
    let targets = open_all(config)?;
    let state = open_state(config, front)?;
    let unchanged = |error: JobError| {
        front.warn("nothing was rebuilt; the catalog is unchanged");
        error
    };
    front.stage(Stage::Rebuilding, None);
    let begun = Rebuild::begin(state, &config.host, &targets, &trust);
    let mut rebuild = begun.map_err(|error| unchanged(error.into()))?;
    let here = kept_tags::of_directories(config, &rebuild.state.catalog);
    let learned = here.and_then(|mut here| {
        // The old catalog has what was packed; programs may write into a directory.
        let unknown = rebuild.unknown()?;
        here.retain(|core, _| unknown.contains(core));
        Ok(rebuild.learn_about(here)?)
    });
    learned.map_err(unchanged)?;
    let content = match request.identities {
        Some(identities) if rebuild.snapshots > 0 => {
            let learning = Learning {
                front,
                config,
                trust: &trust,
                identities,
                fetching: request.fetching,
                scratch: request.scratch.as_deref(),
            };
            let tags = learning.learn_tags(&targets, &mut rebuild);
            tags.map_err(unchanged)?;
            let learned = learning.learn(&targets, &mut rebuild);
            Some(learned.map_err(unchanged)?)
        }
        _ => None,
    };
    Ok(RebuildReport {
        without_known_tags: rebuild.unknown()?.len(),
        snapshots: rebuild.snapshots,
        content,
        warnings: std::mem::take(&mut rebuild.notes),
        kept: rebuild.finish()?,
    })
}

/// A new catalog in the making. If it is dropped before [`Rebuild::finish`], the old one stays.
#[derive(Debug)]
struct Rebuild {
    state: State,
    _file: NewFile,
    /// Live snapshots that the targets showed.
    snapshots: usize,
    /// Messages for the operator.
    notes: Vec<String>,
}

/// Tags and sources of snapshots, by the hashes of their cores.
type AboutSnapshots = HashMap<Hash, SnapshotAbout>;

impl Rebuild {
    /// Learns every snapshot that `targets` show. Each target must answer: what it has and does not
    /// show would be stored again.
    fn begin(
        mut state: State,
        host: &HostName,
        targets: &[Target],
        trust: &Trust,
    ) -> Result<Self, PushError> {
        let carried = CarriedOver::of(&state.catalog)?;
        // Nothing else may remember them. What the old catalog cannot show any more is not known.
        let about = state.catalog.all_about().unwrap_or_default();
        let path = state.dir.join(NEW);
        remove(&path).map_err(failed("remove", &path))?;
        let file = NewFile(path.clone());
        // Closes every connection to the old catalog, which checkpoints its log.
        state.catalog = Catalog::open(&path)?;
        carried.write(&state.catalog)?;
        let runtime = runtime().map_err(PushError::Runtime)?;
        let looks = LookPlan::whole(targets);
        let inspected_targets = runtime.block_on(inspect_targets(
            &state,
            host,
            targets,
            trust,
            &looks,
            &|_, _| {},
        ))?;
        for inspected in &inspected_targets {
            if let Err(error) = &inspected.seen {
                return Err(PushError::NotSeen {
                    target: inspected.folder.target.label().to_owned(),
                    why: with_causes(error),
                });
            }
        }
        let Reconciled {
            lineage, warnings, ..
        } = reconcile(&mut state, host, &inspected_targets)?;
        let mut rebuild = Self {
            state,
            _file: file,
            snapshots: lineage.known.len(),
            notes: warnings,
        };
        rebuild.learn_about(about)?;
        Ok(rebuild)
    }

    /// Takes over tags and sources of those snapshots that the catalog knows.
    fn learn_about(&mut self, about: AboutSnapshots) -> Result<(), CatalogError> {
        let catalog = &self.state.catalog;
        for row in catalog.snapshots()?.iter() {
            if let Some(about) = about.get(&row.known.core) {
                catalog.remember_about(&row.known.core, about)?;
            }
        }
        Ok(())
    }

    /// Returns the hashes of the cores of the snapshots whose tags and sources are not known.
    fn unknown(&self) -> Result<HashSet<Hash>, CatalogError> {
        let catalog = &self.state.catalog;
        let known = catalog.all_about()?;
        let rows = catalog.snapshots()?;
        let cores = rows.iter().map(|row| row.known.core);
        Ok(cores.filter(|core| !known.contains_key(core)).collect())
    }

    /// Learns where the content of a snapshot is stored, as far as `roots` hold that content. If
    /// `paths` are given, learns these only. `recipients` are all sets that archives may be sealed
    /// to.
    fn learn(
        &mut self,
        archives: &[NewArchive],
        recipients: &[Vec<String>],
        entries: &EntryList,
        roots: &[Root],
        paths: Option<&HashSet<Vec<u8>>>,
    ) -> Result<Reindexed, PushError> {
        let catalog = &mut self.state.catalog;
        for set in recipients {
            catalog.remember_recipients(set)?;
        }
        Ok(reindex(catalog, archives, entries, roots, paths)?)
    }

    /// Puts the new catalog in the place of the old one. Returns where the old one is kept, `None`
    /// if there was none.
    fn finish(self) -> Result<Option<PathBuf>, PushError> {
        // After the rename, the drop of `_file` finds nothing to remove.
        let Self { state, _file, .. } = self;
        let (dir, lock) = state.close()?;
        let (new, path) = (dir.join(NEW), dir.join("catalog.db"));
        let kept = match path.exists() {
            true => {
                let stamp = Stamp::at(clock::now()).map_err(std::io::Error::other);
                let stamp = stamp.map_err(failed("keep", &path))?;
                let aside = dir.join(format!("catalog.replaced-{stamp}.db"));
                let _ = fs::remove_file(&aside);
                fs::hard_link(&path, &aside).map_err(failed("keep", &path))?;
                Some(aside)
            }
            false => None,
        };
        // A process that has the old catalog open keeps its log: beside the new one, SQLite would
        // play it into that.
        remove_beside(&path, &["-wal", "-shm"]).map_err(failed("remove the log of", &path))?;
        fs::rename(&new, &path).map_err(failed("replace", &path))?;
        crate::base::fs::sync_dir(&dir).map_err(failed("flush", &dir))?;
        drop(lock);
        Ok(kept)
    }
}

fn failed(operation: &'static str, path: &Path) -> impl Fn(std::io::Error) -> PushError + use<> {
    let path = path.display().to_string();
    move |source| PushError::State {
        operation,
        path: path.clone(),
        source,
    }
}

/// The new catalog's file, which is removed on drop with the files that SQLite keeps beside it.
#[derive(Debug)]
struct NewFile(PathBuf);

impl Drop for NewFile {
    fn drop(&mut self) {
        let _ = remove(&self.0);
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    remove_beside(path, &["", "-wal", "-shm"])
}

/// Removes the files whose names are `path` and one of `endings`.
fn remove_beside(path: &Path, endings: &[&str]) -> std::io::Result<()> {
    for ending in endings {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        match fs::remove_file(name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
