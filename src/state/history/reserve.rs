//! A file beside the history that reserves space, so that a full disk can be recorded and reported.
//!
//! A disk that is full to the last byte makes runs fail, and would keep the history from recording
//! that, and the operator from being notified. So the history keeps a file, and deletes it when a
//! transaction finds no space.

use std::path::{Path, PathBuf};

use super::HistoryError;

/// Enough for some hundred small transactions, and for the log's index.
const RESERVE_BYTES: usize = 512 << 10;
/// Free space from which the file is written again: this many times its size.
const PLENTY: u64 = 8;
const NAME: &str = "history.reserve";

fn path(history: &Path) -> PathBuf {
    history.with_file_name(NAME)
}

/// Writes the file beside `history`, unless it is there or space is short. That it cannot be
/// written is no error: the disk has its fault already.
pub(super) fn keep(history: &Path) {
    let path = path(history);
    let Some(dir) = history.parent() else { return };
    if path.exists() {
        return;
    }
    let free = rustix::fs::statvfs(dir).map_or(0, |stat| stat.f_bavail * stat.f_frsize);
    if free < PLENTY * RESERVE_BYTES as u64 {
        return;
    }
    // No file system can compress it.
    let mut content = vec![0; RESERVE_BYTES];
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"sealift reserve of the history");
    hasher.finalize_xof().fill(&mut content);
    let _ = crate::base::fs::write_new(&path, &content, 0o600);
}

/// Deletes the file if `error` is for lack of space. Returns whether another try has a chance.
pub(super) fn free(history: &Path, error: &HistoryError) -> bool {
    use rusqlite::ErrorCode::{CannotOpen, DiskFull, SystemIoFailure};
    let is_full = match error {
        HistoryError::DiskFull { .. } => true,
        HistoryError::Sqlite { source, .. } => {
            // The log's index fails otherwise than the log.
            let kind = crate::base::sqlite::error_kind(source);
            matches!(kind, Some(DiskFull | SystemIoFailure | CannotOpen))
        }
        _ => false,
    };
    is_full && std::fs::remove_file(path(history)).is_ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::tests::at;
    use super::super::{History, NewOutboxItem};

    /// A file system of 8 MiB, unmounted when dropped.
    struct TinyDisk(tempfile::TempDir);

    impl TinyDisk {
        /// `None`: mounting is not allowed here.
        fn mount() -> Option<Self> {
            let dir = tempfile::tempdir().unwrap();
            let mut command = Command::new("mount");
            let command = command.args(["-t", "tmpfs", "-o", "size=8m", "sealift-test"]);
            let done = command.arg(dir.path()).output();
            done.is_ok_and(|done| done.status.success())
                .then_some(Self(dir))
        }
    }

    impl Drop for TinyDisk {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
        }
    }

    #[test]
    fn a_full_disk_can_be_recorded() {
        let Some(disk) = TinyDisk::mount() else {
            // Mounting takes root.
            return;
        };
        let dir = disk.0.path();
        let add = |history: &History| {
            let item = NewOutboxItem {
                channel: "phone".to_owned(),
                made_at: at(0),
                due_at: at(0),
                is_urgent: true,
                has_edges: true,
                item: "x".repeat(3_000),
            };
            history.in_outbox(|outbox| outbox.add(&item))
        };
        let history = History::open(dir).unwrap();
        add(&history).unwrap();
        assert!(dir.join(super::NAME).exists());
        drop(history);
        // Another program writes until nothing is free.
        let mut filler = std::fs::File::create(dir.join("filler")).unwrap();
        for size in [65_536, 4_096, 512, 1] {
            while std::io::Write::write_all(&mut filler, &vec![1; size]).is_ok() {}
        }
        drop(filler);
        let history = History::open(dir).unwrap();
        add(&history).unwrap();
        assert!(!dir.join(super::NAME).exists());
        assert_eq!(history.outbox().unwrap().len(), 2);
        std::fs::remove_file(dir.join("filler")).unwrap();
        add(&history).unwrap();
        assert!(dir.join(super::NAME).exists());
    }
}
