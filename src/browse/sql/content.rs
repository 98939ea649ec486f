//! The content of a database in a snapshot, for SQLite to read in parts.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::SnapshotDatabase;
use super::error::ContentReadError;
use crate::base::sqlite::PageSource;
use crate::browse::SnapshotContent;
use crate::repository::ArchiveTable;
use crate::restore::RangeReader;
use crate::storage::Allowance;

/// A database in archives on a target.
pub struct SealedDatabase {
    reader: RangeReader,
    table: ArchiveTable,
    source: SnapshotContent,
    allowance: Arc<Allowance>,
    runtime: Runtime,
}

impl SealedDatabase {
    /// Returns the database whose content is `source`, in archives of `table`. `allowance` is that
    /// of the reader's target.
    pub fn new(
        reader: RangeReader,
        table: ArchiveTable,
        source: SnapshotContent,
        allowance: Arc<Allowance>,
        runtime: Runtime,
    ) -> Self {
        Self {
            reader,
            table,
            source,
            allowance,
            runtime,
        }
    }

    fn read(&self, range: Range<u64>, left: Duration) -> Result<Vec<u8>, ContentReadError> {
        let (extents, within) = self.source.map.part(range);
        let read = self.reader.read_content(&self.table, extents, within);
        let read = self
            .runtime
            .block_on(async { tokio::time::timeout(left, read).await });
        let target = || self.reader.folder().target.label().to_owned();
        match read {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(_)) if self.allowance.is_exceeded() => {
                Err(ContentReadError::TooMuch { target: target() })
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(ContentReadError::Late {
                target: target(),
                left,
            }),
        }
    }
}

/// A database in a snapshot directory of this host.
pub struct LocalDatabase {
    file: File,
    bytes: u64,
}

impl LocalDatabase {
    /// Returns the database in an open file.
    pub fn new(file: File) -> Result<Self, ContentReadError> {
        let meta = file.metadata().map_err(ContentReadError::File)?;
        Ok(Self {
            bytes: meta.len(),
            file,
        })
    }

    fn read(&self, range: Range<u64>) -> Result<Vec<u8>, ContentReadError> {
        let mut content = vec![0; (range.end - range.start) as usize];
        let read = self.file.read_exact_at(&mut content, range.start);
        read.map_err(ContentReadError::File)?;
        Ok(content)
    }
}

/// Reads what exists of the bytes `range`.
pub(super) fn read(
    database: &mut SnapshotDatabase,
    range: Range<u64>,
    left: Duration,
) -> Result<Vec<u8>, ContentReadError> {
    let end = range.end.min(database.bytes());
    match range.start < end {
        true => database.read(range.start..end, left),
        false => Ok(Vec::new()),
    }
}

impl PageSource for SnapshotDatabase {
    type Error = ContentReadError;

    fn bytes(&self) -> u64 {
        match self {
            Self::Sealed(sealed) => sealed.source.bytes,
            Self::Local(local) => local.bytes,
        }
    }

    fn read(&mut self, range: Range<u64>, left: Duration) -> Result<Vec<u8>, ContentReadError> {
        match self {
            Self::Sealed(sealed) => sealed.read(range, left),
            Self::Local(local) => local.read(range),
        }
    }
}
