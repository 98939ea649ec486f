//! One source in the snapshot, as it was taken.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::backup_metadata::SourceEntry;
use super::command_stderr::CommandStderr;
use super::error::SourceError;
use super::staged_files::{self, FileStamp};
use crate::base::error_chain::with_causes;
use crate::base::ids::Stamp;
use crate::config::Source;
use crate::format::index::Skipped;
use crate::state::staged_snapshot::{LeftOut, Part};

/// One source in the snapshot.
pub(super) struct TakenSource {
    /// What the metadata says of it.
    pub entry: SourceEntry,
    /// The part for the packer, of a tree that is read in place.
    pub part: Option<Part>,
    /// Paths of the files that look like databases, of a copied tree. `None`: not looked for.
    pub databases: Option<Vec<Vec<u8>>>,
    /// Paths that could not be copied, or not well, and why.
    pub skipped: Vec<Skipped>,
    /// Remarks for the operator.
    pub notes: BTreeSet<String>,
    /// A possible defect that no check can show.
    pub warning: Option<String>,
    /// Of a copied tree: what the next snapshot may link to.
    pub draft: Option<Draft>,
}

/// The record of a staged tree, which is written once the snapshot is published.
pub(super) struct Draft {
    /// The record's path.
    pub file: PathBuf,
    /// The source's place in the snapshot.
    pub to: String,
    /// The tree's real path.
    pub root: PathBuf,
    /// By path.
    pub file_stamps: Vec<(Vec<u8>, FileStamp)>,
}

impl TakenSource {
    pub(super) fn new(entry: SourceEntry) -> Self {
        Self {
            entry,
            part: None,
            databases: None,
            skipped: Vec::new(),
            notes: BTreeSet::new(),
            warning: None,
            draft: None,
        }
    }

    /// Returns a source that could not be taken.
    pub(crate) fn failed(source: &Source, error: &SourceError) -> Self {
        let mut taken = Self::new(SourceEntry::of(source));
        taken.leave_out(Vec::new(), with_causes(error), error.next(), None);
        taken
    }

    /// Removes it from the snapshot, for the reason given.
    pub(crate) fn leave_out(
        &mut self,
        errors: Vec<String>,
        cause: String,
        next: String,
        kept: Option<String>,
    ) {
        self.part = None;
        self.draft = None;
        self.entry.present = false;
        self.entry.left_out = Some(LeftOut {
            source: self.entry.name.clone(),
            to: self.entry.to.clone(),
            errors,
            cause,
            next,
            kept,
        });
    }

    /// Adds the stderr of its commands.
    pub(super) fn add_stderr(&mut self, stderr: CommandStderr) {
        self.entry.stderr.extend(stderr.stderr);
        self.notes.extend(stderr.notes);
    }

    /// Makes the next snapshot copy this source in full.
    pub(crate) fn require_full_copy(&self) {
        if let Some(draft) = &self.draft {
            staged_files::remove(&draft.file);
        }
    }

    /// Writes the record that lets the next snapshot link to this one's copies. Returns a note if
    /// that fails.
    pub(crate) fn save_draft(&self, stamp: Stamp) -> Option<String> {
        let draft = self.draft.as_ref()?;
        let saved = staged_files::save(
            &draft.file,
            stamp,
            &draft.to,
            &draft.root,
            &draft.file_stamps,
        );
        let error = saved.err()?;
        let file = draft.file.display();
        Some(format!(
            "cannot write {file}, so the next snapshot copies everything: {error}"
        ))
    }
}
