//! The two forms in which the kernel takes a directory: names alone, and names with attributes.

use std::ffi::OsStr;
use std::time::Duration;

use fuser::{Errno, FileAttr, Generation, ReplyDirectory, ReplyDirectoryPlus};

/// An answer to a request to list a directory.
pub(super) trait Listing: Send + 'static {
    /// Adds a name; `next` is the offset from which the listing is continued after it. Returns
    /// whether there was no room for it.
    fn add(&mut self, next: u64, name: &OsStr, ttl: Duration, attributes: &FileAttr) -> bool;
    /// Answers with the names that were added.
    fn finish(self);
    /// Answers with an error.
    fn fail(self, errno: Errno);
}

impl Listing for ReplyDirectory {
    fn add(&mut self, next: u64, name: &OsStr, _: Duration, attributes: &FileAttr) -> bool {
        Self::add(self, attributes.ino, next, attributes.kind, name)
    }

    fn finish(self) {
        self.ok();
    }

    fn fail(self, errno: Errno) {
        self.error(errno);
    }
}

impl Listing for ReplyDirectoryPlus {
    fn add(&mut self, next: u64, name: &OsStr, ttl: Duration, attributes: &FileAttr) -> bool {
        Self::add(
            self,
            attributes.ino,
            next,
            name,
            &ttl,
            attributes,
            Generation(0),
        )
    }

    fn finish(self) {
        self.ok();
    }

    fn fail(self, errno: Errno) {
        self.error(errno);
    }
}
