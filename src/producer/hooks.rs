//! The commands around a source, and its lock file.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use super::error::SourceError;
use crate::base::cleanup::CleanupGuard;
use crate::base::command::{CommandLine, Ran, SharedGroup, StdoutTo, Streams, run_guarded, run_in};
use crate::base::error_chain::with_causes;
use crate::base::openat::{Chosen, Dir};

/// Time between two looks at a lock.
const POLL: Duration = Duration::from_millis(20);

/// Runs `line` with its output going to `stdout`, for at most `timeout`. If this process must end,
/// the command is ended too.
pub(super) fn run(
    line: &CommandLine,
    stdout: StdoutTo,
    environment: &[(&str, &str)],
    timeout: Duration,
) -> Result<Ran, SourceError> {
    let streams = Streams {
        input: None,
        stdout,
    };
    Ok(run_guarded(line, streams, environment, timeout)?)
}

/// Has `line`, an `after`, run even if this process must end before it.
pub(super) fn owe_after(
    line: &CommandLine,
    environment: &[(&str, &str)],
    timeout: Duration,
) -> CleanupGuard {
    let line = line.clone();
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let environment: Vec<(String, String)> = environment.iter().map(owned).collect();
    CleanupGuard::register(move || {
        let borrowed = environment.iter().map(|(name, value)| (&**name, &**value));
        let environment: Vec<(&str, &str)> = borrowed.collect();
        match run_last(&line, &environment, timeout) {
            Ok(_) => format!("ran `{line}`, the `after` of a source"),
            Err(error) => with_causes(&error),
        }
    })
}

/// Does the same as [`run`] for a process that is already ending.
fn run_last(
    line: &CommandLine,
    environment: &[(&str, &str)],
    timeout: Duration,
) -> Result<Ran, SourceError> {
    let streams = Streams::default();
    let group = SharedGroup::default();
    Ok(run_in(&group, line, streams, environment, timeout)?)
}

/// Takes the flock of the lock file `path`, which is created if it is missing. The lock is held
/// until the file is dropped.
pub(super) fn hold_lock(path: &Path, timeout: Duration) -> Result<File, SourceError> {
    let failed = |source| SourceError::Io {
        what: "open the lock file",
        path: path.to_owned(),
        source,
    };
    let file = open_lock(path).map_err(failed)?;
    let start = Instant::now();
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if start.elapsed() < timeout => {
                std::thread::sleep(POLL);
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(SourceError::Locked {
                    path: path.to_owned(),
                    waited: timeout,
                });
            }
            Err(e) => return Err(failed(e.into())),
        }
    }
}

/// Opens the lock file, or directory, and makes a file if there is none. Others may write to its
/// directory (`/tmp`): a FIFO in its place is an error, and no file is made through a symlink.
fn open_lock(path: &Path) -> io::Result<File> {
    // A file of another user need not be writable to be locked.
    let open = || -> io::Result<File> {
        let chosen = Chosen::open(path)?;
        match chosen.is_dir() {
            true => Ok(chosen.dir().try_clone_fd()?.into()),
            false => Ok(chosen.dir().open_file(chosen.name())?.0),
        }
    };
    match open() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let (dir, name) = Dir::open_parent(path)?;
    match dir.create_file(&name, 0o666) {
        // Another process has just made it, or it is a symlink to nothing.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => open(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::openat::Kind;

    #[test]
    fn a_lock_file_is_made_or_opened_and_a_fifo_or_a_dangling_symlink_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let hold = |name: &str| hold_lock(&temp.path().join(name), Duration::ZERO);
        let held = hold("lock").unwrap();
        assert!(matches!(hold("lock"), Err(SourceError::Locked { .. })));
        drop(held);
        hold("lock").unwrap();
        dir.symlink(b"lock", "way").unwrap();
        hold("way").unwrap();
        dir.make_dir("dir", 0o700).unwrap();
        hold("dir").unwrap();
        dir.make_node("fifo", Kind::Fifo, None).unwrap();
        dir.symlink(b"planted", "nowhere").unwrap();
        for refused in ["fifo", "nowhere"] {
            assert!(
                matches!(hold(refused), Err(SourceError::Io { .. })),
                "{refused}"
            );
        }
        assert!(dir.meta("planted").is_err());
    }
}
