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
//! SQLite cannot open it, its files are copied together, and the log leaves the live name before the
//! new file gets it: a new database must never meet an old log.

use std::io;

use serde_json::{Value, json};

use super::because::Because;
use super::digest::digest;
use super::plan::{ItemSlots, PlannedItem, PlannedPlace, ThingId};
use super::services::still_in_use;
use super::slot::Slot;
use super::stage::copy_as_it_is;
use crate::base::error_chain::with_causes;
use crate::base::ids::Hash;
use crate::base::open_files::FileUser;
use crate::base::openat::Meta;
use crate::base::sqlite::{Place, SIDECARS, close_up};
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
}

impl<'a> ItemMover<'a> {
    pub(super) fn new(item: &'a PlannedItem, log: &RestoreLog) -> io::Result<Self> {
        let name = Some(item.name.as_str());
        let detail = |step, phase, key: &str| {
            let record = log.find(step, name, phase);
            record.and_then(|record| record.detail.get(key).cloned())
        };
        let staged = |key| detail(RestoreStep::Staged, RecordPhase::Done, key);
        let id = |value: Option<Value>| value.and_then(|value| serde_json::from_value(value).ok());
        let copied = detail(RestoreStep::Preserving, RecordPhase::Done, "digest");
        let is_set = detail(RestoreStep::Preserving, RecordPhase::Done, "set");
        let is_set = is_set.and_then(|set| set.as_bool()).unwrap_or(false);
        // A safety copy that was copied back is the old content from then on.
        let again = id(detail(RestoreStep::Unswapping, RecordPhase::Intend, "old"));
        Ok(Self {
            item,
            slots: item.slots()?,
            old: again.or(item.old.as_ref().map(|old| old.id)),
            new: id(staged("new")),
            digest: staged("digest").and_then(|value| serde_json::from_value(value).ok()),
            copied: copied.and_then(|value| serde_json::from_value(value).ok()),
            copies: item.copies || is_set,
            is_set,
        })
    }

    /// Returns whose content the live name has.
    pub(super) fn whose(&self) -> io::Result<Whose> {
        let Some(live) = self.slots.live.meta()? else {
            return Ok(Whose::Free);
        };
        let staged = self.slots.staged.meta()?;
        let Some(old) = self.old else {
            // If new content still waits, another program made what is there meanwhile.
            return Ok(match staged {
                None => Whose::New,
                Some(_) => Whose::Old,
            });
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
            _ => None,
        };
        if let Some(whose) = by_number {
            return Ok(whose);
        }
        if staged.is_some() && self.is_whole(&self.slots.staged)? {
            return Ok(Whose::Old);
        }
        match (self.is_whole(&self.slots.live)?, staged) {
            (true, _) => Ok(Whose::New),
            (false, None) => Ok(Whose::Old),
            (false, Some(_)) => Err(self.stranger()),
        }
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
        let Some(expected) = self.digest else {
            return Ok(false);
        };
        match digest(slot, |_, _| Ok(())) {
            Ok(found) => Ok(found.hash == expected),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
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

    /// Closes up the old content, and copies it if its safety copy is to be a copy. Returns the
    /// detail for the journal. `users`: the processes that use it.
    pub(super) fn preserve(
        &mut self,
        users: impl Fn() -> Result<Vec<FileUser>, Because>,
    ) -> Result<Value, Because> {
        let what = format!("cannot keep the old content of {}", self.item.name);
        let failed = |error: io::Error| Because::io(&what, &error);
        if self.whose().map_err(failed)? != Whose::Old {
            return Ok(json!({ "set": self.is_set }));
        }
        let mut why = None;
        if self.item.is_database() {
            why = self.close(&self.slots.live, users)?;
            self.is_set = why.is_some();
            self.copies |= self.is_set;
        }
        let mut detail = json!({ "set": self.is_set });
        if let Some(why) = why {
            detail["why"] = why.into();
        }
        if self.copies {
            detail["digest"] = self.copy().map_err(failed)?.to_string().into();
        }
        Ok(detail)
    }

    /// Closes up the database at `slot`. Returns why that is not possible, if it is not.
    fn close(
        &self,
        slot: &Slot,
        users: impl Fn() -> Result<Vec<FileUser>, Because>,
    ) -> Result<Option<String>, Because> {
        let opened = (|| {
            let place = Place::within(&slot.dir, slot.name(), &self.item.live)?;
            Ok((place.has_live_journal(), place.open()?, place))
        })();
        let (has_more, file, place) = opened.map_err(|error: io::Error| {
            Because::io(format!("cannot open {}", self.item.name), &error)
        })?;
        if !has_more {
            return Ok(None);
        }
        match close_up(&place, &file, BUSY) {
            Ok(()) if !place.has_live_journal() => Ok(None),
            Ok(()) => Ok(Some("its log came back".to_owned())),
            Err(error) if error.is_busy() => {
                let users = users()?;
                match users.is_empty() {
                    false => Err(still_in_use(&users)),
                    true => {
                        let text = format!("the service did not stop: {}", with_causes(&error));
                        let next = "stop what uses the database, then run it again";
                        Err(Because::new(super::because::code::STOP_FAILED, text, next))
                    }
                }
            }
            Err(error) => Ok(Some(with_causes(&error))),
        }
    }

    /// Copies the old content to the place of its safety copy. A copy that an interrupted process
    /// left is used if it is whole.
    fn copy(&self) -> io::Result<Hash> {
        let to = self.item.safety.make()?;
        let endings = SIDECARS.iter().filter(|_| self.is_set);
        let pairs = endings.map(|ending| (self.slots.live.with(ending), to.with(ending)));
        let mut main = None;
        for (from, to) in pairs.chain([(self.slots.live.clone(), to.clone())]) {
            if !from.is_taken()? {
                continue;
            }
            if to.is_taken()? {
                to.remove()?;
            }
            match copy_as_it_is(self.item, &from, &to) {
                Ok(copied) => main = Some(copied.hash),
                Err(error) => {
                    let _ = to.remove();
                    return Err(error);
                }
            }
        }
        main.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Removes the safety copy, if it is a copy.
    pub(super) fn remove_copy(&self) -> io::Result<()> {
        let Some(copy) = self.item.safety.find()?.filter(|_| self.copies) else {
            return Ok(());
        };
        for ending in SIDECARS.iter().filter(|_| self.is_set) {
            copy.with(ending).remove()?;
        }
        copy.remove()
    }

    /// Puts the new content in place.
    pub(super) fn forward(&self) -> io::Result<()> {
        let (live, staged, aside) = (&self.slots.live, &self.slots.staged, &self.slots.aside);
        match self.whose()? {
            Whose::New => {}
            Whose::Free => staged.move_to(live)?,
            Whose::Old => {
                self.require_unwritten()?;
                self.move_sidecars_away()?;
                match staged.exchange(live) {
                    Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                        live.move_to(aside)?;
                        staged.move_to(live)?;
                    }
                    other => other?,
                }
            }
        }
        if self.old.is_none() {
            // What another program made there meanwhile.
            let place = match self.copies {
                true => &self.item.discarded,
                false => &self.item.safety,
            };
            return self.put_by(staged, Some(place));
        }
        match self.copies {
            true if staged.is_taken()? => staged.move_to(aside),
            true => Ok(()),
            false => {
                let safety = self.item.safety.make()?;
                let holder = [staged, aside].into_iter();
                for holder in holder {
                    if holder.is_taken()? {
                        holder.move_to(&safety)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Fails if a closed database has a log or a journal again.
    fn require_unwritten(&self) -> io::Result<()> {
        if !self.item.is_database() || self.is_set {
            return Ok(());
        }
        let live = &self.slots.live;
        let place = Place::within(&live.dir, live.name(), &self.item.live)?;
        match place.has_live_journal() {
            false => Ok(()),
            true => Err(io::Error::other(
                "it was written to after the service had stopped",
            )),
        }
    }

    /// Moves the old database's log, its index and its journal away from the live name.
    fn move_sidecars_away(&self) -> io::Result<()> {
        if !self.item.is_database() {
            return Ok(());
        }
        for ending in SIDECARS {
            let from = self.slots.live.with(ending);
            if from.is_taken()? {
                let to = match self.copies {
                    true => self.slots.aside.clone(),
                    false => self.item.safety.make()?,
                };
                from.move_to(&to.with(ending).free()?)?;
            }
        }
        Ok(())
    }

    /// Closes up the new database, if it is in place. If that is not possible, its log goes with it.
    pub(super) fn close_new(
        &self,
        users: impl Fn() -> Result<Vec<FileUser>, Because>,
    ) -> Result<(), Because> {
        let whose = self.whose();
        let whose = whose
            .map_err(|error| Because::io(format!("cannot look at {}", self.item.name), &error));
        if self.item.is_database() && whose? == Whose::New {
            self.close(&self.slots.live, users)?;
        }
        Ok(())
    }

    /// Puts the old content back. The new content goes to `evidence`; `None`: it never was in use,
    /// and is removed.
    pub(super) fn back(&self, evidence: Option<&PlannedPlace>) -> Result<(), Because> {
        let moved = self
            .whose()
            .and_then(|whose| self.move_back(whose, evidence));
        moved.map_err(|error| {
            Because::io(
                format!("cannot put the old content of {} back", self.item.name),
                &error,
            )
        })
    }

    fn move_back(&self, whose: Whose, evidence: Option<&PlannedPlace>) -> io::Result<()> {
        let (live, staged) = (&self.slots.live, &self.slots.staged);
        match (whose, self.old) {
            (Whose::Old, _) | (Whose::Free, None) => {}
            (Whose::New, None) => {
                self.move_new_sidecars(evidence)?;
                self.put_by(live, evidence)?;
            }
            (Whose::Free, Some(_)) => match self.holder() {
                Ok(holder) => {
                    self.put_by(staged, evidence)?;
                    holder.move_to(live)?;
                }
                // It is on its way from its holder.
                Err(_) if staged.is_taken()? => staged.move_to(live)?,
                Err(error) => return Err(error),
            },
            (Whose::New, Some(_)) => {
                if !staged.is_taken()? {
                    self.holder()?.move_to(staged)?;
                }
                self.move_new_sidecars(evidence)?;
                match staged.exchange(live) {
                    Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                        self.put_by(live, evidence)?;
                        staged.move_to(live)?;
                    }
                    other => other?,
                }
            }
        }
        self.put_by(staged, evidence)?;
        self.move_sidecars_back()
    }

    /// Returns where the old content waits.
    fn holder(&self) -> io::Result<Slot> {
        if self.slots.aside.is_taken()? {
            return Ok(self.slots.aside.clone());
        }
        let kept = self.kept()?.filter(|_| !self.copies);
        kept.ok_or_else(|| {
            let safety = self.item.safety.path();
            let what = format!("it is not at {}, where it was kept", safety.display());
            io::Error::new(io::ErrorKind::NotFound, what)
        })
    }

    /// Moves what is at `slot` to the place of evidence, or removes it.
    fn put_by(&self, slot: &Slot, evidence: Option<&PlannedPlace>) -> io::Result<()> {
        if !slot.is_taken()? {
            return Ok(());
        }
        match evidence {
            None => slot.remove(),
            Some(place) => slot.move_to(&place.make()?.free()?),
        }
    }

    fn move_new_sidecars(&self, evidence: Option<&PlannedPlace>) -> io::Result<()> {
        if !self.item.is_database() {
            return Ok(());
        }
        for ending in SIDECARS {
            let from = self.slots.live.with(ending);
            if from.is_taken()? {
                let to = evidence.unwrap_or(&self.item.failed).make()?;
                from.move_to(&to.with(ending).free()?)?;
            }
        }
        Ok(())
    }

    fn move_sidecars_back(&self) -> io::Result<()> {
        if !self.item.is_database() || self.old.is_none() {
            return Ok(());
        }
        let from = match self.copies {
            true => Some(self.slots.aside.clone()),
            false => self.item.safety.find()?,
        };
        let Some(from) = from else {
            return Ok(());
        };
        for ending in SIDECARS {
            let (sidecar, live) = (from.with(ending), self.slots.live.with(ending));
            if sidecar.is_taken()? && !live.is_taken()? {
                sidecar.move_to(&live)?;
            }
        }
        Ok(())
    }

    /// Removes the originals of old content whose safety copy is a copy.
    pub(super) fn remove_originals(&self) -> io::Result<()> {
        if !self.copies || self.old.is_none() {
            return Ok(());
        }
        let endings = SIDECARS.iter().filter(|_| self.item.is_database());
        for ending in endings {
            self.slots.aside.with(ending).remove()?;
        }
        self.slots.aside.remove()
    }

    /// Fails if the safety copy is a copy and not what was copied.
    pub(super) fn require_whole_copy(&self) -> io::Result<()> {
        let Some(copied) = self.copied.filter(|_| self.copies && self.old.is_some()) else {
            return Ok(());
        };
        let copy = self.item.safety.path();
        match self.kept()? {
            Some(kept) if digest(&kept, |_, _| Ok(()))?.hash == copied => Ok(()),
            Some(_) => {
                let what = format!("{} is not what was copied there", copy.display());
                Err(io::Error::new(io::ErrorKind::InvalidData, what))
            }
            None => {
                let what = format!("{} is gone", copy.display());
                Err(io::Error::new(io::ErrorKind::NotFound, what))
            }
        }
    }

    /// Copies the safety copy, a copy, to the staging name, so that it can be exchanged. Returns the
    /// detail for the journal; null: there is nothing to copy.
    pub(super) fn stage_safety_copy(&self) -> io::Result<Value> {
        let waits = self.slots.aside.is_taken()?;
        if !self.copies || self.old.is_none() || waits || self.whose()? != Whose::New {
            return Ok(Value::Null);
        }
        let staged = &self.slots.staged;
        let Some(copy) = self.kept()? else {
            return self.holder().map(|_| Value::Null);
        };
        if staged.is_taken()? {
            staged.remove()?;
        }
        copy_as_it_is(self.item, &copy, staged)?;
        for ending in SIDECARS.iter().filter(|_| self.is_set) {
            let (from, to) = (copy.with(ending), self.slots.aside.with(ending));
            if from.is_taken()? && !to.is_taken()? {
                copy_as_it_is(self.item, &from, &to)?;
            }
        }
        let meta = staged.meta()?.ok_or(io::ErrorKind::NotFound)?;
        Ok(json!({ "old": ThingId::of(&meta) }))
    }

    /// Returns a sentence on which path holds what.
    pub(super) fn whereabouts(&self) -> String {
        let whose = match self.whose() {
            Ok(Whose::Old) => "the old content",
            Ok(Whose::New) => "the new content",
            Ok(Whose::Free) => "nothing",
            Err(_) => "content that cannot be told apart",
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
