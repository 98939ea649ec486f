//! The directory for a run's temporary files.

use std::io;
use std::path::{Path, PathBuf};

use super::error::{PackError, scratch_error};

/// A directory for this run's temporary files, removed when the run ends. One that a killed run
/// left behind is removed at the next start.
pub(crate) struct RunScratch {
    pub(super) dir: PathBuf,
}

impl RunScratch {
    pub(super) fn make(state: &Path) -> Result<Self, PackError> {
        let dir = state.join("scratch");
        let make = || -> io::Result<()> {
            match std::fs::remove_dir_all(&dir) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            crate::base::fs::create_private_dir(&dir)
        };
        make().map_err(|source| scratch_error(&dir, source))?;
        Ok(Self { dir })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

impl Drop for RunScratch {
    fn drop(&mut self) {
        // If this fails, the next run removes it.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
