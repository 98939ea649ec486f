//! Decides what a restore will do, before it does anything.
//!
//! Pure: takes the verified manifest, its archive table and its index; returns the entries to make
//! and, for every archive, the needed pieces of its tar stream. Defects of the index as a whole (a
//! hard link to nothing, an archive that is not in the table) are found here, while nothing is
//! written.

mod error;
mod select;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use crate::base::ids::{ArchiveId, HostName, Stamp};
use crate::base::snapshot_choice::SnapshotChoice;
use crate::format::chain::{Chain, Finding, VerifiedSnapshot};
use crate::format::index::{ArchiveStream, EntryList, EntryType, Extent, IndexHeader};
use crate::format::manifest::ArchiveRow;
use crate::repository::ArchiveTable;
use error::{MAX_HOLE_BYTES, explain_lack};

pub use error::PlanError;

/// The parameters of a restore.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// Which snapshot; its tags are the caller's business.
    pub snapshot: SnapshotChoice,
    /// The destination, as the operator named it.
    pub to: PathBuf,
    /// Snapshot-relative paths; everything below them is included. Empty: everything.
    pub paths: Vec<Vec<u8>>,
    /// Move the content of `to` aside. False: refuse if there is any.
    pub overwrite: bool,
    /// The lowest sequence number to accept. `None`: any.
    pub at_least: Option<u64>,
    /// Make device nodes (root only).
    pub devices: bool,
}

/// A run of an archive's tar stream, and its place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Number of the file in the plan's entries; 0 if it is the index.
    pub entry: u32,
    /// Offset in the file, bytes.
    pub file_offset: u64,
    /// Offset in the tar stream, bytes.
    pub tar_offset: u64,
    /// Bytes.
    pub length: u64,
}

/// One archive to fetch, and what to take from it.
#[derive(Debug, Clone)]
pub(crate) struct ArchiveJob {
    /// Its row of the table.
    pub row: ArchiveRow,
    /// The expected tar stream. `None`: it holds only the index, and no index lists it.
    pub stream: Option<ArchiveStream>,
    /// Sorted by tar offset.
    pub pieces: Vec<Piece>,
}

/// A parsed index.
#[derive(Debug)]
pub(crate) struct Index {
    /// The header.
    pub header: IndexHeader,
    /// The tar streams of the archives that it names.
    pub archives: HashMap<ArchiveId, ArchiveStream>,
    /// By path.
    pub entries: EntryList,
}

/// The part of a plan that follows from snapshot and request alone.
#[derive(Debug)]
pub(crate) struct Contents {
    /// The index's header.
    pub header: IndexHeader,
    /// The entries to restore, by path; parents come first.
    pub entries: EntryList,
    /// The archives to fetch, by archive id.
    pub jobs: Vec<ArchiveJob>,
    /// How many of the entries are files.
    pub files: u64,
    /// Sum of the files' sizes; saturates, as an index may state anything.
    pub bytes: u64,
    /// `bytes` without holes.
    pub stored_bytes: u64,
}

/// Returns the bytes of ciphertext of all `jobs`.
pub(crate) fn fetch_bytes(jobs: &[ArchiveJob]) -> u64 {
    let sizes = jobs.iter().map(|job| job.row.bytes);
    sizes.fold(0, u64::saturating_add)
}

/// Returns the snapshot that `request` names, unless a finding forbids to trust it.
pub(crate) fn choose<'a>(
    chain: &'a Chain,
    request: &RestoreRequest,
) -> Result<&'a VerifiedSnapshot, PlanError> {
    let chosen = chain.resolve(&request.snapshot)?;
    let (name, stamp) = (chosen.manifest.name(), chosen.stamp());
    // If a damaged or foreign manifest could be the chosen one, it is unknown which one is.
    if let Some(finding) = chain.doubt(&request.snapshot, chosen) {
        return Err(PlanError::Doubtful {
            stamp,
            finding: finding.to_string(),
            next: finding.next(),
        });
    }
    for finding in &chain.findings {
        if let Finding::Lineage { child, .. } = finding
            && *child == name
        {
            let finding = finding.to_string();
            return Err(PlanError::Lineage { stamp, finding });
        }
    }
    match request.at_least {
        Some(at_least) if chosen.sequence() < at_least => Err(PlanError::TooOld {
            stamp,
            sequence: chosen.sequence(),
            at_least,
        }),
        _ => Ok(chosen),
    }
}

/// Checks that the index belongs to the snapshot.
pub(crate) fn check_header(
    header: &IndexHeader,
    host: &HostName,
    stamp: Stamp,
) -> Result<(), PlanError> {
    match header.host == *host && header.stamp == stamp {
        true => Ok(()),
        false => Err(PlanError::OtherSnapshot {
            found: format!("{} of {}", header.stamp, header.host),
            expected: format!("{stamp} of {host}"),
        }),
    }
}

/// Returns the archives that hold the index, whose extents are pieces of one file.
pub(crate) fn index_jobs(
    extents: &[Extent],
    table: &ArchiveTable,
) -> Result<Vec<ArchiveJob>, PlanError> {
    let mut pieces = BTreeMap::new();
    add_pieces(&mut pieces, 0, extents.iter().copied());
    into_jobs(pieces, table, &HashMap::new())
}

/// Selects the entries at or below `paths` and the archives that hold their content.
pub(crate) fn contents(
    index: Index,
    table: &ArchiveTable,
    paths: &[Vec<u8>],
) -> Result<Contents, PlanError> {
    check_hard_links(&index.entries)?;
    let lacked = |error| explain_lack(error, &index.header.skipped);
    let entries = select::select(index.entries, paths).map_err(lacked)?;
    let mut pieces = BTreeMap::new();
    let (mut files, mut bytes, mut hole_bytes) = (0, 0u64, 0u64);
    for (number, entry) in entries.iter().enumerate() {
        let number = u32::try_from(number).map_err(|_| PlanError::TooManyEntries)?;
        add_pieces(&mut pieces, number, entry.extents());
        files += u64::from(entry.kind == EntryType::File);
        bytes = bytes.saturating_add(entry.size);
        let holes = entry.extents().filter(|extent| extent.archive.is_none());
        let holes = holes.map(|extent| extent.length);
        hole_bytes = holes.fold(hole_bytes, u64::saturating_add);
    }
    if hole_bytes > MAX_HOLE_BYTES {
        return Err(PlanError::Holes(hole_bytes));
    }
    Ok(Contents {
        header: index.header,
        jobs: into_jobs(pieces, table, &index.archives)?,
        entries,
        files,
        bytes,
        stored_bytes: bytes - hole_bytes,
    })
}

/// Checks that the first name of each hard link is a file that is made before it.
fn check_hard_links(entries: &EntryList) -> Result<(), PlanError> {
    for entry in entries.iter().filter(|e| e.kind == EntryType::Hardlink) {
        let target = entry.target.unwrap_or_default();
        let first = entries.find(target);
        let earlier_file = first.is_some_and(|first| first.kind == EntryType::File);
        if !earlier_file || target >= entry.path {
            return Err(PlanError::HardLink {
                link: entry.path_lossy().into_owned(),
                target: String::from_utf8_lossy(target).into_owned(),
            });
        }
    }
    Ok(())
}

type Pieces = BTreeMap<ArchiveId, Vec<Piece>>;

fn add_pieces(pieces: &mut Pieces, entry: u32, extents: impl Iterator<Item = Extent>) {
    let mut file_offset = 0;
    for extent in extents {
        if let Some(archive) = extent.archive {
            pieces.entry(archive).or_default().push(Piece {
                entry,
                file_offset,
                tar_offset: extent.offset,
                length: extent.length,
            });
        }
        file_offset += extent.length;
    }
}

fn into_jobs(
    pieces: Pieces,
    table: &ArchiveTable,
    streams: &HashMap<ArchiveId, ArchiveStream>,
) -> Result<Vec<ArchiveJob>, PlanError> {
    let job = |(id, mut pieces): (ArchiveId, Vec<Piece>)| {
        pieces.shrink_to_fit();
        pieces.sort_unstable_by_key(|piece| (piece.tar_offset, piece.entry, piece.file_offset));
        let row = table.rows.get(&id).ok_or(PlanError::UnknownArchive(id))?;
        Ok(ArchiveJob {
            row: row.clone(),
            stream: streams.get(&id).copied(),
            pieces,
        })
    };
    pieces.into_iter().map(job).collect()
}
