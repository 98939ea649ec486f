//! The parent's half: starts a child for a database, receives its answers within bounds, and ends
//! it in time.
//!
//! A child never outlives its [`ChildProcess`]: it is killed when that is dropped, and by the
//! kernel when this process ends. It has a process group of its own, so Ctrl-C reaches the parent
//! only.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::message::{ARGUMENT, ChildAnswer, ChildWork, Identity, NamedFile, Request, VARIABLE};
use super::place::Place;

/// Longest answer of a child, in bytes; most of it are the names of tables.
const ANSWER_BYTES: usize = 8 << 20;
/// The time that the start of a child may take on a busy machine.
pub(super) const START: Duration = Duration::from_secs(20);

static IS_PROGRAM: AtomicBool = AtomicBool::new(false);

/// Declares that this process is the `sealift` program, which can be started again as the child.
pub fn register_program() {
    IS_PROGRAM.store(true, Ordering::Relaxed);
}

/// Returns the program to start: this very file, even if another one has its name by now. Without
/// `/proc` it is the path by which the kernel started this process.
fn program() -> io::Result<&'static Path> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = PROGRAM.get_or_init(|| {
        let own = Path::new("/proc/self/exe");
        if IS_PROGRAM.load(Ordering::Relaxed) {
            if own.exists() {
                return Some(own.to_owned());
            }
            let path = rustix::param::linux_execfn().to_str().ok()?;
            return std::path::absolute(path).ok();
        }
        // In a test, or another program that uses the library: Cargo puts the program beside it.
        let test = std::env::current_exe().ok()?;
        let beside = test.parent()?.parent()?.join("sealift");
        beside.is_file().then_some(beside)
    });
    let missing = || io::Error::other("the sealift program is not found, not even beside this one");
    found.as_deref().ok_or_else(missing)
}

/// Why a child did not answer.
#[derive(Debug)]
pub(super) enum Silence {
    /// It could not be started.
    NotStarted(io::Error),
    /// It did not answer within this time.
    Late(Duration),
    /// It ended without an answer: by this signal, or (`None`) by itself.
    Ended { signal: Option<i32> },
    /// Its answer is too long, or not one that a child of this version sends.
    Unreadable,
}

/// A running child and the socket on which it answers.
pub(super) struct ChildProcess {
    process: std::process::Child,
    socket: UnixStream,
    /// Bytes that were received after the last answer.
    received: Vec<u8>,
}

/// A task for a child.
pub(super) struct ChildTask<'a> {
    /// The database.
    pub place: &'a Place,
    /// The file that the caller opened there.
    pub identity: Identity,
    /// Limit of processor time.
    pub cpu: Duration,
    /// Size in bytes up to which the child may write a file.
    pub file_bytes: u64,
    pub work: ChildWork,
    /// A place in the directory of the copy; `None` if there is none.
    pub copy_dir: Option<&'a Place>,
}

impl ChildProcess {
    pub(super) fn start(task: ChildTask<'_>) -> Result<Self, Silence> {
        Self::spawn(task).map_err(Silence::NotStarted)
    }

    fn spawn(task: ChildTask<'_>) -> io::Result<Self> {
        let request = Request {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            parent: rustix::process::getpid().as_raw_nonzero().get(),
            database: NamedFile {
                name: task.place.name().to_owned(),
                identity: task.identity,
            },
            cpu_seconds: task.cpu.as_secs().saturating_add(2),
            file_bytes: task.file_bytes,
            work: task.work,
        };
        let copy_dir = match task.copy_dir {
            Some(place) => Stdio::from(place.dir().try_clone_to_owned()?),
            None => Stdio::null(),
        };
        let dir = Stdio::from(task.place.dir().try_clone_to_owned()?);
        Self::run(ARGUMENT, &serde_json::to_string(&request)?, dir, copy_dir)
    }

    /// Starts this program again with the hidden `argument`, and with `request` in its environment.
    pub(super) fn launch(
        argument: &str,
        request: &str,
        stdin: Stdio,
        stderr: Stdio,
    ) -> Result<Self, Silence> {
        Self::run(argument, request, stdin, stderr).map_err(Silence::NotStarted)
    }

    fn run(argument: &str, request: &str, stdin: Stdio, stderr: Stdio) -> io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        let mut command = Command::new(program()?);
        command
            .arg(argument)
            .env_clear()
            .env(VARIABLE, request)
            .stdin(stdin)
            .stdout(OwnedFd::from(theirs))
            .stderr(stderr)
            .process_group(0);
        // A program that needs this variable to start needs it in the child, too.
        if let Some(libraries) = std::env::var_os("LD_LIBRARY_PATH") {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        let process = command.spawn()?;
        Ok(Self {
            process,
            socket,
            received: Vec::new(),
        })
    }

    /// Returns the next answer if it comes before `deadline`, which is `allowed` after the start.
    pub(super) fn answer(
        &mut self,
        deadline: Instant,
        allowed: Duration,
    ) -> Result<ChildAnswer, Silence> {
        let mut buffer = [0; 4096];
        let mut searched = 0;
        loop {
            if let Some(end) = self.received[searched..].iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.received.drain(..=searched + end).collect();
                return serde_json::from_slice(&line).map_err(|_| Silence::Unreadable);
            }
            searched = self.received.len();
            if searched > ANSWER_BYTES {
                return Err(Silence::Unreadable);
            }
            let bytes = self.receive(&mut buffer, deadline, allowed)?;
            self.received.extend_from_slice(&buffer[..bytes]);
        }
    }

    /// Returns how many bytes the child sent into `buffer` before `deadline`, which is `allowed`
    /// after the start; at least one.
    pub(super) fn receive(
        &mut self,
        buffer: &mut [u8],
        deadline: Instant,
        allowed: Duration,
    ) -> Result<usize, Silence> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Silence::Late(allowed));
            }
            let read = self.socket.set_read_timeout(Some(left));
            match read.and_then(|()| self.socket.read(buffer)) {
                Ok(0) => return Err(self.ended()),
                Ok(bytes) => return Ok(bytes),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(self.ended()),
            }
        }
    }

    /// Sends `bytes` to the child, which must take them before `deadline`.
    pub(super) fn send(&mut self, mut bytes: &[u8], deadline: Instant) -> Result<(), Silence> {
        while !bytes.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Silence::Late(left));
            }
            let write = self.socket.set_write_timeout(Some(left));
            match write.and_then(|()| self.socket.write(bytes)) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(self.ended()),
            }
        }
        Ok(())
    }

    /// Returns how the child ended, after it closed its end of the socket.
    fn ended(&mut self) -> Silence {
        // It may have closed the socket and still be running.
        let _ = self.process.kill();
        let status = self.process.wait();
        Silence::Ended {
            signal: status.ok().and_then(|status| status.signal()),
        }
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns device and inode of an open file.
pub(super) fn identity(file: &File) -> io::Result<Identity> {
    Ok(Identity::of(&rustix::fs::fstat(file.as_fd())?))
}
