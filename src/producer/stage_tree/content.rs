//! Copies the content of one file of a tree, databases included.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use super::super::copy_file::{Original, copy_content};
use super::super::probe_file::is_called_database;
use super::seen::EntryStamp;
use super::take::{EntryFailure, FileCopy, destination, plain, source};
use super::{CopiedDatabase, Stager};
use crate::base::database_names::Home;
use crate::base::error_chain::with_causes;
use crate::base::sqlite::{self, Place, SqliteError};
use crate::base::walk::Found;

impl CopiedDatabase {
    /// Returns the state of the journals that `home` found.
    pub(super) fn of(home: &Home) -> Self {
        Self {
            journals: home.journals,
            logs: home.logs.map(|log| log.as_ref().map(EntryStamp::of)),
            alias: None,
        }
    }

    /// Whether its journals are certainly unchanged since `earlier`.
    pub(super) fn is_still(&self, earlier: &Self) -> bool {
        let mut logs = self.logs.iter().zip(&earlier.logs);
        let are_still = logs.all(|(now, earlier)| match (now, earlier) {
            (None, None) => true,
            (Some(now), Some(earlier)) => now.is_still(earlier, true),
            _ => false,
        });
        are_still && self.journals == earlier.journals
    }
}

impl Stager<'_> {
    /// Copies the content of `found` to `copy`.
    pub(super) fn content(
        &mut self,
        found: &Found,
        copy: &OsStr,
    ) -> Result<FileCopy, EntryFailure> {
        let open = || found.root.open_file(found.rel());
        let is_database = {
            let (file, _) = open().map_err(source)?;
            let mut head = [0; sqlite::HEAD_BYTES];
            let read = file.read_at(&mut head, 0).map_err(source)?;
            sqlite::is_sqlite(&head[..read])
        };
        if is_database || is_called_database(&found.rel) {
            self.staged.databases.push(found.rel.clone());
        }
        let snapshot = self.job.snapshot;
        if !is_database {
            return plain(open, snapshot, copy, self.job.meter, || true);
        }
        let home = self.home(found).map_err(source)?;
        if let Some(doubt) = home.doubt() {
            self.skip(&found.rel, doubt);
        }
        let alias = home.rel(self.job.root).map(OsStr::to_owned);
        let alias = alias.map(OsStringExt::into_vec);
        let known = CopiedDatabase {
            alias: alias.filter(|rel| *rel != found.rel),
            ..CopiedDatabase::of(&home)
        };
        let Some(outcome) = self.database(found, home, copy).transpose() else {
            // It has the magic, but is no database: it is copied like any file.
            return plain(open, snapshot, copy, self.job.meter, || true);
        };
        // This holds even if it is skipped: its journal would damage another state of it.
        self.know(&found.rel, known);
        outcome
    }

    /// Notes a copied database; by both names if it was read by another one.
    pub(super) fn know(&mut self, rel: &[u8], known: CopiedDatabase) {
        if let Some(alias) = known.alias.clone() {
            let known = CopiedDatabase {
                alias: None,
                ..known.clone()
            };
            self.staged.known.entry(alias).or_insert(known);
        }
        self.staged.known.insert(rel.to_vec(), known);
    }

    /// Copies a database. `None`: SQLite does not accept it as one.
    fn database(
        &mut self,
        found: &Found,
        home: Home,
        copy: &OsStr,
    ) -> Result<Option<FileCopy>, EntryFailure> {
        let snapshot = self.job.snapshot;
        let open = || found.root.open_file(found.rel());
        let place = home.place;
        let (file, _) = open().map_err(source)?;
        if !place.has_live_journal() {
            match sqlite::lock_for_read(&place, &file, self.patience, None) {
                Ok(Some(lock)) => {
                    self.patience = self.patience.saturating_sub(lock.waited());
                    let original = Original::of_fd(&file).map_err(source)?;
                    copy_content(&file, snapshot, copy, self.job.meter)?;
                    return Ok(Some(FileCopy::Whole(original)));
                }
                Ok(None) => {
                    let still = || !place.has_live_journal();
                    let copied = plain(open, snapshot, copy, self.job.meter, still)?;
                    if let FileCopy::Whole(_) = copied {
                        return Ok(Some(copied));
                    }
                }
                // The backup would find it locked, too.
                Err(error) if error.is_busy() => return self.give_up(&error),
                // A writer may have begun, or died, since: the backup handles both.
                Err(_) => {}
            }
        }
        let _ = snapshot.remove_file(copy);
        let original = Original::of_fd(&file).map_err(source)?;
        let to = Place::below(snapshot, copy).map_err(destination)?;
        let watched = self.job.meter.watch(snapshot, copy);
        let copied = sqlite::backup_at(&place, &file, &to, self.patience);
        drop(watched);
        match copied {
            Ok(()) => Ok(Some(FileCopy::BackedUp(original))),
            Err(e) if e.is_disk_full() => Err(EntryFailure::End(io::Error::from(
                io::ErrorKind::StorageFull,
            ))),
            Err(e) if e.is_damage() => Ok(None),
            Err(e) if e.is_busy() => self.give_up(&e),
            Err(e) => Err(EntryFailure::Skip(with_causes(&e))),
        }
    }

    /// Leaves out a database that stayed locked, and waits for no other database of the tree.
    fn give_up(&mut self, error: &SqliteError) -> Result<Option<FileCopy>, EntryFailure> {
        self.patience = Duration::ZERO;
        Err(EntryFailure::Skip(with_causes(error)))
    }
}
