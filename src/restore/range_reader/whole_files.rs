//! Whole archives from a target without ranges, in files without a name.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::base::ids::Hash;

/// Most bytes of archives in temporary files. The newest one stays, however large it is.
const MOST_BYTES: u64 = 2_000_000_000;

/// A sealed archive in a file that is gone when it is closed.
struct WholeFile {
    archive: Hash,
    bytes: u64,
    file: Arc<File>,
}

/// The whole archives of this process, oldest first.
#[derive(Default)]
pub(super) struct WholeFiles(Mutex<Vec<WholeFile>>);

impl WholeFiles {
    /// Returns a part of an archive that is here whole.
    pub(super) fn read(&self, archive: &Hash, range: &Range<u64>) -> Option<io::Result<Bytes>> {
        let file = {
            let files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let found = files.iter().find(|file| file.archive == *archive)?;
            Arc::clone(&found.file)
        };
        let mut bytes = vec![0; (range.end - range.start) as usize];
        let read = file.read_exact_at(&mut bytes, range.start);
        Some(read.map(|()| bytes.into()))
    }

    /// Keeps an archive, and drops the oldest ones beyond the limit.
    pub(super) fn keep(&self, archive: Hash, file: File, bytes: u64) {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.retain(|file| file.archive != archive);
        let mut total: u64 = files.iter().map(|file| file.bytes).sum();
        while total + bytes > MOST_BYTES && !files.is_empty() {
            total -= files.remove(0).bytes;
        }
        files.push(WholeFile {
            archive,
            bytes,
            file: Arc::new(file),
        });
    }
}
