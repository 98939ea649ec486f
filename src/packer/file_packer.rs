//! Each thing of the snapshot → its index entry, with its content stored if it is a file.
//!
//! What did not change since the last snapshot is not read. A file that changes while it is read is
//! read again, three times at the most; then it is stored as it came, marked `torn`, and reported.
//! By the time that a file is opened, its name may mean another than the walk saw: what was opened counts, with
//! its own owner, mode and attributes, which are taken from the open file.
//! A SQLite database in a live tree is taken as [`database`] says.

mod live_database;
mod names;
mod other_kinds;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, BufWriter, Read as _, Seek as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use self::live_database::Patience;
use super::archive_writer::{Store, uses};
use super::chunker::Chunker;
use super::entry_metadata::{self, Names};
use super::file_content::{ContentError, Source, Stored, store_file, store_small};
use super::files_cache::{CacheWriter, Record, Stat};
use super::merge_parts::Item;
use super::prefetch::{Scouted, SmallFile};
use super::seal::Texture;
use super::{PackError, Scratch, scratch_error};
use crate::base::database_names::{DatabaseNames, Journals};
use crate::base::openat::{Kind, Meta};
use crate::base::progress::{Progress, ProgressEvent};
use crate::base::sqlite;
use crate::base::walk::{Found, exchanged};
use crate::format::index::{DatabaseRecord, Entry, OpenDirs, Skipped, has_wide_time, parent_path};
use crate::format::manifest::Totals;
use crate::state::figures::{Figures, FileSeen, Grain, Tally};
use crate::state::staged_snapshot::StagedSnapshot;

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
    /// What each source holds, by its place in the snapshot.
    pub figures: BTreeMap<String, Figures>,
    /// Worth a line, but nothing is missing because of it.
    pub notes: BTreeSet<String>,
    /// An entry's time is beyond 64 bits.
    pub has_wide_times: bool,
    /// A file of entry lines, in order.
    pub entry_lines: PathBuf,
}

pub struct FilePacker<'p, 'a> {
    store: &'p mut Store<'a>,
    cache_out: CacheWriter,
    scratch: &'p Scratch,
    lines: BufWriter<File>,
    entry_lines: PathBuf,
    has_wide_times: bool,
    totals: Totals,
    tally: Tally,
    databases: BTreeMap<String, DatabaseRecord>,
    old_databases: HashMap<String, DatabaseRecord>,
    skipped: BTreeSet<Skipped>,
    notes: BTreeSet<String>,
    /// (device, inode) → paths of a file with several names: the first; of a database, the first for each
    /// state of its journals.
    links: HashMap<(u64, u64), Vec<Vec<u8>>>,
    /// Databases of live trees that were taken, with these journals; what is in those is in them.
    taken: BTreeMap<Vec<u8>, Journals>,
    database_names: DatabaseNames,
    names: Names,
    open_dirs: OpenDirs,
    buffer: Vec<u8>,
    /// The file under way was not in memory before, and need not stay there.
    cold: bool,
    patience: Patience,
}

/// One read of a file.
struct Reading {
    stored: Stored,
    stat: Stat,
    /// So new that it could have changed since without a trace.
    racy: bool,
    sqlite: bool,
    in_place: bool,
    torn: bool,
    /// A later stat that finds the same must still read: the content was not in the file alone.
    uncacheable: bool,
}

/// A file that was read, with the entry that describes what was opened.
struct Read {
    entry: Entry,
    /// Why its attributes are not in the entry.
    unread: Option<io::Error>,
    opened: Meta,
    reading: Reading,
}

impl<'p, 'a> FilePacker<'p, 'a> {
    pub fn new(
        store: &'p mut Store<'a>,
        old_databases: Vec<DatabaseRecord>,
        cache_out: CacheWriter,
        scratch: &'p Scratch,
        snapshot: &StagedSnapshot,
    ) -> Result<Self, PackError> {
        let entry_lines = scratch.path("entries.jsonl");
        let lines = crate::base::fs::create_private(&entry_lines)
            .map_err(|e| scratch_error(&entry_lines, e))?;
        let by_path =
            |records: Vec<DatabaseRecord>| records.into_iter().map(|r| (r.path.clone(), r));
        Ok(Self {
            store,
            cache_out,
            scratch,
            lines: BufWriter::with_capacity(1 << 20, lines),
            entry_lines,
            has_wide_times: false,
            totals: Totals::default(),
            tally: Tally::new(&snapshot.sources),
            databases: by_path(snapshot.databases.clone()).collect(),
            old_databases: by_path(old_databases).collect(),
            skipped: snapshot.skipped.iter().cloned().collect(),
            notes: BTreeSet::new(),
            links: HashMap::new(),
            taken: BTreeMap::new(),
            database_names: DatabaseNames::new(names::roots(snapshot)),
            names: Names::default(),
            open_dirs: OpenDirs::default(),
            buffer: Vec::new(),
            cold: false,
            patience: Patience::new(),
        })
    }

    pub fn pack(&mut self, scouted: Scouted, progress: &dyn Progress) -> Result<(), PackError> {
        let Scouted {
            item,
            record,
            was,
            unchanged,
            small,
        } = scouted;
        match item {
            Item::Skipped(skipped) => {
                self.skipped.insert(skipped);
                Ok(())
            }
            Item::Note(note) => {
                self.notes.insert(note);
                Ok(())
            }
            Item::Between(path) => {
                self.open_dirs.open(path.clone());
                self.emit(
                    &entry_metadata::synthetic_dir(path).to_line(),
                    0,
                    progress,
                    0,
                )
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
                found,
                staged,
            } => match found.meta.kind() {
                Kind::File => {
                    let seen = (&found, staged);
                    self.pack_file(path, seen, (record, was, unchanged), small, progress)
                }
                Kind::Dir => self.pack_dir(path, &found, progress),
                _ => self.pack_other(path, &found, progress),
            },
        }
    }

    /// Everything but the index itself.
    pub fn finish(mut self) -> Result<PackedFiles, PackError> {
        let failed = |e| scratch_error(&self.entry_lines, e);
        self.lines.flush().map_err(failed)?;
        let databases: Vec<DatabaseRecord> = self.databases.into_values().collect();
        Ok(PackedFiles {
            totals: self.totals,
            cache: self.cache_out,
            figures: self.tally.finish(&databases),
            databases,
            skipped: self.skipped.into_iter().collect(),
            notes: self.notes,
            has_wide_times: self.has_wide_times,
            entry_lines: self.entry_lines,
        })
    }

    fn emit(
        &mut self,
        line: &[u8],
        bytes: u64,
        progress: &dyn Progress,
        new_bytes: u64,
    ) -> Result<(), PackError> {
        let written = self.lines.write_all(line);
        let written = written.and_then(|()| self.lines.write_all(b"\n"));
        written.map_err(|e| scratch_error(&self.entry_lines, e))?;
        self.has_wide_times |= has_wide_time(line);
        self.totals.entries += 1;
        self.totals.bytes += bytes;
        self.totals.new_bytes += new_bytes;
        progress.report(&ProgressEvent::EntryPacked { bytes, new_bytes });
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
        stem.is_some_and(|stem| self.taken.contains_key(stem))
    }

    fn report_unread(&mut self, path: &[u8], unread: Option<&io::Error>) {
        if let Some(error) = unread {
            let reason = format!("stored without its extended attributes: {error}");
            self.skip(path, reason);
        }
    }

    fn has_parent(&mut self, path: &[u8]) -> bool {
        parent_path(path).is_none_or(|parent| self.open_dirs.hold(path, parent))
    }

    fn pack_file(
        &mut self,
        path: Vec<u8>,
        (found, staged): (&Found, bool),
        (record, was, unchanged): (Option<Record>, Option<Grain>, bool),
        small: Option<SmallFile>,
        progress: &dyn Progress,
    ) -> Result<(), PackError> {
        let meta = &found.meta;
        if !staged && self.is_journal_of_taken(&path) {
            return Ok(());
        }
        if let Some(first) = self.first_name(found)
            && self.pack_link(&path, found, first, progress)?
        {
            return Ok(());
        }
        if let Some(record) = &record
            && unchanged
            && (!record.sqlite || staged || self.is_in_file_alone(found))
        {
            return self.reuse(record, meta, staged, progress);
        }
        match self.read_stable(&path, (found, staged), record.as_ref(), small)? {
            Some(read) => self.write_file(read, was, progress),
            None => Ok(()),
        }
    }

    fn reuse(
        &mut self,
        record: &Record,
        meta: &Meta,
        staged: bool,
        progress: &dyn Progress,
    ) -> Result<(), PackError> {
        self.store.count_reused(&record.uses);
        self.note_name(meta, &record.path);
        if record.sqlite && !staged {
            // Nothing of it is in a journal, or it would be read.
            self.taken.insert(record.path.clone(), Journals::default());
            let name = String::from_utf8_lossy(&record.path).into_owned();
            if let Some(database) = self.old_databases.remove(&name) {
                self.databases.insert(name, database);
            }
        }
        self.remember(record)?;
        self.totals.files += 1;
        let seen = FileSeen {
            bytes: record.stat.size,
            is_database: record.sqlite,
            grain: record.grain,
            was: None,
        };
        self.tally.file(&record.path, seen);
        self.emit(&record.line, record.stat.size, progress, 0)
    }

    fn remember(&mut self, record: &Record) -> Result<(), PackError> {
        let added = self.cache_out.add(record);
        added.map_err(|e| scratch_error("the cache of the last snapshot".as_ref(), e))
    }

    /// Reads until one read saw one state of the file. `None`: it could not be read and was reported.
    fn read_stable(
        &mut self,
        path: &[u8],
        seen: (&Found, bool),
        record: Option<&Record>,
        mut small: Option<SmallFile>,
    ) -> Result<Option<Read>, PackError> {
        let mut last: Option<Read> = None;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                std::thread::sleep(PAUSE * attempt);
            }
            let read = match small.take() {
                Some(small) => self.take_small(path, small, record, seen.1),
                None => self.read_once(path, seen, record),
            };
            match read {
                Ok(read) if !read.reading.torn => return Ok(Some(read)),
                Ok(read) => last = Some(read),
                Err(ContentError::Pack(error)) => return Err(error),
                Err(ContentError::Read(error)) => {
                    if attempt + 1 == ATTEMPTS && last.is_none() {
                        self.skip(path, read_reason(&error));
                    }
                }
            }
        }
        if last.is_some() {
            self.skip(
                path,
                format_args!(
                    "it changed during each of {ATTEMPTS} reads; stored as last read, marked torn"
                ),
            );
        }
        Ok(last)
    }

    /// The entry of an open file, and why its attributes are not in it.
    fn describe(
        &self,
        path: &[u8],
        opened: &Meta,
        attributes: io::Result<entry_metadata::Attributes>,
    ) -> io::Result<(Entry, Option<io::Error>)> {
        let described = entry_metadata::entry(path.to_vec(), opened, &self.names, attributes, None);
        described.ok_or_else(exchanged)
    }

    /// Stores what was read ahead.
    fn take_small(
        &mut self,
        path: &[u8],
        small: SmallFile,
        record: Option<&Record>,
        staged: bool,
    ) -> Result<Read, ContentError> {
        let stat = Stat::of(&small.before, staged);
        let (mut entry, unread) = self.describe(path, &small.before, small.attributes)?;
        let member = entry_metadata::member(&entry);
        let stored = store_small(self.store, &small.content, small.cut, &member)?;
        refresh(&mut entry, &small.after);
        let reading = Reading {
            torn: Stat::of(&small.after, staged) != stat || stored.size != stat.size,
            stored,
            racy: stat.is_racy(staged, small.read_at_ns),
            sqlite: false,
            in_place: changes_in_place(record, &stat),
            uncacheable: false,
            stat,
        };
        Ok(Read {
            entry,
            unread,
            opened: small.before,
            reading,
        })
    }

    fn read_once(
        &mut self,
        path: &[u8],
        (found, staged): (&Found, bool),
        record: Option<&Record>,
    ) -> Result<Read, ContentError> {
        let (mut file, opened) = found.root.open_file(found.rel())?;
        let (mut entry, unread) =
            self.describe(path, &opened, entry_metadata::attributes(&file))?;
        let mut head = Vec::with_capacity(HEAD_BYTES);
        (&file).take(HEAD_BYTES as u64).read_to_end(&mut head)?;
        file.rewind()?;
        let is_database = sqlite::is_sqlite(&head) && sqlite::page_size(&head).is_some();
        let cold = !crate::base::fs::is_cached(&file, opened.len());
        let reading = if is_database && !staged {
            // Its check reads it too, in another order.
            self.cold = false;
            let reading = self.read_database(&mut entry, found, file, &opened, &head)?;
            if cold && let Ok((file, now)) = found.root.open_file(found.rel()) {
                crate::base::fs::let_go(&file, 0, now.len());
            }
            reading
        } else {
            self.cold = cold;
            let reading = self.read_open(&entry, &mut file, &opened, &head, record, staged)?;
            refresh(&mut entry, &Meta::of_fd(&file)?);
            reading
        };
        Ok(Read {
            entry,
            unread,
            opened,
            reading,
        })
    }

    /// Stores an open file as the bytes it is.
    fn read_open(
        &mut self,
        entry: &Entry,
        file: &mut File,
        before: &Meta,
        head: &[u8],
        record: Option<&Record>,
        staged: bool,
    ) -> Result<Reading, ContentError> {
        let stat = Stat::of(before, staged);
        let in_place = changes_in_place(record, &stat);
        let name = entry.path.rsplit(|byte| *byte == b'/').next();
        let chunker = Chunker::choose(head, stat.size, name.unwrap_or_default(), in_place);
        let read_at_ns = now_ns();
        let mut member = entry_metadata::member(entry);
        if sqlite::is_sqlite(head) {
            member.texture = Texture::Pages;
        }
        let source = Source {
            file,
            meta: before,
            cold: self.cold,
        };
        let stored = store_file(self.store, source, &member, chunker, &mut self.buffer)?;
        let after = Stat::of(&Meta::of_fd(&*file)?, staged);
        Ok(Reading {
            torn: after != stat || stored.size != stat.size,
            stored,
            stat,
            racy: stat.is_racy(staged, read_at_ns),
            sqlite: sqlite::is_sqlite(head),
            in_place,
            uncacheable: false,
        })
    }

    /// `was`: how the file looked in the last snapshot.
    fn write_file(
        &mut self,
        read: Read,
        was: Option<Grain>,
        progress: &dyn Progress,
    ) -> Result<(), PackError> {
        let Read {
            mut entry,
            unread,
            opened,
            reading,
        } = read;
        self.report_unread(&entry.path, unread.as_ref());
        entry.size = reading.stored.size;
        entry.blake3 = Some(reading.stored.blake3);
        entry.extents = reading.stored.extents;
        entry.torn = reading.torn;
        self.store.count_live(&entry.extents);
        self.note_name(&opened, &entry.path);
        let line = entry.to_line();
        let grain = reading.stored.grain;
        let is_whole = !reading.torn && !reading.uncacheable && unread.is_none();
        if is_whole && !reading.racy {
            self.remember(&Record {
                path: entry.path.clone(),
                stat: reading.stat,
                sqlite: reading.sqlite,
                in_place: reading.in_place,
                grain,
                uses: uses(&entry.extents),
                line: line.clone(),
            })?;
        } else {
            // The next run reads it whatever it looks like, and knows how it looked.
            self.remember(&Record {
                path: entry.path.clone(),
                stat: Stat::of_none(),
                sqlite: false,
                in_place: false,
                grain,
                uses: Vec::new(),
                line: Vec::new(),
            })?;
        }
        self.totals.files += 1;
        let seen = FileSeen {
            bytes: entry.size,
            is_database: reading.sqlite,
            grain,
            was: was.filter(|_| reading.stored.new_bytes > 0),
        };
        self.tally.file(&entry.path, seen);
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

fn refresh(entry: &mut Entry, meta: &Meta) {
    entry.mtime_ns = entry_metadata::mtime_ns(meta);
    entry.mode = meta.permissions();
    entry.uid = meta.uid();
    entry.gid = meta.gid();
}

pub(super) fn now_ns() -> i128 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |time| time.as_nanos() as i128)
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
