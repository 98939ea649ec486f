//! Receipts: signed statements that a key holder opened a snapshot, on a machine that has an
//! identity.
//!
//! The receipt of a **drill** says that the whole snapshot was restored and checked; the one of a
//! **key** that an identity opened its index. Both name one snapshot by its core hash, so an old
//! receipt proves an old snapshot and nothing else. The host, which cannot open its own backups,
//! and any third machine judge them with [`judge`].

mod judge;
mod key;
#[cfg(test)]
mod tests;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::base::ids::{Hash, HostName, ObjectKey, RECEIPTS, Stamp, hex};
use crate::format::json::{ManifestError, json_line, parse_json};
use crate::format::manifest::ManifestName;
use crate::format::signature::{SignatureError, Signer};

pub use judge::{JudgedReceipt, ReceiptContext, ReceiptFile, ReceiptRefusal, WitnessState, judge};
pub use key::{ReceiptKey, Schemas, keyed_schema, salt_of};

/// SSHSIG namespace of signatures on receipts.
pub const RECEIPT_NAMESPACE: &str = "sealift-receipt";
/// Largest receipt, and largest signature of one, that is read, in bytes.
pub const MAX_RECEIPT_BYTES: u64 = 64 << 10;
/// Most receipts of one host that are read: the newest by name.
pub const MAX_RECEIPTS: usize = 200;
/// The format of receipts.
pub const RECEIPT_FORMAT: u32 = 1;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptKind {
    /// The snapshot was restored and checked.
    Drill,
    /// The snapshot's index was opened.
    Key,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptOutcome {
    /// Everything passed.
    Passed,
    /// Something did not.
    Failed,
    /// It was ended before it could show anything.
    Aborted,
}

/// The target that was read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptTarget {
    /// Its name on the machine that read it.
    pub name: String,
    /// 16 hex digits of its URL without credentials, see [`target_id`].
    pub id: String,
}

/// How long the parts took, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptTimes {
    /// Listing and reading the manifest and the index.
    pub fetch: u64,
    /// Restoring, with every hash and database check.
    pub restore: u64,
    /// The checks of the operator.
    pub checks: u64,
}

/// What was restored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoredTotals {
    /// Number of files.
    pub files: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Number of databases that passed `integrity_check` and have the rows that were sealed.
    pub databases: u64,
    /// Bytes that were fetched from the target.
    pub fetched_bytes: u64,
    /// Number of archives that were read.
    pub archives: u64,
}

/// One check of the operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptCheck {
    /// The check's name.
    pub name: String,
    /// `passed` or `failed`.
    pub outcome: ReceiptOutcome,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
}

/// A receipt; field order is the format's key order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// [`RECEIPT_FORMAT`].
    pub format: u32,
    /// What was done.
    pub kind: ReceiptKind,
    /// Features that a reader must know; an unknown one makes the receipt count as none.
    pub requires: Vec<String>,
    /// The snapshot's host.
    pub host: HostName,
    /// The snapshot's sequence.
    pub sequence: u64,
    /// The snapshot's stamp.
    pub stamp: Stamp,
    /// The snapshot's core hash.
    pub core: Hash,
    /// Name of the manifest that was read; it may be a revision.
    pub manifest: String,
    /// The target that was read.
    pub target: ReceiptTarget,
    /// The signer's principal, such as `drill@laptop`.
    pub by: String,
    /// The program, such as `sealift 0.3.0`.
    pub tool: String,
    /// The machine, hashed as in manifests.
    pub machine: String,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: DateTime<Utc>,
    /// How long the parts took.
    pub milliseconds: ReceiptTimes,
    /// How it ended.
    pub outcome: ReceiptOutcome,
    /// What was restored; `None` for a key.
    pub restored: Option<RestoredTotals>,
    /// The checks of the operator.
    pub checks: Vec<ReceiptCheck>,
    /// Codes of what failed; no paths.
    pub errors: Vec<String>,
    /// The recipients whose identities opened the snapshot there.
    pub recipients: Vec<String>,
    /// 16 hex digits of the names of tables and columns, keyed by the snapshot's salt; `None`: no
    /// database was opened.
    pub schema: Option<String>,
    /// HMAC-SHA256 of the line with an empty witness, keyed by the salt in the sealed index: hex.
    /// Empty: the snapshot could not be opened.
    pub witness: String,
}

impl Receipt {
    /// Sets the witness from the 32-byte salt of the snapshot's index.
    pub fn attest(&mut self, salt: &[u8; 32]) {
        self.witness = hex(self.tag(salt).as_ref());
    }

    /// Returns the signature and the receipt, each with its key. The signature is written first.
    pub fn sign(&self, signer: &Signer) -> Result<[(ObjectKey, Vec<u8>); 2], SignatureError> {
        let (bytes, name) = (self.encode(), self.name());
        let signature = signer.sign(RECEIPT_NAMESPACE, &bytes)?;
        Ok([
            (ObjectKey::receipt_signature(&name), signature.into_bytes()),
            (ObjectKey::receipt(&name), bytes),
        ])
    }

    /// Returns the name of its object.
    pub fn name(&self) -> ManifestName {
        ManifestName {
            sequence: self.sequence,
            stamp: self.stamp,
            hash16: Hash::sha256(&self.encode()).short(),
        }
    }

    /// Returns the name in a key such as `receipts/….json`; `None` for a signature or any other
    /// object.
    pub fn name_of(key: &str) -> Option<ManifestName> {
        let file = key.strip_prefix(RECEIPTS)?.strip_prefix('/')?;
        file.strip_suffix(".json")?.parse().ok()
    }

    /// Parses one line. A line that this program would write otherwise is refused.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let receipt: Self = parse_json(bytes)?;
        match receipt.encode() == bytes {
            true => Ok(receipt),
            false => Err(ManifestError::Malformed("it is not canonical".to_owned())),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = json_line(self);
        bytes.push(b'\n');
        bytes
    }

    fn tag(&self, salt: &[u8; 32]) -> ring::hmac::Tag {
        let unattested = Self {
            witness: String::new(),
            ..self.clone()
        };
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, salt);
        ring::hmac::sign(&key, &unattested.encode())
    }
}

/// Returns the id of a target in receipts: 16 hex digits of the SHA-256 of its URL, which has no
/// credentials, without slashes at its end.
pub fn target_id(url_without_credentials: &str) -> String {
    Hash::sha256(url_without_credentials.trim_end_matches('/').as_bytes()).short()
}
