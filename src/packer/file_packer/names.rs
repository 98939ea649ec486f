//! Files with several names: the first name is packed, the others become hard links to it.
//!
//! A database may have a log beside each name. Only names with the same log become links of each
//! other.

use super::super::error::PackError;
use super::super::origin::Origin;
use super::{FilePacker, entry_metadata};
use crate::base::database_names::Roots;
use crate::base::openat::Meta;
use crate::base::walk::Found;
use crate::format::index::EntryType;
use crate::state::staged_snapshot::StagedSnapshot;

impl FilePacker<'_, '_> {
    /// Returns the packed path of which `found` is another name, with the same content; `None` if
    /// there is none.
    pub(super) fn first_name(&mut self, found: &Found) -> Option<Vec<u8>> {
        if found.meta.nlink() < 2 {
            return None;
        }
        let names = self.links.get(&found.meta.id())?;
        let first = names.first()?;
        if !self.taken.contains_key(first) {
            return Some(first.clone());
        }
        // Two names of a database may have a log each.
        let home = self
            .database_names
            .home(&found.root, found.rel(), &found.meta);
        let journals = home.ok()?.journals;
        let has_same = |path: &&Vec<u8>| self.taken.get(*path) == Some(&journals);
        names.iter().find(has_same).cloned()
    }

    /// Records the path of a packed file for its other names.
    pub(super) fn note_name(&mut self, meta: &Meta, path: &[u8]) {
        if meta.nlink() > 1 {
            let names = self.links.entry(meta.id()).or_default();
            names.push(path.to_vec());
        }
    }

    /// Packs a further name of the file at `first`. Returns false if the name belongs to another
    /// file by now.
    pub(super) fn pack_link(
        &mut self,
        path: &[u8],
        found: &Found,
        first: Vec<u8>,
    ) -> Result<bool, PackError> {
        let pin = match found.root.pin(found.rel()) {
            Ok(pin) if pin.meta().is_same(&found.meta) => pin,
            _ => return Ok(false),
        };
        let attributes = pin.xattrs().map(entry_metadata::by_bytes);
        let described =
            entry_metadata::entry(path.to_vec(), pin.meta(), &self.names, attributes, None);
        let Some((mut entry, unread)) = described else {
            return Ok(false);
        };
        self.report_unread(path, unread.as_ref());
        if let Some(journals) = self.taken.get(&first) {
            self.taken.insert(path.to_vec(), *journals);
        }
        entry.kind = EntryType::Hardlink;
        entry.target = Some(first);
        self.tally.other(path);
        self.emit(&entry.to_line(), 0, 0)?;
        Ok(true)
    }
}

/// Returns the directories in which a snapshot's databases may have further names.
pub(super) fn roots(snapshot: &StagedSnapshot) -> Roots {
    let mut roots = snapshot.roots.clone();
    let parts = snapshot.parts.iter();
    let live = parts.filter(|part| Origin::of(part) == Origin::Live);
    for part in live {
        let path = part.root.path();
        roots.paths.push(path.to_owned());
        if part.filter.one_file_system {
            roots.on_one_file_system.push(path.to_owned());
        }
        roots.hollow.extend(&part.filter.hollow);
    }
    roots
}
