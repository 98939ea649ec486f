//! Making a snapshot visible on a target.
//!
//! A manifest on a target must name only archives that are complete there, so [`publish_all`] believes
//! nothing of what was shipped before: it reads the table that the manifest names, lists what is there
//! now, ships what is missing or of the wrong size, then the pages, then the signature, and the manifest
//! last. What a full target has no room for is left out, and a later snapshot that fits is published without it.
//! Whatever step a run dies at, the manifest is not there yet, and the next run finds the rest in
//! the spool, from which nothing is removed here.
//!
//! Two kinds of targets show less than that. A listing may lag behind: what this run put there, and the
//! target confirmed, is asked for by name before it counts as missing. And credentials that only write
//! show nothing: there memory and confirmed puts must do.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};

use super::copy::{CopyError, Streak, copy_archive};
use super::{Sealed, ShipError, Watcher, ship_archive, spooled};
use crate::error::with_causes;
use crate::ids::{Hash, MANIFESTS, ObjectKey, TABLES};
use crate::manifest::known::Directory;
use crate::manifest::{ArchiveRow, Manifest, ManifestName, TablePage};
use crate::repository::{ArchiveTable, HostFolder, RepositoryError, parse_known, parse_page};
use crate::spool::Spool;
use crate::target::{Body, ErrorKind, PutMode, TargetError, is_full};

const PUBLISH_CONCURRENCY: usize = 4;
const NAMED_MISSING: usize = 3;
/// A recovery file is text of a few kilobytes.
const MAX_RECOVERY_BYTES: u64 = 16 << 20;

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
    let listed = match support.remembered {
        Some(_) => Vec::new(),
        None => folder.manifest_names().await?,
    };
    let is_sibling = |name: &ManifestName| {
        let same = published
            .done
            .iter()
            .any(|done| done.sequence == name.sequence);
        same && !published.done.contains(name)
    };
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

/// Holds the caller to its word: the archives checked below must be all that the table names.
async fn require_all_listed(
    folder: &HostFolder,
    spool: &Spool,
    publication: &Publication,
) -> Result<(), ShipError> {
    let name = publication.manifest.name();
    let pages = futures::stream::iter(&publication.manifest.pages)
        .map(|hash| read_page(folder, spool, &name, hash))
        .buffered(PUBLISH_CONCURRENCY)
        .try_collect::<Vec<_>>()
        .await?;
    let table = ArchiveTable::join(name.clone(), pages)?;
    let handed_over: HashMap<Hash, &ArchiveRow> = publication
        .archives
        .iter()
        .map(|row| (row.blake3, row))
        .collect();
    let rows = table.rows.values();
    let unlisted = rows
        .filter(|row| handed_over.get(&row.blake3) != Some(row))
        .map(ArchiveRow::key);
    let mut unlisted: Vec<ObjectKey> = unlisted.collect();
    let known = known_names(folder, spool, publication).await?;
    let listed: HashSet<&Hash> = publication.known.iter().collect();
    let known = known.iter().filter(|name| !listed.contains(name));
    unlisted.extend(known.map(ObjectKey::table));
    if unlisted.is_empty() {
        return Ok(());
    }
    Err(ShipError::Unlisted {
        manifest: name,
        count: unlisted.len(),
        first: first_of(&unlisted),
    })
}

/// The pages of earlier snapshots that the manifest names, and the directories of them, which come from the spool,
/// else from the target.
async fn known_names(
    folder: &HostFolder,
    spool: &Spool,
    publication: &Publication,
) -> Result<Vec<Hash>, ShipError> {
    let manifest = &publication.manifest;
    let Some(named) = manifest.core.known.pages() else {
        return Ok(Vec::new());
    };
    let mut names = [&named.pages[..], &named.directories].concat();
    for name in &named.directories {
        let key = ObjectKey::table(name);
        let directory = match (publication.at_hand.get(name), spool.contains(&key)) {
            (Some(bytes), _) => parse_known(name, bytes, Directory::parse)?,
            (None, true) => parse_known(name, &spool.read(&key)?, Directory::parse)?,
            (None, false) => match folder.directory(name).await {
                Err(RepositoryError::Target(error)) if error.kind == ErrorKind::NotFound => {
                    return Err(incomplete(folder, &manifest.name(), &[key]));
                }
                other => other?,
            },
        };
        names.extend(directory.directory);
    }
    Ok(names)
}

/// A page from the spool, else from the target.
async fn read_page(
    folder: &HostFolder,
    spool: &Spool,
    manifest: &ManifestName,
    hash: &Hash,
) -> Result<TablePage, ShipError> {
    let key = ObjectKey::table(hash);
    if spool.contains(&key) {
        return Ok(parse_page(hash, &spool.read(&key)?)?);
    }
    match folder.page(hash).await {
        Err(RepositoryError::Target(error)) if error.kind == ErrorKind::NotFound => {
            Err(incomplete(folder, manifest, &[key]))
        }
        other => Ok(other?),
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

/// A page or a signature to put.
struct Small {
    key: ObjectKey,
    mode: PutMode,
    /// `None`: it is in the spool.
    at_hand: Option<Bytes>,
}

/// What is still to be put, and how, in the order of its steps.
#[derive(Default)]
struct Plan<'a> {
    archives: Vec<(Sealed, PutMode)>,
    /// From which of the donors.
    copies: Vec<(ArchiveRow, PutMode, usize)>,
    pages: Vec<Small>,
    signatures: Vec<Small>,
    manifests: Vec<(&'a Manifest, PutMode)>,
}

impl<'a> Plan<'a> {
    /// Looks at what the target has now. Nothing of a snapshot is planned unless all of it can be done.
    async fn make(
        folder: &HostFolder,
        spool: &Spool,
        publications: &'a [Publication],
        is_in: impl Fn(&usize) -> bool,
        support: &Support,
        shipped: &HashMap<Hash, u64>,
        published: &mut Published,
    ) -> Result<Self, ShipError> {
        let mut there = There::look(folder, publications, support).await?;
        there.archives.extend(shipped);
        let mut plan = Self::default();
        let mut donors: Option<Vec<HashMap<Hash, u64>>> = None;
        let mut donors_away = support.donors_away;
        let mut incomplete_ones = Vec::new();
        let those_in = publications.iter().enumerate();
        for (at, publication) in those_in.filter(|(at, _)| is_in(at)) {
            let mut part = Self::default();
            let mut missing = Vec::new();
            let mut to_copy = Vec::new();
            for row in &publication.archives {
                let mode = match there.archives.get(&row.blake3) {
                    Some(bytes) if *bytes == row.bytes => continue,
                    Some(_) => PutMode::Replace,
                    None => PutMode::Create,
                };
                match spool.size(&row.key()) == Some(row.bytes) {
                    true => part.archives.push((row.into(), mode)),
                    false => to_copy.push((row, mode)),
                }
            }
            if !to_copy.is_empty() && donors.is_none() {
                let looks = what_donors_have(&support.donors).await;
                for error in looks.iter().filter_map(|look| look.as_ref().err()) {
                    tracing::info!(%error, "nothing can be copied from there now");
                    donors_away = true;
                }
                donors = Some(looks.into_iter().map(Result::unwrap_or_default).collect());
            }
            for (row, mode) in to_copy {
                let has = |has: &HashMap<Hash, u64>| has.get(&row.blake3) == Some(&row.bytes);
                let donor = donors.iter().flatten().position(has);
                match donor.filter(|_| !support.damaged.contains(&row.blake3)) {
                    Some(donor) => part.copies.push((row.clone(), mode, donor)),
                    None => missing.push(row.key()),
                }
            }
            part.add_small(spool, publication, &there, &mut missing);
            let name = publication.manifest.name();
            if missing.is_empty() {
                there.note(&part, spool);
                plan.append(part);
                published.done.push(name);
            } else {
                let error = incomplete(folder, &name, &missing);
                incomplete_ones.push((at, name, error));
            }
        }
        for (at, name, error) in incomplete_ones {
            let is_passed_by = is_passed_by(publications, at, &published.done);
            match donors_away && !is_passed_by {
                true => published.postponed.push((name, error)),
                false => published.incomplete.push((name, error)),
            }
        }
        Ok(plan)
    }

    fn add_small(
        &mut self,
        spool: &Spool,
        publication: &'a Publication,
        there: &There,
        missing: &mut Vec<ObjectKey>,
    ) {
        let manifest = &publication.manifest;
        let name = manifest.name();
        let signature = name.signature_key();
        let pages = manifest.pages.iter().chain(&publication.known);
        let pages = pages.map(|page| (ObjectKey::table(page), publication.at_hand.get(page)));
        for (key, at_hand) in pages.chain([(signature.clone(), None)]) {
            let in_spool = spool.size(&key).or(at_hand.map(|bytes| bytes.len() as u64));
            // Our own copy says how long the object is; without one, what is there must do.
            let mode = match there.small.get(key.as_str()) {
                Some(there) if in_spool.is_none_or(|right| right == *there) => continue,
                Some(_) => PutMode::Replace,
                None => PutMode::Create,
            };
            let is_signature = key == signature;
            let at_hand = at_hand.cloned();
            let small = Small { key, mode, at_hand };
            match in_spool {
                Some(_) if is_signature => self.signatures.push(small),
                Some(_) => self.pages.push(small),
                None => missing.push(small.key),
            }
        }
        let mode = match there.small.get(name.key().as_str()) {
            Some(bytes) if *bytes != manifest.bytes.len() as u64 => PutMode::Replace,
            _ => PutMode::Create,
        };
        self.manifests.push((manifest, mode));
    }

    fn append(&mut self, other: Self) {
        self.archives.extend(other.archives);
        self.copies.extend(other.copies);
        self.pages.extend(other.pages);
        self.signatures.extend(other.signatures);
        self.manifests.extend(other.manifests);
    }
}

/// What the target has.
struct There {
    archives: HashMap<Hash, u64>,
    /// Pages, signatures and manifests, by key.
    small: HashMap<String, u64>,
}

impl There {
    async fn look(
        folder: &HostFolder,
        publications: &[Publication],
        support: &Support,
    ) -> Result<Self, ShipError> {
        let rows = || publications.iter().flat_map(|one| &one.archives);
        if let Some(remembered) = &support.remembered {
            let mut archives = remembered.clone();
            let confirmed = rows().filter(|row| support.confirmed.contains(&row.blake3));
            archives.extend(confirmed.map(|row| (row.blake3, row.bytes)));
            // Small ones are put again: what is there stays.
            let small = HashMap::new();
            return Ok(Self { archives, small });
        }
        let listings = (folder.archives_present(), folder.list(TABLES));
        let (mut archives, mut small, manifests) =
            futures::future::try_join3(listings.0, listings.1, folder.list(MANIFESTS)).await?;
        small.extend(manifests);
        let mut asked_for = HashSet::new();
        let unlisted = rows().filter(|row| {
            let is_unlisted =
                support.confirmed.contains(&row.blake3) && !archives.contains_key(&row.blake3);
            is_unlisted && asked_for.insert(row.blake3)
        });
        let unlisted: Vec<&ArchiveRow> = unlisted.collect();
        let asked = futures::stream::iter(unlisted)
            .map(async |row| Ok::<_, TargetError>((row, is_there(folder, row).await?)))
            .buffer_unordered(PUBLISH_CONCURRENCY)
            .try_collect::<Vec<_>>()
            .await?;
        let found = asked.into_iter().filter(|(_, there)| *there);
        archives.extend(found.map(|(row, _)| (row.blake3, row.bytes)));
        Ok(Self { archives, small })
    }

    /// What is planned will be there.
    fn note(&mut self, plan: &Plan<'_>, spool: &Spool) {
        for (row, _, _) in &plan.copies {
            self.archives.insert(row.blake3, row.bytes);
        }
        for (archive, _) in &plan.archives {
            let hash = ObjectKey::archive_hash(archive.key.as_str());
            if let (Some(hash), Some(bytes)) = (hash, spool.size(&archive.key)) {
                self.archives.insert(hash, bytes);
            }
        }
        for one in plan.pages.iter().chain(&plan.signatures) {
            let at_hand = one.at_hand.as_ref().map(|bytes| bytes.len() as u64);
            if let Some(bytes) = at_hand.or(spool.size(&one.key)) {
                self.small.insert(one.key.as_str().to_owned(), bytes);
            }
        }
    }
}

/// Whether an archive that the target confirmed, and does not list, is there. Where nobody may read, its
/// word must do.
async fn is_there(folder: &HostFolder, row: &ArchiveRow) -> Result<bool, TargetError> {
    let key = folder.key(&row.key());
    match folder.target.get_range(&key, 0..1).await {
        Ok(_) => Ok(true),
        Err(error) => match error.kind {
            ErrorKind::Denied | ErrorKind::Frozen => Ok(true),
            ErrorKind::NotFound => Ok(false),
            _ => Err(error),
        },
    }
}

/// The archives of each.
async fn what_donors_have(donors: &[HostFolder]) -> Vec<Result<HashMap<Hash, u64>, TargetError>> {
    let looks = donors.iter().map(HostFolder::archives_present);
    futures::future::join_all(looks).await
}

/// Puts the files that tell how to get everything back without Sealift, unless they are there.
pub async fn publish_recovery(
    folder: &HostFolder,
    files: &[(ObjectKey, Bytes)],
) -> Result<(), ShipError> {
    futures::stream::iter(files)
        .map(|(key, bytes)| put_unless_there(folder, key, bytes))
        .buffer_unordered(PUBLISH_CONCURRENCY)
        .try_collect()
        .await
}

/// For what is not named by its content, so looked at first: what is there stays, whatever it is.
async fn put_unless_there(
    folder: &HostFolder,
    key: &ObjectKey,
    bytes: &Bytes,
) -> Result<(), ShipError> {
    let key = folder.key(key);
    match folder.target.get(&key, MAX_RECOVERY_BYTES).await {
        // Who may not read finds out by writing.
        Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::Denied) => {}
        Ok(_) => return Ok(()),
        Err(error) if matches!(error.kind, ErrorKind::Permanent | ErrorKind::Frozen) => {
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    }
    let body = Body::Bytes(bytes.clone());
    folder.target.put(&key, body, PutMode::Create).await?;
    Ok(())
}
