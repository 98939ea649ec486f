//! Scans a piece of an index line by line, without knowledge of what is before and after it.
//!
//! A piece may begin and end anywhere, so its first and its last line are kept as parts, which the
//! neighbours complete. The extents of a file can take megabytes, and no search needs them: of a
//! line that is not complete they are dropped. No unescaped quote is within a string, so
//! `,"extents":[` and a string that begins behind `],[` are in a line only where its extents are. A
//! string that ends in `],[` is a path or a target.

use std::borrow::Cow;

use memchr::{memchr, memmem};

use super::query::FindQuery;
use super::versions::FileVersion;
use crate::format::index::{Entry, path_of_line};

/// Longest part of a line that is kept, in bytes. Only attributes and names could be longer.
const MOST_KEPT: usize = 16 << 20;

/// A part of a line, without its newline.
#[derive(Debug, Default, Clone)]
pub(super) struct LinePart {
    bytes: Vec<u8>,
    /// The rest of the line was dropped: extents, and what follows them.
    is_cut: bool,
}

impl LinePart {
    /// Appends the next bytes of the line.
    pub(super) fn push(&mut self, more: &[u8]) -> Result<(), String> {
        if self.is_cut {
            return Ok(());
        }
        let kept = match later_extent(more) {
            Some(at) => {
                self.is_cut = true;
                &more[..at]
            }
            None => more,
        };
        if self.bytes.len() + kept.len() > MOST_KEPT {
            return Err("a line is longer than any entry can be".to_owned());
        }
        self.bytes.extend_from_slice(kept);
        Ok(())
    }

    /// Appends another part.
    pub(super) fn append(&mut self, other: &Self) -> Result<(), String> {
        let was_cut = self.is_cut;
        self.push(&other.bytes)?;
        self.is_cut |= other.is_cut && !was_cut;
        Ok(())
    }

    /// Whether the line has no byte yet.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Returns the bytes of the line; those of extents may be missing.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn shrunk(mut self) -> Self {
        self.bytes.shrink_to_fit();
        self
    }
}

/// What a piece holds.
#[derive(Debug, Default)]
pub(super) struct ScannedPiece {
    /// Number of newlines.
    pub(super) newlines: u64,
    /// What is before the first newline; everything if there is none.
    pub(super) head: LinePart,
    /// What is behind the last newline; nothing if there is none.
    pub(super) tail: LinePart,
    /// The entries of complete lines that the query wants.
    pub(super) found: Vec<FileVersion>,
    /// The rule that a line breaks. `None`: none was seen to break one.
    pub(super) broken: Option<String>,
}

impl ScannedPiece {
    /// Scans the next bytes of the piece.
    pub(super) fn feed(&mut self, query: &FindQuery, bytes: &[u8]) {
        if self.broken.is_none() {
            self.broken = self.take(query, bytes).err();
        }
    }

    fn take(&mut self, query: &FindQuery, mut bytes: &[u8]) -> Result<(), String> {
        while let Some(at) = memchr(b'\n', bytes) {
            let line = &bytes[..at];
            if self.newlines == 0 {
                self.head.push(line)?;
            } else if self.tail.is_empty() {
                self.found.extend(wanted(query, line)?);
            } else {
                self.tail.push(line)?;
                self.found.extend(wanted(query, self.tail.bytes())?);
                self.tail = LinePart::default();
            }
            self.newlines += 1;
            bytes = &bytes[at + 1..];
        }
        match self.newlines {
            0 => self.head.push(bytes),
            _ => self.tail.push(bytes),
        }
    }

    /// Ends the piece: gives back memory that it does not need.
    pub(super) fn finish(self) -> Self {
        Self {
            head: self.head.shrunk(),
            tail: self.tail.shrunk(),
            ..self
        }
    }
}

/// Returns the entry of a line behind the header, if the query wants it. The line's extents may be
/// missing.
pub(super) fn wanted(query: &FindQuery, line: &[u8]) -> Result<Option<FileVersion>, String> {
    if line.starts_with(b"{\"archive\":") || query.is_empty() {
        return Ok(None);
    }
    if let Some(path) = path_of_line(line)?
        && !query.matches_path(&path)
    {
        return Ok(None);
    }
    let entry = Entry::from_bare_line(&without_extents(line))?;
    let is_wanted = query.matches_path(&entry.path) && query.takes(&entry);
    Ok(is_wanted.then(|| entry.into()))
}

/// Returns where an extent that is not the first of its file begins in a part of a line. The last
/// byte of a part decides nothing: one that ends in a quote may end a string.
fn later_extent(part: &[u8]) -> Option<usize> {
    const BETWEEN: &[u8] = b"],[\"";
    let is_begin_of_string = |at: &usize| {
        let next = part.get(at + BETWEEN.len());
        next.is_some_and(|next| !b",:]}".contains(next))
    };
    memmem::find_iter(part, BETWEEN).find(is_begin_of_string)
}

/// Returns the line without its extents, and without what is behind them.
fn without_extents(line: &[u8]) -> Cow<'_, [u8]> {
    match memmem::find(line, b",\"extents\":[") {
        Some(at) => Cow::Owned([&line[..at], b"}"].concat()),
        None => Cow::Borrowed(line),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::ids::{ArchiveId, Hash, WriterId};
    use crate::format::index::{EntryType, Extent};

    fn entry(path: &[u8], extents: u64) -> Entry {
        let extent = |number| Extent {
            archive: Some(ArchiveId {
                writer: WriterId([7; 8]),
                counter: 1 + number % 3,
            }),
            offset: number * 2,
            length: 1,
        };
        Entry {
            path: path.to_vec(),
            kind: EntryType::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            user: None,
            group: None,
            mtime_ns: 5,
            xattrs: std::collections::BTreeMap::new(),
            size: extents,
            blake3: Some(Hash([3; 32])),
            extents: (0..extents).map(extent).collect(),
            target: None,
            rdev: None,
            torn: extents == 3,
        }
    }

    proptest! {
        /// Wherever lines are cut into pieces, and pieces into bytes, the same entries are found.
        #[test]
        fn pieces_and_their_neighbours_have_every_line_once(
            paths in proptest::collection::vec(("[a-c\\\\\"\u{e4}\n\\],\\[]{1,6}", 0u64..60), 1..12),
            raw_path in proptest::collection::vec(1u8..=255, 1..5),
            cuts in proptest::collection::vec(0usize..3000, 0..12),
            step in 1usize..80,
        ) {
            let mut entries: Vec<Entry> = paths.iter().map(|(path, extents)| {
                entry(path.replace('/', "_").as_bytes(), *extents)
            }).collect();
            let raw: Vec<u8> = raw_path.iter().map(|b| if *b == b'/' || *b == b'.' { b'_' } else { *b }).collect();
            entries.push(entry(&raw, 2));
            let query = FindQuery::new([&b"*a*"[..], b"\xff*"], false);
            let mut text = b"{\"archive\":\"x\"}\n".to_vec();
            for entry in &entries {
                text.extend(entry.to_line());
                text.push(b'\n');
            }
            let expected: Vec<FileVersion> = entries.iter()
                .filter(|entry| query.matches_path(&entry.path))
                .map(|entry| entry.clone().into()).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            cuts.dedup();
            let mut found = Vec::new();
            let mut open = LinePart::default();
            let mut newlines = 0;
            for range in cuts.windows(2) {
                let mut piece = ScannedPiece::default();
                for bytes in text[range[0]..range[1]].chunks(step) {
                    piece.feed(&query, bytes);
                }
                let piece = piece.finish();
                prop_assert_eq!(&piece.broken, &None);
                newlines += piece.newlines;
                open.append(&piece.head).unwrap();
                if piece.newlines > 0 {
                    found.extend(wanted(&query, open.bytes()).unwrap());
                    found.extend(piece.found);
                    open = piece.tail;
                }
            }
            prop_assert!(open.is_empty());
            prop_assert_eq!(newlines, entries.len() as u64 + 1);
            prop_assert_eq!(found, expected);
        }
    }

    /// Names and targets that hold what a line has around extents.
    #[test]
    fn a_string_that_resembles_extents_is_kept() {
        let resembling = [
            "],[",
            "a],[",
            "],[\"",
            ",\"extents\":[",
            "\",\"extents\":[",
            "],[,",
            "],[:a",
        ];
        for text in resembling {
            let mut link = entry(text.as_bytes(), 0);
            link.kind = EntryType::Symlink;
            link.blake3 = None;
            link.target = Some(text.as_bytes().to_vec());
            for entry in [entry(text.as_bytes(), 3), link] {
                let line = entry.to_line();
                let query = FindQuery::exactly(text.as_bytes());
                for size in 1..=line.len() {
                    let mut part = LinePart::default();
                    for piece in line.chunks(size) {
                        part.push(piece).unwrap();
                    }
                    let found = wanted(&query, part.bytes()).unwrap();
                    assert_eq!(
                        found,
                        Some(entry.clone().into()),
                        "{text}, pieces of {size}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_long_list_of_extents_is_not_kept() {
        let line = entry(b"a", 50_000).to_line();
        let mut part = LinePart::default();
        for piece in line.chunks(8192) {
            part.push(piece).unwrap();
        }
        assert!(part.bytes().len() < 8192, "{}", part.bytes().len());
        let found = wanted(&FindQuery::new([&b"a"[..]], false), part.bytes()).unwrap();
        assert_eq!(found.map(|found| found.size), Some(50_000));
    }

    #[test]
    fn lines_that_are_no_entries_are_errors() {
        let query = FindQuery::new([&b"*"[..]], false);
        for line in [
            &b""[..],
            b"{",
            b"{\"path\":\"a",
            b"{\"path\":\"a\"}",
            b"{\"path_b64\":\"!\"}",
            b"{\"path\":\"../a\",\"type\":\"dir\",\"mode\":0,\"uid\":0,\"gid\":0,\"mtime\":0}",
            b"{\"extents\":[[\"x\",0,1]],\"path\":\"a\"}",
        ] {
            assert!(
                wanted(&query, line).is_err(),
                "{}",
                String::from_utf8_lossy(line)
            );
        }
        // Another order of keys, and spaces, are valid JSON.
        let line = b"{\"type\":\"dir\", \"path\":\"a\",\"mode\":0,\"uid\":0,\"gid\":0,\"mtime\":0}";
        assert!(wanted(&query, line).unwrap().is_some());
        let mut part = LinePart::default();
        assert!(part.push(&vec![b'x'; MOST_KEPT + 1]).is_err());
    }
}
