//! The archives that nobody looked at before the packing began.
//!
//! Only earlier snapshots need them. A chunk that lies in one of them is known only once all of them were looked at:
//! the caller does that when the first such chunk turns up, if any does.

use std::collections::HashSet;

use super::store::Usable;
use super::{LookAtRest, PackError, worth_using};
use crate::catalog::Catalog;
use crate::manifest::ArchiveKind;

pub struct Rest<'a> {
    /// The archives of which it was known at first whether they may be used, by number. `None`: it is known of all.
    decided: Option<HashSet<i64>>,
    /// Others that turned out to be of no use.
    useless: HashSet<i64>,
    look: &'a mut LookAtRest<'a>,
    /// Those of the rest that hold little of use, by number.
    pub retired: HashSet<i64>,
}

impl<'a> Rest<'a> {
    pub fn new(decided: Option<HashSet<i64>>, look: &'a mut LookAtRest<'a>) -> Self {
        Self {
            decided,
            useless: HashSet::new(),
            look,
            retired: HashSet::new(),
        }
    }

    /// Looks at the rest, if the archive `n` may be one of it that is of use. Returns all that may be used; nothing, if
    /// there is nothing to look at.
    pub fn look(&mut self, n: i64, catalog: &Catalog) -> Result<Vec<Usable>, PackError> {
        let Some(decided) = &self.decided else {
            return Ok(Vec::new());
        };
        if decided.contains(&n) || self.useless.contains(&n) {
            return Ok(Vec::new());
        }
        // What was packed anew stays out of use.
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
        // What was decided stays so, though all together may be judged otherwise.
        let is_new = |n: i64| !decided.contains(&n);
        usable.retain(|one| one.n.is_some_and(is_new));
        let were_in_use = found.iter().filter(|archive| {
            archive.live_bytes != Some(0) && retired.contains(&archive.n) && is_new(archive.n)
        });
        self.retired.extend(were_in_use.map(|archive| archive.n));
        self.decided = None;
        Ok(usable)
    }
}
