//! Puts the documents that explain how to restore without Sealift.

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};

use super::super::error::ShipError;
use super::PUBLISH_CONCURRENCY;
use crate::base::ids::ObjectKey;
use crate::repository::HostFolder;
use crate::storage::{Body, ErrorKind, PutMode};

/// Limit for reading a recovery file back; they have a few kilobytes.
const MAX_RECOVERY_BYTES: u64 = 16 << 20;

/// Puts the recovery documents, unless they are there.
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

/// Puts one file unless its key is taken. Its name is not its hash, so it looks first and keeps
/// whatever is there.
async fn put_unless_there(
    folder: &HostFolder,
    key: &ObjectKey,
    bytes: &Bytes,
) -> Result<(), ShipError> {
    let key = folder.key(key);
    match folder.target.get(&key, MAX_RECOVERY_BYTES).await {
        // Without the right to read, the write finds out.
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
