//! The one order in which a directory tree is read: raw path bytes.
//!
//! The index is sorted by the bytes of the whole path, so `a`, `a-b`, `a/b` come in this order
//! (`-` sorts before `/`). Sorting each listing by name alone would not give that; so a listing
//! holds two items for a directory, `a` for the entry and `a/` for the descent, and sorting these
//! gives the order of the whole while only one listing per level is held. The levels are an explicit
//! stack: a tree may be deeper than ours.
//!
//! What the filter leaves out was left out on purpose and is not mentioned. What could not be read is
//! yielded as [`Walked::Skipped`]: the caller counts it and does not call the run complete. A file
//! that is gone before it was looked at was never there.

use std::collections::HashSet;
use std::fs::{self, DirEntry, Metadata};
use std::io::{self, Read as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::index::Skipped;

const CACHEDIR_TAG: &[u8] = b"CACHEDIR.TAG";
const CACHEDIR_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";
const NOBACKUP: &[u8] = b".nobackup";

#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    #[error("cannot read the directory {}", path.display())]
    Root {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{pattern:?} is not a gitignore pattern")]
    Pattern {
        pattern: String,
        #[source]
        source: ignore::Error,
    },
}

/// What of a tree is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Gitignore lines, relative to the root; a later line wins, `!` takes back.
    pub excludes: Vec<String>,
    /// Keeps a mount point as a directory, but nothing inside it.
    pub one_file_system: bool,
    /// Larger regular files are left out.
    pub max_file_bytes: Option<u64>,
    /// A directory with a valid `CACHEDIR.TAG` is kept with nothing but the tag.
    pub cachedir_tag: bool,
    /// A directory with a `.nobackup` is kept with nothing but that marker.
    pub nobackup: bool,
    /// Absolute directories that are kept, but empty: our own state and snapshots, if the tree holds them.
    pub hollow: Vec<PathBuf>,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            excludes: Vec::new(),
            one_file_system: false,
            max_file_bytes: None,
            cachedir_tag: true,
            nobackup: true,
            hollow: Vec::new(),
        }
    }
}

impl Filter {
    /// Everything there is, markers or not: for directories that are ours.
    pub fn everything() -> Self {
        Self {
            cachedir_tag: false,
            nobackup: false,
            ..Self::default()
        }
    }

    /// Checks the patterns, so that a configuration fails early.
    pub fn check(&self) -> Result<(), WalkError> {
        self.compile().map(drop)
    }

    fn compile(&self) -> Result<Gitignore, WalkError> {
        let mut builder = GitignoreBuilder::new("");
        for pattern in &self.excludes {
            let wrong = |source| WalkError::Pattern {
                pattern: pattern.clone(),
                source,
            };
            builder.add_line(None, pattern).map_err(wrong)?;
        }
        builder.build().map_err(|source| WalkError::Pattern {
            pattern: self.excludes.join(" "),
            source,
        })
    }
}

/// One thing of the tree.
#[derive(Debug, Clone)]
pub struct Found {
    /// Raw bytes relative to the root, `/` between components.
    pub rel: Vec<u8>,
    pub abs: PathBuf,
    /// Of the thing itself: symbolic links are not followed.
    pub meta: Metadata,
}

#[derive(Debug, Clone)]
pub enum Walked {
    Found(Found),
    /// Could not be read; `path` is relative to the root.
    Skipped(Skipped),
}

/// Walks what is below `root` (not `root` itself) in raw byte order of `rel`.
///
/// Fails only if `root` can't be listed or a pattern is wrong.
pub fn walk(root: &Path, filter: &Filter) -> Result<Walk, WalkError> {
    let unreadable = |source| WalkError::Root {
        path: root.to_owned(),
        source,
    };
    let mut walk = Walk {
        matcher: filter.compile()?,
        filter: filter.clone(),
        device: fs::metadata(root).map_err(unreadable)?.dev(),
        levels: Vec::new(),
        pending: None,
        told: HashSet::new(),
    };
    let level = walk.list(Vec::new(), root.to_owned()).map_err(unreadable)?;
    walk.levels.push(level);
    Ok(walk)
}

/// See [`walk`].
pub struct Walk {
    filter: Filter,
    matcher: Gitignore,
    /// Of the root.
    device: u64,
    levels: Vec<Level>,
    /// A listing that broke off, to be told before its items.
    pending: Option<Skipped>,
    /// Directories that were told of already.
    told: HashSet<Vec<u8>>,
}

struct Level {
    rel: Vec<u8>,
    abs: PathBuf,
    /// In descending order by name, to be popped.
    items: Vec<Item>,
}

/// Name, whether it is a directory, whether a socket.
type Listed = (Vec<u8>, bool, bool, Option<DirEntry>);

struct Item {
    /// A descent ends with `/`.
    name: Vec<u8>,
    /// For asking the open directory: a whole path takes three times as long.
    entry: Option<DirEntry>,
}

/// So many directories are held open, the outermost,
const MOST_OPEN: usize = 8;
/// if they have fewer entries than this, since each takes memory.
const MOST_ENTRIES: usize = if cfg!(test) { 16 } else { 65_536 };

impl Walk {
    fn list(&mut self, rel: Vec<u8>, abs: PathBuf) -> io::Result<Level> {
        let mut found = Vec::new();
        let mut hold = self.levels.len() < MOST_OPEN;
        if !self.filter.hollow.contains(&abs) {
            for entry in fs::read_dir(&abs)? {
                match entry.and_then(|e| Ok((e.file_type()?, e))) {
                    Ok((kind, entry)) => {
                        let name = entry.file_name().into_vec();
                        found.push((name, kind.is_dir(), kind.is_socket(), hold.then_some(entry)));
                        if found.len() == MOST_ENTRIES {
                            hold = false;
                            found.iter_mut().for_each(|(.., entry)| *entry = None);
                        }
                    }
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => {
                        self.pending = Some(skipped(&rel, &e));
                        break;
                    }
                }
            }
        }
        if let Some(marker) = self.marker(&abs, &found) {
            found.retain(|(name, is_dir, ..)| name == marker && !is_dir);
        }
        let mut items = Vec::with_capacity(found.len());
        for (name, is_dir, is_socket, entry) in found {
            if is_socket || self.is_excluded(&joined(&rel, &name), is_dir) {
                continue;
            }
            if is_dir {
                items.push(Item {
                    name: [&name[..], b"/"].concat(),
                    entry: None,
                });
            }
            items.push(Item { name, entry });
        }
        items.sort_unstable_by(|a, b| b.name.cmp(&a.name));
        Ok(Level { rel, abs, items })
    }

    /// The marker file that hollows this directory out, if there is one.
    fn marker(&self, abs: &Path, found: &[Listed]) -> Option<&'static [u8]> {
        let has = |marker: &[u8]| found.iter().any(|(name, ..)| name == marker);
        if self.filter.nobackup && has(NOBACKUP) {
            return Some(NOBACKUP);
        }
        if self.filter.cachedir_tag && has(CACHEDIR_TAG) && is_cachedir_tag(abs) {
            return Some(CACHEDIR_TAG);
        }
        None
    }

    fn is_excluded(&self, rel: &[u8], is_dir: bool) -> bool {
        let path = Path::new(std::ffi::OsStr::from_bytes(rel));
        self.matcher.matched(path, is_dir).is_ignore()
    }

    /// Handles one item: a descent pushes a level, an entry is yielded.
    fn step(
        &mut self,
        rel: Vec<u8>,
        abs: PathBuf,
        entry: Option<DirEntry>,
        descend: bool,
    ) -> Option<Walked> {
        // What has no entry must have no content either, even if it can be read by now.
        if descend && self.told.contains(&rel) {
            return None;
        }
        let meta = match entry.as_ref().map(DirEntry::metadata) {
            Some(asked) => asked,
            None => fs::symlink_metadata(&abs),
        };
        let meta = match meta {
            Ok(meta) => meta,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
            Err(e) => {
                let skipped = skipped(&rel, &e);
                self.told.insert(rel);
                return Some(Walked::Skipped(skipped));
            }
        };
        if !descend {
            let too_large = |max| meta.is_file() && meta.len() > max;
            let unwanted = self.filter.max_file_bytes.is_some_and(too_large);
            let wanted = !unwanted && !meta.file_type().is_socket();
            return wanted.then_some(Walked::Found(Found { rel, abs, meta }));
        }
        let is_elsewhere = self.filter.one_file_system && meta.dev() != self.device;
        // It may have become a symbolic link since it was listed; those are not followed.
        if is_elsewhere || !meta.is_dir() {
            return None;
        }
        match self.list(rel.clone(), abs) {
            Ok(level) => self.levels.push(level),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Some(Walked::Skipped(skipped(&rel, &e))),
        }
        None
    }
}

impl Iterator for Walk {
    type Item = Walked;
    fn next(&mut self) -> Option<Walked> {
        loop {
            if let Some(skipped) = self.pending.take() {
                return Some(Walked::Skipped(skipped));
            }
            let level = self.levels.last_mut()?;
            let Some(Item { mut name, entry }) = level.items.pop() else {
                self.levels.pop();
                continue;
            };
            let descend = name.pop_if(|byte| *byte == b'/').is_some();
            let rel = joined(&level.rel, &name);
            let abs = level.abs.join(std::ffi::OsStr::from_bytes(&name));
            if let Some(walked) = self.step(rel, abs, entry, descend) {
                return Some(walked);
            }
        }
    }
}

fn joined(rel: &[u8], name: &[u8]) -> Vec<u8> {
    if rel.is_empty() {
        return name.to_vec();
    }
    [rel, b"/", name].concat()
}

fn skipped(rel: &[u8], error: &io::Error) -> Skipped {
    Skipped {
        path: String::from_utf8_lossy(rel).into_owned(),
        reason: match error.kind() {
            io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            _ => error.to_string(),
        },
    }
}

/// The tag counts only with its signature, as the specification of cache directories says.
fn is_cachedir_tag(dir: &Path) -> bool {
    let path = dir.join(std::ffi::OsStr::from_bytes(CACHEDIR_TAG));
    // A FIFO of that name would block the open for ever.
    if !fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file()) {
        return false;
    }
    let mut head = Vec::new();
    let limit = CACHEDIR_SIGNATURE.len() as u64;
    let read = fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut head));
    read.is_ok() && head == CACHEDIR_SIGNATURE
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rels(root: &Path, filter: &Filter) -> Vec<String> {
        walk(root, filter)
            .unwrap()
            .map(|walked| match walked {
                Walked::Found(found) => String::from_utf8_lossy(&found.rel).into_owned(),
                Walked::Skipped(skipped) => format!("skipped {}", skipped.path),
            })
            .collect()
    }

    fn write(root: &Path, rel: &str, content: &[u8]) {
        let path = root.join(rel);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Streaming gives what sorting all paths would.
        #[test]
        fn order_is_that_of_raw_path_bytes(
            paths in prop::collection::vec(prop::collection::vec("[a!\\-0\u{e9}]{1,3}", 1..5), 0..40)
        ) {
            let dir = tempfile::tempdir().unwrap();
            let mut expected = std::collections::BTreeSet::new();
            for parts in &paths {
                let rel = parts.join("/");
                if fs::create_dir_all(dir.path().join(&rel)).is_ok() {
                    for depth in 1..=parts.len() {
                        expected.insert(parts[..depth].join("/").into_bytes());
                    }
                }
            }
            let found: Vec<Vec<u8>> = walk(dir.path(), &Filter::default()).unwrap().map(|w| match w {
                Walked::Found(found) => found.rel,
                Walked::Skipped(skipped) => panic!("{skipped:?}"),
            }).collect();
            prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_directory_is_interrupted_by_its_longer_sisters() {
        let dir = tempfile::tempdir().unwrap();
        for rel in ["a/b", "a-b", "a0", "a/b-c"] {
            write(dir.path(), rel, b"");
        }
        let found = rels(dir.path(), &Filter::default());
        assert_eq!(found, ["a", "a-b", "a/b", "a/b-c", "a0"]);
    }

    #[test]
    fn filters_leave_out_and_do_not_mention() {
        let dir = tempfile::tempdir().unwrap();
        let tag = [CACHEDIR_SIGNATURE, b"\n# more"].concat();
        write(dir.path(), "cache/CACHEDIR.TAG", &tag);
        write(dir.path(), "cache/junk", b"");
        write(dir.path(), "fake/CACHEDIR.TAG", b"no signature");
        write(dir.path(), "fake/kept", b"");
        write(dir.path(), "no/.nobackup", b"");
        write(dir.path(), "no/junk/deep", b"");
        write(dir.path(), "x.log", b"");
        write(dir.path(), "keep.log", b"");
        write(dir.path(), "build/out", b"");
        write(dir.path(), "big", &[0; 100]);
        write(dir.path(), "own/state", b"");
        let filter = Filter {
            excludes: vec!["*.log".into(), "!keep.log".into(), "/build/".into()],
            max_file_bytes: Some(99),
            hollow: vec![dir.path().join("own")],
            ..Filter::default()
        };
        let expected = [
            "cache",
            "cache/CACHEDIR.TAG",
            "fake",
            "fake/CACHEDIR.TAG",
            "fake/kept",
            "keep.log",
            "no",
            "no/.nobackup",
            "own",
        ];
        assert_eq!(rels(dir.path(), &filter), expected);
        assert_eq!(rels(dir.path(), &Filter::everything()).len(), 17);
    }

    #[test]
    fn sockets_vanish_and_deep_trees_do_not_overflow() {
        let dir = tempfile::tempdir().unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        let deep = vec!["d"; 1500].join("/");
        fs::create_dir_all(dir.path().join(deep)).unwrap();
        assert_eq!(rels(dir.path(), &Filter::default()).len(), 1500);
    }

    #[test]
    fn a_directory_that_is_lost_between_its_entry_and_its_content_is_told_of() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "a/b/c", b"");
        let mut walk = walk(dir.path(), &Filter::default()).unwrap();
        for _ in ["a", "a/b"] {
            assert!(matches!(walk.next(), Some(Walked::Found(_))));
        }
        fs::rename(dir.path().join("a"), dir.path().join("elsewhere")).unwrap();
        write(dir.path(), "a", b"a file by now");
        let rest: Vec<_> = walk.collect();
        assert!(
            matches!(&rest[..], [Walked::Skipped(skipped)] if skipped.path == "a/b"),
            "{rest:?}"
        );
    }

    #[test]
    fn a_bad_pattern_or_root_is_an_error() {
        let bad = Filter {
            excludes: vec!["a{b".into()],
            ..Filter::default()
        };
        assert!(matches!(bad.check(), Err(WalkError::Pattern { .. })));
        let missing = walk(Path::new("/nonexistent/x"), &Filter::default());
        assert!(matches!(missing.err(), Some(WalkError::Root { .. })));
    }
}
