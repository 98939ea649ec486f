//! Fetches, verifies and parses the index of a snapshot.

use std::sync::Arc;

use super::cold_storage::NeededArchives;
use super::error::RestoreError;
use super::fetch::{self, Damaged};
use super::index_buffer::IndexBuffer;
use super::open::Identities;
use super::plan::{self, Index};
use super::{Progress, Silent, blocking};
use crate::base::ids::{Hash, HostName, Stamp};
use crate::base::openat::Dir;
use crate::format::index::{EntryList, Extent, IndexHeader, IndexReader, MAX_TAR_BYTES};
use crate::format::manifest::{IndexRef, Manifest, WIDE_TIMES};
use crate::repository::{ArchiveTable, HostFolder};

/// A larger index is refused.
const MAX_INDEX_BYTES: u64 = 8 << 30;

/// Fetches, verifies and parses a snapshot's whole index. Returns its header and its entries, by
/// path.
pub async fn read_index(
    folder: &HostFolder,
    manifest: &Manifest,
    table: &ArchiveTable,
    identities: &Arc<Identities>,
) -> Result<(IndexHeader, EntryList), RestoreError> {
    let (index, _) = fetch_index(folder, manifest, table, identities, None).await?;
    Ok((index.header, index.entries))
}

/// Returns the index and the ciphertext bytes that were fetched for it. A large index is in a file
/// in `near` until it is parsed.
pub(super) async fn fetch_index(
    folder: &HostFolder,
    manifest: &Manifest,
    table: &ArchiveTable,
    identities: &Arc<Identities>,
    near: Option<&Dir>,
) -> Result<(Index, u64), RestoreError> {
    let (stamp, reference) = (manifest.core.stamp, &manifest.core.index);
    if is_impossible(reference) {
        let what = "the manifest states an impossible size".to_owned();
        return Err(RestoreError::Index { stamp, what });
    }
    let jobs = plan::index_jobs(&reference.extents, table)?;
    let fetched_bytes = plan::fetch_bytes(&jobs);
    let unkept = move |source| RestoreError::KeepIndex { stamp, source };
    let buffer = IndexBuffer::new(reference.bytes, near).map_err(unkept)?;
    let sink = || buffer.sink();
    let silent: Arc<dyn Progress> = Arc::new(Silent);
    let needed = NeededArchives::by(&jobs);
    let damaged = fetch::fetch(folder, jobs, identities, &silent, &sink).await;
    if damaged.iter().any(Damaged::is_frozen) {
        return Err(RestoreError::Frozen(needed.frozen(folder).await));
    }
    let damaged = fetch::without_local_failures(damaged).map_err(unkept)?;
    if !damaged.is_empty() {
        return Err(RestoreError::IndexArchives { stamp, damaged });
    }
    let expected = ExpectedIndex {
        hash: reference.blake3,
        host: manifest.core.host.clone(),
        stamp,
        may_have_wide_times: manifest.core.requires.iter().any(|one| one == WIDE_TIMES),
    };
    let index = blocking(move || parse(buffer, &expected));
    Ok((index.await??, fetched_bytes))
}

fn is_impossible(reference: &IndexRef) -> bool {
    let mut lengths = reference.extents.iter().map(|extent| extent.length);
    let promised = lengths.try_fold(0, u64::checked_add);
    let too_far = |extent: &Extent| extent.offset + extent.length > MAX_TAR_BYTES;
    promised != Some(reference.bytes)
        || reference.extents.iter().any(too_far)
        || reference.bytes > MAX_INDEX_BYTES
}

/// What the manifest says of the index.
struct ExpectedIndex {
    hash: Hash,
    host: HostName,
    stamp: Stamp,
    may_have_wide_times: bool,
}

/// Parses the index in `buffer` if it is the one that the manifest names.
fn parse(buffer: IndexBuffer, expected: &ExpectedIndex) -> Result<Index, RestoreError> {
    let stamp = expected.stamp;
    let broken = |what: &str| RestoreError::Index {
        stamp,
        what: what.to_owned(),
    };
    let lines = buffer.verified(expected.hash);
    let lines = lines.map_err(|source| RestoreError::KeepIndex { stamp, source })?;
    let lines = lines.ok_or_else(|| broken("its BLAKE3 is not the manifest's"))?;
    let unacceptable = |source| RestoreError::IndexContent { stamp, source };
    let mut reader = IndexReader::new(lines).map_err(unacceptable)?;
    plan::check_header(&reader.header, &expected.host, stamp)?;
    let entries = reader.read_rest().map_err(unacceptable)?;
    if entries.has_wide_times() && !expected.may_have_wide_times {
        return Err(broken(
            "a time is beyond 64 bits, and its manifest does not say so",
        ));
    }
    Ok(Index {
        entries,
        header: reader.header,
        archives: reader.archives,
    })
}
