//! Holds many entries in little memory: about a hundred bytes for an ordinary file.
//!
//! A snapshot of a million files must restore on a small machine. So entries are not kept as
//! [`Entry`] but encoded, one after the other, in blocks that are never moved (a growing vector
//! would need its old and its new memory at once). The path comes first, so a search compares paths
//! without decoding the rest. Repeated values (owner and mode, archive ids) are stored once. An
//! [`EntryRef`] borrows from the list; reading one allocates nothing.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;

use super::entry::{Entry, EntryType};
use crate::base::ids::{ArchiveId, Hash};
use crate::format::extent::Extent;

/// Bytes of encoded entries in one block; a longer entry gets a block for itself.
const BLOCK_BYTES: usize = 1 << 20;

/// Entries in the order they were added.
#[derive(Debug, Default)]
pub struct EntryList {
    blocks: Vec<Block>,
    len: usize,
    owners: Interned<Owner>,
    archives: Interned<ArchiveId>,
    has_wide_times: bool,
}

#[derive(Debug)]
struct Block {
    /// Number of the block's first entry.
    first: usize,
    bytes: Vec<u8>,
    /// Position in `bytes` at which each entry begins.
    starts: Vec<u32>,
}

/// Mode, owner and group: most entries share them with many others.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Owner {
    mode: u32,
    uid: u32,
    gid: u32,
    user: Option<String>,
    group: Option<String>,
}

/// Numbered values, each stored once.
#[derive(Debug)]
struct Interned<T> {
    values: Vec<T>,
    numbers: HashMap<T, u64, RandomState>,
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            numbers: HashMap::default(),
        }
    }
}

impl<T: Clone + Eq + std::hash::Hash> Interned<T> {
    /// Returns the number of `value`, adding it if it is new.
    fn number(&mut self, value: T) -> u64 {
        if let Some(number) = self.numbers.get(&value) {
            return *number;
        }
        let number = self.values.len() as u64;
        self.values.push(value.clone());
        self.numbers.insert(value, number);
        number
    }
}

/// One entry of a list, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct EntryRef<'a> {
    /// [`Entry::path`].
    pub path: &'a [u8],
    /// [`Entry::kind`].
    pub kind: EntryType,
    /// [`Entry::mode`].
    pub mode: u32,
    /// [`Entry::uid`].
    pub uid: u32,
    /// [`Entry::gid`].
    pub gid: u32,
    /// [`Entry::user`].
    pub user: Option<&'a str>,
    /// [`Entry::group`].
    pub group: Option<&'a str>,
    /// [`Entry::mtime_ns`].
    pub mtime_ns: i128,
    /// [`Entry::size`].
    pub size: u64,
    /// [`Entry::blake3`].
    pub blake3: Option<Hash>,
    /// [`Entry::target`].
    pub target: Option<&'a [u8]>,
    /// [`Entry::rdev`].
    pub rdev: Option<(u32, u32)>,
    /// [`Entry::torn`].
    pub torn: bool,
    xattrs: Xattrs<'a>,
    extents: Extents<'a>,
}

impl<'a> EntryRef<'a> {
    /// Returns the path as text, for messages.
    pub fn path_lossy(&self) -> std::borrow::Cow<'a, str> {
        String::from_utf8_lossy(self.path)
    }

    /// Returns names and values of the extended attributes, by name.
    pub fn xattrs(&self) -> Xattrs<'a> {
        self.xattrs
    }

    /// Returns the runs of the entry's content, in order.
    pub fn extents(&self) -> Extents<'a> {
        self.extents
    }

    /// Copies the entry out of the list.
    pub fn to_entry(&self) -> Entry {
        Entry {
            extents: self.extents.collect(),
            ..self.to_bare_entry()
        }
    }

    /// Copies the entry out of the list, without its extents.
    pub fn to_bare_entry(&self) -> Entry {
        let owned = |(name, value): (&[u8], &[u8])| (name.to_vec(), value.to_vec());
        Entry {
            path: self.path.to_vec(),
            kind: self.kind,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            user: self.user.map(str::to_owned),
            group: self.group.map(str::to_owned),
            mtime_ns: self.mtime_ns,
            xattrs: self.xattrs.map(owned).collect::<BTreeMap<_, _>>(),
            size: self.size,
            blake3: self.blake3,
            extents: Vec::new(),
            target: self.target.map(<[u8]>::to_vec),
            rdev: self.rdev,
            torn: self.torn,
        }
    }
}

// Flags in the byte after an encoded entry's path; the lowest three bits of it are the kind.
const HAS_HASH: u8 = 1 << 3;
const HAS_TARGET: u8 = 1 << 4;
const HAS_RDEV: u8 = 1 << 5;
const HAS_XATTRS: u8 = 1 << 6;
const IS_TORN: u8 = 1 << 7;

/// Marker in place of a time of 64 bits: the time is in the 16 bytes after it.
const WIDE: i64 = i64::MIN;

const KINDS: [EntryType; 7] = [
    EntryType::File,
    EntryType::Dir,
    EntryType::Symlink,
    EntryType::Hardlink,
    EntryType::Fifo,
    EntryType::Chardev,
    EntryType::Blockdev,
];

impl EntryList {
    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns whether an entry's time is beyond 64 bits ([`super::is_wide_time`]).
    pub fn has_wide_times(&self) -> bool {
        self.has_wide_times
    }

    /// Appends `entry`.
    pub fn push(&mut self, entry: &Entry) {
        let mut bytes = Vec::with_capacity(entry.path.len() + 64);
        self.encode(entry, &mut bytes);
        let fits = |block: &Block| block.bytes.len() + bytes.len() <= BLOCK_BYTES;
        if !self.blocks.last().is_some_and(fits) {
            self.blocks.push(Block {
                first: self.len,
                bytes: Vec::with_capacity(bytes.len().max(BLOCK_BYTES)),
                starts: Vec::new(),
            });
        }
        if let Some(block) = self.blocks.last_mut() {
            // An entry that is not the first of its block begins within `BLOCK_BYTES`.
            block.starts.push(block.bytes.len() as u32);
            block.bytes.extend_from_slice(&bytes);
            self.len += 1;
        }
    }

    fn encode(&mut self, entry: &Entry, out: &mut Vec<u8>) {
        let has = |bit: u8, has: bool| if has { bit } else { 0 };
        put_bytes(out, &entry.path);
        out.push(
            entry.kind as u8
                | has(HAS_HASH, entry.blake3.is_some())
                | has(HAS_TARGET, entry.target.is_some())
                | has(HAS_RDEV, entry.rdev.is_some())
                | has(HAS_XATTRS, !entry.xattrs.is_empty())
                | has(IS_TORN, entry.torn),
        );
        let owner = self.owners.number(Owner {
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            user: entry.user.clone(),
            group: entry.group.clone(),
        });
        put(out, owner);
        match i64::try_from(entry.mtime_ns) {
            Ok(short) if short != WIDE => out.extend_from_slice(&short.to_le_bytes()),
            wide => {
                self.has_wide_times |= wide.is_err();
                out.extend_from_slice(&WIDE.to_le_bytes());
                out.extend_from_slice(&entry.mtime_ns.to_le_bytes());
            }
        }
        put(out, entry.size);
        if let Some(hash) = &entry.blake3 {
            out.extend_from_slice(&hash.0);
        }
        if let Some(target) = &entry.target {
            put_bytes(out, target);
        }
        if let Some((major, minor)) = entry.rdev {
            put(out, major.into());
            put(out, minor.into());
        }
        if !entry.xattrs.is_empty() {
            let mut xattrs = Vec::new();
            for (name, value) in &entry.xattrs {
                put_bytes(&mut xattrs, name);
                put_bytes(&mut xattrs, value);
            }
            put_bytes(out, &xattrs);
        }
        put(out, entry.extents.len() as u64);
        for extent in &entry.extents {
            // 0 is a hole.
            put(
                out,
                extent.archive.map_or(0, |id| self.archives.number(id) + 1),
            );
            put(out, extent.offset);
            put(out, extent.length);
        }
    }

    fn encoded(&self, number: usize) -> &[u8] {
        let block = self.blocks.partition_point(|block| block.first <= number) - 1;
        let block = &self.blocks[block];
        &block.bytes[block.starts[number - block.first] as usize..]
    }

    /// Returns the path of entry `number`, which must be less than the length.
    pub fn path(&self, number: usize) -> &[u8] {
        Cursor(self.encoded(number)).take_bytes()
    }

    /// Returns entry `number`, which must be less than the length.
    pub fn get(&self, number: usize) -> EntryRef<'_> {
        let mut from = Cursor(self.encoded(number));
        let path = from.take_bytes();
        let bits = from.take(1)[0];
        let owner = &self.owners.values[from.number() as usize];
        let mtime_ns = match i64::from_le_bytes(from.array()) {
            WIDE => i128::from_le_bytes(from.array()),
            short => i128::from(short),
        };
        let size = from.number();
        let blake3 = (bits & HAS_HASH != 0).then(|| Hash(from.array()));
        let target = (bits & HAS_TARGET != 0).then(|| from.take_bytes());
        let rdev = (bits & HAS_RDEV != 0).then(|| (from.number() as u32, from.number() as u32));
        let xattrs = match bits & HAS_XATTRS != 0 {
            true => from.take_bytes(),
            false => &[],
        };
        let extents = from.number() as usize;
        EntryRef {
            path,
            kind: KINDS[usize::from(bits & 7)],
            mode: owner.mode,
            uid: owner.uid,
            gid: owner.gid,
            user: owner.user.as_deref(),
            group: owner.group.as_deref(),
            mtime_ns,
            size,
            blake3,
            target,
            rdev,
            torn: bits & IS_TORN != 0,
            xattrs: Xattrs(Cursor(xattrs)),
            extents: Extents {
                archives: &self.archives.values,
                left: extents,
                from,
            },
        }
    }

    /// Iterates over the entries in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = EntryRef<'_>> + ExactSizeIterator {
        (0..self.len).map(|number| self.get(number))
    }

    /// Returns the entry at `path`. The entries must be sorted by path.
    pub fn find(&self, path: &[u8]) -> Option<EntryRef<'_>> {
        self.position(path).map(|number| self.get(number))
    }

    /// Returns the number of the entry at `path`. The entries must be sorted by path.
    pub fn position(&self, path: &[u8]) -> Option<usize> {
        let (mut low, mut high) = (0, self.len);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.path(middle).cmp(path) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    #[cfg(test)]
    fn memory_bytes(&self) -> usize {
        let block = |block: &Block| block.bytes.capacity() + 4 * block.starts.capacity();
        self.blocks.iter().map(block).sum()
    }
}

impl<'a> Extend<&'a Entry> for EntryList {
    fn extend<I: IntoIterator<Item = &'a Entry>>(&mut self, entries: I) {
        entries.into_iter().for_each(|entry| self.push(entry));
    }
}

/// The runs of an entry's content, in order.
#[derive(Debug, Clone, Copy)]
pub struct Extents<'a> {
    archives: &'a [ArchiveId],
    left: usize,
    from: Cursor<'a>,
}

impl Iterator for Extents<'_> {
    type Item = Extent;

    fn next(&mut self) -> Option<Extent> {
        self.left = self.left.checked_sub(1)?;
        let archive = self.from.number().checked_sub(1);
        Some(Extent {
            archive: archive.map(|number| self.archives[number as usize]),
            offset: self.from.number(),
            length: self.from.number(),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Extents<'_> {}

/// An entry's extended attributes.
#[derive(Debug, Clone, Copy)]
pub struct Xattrs<'a>(Cursor<'a>);

impl<'a> Iterator for Xattrs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        (!self.0.0.is_empty()).then(|| (self.0.take_bytes(), self.0.take_bytes()))
    }
}

/// Appends `number` with seven bits per byte, the lowest first.
fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Encoded bytes that are still to be read. This module wrote them, so they are complete.
#[derive(Debug, Clone, Copy)]
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N));
        array
    }

    fn number(&mut self) -> u64 {
        let mut number = 0;
        for (index, byte) in self.0.iter().enumerate() {
            number |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.0 = &self.0[index + 1..];
                break;
            }
        }
        number
    }

    fn take_bytes(&mut self) -> &'a [u8] {
        let count = self.number() as usize;
        self.take(count)
    }
}

#[cfg(test)]
mod tests;
