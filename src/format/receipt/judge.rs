//! Whether a receipt is believed: a pure function of what a target stores and what the judge knows.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{
    MAX_RECEIPT_BYTES, RECEIPT_FORMAT, RECEIPT_NAMESPACE, Receipt, ReceiptKind, ReceiptOutcome,
};
use crate::base::ids::{Hash, HostName, Stamp, unhex};
use crate::format::manifest::ManifestName;
use crate::format::signature::{self, SignatureError, Trust};

/// How far a drilling machine's clock may be ahead of the judge's, in seconds.
const AHEAD_SECONDS: i64 = 300;

/// A receipt as a target stores it.
#[derive(Debug, Clone)]
pub struct ReceiptFile<'a> {
    /// The name of its object.
    pub name: ManifestName,
    /// Its content.
    pub bytes: &'a [u8],
    /// The content of its signature; `None`: there is none.
    pub signature: Option<&'a [u8]>,
}

/// What the judge knows.
pub struct ReceiptContext<'a> {
    /// The host whose folder it is.
    pub host: &'a HostName,
    /// Who may sign receipts: only lines of an `allowed_signers` file can say so.
    pub trust: &'a Trust,
    /// Fingerprints of the keys that sign the host's manifests.
    pub host_signers: &'a [String],
    /// Whether the believed chain has, or had, a snapshot with this core, sequence and stamp.
    pub is_snapshot: &'a dyn Fn(&Hash, u64, Stamp) -> bool,
    /// Returns the salt in the sealed index of the snapshot with this core; `None`: the judge does
    /// not know it.
    pub salt: &'a dyn Fn(&Hash) -> Option<[u8; 32]>,
    /// The judge's time.
    pub now: DateTime<Utc>,
}

/// Whether the witness shows that the signer opened the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WitnessState {
    /// It was made with the salt in the sealed index.
    Right,
    /// The judge does not know the salt.
    NotCheckable,
}

/// A receipt that is believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgedReceipt {
    /// The receipt.
    pub receipt: Receipt,
    /// Whether its witness could be checked.
    pub witness: WitnessState,
    /// Whether the host's own key signed it, so that it proves nothing about another machine.
    pub is_by_host: bool,
}

impl JudgedReceipt {
    /// Whether it proves that the snapshot can be restored: a drill of another machine that passed.
    pub fn proves_restore(&self) -> bool {
        self.receipt.kind == ReceiptKind::Drill && self.proves_keys()
    }

    /// Whether it proves that its recipients' identities exist.
    pub fn proves_keys(&self) -> bool {
        self.receipt.outcome == ReceiptOutcome::Passed && !self.is_by_host
    }
}

/// Why a receipt is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptRefusal {
    /// It is larger than any receipt.
    #[error("it is larger than {} KiB", MAX_RECEIPT_BYTES >> 10)]
    TooLarge,
    /// It is not text.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// It is not a receipt as this program writes it.
    #[error("{0}")]
    Malformed(String),
    /// Its name does not match its content.
    #[error("its content is not that which its name promises")]
    WrongName,
    /// A newer version made it.
    #[error("a newer Sealift made it: this one does not know {0}")]
    Newer(String),
    /// It has no signature.
    #[error("it has no signature")]
    Unsigned,
    /// The signature is not of this content.
    #[error("{0}")]
    Signature(String),
    /// No line lets that key sign receipts as that principal.
    #[error("the key {fingerprint} may not sign receipts as {by}")]
    Stranger {
        /// The key.
        fingerprint: String,
        /// The principal that the receipt names.
        by: String,
    },
    /// The host's own key signed it, and no line lets it sign receipts.
    #[error("the host's own key signed it")]
    OwnSigner,
    /// It is about another host.
    #[error("it is about the host {0}")]
    OtherHost(HostName),
    /// The chain never had such a snapshot.
    #[error("this host never published the snapshot that it names")]
    UnknownSnapshot,
    /// Its times cannot be.
    #[error("its times are impossible: made for {stamp}, from {started_at} to {finished_at}")]
    Times {
        /// The snapshot's stamp.
        stamp: Stamp,
        /// When it began.
        started_at: DateTime<Utc>,
        /// When it ended.
        finished_at: DateTime<Utc>,
    },
    /// The signer did not open the snapshot.
    #[error("its witness is not of snapshot {0}: its signer did not open it")]
    Witness(u64),
    /// It says that it passed, and shows no restore.
    #[error("it says that a drill passed, and not what was restored")]
    Empty,
}

/// Judges one receipt.
pub fn judge(
    file: &ReceiptFile<'_>,
    known: &ReceiptContext<'_>,
) -> Result<JudgedReceipt, ReceiptRefusal> {
    if file.bytes.len() as u64 > MAX_RECEIPT_BYTES {
        return Err(ReceiptRefusal::TooLarge);
    }
    if std::str::from_utf8(file.bytes).is_err() {
        return Err(ReceiptRefusal::NotUtf8);
    }
    if Hash::sha256(file.bytes).short() != file.name.hash16 {
        return Err(ReceiptRefusal::WrongName);
    }
    require_known_format(file.bytes)?;
    let receipt =
        Receipt::parse(file.bytes).map_err(|error| ReceiptRefusal::Malformed(error.to_string()))?;
    if (receipt.sequence, receipt.stamp) != (file.name.sequence, file.name.stamp) {
        return Err(ReceiptRefusal::WrongName);
    }
    let is_by_host = require_signer(&receipt, file, known)?;
    if receipt.host != *known.host {
        return Err(ReceiptRefusal::OtherHost(receipt.host));
    }
    if !(known.is_snapshot)(&receipt.core, receipt.sequence, receipt.stamp) {
        return Err(ReceiptRefusal::UnknownSnapshot);
    }
    require_times(&receipt, known.now)?;
    if receipt.outcome == ReceiptOutcome::Passed
        && receipt.kind == ReceiptKind::Drill
        && receipt.restored.is_none()
    {
        return Err(ReceiptRefusal::Empty);
    }
    let witness = require_witness(&receipt, known)?;
    Ok(JudgedReceipt {
        receipt,
        witness,
        is_by_host,
    })
}

/// Refuses what a newer version made before its other fields are looked at.
fn require_known_format(bytes: &[u8]) -> Result<(), ReceiptRefusal> {
    #[derive(serde::Deserialize)]
    struct ReceiptHead {
        format: u32,
        #[serde(default)]
        requires: Vec<String>,
    }
    let Ok(head) = serde_json::from_slice::<ReceiptHead>(bytes) else {
        return Err(ReceiptRefusal::Malformed("it is no receipt".to_owned()));
    };
    if head.format != RECEIPT_FORMAT {
        return Err(ReceiptRefusal::Newer(format!("format {}", head.format)));
    }
    match head.requires.is_empty() {
        true => Ok(()),
        false => Err(ReceiptRefusal::Newer(head.requires.join(", "))),
    }
}

/// Returns whether the host's own key signed it.
fn require_signer(
    receipt: &Receipt,
    file: &ReceiptFile<'_>,
    known: &ReceiptContext<'_>,
) -> Result<bool, ReceiptRefusal> {
    let signature = file.signature.ok_or(ReceiptRefusal::Unsigned)?;
    let key = signature::verify(signature, RECEIPT_NAMESPACE, file.bytes)
        .map_err(|error: SignatureError| ReceiptRefusal::Signature(error.to_string()))?;
    let fingerprint = signature::fingerprint(&key);
    let is_by_host = known.host_signers.contains(&fingerprint);
    let principal = receipt.by.as_bytes();
    if known
        .trust
        .accepts_principal(principal, RECEIPT_NAMESPACE, &key)
    {
        return Ok(is_by_host);
    }
    Err(match is_by_host {
        true => ReceiptRefusal::OwnSigner,
        false => ReceiptRefusal::Stranger {
            fingerprint,
            by: receipt.by.clone(),
        },
    })
}

fn require_times(receipt: &Receipt, now: DateTime<Utc>) -> Result<(), ReceiptRefusal> {
    let latest = now + chrono::Duration::seconds(AHEAD_SECONDS);
    let (started, finished) = (receipt.started_at, receipt.finished_at);
    match receipt.stamp.time() <= started && started <= finished && finished <= latest {
        true => Ok(()),
        false => Err(ReceiptRefusal::Times {
            stamp: receipt.stamp,
            started_at: started,
            finished_at: finished,
        }),
    }
}

fn require_witness(
    receipt: &Receipt,
    known: &ReceiptContext<'_>,
) -> Result<WitnessState, ReceiptRefusal> {
    // What failed before the index was open has nothing to show, and proves nothing.
    if receipt.outcome != ReceiptOutcome::Passed && receipt.witness.is_empty() {
        return Ok(WitnessState::NotCheckable);
    }
    let Some(salt) = (known.salt)(&receipt.core) else {
        return Ok(WitnessState::NotCheckable);
    };
    let witness = unhex(&receipt.witness).unwrap_or_default();
    let unattested = Receipt {
        witness: String::new(),
        ..receipt.clone()
    };
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &salt);
    match ring::hmac::verify(&key, &unattested.encode(), &witness) {
        Ok(()) => Ok(WitnessState::Right),
        Err(_) => Err(ReceiptRefusal::Witness(receipt.sequence)),
    }
}
