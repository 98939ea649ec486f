//! Puts a tree in its place inside a directory that must itself stay: a mount point, the current
//! directory, a directory whose parent this process may not write.
//!
//! That takes one rename for each entry of the directory, and the process can die between any two.
//! So the plan is on disk before the first one: a [journal](crate::base::journal) in the staging
//! directory names every old entry (they go to `content.before-restore-<stamp>`) and every new one.
//! By then all new content is verified and flushed, so the process that finds the journal goes
//! *forward*: [`resume`] looks where each entry is now, does the rest, and can itself die and be
//! resumed. If a step fails in a process that lives, the steps before it are undone.
//!
//! Crash argument: an entry's old state is in the directory until it is aside, and its new state is
//! in the staging directory until the old one has left. So three look-ups by name show how far an
//! entry is, whatever subset of the renames reached the disk, and also on a copy of the disk. (An
//! exchange in one step looks like its reverse; inode numbers would help, but not all
//! file systems keep them.) The journal is removed only after directory and aside are flushed.
//! Entries that other processes put there meanwhile are moved aside under a free name, never
//! replaced.

mod moves;
mod plan;

use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;

use crate::base::ids::Stamp;
use crate::base::journal::Journal;
use crate::base::openat::{Dir, Meta, PrivateDir};
use moves::{Moves, set_mode_again};
use plan::{EntryState, JOURNAL, MovePlan, plan_moves, read_plan};

/// The name of a staging directory inside its destination, without the random digits.
pub(super) const INSIDE_PREFIX: &str = ".sealift-partial-";
/// The tree in such a staging directory, beside the journal.
pub(super) const TREE: &str = "tree";

/// A restore that [`resume`] finished.
#[derive(Debug, Clone)]
pub struct Resumed {
    /// When the interrupted process began to put the tree in its place.
    pub stamp: Stamp,
    /// The destination.
    pub to: PathBuf,
    /// The path of the destination's previous content. `None`: there was none.
    pub moved_aside: Option<PathBuf>,
}

/// Moves the entries of `tree`, which is in the staging directory, into `to`, and those of `to`
/// into the new directory `aside`. After an error `to` is as it was, or the error says how to
/// finish.
pub(super) fn place(
    to: &Dir,
    staging: &PrivateDir,
    tree: &Dir,
    aside: Option<&OsStr>,
    stamp: Stamp,
) -> io::Result<()> {
    let items = plan_moves(to, tree, staging.name(), aside.is_some())?;
    let plan = MovePlan {
        stamp,
        aside: aside.and_then(OsStr::to_str).map(str::to_owned),
        items,
    };
    // Flushes all new content and the entries of the staging directory itself.
    to.sync_file_system()?;
    let mut journal = Journal::create(staging.dir(), JOURNAL)?;
    journal.append(&plan)?;
    to.sync()?;
    let moves = match Moves::begin(to, tree, &plan) {
        Ok(moves) => moves,
        Err(error) => {
            // Nothing has moved; the directory for the old content may have been made.
            if let Some(aside) = &plan.aside
                && to.try_meta(aside)?.is_some()
            {
                to.remove_dir(aside)?;
            }
            discard(staging.dir())?;
            return Err(error);
        }
    };
    for (number, item) in plan.items.iter().enumerate() {
        let Err(error) = moves.forward(item) else {
            continue;
        };
        let undone = moves.undo(&plan.items[..=number]);
        let undone = undone.and_then(|()| moves.withdraw(&plan));
        return Err(match undone.and_then(|()| discard(staging.dir())) {
            Ok(()) => error,
            Err(undoing) => {
                staging.keep();
                half_way(to, &error, &undoing)
            }
        });
    }
    moves.finish()?;
    discard(staging.dir())?;
    staging.remove()
}

/// Removes the journal durably, before anything else in the staging directory: with a journal
/// beside half a tree, the next restore would put that half in place.
fn discard(staging: &Dir) -> io::Result<()> {
    staging.remove_file(JOURNAL)?;
    staging.sync()
}

fn half_way(to: &Dir, error: &io::Error, undoing: &io::Error) -> io::Error {
    let to = to.path().display();
    io::Error::other(format!(
        "{error}; and the entries that had been moved could not be moved back ({undoing}): remove that \
         cause, then finish with `sealift restore --resume --to {to}`"
    ))
}

/// Whether `name` in `dir` is the staging directory of a restore that died while it put its tree in
/// place.
pub(super) fn is_interrupted(dir: &Dir, name: &OsStr) -> bool {
    let staging = dir.sub(name);
    let ours = rustix::process::geteuid().as_raw();
    staging.is_ok_and(|staging| {
        let is_ours = Meta::of_fd(&staging).is_ok_and(|meta| meta.uid() == ours);
        is_ours && read_plan(&staging).is_ok_and(|plan| plan.is_some())
    })
}

/// Finishes every restore to `to` that died while it put its tree in place. A restore that is still
/// running is an error.
pub(super) fn resume(to: &Dir) -> io::Result<Vec<Resumed>> {
    let mut resumed = Vec::new();
    let ours = rustix::process::geteuid().as_raw();
    for entry in to.entries()? {
        if !PrivateDir::is_named(&entry.name, INSIDE_PREFIX.as_ref()) {
            continue;
        }
        let Some(staging) = PrivateDir::adopt(to, &entry.name)? else {
            let what = "another restore to it is running: wait until it has ended";
            return Err(io::Error::new(io::ErrorKind::WouldBlock, what));
        };
        if staging.meta().uid() != ours {
            staging.keep();
            continue;
        }
        staging.keep();
        let Some(plan) = read_plan(staging.dir())? else {
            continue;
        };
        resumed.push(resume_one(to, &staging, &plan)?);
    }
    Ok(resumed)
}

fn resume_one(to: &Dir, staging: &PrivateDir, plan: &MovePlan) -> io::Result<Resumed> {
    let tree = staging.dir().sub(TREE)?;
    let moves = Moves::begin(to, &tree, plan)?;
    plan.items.iter().try_for_each(|item| {
        moves.forward(item)?;
        // A process that died near a rename may have left a directory writable to its owner.
        let name = item.name()?;
        let settle = |dir: &Dir, state: &Option<EntryState>| match state {
            Some(state) if dir.try_meta(&name)?.is_some() => set_mode_again(dir, &name, state),
            _ => Ok(()),
        };
        settle(to, &item.new)?;
        moves
            .aside
            .as_ref()
            .map_or(Ok(()), |aside| settle(aside, &item.old))
    })?;
    moves.finish()?;
    discard(staging.dir())?;
    staging.dir().clear()?;
    to.remove_dir(staging.name())?;
    Ok(Resumed {
        stamp: plan.stamp,
        to: to.path().to_path_buf(),
        moved_aside: plan.aside.as_ref().map(|name| to.path_of(name)),
    })
}

#[cfg(test)]
mod tests;
