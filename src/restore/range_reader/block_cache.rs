//! Ciphertext on this machine's disk: `<cache>/<host>/<BLAKE3 of the archive>/<block>`.
//!
//! It is safe to lose, and nothing in it is believed. Several processes may use it at a time: files
//! are replaced by a rename, and the least recently used ones go when all are too many.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read as _, Write as _};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

use super::block_file::{BLOCK_BYTES, BlockParts, MOST_FILE_BYTES};
use crate::base::ids::{Hash, HostName};
use crate::base::openat::{Dir, Kind};

/// Begin of the name of a file that is being written.
const TEMPORARY: &str = ".tmp-";
/// A temporary file this much older than the newest block belongs to a killed process.
const ABANDONED_SECONDS: i64 = 3600;
/// Digits of an archive's name.
const HASH_DIGITS: usize = 64;

/// The cache of one host's archives in a directory that all hosts share.
pub(super) struct BlockCache {
    dir: Dir,
    host: HostName,
    most_bytes: u64,
    /// Bytes that were written since all files were counted last.
    written: AtomicU64,
    /// Numbers the temporary files of this process.
    temporaries: AtomicU64,
    /// Why the last write failed.
    trouble: Mutex<Option<String>>,
}

impl BlockCache {
    /// Opens the cache in `dir`, which is made if it is missing.
    pub(super) fn open(dir: &Path, host: &HostName, most_bytes: u64) -> io::Result<Self> {
        Ok(Self {
            dir: Dir::open_or_make(dir, 0o700)?,
            host: host.clone(),
            most_bytes,
            // The first write counts what is there.
            written: AtomicU64::new(u64::MAX / 2),
            temporaries: AtomicU64::new(0),
            trouble: Mutex::default(),
        })
    }

    /// Returns the most bytes that the cache may hold.
    pub(super) fn most_bytes(&self) -> u64 {
        self.most_bytes
    }

    /// Returns why something could not be kept.
    pub(super) fn trouble(&self) -> Option<String> {
        let trouble = self.trouble.lock();
        trouble.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn folder(&self, archive: &Hash) -> String {
        format!("{}/{archive}", self.host)
    }

    /// Returns what is here of the bytes `range` of an archive: positions in it, and bytes, in
    /// order.
    pub(super) fn get(&self, archive: &Hash, range: &Range<u64>) -> Vec<(u64, Bytes)> {
        let mut found = Vec::new();
        let Ok(dir) = self.dir.sub(self.folder(archive)) else {
            return found;
        };
        for (block, part) in blocks_of(range) {
            let start = block * BLOCK_BYTES;
            let Some(parts) = read_block(&dir, block) else {
                continue;
            };
            let here = parts.of(&part);
            found.extend(here.map(|(at, bytes)| (start + at, Bytes::copy_from_slice(bytes))));
        }
        found
    }

    /// Keeps bytes of an archive that begin at `start`. If that fails, they are fetched again
    /// later.
    pub(super) fn put(&self, archive: &Hash, start: u64, bytes: &[u8]) {
        let range = start..start + bytes.len() as u64;
        let kept = self.put_blocks(archive, &range, bytes).or_else(|error| {
            // Another process may have removed the folder that was empty.
            match error.kind() {
                io::ErrorKind::NotFound => self.put_blocks(archive, &range, bytes),
                _ => Err(error),
            }
        });
        let kept = kept.and_then(|()| self.make_room(bytes.len() as u64));
        if let Err(error) = kept {
            let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
            *trouble = Some(format!("{}: {error}", self.dir.path().display()));
        }
    }

    fn put_blocks(&self, archive: &Hash, range: &Range<u64>, bytes: &[u8]) -> io::Result<()> {
        let dir = self.dir.make_dirs(self.folder(archive), 0o700)?;
        for (block, part) in blocks_of(range) {
            let start = block * BLOCK_BYTES;
            let from = (start + part.start - range.start) as usize;
            let to = (start + part.end - range.start) as usize;
            let mut parts = match part == (0..BLOCK_BYTES) {
                true => BlockParts::default(),
                false => read_block(&dir, block).unwrap_or_default(),
            };
            parts.add(part.start, &bytes[from..to]);
            self.write(&dir, block, &parts.encode())?;
        }
        Ok(())
    }

    fn write(&self, dir: &Dir, block: u64, file: &[u8]) -> io::Result<()> {
        let number = self.temporaries.fetch_add(1, Ordering::Relaxed);
        let temporary = format!("{TEMPORARY}{}-{number}", std::process::id());
        let mut out = match dir.create_file(&temporary, 0o600) {
            // A killed process had this process's number.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                dir.remove_file(&temporary)?;
                dir.create_file(&temporary, 0o600)?
            }
            other => other?,
        };
        let written = out.write_all(file);
        let renamed = written.and_then(|()| dir.rename(&temporary, dir, name_of(block)));
        if renamed.is_err() {
            let _ = dir.remove_file(&temporary);
        }
        renamed
    }

    /// Drops the blocks of an archive that have bytes of `range`.
    pub(super) fn forget(&self, archive: &Hash, range: &Range<u64>) {
        if let Ok(dir) = self.dir.sub(self.folder(archive)) {
            for (block, _) in blocks_of(range) {
                let _ = dir.remove_file(name_of(block));
            }
        }
    }

    /// Counts all files after a sixteenth of the room was written, and removes the least recently
    /// used ones if they are too many.
    fn make_room(&self, written: u64) -> io::Result<()> {
        let before = self.written.fetch_add(written, Ordering::Relaxed);
        if before + written < self.most_bytes / 16 {
            return Ok(());
        }
        self.written.store(0, Ordering::Relaxed);
        let mut files = Vec::new();
        for host in folders(&self.dir, |_| true)? {
            for archive in folders(&host, is_archive)? {
                list(&archive, &mut files)?;
            }
        }
        let newest = files.iter().map(|file| file.used.0).max().unwrap_or(0);
        let mut bytes: u64 = files.iter().map(|file| file.bytes).sum();
        // What other processes write until they count is room that must be left.
        let most = match bytes > self.most_bytes - self.most_bytes / 8 {
            true => self.most_bytes - self.most_bytes / 4,
            false => u64::MAX,
        };
        files.sort_by_key(|file| file.used);
        for file in files {
            let is_abandoned = file.is_temporary && file.used.0 < newest - ABANDONED_SECONDS;
            if is_abandoned || (bytes > most && !file.is_temporary) {
                let _ = file.dir.remove_file(&file.name);
                bytes -= file.bytes;
            }
        }
        self.remove_empty()
    }

    fn remove_empty(&self) -> io::Result<()> {
        for host in folders(&self.dir, |_| true)? {
            for name in names_of_folders(&host, is_archive)? {
                // Only an empty one goes.
                let _ = host.remove_dir(&name);
            }
        }
        Ok(())
    }
}

/// A file of the cache.
struct CacheFile {
    dir: Dir,
    name: OsString,
    bytes: u64,
    /// Time of the last use: seconds and nanoseconds.
    used: (i64, i64),
    is_temporary: bool,
}

/// Adds the files in the folder of one archive. Files of others do not count.
fn list(dir: &Dir, files: &mut Vec<CacheFile>) -> io::Result<()> {
    dir.for_each_entry(|name, kind, _| {
        let text = name.to_str().unwrap_or_default();
        let is_temporary = text.starts_with(TEMPORARY);
        let is_block = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if kind != Kind::File || !(is_temporary || is_block) {
            return Ok(());
        }
        // Another process may have removed it.
        let Some(meta) = dir.try_meta(name)? else {
            return Ok(());
        };
        files.push(CacheFile {
            dir: dir.clone(),
            name: name.to_owned(),
            bytes: meta.len(),
            used: (meta.mtime(), meta.mtime_nsec()),
            is_temporary,
        });
        Ok(())
    })
}

/// Returns the folders in `dir` whose names are as `is_named` asks. One that another process
/// removed meanwhile is left out.
fn folders(dir: &Dir, is_named: impl Fn(&str) -> bool) -> io::Result<Vec<Dir>> {
    let names = names_of_folders(dir, is_named)?;
    Ok(names.iter().filter_map(|name| dir.sub(name).ok()).collect())
}

fn names_of_folders(dir: &Dir, is_named: impl Fn(&str) -> bool) -> io::Result<Vec<OsString>> {
    let mut found = Vec::new();
    dir.for_each_entry(|name: &OsStr, kind, _| {
        if kind == Kind::Dir && name.to_str().is_some_and(&is_named) {
            found.push(name.to_owned());
        }
        Ok(())
    })?;
    Ok(found)
}

fn is_archive(name: &str) -> bool {
    name.len() == HASH_DIGITS && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn name_of(block: u64) -> String {
    block.to_string()
}

/// Returns the blocks that `range` touches, each with its part of the range.
fn blocks_of(range: &Range<u64>) -> impl Iterator<Item = (u64, Range<u64>)> + use<> {
    let (from, to) = (range.start, range.end);
    let blocks = from / BLOCK_BYTES..to.div_ceil(BLOCK_BYTES);
    blocks.filter(move |_| from < to).map(move |block| {
        let start = block * BLOCK_BYTES;
        (
            block,
            from.max(start) - start..to.min(start + BLOCK_BYTES) - start,
        )
    })
}

/// Reads a block and notes that it was used. A damaged file is removed.
fn read_block(dir: &Dir, block: u64) -> Option<BlockParts> {
    let name = name_of(block);
    let (file, meta) = dir.open_file(&name).ok()?;
    let mut bytes = Vec::new();
    let read = match meta.len() <= MOST_FILE_BYTES {
        true => (&file).take(MOST_FILE_BYTES).read_to_end(&mut bytes).ok(),
        false => None,
    };
    let parts = read.and_then(|_| BlockParts::parse(&bytes));
    match parts.is_some() {
        true => {
            let _ = rustix::fs::futimens(&file, &NOW);
        }
        false => drop(dir.remove_file(&name)),
    }
    parts
}

/// Sets the time of the last change to now.
const NOW: Timestamps = Timestamps {
    last_access: Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_OMIT as _,
    },
    last_modification: Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW as _,
    },
};

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path, most_bytes: u64) -> BlockCache {
        BlockCache::open(dir, &"web1".parse().unwrap(), most_bytes).unwrap()
    }

    fn joined(found: Vec<(u64, Bytes)>) -> Vec<u8> {
        let mut all = Vec::new();
        found
            .iter()
            .for_each(|(_, bytes)| all.extend_from_slice(bytes));
        all
    }

    #[test]
    fn what_was_put_is_there_across_blocks_and_processes() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, archive) = (open(dir.path(), 1 << 30), Hash([7; 32]));
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| (i / 11) as u8).collect();
        cache.put(&archive, 500_000, &bytes[..1_200_000]);
        cache.put(&archive, 1_700_000, &bytes[1_200_000..]);
        let other = open(dir.path(), 1 << 30);
        let found = other.get(&archive, &(500_000..3_500_000));
        assert_eq!(joined(found), bytes);
        let found = other.get(&archive, &(1_000_000..1_000_010));
        assert_eq!(
            found,
            [(1_000_000, bytes[500_000..500_010].to_vec().into())]
        );
        assert_eq!(other.get(&archive, &(0..500_000)), []);
        assert_eq!(other.get(&Hash([8; 32]), &(500_000..600_000)), []);
        assert_eq!(cache.trouble(), None);
        other.forget(&archive, &(1_100_000..1_100_001));
        assert_eq!(cache.get(&archive, &(1_100_000..1_100_001)), []);
        // A cut file is as good as none.
        let path = dir.path().join(format!("web1/{archive}/0"));
        let file = std::fs::read(&path).unwrap();
        std::fs::write(&path, &file[..file.len() - 1]).unwrap();
        assert_eq!(cache.get(&archive, &(500_000..600_000)), []);
        assert!(!path.exists());
    }

    #[test]
    fn the_least_recently_used_blocks_go_and_nothing_of_others() {
        let dir = tempfile::tempdir().unwrap();
        let most = 8 << 20;
        let cache = open(dir.path(), most);
        let others = [
            dir.path().join("letter"),
            dir.path().join("web1/123"),
            dir.path().join(format!("web1/{}/notes", Hash([0; 32]))),
        ];
        let block = vec![1; BLOCK_BYTES as usize];
        cache.put(&Hash([0; 32]), 0, &block);
        others
            .iter()
            .for_each(|path| std::fs::write(path, "x").unwrap());
        for number in 1..40 {
            std::thread::sleep(std::time::Duration::from_millis(8));
            assert!(!cache.get(&Hash([0; 32]), &(0..10)).is_empty());
            cache.put(&Hash([number; 32]), 0, &block);
            let mut files = Vec::new();
            for archive in folders(&cache.dir.sub("web1").unwrap(), is_archive).unwrap() {
                list(&archive, &mut files).unwrap();
            }
            let bytes: u64 = files.iter().map(|file| file.bytes).sum();
            assert!(bytes <= most, "{bytes}");
        }
        assert!(!cache.get(&Hash([39; 32]), &(0..10)).is_empty());
        assert!(cache.get(&Hash([1; 32]), &(0..10)).is_empty());
        assert!(others.iter().all(|path| path.exists()));
        // Empty folders went, too.
        assert!(!dir.path().join(format!("web1/{}", Hash([1; 32]))).exists());
        assert_eq!(cache.trouble(), None);
    }
}
