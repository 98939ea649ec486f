//! Makes snapshots visible on a target.
//!
//! A manifest on a target must name only archives that are complete there, so [`publish_all`]
//! believes nothing of what was shipped before. It reads the table that the manifest names and
//! looks which of its objects are there now, object by object, or in a listing if that costs less.
//! Then it ships what is missing or has the wrong size, then the pages, then the signature, and the
//! manifest last.
//!
//! A snapshot that a full target has no room for is left out, and a later one that fits is
//! published without it. Whatever step a run dies at, the manifest is not there yet, and the next
//! run finds the rest in the spool, from which nothing is removed here.
//!
//! Two kinds of targets show less than that:
//!
//! - A listing may lag, so an archive that this run uploaded and the target confirmed is requested
//!   by key before it counts as missing.
//! - Write-only credentials show nothing, so the catalog's memory and the confirmed uploads must
//!   do.

mod named;
mod plan;
mod present;
mod put;
mod recovery;
mod ship;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use bytes::Bytes;

use super::error::ShipError;
use super::upload::UploadTracker;
use crate::base::ids::{Hash, ObjectKey};
use crate::format::manifest::{ArchiveRow, Manifest, ManifestName};
use crate::repository::HostFolder;
use crate::state::spool::Spool;
use named::require_all_listed;
use plan::Plan;

pub use recovery::publish_recovery;

const PUBLISH_CONCURRENCY: usize = 4;
/// Keys that an error names, of more.
const NAMED_MISSING: usize = 3;

/// A snapshot to make visible. Its signature and pages are in the spool, in memory here, or on the
/// target already.
#[derive(Debug, Clone)]
pub struct Publication {
    /// The manifest, with its bytes.
    pub manifest: Manifest,
    /// Every archive that the manifest's table names.
    pub archives: Vec<ArchiveRow>,
    /// Every page of earlier snapshots that the manifest names, and every directory of such pages.
    pub known: Vec<Hash>,
    /// Pages and directories that are in memory, by name.
    pub at_hand: HashMap<Hash, Bytes>,
}

/// What a publication may use in addition to the spool.
#[derive(Debug, Default)]
pub struct Support {
    /// Folders on other targets, to copy archives from that neither the target nor the spool has.
    pub copy_sources: Vec<HostFolder>,
    /// Another target that could be copied from does not answer now.
    pub copy_sources_away: bool,
    /// Archives that were found damaged on a copy source.
    pub damaged: HashSet<Hash>,
    /// A directory for archives that are being copied.
    pub scratch: PathBuf,
    /// Archives that this run uploaded and the target confirmed.
    pub confirmed: HashSet<Hash>,
    /// If the target cannot be listed or read: the archives, with their sizes, that this host
    /// remembers to be there.
    pub remembered: Option<HashMap<Hash, u64>>,
}

/// What came of [`publish_all`].
#[derive(Debug, Default)]
pub struct Published {
    /// Snapshots that the target has now, in the order of the publications.
    pub done: Vec<ManifestName>,
    /// Snapshots that cannot be published, because an object of theirs is nowhere.
    pub incomplete: Vec<(ManifestName, ShipError)>,
    /// Snapshots that cannot be published now: a copy source that does not answer may have what
    /// they lack.
    pub postponed: Vec<(ManifestName, ShipError)>,
    /// Snapshots that the target has no room for.
    pub crowded_out: Vec<CrowdedOut>,
    /// Other manifests of a published sequence: a revision, or another machine under this name.
    pub siblings: Vec<ManifestName>,
    /// Archives that were copied from another target.
    pub copied: u64,
}

/// A snapshot that the target has no room for.
#[derive(Debug)]
pub struct CrowdedOut {
    /// The snapshot.
    pub manifest: ManifestName,
    /// The target's error.
    pub error: ShipError,
    /// It will never be published there: a later snapshot that is there follows a prune mark that
    /// this one does not.
    pub is_passed_by: bool,
}

/// Makes one snapshot visible on the target. It is an error if that is not possible now.
pub async fn publish(
    folder: &HostFolder,
    spool: &Spool,
    publication: &Publication,
    support: &Support,
    tracker: &impl UploadTracker,
) -> Result<Published, ShipError> {
    let one = std::slice::from_ref(publication);
    let mut published = publish_all(folder, spool, one, support, tracker).await?;
    let crowded_out = published.crowded_out.pop().map(|one| one.error);
    let failed = published.incomplete.pop().or(published.postponed.pop());
    match failed.map(|(_, error)| error).or(crowded_out) {
        Some(error) => Err(error),
        None => Ok(published),
    }
}

/// Makes snapshots visible on the target, oldest first; the module describes the order. All of them
/// take each step together, so a target that was away for weeks is not asked again for every day of
/// them.
pub async fn publish_all(
    folder: &HostFolder,
    spool: &Spool,
    publications: &[Publication],
    support: &Support,
    tracker: &impl UploadTracker,
) -> Result<Published, ShipError> {
    for publication in publications {
        require_all_listed(folder, spool, publication).await?;
    }
    let job = PublishJob {
        folder,
        spool,
        publications,
        support,
    };
    let mut shipped = HashMap::new();
    let mut crowded_out: BTreeMap<usize, ShipError> = BTreeMap::new();
    // Each round plans again without the snapshots that did not fit.
    let (plan, mut published) = loop {
        let mut published = Published::default();
        let plan = Plan::make(&job, &crowded_out, &shipped, &mut published).await?;
        if crowded_out.is_empty() {
            job.announce(&plan, tracker);
        }
        let mut no_room = job
            .ship_newest_first(&plan, &published.done, tracker, &mut shipped)
            .await?;
        no_room.extend(job.copy_all(&plan, tracker).await?);
        if no_room.is_empty() {
            break (plan, published);
        }
        job.leave_out(&no_room, &published.done, &mut crowded_out);
    };
    for (index, error) in crowded_out {
        let is_passed_by = job.is_passed_by(index, &published.done);
        published.crowded_out.push(CrowdedOut {
            manifest: publications[index].manifest.name(),
            error,
            is_passed_by,
        });
    }
    tracker.publishing();
    job.put_small(&plan.pages, tracker).await?;
    job.put_small(&plan.signatures, tracker).await?;
    job.put_manifests(&plan.manifests, tracker).await?;
    published.copied = plan.copies.len() as u64;
    published.siblings = job.siblings(&published.done).await?;
    Ok(published)
}

/// What every step of a publication works with.
struct PublishJob<'a> {
    folder: &'a HostFolder,
    spool: &'a Spool,
    /// Oldest first.
    publications: &'a [Publication],
    support: &'a Support,
}

impl PublishJob<'_> {
    /// Adds to `crowded_out` the planned snapshots that need an archive the target has no room for.
    fn leave_out(
        &self,
        no_room: &HashMap<Hash, String>,
        planned: &[ManifestName],
        crowded_out: &mut BTreeMap<usize, ShipError>,
    ) {
        for (index, publication) in self.publications.iter().enumerate() {
            let mut archives = publication.archives.iter();
            let cause = archives.find_map(|row| no_room.get(&row.blake3));
            let manifest = publication.manifest.name();
            if let Some(cause) = cause.filter(|_| planned.contains(&manifest)) {
                let error = ShipError::NoRoom {
                    manifest,
                    target: self.folder.target.label().to_owned(),
                    cause: cause.clone(),
                };
                crowded_out.insert(index, error);
            }
        }
    }

    /// Returns whether a later snapshot, of those that are `done`, follows a prune mark that the
    /// one of this index does not. Then the latter must not come any more, because the archives
    /// that the mark names go (see `prune`).
    fn is_passed_by(&self, index: usize, done: &[ManifestName]) -> bool {
        let followed = &self.publications[index].manifest.core.marks_seen;
        self.publications[index + 1..].iter().any(|later| {
            let mut marks = later.manifest.core.marks_seen.iter();
            done.contains(&later.manifest.name()) && marks.any(|mark| !followed.contains(mark))
        })
    }

    /// Returns the manifests on the target that have the sequence of one that is `done` and are
    /// others.
    async fn siblings(&self, done: &[ManifestName]) -> Result<Vec<ManifestName>, ShipError> {
        if self.support.remembered.is_some() {
            return Ok(Vec::new());
        }
        let sequences = done.iter().map(|done| done.sequence).collect();
        let listed = self.folder.manifest_names_of(&sequences).await?;
        let is_sibling = |name: &ManifestName| !done.contains(name);
        Ok(listed.into_iter().filter(is_sibling).collect())
    }
}

fn incomplete(folder: &HostFolder, manifest: &ManifestName, missing: &[ObjectKey]) -> ShipError {
    ShipError::Incomplete {
        manifest: manifest.clone(),
        target: folder.target.label().to_owned(),
        count: missing.len(),
        first: first_of(missing),
    }
}

fn first_of(keys: &[ObjectKey]) -> String {
    let first = keys.iter().take(NAMED_MISSING).map(ObjectKey::as_str);
    first.collect::<Vec<_>>().join(", ")
}
