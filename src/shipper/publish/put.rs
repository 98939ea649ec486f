//! Puts the small objects of a plan: pages, signatures, then manifests.

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};

use super::super::error::ShipError;
use super::super::upload::{UploadTracker, spooled};
use super::plan::SmallObject;
use super::{PUBLISH_CONCURRENCY, PublishJob};
use crate::format::manifest::Manifest;
use crate::storage::{Body, PutMode};

impl PublishJob<'_> {
    /// Puts pages or signatures, in any order.
    pub(super) async fn put_small(
        &self,
        objects: &[SmallObject],
        tracker: &impl UploadTracker,
    ) -> Result<(), ShipError> {
        in_parallel(objects, |object| async move {
            let key = &object.key;
            let (bytes, body) = match &object.at_hand {
                Some(bytes) => (bytes.len() as u64, Body::Bytes(bytes.clone())),
                None => (spooled(self.spool, key)?, Body::File(self.spool.path(key))),
            };
            let target = &self.folder.target;
            target.put(&self.folder.key(key), body, object.mode).await?;
            tracker.shipped(key, bytes);
            Ok(())
        })
        .await
    }

    /// Puts the manifests, oldest first. Once a manifest that follows a prune mark is there, the
    /// archives that the mark names go; so the manifests before it must be there first, and only
    /// those of the same marks go up together.
    pub(super) async fn put_manifests(
        &self,
        manifests: &[(&Manifest, PutMode)],
        tracker: &impl UploadTracker,
    ) -> Result<(), ShipError> {
        let marks = |(manifest, _): &(&Manifest, PutMode)| manifest.core.marks_seen.clone();
        for alike in manifests.chunk_by(|a, b| marks(a) == marks(b)) {
            in_parallel(alike, |(manifest, mode)| async move {
                let key = manifest.name().key();
                let body = Body::Bytes(Bytes::copy_from_slice(&manifest.bytes));
                let target = &self.folder.target;
                target.put(&self.folder.key(&key), body, *mode).await?;
                tracker.shipped(&key, manifest.bytes.len() as u64);
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}

async fn in_parallel<'a, T: 'a, F>(
    items: &'a [T],
    work: impl Fn(&'a T) -> F,
) -> Result<(), ShipError>
where
    F: Future<Output = Result<(), ShipError>> + 'a,
{
    futures::stream::iter(items)
        .map(work)
        .buffer_unordered(PUBLISH_CONCURRENCY)
        .try_collect()
        .await
}
