//! Reads a whole archive and compares it with its row.

use std::io;

use futures::StreamExt as _;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::HostFolder;
use crate::base::ids::Hash;
use crate::format::manifest::ArchiveRow;
use crate::storage::{TargetError, attempt};

/// Why an archive was not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReadArchiveError {
    /// The target failed, or does not have the archive.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The bytes are not those of the row. Says how they differ.
    #[error("the archive is damaged ({0})")]
    Damaged(String),
    /// The sink failed.
    #[error("cannot write the archive (is the disk full?)")]
    Write(#[source] io::Error),
}

/// Copies the archive `row` from `folder` into `sink`, and fails unless its size, BLAKE3 and
/// SHA-256 are those of the row. What was written before a failure is not to be used.
pub async fn read_archive(
    folder: &HostFolder,
    row: &ArchiveRow,
    sink: &mut (impl AsyncWrite + Unpin),
) -> Result<(), ReadArchiveError> {
    let damaged = |how: String| Err(ReadArchiveError::Damaged(how));
    let attempt = attempt();
    let mut body = folder.target.stream(&folder.key(&row.key()), 0).await?;
    let (mut blake3, mut sha256, mut bytes) = (blake3::Hasher::new(), Sha256::new(), 0);
    while let Some(piece) = body.next().await {
        let piece = piece?;
        bytes += piece.len() as u64;
        if bytes > row.bytes {
            return damaged(format!("more than its {} bytes", row.bytes));
        }
        blake3.update(&piece);
        sha256.update(&piece);
        sink.write_all(&piece)
            .await
            .map_err(ReadArchiveError::Write)?;
        attempt.moved(piece.len());
    }
    if bytes != row.bytes {
        return damaged(format!("{bytes} of its {} bytes", row.bytes));
    }
    let is_same = Hash(*blake3.finalize().as_bytes()) == row.blake3
        && Hash(sha256.finalize().into()) == row.sha256;
    if !is_same {
        return damaged("its content is not what its name says".to_owned());
    }
    sink.flush().await.map_err(ReadArchiveError::Write)?;
    attempt.keep();
    Ok(())
}
