//! The archives that the caller did not look at before the packing.
//!
//! Only earlier snapshots need them. A chunk in one of them counts as known only after the caller
//! looked at all of them, which it does at the first such chunk, if there is one.

use std::collections::HashSet;

use super::compaction::worth_using;
use super::error::PackError;
use super::request::LookAtRest;
use super::usage::UsableArchive;
use crate::format::archive_table::ArchiveKind;
use crate::state::catalog::Catalog;

/// The archives that may be reused only after the caller looked at them.
pub(super) struct RestOfArchives<'a> {
    /// The catalog's numbers of the archives whose use is decided. `None`: that of all is.
    decided: Option<HashSet<i64>>,
    /// The catalog's numbers of other archives that cannot be of use.
    useless: HashSet<i64>,
    look: &'a mut LookAtRest<'a>,
    /// The catalog's numbers of those data archives of the rest that are to be packed again.
    retired: HashSet<i64>,
}

impl<'a> RestOfArchives<'a> {
    /// `decided` are the catalog's numbers of the archives that the caller looked at. `None`: it
    /// looked at all.
    pub(super) fn new(decided: Option<HashSet<i64>>, look: &'a mut LookAtRest<'a>) -> Self {
        Self {
            decided,
            useless: HashSet::new(),
            look,
            retired: HashSet::new(),
        }
    }

    /// Has the caller look at the rest if the archive `n` belongs to it and may be of use. Returns
    /// the further archives that may be used then; none if there is nothing to look at.
    pub(super) fn look(
        &mut self,
        n: i64,
        catalog: &Catalog,
    ) -> Result<Vec<UsableArchive>, PackError> {
        let Some(decided) = &self.decided else {
            return Ok(Vec::new());
        };
        if decided.contains(&n) || self.useless.contains(&n) {
            return Ok(Vec::new());
        }
        // An archive that was packed again stays out of use.
        let is_out_of_use = |kind, live| kind == ArchiveKind::Data && live == Some(0);
        match catalog.archive(n)? {
            Some(archive) if !is_out_of_use(archive.row.kind, archive.live_bytes) => {}
            _ => {
                self.useless.insert(n);
                return Ok(Vec::new());
            }
        }
        let found = (self.look)(catalog).map_err(PackError::Rest)?;
        let (mut usable, retired) = worth_using(&found);
        // What was decided stays decided, though all archives together may be judged differently.
        let is_new = |n: i64| !decided.contains(&n);
        usable.retain(|one| one.number.is_some_and(is_new));
        let were_in_use = found.iter().filter(|archive| {
            archive.live_bytes != Some(0) && retired.contains(&archive.n) && is_new(archive.n)
        });
        self.retired.extend(were_in_use.map(|archive| archive.n));
        self.decided = None;
        Ok(usable)
    }

    /// Returns the catalog's numbers of the data archives of the rest that are to be packed again.
    pub(super) fn retired(&self) -> impl Iterator<Item = i64> {
        self.retired.iter().copied()
    }
}
