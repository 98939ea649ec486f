//! Reads an object in pieces, many of them concurrently.

use std::io::SeekFrom;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::future::join;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use openssh_sftp_client::file::File;
use openssh_sftp_client::metadata::MetaData;
use tokio::io::AsyncSeekExt as _;

use super::connection::Connection;
use super::session::Machine;
use crate::storage::error::ErrorKind;
use crate::storage::process_failure::ProcessFailure;
use crate::storage::retry::Retries;
use crate::storage::size_error::SizeError;
use crate::storage::throttle::{self, Throttle};

/// An opened object.
pub(super) struct Object {
    connection: Arc<Connection>,
    file: File,
    pub bytes: u64,
}

/// Returns the size of a file; anything else is an error.
fn size(metadata: &MetaData) -> Result<u64, ProcessFailure> {
    let is_file = metadata.file_type().is_none_or(|kind| kind.is_file());
    let size = metadata.len().filter(|_| is_file);
    size.ok_or_else(|| ProcessFailure::new(ErrorKind::Permanent, "it is not a file"))
}

/// Opens an object.
pub(super) async fn open(
    connection: Arc<Connection>,
    path: String,
) -> Result<Object, ProcessFailure> {
    let mut file = connection.ask(connection.client.open(path)).await?;
    let metadata = connection.ask(file.metadata()).await?;
    Ok(Object {
        connection,
        file,
        bytes: size(&metadata)?,
    })
}

/// Reads a small object whole. Most arrive together with the answer that reports their size.
pub(super) async fn whole(
    machine: &Machine,
    connection: Arc<Connection>,
    path: String,
    limit: u64,
) -> Result<Bytes, ProcessFailure> {
    let mut file = connection.ask(connection.client.open(path)).await?;
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let wanted = wanted.min(connection.read_bytes.get()).max(1);
    let start = read_once(&connection, file.clone(), 0, wanted);
    let (metadata, start) = join(connection.ask(file.metadata()), start).await;
    let bytes = size(&metadata?)?;
    let start = start?;
    throttle::wait(machine.limits.download.as_deref(), start.len()).await;
    if bytes > limit {
        let what = SizeError::TooLarge { bytes, limit }.to_string();
        return Err(ProcessFailure::new(ErrorKind::Permanent, what));
    }
    if start.len() as u64 >= bytes {
        return Ok(start.freeze());
    }
    let object = Object {
        connection,
        file,
        bytes,
    };
    let rest = start.len() as u64..bytes;
    let rest = object.pieces(rest, &machine.limits.download);
    let whole = rest.try_fold(start, |mut whole, piece| async move {
        whole.extend_from_slice(&piece);
        Ok(whole)
    });
    Ok(whole.await?.freeze())
}

impl Object {
    /// Streams the bytes of `range`, which must be within the object.
    fn pieces(
        &self,
        range: Range<u64>,
        limit: &Option<Arc<Throttle>>,
    ) -> BoxStream<'static, Result<Bytes, ProcessFailure>> {
        let limit = limit.clone();
        let (connection, file) = (Arc::clone(&self.connection), self.file.clone());
        let at_once = connection.read_bytes.at_once();
        let piece_bytes = connection.read_bytes.get();
        let starts = range.clone().step_by(piece_bytes);
        let turns = futures::stream::iter(starts).then(move |at| {
            let limit = limit.clone();
            async move {
                let left = usize::try_from(range.end - at).unwrap_or(usize::MAX);
                let length = left.min(piece_bytes);
                throttle::wait(limit.as_deref(), length).await;
                (at, length)
            }
        });
        turns
            .map(move |(at, length)| read_piece(Arc::clone(&connection), file.clone(), at, length))
            .buffered(at_once)
            .boxed()
    }
}

/// Reads `length` bytes from `at`, in as many requests as the server needs.
async fn read_piece(
    connection: Arc<Connection>,
    file: File,
    at: u64,
    length: usize,
) -> Result<Bytes, ProcessFailure> {
    let mut piece = BytesMut::new();
    while piece.len() < length {
        let (at, left) = (at + piece.len() as u64, length - piece.len());
        let got = read_once(&connection, file.clone(), at, left).await?;
        match got.len() {
            0 => {
                let what = format!("it ends after {at} bytes, too early");
                return Err(ProcessFailure::new(ErrorKind::Permanent, what));
            }
            got if got < left => connection.read_bytes.learn(got),
            _ => {}
        }
        match piece.is_empty() {
            true => piece = got,
            false => piece.extend_from_slice(&got),
        }
    }
    Ok(piece.freeze())
}

/// Returns what one request brings of `length` bytes from `at`: nothing only at the object's end.
async fn read_once(
    connection: &Connection,
    mut file: File,
    at: u64,
    length: usize,
) -> Result<BytesMut, ProcessFailure> {
    // Does not wait, and fails only beyond 2^63.
    let sought = file.seek(SeekFrom::Start(at)).await;
    sought.map_err(|error| ProcessFailure::new(ErrorKind::Permanent, error.to_string()))?;
    let most = u32::try_from(length).unwrap_or(u32::MAX);
    let read = file.read(most, BytesMut::with_capacity(length));
    let got = connection.ask(read).await?.unwrap_or_default();
    match got.len() <= length {
        true => Ok(got),
        false => {
            let what = "the server sends more than was requested";
            Err(ProcessFailure::new(ErrorKind::Permanent, what))
        }
    }
}

/// Reads an object over connections that break: continues where the last one broke off.
pub(super) struct ObjectReader {
    machine: Arc<Machine>,
    path: String,
    /// Size of the object when it was opened first.
    bytes: u64,
    /// Bytes that are still to come.
    rest: Range<u64>,
    /// The current stream. `None`: its connection broke.
    pieces: Option<BoxStream<'static, Result<Bytes, ProcessFailure>>>,
    retries: Option<Retries>,
}

impl ObjectReader {
    pub(super) fn new(
        machine: Arc<Machine>,
        path: String,
        object: &Object,
        rest: Range<u64>,
    ) -> Self {
        let mut reader = Self {
            machine,
            path,
            bytes: object.bytes,
            rest,
            pieces: None,
            retries: None,
        };
        reader.begin(object);
        reader
    }

    fn begin(&mut self, object: &Object) {
        let pieces = object.pieces(self.rest.clone(), &self.machine.limits.download);
        self.pieces = Some(pieces);
    }

    /// Returns the next piece. `None`: the range is complete.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ProcessFailure> {
        while !self.rest.is_empty() {
            let failure = match self.try_next().await {
                Ok(piece) => {
                    self.rest.start += piece.len() as u64;
                    self.retries = None;
                    return Ok(Some(piece));
                }
                Err(failure) => failure,
            };
            self.pieces = None;
            let deadlines = &self.machine.deadlines;
            let retries = self.retries.get_or_insert_with(|| deadlines.retries());
            if !retries.another(&failure).await {
                return Err(retries.described(failure));
            }
        }
        Ok(None)
    }

    async fn try_next(&mut self) -> Result<Bytes, ProcessFailure> {
        if self.pieces.is_none() {
            let (connection, _) = self.machine.connection().await?;
            let object = open(connection, self.path.clone()).await?;
            if object.bytes != self.bytes {
                let what = format!("it had {} bytes, and now {}", self.bytes, object.bytes);
                return Err(ProcessFailure::new(ErrorKind::Permanent, what));
            }
            self.begin(&object);
        }
        let next = match &mut self.pieces {
            Some(pieces) => pieces.next().await,
            None => None,
        };
        next.unwrap_or_else(|| {
            let what = format!("it ends after {} bytes, too early", self.rest.start);
            Err(ProcessFailure::new(ErrorKind::Permanent, what))
        })
    }
}
