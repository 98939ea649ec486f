//! The table of the archives that a snapshot needs, in pages that live in `tables/`
//! (docs/format.md, 3).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::ids::{ArchiveId, Hash, ObjectKey, WriterId};
use crate::format::json::{ManifestError, json_line, parse_json};

/// Largest page that is read, in bytes: room for 64 rows and the recipients of as many sets.
pub const MAX_PAGE_BYTES: u64 = 16 << 20;
/// Most rows of one page.
pub const ROWS_PER_PAGE: usize = 64;

/// What an archive holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ArchiveKind {
    /// Content of files.
    Data,
    /// Parts of an index.
    Index,
}

/// One archive, as the table lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "RowTuple", into = "RowTuple")]
pub struct ArchiveRow {
    /// The id by which extents name the archive.
    pub id: ArchiveId,
    /// What the archive holds.
    pub kind: ArchiveKind,
    /// BLAKE3 of the ciphertext; also the object's name.
    pub blake3: Hash,
    /// SHA-256 of the ciphertext.
    pub sha256: Hash,
    /// Size of the ciphertext.
    pub bytes: u64,
    /// Key of the archive's recipients in [`TablePage::sets`].
    pub recipient_set: String,
    /// SHA-256 of the age header and the payload nonce.
    pub head_sha256: Hash,
}

type RowTuple = (ArchiveId, ArchiveKind, Hash, Hash, u64, String, Hash);

impl From<RowTuple> for ArchiveRow {
    fn from((id, kind, blake3, sha256, bytes, recipient_set, head_sha256): RowTuple) -> Self {
        Self {
            id,
            kind,
            blake3,
            sha256,
            bytes,
            recipient_set,
            head_sha256,
        }
    }
}

impl From<ArchiveRow> for RowTuple {
    fn from(row: ArchiveRow) -> Self {
        (
            row.id,
            row.kind,
            row.blake3,
            row.sha256,
            row.bytes,
            row.recipient_set,
            row.head_sha256,
        )
    }
}

impl ArchiveRow {
    /// Returns the key of the archive's object.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::archive(&self.blake3)
    }
}

/// Returns the name of a set of recipients: the first 16 hex digits of the SHA-256 of the sorted
/// list.
pub fn recipient_set_name(recipients: &[String]) -> String {
    let mut sorted = recipients.to_vec();
    sorted.sort();
    sorted.dedup();
    Hash::sha256(sorted.join("\n").as_bytes()).short()
}

/// Up to [`ROWS_PER_PAGE`] rows of the archive table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TablePage {
    /// Members of each recipient set that a row names, by the set's [name](recipient_set_name).
    pub sets: BTreeMap<String, Vec<String>>,
    /// The archives, by id.
    pub rows: Vec<ArchiveRow>,
}

impl TablePage {
    /// Returns the page's bytes; their SHA-256 is its name.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = json_line(self);
        bytes.push(b'\n');
        bytes
    }

    /// Parses a page and checks its number of rows.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let page: Self = parse_json(bytes)?;
        if page.rows.len() > ROWS_PER_PAGE {
            return Err(ManifestError::Malformed(format!(
                "a table page has {} rows",
                page.rows.len()
            )));
        }
        Ok(page)
    }
}

/// Splits the table's rows into pages by writer and counter, so that a page changes only when one
/// of its own archives comes or goes. `sets` has the members of every recipient set that a row
/// names. Returns each page's name and bytes.
pub fn paginate(
    rows: Vec<ArchiveRow>,
    sets: &BTreeMap<String, Vec<String>>,
) -> Vec<(Hash, Vec<u8>)> {
    let mut groups: BTreeMap<(WriterId, u64), Vec<ArchiveRow>> = BTreeMap::new();
    for row in rows {
        let group = (row.id.writer, (row.id.counter - 1) / ROWS_PER_PAGE as u64);
        groups.entry(group).or_default().push(row);
    }
    groups
        .into_values()
        .map(|mut rows| {
            rows.sort_by_key(|row| row.id);
            let named = |set: &String| rows.iter().any(|row| row.recipient_set == *set);
            let sets = sets
                .iter()
                .filter(|(set, _)| named(set))
                .map(|(set, members)| (set.clone(), members.clone()))
                .collect();
            let bytes = TablePage { sets, rows }.encode();
            (Hash::sha256(&bytes), bytes)
        })
        .collect()
}
