//! Sets everything about an entry that is not content: its kind, owner, attributes, mode and time.
//!
//! No entry gets wider permissions than the snapshot gives it:
//!
//! - The tree is made in a directory that passes no permissions down
//!   ([`PrivateDir`](crate::base::openat::PrivateDir)).
//! - Set-user-ID and set-group-ID are dropped if the owner or group is another one.
//! - A mode whose access list could not be set grants no more than both granted together.
//!
//! At the end each entry is looked at again, to report what the destination kept, whatever its
//! calls returned.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::Timestamps;

use super::access_list::mode_without;
use super::kept::{Aspect, NotKeptTally};
use super::tree::{Tree, times};
use crate::base::openat::{
    ACCESS_LISTS, FileOwner, Kind, Meta, chmod_fd, chown_fd, set_mtime_fd, set_xattr_fd,
};
use crate::format::index::{EntryList, EntryRef, EntryType};

/// Problems that are listed one by one.
const MOST_PROBLEMS: usize = 100;
const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;
const CAPABILITIES: &[u8] = b"security.capability";
/// Bytes of holes from which a file counts as sparse: a file system may give a whole block to a
/// smaller hole.
const LEAST_HOLE_BYTES: u64 = 64 << 10;
/// The unit of a file's block count.
const BLOCK_BYTES: u64 = 512;

/// Problems that did no harm to content.
#[derive(Default)]
pub(super) struct Problems {
    listed: Vec<String>,
    unlisted_count: usize,
    pub(super) not_kept: NotKeptTally,
}

impl Problems {
    /// Adds a problem; beyond [`MOST_PROBLEMS`] it is only counted.
    pub(super) fn add(&mut self, problem: String) {
        match self.listed.len() < MOST_PROBLEMS {
            true => self.listed.push(problem),
            false => self.unlisted_count += 1,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.listed.is_empty() && self.not_kept.is_empty()
    }

    pub(super) fn extend(&mut self, other: Self) {
        other
            .listed
            .into_iter()
            .for_each(|problem| self.add(problem));
        self.unlisted_count += other.unlisted_count;
        self.not_kept.extend(other.not_kept);
    }

    /// Returns all but the metadata that was not kept.
    pub(super) fn take_list(&mut self) -> Vec<String> {
        let mut listed = std::mem::take(&mut self.listed);
        if self.unlisted_count > 0 {
            listed.push(format!("and {} more", self.unlisted_count));
        }
        listed
    }
}

/// The user that restores, which decides which owners can be set.
pub(super) struct Restorer {
    pub(super) as_root: bool,
    groups: Vec<u32>,
}

impl Restorer {
    /// Returns the user of this process.
    pub(super) fn this_process() -> Self {
        use rustix::process::{getegid, geteuid, getgroups};
        let mut groups = vec![getegid().as_raw()];
        groups.extend(getgroups().unwrap_or_default().iter().map(|g| g.as_raw()));
        Self {
            as_root: geteuid().is_root(),
            groups,
        }
    }

    /// Returns the part of the recorded owner that can be set. `None`: there is nothing to set.
    fn owner_for(&self, entry: &EntryRef<'_>, now: &Meta) -> Option<io::Result<FileOwner>> {
        let same = (now.uid() == entry.uid, now.gid() == entry.gid);
        match same {
            (true, true) => None,
            _ if self.as_root => Some(FileOwner::new(entry.uid, entry.gid)),
            (_, false) if self.groups.contains(&entry.gid) => {
                Some(FileOwner::only_group(entry.gid))
            }
            _ => None,
        }
    }
}

/// Makes hard links, symlinks, FIFOs and devices. `Ok(false)`: it is a device, and `devices` is not
/// set.
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

/// Sets the metadata of all entries but files, which have theirs, and those in `left_out`
/// (ascending). Directories come last, in reverse order, so the deepest first: a directory's time
/// is set when nothing in it changes any more.
pub(super) fn apply_to_rest(
    tree: &Tree,
    entries: &EntryList,
    left_out: &[usize],
    restorer: &Restorer,
    problems: &mut Problems,
) {
    let wanted = |number: &usize| left_out.binary_search(number).is_err();
    for (number, entry) in entries.iter().enumerate() {
        let is_done = matches!(
            entry.kind,
            EntryType::File | EntryType::Hardlink | EntryType::Dir
        );
        if !is_done && wanted(&number) {
            let path = entry.path;
            let outcome = apply(&NamedEntry { tree, path }, &entry, restorer, problems);
            note_unseen(&entry, outcome, problems);
        }
    }
    for entry in entries.iter().rev() {
        if entry.kind == EntryType::Dir {
            let opened = tree.open_dir(entry.path);
            let outcome =
                opened.and_then(|dir| apply(&OpenEntry(dir.as_fd()), &entry, restorer, problems));
            note_unseen(&entry, outcome, problems);
        }
    }
}

/// Adds a problem if the metadata could not be set.
fn note_unseen(entry: &EntryRef<'_>, outcome: io::Result<()>, problems: &mut Problems) {
    if let Err(error) = outcome {
        let path = entry.path_lossy();
        problems.add(format!("{path}: cannot set its metadata: {error}"));
    }
}

/// Sets the metadata of an open file that this process made.
pub(super) fn apply_to_file(
    file: &File,
    entry: &EntryRef<'_>,
    restorer: &Restorer,
    problems: &mut Problems,
) {
    let outcome = apply(&OpenEntry(file.as_fd()), entry, restorer, problems);
    note_unseen(entry, outcome, problems);
}

/// An entry of the tree whose metadata is to be set.
trait MetadataTarget {
    fn meta(&self) -> io::Result<Meta>;
    fn set_owner(&self, owner: FileOwner) -> io::Result<()>;
    fn set_xattr(&self, name: &[u8], value: &[u8]) -> io::Result<()>;
    fn set_mode(&self, mode: u32) -> io::Result<()>;
    fn set_mtime(&self, times: &Timestamps) -> io::Result<()>;
}

/// An open file or directory.
struct OpenEntry<'a>(BorrowedFd<'a>);

impl MetadataTarget for OpenEntry<'_> {
    fn meta(&self) -> io::Result<Meta> {
        Meta::of_fd(self.0)
    }
    fn set_owner(&self, owner: FileOwner) -> io::Result<()> {
        chown_fd(self.0, owner)
    }
    fn set_xattr(&self, name: &[u8], value: &[u8]) -> io::Result<()> {
        set_xattr_fd(self.0, OsStr::from_bytes(name), value)
    }
    fn set_mode(&self, mode: u32) -> io::Result<()> {
        chmod_fd(self.0, mode)
    }
    fn set_mtime(&self, times: &Timestamps) -> io::Result<()> {
        set_mtime_fd(self.0, times)
    }
}

/// An entry that cannot be opened: a symlink, a FIFO or a device.
struct NamedEntry<'a> {
    tree: &'a Tree,
    path: &'a [u8],
}

impl MetadataTarget for NamedEntry<'_> {
    fn meta(&self) -> io::Result<Meta> {
        self.tree.meta(self.path)
    }
    fn set_owner(&self, owner: FileOwner) -> io::Result<()> {
        self.tree.set_owner(self.path, owner)
    }
    fn set_xattr(&self, name: &[u8], value: &[u8]) -> io::Result<()> {
        self.tree.set_xattr(self.path, name, value)
    }
    fn set_mode(&self, mode: u32) -> io::Result<()> {
        self.tree.set_mode(self.path, mode)
    }
    fn set_mtime(&self, times: &Timestamps) -> io::Result<()> {
        self.tree.set_mtime(self.path, times)
    }
}

/// Sets owner, extended attributes, mode and time, in the order in which none undoes another: a new
/// owner clears set-user-ID and capabilities, attributes need a file we may write, and all of them
/// come before the time. Correct values are not set again: each call is a transaction of the file
/// system. Fails only if the entry cannot be looked at.
fn apply(
    it: &impl MetadataTarget,
    entry: &EntryRef<'_>,
    restorer: &Restorer,
    problems: &mut Problems,
) -> io::Result<()> {
    let missed = &mut problems.not_kept;
    let mut now = it.meta()?;
    let mut why_not_owned = None;
    if let Some(owner) = restorer.owner_for(entry, &now) {
        why_not_owned = owner.and_then(|owner| it.set_owner(owner)).err();
        now = it.meta()?;
    }
    let (same_uid, same_gid) = (now.uid() == entry.uid, now.gid() == entry.gid);
    if !(same_uid && same_gid) {
        match (restorer.as_root, why_not_owned) {
            (false, _) => missed.miss_as_expected(entry, Aspect::Owner, "only root can set it"),
            (true, Some(error)) => missed.miss(entry, Aspect::Owner, error.to_string()),
            (true, None) => missed.miss(entry, Aspect::Owner, IGNORED.to_owned()),
        }
    }
    let mut mode = set_xattrs(it, entry, restorer, same_uid, missed);
    let lost = match entry.kind {
        EntryType::Symlink => 0,
        _ => {
            let of_user = if same_uid { 0 } else { SET_UID };
            let of_group = if same_gid { 0 } else { SET_GID };
            mode & (of_user | of_group)
        }
    };
    if lost != 0 {
        // With another owner they would grant more than the original did.
        mode &= !lost;
        missed.miss(entry, Aspect::SetId, "the owner is another one".to_owned());
    }
    // An access list among the attributes changes the mode, too.
    let as_is = entry.xattrs().next().is_none() && now.permissions() == mode;
    let mut why_no_mode = None;
    if entry.kind != EntryType::Symlink && !as_is {
        why_no_mode = it.set_mode(mode).err();
    }
    let why_no_time = it.set_mtime(&times(entry.mtime_ns)).err();
    let now = it.meta()?;
    if entry.kind != EntryType::Symlink && now.permissions() != mode {
        missed.miss(entry, Aspect::Mode, reason(why_no_mode));
    }
    let mtime = i128::from(now.mtime()) * 1_000_000_000 + i128::from(now.mtime_nsec());
    if mtime != entry.mtime_ns {
        missed.miss(entry, Aspect::Time, reason(why_no_time));
    }
    if is_filled(entry, &now) {
        let why = "the file system stores them as zeros";
        missed.miss_as_expected(entry, Aspect::Holes, why);
    }
    Ok(())
}

/// The reason if a call succeeded without effect.
const IGNORED: &str = "the file system keeps another one";

fn reason(error: Option<io::Error>) -> String {
    error.map_or_else(|| IGNORED.to_owned(), |error| error.to_string())
}

/// Sets the extended attributes. Returns the mode that the entry may have with those that could be
/// set.
fn set_xattrs(
    it: &impl MetadataTarget,
    entry: &EntryRef<'_>,
    restorer: &Restorer,
    same_uid: bool,
    missed: &mut NotKeptTally,
) -> u32 {
    let mut mode = entry.mode;
    let (mut unlisted, mut expected, mut lost) = (None, None, None);
    for (name, value) in entry.xattrs() {
        // With another owner they would grant more than the original did.
        let set = match name == CAPABILITIES && !same_uid {
            true => Err(io::Error::from(io::ErrorKind::PermissionDenied)),
            false => it.set_xattr(name, value),
        };
        let Err(error) = set else { continue };
        let shown = String::from_utf8_lossy(name);
        if ACCESS_LISTS.iter().any(|list| list.as_bytes() == name) {
            if name == ACCESS_LISTS[0].as_bytes() {
                mode = mode_without(value, mode);
            }
            unlisted.get_or_insert(error.to_string());
        } else if !restorer.as_root && is_for_root(name) {
            expected.get_or_insert_with(|| format!("{shown}: only root can set it"));
        } else {
            lost.get_or_insert_with(|| format!("{shown}: {error}"));
        }
    }
    if let Some(why) = unlisted {
        missed.miss(entry, Aspect::AccessList, why);
    }
    if let Some(why) = lost {
        missed.miss(entry, Aspect::Attributes, why);
    }
    if let Some(why) = expected {
        missed.miss_as_expected(entry, Aspect::Attributes, &why);
    }
    mode
}

/// Whether the attribute is a label that only root can set. Capabilities do not count: without them
/// a program works differently.
fn is_for_root(name: &[u8]) -> bool {
    let is_systems = name.starts_with(b"security.") || name.starts_with(b"trusted.");
    is_systems && name != CAPABILITIES
}

/// Whether a file with large holes takes the space of its whole size.
fn is_filled(entry: &EntryRef<'_>, now: &Meta) -> bool {
    if entry.kind != EntryType::File {
        return false;
    }
    let holes = entry.extents().filter(|extent| extent.archive.is_none());
    let hole_bytes: u64 = holes.map(|extent| extent.length).sum();
    hole_bytes >= LEAST_HOLE_BYTES && now.blocks().saturating_mul(BLOCK_BYTES) >= entry.size
}
