//! Turns each item of the snapshot into its index entry, and stores the content of files.
//!
//! - A file that did not change since the last snapshot is not read.
//! - A file that changes while it is read is read again, up to three times in all. Then it is
//!   stored as last read, marked `torn`, and reported.
//! - When a file is opened, its name may belong to another file than during the walk. The opened
//!   file counts, with its own owner, mode and attributes.
//! - A SQLite database in a live tree has rules of its own ([`live_database`]).

mod live_database;
mod names;
mod other_kinds;
mod read;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::PathBuf;

use self::live_database::LockBudget;
use self::read::ReadFile;
use super::archive_writer::ArchiveWriter;
use super::entry_metadata::{self, OwnerNames};
use super::error::{PackError, scratch_error};
use super::files_cache::{CacheWriter, CachedFile, Stat};
use super::merge_parts::SnapshotItem;
use super::origin::Origin;
use super::prefetch::{EarlierFile, Prefetched, SmallFile};
use super::scratch::RunScratch;
use super::usage::uses;
use crate::base::database_names::{DatabaseNames, Journals};
use crate::base::openat::{Kind, Meta};
use crate::base::progress::{Progress, ProgressEvent};
use crate::base::sqlite::{self, Depth};
use crate::base::walk::Found;
use crate::format::index::{DatabaseRecord, OpenDirs, Skipped, has_wide_time, parent_path};
use crate::format::manifest::Totals;
use crate::state::figures::{Figures, FileSeen, Grain, Tally};
use crate::state::staged_snapshot::StagedSnapshot;

/// The outcome of packing the files.
pub(super) struct PackedFiles {
    pub(super) totals: Totals,
    /// The new cache, to be finished when the manifest is in the spool.
    pub(super) cache: CacheWriter,
    pub(super) databases: Vec<DatabaseRecord>,
    pub(super) skipped: Vec<Skipped>,
    /// Figures of each source, by its path in the snapshot.
    pub(super) figures: BTreeMap<String, Figures>,
    /// Remarks for the operator that are no reason to call the snapshot incomplete.
    pub(super) notes: BTreeSet<String>,
    /// Whether an entry's time is beyond 64 bits.
    pub(super) has_wide_times: bool,
    /// Path of a file with the entry lines, in order.
    pub(super) entry_lines: PathBuf,
}

/// A file as the walk saw it.
#[derive(Clone, Copy)]
struct SeenFile<'a> {
    found: &'a Found,
    origin: Origin,
}

/// Packs the items of one snapshot, which must come in path order.
pub(super) struct FilePacker<'p, 'a> {
    archives: &'p mut ArchiveWriter<'a>,
    cache_out: CacheWriter,
    scratch: &'p RunScratch,
    progress: &'p dyn Progress,
    /// The entry lines.
    lines: BufWriter<File>,
    entry_lines: PathBuf,
    has_wide_times: bool,
    totals: Totals,
    tally: Tally,
    databases: BTreeMap<String, DatabaseRecord>,
    old_databases: HashMap<String, DatabaseRecord>,
    skipped: BTreeSet<Skipped>,
    notes: BTreeSet<String>,
    /// By device and inode, the paths of a file with several names: the first one; for a database,
    /// the first one for each state of its journals.
    links: HashMap<(u64, u64), Vec<Vec<u8>>>,
    /// Packed databases of live trees and their journals, whose content is packed with the
    /// database.
    taken: BTreeMap<Vec<u8>, Journals>,
    database_names: DatabaseNames,
    names: OwnerNames,
    open_dirs: OpenDirs,
    buffer: Vec<u8>,
    /// Whether the current file was not in the page cache, and need not stay there.
    cold: bool,
    lock_budget: LockBudget,
    /// How deep the databases of live trees are checked.
    check: Depth,
}

impl<'p, 'a> FilePacker<'p, 'a> {
    /// `old_databases` are those of the last snapshot, for databases that did not change.
    pub(super) fn new(
        archives: &'p mut ArchiveWriter<'a>,
        old_databases: Vec<DatabaseRecord>,
        cache_out: CacheWriter,
        scratch: &'p RunScratch,
        snapshot: &StagedSnapshot,
        progress: &'p dyn Progress,
    ) -> Result<Self, PackError> {
        let entry_lines = scratch.path("entries.jsonl");
        let lines = crate::base::fs::create_private(&entry_lines)
            .map_err(|e| scratch_error(&entry_lines, e))?;
        let by_path =
            |records: Vec<DatabaseRecord>| records.into_iter().map(|r| (r.path.clone(), r));
        Ok(Self {
            archives,
            cache_out,
            scratch,
            progress,
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
            names: OwnerNames::default(),
            open_dirs: OpenDirs::default(),
            buffer: Vec::new(),
            cold: false,
            lock_budget: LockBudget::new(),
            check: Depth::Structure,
        })
    }

    /// Checks the databases of live trees as deep as `check` says.
    pub(super) fn checking(self, check: Depth) -> Self {
        Self { check, ..self }
    }

    /// Packs one item.
    pub(super) fn pack(&mut self, prefetched: Prefetched) -> Result<(), PackError> {
        let Prefetched {
            item,
            earlier,
            small,
        } = prefetched;
        match item {
            SnapshotItem::Skipped(skipped) => {
                self.skipped.insert(skipped);
                Ok(())
            }
            SnapshotItem::Note(note) => {
                self.notes.insert(note);
                Ok(())
            }
            SnapshotItem::Between(path) => {
                self.open_dirs.open(path.clone());
                self.emit(&entry_metadata::synthetic_dir(path).to_line(), 0, 0)
            }
            // Readers refuse an index with an entry that has no parent.
            SnapshotItem::Found { path, .. } if !self.has_parent(&path) => {
                self.skip(&path, "its parent was not a directory when it was packed");
                Ok(())
            }
            SnapshotItem::Found {
                path,
                found,
                origin,
            } => match found.meta.kind() {
                Kind::File => {
                    let seen = SeenFile {
                        found: &found,
                        origin,
                    };
                    self.pack_file(path, seen, earlier, small)
                }
                Kind::Dir => self.pack_dir(path, &found),
                _ => self.pack_other(path, &found),
            },
        }
    }

    /// Returns all that the index and the manifest need.
    pub(super) fn finish(mut self) -> Result<PackedFiles, PackError> {
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

    /// Writes an entry line, and counts the entry: its bytes, and how many of them are new.
    fn emit(&mut self, line: &[u8], bytes: u64, new_bytes: u64) -> Result<(), PackError> {
        let written = self.lines.write_all(line);
        let written = written.and_then(|()| self.lines.write_all(b"\n"));
        written.map_err(|e| scratch_error(&self.entry_lines, e))?;
        self.has_wide_times |= has_wide_time(line);
        self.totals.entries += 1;
        self.totals.bytes += bytes;
        self.totals.new_bytes += new_bytes;
        self.progress.report(&ProgressEvent::EntryPacked {
            files: self.totals.files,
            bytes,
            new_bytes,
        });
        Ok(())
    }

    /// Reports that the snapshot lacks the file at `path`, or holds it incompletely.
    fn skip(&mut self, path: &[u8], reason: impl std::fmt::Display) {
        self.skipped.insert(Skipped {
            path: String::from_utf8_lossy(path).into_owned(),
            reason: reason.to_string(),
        });
    }

    /// Returns whether the file is a journal (`x.db-wal` or the like) of a database that was packed
    /// with the journal's content.
    fn is_journal_of_taken(&self, path: &[u8]) -> bool {
        let endings = sqlite::SIDECARS.iter();
        let stem = endings
            .copied()
            .find_map(|ending| path.strip_suffix(ending));
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
        seen: SeenFile<'_>,
        earlier: EarlierFile,
        small: Option<SmallFile>,
    ) -> Result<(), PackError> {
        let SeenFile { found, origin } = seen;
        if origin == Origin::Live && self.is_journal_of_taken(&path) {
            return Ok(());
        }
        if let Some(first) = self.first_name(found)
            && self.pack_link(&path, found, first)?
        {
            return Ok(());
        }
        if let Some(cached) = &earlier.file
            && earlier.is_unchanged
            && (!cached.sqlite || origin == Origin::Staged || self.may_reuse_database(found))
        {
            return self.reuse(cached, &found.meta, origin);
        }
        match self.read_stable(&path, seen, earlier.file.as_ref(), small)? {
            Some(read) => self.write_file(read, earlier.grain),
            None => Ok(()),
        }
    }

    /// Returns whether a database of a live tree that looks unchanged is unchanged.
    fn may_reuse_database(&mut self, found: &Found) -> bool {
        self.check == Depth::Structure && self.is_in_file_alone(found)
    }

    /// Takes the entry of an unchanged file from the last snapshot.
    fn reuse(&mut self, cached: &CachedFile, meta: &Meta, origin: Origin) -> Result<(), PackError> {
        self.archives.count_reused(&cached.uses);
        self.note_name(meta, &cached.path);
        if cached.sqlite && origin == Origin::Live {
            // All of it is in its file, or it would be read.
            self.taken.insert(cached.path.clone(), Journals::default());
            let name = String::from_utf8_lossy(&cached.path).into_owned();
            if let Some(database) = self.old_databases.remove(&name) {
                self.databases.insert(name, database);
            }
        }
        self.remember(cached)?;
        self.totals.files += 1;
        let seen = FileSeen {
            bytes: cached.stat.size,
            is_database: cached.sqlite,
            grain: cached.grain,
            was: None,
        };
        self.tally.file(&cached.path, seen);
        self.emit(&cached.line, cached.stat.size, 0)
    }

    /// Adds a file to the new cache.
    fn remember(&mut self, file: &CachedFile) -> Result<(), PackError> {
        let added = self.cache_out.add(file);
        added.map_err(|e| scratch_error("the cache of the last snapshot".as_ref(), e))
    }

    /// Writes the entry of a file that was read. `was` is how it looked in the last snapshot.
    fn write_file(&mut self, read: ReadFile, was: Option<Grain>) -> Result<(), PackError> {
        let ReadFile {
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
        self.archives.count_live(&entry.extents);
        self.note_name(&opened, &entry.path);
        let line = entry.to_line();
        let grain = reading.stored.grain;
        let is_whole = !reading.torn && !reading.uncacheable && unread.is_none();
        if is_whole && !reading.racy {
            self.remember(&CachedFile {
                path: entry.path.clone(),
                stat: reading.stat,
                sqlite: reading.sqlite,
                in_place: reading.in_place,
                grain,
                uses: uses(&entry.extents),
                line: line.clone(),
            })?;
        } else {
            // The next run reads it in any case, and knows how it looked.
            self.remember(&CachedFile {
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
        self.emit(&line, entry.size, reading.stored.new_bytes)
    }
}
