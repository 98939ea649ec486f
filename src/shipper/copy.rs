//! Copies an archive from one target to another, by way of a local file. It moves ciphertext,
//! believed by its hash.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use super::error::CopyError;
use super::upload::{Sealed, put_archive};
use crate::format::manifest::ArchiveRow;
use crate::repository::HostFolder;
use crate::repository::read_archive::{ReadArchiveError, read_archive};
use crate::storage::{Body, ErrorKind, PutMode};

/// After this many failures in a row no more copies are tried: if a side is gone, each takes its
/// whole patience.
const LONGEST_STREAK: u32 = 4;

/// Counts copies that failed in a row for a reason that is not the archive's own.
#[derive(Debug, Default)]
pub(super) struct Streak(AtomicU32);

impl Streak {
    /// Returns whether too many copies failed in a row to try more.
    pub(super) fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= LONGEST_STREAK
    }

    /// Takes the result of one copy into account.
    pub(super) fn note<T>(&self, copied: &Result<T, CopyError>) {
        let is_elsewhere = match copied {
            Ok(_) => false,
            Err(CopyError::Damaged { .. }) => return,
            Err(CopyError::Target(error)) if error.kind != ErrorKind::Unavailable => return,
            Err(_) => true,
        };
        match is_elsewhere {
            true => drop(self.0.fetch_add(1, Ordering::Relaxed)),
            // Once it is over, it stays so.
            false if self.is_over() => {}
            false => self.0.store(0, Ordering::Relaxed),
        }
    }
}

/// Copies the archive `row` through a temporary file in `scratch` and returns its size.
pub async fn copy_archive(
    from: &HostFolder,
    to: &HostFolder,
    row: &ArchiveRow,
    mode: PutMode,
    scratch: &Path,
) -> Result<u64, CopyError> {
    let failed = |source| CopyError::Scratch {
        path: scratch.display().to_string(),
        source,
    };
    let file = tempfile::Builder::new()
        .prefix("copy-")
        .tempfile_in(scratch)
        .map_err(failed)?;
    let mut writer = tokio::fs::File::from_std(file.reopen().map_err(failed)?);
    let read = read_archive(from, row, &mut writer).await;
    read.map_err(|error| match error {
        ReadArchiveError::Target(error) => CopyError::Target(error),
        ReadArchiveError::Damaged(how) => CopyError::Damaged {
            key: row.key(),
            target: from.target.label().to_owned(),
            how,
        },
        ReadArchiveError::Write(source) => failed(source),
    })?;
    let body = Body::File(file.path().to_owned());
    put_archive(to, &Sealed::from(row), body, mode).await?;
    Ok(row.bytes)
}
