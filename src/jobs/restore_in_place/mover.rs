//! Brings one item forward, to its new content, or back, to its old. Both can be repeated from any
//! point.
//!
//! An item's live name has its old or its new content at every moment: the two are exchanged in one
//! step. (On a file system without such a step, the name is free between two renames.) The old
//! content is at the live name, for a moment at the staging name, and then at the place of the
//! safety copy; if that is a copy, the original waits under a second name until the restore is
//! committed. Nothing is deleted but copies that are not needed.
//!
//! An exchange looks like its reverse, so the names do not show whether it was made. Inode numbers
//! do; if they changed (the disk was copied), the digest of the new content does.
//!
//! A database is its file, its log and its journal. No step renames several names at once, so the
//! old database is [closed up](crate::base::sqlite::close_up) first: then its file is all of it. If
//! SQLite cannot open it, its files are copied together, and the log leaves the live name before
//! the new file gets it: a new database must never meet an old log.

mod keep;
mod moves;

use std::io;

use serde_json::Value;

use super::digest::digest;
use super::plan::{ItemSlots, PlannedItem, ThingId};
use super::slot::Slot;
use crate::base::ids::Hash;
use crate::base::openat::Meta;
use crate::state::restores::{RecordPhase, RestoreLog, RestoreStep};

/// How long a lock on a database is waited for, after nothing uses it any more.
const BUSY: std::time::Duration = std::time::Duration::from_secs(2);

/// What an item's live name has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    Old,
    New,
    /// Nothing.
    Free,
}

fn parsed<T: serde::de::DeserializeOwned>(value: Option<&Value>) -> Option<T> {
    value.and_then(|value| T::deserialize(value).ok())
}

/// Returns whether the content at `slot` has this digest.
fn has_digest(slot: &Slot, expected: Option<Hash>) -> io::Result<bool> {
    let Some(expected) = expected else {
        return Ok(false);
    };
    match digest(slot, |_, _| Ok(())) {
        Ok(found) => Ok(found.hash == expected),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// One item, and what the journal says about it.
pub(super) struct ItemMover<'a> {
    item: &'a PlannedItem,
    slots: ItemSlots,
    old: Option<ThingId>,
    new: Option<ThingId>,
    /// The digest of the staged content.
    digest: Option<Hash>,
    /// The digest of the safety copy, if that is a copy.
    copied: Option<Hash>,
    /// The safety copy is a copy.
    copies: bool,
    /// The old database could not be closed up.
    is_set: bool,
    /// By the journal, the new content was put in place, and is not being undone.
    was_swapped: bool,
}

impl<'a> ItemMover<'a> {
    pub(super) fn new(item: &'a PlannedItem, log: &RestoreLog) -> io::Result<Self> {
        let name = Some(item.name.as_str());
        let done = |step, key| log.detail(step, name, RecordPhase::Done, key);
        let copied = done(RestoreStep::Preserving, "digest");
        // Once it could not be closed up, its log was copied and may have left the live name: a
        // later look must not decide otherwise.
        let is_set = log.records.iter().any(|record| {
            record.step == RestoreStep::Preserving
                && record.item.as_deref() == name
                && record.detail["set"] == true
        });
        // The way back looks again at what is there: numbers of a copied disk are other ones, and a
        // safety copy that was copied back is the old content from then on.
        let again = |key| log.detail(RestoreStep::Unswapping, name, RecordPhase::Intend, key);
        let begun = RestoreStep::RollbackStopping;
        let in_place = log.detail(begun, None, RecordPhase::Intend, "live");
        let in_place = in_place.and_then(|all| all.get(&item.name));
        let planned = item.old.as_ref().map(|old| old.id);
        Ok(Self {
            item,
            slots: item.slots()?,
            old: parsed(again("old")).or(planned),
            new: parsed(
                again("new")
                    .or(in_place)
                    .or(done(RestoreStep::Staged, "new")),
            ),
            digest: parsed(done(RestoreStep::Staged, "digest")),
            copied: parsed(copied),
            copies: item.copies || is_set,
            is_set,
            was_swapped: log.has(RestoreStep::Swapping, name, RecordPhase::Done)
                && !log.has(RestoreStep::Undone, None, RecordPhase::Intend),
        })
    }

    /// Returns whose content the live name has.
    pub(super) fn whose(&self) -> io::Result<Whose> {
        let Some(live) = self.slots.live.meta()? else {
            return Ok(Whose::Free);
        };
        let staged = self.slots.staged.meta()?;
        let Some(old) = self.old else {
            return self.whose_without_old(&live, staged.is_some());
        };
        if self.slots.aside.is_taken()? || (!self.copies && self.kept()?.is_some()) {
            return Ok(Whose::New);
        }
        let Some(new) = self.new else {
            return Ok(Whose::Old);
        };
        let is = |meta: &Meta, id: ThingId| meta.ino() == id.ino;
        let waits = |id: ThingId| staged.as_ref().is_some_and(|staged| is(staged, id));
        let by_number = match (is(&live, old), is(&live, new)) {
            (true, false) if !waits(old) => Some(Whose::Old),
            (false, true) if !waits(new) => Some(Whose::New),
            // Another program has replaced what is live, before or after the exchange.
            (false, false) if waits(new) => Some(Whose::Old),
            (false, false) if waits(old) => Some(Whose::New),
            _ => None,
        };
        if let Some(whose) = by_number {
            return Ok(whose);
        }
        if staged.is_some() && self.is_whole(&self.slots.staged)? {
            return Ok(Whose::Old);
        }
        if staged.is_some() && has_digest(&self.slots.staged, self.copied)? {
            return Ok(Whose::New);
        }
        match (self.is_whole(&self.slots.live)?, staged) {
            (true, _) => Ok(Whose::New),
            (false, None) if self.was_swapped && !self.has_evidence()? => Ok(Whose::New),
            (false, None) => Ok(Whose::Old),
            (false, Some(_)) => Err(self.stranger()),
        }
    }

    /// Returns whose content `live` has, if there was nothing when the plan was made. What another
    /// program made there meanwhile is not ours to move or to remove: it counts as old.
    fn whose_without_old(&self, live: &Meta, is_staged: bool) -> io::Result<Whose> {
        if is_staged {
            return Ok(Whose::Old);
        }
        let has_number = self.new.is_some_and(|new| live.ino() == new.ino);
        let is_new = has_number || self.was_swapped || self.is_whole(&self.slots.live)?;
        Ok(match is_new {
            true => Whose::New,
            false => Whose::Old,
        })
    }

    /// Returns whether new content was moved out of the way on the way back.
    fn has_evidence(&self) -> io::Result<bool> {
        for place in [&self.item.failed, &self.item.discarded] {
            if let Some(slot) = place.find()?
                && slot.is_taken()?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn stranger(&self) -> io::Error {
        io::Error::other(format!(
            "{} is neither the old nor the new content of {}: another program put it there",
            self.slots.live.path().display(),
            self.item.name
        ))
    }

    /// Returns whether the content at `slot` is the staged content, whole.
    fn is_whole(&self, slot: &Slot) -> io::Result<bool> {
        has_digest(slot, self.digest)
    }

    /// Returns whether the new content is in place, or staged and whole.
    pub(super) fn can_go_forward(&self) -> io::Result<bool> {
        Ok(self.whose()? == Whose::New || self.is_whole(&self.slots.staged)?)
    }

    /// Returns the old content in the place of the safety copy, if it was moved there.
    fn kept(&self) -> io::Result<Option<Slot>> {
        let safety = self.item.safety.find()?;
        match safety {
            Some(slot) if slot.is_taken()? => Ok(Some(slot)),
            _ => Ok(None),
        }
    }

    /// Returns a sentence on which path holds what.
    pub(super) fn whereabouts(&self) -> String {
        let whose = match self.whose() {
            Ok(Whose::Old) => "the old content",
            Ok(Whose::New) => "the new content",
            Ok(Whose::Free) => "nothing",
            Err(_) => "content that cannot be recognized",
        };
        let mut text = format!("{} has {whose}", self.slots.live.path().display());
        let mut others: Vec<(Slot, &str)> = vec![
            (self.slots.staged.clone(), "the other content"),
            (self.slots.aside.clone(), "the old content"),
        ];
        let safety = self.item.safety.find().ok().flatten();
        others.extend(safety.map(|slot| (slot, "the old content")));
        let failed = self.item.failed.find().ok().flatten();
        others.extend(failed.map(|slot| (slot, "the new content")));
        for (slot, what) in others {
            if slot.is_taken().unwrap_or(false) {
                text.push_str(&format!(", {} has {what}", slot.path().display()));
            }
        }
        text
    }

    /// Returns the live name.
    pub(super) fn live(&self) -> &Slot {
        &self.slots.live
    }

    /// Returns the staging name.
    pub(super) fn staged(&self) -> &Slot {
        &self.slots.staged
    }
}
