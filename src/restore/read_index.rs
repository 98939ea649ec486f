//! Fetches, verifies and parses the index of a snapshot, or the entries of it that are needed.

use std::io::BufRead;
use std::sync::Arc;

use super::cold_storage::NeededArchives;
use super::error::RestoreError;
use super::fetch::{self, Damaged};
use super::fetch_parts::{archive_error, fetch_parts, parts_reader};
use super::index_buffer::IndexBuffer;
use super::index_search::{self, NotFound, SealedIndex, WantedPaths};
use super::open::Identities;
use super::plan::{self, ArchiveJob, Index};
use super::range_reader::{RangeError, RangeReader};
use super::wrong_identity::NeededRecipients;
use super::{Progress, Silent, blocking};
use crate::base::ids::{Hash, HostName, Stamp};
use crate::base::openat::Dir;
use crate::format::index::{EntryList, Extent, IndexHeader, IndexReader, MAX_TAR_BYTES};
use crate::format::manifest::{IndexRef, Manifest, WIDE_TIMES};
use crate::repository::{ArchiveTable, HostFolder};

/// A larger index is refused.
const MAX_INDEX_BYTES: u64 = 8 << 30;

/// Fetches, verifies and parses a snapshot's whole index. Returns its header and its entries, by
/// path.
pub async fn read_index(
    folder: &HostFolder,
    manifest: &Manifest,
    table: &ArchiveTable,
    identities: &Arc<Identities>,
) -> Result<(IndexHeader, EntryList), RestoreError> {
    let (index, _) = fetch_index(folder, manifest, table, identities, None).await?;
    Ok((index.header, index.entries))
}

/// Reads the entries of `wanted`, and maybe others, through `reader`, so that what it fetched
/// before is not fetched again. Reads the whole index if there is no clearly shorter way, or if
/// something is wrong: then its error or its list of paths explains what.
pub async fn read_entries_by(
    reader: &RangeReader,
    manifest: &Manifest,
    table: &ArchiveTable,
    wanted: &WantedPaths,
) -> Result<(IndexHeader, EntryList), RestoreError> {
    let jobs = index_jobs(manifest, table)?;
    if reader.folder().target.has_ranges()
        && wanted.suit(&jobs)
        && let Some(index) = search_by(reader, manifest, table, &jobs, wanted).await?
    {
        return Ok((index.header, index.entries));
    }
    let (stamp, reference) = (manifest.core.stamp, &manifest.core.index);
    let buffer = IndexBuffer::new(reference.bytes, None);
    let buffer = buffer.map_err(|source| RestoreError::KeepIndex { stamp, source })?;
    let needed = NeededArchives::by(&jobs);
    let recipients = NeededRecipients::of(&jobs, &table.sets);
    let damaged = fetch_parts(reader, jobs, &Silent, &|| buffer.sink()).await;
    if damaged.iter().any(Damaged::is_frozen) {
        return Err(RestoreError::Frozen(needed.frozen(reader.folder()).await));
    }
    require_read(damaged, &recipients, stamp, reader.identities())?;
    let expected = ExpectedIndex::of(manifest);
    let index = blocking(move || parse(buffer, &expected)).await??;
    Ok((index.header, index.entries))
}

/// Searches the index for the entries of `wanted`. `None`: the whole index must be read.
async fn search_by(
    reader: &RangeReader,
    manifest: &Manifest,
    table: &ArchiveTable,
    jobs: &[ArchiveJob],
    wanted: &WantedPaths,
) -> Result<Option<Index>, RestoreError> {
    let found = match SealedIndex::open(reader, table, manifest).await {
        Ok(source) => index_search::search(&source, wanted).await,
        Err(error) => Err(error),
    };
    let Some(index) = searched(found, manifest.core.stamp, reader, jobs).await? else {
        return Ok(None);
    };
    let expected = ExpectedIndex::of(manifest);
    plan::check_header(&index.header, &expected.host, expected.stamp)?;
    expected.check_times(&index.entries)?;
    Ok(Some(index))
}

/// Returns what a search found; `None`: the whole index must be read. That also explains what is
/// wrong with an archive. If the target does not answer, it would only wait for it again.
async fn searched<T>(
    found: Result<T, NotFound>,
    stamp: Stamp,
    reader: &RangeReader,
    jobs: &[ArchiveJob],
) -> Result<Option<T>, RestoreError> {
    let error = match found {
        Ok(found) => return Ok(Some(found)),
        Err(NotFound::ReadWhole) => return Ok(None),
        Err(NotFound::Range(error)) => error,
    };
    if let RangeError::Frozen(_) = error {
        let needed = NeededArchives::by(jobs);
        return Err(RestoreError::Frozen(needed.frozen(reader.folder()).await));
    }
    let archive = match &error {
        RangeError::Archive { archive, .. } | RangeError::NotInTable(archive) => *archive,
        RangeError::Frozen(_) => return Ok(None),
    };
    let job = jobs.iter().find(|job| job.row.id == archive);
    let damaged = job.map(|job| {
        let error = archive_error(error.clone(), job);
        Damaged::of_job(job, error)
    });
    match damaged.filter(Damaged::is_the_targets_fault) {
        None => Ok(None),
        Some(damaged) => Err(RestoreError::IndexArchives {
            stamp,
            damaged: vec![damaged],
        }),
    }
}

/// Reads the header of a snapshot's index: of a large index no more than that takes.
pub async fn read_header(
    folder: &HostFolder,
    manifest: &Manifest,
    table: &ArchiveTable,
    identities: &Arc<Identities>,
) -> Result<IndexHeader, RestoreError> {
    let jobs = index_jobs(manifest, table)?;
    if folder.target.has_ranges() && index_search::is_large(&jobs) {
        let reader = parts_reader(folder, identities);
        let found = match SealedIndex::open(&reader, table, manifest).await {
            Ok(source) => index_search::header(&source).await,
            Err(error) => Err(error),
        };
        if let Some(header) = searched(found, manifest.core.stamp, &reader, &jobs).await? {
            plan::check_header(&header, &manifest.core.host, manifest.core.stamp)?;
            return Ok(header);
        }
    }
    let (buffer, expected, _) = fetch_lines(folder, manifest, table, identities, None).await?;
    blocking(move || Ok(parse_header(buffer, &expected)?.header)).await?
}

/// Returns the entries of `wanted`, maybe with others, and the ciphertext bytes that were fetched
/// for them. `None`: they cannot be had without the whole index.
pub(super) async fn fetch_entries(
    folder: &HostFolder,
    manifest: &Manifest,
    table: &ArchiveTable,
    identities: &Arc<Identities>,
    wanted: &WantedPaths,
) -> Result<(Option<Index>, u64), RestoreError> {
    let jobs = index_jobs(manifest, table)?;
    if !folder.target.has_ranges() || !wanted.suit(&jobs) {
        return Ok((None, 0));
    }
    let reader = parts_reader(folder, identities);
    let index = search_by(&reader, manifest, table, &jobs, wanted).await?;
    Ok((index, reader.fetched_bytes()))
}

/// Returns the index and the ciphertext bytes that were fetched for it. A large index is in a file
/// in `near` until it is parsed.
pub(super) async fn fetch_index(
    folder: &HostFolder,
    manifest: &Manifest,
    table: &ArchiveTable,
    identities: &Arc<Identities>,
    near: Option<&Dir>,
) -> Result<(Index, u64), RestoreError> {
    let (buffer, expected, fetched_bytes) =
        fetch_lines(folder, manifest, table, identities, near).await?;
    let index = blocking(move || parse(buffer, &expected));
    Ok((index.await??, fetched_bytes))
}

/// Fetches the lines of the index. Returns them, what they must be, and the ciphertext bytes that
/// were fetched.
async fn fetch_lines(
    folder: &HostFolder,
    manifest: &Manifest,
    table: &ArchiveTable,
    identities: &Arc<Identities>,
    near: Option<&Dir>,
) -> Result<(IndexBuffer, ExpectedIndex, u64), RestoreError> {
    let (stamp, reference) = (manifest.core.stamp, &manifest.core.index);
    let jobs = index_jobs(manifest, table)?;
    let fetched_bytes = plan::fetch_bytes(&jobs);
    let unkept = move |source| RestoreError::KeepIndex { stamp, source };
    let buffer = IndexBuffer::new(reference.bytes, near).map_err(unkept)?;
    let sink = || buffer.sink();
    let silent: Arc<dyn Progress> = Arc::new(Silent);
    let needed = NeededArchives::by(&jobs);
    let recipients = NeededRecipients::of(&jobs, &table.sets);
    let damaged = fetch::fetch(folder, jobs, identities, &silent, &sink).await;
    if damaged.iter().any(Damaged::is_frozen) {
        return Err(RestoreError::Frozen(needed.frozen(folder).await));
    }
    require_read(damaged, &recipients, stamp, identities)?;
    Ok((buffer, ExpectedIndex::of(manifest), fetched_bytes))
}

/// Returns the archives that hold the index, and what is needed of them.
fn index_jobs(manifest: &Manifest, table: &ArchiveTable) -> Result<Vec<ArchiveJob>, RestoreError> {
    let (stamp, reference) = (manifest.core.stamp, &manifest.core.index);
    if is_impossible(reference) {
        let what = "the manifest states an impossible size".to_owned();
        return Err(RestoreError::Index { stamp, what });
    }
    Ok(plan::index_jobs(&reference.extents, table)?)
}

/// Fails if an archive could not be read.
fn require_read(
    damaged: Vec<Damaged>,
    recipients: &NeededRecipients<'_>,
    stamp: Stamp,
    identities: &Identities,
) -> Result<(), RestoreError> {
    let unkept = |source| RestoreError::KeepIndex { stamp, source };
    let damaged = fetch::without_local_failures(damaged).map_err(unkept)?;
    if let Some(wrong) = recipients.explain(stamp, &damaged, identities) {
        return Err(RestoreError::WrongIdentity(wrong));
    }
    match damaged.is_empty() {
        true => Ok(()),
        false => Err(RestoreError::IndexArchives { stamp, damaged }),
    }
}

fn is_impossible(reference: &IndexRef) -> bool {
    let mut lengths = reference.extents.iter().map(|extent| extent.length);
    let promised = lengths.try_fold(0, u64::checked_add);
    let too_far = |extent: &Extent| extent.offset + extent.length > MAX_TAR_BYTES;
    promised != Some(reference.bytes)
        || reference.extents.iter().any(too_far)
        || reference.bytes > MAX_INDEX_BYTES
}

/// What the manifest says of the index.
struct ExpectedIndex {
    hash: Hash,
    host: HostName,
    stamp: Stamp,
    may_have_wide_times: bool,
}

impl ExpectedIndex {
    fn of(manifest: &Manifest) -> Self {
        let core = &manifest.core;
        Self {
            hash: core.index.blake3,
            host: core.host.clone(),
            stamp: core.stamp,
            may_have_wide_times: core.requires.iter().any(|one| one == WIDE_TIMES),
        }
    }

    /// Checks that the manifest says so if a time is beyond 64 bits.
    fn check_times(&self, entries: &EntryList) -> Result<(), RestoreError> {
        match entries.has_wide_times() && !self.may_have_wide_times {
            false => Ok(()),
            true => Err(RestoreError::Index {
                stamp: self.stamp,
                what: "a time is beyond 64 bits, and its manifest does not say so".to_owned(),
            }),
        }
    }
}

/// Parses the header of the index in `buffer`, if that is the one that the manifest names.
fn parse_header(
    buffer: IndexBuffer,
    expected: &ExpectedIndex,
) -> Result<IndexReader<impl BufRead + use<>>, RestoreError> {
    let stamp = expected.stamp;
    let lines = buffer.verified(expected.hash);
    let lines = lines.map_err(|source| RestoreError::KeepIndex { stamp, source })?;
    let lines = lines.ok_or_else(|| RestoreError::Index {
        stamp,
        what: "its BLAKE3 is not the manifest's".to_owned(),
    })?;
    let reader = IndexReader::new(lines);
    let reader = reader.map_err(|source| RestoreError::IndexContent { stamp, source })?;
    plan::check_header(&reader.header, &expected.host, stamp)?;
    Ok(reader)
}

/// Parses the whole of it.
fn parse(buffer: IndexBuffer, expected: &ExpectedIndex) -> Result<Index, RestoreError> {
    let stamp = expected.stamp;
    let mut reader = parse_header(buffer, expected)?;
    let entries = reader.read_rest();
    let entries = entries.map_err(|source| RestoreError::IndexContent { stamp, source })?;
    expected.check_times(&entries)?;
    Ok(Index {
        entries,
        header: reader.header,
        archives: reader.archives,
    })
}
