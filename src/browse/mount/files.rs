//! Open files, and reading from them.
//!
//! Every byte that is returned was authenticated. Once all of a file was read through one handle,
//! in whatever order, it is compared with its BLAKE3 as well; a part of it says nothing of the
//! rest.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::snapshots::EnteredSnapshot;
use crate::base::blake3_tree::Subtrees;
use crate::base::error_chain::with_causes;
use crate::base::ids::Hash;
use crate::base::lock::lock;
use crate::browse::content_map::ContentMap;
use crate::restore::{ArchiveError, RangeError, RangeReader};
use crate::storage::ErrorKind;

/// Time for which a read of a file that failed is not tried again: the kernel repeats what fails,
/// and a process must not wait twice.
const FAILURE_AGE: Duration = Duration::from_secs(2);
/// Reads in a row from which the next bytes are fetched ahead.
const IN_A_ROW: u32 = 2;
/// How far a read may be from the end of the last one to count as the next: the kernel passes on
/// several at once, in no order.
const NEARBY: u64 = 1 << 20;

/// An open file.
pub(super) enum MountedFile {
    /// A text that the mount makes.
    Text(Vec<u8>),
    /// A file of a snapshot.
    Sealed(Box<SealedFile>),
}

/// An open file of a snapshot.
pub(super) struct SealedFile {
    snapshot: Arc<EnteredSnapshot>,
    path: String,
    pub(super) content: ContentMap,
    blake3: Option<Hash>,
    read_so_far: Mutex<ReadSoFar>,
    failed_at: Mutex<Option<Instant>>,
    pattern: Mutex<ReadPattern>,
    is_fetching_ahead: AtomicBool,
}

/// What was read of a file.
enum ReadSoFar {
    /// Not all of it.
    Part(Subtrees),
    /// All of it, and it is the file.
    Proven,
    /// All of it, and it is not what the index says.
    Wrong,
}

/// How a file is read.
#[derive(Default)]
struct ReadPattern {
    /// The end of the last read.
    end: u64,
    /// Reads in a row.
    reads: u32,
    /// The end of what was fetched ahead.
    fetched: u64,
}

impl SealedFile {
    pub(super) fn new(
        snapshot: Arc<EnteredSnapshot>,
        path: String,
        content: ContentMap,
        blake3: Option<Hash>,
    ) -> Self {
        Self {
            snapshot,
            path,
            read_so_far: Mutex::new(ReadSoFar::Part(Subtrees::of_pages(content.size()))),
            content,
            blake3,
            failed_at: Mutex::default(),
            pattern: Mutex::default(),
            is_fetching_ahead: AtomicBool::new(false),
        }
    }

    /// Returns path and snapshot, for messages.
    pub(super) fn name(&self) -> String {
        format!("{} of {}", self.path, self.snapshot.name)
    }

    /// Whether a read failed so short a time ago that the next would fail as well.
    pub(super) fn has_just_failed(&self) -> bool {
        lock(&self.failed_at).is_some_and(|at| at.elapsed() < FAILURE_AGE)
    }

    /// Remembers that a read failed.
    pub(super) fn note_failure(&self) {
        *lock(&self.failed_at) = Some(Instant::now());
    }

    /// Reads the bytes `range`, which must be within the content, and compares the file with its
    /// BLAKE3 if that was the last part of it. The error is a line for the notes.
    pub(super) async fn read(
        &self,
        reader: &RangeReader,
        range: Range<u64>,
    ) -> Result<Vec<u8>, String> {
        let bytes = self.fetch(reader, range.clone()).await?;
        match self.is_wrong(range.start, &bytes) {
            false => Ok(bytes),
            true => Err(format!(
                "the content of {} is not what its index says: another target may have it",
                self.name()
            )),
        }
    }

    /// Notes that `bytes`, which begin at `start`, were read. Returns whether the file is not what
    /// the index says.
    fn is_wrong(&self, start: u64, bytes: &[u8]) -> bool {
        let Some(expected) = self.blake3 else {
            return false;
        };
        let mut so_far = lock(&self.read_so_far);
        if let ReadSoFar::Part(subtrees) = &mut *so_far {
            let is_whole = start == 0 && bytes.len() as u64 == self.content.size();
            let found = match is_whole {
                true => Some(Hash::blake3(bytes)),
                false => subtrees.take(start, bytes),
            };
            if let Some(found) = found {
                *so_far = match found == expected {
                    true => ReadSoFar::Proven,
                    false => ReadSoFar::Wrong,
                };
            }
        }
        matches!(*so_far, ReadSoFar::Wrong)
    }

    /// Fetches the bytes `range`, which must be within the content; they are in memory then.
    pub(super) async fn fetch(
        &self,
        reader: &RangeReader,
        range: Range<u64>,
    ) -> Result<Vec<u8>, String> {
        let wanted = range.end - range.start;
        let (extents, within) = self.content.part(range.clone());
        let read = reader.read_content(&self.snapshot.table, extents, within);
        let bytes = read
            .await
            .map_err(|error| format!("cannot read {}: {}", self.name(), explain(&error)))?;
        if bytes.len() as u64 != wanted {
            let found = bytes.len();
            let name = self.name();
            return Err(format!(
                "cannot read {name}: {found} bytes instead of {wanted}"
            ));
        }
        Ok(bytes)
    }

    /// Notes that `range` is read. Returns what to fetch ahead, at most `ahead_bytes`; the caller
    /// must then call [`Self::end_fetching_ahead`].
    pub(super) fn fetch_ahead(&self, range: &Range<u64>, ahead_bytes: u64) -> Option<Range<u64>> {
        let mut pattern = lock(&self.pattern);
        match range.start.abs_diff(pattern.end) <= NEARBY {
            true => pattern.reads = pattern.reads.saturating_add(1),
            false => *pattern = ReadPattern::default(),
        }
        pattern.end = pattern.end.max(range.end);
        let until = range
            .end
            .saturating_add(ahead_bytes)
            .min(self.content.size());
        let from = pattern.fetched.max(range.end);
        // In large steps, so that not every read begins a small one.
        let is_worth_it = until.saturating_sub(from) > ahead_bytes / 2;
        if pattern.reads < IN_A_ROW
            || !is_worth_it
            || self.is_fetching_ahead.swap(true, Ordering::AcqRel)
        {
            return None;
        }
        pattern.fetched = until;
        Some(from..until)
    }

    /// Ends what [`Self::fetch_ahead`] began.
    pub(super) fn end_fetching_ahead(&self) {
        self.is_fetching_ahead.store(false, Ordering::Release);
    }
}

/// Returns the error, its causes and the next step.
fn explain(error: &RangeError) -> String {
    let text = with_causes(error);
    let RangeError::Archive { target, source, .. } = error else {
        return text;
    };
    let cause: &ArchiveError = source;
    let is_missing = match cause {
        ArchiveError::Fetch(fetch) if fetch.kind == ErrorKind::Frozen => {
            return format!("{text}: `sealift restore --thaw` of this file requests its archives");
        }
        ArchiveError::Fetch(fetch) if fetch.kind == ErrorKind::NotFound => true,
        _ => false,
    };
    if text.contains("another target") || cause.spares_the_archive() && !is_missing {
        return text;
    }
    let what = if is_missing { "not" } else { "damaged" };
    format!("{text}: it is {what} on {target}; another target may have it")
}

/// The open files of a mount, by handle.
#[derive(Default)]
pub(super) struct OpenFiles {
    files: Mutex<HashMap<u64, Arc<MountedFile>>>,
    last: AtomicU64,
}

impl OpenFiles {
    /// Adds a file and returns its handle.
    pub(super) fn add(&self, file: MountedFile) -> u64 {
        let handle = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        lock(&self.files).insert(handle, Arc::new(file));
        handle
    }

    pub(super) fn get(&self, handle: u64) -> Option<Arc<MountedFile>> {
        lock(&self.files).get(&handle).cloned()
    }

    pub(super) fn remove(&self, handle: u64) {
        lock(&self.files).remove(&handle);
    }

    /// Returns whether no file is open.
    pub(super) fn is_empty(&self) -> bool {
        lock(&self.files).is_empty()
    }
}
