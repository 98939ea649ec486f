//! Keeps the small objects that were read from a target on this machine: manifests with their
//! signatures, pages of tables, tombstones. They are clear text on the target too, and never
//! change, so what is kept need not be read again, and can be read without the target.
//!
//! Nothing is believed because it was kept: its readers verify it as if the target had returned it.
//! Each file ends with the BLAKE3 of what is before it, so one that a crash left damaged is not
//! used. Manifests that a listing of the target no longer has are forgotten; of the other objects,
//! the least recently used ones go when all are too many.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;
use std::{fs, io};

use bytes::Bytes;
use futures::stream::BoxStream;

use super::contract::{Body, Listed, PutMode, PutOutcome, Storage, Thaw};
use super::error::{ErrorKind, TargetError};
use crate::base::clock;
use crate::base::ids::{Hash, MANIFESTS};

/// Folders of a host whose objects are kept.
const KEPT: [&str; 3] = [MANIFESTS, "tables", "tombstones"];

/// Bytes of the hash at the end of a file.
const HASH_BYTES: usize = 32;
/// Most bytes in a folder other than that of the manifests. (The pages of a year of daily snapshots
/// take a tenth of it.)
const MOST_BYTES: u64 = 128 << 20;
/// The files of a folder are counted each time this many were written.
const COUNTED_EVERY: u64 = 64;

/// A target, and what is kept of it.
#[derive(Debug)]
struct KeptObjects {
    /// `None`: the target is not asked.
    target: Option<Arc<dyn Storage>>,
    label: String,
    dir: PathBuf,
    /// Files that were written.
    written: AtomicU64,
}

/// Returns `target`, whose small objects are kept in `dir`.
pub fn keeping_objects(target: Arc<dyn Storage>, dir: PathBuf) -> Arc<dyn Storage> {
    Arc::new(KeptObjects {
        label: target.label().to_owned(),
        target: Some(target),
        dir,
        written: AtomicU64::new(0),
    })
}

/// Returns a target that has what [`keeping_objects`] kept in `dir`, and nothing else.
pub fn only_kept_objects(label: String, dir: PathBuf) -> Arc<dyn Storage> {
    Arc::new(KeptObjects {
        target: None,
        label,
        dir,
        written: AtomicU64::new(0),
    })
}

impl KeptObjects {
    /// Returns the target, or an error in the place of what it would answer.
    fn target(&self, operation: &'static str, key: &str) -> Result<&Arc<dyn Storage>, TargetError> {
        self.target.as_ref().ok_or_else(|| {
            let kind = ErrorKind::Unavailable;
            let what = "it is not in the cache, and the target is not asked";
            TargetError::new(operation, key, &self.label, kind, what)
        })
    }

    /// Returns the file of an object that is kept. `None`: such objects are not.
    fn file_of(&self, key: &str) -> Option<PathBuf> {
        let parts: Vec<&str> = key.split('/').collect();
        let [host, folder, name] = parts[..] else {
            return None;
        };
        let is_safe =
            |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains('\0');
        let is_kept = KEPT.contains(&folder) && is_safe(host) && is_safe(name);
        is_kept.then(|| self.dir.join(host).join(folder).join(name))
    }

    fn listed(&self, prefix: &str) -> Vec<Listed> {
        let parts: Vec<&str> = prefix.trim_end_matches('/').split('/').collect();
        let folders = match parts[..] {
            [host, folder] if KEPT.contains(&folder) => vec![(host, folder)],
            [host] => KEPT.map(|folder| (host, folder)).to_vec(),
            _ => Vec::new(),
        };
        let listed = folders.into_iter().flat_map(|(host, folder)| {
            let names = names_in(&self.dir.join(host).join(folder));
            names.into_iter().map(move |(name, bytes)| Listed {
                key: format!("{host}/{folder}/{name}"),
                bytes: bytes.saturating_sub(HASH_BYTES as u64),
                modified: None,
            })
        });
        listed.collect()
    }

    /// Forgets manifests that the target no longer lists.
    fn forget_others(&self, prefix: &str, keys: &HashSet<&str>) {
        if !prefix.ends_with(&format!("/{MANIFESTS}/")) {
            return;
        }
        for kept in self.listed(prefix) {
            if let Some(file) = self
                .file_of(&kept.key)
                .filter(|_| !keys.contains(&*kept.key))
            {
                // If it stays, it is forgotten the next time.
                let _ = fs::remove_file(file);
            }
        }
    }

    /// Removes the least recently used files beside `file` if they are too many.
    fn make_room(&self, file: &Path) {
        let folder = file.parent().unwrap_or(Path::new("."));
        // Manifests are forgotten by what the target lists.
        if folder.ends_with(MANIFESTS) {
            return;
        }
        let written = self.written.fetch_add(1, Ordering::Relaxed);
        if written.is_multiple_of(COUNTED_EVERY) {
            remove_oldest(folder, MOST_BYTES);
        }
    }
}

/// Removes the least recently used files in `dir` until the others have at most `most_bytes`. What
/// cannot be removed is tried again the next time.
fn remove_oldest(dir: &Path, most_bytes: u64) {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<(SystemTime, u64, PathBuf)> = entries
        .filter_map(|entry| {
            let about = entry.metadata().ok()?;
            Some((about.modified().ok()?, about.len(), entry.path()))
        })
        .collect();
    let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
    files.sort();
    for (_, bytes, file) in files {
        if total <= most_bytes {
            return;
        }
        let _ = fs::remove_file(file);
        total -= bytes;
    }
}

/// Returns the names and sizes of the files in `dir`; none if it is not there.
fn names_in(dir: &Path) -> Vec<(String, u64)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        (!name.starts_with('.')).then_some((name, entry.metadata().ok()?.len()))
    });
    named.collect()
}

/// Returns what is kept in `file`; `None`: it is not there, damaged, or longer than `limit`.
fn read_kept(file: &Path, limit: u64) -> Option<Bytes> {
    let mut bytes = fs::read(file).ok()?;
    let content = bytes.len().checked_sub(HASH_BYTES)?;
    let is_sound = Hash::blake3(&bytes[..content]).0[..] == bytes[content..];
    bytes.truncate(content);
    let is_usable = is_sound && content as u64 <= limit;
    is_usable.then(|| {
        if !file.parent().is_some_and(|dir| dir.ends_with(MANIFESTS)) {
            note_use(file);
        }
        bytes.into()
    })
}

/// Notes that `file` is used now. If that fails, it only goes earlier.
fn note_use(file: &Path) {
    let opened = fs::File::options().append(true).open(file);
    let _ = opened.and_then(|file| file.set_modified(clock::now().into()));
}

/// Keeps `bytes` in `file`: complete or not at all, as far as a crash does not damage it.
fn keep(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    let mut new = tempfile::Builder::new().prefix(".new-").tempfile_in(dir)?;
    io::Write::write_all(&mut new, bytes)?;
    io::Write::write_all(&mut new, &Hash::blake3(bytes).0)?;
    new.persist(file).map_err(|error| error.error)?;
    Ok(())
}

#[async_trait::async_trait]
impl Storage for KeptObjects {
    fn label(&self) -> &str {
        &self.label
    }

    fn may_be_unmounted(&self) -> bool {
        self.target
            .as_ref()
            .is_some_and(|target| target.may_be_unmounted())
    }

    fn trouble(&self) -> Option<String> {
        self.target.as_ref().and_then(|target| target.trouble())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, TargetError> {
        let Some(target) = &self.target else {
            return Ok(self.listed(prefix));
        };
        let listed = target.list(prefix).await?;
        self.forget_others(prefix, &listed.iter().map(|one| &*one.key).collect());
        Ok(listed)
    }

    async fn list_keys(&self, prefix: &str) -> Result<Vec<String>, TargetError> {
        match &self.target {
            Some(target) => target.list_keys(prefix).await,
            None => Ok(self.listed(prefix).into_iter().map(|one| one.key).collect()),
        }
    }

    fn looks_in_part(&self, folders: usize, objects: usize) -> bool {
        self.target
            .as_ref()
            .is_some_and(|target| target.looks_in_part(folders, objects))
    }

    async fn sizes(&self, keys: &[String]) -> Result<Option<HashMap<String, u64>>, TargetError> {
        match &self.target {
            Some(target) => target.sizes(keys).await,
            None => Ok(None),
        }
    }

    async fn list_folders(&self) -> Result<Vec<String>, TargetError> {
        if let Some(target) = &self.target {
            return target.list_folders().await;
        }
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.collect();
        names.sort();
        Ok(names)
    }

    async fn put(&self, key: &str, body: Body, mode: PutMode) -> Result<PutOutcome, TargetError> {
        self.target("write", key)?.put(key, body, mode).await
    }

    async fn list_keys_from(&self, prefix: &str, from: &str) -> Result<Vec<String>, TargetError> {
        if let Some(target) = &self.target {
            return target.list_keys_from(prefix, from).await;
        }
        let mut keys = self.list_keys(prefix).await?;
        keys.retain(|key| key.as_str() >= from);
        Ok(keys)
    }

    async fn list_each(&self, prefixes: &[String]) -> Result<Vec<Listed>, TargetError> {
        match &self.target {
            Some(target) => target.list_each(prefixes).await,
            None => Ok(prefixes.iter().flat_map(|one| self.listed(one)).collect()),
        }
    }

    async fn put_cold(
        &self,
        key: &str,
        body: Body,
        mode: PutMode,
    ) -> Result<PutOutcome, TargetError> {
        self.target("write", key)?.put_cold(key, body, mode).await
    }

    fn has_ranges(&self) -> bool {
        let target = self.target.as_ref();
        target.is_none_or(|target| target.has_ranges())
    }

    fn has_reserve(&self) -> bool {
        let target = self.target.as_ref();
        target.is_some_and(|target| target.has_reserve())
    }

    async fn keep_reserve(&self, host: &str) -> Result<(), TargetError> {
        self.target("write", host)?.keep_reserve(host).await
    }

    async fn free_reserve(&self, host: &str) -> Result<bool, TargetError> {
        self.target("delete", host)?.free_reserve(host).await
    }

    async fn get(&self, key: &str, limit: u64) -> Result<Bytes, TargetError> {
        let file = self.file_of(key);
        if let Some(kept) = file.as_deref().and_then(|file| read_kept(file, limit)) {
            return Ok(kept);
        }
        let bytes = self.target("read", key)?.get(key, limit).await?;
        if let Some(file) = file {
            // A cache that cannot be written only costs another request.
            if keep(&file, &bytes).is_ok() {
                self.make_room(&file);
            }
        }
        Ok(bytes)
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, TargetError> {
        self.target("read", key)?.get_range(key, range).await
    }

    async fn stream(
        &self,
        key: &str,
        offset: u64,
    ) -> Result<BoxStream<'static, Result<Bytes, TargetError>>, TargetError> {
        self.target("read", key)?.stream(key, offset).await
    }

    async fn is_frozen(&self, key: &str) -> Result<bool, TargetError> {
        match &self.target {
            Some(target) => target.is_frozen(key).await,
            None => Ok(false),
        }
    }

    async fn thaw(&self, key: &str, days: u16) -> Result<Thaw, TargetError> {
        self.target("thaw", key)?.thaw(key, days).await
    }

    async fn delete(&self, key: &str) -> Result<(), TargetError> {
        self.target("delete", key)?.delete(key).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_complete_and_only_small_objects_are() {
        let dir = tempfile::tempdir().unwrap();
        let kept = KeptObjects {
            target: None,
            label: "t".to_owned(),
            dir: dir.path().to_owned(),
            written: AtomicU64::new(0),
        };
        for (key, is_kept) in [
            ("h/manifests/1.json", true),
            ("h/tables/a.json", true),
            ("h/archives/ab/c.age", false),
            ("h/marks/x", false),
            ("../manifests/x", false),
            ("h/manifests/..", false),
            ("h/manifests", false),
        ] {
            assert_eq!(kept.file_of(key).is_some(), is_kept, "{key}");
        }
        let file = kept.file_of("h/manifests/1.json").unwrap();
        keep(&file, b"content").unwrap();
        assert_eq!(read_kept(&file, 7).as_deref(), Some(&b"content"[..]));
        assert_eq!(read_kept(&file, 6), None);
        assert_eq!(kept.listed("h/manifests/")[0].bytes, 7);
        let mut damaged = fs::read(&file).unwrap();
        damaged[0] ^= 1;
        fs::write(&file, damaged).unwrap();
        assert_eq!(read_kept(&file, 7), None);
        kept.forget_others("h/manifests/", &HashSet::new());
        assert!(!file.exists());
    }

    #[test]
    fn pages_beyond_the_limit_go_and_manifests_stay() {
        let dir = tempfile::tempdir().unwrap();
        let kept = KeptObjects {
            target: None,
            label: "t".to_owned(),
            dir: dir.path().to_owned(),
            written: AtomicU64::new(0),
        };
        for (folder, left) in [("tables", "1"), ("tombstones", "1"), ("manifests", "0 1")] {
            kept.written.store(COUNTED_EVERY, Ordering::Relaxed);
            let file = |number: u64| kept.file_of(&format!("h/{folder}/{number}")).unwrap();
            fs::create_dir_all(file(0).parent().unwrap()).unwrap();
            for number in 0..2 {
                let made = fs::File::create(file(number)).unwrap();
                // Without content, it takes no room on the disk.
                made.set_len(MOST_BYTES / 2 + 1).unwrap();
                let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(number);
                made.set_modified(at).unwrap();
            }
            kept.make_room(&file(1));
            let mut names: Vec<String> = names_in(file(0).parent().unwrap())
                .into_iter()
                .map(|(name, _)| name)
                .collect();
            names.sort();
            assert_eq!(names.join(" "), left, "{folder}");
        }
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let dir = tempfile::tempdir().unwrap();
        let file = |number: u64| dir.path().join(number.to_string());
        for number in 0..10 {
            keep(&file(number), &[7; 68]).unwrap();
            let opened = fs::File::options().append(true).open(file(number)).unwrap();
            let long_ago = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(number);
            opened.set_modified(long_ago).unwrap();
        }
        remove_oldest(dir.path(), 1000);
        assert_eq!(names_in(dir.path()).len(), 10);
        assert!(read_kept(&file(0), 68).is_some());
        remove_oldest(dir.path(), 399);
        let mut left: Vec<String> = names_in(dir.path())
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        left.sort();
        assert_eq!(left, ["0", "8", "9"]);
    }
}
