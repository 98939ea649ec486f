//! Files with several names: the first name is copied, the others become links to the copy.
//!
//! A database may have a log beside each name. Only names with the same log become links of each
//! other.

use std::io;

use super::{CopiedName, Stager};
use crate::base::database_names::Home;
use crate::base::walk::Found;

impl Stager<'_> {
    /// Returns the name that was copied first, if `found` is another name of the same content.
    pub(super) fn first_name(&mut self, found: &Found) -> Option<CopiedName> {
        if found.meta.nlink() < 2 {
            return None;
        }
        let names = self.links.get(&found.meta.id())?.clone();
        let first = names.first()?;
        if !self.staged.known.contains_key(&first.rel) {
            return Some(first.clone());
        }
        let journals = self.home(found).ok()?.journals;
        let has_same = |name: &CopiedName| {
            let known = self.staged.known.get(&name.rel);
            known.is_some_and(|known| known.journals == journals)
        };
        names.into_iter().find(has_same)
    }

    /// Returns the name by which the database `found` must be opened.
    pub(super) fn home(&mut self, found: &Found) -> io::Result<Home> {
        self.names.home(&found.root, found.rel(), &found.meta)
    }
}
