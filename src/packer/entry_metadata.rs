//! Turns a file's metadata into an index entry and into a tar header.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt as _;

use super::archive_writer::NewMember;
use super::seal::Texture;
use crate::base::openat::{self, Kind, Meta};
use crate::format::archive::tar_member::TarMember;
use crate::format::index::{Entry, EntryType};

/// OwnerNames of users and groups, asked once each.
#[derive(Default)]
pub(super) struct OwnerNames {
    users: RefCell<HashMap<u32, Option<String>>>,
    groups: RefCell<HashMap<u32, Option<String>>>,
}

impl OwnerNames {
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
pub(super) type Attributes = BTreeMap<Vec<u8>, Vec<u8>>;

/// Returns the entry at `path` of the file that `meta` describes, without content, and the error if
/// its attributes cannot be read. `None` for a socket, which holds no data. `target` is the text of
/// a symlink.
pub(super) fn entry(
    path: Vec<u8>,
    meta: &Meta,
    names: &OwnerNames,
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

/// Returns the time of modification in nanoseconds since 1970.
pub(super) fn mtime_ns(meta: &Meta) -> i128 {
    i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec())
}

/// Returns the extended attributes of an open file.
pub(super) fn attributes(fd: impl AsFd) -> io::Result<Attributes> {
    openat::list_xattrs(fd).map(by_bytes)
}

/// Converts names of attributes to bytes.
pub(super) fn by_bytes(attributes: BTreeMap<OsString, Vec<u8>>) -> Attributes {
    let pairs = attributes.into_iter();
    pairs
        .map(|(name, value)| (name.into_vec(), value))
        .collect()
}

/// Returns the entry of a directory above a part, which no part provides.
pub(super) fn synthetic_dir(path: Vec<u8>) -> Entry {
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

/// Returns the archive member for the content of an entry.
pub(super) fn member(entry: &Entry) -> NewMember {
    let header = TarMember {
        path: entry.path.clone(),
        size: 0,
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        user: entry.user.clone(),
        group: entry.group.clone(),
        mtime_s: i64::try_from(entry.mtime_ns.div_euclid(1_000_000_000)).unwrap_or_default(),
    };
    NewMember {
        header,
        texture: Texture::default(),
    }
}
