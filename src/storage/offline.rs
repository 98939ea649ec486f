//! A target that cannot be opened now and fails every request with the reason.
//!
//! If credentials are missing or a disk is not mounted, only that target stays behind, like one
//! that does not answer; the other targets still get the snapshot.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;

use super::contract::{Body, Listed, PutMode, PutOutcome, Storage};
use super::error::{ErrorKind, OpenError, TargetError};

#[derive(Debug)]
pub(super) struct OfflineTarget {
    label: String,
    reason: Arc<OpenError>,
}

impl OfflineTarget {
    pub(super) fn new(label: String, reason: OpenError) -> Self {
        Self {
            label,
            reason: Arc::new(reason),
        }
    }

    fn fail<T>(&self, operation: &'static str, key: &str) -> Result<T, TargetError> {
        Err(TargetError {
            operation,
            key: key.to_owned(),
            target: self.label.clone(),
            kind: ErrorKind::Permanent,
            source: Box::new(Arc::clone(&self.reason)),
        })
    }
}

#[async_trait::async_trait]
impl Storage for OfflineTarget {
    fn label(&self) -> &str {
        &self.label
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, TargetError> {
        self.fail("list", prefix)
    }

    async fn list_folders(&self) -> Result<Vec<String>, TargetError> {
        self.fail("list", "")
    }

    async fn put(&self, key: &str, _: Body, _: PutMode) -> Result<PutOutcome, TargetError> {
        self.fail("write", key)
    }

    async fn get(&self, key: &str, _limit: u64) -> Result<Bytes, TargetError> {
        self.fail("read", key)
    }

    async fn get_range(&self, key: &str, _: Range<u64>) -> Result<Bytes, TargetError> {
        self.fail("read", key)
    }

    async fn stream(
        &self,
        key: &str,
        _offset: u64,
    ) -> Result<BoxStream<'static, Result<Bytes, TargetError>>, TargetError> {
        self.fail("read", key)
    }

    async fn delete(&self, key: &str) -> Result<(), TargetError> {
        self.fail("delete", key)
    }
}
