//! Parts of archives as the target has them: from the cache if they are there.

use std::fs::File;
use std::io::{self, Write as _};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::StreamExt as _;

use super::block_cache::BlockCache;
use super::block_file::BLOCK_BYTES;
use super::recent_parts::RecentParts;
use super::whole_files::WholeFiles;
use crate::format::manifest::ArchiveRow;
use crate::repository::HostFolder;
use crate::restore::fetch::ArchiveError;

/// Parts that are needed and less than this apart are fetched with what is between them.
pub(super) const JOINED_BYTES: u64 = 1 << 20;
/// How many whole archives the cache must have room for to hold one that cannot be fetched in
/// parts.
const ROOM_FOR_WHOLE: u64 = 4;

/// Whether the cache may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    /// What is in the cache will do.
    Any,
    /// Everything must come from the target.
    Fetched,
}

/// A part of an archive.
#[derive(Debug, Clone)]
pub(super) struct CipherPart {
    pub(super) bytes: Bytes,
    /// Some of it comes from the cache, which may be damaged.
    pub(super) is_from_cache: bool,
}

/// Reads parts of the archives in one host's folder.
pub(super) struct Ciphertext {
    folder: HostFolder,
    cache: Option<Arc<BlockCache>>,
    /// What was fetched lately, if there is no cache.
    recent: RecentParts,
    whole: WholeFiles,
    /// Only one archive at a time is fetched whole, so that none is fetched twice.
    whole_turn: tokio::sync::Mutex<()>,
    fetched_bytes: AtomicU64,
}

impl Ciphertext {
    pub(super) fn new(folder: HostFolder, cache: Option<BlockCache>) -> Self {
        Self {
            folder,
            cache: cache.map(Arc::new),
            recent: RecentParts::default(),
            whole: WholeFiles::default(),
            whole_turn: tokio::sync::Mutex::default(),
            fetched_bytes: AtomicU64::new(0),
        }
    }

    /// Returns the target's label.
    pub(super) fn target(&self) -> &str {
        self.folder.target.label()
    }

    /// Returns the bytes of archives that the target sent so far.
    pub(super) fn fetched_bytes(&self) -> u64 {
        self.fetched_bytes.load(Ordering::Relaxed)
    }

    /// Returns why something could not be kept.
    pub(super) fn cache_trouble(&self) -> Option<String> {
        self.cache.as_ref().and_then(|cache| cache.trouble())
    }

    /// Returns the bytes `range` of the archive `row`.
    pub(super) async fn read(
        &self,
        row: &ArchiveRow,
        range: Range<u64>,
        freshness: Freshness,
    ) -> Result<CipherPart, ArchiveError> {
        if range.is_empty() {
            return Ok(CipherPart {
                bytes: Bytes::new(),
                is_from_cache: false,
            });
        }
        if freshness == Freshness::Any
            && let Some(part) = self.whole.read(&row.blake3, &range)
        {
            return Ok(CipherPart {
                bytes: part.map_err(ArchiveError::Write)?,
                is_from_cache: true,
            });
        }
        let here = match freshness {
            Freshness::Any => self.cached(row, &range).await?,
            Freshness::Fetched => Vec::new(),
        };
        let gaps = gaps(&range, &here);
        if !self.folder.target.has_ranges() && !gaps.is_empty() {
            let bytes = self.read_whole(row, &range, freshness).await?;
            return Ok(bytes);
        }
        let gaps = joined(gaps);
        if let [gap] = gaps.as_slice()
            && *gap == range
        {
            let bytes = self.fetch(row, range).await?;
            return Ok(CipherPart {
                bytes,
                is_from_cache: false,
            });
        }
        let fetches = gaps.iter().map(|gap| self.fetch(row, gap.clone()));
        let fetched = futures::future::try_join_all(fetches).await?;
        let mut bytes = vec![0; (range.end - range.start) as usize];
        let starts = gaps.iter().map(|gap| gap.start);
        // What was fetched counts more than what was here.
        for (start, part) in here.into_iter().chain(starts.zip(fetched)) {
            let at = (start - range.start) as usize;
            bytes[at..at + part.len()].copy_from_slice(&part);
        }
        Ok(CipherPart {
            bytes: bytes.into(),
            is_from_cache: true,
        })
    }

    async fn cached(
        &self,
        row: &ArchiveRow,
        range: &Range<u64>,
    ) -> Result<Vec<(u64, Bytes)>, ArchiveError> {
        let Some(cache) = self.cache.clone() else {
            return Ok(self.recent.get(&row.blake3, range));
        };
        let (archive, range) = (row.blake3, range.clone());
        blocking(move || cache.get(&archive, &range)).await
    }

    /// Fetches a part and keeps it.
    async fn fetch(&self, row: &ArchiveRow, range: Range<u64>) -> Result<Bytes, ArchiveError> {
        let key = self.folder.key(&row.key());
        let start = range.start;
        let bytes = self.folder.target.get_range(&key, range).await;
        let bytes = bytes.map_err(ArchiveError::Fetch)?;
        self.count(&bytes);
        let archive = row.blake3;
        match self.cache.clone() {
            Some(cache) => {
                let kept = bytes.clone();
                blocking(move || cache.put(&archive, start, &kept)).await?;
            }
            None => self.recent.put(archive, start, &bytes),
        }
        Ok(bytes)
    }

    fn count(&self, bytes: &Bytes) {
        let bytes = bytes.len() as u64;
        self.fetched_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Fetches an archive whole, keeps it, and returns a part of it.
    async fn read_whole(
        &self,
        row: &ArchiveRow,
        range: &Range<u64>,
        freshness: Freshness,
    ) -> Result<CipherPart, ArchiveError> {
        let _turn = self.whole_turn.lock().await;
        if freshness == Freshness::Any {
            // Another reader may have fetched it meanwhile.
            let here = match self.whole.read(&row.blake3, range) {
                Some(part) => Some(part.map_err(ArchiveError::Write)?),
                None => whole_of(range, &self.cached(row, range).await?),
            };
            if let Some(bytes) = here {
                let is_from_cache = true;
                return Ok(CipherPart {
                    bytes,
                    is_from_cache,
                });
            }
        }
        let has_room = |cache: &BlockCache| cache.most_bytes() / ROOM_FOR_WHOLE >= row.bytes;
        let cache = self.cache.clone().filter(|cache| has_room(cache));
        let mut file = match &cache {
            Some(_) => None,
            None => Some(tempfile::tempfile().map_err(ArchiveError::Write)?),
        };
        let mut part = Vec::with_capacity((range.end - range.start) as usize);
        let (mut at, mut pending) = (0, Vec::new());
        let key = self.folder.key(&row.key());
        let opened = self.folder.target.stream(&key, 0).await;
        let mut body = opened.map_err(ArchiveError::Fetch)?;
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(ArchiveError::Fetch)?;
            self.count(&piece);
            let end = at + piece.len() as u64;
            if end > row.bytes {
                return Err(wrong_size(format!("more than {}", row.bytes), row));
            }
            let (from, to) = (range.start.max(at), range.end.min(end));
            if from < to {
                part.extend_from_slice(&piece[(from - at) as usize..(to - at) as usize]);
            }
            at = end;
            pending.extend_from_slice(&piece);
            if pending.len() as u64 >= BLOCK_BYTES || at == row.bytes {
                let ready = std::mem::take(&mut pending);
                file = keep(cache.clone(), file, row, at, ready).await?;
            }
        }
        if at != row.bytes {
            return Err(wrong_size(at.to_string(), row));
        }
        if let Some(file) = file {
            self.whole.keep(row.blake3, file, row.bytes);
        }
        Ok(CipherPart {
            bytes: part.into(),
            is_from_cache: false,
        })
    }
}

/// Keeps bytes of an archive that end at `end`: in the cache, or at the end of `file`.
async fn keep(
    cache: Option<Arc<BlockCache>>,
    file: Option<File>,
    row: &ArchiveRow,
    end: u64,
    bytes: Vec<u8>,
) -> Result<Option<File>, ArchiveError> {
    let (archive, start) = (row.blake3, end - bytes.len() as u64);
    let kept = blocking(move || -> io::Result<Option<File>> {
        if let Some(cache) = cache {
            cache.put(&archive, start, &bytes);
        }
        let Some(mut file) = file else {
            return Ok(None);
        };
        file.write_all(&bytes)?;
        Ok(Some(file))
    });
    kept.await?.map_err(ArchiveError::Write)
}

fn wrong_size(found: String, row: &ArchiveRow) -> ArchiveError {
    ArchiveError::Size {
        found,
        expected: row.bytes,
    }
}

/// Runs disk work on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ArchiveError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| ArchiveError::Stopped)
}

/// Returns the bytes `range` if `here`, parts of it in order, fills it.
fn whole_of(range: &Range<u64>, here: &[(u64, Bytes)]) -> Option<Bytes> {
    let mut bytes = Vec::new();
    for (start, part) in here {
        if *start != range.start + bytes.len() as u64 {
            return None;
        }
        bytes.extend_from_slice(part);
    }
    (bytes.len() as u64 == range.end - range.start).then(|| bytes.into())
}

/// Returns what `here`, parts of `range` in order, lacks of it.
fn gaps(range: &Range<u64>, here: &[(u64, Bytes)]) -> Vec<Range<u64>> {
    let mut gaps = Vec::new();
    let mut at = range.start;
    for (start, part) in here {
        if *start > at {
            gaps.push(at..*start);
        }
        at = start + part.len() as u64;
    }
    if at < range.end {
        gaps.push(at..range.end);
    }
    gaps
}

/// Joins ranges, which are in order, that are near each other.
fn joined(ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start - last.end < JOINED_BYTES => last.end = range.end,
            _ => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_gaps_are_fetched_together() {
        let part = |start: u64, length: usize| (start, Bytes::from(vec![0; length]));
        let far = JOINED_BYTES as usize;
        let here = [part(10, 5), part(15, 5), part(100, far)];
        let range = 0..3 * JOINED_BYTES;
        let lacking = gaps(&range, &here);
        let end = 100 + JOINED_BYTES;
        assert_eq!(lacking, [0..10, 20..100, end..range.end]);
        assert_eq!(joined(lacking), [0..100, end..range.end]);
        assert_eq!(gaps(&(10..20), &here[..2]), []);
        assert_eq!(whole_of(&(10..20), &here[..2]).unwrap().len(), 10);
        assert_eq!(whole_of(&(10..21), &here[..2]), None);
        assert_eq!(whole_of(&(9..20), &here[..2]), None);
    }
}
