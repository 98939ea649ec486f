//! Ahead of the packer: the walk, what the last snapshot knew of each thing, and the content of small files.
//!
//! One thread walks and asks the cache; a few read the small files that are not known already, cut and hash
//! them. The packer gets everything in path order and only looks up and stores. What a reader could not
//! read in one state is left to the packer, which tries again and tells why.

use std::collections::HashSet;
use std::io::{self, Read as _};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::PackError;
use super::chunker::Chunker;
use super::entry_metadata::{self, Attributes};
use super::file_content::{Cut, cut, is_sparse};
use super::file_packer::now_ns;
use super::files_cache::{CacheReader, Record, Stat};
use super::merge_parts::{Item, Parts};
use crate::base::ids::ArchiveId;
use crate::base::openat::Meta;
use crate::base::sqlite;
use crate::base::walk::Found;
use crate::state::figures::Grain;

/// Up to here a file is read ahead whole.
const SMALL_BYTES: u64 = 256 << 10;
/// A batch is full at so many things, or at so many bytes to read.
const BATCH_ITEMS: usize = 256;
const BATCH_BYTES: u64 = 1 << 20;
/// Batches that are under way or wait for the packer.
const BATCHES_AHEAD: usize = 5;
const READERS: usize = 2;

/// A thing of the snapshot, and what is known of it before it is packed.
pub struct Scouted {
    pub item: Item,
    /// What the last snapshot had there.
    pub record: Option<Record>,
    /// How it looked then, also where it had a shorter name.
    pub was: Option<Grain>,
    /// It is as the record says, and what that names may be used.
    pub unchanged: bool,
    pub small: Option<SmallFile>,
}

impl Scouted {
    /// Whether it is a small file that must be read.
    fn is_read_ahead(&self) -> bool {
        let Item::Found { found, .. } = &self.item else {
            return false;
        };
        let meta = &found.meta;
        // One that is here under another name already is not read again.
        let is_small = meta.is_file() && meta.nlink() == 1 && meta.len() <= SMALL_BYTES;
        is_small && !self.unchanged
    }
}

/// A small file as it was read at once.
pub struct SmallFile {
    pub before: Meta,
    pub after: Meta,
    pub read_at_ns: i128,
    pub content: Vec<u8>,
    pub cut: Cut,
    pub attributes: io::Result<Attributes>,
}

type Batch = Vec<Scouted>;

/// A batch in its place in the order.
enum Turn {
    /// There was nothing to read ahead.
    Ready(Batch),
    Later(Receiver<Batch>),
}

/// Gives all of `parts` to `pack`, in order. `reusable`: archives whose content may be used again.
pub fn scout(
    parts: Parts,
    mut cache: CacheReader,
    reusable: &HashSet<ArchiveId>,
    mut pack: impl FnMut(Scouted) -> Result<(), PackError>,
) -> Result<(), PackError> {
    let (in_order, batches) = sync_channel::<Turn>(BATCHES_AHEAD);
    let (to_read, jobs) = sync_channel::<(Batch, SyncSender<Batch>)>(BATCHES_AHEAD);
    let jobs = Mutex::new(jobs);
    let jobs = &jobs;
    let cannot_start = |source| PackError::Thread { source };
    // Leaving early takes `batches` along, and that ends the threads, one after the other.
    thread::scope(move |scope| {
        for _ in 0..READERS {
            let named = thread::Builder::new().name("small files".to_owned());
            named
                .spawn_scoped(scope, || read_batches(jobs))
                .map_err(cannot_start)?;
        }
        let walk = move || {
            let mut parts = parts.peekable();
            while parts.peek().is_some() {
                let batch = next_batch(&mut parts, &mut cache, reusable);
                let sent = match batch.iter().any(Scouted::is_read_ahead) {
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
        };
        let named = thread::Builder::new().name("walk".to_owned());
        named.spawn_scoped(scope, walk).map_err(cannot_start)?;
        for batch in batches {
            let batch = match batch {
                Turn::Ready(batch) => batch,
                // A reader that died took its batch with it.
                Turn::Later(batch) => batch.recv().map_err(|_| PackError::ThreadEnded)?,
            };
            batch.into_iter().try_for_each(&mut pack)?;
        }
        Ok(())
    })
}

fn next_batch(
    parts: &mut impl Iterator<Item = Item>,
    cache: &mut CacheReader,
    reusable: &HashSet<ArchiveId>,
) -> Batch {
    let mut batch = Vec::with_capacity(BATCH_ITEMS);
    let mut bytes = 0;
    while batch.len() < BATCH_ITEMS && bytes < BATCH_BYTES {
        let Some(item) = parts.next() else { break };
        let mut scouted = Scouted {
            item,
            record: None,
            was: None,
            unchanged: false,
            small: None,
        };
        if let Item::Found {
            path,
            found,
            staged,
        } = &scouted.item
            && found.meta.is_file()
        {
            let meta = &found.meta;
            scouted.record = cache.find(path);
            scouted.was = match &scouted.record {
                Some(record) => Some(record.grain),
                None => cache.renamed_from(path),
            };
            scouted.unchanged = scouted.record.as_ref().is_some_and(|record| {
                record.stat == Stat::of(meta, *staged)
                    && record.uses.iter().all(|(id, _)| reusable.contains(id))
            });
            if !scouted.unchanged && meta.len() <= SMALL_BYTES {
                bytes += meta.len();
            }
        }
        batch.push(scouted);
    }
    batch
}

fn read_batches(jobs: &Mutex<Receiver<(Batch, SyncSender<Batch>)>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((mut batch, done)) = job else { return };
        for scouted in &mut batch {
            if let Item::Found { found, .. } = &scouted.item
                && scouted.is_read_ahead()
            {
                scouted.small = read_small(found).ok().flatten();
            }
        }
        // If nobody waits for it any more, the walk ends; what it sent until then is still taken from it.
        let _ = done.send(batch);
    }
}

/// `None`: not a file to be read like that.
fn read_small(found: &Found) -> io::Result<Option<SmallFile>> {
    let (mut file, before) = found.root.open_file(found.rel())?;
    if before.len() > SMALL_BYTES || is_sparse(&before) {
        return Ok(None);
    }
    let attributes = entry_metadata::attributes(&file);
    let read_at_ns = now_ns();
    let cold = !crate::base::fs::is_cached(&file, 1);
    let mut content = Vec::with_capacity(before.len() as usize + 1);
    // One byte more than promised, to see that it grew.
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
    fn a_file_that_took_anothers_name_is_read_with_its_own_metadata_and_a_fifo_or_link_is_not_read()
    {
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
