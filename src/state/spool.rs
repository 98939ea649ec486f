//! The spool: sealed objects that are not yet on every target.
//!
//! It has the same paths as the host's folder on a target: `archives/ab/…`, `tables/…`,
//! `manifests/…`. An object in it is complete or absent: it is written under `tmp/`, flushed,
//! renamed into place, and the directory is flushed. So after a crash every object under its own
//! name can be shipped, and the files in `tmp/` are of no use: [`Spool::open`] removes them (one
//! process at a time uses the state directory).

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::base::ids::{ARCHIVES, Hash, ObjectKey};

/// A step on a file in the spool failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {path} in the spool")]
pub struct SpoolError {
    operation: &'static str,
    path: String,
    #[source]
    source: io::Error,
}

/// The spool's directory.
#[derive(Debug, Clone)]
pub struct Spool {
    dir: PathBuf,
}

/// An object that is being written. Dropping it before [`Spool::publish`] removes it.
#[derive(Debug)]
pub struct SpoolFile {
    temp: tempfile::NamedTempFile,
}

impl SpoolFile {
    /// Returns its temporary path.
    pub fn path(&self) -> &Path {
        self.temp.path()
    }

    /// Returns the open file.
    pub fn file(&self) -> &File {
        self.temp.as_file()
    }
}

impl io::Write for SpoolFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.temp.as_file_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.temp.as_file_mut().flush()
    }
}

impl Spool {
    /// Opens or creates the spool, and removes the unfinished objects of a killed run.
    pub fn open(dir: &Path) -> Result<Self, SpoolError> {
        let spool = Self {
            dir: dir.to_path_buf(),
        };
        let temp = spool.temp_dir();
        let failed = fail("make", &temp);
        crate::base::fs::create_private_dir(&temp).map_err(failed)?;
        for entry in fs::read_dir(&temp).map_err(fail("list", &temp))? {
            let path = entry.map_err(fail("list", &temp))?.path();
            fs::remove_file(&path).map_err(fail("clear", &path))?;
        }
        Ok(spool)
    }

    /// Returns the spool's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns a directory for temporary files, which is cleared when the spool is opened.
    pub fn scratch(&self) -> PathBuf {
        self.temp_dir()
    }

    fn temp_dir(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    /// Returns the path of an object, whether it is here or not.
    pub fn path(&self, key: &ObjectKey) -> PathBuf {
        self.dir.join(key.as_str())
    }

    /// Begins a new object.
    pub fn create(&self) -> Result<SpoolFile, SpoolError> {
        let dir = self.temp_dir();
        let temp = tempfile::Builder::new()
            .prefix("object-")
            .tempfile_in(&dir)
            .map_err(fail("create a file in", &dir))?;
        Ok(SpoolFile { temp })
    }

    /// Puts `file` under `key`, durably.
    pub fn publish(&self, file: SpoolFile, key: &ObjectKey) -> Result<(), SpoolError> {
        let path = self.path(key);
        file.temp
            .as_file()
            .sync_all()
            .map_err(fail("flush", &path))?;
        let parent = path.parent().unwrap_or(&self.dir).to_path_buf();
        crate::base::fs::create_private_dir(&parent).map_err(fail("make", &parent))?;
        file.temp
            .persist(&path)
            .map_err(|e| fail("rename", &path)(e.error))?;
        crate::base::fs::sync_dir(&parent).map_err(fail("flush", &parent))?;
        // The two-digit folder may be new, too.
        crate::base::fs::sync_parent(&parent).map_err(fail("flush", &parent))
    }

    /// Writes and publishes a small object.
    pub fn put(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), SpoolError> {
        let mut file = self.create()?;
        file.write_all(bytes)
            .map_err(fail("write", &self.path(key)))?;
        self.publish(file, key)
    }

    /// Returns the object's size in bytes; `None` if it is not here.
    pub fn size(&self, key: &ObjectKey) -> Option<u64> {
        fs::metadata(self.path(key)).ok().map(|meta| meta.len())
    }

    /// Returns whether the object is here.
    pub fn contains(&self, key: &ObjectKey) -> bool {
        self.size(key).is_some()
    }

    /// Reads a small object as a whole.
    pub fn read(&self, key: &ObjectKey) -> Result<Vec<u8>, SpoolError> {
        let path = self.path(key);
        fs::read(&path).map_err(fail("read", &path))
    }

    /// Returns whether an archive here has the hash that its key names. Reads all of it.
    pub fn is_whole(&self, key: &str) -> Result<bool, SpoolError> {
        let path = self.dir.join(key);
        let mut hasher = blake3::Hasher::new();
        File::open(&path)
            .and_then(|file| hasher.update_reader(file).map(drop))
            .map_err(fail("read", &path))?;
        let found = Hash(*hasher.finalize().as_bytes());
        Ok(ObjectKey::archive_hash(key) == Some(found))
    }

    /// Returns every object below `folder` (`archives`, `tables` or `manifests`), by key: the key's
    /// text and the size in bytes.
    pub fn list(&self, folder: &str) -> Result<Vec<(String, u64)>, SpoolError> {
        let mut found = Vec::new();
        let mut folders = vec![self.dir.join(folder)];
        while let Some(dir) = folders.pop() {
            let entries = match fs::read_dir(&dir) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(fail("list", &dir))?,
            };
            for entry in entries {
                let entry = entry.map_err(fail("list", &dir))?;
                let meta = entry.metadata().map_err(fail("list", &dir))?;
                let path = entry.path();
                if meta.is_dir() {
                    folders.push(path);
                } else if let Ok(key) = path.strip_prefix(&self.dir) {
                    found.push((key.to_string_lossy().into_owned(), meta.len()));
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// Removes the empty folders directly below `folder`: each would be listed in every run.
    /// Nothing else may write into the spool meanwhile, since a folder could be removed just before
    /// an object is put there.
    pub fn remove_empty_folders(&self, folder: &str) -> Result<(), SpoolError> {
        let dir = self.dir.join(folder);
        let entries = match fs::read_dir(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(fail("list", &dir))?,
        };
        for entry in entries {
            let entry = entry.map_err(fail("list", &dir))?;
            let path = entry.path();
            if entry.file_type().map_err(fail("list", &path))?.is_dir() {
                // Fails for a folder that is not empty, which stays.
                let _ = fs::remove_dir(&path);
            }
        }
        Ok(())
    }

    /// Removes an object by its key's text. A missing one is no error.
    pub fn remove(&self, key: &str) -> Result<(), SpoolError> {
        let path = self.dir.join(key);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(fail("remove", &path)(e)),
            _ => Ok(()),
        }
    }
}

/// Returns the bytes of the archives in the spool `dir`, which another process may use at the same
/// time.
pub fn waiting_bytes(dir: &Path) -> Result<u64, SpoolError> {
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let mut bytes = 0;
    let mut folders = vec![dir.join(ARCHIVES)];
    while let Some(dir) = folders.pop() {
        let entries = match fs::read_dir(&dir) {
            Err(error) if gone(&error) => continue,
            other => other.map_err(fail("list", &dir))?,
        };
        for entry in entries {
            let entry = entry.map_err(fail("list", &dir))?;
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => folders.push(entry.path()),
                Ok(meta) => bytes += meta.len(),
                Err(error) if gone(&error) => {}
                Err(error) => return Err(fail("look at", &entry.path())(error)),
            }
        }
    }
    Ok(bytes)
}

/// Returns the limit of a spool in `dir` that holds `held` bytes, if the configuration sets none:
/// half of the space that it has or could have. Other programs use the disk as well.
pub fn default_limit(dir: &Path, held: u64) -> io::Result<u64> {
    Ok((held + crate::base::fs::free_bytes(dir)?) / 2)
}

fn fail(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SpoolError {
    let path = path.display().to_string();
    move |source| SpoolError {
        operation,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_empty_folders_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(&dir.path().join("spool")).unwrap();
        spool.remove_empty_folders(ARCHIVES).unwrap();
        let keys = [1, 2].map(|byte| ObjectKey::archive(&Hash([byte; 32])));
        for key in &keys {
            spool.put(key, b"x").unwrap();
        }
        spool.remove(keys[0].as_str()).unwrap();
        spool.remove_empty_folders(ARCHIVES).unwrap();
        let left = fs::read_dir(spool.dir().join(ARCHIVES)).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["02"]);
        assert!(spool.contains(&keys[1]));
        spool.put(&keys[0], b"x").unwrap();
        assert_eq!(spool.list(ARCHIVES).unwrap().len(), 2);
        assert_eq!(waiting_bytes(spool.dir()).unwrap(), 2);
        assert_eq!(waiting_bytes(&dir.path().join("none")).unwrap(), 0);
    }
}
