//! What a walk saw of a tree, entry by entry, small enough for millions of them.

use std::time::{Duration, SystemTime};

use super::super::staged_files::FileStamp;
use crate::base::openat::{Kind, Meta};

/// A change so soon after the last one may leave the same times: kernels count them in ticks.
pub(super) const TICK: Duration = Duration::from_millis(20);
const KIND_BITS: u64 = 0o170_000;
const DIRECTORY_BITS: u64 = 0o040_000;

/// What is known of an entry beside its look.
pub(super) mod flag {
    /// A file or a link: its size and its times count.
    pub const CONTENT: u16 = 1;
    /// Changed so shortly before it was looked at that a further change could look the same.
    pub const FRESH: u16 = 2;
    /// So was its content.
    pub const FRESH_CONTENT: u16 = 4;
    /// The copy has it.
    pub const MADE: u16 = 8;
    /// It counts as a file.
    pub const COUNTED: u16 = 16;
    /// Its bytes count: it is no further name of a file that was copied.
    pub const SIZED: u16 = 32;
    /// The next snapshot may link to its copy.
    pub const RECORDED: u16 = 64;
    /// It is to be checked as a database.
    pub const DATABASE: u16 = 128;
    /// Left out, since the copy of its database is whole without it.
    pub const SIDECAR: u16 = 256;
    /// There is something to tell of it.
    pub const SKIPPED: u16 = 512;
}

/// One look at an entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct EntryStamp {
    id: (u64, u64),
    /// Of content: size (bytes), change of content and change of anything (nanoseconds, without what is above 64
    /// bits). Of all else mode, user and group: what is in a directory are entries of their own, and making and
    /// removing them changes its times, as using a FIFO or a device does.
    numbers: [u64; 3],
    pub flags: u16,
}

impl EntryStamp {
    pub fn of(meta: &Meta) -> Self {
        let id = meta.id();
        if !matches!(meta.kind(), Kind::File | Kind::Symlink) {
            let numbers = [meta.mode(), meta.uid(), meta.gid()].map(u64::from);
            let flags = 0;
            return Self { id, numbers, flags };
        }
        let look = FileStamp::of(meta);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_nanos() as i128);
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

    pub fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// The same, which another look can't be certain to find again.
    pub fn in_doubt(mut self) -> Self {
        self.flags |= flag::FRESH | flag::FRESH_CONTENT;
        self
    }

    pub fn is_dir(&self) -> bool {
        !self.has(flag::CONTENT) && self.numbers[0] & KIND_BITS == DIRECTORY_BITS
    }

    /// Bytes of content.
    pub fn size(&self) -> u64 {
        match self.has(flag::CONTENT) {
            true => self.numbers[0],
            false => 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.has(flag::CONTENT) && self.numbers[0] == 0
    }

    /// Whether it is certainly what `earlier` was. Of a database's journal the time of its last change says
    /// nothing: SQLite gives it the database's owner whenever it opens it, as reading it does.
    pub fn is_still(&self, earlier: &Self, is_journal: bool) -> bool {
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

/// The entries of a tree in a walk's order. Of each path only what differs from the one before is kept.
#[derive(Default)]
pub(super) struct SeenEntries {
    /// Of each: how many bytes it shares with the one before, how many follow, and those.
    paths: Vec<u8>,
    last: Vec<u8>,
    states: Vec<EntryStamp>,
}

impl SeenEntries {
    /// `rel` comes after all that are there.
    pub fn note(&mut self, rel: &[u8], state: EntryStamp) {
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

    pub fn cursor(&self) -> SeenCursor<'_> {
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

/// Seven bits to a byte, the lowest first; the eighth says that more follow.
fn push_length(to: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        to.push(length as u8 | 0x80);
        length >>= 7;
    }
    to.push(length as u8);
}

/// One of the entries.
pub(super) struct SeenCursor<'a> {
    seen: &'a SeenEntries,
    /// In the paths: where the next one begins.
    at: usize,
    /// The number of the next one.
    next: usize,
    rel: Vec<u8>,
}

impl SeenCursor<'_> {
    /// `None`: there are no more.
    pub fn get(&self) -> Option<(&[u8], EntryStamp)> {
        let state = self.seen.states.get(self.next.checked_sub(1)?)?;
        Some((&self.rel, *state))
    }

    pub fn advance(&mut self) {
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
