//! The directory that a restore grows in, and the one step that puts it in its place.
//!
//! It is a sibling of the destination, `.<name>.sealift-partial-<16 hex digits>`, so that a rename
//! puts it there; where that cannot be (a mount point, a parent that is not ours to write, the current
//! directory) it is inside the destination and its entries move up one by one. Its owner holds an
//! `flock` on it. Dropped before it was placed, it removes itself; if its process was killed, the lock
//! is gone, and the next restore to the same destination removes it.

use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{self as sys, AtFlags, CWD, FlockOperation, Mode, OFlags, RenameFlags};

use super::destination::{Destination, Place};
use crate::ids::{Stamp, hex, unhex};
use crate::interrupt::Duty;

const MARK: &str = "sealift-partial-";
/// Of the destination's name in the staging directory's: the whole must stay under 255 bytes.
const MAX_NAME_BYTES: usize = 200;

#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}", path.display())]
pub struct StagingError {
    pub operation: &'static str,
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

fn fail<E: Into<io::Error>>(
    operation: &'static str,
    path: &Path,
) -> impl FnOnce(E) -> StagingError {
    let path = path.to_path_buf();
    move |source| StagingError {
        operation,
        path,
        source: source.into(),
    }
}

pub(super) struct Staging {
    path: PathBuf,
    /// Holds the lock; the file system drops it when the last copy closes.
    dir: OwnedFd,
    destination: Destination,
    /// What `mkdir` would have given without our caution.
    mode: u32,
    placed: bool,
    /// Removes it if this process is told to end: what is in it is decrypted.
    removal: Removal,
}

/// Owed before there is anything to remove, and no longer than its directory is meant to be there.
struct Removal(Duty);

impl Drop for Removal {
    fn drop(&mut self) {
        self.0.take();
    }
}

impl Staging {
    /// Removes what dead restores to the same destination left and makes a fresh directory.
    pub(super) fn create(destination: Destination) -> Result<Self, StagingError> {
        let (parent, prefix) = location(&destination);
        fs::create_dir_all(&parent).map_err(fail("make", &parent))?;
        remove_stale(&parent, &prefix);
        loop {
            let mut random = [0; 8];
            let filled = getrandom::fill(&mut random).map_err(io::Error::other);
            filled.map_err(fail("name a directory in", &parent))?;
            let mut name = prefix.clone();
            name.push(hex(&random));
            let path = parent.join(name);
            let removal = Removal(owe_removal(&path));
            fs::create_dir(&path).map_err(fail("make", &path))?;
            let made = fs::metadata(&path).map_err(fail("look at", &path))?;
            let private = fs::Permissions::from_mode(0o700);
            fs::set_permissions(&path, private).map_err(fail("protect", &path))?;
            let dir = open_dir(&path).map_err(fail("open", &path))?;
            sys::flock(&dir, FlockOperation::NonBlockingLockExclusive)
                .map_err(fail("lock", &path))?;
            // Another restore may have taken it for a dead one's before we had the lock.
            if fs::symlink_metadata(&path).is_ok_and(|now| now.ino() == made.ino()) {
                return Ok(Self {
                    removal,
                    path,
                    dir,
                    destination,
                    mode: made.mode() & 0o7777,
                    placed: false,
                });
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn dir(&self) -> io::Result<OwnedFd> {
        self.dir.try_clone()
    }

    /// Makes the tree the destination. Gives where the previous one is now, if there was one.
    pub(super) fn place(mut self, stamp: Stamp) -> Result<Option<PathBuf>, StagingError> {
        // From here on half of it may be in its place already.
        self.removal.0.take();
        let aside = match self.destination.place {
            Place::Sibling => self.place_sibling(stamp)?,
            Place::Inside => self.place_inside(stamp)?,
        };
        self.placed = true;
        Ok(aside)
    }

    fn place_sibling(&self, stamp: Stamp) -> Result<Option<PathBuf>, StagingError> {
        let to = &self.destination.path;
        self.take_attributes(to)?;
        let aside = match self.destination.full {
            true => Some(self.exchange(to, &free_name(to, stamp))?),
            false => {
                // Over nothing or over an empty directory; anything else makes it fail.
                fs::rename(&self.path, to).map_err(fail("move the restored tree to", to))?;
                None
            }
        };
        crate::fs::sync_parent(to).map_err(fail("flush the directory of", to))?;
        Ok(aside)
    }

    /// The destination keeps the mode and owner it had.
    fn take_attributes(&self, to: &Path) -> Result<(), StagingError> {
        let mut mode = self.mode;
        if let Ok(previous) = fs::metadata(to) {
            mode = previous.mode() & 0o7777;
            let (uid, gid) = (previous.uid(), previous.gid());
            let _ = std::os::unix::fs::chown(&self.path, Some(uid), Some(gid));
        }
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(&self.path, mode).map_err(fail("set the mode of", &self.path))
    }

    /// Swaps the tree with a destination that has content. The tree takes the name `aside` first and
    /// both change places in one step, so at no moment is the old content under a name that a
    /// clean-up would remove, or the destination missing.
    fn exchange(&self, to: &Path, aside: &Path) -> Result<PathBuf, StagingError> {
        fs::rename(&self.path, aside).map_err(fail("move the restored tree to", aside))?;
        let swapped = sys::renameat_with(CWD, aside, CWD, to, RenameFlags::EXCHANGE);
        if swapped.is_ok() {
            return Ok(aside.to_path_buf());
        }
        // A file system without exchange: two renames, taken back if the second fails.
        fs::rename(aside, &self.path).map_err(fail("move back", aside))?;
        fs::rename(to, aside).map_err(fail("move aside", to))?;
        if let Err(error) = fs::rename(&self.path, to) {
            fs::rename(aside, to).map_err(fail("move back", aside))?;
            return Err(fail("move the restored tree to", to)(error));
        }
        Ok(aside.to_path_buf())
    }

    fn place_inside(&self, stamp: Stamp) -> Result<Option<PathBuf>, StagingError> {
        let to = &self.destination.path;
        let own = self.path.file_name().unwrap_or_default();
        let mut moves = Moves::default();
        let moved = (|| {
            let aside = match self.destination.full {
                false => None,
                true => {
                    let aside = free_name(&to.join("content"), stamp);
                    fs::create_dir(&aside).map_err(fail("make", &aside))?;
                    let keep = [Some(own), aside.file_name(), Some(OsStr::new("lost+found"))];
                    moves.all(to, &aside, &keep)?;
                    Some(aside)
                }
            };
            moves.all(&self.path, to, &[])?;
            Ok(aside)
        })();
        if moved.is_err() {
            moves.undo();
        } else {
            let _ = fs::remove_dir(&self.path);
            crate::fs::sync_dir(to).map_err(fail("flush", to))?;
        }
        moved
    }
}

fn owe_removal(path: &Path) -> Duty {
    let path = path.to_path_buf();
    Duty::owe(move || {
        // Others go on writing in it until the process ends.
        let removed = (0..20).any(|_| {
            remove_tree(&path).is_ok() && !path.exists() || {
                std::thread::sleep(Duration::from_millis(20));
                false
            }
        });
        let path = path.display();
        match removed {
            true => "removed what was restored so far".to_owned(),
            false => format!("could not remove {path}, which holds decrypted files: remove it"),
        }
    })
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.placed && self.removal.0.take() {
            let _ = remove_tree(&self.path);
        }
    }
}

/// Renames that can be taken back.
#[derive(Default)]
struct Moves(Vec<(PathBuf, PathBuf)>);

impl Moves {
    fn all(&mut self, from: &Path, to: &Path, keep: &[Option<&OsStr>]) -> Result<(), StagingError> {
        for entry in fs::read_dir(from).map_err(fail("list", from))? {
            let name = entry.map_err(fail("list", from))?.file_name();
            if !keep.contains(&Some(&name)) {
                let (source, target) = (from.join(&name), to.join(&name));
                move_entry(&source, &target).map_err(fail("move", &source))?;
                self.0.push((source, target));
            }
        }
        Ok(())
    }

    fn undo(self) {
        for (source, target) in self.0.into_iter().rev() {
            let _ = move_entry(&target, &source);
        }
    }
}

/// A rename into another directory. One whose mode forbids its owner to write is refused that (its
/// `..` would change), so it gets the permission for that moment.
fn move_entry(source: &Path, target: &Path) -> io::Result<()> {
    match fs::rename(source, target) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let real = fs::symlink_metadata(source)?;
            if !real.is_dir() {
                return Err(error);
            }
            fs::set_permissions(source, fs::Permissions::from_mode(0o700))?;
            let renamed = fs::rename(source, target);
            let now = if renamed.is_ok() { target } else { source };
            fs::set_permissions(now, real.permissions())?;
            renamed
        }
        other => other,
    }
}

/// The directory that the staging directory stands in, and its name without the random digits.
fn location(destination: &Destination) -> (PathBuf, OsString) {
    let to = &destination.path;
    match (&destination.place, to.parent(), to.file_name()) {
        (Place::Sibling, Some(parent), Some(name)) => {
            let name = name.as_bytes();
            let name = &name[..name.len().min(MAX_NAME_BYTES)];
            let prefix = [b".", name, b".", MARK.as_bytes()].concat();
            (parent.to_path_buf(), OsString::from_vec(prefix))
        }
        _ => (to.clone(), format!(".{MARK}").into()),
    }
}

/// Whether `name` is a staging directory's inside its destination.
pub(super) fn is_staging_inside(name: &OsStr) -> bool {
    has_shape(name, format!(".{MARK}").as_ref())
}

fn has_shape(name: &OsStr, prefix: &OsStr) -> bool {
    let rest = name.as_bytes().strip_prefix(prefix.as_bytes());
    let text = rest.and_then(|rest| std::str::from_utf8(rest).ok());
    text.is_some_and(|text| text.len() == 16 && unhex(text).is_some())
}

/// `<to>.before-restore-<stamp>`, with the first stamp from `stamp` on that is free.
fn free_name(to: &Path, mut stamp: Stamp) -> PathBuf {
    loop {
        let mut name = to.as_os_str().to_owned();
        name.push(format!(".before-restore-{stamp}"));
        let path = PathBuf::from(name);
        if fs::symlink_metadata(&path).is_err() {
            return path;
        }
        stamp = stamp.next();
    }
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(sys::openat(CWD, path, flags, Mode::empty())?)
}

/// Removes staging directories whose process is gone. What cannot be removed stays: it is in
/// nobody's way.
fn remove_stale(parent: &Path, prefix: &OsStr) {
    let uid = rustix::process::geteuid().as_raw();
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let ours = entry.metadata().is_ok_and(|m| m.is_dir() && m.uid() == uid);
        if !ours || !has_shape(&entry.file_name(), prefix) {
            continue;
        }
        let Ok(dir) = open_dir(&entry.path()) else {
            continue;
        };
        if sys::flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = remove_tree(&entry.path());
        }
    }
}

/// Removes a tree whose directories may already have modes that forbid it, or be more deeply nested than files
/// can be open at once.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => remove_step_by_step(path),
        other => other,
    }
}

/// One directory is open at a time.
fn remove_step_by_step(path: &Path) -> io::Result<()> {
    let enter = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    sys::chmodat(CWD, path, Mode::RWXU, AtFlags::empty())?;
    let mut dir = open_dir(path)?;
    // The names on the way down, each with what else is to be removed beside it.
    let mut above: Vec<(CString, Vec<CString>)> = Vec::new();
    let mut inner = empty(&dir)?;
    loop {
        if let Some(name) = inner.pop() {
            sys::chmodat(&dir, &name, Mode::RWXU, AtFlags::empty())?;
            dir = sys::openat(&dir, &name, enter, Mode::empty())?;
            above.push((name, std::mem::replace(&mut inner, empty(&dir)?)));
        } else if let Some((name, beside)) = above.pop() {
            dir = sys::openat(&dir, "..", enter, Mode::empty())?;
            sys::unlinkat(&dir, &name, AtFlags::REMOVEDIR)?;
            inner = beside;
        } else {
            return fs::remove_dir(path);
        }
    }
}

/// Removes what is no directory in `dir`; gives the names of those that are.
fn empty(dir: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut dirs = Vec::new();
    for entry in sys::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if [c".", c".."].contains(&name) {
            continue;
        }
        let found = sys::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match sys::FileType::from_raw_mode(found.st_mode) {
            sys::FileType::Directory => dirs.push(name.to_owned()),
            _ => sys::unlinkat(dir, name, AtFlags::empty())?,
        }
    }
    Ok(dirs)
}
