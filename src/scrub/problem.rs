//! What can be wrong with a target, what it means, and what to do about it.

use std::fmt;

use chrono::{DateTime, Utc};

use super::Divergence;
use crate::base::ids::{Hash, ObjectKey, Stamp};
use crate::format::chain::Finding;
use crate::format::manifest::ArchiveRow;

/// The snapshots that need an object: how many, and which are the first and the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamps {
    count: u64,
    first: Stamp,
    last: Stamp,
}

impl Stamps {
    pub fn one(stamp: Stamp) -> Self {
        Self {
            count: 1,
            first: stamp,
            last: stamp,
        }
    }

    pub fn add(&mut self, stamp: Stamp) {
        self.count += 1;
        self.first = self.first.min(stamp);
        self.last = self.last.max(stamp);
    }

    /// Adds those of `others`, which are other snapshots.
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

/// An archive, and the snapshots that need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed {
    pub row: ArchiveRow,
    pub snapshots: Stamps,
}

/// Something that keeps a target from giving back what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("{0}")]
    Chain(Finding),
    #[error("the next snapshot was due by {} UTC and is not here: does the host still push?", .0.format("%Y-%m-%d %H:%M"))]
    Overdue(DateTime<Utc>),
    #[error("a page of the archive table cannot be used ({why}): {snapshots} cannot be restored")]
    Page {
        page: Hash,
        snapshots: Stamps,
        why: String,
    },
    #[error(
        "a page that tells of earlier snapshots cannot be used ({why}): {snapshots} can be restored, but whether all \
         earlier ones are here cannot be told by it"
    )]
    History {
        page: Hash,
        snapshots: Stamps,
        why: String,
    },
    #[error("the archive table of snapshot {stamp} cannot be used: {why}")]
    Table { stamp: Stamp, why: String },
    #[error("{} is missing: {} cannot be restored in full", .0.row.key(), .0.snapshots)]
    Missing(Needed),
    #[error(
        "{} has {found} bytes, its row says {}: {} cannot be restored in full",
        .needed.row.key(), .needed.row.bytes, .needed.snapshots
    )]
    Size { needed: Needed, found: u64 },
    #[error("{} is damaged ({what}): {} cannot be restored in full", .needed.row.key(), .needed.snapshots)]
    Damaged { needed: Needed, what: String },
    #[error(
        "{} was damaged when it was last read, on {}: {} cannot be restored in full",
        .needed.row.key(), .at.format("%Y-%m-%d"), .needed.snapshots
    )]
    KnownDamaged { needed: Needed, at: DateTime<Utc> },
    #[error("{key} could not be read: {why}")]
    Unread { key: ObjectKey, why: String },
    #[error("reading broke off: {0}")]
    BrokeOff(String),
    #[error("there is no {0}")]
    NotHere(String),
    #[error("it ends at sequence {head}, {least} was to be there: it was set back")]
    TooShort { head: u64, least: u64 },
    #[error(
        "snapshot {stamp} (sequence {sequence}) was published there and is gone: it was deleted, or the target set back"
    )]
    Gone { stamp: Stamp, sequence: u64 },
    #[error("{count} that this host made are not there yet (up to {newest}): it is behind")]
    Behind { count: u64, newest: Stamp },
    #[error("{0}")]
    Diverged(Divergence),
    #[error("snapshot {stamp} does not give back what it should: {what}")]
    Content { stamp: Stamp, what: String },
    #[error("snapshot {stamp} could not be restored to see: {why}")]
    NotRestored { stamp: Stamp, why: String },
}

impl Problem {
    /// The archive that is not what it should be, and could be brought from elsewhere.
    pub fn lost(&self) -> Option<&ArchiveRow> {
        match self {
            Self::Missing(needed)
            | Self::Size { needed, .. }
            | Self::Damaged { needed, .. }
            | Self::KnownDamaged { needed, .. } => Some(&needed.row),
            _ => None,
        }
    }

    /// For programs; never changes for what is said above.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Chain(Finding::Refused(..)) => "manifest_refused",
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
            Self::Diverged(Divergence::Shorter { .. }) => "set_back",
            Self::Diverged(Divergence::Parted { .. }) => "parted",
            Self::Content { .. } => "content",
            Self::NotRestored { .. } => "not_restored",
        }
    }

    /// What to do about it.
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
            Self::Content { .. } => {
                "the host sealed it so, or an archive is damaged (`sealift verify --data`): try an older snapshot, and \
                 back up again"
            }
            Self::NotRestored { .. } => "see to the cause, then verify again",
        }
    }
}
