//! Marker files: of a directory that holds one, only the marker is taken.

use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;

use super::Walk;
use crate::base::openat::{Dir, Kind, Meta};

/// The tag of a cache directory, by the specification at <https://bford.info/cachedir/>.
const CACHEDIR_TAG: &[u8] = b"CACHEDIR.TAG";
pub(super) const CACHEDIR_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";
pub(super) const NOBACKUP: &[u8] = b".nobackup";

impl Walk {
    /// Returns the marker file in `dir` that counts, if there is one, with the metadata that the
    /// walk yields. `found`: the listing of `dir`.
    pub(super) fn marker(
        &mut self,
        dir: &Dir,
        found: &[(Vec<u8>, Kind)],
        is_root: bool,
    ) -> Option<(&'static [u8], Meta)> {
        let has = |marker: &[u8]| {
            let is_it = |(name, kind): &(Vec<u8>, Kind)| name == marker && *kind == Kind::File;
            found.iter().any(is_it)
        };
        let nobackup = || {
            let meta = dir.meta_of_entry(OsStr::from_bytes(NOBACKUP)).ok();
            let meta = meta.filter(Meta::is_file)?;
            Some((NOBACKUP, meta))
        };
        let mut marker = None;
        if self.filter.nobackup && has(NOBACKUP) {
            marker = nobackup();
        }
        if marker.is_none() && self.filter.cachedir_tag && has(CACHEDIR_TAG) {
            marker = cachedir_tag(dir).map(|meta| (CACHEDIR_TAG, meta));
        }
        if let Some((name, _)) = marker.filter(|_| is_root) {
            self.notes.insert(
                0,
                format!(
                    "{}: a {} in the root of a tree does not count, so the tree is taken; to leave it out, remove its [[source]]",
                    dir.path().display(),
                    String::from_utf8_lossy(name)
                ),
            );
            return None;
        }
        marker
    }
}

/// Returns the metadata of the tag in `dir` if it begins with its signature, as the specification
/// requires.
pub(super) fn cachedir_tag(dir: &Dir) -> Option<Meta> {
    let mut head = Vec::new();
    let limit = CACHEDIR_SIGNATURE.len() as u64;
    let (file, meta) = dir.open_file(OsStr::from_bytes(CACHEDIR_TAG)).ok()?;
    file.take(limit).read_to_end(&mut head).ok()?;
    (head == CACHEDIR_SIGNATURE).then_some(meta)
}
