//! The host of a first week, its S3 server, its laptop (rsync over ssh), and the key holder's machine with a home of its
//! own; and what is checked of each command that is typed there.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, Utc};

use super::judge;
use crate::progress::screen::final_lines;
use crate::specs::{CLOCK_WARNING, Redactor};
use crate::support::files::files;
use crate::support::gate::Gate;
use crate::support::host::SEALIFT;
use crate::support::rsync::SshServer;
use crate::support::s3::S3Server;
use crate::terminal;

/// The documented 10 seconds in which an absent target is named, on a machine with other work.
const NAMED_WITHIN: Duration = Duration::from_secs(20);
/// The documented 3 seconds without a word on a terminal, on a machine with other work.
const LONGEST_SILENCE: Duration = Duration::from_secs(9);

/// Where the commands' output goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// A terminal of 80 columns and 24 rows.
    Terminal,
    /// A pipe, with `LANG=C` and `NO_COLOR`.
    Pipe,
}

/// The machine on which a command is typed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Host,
    KeyHolder,
}

pub use Place::{Host, KeyHolder};

impl Place {
    fn dir(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::KeyHolder => "holder",
        }
    }
}

/// The answer to the question whether a signer is the host's.
const YES: &[(&str, &str)] = &[("[yes/no]", "yes")];

pub struct Week {
    dir: tempfile::TempDir,
    s3: S3Server,
    laptop: SshServer,
    /// In front of the S3 server.
    pub s3_gate: Gate,
    /// In front of the laptop.
    pub laptop_gate: Gate,
    view: View,
    clock: Option<String>,
    /// Objects on the targets whose times are those of the clock.
    arrived: HashSet<PathBuf>,
    redactor: Redactor,
    /// Values that a run makes, and their names in the recording.
    names: Vec<(String, String)>,
    recording: String,
}

impl Week {
    pub fn new(view: View, title: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for place in [Host, KeyHolder] {
            fs::create_dir(dir.path().join(place.dir())).unwrap();
        }
        let (s3, laptop) = (S3Server::start(), SshServer::start(""));
        let s3_gate = Gate::new(s3.address);
        let laptop_gate = Gate::new(([127, 0, 0, 1], laptop.port()).into());
        let mut week = Self {
            dir,
            s3,
            laptop,
            s3_gate,
            laptop_gate,
            view,
            clock: None,
            arrived: HashSet::new(),
            redactor: Redactor::new(),
            names: Vec::new(),
            recording: format!("# {title}\n"),
        };
        week.name(&week.s3_gate.address.to_string(), "S3-SERVER");
        week.name(&week.laptop_url(), "rsync://me@laptop/backups");
        week.name(&week.laptop_gate.address.to_string(), "LAPTOP");
        let port = week.laptop_gate.address.port();
        week.name(&format!("port {port}"), "port [PORT]");
        week
    }

    fn laptop_url(&self) -> String {
        let port = self.laptop_gate.address.port();
        self.laptop.url_by("rsync", port, "/backups")
    }

    pub fn path(&self, place: Place, name: &str) -> PathBuf {
        self.dir.path().join(place.dir()).join(name)
    }

    /// In the recording, `value` has this name.
    pub fn name(&mut self, value: &str, name: &str) {
        self.names.push((value.to_owned(), name.to_owned()));
    }

    /// Writes a paragraph into the recording.
    pub fn note(&mut self, text: &str) {
        self.recording += &format!("\n{text}\n");
    }

    /// A heading of the recording, and the time of the commands after it.
    pub fn day(&mut self, heading: &str, clock: &str) {
        self.recording += &format!("\n## {heading}\n");
        self.at(clock);
    }

    /// The time of the commands from here on, in April 2026, such as `07 06:00`. With `now` it is the machine's.
    pub fn at(&mut self, clock: &str) {
        self.clock = match clock.split_once(' ') {
            Some((day, time)) => Some(format!("2026-04-{day}T{time}:00Z")),
            None => None,
        };
    }

    /// Runs a command that is not part of the recording.
    pub fn unseen(&self, place: Place, script: &str) {
        let output = self.command(place, script).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {said}");
    }

    /// A command after which nothing is wrong. Returns what it says.
    pub fn calm(&mut self, place: Place, script: &str) -> String {
        self.step(place, script, 0, &[], &[])
    }

    /// The same, and the person confirms the host's signer.
    pub fn calm_first_use(&mut self, place: Place, script: &str) -> String {
        let script = match self.view {
            View::Terminal => script.to_owned(),
            View::Pipe => format!("{script} --accept-signer"),
        };
        self.step(place, &script, 0, &[], YES)
    }

    /// A command that must report what is wrong, within seconds, in each of these words.
    pub fn alarm(&mut self, place: Place, script: &str, code: i32, words: &[&str]) -> String {
        assert!(!words.is_empty() && code != 0);
        self.step(place, script, code, words, &[])
    }

    fn step(
        &mut self,
        place: Place,
        script: &str,
        code: i32,
        alarms: &[&str],
        answers: &[(&str, &str)],
    ) -> String {
        let began = Instant::now();
        let (ended, raw) = match self.view {
            View::Terminal => self.on_a_terminal(place, script, answers),
            View::Pipe => self.piped(place, script, !alarms.is_empty()),
        };
        let took = began.elapsed();
        self.arrive();
        let lines = final_lines(&raw);
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let lines: Vec<&str> = lines
            .into_iter()
            .filter(|line| !line.starts_with(CLOCK_WARNING))
            .collect();
        let said = lines.join("\n");
        let shown = format!("{script}\nexit code {ended}, {took:?}\n{said}");
        assert_eq!(ended, code, "{shown}");
        match alarms {
            [] => judge::is_calm(&raw, &lines, &shown),
            alarms => {
                judge::is_alarm(&lines, alarms, &shown);
                assert!(took < NAMED_WITHIN, "{shown}");
            }
        }
        judge::fits_a_screen(&lines, &shown);
        judge::is_plain_english(&said, &shown);
        if self.view == View::Pipe {
            judge::is_plain_text(&raw, &shown);
            judge::tables_fit(&lines, &shown);
        }
        self.record(place, script, ended, &said);
        said
    }

    fn record(&mut self, place: Place, script: &str, code: i32, said: &str) {
        let mut text = said.to_owned();
        for (value, name) in &self.names {
            text = text.replace(value, name);
        }
        let text = self.redactor.redact(&text, self.dir.path());
        let prompt = match place {
            Host => "host$",
            KeyHolder => "holder$",
        };
        let mut block = format!("{prompt} {}\n", script.replace('\n', "\n> "));
        if code != 0 {
            block += &format!("? {code}\n");
        }
        block += &text;
        // Commands that follow each other share a block.
        let rest = self.recording.strip_suffix("```\n").map(str::to_owned);
        self.recording = match rest {
            Some(before) => format!("{before}\n{block}```\n"),
            None => format!("{}\n```console\n{block}```\n", self.recording),
        };
    }

    fn command(&self, place: Place, script: &str) -> Command {
        let programs = Path::new(SEALIFT).parent().unwrap().display();
        let path = std::env::var("PATH").unwrap();
        let port = self.laptop.port();
        let home = self.dir.path().join(place.dir());
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("umask 022\n{script}")])
            .current_dir(&home)
            .env_clear()
            .env("PATH", format!("{programs}:{path}"))
            .env("HOME", &home)
            .env("TZ", "UTC")
            .env("SEALIFT_MACHINE_ID", place.dir())
            .envs(self.clock.iter().map(|time| ("SEALIFT_CLOCK", time)))
            .envs(self.s3.variables())
            .env("S3", format!("http://{}", self.s3_gate.address))
            .env("LAPTOP", self.laptop_url())
            .env(
                "SSH",
                format!("{} -o HostKeyAlias=[127.0.0.1]:{port}", self.laptop.ssh()),
            )
            .stdin(Stdio::null());
        if place == Host {
            command.env("SEALIFT_CONFIG", "c.toml");
        }
        command
    }

    fn on_a_terminal(
        &self,
        place: Place,
        script: &str,
        answers: &[(&str, &str)],
    ) -> (i32, String) {
        let mut command = self.command(place, script);
        command.env("TERM", "xterm");
        let seen = terminal::run(command, answers);
        let silence = seen.silence;
        assert!(silence < LONGEST_SILENCE, "{script}: silent for {silence:?}");
        (seen.code, seen.bytes)
    }

    /// Both streams in one pipe. Without a terminal a backup is patient with a target that is away, which the test is not.
    fn piped(&self, place: Place, script: &str, is_alarm: bool) -> (i32, String) {
        let script = match is_alarm {
            true => script.replace("sealift backup", "sealift --retry 4s backup"),
            false => script.to_owned(),
        };
        let mut command = self.command(place, &format!("exec 2>&1\n{script}"));
        command.env("LANG", "C").env("NO_COLOR", "1");
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        (output.status.code().unwrap_or(-1), said)
    }

    /// Gives each object that came to a target the time of the clock: retention asks when a snapshot arrived.
    fn arrive(&mut self) {
        let Some(clock) = &self.clock else { return };
        let clock: DateTime<Utc> = clock.parse().unwrap();
        let stores = [self.s3.bucket_dir(), self.laptop.files()];
        for path in stores.iter().flat_map(|dir| files(dir)) {
            if self.arrived.insert(path.clone()) {
                let file = File::options().read(true).open(&path).unwrap();
                file.set_modified(SystemTime::from(clock)).unwrap();
            }
        }
    }

    pub fn read(&self, place: Place, name: &str) -> String {
        let mut text = String::new();
        let path = self.path(place, name);
        File::open(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
            .read_to_string(&mut text)
            .unwrap();
        text
    }

    /// What a person reads of the week.
    pub fn recording(self) -> String {
        self.recording
    }
}
