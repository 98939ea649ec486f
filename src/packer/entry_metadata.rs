//! A file's metadata as an index entry.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt as _;

use crate::base::openat::{self, Kind, Meta};
use crate::format::archive::tar_member::Member;
use crate::format::index::{Entry, EntryType};
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

/// The entry at `path` of what `meta` describes, without content, and why its attributes could not be read,
/// if so. `None` for a socket, which holds no data. `target`: the text of a link.
pub fn entry(
    path: Vec<u8>,
    meta: &Meta,
    names: &Names,
    attributes: io::Result<Attributes>,
    target: Option<Vec<u8>>,
) -> Option<(Entry, Option<io::Error>)> {
    let kind = match meta.kind() {
        Kind::File => EntryType::File,
        Kind::Dir => EntryType::Dir,
        Kind::Symlink => EntryType::Symlink,
        Kind::Fifo => EntryType::Fifo,
        Kind::CharDevice => EntryType::Chardev,
        Kind::BlockDevice => EntryType::Blockdev,
        Kind::Socket | Kind::Unknown => return None,
    };
    let device = matches!(kind, EntryType::Chardev | EntryType::Blockdev);
    let rdev = meta.rdev();
    let (xattrs, unread) = match attributes {
        Ok(xattrs) => (xattrs, None),
        Err(error) => (BTreeMap::new(), Some(error)),
    };
    let entry = Entry {
        path,
        kind,
        mode: meta.permissions(),
        uid: meta.uid(),
        gid: meta.gid(),
        user: names.user(meta.uid()),
        group: names.group(meta.gid()),
        mtime_ns: mtime_ns(meta),
        xattrs,
        size: 0,
        blake3: None,
        extents: Vec::new(),
        target,
        rdev: device.then(|| (rustix::fs::major(rdev), rustix::fs::minor(rdev))),
        torn: false,
    };
    Some((entry, unread))
}

pub fn mtime_ns(meta: &Meta) -> i128 {
    i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec())
}

/// The extended attributes of an open file.
pub fn attributes(fd: impl AsFd) -> io::Result<Attributes> {
    openat::list_xattrs(fd).map(by_bytes)
}

pub fn by_bytes(attributes: BTreeMap<OsString, Vec<u8>>) -> Attributes {
    let pairs = attributes.into_iter();
    pairs
        .map(|(name, value)| (name.into_vec(), value))
        .collect()
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
        mtime_s: i64::try_from(entry.mtime_ns.div_euclid(1_000_000_000)).unwrap_or_default(),
        texture: Texture::default(),
    }
}
