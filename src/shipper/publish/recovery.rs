//! The documents that tell how to get everything back without Sealift.

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};

use super::super::error::ShipError;
use super::PUBLISH_CONCURRENCY;
use crate::base::ids::ObjectKey;
use crate::repository::HostFolder;
use crate::storage::{Body, ErrorKind, PutMode};

/// A recovery file is text of a few kilobytes.
const MAX_RECOVERY_BYTES: u64 = 16 << 20;

/// Puts the files that tell how to get everything back without Sealift, unless they are there.
pub async fn publish_recovery(
    folder: &HostFolder,
    files: &[(ObjectKey, Bytes)],
) -> Result<(), ShipError> {
    futures::stream::iter(files)
        .map(|(key, bytes)| put_unless_there(folder, key, bytes))
        .buffer_unordered(PUBLISH_CONCURRENCY)
        .try_collect()
        .await
}

/// For what is not named by its content, so looked at first: what is there stays, whatever it is.
async fn put_unless_there(
    folder: &HostFolder,
    key: &ObjectKey,
    bytes: &Bytes,
) -> Result<(), ShipError> {
    let key = folder.key(key);
    match folder.target.get(&key, MAX_RECOVERY_BYTES).await {
        // Who may not read finds out by writing.
        Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::Denied) => {}
        Ok(_) => return Ok(()),
        Err(error) if matches!(error.kind, ErrorKind::Permanent | ErrorKind::Frozen) => {
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    }
    let body = Body::Bytes(bytes.clone());
    folder.target.put(&key, body, PutMode::Create).await?;
    Ok(())
}
