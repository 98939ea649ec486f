//! One call of rsync: where to, with what patience, and what its failure means.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::super::process_failure::{Failure, shortened};
use super::super::retry::Patience;
use super::super::{ErrorKind, ssh};
use super::ssh_master::Master;
use crate::base::rate_schedule::Timetable;

/// Slower than this a call is given up, should no byte be long in coming.
const SLOWEST_BYTES_PER_SECOND: u64 = 8 << 10;

/// Where objects lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Remote {
    Ssh {
        /// `host` or `user@host`.
        login: String,
        port: Option<u16>,
        /// Absolute, or below the home directory.
        path: String,
    },
    Daemon {
        /// `host`, `host:port` or `user@host:port`.
        authority: String,
        /// The module, and what is below it.
        path: String,
    },
}

impl Remote {
    /// The argument for what lies at `below` (which is empty or ends with a slash).
    fn argument(&self, below: &str) -> String {
        let joined = |path: &str| match path.trim_end_matches('/') {
            "" if path.is_empty() => below.to_owned(),
            path => format!("{path}/{below}"),
        };
        match self {
            Self::Ssh { login, path, .. } => match joined(path).as_str() {
                "" => format!("{login}:./"),
                path => format!("{login}:{path}"),
            },
            Self::Daemon { authority, path } => format!("rsync://{authority}/{}", joined(path)),
        }
    }
}

impl Remote {
    /// The path below a daemon's module, with a slash at its end if there is one. Files by name are fetched from
    /// the module itself: rsync 3.5 does not find them from a folder in a module that is no chroot.
    pub(super) fn inner(&self) -> String {
        match self {
            Self::Ssh { .. } => String::new(),
            Self::Daemon { path, .. } => match path.split_once('/') {
                Some((_, below)) if !below.is_empty() => format!("{below}/"),
                _ => String::new(),
            },
        }
    }

    fn outer(&self) -> String {
        match self {
            Self::Ssh { .. } => self.argument(""),
            Self::Daemon { authority, path } => {
                let module = path.split('/').next().unwrap_or(path);
                format!("rsync://{authority}/{module}/")
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct Transport {
    pub remote: Remote,
    /// The command, with its options, instead of plain `ssh`.
    pub ssh: Option<String>,
    pub upload: Option<Timetable>,
    pub download: Option<Timetable>,
    pub patience: Patience,
    pub master: Master,
}

/// What a call is to do.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    words: Vec<Word>,
    /// For `--files-from`.
    input: Vec<u8>,
    is_upload: bool,
}

#[derive(Debug)]
enum Word {
    Plain(OsString),
    /// Below the remote's path.
    Remote(String),
    /// Where [`Remote::inner`] begins.
    Outer,
}

impl Arguments {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn add<S: AsRef<OsStr>>(&mut self, words: impl IntoIterator<Item = S>) {
        let words = words
            .into_iter()
            .map(|word| Word::Plain(word.as_ref().to_owned()));
        self.words.extend(words);
    }

    /// Only these, with the folders that lead there.
    pub(super) fn files_from(&mut self, keys: &[String]) {
        self.add(["--files-from=-", "--from0"]);
        for key in keys {
            self.input.extend_from_slice(key.as_bytes());
            self.input.push(0);
        }
    }

    pub(super) fn local(&mut self, folder: &Path) {
        let mut path = folder.as_os_str().to_owned();
        path.push("/");
        self.words.push(Word::Plain(path));
    }

    /// It sends what it moves.
    pub(super) fn upload(&mut self) {
        self.is_upload = true;
    }

    /// What [`Remote::inner`] is below.
    pub(super) fn outer(&mut self) {
        self.words.push(Word::Outer);
    }

    pub(super) fn remote(&mut self, below: &str) {
        self.words.push(Word::Remote(below.to_owned()));
    }
}

/// What a call did.
#[derive(Debug)]
pub(super) struct Output {
    pub stdout: String,
    stderr: String,
    /// It did not do all of it.
    partial: Option<Failure>,
}

impl Output {
    /// Everything, or why not.
    pub(super) fn complete(self) -> Result<String, Failure> {
        match self.partial {
            None => Ok(self.stdout),
            Some(failure) => Err(failure),
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.partial.is_none()
    }

    /// Whether the folder itself that was asked for is not there, by the one complaint that says so.
    pub(super) fn is_absent(&self) -> bool {
        let complaints = self
            .stderr
            .lines()
            .filter(|line| line.starts_with("rsync: "));
        // The other side ends first.
        let at_the_end = |line: &&str| {
            line.contains("] read error: ") || line.contains("] write error: Broken pipe")
        };
        let mut complaints = complaints.filter(|line| !at_the_end(line)).peekable();
        let says_so = |line: &str| {
            let of_it = line.contains("change_dir") || line.contains("link_stat");
            of_it && line.contains("failed: No such file or directory")
        };
        !self.is_complete() && complaints.peek().is_some() && complaints.all(says_so)
    }

    /// Why the object `name` was not fetched.
    pub(super) fn why_not(&self, name: &str) -> Failure {
        let quoted = format!("/{name}\"");
        let bare = format!("\"{name}\"");
        let is_its = |line: &&str| line.contains(&quoted) || line.contains(&bare);
        let mut its = self.stderr.lines().filter(is_its);
        let is_gone = |line: &str| {
            line.contains("No such file or directory") || line.starts_with("file has vanished")
        };
        match its.next() {
            Some(line) if is_gone(line) => Failure::not_found(),
            Some(line) => failure(Some(PARTIAL), line),
            // Nothing is said of it: either nothing at all is there, or it was not sent for another reason.
            None if self.stderr.lines().any(is_no_folder) => Failure::not_found(),
            None => failure(Some(PARTIAL), &shortened(&self.stderr)),
        }
    }
}

fn is_no_folder(line: &str) -> bool {
    line.contains("change_dir") && line.contains("failed: No such file or directory")
}

/// rsync's code for: not all of it.
const PARTIAL: i32 = 23;
const VANISHED: i32 = 24;

impl Failure {
    pub(super) fn interrupted() -> Self {
        Self::new(ErrorKind::Unavailable, "the call of rsync was given up")
    }

    /// This machine's own disk.
    pub(super) fn local(error: &io::Error) -> Self {
        let what = format!("cannot use a temporary folder: {error}");
        Self::new(ErrorKind::Unavailable, what)
    }

    pub(super) fn unreadable(path: &Path) -> Self {
        let what = format!("cannot read {}", path.display());
        Self::new(ErrorKind::Permanent, what)
    }

    pub(super) fn not_found() -> Self {
        Self::new(ErrorKind::NotFound, "it is not there")
    }

    pub(super) fn too_large(most_bytes: u64) -> Self {
        let what = format!("it has more than {most_bytes} bytes, or is no file");
        Self::new(ErrorKind::Permanent, what)
    }
}

/// What the end of a call means, by its exit code and what was said.
fn failure(code: Option<i32>, said: &str) -> Failure {
    let says = |texts: &[&str]| texts.iter().any(|text| said.contains(text));
    let told = |kind, hint: &str| {
        let code = code.map_or("a signal".to_owned(), |code| format!("code {code}"));
        let said = match said.is_empty() {
            true => String::new(),
            false => format!(": {said}"),
        };
        Failure::new(kind, format!("{hint}rsync ended with {code}{said}"))
    };
    if let Some((kind, hint)) = ssh::refusal(said) {
        return told(kind, hint);
    }
    if says(&["Another instance of rrsync"]) {
        return told(
            ErrorKind::Unavailable,
            "rrsync there takes one call at a time; ",
        );
    }
    // What rsync 3.5's `rrsync` says of a folder that is not there, in place of rsync's own complaint.
    if says(&["rrsync error: post-realpath open failed"]) && says(&["No such file or directory"]) {
        return told(ErrorKind::NotFound, "");
    }
    if says(&["@ERROR: auth failed", "rrsync error", "is read only"]) {
        return told(ErrorKind::Denied, "");
    }
    if says(&["Unknown module", "command not found", "unknown option"]) {
        return told(ErrorKind::Permanent, "");
    }
    if says(&["No space left on device", "Disk quota exceeded"]) {
        return told(
            ErrorKind::Unavailable,
            "a disk is full (the target's, or the one here for temporary files); ",
        );
    }
    match code {
        // Bad usage, no such protocol, not supported.
        Some(1..=4) => told(ErrorKind::Permanent, ""),
        _ => told(ErrorKind::Unavailable, ""),
    }
}

impl Transport {
    /// Runs rsync until it has done all or some of it, fails for good, or patience ends. The deadline grows with
    /// the `bytes` to be moved.
    pub(super) async fn run(&self, arguments: Arguments, bytes: u64) -> Result<Output, Failure> {
        let mut retries = None;
        loop {
            let (began, deadline) = (Instant::now(), self.deadline(&arguments, bytes));
            let failure = match self.run_once(&arguments, deadline).await {
                Ok(output) => return Ok(output),
                Err(failure) => failure,
            };
            // Patience begins with the first failure: a large call may have taken its time before. One that had no end
            // would have none again.
            let retries = retries.get_or_insert_with(|| self.patience.retries());
            if began.elapsed() >= deadline || !retries.another(&failure).await {
                return Err(retries.told(failure));
            }
        }
    }

    /// Until when a call must have ended, from its beginning.
    fn deadline(&self, arguments: &Arguments, bytes: u64) -> Duration {
        // Half of a limit: its changes are not foreseen.
        let limit = self.limit(arguments).map_or(u64::MAX, |limit| limit / 2);
        let slow = bytes / SLOWEST_BYTES_PER_SECOND.min(limit).max(1);
        let deadline = 4 * self.patience.request_seconds;
        Duration::from_secs(deadline.saturating_add(slow))
    }

    async fn run_once(&self, arguments: &Arguments, deadline: Duration) -> Result<Output, Failure> {
        let call = self.call(arguments);
        match tokio::time::timeout(deadline, call).await {
            Ok(done) => done,
            Err(_) => {
                let what = format!("no end after {} s", deadline.as_secs());
                Err(Failure::new(ErrorKind::Unavailable, what))
            }
        }
    }

    /// Bytes per second, now.
    fn limit(&self, arguments: &Arguments) -> Option<u64> {
        let timetable = match arguments.is_upload {
            true => &self.upload,
            false => &self.download,
        };
        timetable.as_ref()?.at(crate::base::clock::now())
    }

    /// Of a connection that stands already, if there is one.
    async fn master_socket(&self, port: Option<u16>) -> Option<PathBuf> {
        let Remote::Ssh { login, .. } = &self.remote else {
            return None;
        };
        let command = || ssh::command(self.ssh.as_deref(), port, login).ok();
        let socket = self.master.socket(command).await?;
        // It stands unquoted in rsync's `-e`.
        let plain = socket.to_str()?;
        (!plain.contains([' ', '\'', '"'])).then_some(socket)
    }

    async fn call(&self, arguments: &Arguments) -> Result<Output, Failure> {
        let mut command = Command::new("rsync");
        command
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .arg("--no-motd")
            .arg(format!("--timeout={}", self.patience.request_seconds));
        match &self.remote {
            Remote::Ssh { port, .. } => {
                let mut ssh = ssh::command_line(self.ssh.as_deref(), *port);
                if let Some(socket) = self.master_socket(*port).await {
                    ssh = format!("{ssh} -o ControlMaster=no -S {}", socket.display());
                }
                command.arg("-e").arg(ssh);
            }
            Remote::Daemon { .. } => {
                let seconds = ssh::CONNECT_SECONDS;
                command.arg(format!("--contimeout={seconds}"));
            }
        }
        if arguments.is_upload {
            // What the other side says comes the way the data go: by ssh's, an end for want of disk is often lost.
            command.arg("--stderr=client");
        }
        if let Some(bytes) = self.limit(arguments) {
            command.arg(format!("--bwlimit={}", (bytes / 1024).max(1)));
        }
        for word in &arguments.words {
            match word {
                Word::Plain(word) => command.arg(word),
                Word::Remote(below) => command.arg(self.remote.argument(below)),
                Word::Outer => command.arg(self.remote.outer()),
            };
        }
        let piped = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut child = piped.map_err(|error| {
            let what = match error.kind() {
                io::ErrorKind::NotFound => {
                    "rsync is not installed here, or not on the PATH".to_owned()
                }
                _ => format!("cannot start rsync: {error}"),
            };
            Failure::new(ErrorKind::Permanent, what)
        })?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that ended early has its own reason.
            let _ = stdin.write_all(&arguments.input).await;
        }
        let output = child.wait_with_output().await.map_err(|error| {
            let what = format!("lost rsync: {error}");
            Failure::new(ErrorKind::Unavailable, what)
        })?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        let partial = match output.status.code() {
            Some(0) => None,
            code @ Some(PARTIAL | VANISHED) => Some(failure(code, &shortened(&stderr))),
            code => return Err(failure(code, &shortened(&stderr))),
        };
        Ok(Output {
            stdout,
            stderr,
            partial,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_name_what_they_name() {
        let ssh = |path: &str| Remote::Ssh {
            login: "me@laptop".to_owned(),
            port: None,
            path: path.to_owned(),
        };
        assert_eq!(ssh("/backups").argument("h/"), "me@laptop:/backups/h/");
        assert_eq!(ssh("/").argument(""), "me@laptop:/");
        assert_eq!(ssh("backups/").argument(""), "me@laptop:backups/");
        assert_eq!(ssh("").argument(""), "me@laptop:./");
        assert_eq!(ssh("").argument("h/"), "me@laptop:h/");
        let daemon = Remote::Daemon {
            authority: "nas:8730".to_owned(),
            path: "module/below".to_owned(),
        };
        assert_eq!(daemon.argument("h/"), "rsync://nas:8730/module/below/h/");
        assert_eq!(daemon.outer() + &daemon.inner(), daemon.argument(""));
        assert_eq!(ssh("/b").outer() + &ssh("/b").inner(), "me@laptop:/b/");
    }

    #[test]
    fn what_is_slow_by_its_limit_has_time() {
        let transport = |upload: Option<u64>| Transport {
            remote: Remote::Daemon {
                authority: "nas".to_owned(),
                path: "module".to_owned(),
            },
            ssh: None,
            upload: upload.map(Timetable::constant),
            download: None,
            patience: Patience {
                request_seconds: 10,
                retry_seconds: 0,
            },
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

    #[test]
    fn failures_are_told_apart() {
        for (code, said, kind) in [
            (
                255,
                "ssh: connect to host x port 22: Connection refused",
                ErrorKind::Unavailable,
            ),
            (255, "Could not resolve hostname x", ErrorKind::Unavailable),
            (
                255,
                "me@x: Permission denied (publickey).",
                ErrorKind::Denied,
            ),
            (255, "Host key verification failed.", ErrorKind::Denied),
            (
                11,
                "write failed on \"x\": No space left on device (28)",
                ErrorKind::Unavailable,
            ),
            (
                12,
                "/usr/bin/rrsync error: post-realpath open failed (race detected): /h/ No such file or directory",
                ErrorKind::NotFound,
            ),
            (5, "@ERROR: Unknown module 'x'", ErrorKind::Permanent),
            (5, "@ERROR: auth failed on module x", ErrorKind::Denied),
            (
                30,
                "io timeout after 5 seconds -- exiting",
                ErrorKind::Unavailable,
            ),
            (1, "syntax or usage error", ErrorKind::Permanent),
        ] {
            assert_eq!(failure(Some(code), said).kind, kind, "{code} {said}");
        }
        assert_eq!(failure(None, "").to_string(), "rsync ended with a signal");
    }

    #[test]
    fn what_is_not_there_is_told_from_what_could_not_be_read() {
        let partial = |stderr: &str| Output {
            stdout: String::new(),
            stderr: stderr.to_owned(),
            partial: Some(failure(Some(PARTIAL), stderr)),
        };
        let absent = "rsync: [sender] change_dir \"/b/h\" failed: No such file or directory (2)\n\
                      rsync error: some files/attrs were not transferred (code 23)\n";
        assert!(partial(absent).is_absent());
        for other in [
            "rsync: [sender] opendir \"/b/h/x\" failed: Permission denied (13)\n",
            "rsync: [sender] opendir \"/b/h/x\" failed: No such file or directory (2)\n",
            "file has vanished: \"/b/h/x\"\n",
            "Warning: Identity file x not accessible: No such file or directory.\n",
            "rsync: [sender] change_dir \"/b\" failed: No such file or directory (2)\n\
             rsync: [sender] read errors mapping \"/b/y\": Input/output error (5)\n",
        ] {
            assert!(!partial(other).is_absent(), "{other}");
        }
        let some = partial(
            "rsync: [sender] link_stat \"/b/h/gone\" failed: No such file or directory (2)\n\
             rsync: [sender] send_files failed to open \"/b/h/closed\": Permission denied (13)\n\
             rsync: [sender] read errors mapping \"/b/h/broken\": Input/output error (5)\n",
        );
        assert_eq!(some.why_not("h/gone").kind, ErrorKind::NotFound);
        assert_eq!(some.why_not("h/closed").kind, ErrorKind::Denied);
        assert_eq!(some.why_not("h/broken").kind, ErrorKind::Unavailable);
        assert_ne!(some.why_not("h/other").kind, ErrorKind::NotFound);
        // Others that are not there say nothing of one that was too large.
        let others = partial(
            "rsync: [sender] link_stat \"/b/h/gone\" failed: No such file or directory (2)\n",
        );
        assert_ne!(others.why_not("h/large").kind, ErrorKind::NotFound);
        assert_eq!(partial(absent).why_not("h/x").kind, ErrorKind::NotFound);
    }
}
