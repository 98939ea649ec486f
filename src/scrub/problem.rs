//! The problems that a target can have, their consequences, and the next step for each.

use std::fmt;

use chrono::{DateTime, Utc};

use super::compare_targets::Divergence;
use crate::base::ids::{Hash, ObjectKey, Stamp};
use crate::format::chain::{Finding, SignerChange};
use crate::format::manifest::ArchiveRow;

/// The snapshots that need an object: their number, the first and the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamps {
    count: u64,
    first: Stamp,
    last: Stamp,
}

impl Stamps {
    /// Returns the stamps of one snapshot.
    pub fn one(stamp: Stamp) -> Self {
        Self {
            count: 1,
            first: stamp,
            last: stamp,
        }
    }

    /// Adds a snapshot that is not among them.
    pub fn add(&mut self, stamp: Stamp) {
        self.count += 1;
        self.first = self.first.min(stamp);
        self.last = self.last.max(stamp);
    }

    /// Adds the snapshots of `others`, none of which is among them.
    pub fn join(&mut self, others: Self) {
        self.count += others.count;
        self.first = self.first.min(others.first);
        self.last = self.last.max(others.last);
    }
}

impl fmt::Display for Stamps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.first, self.last);
        match self.count {
            1 => write!(f, "snapshot {first}"),
            n => write!(f, "{n} snapshots ({first} to {last})"),
        }
    }
}

/// An archive and the snapshots that need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed {
    /// The archive's row, which the host signed.
    pub row: ArchiveRow,
    /// The snapshots whose tables name it.
    pub snapshots: Stamps,
}

/// A reason why a target may not give back every snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The chain of manifests is not sound.
    #[error("{0}")]
    Chain(Finding),
    /// The host did not push in time. Holds the time that its last manifest announced.
    #[error("the next snapshot was due by {} UTC and is not here: does the host still push?", .0.format("%Y-%m-%d %H:%M"))]
    Overdue(DateTime<Utc>),
    /// A page of the archive table is missing or damaged.
    #[error("a page of the archive table cannot be used ({why}): {snapshots} cannot be restored")]
    Page {
        /// The page's name.
        page: Hash,
        /// The snapshots that need it.
        snapshots: Stamps,
        /// The error and its causes.
        why: String,
    },
    /// A page of earlier snapshots, or a directory of such pages, is missing or damaged.
    #[error(
        "a page that lists earlier snapshots cannot be used ({why}): {snapshots} can be restored, but it cannot show \
         whether all earlier ones are here"
    )]
    History {
        /// The page's or directory's name.
        page: Hash,
        /// The snapshots that name it.
        snapshots: Stamps,
        /// The error and its causes.
        why: String,
    },
    /// The pages of one snapshot's table contradict each other.
    #[error("the archive table of snapshot {stamp} cannot be used: {why}")]
    Table {
        /// The snapshot.
        stamp: Stamp,
        /// The contradiction.
        why: String,
    },
    /// An archive is not there.
    #[error("{} is missing: {} cannot be restored in full", .0.row.key(), .0.snapshots)]
    Missing(Needed),
    /// An archive has another size than its row says.
    #[error(
        "{} has {found} bytes, its row says {}: {} cannot be restored in full",
        .needed.row.key(), .needed.row.bytes, .needed.snapshots
    )]
    Size {
        /// The archive.
        needed: Needed,
        /// Its size on the target.
        found: u64,
    },
    /// An archive was read and is not that of its row.
    #[error("{} is damaged ({what}): {} cannot be restored in full", .needed.row.key(), .needed.snapshots)]
    Damaged {
        /// The archive.
        needed: Needed,
        /// How it differs.
        what: String,
    },
    /// An earlier reading found an archive damaged, and this one did not read it.
    #[error(
        "{} was damaged when it was last read, on {}: {} cannot be restored in full",
        .needed.row.key(), .at.format("%Y-%m-%d"), .needed.snapshots
    )]
    KnownDamaged {
        /// The archive.
        needed: Needed,
        /// When it was read.
        at: DateTime<Utc>,
    },
    /// An archive could not be read, so it is unknown whether it is whole.
    #[error("{key} could not be read: {why}")]
    Unread {
        /// The archive.
        key: ObjectKey,
        /// The error and its causes.
        why: String,
    },
    /// The target failed while archives were read. Holds the error and its causes.
    #[error("reading broke off: {0}")]
    BrokeOff(String),
    /// The caller named a snapshot that is not there.
    #[error("there is no {0}")]
    NotHere(String),
    /// The newest snapshot is older than the caller knows it to be.
    #[error("it ends at sequence {head}, {least} should be there: it was set back")]
    TooShort {
        /// The highest sequence there.
        head: u64,
        /// The sequence that the caller expects.
        least: u64,
    },
    /// A snapshot that this host published is gone, and no tombstone explains it.
    #[error(
        "snapshot {stamp} (sequence {sequence}) was published there and is gone: it was deleted, or the target set back"
    )]
    Gone {
        /// The snapshot.
        stamp: Stamp,
        /// Its sequence.
        sequence: u64,
    },
    /// The target waits for snapshots of this host.
    #[error("{count} that this host made are not there yet (up to {newest}): it is behind")]
    Behind {
        /// How many.
        count: u64,
        /// The newest of them.
        newest: Stamp,
    },
    /// Readers who trust the signer of the oldest snapshot refuse the newest.
    #[error(
        "readers who trust only the signer {} refuse the newest snapshot: nothing introduces its signer, {}",
        .0.pinned, .0.signer
    )]
    SignerChange(SignerChange),
    /// Another target has another history.
    #[error("{0}")]
    Diverged(Divergence),
    /// A test restore showed that the snapshot's content is not what its index says.
    #[error("snapshot {stamp} does not give back what it should: {what}")]
    Content {
        /// The snapshot.
        stamp: Stamp,
        /// The error and its causes.
        what: String,
    },
    /// A test restore failed for a reason that is not the snapshot's.
    #[error("snapshot {stamp} could not be restored for a test: {why}")]
    NotRestored {
        /// The snapshot.
        stamp: Stamp,
        /// The error and its causes.
        why: String,
    },
}

impl Problem {
    /// Returns the archive that is missing or damaged, and that another target may have.
    pub fn lost(&self) -> Option<&ArchiveRow> {
        match self {
            Self::Missing(needed)
            | Self::Size { needed, .. }
            | Self::Damaged { needed, .. }
            | Self::KnownDamaged { needed, .. } => Some(&needed.row),
            _ => None,
        }
    }

    /// Returns the name of the problem in JSON. It never changes.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Chain(Finding::Refused(..) | Finding::Stranger(_)) => "manifest_refused",
            Self::Chain(Finding::Fork { .. }) => "fork",
            Self::Chain(Finding::Missing(_)) => "manifest_missing",
            Self::Chain(Finding::Lineage { .. }) => "lineage",
            Self::Chain(Finding::History(..)) | Self::History { .. } => "history",
            Self::Overdue(_) => "overdue",
            Self::Page { .. } => "page",
            Self::Table { .. } => "table",
            Self::Missing(_) => "archive_missing",
            Self::Size { .. } => "archive_size",
            Self::Damaged { .. } | Self::KnownDamaged { .. } => "archive_damaged",
            Self::Unread { .. } => "archive_unread",
            Self::BrokeOff(_) => "broke_off",
            Self::NotHere(_) => "snapshot_unknown",
            Self::TooShort { .. } => "too_short",
            Self::Gone { .. } => "snapshot_gone",
            Self::Behind { .. } => "behind",
            Self::SignerChange(_) => "signer_change",
            Self::Diverged(Divergence::Shorter { .. }) => "set_back",
            Self::Diverged(Divergence::Parted { .. }) => "parted",
            Self::Content { .. } => "content",
            Self::NotRestored { .. } => "not_restored",
        }
    }

    /// Returns the next step for the operator.
    pub fn next(&self) -> &'static str {
        match self {
            Self::Page { .. }
            | Self::History { .. }
            | Self::Chain(Finding::History(..))
            | Self::Missing(_)
            | Self::Size { .. }
            | Self::Damaged { .. }
            | Self::KnownDamaged { .. } => {
                "`sealift verify --repair` brings it from another target that has it whole, or from the spool"
            }
            Self::Chain(Finding::Stranger(manifests)) => manifests.next(),
            Self::Chain(Finding::Refused(..)) => {
                "if it was damaged, `sealift verify --repair` brings it from another target; if not, see who wrote it. \
                 Other snapshots are not affected"
            }
            Self::Chain(Finding::Fork { .. }) | Self::Diverged(Divergence::Parted { .. }) => {
                "two machines push under one name: stop one of them, then `sealift adopt` on the one that stays"
            }
            Self::Chain(Finding::Missing(_)) | Self::Gone { .. } | Self::TooShort { .. } => {
                "see who can delete there; `sealift sync OTHER THIS` brings back what another target has"
            }
            Self::Diverged(Divergence::Shorter { .. }) => {
                "if nothing is being pushed, see who can delete there; `sealift sync OTHER THIS` brings back what is missing"
            }
            Self::Chain(Finding::Lineage { .. }) | Self::Table { .. } => {
                "do not restore from it before you know who wrote it; another target may tell more"
            }
            Self::Overdue(_) => "look at the host: its timer, its last run (`sealift status`)",
            Self::Unread { .. } => "see what these credentials may do, then verify again",
            Self::BrokeOff(_) => "verify again: it goes on from there",
            Self::NotHere(_) => "`sealift list` shows what there is",
            Self::Behind { .. } => "the next backup ships them",
            Self::SignerChange(_) => {
                "give every key holder the new signer's line, and add it to `allowed_signers` here (\"Rotate the signer\" in \
                 keys/README.md)"
            }
            Self::Content { .. } => {
                "the host sealed it so, or an archive is damaged (`sealift verify --data`): try an older snapshot, and \
                 back up again"
            }
            Self::NotRestored { .. } => "see to the cause, then verify again",
        }
    }
}
