//! The report of a restore that succeeded.

use std::path::PathBuf;

use super::extract::NotKept;
use crate::base::ids::Stamp;
use crate::format::index::Skipped;

/// What a restore did.
#[derive(Debug, Clone)]
pub struct RestoreReport {
    /// The manifest's name.
    pub snapshot: String,
    /// The snapshot's stamp.
    pub stamp: Stamp,
    /// The snapshot's sequence number.
    pub sequence: u64,
    /// The fingerprint of the signer's key, `SHA256:…`.
    pub signer: String,
    /// The real path of the destination.
    pub to: PathBuf,
    /// Whether the destination is a new directory, which only its owner can enter.
    pub is_new: bool,
    /// Restored entries of all kinds.
    pub entries: u64,
    /// Restored files.
    pub files: u64,
    /// Sum of the restored files' sizes.
    pub bytes: u64,
    /// Ciphertext that was fetched, the index's archives included.
    pub fetched_bytes: u64,
    /// Paths of the databases that passed their checks now.
    pub databases: Vec<String>,
    /// Paths of the databases that passed their checks when they were sealed, and have the hash
    /// that they had then.
    pub databases_as_sealed: Vec<String>,
    /// `path: why`, of databases that are proven by hash, but whose check took too much time or
    /// memory.
    pub unchecked: Vec<String>,
    /// Oddities of the folder that do not forbid this restore.
    pub findings: Vec<String>,
    /// Paths that the snapshot lacks, by its own list.
    pub skipped_in_snapshot: Vec<Skipped>,
    /// Paths of files that changed while the snapshot was made.
    pub torn: Vec<String>,
    /// Problems that did no harm to content: devices that were left out, databases that were
    /// already damaged.
    pub problems: Vec<String>,
    /// What the destination did not keep: owners, attributes, times. One item per kind.
    pub not_kept: Vec<NotKept>,
    /// Whether `restored.jsonl`, the record of what was restored, was written there. It is not if
    /// the snapshot itself has an entry of that name.
    pub has_record: bool,
    /// The path of the destination's previous content. `None`: there was none.
    pub moved_aside: Option<PathBuf>,
}
