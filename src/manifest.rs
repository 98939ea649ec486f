//! The signed clear-text inventory of one snapshot, and the archive table that it names.
//!
//! A manifest is the commit point: two lines of JSON, the *core* and the hashes of the table's
//! pages (docs/format.md, 2 and 3). It names no path and no plaintext hash. Parsing here checks
//! shape and self-consistency only; whether to believe it is [`chain`]'s and [`signature`]'s work.

pub mod allowed_signers;
pub mod chain;
pub mod known;
pub mod signature;
pub mod statement;

use std::collections::{BTreeMap, HashSet};
use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::ids::{ArchiveId, Hash, HostName, InvalidId, ObjectKey, Stamp, WriterId};
use crate::index::Extent;

use known::{KNOWN_PAGES, KnownRef};

pub const FORMAT: u32 = 1;
/// A manifest beyond this is refused unread.
pub const MAX_SMALL_OBJECT_BYTES: u64 = 64 << 20;
/// The same for a page of the archive table: 64 rows, and the recipients of as many sets.
pub const MAX_PAGE_BYTES: u64 = 16 << 20;
/// The same for a manifest's signature.
pub const MAX_SIGNATURE_BYTES: u64 = 64 << 10;
/// No sequence is higher: every JSON reader has such a number exactly, and one more is never too much.
pub const MAX_SEQUENCE: u64 = (1 << 53) - 1;
pub const ROWS_PER_PAGE: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("the manifest is malformed: {0}")]
    Malformed(String),
    #[error("the manifest is of format {0}; this sealift reads format {FORMAT}: use a newer one")]
    Format(u32),
    #[error("the manifest needs features this sealift lacks ({0}): use a newer one")]
    Requires(String),
    #[error("the manifest names more pages of earlier snapshots than a reader takes")]
    TooManyKnown,
    #[error("the manifest's name promises {promised}, its content is {found}")]
    NameMismatch { promised: String, found: String },
}

/// Line 1 of a manifest; field order is the format's key order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestCore {
    pub format: u32,
    pub requires: Vec<String>,
    pub host: HostName,
    pub stamp: Stamp,
    pub sequence: u64,
    pub parents: Vec<Hash>,
    pub writer: WriterId,
    pub machine: String,
    pub known: KnownRef,
    pub marks_seen: Vec<String>,
    pub next_by: Option<chrono::DateTime<chrono::Utc>>,
    pub recipients: Vec<String>,
    pub index: IndexRef,
    pub totals: Totals,
    pub next_signer: Option<String>,
}

/// A snapshot that the host deems live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "(u64, Stamp, Hash)", into = "(u64, Stamp, Hash)")]
pub struct Known {
    pub sequence: u64,
    pub stamp: Stamp,
    pub core: Hash,
}

impl From<(u64, Stamp, Hash)> for Known {
    fn from((sequence, stamp, core): (u64, Stamp, Hash)) -> Self {
        Self {
            sequence,
            stamp,
            core,
        }
    }
}

impl From<Known> for (u64, Stamp, Hash) {
    fn from(known: Known) -> Self {
        (known.sequence, known.stamp, known.core)
    }
}

/// Where the sealed index is: its extents concatenated are `bytes` long and hash to `blake3`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexRef {
    pub extents: Vec<Extent>,
    pub bytes: u64,
    pub blake3: Hash,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Totals {
    pub entries: u64,
    pub files: u64,
    /// Bytes of all files of the snapshot.
    pub bytes: u64,
    /// Bytes of file content that no earlier archive held.
    pub new_bytes: u64,
    /// Archives that the snapshot needs, and their ciphertext bytes.
    pub archives: u64,
    pub archive_bytes: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TablesLine {
    tables: Vec<Hash>,
}

/// A parsed manifest, and the exact bytes that were signed.
#[derive(Debug, Clone)]
pub struct Manifest {
    pub core: ManifestCore,
    /// SHA-256 of line 1.
    pub core_hash: Hash,
    /// SHA-256 of each page of the archive table, in row order.
    pub pages: Vec<Hash>,
    /// SHA-256 of all of it.
    pub digest: Hash,
    /// Empty in a [`chain::Snapshot`], of which there may be thousands.
    pub bytes: Vec<u8>,
}

impl Manifest {
    pub fn new(core: ManifestCore, pages: Vec<Hash>) -> Self {
        let line = json_line(&core);
        let core_hash = Hash::sha256(&line);
        let mut bytes = line;
        bytes.push(b'\n');
        bytes.extend(json_line(&TablesLine {
            tables: pages.clone(),
        }));
        bytes.push(b'\n');
        Self {
            core,
            core_hash,
            pages,
            digest: Hash::sha256(&bytes),
            bytes,
        }
    }

    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let malformed = |what: &str| ManifestError::Malformed(what.to_owned());
        let body = bytes
            .strip_suffix(b"\n")
            .ok_or_else(|| malformed("it does not end with a newline (truncated?)"))?;
        let mut lines = body.split(|byte| *byte == b'\n');
        let (Some(first), Some(second), None) = (lines.next(), lines.next(), lines.next()) else {
            return Err(malformed("it does not have two lines"));
        };
        refuse_foreign_format(first)?;
        let core: ManifestCore = parse_json(first)?;
        let tables: TablesLine = parse_json(second)?;
        let sequences = 1..=MAX_SEQUENCE;
        if !sequences.contains(&core.sequence) {
            return Err(malformed("its sequence is out of range"));
        }
        if core.requires != core.known.requires()
            && core.requires != with_wide_times(core.known.requires())
        {
            return Err(malformed("its `requires` does not go with its `known`"));
        }
        core.known.check()?;
        let mut named = HashSet::new();
        if let Some(twice) = tables.tables.iter().find(|page| !named.insert(**page)) {
            let what = format!("it names page {twice} twice");
            return Err(ManifestError::Malformed(what));
        }
        Ok(Self {
            core_hash: Hash::sha256(first),
            core,
            pages: tables.tables,
            digest: Hash::sha256(bytes),
            bytes: bytes.to_vec(),
        })
    }

    /// Parses `bytes` and requires that they are what `name` promises.
    pub fn parse_named(name: &ManifestName, bytes: &[u8]) -> Result<Self, ManifestError> {
        let content = Hash::sha256(bytes).short();
        let mismatch = |found: String| ManifestError::NameMismatch {
            promised: name.to_string(),
            found,
        };
        if content != name.hash16 {
            return Err(mismatch(format!("…-{content}")));
        }
        let manifest = Self::parse(bytes)?;
        if manifest.name() != *name {
            return Err(mismatch(manifest.name().to_string()));
        }
        Ok(manifest)
    }

    pub fn name(&self) -> ManifestName {
        ManifestName {
            sequence: self.core.sequence,
            stamp: self.core.stamp,
            hash16: self.digest.short(),
        }
    }

    /// This snapshot as a later manifest's `known` lists it.
    pub fn as_known(&self) -> Known {
        Known {
            sequence: self.core.sequence,
            stamp: self.core.stamp,
            core: self.core_hash,
        }
    }
}

/// What `requires` of a manifest says whose index has times beyond 64 bits.
pub const WIDE_TIMES: &str = "wide-times";

/// The features, in their order, with that one.
pub fn with_wide_times(mut requires: Vec<String>) -> Vec<String> {
    requires.push(WIDE_TIMES.to_owned());
    requires
}

/// A later format may have other keys: say so before complaining about the keys.
fn refuse_foreign_format(core: &[u8]) -> Result<(), ManifestError> {
    #[derive(Deserialize)]
    struct Probe {
        format: u32,
        requires: Vec<String>,
    }
    let probe: Probe = parse_json(core)?;
    if probe.format != FORMAT {
        return Err(ManifestError::Format(probe.format));
    }
    let is_unknown = |one: &String| one != KNOWN_PAGES && one != WIDE_TIMES;
    let unknown = probe.requires.into_iter().filter(is_unknown);
    let unknown: Vec<String> = unknown.collect();
    if !unknown.is_empty() {
        return Err(ManifestError::Requires(unknown.join(", ")));
    }
    Ok(())
}

fn parse_json<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, ManifestError> {
    serde_json::from_slice(line).map_err(|e| ManifestError::Malformed(e.to_string()))
}

/// Our own types always serialize: no map with odd keys, no failing writer.
pub(crate) fn json_line<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// `SSSSSSSS-STAMP-HHHHHHHHHHHHHHHH`: what a manifest's file name promises.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ManifestName {
    pub sequence: u64,
    pub stamp: Stamp,
    /// The first 16 hex digits of the SHA-256 of the file.
    pub hash16: String,
}

impl ManifestName {
    pub fn key(&self) -> ObjectKey {
        ObjectKey::manifest(self)
    }

    pub fn signature_key(&self) -> ObjectKey {
        ObjectKey::signature(self)
    }

    /// The name in an object key such as `manifests/….json`; `None` for signatures and strangers.
    pub fn from_key(key: &str) -> Option<Self> {
        let file = key.strip_prefix(crate::ids::MANIFESTS)?.strip_prefix('/')?;
        file.strip_suffix(".json")?.parse().ok()
    }
}

impl ManifestName {
    /// Parses a name whose stamp is most likely `stamp`, which is read as `parsed`: there may be thousands.
    pub fn parse_with(text: &str, stamp: &str, parsed: Stamp) -> Option<Self> {
        let (sequence, rest) = text.split_once('-')?;
        match rest
            .strip_prefix(stamp)
            .and_then(|rest| rest.strip_prefix('-'))
        {
            Some(hash16) => Self::of_parts(sequence, parsed, hash16),
            None => text.parse().ok(),
        }
    }

    /// Exactly what we would write: a stamp is by itself, a hash if it is hex, a number by its length.
    fn of_parts(sequence: &str, stamp: Stamp, hash16: &str) -> Option<Self> {
        let is_digits = sequence.bytes().all(|byte| byte.is_ascii_digit());
        let is_padded = sequence.len() == 8 || (sequence.len() > 8 && !sequence.starts_with('0'));
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let hash_ok = hash16.len() == 16 && hash16.bytes().all(is_hex);
        (hash_ok && is_digits && is_padded).then_some(())?;
        Some(Self {
            sequence: sequence.parse().ok()?,
            stamp,
            hash16: hash16.to_owned(),
        })
    }
}

impl fmt::Display for ManifestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08}-{}-{}", self.sequence, self.stamp, self.hash16)
    }
}

impl FromStr for ManifestName {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let wrong = || InvalidId {
            what: "a manifest's name",
            text: text.chars().take(120).collect(),
        };
        let mut parts = text.split('-');
        let (Some(sequence), Some(stamp), Some(hash16), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong());
        };
        let stamp = stamp.parse().map_err(|_| wrong())?;
        Self::of_parts(sequence, stamp, hash16).ok_or_else(wrong)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ArchiveKind {
    Data,
    Index,
}

/// One archive, as the table states it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "RowTuple", into = "RowTuple")]
pub struct ArchiveRow {
    pub id: ArchiveId,
    pub kind: ArchiveKind,
    /// Of the ciphertext; the object's name.
    pub blake3: Hash,
    /// Of the ciphertext.
    pub sha256: Hash,
    /// Of the ciphertext.
    pub bytes: u64,
    /// Key of the page's recipient sets.
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
    pub fn key(&self) -> ObjectKey {
        ObjectKey::archive(&self.blake3)
    }
}

/// The name of a set of recipients: the first 16 hex digits of the SHA-256 of the sorted list.
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
    pub sets: BTreeMap<String, Vec<String>>,
    pub rows: Vec<ArchiveRow>,
}

impl TablePage {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = json_line(self);
        bytes.push(b'\n');
        bytes
    }

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
/// of its own archives comes or goes. `sets` gives the members of every recipient set named.
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
