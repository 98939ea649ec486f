//! Inspects the destination of a restore.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, StatxAttributes, StatxFlags, accessat, statx};

use super::inside::{self, INSIDE_PREFIX};
use crate::base::fs::lacks_room;
use crate::base::openat::{Dir, Meta, PrivateDir};

/// Why nothing can be restored to a destination.
#[derive(Debug, thiserror::Error)]
pub enum DestinationError {
    /// It cannot be inspected.
    #[error("cannot look at {}", path.display())]
    Look {
        /// The destination.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It exists and is no directory.
    #[error("{} exists and is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// It has content, and the request does not allow to move that aside.
    #[error("{} is not empty (--overwrite moves what is there aside)", .0.display())]
    NotEmpty(PathBuf),
    /// An earlier restore to it died while it put its tree in place.
    #[error(
        "a restore to {to} was interrupted while it put its files in place: finish it with \
         `sealift restore --resume --to {to}`", to = .0.display()
    )]
    Interrupted(PathBuf),
    /// An interrupted restore to it could not be finished.
    #[error("cannot finish the interrupted restore to {}", path.display())]
    Resume {
        /// The destination.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its file system has too little free space.
    #[error(
        "No space left for it at {}: {needed} bytes are to be restored, {free} are free; nothing was changed", path.display()
    )]
    NoRoom {
        /// The destination.
        path: PathBuf,
        /// Bytes to restore, without holes.
        needed: u64,
        /// Free bytes.
        free: u64,
    },
}

/// The place of the staging directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StagingPlace {
    /// Beside the destination.
    Sibling,
    /// Inside the destination.
    Inside,
}

/// The destination of a restore, as it was when it was inspected.
#[derive(Debug, Clone)]
pub(crate) struct Destination {
    /// The real path, for messages: by now something else may be there.
    pub path: PathBuf,
    /// Where the tree is made.
    pub place: StagingPlace,
    /// It has content, which is to be moved aside.
    pub full: bool,
    /// The destination. `None`: it does not exist.
    pub(super) there: Option<Dir>,
    /// The directory that contains it, or the nearest existing one above.
    pub(super) above: Dir,
    /// The names of the missing directories between `above` and the destination.
    pub(super) between: Vec<OsString>,
    /// Its name in the directory that contains it. Empty for the root directory.
    pub(super) name: OsString,
}

impl Destination {
    /// Inspects the path that the operator named, and changes nothing. Does not follow symlinks of
    /// other users.
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

    /// Returns a new directory `name` in `dir`, a private directory.
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
        // With a sibling, a shell whose current directory this is would stay in the old one.
        let place = match has_name && writable && !mount && !is_current(&dir) {
            true => StagingPlace::Sibling,
            false => StagingPlace::Inside,
        };
        Ok(Self {
            path,
            // A restore that was begun inside is finished inside.
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

    /// Returns the nearest existing directory, which is on the file system that the restore will
    /// fill.
    pub(crate) fn near(&self) -> &Dir {
        self.there.as_ref().unwrap_or(&self.above)
    }

    /// Whether it does not exist.
    pub(crate) fn is_absent(&self) -> bool {
        self.there.is_none()
    }

    /// Refuses a restore that cannot fit, before it fills the disk. Accepts all if the file system
    /// does not report its free space.
    pub(crate) fn require_room(&self, needed: u64) -> Result<(), DestinationError> {
        match lacks_room(self.near(), needed) {
            None => Ok(()),
            Some(free) => {
                let path = self.path.clone();
                Err(DestinationError::NoRoom { path, needed, free })
            }
        }
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
