//! The newest run, in a file of its own that can be written on a full disk.
//!
//! `run.json` is made when the first run begins, with all of its [`BYTES`], and from then on its
//! bytes are replaced in place: that takes no room where file systems do not copy on write. A
//! signal handler can write it, too. The catalog keeps the runs before; it may have no room for the
//! end of this one.
//!
//! Only the process that holds the lock of the state directory writes. A write that breaks off
//! leaves a file that does not parse and counts as none.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

/// Size of the file: one block.
const BYTES: usize = 4096;
const NAME: &str = "run.json";

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    /// Everything is stored on every target.
    Complete,
    /// Something was skipped, or a target is behind.
    Partial,
    /// It ended with an error.
    Failed,
    /// The operator or the system ended it: Ctrl-C, SIGTERM, SIGHUP.
    Interrupted,
}

impl RunOutcome {
    /// Returns the text that the catalog and reports use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }
}

/// The newest run of `backup` or `push`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFile {
    /// Its number in the catalog. `None`: it failed before it got one.
    pub run: Option<i64>,
    /// The process.
    pub pid: u32,
    /// RFC 3339.
    pub started_at: String,
    /// RFC 3339. `None`: it is under way, or it was killed.
    pub ended_at: Option<String>,
    /// `None` as for `ended_at`.
    pub outcome: Option<RunOutcome>,
    /// One line: why it failed and the next step, or what is missing.
    pub message: String,
    /// When the newest complete run before it began, in RFC 3339. `None`: there was none.
    pub complete_before: Option<String>,
}

impl RunFile {
    /// Reads the file in the state directory `dir`. `None`: there is none, or it is damaged.
    pub fn read(dir: &Path) -> Option<Self> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(dir.join(NAME))
            .ok()?;
        let mut bytes = [0; BYTES];
        file.read_exact_at(&mut bytes, 0).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Returns when the newest complete run up to this one began.
    pub fn newest_complete(self) -> Option<String> {
        match self.outcome {
            Some(RunOutcome::Complete) => Some(self.started_at),
            _ => self.complete_before,
        }
    }

    /// Replaces the file in `dir`, or makes it. A message that does not fit is cut.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        let bytes = self.padded()?;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(dir.join(NAME))?;
        file.write_all_at(&bytes, 0)?;
        file.sync_data()
    }

    fn padded(&self) -> io::Result<Vec<u8>> {
        let mut run = self.clone();
        loop {
            let mut bytes = serde_json::to_vec(&run)?;
            if bytes.len() < BYTES {
                bytes.resize(BYTES, b' ');
                return Ok(bytes);
            }
            let half = run.message.chars().count() / 2;
            if half < 8 {
                return Err(io::Error::other("the run's record does not fit"));
            }
            let kept: String = run.message.chars().take(half).collect();
            run.message = format!("{kept}...");
        }
    }

    /// Whether this run is still under way: it has not ended, a process holds the lock of `dir`,
    /// and its own process exists.
    pub fn is_running(&self, dir: &Path) -> bool {
        let pid = i32::try_from(self.pid).ok();
        let pid = pid.and_then(rustix::process::Pid::from_raw);
        let exists = pid.is_some_and(|pid| {
            // Without permission to signal it, it exists.
            let probed = rustix::process::test_kill_process(pid);
            !matches!(probed, Err(rustix::io::Errno::SRCH))
        });
        self.ended_at.is_none() && exists && is_locked(dir)
    }
}

/// Whether a process holds the lock of the state directory `dir`. The probe holds it for an
/// instant, so [`State::open`](super::State::open) tries more than once.
pub fn is_locked(dir: &Path) -> bool {
    let Ok(lock) = File::open(dir.join("lock")) else {
        return false;
    };
    let probed = flock(&lock, FlockOperation::NonBlockingLockShared);
    matches!(probed, Err(rustix::io::Errno::WOULDBLOCK))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(message: &str) -> RunFile {
        RunFile {
            run: Some(3),
            pid: std::process::id(),
            started_at: "2026-04-07T06:00:00+00:00".to_owned(),
            ended_at: None,
            outcome: None,
            message: message.to_owned(),
            complete_before: None,
        }
    }

    #[test]
    fn the_file_keeps_its_size_and_cuts_what_does_not_fit() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(RunFile::read(dir.path()), None);
        for message in ["", "short", &"ä\"\n".repeat(5000)] {
            run(message).write(dir.path()).unwrap();
            let bytes = std::fs::metadata(dir.path().join(NAME)).unwrap().len();
            assert_eq!(bytes, BYTES as u64);
            let found = RunFile::read(dir.path()).unwrap();
            let is_same = found.message == message;
            assert!(is_same || found.message.ends_with("..."), "{message}");
        }
        std::fs::write(dir.path().join(NAME), vec![b'{'; BYTES]).unwrap();
        assert_eq!(RunFile::read(dir.path()), None);
    }

    #[test]
    fn a_run_is_under_way_while_its_lock_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let lock = File::create(dir.path().join("lock")).unwrap();
        assert!(!run("").is_running(dir.path()));
        flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(run("").is_running(dir.path()));
        let mut ended = run("");
        ended.ended_at = Some("2026-04-07T06:00:01+00:00".to_owned());
        assert!(!ended.is_running(dir.path()));
        let mut other = run("");
        other.pid = i32::MAX as u32;
        assert!(!other.is_running(dir.path()));
    }
}
