//! Everything about an entry that is not content: what it is, whose it is, its mode and its time.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;

use super::tree::{Tree, times};
use crate::index::{EntryList, EntryRef, EntryType};
use crate::openat::{Kind, Meta, Owner, chmod_fd, chown_fd, set_mtime_fd, set_xattr_fd};

/// At most so many problems are told one by one.
const MOST_PROBLEMS: usize = 100;

/// Collects what went wrong without harm to content.
#[derive(Default)]
pub(super) struct Problems {
    told: Vec<String>,
    untold: usize,
}

impl Problems {
    pub(super) fn add(&mut self, problem: String) {
        match self.told.len() < MOST_PROBLEMS {
            true => self.told.push(problem),
            false => self.untold += 1,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    pub(super) fn extend(&mut self, other: Self) {
        other.told.into_iter().for_each(|problem| self.add(problem));
        self.untold += other.untold;
    }

    fn note(&mut self, entry: &EntryRef<'_>, what: &str, outcome: io::Result<()>) {
        if let Err(error) = outcome {
            self.add(format!("{}: cannot {what}: {error}", entry.path_lossy()));
        }
    }

    pub(super) fn into_list(mut self) -> Vec<String> {
        if self.untold > 0 {
            self.told.push(format!("and {} more", self.untold));
        }
        self.told
    }
}

/// Makes hard links, symlinks, FIFOs and devices. `Ok(false)`: a device, which nobody asked for.
pub(super) fn make_special(tree: &Tree, entry: &EntryRef<'_>, devices: bool) -> io::Result<bool> {
    let target = entry.target.unwrap_or_default();
    match entry.kind {
        EntryType::File | EntryType::Dir => {}
        EntryType::Hardlink => tree.link(target, entry.path)?,
        EntryType::Symlink => tree.symlink(target, entry.path)?,
        EntryType::Fifo => tree.node(entry.path, Kind::Fifo, None)?,
        EntryType::Chardev | EntryType::Blockdev if !devices => return Ok(false),
        EntryType::Chardev => tree.node(entry.path, Kind::CharDevice, entry.rdev)?,
        EntryType::Blockdev => tree.node(entry.path, Kind::BlockDevice, entry.rdev)?,
    }
    Ok(true)
}

/// Sets the metadata of all but files, which have theirs, and `left_out` (ascending): directories last.
/// Children come after their parents, so backwards is deepest first: a directory's time is set when
/// nothing in it changes any more.
pub(super) fn apply_to_rest(
    tree: &Tree,
    entries: &EntryList,
    left_out: &[usize],
    as_root: bool,
    problems: &mut Problems,
) {
    let wanted = |number: &usize| left_out.binary_search(number).is_err();
    for (number, entry) in entries.iter().enumerate() {
        let is_done = matches!(
            entry.kind,
            EntryType::File | EntryType::Hardlink | EntryType::Dir
        );
        if !is_done && wanted(&number) {
            apply(tree, &entry, as_root, problems);
        }
    }
    for entry in entries.iter().rev() {
        if entry.kind == EntryType::Dir {
            apply(tree, &entry, as_root, problems);
        }
    }
}

/// Sets owner, extended attributes, mode and time, in the order in which none undoes another: a new
/// owner clears set-user-id and capabilities, attributes need a file we may write, and all of them
/// come before the time.
fn apply(tree: &Tree, entry: &EntryRef<'_>, as_root: bool, problems: &mut Problems) {
    let path = entry.path;
    if as_root {
        let outcome = tree.set_owner(path, entry.uid, entry.gid);
        problems.note(entry, "set the owner", outcome);
    }
    set_xattrs(entry, problems, |name, value| {
        tree.set_xattr(path, name, value)
    });
    if entry.kind != EntryType::Symlink {
        problems.note(entry, "set the mode", tree.set_mode(path, entry.mode));
    }
    let outcome = tree.set_mtime(path, entry.mtime_ns);
    problems.note(entry, "set the time", outcome);
}

/// The same for an open file that this process made, in the same order; what is right already stays: each
/// of these is a transaction of the file system.
pub(super) fn apply_to_file(
    file: &File,
    entry: &EntryRef<'_>,
    as_root: bool,
    problems: &mut Problems,
) {
    let now = Meta::of_fd(file).ok();
    let is_owned = |now: &Meta| now.uid() == entry.uid && now.gid() == entry.gid;
    let change_owner = as_root && !now.as_ref().is_some_and(is_owned);
    if change_owner {
        let outcome = Owner::new(entry.uid, entry.gid).and_then(|owner| chown_fd(file, owner));
        problems.note(entry, "set the owner", outcome);
    }
    set_xattrs(entry, problems, |name, value| {
        set_xattr_fd(file, OsStr::from_bytes(name), value)
    });
    let has_mode = |now: &Meta| now.permissions() == entry.mode;
    // An access control list among the attributes changes it too.
    let as_is = !change_owner && entry.xattrs().next().is_none();
    if !(as_is && now.as_ref().is_some_and(has_mode)) {
        let outcome = chmod_fd(file, entry.mode);
        problems.note(entry, "set the mode", outcome);
    }
    let outcome = set_mtime_fd(file, &times(entry.mtime_ns));
    problems.note(entry, "set the time", outcome);
}

fn set_xattrs(
    entry: &EntryRef<'_>,
    problems: &mut Problems,
    set: impl Fn(&[u8], &[u8]) -> io::Result<()>,
) {
    for (name, value) in entry.xattrs() {
        let outcome = match set(name, value) {
            Err(error) if is_unsupported(&error) => Ok(()),
            other => other,
        };
        let what = format!("set the attribute {}", String::from_utf8_lossy(name));
        problems.note(entry, &what, outcome);
    }
}

/// The file system has no such attributes at all.
fn is_unsupported(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error())
}
