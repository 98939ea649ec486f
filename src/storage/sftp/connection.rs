//! One connection: a process of ssh, and sftp through its pipes.
//!
//! Requests share it. A request without an answer waits as long as any byte moves on the
//! connection, then ends the connection. ssh's last words say why a connection ended. The process
//! ends with the connection.

use std::pin::pin;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::{Either, select};
use openssh_sftp_client::error::SftpErrorKind;
use openssh_sftp_client::{Error, Sftp as Client, SftpOptions};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::{oneshot, watch};
use tokio::time::{timeout, timeout_at};

use super::packet_guard::{Incoming, Outgoing, Wire};
use crate::storage::error::ErrorKind;
use crate::storage::process_failure::{MOST_SAID_BYTES, ProcessFailure, last_words};
use crate::storage::ssh::{self, CONNECT_SECONDS};

/// Longest time to connect. ssh itself gives up earlier, with a better reason.
pub(super) const CONNECTED_WITHIN: Duration = Duration::from_secs(CONNECT_SECONDS + 10);
/// Longest time until ssh ends after its connection, and until its stderr ends after that: a master
/// connection that it left behind keeps the pipe open.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(2);
/// Maximum bytes that OpenSSH reads or writes in one request.
const PIECE_BYTES: u32 = 255 << 10;
/// Bytes of one transfer that are in transit at once: twice the window of ssh.
const WINDOW_BYTES: u32 = 4 << 20;
const MOST_PIECES: u32 = 64;

/// A connection that requests share.
pub(super) struct Connection {
    pub client: Client,
    link: Link,
    /// Longest silence of the server during a request.
    patience: Duration,
    /// Bytes that the server reads in one request, as far as it has shown.
    pub read_bytes: PieceSize,
    /// Bytes that the server writes in one request, as far as it has shown.
    pub write_bytes: PieceSize,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.link.fmt(f)
    }
}

/// Size of the pieces of a transfer.
#[derive(Debug)]
pub(super) struct PieceSize(AtomicU32);

impl PieceSize {
    fn new() -> Self {
        Self(AtomicU32::new(PIECE_BYTES))
    }

    pub(super) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed) as usize
    }

    /// Number of pieces in transit at once.
    pub(super) fn at_once(&self) -> usize {
        (WINDOW_BYTES / self.0.load(Ordering::Relaxed)).clamp(1, MOST_PIECES) as usize
    }

    /// Notes that the server took only `bytes` of a larger piece.
    pub(super) fn learn(&self, bytes: usize) {
        if let Ok(bytes) = u32::try_from(bytes) {
            self.0.fetch_min(bytes.max(4096), Ordering::Relaxed);
        }
    }
}

/// The process of ssh.
#[derive(Debug)]
struct Link {
    wire: Arc<Wire>,
    /// How ssh ended. `None`: it runs.
    end: watch::Receiver<Option<End>>,
    /// Ends ssh when it is dropped.
    leash: Mutex<Option<oneshot::Sender<()>>>,
}

/// How ssh ended.
#[derive(Debug, Clone)]
struct End {
    /// Exit code. `None`: a signal ended it.
    code: Option<i32>,
    /// Its last words on stderr.
    said: String,
}

impl Connection {
    /// Starts `command`, which is ssh up to the machine's name, and sftp through it. The server
    /// must greet within `connected_within`, and is never silent for longer than `patience`.
    pub(super) async fn open(
        mut command: Command,
        patience: Duration,
        connected_within: Duration,
    ) -> Result<Self, ProcessFailure> {
        let child = command
            .args(["-s", "sftp"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut child = child.map_err(|error| {
            let program = command.as_std().get_program().display();
            let what = match error.kind() {
                std::io::ErrorKind::NotFound => {
                    format!("{program} is not installed, or not on the PATH")
                }
                _ => format!("cannot start {program}: {error}"),
            };
            ProcessFailure::new(ErrorKind::Permanent, what)
        })?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(ProcessFailure::new(
                ErrorKind::Permanent,
                "ssh has no pipes",
            ));
        };
        let wire = Arc::new(Wire::new());
        let outgoing = Outgoing::new(stdin, Arc::clone(&wire));
        let incoming = Incoming::new(stdout, Arc::clone(&wire));
        let (leash, released) = oneshot::channel();
        let (report, end) = watch::channel(None);
        tokio::spawn(accompany(child, stderr, released, report));
        let link = Link {
            wire,
            end,
            leash: Mutex::new(Some(leash)),
        };
        // As a task of its own, because this request may be cancelled: the client's own tasks would
        // panic then.
        let options = SftpOptions::new().flush_interval(Duration::ZERO);
        let greeting = tokio::spawn(Client::new(outgoing, incoming, options));
        match timeout(connected_within, greeting).await {
            Ok(Ok(Ok(client))) => Ok(Self {
                client,
                link,
                patience,
                read_bytes: PieceSize::new(),
                write_bytes: PieceSize::new(),
            }),
            Ok(Ok(Err(error))) => Err(link.lost(&error).await),
            Ok(Err(error)) => Err(link.lost(&error.into()).await),
            Err(_) => {
                let what = format!("no sftp after {} s", connected_within.as_secs());
                Err(ProcessFailure::new(ErrorKind::Unavailable, what))
            }
        }
    }

    /// Whether another request can succeed.
    pub(super) fn is_alive(&self) -> bool {
        self.link.end.borrow().is_none() && self.link.leash().is_some()
    }

    /// Awaits the answer to `request`, as long as any byte moves.
    pub(super) async fn ask<T>(
        &self,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, ProcessFailure> {
        let began = Instant::now();
        let mut request = pin!(request);
        loop {
            let deadline = began.max(self.link.wire.moved()) + self.patience;
            match timeout_at(deadline.into(), &mut request).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(Error::SftpError(kind, message))) => {
                    return Err(refused(kind, message.get().0));
                }
                Ok(Err(error)) => return Err(self.link.lost(&error).await),
                Err(_) if self.link.wire.moved() + self.patience > Instant::now() => {}
                Err(_) => {
                    self.link.end();
                    let what = format!("the server was silent for {} s", self.patience.as_secs());
                    return Err(ProcessFailure::new(ErrorKind::Unavailable, what));
                }
            }
        }
    }
}

impl Link {
    fn leash(&self) -> std::sync::MutexGuard<'_, Option<oneshot::Sender<()>>> {
        self.leash.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        self.leash().take();
    }

    /// Returns why the connection broke, after the client reported `error`.
    async fn lost(&self, error: &Error) -> ProcessFailure {
        let mut end = self.end.clone();
        let ended = timeout(LAST_WORDS_WITHIN, end.wait_for(Option::is_some)).await;
        let ended = ended
            .ok()
            .and_then(Result::ok)
            .and_then(|end| Option::clone(&end));
        self.end();
        if let Some(fault) = self.wire.fault() {
            return ProcessFailure::new(ErrorKind::Permanent, fault);
        }
        match ended {
            Some(end) => ended_as(end.code, &end.said),
            None => {
                let what = format!("the connection broke: {error}");
                ProcessFailure::new(ErrorKind::Unavailable, what)
            }
        }
    }
}

/// Waits for the end of ssh and reports it. Kills ssh when it is released.
async fn accompany(
    mut child: Child,
    stderr: ChildStderr,
    released: oneshot::Receiver<()>,
    report: watch::Sender<Option<End>>,
) {
    let said = Arc::new(Mutex::new(Vec::new()));
    let mut listening = tokio::spawn(listen(stderr, Arc::clone(&said)));
    let ended = match select(pin!(child.wait()), released).await {
        Either::Left((status, _)) => Some(status),
        Either::Right(_) => None,
    };
    let status = match ended {
        Some(status) => status,
        None => {
            // Fails if ssh has just ended.
            let _ = child.start_kill();
            child.wait().await
        }
    };
    if timeout(LAST_WORDS_WITHIN / 2, &mut listening)
        .await
        .is_err()
    {
        listening.abort();
    }
    let said = said.lock().unwrap_or_else(PoisonError::into_inner).clone();
    report.send_replace(Some(End {
        code: status.ok().and_then(|status| status.code()),
        said: last_words(&String::from_utf8_lossy(&said)),
    }));
}

/// Keeps the end of stderr in `said`.
async fn listen(mut stderr: ChildStderr, said: Arc<Mutex<Vec<u8>>>) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stderr.read(&mut buffer).await {
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        said.extend_from_slice(&buffer[..length]);
        let surplus = said.len().saturating_sub(4 * MOST_SAID_BYTES);
        said.drain(..surplus);
    }
}

/// Returns the failure that the end of ssh means.
fn ended_as(code: Option<i32>, said: &str) -> ProcessFailure {
    let ended = |kind, hint: &str| ProcessFailure::ended(kind, hint, "ssh", code, said);
    if let Some((kind, hint)) = ssh::refusal(said) {
        return ended(kind, hint);
    }
    match said.contains("subsystem request failed") {
        true => ended(
            ErrorKind::Permanent,
            "the server has no sftp, or does not allow it for this key; ",
        ),
        false => ended(ErrorKind::Unavailable, ""),
    }
}

/// Returns the failure of a request that the server refused.
fn refused(kind: SftpErrorKind, message: &str) -> ProcessFailure {
    let says = |kind, what: &str| {
        let message = match message {
            "" => "nothing more",
            message => message,
        };
        ProcessFailure::new(kind, format!("{what}; the server says: {message}"))
    };
    match kind {
        SftpErrorKind::NoSuchFile => ProcessFailure::new(ErrorKind::NotFound, "it is not there"),
        SftpErrorKind::PermDenied => says(ErrorKind::Denied, "it is not allowed"),
        SftpErrorKind::BadMessage | SftpErrorKind::OpUnsupported => {
            says(ErrorKind::Permanent, "the server cannot do it")
        }
        _ => says(ErrorKind::Unavailable, "it failed there"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_ssh_is_classified() {
        for (said, kind) in [
            ("me@x: Permission denied (publickey).", ErrorKind::Denied),
            (
                "No ED25519 host key is known for x.; Host key verification failed.",
                ErrorKind::Denied,
            ),
            (
                "subsystem request failed on channel 0",
                ErrorKind::Permanent,
            ),
            (
                "ssh: connect to host x port 22: Connection refused",
                ErrorKind::Unavailable,
            ),
            ("Could not resolve hostname x", ErrorKind::Unavailable),
            ("", ErrorKind::Unavailable),
        ] {
            assert_eq!(ended_as(Some(255), said).kind, kind, "{said}");
        }
        assert_eq!(ended_as(None, "").to_string(), "ssh ended with a signal");
    }

    #[test]
    fn pieces_shrink_to_what_the_server_takes() {
        let size = PieceSize::new();
        assert_eq!((size.get(), size.at_once()), (261_120, 16));
        size.learn(32 << 10);
        assert_eq!((size.get(), size.at_once()), (32 << 10, 64));
        size.learn(1);
        size.learn(1 << 20);
        assert_eq!(size.get(), 4096);
    }
}
