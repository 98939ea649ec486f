//! The root of a folder target.

use std::io;
use std::path::Path;

use crate::base::openat::{Chosen, Dir};

/// Opens the root. Another user's link may lead to it only if the root belongs to that user as
/// well: otherwise the owner of the parent directory could have another repository pruned.
pub(super) fn open_root(root: &Path) -> io::Result<Dir> {
    let chosen = Chosen::open(root)?;
    match chosen.is_dir() {
        true => Ok(chosen.dir().clone()),
        false => Err(io::ErrorKind::NotADirectory.into()),
    }
}

/// Creates the root and its missing parents, and flushes each to the disk.
pub(super) fn make_durably(root: &Path) -> io::Result<()> {
    let (mut at, mut missing) = (root, Vec::new());
    let mut dir = loop {
        match (open_root(at), at.parent(), at.file_name()) {
            (Err(error), Some(parent), Some(name)) if error.kind() == io::ErrorKind::NotFound => {
                missing.push(name);
                let is_here = parent.as_os_str().is_empty();
                at = if is_here { Path::new(".") } else { parent };
            }
            (opened, ..) => break opened?,
        }
    };
    while let Some(name) = missing.pop() {
        let made = dir.make_dirs(name, 0o777)?;
        dir.sync()?;
        dir = made;
    }
    Ok(())
}
