//! Finds the name beside which the log of a database with several names (hard links) is.
//!
//! SQLite names a database's log after the name by which it was opened, so the newest rows of such
//! a file are beside one of its names only. A reader that found another name must open the database
//! by that one. The other names are looked for in the directories of all sources, excluded parts
//! included: once per run, and only if a database with several names has no log beside the name
//! that was found.
//!
//! Two names may each have a log of their own. Then they are two databases that share their old
//! pages, and each is copied with its own log: [`Journals`] distinguishes such states.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::base::openat::{Chosen, Dir, Meta};
use crate::base::sqlite::{self, Place, SIDECARS};
use crate::base::walk::{Filter, Walked, walk};

/// Device and inode.
type Id = (u64, u64);

/// The log and the rollback journal with which a database was read, by device and inode; `None`:
/// there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Journals([Option<Id>; 2]);

impl Journals {
    fn of(logs: &[Option<Meta>; 2]) -> Self {
        Self(logs.map(|log| log.map(|meta| meta.id())))
    }
}

/// The directories in which other names of a database are looked for.
#[derive(Debug, Clone, Default)]
pub struct Roots {
    /// The paths of the sources: directories and files.
    pub paths: Vec<PathBuf>,
    /// Those of `paths` whose file system is not left.
    pub on_one_file_system: Vec<PathBuf>,
    /// Directories that are not entered, by device and inode: our own state and snapshots.
    pub hollow: Vec<Id>,
}

/// The name by which a database is to be opened.
#[derive(Debug)]
pub struct Home {
    /// The directory and the name.
    pub place: Place,
    /// Identifies the state of the database that this name shows.
    pub journals: Journals,
    /// The log and the rollback journal as they were before the database is read; `None`: there is
    /// none with content.
    pub logs: [Option<Meta>; 2],
    /// Whether a file beside that name holds content of the database.
    pub has_live_journal: bool,
    /// How many names of the database are in no source although its newest rows may be beside one
    /// of them.
    pub unseen: u64,
}

impl Home {
    /// Returns the path of that name relative to `root`; `None` if it is not below `root`. The name
    /// itself may be excluded and its sidecars not; these change when the database is read, and
    /// their content is in the copy.
    pub fn rel(&self, root: &Dir) -> Option<&OsStr> {
        let rel = self.place.path().strip_prefix(root.path()).ok()?;
        Some(rel.as_os_str())
    }

    /// Returns why the copy may lack rows; `None` if it cannot.
    pub fn doubt(&self) -> Option<String> {
        (self.unseen > 0).then(|| {
            format!(
                "stored, but {} of its names (hard links) {} in no source: if a program opens it by that name, its newest rows are missing; \
                 take that directory as a source too, or remove the link",
                self.unseen,
                if self.unseen == 1 { "is" } else { "are" }
            )
        })
    }
}

/// Finds the names of databases during one run.
#[derive(Debug, Default)]
pub struct DatabaseNames {
    roots: Roots,
    /// `None` until a database with several names needs it.
    found: Option<LinkedFiles>,
}

/// All files with several names that the sources hold.
#[derive(Debug, Default)]
struct LinkedFiles {
    /// The databases among them.
    databases: HashMap<Id, LinkNames>,
    /// The other files.
    others: HashSet<Id>,
}

/// The names of one database.
#[derive(Debug, Default)]
struct LinkNames {
    /// Names with a file beside them that may be a log: tree and path in it, at most
    /// [`MOST_NAMES`].
    with_sidecar: Vec<(Dir, Vec<u8>)>,
    /// All names, each with its directory's id: a bind mount shows one directory at two paths.
    seen: HashSet<(Id, Vec<u8>)>,
    /// How many further names have such a file and are not in `with_sidecar`.
    surplus: u64,
}

/// How many names of one database are checked for a log. A user may create thousands, each with a
/// log.
const MOST_NAMES: usize = 16;
/// How long after its last change a database in rollback mode may have a journal that a crashed
/// program left, in seconds.
const RECENT_SECONDS: i64 = 31 * 86_400;

impl DatabaseNames {
    /// Looks for names in `roots`, when it is first needed.
    pub fn new(roots: Roots) -> Self {
        let found = None;
        Self { roots, found }
    }

    /// Returns the name by which to open the database `meta`, which was found as `rel` below
    /// `root`.
    pub fn home(&mut self, root: &Dir, rel: &OsStr, meta: &Meta) -> io::Result<Home> {
        let own = Place::below(root, rel)?;
        let is_live = own.has_live_journal();
        let here = |place, has_live_journal, unseen| {
            let logs = match has_live_journal {
                true => logs(root, rel),
                false => [None; 2],
            };
            Home {
                place,
                journals: Journals::of(&logs),
                logs,
                has_live_journal,
                unseen,
            }
        };
        if meta.nlink() < 2 || is_live {
            return Ok(here(own, is_live, 0));
        }
        let roots = &self.roots;
        let found = self.found.get_or_insert_with(|| LinkedFiles::look(roots));
        let names = found.databases.get(&meta.id());
        let mut quiet = None;
        for (root, rel) in names.into_iter().flat_map(|names| &names.with_sidecar) {
            let rel = OsStr::from_bytes(rel);
            let Ok(place) = Place::below(root, rel) else {
                continue;
            };
            if !root.is_still(rel, meta) {
                continue;
            }
            if place.has_live_journal() {
                let logs = logs(root, rel);
                return Ok(Home {
                    place,
                    journals: Journals::of(&logs),
                    logs,
                    has_live_journal: true,
                    unseen: 0,
                });
            }
            quiet.get_or_insert(place);
        }
        let seen = names.map_or(1, |names| names.seen.len() as u64);
        let surplus = names.map_or(0, |names| names.surplus);
        let unseen = match meta.nlink().saturating_sub(seen) + surplus {
            0 => 0,
            unseen if own.open().is_ok_and(|file| may_lack_rows(&file, meta)) => unseen,
            _ => 0,
        };
        // A program that has the database open and wrote nothing yet keeps an empty log beside its
        // name. That is no proof, since reading a database may leave one, too.
        let place = quiet.filter(|_| !has_sidecar(root, rel)).unwrap_or(own);
        Ok(here(place, false, unseen))
    }
}

impl LinkedFiles {
    /// Searches the sources; directories that cannot be read are passed over.
    fn look(roots: &Roots) -> Self {
        let mut found = Self::default();
        let opened = roots
            .paths
            .iter()
            .filter_map(|path| Chosen::open(path).ok());
        // In the order of paths, so that a source within another is searched once.
        let opened: BTreeMap<PathBuf, Chosen> = opened
            .map(|chosen| (chosen.path().to_owned(), chosen))
            .collect();
        let mut trees: Vec<PathBuf> = Vec::new();
        for (path, chosen) in opened {
            if trees.iter().any(|tree| path.starts_with(tree)) {
                continue;
            }
            if !chosen.is_dir() {
                let name = chosen.name().as_bytes();
                found.note(chosen.dir(), name, chosen.meta());
                continue;
            }
            let filter = Filter {
                one_file_system: roots.on_one_file_system.contains(&path),
                hollow: roots.hollow.clone(),
                ..Filter::everything()
            };
            let walked = walk(chosen.dir(), &filter);
            for walked in walked.into_iter().flatten() {
                if let Walked::Found(one) = walked {
                    found.note(&one.root, &one.rel, &one.meta);
                }
            }
            trees.push(path);
        }
        found
    }

    /// Adds the name `rel` of the file `meta`, if the file has several names.
    fn note(&mut self, root: &Dir, rel: &[u8], meta: &Meta) {
        let id = meta.id();
        if !meta.is_file() || meta.nlink() < 2 || self.others.contains(&id) {
            return;
        }
        let name = OsStr::from_bytes(rel);
        if !self.databases.contains_key(&id) && !is_database(root, name) {
            self.others.insert(id);
            return;
        }
        let path = Path::new(name);
        let parent = path.parent().unwrap_or(Path::new(""));
        let parent = match parent.as_os_str().is_empty() {
            true => Meta::of_fd(root),
            false => root.meta(parent),
        };
        let (Ok(parent), Some(last)) = (parent, path.file_name()) else {
            return;
        };
        let names = self.databases.entry(id).or_default();
        if !names.seen.insert((parent.id(), last.as_bytes().to_vec())) {
            return;
        }
        if has_sidecar(root, name) {
            match names.with_sidecar.len() < MOST_NAMES {
                true => names.with_sidecar.push((root.clone(), rel.to_vec())),
                false => names.surplus += 1,
            }
        }
    }
}

/// Returns `rel` with `ending` added.
fn beside(rel: &OsStr, ending: &[u8]) -> Vec<u8> {
    [rel.as_bytes(), ending].concat()
}

/// Whether a log, its index or a journal is beside `rel`.
fn has_sidecar(root: &Dir, rel: &OsStr) -> bool {
    let is_there = |ending: &[u8]| {
        let meta = root.meta(OsStr::from_bytes(&beside(rel, ending)));
        meta.is_ok_and(|meta| meta.is_file())
    };
    SIDECARS.iter().any(|ending| is_there(ending))
}

/// Returns the log and the rollback journal beside `rel`; `None` if it is missing or empty.
fn logs(root: &Dir, rel: &OsStr) -> [Option<Meta>; 2] {
    [&b"-wal"[..], b"-journal"].map(|ending| {
        let meta = root.meta(OsStr::from_bytes(&beside(rel, ending))).ok()?;
        (meta.is_file() && meta.len() > 0).then_some(meta)
    })
}

fn is_database(root: &Dir, rel: &OsStr) -> bool {
    let mut head = [0; 20];
    let file = root.open_file(rel);
    file.is_ok_and(|(file, _)| file.read_exact_at(&mut head, 0).is_ok()) && sqlite::is_sqlite(&head)
}

/// Whether rows of the database may be beside another name: its header says that it writes a log,
/// or it was written lately, and a program may have died while its rollback journal was still
/// needed.
fn may_lack_rows(file: &File, meta: &Meta) -> bool {
    let mut head = [0; 20];
    let read = file.read_exact_at(&mut head, 0);
    let is_database = read.is_ok() && sqlite::is_sqlite(&head);
    let since = crate::base::clock::now().timestamp() - RECENT_SECONDS;
    is_database && (head[18..].contains(&2) || meta.mtime() > since)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const WAL: &[u8] = b"SQLite format 3\0\x10\0\x02\x02";

    fn home(names: &mut DatabaseNames, dir: &Path, rel: &str) -> Home {
        let root = Dir::open(dir).unwrap();
        let meta = root.meta(rel).unwrap();
        names.home(&root, OsStr::new(rel), &meta).unwrap()
    }

    fn names(paths: &[&Path]) -> DatabaseNames {
        DatabaseNames::new(Roots {
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            ..Roots::default()
        })
    }

    #[test]
    fn the_name_with_the_log_is_found_in_any_source() {
        let temp = tempfile::tempdir().unwrap();
        let (a, b) = (temp.path().join("a"), temp.path().join("b"));
        fs::create_dir_all(&a).unwrap();
        fs::create_dir_all(b.join("deep")).unwrap();
        fs::write(a.join("alias"), WAL).unwrap();
        fs::hard_link(a.join("alias"), b.join("deep/live")).unwrap();
        fs::write(b.join("deep/live-wal"), b"rows").unwrap();
        let home_of = |paths: &[&Path]| home(&mut names(paths), &a, "alias");
        let found = home_of(&[&a, &b]);
        assert!(found.has_live_journal && found.place.path().ends_with("deep/live"));
        assert_eq!(found.doubt(), None);
        // A source that is that one file.
        let found = home_of(&[&a, &b.join("deep/live")]);
        assert!(found.has_live_journal);
        // It is in no source.
        let found = home_of(&[&a]);
        assert!(!found.has_live_journal && found.place.path().ends_with("a/alias"));
        assert!(
            found
                .doubt()
                .unwrap()
                .starts_with("stored, but 1 of its names")
        );
        // A program that has the database open keeps an empty log.
        fs::write(b.join("deep/live-wal"), b"").unwrap();
        let found = home_of(&[&a, &b]);
        assert!(!found.has_live_journal && found.place.path().ends_with("deep/live"));
    }

    #[test]
    fn the_log_beside_the_own_name_comes_first() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        fs::write(dir.join("x"), WAL).unwrap();
        fs::hard_link(dir.join("x"), dir.join("y")).unwrap();
        fs::hard_link(dir.join("x"), dir.join("z")).unwrap();
        for name in ["x-wal", "y-wal"] {
            fs::write(dir.join(name), name).unwrap();
        }
        let mut names = names(&[dir]);
        let [x, y, z] = ["x", "y", "z"].map(|name| home(&mut names, dir, name));
        assert!(x.place.path().ends_with("x") && y.place.path().ends_with("y"));
        assert_ne!(x.journals, y.journals);
        assert!(z.has_live_journal && [x.journals, y.journals].contains(&z.journals));
        // Logs that are links of one file are one state.
        fs::remove_file(dir.join("y-wal")).unwrap();
        fs::hard_link(dir.join("x-wal"), dir.join("y-wal")).unwrap();
        let [x, y] = ["x", "y"].map(|name| home(&mut names, dir, name));
        assert_eq!(x.journals, y.journals);
    }

    /// A database in rollback mode has no log, but may have a journal that takes half a transaction
    /// back.
    #[test]
    fn a_rollback_database_that_was_written_lately_is_in_doubt_too() {
        const ROLLBACK: &[u8] = b"SQLite format 3\0\x10\0\x01\x01";
        let temp = tempfile::tempdir().unwrap();
        let (a, b) = (temp.path().join("a"), temp.path().join("b"));
        fs::create_dir_all(&a).unwrap();
        fs::create_dir_all(&b).unwrap();
        fs::write(a.join("alias"), ROLLBACK).unwrap();
        fs::hard_link(a.join("alias"), b.join("live")).unwrap();
        let doubt = || home(&mut names(&[&a]), &a, "alias").doubt();
        assert!(doubt().is_some());
        let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        let file = File::options().write(true).open(a.join("alias")).unwrap();
        file.set_modified(long_ago).unwrap();
        assert_eq!(doubt(), None);
    }

    /// Kind: a user creates thousands of names, each with a log, and each name is checked for each.
    #[test]
    fn few_of_thousands_of_names_with_logs_are_checked_and_the_others_are_counted() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        fs::write(dir.join("0"), WAL).unwrap();
        let count = 2000;
        for n in 1..count {
            fs::hard_link(dir.join("0"), dir.join(n.to_string())).unwrap();
        }
        for n in 0..count {
            fs::write(dir.join(format!("{n}-wal")), b"").unwrap();
        }
        let mut names = names(&[dir]);
        let start = std::time::Instant::now();
        for n in 0..count {
            let found = home(&mut names, dir, &n.to_string());
            assert_eq!(found.unseen, count - MOST_NAMES as u64);
        }
        assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    }

    #[test]
    fn a_name_that_is_found_twice_counts_once() {
        let temp = tempfile::tempdir().unwrap();
        let (a, outside) = (temp.path().join("a"), temp.path().join("outside"));
        fs::create_dir_all(&a).unwrap();
        fs::create_dir_all(&outside).unwrap();
        fs::write(a.join("x"), WAL).unwrap();
        fs::hard_link(a.join("x"), outside.join("x")).unwrap();
        let root = Dir::open(temp.path()).unwrap();
        let meta = root.meta("a/x").unwrap();
        let mut found = LinkedFiles::default();
        // As a bind mount shows it: by another root, and by another path.
        found.note(&root, b"a/x", &meta);
        found.note(&Dir::open(&a).unwrap(), b"x", &meta);
        assert_eq!(found.databases[&meta.id()].seen.len(), 1);
    }
}
