//! Sends a body: reads it in blocks and sends these in pieces, many of them concurrently.

use std::fs;
use std::io::{self, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use openssh_sftp_client::file::File;
use tokio::io::AsyncSeekExt as _;

use super::connection::Connection;
use super::session::Machine;
use crate::base::panics::Panicked;
use crate::storage::contract::Body;
use crate::storage::error::ErrorKind;
use crate::storage::meter;
use crate::storage::process_failure::ProcessFailure;
use crate::storage::throttle;

/// Bytes to read from the disk at once.
const BLOCK_BYTES: u64 = 1 << 20;

/// Writes all of `body` to `file`.
pub(super) async fn send(
    machine: &Machine,
    connection: &Connection,
    file: &File,
    body: &Body,
) -> Result<(), ProcessFailure> {
    let blocks = match body {
        Body::Bytes(bytes) => futures::stream::iter([Ok((0, bytes.clone()))]).boxed(),
        Body::File(path) | Body::Shared(path) => blocks(path).await?,
    };
    let piece_bytes = connection.write_bytes.get();
    let pieces = blocks.map_ok(|(start, mut block)| {
        let mut at = start;
        let pieces = std::iter::from_fn(move || {
            let length = block.len().min(piece_bytes);
            let piece = (at, block.split_to(length));
            at += length as u64;
            (length > 0).then_some(Ok::<_, ProcessFailure>(piece))
        });
        futures::stream::iter(pieces)
    });
    let turns = pieces.try_flatten().and_then(|piece| async {
        throttle::wait(machine.limits.upload.as_deref(), piece.1.len()).await;
        Ok(piece)
    });
    let attempt = &meter::attempt();
    let write = |(at, piece)| async move {
        let length = Bytes::len(&piece);
        write(connection, file.clone(), at, piece).await?;
        attempt.moved(length);
        Ok(())
    };
    let sent = turns.try_for_each_concurrent(connection.write_bytes.at_once(), write);
    sent.await?;
    attempt.keep();
    Ok(())
}

/// Writes `piece` at `at`, in as many requests as the server needs.
async fn write(
    connection: &Connection,
    mut file: File,
    mut at: u64,
    mut piece: Bytes,
) -> Result<(), ProcessFailure> {
    while !piece.is_empty() {
        // Does not wait, and fails only beyond 2^63.
        let sought = file.seek(SeekFrom::Start(at)).await;
        sought.map_err(|error| ProcessFailure::new(ErrorKind::Permanent, error.to_string()))?;
        let written = file.write_zero_copy(std::slice::from_ref(&piece));
        let written = connection.ask(written).await.map_err(no_space)?;
        if written < piece.len() {
            connection.write_bytes.learn(written);
        }
        piece.advance(written.min(piece.len()));
        at += written as u64;
    }
    Ok(())
}

/// Asks about a full disk, because OpenSSH says only that a write failed.
fn no_space(failure: ProcessFailure) -> ProcessFailure {
    match failure.kind {
        ErrorKind::Unavailable => ProcessFailure {
            what: format!("{} (is its disk full?)", failure.what),
            ..failure
        },
        _ => failure,
    }
}

type Blocks = BoxStream<'static, Result<(u64, Bytes), ProcessFailure>>;

/// Streams the file's blocks with their offsets. A file that changes its size is an error.
async fn blocks(path: &Path) -> Result<Blocks, ProcessFailure> {
    let path: Arc<Path> = path.into();
    let opened = off_thread(&path, |path| {
        let file = fs::File::open(path)?;
        let bytes = file.metadata()?.len();
        Ok((Arc::new(file), bytes))
    });
    let (file, bytes) = opened.await?;
    let next = move |at: u64| {
        let (file, path) = (Arc::clone(&file), Arc::clone(&path));
        async move {
            let length = (bytes - at).min(BLOCK_BYTES);
            let read = off_thread(&path, move |_| {
                if length == 0 {
                    return match file.metadata()?.len() == bytes {
                        true => Ok(Vec::new()),
                        false => Err(io::Error::other("it changed while it was read")),
                    };
                }
                let mut block = vec![0; usize::try_from(length).map_err(io::Error::other)?];
                file.read_exact_at(&mut block, at)?;
                Ok(block)
            });
            let block = Bytes::from(read.await?);
            Ok((length > 0).then_some(((at, block), at + length)))
        }
    };
    Ok(futures::stream::try_unfold(0, next).boxed())
}

/// Reads this machine's own disk, off the asynchronous threads.
async fn off_thread<T: Send + 'static>(
    path: &Arc<Path>,
    read: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T, ProcessFailure> {
    let moved = Arc::clone(path);
    let task = tokio::task::spawn_blocking(move || read(&moved));
    let given_up = |e| Err(io::Error::other(Panicked::of_task(e)));
    let done = task.await.unwrap_or_else(given_up);
    done.map_err(|error| {
        let what = format!("cannot read {}: {error}", path.display());
        ProcessFailure::new(ErrorKind::Permanent, what)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_changes_its_size_is_an_error() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("x");
            let content: Vec<u8> = (0..2_500_000_u32).map(|n| n as u8).collect();
            fs::write(&path, &content).unwrap();
            let read: Vec<_> = blocks(&path).await.unwrap().try_collect().await.unwrap();
            let starts: Vec<u64> = read.iter().map(|(at, _)| *at).collect();
            assert_eq!(starts, [0, 1 << 20, 2 << 20]);
            let joined: Vec<u8> = read.into_iter().flat_map(|(_, block)| block).collect();
            assert!(joined == content);
            for other in [1_000_000, 3_000_000] {
                let mut blocks = blocks(&path).await.unwrap();
                blocks.next().await.unwrap().unwrap();
                let file = fs::File::options().write(true).open(&path).unwrap();
                file.set_len(other).unwrap();
                assert!(blocks.try_collect::<Vec<_>>().await.is_err(), "{other}");
                fs::write(&path, &content).unwrap();
            }
            assert!(blocks(&dir.path().join("y")).await.is_err());
        });
    }
}
