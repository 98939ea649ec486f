//! Putting a tree in place inside a directory that itself must stay: a mount point, the current directory,
//! a directory whose parent is not ours to write.
//!
//! That takes a rename for each entry of the directory, and the process can die between any two. So the plan
//! is on disk before the first one: a [journal](crate::base::journal) in the staging directory names every entry
//! that is to go (to `content.before-restore-<stamp>`) and every one that is to come. By then all of the new
//! content is verified and flushed, so the process that finds the journal goes *forward*: [`resume`] looks where each
//! entry is now, does what is still to be done, and can itself die and be resumed. If a step fails in a
//! process that lives, the steps before it are taken back.
//!
//! Crash argument: an entry's old state is in the directory until it is aside, and its new state is in the
//! staging directory until it has come, which is after the old one went. So three looks by name tell
//! how far an entry is, whatever subset of the renames the disk kept, and on a copy of the disk too (an
//! exchange in one step could not be told from its contrary; inode numbers would, but not all file systems
//! keep them). The journal goes only after directory and aside are flushed. What other hands put there
//! meanwhile is moved aside under a free name, never replaced.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use base64::Engine as _;
use serde::{Deserialize, Serialize};

use super::staging::{INSIDE_PREFIX, TREE};
use crate::base::ids::Stamp;
use crate::base::journal::Journal;
use crate::base::openat::{Dir, Meta, PrivateDir};

const JOURNAL: &str = "journal.jsonl";
const BASE64: base64::engine::GeneralPurpose = base64::engine::general_purpose::STANDARD;
const OWNER_WRITES: u32 = 0o200;

/// What is to be moved; the journal's only record.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plan {
    /// When the restore began to be put in place.
    stamp: Stamp,
    /// The name in the directory of what takes the old content; `None`: there is none.
    aside: Option<String>,
    items: Vec<Item>,
}

/// An entry of the directory, before, after or both.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// A name that is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name_b64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    old: Option<Thing>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    new: Option<Thing>,
}

/// One state of an entry.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Thing {
    /// Permissions of a directory that its owner may not write: it gets the permission for the moment of
    /// the rename, which changes its `..`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<u32>,
}

impl Thing {
    fn of(meta: &Meta) -> Self {
        let closed = meta.is_dir() && meta.permissions() & OWNER_WRITES == 0;
        Self {
            mode: closed.then_some(meta.permissions()),
        }
    }
}

impl Item {
    fn new(name: &OsStr, old: Option<Thing>, new: Option<Thing>) -> Self {
        let text = name.to_str().map(str::to_owned);
        let name_b64 = text.is_none().then(|| BASE64.encode(name.as_bytes()));
        Self {
            name: text,
            name_b64,
            old,
            new,
        }
    }

    fn name(&self) -> io::Result<OsString> {
        let encoded = self.name_b64.as_ref().map(|text| BASE64.decode(text));
        match (&self.name, encoded) {
            (Some(name), None) => Ok(name.into()),
            (None, Some(Ok(name))) => Ok(OsString::from_vec(name)),
            _ => Err(unreadable("an entry without a name")),
        }
    }
}

/// A restore that was finished by [`resume`].
#[derive(Debug, Clone)]
pub struct Resumed {
    /// When it began to be put in place.
    pub stamp: Stamp,
    pub to: PathBuf,
    /// Where the content is that was there before it, if there was any.
    pub moved_aside: Option<PathBuf>,
}

/// The three directories between which entries move.
struct Moves<'a> {
    to: &'a Dir,
    /// Holds the new entries.
    tree: &'a Dir,
    /// Takes the old ones.
    aside: Option<Dir>,
}

/// Moves the entries of `tree`, which is in the staging directory, into `to`, and those of `to` into the new
/// directory `aside`. After an error `to` is as it was, or the error says how to finish.
pub(super) fn place(
    to: &Dir,
    staging: &PrivateDir,
    tree: &Dir,
    aside: Option<&OsStr>,
    stamp: Stamp,
) -> io::Result<()> {
    let items = plan_items(to, tree, staging.name(), aside.is_some())?;
    let plan = Plan {
        stamp,
        aside: aside.and_then(OsStr::to_str).map(str::to_owned),
        items,
    };
    // All of the new content, and the entries of the staging directory itself.
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

/// Removes the journal for good, before anything else of the staging directory goes: a journal beside half a
/// tree would have the next restore put that in place.
fn discard(staging: &Dir) -> io::Result<()> {
    staging.remove_file(JOURNAL)?;
    staging.sync()
}

fn half_way(to: &Dir, error: &io::Error, undoing: &io::Error) -> io::Error {
    let to = to.path().display();
    io::Error::other(format!(
        "{error}; and what had been moved could not be moved back ({undoing}): mend that, then finish \
         with `sealift restore --resume --to {to}`"
    ))
}

/// What has to move. The names are of both listings, each once.
fn plan_items(to: &Dir, tree: &Dir, staging: &OsStr, moves_aside: bool) -> io::Result<Vec<Item>> {
    let device = Meta::of_fd(to)?.dev();
    let mut items: std::collections::BTreeMap<OsString, (Option<Thing>, Option<Thing>)> =
        std::collections::BTreeMap::new();
    for entry in tree.entries()? {
        let meta = tree.meta_of_entry(&entry.name)?;
        items.entry(entry.name).or_default().1 = Some(Thing::of(&meta));
    }
    let stays = |name: &OsStr| name == staging || name == "lost+found";
    for entry in to.entries()? {
        if !moves_aside || stays(&entry.name) {
            continue;
        }
        let meta = to.meta_of_entry(&entry.name)?;
        if meta.dev() != device {
            let what = format!(
                "{} is a mount point, which cannot be moved aside: unmount it first",
                to.path_of(&entry.name).display()
            );
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, what));
        }
        items.entry(entry.name).or_default().0 = Some(Thing::of(&meta));
    }
    let items = items.into_iter();
    Ok(items
        .map(|(name, (old, new))| Item::new(&name, old, new))
        .collect())
}

impl<'a> Moves<'a> {
    /// Makes or opens the directory for the old content.
    fn begin(to: &'a Dir, tree: &'a Dir, plan: &Plan) -> io::Result<Self> {
        let aside = match &plan.aside {
            None => None,
            Some(name) => Some(to.make_dirs(name, 0o777)?),
        };
        if aside.is_some() {
            to.sync()?;
        }
        Ok(Self { to, tree, aside })
    }

    /// Brings one entry to its new state, from whatever state it is in.
    fn forward(&self, item: &Item) -> io::Result<()> {
        let name = item.name()?;
        let waits = item.new.is_some() && self.tree.try_meta(&name)?.is_some();
        let mut there = self.to.try_meta(&name)?;
        // Where a new one was to come and waits no more, it is what is there.
        let is_old = item.old.is_some() && (waits || item.new.is_none());
        // If one is aside already, what is there came since.
        if let (Some(old), Some(_)) = (&item.old, &there)
            && is_old
            && !self.is_aside(&name)?
        {
            self.put_aside(&name, old)?;
            there = None;
        }
        let Some(new) = item.new.filter(|_| waits) else {
            return Ok(());
        };
        match &there {
            None => move_thing(self.tree, &name, self.to, &name, &new),
            // Such as `lost+found`: over an empty directory.
            Some(empty) if empty.is_dir() && self.tree.rename(&name, self.to, &name).is_ok() => {
                Ok(())
            }
            Some(other) => {
                self.put_aside(&name, &Thing::of(other))?;
                move_thing(self.tree, &name, self.to, &name, &new)
            }
        }
    }

    fn is_aside(&self, name: &OsStr) -> io::Result<bool> {
        match &self.aside {
            None => Ok(false),
            Some(aside) => Ok(aside.try_meta(name)?.is_some()),
        }
    }

    /// Moves `name` to the old content, under a name that is free there.
    fn put_aside(&self, name: &OsStr, thing: &Thing) -> io::Result<()> {
        let Some(aside) = &self.aside else {
            let what = format!(
                "{} came while the restore was put in place: move it away",
                self.to.path_of(name).display()
            );
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
        };
        let mut free = name.to_owned();
        for number in 2u32.. {
            if aside.try_meta(&free)?.is_none() {
                break;
            }
            free = name.to_owned();
            free.push(format!(".{number}"));
        }
        move_thing(self.to, name, aside, &free, thing)
    }

    /// Takes the entries back to where they were, the last one first.
    fn undo(&self, items: &[Item]) -> io::Result<()> {
        items.iter().rev().try_for_each(|item| self.backward(item))
    }

    fn backward(&self, item: &Item) -> io::Result<()> {
        let name = item.name()?;
        let is_there = self.to.try_meta(&name)?.is_some();
        match &item.new {
            Some(new) if is_there && self.tree.try_meta(&name)?.is_none() => {
                move_thing(self.to, &name, self.tree, &name, new)?;
            }
            // It has not moved yet.
            _ if is_there => return Ok(()),
            _ => {}
        }
        match (&item.old, &self.aside) {
            (Some(old), Some(aside)) if aside.try_meta(&name)?.is_some() => {
                move_thing(aside, &name, self.to, &name, old)
            }
            _ => Ok(()),
        }
    }

    /// Removes the empty directory for the old content, and flushes.
    fn withdraw(&self, plan: &Plan) -> io::Result<()> {
        if let Some(aside) = &plan.aside {
            self.to.remove_dir(aside)?;
        }
        self.to.sync()
    }

    fn finish(&self) -> io::Result<()> {
        if let Some(aside) = &self.aside {
            aside.sync()?;
        }
        self.to.sync()
    }
}

/// Renames to a name that is free. Where the file system cannot make sure of that in one step, it was
/// looked at just before.
fn move_thing(
    from: &Dir,
    name: &OsStr,
    to: &Dir,
    to_name: &OsStr,
    thing: &Thing,
) -> io::Result<()> {
    writable(from, name, thing, || {
        match from.rename_new(name, to, to_name) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                from.rename(name, to, to_name)
            }
            other => other,
        }
    })?;
    set_mode_again(to, to_name, thing)
}

/// Runs a rename of `name`. If it is a directory that its owner may not write, it gets the permission first.
fn writable(
    dir: &Dir,
    name: &OsStr,
    thing: &Thing,
    rename: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    let is_root = rustix::process::geteuid().is_root();
    let Some(mode) = thing.mode.filter(|_| !is_root) else {
        return rename();
    };
    dir.set_mode(name, mode | OWNER_WRITES)?;
    let renamed = rename();
    if renamed.is_err() {
        let _ = dir.set_mode(name, mode);
    }
    renamed
}

fn set_mode_again(dir: &Dir, name: &OsStr, thing: &Thing) -> io::Result<()> {
    match thing.mode {
        Some(mode) => dir.set_mode(name, mode),
        None => Ok(()),
    }
}

fn unreadable(what: &str) -> io::Error {
    let what = format!("its journal holds {what}");
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Whether `name` in `dir` is the staging directory of a restore that died while it was put in place.
pub(super) fn is_interrupted(dir: &Dir, name: &OsStr) -> bool {
    let staging = dir.sub(name);
    let ours = rustix::process::geteuid().as_raw();
    staging.is_ok_and(|staging| {
        let is_ours = Meta::of_fd(&staging).is_ok_and(|meta| meta.uid() == ours);
        is_ours && read_plan(&staging).is_ok_and(|plan| plan.is_some())
    })
}

fn read_plan(staging: &Dir) -> io::Result<Option<Plan>> {
    let Some((records, _)) = Journal::<Plan>::read(staging, JOURNAL)? else {
        return Ok(None);
    };
    Ok(records.into_iter().next())
}

/// Finishes every restore that died while it was put in place in `to`. One that is still at work is an error.
pub(super) fn resume(to: &Dir) -> io::Result<Vec<Resumed>> {
    let mut resumed = Vec::new();
    let ours = rustix::process::geteuid().as_raw();
    for entry in to.entries()? {
        if !PrivateDir::is_named(&entry.name, INSIDE_PREFIX.as_ref()) {
            continue;
        }
        let Some(staging) = PrivateDir::adopt(to, &entry.name)? else {
            let what = "another restore to it is at work: wait until it has ended";
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

fn resume_one(to: &Dir, staging: &PrivateDir, plan: &Plan) -> io::Result<Resumed> {
    let tree = staging.dir().sub(TREE)?;
    let moves = Moves::begin(to, &tree, plan)?;
    plan.items.iter().try_for_each(|item| {
        moves.forward(item)?;
        // A process that died beside a rename may have left a directory open to its owner.
        let name = item.name()?;
        let settle = |dir: &Dir, thing: &Option<Thing>| match thing {
            Some(thing) if dir.try_meta(&name)?.is_some() => set_mode_again(dir, &name, thing),
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
