//! What a host remembers about files, which is wrong after a restore in place.

use std::io;
use std::path::Path;

use super::plan::InPlacePlan;
use crate::base::openat::Dir;

/// The packer's memory of the files of the last snapshot.
const FILES_CACHE: &str = "last-snapshot.cache";

/// Makes the next backup look at every file: restored files may have the times and sizes of those
/// that it remembers.
pub(super) fn forget(state: &Path, plan: &InPlacePlan) -> io::Result<()> {
    let state = Dir::open(state)?;
    state.remove_tree(FILES_CACHE)?;
    match state.sub("stage") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => {
            let records = other?;
            for item in &plan.items {
                records.remove_tree(format!("{}.jsonl", item.name))?;
            }
        }
    }
    Ok(())
}
