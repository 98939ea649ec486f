//! One call of rsync: its deadline, its retries, and the process itself.

use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStdout, Command};

use super::arguments::Arguments;
use super::outcome::Output;
use super::ssh_master::Master;
use crate::base::rate_schedule::Timetable;
use crate::storage::error::ErrorKind;
use crate::storage::process_failure::ProcessFailure;
use crate::storage::retry::ProcessDeadlines;
use crate::storage::ssh::{self, CONNECT_SECONDS};
use crate::storage::url::RsyncAddress;

/// Lowest rate at which a call is not given up, even if bytes keep moving.
const SLOWEST_BYTES_PER_SECOND: u64 = 8 << 10;

/// The way to a target, for all of its calls.
#[derive(Debug)]
pub(super) struct Transport {
    pub address: RsyncAddress,
    /// The ssh command with its options. `None`: plain `ssh`.
    pub ssh: Option<String>,
    /// Limit for sending. `None`: no limit.
    pub upload: Option<Timetable>,
    /// Limit for fetching. `None`: no limit.
    pub download: Option<Timetable>,
    pub deadlines: ProcessDeadlines,
    pub master: Master,
}

impl Transport {
    /// Runs rsync until it has done all or a part of its work, fails for good, or its retries end.
    /// The deadline of a call grows with the `bytes` to move. `moved` takes the bytes that the
    /// present call has moved so far, if its arguments ask for them.
    pub(super) async fn run(
        &self,
        arguments: Arguments,
        bytes: u64,
        moved: &(dyn Fn(u64) + Sync),
    ) -> Result<Output, ProcessFailure> {
        let contact = &self.deadlines.contact;
        if let Some(failure) = contact.given_up() {
            return Err(failure);
        }
        let mut retries = None;
        loop {
            let (began, deadline) = (Instant::now(), self.deadline(&arguments, bytes));
            let once = contact.watch(self.run_once(&arguments, deadline, moved));
            let failure = match once.await {
                Ok(output) => {
                    contact.reached();
                    return Ok(output);
                }
                Err(failure) => failure,
            };
            // Retries begin with the first failure: a large call may have taken long before it. A
            // call that missed its deadline would miss it again.
            let retries = retries.get_or_insert_with(|| self.deadlines.retries());
            if began.elapsed() >= deadline || !retries.another(&failure).await {
                return Err(retries.described(failure));
            }
        }
    }

    /// Returns the longest time that a call may take.
    fn deadline(&self, arguments: &Arguments, bytes: u64) -> Duration {
        // Half of the limit, because it may become lower during the call.
        let limit = self.limit(arguments).map_or(u64::MAX, |limit| limit / 2);
        let slow = bytes / SLOWEST_BYTES_PER_SECOND.min(limit).max(1);
        let deadline = 4 * self.deadlines.request_seconds;
        Duration::from_secs(deadline.saturating_add(slow))
    }

    async fn run_once(
        &self,
        arguments: &Arguments,
        deadline: Duration,
        moved: &(dyn Fn(u64) + Sync),
    ) -> Result<Output, ProcessFailure> {
        let call = self.call(arguments, moved);
        match tokio::time::timeout(deadline, call).await {
            Ok(done) => done,
            Err(_) => {
                let what = format!("no end after {} s", deadline.as_secs());
                Err(ProcessFailure::new(ErrorKind::Unavailable, what))
            }
        }
    }

    /// Returns the limit of bytes per second now. `None`: no limit.
    fn limit(&self, arguments: &Arguments) -> Option<u64> {
        let timetable = match arguments.is_upload {
            true => &self.upload,
            false => &self.download,
        };
        timetable.as_ref()?.at(crate::base::clock::now())
    }

    /// Returns the socket of an ssh connection for all calls, if there is one.
    async fn master_socket(&self, port: Option<u16>) -> Option<PathBuf> {
        let RsyncAddress::Ssh { login, .. } = &self.address else {
            return None;
        };
        // A master that waits in vain would double the time until the failure is known.
        let contact = &self.deadlines.contact;
        if !contact.was_reached() && contact.patience.limits_connecting() {
            return None;
        }
        let command = || ssh::command(self.ssh.as_deref(), port, login, CONNECT_SECONDS).ok();
        let socket = self.master.socket(command).await?;
        // rsync's `-e` contains it without quotes.
        let plain = socket.to_str()?;
        (!plain.contains([' ', '\'', '"'])).then_some(socket)
    }

    /// Returns the command of a call.
    async fn command(&self, arguments: &Arguments) -> Command {
        let mut command = Command::new("rsync");
        command
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .arg("--no-motd")
            .arg(format!("--timeout={}", self.deadlines.request_seconds));
        let connect_seconds = self.deadlines.connect_seconds(CONNECT_SECONDS);
        match &self.address {
            RsyncAddress::Ssh { port, .. } => {
                let mut ssh = ssh::command_line(self.ssh.as_deref(), *port, connect_seconds);
                if let Some(socket) = self.master_socket(*port).await {
                    ssh = format!("{ssh} -o ControlMaster=no -S {}", socket.display());
                }
                command.arg("-e").arg(ssh);
            }
            RsyncAddress::Daemon { .. } => {
                command.arg(format!("--contimeout={connect_seconds}"));
            }
        }
        if arguments.is_upload {
            // Messages of the other side come with the data. Through ssh's stderr, that of a full
            // disk is often lost.
            command.arg("--stderr=client");
        }
        if let Some(bytes) = self.limit(arguments) {
            command.arg(format!("--bwlimit={}", (bytes / 1024).max(1)));
        }
        command.args(arguments.words(&self.address));
        command
    }

    async fn call(
        &self,
        arguments: &Arguments,
        moved: &(dyn Fn(u64) + Sync),
    ) -> Result<Output, ProcessFailure> {
        let piped = self
            .command(arguments)
            .await
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut child = piped.map_err(|error| {
            let what = match error.kind() {
                io::ErrorKind::NotFound => "rsync is not installed, or not on the PATH".to_owned(),
                _ => format!("cannot start rsync: {error}"),
            };
            ProcessFailure::new(ErrorKind::Permanent, what)
        })?;
        if let Some(mut stdin) = child.stdin.take() {
            // If rsync ended early, its exit code says why.
            let _ = stdin.write_all(&arguments.input).await;
        }
        // What moved before counts no more if this call repeats it.
        moved(0);
        let printed = child.stdout.take();
        let (stdout, output) = tokio::join!(printed_text(printed, moved), child.wait_with_output());
        let lost = |error| {
            let what = format!("lost rsync: {error}");
            ProcessFailure::new(ErrorKind::Unavailable, what)
        };
        let (stdout, output) = (stdout.map_err(lost)?, output.map_err(lost)?);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&stdout), text(&output.stderr));
        Output::of(output.status.code(), stdout, stderr)
    }
}

/// Reads what rsync prints to its end, and passes on the progress in it.
async fn printed_text(
    printed: Option<ChildStdout>,
    moved: &(dyn Fn(u64) + Sync),
) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let Some(mut printed) = printed else {
        return Ok(text);
    };
    let mut fresh = 0;
    while printed.read_buf(&mut text).await? > 0 {
        let mut words = text[fresh..].rsplitn(2, |byte| matches!(byte, b'\r' | b'\n'));
        let unfinished = words.next().map_or(0, <[u8]>::len);
        let last = words.next().and_then(|finished| {
            let mut lines = finished.rsplit(|byte| matches!(byte, b'\r' | b'\n'));
            lines.find_map(moved_bytes)
        });
        // rsync ends a line of progress when it prints the next.
        if let Some(bytes) = moved_bytes(&text[text.len() - unfinished..]).or(last) {
            moved(bytes);
        }
        fresh = text.len() - unfinished;
    }
    Ok(text)
}

/// Returns the bytes that a line of `--info=progress2` names, such as
/// `  1,310,720  12%    1.25MB/s    0:00:07`. `None`: it is another line.
fn moved_bytes(line: &[u8]) -> Option<u64> {
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let (bytes, percent) = (words.next()?, words.next()?);
    let rate = words.next()?;
    if !percent.ends_with('%') || !rate.ends_with("/s") {
        return None;
    }
    bytes.replace([',', '.'], "").parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn lines_of_progress_are_told_from_others() {
        let line = "      1,310,720  12%    1.25MB/s    0:00:07 (xfr#1, to-chk=0/2)";
        assert_eq!(moved_bytes(line.as_bytes()), Some(1_310_720));
        for other in [
            "",
            "<f+++++++++ h/archives/12 50%",
            "12 50%",
            "sent 12 bytes",
        ] {
            assert_eq!(moved_bytes(other.as_bytes()), None, "{other}");
        }
    }

    use super::*;
    use crate::storage::spec::TargetSpec;

    #[test]
    fn the_deadline_grows_with_a_low_limit() {
        let transport = |upload: Option<u64>| Transport {
            address: RsyncAddress::Daemon {
                authority: "nas".to_owned(),
                path: "module".to_owned(),
            },
            ssh: None,
            upload: upload.map(Timetable::constant),
            download: None,
            deadlines: ProcessDeadlines::of(&TargetSpec {
                timeout_seconds: Some(10),
                ..TargetSpec::default()
            }),
            master: Master::default(),
        };
        let mut sends = Arguments::new();
        sends.upload();
        let seconds = |limit, arguments: &Arguments| {
            let deadline = transport(limit).deadline(arguments, 8 << 20);
            deadline.as_secs()
        };
        assert_eq!(seconds(None, &sends), 40 + 1024);
        assert_eq!(seconds(Some(1 << 20), &sends), 40 + 1024);
        assert_eq!(seconds(Some(1 << 10), &sends), 40 + 16384);
        assert_eq!(seconds(Some(1 << 10), &Arguments::new()), 40 + 1024);
    }
}
