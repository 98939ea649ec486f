//! `restored.jsonl`: the record that a restore writes beside the restored files, so that a copy of
//! them can be verified without the target (docs/format.md, 8).
//!
//! JSON Lines: a header, one line per entry in the form of an index entry without extents, sorted
//! by raw path bytes, and a last line with the number of entries and the BLAKE3 of everything
//! before it. So a truncated or damaged record shows. It is not signed: it protects against bad
//! copies, not against a person who can write both the files and the record.

mod error;
mod reader;
mod writer;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::index::{EntryList, EntryType, name_bytes, name_text};
use crate::base::ids::{Hash, HostName, Stamp};

pub use error::RestoredError;
pub use writer::RecordWriter;

/// The name of the record in the directory that was restored.
pub const RESTORED: &str = "restored.jsonl";
/// The version of the record's form.
const VERSION: u32 = 1;

/// Line 1 of a record; field order is the key order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoredHeader {
    /// The version of the record's form, 1.
    restored: u32,
    /// The host that made the snapshot.
    pub host: HostName,
    /// The snapshot's stamp.
    pub stamp: Stamp,
    /// The snapshot's sequence number.
    pub sequence: u64,
    /// The fingerprint of the signer's key, `SHA256:…`.
    pub signer: String,
    /// The hash of the manifest's core.
    pub core: Hash,
    /// Whether the directory holds the whole snapshot.
    pub complete: bool,
    /// The chosen paths; empty if all of the snapshot was chosen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<NameText>,
    /// Entries of the snapshot that were not made: devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<NameText>,
    /// When the restore was finished.
    pub restored_at: DateTime<Utc>,
}

/// A path in raw bytes: a string, with `b64:` and base64 if it is not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct NameText(pub Vec<u8>);

impl From<NameText> for String {
    fn from(name: NameText) -> Self {
        name_text(&name.0)
    }
}

impl TryFrom<String> for NameText {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        name_bytes(text).map(Self)
    }
}

/// The snapshot of which a record is to be written.
#[derive(Debug, Clone)]
pub struct RestoredFrom {
    /// The host that made the snapshot.
    pub host: HostName,
    /// The snapshot's stamp.
    pub stamp: Stamp,
    /// The snapshot's sequence number.
    pub sequence: u64,
    /// The fingerprint of the signer's key, `SHA256:…`.
    pub signer: String,
    /// The hash of the manifest's core.
    pub core: Hash,
    /// The chosen paths; empty: everything.
    pub paths: Vec<Vec<u8>>,
}

impl RestoredHeader {
    /// Returns the header for a restore that was finished `at`, without the entries `left_out`.
    pub fn new(from: &RestoredFrom, left_out: Vec<Vec<u8>>, at: DateTime<Utc>) -> Self {
        let names = |paths: &[Vec<u8>]| paths.iter().cloned().map(NameText).collect();
        Self {
            restored: VERSION,
            host: from.host.clone(),
            stamp: from.stamp,
            sequence: from.sequence,
            signer: from.signer.clone(),
            core: from.core,
            complete: from.paths.is_empty() && left_out.is_empty(),
            paths: names(&from.paths),
            left_out: names(&left_out),
            restored_at: at,
        }
    }
}

/// The last line of a record.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RestoredEnd {
    /// Number of entry lines.
    entries: u64,
    /// BLAKE3 of all lines before this one.
    blake3: Hash,
}

/// A record that was read and is complete.
#[derive(Debug)]
pub struct RestoredRecord {
    /// Line 1.
    pub header: RestoredHeader,
    /// The entries, by path; parents come first, and a hard link comes after its file.
    pub entries: EntryList,
}

impl RestoredRecord {
    /// Returns the sum of the files' sizes; saturates.
    pub fn bytes(&self) -> u64 {
        let sizes = self.entries.iter().map(|entry| entry.size);
        sizes.fold(0, u64::saturating_add)
    }

    /// Returns the number of files.
    pub fn files(&self) -> u64 {
        let files = self.entries.iter();
        files.filter(|entry| entry.kind == EntryType::File).count() as u64
    }

    /// Returns the hash of the file at `path`, which may be a further name of it. `None`: the
    /// record lists no file there.
    pub fn hash_of(&self, path: &[u8]) -> Option<Hash> {
        let entry = self.entries.find(path)?;
        match (entry.kind, entry.target) {
            (EntryType::Hardlink, Some(first)) => self.entries.find(first)?.blake3,
            _ => entry.blake3,
        }
    }

    /// Returns whether the directory holds everything that the snapshot has at `path` and below.
    pub fn covers(&self, path: &[u8]) -> bool {
        let chosen = &self.header.paths;
        let is_chosen = chosen.is_empty() || chosen.iter().any(|one| is_within(path, &one.0));
        let mut left_out = self.header.left_out.iter();
        is_chosen && !left_out.any(|one| is_within(&one.0, path))
    }
}

/// Returns whether `path` is `above` or below it.
fn is_within(path: &[u8], above: &[u8]) -> bool {
    let rest = path.strip_prefix(above);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}
