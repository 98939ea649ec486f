//! Makes the tree: content, verification, links, metadata, and only then its name. The mirror of
//! `pack`.
//!
//! Everything happens in a [`staging`] directory beside the destination. Content is written and
//! verified first, with the check of each database. Then links are made (no path below leads
//! through one), then metadata is set, directories last and deepest first. When all of it is on
//! disk, one rename puts it in place. A failure before that leaves the destination as it was.

mod access_list;
mod content;
mod databases;
mod destination;
mod early_flush;
mod inside;
mod kept;
mod metadata;
mod record;
mod staging;
mod tree;
mod unpack;
mod verify_pool;

pub(crate) use access_list::mode_without;
pub(super) use destination::Destination;
pub use destination::DestinationError;
pub use inside::Resumed;
pub use kept::{Aspect, NotKept};
pub use staging::StagingError;
pub(crate) use unpack::{UnpackError, Unpacked, read_record, unpack};

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fetch::Sink;
use super::plan::{ArchiveJob, DatabaseCheck};
use crate::base::ids::Stamp;
use crate::base::openat::Dir;
use crate::format::index::{EntryList, EntryType, IndexHeader};
use crate::format::restored::{RESTORED, RestoredFrom};
use content::Content;
use databases::DatabaseChecks;
use metadata::{Problems, Restorer};
use staging::Staging;
use verify_pool::{Complete, VerifyPool};

/// Why a tree could not be made or put in its place.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The staging directory could not be made, or not put in its place.
    #[error("cannot prepare or finish the destination")]
    Staging(#[from] StagingError),
    /// An entry could not be made.
    #[error("cannot make {path:?}")]
    Make {
        /// The entry's path.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The disk did not take the tree.
    #[error("cannot write the restored tree to disk")]
    Sync(#[source] io::Error),
    /// Restored databases differ from what the snapshot says of them: `path: how`.
    #[error("restored databases are not as the snapshot describes them: {}", .0.join("; "))]
    Databases(Vec<String>),
}

/// Finishes the restores to the directory `to` that died while they put their trees in place inside
/// it.
pub fn resume(to: &Path) -> Result<Vec<Resumed>, DestinationError> {
    let look = |source| DestinationError::Look {
        path: to.to_path_buf(),
        source,
    };
    let dir = Dir::open_trusted(to).map_err(look)?;
    inside::resume(&dir).map_err(|source| DestinationError::Resume {
        path: dir.path().to_path_buf(),
        source,
    })
}

/// A tree that is being filled. Dropped, it removes itself.
pub(super) struct Extraction {
    // This is dropped before the tree that its threads read.
    proofs: VerifyPool,
    content: Arc<Content>,
    staging: Staging,
}

/// The result of verifying the content.
pub(super) struct Proof {
    /// The files whose bytes are not as the index says, by number, and why.
    pub(super) wrong: BTreeMap<u32, String>,
    problems: Problems,
    databases: DatabaseChecks,
    /// The result of the first flush. The system reports a failed write only once.
    synced: io::Result<()>,
}

/// A tree whose content is complete. Dropped, it removes itself.
pub(super) struct Filled {
    content: Arc<Content>,
    staging: Staging,
}

/// A tree in its place. The fields are those of [`RestoreReport`](super::RestoreReport).
pub(super) struct Extracted {
    pub(super) databases: Vec<String>,
    pub(super) databases_as_sealed: Vec<String>,
    pub(super) unchecked: Vec<String>,
    pub(super) problems: Vec<String>,
    pub(super) not_kept: Vec<NotKept>,
    pub(super) has_record: bool,
    pub(super) moved_aside: Option<PathBuf>,
}

impl Extraction {
    /// Makes the staging directory, the directories in it and the files that come in pieces.
    pub(super) fn begin(
        destination: Destination,
        entries: Arc<EntryList>,
        header: &IndexHeader,
        check: DatabaseCheck,
    ) -> Result<Self, ExtractError> {
        let staging = Staging::create(destination)?;
        let complete = Complete::new();
        let tree = staging.tree().clone();
        let content = Content::prepare(tree, entries, header, &complete.queue)
            .map_err(|(path, source)| cannot_make(&path, source))?;
        let content = Arc::new(content);
        let path = staging.tree().path();
        let proofs = VerifyPool::start(complete, Arc::clone(&content), check)
            .map_err(staging::fail("start a thread for", path))?;
        Ok(Self {
            proofs,
            content,
            staging,
        })
    }

    /// Whether an archive holds a part of a database.
    pub(super) fn has_database(&self, job: &ArchiveJob) -> bool {
        let databases = &self.content.databases;
        !databases.is_empty()
            && job
                .pieces
                .iter()
                .any(|piece| databases.contains_key(&piece.entry))
    }

    /// Returns a sink for the pieces of one archive.
    pub(super) fn sink(&self) -> Box<dyn Sink> {
        self.content.sink(self.proofs.queue())
    }

    /// Waits until all content is verified. All of it must have been written.
    pub(super) fn prove(self) -> (Proof, Filled) {
        let (content, proofs) = (&self.content, self.proofs);
        let ((outcome, databases), synced) = std::thread::scope(|scope| {
            // The disk can flush meanwhile.
            let syncing = scope.spawn(|| content.end_early_flush().and(content.tree.sync()));
            let proven = proofs.finish();
            let stopped = |_| Err(io::Error::other("the flushing thread stopped"));
            (proven, syncing.join().unwrap_or_else(stopped))
        });
        let proof = Proof {
            wrong: outcome.wrong,
            problems: outcome.problems,
            databases,
            synced,
        };
        let filled = Filled {
            content: self.content,
            staging: self.staging,
        };
        (proof, filled)
    }
}

impl Filled {
    /// Makes everything that is not content, writes the record of what it restored `from`, and puts
    /// the tree in its place.
    pub(super) fn finish(
        self,
        proof: Proof,
        devices: bool,
        from: &RestoredFrom,
        stamp: Stamp,
    ) -> Result<Extracted, ExtractError> {
        let (tree, entries) = (&self.content.tree, &*self.content.entries);
        let restorer = Restorer::this_process();
        let mut problems = proof.problems;
        let mut left_out = Vec::new();
        for (number, entry) in entries.iter().enumerate() {
            let made = metadata::make_special(tree, &entry, devices && restorer.as_root);
            if !made.map_err(|source| cannot_make(entry.path, source))? {
                let why = "a device is made only by root and with --devices";
                problems.add(format!("{}: left out: {why}", entry.path_lossy()));
                left_out.push(number);
            }
        }
        let checked = proof.databases;
        if !checked.wrong.is_empty() {
            return Err(ExtractError::Databases(checked.wrong));
        }
        checked
            .known_bad
            .into_iter()
            .for_each(|what| problems.add(what));
        let has_record = record::write(tree, entries, &left_out, from, stamp)
            .map_err(|source| cannot_make(RESTORED.as_bytes(), source))?;
        metadata::apply_to_rest(tree, entries, &left_out, &restorer, &mut problems);
        proof.synced.map_err(ExtractError::Sync)?;
        tree.sync().map_err(ExtractError::Sync)?;
        let moved_aside = self.staging.place(stamp)?;
        Ok(Extracted {
            databases: checked.good,
            databases_as_sealed: checked.as_sealed,
            unchecked: checked.unchecked,
            problems: problems.take_list(),
            not_kept: problems.not_kept.into_list(),
            has_record,
            moved_aside,
        })
    }
}

fn cannot_make(path: &[u8], source: io::Error) -> ExtractError {
    ExtractError::Make {
        path: String::from_utf8_lossy(path).into_owned(),
        source,
    }
}

/// Returns the paths of files that changed while the snapshot was made.
pub(super) fn torn(entries: &EntryList) -> Vec<String> {
    let torn = entries
        .iter()
        .filter(|e| e.kind == EntryType::File && e.torn);
    torn.map(|entry| entry.path_lossy().into_owned()).collect()
}
