//! A target that cannot be opened now: it answers every request with the reason.
//!
//! So one target whose credentials are missing or whose disk is not mounted stays behind on its own,
//! like one that does not answer, and the others get their snapshot.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;

use super::{Body, ErrorKind, Listed, OpenError, PutMode, PutOutcome, Storage, TargetError};

#[derive(Debug)]
pub(super) struct Unavailable {
    label: String,
    reason: Arc<OpenError>,
}

impl Unavailable {
    pub fn new(label: String, reason: OpenError) -> Self {
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
impl Storage for Unavailable {
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
