//! Reads and stores one file: again if it changed meanwhile, and with the metadata of the file that
//! was opened.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::time::Duration;

use super::super::archive_writer::NewMember;
use super::super::chunker::Chunker;
use super::super::entry_metadata;
use super::super::error::PackError;
use super::super::file_content::{
    ContentError, ContentSource, StoredContent, store_file, store_small,
};
use super::super::files_cache::{CachedFile, Stat};
use super::super::origin::Origin;
use super::super::prefetch::SmallFile;
use super::super::seal::Texture;
use super::{FilePacker, SeenFile};
use crate::base::clock;
use crate::base::openat::Meta;
use crate::base::sqlite;
use crate::base::walk::exchanged;
use crate::format::index::Entry;

const ATTEMPTS: u32 = 3;
/// Pause before the second attempt; before the third it is twice as long.
const PAUSE: Duration = Duration::from_millis(60);
/// Bytes from which the file's kind is recognized.
const HEAD_BYTES: usize = 100;

/// One attempt to read a file.
pub(super) struct ReadAttempt {
    pub(super) stored: StoredContent,
    /// Stat before the read.
    pub(super) stat: Stat,
    /// Whether the file is so new that it could have changed since without changing its times.
    pub(super) racy: bool,
    /// Whether it is a SQLite database.
    pub(super) sqlite: bool,
    /// Whether it was once rewritten under the same inode with the same size.
    pub(super) in_place: bool,
    /// Whether the file changed during the read.
    pub(super) torn: bool,
    /// Whether the next run must read it even if its stat is the same, since its content was not in
    /// the file alone.
    pub(super) uncacheable: bool,
}

/// A file that was read. The entry describes the file that was opened.
pub(super) struct ReadFile {
    pub(super) entry: Entry,
    /// Why the entry lacks its attributes; `None` if it has them.
    pub(super) unread: Option<io::Error>,
    /// Metadata of the file when it was opened.
    pub(super) opened: Meta,
    pub(super) reading: ReadAttempt,
}

/// An open file, and its state before its content is read.
pub(super) struct OpenFile<'f> {
    pub(super) file: &'f mut File,
    pub(super) before: &'f Meta,
    /// Its first bytes.
    pub(super) head: &'f [u8],
}

impl FilePacker<'_, '_> {
    /// Reads until one attempt saw one state of the file. Returns the last attempt if none did, and
    /// `None` if the file cannot be read; both are reported.
    pub(super) fn read_stable(
        &mut self,
        path: &[u8],
        seen: SeenFile<'_>,
        cached: Option<&CachedFile>,
        mut small: Option<SmallFile>,
    ) -> Result<Option<ReadFile>, PackError> {
        let mut last: Option<ReadFile> = None;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                std::thread::sleep(PAUSE * attempt);
            }
            let read = match small.take() {
                Some(small) => self.take_small(path, small, cached, seen.origin),
                None => self.read_once(path, seen, cached),
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

    /// Returns the entry of an open file, and the error if its attributes cannot be read.
    fn describe(
        &self,
        path: &[u8],
        opened: &Meta,
        attributes: io::Result<entry_metadata::Attributes>,
    ) -> io::Result<(Entry, Option<io::Error>)> {
        let described = entry_metadata::entry(path.to_vec(), opened, &self.names, attributes, None);
        described.ok_or_else(exchanged)
    }

    /// Stores a file that was read ahead.
    fn take_small(
        &mut self,
        path: &[u8],
        small: SmallFile,
        cached: Option<&CachedFile>,
        origin: Origin,
    ) -> Result<ReadFile, ContentError> {
        let stat = Stat::of(&small.before, origin);
        let (mut entry, unread) = self.describe(path, &small.before, small.attributes)?;
        let member = entry_metadata::member(&entry);
        let stored = store_small(self.archives, &small.content, small.cut, &member)?;
        refresh(&mut entry, &small.after);
        let reading = ReadAttempt {
            torn: Stat::of(&small.after, origin) != stat || stored.size != stat.size,
            stored,
            racy: stat.is_racy(origin, small.read_at_ns),
            sqlite: false,
            in_place: changes_in_place(cached, &stat),
            uncacheable: false,
            stat,
        };
        Ok(ReadFile {
            entry,
            unread,
            opened: small.before,
            reading,
        })
    }

    /// Opens, reads and stores a file.
    fn read_once(
        &mut self,
        path: &[u8],
        SeenFile { found, origin }: SeenFile<'_>,
        cached: Option<&CachedFile>,
    ) -> Result<ReadFile, ContentError> {
        let (mut file, opened) = found.root.open_file(found.rel())?;
        let (mut entry, unread) =
            self.describe(path, &opened, entry_metadata::attributes(&file))?;
        let mut head = Vec::with_capacity(HEAD_BYTES);
        (&file).take(HEAD_BYTES as u64).read_to_end(&mut head)?;
        file.rewind()?;
        let is_database = sqlite::is_sqlite(&head) && sqlite::page_size(&head).is_some();
        let cold = !crate::base::fs::is_cached(&file, opened.len());
        let reading = if is_database && origin == Origin::Live {
            // The database's check reads it, too, in another order.
            self.cold = false;
            let reading = self.read_database(&mut entry, found, file, &opened, &head)?;
            if cold && let Ok((file, now)) = found.root.open_file(found.rel()) {
                crate::base::fs::let_go(&file, 0, now.len());
            }
            reading
        } else {
            self.cold = cold;
            let open = OpenFile {
                file: &mut file,
                before: &opened,
                head: &head,
            };
            let reading = self.read_open(&entry, open, origin, cached)?;
            refresh(&mut entry, &Meta::of_fd(&file)?);
            reading
        };
        Ok(ReadFile {
            entry,
            unread,
            opened,
            reading,
        })
    }

    /// Stores the bytes of an open file.
    pub(super) fn read_open(
        &mut self,
        entry: &Entry,
        OpenFile { file, before, head }: OpenFile<'_>,
        origin: Origin,
        cached: Option<&CachedFile>,
    ) -> Result<ReadAttempt, ContentError> {
        let stat = Stat::of(before, origin);
        let in_place = changes_in_place(cached, &stat);
        let name = entry.path.rsplit(|byte| *byte == b'/').next();
        let chunker = Chunker::choose(head, stat.size, name.unwrap_or_default(), in_place);
        let read_at_ns = clock::of_files_ns();
        let mut member: NewMember = entry_metadata::member(entry);
        if sqlite::is_sqlite(head) {
            member.texture = Texture::Pages;
        }
        let source = ContentSource {
            file,
            meta: before,
            cold: self.cold,
            progress: self.progress,
        };
        let stored = store_file(self.archives, source, &member, chunker, &mut self.buffer)?;
        let after = Stat::of(&Meta::of_fd(&*file)?, origin);
        Ok(ReadAttempt {
            torn: after != stat || stored.size != stat.size,
            stored,
            stat,
            racy: stat.is_racy(origin, read_at_ns),
            sqlite: sqlite::is_sqlite(head),
            in_place,
            uncacheable: false,
        })
    }
}

/// Returns whether the file was rewritten under the same inode with the same size, now or earlier.
fn changes_in_place(cached: Option<&CachedFile>, stat: &Stat) -> bool {
    cached.is_some_and(|cached| {
        let same_file = cached.stat.dev == stat.dev && cached.stat.ino == stat.ino;
        let rewritten = cached.stat.mtime_ns != stat.mtime_ns && cached.stat.size == stat.size;
        cached.in_place || (same_file && rewritten)
    })
}

/// Updates the fields of an entry that can change while the file is read.
pub(super) fn refresh(entry: &mut Entry, meta: &Meta) {
    entry.mtime_ns = entry_metadata::mtime_ns(meta);
    entry.mode = meta.permissions();
    entry.uid = meta.uid();
    entry.gid = meta.gid();
}

/// Returns the reason to report for a file that cannot be read.
pub(super) fn read_reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "it vanished before it could be read".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "permission denied; run as a user who may read it, or exclude it".to_owned()
        }
        _ => format!("cannot be read: {error}"),
    }
}
