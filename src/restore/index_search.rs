//! Finds entries of an index by reading parts of it.
//!
//! The lines of an index are sorted by path, so a binary search finds one. It looks where reading
//! is cheap: at the begins of extents and of frames, since a frame is decompressed from its begin.
//! The begin of the index, which is header and archive lines, is always read.
//!
//! What is read is proven by the BLAKE3 that the signed manifest names. Anything that is odd (a
//! part that cannot be proven, a line out of order, a path that does not exist) is not judged here:
//! the caller then reads the whole index.

mod lines;
mod source;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::plan::{ArchiveJob, Index, fetch_bytes};
use super::range_reader::RangeError;
use crate::base::ids::ArchiveId;
use crate::base::path_choice::trim;
use crate::format::index::{
    ArchiveStream, Entry, EntryList, EntryType, IndexHeader, IndexReader, check_extents,
    parent_path, path_of_line,
};
use lines::{LineWindow, lines_end};
pub(super) use source::{IndexSource, SealedIndex};

/// Index archives with less ciphertext than this are read whole.
const LEAST_BYTES: u64 = 512 << 10;
/// More paths than this are not looked for one by one.
const MOST_PATHS: usize = 8;
/// A search stops at a part of this size, which it reads line by line.
const FINAL_BYTES: u64 = 32 << 10;
/// Bytes that are read at first where the search looks, and at most.
const FIRST_PROBE_BYTES: u64 = 4 << 10;
const MOST_PROBE_BYTES: u64 = 1 << 20;
/// If the entries make up more than such a part of the index, all of it is read.
const CLEARLY_LESS: u64 = 4;
/// More bytes of header and archive lines, or of entry lines, are left to the reading of the whole.
const MOST_LINE_BYTES: u64 = 16 << 20;

/// The entries that a caller needs.
#[derive(Debug, Default)]
pub struct WantedPaths {
    /// Paths that are expected to exist, from the top of the snapshot.
    pub required: Vec<Vec<u8>>,
    /// Paths that may exist.
    pub optional: Vec<Vec<u8>>,
    /// Everything below the required paths is needed, and the directories above them.
    pub with_trees: bool,
}

impl WantedPaths {
    /// Returns what a restore of `paths` needs.
    pub(super) fn trees(paths: &[Vec<u8>]) -> Self {
        Self {
            required: paths.iter().map(|path| trim(path).to_vec()).collect(),
            optional: Vec::new(),
            with_trees: true,
        }
    }

    /// Whether a search for them among the archives of `jobs` can be worth it.
    pub(super) fn suit(&self, jobs: &[ArchiveJob]) -> bool {
        let paths = self.required.len() + self.optional.len();
        let has_top = self.required.iter().any(Vec::is_empty);
        !has_top && (1..=MOST_PATHS).contains(&paths) && is_large(jobs)
    }
}

/// Whether an index in the archives of `jobs` is so large that a search can be worth it.
pub(super) fn is_large(jobs: &[ArchiveJob]) -> bool {
    fetch_bytes(jobs) >= LEAST_BYTES
}

/// Why a search ends without the entries.
#[derive(Debug)]
pub(super) enum NotFound {
    /// The whole index must be read: it has more to say, or it is needed for the most part.
    ReadWhole,
    /// A part of it cannot be read.
    Range(RangeError),
}

impl From<RangeError> for NotFound {
    fn from(error: RangeError) -> Self {
        Self::Range(error)
    }
}

/// Finds the entries of `wanted`, and the first names of the hard links among them.
pub(super) async fn search(
    source: &impl IndexSource,
    wanted: &WantedPaths,
) -> Result<Index, NotFound> {
    let head = read_head(source).await?;
    let mut search = IndexSearch {
        source,
        head,
        found: BTreeMap::new(),
        read_bytes: 0,
    };
    search.add_all(wanted).await?;
    let mut entries = EntryList::default();
    entries.extend(search.found.values());
    Ok(Index {
        header: search.head.header,
        archives: search.head.archives,
        entries,
    })
}

/// Reads the header of an index.
pub(super) async fn header(source: &impl IndexSource) -> Result<IndexHeader, NotFound> {
    Ok(read_head(source).await?.header)
}

/// What is before the entries.
struct IndexHead {
    header: IndexHeader,
    archives: HashMap<ArchiveId, ArchiveStream>,
    /// Position of the first entry.
    end: u64,
}

async fn read_head(source: &impl IndexSource) -> Result<IndexHead, NotFound> {
    let odd = |_| NotFound::ReadWhole;
    let mut window = LineWindow::new(source, 0);
    let first = window.line().await?.ok_or(NotFound::ReadWhole)?;
    let header: IndexHeader = serde_json::from_slice(first).map_err(odd)?;
    for _ in 0..header.archives {
        window.line().await?.ok_or(NotFound::ReadWhole)?;
        if window.position() > MOST_LINE_BYTES {
            return Err(NotFound::ReadWhole);
        }
    }
    let end = window.position();
    let bytes = source.read(0..end).await?;
    // The rules of header and archives are the reader's.
    let reader = IndexReader::new(&bytes[..]).map_err(|_| NotFound::ReadWhole)?;
    Ok(IndexHead {
        header: reader.header,
        archives: reader.archives,
        end,
    })
}

struct IndexSearch<'a, S> {
    source: &'a S,
    head: IndexHead,
    found: BTreeMap<Vec<u8>, Entry>,
    /// Bytes of lines that were found.
    read_bytes: u64,
}

impl<S: IndexSource> IndexSearch<'_, S> {
    async fn add_all(&mut self, wanted: &WantedPaths) -> Result<(), NotFound> {
        for path in &wanted.required {
            if !self.add(path).await? {
                return Err(NotFound::ReadWhole);
            }
            if wanted.with_trees {
                self.add_above(path).await?;
                self.add_below(path).await?;
            }
        }
        for path in &wanted.optional {
            self.add(path).await?;
        }
        self.add_first_names().await
    }

    /// Adds the directories above `path`.
    async fn add_above(&mut self, path: &[u8]) -> Result<(), NotFound> {
        let mut above = parent_path(path);
        while let Some(dir) = above {
            self.add(dir).await?;
            if self.found.get(dir).map(|entry| entry.kind) != Some(EntryType::Dir) {
                return Err(NotFound::ReadWhole);
            }
            above = parent_path(dir);
        }
        Ok(())
    }

    /// Adds the first names of the hard links that were found.
    async fn add_first_names(&mut self) -> Result<(), NotFound> {
        let links = self.found.values();
        let links = links.filter(|entry| entry.kind == EntryType::Hardlink);
        let firsts: BTreeSet<Vec<u8>> = links.filter_map(|entry| entry.target.clone()).collect();
        let missing = firsts.iter().filter(|path| !self.found.contains_key(*path));
        let missing: Vec<Vec<u8>> = missing.cloned().collect();
        if missing.len() > MOST_PATHS {
            return Err(NotFound::ReadWhole);
        }
        for path in missing {
            if !self.add(&path).await? {
                return Err(NotFound::ReadWhole);
            }
        }
        Ok(())
    }

    /// Adds the entry at `path`. Returns whether there is one.
    async fn add(&mut self, path: &[u8]) -> Result<bool, NotFound> {
        if !self.found.contains_key(path) {
            self.add_from(path, |found| found == path).await?;
        }
        Ok(self.found.contains_key(path))
    }

    /// Adds everything below the directory `path`.
    async fn add_below(&mut self, path: &[u8]) -> Result<(), NotFound> {
        if self.found.get(path).map(|entry| entry.kind) != Some(EntryType::Dir) {
            return Ok(());
        }
        let inside = [path, b"/"].concat();
        self.add_from(&inside, |found| found.starts_with(&inside))
            .await
    }

    /// Adds the entries from the first one at or behind `path` on, as long as they are `wanted`.
    async fn add_from(
        &mut self,
        path: &[u8],
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Result<(), NotFound> {
        let begin = self.near(path).await?;
        let mut window = LineWindow::new(self.source, begin);
        let mut last: Option<Vec<u8>> = None;
        while let Some(line) = window.line().await? {
            let here = path_of(line)?;
            // Lines out of order are an error that the whole index shows.
            if last.is_some_and(|last| last >= here) {
                return Err(NotFound::ReadWhole);
            }
            if here.as_slice() >= path {
                if !wanted(&here) {
                    return Ok(());
                }
                let bytes = line.len() as u64;
                let entry = self.parse(line)?;
                self.take(entry, bytes)?;
            }
            last = Some(here);
        }
        Ok(())
    }

    fn parse(&self, line: &[u8]) -> Result<Entry, NotFound> {
        let odd = |_| NotFound::ReadWhole;
        let entry = Entry::from_line(line).map_err(odd)?;
        check_extents(&entry, &self.head.archives).map_err(odd)?;
        Ok(entry)
    }

    fn take(&mut self, entry: Entry, bytes: u64) -> Result<(), NotFound> {
        self.read_bytes += bytes;
        let is_much = self.read_bytes * CLEARLY_LESS > self.source.bytes();
        if is_much || self.read_bytes > MOST_LINE_BYTES {
            return Err(NotFound::ReadWhole);
        }
        self.found.insert(entry.path.clone(), entry);
        Ok(())
    }

    /// Returns the begin of a line at or before the one of `path`, and not far from it.
    async fn near(&self, path: &[u8]) -> Result<u64, NotFound> {
        // The line that is looked for begins at `low` or behind it, and before `high`.
        let (mut low, mut high) = (self.head.end, self.source.bytes());
        while high.saturating_sub(low) > FINAL_BYTES {
            let Some(cut) = self.cut_between(low, high).await? else {
                break;
            };
            match self.probe(cut, high).await? {
                Some((begin, found)) if found.as_slice() <= path => low = begin,
                // No line begins between `cut` and the one that was found; one may begin at `cut`.
                _ => high = cut + 1,
            }
        }
        Ok(low)
    }

    /// Returns the cheapest place near the middle of `low..high` to look at: behind `low`, and so
    /// that a line that begins behind it makes the range smaller.
    async fn cut_between(&self, low: u64, high: u64) -> Result<Option<u64>, NotFound> {
        let middle = low + (high - low) / 2;
        let cuts = self.source.cuts(middle).await?.into_iter();
        let cuts = cuts.filter(|cut| low < *cut && cut + 1 < high);
        Ok(cuts.min_by_key(|cut| cut.abs_diff(middle)))
    }

    /// Returns the first line that begins behind `cut` and before `high`: its begin and its path.
    async fn probe(&self, cut: u64, high: u64) -> Result<Option<(u64, Vec<u8>)>, NotFound> {
        let mut bytes = FIRST_PROBE_BYTES;
        loop {
            let part = self.source.read(cut..cut + bytes).await?;
            let is_end = (part.len() as u64) < bytes;
            let begin = memchr::memchr(b'\n', &part).map(|at| at + 1);
            match begin {
                Some(begin) if cut + begin as u64 >= high => return Ok(None),
                Some(begin) => {
                    let line = &part[begin..lines_end(&part, begin)];
                    if let Ok(Some(path)) = path_of_line(line) {
                        return Ok(Some((cut + begin as u64, path.into_owned())));
                    }
                }
                None if is_end || cut + bytes >= high => return Ok(None),
                None => {}
            }
            if is_end || bytes >= MOST_PROBE_BYTES {
                return Err(NotFound::ReadWhole);
            }
            bytes *= 4;
        }
    }
}

fn path_of(line: &[u8]) -> Result<Vec<u8>, NotFound> {
    match path_of_line(line) {
        Ok(Some(path)) => Ok(path.into_owned()),
        _ => Err(NotFound::ReadWhole),
    }
}
