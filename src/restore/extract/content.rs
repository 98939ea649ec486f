//! Writes file content to disk and verifies it.
//!
//! A file that is one run of one archive is created, hashed as its bytes arrive, and finished at
//! once. Any other file is created beforehand at its size and filled in the order in which its
//! pieces arrive; its hash is composed of the parts that were hashed on arrival
//! ([`blake3_tree`](crate::base::blake3_tree)). After its last piece a thread of
//! [`VerifyPool`](super::verify_pool::VerifyPool) finishes it. Holes are never written, so they
//! stay holes.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{FallocateFlags, fallocate};

use super::databases;
use super::early_flush::EarlyFlush;
use super::metadata::{self, Problems, Restorer};
use super::tree::{OpenParent, Tree};
use crate::base::blake3_tree::{Passing, Subtrees};
use crate::base::ids::Hash;
use crate::base::openat::Dir;
use crate::format::index::{DatabaseRecord, EntryList, EntryRef, EntryType, IndexHeader};
use crate::restore::fetch::Sink;
use crate::restore::plan::Piece;

/// Files from this size on reserve their space at once: fewer fragments, and a full disk shows
/// early.
const PREALLOCATE_BYTES: u64 = 1 << 20;
/// Files that one sink keeps open while pieces of several files interleave.
const MOST_OPEN_FILES: usize = 32;
/// Bytes that a file takes on disk in addition to its content.
const FILE_OVERHEAD_BYTES: u64 = 4 << 10;
/// Directories that justify a thread.
const LEAST_DIRS: usize = 64;
const WRONG: &str = "its content is not what the index says";

/// The files being restored.
pub(super) struct Content {
    pub(super) tree: Tree,
    /// By path.
    pub(super) entries: Arc<EntryList>,
    restorer: Restorer,
    /// The files that arrive in pieces, by number.
    pieced: HashMap<u32, Pieced>,
    pub(super) databases: HashMap<u32, DatabaseRecord>,
    outcome: Mutex<ContentOutcome>,
    early_flush: EarlyFlush,
}

/// A file that is filled piece by piece.
struct Pieced {
    /// Bytes that have not arrived.
    left_bytes: AtomicU64,
    /// The hashes of the parts that arrived. `None`: they are being put together.
    subtrees: Mutex<Option<Subtrees>>,
}

/// The problems with the content so far.
#[derive(Default)]
pub(super) struct ContentOutcome {
    /// The files whose bytes are not as the index says, by number, and why.
    pub(super) wrong: BTreeMap<u32, String>,
    /// Problems that did no harm to content.
    pub(super) problems: Problems,
}

impl Content {
    /// Makes the directories and every file that does not arrive as one run. `root` is the tree's
    /// root. Sends to `done` the files that no piece will arrive for. An error comes with the path.
    pub(super) fn prepare(
        root: Dir,
        entries: Arc<EntryList>,
        header: &IndexHeader,
        done: &Sender<u32>,
    ) -> Result<Self, (Vec<u8>, io::Error)> {
        let early_flush = EarlyFlush::start(&root).map_err(|error| (Vec::new(), error))?;
        let mut content = Self {
            tree: Tree::new(root),
            restorer: Restorer::this_process(),
            pieced: HashMap::new(),
            databases: databases::among(&entries, header),
            outcome: Mutex::default(),
            early_flush,
            entries: Arc::clone(&entries),
        };
        content.make_dirs()?;
        for (number, entry) in entries.iter().enumerate() {
            if entry.kind == EntryType::File && !comes_whole(&entry) {
                content
                    .create_at_size(number as u32, &entry, done)
                    .map_err(|error| (entry.path.to_vec(), error))?;
            }
        }
        Ok(content)
    }

    /// Makes all directories, level by level, each level on several threads.
    fn make_dirs(&self) -> Result<(), (Vec<u8>, io::Error)> {
        let mut by_depth: Vec<Vec<u32>> = Vec::new();
        for (number, entry) in self.entries.iter().enumerate() {
            if entry.kind == EntryType::Dir {
                let depth = entry.path.iter().filter(|byte| **byte == b'/').count();
                by_depth.resize_with(by_depth.len().max(depth + 1), Vec::new);
                by_depth[depth].push(number as u32);
            }
        }
        let make = |number: &u32| {
            let path = self.entries.path(*number as usize);
            let made = self.tree.make_dir(path);
            made.map_err(|error| (path.to_vec(), error))
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        for dirs in by_depth {
            let share = dirs.len().div_ceil(threads).max(LEAST_DIRS);
            std::thread::scope(|scope| {
                let making: Vec<_> = dirs
                    .chunks(share)
                    .map(|some| scope.spawn(|| some.iter().try_for_each(make)))
                    .collect();
                let stopped = |_| Err((Vec::new(), io::Error::other("a thread stopped")));
                let mut made = making
                    .into_iter()
                    .map(|one| one.join().unwrap_or_else(stopped));
                made.try_for_each(|one| one)
            })?;
        }
        Ok(())
    }

    /// Creates a file that arrives in pieces.
    fn create_at_size(
        &mut self,
        number: u32,
        entry: &EntryRef<'_>,
        done: &Sender<u32>,
    ) -> io::Result<()> {
        let file = self.tree.create(entry.path, entry.mode)?;
        file.set_len(entry.size)?;
        let (mut offset, mut left_bytes) = (0, 0);
        for extent in entry.extents() {
            if extent.archive.is_some() {
                left_bytes += extent.length;
                if entry.size >= PREALLOCATE_BYTES {
                    preallocate(&file, offset, extent.length)?;
                }
            }
            offset += extent.length;
        }
        let pieced = Pieced {
            left_bytes: AtomicU64::new(left_bytes),
            subtrees: Mutex::new(Some(Subtrees::new(entry.size))),
        };
        self.pieced.insert(number, pieced);
        if left_bytes == 0 {
            // The receiver is gone only after a failure.
            let _ = done.send(number);
        }
        Ok(())
    }

    /// Returns a sink for the pieces of one archive. It sends complete files to `done`.
    pub(super) fn sink(self: &Arc<Self>, done: Sender<u32>) -> Box<dyn Sink> {
        Box::new(ContentSink {
            content: Arc::clone(self),
            done,
            open: HashMap::new(),
            hashers: HashMap::new(),
            passing: Passing::default(),
            parent: None,
        })
    }

    /// Compares a file, all of whose pieces have arrived, with its hash.
    pub(super) fn prove(&self, number: u32) {
        let Some(pieced) = self.pieced.get(&number) else {
            return;
        };
        let subtrees = lock(&pieced.subtrees).take();
        let entry = self.entries.get(number as usize);
        let found = subtrees.map(|subtrees| {
            let file = self.tree.open_to_read(entry.path)?;
            let mut holes = Holes::of(&entry);
            subtrees.finish(|bytes, at| match holes.contain(at, bytes.len() as u64) {
                // The file was created at its size and never written there: these bytes are zeros.
                true => {
                    bytes.fill(0);
                    Ok(())
                }
                false => file.read_exact_at(bytes, at),
            })
        });
        match found {
            Some(Ok(hash)) if Some(hash) == entry.blake3 => {}
            Some(Err(error)) => self.mark_wrong(number, format!("it cannot be read back: {error}")),
            _ => self.mark_wrong(number, WRONG.to_owned()),
        }
    }

    /// Sets the owner, mode and time of a file that was verified after its last piece.
    pub(super) fn finish_proven(&self, number: u32) {
        let entry = self.entries.get(number as usize);
        match self.tree.open_to_read(entry.path) {
            Ok(file) => self.finish_file(&file, &entry),
            Err(error) => {
                let what = format!("{}: cannot set its metadata: {error}", entry.path_lossy());
                lock(&self.outcome).problems.add(what);
            }
        }
    }

    /// Sets the metadata of a complete file.
    fn finish_file(&self, file: &File, entry: &EntryRef<'_>) {
        let mut problems = Problems::default();
        metadata::apply_to_file(file, entry, &self.restorer, &mut problems);
        if !problems.is_empty() {
            lock(&self.outcome).problems.extend(problems);
        }
    }

    /// Notes that the bytes of a file are not as the index says.
    pub(super) fn mark_wrong(&self, number: u32, what: String) {
        lock(&self.outcome).wrong.insert(number, what);
    }

    /// Waits for the early flushes. Returns an error if one of them failed.
    pub(super) fn end_early_flush(&self) -> io::Result<()> {
        self.early_flush.end()
    }

    /// Returns the problems since the last call.
    pub(super) fn take_outcome(&self) -> ContentOutcome {
        std::mem::take(&mut *lock(&self.outcome))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn preallocate(file: &File, offset: u64, length: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::KEEP_SIZE, offset, length) {
        Err(error @ (rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT)) => Err(error.into()),
        // A file system that cannot reserve space works without.
        _ => Ok(()),
    }
}

/// The holes of a file, for look-ups in ascending order.
struct Holes {
    /// Start and end of each, the last one first.
    left: Vec<(u64, u64)>,
}

impl Holes {
    fn of(entry: &EntryRef<'_>) -> Self {
        let (mut left, mut offset) = (Vec::new(), 0);
        for extent in entry.extents() {
            let end = offset + extent.length;
            if extent.archive.is_none() {
                left.push((offset, end));
            }
            offset = end;
        }
        left.reverse();
        Self { left }
    }

    /// Whether a run is within a hole.
    fn contain(&mut self, start: u64, bytes: u64) -> bool {
        while self.left.pop_if(|(_, end)| *end <= start).is_some() {}
        let next = self.left.last();
        next.is_some_and(|(from, end)| *from <= start && start + bytes <= *end)
    }
}

/// Whether all of a file is one run of one archive.
fn comes_whole(entry: &EntryRef<'_>) -> bool {
    let mut extents = entry.extents();
    extents.len() == 1 && extents.all(|only| only.archive.is_some())
}

/// Writes the pieces of one archive.
struct ContentSink {
    content: Arc<Content>,
    /// Takes the numbers of complete files that are to be verified.
    done: Sender<u32>,
    /// Files that are not complete, by number.
    open: HashMap<u32, File>,
    /// Of files that arrive as one run and are not complete.
    hashers: HashMap<u32, blake3::Hasher>,
    passing: Passing,
    /// The directory of the last new file: the next one is often in it, too.
    parent: Option<OpenParent>,
}

impl ContentSink {
    /// Writes a part of a file that arrives as one run.
    fn write_whole(
        &mut self,
        piece: &Piece,
        entry: &EntryRef<'_>,
        at: u64,
        bytes: &[u8],
    ) -> io::Result<()> {
        let content = Arc::clone(&self.content);
        let number = piece.entry;
        let ends = at + bytes.len() as u64 == piece.length;
        let file = match self.open.remove(&number) {
            Some(file) => file,
            None if at == 0 => {
                let file = content
                    .tree
                    .create_in(&mut self.parent, entry.path, entry.mode)?;
                if entry.size >= PREALLOCATE_BYTES {
                    preallocate(&file, 0, entry.size)?;
                }
                file
            }
            None => content.tree.open_to_write(entry.path)?,
        };
        file.write_all_at(bytes, at)?;
        let hash = match (at, ends) {
            (0, true) => Some(blake3::hash(bytes)),
            _ => {
                let hasher = self.hashers.entry(number).or_default();
                hasher.update(bytes);
                ends.then(|| hasher.finalize())
            }
        };
        let Some(hash) = hash else {
            self.keep_open(number, file);
            return Ok(());
        };
        self.hashers.remove(&number);
        if Some(Hash(*hash.as_bytes())) != entry.blake3 {
            content.mark_wrong(number, WRONG.to_owned());
        }
        content.early_flush.written(FILE_OVERHEAD_BYTES);
        if content.databases.contains_key(&number) {
            // The receiver is gone only after a failure.
            let _ = self.done.send(number);
        } else {
            content.finish_file(&file, entry);
        }
        Ok(())
    }

    /// Writes a part of a file that arrives in several pieces.
    fn write_piece(
        &mut self,
        piece: &Piece,
        pieced: &Pieced,
        entry: &EntryRef<'_>,
        at: u64,
        bytes: &[u8],
    ) -> io::Result<()> {
        let number = piece.entry;
        let file = match self.open.remove(&number) {
            Some(file) => file,
            None => self.content.tree.open_to_write(entry.path)?,
        };
        file.write_all_at(bytes, piece.file_offset + at)?;
        self.keep_open(number, file);
        let end = piece.file_offset + piece.length;
        let place = (piece.file_offset, end, entry.size);
        self.passing.take(number, place, at, bytes, |group, value| {
            if let Some(subtrees) = &mut *lock(&pieced.subtrees) {
                subtrees.set(group, value);
            }
        });
        let bytes = bytes.len() as u64;
        if pieced.left_bytes.fetch_sub(bytes, Ordering::AcqRel) == bytes {
            let _ = self.done.send(number);
        }
        Ok(())
    }

    fn keep_open(&mut self, number: u32, file: File) {
        if self.open.len() >= MOST_OPEN_FILES {
            self.open.clear();
        }
        self.open.insert(number, file);
    }
}

impl Sink for ContentSink {
    fn write(&mut self, piece: &Piece, at: u64, bytes: &[u8]) -> io::Result<()> {
        let content = Arc::clone(&self.content);
        let entry = &content.entries.get(piece.entry as usize);
        let written = match content.pieced.get(&piece.entry) {
            Some(pieced) => self.write_piece(piece, pieced, entry, at, bytes),
            None => self.write_whole(piece, entry, at, bytes),
        };
        content.early_flush.written(bytes.len() as u64);
        written.map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", entry.path_lossy()))
        })
    }
}
