//! Attributes as the kernel takes them, and which extended attributes are shown.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo};

use crate::browse::tree::{TreeAttributes, TreeNode};
use crate::format::index::EntryType;

/// Size of the reads that programs should make.
const READ_BYTES: u32 = 128 << 10;

/// Who sees the mount, and as whose files.
#[derive(Debug, Clone, Copy)]
pub(super) struct AttributeView {
    /// User and group in place of those of the snapshot; `None`: those of the snapshot.
    pub(super) owner: Option<(u32, u32)>,
    /// User and group of the directories that no snapshot has.
    pub(super) mounter: (u32, u32),
    /// Whether attributes that only root can set are shown.
    pub(super) is_root: bool,
}

impl AttributeView {
    /// Returns the attributes of a node of a snapshot.
    pub(super) fn sealed(&self, number: u64, of: &TreeAttributes) -> FileAttr {
        let time = system_time(of.mtime_ns);
        let (uid, gid) = self.owner.unwrap_or((of.uid, of.gid));
        FileAttr {
            ino: INodeNo(number),
            size: of.size,
            blocks: of.sectors,
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind: file_type(of.kind),
            perm: of.mode as u16,
            nlink: of.links,
            uid,
            gid,
            rdev: of.rdev.map_or(0, device_number),
            blksize: READ_BYTES,
            flags: 0,
        }
    }

    /// Returns the attributes of a directory that no snapshot has.
    pub(super) fn directory(&self, number: u64, time: SystemTime, links: u32) -> FileAttr {
        self.own(number, time, FileType::Directory, (0o555, links, 4096))
    }

    /// Returns the attributes of a symbolic link that no snapshot has.
    pub(super) fn link(&self, number: u64, time: SystemTime, bytes: usize) -> FileAttr {
        self.own(number, time, FileType::Symlink, (0o777, 1, bytes as u64))
    }

    /// Returns the attributes of a file that no snapshot has.
    pub(super) fn file(&self, number: u64, time: SystemTime, bytes: usize) -> FileAttr {
        let shape = (0o444, 1, bytes as u64);
        self.own(number, time, FileType::RegularFile, shape)
    }

    fn own(
        &self,
        number: u64,
        time: SystemTime,
        kind: FileType,
        (perm, nlink, size): (u16, u32, u64),
    ) -> FileAttr {
        FileAttr {
            ino: INodeNo(number),
            size,
            blocks: if kind == FileType::Symlink { 0 } else { 8 },
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm,
            nlink,
            uid: self.mounter.0,
            gid: self.mounter.1,
            rdev: 0,
            blksize: READ_BYTES,
            flags: 0,
        }
    }

    /// Whether an extended attribute is shown: one that steers access only to root, since a copy
    /// by another user could not set it.
    pub(super) fn shows_xattr(&self, name: &[u8]) -> bool {
        self.is_root || name.starts_with(b"user.")
    }
}

/// Returns the kind as the kernel names it.
pub(super) fn file_type(kind: EntryType) -> FileType {
    match kind {
        EntryType::File | EntryType::Hardlink => FileType::RegularFile,
        EntryType::Dir => FileType::Directory,
        EntryType::Symlink => FileType::Symlink,
        EntryType::Fifo => FileType::NamedPipe,
        EntryType::Chardev => FileType::CharDevice,
        EntryType::Blockdev => FileType::BlockDevice,
    }
}

/// Returns the time, or the nearest one that a kernel can hold.
fn system_time(ns: i128) -> SystemTime {
    let seconds = ns.div_euclid(1_000_000_000);
    let rest = ns.rem_euclid(1_000_000_000) as u32;
    let whole = Duration::new(u64::try_from(seconds.abs()).unwrap_or(u64::MAX), 0);
    let base = match seconds < 0 {
        true => UNIX_EPOCH.checked_sub(whole),
        false => UNIX_EPOCH.checked_add(whole),
    };
    let time = base.and_then(|base| base.checked_add(Duration::new(0, rest)));
    time.unwrap_or(UNIX_EPOCH)
}

/// Returns a device's number in the form of the kernel's messages.
fn device_number((major, minor): (u32, u32)) -> u32 {
    minor & 0xff | (major & 0xfff) << 8 | (minor & 0xfff00) << 12
}

/// The node of a snapshot's own directory has no entry: this one.
pub(super) fn root_attributes(mtime_ns: i128, links: u32) -> TreeAttributes {
    TreeAttributes {
        kind: EntryType::Dir,
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime_ns,
        size: 4096,
        sectors: 8,
        links,
        rdev: None,
    }
}

/// Whether a node is a snapshot's own directory.
pub(super) fn is_root(node: TreeNode) -> bool {
    node == TreeNode::ROOT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_and_device_numbers_are_exact() {
        let back = |ns: i128| match system_time(ns).duration_since(UNIX_EPOCH) {
            Ok(after) => after.as_nanos() as i128,
            Err(before) => -(before.duration().as_nanos() as i128),
        };
        for ns in [0, 1, -1, 999_999_999, -1_000_000_001, 1 << 62, -(1 << 62)] {
            assert_eq!(back(ns), ns);
        }
        for (major, minor) in [(1, 3), (8, 0), (259, 1), (7, 300), (4095, 0xfffff)] {
            let makedev = device_number((major, minor));
            let (found_major, found_minor) = (
                makedev >> 8 & 0xfff,
                makedev & 0xff | makedev >> 12 & 0xfff00,
            );
            assert_eq!((found_major, found_minor), (major, minor));
        }
    }
}
