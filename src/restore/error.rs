//! Why a restore failed.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use super::cold_storage::Frozen;
use super::extract::{DestinationError, ExtractError};
use super::fetch::Damaged;
use super::plan::PlanError;
use super::wrong_identity::WrongIdentity;
use crate::base::ids::{HostName, Stamp};
use crate::format::index::IndexError;
use crate::repository::RepositoryError;

/// Archives, or files, that a message lists; the error holds all of them.
const MOST_SHOWN: usize = 20;

/// Why a restore, or the reading of an index, failed. After each of them the destination is as it
/// was.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The host's folder on the target could not be read, or its manifests cannot be trusted.
    #[error("cannot read the backup of {host}")]
    Repository {
        /// The host whose backup it is.
        host: HostName,
        /// Why.
        #[source]
        source: RepositoryError,
    },
    /// The request cannot be met by this snapshot.
    #[error("cannot plan the restore")]
    Plan(#[from] PlanError),
    /// Nothing can be restored to the destination.
    #[error("cannot restore there")]
    Destination(#[from] DestinationError),
    /// The index contradicts its manifest.
    #[error("cannot read the index of snapshot {stamp}: {what}")]
    Index {
        /// The snapshot's stamp.
        stamp: Stamp,
        /// The contradiction.
        what: String,
    },
    /// Archives that hold the index could not be read.
    #[error("cannot read the index of snapshot {stamp}: {}", on_one_line(damaged))]
    IndexArchives {
        /// The snapshot's stamp.
        stamp: Stamp,
        /// The archives, at least one.
        damaged: Vec<Damaged>,
    },
    /// None of the identities decrypts it.
    #[error(transparent)]
    WrongIdentity(WrongIdentity),
    /// This machine could not store the index.
    #[error("cannot store the index of snapshot {stamp} while it is read")]
    KeepIndex {
        /// The snapshot's stamp.
        stamp: Stamp,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The index breaks the format's rules.
    #[error("the index of snapshot {stamp} is not acceptable")]
    IndexContent {
        /// The snapshot's stamp.
        stamp: Stamp,
        /// The rule and the line.
        #[source]
        source: IndexError,
    },
    /// Archives or files are missing or damaged.
    #[error("{}", incomplete(archives, files))]
    Incomplete {
        /// The archives that could not be read. May be empty.
        archives: Vec<Damaged>,
        /// The files that cannot be restored, by path, and why.
        files: BTreeMap<String, String>,
    },
    /// This machine could not open or write the content.
    #[error("cannot make the content of {}; nothing was changed", to.display())]
    NotMade {
        /// The destination.
        to: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Some of the needed archives are in cold storage.
    #[error("{0}")]
    Frozen(Frozen),
    /// The tree could not be completed or put in its place.
    #[error("cannot build the restored tree")]
    Extract(#[from] ExtractError),
    /// A thread of this process ended early.
    #[error("the restore was stopped")]
    Stopped,
}

impl RestoreError {
    /// Returns the archives that could not be read. Empty if the error is not about archives.
    pub fn damaged(&self) -> &[Damaged] {
        match self {
            Self::IndexArchives { damaged, .. } => damaged,
            Self::Incomplete { archives, .. } => archives,
            _ => &[],
        }
    }

    /// Whether an archive is encrypted to none of the identities: another identity may open it.
    pub fn lacks_identity(&self) -> bool {
        let mut damaged = self.damaged().iter();
        matches!(self, Self::WrongIdentity(_)) || damaged.any(|one| one.error.lacks_identity())
    }
}

fn on_one_line(damaged: &[Damaged]) -> String {
    let texts: Vec<String> = damaged.iter().map(Damaged::to_string).collect();
    texts.join("; ")
}

fn incomplete(archives: &[Damaged], files: &BTreeMap<String, String>) -> String {
    let mut text = "the snapshot cannot be restored in full; nothing was changed".to_owned();
    let more = |all: usize| match all > MOST_SHOWN {
        true => format!("\n  and {} more", all - MOST_SHOWN),
        false => String::new(),
    };
    for archive in archives.iter().take(MOST_SHOWN) {
        text += &format!("\n  {archive}");
    }
    text += &more(archives.len());
    if !files.is_empty() {
        text += &format!("\n{} files are missing or damaged:", files.len());
        for (path, why) in files.iter().take(MOST_SHOWN) {
            text += &format!("\n  {path}: {why}");
        }
        text += &more(files.len());
    }
    text
}
