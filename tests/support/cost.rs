//! Runs a program and measures what it takes.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a run took, and what it printed.
pub struct Cost {
    pub wall: Duration,
    /// The time on the processor, which other work of the machine does not lengthen.
    pub processor: Duration,
    pub peak_bytes: u64,
    pub said: String,
}

/// Runs `command`, whose messages go to the file `stderr` in `dir`; it must end with exit code 0.
pub fn cost(command: &mut Command, dir: &Path) -> Cost {
    cost_exits(command, dir, &[0])
}

/// Runs `command` as [`cost`] does; it must end with one of these exit codes.
#[allow(clippy::zombie_processes)] // `wait4` waits for it.
pub fn cost_exits(command: &mut Command, dir: &Path, codes: &[i32]) -> Cost {
    let began = Instant::now();
    let stderr = dir.join("stderr");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(fs::File::create(&stderr).unwrap())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_to_string(&mut said).unwrap();
    let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
    // SAFETY: both are places for what the call writes; the child was not waited for.
    let usage = unsafe {
        assert!(libc::wait4(child.id() as i32, &mut status, 0, usage.as_mut_ptr()) > 0);
        usage.assume_init()
    };
    let wall = began.elapsed();
    let messages = fs::read_to_string(stderr).unwrap();
    assert!(
        libc::WIFEXITED(status) && codes.contains(&libc::WEXITSTATUS(status)),
        "{command:?}: {messages}\n{said}"
    );
    Cost {
        wall,
        processor: time(usage.ru_utime) + time(usage.ru_stime),
        peak_bytes: usage.ru_maxrss as u64 * 1024,
        said,
    }
}

fn time(value: libc::timeval) -> Duration {
    Duration::from_secs(value.tv_sec as u64) + Duration::from_micros(value.tv_usec as u64)
}
