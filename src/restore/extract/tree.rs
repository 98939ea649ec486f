//! The tree that is being restored, below one open directory.
//!
//! Paths come from the index, whose reader refuses `..` and the like. Links are made only after all
//! content is written, and none is ever followed ([`openat`](crate::base::openat)).

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::Timestamps;

use crate::base::openat::{Dir, FileOwner, Kind, Meta, mtime};
use crate::base::sqlite::Place;

const OWNER_READS_AND_WRITES: u32 = 0o600;

/// The root of the tree. All paths are relative to it.
pub(super) struct Tree {
    root: Dir,
}

/// An open directory below the root.
pub(super) struct OpenParent {
    path: Vec<u8>,
    dir: Dir,
}

fn new_file_mode(mode: u32) -> u32 {
    mode & 0o777 | OWNER_READS_AND_WRITES
}

impl Tree {
    pub(super) fn new(root: Dir) -> Self {
        Self { root }
    }

    /// Returns the place of a database, for its check.
    pub(super) fn place_of(&self, path: &[u8]) -> io::Result<Place> {
        let (above, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(cut) => (&path[..cut], &path[cut + 1..]),
            None => (&path[..0], path),
        };
        let dir = self.root.sub(OsStr::from_bytes(above))?;
        let shown = self.root.path_of(OsStr::from_bytes(path));
        Place::within(&dir, OsStr::from_bytes(name), &shown)
    }

    /// Makes a directory that only we can enter until it gets its real mode.
    pub(super) fn make_dir(&self, path: &[u8]) -> io::Result<()> {
        self.root.make_dir(OsStr::from_bytes(path), 0o700).map(drop)
    }

    /// Makes a file with the permissions of `mode`, as far as the umask allows, and writable for
    /// us. (Other users cannot reach it yet: the tree's root is private.)
    pub(super) fn create(&self, path: &[u8], mode: u32) -> io::Result<File> {
        self.root
            .create_file(OsStr::from_bytes(path), new_file_mode(mode))
    }

    /// [`Self::create`] with a directory that may be open already and stays open for the next file.
    pub(super) fn create_in(
        &self,
        parent: &mut Option<OpenParent>,
        path: &[u8],
        mode: u32,
    ) -> io::Result<File> {
        let Some(cut) = path.iter().rposition(|byte| *byte == b'/') else {
            return self.create(path, mode);
        };
        let (above, name) = (&path[..cut], &path[cut + 1..]);
        let open = match parent {
            Some(open) if open.path == above => open,
            _ => {
                let dir = self.root.sub(OsStr::from_bytes(above))?;
                let path = above.to_vec();
                parent.insert(OpenParent { path, dir })
            }
        };
        open.dir
            .create_file(OsStr::from_bytes(name), new_file_mode(mode))
    }

    pub(super) fn open_to_write(&self, path: &[u8]) -> io::Result<File> {
        self.root.open_to_write(OsStr::from_bytes(path))
    }

    pub(super) fn open_to_read(&self, path: &[u8]) -> io::Result<File> {
        Ok(self.root.open_file(OsStr::from_bytes(path))?.0)
    }

    pub(super) fn link(&self, first: &[u8], path: &[u8]) -> io::Result<()> {
        let (first, path) = (OsStr::from_bytes(first), OsStr::from_bytes(path));
        self.root.link(first, &self.root, path)
    }

    pub(super) fn symlink(&self, text: &[u8], path: &[u8]) -> io::Result<()> {
        self.root.symlink(text, OsStr::from_bytes(path))
    }

    /// Makes a FIFO or a device.
    pub(super) fn node(
        &self,
        path: &[u8],
        kind: Kind,
        device: Option<(u32, u32)>,
    ) -> io::Result<()> {
        self.root.make_node(OsStr::from_bytes(path), kind, device)
    }

    pub(super) fn open_dir(&self, path: &[u8]) -> io::Result<Dir> {
        self.root.sub(OsStr::from_bytes(path))
    }

    pub(super) fn meta(&self, path: &[u8]) -> io::Result<Meta> {
        self.root.meta(OsStr::from_bytes(path))
    }

    pub(super) fn set_owner(&self, path: &[u8], owner: FileOwner) -> io::Result<()> {
        self.root.set_owner(OsStr::from_bytes(path), owner)
    }

    /// Sets the mode of any entry but a symlink, which has none.
    pub(super) fn set_mode(&self, path: &[u8], mode: u32) -> io::Result<()> {
        self.root.set_mode(OsStr::from_bytes(path), mode)
    }

    pub(super) fn set_mtime(&self, path: &[u8], times: &Timestamps) -> io::Result<()> {
        self.root.set_mtime(OsStr::from_bytes(path), times)
    }

    pub(super) fn set_xattr(&self, path: &[u8], name: &[u8], value: &[u8]) -> io::Result<()> {
        let (path, name) = (OsStr::from_bytes(path), OsStr::from_bytes(name));
        self.root.set_xattr(path, name, value)
    }

    pub(super) fn remove_file(&self, path: &[u8]) -> io::Result<()> {
        self.root.remove_file(OsStr::from_bytes(path))
    }

    /// Flushes the file system of the tree.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.root.sync_file_system()
    }
}

/// Returns a modification time, with the access time unchanged.
pub(super) fn times(mtime_ns: i128) -> Timestamps {
    // The index's reader has checked that the seconds fit.
    mtime(
        i64::try_from(mtime_ns.div_euclid(1_000_000_000)).unwrap_or_default(),
        mtime_ns.rem_euclid(1_000_000_000) as i64,
    )
}
