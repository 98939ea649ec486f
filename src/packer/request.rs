//! What the packer is asked to do, and what it returns.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::base::ids::{Hash, HostName, ObjectKey};
use crate::base::sqlite::Depth;
use crate::format::archive_table::ArchiveRow;
use crate::format::index::Skipped;
use crate::format::known::Known;
use crate::format::manifest::Manifest;
use crate::format::receipt::ReceiptKey;
use crate::format::signature::Signer;
use crate::keys::recipients::Recipients;
use crate::state::catalog::{Catalog, CatalogArchive};
use crate::state::figures::Figures;
use crate::state::staged_snapshot::StagedSnapshot;

/// How the packer works.
#[derive(Debug, Clone)]
pub struct PackOptions {
    /// Bytes of tar stream after which an archive is closed.
    pub archive_bytes: u64,
    /// zstd level.
    pub level: i32,
    /// Number of compressing threads.
    pub threads: usize,
    /// How deep the databases of live trees are checked. With [`Depth::Indexes`] those that look
    /// unchanged are read and checked again, too.
    pub check: Depth,
}

impl Default for PackOptions {
    fn default() -> Self {
        Self {
            archive_bytes: 64 << 20,
            level: 3,
            threads: std::thread::available_parallelism().map_or(2, usize::from),
            check: Depth::Structure,
        }
    }
}

/// The new snapshot's position in its host's history.
#[derive(Debug, Clone)]
pub struct Lineage {
    /// The new snapshot's sequence.
    pub sequence: u64,
    /// Core hashes of its parents.
    pub parents: Vec<Hash>,
    /// Earlier snapshots that are live, in order.
    pub known: Vec<Known>,
    /// Names of the prune marks that were followed.
    pub marks_seen: Vec<String>,
    /// Whether every target has the snapshot before this one, and so the pages that it names.
    pub before_is_everywhere: bool,
}

/// One snapshot to pack.
pub struct PackRequest<'a> {
    /// The host.
    pub host: &'a HostName,
    /// The snapshot.
    pub snapshot: &'a StagedSnapshot,
    /// Recipients of new archives.
    pub recipients: Arc<Recipients>,
    /// Signs the manifest.
    pub signer: &'a Signer,
    /// OpenSSH public key that may sign from this snapshot on as well; `None` if there is none.
    pub next_signer: Option<String>,
    /// The snapshot's position in the history.
    pub lineage: Lineage,
    /// The machine's salted id.
    pub machine: String,
    /// When the next push is due; `None` without a schedule.
    pub next_by: Option<DateTime<Utc>>,
    /// Archives that may be reused: sealed to today's recipients, and on every target or in the
    /// spool.
    pub usable: Vec<CatalogArchive>,
    /// The catalog's numbers of the archives from which `usable` was chosen; the others were not
    /// looked at. `None`: it was chosen from all.
    pub chosen_from: Option<HashSet<i64>>,
    /// How to work.
    pub options: PackOptions,
    /// The state directory, for the cache of the last snapshot and for temporary files.
    pub state: PathBuf,
}

/// Called with each archive as soon as it is durable. May wait; its error stops the packing.
pub type OnSealed<'a> =
    dyn FnMut(&ArchiveRow) -> Result<(), Box<dyn std::error::Error + Send + Sync>> + 'a;

/// Looks at the archives that were not looked at yet, and returns all archives that may be reused.
/// Called at most once.
pub type LookAtRest<'a> = dyn FnMut(&Catalog) -> LookResult + 'a;

type LookResult = Result<Vec<CatalogArchive>, Box<dyn std::error::Error + Send + Sync>>;

/// A packed snapshot, whose objects are in the spool.
#[derive(Debug)]
pub struct Packed {
    /// The manifest.
    pub manifest: Manifest,
    /// Every archive that the manifest names, and its bytes.
    pub archives: Vec<(ObjectKey, u64)>,
    /// Name and bytes of the pages of earlier snapshots, and of directories of them.
    pub known: Vec<(Hash, Vec<u8>)>,
    /// Number of archives that this run made.
    pub new_archives: u64,
    /// Ciphertext bytes of those archives.
    pub new_archive_bytes: u64,
    /// Files that the snapshot lacks or holds torn.
    pub skipped: Vec<Skipped>,
    /// Figures of each source, by its path in the snapshot.
    pub figures: BTreeMap<String, Figures>,
    /// What is needed to judge receipts about the snapshot; the schema of a database that was not
    /// read now is missing.
    pub receipt_key: ReceiptKey,
    /// Remarks for the operator that are no reason to call the snapshot incomplete.
    pub notes: BTreeSet<String>,
}
