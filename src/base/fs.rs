//! Small durable steps on the local file system.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

/// Flushes a directory's entries to disk, so that a rename or a new file in it survives power loss.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Flushes the directory that holds `path`.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        _ => sync_dir(Path::new(".")),
    }
}

/// Creates `path` with `bytes` and `mode`, durably. An existing file is an error and is left alone.
pub fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written.and_then(|()| sync_parent(path))
}

/// Creates `path` for this user alone, or empties an existing file.
pub fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)
}

/// Creates a directory and its missing parents for this user alone. An existing one is left as it
/// is.
pub fn create_private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// How the names of temporary files of [`write_atomic`] begin.
pub(crate) const TEMPORARY: &str = ".sealift-tmp-";
/// Age from which a temporary file belongs to no running process: writing one takes far less.
const ABANDONED_AGE: Duration = Duration::from_secs(60);

/// Removes the temporary files that killed calls of [`write_atomic`] left in `dir`. A file that
/// cannot be removed does no harm and is not reported.
pub fn clear_abandoned(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let is_temporary = entry.file_name().to_string_lossy().starts_with(TEMPORARY);
        let modified = entry.metadata().and_then(|meta| meta.modified());
        let age = modified.ok().and_then(|time| time.elapsed().ok());
        if is_temporary && age.is_some_and(|age| age >= ABANDONED_AGE) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Replaces the content of `path` by `bytes`, durably and in one step: readers see the old content
/// or the new.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let dir = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut temp = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))
        .tempfile_in(dir)?;
    temp.write_all(bytes)?;
    temp.as_file().sync_all()?;
    temp.persist(path).map_err(|e| e.error)?;
    sync_dir(dir)
}

/// Number of places in a file that [`is_cached`] probes.
const PROBES: u64 = 8;

/// Returns whether the page cache holds most of the first `bytes` of `file`; true if the file
/// system cannot tell.
pub fn is_cached(file: &File, bytes: u64) -> bool {
    let cached = |probe: &u64| {
        let at = bytes * probe / PROBES;
        let mut byte = [0];
        let mut into = [std::io::IoSliceMut::new(&mut byte)];
        let flags = rustix::io::ReadWriteFlags::NOWAIT;
        !matches!(
            rustix::io::preadv2(file, &mut into, at, flags),
            Err(rustix::io::Errno::AGAIN)
        )
    };
    let probes = PROBES.min(bytes / 4096 + 1);
    (0..probes).filter(cached).count() as u64 * 2 > probes
}

/// Lets the kernel drop these bytes of `file` from the page cache: a backup reads much data once,
/// and must not displace the server's own. Only for files that were not [cached](is_cached) before.
pub fn let_go(file: &File, start: u64, bytes: u64) {
    if let Some(bytes) = std::num::NonZeroU64::new(bytes) {
        // Only a hint: an error has no consequence.
        let _ = rustix::fs::fadvise(file, start, Some(bytes), rustix::fs::Advice::DontNeed);
    }
}

/// Returns how many bytes this user can still write on the file system of `path`.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Returns how many bytes this user can still write on the file system of `path`, and its size.
pub fn free_and_total_bytes(path: &Path) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok((bytes(stat.f_bavail), bytes(stat.f_blocks)))
}

/// Free space below which a disk counts as full, in bytes: less than SQLite adds to a file at once.
const FULL_BELOW: u64 = 256 << 10;

/// Returns the mount point of the file system of `path` if that is full. `None`: it is not, or it
/// does not report its free space.
pub fn full_disk(path: &Path) -> Option<std::path::PathBuf> {
    let dir = path.parent()?;
    if free_bytes(dir).ok()? >= FULL_BELOW {
        return None;
    }
    let device = |path: &Path| {
        fs::metadata(path)
            .ok()
            .map(|meta| std::os::unix::fs::MetadataExt::dev(&meta))
    };
    let own = device(dir)?;
    let below = dir
        .ancestors()
        .take_while(|above| device(above) == Some(own));
    below.last().map(Path::to_path_buf)
}

/// The types of btrfs, bcachefs, f2fs and ZFS: these compress, so more may fit than is free.
const COMPRESSING: [u64; 4] = [0x9123_683e, 0xca45_1a4e, 0xf2f5_2010, 0x2fc1_2fc1];
/// The most compression that is assumed, as a factor.
const MOST_COMPRESSION: u64 = 16;

/// Returns the free bytes on the file system of `dir` if `needed` bytes do not fit there. `None`:
/// they do, or the file system does not report its free space.
pub fn lacks_room(dir: impl std::os::fd::AsFd, needed: u64) -> Option<u64> {
    let found = rustix::fs::fstatfs(dir).ok()?;
    let blocks = match rustix::process::geteuid().is_root() {
        true => found.f_bfree,
        false => found.f_bavail,
    };
    let free = blocks.saturating_mul(found.f_bsize as u64);
    let fits = match COMPRESSING.contains(&(found.f_type as u64 & 0xffff_ffff)) {
        true => free.saturating_mul(MOST_COMPRESSION),
        false => free,
    };
    (found.f_blocks > 0 && needed > fits).then_some(free)
}

/// Returns an explanation if `path` begins with a `~` that no shell expanded: it would name a
/// folder called `~`.
pub fn unexpanded_home(path: &str) -> Option<String> {
    let (first, rest) = path.split_once('/').unwrap_or((path, ""));
    let user = first.strip_prefix('~')?;
    let whole = match (user, std::env::home_dir()) {
        ("", Some(home)) => format!("write {}", home.join(rest).display()),
        _ => "write the absolute path".to_owned(),
    };
    Some(format!(
        "no shell replaced its ~ by a home directory: {whole} (for a folder that is called {first}, write ./{path})"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_temporary_file_of_a_killed_write_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, seconds_old: u64| {
            let file = File::create(dir.path().join(name)).unwrap();
            let then = std::time::SystemTime::now() - Duration::from_secs(seconds_old);
            file.set_modified(then).unwrap();
        };
        file(".sealift-tmp-AbCdEf", 120);
        file(".sealift-tmp-GhIjKl", 10);
        file("pins", 120);
        clear_abandoned(dir.path());
        let left = fs::read_dir(dir.path()).unwrap();
        let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".sealift-tmp-GhIjKl", "pins"]);
    }

    #[test]
    fn a_file_is_cached_when_it_was_read_and_not_when_it_was_let_go() {
        // Not in the system's temporary directory, which may be in memory: a tmpfs keeps every
        // page.
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = dir.path().join("file");
        write_new(&path, &[7; 1 << 20], 0o600).unwrap();
        let file = File::open(&path).unwrap();
        const TMPFS_MAGIC: i64 = 0x0102_1994;
        if rustix::fs::fstatfs(&file).unwrap().f_type as i64 == TMPFS_MAGIC {
            return;
        }
        assert!(is_cached(&file, 1 << 20));
        let_go(&file, 0, 1 << 20);
        assert!(!is_cached(&file, 1 << 20));
        fs::read(&path).unwrap();
        assert!(is_cached(&file, 1 << 20));
    }
}
