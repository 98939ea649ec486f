//! The signed clear-text inventory of one snapshot.
//!
//! A manifest is the commit point: two lines of JSON, the *core* and the hashes of the archive
//! table's pages (docs/format.md, 2 and 3). It names no path and no plaintext hash. Parsing checks
//! shape and self-consistency only; [`super::chain`] and [`super::signature`] decide whether to
//! believe a manifest.

use std::collections::HashSet;
use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::base::ids::{Hash, HostName, InvalidId, ObjectKey, Stamp, WriterId};
use crate::format::extent::Extent;
use crate::format::json::{json_line, parse_json};
use crate::format::known::{KNOWN_PAGES, KnownRef};

pub use crate::format::archive_table::{
    ArchiveKind, ArchiveRow, MAX_PAGE_BYTES, ROWS_PER_PAGE, TablePage, paginate, recipient_set_name,
};
pub use crate::format::json::ManifestError;
pub use crate::format::known::Known;
pub use crate::format::version::FORMAT;

/// Largest manifest that is read, in bytes.
pub const MAX_SMALL_OBJECT_BYTES: u64 = 64 << 20;
/// Largest signature of a manifest that is read, in bytes.
pub const MAX_SIGNATURE_BYTES: u64 = 64 << 10;
/// Highest sequence. Every JSON reader represents it exactly, and adding one never overflows.
pub const MAX_SEQUENCE: u64 = (1 << 53) - 1;

/// Line 1 of a manifest; field order is the format's key order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestCore {
    /// [`FORMAT`].
    pub format: u32,
    /// Features that a reader must know; a reader that lacks one refuses the manifest.
    pub requires: Vec<String>,
    /// The host, which is also the name of its folder.
    pub host: HostName,
    /// When the snapshot was taken.
    pub stamp: Stamp,
    /// 1 for the first snapshot, then one more than the highest parent's.
    pub sequence: u64,
    /// Core hashes of the parents: none for the first snapshot, several after `adopt`.
    pub parents: Vec<Hash>,
    /// The writer of new archives.
    pub writer: WriterId,
    /// Salted id of the machine, 32 hex digits.
    pub machine: String,
    /// Every earlier snapshot that the host deems live.
    pub known: KnownRef,
    /// Names of the prune marks that the packer followed.
    pub marks_seen: Vec<String>,
    /// When the next push is due; `None` without a schedule.
    pub next_by: Option<chrono::DateTime<chrono::Utc>>,
    /// Recipients of the archives that this push made.
    pub recipients: Vec<String>,
    /// Where the sealed index is.
    pub index: IndexRef,
    /// Sizes of the snapshot.
    pub totals: Totals,
    /// OpenSSH public key that may sign from this snapshot on as well; `None` if there is none.
    pub next_signer: Option<String>,
}

/// Where the sealed index is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexRef {
    /// The extents whose concatenation is the index.
    pub extents: Vec<Extent>,
    /// Size of the index in plaintext.
    pub bytes: u64,
    /// BLAKE3 of the index in plaintext; the index holds a salt, so the hash discloses nothing.
    pub blake3: Hash,
}

/// Sizes of a snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Totals {
    /// Entries of the index.
    pub entries: u64,
    /// Entries that are files.
    pub files: u64,
    /// Bytes of all files of the snapshot.
    pub bytes: u64,
    /// Bytes of file content that no earlier archive held.
    pub new_bytes: u64,
    /// Archives that the snapshot needs.
    pub archives: u64,
    /// Ciphertext bytes of those archives.
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
    /// Line 1.
    pub core: ManifestCore,
    /// SHA-256 of line 1.
    pub core_hash: Hash,
    /// SHA-256 of each page of the archive table, in row order.
    pub pages: Vec<Hash>,
    /// SHA-256 of the whole file.
    pub digest: Hash,
    /// The whole file. Empty in a [`super::chain::VerifiedSnapshot`], of which there may be
    /// thousands.
    pub bytes: Vec<u8>,
}

impl Manifest {
    /// Encodes a new manifest.
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

    /// Parses a manifest and checks that it is consistent in itself.
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
            return Err(malformed("its `requires` does not match its `known`"));
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

    /// Parses `bytes` and checks that their hash, sequence and stamp are those of `name`.
    pub fn parse_named(name: &ManifestName, bytes: &[u8]) -> Result<Self, ManifestError> {
        let content = Hash::sha256(bytes).short();
        let mismatch = |found: String| ManifestError::NameMismatch {
            promised: name.to_string(),
            found,
        };
        if content != name.hash16 {
            return Err(mismatch(format!("...-{content}")));
        }
        let manifest = Self::parse(bytes)?;
        if manifest.name() != *name {
            return Err(mismatch(manifest.name().to_string()));
        }
        Ok(manifest)
    }

    /// Returns the manifest's name, derived from its content.
    pub fn name(&self) -> ManifestName {
        ManifestName {
            sequence: self.core.sequence,
            stamp: self.core.stamp,
            hash16: self.digest.short(),
        }
    }

    /// Returns this snapshot as a later manifest's `known` lists it.
    #[doc(hidden)]
    pub fn as_known(&self) -> Known {
        Known {
            sequence: self.core.sequence,
            stamp: self.core.stamp,
            core: self.core_hash,
        }
    }
}

/// Feature in `requires` of a manifest whose index has times beyond 64 bits.
pub const WIDE_TIMES: &str = "wide-times";

/// Appends [`WIDE_TIMES`] to `requires`; the order of features is fixed.
pub fn with_wide_times(mut requires: Vec<String>) -> Vec<String> {
    requires.push(WIDE_TIMES.to_owned());
    requires
}

/// Refuses another format or an unknown feature. Runs before the keys are checked, since a later
/// format may have other keys.
fn refuse_foreign_format(core: &[u8]) -> Result<(), ManifestError> {
    #[derive(Deserialize)]
    struct FormatProbe {
        format: u32,
        requires: Vec<String>,
    }
    let probe: FormatProbe = parse_json(core)?;
    if probe.format != FORMAT {
        return Err(ManifestError::Format(probe.format));
    }
    let is_unknown = |feature: &String| feature != KNOWN_PAGES && feature != WIDE_TIMES;
    let unknown = probe.requires.into_iter().filter(is_unknown);
    let unknown: Vec<String> = unknown.collect();
    if !unknown.is_empty() {
        return Err(ManifestError::Requires(unknown.join(", ")));
    }
    Ok(())
}

/// A manifest's file name without its ending: `SSSSSSSS-STAMP-HHHHHHHHHHHHHHHH`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ManifestName {
    /// The snapshot's sequence.
    pub sequence: u64,
    /// The snapshot's stamp.
    pub stamp: Stamp,
    /// The first 16 hex digits of the SHA-256 of the file.
    pub hash16: String,
}

impl ManifestName {
    /// Returns the key of the manifest.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::manifest(self)
    }

    /// Returns the key of the manifest's signature.
    pub fn signature_key(&self) -> ObjectKey {
        ObjectKey::signature(self)
    }

    /// Returns the name in an object key such as `manifests/….json`; `None` for a signature or any
    /// other object.
    pub fn from_key(key: &str) -> Option<Self> {
        let file = key
            .strip_prefix(crate::base::ids::MANIFESTS)?
            .strip_prefix('/')?;
        file.strip_suffix(".json")?.parse().ok()
    }

    /// Parses a name whose stamp is probably the text `stamp`, already parsed to `parsed`. The
    /// catalog may hold thousands of names beside their stamps.
    pub(crate) fn parse_with(text: &str, stamp: &str, parsed: Stamp) -> Option<Self> {
        let (sequence, rest) = text.split_once('-')?;
        let hash16 = rest
            .strip_prefix(stamp)
            .and_then(|rest| rest.strip_prefix('-'));
        match hash16 {
            Some(hash16) => Self::of_parts(sequence, parsed, hash16),
            None => text.parse().ok(),
        }
    }

    /// Accepts only the form that we write. A stamp has one form by itself; a hash must be
    /// lower-case hex, and a number must have the right length.
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
