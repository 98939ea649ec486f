//! The directory in which a restored tree is made, and the step that puts the tree in its place.
//!
//! It is a sibling of the destination, `.<name>.sealift-partial-<16 hex digits>`, so that a rename
//! puts it there. If that is impossible (a mount point, a parent that this process may not write,
//! the current directory), it is inside the destination and its entries are moved up one by one
//! ([`inside`](super::inside)).
//!
//! The destination and the directory above it may belong to another user, who can rename the
//! staging directory and put something else under its name while root restores. So everything goes
//! by descriptors: the content of the staging directory, its attributes, and every rename, whose
//! outcome is compared with the open directory.
//!
//! Dropped before it is placed, it removes itself. If its process was killed, its lock is gone, and
//! the next restore to the same destination removes it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::access_list::mode_without;
use super::destination::{Destination, StagingPlace};
use super::inside::{self, INSIDE_PREFIX, TREE};
use crate::base::cleanup::CleanupGuard;
use crate::base::ids::Stamp;
use crate::base::openat::{
    ACCESS_LISTS, Dir, FileOwner, Meta, PrivateDir, chmod_fd, chown_fd, list_xattrs, set_xattr_fd,
};

/// Bytes of the destination's name that the staging directory's name contains: the whole must stay
/// under 255 bytes.
const MAX_NAME_BYTES: usize = 200;
const SET_GID: u32 = 0o2000;
/// How often an ending process looks whether other threads have done their step, and how long it
/// waits between two looks.
const MOST_LOOKS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(20);
/// The permissions of a destination that did not exist, whatever the umask: what is in it may be
/// secret, and files come back with their own modes.
const NEW_DIRECTORY: u32 = 0o700;

/// Why a staging directory could not be made or put in its place.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}", path.display())]
pub struct StagingError {
    /// A verb and, if need be, a preposition.
    pub operation: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Returns what makes an I/O error of `operation` on `path` a [`StagingError`].
pub(super) fn fail(
    operation: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> StagingError + use<> {
    let path = path.to_path_buf();
    move |source| StagingError {
        operation,
        path,
        source,
    }
}

/// A staging directory.
pub(super) struct Staging {
    private: Arc<PrivateDir>,
    /// The directory whose content becomes the destination's.
    tree: Dir,
    destination: Destination,
    /// Removes it if this process must end: its content is decrypted.
    removal: Removal,
}

/// A duty that ends when its staging directory is placed or dropped.
struct Removal(CleanupGuard);

impl Drop for Removal {
    fn drop(&mut self) {
        self.0.take();
    }
}

impl Staging {
    /// Removes the directories that dead restores to the same destination left, finishes a restore
    /// that died while it put its tree in place, and makes a new directory.
    pub(super) fn create(mut destination: Destination) -> Result<Self, StagingError> {
        let parent = make_parent(&mut destination)?;
        let prefix = prefix_of(&destination);
        if let (StagingPlace::Inside, Some(dir)) = (destination.place, &destination.there) {
            inside::resume(dir).map_err(fail("finish the interrupted restore to", dir.path()))?;
        }
        PrivateDir::remove_abandoned(&parent, &prefix, Duration::ZERO);
        // The duty is registered before there is anything to remove.
        let slot: Arc<OwedSlot> = Arc::default();
        let removal = Removal(owe_removal(Arc::clone(&slot)));
        let begun = |_: &OsStr| slot.is_begun.store(true, Ordering::SeqCst);
        let private = PrivateDir::make(&parent, &prefix, begun)
            .map_err(fail("make", &parent.path_of(&prefix)))?;
        let private = Arc::new(private);
        let _ = slot.made.set(Arc::clone(&private));
        let path = parent.path_of(private.name());
        let tree = match destination.place {
            StagingPlace::Sibling => private.dir().clone(),
            StagingPlace::Inside => {
                let made = private.dir().make_dir(TREE, 0o700);
                made.map_err(fail("make a directory in", &path))?
            }
        };
        Ok(Self {
            private,
            tree,
            destination,
            removal,
        })
    }

    /// Returns the root of the tree.
    pub(super) fn tree(&self) -> &Dir {
        &self.tree
    }

    /// Makes the tree the destination. Returns the path of the previous content, if there was any.
    pub(super) fn place(self, stamp: Stamp) -> Result<Option<PathBuf>, StagingError> {
        // From here on it must not be removed: half of it may be in its place.
        self.removal.0.take();
        match self.destination.place {
            StagingPlace::Sibling => self.place_sibling(stamp),
            StagingPlace::Inside => self.place_inside(stamp),
        }
    }

    fn parent(&self) -> &Dir {
        self.private.parent()
    }

    fn place_sibling(&self, stamp: Stamp) -> Result<Option<PathBuf>, StagingError> {
        let (to, parent) = (&self.destination.path, self.parent());
        self.take_attributes()?;
        let aside = match self.destination.full {
            true => Some(self.exchange(stamp)?),
            false => {
                // This replaces nothing but an empty directory; anything else makes it fail.
                let renamed = parent.rename(self.private.name(), parent, &self.destination.name);
                renamed.map_err(fail("move the restored tree to", to))?;
                None
            }
        };
        if !parent.is_still(&self.destination.name, self.private.meta()) {
            let what = "another user exchanged the restored tree during the final rename";
            return Err(fail("restore to", to)(io::Error::other(what)));
        }
        self.private.keep();
        let flushed = parent.sync();
        flushed.map_err(fail("flush the directory of", to))?;
        Ok(aside.map(|aside| parent.path_of(aside)))
    }

    /// Sets the owner, mode and access lists of the tree to those of the destination, if that
    /// exists.
    fn take_attributes(&self) -> Result<(), StagingError> {
        let path = self.parent().path_of(self.private.name());
        let set = || {
            let mut mode = NEW_DIRECTORY;
            if let Some(previous) = &self.destination.there {
                mode = take_from(previous, &self.tree)?;
            }
            chmod_fd(&self.tree, mode)
        };
        set().map_err(fail("set the owner and mode of", &path))
    }

    /// Swaps the tree with a destination that has content. Returns the old content's name. The tree
    /// takes that name first, and then the two are exchanged in one step: so the old content never
    /// has a name that a clean-up would remove, and the destination is never missing.
    fn exchange(&self, stamp: Stamp) -> Result<OsString, StagingError> {
        let (parent, name) = (self.parent(), &self.destination.name);
        let (ours, to) = (self.private.name(), &self.destination.path);
        let aside = free_name(parent, name, stamp).map_err(fail("look beside", to))?;
        let aside_path = parent.path_of(&aside);
        parent
            .rename(ours, parent, &aside)
            .map_err(fail("move the restored tree to", &aside_path))?;
        if parent.exchange(&aside, parent, name).is_ok() {
            return Ok(aside);
        }
        // On a file system without exchange there are two renames; the first is undone if the
        // second fails.
        parent
            .rename(&aside, parent, ours)
            .map_err(fail("move back", &aside_path))?;
        parent
            .rename(name, parent, &aside)
            .map_err(fail("move aside", to))?;
        if let Err(error) = parent.rename(ours, parent, name) {
            parent
                .rename(&aside, parent, name)
                .map_err(fail("move back", &aside_path))?;
            return Err(fail("move the restored tree to", to)(error));
        }
        Ok(aside)
    }

    fn place_inside(&self, stamp: Stamp) -> Result<Option<PathBuf>, StagingError> {
        let path = &self.destination.path;
        let Some(to) = &self.destination.there else {
            let gone = io::Error::from(io::ErrorKind::NotFound);
            return Err(fail("restore to", path)(gone));
        };
        let aside = match self.destination.full {
            false => None,
            true => {
                let free = free_name(to, OsStr::new("content"), stamp);
                Some(free.map_err(fail("look at", path))?)
            }
        };
        inside::place(to, &self.private, &self.tree, aside.as_deref(), stamp)
            .map_err(fail("put the restored tree in its place in", path))?;
        Ok(aside.map(|aside| to.path_of(aside)))
    }
}

/// Sets owner and access lists of `tree` to those of `previous`, as far as possible. Returns the
/// mode to set with them.
fn take_from(previous: &Dir, tree: &Dir) -> io::Result<u32> {
    let meta = Meta::of_fd(previous)?;
    // Only root can change the owner.
    if chown_fd(tree, FileOwner::new(meta.uid(), meta.gid())?).is_err() {
        let _ = FileOwner::only_group(meta.gid()).and_then(|owner| chown_fd(tree, owner));
    }
    let mut mode = meta.permissions();
    for (name, value) in list_xattrs(previous)? {
        let is_list = ACCESS_LISTS.iter().any(|list| name == *list);
        if is_list && set_xattr_fd(tree, &name, &value).is_err() && name == ACCESS_LISTS[0] {
            mode = mode_without(&value, mode);
        }
    }
    let now = Meta::of_fd(tree)?;
    Ok(match now.gid() == meta.gid() {
        true => mode,
        false => mode & !SET_GID,
    })
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.removal.0.take() {
            let _ = self.private.remove();
        }
    }
}

/// Makes the missing directories above the destination. Returns the directory for the staging
/// directory.
fn make_parent(destination: &mut Destination) -> Result<Dir, StagingError> {
    if let (StagingPlace::Inside, Some(dir)) = (destination.place, &destination.there) {
        return Ok(dir.clone());
    }
    let mut parent = destination.above.clone();
    for name in std::mem::take(&mut destination.between) {
        let path = parent.path_of(&name);
        let made = parent.make_dirs(&name, 0o777);
        parent = made.map_err(fail("make", &path))?;
    }
    destination.above = parent.clone();
    Ok(parent)
}

/// Returns the staging directory's name without the random digits.
fn prefix_of(destination: &Destination) -> OsString {
    match destination.place {
        StagingPlace::Inside => INSIDE_PREFIX.into(),
        StagingPlace::Sibling => {
            let name = destination.name.as_bytes();
            let name = &name[..name.len().min(MAX_NAME_BYTES)];
            OsString::from_vec([b".", name, INSIDE_PREFIX.as_bytes()].concat())
        }
    }
}

/// A staging directory that is to be removed.
#[derive(Default)]
struct OwedSlot {
    /// Another thread is about to make it, or has made it.
    is_begun: AtomicBool,
    made: OnceLock<Arc<PrivateDir>>,
}

impl OwedSlot {
    /// Returns the directory, for which it waits while another thread makes it. `None`: there is
    /// none.
    fn wait(&self) -> Option<&Arc<PrivateDir>> {
        for _ in 0..MOST_LOOKS {
            if self.made.get().is_some() || !self.is_begun.load(Ordering::SeqCst) {
                break;
            }
            std::thread::sleep(PAUSE);
        }
        self.made.get()
    }
}

/// Has the directory in `slot` removed if this process must end.
fn owe_removal(slot: Arc<OwedSlot>) -> CleanupGuard {
    CleanupGuard::register(move || {
        let Some(private) = slot.wait() else {
            return "nothing was restored yet".to_owned();
        };
        // Other threads write into it until the process ends.
        let mut removed = Ok(());
        for _ in 0..MOST_LOOKS {
            removed = private.remove();
            if removed.is_ok() {
                return "removed what was restored so far".to_owned();
            }
            std::thread::sleep(PAUSE);
        }
        let path = private.parent().path_of(private.name());
        let why = removed.err().map(|error| error.to_string());
        format!(
            "could not remove {}, which holds decrypted files ({}): remove it",
            path.display(),
            why.unwrap_or_default()
        )
    })
}

/// Returns `<name>.before-restore-<stamp>`, with the first stamp from `stamp` on that is free in
/// `dir`.
fn free_name(dir: &Dir, name: &OsStr, mut stamp: Stamp) -> io::Result<OsString> {
    loop {
        let mut free = name.to_owned();
        free.push(format!(".before-restore-{stamp}"));
        if dir.try_meta(&free)?.is_none() {
            return Ok(free);
        }
        stamp = stamp.next();
    }
}
