//! Keeps the old content: closes up a database, copies it if its safety copy is to be a copy, and
//! removes what is not needed in the end.

use std::io;

use serde_json::{Value, json};

use super::super::because::{Because, code};
use super::super::digest::digest;
use super::super::services::still_in_use;
use super::super::slot::Slot;
use super::super::stage::copy_as_it_is;
use super::{BUSY, ItemMover, Whose};
use crate::base::error_chain::with_causes;
use crate::base::ids::Hash;
use crate::base::open_files::FileUser;
use crate::base::sqlite::{Place, SIDECARS, close_up};

impl ItemMover<'_> {
    /// Closes up the old database, if it is one. Returns the detail for the journal, which must
    /// have it before [`Self::keep`]; null: nothing is to be known. `users`: the processes that
    /// use it.
    pub(in crate::jobs::restore_in_place) fn close_old(
        &mut self,
        users: impl Fn() -> Result<Vec<FileUser>, Because>,
    ) -> Result<Value, Because> {
        let whose = self.whose().map_err(|error| self.not_kept(&error))?;
        if whose != Whose::Old || !self.item.is_database() || self.is_set {
            return Ok(Value::Null);
        }
        let Some(why) = self.close(&self.slots.live, users)? else {
            return Ok(Value::Null);
        };
        self.is_set = true;
        self.copies = true;
        Ok(json!({ "set": true, "why": why }))
    }

    /// Copies the old content, if its safety copy is to be a copy. Returns the detail for the
    /// journal.
    pub(in crate::jobs::restore_in_place) fn keep(&self) -> Result<Value, Because> {
        let mut detail = json!({ "set": self.is_set });
        let whose = self.whose().map_err(|error| self.not_kept(&error))?;
        if whose == Whose::Old && self.copies {
            let copied = self.copy().map_err(|error| self.not_kept(&error))?;
            detail["digest"] = copied.to_string().into();
        }
        Ok(detail)
    }

    fn not_kept(&self, error: &io::Error) -> Because {
        let what = format!("cannot keep the old content of {}", self.item.name);
        Because::io(what, error)
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
                        Err(Because::new(code::STOP_FAILED, text, next))
                    }
                }
            }
            Err(error) => Ok(Some(with_causes(&error))),
        }
    }

    /// Closes up the new database, if it is in place. If that is not possible, its log goes with
    /// it.
    pub(in crate::jobs::restore_in_place) fn close_new(
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
    pub(in crate::jobs::restore_in_place) fn remove_copy(&self) -> io::Result<()> {
        let Some(copy) = self.item.safety.find()?.filter(|_| self.copies) else {
            return Ok(());
        };
        for ending in SIDECARS.iter().filter(|_| self.is_set) {
            copy.with(ending).remove()?;
        }
        copy.remove()
    }

    /// Removes the originals of old content whose safety copy is a copy.
    pub(in crate::jobs::restore_in_place) fn remove_originals(&self) -> io::Result<()> {
        if !self.copies || self.old.is_none() {
            return Ok(());
        }
        let endings = SIDECARS.iter().filter(|_| self.item.is_database());
        for ending in endings {
            self.slots.aside.with(ending).remove()?;
        }
        self.slots.aside.remove()
    }

    /// Fails if the old content is gone, or if its safety copy is a copy and not what was copied.
    pub(in crate::jobs::restore_in_place) fn require_whole_copy(&self) -> io::Result<()> {
        if self.old.is_none() || self.whose()? != Whose::New {
            return Ok(());
        }
        let copy = self.item.safety.path();
        let Some(copied) = self.copied.filter(|_| self.copies) else {
            let waits = self.slots.aside.is_taken()? || self.slots.staged.is_taken()?;
            return match waits || self.kept()?.is_some() {
                true => Ok(()),
                false => {
                    let what = format!("{} is gone", copy.display());
                    Err(io::Error::new(io::ErrorKind::NotFound, what))
                }
            };
        };
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
}
