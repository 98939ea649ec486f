//! A sealift on another machine, started by a command that leads there, such as `ssh root@dalidou`.
//!
//! Its standard input takes what we send; its standard output is read line by line, and of its
//! standard error the end is kept. Threads do the reading, so that no wait is without a deadline.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::process_failure::{MOST_SAID_BYTES, last_words};
use super::ssh::{self, CONNECT_SECONDS};
use crate::base::lock::lock;

/// The variable that names the file of an identity's passphrase.
const PASSPHRASE_FILE: &str = "SEALIFT_PASSPHRASE_FILE";
/// Longest line of the other side, in bytes.
const MAX_LINE_BYTES: u64 = 4 << 20;
/// Lines that wait.
const MOST_LINES: usize = 16;
/// Pause between two looks at a process that is to end.
const POLL: Duration = Duration::from_millis(20);
/// How long a write waits before it looks again whether the other side was given up.
const WRITE_POLL: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};
/// How long the rest of stderr is awaited after the end of the process.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(2);

/// Why a command could not be started or followed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ViaError {
    /// The setting is wrong.
    #[error("the command {0}")]
    Command(String),
    /// The program could not be started.
    #[error("cannot start {program}")]
    Start {
        /// The first word of the command.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The other side printed nothing for too long.
    #[error("the other side has been silent for {0} s")]
    Silent(u64),
}

/// A command that leads to another machine.
#[derive(Debug, Clone)]
pub(crate) struct ViaCommand {
    /// The program and its arguments, at least one.
    words: Vec<String>,
}

/// A line of the other side.
#[derive(Debug)]
pub(crate) enum ViaOutput {
    /// On stdout, without its newline.
    Printed(String),
    /// On stderr.
    Said(String),
}

/// How the process ended.
#[derive(Debug)]
pub(crate) struct ViaEnd {
    /// Its exit code. `None`: a signal ended it.
    pub(crate) code: Option<i32>,
    /// Its last words on stderr, on one line.
    pub(crate) said: String,
}

impl ViaCommand {
    /// Splits a command line as the setting `ssh` of a target is split. ssh gets options that end a
    /// dead connection, unless the line has them.
    pub(crate) fn parse(line: &str) -> Result<Self, ViaError> {
        ssh::check_command(line).map_err(ViaError::Command)?;
        let mut words = ssh::words(line).unwrap_or_default();
        let is_ssh = Path::new(&words[0]).file_name() == Some("ssh".as_ref());
        if is_ssh {
            let connect = format!("ConnectTimeout={CONNECT_SECONDS}");
            for option in ["ServerAliveCountMax=4", "ServerAliveInterval=15", &connect] {
                let name = option.split('=').next().unwrap_or_default();
                if !line.contains(name) {
                    words.splice(1..1, ["-o".to_owned(), option.to_owned()]);
                }
            }
        }
        Ok(Self { words })
    }

    /// Returns the command line, for messages.
    pub(crate) fn text(&self) -> String {
        self.words.join(" ")
    }

    /// Starts the command with `arguments` after it. ssh passes them to a shell, so they must be
    /// plain words.
    pub(crate) fn start(&self, arguments: &[String]) -> Result<ViaProcess, ViaError> {
        let program = &self.words[0];
        let fail = |source| ViaError::Start {
            program: program.clone(),
            source,
        };
        let mut child = Command::new(program)
            .args(&self.words[1..])
            .args(arguments)
            // It names a file of this machine, and ssh may be set to send the environment.
            .env_remove(PASSPHRASE_FILE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(fail)?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (send, output) = sync_channel(MOST_LINES);
        let mut process = ViaProcess {
            child,
            input: pipes.0,
            output,
            said: Arc::default(),
            is_given_up: Arc::default(),
        };
        let said = Arc::clone(&process.said);
        let started = match (pipes.1, pipes.2) {
            (Some(stdout), Some(stderr)) => {
                let printing = send.clone();
                spawn("via-stdout", move || {
                    read_lines(stdout, &printing, ViaOutput::Printed);
                })
                .and_then(|()| {
                    spawn("via-stderr", move || {
                        listen(stderr, &send, &said);
                    })
                })
            }
            _ => Err(io::Error::other("it has no pipes")),
        };
        if let Err(source) = started {
            process.kill();
            return Err(fail(source));
        }
        Ok(process)
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let named = std::thread::Builder::new().name(name.to_owned());
    named.spawn(work).map(drop)
}

/// Passes on the lines of `from`. One that is too long ends it.
fn read_lines(from: impl Read, to: &SyncSender<ViaOutput>, kind: impl Fn(String) -> ViaOutput) {
    let mut from = BufReader::new(from);
    loop {
        let mut line = Vec::new();
        let read = (&mut from)
            .take(MAX_LINE_BYTES)
            .read_until(b'\n', &mut line);
        let is_whole = line.pop_if(|last| *last == b'\n').is_some();
        if !matches!(read, Ok(1..)) || line.len() as u64 >= MAX_LINE_BYTES - 1 {
            return;
        }
        // A line that the connection cut is none, and ends it.
        let text = String::from_utf8_lossy(&line).into_owned();
        if !is_whole || to.send(kind(text)).is_err() {
            return;
        }
    }
}

/// Passes on the lines of stderr, and keeps its end in `said`.
fn listen(stderr: impl Read, to: &SyncSender<ViaOutput>, said: &Mutex<Vec<u8>>) {
    let mut stderr = stderr;
    let mut buffer = [0; 4096];
    let mut line = Vec::new();
    while let Ok(count @ 1..) = stderr.read(&mut buffer) {
        {
            let mut said = lock(said);
            said.extend_from_slice(&buffer[..count]);
            let surplus = said.len().saturating_sub(4 * MOST_SAID_BYTES);
            said.drain(..surplus);
        }
        for byte in &buffer[..count] {
            if *byte != b'\n' && line.len() < 4 * MOST_SAID_BYTES {
                line.push(*byte);
                continue;
            }
            let text = String::from_utf8_lossy(&line).into_owned();
            line.clear();
            if to.send(ViaOutput::Said(text)).is_err() {
                return;
            }
        }
    }
}

/// The standard input of the other side. A write waits while the other side takes nothing, but no
/// longer than the process is wanted: another process may keep the pipe open after it.
#[derive(Debug)]
pub(crate) struct ViaInput {
    pipe: ChildStdin,
    is_given_up: Arc<AtomicBool>,
}

impl ViaInput {
    fn new(pipe: ChildStdin, is_given_up: Arc<AtomicBool>) -> io::Result<Self> {
        let flags = fcntl_getfl(&pipe)?;
        fcntl_setfl(&pipe, flags | OFlags::NONBLOCK)?;
        Ok(Self { pipe, is_given_up })
    }
}

impl Write for ViaInput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            if self.is_given_up.load(Ordering::Relaxed) {
                return Err(io::Error::other("the other side was given up"));
            }
            match self.pipe.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let pipe = PollFd::from_borrowed_fd(self.pipe.as_fd(), PollFlags::OUT);
                    poll(&mut [pipe], Some(&WRITE_POLL))?;
                }
                other => return other,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pipe.flush()
    }
}

/// A running command. Dropped, it is killed.
pub(crate) struct ViaProcess {
    child: Child,
    input: Option<ChildStdin>,
    output: Receiver<ViaOutput>,
    /// The end of stderr.
    said: Arc<Mutex<Vec<u8>>>,
    /// Ends the writes to its standard input.
    is_given_up: Arc<AtomicBool>,
}

impl ViaProcess {
    /// Takes its standard input; dropping that closes it. Fails if it was taken before.
    pub(crate) fn take_input(&mut self) -> io::Result<ViaInput> {
        let taken = || io::Error::other("its input was taken before");
        let pipe = self.input.take().ok_or_else(taken)?;
        ViaInput::new(pipe, Arc::clone(&self.is_given_up))
    }

    /// Waits for the next line. `None`: there are no more.
    pub(crate) fn next(&self, patience: Duration) -> Result<Option<ViaOutput>, ViaError> {
        match self.output.recv_timeout(patience) {
            Ok(output) => Ok(Some(output)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => Err(ViaError::Silent(patience.as_secs())),
        }
    }

    /// Waits for its end, at most for `patience`. Returns whether it has ended.
    fn has_ended_within(&mut self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < until => std::thread::sleep(POLL),
                ended => return matches!(ended, Ok(Some(_))),
            }
        }
    }

    /// Ends it, and kills it if it does not end by itself within `patience`. Then writes to it end,
    /// even if a process that it started goes on.
    pub(crate) fn stop(&mut self, patience: Duration) {
        if !self.has_ended_within(patience) {
            self.kill();
        }
        self.is_given_up.store(true, Ordering::Relaxed);
    }

    /// Closes its standard input and waits for its end.
    pub(crate) fn end(mut self, patience: Duration) -> Result<ViaEnd, ViaError> {
        drop(self.input.take());
        if !self.has_ended_within(patience) {
            return Err(ViaError::Silent(patience.as_secs()));
        }
        let code = self.child.wait().ok().and_then(|status| status.code());
        let until = Instant::now() + LAST_WORDS_WITHIN;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            if !matches!(self.next(left), Ok(Some(_))) {
                break;
            }
        }
        let said = String::from_utf8_lossy(&lock(&self.said)).into_owned();
        Ok(ViaEnd {
            code,
            said: last_words(&said),
        })
    }

    fn kill(&mut self) {
        // Fails if it has just ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for ViaProcess {
    fn drop(&mut self) {
        drop(self.input.take());
        self.stop(Duration::ZERO);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn ssh_gets_the_options_that_the_line_lacks() {
        let words = |line| ViaCommand::parse(line).unwrap().words;
        assert_eq!(
            words("docker exec -i host"),
            ["docker", "exec", "-i", "host"]
        );
        let plain = words("/usr/bin/ssh root@x sudo");
        assert_eq!(plain[0], "/usr/bin/ssh");
        assert_eq!(plain[7..], ["root@x", "sudo"]);
        assert!(plain.contains(&"ServerAliveInterval=15".to_owned()));
        let own = words("ssh -o ConnectTimeout=3 root@x");
        let timeouts = own.iter().filter(|word| word.starts_with("ConnectTimeout"));
        assert_eq!(timeouts.collect::<Vec<_>>(), ["ConnectTimeout=3"]);
        assert!(ViaCommand::parse("ssh 'x").is_err());
        assert!(ViaCommand::parse(" ").is_err());
    }

    #[test]
    fn lines_arrive_and_the_end_is_known() {
        let script = "echo one; echo no >&2; read answer; echo \"$answer\"; exit 3";
        let via = ViaCommand::parse(&format!("sh -c '{script}'")).unwrap();
        let mut process = via.start(&[]).unwrap();
        let mut printed = Vec::new();
        process.take_input().unwrap().write_all(b"two\n").unwrap();
        while let Some(output) = process.next(SOON).unwrap() {
            if let ViaOutput::Printed(line) = output {
                printed.push(line);
            }
        }
        assert_eq!(printed, ["one", "two"]);
        let end = process.end(SOON).unwrap();
        assert_eq!((end.code, end.said.as_str()), (Some(3), "no"));
    }

    /// Kind: a wait for a process that was ended, while one that it started holds its pipe.
    #[test]
    fn a_write_ends_with_the_process_though_another_one_holds_the_pipe() {
        let via = ViaCommand::parse("sh -c 'sleep 5 & wait'").unwrap();
        let mut process = via.start(&[]).unwrap();
        let mut input = process.take_input().unwrap();
        assert!(process.take_input().is_err());
        let began = Instant::now();
        let writing = std::thread::spawn(move || input.write_all(&vec![0; 4 << 20]));
        process.stop(Duration::from_millis(200));
        assert!(writing.join().unwrap().is_err());
        assert!(began.elapsed() < Duration::from_secs(4));
    }

    #[test]
    fn silence_has_an_end() {
        let via = ViaCommand::parse("sleep 600").unwrap();
        let process = via.start(&[]).unwrap();
        let silent = process.next(Duration::from_millis(30));
        assert!(matches!(silent, Err(ViaError::Silent(0))));
        assert!(process.end(Duration::from_millis(30)).is_err());
    }
}
