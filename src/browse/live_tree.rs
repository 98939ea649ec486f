//! A directory of this machine as one side of a comparison.

use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;

use super::difference::ComparedEntry;
use super::versions::VersionKind;
use crate::base::ids::Hash;
use crate::base::openat::{Dir, Kind};
use crate::base::skipped::Skipped;
use crate::base::walk::{self, Filter, Found, WalkError, Walked};
use crate::format::restored::RESTORED;

const BUFFER_BYTES: usize = 256 << 10;

/// The entries of a directory.
#[derive(Debug)]
pub struct LiveTree {
    dir: Dir,
    /// Path of the directory in the snapshot; empty: it is the top.
    prefix: Vec<u8>,
    /// By raw path bytes.
    pub entries: Vec<ComparedEntry>,
    /// What could not be read.
    pub skipped: Vec<Skipped>,
}

impl LiveTree {
    /// Reads the entries in `dir`, which stands for `prefix` in a snapshot. No content is read.
    pub fn read(dir: Dir, prefix: &[u8]) -> Result<Self, WalkError> {
        let mut tree = Self {
            prefix: prefix.to_vec(),
            entries: Vec::new(),
            skipped: Vec::new(),
            dir: dir.clone(),
        };
        for walked in walk::walk(&dir, &Filter::everything())? {
            match walked {
                Walked::Found(found) => tree.add(&found),
                Walked::Skipped(skipped) => tree.skipped.push(skipped),
                Walked::Note(_) => {}
            }
        }
        Ok(tree)
    }

    fn add(&mut self, found: &Found) {
        // A restore's own record is no part of a snapshot.
        if self.prefix.is_empty() && found.rel == RESTORED.as_bytes() {
            return;
        }
        let meta = &found.meta;
        let kind = match meta.kind() {
            Kind::File => VersionKind::File,
            Kind::Dir => VersionKind::Dir,
            Kind::Symlink => VersionKind::Symlink,
            Kind::Fifo => VersionKind::Fifo,
            Kind::CharDevice => VersionKind::Chardev,
            Kind::BlockDevice => VersionKind::Blockdev,
            // No snapshot has sockets.
            _ => return,
        };
        let target = match kind {
            VersionKind::Symlink => match self.dir.read_link(found.rel()) {
                Ok(text) => Some(text),
                Err(error) => return self.skip(&found.rel, &error.to_string()),
            },
            _ => None,
        };
        let is_device = matches!(kind, VersionKind::Chardev | VersionKind::Blockdev);
        let rdev = meta.rdev();
        self.entries.push(ComparedEntry {
            path: self.path_of(&found.rel),
            kind,
            mode: meta.permissions(),
            owner: (meta.uid(), meta.gid()),
            mtime_ns: i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec()),
            size: if kind == VersionKind::File {
                meta.len()
            } else {
                0
            },
            blake3: None,
            target,
            rdev: is_device.then(|| (rustix::fs::major(rdev), rustix::fs::minor(rdev))),
            xattrs: None,
        });
    }

    fn path_of(&self, rel: &[u8]) -> Vec<u8> {
        match self.prefix.is_empty() {
            true => rel.to_vec(),
            false => [&self.prefix, &b"/"[..], rel].concat(),
        }
    }

    fn skip(&mut self, rel: &[u8], reason: &str) {
        self.skipped.push(Skipped {
            path: String::from_utf8_lossy(&self.path_of(rel)).into_owned(),
            reason: reason.to_owned(),
        });
    }

    /// Returns the BLAKE3 of the file at `path` of the snapshot. `None`: it cannot be read; the
    /// reason is added to `skipped`.
    pub fn hash(&mut self, path: &[u8]) -> Option<Hash> {
        let below = path.strip_prefix(&self.prefix[..]).unwrap_or(path);
        let below = below.strip_prefix(b"/").unwrap_or(below).to_vec();
        match self.try_hash(&below) {
            Ok(hash) => Some(hash),
            Err(error) => {
                self.skip(&below, &error.to_string());
                None
            }
        }
    }

    fn try_hash(&self, rel: &[u8]) -> std::io::Result<Hash> {
        let (mut file, _) = self.dir.open_file(std::ffi::OsStr::from_bytes(rel))?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(Hash(*hasher.finalize().as_bytes())),
                count => hasher.update(&buffer[..count]),
            };
        }
    }
}
