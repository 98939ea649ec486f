//! Compares a directory with its record: every file is read and hashed again.
//!
//! Owner, mode and time are not compared: a copy that was made by another user has others, and the
//! record has the right ones.

use std::ffi::OsStr;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::base::ids::Hash;
use crate::base::lock::lock;
use crate::base::openat::{Dir, Kind};
use crate::base::progress::{Progress, ProgressEvent};
use crate::format::index::{EntryRef, EntryType};
use crate::format::restored::{RESTORED, RestoredRecord};

const BUFFER_BYTES: usize = 1 << 20;
const MOST_THREADS: usize = 4;
/// Differences that a message names.
const MOST_NAMED: usize = 50;

/// The differences between a directory and its record. Paths are lossy.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RecordDifferences {
    /// Paths that the directory lacks.
    pub missing: Vec<String>,
    /// Paths of entries that are not as recorded, and how.
    pub changed: Vec<(String, String)>,
    /// Paths that the record does not list; of a directory, only its own.
    pub additional: Vec<String>,
}

impl RecordDifferences {
    /// Returns whether everything that the record lists is there, unchanged.
    pub fn is_whole(&self) -> bool {
        self.missing.is_empty() && self.changed.is_empty()
    }
}

impl std::fmt::Display for RecordDifferences {
    /// Writes the missing and the changed paths, one a line.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = self.missing.len() + self.changed.len();
        let missing = self.missing.iter().map(|path| (path, "is missing"));
        let changed = self.changed.iter().map(|(path, how)| (path, how.as_str()));
        for (path, how) in missing.chain(changed).take(MOST_NAMED) {
            write!(f, "\n  {path} {how}")?;
        }
        match all.checked_sub(MOST_NAMED) {
            None | Some(0) => Ok(()),
            Some(more) => write!(f, "\n  and {more} more"),
        }
    }
}

/// Reads all files of `dir` that `record` lists, on several threads, and looks for other entries.
/// An entry that cannot be read counts as changed. Fails only if a thread cannot be started.
pub fn check_record(
    record: &RestoredRecord,
    dir: &Dir,
    progress: &dyn Progress,
) -> io::Result<RecordDifferences> {
    let checking = Checking {
        record,
        dir,
        progress,
        next: AtomicUsize::new(0),
        found: Mutex::default(),
    };
    let threads = thread::available_parallelism().map_or(1, |n| n.get().min(MOST_THREADS));
    thread::scope(|scope| {
        let started: io::Result<Vec<_>> = (0..threads)
            .map(|_| {
                let named = thread::Builder::new().name("check-record".to_owned());
                named.spawn_scoped(scope, || checking.work())
            })
            .collect();
        let ended = started?.into_iter().map(|thread| {
            let stopped = |_| Err(io::Error::other("a thread that reads files stopped"));
            thread.join().map(Ok).unwrap_or_else(stopped)
        });
        ended.collect::<io::Result<Vec<()>>>()
    })?;
    checking.look_for_others(b"");
    for entry in record.entries.iter() {
        if entry.kind == EntryType::Dir {
            checking.look_for_others(entry.path);
        }
    }
    let mut found = lock(&checking.found);
    let mut found = std::mem::take(&mut *found);
    found.missing.sort();
    found.changed.sort();
    found.additional.sort();
    Ok(found)
}

struct Checking<'a> {
    record: &'a RestoredRecord,
    dir: &'a Dir,
    progress: &'a dyn Progress,
    /// The number of the next entry.
    next: AtomicUsize,
    found: Mutex<RecordDifferences>,
}

/// How an entry differs.
enum Difference {
    Missing,
    Changed(String),
}

impl From<io::Error> for Difference {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            _ => Self::Changed(format!("cannot be read: {error}")),
        }
    }
}

fn changed(how: impl Into<String>) -> Difference {
    Difference::Changed(how.into())
}

impl Checking<'_> {
    /// Compares entries until none is left.
    fn work(&self) {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.record.entries.len() {
                return;
            }
            let entry = self.record.entries.get(number);
            let path = || entry.path_lossy().into_owned();
            match self.compare(&entry, &mut buffer) {
                Ok(()) => {}
                Err(Difference::Missing) => lock(&self.found).missing.push(path()),
                Err(Difference::Changed(how)) => lock(&self.found).changed.push((path(), how)),
            }
        }
    }

    fn compare(&self, entry: &EntryRef<'_>, buffer: &mut [u8]) -> Result<(), Difference> {
        let path = OsStr::from_bytes(entry.path);
        let meta = self.dir.meta(path)?;
        let (expected, text) = match entry.kind {
            EntryType::File | EntryType::Hardlink => (Kind::File, "a file"),
            EntryType::Dir => (Kind::Dir, "a directory"),
            EntryType::Symlink => (Kind::Symlink, "a symbolic link"),
            EntryType::Fifo => (Kind::Fifo, "a FIFO"),
            EntryType::Chardev => (Kind::CharDevice, "a device"),
            EntryType::Blockdev => (Kind::BlockDevice, "a device"),
        };
        if meta.kind() != expected {
            return Err(changed(format!("is not {text}")));
        }
        match entry.kind {
            EntryType::File => self.compare_file(entry, entry, buffer),
            EntryType::Hardlink => {
                // A copy may have broken the link; then it has the same content.
                let target = entry.target.unwrap_or_default();
                let Some(first) = self.record.entries.find(target) else {
                    return Err(changed("is a hard link to nothing"));
                };
                let is_linked = self.dir.is_still(OsStr::from_bytes(target), &meta);
                match is_linked {
                    true => Ok(()),
                    false => self.compare_file(entry, &first, buffer),
                }
            }
            EntryType::Symlink => {
                match Some(self.dir.read_link(path)?.as_slice()) == entry.target {
                    true => Ok(()),
                    false => Err(changed("leads elsewhere")),
                }
            }
            EntryType::Chardev | EntryType::Blockdev => {
                let (major, minor) = entry.rdev.unwrap_or_default();
                match meta.rdev() == rustix::fs::makedev(major, minor) {
                    true => Ok(()),
                    false => Err(changed("is another device")),
                }
            }
            EntryType::Dir | EntryType::Fifo => Ok(()),
        }
    }

    /// Compares the file at the path of `entry` with the content of `recorded`.
    fn compare_file(
        &self,
        entry: &EntryRef<'_>,
        recorded: &EntryRef<'_>,
        buffer: &mut [u8],
    ) -> Result<(), Difference> {
        let (mut file, meta) = self.dir.open_file(OsStr::from_bytes(entry.path))?;
        if meta.size() != recorded.size {
            let (is, was) = (meta.size(), recorded.size);
            return Err(changed(format!("has {is} bytes, {was} were restored")));
        }
        let mut hasher = blake3::Hasher::new();
        loop {
            let count = match file.read(buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            hasher.update(&buffer[..count]);
            let bytes = count as u64;
            self.progress.report(&ProgressEvent::BytesFetched { bytes });
        }
        match Some(Hash(*hasher.finalize().as_bytes())) == recorded.blake3 {
            true => Ok(()),
            false => Err(changed("has other content than was restored")),
        }
    }

    /// Notes the entries of the directory `path` that the record does not list. A directory that
    /// cannot be listed has been noted already, or holds nothing that the record lists.
    fn look_for_others(&self, path: &[u8]) {
        let Ok(dir) = self.dir.sub(OsStr::from_bytes(path)) else {
            return;
        };
        let mut others = Vec::new();
        let listed = dir.for_each_entry(|name, _, _| {
            let name = name.as_bytes();
            let full = match path {
                b"" => name.to_vec(),
                _ => [path, b"/", name].concat(),
            };
            let is_record = full == RESTORED.as_bytes();
            if !is_record && self.record.entries.position(&full).is_none() {
                others.push(String::from_utf8_lossy(&full).into_owned());
            }
            Ok(())
        });
        let mut found = lock(&self.found);
        found.additional.extend(others);
        if let Err(error) = listed {
            let shown = String::from_utf8_lossy(path).into_owned();
            found
                .changed
                .push((shown, format!("cannot be listed: {error}")));
        }
    }
}
