//! Deleting a snapshot of this host.

use std::fs;

use super::claim::{PARTIAL, remove_tree};
use super::{LocalSnapshot, ProduceError, failed};

/// Deletes `snapshot`. It loses its name first: a run that dies leaves a partial directory, which the next one
/// removes, and never half a snapshot.
pub fn forget(snapshot: &LocalSnapshot) -> Result<(), ProduceError> {
    let (path, stamp) = (&snapshot.path, snapshot.stamp);
    let partial = path.with_file_name(format!("{PARTIAL}{stamp}"));
    fs::rename(path, &partial).map_err(failed("delete", path))?;
    remove_tree(&partial).map_err(failed("delete", &partial))
}
