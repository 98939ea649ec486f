//! A terminal of 80 columns and 24 rows, on which a test runs a command and answers its questions.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

pub const COLUMNS: usize = 80;
pub const ROWS: usize = 24;

/// Longest time for a command.
const DEADLINE: Duration = Duration::from_secs(300);
/// How long the terminal must be quiet after a command ended.
const QUIET: Duration = Duration::from_millis(300);

/// What a command did on the terminal.
pub struct Seen {
    pub code: i32,
    /// Each byte that was written.
    pub bytes: String,
    /// The longest time in which nothing was written.
    pub silence: Duration,
}

/// Runs `command` on a terminal of its own. The second part of each of `answers` is typed when the first is shown.
pub fn run(mut command: Command, answers: &[(&str, &str)]) -> Seen {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let size = Winsize {
        ws_row: ROWS as u16,
        ws_col: COLUMNS as u16,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&master, size).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let slave = File::options()
        .read(true)
        .write(true)
        .open(PathBuf::from(name.into_string().unwrap()))
        .unwrap();
    command
        .stdin(slave.try_clone().unwrap())
        .stdout(slave.try_clone().unwrap())
        .stderr(slave);
    // SAFETY: both are system calls, which may come between fork and exec.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            Ok(rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?)
        });
    }
    let mut child = command.spawn().unwrap();
    // It holds the terminal's other end.
    drop(command);

    let mut keyboard = File::from(master);
    let mut screen = keyboard.try_clone().unwrap();
    let (sender, pieces) = mpsc::channel();
    thread::spawn(move || {
        let mut piece = vec![0; 64 << 10];
        // The end of a terminal is an error.
        while let Ok(length @ 1..) = screen.read(&mut piece) {
            if sender.send(piece[..length].to_vec()).is_err() {
                return;
            }
        }
    });
    let (mut seen, mut answers) = (Vec::new(), answers.iter().peekable());
    let (began, mut last, mut silence) = (Instant::now(), Instant::now(), Duration::ZERO);
    let mut code = None;
    loop {
        match pieces.recv_timeout(QUIET) {
            Ok(piece) => {
                silence = silence.max(last.elapsed());
                last = Instant::now();
                seen.extend(piece);
            }
            Err(RecvTimeoutError::Timeout) if code.is_some() => break,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        let text = String::from_utf8_lossy(&seen);
        if let Some((_, answer)) = answers.next_if(|(question, _)| text.contains(question)) {
            keyboard
                .write_all(format!("{answer}\n").as_bytes())
                .unwrap();
        }
        code = code.or_else(|| child.try_wait().unwrap());
        if began.elapsed() > DEADLINE {
            let _ = child.kill();
        }
    }
    let code = child.wait().unwrap().code().unwrap_or(-1);
    assert!(
        answers.peek().is_none(),
        "no question: {:?}",
        answers.peek()
    );
    Seen {
        code,
        bytes: String::from_utf8(seen).unwrap(),
        silence,
    }
}
