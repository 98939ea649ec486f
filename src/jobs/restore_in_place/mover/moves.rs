//! The renames of one item: forward to its new content, and back to its old.

use std::io;

use serde_json::{Value, json};

use super::super::because::Because;
use super::super::plan::{PlannedPlace, ThingId};
use super::super::slot::Slot;
use super::super::stage::copy_as_it_is;
use super::{ItemMover, Whose, has_digest};
use crate::base::sqlite::{Place, SIDECARS};

impl ItemMover<'_> {
    /// Puts the new content in place.
    pub(in crate::jobs::restore_in_place) fn forward(&self) -> io::Result<()> {
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

    /// Prepares the way back: a safety copy that is a copy is copied to the staging name, so that
    /// it can be exchanged. Returns the detail for the journal; null: the old content is back.
    pub(in crate::jobs::restore_in_place) fn begin_back(&self) -> io::Result<Value> {
        if self.whose()? != Whose::New {
            return Ok(Value::Null);
        }
        let id = |slot: &Slot| Ok::<_, io::Error>(slot.meta()?.map(|meta| ThingId::of(&meta)));
        let new = id(&self.slots.live)?;
        if self.old.is_none() {
            return Ok(json!({ "new": new }));
        }
        let staged = &self.slots.staged;
        let holder = match (
            self.copies,
            self.slots.aside.is_taken()?,
            staged.is_taken()?,
        ) {
            (true, false, _) => self.stage_safety_copy()?,
            (false, false, true) => staged.clone(),
            _ => self.holder()?,
        };
        Ok(json!({ "old": id(&holder)?, "new": new }))
    }

    /// Copies the safety copy to the staging name, and the files beside it to their places.
    fn stage_safety_copy(&self) -> io::Result<Slot> {
        let staged = &self.slots.staged;
        let copy = match self.kept()? {
            Some(copy) => copy,
            None => self.holder()?,
        };
        if let Some(waiting) = staged.meta()? {
            // An interrupted way back may have moved the original there.
            let is_original = self.old.is_some_and(|old| waiting.ino() == old.ino);
            if is_original || has_digest(staged, self.copied)? {
                return Ok(staged.clone());
            }
            staged.remove()?;
        }
        let made = copy_as_it_is(self.item, &copy, staged)?.hash;
        if self.copied.is_some_and(|copied| copied != made) {
            staged.remove()?;
            let what = format!("{} is not what was copied there", copy.path().display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        for ending in SIDECARS.iter().filter(|_| self.is_set) {
            let (from, to) = (copy.with(ending), self.slots.aside.with(ending));
            if from.is_taken()? && !to.is_taken()? {
                copy_as_it_is(self.item, &from, &to)?;
            }
        }
        Ok(staged.clone())
    }

    /// Puts the old content back. The new content goes to `evidence`; `None`: it never was in use,
    /// and is removed.
    pub(in crate::jobs::restore_in_place) fn back(
        &self,
        evidence: Option<&PlannedPlace>,
    ) -> Result<(), Because> {
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
                // What a live name had is never removed.
                self.put_by(live, Some(evidence.unwrap_or(&self.item.failed)))?;
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
}
