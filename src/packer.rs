//! Packs a snapshot: from its files to sealed archives, index and manifest in the spool.
//!
//! `read → chunk → hash → known? → append to the open tar → zstd → age → BLAKE3 → spool`: one
//! thread reads and looks up, others compress and seal. Every object is durable in the spool before
//! the manifest is, and the manifest is written last. So the next run finds the content of a run
//! that died known, or does not find it at all.

mod archive_writer;
mod bloom;
mod catalog_writer;
pub mod chunk_hash;
pub mod chunker;
mod commit;
mod compaction;
mod dedup;
mod entry_metadata;
mod error;
mod file_content;
mod file_packer;
pub mod files_cache;
mod history;
mod index_writer;
mod merge_parts;
mod origin;
mod prefetch;
pub mod reindex;
mod request;
mod rest;
mod scratch;
pub mod seal;
mod usage;

pub use error::PackError;
pub use request::{Lineage, LookAtRest, OnSealed, PackOptions, PackRequest, Packed};

use std::collections::{HashMap, HashSet};

use crate::base::progress::Progress;
use crate::format::archive_table::{ArchiveKind, ArchiveRow};
use crate::format::index::DatabaseRecord;
use crate::format::receipt::{ReceiptKey, Schemas};
use crate::state::catalog::Catalog;
use crate::state::spool::Spool;

use archive_writer::{ArchiveSettings, ArchiveWriter};
use commit::{SnapshotContents, publish_in_spool};
use compaction::worth_using;
use dedup::ReusableArchives;
use error::scratch_error;
use file_packer::{FilePacker, PackedFiles};
use files_cache::{CacheReader, CacheWriter};
use merge_parts::{Parts, SnapshotItem};
use prefetch::prefetch;
use rest::RestOfArchives;
use scratch::RunScratch;
use seal::Sealer;

/// Packs `request.snapshot`. Its objects are in the spool then, the manifest last.
pub fn pack(
    request: &PackRequest<'_>,
    catalog: &mut Catalog,
    spool: &Spool,
    progress: &dyn Progress,
    on_sealed: &mut OnSealed<'_>,
    look_at_rest: &mut LookAtRest<'_>,
) -> Result<Packed, PackError> {
    if !request.snapshot.validation.valid {
        let stamp = request.snapshot.stamp.to_string();
        return Err(PackError::Invalid(stamp));
    }
    let scratch = RunScratch::make(&request.state)?;
    let cache_path = request.state.join("last-snapshot.cache");
    let cache = CacheReader::open(&cache_path, catalog.next_archive_id()?);
    if cache.is_ahead {
        catalog.renew_writer()?;
    }
    let cache_out = CacheWriter::create(&cache_path, &scratch.dir, catalog.writer())
        .map_err(|source| scratch_error(&cache_path, source))?;
    let (usable, retired) = worth_using(&request.usable);
    let rest = RestOfArchives::new(request.chosen_from.clone(), look_at_rest);
    let reusable = ReusableArchives { usable, rest };
    let mut archives = open_archives(request, catalog, spool, reusable, on_sealed)?;
    let caches = (cache, cache_out);
    let files = pack_files(request, &mut archives, caches, &scratch, progress)?;
    archives.flush()?;
    let (index, salt) = index_writer::seal(&mut archives, request, &files)?;
    archives.finish()?;
    let rows = used_rows(&archives)?;
    let live_bytes = live_bytes(&archives, request, &retired);
    let (new_archives, new_archive_bytes) = (archives.sealed_archives, archives.sealed_bytes);
    drop(archives);
    catalog.end_lookups()?;
    let archives = rows.iter().map(|row| (row.key(), row.bytes)).collect();
    let contents = SnapshotContents {
        rows,
        index,
        totals: files.totals,
        has_wide_times: files.has_wide_times,
    };
    let published = publish_in_spool(request, catalog, spool, contents)?;
    catalog.set_live_bytes(&live_bytes)?;
    let next_id = catalog.next_archive_id()?;
    let receipt_key = ReceiptKey {
        salt,
        databases: schemas(&files.databases),
    };
    let cached = files.cache.finish(files.databases, next_id);
    cached.map_err(|source| scratch_error(&cache_path, source))?;
    Ok(Packed {
        manifest: published.manifest,
        archives,
        known: published.known,
        new_archives,
        new_archive_bytes,
        skipped: files.skipped,
        figures: files.figures,
        receipt_key,
        notes: files.notes,
    })
}

/// Returns the schemas of those databases that a drill can check: that are sound, and whose record
/// names one file.
fn schemas(databases: &[DatabaseRecord]) -> Schemas {
    let sound = databases.iter().filter(|one| one.can_be_checked());
    sound.map(|one| (one.path.clone(), one.schema)).collect()
}

/// Starts sealing for this run's recipients.
fn open_archives<'a>(
    request: &PackRequest<'_>,
    catalog: &'a mut Catalog,
    spool: &Spool,
    reusable: ReusableArchives<'a>,
    on_sealed: &'a mut OnSealed<'a>,
) -> Result<ArchiveWriter<'a>, PackError> {
    let options = &request.options;
    let settings = ArchiveSettings {
        recipient_set: catalog.remember_recipients(request.recipients.texts())?,
        archive_bytes: options.archive_bytes,
    };
    let sealer = Sealer::start(
        request.recipients.clone(),
        spool.clone(),
        options.level,
        options.threads,
    )?;
    ArchiveWriter::new(catalog, sealer, settings, reusable, on_sealed)
}

/// Packs all files of the snapshot, in path order.
fn pack_files(
    request: &PackRequest<'_>,
    archives: &mut ArchiveWriter<'_>,
    (mut cache, cache_out): (CacheReader, CacheWriter),
    scratch: &RunScratch,
    progress: &dyn Progress,
) -> Result<PackedFiles, PackError> {
    let snapshot = request.snapshot;
    let reusable = archives.usable_ids();
    let old_databases = std::mem::take(&mut cache.databases);
    let mut files = FilePacker::new(
        archives,
        old_databases,
        cache_out,
        scratch,
        snapshot,
        progress,
    )?
    .checking(request.options.check);
    let mut last_path: Option<Vec<u8>> = None;
    let parts = Parts::open(&snapshot.parts)?;
    prefetch(parts, cache, &reusable, |prefetched| {
        let item = &prefetched.item;
        if let SnapshotItem::Found { path, .. } | SnapshotItem::Between(path) = item {
            if last_path.as_ref().is_some_and(|last| last >= path) {
                return Err(PackError::Collision(
                    String::from_utf8_lossy(path).into_owned(),
                ));
            }
            last_path = Some(path.clone());
        }
        files.pack(prefetched)
    })?;
    files.finish()
}

/// Returns the rows of the archives that the snapshot uses: data first, each kind by id.
fn used_rows(archives: &ArchiveWriter<'_>) -> Result<Vec<ArchiveRow>, PackError> {
    let mut rows = Vec::new();
    for kind in [ArchiveKind::Data, ArchiveKind::Index] {
        rows.extend(
            archives
                .used(kind)?
                .into_iter()
                .map(|used| used.row.clone()),
        );
    }
    Ok(rows)
}

/// Returns the live bytes to record for each archive, by the catalog's number.
fn live_bytes(
    archives: &ArchiveWriter<'_>,
    request: &PackRequest<'_>,
    retired: &HashSet<i64>,
) -> HashMap<i64, u64> {
    let mut live = archives.live_by_number();
    // Archives that were packed again stay out of use, even if some of their dead content comes
    // back. Most archives of a long history are recorded so already; their rows are not rewritten.
    let were_in_use = request
        .usable
        .iter()
        .filter(|archive| archive.live_bytes != Some(0) && retired.contains(&archive.n));
    live.extend(were_in_use.map(|archive| (archive.n, 0)));
    live.extend(archives.retired_of_rest().map(|n| (n, 0)));
    live
}
