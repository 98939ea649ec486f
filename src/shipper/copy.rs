//! An archive from one target to another, by way of a file here: ciphertext only, believed by its hash.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use futures::StreamExt as _;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::{Sealed, put_archive};
use crate::base::ids::{Hash, ObjectKey};
use crate::format::manifest::ArchiveRow;
use crate::repository::HostFolder;
use crate::storage::{Body, ErrorKind, PutMode, TargetError};

#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(
        "{key} on {target} is damaged ({what}); it was not copied: `verify --data` finds all that are"
    )]
    Damaged {
        key: ObjectKey,
        target: String,
        what: String,
    },
    #[error("cannot write an archive on its way (is the disk full?)")]
    Write(#[source] io::Error),
    #[error("cannot write {path}, where archives lie on their way from target to target")]
    Scratch {
        path: String,
        #[source]
        source: io::Error,
    },
}

/// So many copies that fail one after the other are the last: where a side is gone, each would be tried for as long.
const LONGEST_STREAK: u32 = 4;

/// How many copies failed one after the other, for no fault of their own.
#[derive(Debug, Default)]
pub(super) struct Streak(AtomicU32);

impl Streak {
    pub fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= LONGEST_STREAK
    }

    pub fn note<T>(&self, copied: &Result<T, CopyError>) {
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

/// Copies the archive `row`; gives its bytes. It passes through a temporary file in `scratch`.
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
        CopyError::Write(source) => failed(source),
        error => error,
    })?;
    let body = Body::File(file.path().to_owned());
    put_archive(to, &Sealed::from(row), body, mode).await?;
    Ok(row.bytes)
}

/// Reads the archive to its end into `sink`; an error if it is not what `row` says.
pub async fn read_archive(
    from: &HostFolder,
    row: &ArchiveRow,
    sink: &mut (impl AsyncWrite + Unpin),
) -> Result<(), CopyError> {
    let damaged = |what: String| CopyError::Damaged {
        key: row.key(),
        target: from.target.label().to_owned(),
        what,
    };
    let key = from.key(&row.key());
    let mut body = from.target.stream(&key, 0).await?;
    let (mut blake3, mut sha256, mut bytes) = (blake3::Hasher::new(), Sha256::new(), 0);
    while let Some(piece) = body.next().await {
        let piece = piece?;
        bytes += piece.len() as u64;
        if bytes > row.bytes {
            return Err(damaged(format!("more than its {} bytes", row.bytes)));
        }
        blake3.update(&piece);
        sha256.update(&piece);
        sink.write_all(&piece).await.map_err(CopyError::Write)?;
    }
    if bytes != row.bytes {
        return Err(damaged(format!("{bytes} of its {} bytes", row.bytes)));
    }
    let same = Hash(*blake3.finalize().as_bytes()) == row.blake3
        && Hash(sha256.finalize().into()) == row.sha256;
    if !same {
        return Err(damaged("its content is not what its name says".to_owned()));
    }
    sink.flush().await.map_err(CopyError::Write)
}
