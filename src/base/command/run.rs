//! Runs one command within its time, in a process group of its own.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process_group, test_kill_process_group, waitid,
};

use super::error::CommandError;
use super::line::CommandLine;
use super::shell::{Shell, explain};
use super::stderr::Stderr;
use crate::base::cleanup::CleanupGuard;
use crate::base::credentials::{RUN_VARIABLE, is_credential};

/// Time between two looks at a command.
const POLL: Duration = Duration::from_millis(20);
/// Time that a command has to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(2);

/// A command that succeeded.
#[derive(Debug)]
pub(crate) struct Ran {
    /// The end of its stderr. Empty: it wrote nothing.
    pub stderr: String,
    /// The end of its standard output, of [`StdoutTo::Captured`].
    pub stdout: String,
    /// A weakness of the way it was run, for the operator.
    pub warning: Option<String>,
}

/// What a command reads, and where its output goes.
#[derive(Default)]
pub(crate) struct Streams {
    /// What it reads on standard input. `None`: nothing.
    pub(crate) input: Option<File>,
    /// Where its standard output goes.
    pub(crate) stdout: StdoutTo,
}

/// Where a command's standard output goes.
#[derive(Default)]
pub(crate) enum StdoutTo {
    /// It is dropped.
    #[default]
    Dropped,
    /// It is the copy of a source.
    Copy(File),
    /// Its end is kept with stderr.
    Kept,
    /// Its end is returned.
    Captured,
}

/// The process group of a command that may be running.
#[derive(Default)]
pub(crate) struct Group {
    /// Set when this process must end: nothing may be started after that.
    closed: bool,
    running: Option<Pid>,
}

pub(crate) type SharedGroup = Arc<Mutex<Group>>;

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

/// Runs `line` for at most `timeout`. If this process must end, the command is ended too.
pub(crate) fn run_guarded(
    line: &CommandLine,
    streams: Streams,
    environment: &[(&str, &str)],
    timeout: Duration,
) -> Result<Ran, CommandError> {
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

/// Does the same in `group`, so that another thread can end it.
pub(crate) fn run_in(
    group: &SharedGroup,
    line: &CommandLine,
    streams: Streams,
    environment: &[(&str, &str)],
    timeout: Duration,
) -> Result<Ran, CommandError> {
    let failed = |source| CommandError::Start {
        line: line.brief(),
        source,
    };
    let mut stderr = Stderr::new().map_err(failed)?;
    let is_source = matches!(streams.stdout, StdoutTo::Copy(_));
    let mut captured = None;
    let stdout = match streams.stdout {
        StdoutTo::Dropped => Stdio::null(),
        StdoutTo::Copy(file) => file.into(),
        StdoutTo::Kept => stderr.for_command().map_err(failed)?,
        StdoutTo::Captured => {
            let tail = captured.insert(Stderr::new().map_err(failed)?);
            tail.for_command().map_err(failed)?
        }
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
    let mut tails = [Some(&mut stderr), captured.as_mut()];
    let status = match wait(group, &mut child, &mut tails, timeout, is_source) {
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
    let stdout = captured.map_or_else(String::new, Stderr::end);
    let code = status.and_then(|status| status.code());
    let line_in_brief = line.brief();
    let (shell_line, warning) = match line {
        CommandLine::Shell(line) => (true, Shell::get().warning(line, &line_in_brief)),
        CommandLine::Words(_) => (false, None),
    };
    let status = match status {
        Some(status) if status.success() => {
            return Ok(Ran {
                stderr,
                stdout,
                warning,
            });
        }
        Some(status) => explain(status, shell_line),
        None => format!("no end after {} s (`timeout`)", timeout.as_secs()),
    };
    Err(CommandError::Failed {
        line: line.brief(),
        status,
        code,
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
        if is_credential(&name) {
            command.env_remove(name);
        }
    }
    // The run that it names is this process's.
    command.env_remove(RUN_VARIABLE);
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
    tails: &mut [Option<&mut Stderr>],
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
        for tail in tails.iter_mut().flatten() {
            tail.bound()?;
        }
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
pub(crate) fn stderr_text(stderr: String) -> String {
    match stderr.is_empty() {
        true => "it wrote nothing to stderr".to_owned(),
        false => stderr,
    }
}
