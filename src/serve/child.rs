//! One run as a process: this program again, in a process group of its own.
//!
//! A child goes on if the agent ends: it writes its log itself, its events go nowhere, and no
//! signal of the agent's reaches it. The next agent finds it in the history, by its number and
//! start.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::io::FdFlags;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;

use super::child_events::{self, LineReader};
use super::child_log;
use super::handle::{RunKind, RunRequest};
use super::wake::{ChildEvent, EndedChild, Wake, Waker};
use crate::base::{clock, process};
use crate::config::Config;
use crate::jobs::run_report::Trigger;

/// The environment variable with the id of the run.
const RUN_VARIABLE: &str = "SEALIFT_RUN";
/// What the service manager gave the agent, and no child.
const OF_THE_SERVICE: [&str; 6] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
];
/// How long jobs that a person usually runs try a target that does not answer.
const RETRY: &str = "3m";
/// How long jobs that need the state directory wait for a command by hand, which may have begun
/// after the scheduler looked.
const WAIT: &str = "2h";
/// How long a child that ended may leave its last events unread.
const LAST_EVENTS: Duration = Duration::from_secs(2);
/// Time between two looks at a process that another agent started.
const LOOK: Duration = Duration::from_millis(250);

/// A process that does the work of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunProcess {
    pub(super) pid: u32,
    /// See [`process::started`].
    pub(super) started: u64,
}

impl RunProcess {
    /// Asks the process to end: it finishes what must not be left, and keeps finished work.
    pub(super) fn ask_to_end(self) {
        if let Some(pid) = self.running() {
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Ends the process and what it started.
    pub(super) fn kill(self) {
        if let Some(pid) = self.running() {
            let _ = kill_process_group(pid, Signal::KILL);
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    fn running(self) -> Option<Pid> {
        let pid = Pid::from_raw(i32::try_from(self.pid).ok()?)?;
        process::is_running(self.pid, self.started).then_some(pid)
    }
}

/// Starts the run `id`, and wakes the scheduler for each of its events and its end.
pub(super) fn start(
    config: &Config,
    request: &RunRequest,
    id: &str,
    waker: &Waker,
) -> io::Result<RunProcess> {
    let log = child_log::open(&config.state, id)?;
    let (reader, writer) = io::pipe()?;
    let (reader, writer) = (OwnedFd::from(reader), OwnedFd::from(writer));
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("sealift")
        .arg("--config")
        .arg(&config.file)
        .args(["--trigger", trigger(request.trigger)])
        .arg(format!("--events-fd={}", writer.as_raw_fd()))
        .args(words(config, request))
        .env(RUN_VARIABLE, id)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0);
    for name in OF_THE_SERVICE {
        command.env_remove(name);
    }
    if let Some(value) = clock::value_for_children() {
        command.env(clock::CLOCK_VARIABLE, value);
    }
    hand_over(&mut command, writer);
    let events = pipe::Receiver::from_owned_fd(reader)?;
    let mut child = tokio::process::Command::from(command).spawn()?;
    let pid = child.id().unwrap_or(0);
    let started = process::started(pid).unwrap_or(0);
    let (id, waker) = (id.to_owned(), waker.clone());
    let reading = tokio::spawn(read(events, id.clone(), waker.clone()));
    tokio::spawn(async move {
        let status = child.wait().await.ok();
        // What the child started may hold its end of the pipe.
        let report = tokio::time::timeout(LAST_EVENTS, reading).await;
        let report = report.ok().and_then(Result::ok).flatten();
        let ended = EndedChild { id, status, report };
        let _ = waker.send(Wake::Ended(ended)).await;
    });
    Ok(RunProcess { pid, started })
}

/// Wakes the scheduler when a process that another agent started ends.
pub(super) fn wait_for(child: RunProcess, id: String, waker: Waker) {
    tokio::spawn(async move {
        while child.running().is_some() {
            tokio::time::sleep(LOOK).await;
        }
        let (status, report) = (None, None);
        let ended = EndedChild { id, status, report };
        let _ = waker.send(Wake::Ended(ended)).await;
    });
}

/// Lets the child, and no other process, inherit the descriptor.
#[allow(unsafe_code, reason = "pre_exec")]
fn hand_over(command: &mut Command, writer: OwnedFd) {
    let keep_open = move || Ok(rustix::io::fcntl_setfd(&writer, FdFlags::empty())?);
    // SAFETY: one system call between fork and exec, no memory is allocated, no lock taken.
    unsafe { command.pre_exec(keep_open) };
}

/// Reads the events until the child closes its end. Returns the report.
async fn read(mut events: pipe::Receiver, id: String, waker: Waker) -> Option<Value> {
    let (mut lines, mut report) = (LineReader::default(), None);
    let mut buffer = vec![0; 16 << 10];
    while let Ok(bytes @ 1..) = events.read(&mut buffer).await {
        for line in lines.take(&buffer[..bytes]) {
            match child_events::parse(&line) {
                Some(ChildEvent::Report(value)) => report = Some(value),
                Some(event) => waker.send(Wake::Event(id.clone(), event)).await.ok()?,
                None => {}
            }
        }
    }
    report
}

/// Returns the command and its options.
fn words(config: &Config, request: &RunRequest) -> Vec<String> {
    let mut words: Vec<String> = match request.kind {
        RunKind::Backup => vec!["backup".to_owned(), format!("--wait={WAIT}")],
        RunKind::CatchUp => vec![
            "push".to_owned(),
            "--spooled".to_owned(),
            format!("--wait={WAIT}"),
        ],
        // The following jobs do not lock the state directory.
        RunKind::Verify => vec![
            "verify".to_owned(),
            format!("--data={}", config.schedule.verify_share),
            format!("--retry={RETRY}"),
        ],
        RunKind::Prune => vec!["prune".to_owned(), format!("--retry={RETRY}")],
        RunKind::Drill => vec!["drill".to_owned()],
        RunKind::Probe => vec!["status".to_owned()],
    };
    if request.kind == RunKind::Backup {
        let include = request.include.iter();
        words.extend(include.map(|source| format!("--include={source}")));
    }
    let takes_target = matches!(
        request.kind,
        RunKind::CatchUp | RunKind::Probe | RunKind::Verify | RunKind::Prune
    );
    if let Some(target) = request.target.as_ref().filter(|_| takes_target) {
        words.push(format!("--target={target}"));
    }
    words
}

/// Returns the trigger as `--trigger` takes it.
pub(super) fn trigger(trigger: Trigger) -> &'static str {
    match trigger {
        Trigger::Manual => "manual",
        Trigger::Schedule => "schedule",
        Trigger::Api => "api",
        Trigger::Boot => "boot",
        Trigger::Timer => "timer",
    }
}
