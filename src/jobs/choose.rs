//! Finds the snapshot that has certain tags. They are in its sealed index, so an identity is
//! needed.

use std::sync::Arc;

use super::context::FrontEnd;
use super::error::JobError;
use super::wrong_key;
use crate::base::snapshot_choice::SnapshotChoice;
use crate::base::units::count;
use crate::format::chain::{Chain, VerifiedSnapshot};
use crate::format::index::IndexHeader;
use crate::repository::HostFolder;
use crate::restore::open::Identities;
use crate::restore::{self, RestoreError};

/// Returns the snapshot that `choice` prefers among those with all of its tags. Reads one index
/// after the other, and stops at the first that has them.
pub(crate) async fn with_tags<'a>(
    folder: &HostFolder,
    chain: &'a Chain,
    choice: &SnapshotChoice,
    identities: &Arc<Identities>,
    front: &dyn FrontEnd,
) -> Result<&'a VerifiedSnapshot, JobError> {
    let candidates = chain.by_preference(choice)?;
    let all = candidates.len() as u64;
    front.note(&format!(
        "tags are encrypted: looking into {}, the newest first",
        count(all, "snapshot")
    ));
    for snapshot in candidates {
        let header = read_header(folder, snapshot, identities).await?;
        if choice.tags().iter().all(|tag| header.tags.contains(tag)) {
            require_undoubted(chain, choice, snapshot)?;
            return Ok(snapshot);
        }
    }
    let text = format!("no snapshot {choice} on this target");
    let next = "`sealift list --from URL --identity FILE` shows the tags";
    Err(JobError::work(text).with_next(next))
}

/// Reads the header of a snapshot's index.
pub(crate) async fn read_header(
    folder: &HostFolder,
    snapshot: &VerifiedSnapshot,
    identities: &Arc<Identities>,
) -> Result<IndexHeader, JobError> {
    let table = folder.table(&snapshot.manifest).await?;
    let header = restore::read_header(folder, &snapshot.manifest, &table, identities).await;
    header.map_err(unread)
}

fn unread(error: RestoreError) -> JobError {
    match wrong_key::next_step(&error) {
        Some(next) => JobError::from(error).with_next(next),
        None => error.into(),
    }
}

/// Fails if a manifest that cannot be read could have been preferred to `chosen`.
fn require_undoubted(
    chain: &Chain,
    choice: &SnapshotChoice,
    chosen: &VerifiedSnapshot,
) -> Result<(), JobError> {
    let Some(finding) = chain.doubt(choice, chosen) else {
        return Ok(());
    };
    let stamp = chosen.stamp();
    let error = JobError::work(format!(
        "refusing {stamp} as {choice}: {finding} (name a snapshot to choose it exactly)"
    ));
    Err(match finding.next() {
        Some(next) => error.with_next(next),
        None => error,
    })
}
