//! Making a snapshot visible on a target.
//!
//! A manifest on a target must name only archives that are complete there, so [`publish_all`] believes
//! nothing of what was shipped before: it reads the table that the manifest names, looks at what of it is there
//! now (object by object, or in a listing where that costs less), ships what is missing or of the wrong size, then the pages, then the signature, and the manifest
//! last. What a full target has no room for is left out, and a later snapshot that fits is published without it.
//! Whatever step a run dies at, the manifest is not there yet, and the next run finds the rest in
//! the spool, from which nothing is removed here.
//!
//! Two kinds of targets show less than that. A listing may lag behind: what this run put there, and the
//! target confirmed, is asked for by name before it counts as missing. And credentials that only write
//! show nothing: there memory and confirmed puts must do.

mod named;
mod plan;
mod recovery;
mod there;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};

use super::copy::{CopyError, Streak, copy_archive};
use super::{Sealed, ShipError, Watcher, ship_archive, spooled};
use crate::error::with_causes;
use crate::ids::{Hash, ObjectKey};
use crate::manifest::{ArchiveRow, Manifest, ManifestName};
use crate::repository::HostFolder;
use crate::spool::Spool;
use crate::target::{Body, PutMode, is_full};
use named::require_all_listed;
use plan::Plan;

pub use recovery::publish_recovery;

const PUBLISH_CONCURRENCY: usize = 4;
const NAMED_MISSING: usize = 3;

/// A snapshot to make visible. Its signature and pages are in the spool, at hand here, or on the target already.
#[derive(Debug, Clone)]
pub struct Publication {
    pub manifest: Manifest,
    /// Every archive that the manifest's table names.
    pub archives: Vec<ArchiveRow>,
    /// Every page of earlier snapshots that the manifest names, and every directory of them.
    pub known: Vec<Hash>,
    /// What of these is at hand besides the spool, by name.
    pub at_hand: HashMap<Hash, Bytes>,
}

/// What a publication may lean on, besides the spool.
#[derive(Debug, Default)]
pub struct Support {
    /// Other targets, to copy from what neither the target nor the spool has.
    pub donors: Vec<HostFolder>,
    /// There are more of them, which do not answer now.
    pub donors_away: bool,
    /// Archives that turned out damaged there.
    pub damaged: HashSet<Hash>,
    /// For copies on their way.
    pub scratch: PathBuf,
    /// Archives that this run put there, and the target confirmed.
    pub confirmed: HashSet<Hash>,
    /// The target cannot be looked at: archives that are there as far as anybody remembers.
    pub remembered: Option<HashMap<Hash, u64>>,
}

/// What came of [`publish_all`].
#[derive(Debug, Default)]
pub struct Published {
    pub done: Vec<ManifestName>,
    /// What cannot be published, for some of it is nowhere.
    pub incomplete: Vec<(ManifestName, ShipError)>,
    /// What cannot be published now, for what is missing may lie on a donor that does not answer.
    pub postponed: Vec<(ManifestName, ShipError)>,
    /// What the target has no room for. `true`: it is passed by for good, for a later one that is there heeds a
    /// prune mark that it does not heed.
    pub crowded_out: Vec<(ManifestName, ShipError, bool)>,
    /// Other manifests of a sequence that was published: a revision, or another machine under this name.
    pub siblings: Vec<ManifestName>,
    /// Archives that came from another target.
    pub copied: u64,
}

/// Makes one snapshot visible on the target.
pub async fn publish(
    folder: &HostFolder,
    spool: &Spool,
    publication: &Publication,
    support: &Support,
    watcher: &impl Watcher,
) -> Result<Published, ShipError> {
    let one = std::slice::from_ref(publication);
    let mut published = publish_all(folder, spool, one, support, watcher).await?;
    let crowded_out = published.crowded_out.pop();
    let crowded_out = crowded_out.map(|(name, error, _)| (name, error));
    let failed = published.incomplete.pop().or(published.postponed.pop());
    match failed.or(crowded_out) {
        Some((_, error)) => Err(error),
        None => Ok(published),
    }
}

/// Makes snapshots visible on the target, oldest first; see the module's words for the order. All of them
/// take each step together: a target that was away for weeks is not asked anew for every day of them.
pub async fn publish_all(
    folder: &HostFolder,
    spool: &Spool,
    publications: &[Publication],
    support: &Support,
    watcher: &impl Watcher,
) -> Result<Published, ShipError> {
    for publication in publications {
        require_all_listed(folder, spool, publication).await?;
    }
    let mut shipped = HashMap::new();
    let mut crowded_out: BTreeMap<usize, ShipError> = BTreeMap::new();
    // What does not fit is planned no more, and what does is planned once more without it.
    let (plan, mut published) = loop {
        let mut published = Published::default();
        let is_in = |at: &usize| !crowded_out.contains_key(at);
        let plan = Plan::make(
            folder,
            spool,
            publications,
            is_in,
            support,
            &shipped,
            &mut published,
        )
        .await?;
        let newest = published.done.last();
        let newest = publications
            .iter()
            .find(|one| Some(&one.manifest.name()) == newest);
        let mut no_room =
            ship_newest_first(folder, spool, &plan, newest, watcher, &mut shipped).await?;
        no_room.extend(copy_all(folder, &plan, support, watcher).await?);
        if no_room.is_empty() {
            break (plan, published);
        }
        for (at, publication) in publications.iter().enumerate() {
            let mut archives = publication.archives.iter();
            let cause = archives.find_map(|row| no_room.get(&row.blake3));
            let manifest = publication.manifest.name();
            if let Some(cause) = cause.filter(|_| published.done.contains(&manifest)) {
                let target = folder.target.label().to_owned();
                let cause = cause.clone();
                let error = ShipError::NoRoom {
                    manifest,
                    target,
                    cause,
                };
                crowded_out.insert(at, error);
            }
        }
    };
    for (at, error) in crowded_out {
        let is_passed_by = is_passed_by(publications, at, &published.done);
        let name = publications[at].manifest.name();
        published.crowded_out.push((name, error, is_passed_by));
    }
    for step in [&plan.pages, &plan.signatures] {
        in_parallel(step, |small| async move {
            let (key, mode) = (&small.key, small.mode);
            let (bytes, body) = match &small.at_hand {
                Some(bytes) => (bytes.len() as u64, Body::Bytes(bytes.clone())),
                None => (spooled(spool, key)?, Body::File(spool.path(key))),
            };
            folder.target.put(&folder.key(key), body, mode).await?;
            watcher.shipped(key, bytes);
            Ok(())
        })
        .await?;
    }
    // A manifest that heeds a prune mark lets go of what the mark names: those planned before must be there.
    let heeds = |(manifest, _): &(&'_ Manifest, PutMode)| manifest.core.marks_seen.clone();
    for alike in plan.manifests.chunk_by(|a, b| heeds(a) == heeds(b)) {
        in_parallel(alike, |(manifest, mode)| async move {
            let key = manifest.name().key();
            let body = Body::Bytes(Bytes::copy_from_slice(&manifest.bytes));
            folder.target.put(&folder.key(&key), body, *mode).await?;
            watcher.shipped(&key, manifest.bytes.len() as u64);
            Ok(())
        })
        .await?;
    }
    published.copied = plan.copies.len() as u64;
    let sequences = published.done.iter().map(|done| done.sequence).collect();
    let listed = match support.remembered {
        Some(_) => Vec::new(),
        None => folder.manifest_names_of(&sequences).await?,
    };
    let is_sibling = |name: &ManifestName| !published.done.contains(name);
    let siblings = listed.into_iter().filter(is_sibling).collect();
    published.siblings = siblings;
    Ok(published)
}

/// Ships the plan's archives, those that the newest snapshot needs before all others. Returns those that the target
/// has no room for, and why.
async fn ship_newest_first(
    folder: &HostFolder,
    spool: &Spool,
    plan: &Plan<'_>,
    newest: Option<&Publication>,
    watcher: &impl Watcher,
    shipped: &mut HashMap<Hash, u64>,
) -> Result<HashMap<Hash, String>, ShipError> {
    let rows = newest.into_iter().flat_map(|newest| &newest.archives);
    let needed_first: HashSet<ObjectKey> = rows.map(ArchiveRow::key).collect();
    let is_first = |(archive, _): &&(Sealed, PutMode)| needed_first.contains(&archive.key);
    let (first, then): (Vec<_>, Vec<_>) = plan.archives.iter().partition(is_first);
    // The bytes of the smallest that does not fit, and what the target said.
    let no_room = AtomicU64::new(u64::MAX);
    let cause = Mutex::new(String::new());
    let mut crowded_out = Vec::new();
    for mut stage in [first, then] {
        // Where a small one does not fit, a larger one does not either, and each try may take minutes.
        stage.sort_by_key(|(archive, _)| spool.size(&archive.key));
        let ship = async |(archive, mode): &(Sealed, PutMode)| {
            let bytes = spooled(spool, &archive.key)?;
            if bytes >= no_room.load(Ordering::Relaxed) {
                return Ok(None);
            }
            match ship_archive(folder, spool, archive, *mode, false).await {
                Ok(bytes) => {
                    watcher.shipped(&archive.key, bytes);
                    Ok(Some(bytes))
                }
                Err(error) if is_full(&error) => {
                    no_room.fetch_min(bytes, Ordering::Relaxed);
                    if let Ok(mut cause) = cause.lock() {
                        *cause = with_causes(&error);
                    }
                    Ok(None)
                }
                Err(error) => Err(error),
            }
        };
        let at_once = futures::stream::iter(&stage).map(|one| ship(one));
        let done = at_once.buffered(PUBLISH_CONCURRENCY);
        let mut done: Vec<Option<u64>> = done.try_collect().await?;
        if folder.target.has_reserve() && done.contains(&None) {
            // On a disk those that went up at once may have taken each other's room.
            no_room.store(u64::MAX, Ordering::Relaxed);
            for (one, done) in stage
                .iter()
                .zip(&mut done)
                .filter(|(_, done)| done.is_none())
            {
                *done = ship(one).await?;
            }
        }
        for ((archive, _), done) in stage.into_iter().zip(done) {
            let Some(hash) = ObjectKey::archive_hash(archive.key.as_str()) else {
                continue;
            };
            match done {
                Some(bytes) => drop(shipped.insert(hash, bytes)),
                None => crowded_out.push(hash),
            }
        }
    }
    let cause = cause.into_inner().unwrap_or_default();
    let crowded_out = crowded_out.into_iter().map(|hash| (hash, cause.clone()));
    Ok(crowded_out.collect())
}

/// Copies all of them, whatever becomes of one: the next run shall not meet damaged archives one by one. Where one
/// side is gone, a few are enough. Returns those that the target has no room for, and why.
async fn copy_all(
    folder: &HostFolder,
    plan: &Plan<'_>,
    support: &Support,
    watcher: &impl Watcher,
) -> Result<HashMap<Hash, String>, ShipError> {
    let streaks: Vec<Streak> = support.donors.iter().map(|_| Streak::default()).collect();
    let copies = futures::stream::iter(&plan.copies).map(async |(row, mode, donor)| {
        let streak = &streaks[*donor];
        if streak.is_over() {
            return Ok(0);
        }
        let donor = &support.donors[*donor];
        let copied = copy_archive(donor, folder, row, *mode, &support.scratch).await;
        streak.note(&copied);
        match &copied {
            Ok(bytes) => watcher.shipped(&row.key(), *bytes),
            Err(CopyError::Damaged { key, .. }) => watcher.damaged(key),
            Err(_) => {}
        }
        copied.map_err(|error| (row.blake3, error))
    });
    let copied = copies.buffer_unordered(PUBLISH_CONCURRENCY);
    let copied: Vec<Result<u64, (Hash, CopyError)>> = copied.collect().await;
    let mut no_room = HashMap::new();
    for (hash, error) in copied.into_iter().filter_map(Result::err) {
        match &error {
            CopyError::Target(failed) if is_full(failed) => {
                no_room.insert(hash, with_causes(&error));
            }
            _ => return Err(error.into()),
        }
    }
    Ok(no_room)
}

/// Once a manifest that heeds a prune mark is on a target, no earlier one that does not heed it may come: what the
/// mark names goes (see `prune`).
fn is_passed_by(publications: &[Publication], at: usize, done: &[ManifestName]) -> bool {
    let heeded = &publications[at].manifest.core.marks_seen;
    publications[at + 1..].iter().any(|later| {
        let mut marks = later.manifest.core.marks_seen.iter();
        done.contains(&later.manifest.name()) && marks.any(|mark| !heeded.contains(mark))
    })
}

async fn in_parallel<'a, T: 'a, F>(
    items: &'a [T],
    work: impl Fn(&'a T) -> F,
) -> Result<(), ShipError>
where
    F: Future<Output = Result<(), ShipError>> + 'a,
{
    futures::stream::iter(items)
        .map(work)
        .buffer_unordered(PUBLISH_CONCURRENCY)
        .try_collect()
        .await
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
