//! The digest of a file or a tree: content, names, kinds, owners and permissions, without times. A
//! later process recognizes by it that staged content is whole.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;

use super::slot::Slot;
use crate::base::ids::Hash;
use crate::base::openat::{Dir, Kind, Meta};
use crate::base::sqlite;
use crate::base::walk::{Filter, Walked, walk};

const BUFFER_BYTES: usize = 1 << 18;

/// What was read of a file or a tree.
#[derive(Debug, Clone)]
pub(super) struct Digest {
    pub(super) hash: Hash,
    pub(super) files: u64,
    /// Sizes of the files together.
    pub(super) bytes: u64,
    /// Paths of the databases in a tree.
    pub(super) databases: Vec<Vec<u8>>,
}

/// Reads everything at `slot`. `file` is called with the path of each file below a tree (empty for
/// a file) and its hash; its error ends the reading.
pub(super) fn digest(
    slot: &Slot,
    mut file: impl FnMut(&[u8], Hash) -> io::Result<()>,
) -> io::Result<Digest> {
    let mut all = DigestReader {
        hasher: blake3::Hasher::new(),
        files: 0,
        bytes: 0,
        databases: Vec::new(),
        buffer: vec![0; BUFFER_BYTES],
    };
    let meta = slot.meta()?.ok_or(io::ErrorKind::NotFound)?;
    match meta.is_dir() {
        false => all.entry(&slot.dir, slot.name(), b"", &meta, &mut file)?,
        true => {
            all.note(b"", &meta);
            let root = slot.open_dir()?;
            for found in entries(&root)? {
                let (rel, meta) = found?;
                all.entry(&root, OsStr::from_bytes(&rel), &rel, &meta, &mut file)?;
            }
        }
    }
    Ok(Digest {
        hash: Hash(*all.hasher.finalize().as_bytes()),
        files: all.files,
        bytes: all.bytes,
        databases: all.databases,
    })
}

/// Returns path and metadata of everything below `root`, in the order of the paths. What cannot be
/// read is an error.
pub(super) fn entries(root: &Dir) -> io::Result<impl Iterator<Item = io::Result<(Vec<u8>, Meta)>>> {
    let walk = walk(root, &Filter::everything()).map_err(io::Error::other)?;
    Ok(walk.filter_map(|walked| match walked {
        Walked::Found(found) => Some(Ok((found.rel, found.meta))),
        Walked::Note(_) => None,
        Walked::Skipped(skipped) => {
            let what = format!("{}: {}", skipped.path, skipped.reason);
            Some(Err(io::Error::other(what)))
        }
    }))
}

struct DigestReader {
    hasher: blake3::Hasher,
    files: u64,
    bytes: u64,
    databases: Vec<Vec<u8>>,
    buffer: Vec<u8>,
}

impl DigestReader {
    fn note(&mut self, rel: &[u8], meta: &Meta) {
        let mut add = |part: &[u8]| {
            self.hasher.update(&(part.len() as u64).to_le_bytes());
            self.hasher.update(part);
        };
        add(rel);
        for number in [meta.mode(), meta.uid(), meta.gid()] {
            add(&number.to_le_bytes());
        }
    }

    fn entry(
        &mut self,
        dir: &Dir,
        at: &OsStr,
        rel: &[u8],
        meta: &Meta,
        file: &mut impl FnMut(&[u8], Hash) -> io::Result<()>,
    ) -> io::Result<()> {
        self.note(rel, meta);
        match meta.kind() {
            Kind::File => {
                let (opened, meta) = dir.open_file(at)?;
                let (hash, is_database) = self.hash_file(opened)?;
                self.hasher.update(&hash.0);
                self.files += 1;
                self.bytes = self.bytes.saturating_add(meta.size());
                if is_database && !rel.is_empty() {
                    self.databases.push(rel.to_owned());
                }
                file(rel, hash)
            }
            Kind::Symlink => {
                self.hasher.update(&dir.read_link(at)?);
                Ok(())
            }
            _ => {
                self.hasher.update(&meta.rdev().to_le_bytes());
                Ok(())
            }
        }
    }

    fn hash_file(&mut self, mut file: File) -> io::Result<(Hash, bool)> {
        let mut hasher = blake3::Hasher::new();
        let (mut is_first, mut is_database) = (true, false);
        loop {
            let read = match file.read(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            if read == 0 {
                return Ok((Hash(*hasher.finalize().as_bytes()), is_database));
            }
            if is_first {
                is_database = sqlite::is_sqlite(&self.buffer[..read]);
                is_first = false;
            }
            hasher.update(&self.buffer[..read]);
        }
    }
}

/// Returns a hash of names, kinds, sizes, times and owners at `slot` and, for a database, of its
/// log and journal: it differs after every change of the data. Nothing is read.
pub(super) fn signature(slot: &Slot, is_database: bool) -> io::Result<Hash> {
    let mut hasher = blake3::Hasher::new();
    let mut add = |rel: &[u8], meta: &Meta| {
        let numbers = [
            rel.len() as u64,
            u64::from(meta.mode()),
            u64::from(meta.uid()),
            u64::from(meta.gid()),
            if meta.is_dir() { 0 } else { meta.size() },
            meta.mtime().cast_unsigned(),
            meta.mtime_nsec().cast_unsigned(),
        ];
        hasher.update(rel);
        for number in numbers {
            hasher.update(&number.to_le_bytes());
        }
    };
    if let Some(meta) = slot.meta()? {
        add(b"", &meta);
        if meta.is_dir() {
            for found in entries(&slot.open_dir()?)? {
                let (rel, meta) = found?;
                // The index of a log changes whenever the database is opened.
                if !rel.ends_with(b"-shm") {
                    add(&rel, &meta);
                }
            }
        }
    }
    if is_database {
        for ending in [b"-wal".as_slice(), b"-journal"] {
            // An empty one comes and goes with each process that only reads.
            if let Some(meta) = slot.with(ending).meta()?.filter(|meta| meta.size() > 0) {
                add(ending, &meta);
            }
        }
    }
    Ok(Hash(*hasher.finalize().as_bytes()))
}
