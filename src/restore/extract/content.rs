//! File content on its way to disk, and the proof that it arrived.
//!
//! A file that comes as one run of one archive is created and hashed as its bytes pass by. Any other
//! is created beforehand at its size, filled in whatever order its pieces come, and read back when
//! all archives are through. Holes are never written, so they stay holes.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{FallocateFlags, fallocate};

use super::tree::Tree;
use crate::ids::Hash;
use crate::index::{EntryList, EntryRef, EntryType};
use crate::restore::fetch::Sink;
use crate::restore::plan::Piece;

/// Files from this size on reserve their space at once: less fragments, and a full disk shows early.
const PREALLOCATE_BYTES: u64 = 1 << 20;
/// Files that one archive keeps open while its pieces interleave.
const MOST_OPEN_FILES: usize = 32;
const MOST_VERIFIERS: usize = 4;
/// Files from this size on are flushed early.
const WRITE_BACK_BYTES: u64 = 8 << 20;
/// Flushes that wait for the one under way.
const MOST_WAITING: usize = 16;

/// The files being restored.
pub(super) struct Content {
    pub(super) tree: Tree,
    /// By path.
    pub(super) entries: Arc<EntryList>,
    /// Entries whose bytes are not what the index says.
    wrong: Mutex<BTreeMap<u32, String>>,
    write_back: WriteBack,
}

impl Content {
    pub(super) fn new(tree: Tree, entries: Arc<EntryList>) -> Self {
        Self {
            tree,
            entries,
            wrong: Mutex::default(),
            write_back: WriteBack::start(),
        }
    }

    /// Makes the directories and every file that does not come in one run.
    pub(super) fn prepare(&self) -> Result<(), (Vec<u8>, io::Error)> {
        for entry in self.entries.iter() {
            let made = match entry.kind {
                EntryType::Dir => self.tree.make_dir(entry.path),
                EntryType::File if !comes_whole(&entry) => self.create_at_size(&entry),
                _ => Ok(()),
            };
            made.map_err(|error| (entry.path.to_vec(), error))?;
        }
        Ok(())
    }

    fn create_at_size(&self, entry: &EntryRef<'_>) -> io::Result<()> {
        let file = self.tree.create(entry.path)?;
        file.set_len(entry.size)?;
        if entry.size < PREALLOCATE_BYTES {
            return Ok(());
        }
        let mut offset = 0;
        for extent in entry.extents() {
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
                if number >= self.entries.len() {
                    return;
                }
                self.read_back(number as u32, &self.entries.get(number));
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

    fn read_back(&self, number: u32, entry: &EntryRef<'_>) {
        if entry.kind != EntryType::File || comes_whole(entry) {
            return;
        }
        let hashed = self.tree.open_to_read(entry.path).and_then(hash_file);
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
fn comes_whole(entry: &EntryRef<'_>) -> bool {
    let mut extents = entry.extents();
    extents.len() == 1 && extents.all(|only| only.archive.is_some())
}

/// Has the disk take large files while others still come, on a thread of its own: at the end little is left
/// to wait for. Nothing relies on it.
struct WriteBack {
    files: SyncSender<File>,
}

impl WriteBack {
    fn start() -> Self {
        let (files, waiting) = sync_channel::<File>(MOST_WAITING);
        // It ends when the last sink is gone.
        std::thread::spawn(move || {
            for file in waiting {
                let _ = file.sync_data();
            }
        });
        Self { files }
    }

    fn take(&self, file: File) {
        // When it is behind, this file waits for the end.
        let _ = self.files.try_send(file);
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
    fn file(&mut self, number: u32, entry: &EntryRef<'_>, create: bool) -> io::Result<&mut File> {
        if self.open.len() >= MOST_OPEN_FILES && !self.open.contains_key(&number) {
            self.open.clear();
        }
        match self.open.entry(number) {
            std::collections::hash_map::Entry::Occupied(open) => Ok(open.into_mut()),
            std::collections::hash_map::Entry::Vacant(vacant) => {
                let tree = &self.content.tree;
                let file = match create {
                    true => tree.create(entry.path)?,
                    false => tree.open_to_write(entry.path)?,
                };
                if create && entry.size >= PREALLOCATE_BYTES {
                    preallocate(&file, 0, entry.size)?;
                }
                Ok(vacant.insert(file))
            }
        }
    }

    fn hash_on_the_way(&mut self, piece: &Piece, entry: &EntryRef<'_>, at: u64, bytes: &[u8]) {
        let hasher = self.hashers.entry(piece.entry).or_default();
        hasher.update(bytes);
        if at + bytes.len() as u64 == piece.length {
            let found = Hash(*hasher.finalize().as_bytes());
            if Some(found) != entry.blake3 {
                let what = "its content is not what the index says".to_owned();
                self.content.mark_wrong(piece.entry, what);
            }
            self.hashers.remove(&piece.entry);
            if let Some(file) = self.open.remove(&piece.entry)
                && entry.size >= WRITE_BACK_BYTES
            {
                self.content.write_back.take(file);
            }
        }
    }
}

impl Drop for ContentSink {
    fn drop(&mut self) {
        for (number, file) in self.open.drain() {
            if self.content.entries.get(number as usize).size >= WRITE_BACK_BYTES {
                self.content.write_back.take(file);
            }
        }
    }
}

impl Sink for ContentSink {
    fn write(&mut self, piece: &Piece, at: u64, bytes: &[u8]) -> io::Result<()> {
        let content = Arc::clone(&self.content);
        let entry = &content.entries.get(piece.entry as usize);
        let whole = comes_whole(entry);
        let failed = |error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", entry.path_lossy()))
        };
        let file = self
            .file(piece.entry, entry, whole && at == 0)
            .map_err(failed)?;
        file.write_all_at(bytes, piece.file_offset + at)
            .map_err(failed)?;
        if whole {
            self.hash_on_the_way(piece, entry, at, bytes);
        }
        Ok(())
    }
}
