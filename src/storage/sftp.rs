//! Another machine as a target by sftp, for machines without rsync. It uses the system's own ssh,
//! and so the user's keys, agents, known hosts and jump hosts.
//!
//! One connection ([`connection`]) is made when it is first needed. All requests share it, and it
//! is replaced if it breaks. A put writes `<host>/.tmp/put-…` first ([`put`]), so an object is
//! complete or absent. A large object goes in pieces, many of them concurrently ([`send`],
//! [`read`]).

mod connection;
mod list;
mod packet;
mod packet_guard;
mod put;
mod read;
mod send;
mod session;

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;

use super::contract::{Body, FOLDERS_OF_ARCHIVES, Listed, PutMode, PutOutcome, Storage};
use super::error::{ErrorKind, TargetError};
use super::folder::reserve;
use super::key::{require_key, require_prefix};
use super::process_failure::ProcessFailure;
use super::size_error::SizeError;
use super::spec::TargetSpec;
use super::url::SftpAddress;
use put::PutRequest;
use read::ObjectReader;
use session::Machine;

/// A target that sftp reaches.
#[derive(Debug)]
pub(super) struct Sftp {
    label: String,
    machine: Arc<Machine>,
}

impl Sftp {
    pub(super) fn new(address: SftpAddress, spec: &TargetSpec) -> Self {
        Self {
            label: spec.label(),
            machine: Arc::new(Machine::new(address, spec)),
        }
    }

    /// Refuses an invalid key.
    fn refuse(&self, operation: &'static str, key: &str) -> Result<(), TargetError> {
        require_key(operation, key, &self.label)
    }

    /// Returns how to make a [`TargetError`] of a failure of this operation.
    fn failed(
        &self,
        operation: &'static str,
        key: &str,
    ) -> impl Fn(ProcessFailure) -> TargetError + Send + Sync + use<> {
        let (key, label) = (key.to_owned(), self.label.clone());
        move |failure| TargetError::new(operation, &key, &label, failure.kind, failure)
    }

    /// Opens an object to read the range that `range` makes of its size.
    async fn reader(
        &self,
        key: &str,
        range: impl FnOnce(u64) -> Range<u64>,
    ) -> Result<ObjectReader, TargetError> {
        self.refuse("get", key)?;
        let path = self.machine.path(key);
        let open = |connection| read::open(connection, path.clone());
        let object = self.machine.run(open).await;
        let failed = self.failed("get", key);
        let object = object.map_err(&failed)?;
        let range = range(object.bytes);
        if range.start > range.end || range.end > object.bytes {
            let error = SizeError::BeyondEnd {
                bytes: object.bytes,
            };
            return Err(failed(ProcessFailure::new(
                ErrorKind::Permanent,
                error.to_string(),
            )));
        }
        let machine = Arc::clone(&self.machine);
        Ok(ObjectReader::new(machine, path, &object, range))
    }
}

#[async_trait::async_trait]
impl Storage for Sftp {
    fn label(&self) -> &str {
        &self.label
    }

    fn may_be_unmounted(&self) -> bool {
        true
    }

    fn trouble(&self) -> Option<String> {
        self.machine.deadlines.contact.cause()
    }

    /// A listing requests each folder separately.
    fn looks_in_part(&self, folders: usize, _objects: usize) -> bool {
        folders * 2 <= FOLDERS_OF_ARCHIVES
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, TargetError> {
        let folder = require_prefix(prefix, &self.label)?;
        let list = |connection| list::objects(&self.machine, connection, folder.to_owned());
        let listed = self.machine.run(list).await;
        listed.map_err(self.failed("list", prefix))
    }

    async fn list_folders(&self) -> Result<Vec<String>, TargetError> {
        let list = |connection| list::folders(&self.machine, connection);
        let listed = self.machine.run(list).await;
        listed.map_err(self.failed("list", "/"))
    }

    async fn put(&self, key: &str, body: Body, mode: PutMode) -> Result<PutOutcome, TargetError> {
        self.refuse("put", key)?;
        self.put_one(key, body, mode).await
    }

    async fn get(&self, key: &str, limit: u64) -> Result<Bytes, TargetError> {
        self.refuse("get", key)?;
        let path = self.machine.path(key);
        let get = |connection| read::whole(&self.machine, connection, path.clone(), limit);
        let got = self.machine.run(get).await;
        got.map_err(self.failed("get", key))
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, TargetError> {
        let mut reader = self.reader(key, |_| range).await?;
        let mut got = BytesMut::new();
        while let Some(piece) = reader.next().await.map_err(self.failed("get", key))? {
            got.extend_from_slice(&piece);
        }
        Ok(got.freeze())
    }

    async fn stream(
        &self,
        key: &str,
        offset: u64,
    ) -> Result<BoxStream<'static, Result<Bytes, TargetError>>, TargetError> {
        let reader = self.reader(key, |bytes| offset..bytes).await?;
        let failed = Arc::new(self.failed("get", key));
        let stream = futures::stream::try_unfold(reader, move |mut reader| {
            let failed = Arc::clone(&failed);
            async move {
                let piece = reader.next().await.map_err(|failure| failed(failure))?;
                Ok(piece.map(|piece| (piece, reader)))
            }
        });
        Ok(Box::pin(stream))
    }

    async fn delete(&self, key: &str) -> Result<(), TargetError> {
        self.refuse("delete", key)?;
        self.delete_one(key).await.map(drop)
    }

    fn has_reserve(&self) -> bool {
        true
    }

    async fn keep_reserve(&self, host: &str) -> Result<(), TargetError> {
        self.refuse("keep room in", host)?;
        let (key, body) = (reserve::key(host), Body::Bytes(reserve::content(host)));
        let put = self.put_one(&key, body, PutMode::Create).await;
        put.map(drop)
    }

    async fn free_reserve(&self, host: &str) -> Result<bool, TargetError> {
        self.refuse("free room in", host)?;
        self.delete_one(&reserve::key(host)).await
    }
}

impl Sftp {
    async fn put_one(
        &self,
        key: &str,
        body: Body,
        mode: PutMode,
    ) -> Result<PutOutcome, TargetError> {
        let put = PutRequest {
            key: key.to_owned(),
            body,
            mode,
        };
        let done = self
            .machine
            .run(|connection| put::put(&self.machine, connection, &put))
            .await;
        done.map_err(self.failed("put", key))
    }

    /// Deletes an object. `false`: it did not exist.
    async fn delete_one(&self, key: &str) -> Result<bool, TargetError> {
        let path = self.machine.path(key);
        let path = path.as_str();
        let delete = |connection: Arc<connection::Connection>| async move {
            let mut fs = connection.client.fs();
            match connection.ask(fs.remove_file(path)).await {
                Err(failure) if failure.kind == ErrorKind::NotFound => Ok(false),
                other => other.map(|()| true),
            }
        };
        let deleted = self.machine.run(delete).await;
        deleted.map_err(self.failed("delete", key))
    }
}
