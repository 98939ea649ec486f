//! One ssh connection for all calls of rsync.
//!
//! A handshake costs about 50 ms of processor time and several round trips, and a push makes a
//! dozen calls. So a master (`ssh -M -N`) is started before the first call, as a child that ends
//! with the target, and the ssh of each call goes through its socket. The master is optional:
//! without it (another ssh than OpenSSH, a refusal, a socket that cannot be created) every call
//! connects by itself and reports its own failure.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::storage::ssh::CONNECT_SECONDS;

/// Pause between looks for the socket.
const LOOKS: Duration = Duration::from_millis(5);
/// Time until the next attempt after a failed one, or after the end of a master.
const NEXT_ATTEMPT: Duration = Duration::from_secs(60);
/// Longest path that fits into a socket's address with the suffix of the name that ssh binds first.
const MOST_SOCKET_BYTES: usize = 80;

/// The master of one target.
#[derive(Debug, Default)]
pub(super) struct Master {
    state: tokio::sync::Mutex<Option<Attempt>>,
}

#[derive(Debug)]
struct Attempt {
    at: Instant,
    /// `None`: the attempt failed.
    running: Option<Running>,
}

/// A running master. Dropped, it is killed and its socket removed.
#[derive(Debug)]
struct Running {
    child: Child,
    socket: PathBuf,
    _folder: TempDir,
}

impl Running {
    fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Master {
    /// Returns the socket of an established connection, if there is one. `command` is ssh with its
    /// options, up to the machine's name.
    pub(super) async fn socket(
        &self,
        command: impl FnOnce() -> Option<Command>,
    ) -> Option<PathBuf> {
        let mut state = self.state.lock().await;
        if let Some(attempt) = &mut *state {
            if let Some(running) = &mut attempt.running
                && running.is_alive()
            {
                return Some(running.socket.clone());
            }
            if attempt.at.elapsed() < NEXT_ATTEMPT {
                return None;
            }
        }
        let at = Instant::now();
        let running = start(command()?).await;
        let socket = running.as_ref().map(|running| running.socket.clone());
        *state = Some(Attempt { at, running });
        socket
    }
}

/// Lets the system end the master if this process is killed and cannot do it.
#[allow(unsafe_code, reason = "pre_exec")]
#[cfg(target_os = "linux")]
fn end_with_us(command: &mut Command) {
    let ask = || {
        let signal = Some(rustix::process::Signal::TERM);
        Ok(rustix::process::set_parent_process_death_signal(signal)?)
    };
    // SAFETY: one system call between fork and exec, no memory is allocated, no lock taken.
    unsafe { command.pre_exec(ask) };
}

#[cfg(not(target_os = "linux"))]
fn end_with_us(_command: &mut Command) {}

/// Starts a master and waits until its socket exists.
async fn start(mut command: Command) -> Option<Running> {
    end_with_us(&mut command);
    let folder = tempfile::Builder::new()
        .prefix("sealift-ssh-")
        .tempdir()
        .ok()?;
    let socket = folder.path().join("s");
    if socket.as_os_str().len() > MOST_SOCKET_BYTES {
        return None;
    }
    let child = command
        .args(["-M", "-N", "-S"])
        .arg(&socket)
        .args(["-o", "ControlPersist=no"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .ok()?;
    let mut running = Running {
        child,
        socket,
        _folder: folder,
    };
    let deadline = Instant::now() + Duration::from_secs(CONNECT_SECONDS);
    while Instant::now() < deadline {
        if running.socket.exists() {
            return Some(running);
        }
        if !running.is_alive() {
            return None;
        }
        tokio::time::sleep(LOOKS).await;
    }
    None
}
