//! Runs the program call by call: every system call of it that changes a file of a [`Disk`] has a number, and at any
//! number it can be killed, or the call can fail, alone or with all that follow on that disk.
//!
//! By `ptrace`, as `strace` does it; but `strace` counts the calls of each thread and of each kind by themselves.
//! Such calls are made one at a time, whatever thread they come from, so what is on the disks when the program is
//! killed is exactly what the calls before that one left.

use std::collections::{HashSet, VecDeque};
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::calls::{self, Change};
use crate::disk::Disk;

/// What happens at the call of a number, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The program is killed before that call is made.
    Kill(usize),
    /// That call fails.
    Error(usize, Errno),
    /// Its disk has no room from then on.
    Full(usize),
    /// Nothing can be changed on its disk from then on.
    Dead(usize),
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    /// `None`: it was killed.
    pub code: Option<i32>,
    /// What it printed, wherever.
    pub said: String,
    /// Calls that changed a file, or would have.
    pub calls: usize,
    /// The one where the fault was.
    pub at: Option<String>,
}

/// Of a run that takes a tenth of a second.
const HANGS: Duration = Duration::from_secs(60);

struct Tracer<'a> {
    main: Pid,
    disks: &'a mut [Disk],
    fault: Fault,
    calls: usize,
    at: Option<String>,
    /// The disk that is full or dead.
    broken: Option<usize>,
    /// Threads that are in a system call.
    inside: HashSet<Pid>,
    /// The one that changes something, and what becomes of it.
    active: Option<Active>,
    /// Those that wait to.
    waiting: VecDeque<(Pid, Change, usize)>,
}

struct Active {
    pid: Pid,
    change: Change,
    disk: usize,
    fails: Option<Errno>,
}

/// Whether this system lets one process trace another; if not, says so.
pub fn is_allowed() -> bool {
    let dir = tempfile::tempdir().unwrap();
    match start(Command::new("true"), dir.path()) {
        Ok(pid) => {
            let _ = ptrace::kill(pid);
            let _ = waitpid(pid, None);
            true
        }
        Err(why) => {
            eprintln!(
                "SKIPPED: the crash matrix traces the program, which is not allowed here: {why}"
            );
            false
        }
    }
}

/// Starts `command`, stopped before its first instruction, with its output in `dir`.
fn start(mut command: Command, dir: &Path) -> std::io::Result<Pid> {
    command
        .stdin(Stdio::null())
        .stdout(File::create(dir.join("stdout"))?)
        .stderr(File::create(dir.join("stderr"))?);
    // SAFETY: one system call, between fork and exec.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(|| Ok(ptrace::traceme()?));
    }
    // It is waited for below, by the tracer.
    let child = command.spawn()?;
    let pid = Pid::from_raw(child.id() as i32);
    waitpid(pid, None)?;
    ptrace::setoptions(
        pid,
        Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_EXITKILL,
    )?;
    Ok(pid)
}

/// Runs `command` to its end, whatever that is. `disks` know then what became of them.
pub fn run(command: Command, disks: &mut [Disk], fault: Fault) -> Ended {
    let output = tempfile::tempdir().unwrap();
    let main = start(command, output.path()).unwrap();
    let (done, watched) = mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        let hangs = watched.recv_timeout(HANGS) == Err(mpsc::RecvTimeoutError::Timeout);
        if hangs {
            let _ = kill(main, Signal::SIGKILL);
        }
        hangs
    });
    let mut tracer = Tracer {
        main,
        disks,
        fault,
        calls: 0,
        at: None,
        broken: None,
        inside: HashSet::new(),
        active: None,
        waiting: VecDeque::new(),
    };
    let code = tracer.run();
    drop(done);
    let (calls, at) = (tracer.calls, tracer.at);
    let said = ["stdout", "stderr"].map(|name| fs::read(output.path().join(name)).unwrap());
    let said = String::from_utf8_lossy(&said.concat()).into_owned();
    let hung = watchdog.join().unwrap();
    assert!(!hung, "it hangs: {fault:?} at {at:?}: {said}");
    Ended {
        code,
        said,
        calls,
        at,
    }
}

impl Tracer<'_> {
    /// Gives the exit code.
    fn run(&mut self) -> Option<i32> {
        go_on(self.main, None);
        let mut code = None;
        // Of this thread alone: other tests have children too.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        loop {
            match waitpid(None, Some(flags)) {
                Err(Errno::ECHILD) => return code,
                Err(Errno::EINTR) => {}
                Err(error) => panic!("{error}"),
                Ok(WaitStatus::PtraceSyscall(pid)) => self.stopped_at_call(pid),
                Ok(WaitStatus::PtraceEvent(pid, _, _)) => go_on(pid, None),
                // The first of a thread is its beginning.
                Ok(WaitStatus::Stopped(pid, Signal::SIGSTOP)) => go_on(pid, None),
                Ok(WaitStatus::Stopped(pid, signal)) => go_on(pid, Some(signal)),
                Ok(WaitStatus::Exited(pid, status)) => {
                    if pid == self.main {
                        code = Some(status);
                    }
                    self.is_gone(pid);
                }
                Ok(WaitStatus::Signaled(pid, _, _)) => self.is_gone(pid),
                Ok(_) => {}
            }
        }
    }

    fn is_gone(&mut self, pid: Pid) {
        self.inside.remove(&pid);
        self.waiting.retain(|(waiting, _, _)| *waiting != pid);
        if self.active.as_ref().is_some_and(|active| active.pid == pid) {
            self.active = None;
            self.next();
        }
    }

    fn stopped_at_call(&mut self, pid: Pid) {
        if self.inside.remove(&pid) {
            return self.leaves(pid);
        }
        self.inside.insert(pid);
        let Ok(regs) = ptrace::getregs(pid) else {
            return; // Killed meanwhile.
        };
        let change = calls::read(pid, &regs);
        let on_disk = change.and_then(|change| {
            let is_on = |disk: &Disk| change.path().starts_with(disk.root());
            let disk = self.disks.iter().position(is_on)?;
            Some((change, disk))
        });
        match on_disk {
            None => go_on(pid, None),
            Some((change, disk)) => {
                self.waiting.push_back((pid, change, disk));
                self.next();
            }
        }
    }

    /// Lets the next one change what it wants to.
    fn next(&mut self) {
        if self.active.is_some() {
            return;
        }
        let Some((pid, change, disk)) = self.waiting.pop_front() else {
            return;
        };
        let number = self.calls;
        self.calls += 1;
        let fails = match self.fault {
            Fault::Kill(at) if at == number => {
                self.note(&change);
                kill(self.main, Signal::SIGKILL).unwrap();
                // No other process comes to it either.
                self.waiting.clear();
                return;
            }
            Fault::Error(at, errno) if at == number => Some(errno),
            Fault::Full(at) if at == number => {
                self.broken = Some(disk);
                Some(Errno::ENOSPC)
            }
            Fault::Dead(at) if at == number => {
                self.broken = Some(disk);
                Some(Errno::EIO)
            }
            Fault::Full(_) if self.broken == Some(disk) => Some(Errno::ENOSPC),
            Fault::Dead(_) if self.broken == Some(disk) => Some(Errno::EIO),
            _ => None,
        };
        let fails = fails.filter(|errno| *errno != Errno::ENOSPC || change.takes_space());
        if fails.is_some() {
            self.note(&change);
        }
        let is_across = change
            .from()
            .is_some_and(|from| !from.starts_with(self.disks[disk].root()));
        let fails = fails.or(is_across.then_some(Errno::EXDEV));
        match fails {
            Some(_) => self.skip(pid),
            None => self.disks[disk].before(&change),
        }
        self.active = Some(Active {
            pid,
            change,
            disk,
            fails,
        });
        go_on(pid, None);
    }

    fn note(&mut self, change: &Change) {
        let text = format!("{}: {change:?}", self.calls - 1);
        self.at.get_or_insert(text);
    }

    /// The call that `pid` stands before is none.
    fn skip(&self, pid: Pid) {
        let mut regs = ptrace::getregs(pid).unwrap();
        regs.orig_rax = u64::MAX;
        ptrace::setregs(pid, regs).unwrap();
    }

    fn leaves(&mut self, pid: Pid) {
        if let Some(active) = self.active.take_if(|active| active.pid == pid)
            && let Ok(mut regs) = ptrace::getregs(pid)
        {
            match active.fails {
                Some(errno) => {
                    regs.rax = -(errno as i64) as u64;
                    let _ = ptrace::setregs(pid, regs);
                }
                None => self.disks[active.disk].after(&active.change, regs.rax as i64 >= 0),
            }
        }
        go_on(pid, None);
        self.next();
    }
}

/// To its next call, if it still lives.
fn go_on(pid: Pid, signal: Option<Signal>) {
    match ptrace::syscall(pid, signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => panic!("{error}"),
    }
}
