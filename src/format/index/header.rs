//! The lines of an index before its entries: the header, and the archives that the entries need.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Skipped;
use crate::base::ids::{ArchiveId, Hash, HostName, Stamp};

/// Line 1 of an index; field order is the format's key order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexHeader {
    /// [`FORMAT`](crate::format::version::FORMAT).
    pub format: u32,
    /// As in the manifest.
    pub host: HostName,
    /// As in the manifest.
    pub stamp: Stamp,
    /// 32 random bytes in hex, so that the index's hash in the manifest discloses nothing.
    pub salt: String,
    /// The snapshot's tags, from `--tag`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The snapshot's note, from `--note`; `None` without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Where each part of the snapshot came from.
    pub sources: Vec<SourceRecord>,
    /// The outcome of validating the snapshot.
    pub validation: ValidationRecord,
    /// The snapshot's databases, by path.
    pub databases: Vec<DatabaseRecord>,
    /// Files that the snapshot lacks or holds torn.
    pub skipped: Vec<Skipped>,
    /// Number of archive lines that follow.
    pub archives: u64,
    /// Number of entry lines that follow the archives.
    pub entries: u64,
}

/// Where one part of the snapshot came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceRecord {
    /// The kind of the source, such as `sqlite` or `tree`.
    pub kind: String,
    /// The absolute path on the host, or the command line; lossy where not UTF-8.
    pub path: String,
    /// Path within the snapshot.
    pub to: String,
    /// Whether the producer copied it into a staged directory; else the packer read it in place.
    pub stage: bool,
}

/// The outcome of validating a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidationRecord {
    /// Whether the snapshot passed.
    pub valid: bool,
    /// When it was validated.
    pub checked_at: chrono::DateTime<chrono::Utc>,
    /// Error codes, as the AtoCore procedure names them.
    pub errors: Vec<String>,
}

/// Facts about a database that the restored one must match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseRecord {
    /// The entry's path; lossy where not UTF-8.
    pub path: String,
    /// Bytes of a page.
    pub page_size: u32,
    /// Number of rows of each table that holds rows itself (no virtual tables).
    pub tables: BTreeMap<String, u64>,
    /// `ok`, or the first line that SQLite's check printed.
    pub integrity: String,
    /// SHA-256 of the names of its tables and their columns, for this host's own memory: no index
    /// holds it. `None`: this record was read.
    #[serde(skip)]
    pub schema: Option<Hash>,
}

impl DatabaseRecord {
    /// Whether a restored copy can be compared with it: the database was sound, and the path is not
    /// lossy, so that it names one file.
    pub fn can_be_checked(&self) -> bool {
        self.integrity == "ok" && !self.path.contains(char::REPLACEMENT_CHARACTER)
    }
}

/// An archive line: the identity of one archive's tar stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchiveStream {
    /// The archive.
    pub archive: ArchiveId,
    /// Bytes of its uncompressed tar stream.
    pub tar_bytes: u64,
    /// BLAKE3 of its uncompressed tar stream.
    pub tar_blake3: Hash,
}
