//! A limit of the bytes that are fetched from a target.
//!
//! Each read takes its bytes from the allowance before it begins, so no read begins that would
//! exceed it. Listings are not limited.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;

use super::contract::{Body, Listed, PutMode, PutOutcome, Storage, Thaw};
use super::error::{ErrorKind, TargetError};

/// The bytes that may be fetched.
#[derive(Debug)]
pub struct Allowance {
    /// All that may be taken.
    most: AtomicU64,
    taken: AtomicU64,
    is_exceeded: AtomicBool,
}

impl Allowance {
    /// Returns an allowance that has no limit yet.
    pub fn unlimited() -> Arc<Self> {
        Arc::new(Self {
            most: AtomicU64::new(u64::MAX),
            taken: AtomicU64::new(0),
            is_exceeded: AtomicBool::new(false),
        })
    }

    /// Limits what is fetched from now on to `bytes`.
    pub fn limit_from_now(&self, bytes: u64) {
        let most = self.taken.load(Ordering::Relaxed).saturating_add(bytes);
        self.most.store(most, Ordering::Relaxed);
    }

    /// Returns whether a read was refused.
    pub fn is_exceeded(&self) -> bool {
        self.is_exceeded.load(Ordering::Relaxed)
    }

    /// Takes `bytes`. False: they would exceed the allowance, and nothing is taken.
    fn take(&self, bytes: u64) -> bool {
        let most = self.most.load(Ordering::Relaxed);
        let sum = |taken: u64| taken.checked_add(bytes).filter(|sum| *sum <= most);
        let taken = self
            .taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum);
        if taken.is_err() {
            self.is_exceeded.store(true, Ordering::Relaxed);
        }
        taken.is_ok()
    }

    /// Gives back bytes that were taken and not fetched.
    fn give_back(&self, bytes: u64) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Returns `target` with this limit for what is read through it.
    pub fn over(self: &Arc<Self>, target: Arc<dyn Storage>) -> Arc<dyn Storage> {
        Arc::new(LimitedReads {
            allowance: Arc::clone(self),
            target,
        })
    }
}

#[derive(Debug)]
struct LimitedReads {
    allowance: Arc<Allowance>,
    target: Arc<dyn Storage>,
}

fn refused(key: &str, target: &str) -> TargetError {
    let why = "it is more than this command may fetch";
    TargetError::new("get", key, target, ErrorKind::Permanent, why)
}

impl LimitedReads {
    fn take(&self, key: &str, bytes: u64) -> Result<(), TargetError> {
        match self.allowance.take(bytes) {
            true => Ok(()),
            false => Err(refused(key, self.label())),
        }
    }
}

#[async_trait::async_trait]
impl Storage for LimitedReads {
    fn label(&self) -> &str {
        self.target.label()
    }

    fn may_be_unmounted(&self) -> bool {
        self.target.may_be_unmounted()
    }

    fn trouble(&self) -> Option<String> {
        self.target.trouble()
    }

    fn looks_in_part(&self, folders: usize, objects: usize) -> bool {
        self.target.looks_in_part(folders, objects)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, TargetError> {
        self.target.list(prefix).await
    }

    async fn list_keys(&self, prefix: &str) -> Result<Vec<String>, TargetError> {
        self.target.list_keys(prefix).await
    }

    async fn list_keys_from(&self, prefix: &str, from: &str) -> Result<Vec<String>, TargetError> {
        self.target.list_keys_from(prefix, from).await
    }

    async fn list_each(&self, prefixes: &[String]) -> Result<Vec<Listed>, TargetError> {
        self.target.list_each(prefixes).await
    }

    async fn sizes(&self, keys: &[String]) -> Result<Option<HashMap<String, u64>>, TargetError> {
        self.target.sizes(keys).await
    }

    async fn list_folders(&self) -> Result<Vec<String>, TargetError> {
        self.target.list_folders().await
    }

    async fn put(&self, key: &str, body: Body, mode: PutMode) -> Result<PutOutcome, TargetError> {
        self.target.put(key, body, mode).await
    }

    async fn put_cold(
        &self,
        key: &str,
        body: Body,
        mode: PutMode,
    ) -> Result<PutOutcome, TargetError> {
        self.target.put_cold(key, body, mode).await
    }

    async fn get(&self, key: &str, limit: u64) -> Result<Bytes, TargetError> {
        // The object may be shorter than its reader allows.
        self.take(key, limit)?;
        let read = self.target.get(key, limit).await;
        let bytes = read.as_ref().map_or(0, |bytes| bytes.len() as u64);
        self.allowance.give_back(limit.saturating_sub(bytes));
        read
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, TargetError> {
        self.take(key, range.end.saturating_sub(range.start))?;
        self.target.get_range(key, range).await
    }

    fn has_ranges(&self) -> bool {
        self.target.has_ranges()
    }

    async fn stream(
        &self,
        key: &str,
        offset: u64,
    ) -> Result<BoxStream<'static, Result<Bytes, TargetError>>, TargetError> {
        let pieces = self.target.stream(key, offset).await?;
        let allowance = Arc::clone(&self.allowance);
        let (key, label) = (key.to_owned(), self.label().to_owned());
        let limited = pieces.map(move |piece| match piece {
            Ok(piece) if !allowance.take(piece.len() as u64) => Err(refused(&key, &label)),
            piece => piece,
        });
        Ok(limited.boxed())
    }

    async fn is_frozen(&self, key: &str) -> Result<bool, TargetError> {
        self.target.is_frozen(key).await
    }

    async fn thaw(&self, key: &str, days: u16) -> Result<Thaw, TargetError> {
        self.target.thaw(key, days).await
    }

    async fn delete(&self, key: &str) -> Result<(), TargetError> {
        self.target.delete(key).await
    }

    fn has_reserve(&self) -> bool {
        self.target.has_reserve()
    }

    async fn keep_reserve(&self, host: &str) -> Result<(), TargetError> {
        self.target.keep_reserve(host).await
    }

    async fn free_reserve(&self, host: &str) -> Result<bool, TargetError> {
        self.target.free_reserve(host).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{TargetSpec, open};

    #[tokio::test]
    async fn no_read_begins_that_would_exceed_the_allowance() {
        let target = open(&TargetSpec::from_url("memory://")).unwrap();
        let body = Body::Bytes(Bytes::from(vec![1; 100]));
        target.put("h/a", body, PutMode::Create).await.unwrap();
        let allowance = Allowance::unlimited();
        let limited = allowance.over(target);
        assert_eq!(limited.get("h/a", 1000).await.unwrap().len(), 100);
        allowance.limit_from_now(150);
        // An object counts with its own size, but must be sure to fit.
        limited.get("h/a", 100).await.unwrap();
        limited.get_range("h/a", 0..40).await.unwrap();
        assert!(!allowance.is_exceeded());
        assert!(limited.get_range("h/a", 0..11).await.is_err());
        assert!(allowance.is_exceeded());
        limited.get_range("h/a", 0..10).await.unwrap();
        let mut pieces = limited.stream("h/a", 0).await.unwrap();
        assert!(pieces.next().await.unwrap().is_err());
        assert_eq!(limited.list("h/").await.unwrap().len(), 1);
    }
}
