//! What is at the place where a restore is to go.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, StatxAttributes, StatxFlags, accessat, statx};

use super::inside::{self, INSIDE_PREFIX};
use crate::base::openat::{Dir, Meta, PrivateDir};

#[derive(Debug, thiserror::Error)]
pub enum DestinationError {
    #[error("cannot look at {}", path.display())]
    Look {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is there and is not a directory", .0.display())]
    NotADirectory(PathBuf),
    #[error("{} is not empty (--overwrite moves what is there aside)", .0.display())]
    NotEmpty(PathBuf),
    #[error(
        "a restore to {to} was interrupted while it was put in place: finish it with \
         `sealift restore --resume --to {to}`", to = .0.display()
    )]
    Interrupted(PathBuf),
    #[error("cannot finish the interrupted restore to {}", path.display())]
    Resume {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "No space left for it at {}: {needed} bytes are to be restored, {free} are free; nothing was changed", path.display()
    )]
    NoRoom {
        path: PathBuf,
        needed: u64,
        free: u64,
    },
}

/// What btrfs, bcachefs, f2fs and ZFS call themselves: these compress, and hold more than they have room for.
const COMPRESSING: [u64; 4] = [0x9123_683e, 0xca45_1a4e, 0xf2f5_2010, 0x2fc1_2fc1];
/// How much more, at the most that is believed.
const MOST_COMPRESSION: u64 = 16;

/// Where the tree grows before it becomes the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StagingPlace {
    Sibling,
    Inside,
}

#[derive(Debug, Clone)]
pub(crate) struct Destination {
    /// The real path, for messages: by now something else may be there.
    pub path: PathBuf,
    pub place: StagingPlace,
    /// It has content, which is to be moved aside.
    pub full: bool,
    /// The directory that is there.
    pub(super) there: Option<Dir>,
    /// The directory that it is in, or the nearest one above that is there.
    pub(super) above: Dir,
    /// Directories between `above` and the destination that are not there.
    pub(super) between: Vec<OsString>,
    /// Its name in the directory that it is in. Empty for the root directory.
    pub(super) name: OsString,
}

impl Destination {
    /// Looks at the place that the operator named and changes nothing. Links of other users on the way
    /// are not followed.
    pub(crate) fn inspect(to: &Path, overwrite: bool) -> Result<Self, DestinationError> {
        let look = |source| DestinationError::Look {
            path: to.to_path_buf(),
            source,
        };
        let resolved = Dir::resolve(to).map_err(look)?;
        let path = resolved.path();
        if resolved.other.is_some() {
            return Err(DestinationError::NotADirectory(to.to_path_buf()));
        }
        let mut missing = resolved.missing;
        if let Some(name) = missing.pop() {
            return Ok(Self::absent(resolved.dir, missing, name, path));
        }
        let (above, name) = match resolved.above {
            Some((above, name)) => (above, name),
            None => (resolved.dir.clone(), OsString::new()),
        };
        Self::existing(resolved.dir, above, name, path, overwrite)
    }

    /// A new directory `name` in `dir`, which is ours alone.
    pub(crate) fn within(dir: &Dir, name: &OsStr) -> Self {
        let path = dir.path_of(name);
        Self::absent(dir.clone(), Vec::new(), name.to_owned(), path)
    }

    fn absent(above: Dir, between: Vec<OsString>, name: OsString, path: PathBuf) -> Self {
        Self {
            path,
            place: StagingPlace::Sibling,
            full: false,
            there: None,
            above,
            between,
            name,
        }
    }

    fn existing(
        dir: Dir,
        above: Dir,
        name: OsString,
        path: PathBuf,
        overwrite: bool,
    ) -> Result<Self, DestinationError> {
        let look = |source| DestinationError::Look {
            path: path.clone(),
            source,
        };
        let mount = is_mount_point(&dir);
        let (mut full, mut interrupted) = (false, false);
        for entry in dir.entries().map_err(look)? {
            if PrivateDir::is_named(&entry.name, INSIDE_PREFIX.as_ref()) {
                interrupted |= inside::is_interrupted(&dir, &entry.name);
                continue;
            }
            full |= !(mount && entry.name == "lost+found");
        }
        if interrupted && !overwrite {
            return Err(DestinationError::Interrupted(path));
        }
        if full && !overwrite {
            return Err(DestinationError::NotEmpty(path));
        }
        let writable = accessat(&above, ".", Access::WRITE_OK, AtFlags::EACCESS).is_ok();
        let has_name = !name.is_empty();
        // A shell that is in the directory would stay behind in the old one.
        let place = match has_name && writable && !mount && !is_current(&dir) {
            true => StagingPlace::Sibling,
            false => StagingPlace::Inside,
        };
        Ok(Self {
            path,
            // What was begun inside is finished inside.
            place: if interrupted {
                StagingPlace::Inside
            } else {
                place
            },
            full,
            there: Some(dir),
            above,
            between: Vec::new(),
            name,
        })
    }

    /// The nearest directory that is there: on the file system that the restore will fill.
    pub(crate) fn near(&self) -> &Dir {
        self.there.as_ref().unwrap_or(&self.above)
    }

    /// Refuses what cannot fit, before it fills the disk. Where the file system does not say how much is free,
    /// it will show.
    pub(crate) fn require_room(&self, needed: u64) -> Result<(), DestinationError> {
        let Ok(found) = rustix::fs::fstatfs(self.near()) else {
            return Ok(());
        };
        let blocks = match rustix::process::geteuid().is_root() {
            true => found.f_bfree,
            false => found.f_bavail,
        };
        let free = blocks.saturating_mul(found.f_bsize as u64);
        let fits = match COMPRESSING.contains(&(found.f_type as u64 & 0xffff_ffff)) {
            true => free.saturating_mul(MOST_COMPRESSION),
            false => free,
        };
        if found.f_blocks == 0 || needed <= fits {
            return Ok(());
        }
        let path = self.path.clone();
        Err(DestinationError::NoRoom { path, needed, free })
    }
}

fn is_mount_point(dir: &Dir) -> bool {
    let found = statx(
        dir.as_fd(),
        c"",
        AtFlags::EMPTY_PATH,
        StatxFlags::BASIC_STATS,
    );
    found.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

fn is_current(dir: &Dir) -> bool {
    let here = Dir::open(Path::new(".")).and_then(|here| Meta::of_fd(&here));
    let meta = Meta::of_fd(dir);
    here.is_ok_and(|here| meta.is_ok_and(|meta| meta.is_same(&here)))
}
