//! A source that can be restored in place, before it is planned: its live path and its content.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;

use super::digest::entries;
use super::plan::ItemKind;
use super::slot::Slot;
use crate::base::openat::{Dir, Meta};
use crate::config::Source;
use crate::format::restored::RestoredRecord;

/// One source with its live path and its content.
pub(super) struct InPlaceCandidate<'a> {
    pub(super) source: &'a Source,
    /// The open directory of the live path, and the name in it.
    pub(super) live: Slot,
    /// What is there now. `None`: nothing.
    pub(super) there: Option<Meta>,
    pub(super) content: ContentFacts,
    pub(super) kind: ItemKind,
}

/// What the content of one source needs.
#[derive(Debug, Default)]
pub(super) struct ContentFacts {
    pub(super) files: u64,
    pub(super) bytes: u64,
    /// Each owner and group of an entry, with one such entry.
    pub(super) owners: BTreeMap<(u32, u32), String>,
    /// A file of it, to try whether it can be cloned.
    pub(super) sample: Option<Slot>,
}

impl ContentFacts {
    /// Looks at the content of `source` below `root`. Owners are those of `record`, if there is
    /// one: a copy may have others.
    pub(super) fn read(
        root: &Dir,
        source: &Source,
        record: Option<&RestoredRecord>,
    ) -> io::Result<Self> {
        let mut facts = Self::default();
        let at = OsStr::from_bytes(source.to.as_bytes());
        let meta = root.meta(at)?;
        facts.add(root, source, source.to.as_bytes(), &meta, record);
        if meta.is_dir() {
            for found in entries(&root.sub(at)?)? {
                let (rel, meta) = found?;
                let path = [source.to.as_bytes(), b"/", &rel].concat();
                facts.add(root, source, &path, &meta, record);
            }
        }
        Ok(facts)
    }

    fn add(
        &mut self,
        root: &Dir,
        source: &Source,
        path: &[u8],
        meta: &Meta,
        record: Option<&RestoredRecord>,
    ) {
        let recorded = record.and_then(|record| record.entries.find(path));
        let recorded = recorded.map(|entry| (entry.uid, entry.gid));
        let owner = source
            .owner
            .or(recorded)
            .unwrap_or((meta.uid(), meta.gid()));
        let shown = || String::from_utf8_lossy(path).into_owned();
        self.owners.entry(owner).or_insert_with(shown);
        if meta.is_file() {
            self.files += 1;
            self.bytes = self.bytes.saturating_add(meta.size());
            if meta.size() > 0 && self.sample.is_none() {
                self.sample = Some(Slot {
                    dir: root.clone(),
                    name: OsStr::from_bytes(path).to_owned(),
                });
            }
        }
    }
}
