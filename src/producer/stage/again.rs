//! A staged tree is one state: after the copy the tree is walked again and compared with what the first walk
//! saw.
//!
//! If every entry looks as it did before it was copied, then all of them were in these states at one moment: at
//! the end of the copy. Else the copy may be torn, file against file, and is made again: what did not move is
//! linked from the copy before, so a further attempt costs no more than what moved.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use super::super::SourceError;
use super::super::record::Look;
use crate::openat::{Kind, Meta};
use crate::walk::{Filter, Walked, walk};

/// A change so soon after the last one may leave the same times: kernels count them in ticks.
const TICK: Duration = Duration::from_millis(20);
/// So many paths are named; the others are counted.
const MOST_NAMED: usize = 5;

/// The entries of a tree, as a walk found them.
#[derive(Default)]
pub(in super::super) struct Seen {
    entries: BTreeMap<Vec<u8>, State>,
    /// Databases: what is in their sidecars counts, and not whether there are any.
    databases: BTreeSet<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// A file or a link, and when it was looked at (nanoseconds since 1970).
    Content { look: Look, at: i128 },
    /// What is in a directory are entries of their own. Making and removing them changes its times, as using
    /// a FIFO or a device does.
    Other {
        id: (u64, u64),
        mode: u32,
        owner: (u32, u32),
    },
}

impl State {
    fn of(meta: &Meta) -> Self {
        if !matches!(meta.kind(), Kind::File | Kind::Symlink) {
            return Self::Other {
                id: meta.id(),
                mode: meta.mode(),
                owner: (meta.uid(), meta.gid()),
            };
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self::Content {
            look: Look::of(meta),
            at: now.map_or(0, |since| since.as_nanos() as i128),
        }
    }

    /// Whether it is certainly what `earlier` was. Of a database's journal the time of its last change says
    /// nothing: SQLite gives it the database's owner whenever it opens it, as reading it does.
    fn is_still(self, earlier: Self, is_journal: bool) -> bool {
        let (Self::Content { look: now, .. }, Self::Content { look, at }) = (self, earlier) else {
            return self == earlier;
        };
        let counted = |look: Look| match is_journal {
            true => Look {
                ctime: look.mtime,
                ..look
            },
            false => look,
        };
        let (now, look) = (counted(now), counted(look));
        let age = at - look.mtime.max(look.ctime);
        let is_fresh = (0..TICK.as_nanos() as i128).contains(&age);
        now == look && !is_fresh
    }
}

impl Seen {
    pub fn note(&mut self, rel: &[u8], meta: &Meta) {
        self.entries.insert(rel.to_vec(), State::of(meta));
    }

    pub fn note_databases<'a>(&mut self, databases: impl Iterator<Item = &'a Vec<u8>>) {
        self.databases.extend(databases.cloned());
    }

    /// Walks the tree again, and returns what is not as it was.
    pub fn moved(
        &self,
        root: &crate::openat::Dir,
        filter: &Filter,
    ) -> Result<BTreeSet<Vec<u8>>, SourceError> {
        let mut gone: BTreeMap<&Vec<u8>, &State> = self.entries.iter().collect();
        let mut moved = BTreeSet::new();
        for walked in walk(root, filter).map_err(SourceError::Walk)? {
            let Walked::Found(found) = walked else {
                continue;
            };
            let state = State::of(&found.meta);
            let earlier = gone.remove(&found.rel);
            let is_journal = self.is_journal(&found.rel);
            let is_same = earlier.is_some_and(|earlier| state.is_still(*earlier, is_journal));
            if !is_same && self.counts(&found.rel, &state) {
                moved.insert(found.rel);
            }
        }
        let gone = gone.into_iter();
        let gone = gone.filter(|(rel, state)| self.counts(rel, state));
        moved.extend(gone.map(|(rel, _)| rel.clone()));
        Ok(moved)
    }

    /// Whether it is content. Reading a database may make its sidecars, and a program that ends removes them;
    /// an empty log is none, and its index is made from it.
    fn counts(&self, rel: &[u8], state: &State) -> bool {
        let is_empty = matches!(state, State::Content { look, .. } if look.size == 0);
        !(self.is_sidecar(rel, b"-shm") || self.is_journal(rel) && is_empty)
    }

    fn is_journal(&self, rel: &[u8]) -> bool {
        self.is_sidecar(rel, b"-wal") || self.is_sidecar(rel, b"-journal")
    }

    fn is_sidecar(&self, rel: &[u8], ending: &[u8]) -> bool {
        let base = rel.strip_suffix(ending);
        base.is_some_and(|base| self.databases.contains(base))
    }
}

/// Names what moved in each of `attempts`.
pub(super) fn reason(moved: &BTreeSet<Vec<u8>>, attempts: u32) -> String {
    let named = moved.iter().take(MOST_NAMED);
    let named: Vec<_> = named.map(|rel| String::from_utf8_lossy(rel)).collect();
    let more = match moved.len().saturating_sub(MOST_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "files changed while the tree was copied, in each of {attempts} attempts, so they may not fit each other: {}{more}; \
         guard the source with `lock` or `before`, exclude what changes all the time, or read it in place (`stage = false`)",
        named.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openat::Dir;
    use std::fs;

    /// Everything that may move in a tree moves, one thing at a time.
    #[test]
    fn whatever_moved_is_seen() {
        type Change = fn(&std::path::Path);
        let changes: &[(&str, Option<&str>, Change)] = &[
            ("nothing", None, |_| {}),
            ("content", Some("a"), |d| {
                fs::write(d.join("a"), "other").unwrap()
            }),
            ("appended", Some("d/b"), |d| {
                fs::write(d.join("d/b"), "bb").unwrap()
            }),
            ("new", Some("d/new"), |d| {
                fs::write(d.join("d/new"), "").unwrap()
            }),
            ("new directory", Some("e"), |d| {
                fs::create_dir(d.join("e")).unwrap()
            }),
            ("gone", Some("a"), |d| fs::remove_file(d.join("a")).unwrap()),
            ("renamed", Some("c"), |d| {
                fs::rename(d.join("a"), d.join("c")).unwrap()
            }),
            ("replaced", Some("a"), |d| {
                fs::write(d.join("d/.a"), "a").unwrap();
                fs::rename(d.join("d/.a"), d.join("a")).unwrap();
            }),
            ("mode", Some("a"), |d| {
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
                fs::set_permissions(d.join("a"), mode).unwrap();
            }),
            ("mode of a directory", Some("d"), |d| {
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
                fs::set_permissions(d.join("d"), mode).unwrap();
            }),
            ("link", Some("l"), |d| {
                fs::remove_file(d.join("l")).unwrap();
                std::os::unix::fs::symlink("b", d.join("l")).unwrap();
            }),
            ("log", Some("x-wal"), |d| {
                fs::write(d.join("x-wal"), "more").unwrap()
            }),
            ("empty log", None, |d| {
                fs::write(d.join("y-wal"), "").unwrap()
            }),
            ("index of a log", None, |d| {
                fs::write(d.join("x-shm"), "more").unwrap()
            }),
            ("owner of a log", None, |d| {
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
                fs::set_permissions(d.join("x-wal"), mode).unwrap();
            }),
            ("nothing of a database", Some("a-wal"), |d| {
                fs::write(d.join("a-wal"), "").unwrap()
            }),
        ];
        for (what, expected, change) in changes {
            let temp = tempfile::tempdir().unwrap();
            let dir = temp.path();
            fs::create_dir(dir.join("d")).unwrap();
            for (name, text) in [
                ("a", "a"),
                ("d/b", "b"),
                ("x", ""),
                ("x-wal", "rows"),
                ("y", ""),
            ] {
                fs::write(dir.join(name), text).unwrap();
            }
            std::os::unix::fs::symlink("a", dir.join("l")).unwrap();
            std::thread::sleep(TICK * 2);
            let (root, filter) = (Dir::open(dir).unwrap(), Filter::everything());
            let mut seen = Seen::default();
            for walked in walk(&root, &filter).unwrap() {
                if let Walked::Found(found) = walked {
                    seen.note(&found.rel, &found.meta);
                }
            }
            seen.note_databases([b"x".to_vec(), b"y".to_vec()].iter());
            change(dir);
            let moved = seen.moved(&root, &filter).unwrap();
            let moved: Vec<String> = moved
                .into_iter()
                .map(|rel| String::from_utf8(rel).unwrap())
                .collect();
            match expected {
                Some(rel) => assert!(moved.iter().any(|one| one == rel), "{what}: {moved:?}"),
                None => assert!(moved.is_empty(), "{what}: {moved:?}"),
            }
        }
    }

    #[test]
    fn what_changed_just_before_it_was_looked_at_is_in_doubt() {
        let temp = tempfile::tempdir().unwrap();
        let root = Dir::open(temp.path()).unwrap();
        fs::write(temp.path().join("a"), "a").unwrap();
        let mut seen = Seen::default();
        seen.note(b"a", &root.meta("a").unwrap());
        assert_eq!(seen.moved(&root, &Filter::everything()).unwrap().len(), 1);
    }
}
