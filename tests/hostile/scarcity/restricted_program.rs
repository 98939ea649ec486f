//! The program started by another one that takes something away from it first.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::host::{Host, SEALIFT, texts};

/// What it says and does about a want has no more time than this, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// How a run ended.
pub struct Run {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Run {
    pub fn of(output: &Output) -> Self {
        let (out, err) = texts(output);
        // At the very edge of memory the standard library has no room for a new thread's signals, and says so.
        let of_the_library = |after: &str| {
            let what = after.lines().nth(1);
            what == Some(
                "failed to allocate an alternative stack: Cannot allocate memory (os error 12)",
            )
        };
        assert!(
            err.split("panicked at").skip(1).all(of_the_library),
            "{err}"
        );
        Self {
            code: output.status.code(),
            out,
            err,
        }
    }

    /// Both streams, for complaints.
    pub fn said(&self) -> String {
        format!("exit {:?}\n{}{}", self.code, self.out, self.err)
    }

    pub fn assert_says(&self, words: &[&str]) {
        for words in words {
            assert!(
                self.err.contains(words),
                "{words:?} is not in: {}",
                self.said()
            );
        }
    }
}

/// `prefix` and then the program with `arguments`, as the host runs it.
pub fn wrapped(host: &Host, prefix: &[&str], arguments: &[&str]) -> Command {
    let inner = host.command(arguments);
    let Some((first, rest)) = prefix.split_first() else {
        return inner;
    };
    let mut outer = Command::new(first);
    outer
        .args(rest)
        .arg(SEALIFT)
        .args(inner.get_args())
        .env_clear()
        .envs(
            inner
                .get_envs()
                .filter_map(|(key, value)| Some((key, value?))),
        )
        .current_dir(host.temp.path())
        .stdin(Stdio::null());
    outer
}

/// Runs it; it must not hang.
pub fn run(command: &mut Command) -> Run {
    let began = Instant::now();
    let output = command.output().unwrap();
    let run = Run::of(&output);
    assert!(began.elapsed() < PATIENCE, "{}", run.said());
    run
}

/// With the shell's limits set first, such as `ulimit -n 64`.
pub fn limited(host: &Host, limit: &str, arguments: &[&str]) -> Run {
    let line = format!("{limit} && exec \"$@\"");
    run(&mut wrapped(
        host,
        &["bash", "-c", &line, "bash"],
        arguments,
    ))
}

/// What makes a program an ordinary user's: nothing, if the tests are one already. `None`, and a word to
/// the output: it cannot be done here.
pub fn ordinary_user() -> Option<Vec<&'static str>> {
    if !rustix::process::geteuid().is_root() {
        return Some(Vec::new());
    }
    let prefix = vec![
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--",
    ];
    let tried = Command::new(prefix[0])
        .args(&prefix[1..])
        .args([SEALIFT, "--version"])
        .output();
    match tried {
        Ok(output) if output.status.success() => Some(prefix),
        Ok(output) => {
            let why = texts(&output).1;
            eprintln!("SKIPPED: the program cannot be run as an ordinary user here: {why}");
            None
        }
        Err(error) => {
            eprintln!(
                "SKIPPED: setpriv cannot be run, so nothing is tried as an ordinary user: {error}"
            );
            None
        }
    }
}

/// Gives everything below `path` to the [`ordinary_user`], if the tests are not theirs.
pub fn give_away(path: &Path) {
    if rustix::process::geteuid().is_root() {
        let status = Command::new("chown")
            .args(["-R", "65534:65534"])
            .arg(path)
            .status();
        assert!(status.unwrap().success());
    }
}

/// Whether `test`, named in full, ran elsewhere: in a namespace of its own, where it may mount. Root needs none,
/// and where there is none the test goes on and says what it has to skip.
pub fn ran_in_a_namespace(test: &str) -> bool {
    const INSIDE: &str = "SEALIFT_TEST_IN_NAMESPACE";
    if rustix::process::geteuid().is_root() || std::env::var_os(INSIDE).is_some() {
        return false;
    }
    let possible = Command::new("unshare").args(["-Urm", "true"]).status();
    if !possible.is_ok_and(|status| status.success()) {
        return false;
    }
    let output = Command::new("unshare")
        .args(["-Urm", "--"])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let (out, err) = texts(&output);
    assert!(output.status.success(), "{out}{err}");
    assert!(out.contains("1 passed"), "{test} is no test: {out}");
    true
}
