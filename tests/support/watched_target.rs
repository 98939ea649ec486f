//! A decorator that records what is asked of a target and lets one call fail.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::stream::BoxStream;
use sealift::storage::{Body, ErrorKind, Listed, PutMode, PutOutcome, Storage, TargetError, Thaw};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The nth call, from 0, never reaches the target.
    Before(usize),
    /// The nth call does its work, and its answer is lost.
    After(usize),
    /// From the nth call on none reaches the target.
    From(usize),
    /// The nth call panics.
    Panic(usize),
    /// Each from the nth on does.
    PanicFrom(usize),
}

#[derive(Debug)]
pub struct Watched {
    pub inner: Arc<dyn Storage>,
    /// Operation and key, in the order in which they ended well.
    pub done: Mutex<Vec<(&'static str, String)>>,
    /// Keys that were to go into cold storage.
    pub cold: Mutex<Vec<String>>,
    /// A put of a key with this in it takes a while.
    pub slow: Mutex<Option<&'static str>>,
    calls: Mutex<usize>,
    fault: Fault,
    kind: ErrorKind,
}

impl Watched {
    pub fn new(inner: Arc<dyn Storage>, fault: Fault) -> Arc<Self> {
        Self::failing(inner, fault, ErrorKind::Unavailable)
    }

    /// Where what fails is of this kind.
    pub fn failing(inner: Arc<dyn Storage>, fault: Fault, kind: ErrorKind) -> Arc<Self> {
        Arc::new(Self {
            inner,
            done: Mutex::new(Vec::new()),
            cold: Mutex::new(Vec::new()),
            slow: Mutex::new(None),
            calls: Mutex::new(0),
            fault,
            kind,
        })
    }

    pub fn calls(&self) -> usize {
        *self.calls.lock().unwrap()
    }

    /// Keys put, in order.
    pub fn puts(&self) -> Vec<String> {
        let done = self.done.lock().unwrap();
        let puts = done.iter().filter(|(operation, _)| *operation == "put");
        puts.map(|(_, key)| key.clone()).collect()
    }

    async fn watch<T>(
        &self,
        operation: &'static str,
        key: &str,
        work: impl Future<Output = Result<T, TargetError>>,
    ) -> Result<T, TargetError> {
        let number = {
            let mut calls = self.calls.lock().unwrap();
            *calls += 1;
            *calls - 1
        };
        let lost = || TargetError {
            operation,
            key: key.to_owned(),
            target: "watched".to_owned(),
            kind: self.kind,
            source: "made to fail".into(),
        };
        match self.fault {
            Fault::Before(nth) if nth == number => return Err(lost()),
            Fault::From(nth) if nth <= number => return Err(lost()),
            Fault::Panic(nth) if nth == number => panic!("made to fail: {operation} {key}"),
            Fault::PanicFrom(nth) if nth <= number => panic!("made to fail: {operation} {key}"),
            _ => {}
        }
        let outcome = work.await?;
        self.done.lock().unwrap().push((operation, key.to_owned()));
        match self.fault == Fault::After(number) {
            true => Err(lost()),
            false => Ok(outcome),
        }
    }
}

#[async_trait::async_trait]
impl Storage for Watched {
    fn label(&self) -> &str {
        self.inner.label()
    }

    fn looks_in_part(&self, folders: usize, objects: usize) -> bool {
        self.inner.looks_in_part(folders, objects)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, TargetError> {
        self.watch("list", prefix, self.inner.list(prefix)).await
    }

    async fn list_folders(&self) -> Result<Vec<String>, TargetError> {
        self.watch("list", "/", self.inner.list_folders()).await
    }

    async fn put(&self, key: &str, body: Body, mode: PutMode) -> Result<PutOutcome, TargetError> {
        let is_slow = |part: &str| key.contains(part);
        if self.slow.lock().unwrap().is_some_and(is_slow) {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        self.watch("put", key, self.inner.put(key, body, mode))
            .await
    }

    async fn put_cold(
        &self,
        key: &str,
        body: Body,
        mode: PutMode,
    ) -> Result<PutOutcome, TargetError> {
        self.cold.lock().unwrap().push(key.to_owned());
        self.watch("put", key, self.inner.put_cold(key, body, mode))
            .await
    }

    async fn get(&self, key: &str, limit: u64) -> Result<Bytes, TargetError> {
        self.watch("get", key, self.inner.get(key, limit)).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, TargetError> {
        self.watch("get", key, self.inner.get_range(key, range))
            .await
    }

    async fn stream(
        &self,
        key: &str,
        offset: u64,
    ) -> Result<BoxStream<'static, Result<Bytes, TargetError>>, TargetError> {
        self.watch("get", key, self.inner.stream(key, offset)).await
    }

    async fn is_frozen(&self, key: &str) -> Result<bool, TargetError> {
        self.inner.is_frozen(key).await
    }

    async fn thaw(&self, key: &str, days: u16) -> Result<Thaw, TargetError> {
        self.watch("thaw", key, self.inner.thaw(key, days)).await
    }

    async fn delete(&self, key: &str) -> Result<(), TargetError> {
        self.watch("delete", key, self.inner.delete(key)).await
    }
}
