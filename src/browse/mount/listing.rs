//! Listings of directories, in the two forms that the kernel asks for: names alone, and names with
//! attributes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use fuser::{Errno, FileAttr, Generation, ReplyDirectory, ReplyDirectoryPlus};

use super::attributes::is_root;
use super::inode::{MountInode, SnapshotSlot};
use super::snapshots::EnteredSnapshot;
use super::state::MountState;
use crate::browse::tree::TreeNode;

/// Time for which the kernel keeps what is in a snapshot, which never changes.
pub(super) const SEALED_TTL: Duration = Duration::from_secs(3600);
/// Time for which the kernel keeps what is above the snapshots.
pub(super) const TOP_TTL: Duration = Duration::from_secs(5);

/// An answer to a request to list a directory.
pub(super) trait Listing: Send + 'static {
    /// Adds a name; `next` is the offset from which the listing is continued after it. Returns
    /// whether there was no room for it.
    fn add(&mut self, next: u64, name: &OsStr, ttl: Duration, attributes: &FileAttr) -> bool;
    /// Answers with the names that were added.
    fn finish(self);
    /// Answers with an error.
    fn fail(self, errno: Errno);
}

impl Listing for ReplyDirectory {
    fn add(&mut self, next: u64, name: &OsStr, _: Duration, attributes: &FileAttr) -> bool {
        Self::add(self, attributes.ino, next, attributes.kind, name)
    }

    fn finish(self) {
        self.ok();
    }

    fn fail(self, errno: Errno) {
        self.error(errno);
    }
}

impl Listing for ReplyDirectoryPlus {
    fn add(&mut self, next: u64, name: &OsStr, ttl: Duration, attributes: &FileAttr) -> bool {
        Self::add(
            self,
            attributes.ino,
            next,
            name,
            &ttl,
            attributes,
            Generation(0),
        )
    }

    fn finish(self) {
        self.ok();
    }

    fn fail(self, errno: Errno) {
        self.error(errno);
    }
}

/// Returns the attributes of a node of a snapshot.
pub(super) fn attributes_in(
    state: &MountState,
    entered: &EnteredSnapshot,
    slot: SnapshotSlot,
    node: TreeNode,
) -> Option<FileAttr> {
    let inode = MountInode::Sealed(slot, node);
    match is_root(node) {
        true => state.top_attributes(inode),
        false => {
            let attributes = entered.tree.attributes(node)?;
            Some(state.view.sealed(inode.number(), &attributes))
        }
    }
}

/// Lists a directory of a snapshot from `offset` on.
pub(super) fn list_sealed<L: Listing>(
    state: &MountState,
    entered: &EnteredSnapshot,
    slot: SnapshotSlot,
    node: TreeNode,
    (offset, mut listing): (u64, L),
) {
    let parent = match is_root(node) {
        true => MountInode::ByTime,
        false => MountInode::Sealed(slot, entered.tree.parent(node)),
    };
    let dots = [(MountInode::Sealed(slot, node), "."), (parent, "..")];
    for (position, (inode, name)) in dots.iter().enumerate().skip(offset as usize) {
        if let Some(attributes) = top_or_sealed(state, entered, *inode)
            && listing.add(position as u64 + 1, name.as_ref(), SEALED_TTL, &attributes)
        {
            return listing.finish();
        }
    }
    for child in entered.tree.children(node, offset.saturating_sub(2)) {
        let Some(attributes) = attributes_in(state, entered, slot, child.node) else {
            continue;
        };
        let name = OsStr::from_bytes(child.name);
        if listing.add(child.position + 3, name, SEALED_TTL, &attributes) {
            break;
        }
    }
    listing.finish();
}

fn top_or_sealed(
    state: &MountState,
    entered: &EnteredSnapshot,
    inode: MountInode,
) -> Option<FileAttr> {
    match inode {
        MountInode::Sealed(slot, node) => attributes_in(state, entered, slot, node),
        inode => state.top_attributes(inode),
    }
}

/// Lists a directory above the snapshots from `offset` on.
pub(super) fn list_top<L: Listing>(
    state: &MountState,
    inode: MountInode,
    offset: u64,
    mut listing: L,
) {
    let Some(entries) = state.top_entries(inode) else {
        return listing.fail(Errno::ENOTDIR);
    };
    let dots = [(inode, "."), (MountInode::Top, "..")];
    let dots = dots
        .into_iter()
        .filter_map(|(inode, name)| Some((name.to_owned(), state.top_attributes(inode)?)));
    let entries = entries.into_iter().map(|one| (one.name, one.attributes));
    let all = dots.chain(entries).enumerate().skip(offset as usize);
    for (position, (name, attributes)) in all {
        if listing.add(position as u64 + 1, name.as_ref(), TOP_TTL, &attributes) {
            break;
        }
    }
    listing.finish();
}
