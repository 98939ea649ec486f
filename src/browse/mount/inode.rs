//! The numbers of inodes: which file of the mount each one is.
//!
//! A number is a function of the snapshot's sequence and of the entry's place in its index, so it
//! is the same in every mount of the host's snapshots, and the names of one file share it.

use crate::browse::tree::TreeNode;

/// Bits of a number that say which node of a snapshot it is.
const NODE_BITS: u32 = 40;
/// The bit that marks the link of a sequence.
const SEQUENCE_LINK: u64 = 1 << 32;
/// Number of slots.
const SLOTS: u64 = 1 << 23;

/// Which of the snapshots a number belongs to: the sequence, modulo 2^23.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SnapshotSlot(u64);

impl SnapshotSlot {
    pub(super) fn of(sequence: u64) -> Self {
        Self(sequence % SLOTS)
    }
}

/// A file of the mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MountInode {
    /// The mount point.
    Top,
    /// `by-time`.
    ByTime,
    /// `by-sequence`.
    BySequence,
    /// `latest`.
    Latest,
    /// `.sealift`.
    Service,
    /// `.sealift/version`.
    Version,
    /// `.sealift/snapshots.json`.
    SnapshotsJson,
    /// A link in `by-sequence`.
    SequenceLink(SnapshotSlot),
    /// A node of a snapshot.
    Sealed(SnapshotSlot, TreeNode),
}

impl MountInode {
    pub(super) fn number(self) -> u64 {
        match self {
            Self::Top => 1,
            Self::ByTime => 2,
            Self::BySequence => 3,
            Self::Latest => 4,
            Self::Service => 5,
            Self::Version => 6,
            Self::SnapshotsJson => 7,
            Self::SequenceLink(SnapshotSlot(slot)) => SEQUENCE_LINK | slot,
            Self::Sealed(SnapshotSlot(slot), TreeNode(node)) => (slot + 1) << NODE_BITS | node,
        }
    }

    /// Returns the file with this number; `None`: no file has it.
    pub(super) fn of(number: u64) -> Option<Self> {
        let node = TreeNode(number & ((1 << NODE_BITS) - 1));
        Some(match (number >> NODE_BITS, number) {
            (0, 1) => Self::Top,
            (0, 2) => Self::ByTime,
            (0, 3) => Self::BySequence,
            (0, 4) => Self::Latest,
            (0, 5) => Self::Service,
            (0, 6) => Self::Version,
            (0, 7) => Self::SnapshotsJson,
            (0, link) if link & SEQUENCE_LINK != 0 => {
                Self::SequenceLink(SnapshotSlot(link & !SEQUENCE_LINK))
            }
            (0, _) => return None,
            (slot, _) => Self::Sealed(SnapshotSlot(slot - 1), node),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_has_a_number_of_its_own() {
        let slots = [0, 1, 42, SLOTS - 1, SLOTS, u64::MAX].map(SnapshotSlot::of);
        assert_eq!(slots[4], slots[0]);
        let mut all = vec![
            MountInode::Top,
            MountInode::ByTime,
            MountInode::BySequence,
            MountInode::Latest,
            MountInode::Service,
            MountInode::Version,
            MountInode::SnapshotsJson,
        ];
        for slot in &slots[..4] {
            all.push(MountInode::SequenceLink(*slot));
            for node in [0, 1, 7, (1 << NODE_BITS) - 1] {
                all.push(MountInode::Sealed(*slot, TreeNode(node)));
            }
        }
        let mut numbers: Vec<u64> = all.iter().map(|inode| inode.number()).collect();
        for (inode, number) in all.iter().zip(&numbers) {
            assert_eq!(MountInode::of(*number), Some(*inode));
        }
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), all.len());
        assert_eq!(MountInode::of(0), None);
        assert_eq!(MountInode::of(8), None);
    }
}
