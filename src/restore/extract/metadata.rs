//! Everything about an entry that is not content: what it is, whose it is, its mode and its time.

use std::io;

use rustix::fs::FileType;

use super::tree::Tree;
use crate::index::{EntryList, EntryRef, EntryType};

/// At most so many problems are told one by one.
const MOST_PROBLEMS: usize = 100;
const MOST_THREADS: usize = 4;
/// Entries that are worth a thread.
const LEAST_SHARE: usize = 512;

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

    fn extend(&mut self, other: Self) {
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
        EntryType::Fifo => tree.node(entry.path, FileType::Fifo, None)?,
        EntryType::Chardev | EntryType::Blockdev if !devices => return Ok(false),
        EntryType::Chardev => tree.node(entry.path, FileType::CharacterDevice, entry.rdev)?,
        EntryType::Blockdev => tree.node(entry.path, FileType::BlockDevice, entry.rdev)?,
    }
    Ok(true)
}

/// Sets the metadata of all but `left_out` (ascending): first of what is no directory, on several threads,
/// then of directories. Children come after their parents, so backwards is deepest first: a directory's
/// time is set when nothing in it changes any more.
pub(super) fn apply_all(
    tree: &Tree,
    entries: &EntryList,
    left_out: &[usize],
    as_root: bool,
    problems: &mut Problems,
) {
    let wanted = |number: &usize| left_out.binary_search(number).is_err();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = entries
        .len()
        .div_ceil(threads.min(MOST_THREADS))
        .max(LEAST_SHARE);
    std::thread::scope(|scope| {
        let working: Vec<_> = (0..entries.len())
            .step_by(share)
            .map(|start| {
                scope.spawn(move || {
                    let mut problems = Problems::default();
                    for number in start..entries.len().min(start + share) {
                        let entry = entries.get(number);
                        if entry.kind != EntryType::Dir && wanted(&number) {
                            apply(tree, &entry, as_root, &mut problems);
                        }
                    }
                    problems
                })
            })
            .collect();
        for work in working {
            match work.join() {
                Ok(found) => problems.extend(found),
                Err(_) => problems.add("owners, modes and times may not be set".to_owned()),
            }
        }
    });
    for (number, entry) in entries.iter().enumerate().rev() {
        if entry.kind == EntryType::Dir && wanted(&number) {
            apply(tree, &entry, as_root, problems);
        }
    }
}

/// Sets owner, extended attributes, mode and time, in the order in which none undoes another: a new
/// owner clears set-user-id and capabilities, attributes need a file we may write, and all of them
/// come before the time.
fn apply(tree: &Tree, entry: &EntryRef<'_>, as_root: bool, problems: &mut Problems) {
    if entry.kind == EntryType::Hardlink {
        return;
    }
    let path = entry.path;
    if as_root {
        let outcome = tree.set_owner(path, entry.uid, entry.gid);
        problems.note(entry, "set the owner", outcome);
    }
    for (name, value) in entry.xattrs() {
        let outcome = match tree.set_xattr(path, name, value) {
            Err(error) if is_unsupported(&error) => Ok(()),
            other => other,
        };
        let what = format!("set the attribute {}", String::from_utf8_lossy(name));
        problems.note(entry, &what, outcome);
    }
    if entry.kind != EntryType::Symlink {
        problems.note(entry, "set the mode", tree.set_mode(path, entry.mode));
    }
    let outcome = tree.set_mtime(path, entry.mtime_ns);
    problems.note(entry, "set the time", outcome);
}

/// The file system has no such attributes at all.
fn is_unsupported(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error())
}
