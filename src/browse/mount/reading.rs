//! Opens and reads the files of snapshots, on the runtime.

use std::ops::Range;
use std::sync::Arc;

use fuser::{Errno, ReplyData};

use super::files::{MountedFile, SealedFile};
use super::interrupted::{WaitEnd, wait_for};
use super::snapshots::EnteredSnapshot;
use super::state::MountState;
use crate::browse::content_map::ContentMap;
use crate::browse::tree::TreeNode;
use crate::format::index::EntryType;

/// Opens a node of a snapshot.
pub(super) fn open_sealed(
    entered: &Arc<EnteredSnapshot>,
    node: TreeNode,
) -> Result<MountedFile, Errno> {
    let entry = entered.tree.entry(node).ok_or(Errno::EISDIR)?;
    if entry.kind != EntryType::File {
        return Err(Errno::EACCES);
    }
    let content = ContentMap::new(entry.extents());
    let path = entry.path_lossy().into_owned();
    let file = SealedFile::new(Arc::clone(entered), path, content, entry.blake3);
    Ok(MountedFile::Sealed(Box::new(file)))
}

/// Reads a file of a snapshot, and answers.
pub(super) async fn read_sealed(
    state: Arc<MountState>,
    file: Arc<MountedFile>,
    range: Range<u64>,
    pid: u32,
    reply: ReplyData,
) {
    let MountedFile::Sealed(sealed) = &*file else {
        return reply.error(Errno::EIO);
    };
    if sealed.has_just_failed() {
        return reply.error(Errno::EIO);
    }
    let (reading, of) = (Arc::clone(&state), Arc::clone(&file));
    // A task of its own, so that it goes on if the process that waits for it ends.
    let task = tokio::spawn(async move {
        match &*of {
            MountedFile::Sealed(sealed) => sealed.read(&reading.reader, range).await,
            MountedFile::Text(_) => Err("no file of a snapshot".to_owned()),
        }
    });
    let read = match wait_for(pid, state.limits.wait, task).await {
        Ok(Ok(read)) => read,
        Ok(Err(_)) => Err("a task of the mount ended early".to_owned()),
        Err(end) => {
            if end == WaitEnd::TimedOut {
                sealed.note_failure();
                state.note_slow(&sealed.name());
            }
            return reply.error(end.errno());
        }
    };
    match read {
        Ok(bytes) => reply.data(&bytes),
        Err(line) => {
            sealed.note_failure();
            state.notes.say(&line);
            reply.error(Errno::EIO);
        }
    }
}

/// Fetches the bytes after `range` if the file is read from start to end.
pub(super) fn fetch_ahead(state: &Arc<MountState>, file: &Arc<MountedFile>, range: &Range<u64>) {
    let MountedFile::Sealed(sealed) = &**file else {
        return;
    };
    let Some(ahead) = sealed.fetch_ahead(range, state.limits.ahead_bytes) else {
        return;
    };
    let (state, file) = (Arc::clone(state), Arc::clone(file));
    tokio::spawn(async move {
        if let MountedFile::Sealed(sealed) = &*file {
            // A failure is reported by the read that needs these bytes.
            let _ = sealed.fetch(&state.reader, ahead).await;
            sealed.end_fetching_ahead();
        }
    });
}
