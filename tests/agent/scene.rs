//! A host with two folders as targets, a clock that runs fast, and its agent.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sealift::base::clock;
use sealift::state::history::{History, RunFilter, RunRow};

use crate::support::host::Host;

/// When the clock of each scene begins.
const START: &str = "2026-04-01T00:00:00Z";
/// How long anything is waited for, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Scene {
    pub host: Host,
    rate: f64,
    anchor: Duration,
}

impl Scene {
    /// A host whose clock runs `rate` times as fast, with `schedule` as the lines of `[schedule]`. `more` is the end of
    /// its configuration.
    pub fn new(rate: f64, schedule: &str, more: &str) -> Self {
        let mut host = Host::new();
        fs::write(host.data().join("notes.txt"), "hello").unwrap();
        fs::create_dir(host.path("second")).unwrap();
        let tables = format!(
            "\n[[target]]\nname = \"second\"\nurl = \"./second\"\n\n[serve]\nlisten = []\n\n[schedule]\njitter = \"0s\"\n{schedule}\n\n{more}\n"
        );
        fs::write(host.path("c.toml"), host.config() + &tables).unwrap();
        let anchor = clock::since_boot();
        host.clock = Some(format!("{START}@{rate}@{:.6}", anchor.as_secs_f64()));
        Self { host, rate, anchor }
    }

    pub fn start(&self) -> DateTime<Utc> {
        START.parse().unwrap()
    }

    /// What the clock of the host shows.
    pub fn now(&self) -> DateTime<Utc> {
        let passed = (clock::since_boot() - self.anchor).mul_f64(self.rate);
        self.start() + chrono::Duration::from_std(passed).unwrap()
    }

    /// Sleeps until the clock of the host shows this many days after its start.
    pub fn sleep_until(&self, days: f64) {
        let until = self.anchor + Duration::from_secs_f64(days * 86_400.0 / self.rate);
        std::thread::sleep(until.saturating_sub(clock::since_boot()));
    }

    pub fn day(&self) -> f64 {
        (self.now() - self.start()).as_seconds_f64() / 86_400.0
    }

    pub fn history(&self) -> History {
        fs::create_dir_all(self.host.path("c.state")).unwrap();
        History::open(&self.host.path("c.state")).unwrap()
    }

    /// The runs of this kind, oldest first.
    pub fn runs(&self, kind: &str) -> Vec<RunRow> {
        let filter = RunFilter {
            kind: Some(kind.to_owned()),
            ..RunFilter::default()
        };
        let mut runs = self.history().runs(&filter).unwrap();
        runs.reverse();
        runs
    }

    /// Waits until the host has this number of ended runs of `kind`; gives all of that kind.
    pub fn wait_for_runs(&self, kind: &str, number: usize) -> Vec<RunRow> {
        let mut runs = Vec::new();
        wait_until(&format!("{number} ended runs of {kind}"), || {
            runs = self.runs(kind);
            runs.iter().filter(|row| row.end.is_some()).count() >= number
        });
        runs
    }

    /// Waits until a child of the agent is at work on a run of `kind`.
    pub fn wait_for_child(&self, kind: &str, agent: &Agent) -> RunRow {
        let mut found = None;
        wait_until(&format!("a child for {kind}"), || {
            let mut runs = self.runs(kind).into_iter();
            found = runs.find(|row| row.end.is_none() && row.run.pid != agent.pid());
            found.is_some()
        });
        found.unwrap()
    }

    pub fn serve(&self) -> Agent {
        self.serve_with(|_| {})
    }

    /// Starts the agent; `prepare` may change the command.
    pub fn serve_with(&self, prepare: impl FnOnce(&mut Command)) -> Agent {
        let log = self.host.path("agent.log");
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let mut command = self.host.command(&["serve"]);
        command.stdout(Stdio::null()).stderr(file);
        prepare(&mut command);
        Agent {
            child: command.spawn().unwrap(),
            log,
        }
    }

    /// Starts the agent with the machine's monotonic clocks ahead by `offset` seconds, as after another boot; the clock
    /// of the host goes on as it was. `None`: the kernel or the user does not allow that.
    pub fn serve_in_other_time(&self, offset: i64) -> Option<Agent> {
        let within = |program: &str| {
            let mut command = Command::new("unshare");
            let offset = offset.to_string();
            command.args(["--time", "--boottime", &offset, "--monotonic", &offset]);
            command.arg(program);
            command
        };
        let probe = within("true").output();
        if !probe.is_ok_and(|output| output.status.success()) {
            return None;
        }
        let own = self.host.command(&["serve"]);
        let mut command = within(own.get_program().to_str().unwrap());
        let anchor = self.anchor.as_secs_f64() + offset as f64;
        command.args(own.get_args()).env_clear();
        command.envs(
            own.get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        command
            .env(
                "SEALIFT_CLOCK",
                format!("{START}@{}@{anchor:.6}", self.rate),
            )
            .current_dir(own.get_current_dir().unwrap())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let log = self.host.path("agent.log");
        let file = fs::OpenOptions::new().create(true).append(true).open(&log);
        let child = command.stderr(file.unwrap()).spawn().unwrap();
        Some(Agent { child, log })
    }

    /// The processes that were started with the configuration of this host.
    pub fn processes(&self) -> Vec<String> {
        let config = self.host.path("c.toml");
        let config = config.to_str().unwrap();
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let lines =
            entries.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok());
        lines.filter(|line| line.contains(config)).collect()
    }

    /// Waits until no process of this host is left.
    pub fn wait_for_silence(&self) {
        wait_until("the end of all processes", || self.processes().is_empty());
    }
}

pub fn wait_until(what: &str, is_so: impl FnMut() -> bool) {
    wait_within(PATIENCE, what, is_so);
}

pub fn wait_within(patience: Duration, what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited for {what} in vain");
        std::thread::sleep(Duration::from_millis(30));
    }
}

/// An agent. It is killed if a test ends early.
pub struct Agent {
    child: Child,
    log: PathBuf,
}

impl Agent {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().cast_signed()), signal).unwrap();
    }

    /// Stops it as the service manager does.
    pub fn stop(mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.child.wait().unwrap()
    }

    /// Waits for its end, after it was asked to end.
    pub fn wait(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Kills it; its children go on.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// What all agents of the host have logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub fn wait_for_log(&self, text: &str) {
        wait_until(&format!("{text:?} in the log"), || {
            self.log().contains(text)
        });
    }

    /// Number of open descriptors.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .unwrap()
            .count()
    }

    /// Anonymous memory in kB: without the pages of the program itself.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        line.unwrap()
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
