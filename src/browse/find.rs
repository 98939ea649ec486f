//! Finds entries in many snapshots. Each part of an index is read once, however many snapshots
//! share it.
//!
//! The bytes come from archives by range reads, which authenticate every byte under the archive's
//! key, and that key by the head that the signed table names (docs/looking.md says what this
//! proves). The newest indexes, as far as they fit in [`super::index_copies::COMPARED_BYTES`], are
//! also compared with the BLAKE3 of their manifests. A snapshot whose index cannot be read is
//! named, and the others are searched.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use futures::StreamExt as _;

use super::attribution::Attribution;
use super::index_copies::IndexCopies;
use super::index_lines::ScannedPiece;
use super::index_segments::{IndexPlaces, IndexSegments};
use super::query::FindQuery;
use super::row_counts::{self, RowCondition, RowsFound};
use super::versions::VersionSpan;
use crate::base::error_chain::with_causes;
use crate::base::ids::{ArchiveId, Hash, Stamp};
use crate::format::chain::VerifiedSnapshot;
use crate::format::index::{IndexHeader, MAX_TAR_BYTES};
use crate::format::manifest::{ArchiveKind, ArchiveRow, IndexRef, Manifest, TablePage};
use crate::repository::{HostFolder, RepositoryError};
use crate::restore::{RangeError, RangeReader};

/// A larger index is refused, as restores do.
const MAX_INDEX_BYTES: u64 = 8 << 30;
/// Pages of tables fetched at a time.
const CONCURRENT_GETS: usize = 16;
/// Archives read at a time.
const CONCURRENT_ARCHIVES: usize = 4;
/// Most bytes read at a time of one archive.
const READ_BYTES: u64 = 2 << 20;
/// Bytes between two segments that are read with them.
const GAP_BYTES: u64 = 128 << 10;

/// What is searched for.
#[derive(Debug, Clone, Default)]
pub struct FindRequest {
    /// Which entries are wanted. Without patterns: none.
    pub query: FindQuery,
    /// Which row counts of databases are wanted. `None`: none.
    pub rows: Option<RowCondition>,
}

/// A snapshot that was to be searched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchedSnapshot {
    /// Its stamp.
    pub stamp: Stamp,
    /// Its sequence.
    pub sequence: u64,
    /// Why its index could not be read. `None`: it was searched.
    pub unseen: Option<UnseenReason>,
}

/// Why an index could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnseenReason {
    /// The cause as text.
    pub text: String,
    /// It is encrypted to other recipients.
    pub lacks_identity: bool,
}

impl UnseenReason {
    fn of(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            lacks_identity: false,
        }
    }
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct FindResult {
    /// The snapshots, in the order in which they were given.
    pub snapshots: Vec<SearchedSnapshot>,
    /// The versions, by path, then by age. Their positions are those in `snapshots`.
    pub versions: Vec<VersionSpan>,
    /// The tables that fulfil the condition, by snapshot.
    pub rows: Vec<RowsFound>,
    /// Number of indexes whose BLAKE3 is that of their manifest; it was not compared for others.
    pub compared: usize,
}

/// Searches `snapshots`, which are by sequence. Fails only if nothing can be read.
pub async fn find(
    folder: &HostFolder,
    snapshots: &[&VerifiedSnapshot],
    reader: Arc<RangeReader>,
    request: &Arc<FindRequest>,
) -> FindResult {
    let mut plan = ScanPlan::default();
    let pages = fetch_pages(folder, snapshots).await;
    for snapshot in snapshots {
        let placed = plan.place(&snapshot.manifest, &pages);
        plan.indexes.push(placed.map_err(UnseenReason::of));
    }
    drop(pages);
    let indexes: Vec<&IndexRef> = snapshots
        .iter()
        .map(|snapshot| &snapshot.manifest.core.index)
        .collect();
    let placed = plan.indexes.iter().zip(&indexes);
    let placed = placed.filter_map(|(places, index)| Some(places.as_ref().ok()?.of(index)));
    let segments = IndexSegments::cut(plan.archives.len(), placed.flatten());
    let copies = Arc::new(IndexCopies::of(&indexes, &plan.indexes, &segments));
    let (scanned, unread) = plan.scan(&segments, &copies, reader, request).await;
    collect(
        snapshots,
        request,
        ScannedIndexes {
            plan,
            segments,
            copies,
            scanned,
            unread,
        },
    )
}

/// Fetches each page of a table once.
async fn fetch_pages(
    folder: &HostFolder,
    snapshots: &[&VerifiedSnapshot],
) -> HashMap<Hash, Result<TablePage, RepositoryError>> {
    let names = snapshots.iter().flat_map(|one| &one.manifest.pages);
    let names: HashSet<Hash> = names.copied().collect();
    let read = futures::stream::iter(names)
        .map(async |name| {
            let page = folder.page(&name).await.map(|mut page| {
                page.rows.retain(|row| row.kind == ArchiveKind::Index);
                page
            });
            (name, page)
        })
        .buffer_unordered(CONCURRENT_GETS);
    read.collect().await
}

/// Where the indexes are.
#[derive(Default)]
struct ScanPlan {
    archives: Vec<ArchiveRow>,
    /// Numbers of the archives by the hash of their object: an id may name another object in
    /// another snapshot.
    numbers: HashMap<Hash, u32>,
    /// The archives of each snapshot's index, or why they are not known.
    indexes: Vec<Result<IndexPlaces, UnseenReason>>,
}

/// The segments of one archive that were scanned, by number, or why it could not be read.
type ScannedArchive = Result<Vec<(u32, ScannedPiece)>, UnseenReason>;

impl ScanPlan {
    /// Returns the archives of a snapshot's index. The error is why it cannot be read.
    fn place(
        &mut self,
        manifest: &Manifest,
        pages: &HashMap<Hash, Result<TablePage, RepositoryError>>,
    ) -> Result<IndexPlaces, String> {
        let index = &manifest.core.index;
        let mut rows: BTreeMap<ArchiveId, &ArchiveRow> = BTreeMap::new();
        for name in &manifest.pages {
            let page = pages.get(name).ok_or("a page of its table is missing")?;
            let page = page.as_ref().map_err(|error| with_causes(error))?;
            for row in &page.rows {
                if rows.insert(row.id, row).is_some() {
                    return Err(format!("archive {} is in its table twice", row.id));
                }
            }
        }
        let mut lengths = index.extents.iter().map(|extent| extent.length);
        let promised = lengths.try_fold(0, u64::checked_add);
        if promised != Some(index.bytes) || index.bytes > MAX_INDEX_BYTES {
            return Err("its manifest states an impossible size of the index".to_owned());
        }
        let mut places = IndexPlaces::default();
        for extent in &index.extents {
            if extent.offset.saturating_add(extent.length) > MAX_TAR_BYTES {
                return Err("its index is beyond the end of an archive".to_owned());
            }
            if places.has(extent) {
                continue;
            }
            let row = extent.archive.and_then(|id| rows.get(&id));
            let row = row.ok_or("its index is in an archive that its table lacks")?;
            let next = self.archives.len() as u32;
            let archive = *self.numbers.entry(row.blake3).or_insert(next);
            if archive == next {
                self.archives.push((*row).clone());
            }
            places.add(row.id, archive);
        }
        Ok(places)
    }

    /// Reads and scans every segment. Returns what is in them, and why archives could not be read.
    async fn scan<'r>(
        &self,
        segments: &IndexSegments,
        copies: &Arc<IndexCopies>,
        reader: Arc<RangeReader>,
        request: &'r Arc<FindRequest>,
    ) -> (Attribution<'r>, HashMap<u32, UnseenReason>) {
        let mut scanned = Attribution::new(&request.query, segments.len);
        let mut unread = HashMap::new();
        let jobs = segments.archives.iter().zip(&self.archives).zip(0_u32..);
        let jobs = jobs.map(|((cut, row), number)| {
            let job = ArchiveScan {
                row: row.clone(),
                first: cut.first,
                places: cut.places.clone(),
                copies: Arc::clone(copies),
                reader: Arc::clone(&reader),
                request: Arc::clone(request),
            };
            async move {
                // A thread of its own: most of the time goes into scanning.
                let runtime = tokio::runtime::Handle::current();
                let done = tokio::task::spawn_blocking(move || runtime.block_on(job.run())).await;
                let done = done.unwrap_or_else(|error| Err(UnseenReason::of(error.to_string())));
                (number, done)
            }
        });
        let mut done = futures::stream::iter(jobs).buffer_unordered(CONCURRENT_ARCHIVES);
        while let Some((number, done)) = done.next().await {
            match done {
                Ok(pieces) => {
                    for (number, piece) in pieces {
                        scanned.add(number, piece);
                    }
                }
                Err(reason) => drop(unread.insert(number, reason)),
            }
        }
        (scanned, unread)
    }
}

/// The scan of one archive.
struct ArchiveScan {
    row: ArchiveRow,
    /// Number of the first segment.
    first: u32,
    places: Vec<Range<u64>>,
    copies: Arc<IndexCopies>,
    reader: Arc<RangeReader>,
    request: Arc<FindRequest>,
}

impl ArchiveScan {
    async fn run(self) -> ScannedArchive {
        let mut pieces: Vec<(u32, ScannedPiece)> = Vec::with_capacity(self.places.len());
        let mut next = 0;
        while let Some(first) = self.places.get(next) {
            // Neighbours are read together, and a large segment in parts.
            let limit = first.start + READ_BYTES;
            let mut last = next;
            while let (before, Some(after)) = (&self.places[last], self.places.get(last + 1))
                && after.start - before.end <= GAP_BYTES
                && after.end <= limit
            {
                last += 1;
            }
            let all = first.start..self.places[last].end;
            for number in next..=last {
                pieces.push((self.first + number as u32, ScannedPiece::default()));
            }
            let mut start = all.start;
            while start < all.end {
                let end = all.end.min(start + READ_BYTES);
                let bytes = self.reader.read_archive(&self.row, start..end).await;
                let bytes = bytes.map_err(|error| UnseenReason {
                    text: with_causes(&error),
                    lacks_identity: lacks_identity(&error),
                })?;
                if bytes.len() as u64 != end - start {
                    let id = self.row.id;
                    return Err(UnseenReason::of(format!(
                        "archive {id} is shorter than its table says"
                    )));
                }
                let places = self.places[next..=last].iter();
                for (place, (number, piece)) in places.zip(&mut pieces[next..=last]) {
                    let (from, to) = (place.start.max(start), place.end.min(end));
                    if from < to {
                        let part = &bytes[(from - start) as usize..(to - start) as usize];
                        piece.feed(&self.request.query, part);
                        self.copies.put(*number, from - place.start, part);
                    }
                }
                if pieces[next..=last]
                    .iter()
                    .all(|(_, piece)| piece.broken.is_some())
                {
                    // The rest of a broken piece changes nothing, and may be gigabytes.
                    break;
                }
                start = end;
            }
            next = last + 1;
        }
        let finished = pieces
            .into_iter()
            .map(|(number, piece)| (number, piece.finish()));
        Ok(finished.collect())
    }
}

fn lacks_identity(error: &RangeError) -> bool {
    match error {
        RangeError::Archive { source, .. } => source.lacks_identity(),
        _ => false,
    }
}

/// Everything that was read.
struct ScannedIndexes<'r> {
    plan: ScanPlan,
    segments: IndexSegments,
    copies: Arc<IndexCopies>,
    scanned: Attribution<'r>,
    /// Why archives could not be read, by number.
    unread: HashMap<u32, UnseenReason>,
}

/// Attributes what was found to snapshots.
fn collect(
    snapshots: &[&VerifiedSnapshot],
    request: &FindRequest,
    mut scan: ScannedIndexes<'_>,
) -> FindResult {
    let hashes = scan.copies.hashes();
    let mut result = FindResult::default();
    for (position, snapshot) in snapshots.iter().enumerate() {
        let read = scan.read(snapshot, position, hashes.get(&position));
        let mut searched = SearchedSnapshot {
            stamp: snapshot.stamp(),
            sequence: snapshot.sequence(),
            unseen: None,
        };
        match read {
            Ok((header, found)) => {
                result.compared += usize::from(hashes.contains_key(&position));
                let position = position as u32;
                scan.scanned.count(position, &found);
                if let Some(condition) = &request.rows {
                    let is_meant =
                        |path: &[u8]| request.query.is_empty() || request.query.matches_path(path);
                    let rows = row_counts::matching(&header, condition, position, is_meant);
                    result.rows.extend(rows);
                }
            }
            Err(reason) => searched.unseen = Some(reason),
        }
        result.snapshots.push(searched);
    }
    result.versions = scan.scanned.into_spans();
    result
}

impl ScannedIndexes<'_> {
    /// Returns the header of an index, and the numbers of the versions in it.
    fn read(
        &mut self,
        snapshot: &VerifiedSnapshot,
        position: usize,
        hash: Option<&Hash>,
    ) -> Result<(IndexHeader, Vec<u32>), UnseenReason> {
        let places = self.plan.indexes[position].as_ref();
        let places = places.map_err(UnseenReason::clone)?;
        let core = &snapshot.manifest.core;
        if !self.unread.is_empty() {
            let mut placed = places.of(&core.index);
            let unread = placed.find_map(|extent| self.unread.get(&extent.archive));
            if let Some(reason) = unread {
                return Err(reason.clone());
            }
        }
        if hash.is_some_and(|hash| *hash != core.index.blake3) {
            return Err(UnseenReason::of(
                "the BLAKE3 of its index is not the manifest's",
            ));
        }
        let malformed = |what: String| UnseenReason::of(format!("its index is malformed: {what}"));
        let placed = places.of(&core.index);
        let runs = placed.map(|extent| self.segments.of(&extent));
        let index = self.scanned.join(runs).map_err(malformed)?;
        let header: IndexHeader =
            serde_json::from_slice(&index.header).map_err(|error| malformed(error.to_string()))?;
        if header.host != core.host || header.stamp != core.stamp {
            let other = format!("it is of {} at {}", header.host, header.stamp);
            return Err(malformed(other));
        }
        let promised = header
            .archives
            .saturating_add(header.entries)
            .saturating_add(1);
        if index.lines != promised {
            return Err(malformed(format!(
                "{} lines, promised {promised}",
                index.lines
            )));
        }
        Ok((header, index.found))
    }
}
