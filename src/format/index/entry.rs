//! One entry of an index, and the rules that it must keep by itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::ids::Hash;
use crate::format::extent::Extent;

/// The kind of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryType {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A further name of an earlier file.
    Hardlink,
    /// A named pipe.
    Fifo,
    /// A character device.
    Chardev,
    /// A block device.
    Blockdev,
}

/// One file, directory, link, FIFO or device of the snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Raw bytes, relative, `/` between components.
    pub path: Vec<u8>,
    /// The kind of the entry.
    pub kind: EntryType,
    /// Permission bits, 0 to 0o7777.
    pub mode: u32,
    /// Number of the owner.
    pub uid: u32,
    /// Number of the group.
    pub gid: u32,
    /// Name of the owner; `None` if the host knew none.
    pub user: Option<String>,
    /// Name of the group; `None` if the host knew none.
    pub group: Option<String>,
    /// Nanoseconds since 1970; the seconds fit 64 bits.
    pub mtime_ns: i128,
    /// Extended attributes: name to value.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Bytes of content; 0 if it is not a file.
    pub size: u64,
    /// BLAKE3 of the whole content; `None` if it is not a file.
    pub blake3: Option<Hash>,
    /// Where the content is, in order; the lengths add up to `size`.
    pub extents: Vec<Extent>,
    /// Text of a symlink, or path of the earlier file that a hard link names; else `None`.
    pub target: Option<Vec<u8>>,
    /// Major and minor number of a device; else `None`.
    pub rdev: Option<(u32, u32)>,
    /// Whether the file changed during every attempt to read it.
    pub torn: bool,
}

#[cfg(test)]
impl Entry {
    /// Returns an entry without content, for tests.
    pub(crate) fn example(path: &[u8], kind: EntryType) -> Self {
        Self {
            path: path.to_vec(),
            kind,
            mode: 0o644,
            uid: 1,
            gid: 2,
            user: None,
            group: None,
            mtime_ns: 5,
            xattrs: BTreeMap::new(),
            size: 0,
            blake3: (kind == EntryType::File).then_some(Hash([0; 32])),
            extents: Vec::new(),
            target: None,
            rdev: None,
            torn: false,
        }
    }
}

impl Entry {
    /// Checks the rules that concern this entry alone.
    pub(super) fn check(&self) -> Result<(), String> {
        self.check_keys()?;
        let covered = self
            .extents
            .iter()
            .try_fold(0u64, |sum, extent| sum.checked_add(extent.length));
        if covered != Some(self.size) {
            return Err(format!("its extents do not add up to {} bytes", self.size));
        }
        Ok(())
    }

    /// Checks the same rules for an entry of a list that has no extents.
    pub(super) fn check_bare(&self) -> Result<(), String> {
        self.check_keys()?;
        match self.extents.is_empty() {
            true => Ok(()),
            false => Err("it has extents".to_owned()),
        }
    }

    fn check_keys(&self) -> Result<(), String> {
        check_path(&self.path)?;
        if self.mode > 0o7777 {
            return Err(format!("mode {:o}", self.mode));
        }
        if i64::try_from(self.mtime_ns.div_euclid(1_000_000_000)).is_err() {
            return Err(format!("the time {}", self.mtime_ns));
        }
        let is_file = self.kind == EntryType::File;
        let has_target = matches!(self.kind, EntryType::Symlink | EntryType::Hardlink);
        let is_device = matches!(self.kind, EntryType::Chardev | EntryType::Blockdev);
        if is_file != self.blake3.is_some()
            || has_target != self.target.is_some()
            || is_device != self.rdev.is_some()
            || !(is_file || self.extents.is_empty() && self.size == 0)
        {
            return Err(format!("the keys of a {:?} are wrong", self.kind));
        }
        if let (EntryType::Hardlink, Some(target)) = (self.kind, &self.target) {
            check_path(target)?;
        }
        Ok(())
    }

    /// Returns the path as text, for messages.
    pub fn path_lossy(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.path)
    }
}

/// Returns whether `mtime_ns` is beyond 64 bits: before 1677 or after 2262.
pub fn is_wide_time(mtime_ns: i128) -> bool {
    i64::try_from(mtime_ns).is_err()
}

/// Returns [`is_wide_time`] of the entry whose canonical line this is.
pub fn has_wide_time(line: &[u8]) -> bool {
    // In a path or an attribute's name, a backslash precedes such quotes.
    const KEY: &[u8] = b"\"mtime\":";
    let at = line.windows(KEY.len()).position(|bytes| bytes == KEY);
    let Some(at) = at else { return false };
    let number = line[at + KEY.len()..].split(|byte| *byte == b',' || *byte == b'}');
    let number = number.into_iter().next().unwrap_or_default();
    // A short number cannot be beyond 64 bits.
    let text = std::str::from_utf8(number).unwrap_or_default();
    text.len() >= 19 && text.parse().is_ok_and(is_wide_time)
}

/// Refuses a path that could leave the directory into which it is restored.
fn check_path(path: &[u8]) -> Result<(), String> {
    let bad = |part: &[u8]| part.is_empty() || part == b"." || part == b".." || part.contains(&0);
    if path.split(|byte| *byte == b'/').any(bad) {
        return Err(format!("unsafe path {:?}", String::from_utf8_lossy(path)));
    }
    Ok(())
}

/// Returns the parent's path, or `None` at the top.
pub fn parent_path(path: &[u8]) -> Option<&[u8]> {
    path.iter()
        .rposition(|byte| *byte == b'/')
        .map(|cut| &path[..cut])
}
