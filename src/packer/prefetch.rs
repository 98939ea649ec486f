//! Runs ahead of the packer: walks, looks up each file of the last snapshot, and reads small files.
//!
//! One thread walks and reads the cache; a few read the small files that are new or changed, cut
//! and hash them. The packer receives all items in path order, and only looks up and stores. If a
//! reader cannot read a file in one state, the packer tries again and reports why.

use std::collections::HashSet;
use std::io::{self, Read as _};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::chunker::Chunker;
use super::entry_metadata::{self, Attributes};
use super::error::PackError;
use super::file_content::{Cut, cut, is_sparse};
use super::files_cache::{CacheReader, CachedFile, Stat};
use super::merge_parts::{Parts, SnapshotItem};
use super::origin::Origin;
use crate::base::clock;
use crate::base::ids::ArchiveId;
use crate::base::openat::Meta;
use crate::base::sqlite;
use crate::base::walk::Found;
use crate::state::figures::Grain;

/// Largest file that is read ahead, in bytes.
const SMALL_BYTES: u64 = 256 << 10;
/// Most items of a batch.
const BATCH_ITEMS: usize = 256;
/// Bytes of small files after which a batch is closed.
const BATCH_BYTES: u64 = 1 << 20;
/// Most batches that are in progress or wait for the packer.
const BATCHES_AHEAD: usize = 5;
const READERS: usize = 2;

/// An item of the snapshot, and what is known about it before it is packed.
pub(super) struct Prefetched {
    pub(super) item: SnapshotItem,
    pub(super) earlier: EarlierFile,
    /// The content, if it is a small file that was read ahead.
    pub(super) small: Option<SmallFile>,
}

/// What the last snapshot had at an item's path.
#[derive(Default)]
pub(super) struct EarlierFile {
    /// The file at the path; `None` if there was none.
    pub(super) file: Option<CachedFile>,
    /// How its content looked; also that of a file whose name was extended to this one.
    pub(super) grain: Option<Grain>,
    /// Whether the file is the same now, and all archives that hold it may be used.
    pub(super) is_unchanged: bool,
}

impl Prefetched {
    /// Returns whether it is a small file that must be read.
    fn is_read_ahead(&self) -> bool {
        let SnapshotItem::Found { found, .. } = &self.item else {
            return false;
        };
        let meta = &found.meta;
        // A file with several names may have been packed under another one.
        let is_small = meta.is_file() && meta.nlink() == 1 && meta.len() <= SMALL_BYTES;
        is_small && !self.earlier.is_unchanged
    }
}

/// A small file that was read at once.
pub(super) struct SmallFile {
    /// Metadata before the content was read.
    pub(super) before: Meta,
    /// Metadata after the content was read.
    pub(super) after: Meta,
    /// When the content was read, in nanoseconds since 1970.
    pub(super) read_at_ns: i128,
    pub(super) content: Vec<u8>,
    pub(super) cut: Cut,
    /// Extended attributes, or why they cannot be read.
    pub(super) attributes: io::Result<Attributes>,
}

type PrefetchBatch = Vec<Prefetched>;
/// A batch with small files to read, and where it goes then.
type ReadJob = (PrefetchBatch, SyncSender<PrefetchBatch>);

/// A batch at its position in the order.
enum Turn {
    /// The batch has no file to read ahead.
    Ready(PrefetchBatch),
    /// A reader is to send the batch.
    Later(Receiver<PrefetchBatch>),
}

/// Passes all items of `parts` to `pack`, in order. `reusable` are the archives whose content may
/// be used again.
pub(super) fn prefetch(
    parts: Parts,
    cache: CacheReader,
    reusable: &HashSet<ArchiveId>,
    mut pack: impl FnMut(Prefetched) -> Result<(), PackError>,
) -> Result<(), PackError> {
    let (in_order, batches) = sync_channel::<Turn>(BATCHES_AHEAD);
    let (to_read, jobs) = sync_channel::<ReadJob>(BATCHES_AHEAD);
    let jobs = Mutex::new(jobs);
    let jobs = &jobs;
    let cannot_start = |source| PackError::Thread { source };
    // An early return drops `batches`, which ends the threads, one after the other.
    thread::scope(move |scope| {
        for _ in 0..READERS {
            let named = thread::Builder::new().name("small files".to_owned());
            named
                .spawn_scoped(scope, || read_batches(jobs))
                .map_err(cannot_start)?;
        }
        let named = thread::Builder::new().name("walk".to_owned());
        let walk = move || walk_parts(parts, cache, reusable, &in_order, &to_read);
        named.spawn_scoped(scope, walk).map_err(cannot_start)?;
        for batch in batches {
            let batch = match batch {
                Turn::Ready(batch) => batch,
                // A reader that panicked dropped its batch.
                Turn::Later(batch) => batch.recv().map_err(|_| PackError::ThreadEnded)?,
            };
            batch.into_iter().try_for_each(&mut pack)?;
        }
        Ok(())
    })
}

/// Sends the items of all parts in batches, until there are no more or the packer stops. A batch
/// with small files to read goes to the readers, too.
fn walk_parts(
    parts: Parts,
    mut cache: CacheReader,
    reusable: &HashSet<ArchiveId>,
    in_order: &SyncSender<Turn>,
    to_read: &SyncSender<ReadJob>,
) {
    let mut parts = parts.peekable();
    while parts.peek().is_some() {
        let batch = next_batch(&mut parts, &mut cache, reusable);
        let sent = match batch.iter().any(Prefetched::is_read_ahead) {
            false => in_order.send(Turn::Ready(batch)).is_ok(),
            true => {
                let (done, batch_done) = sync_channel(1);
                in_order.send(Turn::Later(batch_done)).is_ok()
                    && to_read.send((batch, done)).is_ok()
            }
        };
        if !sent {
            return;
        }
    }
}

fn next_batch(
    parts: &mut impl Iterator<Item = SnapshotItem>,
    cache: &mut CacheReader,
    reusable: &HashSet<ArchiveId>,
) -> PrefetchBatch {
    let mut batch = Vec::with_capacity(BATCH_ITEMS);
    let mut bytes = 0;
    while batch.len() < BATCH_ITEMS && bytes < BATCH_BYTES {
        let Some(item) = parts.next() else { break };
        let mut earlier = EarlierFile::default();
        if let SnapshotItem::Found {
            path,
            found,
            origin,
        } = &item
            && found.meta.is_file()
        {
            earlier = look_up(path, &found.meta, *origin, cache, reusable);
            if !earlier.is_unchanged && found.meta.len() <= SMALL_BYTES {
                bytes += found.meta.len();
            }
        }
        let prefetched = Prefetched {
            item,
            earlier,
            small: None,
        };
        batch.push(prefetched);
    }
    batch
}

fn look_up(
    path: &[u8],
    meta: &Meta,
    origin: Origin,
    cache: &mut CacheReader,
    reusable: &HashSet<ArchiveId>,
) -> EarlierFile {
    let file = cache.find(path);
    let grain = match &file {
        Some(file) => Some(file.grain),
        None => cache.renamed_from(path),
    };
    let is_unchanged = file.as_ref().is_some_and(|file| {
        file.stat == Stat::of(meta, origin) && file.uses.iter().all(|(id, _)| reusable.contains(id))
    });
    EarlierFile {
        file,
        grain,
        is_unchanged,
    }
}

/// Reads the small files of each batch.
fn read_batches(jobs: &Mutex<Receiver<ReadJob>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((mut batch, done)) = job else { return };
        for prefetched in &mut batch {
            if let SnapshotItem::Found { found, .. } = &prefetched.item
                && prefetched.is_read_ahead()
            {
                prefetched.small = read_small(found).ok().flatten();
            }
        }
        // Fails if the packer stopped. The walk ends then, too; batches that it sent before are
        // still received here.
        let _ = done.send(batch);
    }
}

/// Reads a small file at once. Returns `None` if the packer must read it: it grew, has holes or is
/// a database.
fn read_small(found: &Found) -> io::Result<Option<SmallFile>> {
    let (mut file, before) = found.root.open_file(found.rel())?;
    if before.len() > SMALL_BYTES || is_sparse(&before) {
        return Ok(None);
    }
    let attributes = entry_metadata::attributes(&file);
    let read_at_ns = clock::of_files_ns();
    let cold = !crate::base::fs::is_cached(&file, 1);
    let mut content = Vec::with_capacity(before.len() as usize + 1);
    // One byte more than expected, to notice that it grew.
    (&mut file)
        .take(before.len() + 1)
        .read_to_end(&mut content)?;
    if cold {
        crate::base::fs::let_go(&file, 0, before.len());
    }
    if sqlite::is_sqlite(&content) {
        return Ok(None);
    }
    Ok(Some(SmallFile {
        after: Meta::of_fd(&file)?,
        before,
        read_at_ns,
        cut: cut(&content, Chunker::Content),
        content,
        attributes,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::openat::{Dir, set_xattr_fd};
    use std::ffi::OsStr;
    use std::io::Write as _;

    #[test]
    fn a_replaced_file_is_read_with_its_own_metadata_and_a_fifo_or_link_is_not_read() {
        let temp = tempfile::tempdir().unwrap();
        let root = Dir::open(temp.path()).unwrap();
        let make = |name: &str, content: &[u8], mode: u32| {
            let mut file = root.create_file(name, mode).unwrap();
            file.write_all(content).unwrap();
            file
        };
        make("file", b"mine", 0o644);
        let other = make("other", b"theirs", 0o600);
        let marked = set_xattr_fd(&other, OsStr::new("user.mark"), b"1").is_ok();
        let found = Found {
            root: root.clone(),
            rel: b"file".to_vec(),
            meta: root.meta("file").unwrap(),
        };
        root.exchange("file", &root, "other").unwrap();
        let small = read_small(&found).unwrap().unwrap();
        assert_eq!(small.content, b"theirs");
        assert_eq!(small.before.permissions(), 0o600);
        assert!(!small.before.is_same(&found.meta));
        let attributes = small.attributes.unwrap();
        assert_eq!(attributes.contains_key(&b"user.mark"[..]), marked);

        root.remove_file("file").unwrap();
        root.symlink(b"other", "file").unwrap();
        assert!(read_small(&found).is_err());
        root.remove_file("file").unwrap();
        let fifo = crate::base::openat::Kind::Fifo;
        root.make_node("file", fifo, None).unwrap();
        assert!(read_small(&found).is_err());
    }
}
