//! Another machine by sftp, for places without rsync: over the system's own ssh, so its keys, agents, known hosts
//! and jump hosts are those that the user knows.
//!
//! One connection ([`connection`]) is made when it is first needed, shared by all requests, and made anew after it
//! broke. A put writes `<host>/.tmp/put-…` ([`put`]), so an object is complete or absent. Whatever is large goes in
//! pieces, of which many are on their way at once ([`send`], [`read`]).

mod connection;
mod list;
mod machine;
mod pace;
mod packet;
mod put;
mod read;
mod send;
mod wire;

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;

use super::failure::Failure;
use super::key::{check_key, check_prefix};
use super::reserve;
use super::{Body, ErrorKind, Listed, PutMode, PutOutcome, Target, TargetError, TargetSpec};
use machine::Machine;
use put::Put;
use read::Reader;

/// Where objects lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// `host` or `user@host`.
    pub login: String,
    pub port: Option<u16>,
    /// Absolute, or below the folder that a login begins in.
    pub path: String,
}

#[derive(Debug)]
pub(super) struct Sftp {
    label: String,
    machine: Arc<Machine>,
}

impl Sftp {
    pub fn new(place: Place, spec: &TargetSpec) -> Self {
        Self {
            label: spec.label(),
            machine: Arc::new(Machine::new(place, spec)),
        }
    }

    fn refuse(&self, operation: &'static str, key: &str) -> Result<(), TargetError> {
        check_key(key)
            .map_err(|e| TargetError::new(operation, key, &self.label, ErrorKind::Permanent, e))
    }

    fn failed(
        &self,
        operation: &'static str,
        key: &str,
    ) -> impl Fn(Failure) -> TargetError + Send + Sync + use<> {
        let (key, label) = (key.to_owned(), self.label.clone());
        move |failure| TargetError::new(operation, &key, &label, failure.kind, failure)
    }

    /// The bytes of an object in the range that `range` makes of its size.
    async fn reader(
        &self,
        key: &str,
        range: impl FnOnce(u64) -> Range<u64>,
    ) -> Result<Reader, TargetError> {
        self.refuse("get", key)?;
        let path = self.machine.path(key);
        let open = |connection| read::open(connection, path.clone());
        let object = self.machine.run(open).await;
        let failed = self.failed("get", key);
        let object = object.map_err(&failed)?;
        let range = range(object.bytes);
        if range.start > range.end || range.end > object.bytes {
            let what = format!("the range is beyond its end ({} bytes)", object.bytes);
            return Err(failed(Failure::new(ErrorKind::Permanent, what)));
        }
        let machine = Arc::clone(&self.machine);
        Ok(Reader::new(machine, path, &object, range))
    }
}

#[async_trait::async_trait]
impl Target for Sftp {
    fn label(&self) -> &str {
        &self.label
    }

    fn may_be_unmounted(&self) -> bool {
        true
    }

    /// A listing asks for each folder by itself.
    fn looks_in_part(&self, folders: usize, _objects: usize) -> bool {
        folders * 2 <= super::FOLDERS_OF_ARCHIVES
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, TargetError> {
        let folder = check_prefix(prefix)
            .map_err(|e| TargetError::new("list", prefix, &self.label, ErrorKind::Permanent, e))?;
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
        let put = Put {
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

    /// `false`: it was not there.
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
