//! The content of a restore in place: a directory in the layout of a snapshot.

mod directory;
mod fetched;
mod pushed;
mod scratch;

use std::path::PathBuf;

use super::context::FrontEnd;
use super::error::JobError;
use super::local_snapshots;
use crate::base::ids::Stamp;
use crate::base::snapshot_choice::SnapshotChoice;
use crate::config::Config;
use crate::format::restored::RestoredRecord;
use crate::producer;

pub(crate) use fetched::{FetchError, FetchRequest};
pub(crate) use pushed::{EXCHANGE, GO, Receiving, room_line};
pub(crate) use scratch::{ContentScratch, DRILL_DIRS, TREE};

/// Where the content came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ContentOrigin {
    /// A snapshot in this host's snapshots directory.
    LocalSnapshot,
    /// A directory that a restore made.
    Directory,
    /// A target, by its label.
    Target(String),
    /// The key holder's machine, which sent it.
    Pushed,
}

impl std::fmt::Display for ContentOrigin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::LocalSnapshot => f.write_str("this host's snapshots"),
            Self::Directory => f.write_str("a restored directory"),
            Self::Target(label) => write!(f, "the target {label}"),
            Self::Pushed => f.write_str("the key holder"),
        }
    }
}

/// The content of a restore in place.
pub(crate) struct InPlaceContent {
    /// The directory: `backup-metadata.json` and each source at its `to`.
    pub(crate) dir: PathBuf,
    /// The snapshot's stamp.
    pub(crate) stamp: Stamp,
    /// The host that made the snapshot. Empty: the content does not say.
    pub(crate) host: String,
    /// Where it came from.
    pub(crate) origin: ContentOrigin,
    /// The hash of each file. `None`: the content is a local snapshot, which is validated as
    /// `validate` does.
    pub(crate) record: Option<RestoredRecord>,
    /// Deletes the directory at the end. `None`: it stays.
    pub(crate) _scratch: Option<ContentScratch>,
}

impl InPlaceContent {
    /// Returns the snapshot of this host that `choice` means.
    pub(crate) fn local(
        config: &Config,
        choice: &SnapshotChoice,
        front: &dyn FrontEnd,
    ) -> Result<Self, JobError> {
        let dir = local_snapshots::find(config, choice, front)?;
        let facts = producer::facts_of(&dir);
        let Some(stamp) = facts.stamp else {
            return Err(JobError::work(format!("{} has no stamp", dir.display())));
        };
        Ok(Self {
            dir,
            stamp,
            host: facts.host.unwrap_or_default(),
            origin: ContentOrigin::LocalSnapshot,
            record: None,
            _scratch: None,
        })
    }
}
