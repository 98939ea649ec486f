//! File content on its way to disk, and the proof that it arrived.
//!
//! A file that comes as one run of one archive is created and hashed as its bytes pass by. Any other
//! is created beforehand at its size, filled in whatever order its pieces come, and read back when
//! all archives are through. Holes are never written, so they stay holes.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{FallocateFlags, fallocate};

use super::tree::Tree;
use crate::ids::Hash;
use crate::index::{Entry, EntryType};
use crate::restore::fetch::Sink;
use crate::restore::plan::Piece;

/// Files from this size on reserve their space at once: less fragments, and a full disk shows early.
const PREALLOCATE_BYTES: u64 = 1 << 20;
/// Files that one archive keeps open while its pieces interleave.
const MOST_OPEN_FILES: usize = 32;
const MOST_VERIFIERS: usize = 4;
/// Worth a flush.
const FLUSH_BYTES: u64 = 64 << 20;
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The files being restored.
pub(super) struct Content {
    pub(super) tree: Tree,
    /// By path.
    pub(super) entries: Arc<Vec<Entry>>,
    /// Entries whose bytes are not what the index says.
    wrong: Mutex<BTreeMap<u32, String>>,
    /// Bytes written since the disk was last told to take them.
    unflushed: AtomicU64,
}

impl Content {
    pub(super) fn new(tree: Tree, entries: Arc<Vec<Entry>>) -> Self {
        Self {
            tree,
            entries,
            wrong: Mutex::default(),
            unflushed: AtomicU64::new(0),
        }
    }

    /// Makes the directories and every file that does not come in one run.
    pub(super) fn prepare(&self) -> Result<(), (Vec<u8>, io::Error)> {
        for entry in self.entries.iter() {
            let made = match entry.kind {
                EntryType::Dir => self.tree.make_dir(&entry.path),
                EntryType::File if !comes_whole(entry) => self.create_at_size(entry),
                _ => Ok(()),
            };
            made.map_err(|error| (entry.path.clone(), error))?;
        }
        Ok(())
    }

    fn create_at_size(&self, entry: &Entry) -> io::Result<()> {
        let file = self.tree.create(&entry.path)?;
        file.set_len(entry.size)?;
        if entry.size < PREALLOCATE_BYTES {
            return Ok(());
        }
        let mut offset = 0;
        for extent in &entry.extents {
            if extent.archive.is_some() {
                preallocate(&file, offset, extent.length)?;
            }
            offset += extent.length;
        }
        Ok(())
    }

    pub(super) fn sink(self: &Arc<Self>) -> Box<dyn Sink> {
        Box::new(ContentSink {
            content: Arc::clone(self),
            open: HashMap::new(),
            hashers: HashMap::new(),
        })
    }

    fn mark_wrong(&self, number: u32, what: String) {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.insert(number, what);
    }

    /// Reads back what was not hashed on its way; gives every file that is wrong, and how.
    pub(super) fn verify(&self) -> BTreeMap<u32, String> {
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(entry) = self.entries.get(number) else {
                    return;
                };
                self.read_back(number as u32, entry);
            }
        };
        let threads =
            std::thread::available_parallelism().map_or(1, |n| n.get().min(MOST_VERIFIERS));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(work);
            }
        });
        std::mem::take(&mut *self.wrong.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn read_back(&self, number: u32, entry: &Entry) {
        if entry.kind != EntryType::File || comes_whole(entry) {
            return;
        }
        let hashed = self.tree.open_to_read(&entry.path).and_then(hash_file);
        let what = match hashed {
            Ok((hash, size)) if Some(hash) == entry.blake3 && size == entry.size => return,
            Ok(_) => "its content is not what the index says".to_owned(),
            Err(error) => format!("it cannot be read back: {error}"),
        };
        self.mark_wrong(number, what);
    }
}

fn preallocate(file: &File, offset: u64, length: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::KEEP_SIZE, offset, length) {
        Err(error @ (rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT)) => Err(error.into()),
        // Elsewhere it is not needed for anything.
        _ => Ok(()),
    }
}

fn hash_file(mut file: File) -> io::Result<(Hash, u64)> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((Hash(*hasher.finalize().as_bytes()), hasher.count())),
            count => hasher.update(&buffer[..count]),
        };
    }
}

/// Whether all of a file is one run of one archive.
fn comes_whole(entry: &Entry) -> bool {
    matches!(entry.extents.as_slice(), [only] if only.archive.is_some())
}

/// Flushes what was written, again and again, on a thread of its own: at the end little is left to wait
/// for. Nothing relies on it.
pub(in crate::restore) struct WriteBack {
    ended: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl WriteBack {
    pub(super) fn start(content: Arc<Content>) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                if content.unflushed.load(Ordering::Relaxed) < FLUSH_BYTES {
                    std::thread::park_timeout(LOOK_AGAIN);
                    continue;
                }
                content.unflushed.store(0, Ordering::Relaxed);
                if content.tree.sync().is_err() {
                    return;
                }
            }
        });
        Self {
            ended,
            thread: Some(thread),
        }
    }
}

impl Drop for WriteBack {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
        }
    }
}

/// Writes what one archive holds.
struct ContentSink {
    content: Arc<Content>,
    open: HashMap<u32, File>,
    /// Of files that come whole and are under way.
    hashers: HashMap<u32, blake3::Hasher>,
}

impl ContentSink {
    fn file(&mut self, number: u32, entry: &Entry, create: bool) -> io::Result<&mut File> {
        if self.open.len() >= MOST_OPEN_FILES && !self.open.contains_key(&number) {
            self.open.clear();
        }
        match self.open.entry(number) {
            std::collections::hash_map::Entry::Occupied(open) => Ok(open.into_mut()),
            std::collections::hash_map::Entry::Vacant(vacant) => {
                let tree = &self.content.tree;
                let file = match create {
                    true => tree.create(&entry.path)?,
                    false => tree.open_to_write(&entry.path)?,
                };
                if create && entry.size >= PREALLOCATE_BYTES {
                    preallocate(&file, 0, entry.size)?;
                }
                Ok(vacant.insert(file))
            }
        }
    }

    fn hash_on_the_way(&mut self, piece: &Piece, entry: &Entry, at: u64, bytes: &[u8]) {
        let hasher = self.hashers.entry(piece.entry).or_default();
        hasher.update(bytes);
        if at + bytes.len() as u64 == piece.length {
            let found = Hash(*hasher.finalize().as_bytes());
            if Some(found) != entry.blake3 {
                let what = "its content is not what the index says".to_owned();
                self.content.mark_wrong(piece.entry, what);
            }
            self.hashers.remove(&piece.entry);
            self.open.remove(&piece.entry);
        }
    }
}

impl Sink for ContentSink {
    fn write(&mut self, piece: &Piece, at: u64, bytes: &[u8]) -> io::Result<()> {
        let content = Arc::clone(&self.content);
        let entry = &content.entries[piece.entry as usize];
        let whole = comes_whole(entry);
        let failed = |error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", entry.path_lossy()))
        };
        let file = self
            .file(piece.entry, entry, whole && at == 0)
            .map_err(failed)?;
        file.write_all_at(bytes, piece.file_offset + at)
            .map_err(failed)?;
        let count = bytes.len() as u64;
        content.unflushed.fetch_add(count, Ordering::Relaxed);
        if whole {
            self.hash_on_the_way(piece, entry, at, bytes);
        }
        Ok(())
    }
}
