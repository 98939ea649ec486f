//! The entries that a walk saw, in a form small enough for millions of them.

use std::time::Duration;

use super::super::staged_files::FileStamp;
use crate::base::clock;
use crate::base::openat::{Kind, Meta};

/// A change within this time of the last one may leave the same times: kernels count them in ticks.
pub(super) const TICK: Duration = Duration::from_millis(20);
const KIND_BITS: u64 = 0o170_000;
const DIRECTORY_BITS: u64 = 0o040_000;

/// Facts about an entry beside its stamp.
pub(super) mod flag {
    /// It is a file or a symlink: its size and its times count.
    pub(crate) const CONTENT: u16 = 1;
    /// It changed so shortly before that a further change could leave the same stamp.
    pub(crate) const FRESH: u16 = 2;
    /// The same of its content.
    pub(crate) const FRESH_CONTENT: u16 = 4;
    /// The copy holds it.
    pub(crate) const MADE: u16 = 8;
    /// It counts as a file.
    pub(crate) const COUNTED: u16 = 16;
    /// Its bytes count: it is no further name of a file that was copied.
    pub(crate) const SIZED: u16 = 32;
    /// The next snapshot may link to its copy.
    pub(crate) const RECORDED: u16 = 64;
    /// It is to be checked as a database.
    pub(crate) const DATABASE: u16 = 128;
    /// Left out, since the copy of its database is whole without it.
    pub(crate) const SIDECAR: u16 = 256;
    /// There is a report on it.
    pub(crate) const SKIPPED: u16 = 512;
}

/// The stamp of an entry of any kind, with flags.
#[derive(Debug, Clone, Copy)]
pub(super) struct EntryStamp {
    id: (u64, u64),
    /// Of a file or symlink: size (bytes), mtime and ctime (the lower 64 bits of their
    /// nanoseconds). Of other kinds: mode, user and group. Their times do not count: making and
    /// removing the entries of a directory changes them, and so does using a FIFO or a device.
    numbers: [u64; 3],
    /// See [`flag`].
    pub flags: u16,
}

impl EntryStamp {
    /// Returns the stamp of an entry that was looked at just now.
    pub(crate) fn of(meta: &Meta) -> Self {
        let id = meta.id();
        if !matches!(meta.kind(), Kind::File | Kind::Symlink) {
            let numbers = [meta.mode(), meta.uid(), meta.gid()].map(u64::from);
            let flags = 0;
            return Self { id, numbers, flags };
        }
        let look = FileStamp::of(meta);
        let now = clock::of_files_ns();
        let is_fresh = |time: i128| (0..TICK.as_nanos() as i128).contains(&(now - time));
        let mut flags = flag::CONTENT;
        if is_fresh(look.mtime.max(look.ctime)) {
            flags |= flag::FRESH;
        }
        if is_fresh(look.mtime) {
            flags |= flag::FRESH_CONTENT;
        }
        Self {
            id,
            numbers: [look.size, look.mtime as u64, look.ctime as u64],
            flags,
        }
    }

    /// Whether `flag` is set.
    pub(crate) fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// Returns it marked so that no later stamp counts as equal.
    pub(crate) fn in_doubt(mut self) -> Self {
        self.flags |= flag::FRESH | flag::FRESH_CONTENT;
        self
    }

    /// Whether the entry is a directory.
    pub(crate) fn is_dir(&self) -> bool {
        !self.has(flag::CONTENT) && self.numbers[0] & KIND_BITS == DIRECTORY_BITS
    }

    /// Returns the size of a file or symlink in bytes, and 0 for other kinds.
    pub(crate) fn size(&self) -> u64 {
        match self.has(flag::CONTENT) {
            true => self.numbers[0],
            false => 0,
        }
    }

    /// Whether the entry is an empty file.
    pub(crate) fn is_empty(&self) -> bool {
        self.has(flag::CONTENT) && self.numbers[0] == 0
    }

    /// Whether the entry is certainly unchanged since `earlier`. The ctime of a database's journal
    /// is ignored: SQLite sets the journal's owner whenever it opens it, even to read.
    pub(crate) fn is_still(&self, earlier: &Self, is_journal: bool) -> bool {
        let is_content = self.has(flag::CONTENT);
        if is_content != earlier.has(flag::CONTENT) || self.id != earlier.id {
            return false;
        }
        let (counted, fresh) = match is_content && is_journal {
            true => (2, flag::FRESH_CONTENT),
            false => (3, flag::FRESH),
        };
        self.numbers[..counted] == earlier.numbers[..counted] && !earlier.has(fresh)
    }
}

/// The entries of a tree in a walk's order. Each path is stored as its difference from the one
/// before.
#[derive(Default)]
pub(super) struct SeenEntries {
    /// For each path: the number of bytes it shares with the one before, the number of bytes that
    /// follow, and those bytes.
    paths: Vec<u8>,
    last: Vec<u8>,
    states: Vec<EntryStamp>,
}

impl SeenEntries {
    /// Adds an entry. `rel` must come after all others.
    pub(crate) fn note(&mut self, rel: &[u8], state: EntryStamp) {
        let both = rel.iter().zip(&self.last);
        let shared = both.take_while(|(a, b)| a == b).count();
        for length in [shared, rel.len() - shared] {
            push_length(&mut self.paths, length);
        }
        self.paths.extend_from_slice(&rel[shared..]);
        self.last.truncate(shared);
        self.last.extend_from_slice(&rel[shared..]);
        self.states.push(state);
    }

    /// Returns a cursor at the first entry.
    pub(crate) fn cursor(&self) -> SeenCursor<'_> {
        let mut cursor = SeenCursor {
            seen: self,
            at: 0,
            next: 0,
            rel: Vec::new(),
        };
        cursor.advance();
        cursor
    }
}

/// Appends a length, seven bits to a byte, the lowest first. The eighth bit says that more follow.
fn push_length(to: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        to.push(length as u8 | 0x80);
        length >>= 7;
    }
    to.push(length as u8);
}

/// A position in [`SeenEntries`].
pub(super) struct SeenCursor<'a> {
    seen: &'a SeenEntries,
    /// Offset of the next path.
    at: usize,
    /// Number of the next entry.
    next: usize,
    rel: Vec<u8>,
}

impl SeenCursor<'_> {
    /// Returns path and stamp of the current entry. `None`: there are no more.
    pub(crate) fn get(&self) -> Option<(&[u8], EntryStamp)> {
        let state = self.seen.states.get(self.next.checked_sub(1)?)?;
        Some((&self.rel, *state))
    }

    /// Goes on to the next entry.
    pub(crate) fn advance(&mut self) {
        self.next += 1;
        if self.next > self.seen.states.len() {
            return;
        }
        let shared = self.length();
        let rest = self.length();
        self.rel.truncate(shared);
        let rest = &self.seen.paths[self.at..self.at + rest];
        self.rel.extend_from_slice(rest);
        self.at += rest.len();
    }

    /// Reads a length.
    fn length(&mut self) -> usize {
        let mut length = 0;
        let mut shift = 0;
        while let Some(byte) = self.seen.paths.get(self.at) {
            self.at += 1;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_come_back_as_they_were() {
        let temp = tempfile::tempdir().unwrap();
        let meta = crate::base::openat::Dir::open(temp.path())
            .unwrap()
            .meta("")
            .unwrap();
        let long = [b"a/".as_slice(), &[b'x'; 300]].concat();
        let longer = [&long[..], &[b'y'; 20_000]].concat();
        let paths: Vec<&[u8]> = vec![b"a", b"a-b", b"a/b", b"a/b/c", &long, &longer, b"\xff"];
        let mut seen = SeenEntries::default();
        assert!(seen.cursor().get().is_none());
        for rel in &paths {
            seen.note(rel, EntryStamp::of(&meta));
        }
        let mut cursor = seen.cursor();
        for rel in paths {
            let (found, state) = cursor.get().unwrap();
            assert!(found == rel && state.is_dir());
            cursor.advance();
        }
        assert!(cursor.get().is_none());
        cursor.advance();
        assert!(cursor.get().is_none());
        assert!(size_of::<EntryStamp>() <= 48);
    }
}
