//! Replaces a file in one step; the new one has the owner, the group, the mode and the extended
//! attributes of the old one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::base::fs;
use crate::base::openat::{list_xattrs, set_xattr_fd};

/// Replaces `path`, which is free of links and open as `old`. Fails if this user may not write the
/// file, or may not give the new one the same owner.
pub(super) fn replace(path: &Path, old: &File, content: &[u8]) -> io::Result<()> {
    // Whether this user may write the file itself, and not only its directory.
    OpenOptions::new().append(true).open(path)?;
    let meta = old.metadata()?;
    let dir = path.parent().unwrap_or(Path::new("/"));
    fs::clear_abandoned(dir);
    let mut new = tempfile::Builder::new()
        .prefix(".sealift-tmp-")
        .tempfile_in(dir)?;
    new.write_all(content)?;
    let made = new.as_file().metadata()?;
    if (made.uid(), made.gid()) != (meta.uid(), meta.gid()) {
        std::os::unix::fs::fchown(new.as_file(), Some(meta.uid()), Some(meta.gid()))?;
    }
    // After the change of owner, which may clear bits of the mode.
    new.as_file().set_permissions(meta.permissions())?;
    // Access lists too: with one, the group's bits of the mode are its mask.
    for (name, value) in list_xattrs(old)? {
        set_xattr_fd(new.as_file(), &name, &value)?;
    }
    new.as_file().sync_all()?;
    new.persist(path).map_err(|error| error.error)?;
    fs::sync_dir(dir)
}
