//! Reads parts of sealed archives: of a file, what is asked for, and no more of its archives than
//! that takes.

use std::collections::HashMap;
use std::io::Read as _;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::fetch::ArchiveError;
use super::open::{Identities, open_archive};
use crate::base::ids::{ArchiveId, ObjectKey};
use crate::format::index::Extent;
use crate::format::manifest::ArchiveRow;
use crate::repository::{ArchiveTable, HostFolder};

/// What a [`RangeReader`] may use.
#[derive(Debug, Clone)]
pub struct RangeReaderOptions {
    /// A directory for ciphertext that was fetched, shared with other processes. `None`: none.
    pub cache_dir: Option<PathBuf>,
    /// Most bytes in that directory.
    pub cache_bytes: u64,
    /// Most bytes of decrypted frames in memory.
    pub memory_bytes: u64,
}

/// Why a part of an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RangeError {
    /// An archive is missing, unreadable or damaged.
    #[error("archive {archive} ({key}) on {target}")]
    Archive {
        /// The archive.
        archive: ArchiveId,
        /// Its object.
        key: ObjectKey,
        /// The target's label.
        target: String,
        /// What is wrong with it.
        #[source]
        source: ArchiveError,
    },
    /// The index names an archive that the table lacks.
    #[error("archive {0} is in the index and not in the table of the snapshot")]
    NotInTable(ArchiveId),
}

/// Reads parts of the archives of one host's folder. Can be shared by threads.
pub struct RangeReader {
    folder: HostFolder,
    identities: Arc<Identities>,
    whole: Mutex<HashMap<ArchiveId, Bytes>>,
}

impl RangeReader {
    /// Returns a reader of the archives in `folder`.
    pub fn new(folder: HostFolder, identities: Arc<Identities>, _: RangeReaderOptions) -> Self {
        Self {
            folder,
            identities,
            whole: Mutex::default(),
        }
    }

    /// Reads the bytes `range` of an archive's tar stream. Every byte is authenticated.
    pub async fn read_archive(
        &self,
        row: &ArchiveRow,
        range: Range<u64>,
    ) -> Result<Bytes, RangeError> {
        let known = {
            let whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
            whole.get(&row.id).cloned()
        };
        let tar = match known {
            Some(tar) => tar,
            None => self.fetch(row).await?,
        };
        Ok(tar.slice(range.start as usize..range.end as usize))
    }

    async fn fetch(&self, row: &ArchiveRow) -> Result<Bytes, RangeError> {
        let key = row.key();
        let failed = |source| RangeError::Archive {
            archive: row.id,
            key: row.key(),
            target: self.folder.target.label().to_owned(),
            source,
        };
        let path = self.folder.key(&key);
        let sealed = self.folder.target.get(&path, row.bytes);
        let sealed = sealed
            .await
            .map_err(|error| failed(ArchiveError::Fetch(error)))?;
        let mut tar = Vec::new();
        let opened = open_archive(&sealed[..], &self.identities);
        let mut opened = opened.map_err(|error| failed(ArchiveError::Open(error)))?;
        let read = opened.read_to_end(&mut tar);
        read.map_err(|error| failed(ArchiveError::Stream(error.to_string())))?;
        let tar = Bytes::from(tar);
        let mut known = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(row.id, tar.clone());
        Ok(tar)
    }

    /// Reads the bytes `range` of the content that `extents` make, of a snapshot with this `table`.
    /// Holes are zeros. A range beyond the end is cut there.
    pub async fn read_content(
        &self,
        table: &ArchiveTable,
        extents: &[Extent],
        range: Range<u64>,
    ) -> Result<Vec<u8>, RangeError> {
        let mut content = Vec::new();
        let mut start = 0;
        for extent in extents {
            let from = range.start.clamp(start, start + extent.length) - start;
            let to = range.end.clamp(start, start + extent.length) - start;
            start += extent.length;
            if from >= to {
                continue;
            }
            let Some(archive) = extent.archive else {
                content.resize(content.len() + (to - from) as usize, 0);
                continue;
            };
            let row = table.rows.get(&archive);
            let row = row.ok_or(RangeError::NotInTable(archive))?;
            let part = extent.offset + from..extent.offset + to;
            content.extend(self.read_archive(row, part).await?);
        }
        Ok(content)
    }
}
