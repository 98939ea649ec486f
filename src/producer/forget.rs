//! Deleting a snapshot of this host.

use super::snapshot_dir::PARTIAL;
use super::{LocalSnapshot, ProduceError, failed};
use crate::base::openat::Dir;

/// Deletes `snapshot`. It loses its name first: a run that dies leaves a partial directory, which the next one
/// removes, and never half a snapshot.
pub fn forget(snapshot: &LocalSnapshot) -> Result<(), ProduceError> {
    let (path, stamp) = (&snapshot.path, snapshot.stamp);
    let partial = format!("{PARTIAL}{stamp}");
    let (dir, name) = Dir::open_parent(path).map_err(failed("delete", path))?;
    let renamed = dir.rename(&name, &dir, &partial);
    renamed.map_err(failed("delete", path))?;
    let removed = dir.remove_tree(&partial);
    removed.map_err(failed("delete", &dir.path_of(&partial)))
}
