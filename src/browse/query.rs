//! What a search looks for: names or paths, kinds, sizes and times. Pure.

use crate::base::glob::Glob;
use crate::format::index::{Entry, EntryType};

/// A kind of entry that `--type` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KindFilter {
    /// Files, and further names of files.
    File,
    /// Directories.
    Dir,
    /// Symbolic links.
    Link,
}

/// A bound on the size of files, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SizeBound {
    /// `+10M`: larger.
    Above(u64),
    /// `-10M`: smaller.
    Below(u64),
    /// `10M`: exactly so large.
    Exactly(u64),
}

/// One pattern.
#[derive(Debug, Clone)]
struct NamePattern {
    /// As it was given, for names that have the characters of a glob.
    text: Vec<u8>,
    /// `None`: it is malformed as a glob, and only its text matches.
    glob: Option<Glob>,
    /// Without a slash it is compared with names, else with whole paths.
    is_of_names: bool,
}

/// What entries must be to be found.
#[derive(Debug, Clone, Default)]
pub struct FindQuery {
    patterns: Vec<NamePattern>,
    /// Upper and lower case are the same.
    ignores_case: bool,
    /// `None`: any kind.
    pub kind: Option<KindFilter>,
    /// Of files only. `None`: any size.
    pub size: Option<SizeBound>,
    /// The lowest time of change, in nanoseconds since 1970. `None`: any time.
    pub changed_since_ns: Option<i128>,
}

impl FindQuery {
    /// Returns a query for entries that one of `patterns` matches. A pattern without a slash is
    /// compared with names, another one with paths from the top of the snapshot.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a [u8]>, ignores_case: bool) -> Self {
        let pattern = |text: &[u8]| {
            let is_of_names = !text.contains(&b'/');
            let text = folded(ignores_case, trim(text)).into_owned();
            NamePattern {
                glob: Glob::compile(&text),
                text,
                is_of_names,
            }
        };
        Self {
            patterns: patterns.into_iter().map(pattern).collect(),
            ignores_case,
            ..Self::default()
        }
    }

    /// Returns a query for the entry at exactly this path.
    pub fn exactly(path: &[u8]) -> Self {
        let pattern = NamePattern {
            text: path.to_vec(),
            glob: None,
            is_of_names: false,
        };
        Self {
            patterns: vec![pattern],
            ..Self::default()
        }
    }

    /// Whether there is no pattern, so that nothing is found.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Returns whether a pattern matches `path`.
    pub fn matches_path(&self, path: &[u8]) -> bool {
        let path = &*folded(self.ignores_case, path);
        let name = path.iter().rposition(|byte| *byte == b'/');
        let name = &path[name.map_or(0, |at| at + 1)..];
        self.patterns.iter().any(|pattern| {
            let text = if pattern.is_of_names { name } else { path };
            *text == *pattern.text || pattern.glob.as_ref().is_some_and(|glob| glob.matches(text))
        })
    }

    /// Returns whether an entry whose path matches fulfils the rest.
    pub(super) fn takes(&self, entry: &Entry) -> bool {
        let is_file = entry.kind == EntryType::File;
        let is_kind = match self.kind {
            None => true,
            Some(KindFilter::File) => is_file || entry.kind == EntryType::Hardlink,
            Some(KindFilter::Dir) => entry.kind == EntryType::Dir,
            Some(KindFilter::Link) => entry.kind == EntryType::Symlink,
        };
        let is_size = match self.size {
            None => true,
            Some(SizeBound::Above(bytes)) => is_file && entry.size > bytes,
            Some(SizeBound::Below(bytes)) => is_file && entry.size < bytes,
            Some(SizeBound::Exactly(bytes)) => is_file && entry.size == bytes,
        };
        is_kind
            && is_size
            && self
                .changed_since_ns
                .is_none_or(|since| entry.mtime_ns >= since)
    }
}

/// Normalizes a path: `./a/b/` and `/a/b` mean `a/b`.
fn trim(path: &[u8]) -> &[u8] {
    let mut path = path;
    loop {
        path = match path {
            [b'.', b'/', rest @ ..] | [b'/', rest @ ..] | [rest @ .., b'/'] => rest,
            _ => return path,
        };
    }
}

/// Returns `text` in lower case, if `ignores_case`. What is not UTF-8 keeps its bytes but for
/// ASCII.
fn folded(ignores_case: bool, text: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    if !ignores_case {
        return text.into();
    }
    match std::str::from_utf8(text) {
        Ok(text) => text.to_lowercase().into_bytes().into(),
        Err(_) => text.to_ascii_lowercase().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_match_names_and_paths_match_from_the_top() {
        for (pattern, path, matches) in [
            ("notes.txt", "a/b/notes.txt", true),
            ("notes", "a/b/notes.txt", false),
            ("*.txt", "a/b/notes.txt", true),
            ("b", "a/b/notes.txt", false),
            ("a/*.txt", "a/b/notes.txt", false),
            ("a/**/*.txt", "a/b/notes.txt", true),
            ("/a/b/", "a/b", true),
            ("b/notes.txt", "a/b/notes.txt", false),
            // Names with the characters of a glob.
            ("a[1]", "x/a[1]", true),
            ("a[1]", "x/a1", true),
            ("[", "[", true),
            ("[", "x", false),
            ("NOTES.txt", "notes.txt", false),
        ] {
            let query = FindQuery::new([pattern.as_bytes()], false);
            assert_eq!(
                query.matches_path(path.as_bytes()),
                matches,
                "{pattern} {path}"
            );
        }
        let query = FindQuery::new([&b"\xc3\x84*.TXT"[..], b"\xff*"], true);
        for path in ["b/\u{e4}x.txt".as_bytes(), b"\xc3\x84.Txt", b"\xffa"] {
            assert!(query.matches_path(path), "{path:?}");
        }
        assert!(!FindQuery::new([], false).matches_path(b"a"));
        assert!(!FindQuery::exactly(b"a*").matches_path(b"ab"));
    }
}
