//! Checks before a tree is read that its disk is mounted: `mountpoint` and `must_exist`.

use std::io;
use std::path::PathBuf;

use super::error::{SourceError, cannot, is_missing};
use crate::base::openat::Chosen;
use crate::config::TreeSource;

/// Checks the open tree, so a later mount or unmount changes nothing.
pub(super) fn check(tree: &TreeSource, chosen: &Chosen) -> Result<(), SourceError> {
    if tree.mountpoint {
        let is_mounted = match chosen.is_dir() {
            true => chosen.dir().is_mount_point(),
            false => Ok(false),
        };
        if !is_mounted.map_err(cannot(
            "find out whether something is mounted at",
            &tree.path,
        ))? {
            return Err(SourceError::NotMounted(tree.path.clone()));
        }
    }
    for marker in &tree.must_exist {
        let missing = |cause: io::Error| SourceError::NoMarker {
            path: tree.path.clone(),
            marker: PathBuf::from(marker),
            cause,
        };
        // A symlink on the way leads out of the tree: what is behind it proves nothing about this
        // disk.
        match chosen.is_dir().then(|| chosen.dir().meta(marker)) {
            Some(Ok(_)) => {}
            Some(Err(error)) if is_missing(&error) => {
                return Err(missing(io::ErrorKind::NotFound.into()));
            }
            Some(Err(error)) => return Err(missing(error)),
            None => return Err(missing(io::ErrorKind::NotADirectory.into())),
        }
    }
    Ok(())
}
