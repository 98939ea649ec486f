//! A catalog made anew from what the targets show: lost, damaged or in doubt, it is not missed for long.
//!
//! Without an identity it learns the host's snapshots; what lies in their archives stays sealed, and the next push
//! stores everything once more. With one, an index can be read, and where the content that it describes is at hand
//! ([`relearn`]), the next push is as small as if nothing had happened. The new catalog takes the old one's place in
//! one step, once it is complete; the old one is kept beside it.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::looks::Looks;
use super::reconcile::{Reconciled, carried_over, reconcile};
use super::survey::survey;
use super::{AgentError, NamedTarget, State};
use crate::catalog::{Catalog, NewArchive};
use crate::clock;
use crate::error::with_causes;
use crate::ids::{HostName, Stamp};
use crate::index::EntryList;
use crate::manifest::signature::Trust;
use crate::packer::relearn::{Relearned, Root, relearn};

const NEW: &str = "catalog.new.db";

/// A new catalog in the making. Given up where it is dropped: the old one is still there.
#[derive(Debug)]
pub struct Rebuild {
    state: State,
    _file: NewFile,
    /// Live snapshots that the targets showed.
    pub snapshots: usize,
    /// What their owner should hear.
    pub notes: Vec<String>,
}

/// Where the old catalog is kept; `None`: there was none.
pub type Kept = Option<PathBuf>;

impl Rebuild {
    /// Learns of every snapshot that `targets` show. Each must answer: what one has and does not show would be
    /// stored anew.
    pub fn begin(
        mut state: State,
        host: &HostName,
        targets: &[NamedTarget],
        trust: &Trust,
    ) -> Result<Self, AgentError> {
        let carried = carried_over(&state)?;
        let path = state.dir.join(NEW);
        remove(&path).map_err(failed("remove", &path))?;
        let file = NewFile(path.clone());
        // Of the old one every connection is closed here, which tidies up its log.
        state.catalog = Catalog::open(&path)?;
        for (key, value) in carried {
            state.catalog.set_meta(key, &value)?;
        }
        let runtime = super::push::runtime()?;
        let looks = Looks::whole(targets);
        let surveys = runtime.block_on(survey(&state, host, targets, trust, &looks))?;
        for survey in &surveys {
            if let Err(error) = &survey.seen {
                return Err(AgentError::NotSeen {
                    target: survey.folder.target.label().to_owned(),
                    why: with_causes(error),
                });
            }
        }
        let Reconciled {
            lineage, warnings, ..
        } = reconcile(&mut state, host, &surveys)?;
        Ok(Self {
            state,
            _file: file,
            snapshots: lineage.known.len(),
            notes: warnings,
        })
    }

    /// Learns where a snapshot's content lies, of whatever of it `roots` hold; of `paths` only, if given.
    /// `recipients`: every set of them that archives may be sealed to.
    pub fn learn(
        &mut self,
        archives: &[NewArchive],
        recipients: &[Vec<String>],
        entries: &EntryList,
        roots: &[Root],
        paths: Option<&HashSet<Vec<u8>>>,
    ) -> Result<Relearned, AgentError> {
        let catalog = &mut self.state.catalog;
        for set in recipients {
            catalog.remember_recipients(set)?;
        }
        Ok(relearn(catalog, archives, entries, roots, paths)?)
    }

    /// Puts the new catalog in its place.
    pub fn finish(self) -> Result<Kept, AgentError> {
        // Renamed, the file is not where its removal looks for it.
        let Self { state, _file, .. } = self;
        let (dir, lock) = state.close()?;
        let (new, path) = (dir.join(NEW), dir.join("catalog.db"));
        let kept = match path.exists() {
            true => {
                let stamp = Stamp::at(clock::now()).map_err(std::io::Error::other);
                let stamp = stamp.map_err(failed("keep", &path))?;
                let aside = dir.join(format!("catalog.replaced-{stamp}.db"));
                let _ = fs::remove_file(&aside);
                fs::hard_link(&path, &aside).map_err(failed("keep", &path))?;
                Some(aside)
            }
            false => None,
        };
        fs::rename(&new, &path).map_err(failed("put a new catalog in the place of", &path))?;
        crate::fs::sync_dir(&dir).map_err(failed("flush", &dir))?;
        drop(lock);
        Ok(kept)
    }
}

fn failed(operation: &'static str, path: &Path) -> impl Fn(std::io::Error) -> AgentError + use<> {
    let path = path.display().to_string();
    move |source| AgentError::State {
        operation,
        path: path.clone(),
        source,
    }
}

/// Removed, where it still is, with what SQLite keeps beside it.
#[derive(Debug)]
struct NewFile(PathBuf);

impl Drop for NewFile {
    fn drop(&mut self) {
        let _ = remove(&self.0);
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    for ending in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        match fs::remove_file(name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
