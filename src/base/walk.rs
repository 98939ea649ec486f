//! Walks a directory tree in the order of raw path bytes.
//!
//! The index is sorted by the bytes of the whole path, so `a`, `a-b`, `a/b` come in this order (`-`
//! sorts before `/`). Sorting each listing by name alone would not yield it. So a directory has two
//! items in its listing, `a` for the entry and `a/` for the descent; sorting these yields the order
//! of the whole tree while one listing per level is in memory. The levels are an explicit stack: a
//! tree may be deeper than the thread's stack allows.
//!
//! Another user may own the tree and change it meanwhile. So it is reached from one open directory,
//! and `stat` is called once for each thing: the walk yields that result, and a descent enters only
//! the directory that it describes.
//!
//! - The walk does not mention what the filter leaves out on purpose.
//! - It yields what could not be read as [`Walked::Skipped`]: the caller counts it, and the run is
//!   not complete.
//! - A file that vanished between its listing and its `stat` counts as never there.
//! - It yields as [`Walked::Note`] what the operator may not expect: a file system that is not
//!   entered, a marker that does not count, a pattern that can match nothing.
//! - A marker counts only if it is a regular file, and never in the root: a user who can write
//!   there could empty the whole source.

mod dropped;
mod error;
mod exclude;
mod filter;
mod left_out;
mod marker;
mod remarks;

use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;

use rustix::io::Errno;

use self::dropped::DroppedLog;
use self::exclude::Excludes;
use self::left_out::NotEntered;
use crate::base::openat::{Dir, Kind, Meta};
use crate::base::skipped::Skipped;

pub use dropped::{DropCause, Dropped};
pub use error::WalkError;
pub use exclude::BadLine;
pub use filter::Filter;

/// A thing in the tree as the walk found it. By now another thing may have its name.
#[derive(Debug, Clone)]
pub struct Found {
    /// The directory that is walked: open the thing from here, by [`Self::rel`].
    pub root: Dir,
    /// The path relative to the root, as raw bytes with `/` between components.
    pub rel: Vec<u8>,
    /// Metadata of the thing itself: symbolic links are not followed.
    pub meta: Meta,
}

impl Found {
    /// Returns the path relative to the root.
    pub fn rel(&self) -> &OsStr {
        OsStr::from_bytes(&self.rel)
    }
}

/// An item of a walk.
#[derive(Debug, Clone)]
pub enum Walked {
    /// A thing that the filter lets through.
    Found(Found),
    /// A thing that could not be read; its `path` is relative to the root.
    Skipped(Skipped),
    /// A line for the operator; nothing is missing that should be there.
    Note(String),
}

/// Walks everything below `root` (not `root` itself) in raw byte order of `rel`.
///
/// Fails only if `root` cannot be listed, is on a pseudo file system of the kernel, or a pattern is
/// malformed.
pub fn walk(root: &Dir, filter: &Filter) -> Result<Walk, WalkError> {
    start(root, filter, DroppedLog::default())
}

/// Does the same as [`walk`], and notes what the filter leaves out, for [`Walk::take_dropped`].
pub fn walk_noting_dropped(root: &Dir, filter: &Filter) -> Result<Walk, WalkError> {
    start(root, filter, DroppedLog::open())
}

fn start(root: &Dir, filter: &Filter, dropped: DroppedLog) -> Result<Walk, WalkError> {
    let unreadable = |source| WalkError::Root {
        path: root.path().to_owned(),
        source,
    };
    let id = Meta::of_fd(root).map_err(unreadable)?;
    if let Some(kind) = left_out::pseudo(root).map_err(unreadable)? {
        let path = root.path().to_owned();
        return Err(WalkError::Pseudo { path, kind });
    }
    let mut notes = remarks::remarks(&filter.excludes, root);
    notes.reverse();
    let mut walk = Walk {
        excludes: filter.compile()?,
        filter: filter.clone(),
        root: root.clone(),
        device: id.dev(),
        levels: Vec::new(),
        pending: None,
        notes,
        left_out: NotEntered::default(),
        dropped,
        buffer: Vec::new(),
    };
    let (level, broken) = walk.list(Vec::new(), root.clone(), id);
    match broken {
        Some(error) if level.items.is_empty() => return Err(unreadable(error)),
        broken => walk.pending = broken.map(|error| skipped(b"", &error)),
    }
    walk.levels.push(level);
    Ok(walk)
}

/// The iterator that [`walk`] returns.
pub struct Walk {
    filter: Filter,
    excludes: Excludes,
    root: Dir,
    /// The root's device.
    device: u64,
    levels: Vec<Level>,
    /// A listing that failed half-way, to be reported before its items.
    pending: Option<Skipped>,
    /// Notes to be yielded, the next one last.
    notes: Vec<String>,
    left_out: NotEntered,
    dropped: DroppedLog,
    /// Reused by every listing.
    buffer: Vec<MaybeUninit<u8>>,
}

/// A directory that is being walked.
struct Level {
    rel: Vec<u8>,
    /// `None`: it is opened again when it is needed.
    dir: Option<Dir>,
    /// The directory itself, so that opening it again can be checked.
    id: Meta,
    /// Items still to come, in descending order by name: the next one is last.
    items: Vec<Item>,
}

struct Item {
    /// Ends with `/` for a descent.
    name: Vec<u8>,
    what: What,
}

enum What {
    /// An entry of the listing, for which `stat` was not called yet.
    Entry { is_dir: bool },
    /// A marker file.
    Marker(Meta),
    /// The descent into a directory.
    Descent(Meta),
}

/// How many of the outermost directories stay open, in addition to the innermost.
const MOST_OPEN: usize = 8;

impl Level {
    /// Returns the open directory; opens it again if it was closed.
    fn open(&mut self, root: &Dir) -> io::Result<Dir> {
        if let Some(dir) = &self.dir {
            return Ok(dir.clone());
        }
        let dir = root.sub(OsStr::from_bytes(&self.rel))?;
        if !Meta::of_fd(&dir)?.is_same(&self.id) {
            return Err(exchanged());
        }
        self.dir = Some(dir.clone());
        Ok(dir)
    }

    /// Inserts the descent into `name` at its place among the items still to come.
    fn descend_later(&mut self, mut name: Vec<u8>, meta: Meta) {
        name.push(b'/');
        let at = self.items.partition_point(|item| item.name > name);
        let what = What::Descent(meta);
        self.items.insert(at, Item { name, what });
    }
}

impl Walk {
    /// Returns what the filter left out since the last call, for a walk that notes it. Of a
    /// directory that is left out, only the directory itself is noted.
    pub fn take_dropped(&mut self) -> Vec<Dropped> {
        self.dropped.take()
    }

    /// Lists `dir`. Returns the level and, if the listing failed half-way, the error.
    fn list(&mut self, rel: Vec<u8>, dir: Dir, id: Meta) -> (Level, Option<io::Error>) {
        let mut found: Vec<(Vec<u8>, Kind)> = Vec::new();
        let mut broken = None;
        if !self.filter.hollow.contains(&id.id()) || rel.is_empty() {
            let take = |name: &OsStr, kind: Kind, _| {
                if kind != Kind::Socket {
                    found.push((name.as_bytes().to_vec(), kind));
                }
                Ok(())
            };
            let listed = match rel.is_empty() {
                // The caller may walk it several times at once.
                true => dir.for_each_entry(take),
                false => dir.for_each_entry_once(&mut self.buffer, take),
            };
            // A directory that was removed meanwhile has no entries.
            broken = listed
                .err()
                .filter(|e| e.kind() != io::ErrorKind::NotFound || rel.is_empty());
        }
        let marker = self.marker(&dir, &found, rel.is_empty());
        let entries = |(name, kind): (Vec<u8>, Kind)| {
            let is_dir = kind == Kind::Dir;
            let what = What::Entry { is_dir };
            (name, is_dir, what)
        };
        let entries: Vec<(Vec<u8>, bool, What)> = match marker {
            Some((name, meta)) => {
                let others = found.iter().filter(|(other, _)| other != name);
                for (other, kind) in others {
                    let cause = DropCause::Marker(name);
                    self.dropped.add(&rel, other, *kind == Kind::Dir, cause);
                }
                vec![(name.to_vec(), false, What::Marker(meta))]
            }
            None => found.into_iter().map(entries).collect(),
        };
        let mut items: Vec<Item> = Vec::with_capacity(entries.len());
        for (name, is_dir, what) in entries {
            match self.excludes.excluded_by(&joined(&rel, &name), is_dir) {
                Some(line) => self
                    .dropped
                    .add(&rel, &name, is_dir, DropCause::Pattern(line)),
                None => items.push(Item { name, what }),
            }
        }
        items.sort_unstable_by(|a, b| b.name.cmp(&a.name));
        let dir = Some(dir);
        let level = Level {
            rel,
            dir,
            id,
            items,
        };
        (level, broken)
    }

    /// Calls `stat` for the entry `name` of the innermost directory, and yields it unless the
    /// filter leaves it out. `was_dir`: the listing called it a directory.
    fn look(&mut self, dir: &Dir, name: Vec<u8>, rel: Vec<u8>, was_dir: bool) -> Option<Walked> {
        let meta = match dir.meta_of_entry(OsStr::from_bytes(&name)) {
            Ok(meta) => meta,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
            Err(e) => return Some(Walked::Skipped(skipped(&rel, &e))),
        };
        let is_dir = meta.is_dir();
        // Its kind may have changed since it was listed.
        if is_dir != was_dir
            && let Some(line) = self.excludes.excluded_by(&rel, is_dir)
        {
            let cause = DropCause::Pattern(line);
            self.dropped.add(b"", &rel, is_dir, cause);
            return None;
        }
        if meta.is_file() && self.is_mounted_pseudo(dir, &name, &rel, &meta) {
            return None;
        }
        self.take(name, rel, meta)
    }

    /// Whether this file is a mount of its own from a pseudo file system.
    fn is_mounted_pseudo(&mut self, dir: &Dir, name: &[u8], rel: &[u8], meta: &Meta) -> bool {
        let above = self.levels.last().map(|level| level.id.dev());
        if above == Some(meta.dev()) {
            return false;
        }
        let place = dir.open_place(OsStr::from_bytes(name));
        match place.and_then(left_out::pseudo) {
            Ok(Some(kind)) => {
                self.left_out.pseudo(rel, kind);
                true
            }
            _ => false,
        }
    }

    /// Yields the thing that `meta` describes unless the filter leaves it out, and plans the
    /// descent into a directory.
    fn take(&mut self, name: Vec<u8>, rel: Vec<u8>, meta: Meta) -> Option<Walked> {
        let is_dir = meta.is_dir();
        let too_large = |max| meta.is_file() && meta.len() > max;
        if self.filter.max_file_bytes.is_some_and(too_large) {
            self.dropped.add(b"", &rel, false, DropCause::TooLarge);
            return None;
        }
        if meta.kind() == Kind::Socket {
            return None;
        }
        if is_dir && let Some(level) = self.levels.last_mut() {
            level.descend_later(name, meta);
        }
        let root = self.root.clone();
        Some(Walked::Found(Found { root, rel, meta }))
    }

    /// Enters the directory `name` of `parent` if it is still the one that `seen` describes.
    fn descend(&mut self, parent: &Dir, name: &[u8], rel: Vec<u8>, seen: &Meta) -> Option<Walked> {
        let name = OsStr::from_bytes(name);
        let opened = parent
            .sub(name)
            .and_then(|dir| Ok((Meta::of_fd(&dir)?, dir)));
        let (id, dir) = match opened {
            Ok(opened) => opened,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
            Err(e) => return Some(Walked::Skipped(skipped(&rel, &e))),
        };
        let above = self.levels.last().map(|level| level.id.dev());
        if above != Some(id.dev())
            && let Ok(Some(kind)) = left_out::pseudo(&dir)
        {
            self.left_out.pseudo(&rel, kind);
            return None;
        }
        if self.filter.one_file_system && id.dev() != self.device {
            self.left_out.mount(&rel);
            return None;
        }
        // Opening a directory may mount an automount there, which changes the device; a rename
        // never does.
        let is_mounted = || {
            id.dev() != seen.dev() && parent.meta_of_entry(name).is_ok_and(|now| now.is_same(&id))
        };
        if !id.is_same(seen) && !is_mounted() {
            return Some(Walked::Skipped(skipped(&rel, &exchanged())));
        }
        if self.levels.len() > MOST_OPEN
            && let Some(above) = self.levels.last_mut()
        {
            above.dir = None;
        }
        let (level, broken) = self.list(rel, dir, id);
        self.pending = broken.map(|error| skipped(&level.rel, &error));
        self.levels.push(level);
        None
    }
}

impl Iterator for Walk {
    type Item = Walked;
    fn next(&mut self) -> Option<Walked> {
        loop {
            if let Some(skipped) = self.pending.take() {
                return Some(Walked::Skipped(skipped));
            }
            if let Some(note) = self.notes.pop() {
                return Some(Walked::Note(note));
            }
            let Some(level) = self.levels.last_mut() else {
                self.notes = self.left_out.take_notes(self.root.path());
                return self.notes.pop().map(Walked::Note);
            };
            let Some(Item { mut name, what }) = level.items.pop() else {
                self.levels.pop();
                continue;
            };
            let dir = match level.open(&self.root) {
                Ok(dir) => dir,
                Err(error) => {
                    level.items.clear();
                    if error.kind() == io::ErrorKind::NotFound {
                        continue;
                    }
                    return Some(Walked::Skipped(skipped(&level.rel, &error)));
                }
            };
            let walked = match what {
                What::Entry { is_dir } => {
                    let rel = joined(&level.rel, &name);
                    self.look(&dir, name, rel, is_dir)
                }
                What::Marker(meta) => {
                    let rel = joined(&level.rel, &name);
                    self.take(name, rel, meta)
                }
                What::Descent(seen) => {
                    name.pop();
                    let rel = joined(&level.rel, &name);
                    self.descend(&dir, &name, rel, &seen)
                }
            };
            if walked.is_some() {
                return walked;
            }
        }
    }
}

/// Returns the path of the entry `name` of the directory `rel`.
fn joined(rel: &[u8], name: &[u8]) -> Vec<u8> {
    if rel.is_empty() {
        return name.to_vec();
    }
    [rel, b"/", name].concat()
}

/// Returns the error for a thing whose name another one took while it was read.
pub fn exchanged() -> io::Error {
    io::Error::other(
        "something else took its place while it was read; the next backup reads it again",
    )
}

/// Returns the report for a thing that could not be read.
fn skipped(rel: &[u8], error: &io::Error) -> Skipped {
    let is = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
    Skipped {
        path: String::from_utf8_lossy(rel).into_owned(),
        reason: match error.kind() {
            io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            _ if is(Errno::LOOP) || is(Errno::NOTDIR) => exchanged().to_string(),
            _ => error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests;
