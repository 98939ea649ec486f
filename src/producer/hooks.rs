//! Runs the commands of a source (the source itself and the hooks around it) and holds its lock
//! file.
//!
//! - A command's output counts only if the command succeeds in time.
//! - The end of its stderr is kept with the run, or with the error if it failed.
//! - Its whole process group is ended if it fails, if its time is up, and if this process must
//!   to end. The group of a command whose output is the copy is always ended, so that nothing
//!   writes into the copy later. Services that an `after` has started go on.
//! - It gets the environment without the targets' credentials.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process_group, test_kill_process_group, waitid,
};

use super::error::SourceError;
use super::shell::{Shell, explain};
use super::stderr::Stderr;
use crate::base::cleanup::CleanupGuard;
use crate::base::error_chain::with_causes;
use crate::base::openat::{Chosen, Dir};
use crate::config::CommandLine;
use crate::storage::Environment;

/// Time between two looks at a command or a lock.
const POLL: Duration = Duration::from_millis(20);
/// Time that a command has to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(2);

/// A command that succeeded.
#[derive(Debug)]
pub(super) struct Ran {
    /// The end of its stderr. Empty: it wrote nothing.
    pub stderr: String,
    /// A weakness of the way it was run, for the operator.
    pub warning: Option<String>,
}

/// What a command reads, and where its output goes.
#[derive(Default)]
pub(super) struct Streams {
    /// What it reads on standard input. `None`: nothing.
    pub(super) input: Option<File>,
    /// Where its standard output goes.
    pub(super) stdout: StdoutTo,
}

/// Where a command's standard output goes.
#[derive(Default)]
pub(super) enum StdoutTo {
    /// It is dropped.
    #[default]
    Dropped,
    /// It is the copy of a source.
    Copy(File),
    /// Its end is kept with stderr.
    Kept,
}

/// The process group of a command that may be running.
#[derive(Default)]
pub(super) struct Group {
    /// Set when this process must end: nothing may be started after that.
    closed: bool,
    running: Option<Pid>,
}

pub(super) type SharedGroup = Arc<Mutex<Group>>;

fn locked(group: &SharedGroup) -> MutexGuard<'_, Group> {
    group.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends SIGTERM to the group, and SIGKILL if it does not end.
fn end_with_grace(group: Pid) {
    if kill_process_group(group, Signal::TERM).is_err() {
        return;
    }
    let start = Instant::now();
    while test_kill_process_group(group).is_ok() {
        if start.elapsed() >= GRACE {
            let _ = kill_process_group(group, Signal::KILL);
            return;
        }
        std::thread::sleep(POLL);
    }
}

/// Runs `line` with its output going to `stdout` (`None`: it is dropped), for at most `timeout`. If
/// this process must end, the command is ended too.
pub(super) fn run(
    line: &CommandLine,
    stdout: Option<File>,
    environment: &[(&str, &str)],
    timeout: Duration,
) -> Result<Ran, SourceError> {
    let streams = Streams {
        input: None,
        stdout: stdout.map_or(StdoutTo::Dropped, StdoutTo::Copy),
    };
    run_guarded(line, streams, environment, timeout)
}

/// Runs `line` for at most `timeout`. If this process must end, the command is ended too.
pub(super) fn run_guarded(
    line: &CommandLine,
    streams: Streams,
    environment: &[(&str, &str)],
    timeout: Duration,
) -> Result<Ran, SourceError> {
    let group = SharedGroup::default();
    let owed = Arc::clone(&group);
    let named = line.brief();
    let duty = CleanupGuard::register(move || {
        let running = {
            let mut group = locked(&owed);
            group.closed = true;
            group.running.take()
        };
        if let Some(running) = running {
            end_with_grace(running);
        }
        format!("ended `{named}`")
    });
    let ran = run_in(&group, line, streams, environment, timeout);
    duty.take();
    ran
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

/// [`run`] for a process that is already ending.
fn run_last(
    line: &CommandLine,
    environment: &[(&str, &str)],
    timeout: Duration,
) -> Result<Ran, SourceError> {
    let streams = Streams::default();
    run_in(&SharedGroup::default(), line, streams, environment, timeout)
}

/// Does the same in `group`, so that another thread can end it.
pub(super) fn run_in(
    group: &SharedGroup,
    line: &CommandLine,
    streams: Streams,
    environment: &[(&str, &str)],
    timeout: Duration,
) -> Result<Ran, SourceError> {
    let failed = |source| SourceError::Start {
        line: line.brief(),
        source,
    };
    let mut stderr = Stderr::new().map_err(failed)?;
    let is_source = matches!(streams.stdout, StdoutTo::Copy(_));
    let stdout = match streams.stdout {
        StdoutTo::Dropped => Stdio::null(),
        StdoutTo::Copy(file) => file.into(),
        StdoutTo::Kept => stderr.for_command().map_err(failed)?,
    };
    let mut child = {
        let mut group = locked(group);
        if group.closed {
            return Err(failed(io::ErrorKind::Interrupted.into()));
        }
        let mut command = command(line, environment);
        let command = command
            .stdin(streams.input.map_or_else(Stdio::null, Stdio::from))
            .stdout(stdout)
            .stderr(stderr.for_command().map_err(failed)?);
        let child = command.spawn().map_err(failed)?;
        group.running = pid(&child);
        child
    };
    let status = match wait(group, &mut child, &mut stderr, timeout, is_source) {
        Ok(status) => status,
        Err(error) => {
            // It must not be left running, whatever its state is.
            if let Some(leader) = pid(&child) {
                let _ = kill_process_group(leader, Signal::KILL);
            }
            let mut group = locked(group);
            let _ = child.wait();
            group.running = None;
            return Err(failed(error));
        }
    };
    let stderr = stderr.end();
    let line_in_brief = line.brief();
    let (shell_line, warning) = match line {
        CommandLine::Shell(line) => (true, Shell::get().warning(line, &line_in_brief)),
        CommandLine::Words(_) => (false, None),
    };
    let status = match status {
        Some(status) if status.success() => return Ok(Ran { stderr, warning }),
        Some(status) => explain(status, shell_line),
        None => format!("no end after {} s (`timeout`)", timeout.as_secs()),
    };
    Err(SourceError::Command {
        line: line.brief(),
        status,
        stderr: stderr_text(stderr),
    })
}

fn command(line: &CommandLine, environment: &[(&str, &str)]) -> Command {
    let mut command = match line {
        CommandLine::Shell(line) => Shell::get().command(line),
        CommandLine::Words(words) => {
            let mut words = words.iter();
            let mut command = Command::new(words.next().map_or("", String::as_str));
            command.args(words);
            command
        }
    };
    for (name, _) in std::env::vars_os() {
        if Environment::is_credential(&name) {
            command.env_remove(name);
        }
    }
    command.envs(environment.iter().copied()).process_group(0);
    command
}

fn pid(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

/// Returns the exit status, or `None` when the time was up. Ends the process group after a failure,
/// and always if the command `is_source`.
fn wait(
    group: &SharedGroup,
    child: &mut Child,
    stderr: &mut Stderr,
    timeout: Duration,
    is_source: bool,
) -> io::Result<Option<ExitStatus>> {
    let leader = pid(child).ok_or(io::ErrorKind::InvalidInput)?;
    let start = Instant::now();
    // It is not reaped yet, so that no other process can get its number.
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let ended = loop {
        if let Some(ended) = waitid(WaitId::Pid(leader), look)? {
            break Some(ended);
        }
        if start.elapsed() >= timeout {
            break None;
        }
        stderr.bound()?;
        std::thread::sleep(POLL);
    };
    let is_well = ended.is_some_and(|status| status.exit_status() == Some(0));
    if is_source || !is_well {
        let _ = kill_process_group(leader, Signal::KILL);
    }
    let mut group = locked(group);
    let status = child.wait()?;
    group.running = None;
    Ok(ended.map(|_| status))
}

/// Returns the text for messages about stderr.
pub(super) fn stderr_text(stderr: String) -> String {
    match stderr.is_empty() {
        true => "it wrote nothing to stderr".to_owned(),
        false => stderr,
    }
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
