//! What stands where a restore is to go.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, StatxAttributes, StatxFlags, accessat, statx};

use super::staging::is_staging_inside;

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
pub(crate) enum Place {
    Sibling,
    Inside,
}

#[derive(Debug, Clone)]
pub(crate) struct Destination {
    /// Absolute, links resolved as far as it exists.
    pub path: PathBuf,
    pub place: Place,
    /// It has content, which is to be moved aside.
    pub full: bool,
}

impl Destination {
    /// Looks, changes nothing.
    pub(crate) fn inspect(to: &Path, overwrite: bool) -> Result<Self, DestinationError> {
        let look = |source| DestinationError::Look {
            path: to.to_path_buf(),
            source,
        };
        if let Err(error) = fs::symlink_metadata(to) {
            if error.kind() != io::ErrorKind::NotFound {
                return Err(look(error));
            }
            return Ok(Self {
                path: resolve_absent(to).map_err(look)?,
                place: Place::Sibling,
                full: false,
            });
        }
        let path = fs::canonicalize(to).map_err(look)?;
        if !fs::metadata(&path).map_err(look)?.is_dir() {
            return Err(DestinationError::NotADirectory(to.to_path_buf()));
        }
        let mount = is_mount_point(&path);
        let mut full = false;
        for entry in fs::read_dir(&path).map_err(look)? {
            let name = entry.map_err(look)?.file_name();
            full |= !(is_staging_inside(&name) || (mount && name == "lost+found"));
        }
        if full && !overwrite {
            return Err(DestinationError::NotEmpty(to.to_path_buf()));
        }
        let parent_is_ours = path.parent().is_some_and(|parent| {
            accessat(CWD, parent, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
        });
        // A shell that stands in the directory would stay behind in the old one.
        let is_current = std::env::current_dir().is_ok_and(|current| current == path);
        let place = match parent_is_ours && !mount && !is_current {
            true => Place::Sibling,
            false => Place::Inside,
        };
        Ok(Self { path, place, full })
    }

    /// Refuses what cannot fit, before it fills the disk. Where nothing can be told, it will show.
    pub(crate) fn require_room(&self, needed: u64) -> Result<(), DestinationError> {
        let here = self.path.ancestors().find(|path| path.is_dir());
        let Some(Ok(found)) = here.map(rustix::fs::statfs) else {
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

fn is_mount_point(path: &Path) -> bool {
    let found = statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS);
    found.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// The absolute path of something that is not there: its nearest ancestor that is, resolved.
fn resolve_absent(to: &Path) -> io::Result<PathBuf> {
    let to = std::path::absolute(to)?;
    let mut missing = Vec::new();
    let mut above = to.as_path();
    let mut base = loop {
        match (fs::canonicalize(above), above.parent(), above.file_name()) {
            (Ok(base), _, _) => break base,
            (Err(_), Some(parent), Some(name)) => {
                missing.push(name);
                above = parent;
            }
            (Err(error), _, _) => return Err(error),
        }
    };
    base.extend(missing.iter().rev());
    Ok(base)
}
