//! What a push is asked to do, and what it reports.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::resealing::Resealing;
use crate::base::ids::{HostName, ObjectKey};
use crate::format::chain::Finding;
use crate::format::index::Skipped;
use crate::format::manifest::{ManifestName, Totals};
use crate::format::signature::{Signer, Trust};
use crate::packer::PackOptions;
use crate::packer::seal::Recipients;
use crate::state::figures::Figures;
use crate::state::staged_snapshot::StagedSnapshot;
use crate::storage::Storage;

/// A configured destination.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its name in the configuration; the catalog files its placements under it.
    pub name: String,
    /// The opened storage.
    pub target: Arc<dyn Storage>,
    /// Uploads at a time.
    pub concurrency: usize,
    /// Its credentials can neither list nor read.
    pub write_only: bool,
}

/// One push.
pub struct PushRequest<'a> {
    /// The host that the snapshot is of.
    pub host: &'a HostName,
    /// The snapshot to push.
    pub snapshot: &'a StagedSnapshot,
    /// Whom the archives are sealed to.
    pub recipients: Arc<Recipients>,
    /// Signs the manifest.
    pub signer: &'a Signer,
    /// The host's `allowed_signers` lists the signer.
    pub signer_is_listed: bool,
    /// An OpenSSH public key to announce as the next signer; `None`: nothing is announced.
    pub next_signer: Option<String>,
    /// The signers whose snapshots on the targets count as this host's.
    pub trust: Trust,
    /// Where to, in the configured order.
    pub targets: &'a [Target],
    /// When the next snapshot is due; `None`: the host keeps no schedule.
    pub next_by: Option<DateTime<Utc>>,
    /// Archive size, compression and threads.
    pub options: PackOptions,
    /// Bytes of archives that the spool may hold; `None`: half of the space that is free or its
    /// own.
    pub spool_limit: Option<u64>,
    /// Whether archives that former recipients can open may be reused.
    pub resealing: Resealing,
    /// `RECOVER.md` and its script, by key.
    pub recovery: Vec<(ObjectKey, Bytes)>,
}

/// How a target ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetState {
    /// The target has everything up to the new snapshot.
    Published,
    /// The target lacks the new snapshot, and the spool keeps it for the next run. Holds the error
    /// and its causes.
    Behind(String),
}

/// What a target answered when the push looked at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetAnswer {
    /// It was not asked: its credentials can neither list nor read.
    NotAsked,
    /// It did not answer.
    None,
    /// It answered. Holds the faults of its chain of manifests.
    Seen(Vec<Finding>),
}

/// One target's part in a push.
#[derive(Debug)]
pub struct TargetReport {
    /// The target's configured name.
    pub name: String,
    /// Its label: kind and address.
    pub label: String,
    /// How it ended.
    pub state: TargetState,
    /// What it answered before.
    pub answer: TargetAnswer,
    /// Objects that it confirmed in this push.
    pub shipped_objects: u64,
    /// Bytes of these objects.
    pub shipped_bytes: u64,
    /// Archives that were copied from another target, of these objects.
    pub copied_archives: u64,
    /// Time from the beginning of the push to the end of the target's part.
    pub took: Duration,
}

/// What came of a push.
#[derive(Debug)]
pub struct PushReport {
    /// Name of the new snapshot's manifest.
    pub manifest: ManifestName,
    /// The manifest's totals.
    pub totals: Totals,
    /// Archives that this push sealed.
    pub new_archives: u64,
    /// Ciphertext bytes of these archives.
    pub new_archive_bytes: u64,
    /// Entries that the snapshot lacks, and why.
    pub skipped: Vec<Skipped>,
    /// The figures of each source, by its path in the snapshot.
    pub figures: BTreeMap<String, Figures>,
    /// One report per target, in the configured order.
    pub targets: Vec<TargetReport>,
    /// For the operator; they change no exit code.
    pub notes: Vec<String>,
    /// For the operator; with any of them the run exits with code 3.
    pub warnings: Vec<String>,
}

impl PushReport {
    /// Returns whether at least one target has the new snapshot.
    pub fn is_published_somewhere(&self) -> bool {
        let published = |target: &TargetReport| target.state == TargetState::Published;
        self.targets.iter().any(published)
    }

    /// Returns whether every target has the whole snapshot, and there is nothing to warn of.
    pub fn is_complete(&self) -> bool {
        let published = |target: &TargetReport| target.state == TargetState::Published;
        self.targets.iter().all(published) && self.skipped.is_empty() && self.warnings.is_empty()
    }
}
