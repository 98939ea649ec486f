//! What the other user may not touch, and root must not touch for him: files, directories, a FIFO and a database that
//! only root can reach, under every name that an operation could look for.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use sealift::base::ids::Hash;

use crate::support::files::make_fifo;

/// Is in every file of the vault.
pub const SECRET: &str = "STORM-SECRET";

pub struct Vault {
    pub dir: PathBuf,
    before: BTreeMap<PathBuf, String>,
}

impl Vault {
    /// Makes `dir`, with what `more` adds to it.
    pub fn new(dir: PathBuf, more: impl FnOnce(&Path)) -> Self {
        fs::create_dir(&dir).unwrap();
        close(&dir, 0o700);
        secret(&dir.join("recorded"));
        close(&dir.join("recorded"), 0o640);
        chown(dir.join("recorded"), Some(4242), Some(4243)).unwrap();
        fs::create_dir(dir.join("empty")).unwrap();
        close(&dir.join("empty"), 0o700);
        make_fifo(&dir.join("fifo"));
        fill(&dir.join("closed"), true);
        close(&dir.join("closed"), 0o700);
        more(&dir);
        let before = look(&dir);
        Self { dir, before }
    }

    /// What was written, deleted, chmodded, chowned or linked since, if anything.
    pub fn changed(&self) -> Vec<String> {
        let now = look(&self.dir);
        let paths = self.before.keys().chain(now.keys());
        let mut changed: Vec<String> = paths
            .filter(|path| self.before.get(*path) != now.get(*path))
            .map(|path| {
                let (before, now) = (self.before.get(path), now.get(path));
                format!("{}: {before:?} became {now:?}", path.display())
            })
            .collect();
        changed.dedup();
        changed
    }
}

fn close(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn secret(path: &Path) {
    fs::write(path, format!("{SECRET} {}", path.display())).unwrap();
    close(path, 0o600);
}

/// A directory in which everything is there that some operation reads, writes or removes by name.
fn fill(dir: &Path, with_directories: bool) {
    fs::create_dir(dir).unwrap();
    for name in [
        "shadow", "sealed", "tar", "index", "work", "lock", "journal", "new", "file", "steady",
    ] {
        secret(&dir.join(name));
    }
    for name in [
        "registry.json",
        "project-registry.json",
        "backup-metadata.json",
    ] {
        fs::write(dir.join(name), format!("{{\"x\": \"{SECRET}\"}}")).unwrap();
    }
    let signature = format!("Signature: 8a477f597d28d172789f06886806bc55 {SECRET}");
    fs::write(dir.join("CACHEDIR.TAG"), signature).unwrap();
    databases(
        &["app.db", "atocore.db", "chroma.sqlite3"].map(|name| dir.join(name)),
        SECRET,
    );
    if with_directories {
        for name in [
            "restored", "tree", "content", "data", "d0", "db", "config", "chroma",
        ] {
            fill(&dir.join(name), false);
        }
    }
}

/// Databases whose newest row is in the `-wal` alone: opening one to write, or recovering it, changes its files.
pub fn databases(paths: &[PathBuf], text: &str) {
    let build = tempfile::tempdir().unwrap();
    let made = build.path().join("made.db");
    let connection = rusqlite::Connection::open(&made).unwrap();
    let statements = format!(
        "PRAGMA synchronous=OFF; PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0;
         CREATE TABLE t(x); INSERT INTO t VALUES ('{text} 1'); PRAGMA wal_checkpoint(PASSIVE);
         INSERT INTO t VALUES ('{text} 2')"
    );
    connection.execute_batch(&statements).unwrap();
    for path in paths {
        for ending in ["", "-wal"] {
            let from = format!("{}{ending}", made.display());
            fs::copy(from, format!("{}{ending}", path.display())).unwrap();
        }
    }
}

/// Every entry below `dir`, itself included: all that `stat` says but the time of reading, and the content.
fn look(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![dir.to_owned()];
    while let Some(path) = left.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let content = match meta.is_file() {
            true => Hash::blake3(&fs::read(&path).unwrap()).short(),
            false => String::new(),
        };
        if meta.is_dir() {
            let entries = fs::read_dir(&path).unwrap();
            left.extend(entries.map(|entry| entry.unwrap().path()));
        }
        let times = (
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec(),
        );
        let text = format!(
            "{:o} {}:{} inode {} links {} size {} times {times:?} {content}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.ino(),
            meta.nlink(),
            meta.len()
        );
        found.insert(path, text);
    }
    found
}

/// A file below `dir` that has `text` in it; links are not followed.
pub fn find(dir: &Path, text: &str) -> Option<PathBuf> {
    let mut left = vec![dir.to_owned()];
    while let Some(path) = left.pop() {
        let Ok(meta) = fs::symlink_metadata(&path) else {
            continue;
        };
        if meta.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else if meta.is_file() {
            let content = fs::read(&path).unwrap();
            let mut windows = content.windows(text.len());
            if windows.any(|window| window == text.as_bytes()) {
                return Some(path);
            }
        }
    }
    None
}
