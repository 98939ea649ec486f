//! A file's metadata as an index entry.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use crate::index::{Entry, EntryType};
use crate::packer::member::Member;
use crate::packer::seal::Texture;

/// Names of users and groups, asked once each.
#[derive(Default)]
pub struct Names {
    users: RefCell<HashMap<u32, Option<String>>>,
    groups: RefCell<HashMap<u32, Option<String>>>,
}

impl Names {
    fn user(&self, uid: u32) -> Option<String> {
        let ask = || uzers::get_user_by_uid(uid).map(|u| u.name().to_string_lossy().into_owned());
        self.users
            .borrow_mut()
            .entry(uid)
            .or_insert_with(ask)
            .clone()
    }

    fn group(&self, gid: u32) -> Option<String> {
        let ask = || uzers::get_group_by_gid(gid).map(|g| g.name().to_string_lossy().into_owned());
        self.groups
            .borrow_mut()
            .entry(gid)
            .or_insert_with(ask)
            .clone()
    }
}

/// Extended attributes: name → value.
pub type Attributes = BTreeMap<Vec<u8>, Vec<u8>>;

/// The entry of `abs` at `path`, without content, and why its attributes could not be read, if so.
/// `None` for a socket, which holds no data. `attributes`: if they were read already.
pub fn entry(
    path: Vec<u8>,
    abs: &Path,
    meta: &Metadata,
    names: &Names,
    attributes: Option<io::Result<Attributes>>,
) -> io::Result<Option<(Entry, Option<io::Error>)>> {
    let kind = meta.file_type();
    let kind = if kind.is_file() {
        EntryType::File
    } else if kind.is_dir() {
        EntryType::Dir
    } else if kind.is_symlink() {
        EntryType::Symlink
    } else if kind.is_fifo() {
        EntryType::Fifo
    } else if kind.is_char_device() {
        EntryType::Chardev
    } else if kind.is_block_device() {
        EntryType::Blockdev
    } else {
        return Ok(None);
    };
    let target = match kind {
        EntryType::Symlink => Some(std::fs::read_link(abs)?.as_os_str().as_bytes().to_vec()),
        _ => None,
    };
    let device = matches!(kind, EntryType::Chardev | EntryType::Blockdev);
    let rdev = meta.rdev();
    let (xattrs, unread) = match attributes.unwrap_or_else(|| self::attributes(abs)) {
        Ok(xattrs) => (xattrs, None),
        // A directory keeps its place: what is in it may be there.
        Err(error) if error.kind() == io::ErrorKind::NotFound && kind == EntryType::Dir => {
            (BTreeMap::new(), None)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
        Err(error) => (BTreeMap::new(), Some(error)),
    };
    let entry = Entry {
        path,
        kind,
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        user: names.user(meta.uid()),
        group: names.group(meta.gid()),
        mtime_ns: meta
            .mtime()
            .saturating_mul(1_000_000_000)
            .saturating_add(meta.mtime_nsec()),
        xattrs,
        size: 0,
        blake3: None,
        extents: Vec::new(),
        target,
        rdev: device.then(|| (rustix::fs::major(rdev), rustix::fs::minor(rdev))),
        torn: false,
    };
    Ok(Some((entry, unread)))
}

/// Extended attributes, of a symlink its own. A file system that has none gives none.
pub fn attributes(abs: &Path) -> io::Result<Attributes> {
    let mut found = BTreeMap::new();
    let names = match xattr::list(abs) {
        Err(e) if e.kind() == io::ErrorKind::Unsupported => return Ok(found),
        other => other?,
    };
    for name in names {
        // One that vanished since, or that only root may read, is not there for us.
        if let Ok(Some(value)) = xattr::get(abs, &name) {
            found.insert(name.as_bytes().to_vec(), value);
        }
    }
    Ok(found)
}

/// A directory that no part provides, on the way to one that does.
pub fn synthetic_dir(path: Vec<u8>) -> Entry {
    Entry {
        path,
        kind: EntryType::Dir,
        mode: 0o755,
        uid: 0,
        gid: 0,
        user: None,
        group: None,
        mtime_ns: 0,
        xattrs: BTreeMap::new(),
        size: 0,
        blake3: None,
        extents: Vec::new(),
        target: None,
        rdev: None,
        torn: false,
    }
}

/// What the archive's headers say of the entry.
pub fn member(entry: &Entry) -> Member {
    Member {
        path: entry.path.clone(),
        size: 0,
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        user: entry.user.clone(),
        group: entry.group.clone(),
        mtime_s: entry.mtime_ns.div_euclid(1_000_000_000),
        texture: Texture::default(),
    }
}
