//! Which processes have given files open, as `/proc` shows it.
//!
//! A process of another user shows its descriptors to root only; its locks are in `/proc/locks`,
//! which every user can read. A process in another container may have no number there, so it is
//! found by its descriptors or not at all.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags};

/// The first byte that SQLite locks in a database.
const SQLITE_LOCKS: u64 = 0x4000_0000;
/// The bytes that SQLite locks in the index of a log.
const SHM_LOCKS: std::ops::RangeInclusive<u64> = 120..=128;

/// Files by device and inode, with the path that messages name.
pub type WatchedFiles = HashMap<(u64, u64), WatchedFile>;

/// A file whose users are looked for.
#[derive(Debug, Clone)]
pub struct WatchedFile {
    /// The path that messages name.
    pub path: PathBuf,
    /// It is a database or belongs to one: a process that only reads it counts, too.
    pub is_database: bool,
}

/// A process that has a file open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileUser {
    /// Its number.
    pub pid: u32,
    /// Its program's name, as the kernel has it.
    pub program: String,
    /// The file.
    pub path: PathBuf,
}

impl std::fmt::Display for FileUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.path.file_name().unwrap_or(self.path.as_os_str());
        let name = name.to_string_lossy();
        write!(f, "{} (pid {}) has {name} open", self.program, self.pid)
    }
}

/// Returns the processes, other than this one, that have a database of `files` open, or another
/// file of them for writing. Each process once.
pub fn users_of(files: &WatchedFiles) -> Vec<FileUser> {
    let mut found: BTreeMap<u32, PathBuf> = BTreeMap::new();
    if files.is_empty() {
        return Vec::new();
    }
    let own = std::process::id();
    for pid in numbers_in(Path::new("/proc")).filter(|pid| *pid != own) {
        if let Some(path) = opened_by(pid, files) {
            found.insert(pid, path);
        }
    }
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    for (pid, path) in locks.lines().filter_map(|line| locked_by(line, files)) {
        if pid != own {
            found.entry(pid).or_insert(path);
        }
    }
    let user = |(pid, path): (u32, PathBuf)| FileUser {
        pid,
        program: program(pid),
        path,
    };
    found.into_iter().map(user).collect()
}

/// Returns the entries of a directory that are numbers.
fn numbers_in(dir: &Path) -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Returns a file that the process uses.
fn opened_by(pid: u32, files: &WatchedFiles) -> Option<PathBuf> {
    let dir = PathBuf::from(format!("/proc/{pid}"));
    numbers_in(&dir.join("fd")).find_map(|fd| {
        // Never waits for a file server.
        let flags = AtFlags::STATX_DONT_SYNC;
        let path = dir.join(format!("fd/{fd}"));
        let stat = rustix::fs::statx(CWD, &path, flags, StatxFlags::INO).ok()?;
        let device = rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
        let file = files.get(&(device, stat.stx_ino))?;
        let is_used = file.is_database || writes(&dir, fd);
        is_used.then(|| file.path.clone())
    })
}

/// Returns whether the descriptor was opened for writing.
fn writes(process: &Path, fd: u32) -> bool {
    let info = std::fs::read_to_string(process.join(format!("fdinfo/{fd}"))).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & libc::O_ACCMODE != libc::O_RDONLY)
}

/// Reads a line such as `1: POSIX  ADVISORY  READ 4711 08:01:131078 1073741826 1073742335`. Returns
/// process and file if it is a lock of SQLite on one of `files`. Some file systems have other
/// device numbers there than elsewhere, so only the inode is compared.
fn locked_by(line: &str, files: &WatchedFiles) -> Option<(u32, PathBuf)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, kind, _, _, pid, file, start, _] = words[..] else {
        return None;
    };
    let inode: u64 = file.rsplit(':').next()?.parse().ok()?;
    let start: u64 = start.parse().ok()?;
    let is_sqlites = start >= SQLITE_LOCKS || SHM_LOCKS.contains(&start);
    let pid: u32 = pid.parse().ok().filter(|pid| *pid > 0)?;
    let mut databases = files.iter().filter(|(_, file)| file.is_database);
    let (_, found) = databases.find(|((_, number), _)| *number == inode)?;
    (kind == "POSIX" && is_sqlites).then(|| (pid, found.path.clone()))
}

fn program(pid: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    match name.trim() {
        "" => "a process".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::base::openat::Meta;

    fn watched(file: &File, is_database: bool) -> WatchedFiles {
        let file = Meta::of_fd(file).unwrap();
        let path = PathBuf::from("/srv/a.db");
        [(file.id(), WatchedFile { path, is_database })].into()
    }

    #[test]
    fn a_process_that_has_the_file_open_is_found_by_name_and_number() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut child = Command::new("sleep")
            .arg("60")
            .stdin(Stdio::from(file.reopen().unwrap()))
            .spawn()
            .unwrap();
        // It is this very process until the program is started.
        let found = (0..200).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            let users = users_of(&watched(file.as_file(), true));
            let user = users.into_iter().find(|user| user.program == "sleep")?;
            Some(user.to_string())
        });
        let expected = format!("sleep (pid {}) has a.db open", child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found, Some(expected));
        assert_eq!(users_of(&watched(file.as_file(), true)), []);
    }

    #[test]
    fn only_locks_of_sqlite_on_a_database_count() {
        let file = tempfile::tempfile().unwrap();
        let inode = Meta::of_fd(&file).unwrap().ino();
        let line = format!("1: POSIX  ADVISORY  READ 4711 08:01:{inode} 1073741826 1073742335");
        let of = |line: &str, is_database| locked_by(line, &watched(&file, is_database));
        assert_eq!(of(&line, true), Some((4711, "/srv/a.db".into())));
        assert_eq!(of(&line, false), None);
        for other in [
            line.replace("POSIX", "FLOCK"),
            line.replace("4711", "0"),
            line.replace("1073741826", "0"),
            line.replace("08:01:", "08:01:1"),
            "1: -> POSIX ADVISORY".to_owned(),
        ] {
            assert_eq!(of(&other, true), None, "{other}");
        }
    }
}
