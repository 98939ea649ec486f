//! Making the tree: content, proof, links, metadata, and only then its name. The mirror of `pack`.
//!
//! Everything happens in a [`staging`] directory beside the destination. Content is written and
//! verified first, then links are made (no path below leads through one), then databases are opened
//! and compared, then metadata is set, directories last and deepest first. When all of it is on disk,
//! one rename puts it in place. Whatever fails before leaves the destination as it was.

mod content;
mod databases;
mod destination;
mod metadata;
mod staging;
mod tree;

pub(super) use destination::Destination;
pub use destination::DestinationError;
pub use staging::StagingError;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::fetch::Sink;
use crate::ids::Stamp;
use crate::index::{EntryList, EntryType, IndexHeader};
use content::Content;
use databases::Checked;
use metadata::Problems;
use staging::Staging;
use tree::Tree;

#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    #[error("cannot prepare or finish the destination")]
    Staging(#[from] StagingError),
    #[error("cannot make {path:?}")]
    Make {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot write the restored tree to disk")]
    Sync(#[source] io::Error),
    #[error("restored databases are not what they were: {}", .0.join("; "))]
    Databases(Vec<String>),
}

/// A tree that is being restored. Dropped before [`Extraction::finish`] is through, it vanishes.
pub(super) struct Extraction {
    content: Arc<Content>,
    staging: Staging,
}

/// What a second look at the content gave.
#[derive(Default)]
pub(super) struct Proof {
    /// The files whose bytes are not what the index says, by number, and how.
    pub(super) wrong: BTreeMap<u32, String>,
    databases: Checked,
}

/// A tree in its place.
pub(super) struct Extracted {
    pub(super) databases: Vec<String>,
    pub(super) problems: Vec<String>,
    pub(super) moved_aside: Option<PathBuf>,
}

impl Extraction {
    /// Makes the staging directory, the directories in it and the files that come in pieces.
    pub(super) fn begin(
        destination: Destination,
        entries: Arc<EntryList>,
    ) -> Result<Self, ExtractError> {
        let staging = Staging::create(destination)?;
        let dir = staging.dir().map_err(|source| StagingError {
            operation: "open",
            path: staging.path().to_path_buf(),
            source,
        })?;
        let content = Content::new(Tree::new(dir), entries);
        content
            .prepare()
            .map_err(|(path, source)| cannot_make(&path, source))?;
        Ok(Self {
            content: Arc::new(content),
            staging,
        })
    }

    /// Takes one archive's pieces.
    pub(super) fn sink(&self) -> Box<dyn Sink> {
        self.content.sink()
    }

    /// Looks at all content once more, when all of it is there.
    pub(super) fn prove(&self, header: &IndexHeader) -> Proof {
        let content = &self.content;
        std::thread::scope(|scope| {
            // The disk can be at work meanwhile; the sync that counts comes at the end.
            scope.spawn(|| content.tree.sync());
            let verifying = scope.spawn(|| content.verify());
            let databases =
                databases::check(self.staging.path(), &content.tree, header, &content.entries);
            Proof {
                wrong: verifying.join().unwrap_or_else(|_| stopped(content)),
                databases,
            }
        })
    }

    /// Everything after the content, up to the final rename.
    pub(super) fn finish(
        self,
        proof: Proof,
        devices: bool,
        stamp: Stamp,
    ) -> Result<Extracted, ExtractError> {
        let (tree, entries) = (&self.content.tree, &*self.content.entries);
        let as_root = rustix::process::geteuid().is_root();
        let mut problems = Problems::default();
        let mut left_out = Vec::new();
        for (number, entry) in entries.iter().enumerate() {
            let made = metadata::make_special(tree, &entry, devices && as_root);
            if !made.map_err(|source| cannot_make(entry.path, source))? {
                let why = "a device is made only by root and when asked for";
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
        metadata::apply_all(tree, entries, &left_out, as_root, &mut problems);
        tree.sync().map_err(ExtractError::Sync)?;
        let moved_aside = self.staging.place(stamp)?;
        Ok(Extracted {
            databases: checked.good,
            problems: problems.into_list(),
            moved_aside,
        })
    }
}

/// A thread that looked at content did not come back: then nothing is proven.
fn stopped(content: &Content) -> BTreeMap<u32, String> {
    let files = content.entries.iter().enumerate();
    let files = files.filter(|(_, entry)| entry.kind == EntryType::File);
    files
        .map(|(number, _)| (number as u32, "its check stopped".to_owned()))
        .collect()
}

fn cannot_make(path: &[u8], source: io::Error) -> ExtractError {
    ExtractError::Make {
        path: String::from_utf8_lossy(path).into_owned(),
        source,
    }
}

/// Entries that are files and changed while the snapshot was made.
pub(super) fn torn(entries: &EntryList) -> Vec<String> {
    let torn = entries
        .iter()
        .filter(|e| e.kind == EntryType::File && e.torn);
    torn.map(|entry| entry.path_lossy().into_owned()).collect()
}
