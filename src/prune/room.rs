//! Makes room for a prune's own marks and tombstones on a disk that is full to the last byte.
//!
//! First it frees the reserve that a push kept for this (`Storage::free_reserve`). If that is not
//! enough, or a push of an older version kept none, it deletes the recovery documents, which every
//! version of Sealift contains and no snapshot needs. Each tombstone then takes less than the
//! manifest and the signature free that go after it. At the end both are put back, or at the end of
//! a later prune if there is no room yet.

use bytes::Bytes;

use super::{PrunePlan, PruneReport, PruneRequest};
use crate::base::ids::ObjectKey;
use crate::storage::{Body, ErrorKind, PutMode, TargetError, is_full};

/// What is deleted to make room, in this order.
const SPARE: [Spare; 2] = [Spare::Reserve, Spare::Recovery];

/// Something that can be deleted to make room.
#[derive(Clone, Copy)]
enum Spare {
    Reserve,
    Recovery,
}

impl PruneRequest {
    /// Puts a mark or a tombstone, and makes room for it if the target is full.
    pub(super) async fn put(&self, key: &ObjectKey, bytes: Vec<u8>) -> Result<(), TargetError> {
        let (key, bytes) = (self.folder.key(key), Bytes::from(bytes));
        let try_it = async || {
            let body = Body::Bytes(bytes.clone());
            self.folder.target.put(&key, body, PutMode::Create).await
        };
        let mut done = try_it().await;
        for spare in SPARE {
            if !done.as_ref().is_err_and(|error| is_full(error)) {
                break;
            }
            if self.free(spare).await? {
                done = try_it().await;
            }
        }
        done.map(drop)
    }

    /// Returns false if there was nothing to free.
    async fn free(&self, spare: Spare) -> Result<bool, TargetError> {
        let target = &self.folder.target;
        match spare {
            Spare::Reserve => target.free_reserve(self.folder.host.as_str()).await,
            Spare::Recovery if !target.has_reserve() => Ok(false),
            Spare::Recovery => {
                for (key, _) in &self.recovery {
                    target.delete(&self.folder.key(key)).await?;
                }
                Ok(!self.recovery.is_empty())
            }
        }
    }

    /// Puts the reserve and the recovery documents back, which this run or one that was killed may
    /// have deleted. Without room for the reserve, the free space is left alone: a backup needs it
    /// to list the mark.
    pub(super) async fn keep_room(&self, plan: &PrunePlan, report: &mut PruneReport) {
        let target = &self.folder.target;
        if !target.has_reserve() || plan.snapshots.is_empty() {
            return;
        }
        if let Err(error) = target.keep_reserve(self.folder.host.as_str()).await {
            tracing::info!(%error, "no room is kept for a prune of a full disk");
            for (key, bytes) in &self.recovery {
                let there = target.get(&self.folder.key(key), bytes.len() as u64).await;
                let is_gone = there.is_err_and(|error| error.kind == ErrorKind::NotFound);
                report.without_recovery |= is_gone;
            }
            return;
        }
        let puts = self.recovery.iter().map(|(key, bytes)| {
            let (key, body) = (self.folder.key(key), Body::Bytes(bytes.clone()));
            async move { target.put(&key, body, PutMode::Create).await }
        });
        let put = futures::future::join_all(puts).await;
        report.without_recovery = put
            .iter()
            .filter_map(|put| put.as_ref().err())
            .any(|error| is_full(error));
    }
}
