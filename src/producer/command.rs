//! Running what a source asks for: the command that is the source, the hooks around it, its lock file.
//!
//! A command's output counts only if it ended with success in time; its whole process group is ended
//! when it does not, and the end of what it said on stderr travels in the error.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::process::{Pid, Signal, kill_process_group};

use super::SourceError;
use crate::config::CommandLine;
use crate::openat::{Chosen, Dir};

const POLL: Duration = Duration::from_millis(20);
const STDERR_TAIL_BYTES: i64 = 2048;

/// Runs `line` with its output going to `stdout`, for at most `timeout`.
pub(super) fn run(
    line: &CommandLine,
    stdout: Option<File>,
    environment: &[(&str, &str)],
    timeout: Duration,
) -> Result<(), SourceError> {
    let failed = |source| SourceError::Start {
        line: line.to_string(),
        source,
    };
    // A file, not a pipe: a grandchild that keeps the pipe open would keep us waiting.
    let mut stderr = tempfile::tempfile().map_err(failed)?;
    let (program, arguments) = match line.0.split_first() {
        Some((program, arguments)) => (program.as_str(), arguments),
        None => ("", &[][..]),
    };
    let mut child = Command::new(program)
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(stdout.map_or_else(Stdio::null, Stdio::from))
        .stderr(stderr.try_clone().map_err(failed)?)
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let status = wait(&mut child, timeout).map_err(failed)?;
    match status {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(SourceError::Command {
            line: line.to_string(),
            status: status.to_string(),
            stderr: tail(&mut stderr),
        }),
        None => Err(SourceError::Command {
            line: line.to_string(),
            status: format!("no end after {} s (`timeout`)", timeout.as_secs()),
            stderr: tail(&mut stderr),
        }),
    }
}

/// The exit status, or `None` when time was up and the process group has been ended.
fn wait(child: &mut Child, timeout: Duration) -> io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() >= timeout {
            if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                let _ = kill_process_group(group, Signal::KILL);
            }
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

fn tail(stderr: &mut File) -> String {
    let mut bytes = Vec::new();
    let end = stderr.seek(SeekFrom::End(0)).unwrap_or(0);
    let start = end.saturating_sub(STDERR_TAIL_BYTES.unsigned_abs());
    let _ = stderr.seek(SeekFrom::Start(start));
    let _ = stderr.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    if text.is_empty() {
        return "it said nothing on stderr".to_owned();
    }
    text
}

/// Holds `path` (created if it is not there) against everyone who asks for the same flock.
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

/// Opens the lock file, or directory, and makes a file if nothing is there. Its directory may be everybody's
/// (`/tmp`): a FIFO in its place is an error, and no file is made through a link.
fn open_lock(path: &Path) -> io::Result<File> {
    // Somebody else's file need not be writable to be locked.
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
        // Another process has just made it; or it is a link to nothing.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => open(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openat::Kind;

    #[test]
    fn a_lock_file_is_made_or_opened_and_a_fifo_or_a_link_to_nothing_is_refused() {
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
