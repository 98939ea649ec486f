//! Ensures that the copy of a tree shows one state: walks the tree again and compares it with the
//! walk before.
//!
//! If every entry has the stamp it had before it was copied, then all of them were in these states
//! at one moment: the end of the previous walk. Otherwise the copy may be torn, file against file.
//! The walk copies changed entries again as it finds them, so a further attempt costs one walk and
//! the changed entries. The last walk only compares.
//!
//! A new copy is made in a private directory inside the copy and then takes the earlier copy's
//! name. So an error loses nothing: the earlier copy stays, copying ends, and the entries that may
//! not fit together are reported with the cause.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;

use rustix::io::Errno;

use super::seen::{EntryStamp, flag};
use super::take::{EntryFailure, MadeCopy, destination};
use super::{ATTEMPTS, CopiedDatabase, Job, PAUSE_OF_TREE, Staged, Stager, WalkKind, pass};
use crate::base::error_chain::with_causes;
use crate::base::openat::PrivateDir;
use crate::base::walk::Found;
use crate::format::index::Skipped;

/// Paths that a report names; it counts the others.
const MOST_NAMED: usize = 5;
/// The name of the private directory, without the random digits.
const ASIDE: &str = ".again-";

/// Walks the tree again, and copies changed entries, until there are none. After the last attempt,
/// or an error, reports the entries that changed.
pub(super) fn settle(job: &Job<'_>, first: Staged, aside: &OnceCell<PrivateDir>) -> Staged {
    let mut staged = first;
    for attempt in 1..=ATTEMPTS {
        if attempt == ATTEMPTS - 1 {
            std::thread::sleep(PAUSE_OF_TREE);
        }
        // The walk collects them again. Without them the next snapshot copies more than it must.
        staged.file_stamps = Vec::new();
        let kind = match attempt < ATTEMPTS {
            true => WalkKind::CopyChanged(&staged),
            false => WalkKind::FindChanged(&staged),
        };
        let looked = pass(job, kind, aside);
        match looked {
            Ok(again) => staged = again,
            Err(error) => staged.cause = Some(error),
        }
        if staged.cause.is_some() || attempt == ATTEMPTS {
            report(job, &mut staged, attempt);
            break;
        }
        if staged.moved.is_empty() {
            break;
        }
    }
    staged
}

/// Reports the entries that changed in each of `attempts`, except those that have a report of their
/// own.
fn report(job: &Job<'_>, staged: &mut Staged, attempts: u32) {
    let own: HashSet<&str> = staged.skipped.iter().map(|one| one.path.as_str()).collect();
    let moved = staged.moved.iter();
    let moved: Vec<&Vec<u8>> = moved
        .filter(|rel| !own.contains(job.shown(rel).as_str()))
        .collect();
    let named = moved.iter().take(MOST_NAMED);
    let named: Vec<_> = named.map(|rel| String::from_utf8_lossy(rel)).collect();
    let more = match moved.len().saturating_sub(MOST_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let named = format!("{}{more}", named.join(", "));
    let reason = match &staged.cause {
        None if moved.is_empty() => return,
        None => format!(
            "files changed while the tree was copied, in each of {attempts} attempts, so they may not fit each other: {named}; \
             guard the source with `lock` or `before`, exclude files that change all the time, or read it in place (`stage = false`)"
        ),
        Some(cause) => {
            let what = match moved.is_empty() {
                true => Cow::from("all that changed meanwhile"),
                false => Cow::from(named),
            };
            format!(
                "the tree was copied, but files that changed meanwhile could not be copied again ({}); the copy is kept, and in it \
                 these may not fit the rest: {what}; {}",
                with_causes(cause),
                cause.next()
            )
        }
    };
    let path = job.to.to_owned();
    staged.skipped.push(Skipped { path, reason });
}

/// Whether the error says that the copy has no such name.
fn is_gone(error: &io::Error) -> bool {
    let is = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
    is(Errno::NOENT) || is(Errno::NOTDIR) || is(Errno::LOOP)
}

fn gone_is_fine(result: io::Result<()>) -> Result<(), EntryFailure> {
    match result {
        Err(error) if is_gone(&error) => Ok(()),
        other => other.map_err(destination),
    }
}

impl Stager<'_> {
    fn may_copy(&self) -> bool {
        let is_allowed = self.earlier.as_ref().is_some_and(|one| one.may_copy);
        is_allowed && self.staged.cause.is_none()
    }

    /// Keeps the copy of `found` if the entry has not changed, and makes it again if it has.
    pub(super) fn take_again(&mut self, found: &Found) {
        let now = EntryStamp::of(&found.meta);
        let old = self.pass_by(Some(&found.rel));
        let Some(earlier) = &self.earlier else {
            return;
        };
        let is_journal = earlier.is_journal(&found.rel);
        let counts = earlier.counts(&found.rel, &now);
        let is_same = |old: &EntryStamp| now.is_still(old, is_journal);
        let is_same = old.as_ref().is_some_and(is_same) && self.has_its_journals(found);
        if !is_same && counts {
            self.staged.moved.insert(found.rel.clone());
        }
        match old {
            Some(old) if is_same && self.fits(found, &old) => self.keep(found, old),
            old if self.may_copy() => self.retake(found, now, old),
            old => self.keep_as_was(&found.rel, old),
        }
    }

    /// Advances in the previous walk to `rel`, or to the end, and returns the stamp of `rel` there.
    /// The entries on the way are no longer in the tree.
    fn pass_by(&mut self, rel: Option<&[u8]>) -> Option<EntryStamp> {
        loop {
            let may_copy = self.may_copy();
            let earlier = self.earlier.as_mut()?;
            let (at, state) = earlier.cursor.get()?;
            match rel.map_or(std::cmp::Ordering::Less, |rel| at.cmp(rel)) {
                std::cmp::Ordering::Greater => return None,
                std::cmp::Ordering::Equal => {
                    earlier.cursor.advance();
                    return Some(state);
                }
                std::cmp::Ordering::Less => {}
            }
            let at = at.to_vec();
            earlier.cursor.advance();
            let counts = earlier.counts(&at, &state);
            let is_dropped = may_copy && !earlier.is_unread(&at);
            if is_dropped && state.has(flag::MADE) {
                earlier.gone.push((at.clone(), state.is_dir()));
            }
            if !is_dropped {
                self.keep_as_was(&at, Some(state));
            }
            if counts {
                self.staged.moved.insert(at);
            }
        }
    }

    /// Removes the copies of entries that are no longer in the tree.
    pub(super) fn end_again(&mut self) {
        self.pass_by(None);
        let gone = self
            .earlier
            .as_mut()
            .map(|one| std::mem::take(&mut one.gone));
        for (rel, is_dir) in gone.into_iter().flatten().rev() {
            let copy = self.copy_of(&rel);
            let removed = match is_dir {
                true => self.job.snapshot.remove_dir(&copy),
                false => self.job.snapshot.remove_file(&copy),
            };
            match removed {
                Err(error) if !is_gone(&error) => self.give_up_on(&copy, error),
                _ => {}
            }
        }
    }

    /// Ends copying again, because the copy cannot be written.
    fn give_up_on(&mut self, copy: &OsStr, error: io::Error) {
        let error = self.job.cannot_write(copy)(error);
        self.staged.cause.get_or_insert(error);
    }

    fn known_earlier(&self, rel: &[u8]) -> Option<CopiedDatabase> {
        self.earlier.as_ref()?.staged.known.get(rel).cloned()
    }

    /// Whether `found`, if it was copied as a database, still has the journals of that time.
    fn has_its_journals(&mut self, found: &Found) -> bool {
        let Some(earlier) = self.known_earlier(&found.rel) else {
            return true;
        };
        let home = self.home(found);
        home.is_ok_and(|home| CopiedDatabase::of(&home).is_still(&earlier))
    }

    /// Whether the copy of the unchanged `found` is the one that would be made now.
    fn fits(&mut self, found: &Found, old: &EntryStamp) -> bool {
        if !found.meta.is_file() {
            return true;
        }
        let is_sidecar = self.is_sidecar(&found.rel);
        if is_sidecar || old.has(flag::SIDECAR) {
            return is_sidecar && old.has(flag::SIDECAR);
        }
        if !old.has(flag::MADE) {
            return true;
        }
        let Some(first) = self.first_name(found) else {
            return true;
        };
        let snapshot = self.job.snapshot;
        let first = snapshot.meta(self.copy_of(&first.rel));
        first.is_ok_and(|first| snapshot.is_still(self.copy_of(&found.rel), &first))
    }

    /// Keeps the copy of an unchanged entry.
    fn keep(&mut self, found: &Found, mut old: EntryStamp) {
        if found.meta.is_dir() && old.has(flag::MADE) {
            let directory = (found.rel.clone(), found.meta);
            self.staged.directories.push(directory);
        }
        if old.has(flag::COUNTED) && found.meta.nlink() > 1 {
            match self.first_name(found) {
                Some(_) => old.flags &= !flag::SIZED,
                None => {
                    old.flags |= flag::SIZED;
                    self.note_first(found, &found.meta);
                }
            }
        }
        if old.has(flag::RECORDED) {
            let look = super::FileStamp::of(&found.meta);
            self.staged.file_stamps.push((found.rel.clone(), look));
        }
        self.carry(&found.rel, old);
    }

    /// Keeps the earlier copy, if there is one, although the entry has changed.
    fn keep_as_was(&mut self, rel: &[u8], old: Option<EntryStamp>) {
        let Some(mut old) = old else {
            return;
        };
        if old.is_dir()
            && old.has(flag::MADE)
            && let Some(meta) = self.earlier.as_ref().and_then(|one| one.directory(rel))
        {
            self.staged.directories.push((rel.to_vec(), meta));
        }
        old.flags &= !flag::RECORDED;
        self.carry(rel, old);
    }

    /// Takes over what the previous walk noted about an entry.
    fn carry(&mut self, rel: &[u8], old: EntryStamp) {
        self.staged.seen.note(rel, old);
        if old.has(flag::COUNTED) {
            self.staged.files += 1;
        }
        if old.has(flag::SIZED) {
            self.staged.bytes += old.size();
        }
        if old.has(flag::DATABASE) {
            self.staged.databases.push(rel.to_vec());
        }
        if let Some(known) = self.known_earlier(rel) {
            self.know(rel, known);
        }
        if old.has(flag::SKIPPED) {
            let shown = self.job.shown(rel);
            let reasons = self
                .earlier
                .as_ref()
                .and_then(|one| one.reasons.get(&*shown));
            for reason in reasons.into_iter().flatten() {
                let (path, reason) = (shown.clone(), (*reason).to_owned());
                self.staged.skipped.push(Skipped { path, reason });
            }
        }
    }

    /// Makes the copy of `found` again. If that fails, the earlier one stays.
    fn retake(&mut self, found: &Found, now: EntryStamp, old: Option<EntryStamp>) {
        let (copy, mark) = (self.copy_of(&found.rel), self.mark());
        let had = old.filter(|old| old.has(flag::MADE));
        let made = match found.meta.is_dir() {
            true => self.directory_again(found, &copy, had),
            false => self.replace(found, &copy),
        };
        let failure = match made {
            Ok(made) => return self.note(&found.rel, now, mark, Some(&made)),
            Err(failure) => failure,
        };
        self.reset(mark);
        if had.is_some() {
            self.staged.known.remove(&found.rel);
        }
        if let Some(names) = self.links.get_mut(&found.meta.id()) {
            names.retain(|one| one.rel != found.rel);
        }
        match (failure, had) {
            (EntryFailure::Skip(reason), None) => self.skip(&found.rel, reason),
            (EntryFailure::Skip(reason), Some(_)) => {
                // This report includes the earlier one, if there was one.
                let shown = self.job.shown(&found.rel);
                if let Some(earlier) = &mut self.earlier {
                    earlier.reasons.remove(&*shown);
                }
                let reason = format!(
                    "changed while the tree was copied, and could not be read again; kept as first read: {reason}"
                );
                self.skip(&found.rel, reason);
            }
            (EntryFailure::End(error), _) => self.give_up_on(&copy, error),
        }
        match had {
            Some(mut had) => {
                if self.mark().has_reports_since(mark) {
                    had.flags |= flag::SKIPPED;
                }
                self.keep_as_was(&found.rel, Some(had));
            }
            None => self.note(&found.rel, now, mark, None),
        }
    }

    /// Returns the path of `name` in the private directory. Nothing is there.
    fn aside(&self, name: &str) -> io::Result<OsString> {
        let Some(earlier) = &self.earlier else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let aside = match earlier.aside.get() {
            Some(aside) => aside,
            None => {
                let copy = self.job.snapshot.sub(self.job.copy)?;
                let made = PrivateDir::make(&copy, OsStr::new(ASIDE), |_| {})?;
                earlier.aside.get_or_init(|| made)
            }
        };
        match aside.dir().remove_file(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let rel = [aside.name().as_bytes(), b"/", name.as_bytes()].concat();
        Ok(self.job.copy_of(&rel))
    }

    /// Makes the copy of `found`, which is no directory, in place of the earlier one.
    fn replace(&mut self, found: &Found, copy: &OsStr) -> Result<MadeCopy, EntryFailure> {
        let snapshot = self.job.snapshot;
        let aside = self.aside("new").map_err(destination)?;
        let made = self.make(found, &aside);
        let placed = made.and_then(|made| {
            if !matches!(made, MadeCopy::Sidecar) {
                self.put(&aside, copy)?;
            } else {
                gone_is_fine(snapshot.remove_tree(copy))?;
            }
            Ok(made)
        });
        // A rename does nothing if both names are of one file.
        gone_is_fine(snapshot.remove_file(&aside))?;
        placed
    }

    /// Renames the new copy to its place.
    fn put(&self, aside: &OsStr, copy: &OsStr) -> Result<(), EntryFailure> {
        let snapshot = self.job.snapshot;
        if snapshot
            .try_meta(copy)
            .map_err(destination)?
            .is_some_and(|there| there.is_dir())
        {
            snapshot.remove_tree(copy).map_err(destination)?;
        }
        snapshot.rename(aside, snapshot, copy).map_err(destination)
    }

    /// Makes the directory `found` in place of the earlier copy `had`, if that is no directory.
    fn directory_again(
        &mut self,
        found: &Found,
        copy: &OsStr,
        had: Option<EntryStamp>,
    ) -> Result<MadeCopy, EntryFailure> {
        let snapshot = self.job.snapshot;
        match had {
            Some(had) if had.is_dir() => {
                let directory = (found.rel.clone(), found.meta);
                self.staged.directories.push(directory);
                Ok(MadeCopy::Other)
            }
            Some(_) => {
                let parked = self.aside("old").map_err(destination)?;
                snapshot
                    .rename(copy, snapshot, &parked)
                    .map_err(destination)?;
                let made = self.make_directory(found, copy);
                if made.is_err() {
                    snapshot
                        .rename(&parked, snapshot, copy)
                        .map_err(destination)?;
                } else {
                    gone_is_fine(snapshot.remove_file(&parked))?;
                }
                made
            }
            None => self.make_directory(found, copy),
        }
    }
}

#[cfg(test)]
mod tests;
