//! Each thing of the snapshot → its index entry, with its content stored if it is a file.
//!
//! What did not change since the last snapshot is not read. A file that changes while it is read is
//! read again, three times at the most; then it is stored as it came, marked `torn`, and reported.
//! A SQLite database in a live tree is taken as [`database`] says.

mod database;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, BufWriter, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cache::{CacheWriter, Record, Stat};
use super::chunker::Chunker;
use super::content::{ContentError, Source, Stored, store_file, store_small};
use super::meta::{self, Attributes, Names};
use super::parts::Item;
use super::scout::{Scouted, SmallFile};
use super::seal::Texture;
use super::store::{Store, uses};
use super::{PackError, PackProgress, Scratch, scratch_error};
use crate::index::{DatabaseRecord, Entry, EntryType, OpenDirs, Skipped, parent_path};
use crate::manifest::Totals;
use crate::snapshot::Snapshot;
use crate::sqlite;

const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(60);
/// What tells a file's kind.
const HEAD_BYTES: usize = 100;

/// What packing the files gave.
pub struct PackedFiles {
    pub totals: Totals,
    /// To be finished when the manifest is in the spool.
    pub cache: CacheWriter,
    pub databases: Vec<DatabaseRecord>,
    pub skipped: Vec<Skipped>,
    /// A file of entry lines, in order.
    pub entry_lines: PathBuf,
}

pub struct FilePacker<'p, 'a> {
    store: &'p mut Store<'a>,
    cache_out: CacheWriter,
    scratch: &'p Scratch,
    lines: BufWriter<File>,
    entry_lines: PathBuf,
    totals: Totals,
    databases: BTreeMap<String, DatabaseRecord>,
    old_databases: HashMap<String, DatabaseRecord>,
    skipped: BTreeSet<Skipped>,
    /// (device, inode) → the first path of a file with several names.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// Databases of live trees that were taken; their journals are in them.
    taken: BTreeSet<Vec<u8>>,
    names: Names,
    open_dirs: OpenDirs,
    buffer: Vec<u8>,
    /// The file under way was not in memory before, and need not stay there.
    cold: bool,
}

/// A file as the walk saw it.
struct Seen {
    abs: PathBuf,
    meta: Metadata,
    staged: bool,
}

/// One read of a file.
struct Reading {
    stored: Stored,
    stat: Stat,
    /// Device and inode of what was opened: since the walk something else may have taken the name.
    inode: (u64, u64),
    /// So new that it could have changed since without a trace.
    racy: bool,
    sqlite: bool,
    in_place: bool,
    torn: bool,
    /// A later stat that finds the same must still read: the content was not in the file alone.
    uncacheable: bool,
}

impl<'p, 'a> FilePacker<'p, 'a> {
    pub fn new(
        store: &'p mut Store<'a>,
        old_databases: Vec<DatabaseRecord>,
        cache_out: CacheWriter,
        scratch: &'p Scratch,
        snapshot: &Snapshot,
    ) -> Result<Self, PackError> {
        let entry_lines = scratch.path("entries.jsonl");
        let lines =
            crate::fs::create_private(&entry_lines).map_err(|e| scratch_error(&entry_lines, e))?;
        let by_path =
            |records: Vec<DatabaseRecord>| records.into_iter().map(|r| (r.path.clone(), r));
        Ok(Self {
            store,
            cache_out,
            scratch,
            lines: BufWriter::with_capacity(1 << 20, lines),
            entry_lines,
            totals: Totals::default(),
            databases: by_path(snapshot.databases.clone()).collect(),
            old_databases: by_path(old_databases).collect(),
            skipped: snapshot.skipped.iter().cloned().collect(),
            links: HashMap::new(),
            taken: BTreeSet::new(),
            names: Names::default(),
            open_dirs: OpenDirs::default(),
            buffer: Vec::new(),
            cold: false,
        })
    }

    pub fn pack(&mut self, scouted: Scouted, progress: &PackProgress) -> Result<(), PackError> {
        let Scouted {
            item,
            record,
            unchanged,
            small,
        } = scouted;
        match item {
            Item::Skipped(skipped) => {
                self.skipped.insert(skipped);
                Ok(())
            }
            Item::Between(path) => {
                self.open_dirs.open(path.clone());
                self.emit(&meta::synthetic_dir(path).to_line(), 0, progress, 0)
            }
            // An index with an orphan in it is refused as a whole.
            Item::Found { path, .. } if !self.has_parent(&path) => {
                self.skip(
                    &path,
                    "what it lies in was no directory when it was looked at",
                );
                Ok(())
            }
            Item::Found {
                path,
                abs,
                meta,
                staged,
            } => match meta.is_file() {
                true => {
                    let seen = Seen { abs, meta, staged };
                    self.pack_file(path, &seen, (record, unchanged), small, progress)
                }
                false => self.pack_other(path, &abs, &meta, progress),
            },
        }
    }

    /// Everything but the index itself.
    pub fn finish(mut self) -> Result<PackedFiles, PackError> {
        let failed = |e| scratch_error(&self.entry_lines, e);
        self.lines.flush().map_err(failed)?;
        Ok(PackedFiles {
            totals: self.totals,
            cache: self.cache_out,
            databases: self.databases.into_values().collect(),
            skipped: self.skipped.into_iter().collect(),
            entry_lines: self.entry_lines,
        })
    }

    fn emit(
        &mut self,
        line: &[u8],
        bytes: u64,
        progress: &PackProgress,
        new_bytes: u64,
    ) -> Result<(), PackError> {
        let written = self.lines.write_all(line);
        let written = written.and_then(|()| self.lines.write_all(b"\n"));
        written.map_err(|e| scratch_error(&self.entry_lines, e))?;
        self.totals.entries += 1;
        self.totals.bytes += bytes;
        self.totals.new_bytes += new_bytes;
        progress.add(bytes, new_bytes);
        Ok(())
    }

    fn skip(&mut self, path: &[u8], reason: impl std::fmt::Display) {
        self.skipped.insert(Skipped {
            path: String::from_utf8_lossy(path).into_owned(),
            reason: reason.to_string(),
        });
    }

    /// `x.db-wal` and the like, where `x.db` was taken with all that they hold.
    fn is_journal_of_taken(&self, path: &[u8]) -> bool {
        let endings: [&[u8]; 3] = [b"-wal", b"-shm", b"-journal"];
        let stem = endings.iter().find_map(|ending| path.strip_suffix(*ending));
        stem.is_some_and(|stem| self.taken.contains(stem))
    }

    fn pack_other(
        &mut self,
        path: Vec<u8>,
        abs: &Path,
        meta: &Metadata,
        progress: &PackProgress,
    ) -> Result<(), PackError> {
        let Some((entry, _)) = self.describe(path, abs, meta, None) else {
            return Ok(());
        };
        if entry.kind == EntryType::Dir {
            self.open_dirs.open(entry.path.clone());
        }
        self.emit(&entry.to_line(), 0, progress, 0)
    }

    /// The entry without content, and whether it is whole otherwise. `None`: there is none, and it was
    /// told why.
    fn describe(
        &mut self,
        path: Vec<u8>,
        abs: &Path,
        meta: &Metadata,
        attributes: Option<io::Result<Attributes>>,
    ) -> Option<(Entry, bool)> {
        match meta::entry(path.clone(), abs, meta, &self.names, attributes) {
            Ok(described) => {
                let (entry, unread) = described?;
                if let Some(error) = &unread {
                    let reason = format!("stored without its extended attributes: {error}");
                    self.skip(&path, reason);
                }
                Some((entry, unread.is_none()))
            }
            Err(error) => {
                self.skip(&path, read_reason(&error));
                None
            }
        }
    }

    fn has_parent(&mut self, path: &[u8]) -> bool {
        parent_path(path).is_none_or(|parent| self.open_dirs.hold(path, parent))
    }

    fn pack_file(
        &mut self,
        path: Vec<u8>,
        seen: &Seen,
        (record, unchanged): (Option<Record>, bool),
        mut small: Option<SmallFile>,
        progress: &PackProgress,
    ) -> Result<(), PackError> {
        let Seen { abs, meta, staged } = seen;
        if !staged && self.is_journal_of_taken(&path) {
            return Ok(());
        }
        if meta.nlink() > 1
            && let Some(first) = self.links.get(&(meta.dev(), meta.ino()))
        {
            let first = first.clone();
            return self.pack_link(path, abs, meta, first, progress);
        }
        if let Some(record) = &record
            && unchanged
            && !(record.sqlite && !staged && sqlite::has_live_journal(abs))
        {
            return self.reuse(record, meta, *staged, progress);
        }
        let nothing = || Ok(BTreeMap::new());
        let attributes = small
            .as_mut()
            .map(|small| std::mem::replace(&mut small.attributes, nothing()));
        let Some((mut entry, is_whole)) = self.describe(path, abs, meta, attributes) else {
            return Ok(());
        };
        let reading = self.read_stable(&mut entry, abs, record.as_ref(), *staged, small)?;
        let Some(mut reading) = reading else {
            return Ok(());
        };
        reading.uncacheable |= !is_whole;
        self.write_file(entry, reading, meta, progress)
    }

    fn pack_link(
        &mut self,
        path: Vec<u8>,
        abs: &Path,
        meta: &Metadata,
        first: Vec<u8>,
        progress: &PackProgress,
    ) -> Result<(), PackError> {
        let Some((mut entry, _)) = self.describe(path, abs, meta, None) else {
            return Ok(());
        };
        entry.kind = EntryType::Hardlink;
        entry.target = Some(first);
        self.emit(&entry.to_line(), 0, progress, 0)
    }

    fn reuse(
        &mut self,
        record: &Record,
        meta: &Metadata,
        staged: bool,
        progress: &PackProgress,
    ) -> Result<(), PackError> {
        self.store.count_reused(&record.uses);
        if meta.nlink() > 1 {
            self.links
                .insert((meta.dev(), meta.ino()), record.path.clone());
        }
        if record.sqlite && !staged {
            self.taken.insert(record.path.clone());
            let name = String::from_utf8_lossy(&record.path).into_owned();
            if let Some(database) = self.old_databases.remove(&name) {
                self.databases.insert(name, database);
            }
        }
        self.remember(record)?;
        self.totals.files += 1;
        self.emit(&record.line, record.stat.size, progress, 0)
    }

    fn remember(&mut self, record: &Record) -> Result<(), PackError> {
        let added = self.cache_out.add(record);
        added.map_err(|e| scratch_error("the cache of the last snapshot".as_ref(), e))
    }

    /// Reads until one read saw one state of the file. `None`: it could not be read and was reported.
    fn read_stable(
        &mut self,
        entry: &mut Entry,
        abs: &Path,
        record: Option<&Record>,
        staged: bool,
        mut small: Option<SmallFile>,
    ) -> Result<Option<Reading>, PackError> {
        let mut last: Option<Reading> = None;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                std::thread::sleep(PAUSE * attempt);
            }
            let reading = match small.take() {
                Some(small) => self.take_small(entry, small, record, staged),
                None => self.read_once(entry, abs, record, staged),
            };
            match reading {
                Ok(reading) if !reading.torn => return Ok(Some(reading)),
                Ok(reading) => last = Some(reading),
                Err(ContentError::Pack(error)) => return Err(error),
                Err(ContentError::Read(error)) => {
                    if attempt + 1 == ATTEMPTS && last.is_none() {
                        self.skip(&entry.path, read_reason(&error));
                    }
                }
            }
        }
        if last.is_some() {
            self.skip(
                &entry.path,
                format_args!(
                    "it changed during each of {ATTEMPTS} reads; stored as last read, marked torn"
                ),
            );
        }
        Ok(last)
    }

    /// Stores what was read ahead.
    fn take_small(
        &mut self,
        entry: &mut Entry,
        small: SmallFile,
        record: Option<&Record>,
        staged: bool,
    ) -> Result<Reading, ContentError> {
        let stat = Stat::of(&small.before, staged);
        let member = meta::member(entry);
        let stored = store_small(self.store, &small.content, small.cut, &member)?;
        refresh(entry, &small.after);
        Ok(Reading {
            torn: Stat::of(&small.after, staged) != stat || stored.size != stat.size,
            stored,
            inode: (stat.dev, stat.ino),
            racy: stat.is_racy(staged, small.read_at_ns),
            sqlite: false,
            in_place: changes_in_place(record, &stat),
            uncacheable: false,
            stat,
        })
    }

    fn read_once(
        &mut self,
        entry: &mut Entry,
        abs: &Path,
        record: Option<&Record>,
        staged: bool,
    ) -> Result<Reading, ContentError> {
        let mut file = open_for_backup(abs)?;
        let before = file.metadata()?;
        if !before.is_file() {
            return Err(io::Error::other("it is no longer a regular file").into());
        }
        let mut head = Vec::with_capacity(HEAD_BYTES);
        (&file).take(HEAD_BYTES as u64).read_to_end(&mut head)?;
        file.rewind()?;
        let is_database = sqlite::is_sqlite(&head) && sqlite::page_size(&head).is_some();
        let cold = !crate::fs::is_cached(&file, before.len());
        let reading = if is_database && !staged {
            // Its check reads it too, in another order.
            self.cold = false;
            let reading = self.read_database(entry, abs, file, &before, &head)?;
            if cold && let Ok(file) = open_for_backup(abs) {
                crate::fs::let_go(&file, 0, before.len());
            }
            reading
        } else {
            self.cold = cold;
            let reading = self.read_open(entry, &mut file, &before, &head, record, staged)?;
            refresh(entry, &file.metadata()?);
            reading
        };
        Ok(Reading {
            inode: (before.dev(), before.ino()),
            ..reading
        })
    }

    /// Stores an open file as the bytes it is.
    fn read_open(
        &mut self,
        entry: &Entry,
        file: &mut File,
        before: &Metadata,
        head: &[u8],
        record: Option<&Record>,
        staged: bool,
    ) -> Result<Reading, ContentError> {
        let stat = Stat::of(before, staged);
        let in_place = changes_in_place(record, &stat);
        let name = entry.path.rsplit(|byte| *byte == b'/').next();
        let chunker = Chunker::choose(head, stat.size, name.unwrap_or_default(), in_place);
        let read_at_ns = now_ns();
        let mut member = meta::member(entry);
        if sqlite::is_sqlite(head) {
            member.texture = Texture::Pages;
        }
        let source = Source {
            file,
            meta: before,
            cold: self.cold,
        };
        let stored = store_file(self.store, source, &member, chunker, &mut self.buffer)?;
        let after = Stat::of(&file.metadata()?, staged);
        Ok(Reading {
            torn: after != stat || stored.size != stat.size,
            stored,
            stat,
            inode: (stat.dev, stat.ino),
            racy: stat.is_racy(staged, read_at_ns),
            sqlite: sqlite::is_sqlite(head),
            in_place,
            uncacheable: false,
        })
    }

    fn write_file(
        &mut self,
        mut entry: Entry,
        reading: Reading,
        meta: &Metadata,
        progress: &PackProgress,
    ) -> Result<(), PackError> {
        entry.size = reading.stored.size;
        entry.blake3 = Some(reading.stored.blake3);
        entry.extents = reading.stored.extents;
        entry.torn = reading.torn;
        self.store.count_live(&entry.extents);
        if meta.nlink() > 1 {
            self.links.insert(reading.inode, entry.path.clone());
        }
        let line = entry.to_line();
        if !reading.torn && !reading.uncacheable && !reading.racy {
            self.remember(&Record {
                path: entry.path.clone(),
                stat: reading.stat,
                sqlite: reading.sqlite,
                in_place: reading.in_place,
                uses: uses(&entry.extents),
                line: line.clone(),
            })?;
        }
        self.totals.files += 1;
        self.emit(&line, entry.size, progress, reading.stored.new_bytes)
    }
}

/// Rewritten under one inode at one size, now or earlier.
fn changes_in_place(record: Option<&Record>, stat: &Stat) -> bool {
    record.is_some_and(|record| {
        let same_file = record.stat.dev == stat.dev && record.stat.ino == stat.ino;
        let rewritten = record.stat.mtime_ns != stat.mtime_ns && record.stat.size == stat.size;
        record.in_place || (same_file && rewritten)
    })
}

fn refresh(entry: &mut Entry, meta: &Metadata) {
    entry.mtime_ns = meta
        .mtime()
        .saturating_mul(1_000_000_000)
        .saturating_add(meta.mtime_nsec());
    entry.mode = meta.mode() & 0o7777;
    entry.uid = meta.uid();
    entry.gid = meta.gid();
}

pub(super) fn now_ns() -> i128 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |time| time.as_nanos() as i128)
}

/// Opens without following a link that appeared meanwhile, without waiting for a FIFO's other end,
/// and, where allowed, without touching the access time.
pub(super) fn open_for_backup(path: &Path) -> io::Result<File> {
    const BASE: i32 =
        (rustix::fs::OFlags::NOFOLLOW.bits() | rustix::fs::OFlags::NONBLOCK.bits()) as i32;
    const NOATIME: i32 = rustix::fs::OFlags::NOATIME.bits() as i32;
    let open = |flags| OpenOptions::new().read(true).custom_flags(flags).open(path);
    match open(BASE | NOATIME) {
        // Only the owner may ask for NOATIME.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => open(BASE),
        other => other,
    }
}

fn read_reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "it vanished before it could be read".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "permission denied; run as a user who may read it, or exclude it".to_owned()
        }
        _ => format!("cannot be read: {error}"),
    }
}
