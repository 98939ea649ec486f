//! Turns a panic in a target into the failure of one request.
//!
//! Most of a target's code is libraries, and servers send answers that these do not foresee. A
//! request that panics fails like one that was refused; other requests, other targets and the run
//! continue.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;

use super::contract::{Body, Listed, PutMode, PutOutcome, Storage, Thaw};
use super::error::{ErrorKind, TargetError};
use crate::base::panics::{Panicked, caught, caught_items};

#[derive(Debug)]
struct Isolated {
    target: Arc<dyn Storage>,
    label: String,
}

/// Wraps `target` so that a panic ends only the request in which it happens.
pub fn isolated(target: Arc<dyn Storage>) -> Arc<dyn Storage> {
    let label = target.label().to_owned();
    Arc::new(Isolated { target, label })
}

/// Returns a panic as the failure of an operation on `target` (its label).
pub fn panicked(
    operation: &'static str,
    key: &str,
    target: &str,
    panicked: Panicked,
) -> TargetError {
    TargetError::new(operation, key, target, ErrorKind::Permanent, panicked)
}

impl Isolated {
    /// Awaits `work` and turns a panic into its failure.
    async fn request<T>(
        &self,
        operation: &'static str,
        key: &str,
        work: impl Future<Output = Result<T, TargetError>>,
    ) -> Result<T, TargetError> {
        let done = caught(work).await;
        done.unwrap_or_else(|error| Err(panicked(operation, key, &self.label, error)))
    }
}

#[async_trait::async_trait]
impl Storage for Isolated {
    fn label(&self) -> &str {
        &self.label
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
        let work = self.target.list(prefix);
        self.request("list", prefix, work).await
    }

    async fn list_keys(&self, prefix: &str) -> Result<Vec<String>, TargetError> {
        let work = self.target.list_keys(prefix);
        self.request("list", prefix, work).await
    }

    async fn list_keys_from(&self, prefix: &str, from: &str) -> Result<Vec<String>, TargetError> {
        let work = self.target.list_keys_from(prefix, from);
        self.request("list", prefix, work).await
    }

    async fn list_each(&self, prefixes: &[String]) -> Result<Vec<Listed>, TargetError> {
        let work = self.target.list_each(prefixes);
        self.request("list", "/", work).await
    }

    async fn sizes(&self, keys: &[String]) -> Result<Option<HashMap<String, u64>>, TargetError> {
        let work = self.target.sizes(keys);
        self.request("list", "/", work).await
    }

    async fn list_folders(&self) -> Result<Vec<String>, TargetError> {
        let work = self.target.list_folders();
        self.request("list", "/", work).await
    }

    async fn put(&self, key: &str, body: Body, mode: PutMode) -> Result<PutOutcome, TargetError> {
        let work = self.target.put(key, body, mode);
        self.request("put", key, work).await
    }

    async fn put_cold(
        &self,
        key: &str,
        body: Body,
        mode: PutMode,
    ) -> Result<PutOutcome, TargetError> {
        let work = self.target.put_cold(key, body, mode);
        self.request("put", key, work).await
    }

    async fn get(&self, key: &str, limit: u64) -> Result<Bytes, TargetError> {
        let work = self.target.get(key, limit);
        self.request("get", key, work).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, TargetError> {
        let work = self.target.get_range(key, range);
        self.request("get", key, work).await
    }

    fn has_ranges(&self) -> bool {
        self.target.has_ranges()
    }

    async fn stream(
        &self,
        key: &str,
        offset: u64,
    ) -> Result<BoxStream<'static, Result<Bytes, TargetError>>, TargetError> {
        let work = self.target.stream(key, offset);
        let items = self.request("get", key, work).await?;
        let (key, label) = (key.to_owned(), self.label.clone());
        let failed = move |error| Err(panicked("get", &key, &label, error));
        Ok(caught_items(items, failed).boxed())
    }

    async fn is_frozen(&self, key: &str) -> Result<bool, TargetError> {
        let work = self.target.is_frozen(key);
        self.request("get", key, work).await
    }

    async fn thaw(&self, key: &str, days: u16) -> Result<Thaw, TargetError> {
        let work = self.target.thaw(key, days);
        self.request("thaw", key, work).await
    }

    async fn delete(&self, key: &str) -> Result<(), TargetError> {
        let work = self.target.delete(key);
        self.request("delete", key, work).await
    }

    fn has_reserve(&self) -> bool {
        self.target.has_reserve()
    }

    async fn keep_reserve(&self, host: &str) -> Result<(), TargetError> {
        let work = self.target.keep_reserve(host);
        self.request("keep room on", host, work).await
    }

    async fn free_reserve(&self, host: &str) -> Result<bool, TargetError> {
        let work = self.target.free_reserve(host);
        self.request("free room on", host, work).await
    }
}
