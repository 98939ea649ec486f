//! A snapshot → sealed archives, index and manifest in the spool.
//!
//! `read → chunk → hash → known? → append to the open tar → zstd → age → BLAKE3 → spool`, one thread
//! reading and looking up, others compressing and sealing. Everything it makes is durable in the
//! spool before the manifest is, and the manifest is the last thing it writes: a run that dies
//! leaves content that the next run finds known, or nothing.

pub mod cache;
pub mod chunk;
pub mod chunker;
mod content;
mod file;
mod filter;
mod history;
mod member;
mod meta;
mod parts;
pub mod relearn;
mod rest;
mod scout;
pub mod seal;
mod seal_index;
mod store;
mod telling;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, Utc};

use crate::catalog::{Catalog, CatalogArchive, CatalogError};
use crate::figures::Figures;
use crate::ids::{ArchiveId, Hash, HostName, ObjectKey};
use crate::index::Skipped;
use crate::manifest::known::KnownRef;
use crate::manifest::signature::{MANIFEST_NAMESPACE, SignatureError, Signer};
use crate::manifest::{
    ArchiveKind, ArchiveRow, IndexRef, Known, Manifest, ManifestCore, paginate, with_wide_times,
};
use crate::snapshot::Snapshot;
use crate::spool::{Spool, SpoolError};
use crate::walk::WalkError;

use cache::{CacheReader, CacheWriter};
use file::FilePacker;
use parts::{Item, Parts};
use rest::Rest;
use scout::scout;
use seal::{Recipients, SealError, Sealer};
use store::Store;

#[derive(Debug, thiserror::Error)]
pub enum PackError {
    #[error("cannot read {path}, a part of the snapshot; see that it is there and readable")]
    Part {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("two sources put something at {0} in the snapshot: give one of them another `to`")]
    Collision(String),
    #[error("{0} failed validation; nothing was packed of this snapshot")]
    Invalid(String),
    #[error("cannot write {path} (is the state directory full or read-only?)")]
    Scratch {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Walk(#[from] WalkError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error(
        "there are more earlier snapshots than a manifest can name: forget some (`sealift prune`), then run again"
    )]
    TooManyKnown,
    #[error("cannot sign the manifest")]
    Sign(#[source] SignatureError),
    #[error("no random numbers from the system: {0}")]
    Random(getrandom::Error),
    #[error("archive {0} was not sealed as it was written; nothing was published")]
    StreamMismatch(ArchiveId),
    #[error("cannot start a thread (is there a limit on processes or memory?); run again")]
    Thread {
        #[source]
        source: io::Error,
    },
    #[error("a thread ended early; nothing was published; run again")]
    ThreadEnded,
    #[error("archive {0} is not sealed yet; nothing was published")]
    Unsealed(ArchiveId),
    #[error("cannot look at the archives of earlier snapshots")]
    Rest(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("packing was stopped; what is sealed is kept for the next run")]
    Stopped(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// How the packer works; [`Default`] is what suits most.
#[derive(Debug, Clone)]
pub struct PackOptions {
    /// Bytes of tar stream after which an archive is closed.
    pub archive_bytes: u64,
    /// zstd level.
    pub level: i32,
    /// Compressing threads.
    pub threads: usize,
}

impl Default for PackOptions {
    fn default() -> Self {
        Self {
            archive_bytes: 64 << 20,
            level: 3,
            threads: std::thread::available_parallelism().map_or(2, usize::from),
        }
    }
}

/// Where the new snapshot stands among its host's.
#[derive(Debug, Clone)]
pub struct Lineage {
    pub sequence: u64,
    pub parents: Vec<Hash>,
    /// In order.
    pub known: Vec<Known>,
    pub marks_seen: Vec<String>,
    /// Every target shows the snapshot before this one, and so has the pages that it names.
    pub before_is_everywhere: bool,
}

pub struct PackRequest<'a> {
    pub host: &'a HostName,
    pub snapshot: &'a Snapshot,
    pub recipients: Arc<Recipients>,
    pub signer: &'a Signer,
    /// An OpenSSH public key that may sign from now on too.
    pub next_signer: Option<String>,
    pub lineage: Lineage,
    /// The machine's salted id.
    pub machine: String,
    pub next_by: Option<DateTime<Utc>>,
    /// Archives that are sealed to today's recipients and that no target lacks.
    pub usable: Vec<CatalogArchive>,
    /// The archives that `usable` was chosen from, by the catalog's number; the others were not looked at. `None`: all
    /// were.
    pub chosen_from: Option<HashSet<i64>>,
    pub options: PackOptions,
    /// For the cache and for scratch files.
    pub state: PathBuf,
}

/// Counters that whoever shows progress may read at any time.
#[derive(Debug, Default)]
pub struct PackProgress {
    pub entries: AtomicU64,
    pub bytes: AtomicU64,
    pub new_bytes: AtomicU64,
}

impl PackProgress {
    fn add(&self, bytes: u64, new_bytes: u64) {
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.new_bytes.fetch_add(new_bytes, Ordering::Relaxed);
    }
}

/// A packed snapshot: its objects are in the spool.
#[derive(Debug)]
pub struct Packed {
    pub manifest: Manifest,
    /// Every archive that the manifest names, and its size.
    pub archives: Vec<(ObjectKey, u64)>,
    /// Pages of earlier snapshots that the manifest names, and directories of them.
    pub known: Vec<(Hash, Vec<u8>)>,
    /// Archives that this run made, and their bytes.
    pub new_archives: u64,
    pub new_archive_bytes: u64,
    pub skipped: Vec<Skipped>,
    /// What each source holds, by its place in the snapshot.
    pub figures: BTreeMap<String, Figures>,
    /// Worth a line, but nothing is missing because of it.
    pub notes: BTreeSet<String>,
}

/// Data archives whose live share fell below this part of their stream are packed anew.
const COMPACT_BELOW_PERCENT: u64 = 25;
/// All data archives together may hold this part of what lives in them; beyond, the deadest are packed
/// anew: a restore reads whole archives, so this bounds what it reads for nothing.
const COMPACT_ABOVE_PERCENT: u64 = 125;
/// More index archives than this in one snapshot, and the index is packed anew.
const MAX_INDEX_ARCHIVES: usize = 24;

/// Hears of each archive as soon as it is durable; its error stops the packing.
pub type OnSealed<'a> =
    dyn FnMut(&ArchiveRow) -> Result<(), Box<dyn std::error::Error + Send + Sync>> + 'a;

/// Looks at the archives that were not looked at yet, and returns all that may be used.
pub type LookAtRest<'a> = dyn FnMut(&Catalog) -> Result<Vec<CatalogArchive>, Box<dyn std::error::Error + Send + Sync>>
    + 'a;

/// Packs `request.snapshot`.
pub fn pack(
    request: &PackRequest<'_>,
    catalog: &mut Catalog,
    spool: &Spool,
    progress: &PackProgress,
    on_sealed: &mut OnSealed<'_>,
    look_at_rest: &mut LookAtRest<'_>,
) -> Result<Packed, PackError> {
    if !request.snapshot.validation.valid {
        let stamp = request.snapshot.stamp.to_string();
        return Err(PackError::Invalid(stamp));
    }
    let scratch = Scratch::make(&request.state)?;
    let recipient_set = catalog.remember_recipients(request.recipients.texts())?;
    let cache_path = request.state.join("last-snapshot.cache");
    let mut cache = CacheReader::open(&cache_path, catalog.next_archive_id()?);
    if cache.is_ahead {
        catalog.renew_writer()?;
    }
    let old_databases = std::mem::take(&mut cache.databases);
    let cache_out = CacheWriter::create(&cache_path, &scratch.dir, catalog.writer())
        .map_err(|source| scratch_error(&cache_path, source))?;
    let options = &request.options;
    let sealer = Sealer::start(
        request.recipients.clone(),
        spool.clone(),
        options.level,
        options.threads,
    )?;
    let (usable, retired) = worth_using(&request.usable);
    let mut store = Store::new(
        catalog,
        sealer,
        recipient_set,
        options.archive_bytes,
        usable,
        on_sealed,
    )?;
    store.rest = Some(Rest::new(request.chosen_from.clone(), look_at_rest));
    let reusable = store.reusable();
    let snapshot = request.snapshot;
    let mut files = FilePacker::new(&mut store, old_databases, cache_out, &scratch, snapshot)?;
    let mut last_path: Option<Vec<u8>> = None;
    let parts = Parts::open(&snapshot.parts)?;
    scout(parts, cache, &reusable, |scouted| {
        let item = &scouted.item;
        if let Item::Found { path, .. } | Item::Between(path) = item {
            if last_path.as_ref().is_some_and(|last| last >= path) {
                return Err(PackError::Collision(
                    String::from_utf8_lossy(path).into_owned(),
                ));
            }
            last_path = Some(path.clone());
        }
        files.pack(scouted, progress)
    })?;
    let body = files.finish()?;
    store.flush()?;
    let mut totals = body.totals;
    let index = seal_index::seal(&mut store, request, &body)?;
    store.finish()?;
    let mut rows: Vec<ArchiveRow> = Vec::new();
    for kind in [ArchiveKind::Data, ArchiveKind::Index] {
        rows.extend(store.used(kind)?.into_iter().map(|used| used.row.clone()));
    }
    totals.archives = rows.len() as u64;
    totals.archive_bytes = rows.iter().map(|row| row.bytes).sum();
    let archives = rows.iter().map(|row| (row.key(), row.bytes)).collect();
    let mut live = store.live_by_number();
    // What was packed anew stays out of use, even if some of its dead content comes back.
    // Most of a long history was so already: no row is written again for that.
    let were_in_use = request
        .usable
        .iter()
        .filter(|archive| archive.live_bytes != Some(0) && retired.contains(&archive.n));
    live.extend(were_in_use.map(|archive| (archive.n, 0)));
    let (new_archives, new_archive_bytes) = (store.sealed_archives, store.sealed_bytes);
    let sets = store.catalog().recipient_sets()?;
    let retired = store.rest.take().map(|rest| rest.retired);
    let retired = retired.into_iter().flatten();
    live.extend(retired.map(|n| (n, 0)));
    drop(store);
    catalog.end_lookups()?;
    let paged = history::page(&request.lineage, catalog, spool)?;
    let pages = paginate(rows, &sets);
    for (hash, bytes) in &pages {
        spool.put(&ObjectKey::table(hash), bytes)?;
    }
    let pages = pages.iter().map(|(hash, _)| *hash).collect();
    let core = core(
        request,
        catalog,
        KnownRef::Pages(paged.named),
        index,
        totals,
        body.has_wide_times,
    );
    let manifest = publish_in_spool(request, catalog, spool, Manifest::new(core, pages))?;
    catalog.set_live_bytes(&live)?;
    let cached = body
        .cache
        .finish(body.databases, catalog.next_archive_id()?);
    cached.map_err(|source| scratch_error(&cache_path, source))?;
    Ok(Packed {
        manifest,
        archives,
        known: paged.objects,
        new_archives,
        new_archive_bytes,
        skipped: body.skipped,
        figures: body.figures,
        notes: body.notes,
    })
}

/// Leaves out archives that hold little of use: what lives in them is packed anew, and retention
/// frees them once no manifest names them. The second list are those, by number.
fn worth_using(usable: &[CatalogArchive]) -> (Vec<store::Usable>, HashSet<i64>) {
    let index_in_use = |archive: &&CatalogArchive| {
        archive.row.kind == ArchiveKind::Index && archive.live_bytes != Some(0)
    };
    let renew_index = usable.iter().filter(index_in_use).count() > MAX_INDEX_ARCHIVES;
    let retired: HashSet<i64> = mostly_dead(usable).into_iter().collect();
    let is_kept = |archive: &&CatalogArchive| match archive.row.kind {
        ArchiveKind::Index => !renew_index,
        ArchiveKind::Data => !retired.contains(&archive.n),
    };
    let kept = usable.iter().filter(is_kept).cloned();
    (kept.map(store::Usable::from).collect(), retired)
}

/// Data archives to be packed anew: each that is below its threshold, and the deadest others until all
/// together are above theirs.
fn mostly_dead(usable: &[CatalogArchive]) -> Vec<i64> {
    let share = |(_, live, tar): &(i64, u64, u64)| *live as f64 / (*tar).max(1) as f64;
    let mut data: Vec<(i64, u64, u64)> = usable
        .iter()
        .filter(|archive| archive.row.kind == ArchiveKind::Data)
        .filter_map(|archive| {
            let live = archive.live_bytes?.min(archive.tar_bytes);
            Some((archive.n, live, archive.tar_bytes))
        })
        .collect();
    data.sort_by(|a, b| share(a).total_cmp(&share(b)));
    let live_bytes: u64 = data.iter().map(|(_, live, _)| live).sum();
    let mut held_bytes: u64 = data.iter().map(|(_, _, tar)| tar).sum();
    let mut retired = Vec::new();
    for (n, live, tar) in data {
        let alone = live * 100 < tar * COMPACT_BELOW_PERCENT;
        let together = held_bytes * 100 > live_bytes * COMPACT_ABOVE_PERCENT;
        if !alone && !together {
            break;
        }
        // What lives in it will be held by a new archive, which is all live.
        held_bytes -= tar - live;
        retired.push(n);
    }
    retired
}

fn core(
    request: &PackRequest<'_>,
    catalog: &Catalog,
    known: KnownRef,
    index: IndexRef,
    totals: crate::manifest::Totals,
    has_wide_times: bool,
) -> ManifestCore {
    ManifestCore {
        format: crate::manifest::FORMAT,
        requires: match has_wide_times {
            true => with_wide_times(known.requires()),
            false => known.requires(),
        },
        host: request.host.clone(),
        stamp: request.snapshot.stamp,
        sequence: request.lineage.sequence,
        parents: request.lineage.parents.clone(),
        writer: catalog.writer(),
        machine: request.machine.clone(),
        known,
        marks_seen: request.lineage.marks_seen.clone(),
        next_by: request.next_by,
        recipients: request.recipients.texts().to_vec(),
        index,
        totals,
        next_signer: request.next_signer.clone(),
    }
}

/// Signature and manifest, in this order, once the pages are there; then the catalog knows the snapshot.
fn publish_in_spool(
    request: &PackRequest<'_>,
    catalog: &Catalog,
    spool: &Spool,
    manifest: Manifest,
) -> Result<Manifest, PackError> {
    let name = manifest.name();
    let signature = request
        .signer
        .sign(MANIFEST_NAMESPACE, &manifest.bytes)
        .map_err(PackError::Sign)?;
    spool.put(&name.signature_key(), signature.as_bytes())?;
    spool.put(&name.key(), &manifest.bytes)?;
    catalog.add_snapshot(&manifest, false)?;
    Ok(manifest)
}

/// A directory for this run's temporary files, gone when it ends. What a killed run left is cleared.
pub(crate) struct Scratch {
    dir: PathBuf,
}

impl Scratch {
    fn make(state: &std::path::Path) -> Result<Self, PackError> {
        let dir = state.join("scratch");
        let make = || -> io::Result<()> {
            match std::fs::remove_dir_all(&dir) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            crate::fs::create_private_dir(&dir)
        };
        make().map_err(|source| scratch_error(&dir, source))?;
        Ok(Self { dir })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now, the next run removes.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn scratch_error(path: &std::path::Path, source: io::Error) -> PackError {
    PackError::Scratch {
        path: path.display().to_string(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::WriterId;

    fn archive(n: i64, kind: ArchiveKind, live: Option<u64>) -> CatalogArchive {
        CatalogArchive {
            n,
            row: ArchiveRow {
                id: ArchiveId {
                    writer: WriterId([0; 8]),
                    counter: n as u64,
                },
                kind,
                blake3: Hash([0; 32]),
                sha256: Hash([0; 32]),
                bytes: 50,
                recipient_set: String::new(),
                head_sha256: Hash([0; 32]),
            },
            tar_bytes: 100,
            tar_blake3: Hash([0; 32]),
            live_bytes: live,
        }
    }

    fn retired(shares: &[u64]) -> Vec<i64> {
        let data = shares.iter().zip(0..);
        let data = data.map(|(live, n)| archive(n, ArchiveKind::Data, Some(*live)));
        // Those that no snapshot used yet, and the index's, are not its business.
        let others = [
            archive(100, ArchiveKind::Data, None),
            archive(101, ArchiveKind::Index, Some(1)),
        ];
        mostly_dead(&data.chain(others).collect::<Vec<_>>())
    }

    #[test]
    fn the_deadest_archives_are_packed_anew_until_a_restore_reads_little_for_nothing() {
        assert_eq!(retired(&[]), [0; 0]);
        assert_eq!(retired(&[100, 100, 81, 80]), [0; 0]);
        // One that is nearly dead goes even if all together are well.
        assert_eq!(retired(&[100, 100, 100, 100, 100, 100, 24]), [6]);
        assert_eq!(retired(&[100, 100, 100, 100, 100, 100, 25]), [0; 0]);
        // All decay alike, none of them far: 400 held for 280, until 300 are for 260.
        assert_eq!(retired(&[70, 60, 80, 70]), [1, 0]);
        // A share above one does not make room for others.
        assert_eq!(retired(&[900, 50, 50]), [1]);
    }
}
