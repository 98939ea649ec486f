//! What a filter leaves out on purpose, for a caller that wants to show it.

use super::joined;

/// Why the filter left something out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropCause {
    /// The exclude line with this number, from 0.
    Pattern(usize),
    /// The file is larger than the filter allows.
    TooLarge,
    /// Its directory has a marker file of this name.
    Marker(&'static [u8]),
}

/// A thing that the filter left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// The path relative to the root of the walk.
    pub rel: Vec<u8>,
    /// Whether it is a directory: everything below it is left out, too.
    pub is_dir: bool,
    /// Why it was left out.
    pub cause: DropCause,
}

/// Notes what is left out, if that is wanted.
#[derive(Default)]
pub(super) struct DroppedLog(Option<Vec<Dropped>>);

impl DroppedLog {
    /// A log that notes everything.
    pub(super) fn open() -> Self {
        Self(Some(Vec::new()))
    }

    /// Notes the entry `name` of the directory `above`.
    pub(super) fn add(&mut self, above: &[u8], name: &[u8], is_dir: bool, cause: DropCause) {
        if let Some(all) = &mut self.0 {
            let rel = joined(above, name);
            all.push(Dropped { rel, is_dir, cause });
        }
    }

    /// Returns what was noted, and forgets it.
    pub(super) fn take(&mut self) -> Vec<Dropped> {
        self.0.as_mut().map(std::mem::take).unwrap_or_default()
    }
}
