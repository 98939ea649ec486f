//! Whatever a tree holds and however it changes, every snapshot comes back as it was: by Sealift and
//! by `recover.py`.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::host::Host;
use crate::support::is_long;
use crate::support::tree::{describe, make_tree, noise};

/// One change of a tree; files and directories are picked by number, modulo how many there are.
#[derive(Debug, Clone)]
enum Change {
    Write {
        name: u8,
        dir: u8,
        bytes: u32,
        seed: u64,
    },
    Append {
        file: u8,
        bytes: u16,
        seed: u64,
    },
    Edit {
        file: u8,
        at: u32,
        bytes: u16,
        seed: u64,
        keep_mtime: bool,
    },
    Insert {
        file: u8,
        at: u32,
        bytes: u16,
        seed: u64,
    },
    Truncate {
        file: u8,
        at: u32,
    },
    Punch {
        file: u8,
        size: u32,
    },
    Rename {
        file: u8,
        name: u8,
        dir: u8,
    },
    Copy {
        file: u8,
        name: u8,
        dir: u8,
    },
    Link {
        file: u8,
        name: u8,
        dir: u8,
        symbolic: bool,
    },
    Delete {
        file: u8,
    },
    Directory {
        name: u8,
        dir: u8,
    },
    DeleteDirectory {
        dir: u8,
    },
    Chmod {
        file: u8,
        mode: u16,
    },
    Touch {
        file: u8,
        seconds: i32,
        nanos: u32,
    },
    Attribute {
        file: u8,
        value: Vec<u8>,
    },
    Transaction {
        database: u8,
        rows: u8,
        wal: bool,
        seed: u64,
    },
    Grow {
        file: u8,
        seed: u64,
    },
}

fn change() -> impl Strategy<Value = Change> {
    use Change::*;
    let n = any::<u8>;
    let seed = any::<u64>;
    prop_oneof![
        4 => (n(), n(), 0u32..200_000, seed()).prop_map(|(name, dir, bytes, seed)| Write { name, dir, bytes, seed }),
        2 => (n(), any::<u16>(), seed()).prop_map(|(file, bytes, seed)| Append { file, bytes, seed }),
        4 => (n(), any::<u32>(), 1u16.., seed(), any::<bool>())
            .prop_map(|(file, at, bytes, seed, keep_mtime)| Edit { file, at, bytes, seed, keep_mtime }),
        2 => (n(), any::<u32>(), any::<u16>(), seed()).prop_map(|(file, at, bytes, seed)| Insert { file, at, bytes, seed }),
        1 => (n(), any::<u32>()).prop_map(|(file, at)| Truncate { file, at }),
        1 => (n(), 0u32..6_000_000).prop_map(|(file, size)| Punch { file, size }),
        2 => (n(), n(), n()).prop_map(|(file, name, dir)| Rename { file, name, dir }),
        1 => (n(), n(), n()).prop_map(|(file, name, dir)| Copy { file, name, dir }),
        1 => (n(), n(), n(), any::<bool>()).prop_map(|(file, name, dir, symbolic)| Link { file, name, dir, symbolic }),
        1 => n().prop_map(|file| Delete { file }),
        1 => (n(), n()).prop_map(|(name, dir)| Directory { name, dir }),
        1 => n().prop_map(|dir| DeleteDirectory { dir }),
        1 => (n(), 0u16..0o10000).prop_map(|(file, mode)| Chmod { file, mode }),
        1 => (n(), any::<i32>(), 0u32..1_000_000_000).prop_map(|(file, seconds, nanos)| Touch { file, seconds, nanos }),
        1 => (n(), prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(file, value)| Attribute { file, value }),
        3 => (n(), 1u8.., any::<bool>(), seed())
            .prop_map(|(database, rows, wal, seed)| Transaction { database, rows, wal, seed }),
        1 => (n(), seed()).prop_map(|(file, seed)| Grow { file, seed }),
    ]
}

/// Names that sort and print oddly; some not UTF-8.
fn name(n: u8) -> PathBuf {
    let odd: &[&[u8]] = &[
        b"a",
        b"a-b",
        b"a b\n",
        b"\xff\xfe",
        "ä".as_bytes(),
        b"-rf",
        b"..x",
        b"a.db",
        b"\\",
        b"b'\"$(x)",
    ];
    let base = odd[usize::from(n) % odd.len()];
    let mut bytes = base.to_vec();
    bytes.extend(format!("{}", n / 64).bytes());
    PathBuf::from(std::ffi::OsStr::from_bytes(&bytes))
}

struct Tree {
    root: PathBuf,
}

impl Tree {
    fn listed(&self, wanted: impl Fn(&fs::FileType) -> bool) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut dirs = vec![self.root.clone()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(&dir).unwrap() {
                let entry = entry.unwrap();
                let kind = entry.file_type().unwrap();
                if kind.is_dir() {
                    dirs.push(entry.path());
                }
                if wanted(&kind) {
                    found.push(entry.path());
                }
            }
        }
        found.sort();
        found
    }

    fn file(&self, n: u8) -> Option<PathBuf> {
        let files = self.listed(fs::FileType::is_file);
        (!files.is_empty()).then(|| files[usize::from(n) % files.len()].clone())
    }

    fn dir(&self, n: u8) -> PathBuf {
        let mut dirs = self.listed(fs::FileType::is_dir);
        dirs.insert(0, self.root.clone());
        dirs[usize::from(n) % dirs.len()].clone()
    }

    /// A place where nothing is yet.
    fn free(&self, dir: u8, n: u8) -> Option<PathBuf> {
        let path = self.dir(dir).join(name(n));
        fs::symlink_metadata(&path).is_err().then_some(path)
    }

    /// Applies a change if it makes sense here.
    fn apply(&self, change: &Change) -> Option<()> {
        match change {
            Change::Write {
                name: n,
                dir,
                bytes,
                seed,
            } => {
                let path = self.dir(*dir).join(name(*n));
                if path.symlink_metadata().is_ok_and(|meta| !meta.is_file()) {
                    return None;
                }
                // Half of it compresses.
                let mut content = noise(*seed, *bytes as usize);
                let half = content.len() / 2;
                content[..half].fill(b'.');
                fs::write(path, content).unwrap();
            }
            Change::Append { file, bytes, seed } => {
                let path = self.file(*file)?;
                let mut content = fs::read(&path).unwrap();
                content.extend(noise(*seed, usize::from(*bytes)));
                fs::write(path, content).unwrap();
            }
            Change::Edit {
                file,
                at,
                bytes,
                seed,
                keep_mtime,
            } => {
                let path = self.file(*file)?;
                let meta = fs::metadata(&path).unwrap();
                let at = u64::from(*at) % (meta.len() + 1);
                let opened = fs::OpenOptions::new().write(true).open(&path).unwrap();
                opened
                    .write_all_at(&noise(*seed, usize::from(*bytes)), at)
                    .unwrap();
                if *keep_mtime {
                    opened.set_modified(meta.modified().unwrap()).unwrap();
                }
            }
            Change::Insert {
                file,
                at,
                bytes,
                seed,
            } => {
                let path = self.file(*file)?;
                let mut content = fs::read(&path).unwrap();
                let at = *at as usize % (content.len() + 1);
                content.splice(at..at, noise(*seed, usize::from(*bytes)));
                fs::write(path, content).unwrap();
            }
            Change::Truncate { file, at } => {
                let path = self.file(*file)?;
                let size = fs::metadata(&path).unwrap().len();
                let opened = fs::OpenOptions::new().write(true).open(path).unwrap();
                opened.set_len(u64::from(*at) % (size + 1)).unwrap();
            }
            Change::Punch { file, size } => {
                let opened = fs::OpenOptions::new()
                    .write(true)
                    .open(self.file(*file)?)
                    .unwrap();
                opened.set_len(u64::from(*size)).unwrap();
                opened.write_all_at(b"end", u64::from(*size)).unwrap();
            }
            Change::Rename { file, name: n, dir } => {
                fs::rename(self.file(*file)?, self.free(*dir, *n)?).unwrap();
            }
            Change::Copy { file, name: n, dir } => {
                fs::copy(self.file(*file)?, self.free(*dir, *n)?).unwrap();
            }
            Change::Link {
                file,
                name: n,
                dir,
                symbolic,
            } => {
                let (file, free) = (self.file(*file)?, self.free(*dir, *n)?);
                match symbolic {
                    true => std::os::unix::fs::symlink(file.file_name().unwrap(), free).unwrap(),
                    false => fs::hard_link(file, free).unwrap(),
                }
            }
            Change::Delete { file } => fs::remove_file(self.file(*file)?).unwrap(),
            Change::Directory { name: n, dir } => fs::create_dir(self.free(*dir, *n)?).unwrap(),
            Change::DeleteDirectory { dir } => {
                let dir = self.dir(*dir);
                if dir == self.root {
                    return None;
                }
                fs::remove_dir_all(dir).unwrap();
            }
            Change::Chmod { file, mode } => {
                let mode = fs::Permissions::from_mode(u32::from(*mode) | 0o600);
                fs::set_permissions(self.file(*file)?, mode).unwrap();
            }
            Change::Touch {
                file,
                seconds,
                nanos,
            } => {
                let time = rustix::fs::Timespec {
                    tv_sec: i64::from(*seconds),
                    tv_nsec: i64::from(*nanos),
                };
                let times = rustix::fs::Timestamps {
                    last_access: time,
                    last_modification: time,
                };
                let flags = rustix::fs::AtFlags::empty();
                rustix::fs::utimensat(rustix::fs::CWD, self.file(*file)?, &times, flags).unwrap();
            }
            Change::Attribute { file, value } => {
                let _ = xattr::set(self.file(*file)?, "user.test", value);
            }
            Change::Transaction {
                database,
                rows,
                wal,
                seed,
            } => {
                transaction(
                    &self.root.join(format!("db{}.sqlite", database % 2)),
                    *rows,
                    *wal,
                    *seed,
                );
            }
            Change::Grow { file, seed } => {
                fs::write(self.file(*file)?, noise(*seed, 2_500_000)).unwrap();
            }
        }
        Some(())
    }
}

fn transaction(path: &Path, rows: u8, wal: bool, seed: u64) {
    // Another entry may have taken that name.
    let is_database = fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"SQLite format 3\0"));
    if path.symlink_metadata().is_ok() && !is_database {
        return;
    }
    let work = || -> rusqlite::Result<()> {
        let db = rusqlite::Connection::open(path)?;
        db.pragma_update(None, "journal_mode", if wal { "wal" } else { "delete" })?;
        db.execute_batch("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, body BLOB)")?;
        for row in 0..u64::from(rows) {
            let body = noise(seed ^ row, 700);
            let id = (seed.wrapping_mul(row + 1) % 500).cast_signed();
            db.execute(
                "INSERT OR REPLACE INTO t VALUES (?1, ?2)",
                rusqlite::params![id, body],
            )?;
        }
        Ok(())
    };
    // An edit of an earlier step may have damaged it: then it is a file like any other.
    let _ = work();
    for ending in ["-wal", "-shm", "-journal"] {
        let sidecar = PathBuf::from(format!("{}{ending}", path.display()));
        let _ = fs::remove_file(sidecar);
    }
}

/// Applies the steps, a snapshot after each; then restores every one of them both ways.
fn check(steps: &[Vec<Change>]) {
    let host = Host::new();
    fs::write(
        host.path("c.toml"),
        host.config() + "\n[pack]\narchive_size = \"1MiB\"\n",
    )
    .unwrap();
    let tree = Tree { root: host.data() };
    let mut states = Vec::new();
    for changes in steps {
        for change in changes {
            tree.apply(change);
        }
        // 3 where an edit damaged a database: it is stored as it is, and named.
        let report = host.json_exits(&["backup"], &[0, 3]);
        states.push((
            report["stamp"].as_str().unwrap().to_owned(),
            describe(&host.data()),
        ));
    }
    for (number, (stamp, state)) in states.iter().enumerate() {
        let out = host.restore_exits(stamp, &format!("out-{number}"), &[0, 3]);
        assert_same(&describe(&out.join("data")), state, stamp);
        let out = host.recover_exits(stamp, &format!("by-hand-{number}"), &[0, 3]);
        assert_same(&describe(&out.join("data")), state, stamp);
    }
}

fn assert_same(found: &[String], expected: &[String], stamp: &str) {
    for line in found {
        assert!(
            expected.contains(line),
            "{stamp}: restored, but was not so:\n{line}"
        );
    }
    for line in expected {
        assert!(found.contains(line), "{stamp}: not restored:\n{line}");
    }
}

#[test]
fn every_snapshot_of_any_history_restores() {
    let cases = if is_long() { 150 } else { 6 };
    let config = Config {
        cases,
        max_shrink_iters: 60,
        failure_persistence: None,
        ..Config::default()
    };
    let histories = prop::collection::vec(prop::collection::vec(change(), 0..12), 2..7);
    let mut runner = TestRunner::new(config);
    let checked = runner.run(&histories, |steps| {
        check(&steps);
        Ok(())
    });
    checked.unwrap();
}

#[test]
fn everything_a_unix_tree_holds_survives() {
    let host = Host::new();
    make_tree(&host.data());
    let before = describe(&host.data());
    host.backup();
    let out = host.restore("latest", "out");
    assert_same(&describe(&out.join("data")), &before, "latest");
    let sparse = fs::metadata(out.join("data/sparse")).unwrap();
    assert!(sparse.blocks() * 512 < 1 << 20, "{}", sparse.blocks());
    let out = host.recover("latest", "by-hand");
    assert_same(&describe(&out.join("data")), &before, "by hand");
}
