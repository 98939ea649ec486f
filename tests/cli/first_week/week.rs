//! The host of a first week, its S3 server, its laptop, and the key holder's machine with a home of its own; and what is
//! checked of each command that is typed there.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, Utc};

use super::judge;
use super::laptop::Laptop;
use crate::progress::screen::final_lines;
use crate::specs::{CLOCK_WARNING, Redactor};
use crate::support::files::files;
use crate::support::gate::Gate;
use crate::support::host::SEALIFT;
use crate::support::s3::S3Server;
use crate::terminal;

/// The documented 10 seconds in which an absent target is named, on a machine with other work.
const NAMED_WITHIN: Duration = Duration::from_secs(20);
/// The documented 3 seconds without a word on a terminal, on a machine with other work.
const LONGEST_SILENCE: Duration = Duration::from_secs(9);

/// Where the commands' output goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// A terminal of 80 columns and 24 rows. The laptop has an rsync daemon.
    Terminal,
    /// A terminal too. The laptop is reached by rsync over ssh, which takes more time.
    TerminalAndSsh,
    /// A pipe, with `LANG=C` and `NO_COLOR`. The laptop is a mounted folder.
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
    /// In front of the S3 server.
    pub s3_gate: Gate,
    laptop: Laptop,
    view: View,
    clock: Option<String>,
    /// Objects on the targets whose times are those of the clock.
    arrived: HashSet<PathBuf>,
    redactor: Redactor,
    /// Values that a run makes, and their names in the recording.
    names: Vec<(String, String)>,
    recording: String,
    /// What was wrong in the course of the week.
    faults: Vec<String>,
}

impl Week {
    pub fn new(view: View, title: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for place in [Host, KeyHolder] {
            fs::create_dir(dir.path().join(place.dir())).unwrap();
        }
        let s3 = S3Server::start();
        let s3_gate = Gate::new(s3.address);
        let laptop = Laptop::new(view, dir.path());
        let mut week = Self {
            dir,
            s3,
            s3_gate,
            laptop,
            view,
            clock: None,
            arrived: HashSet::new(),
            redactor: Redactor::new(),
            names: Vec::new(),
            recording: format!("# {title}\n"),
            faults: Vec::new(),
        };
        week.name(&week.s3_gate.address.to_string(), "S3-SERVER");
        week.name(&week.laptop.url(), "rsync://laptop/backups");
        week
    }

    /// Takes the laptop away. Returns the words that name the cause then.
    pub fn close_laptop(&mut self) -> &'static str {
        self.laptop.close()
    }

    pub fn open_laptop(&mut self) {
        self.laptop.open();
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
        let parts = clock.split_once(' ');
        self.clock = parts.map(|(day, time)| format!("2026-04-{day}T{time}:00Z"));
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
            View::Terminal | View::TerminalAndSsh => script.to_owned(),
            View::Pipe => format!("{script} --accept-signer"),
        };
        self.step(place, &script, 0, &[], YES)
    }

    /// The options of `init` for the laptop.
    pub fn laptop_options(&self) -> &'static str {
        self.laptop.options()
    }

    /// A command that ends well and reminds of something, in each of these words.
    pub fn reminder(&mut self, place: Place, script: &str, words: &[&str]) -> String {
        self.step(place, script, 0, words, &[])
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
        let (ended, raw, silence) = match self.view {
            View::Terminal | View::TerminalAndSsh => self.on_a_terminal(place, script, answers),
            View::Pipe => self.piped(place, script, !alarms.is_empty()),
        };
        let took = began.elapsed();
        self.arrive();
        let lines = match self.view {
            View::Terminal | View::TerminalAndSsh => final_lines(&raw),
            View::Pipe => raw.lines().map(str::to_owned).collect(),
        };
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let lines: Vec<&str> = lines
            .into_iter()
            .filter(|line| !line.starts_with(CLOCK_WARNING))
            .collect();
        let said = lines.join("\n");
        let mut verdicts = vec![judge::fits_a_screen(&lines), judge::is_plain_english(&said)];
        if ended != code {
            verdicts.push(Err(format!("exit code {ended} instead of {code}")));
        }
        match alarms {
            [] => verdicts.push(judge::is_calm(&raw, &lines)),
            alarms => verdicts.push(judge::is_alarm(&said, alarms)),
        }
        if !alarms.is_empty() && took > NAMED_WITHIN {
            verdicts.push(Err(format!("it took {took:?}")));
        }
        if silence > LONGEST_SILENCE {
            verdicts.push(Err(format!("silent for {silence:?}")));
        }
        if self.view == View::Pipe {
            verdicts.extend([judge::is_plain_text(&raw), judge::tables_fit(&lines)]);
        }
        for fault in verdicts.into_iter().filter_map(Result::err) {
            self.faults.push(format!("{fault}\n$ {script}\n{said}\n"));
        }
        self.record(place, script, ended, &said);
        said
    }

    fn record(&mut self, place: Place, script: &str, code: i32, said: &str) {
        let redact = |text: &str| {
            let mut text = text.to_owned();
            for (value, name) in &self.names {
                text = text.replace(value, name);
            }
            self.redactor.redact(&text, self.dir.path())
        };
        let (script, text) = (redact(script), in_one_order(&redact(said)));
        let prompt = match place {
            Host => "host$",
            KeyHolder => "holder$",
        };
        let mut block = format!("{prompt} {}\n", script.trim_end().replace('\n', "\n> "));
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
            .env("LAPTOP", self.laptop.url())
            .env("SSH", self.laptop.ssh())
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
    ) -> (i32, String, Duration) {
        let mut command = self.command(place, script);
        command.env("TERM", "xterm");
        let seen = terminal::run(command, answers);
        (seen.code, seen.bytes, seen.silence)
    }

    /// Both streams in one pipe. Without a terminal a backup is patient with a target that is away, which the test is not.
    fn piped(&self, place: Place, script: &str, is_alarm: bool) -> (i32, String, Duration) {
        let script = match is_alarm {
            true => script.replace("sealift backup", "sealift --retry 4s backup"),
            false => script.to_owned(),
        };
        let mut command = self.command(place, &format!("exec 2>&1\n{script}"));
        command.env("LANG", "C").env("NO_COLOR", "1");
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        (output.status.code().unwrap_or(-1), said, Duration::ZERO)
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

    /// What a person reads of the week. Fails if any step was not as it should be.
    pub fn finish(self) -> String {
        let faults = self.faults;
        assert!(
            faults.is_empty(),
            "{} faults:\n{}",
            faults.len(),
            faults.join("\n")
        );
        self.recording
    }
}

/// `status` names the recipients in the order of their keys, which are new in each run.
fn in_one_order(text: &str) -> String {
    let of_recipient = |line: &str| line.starts_with("  can be fully decrypted by ");
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    for block in lines.chunk_by_mut(|one, other| of_recipient(one) == of_recipient(other)) {
        if of_recipient(block[0]) {
            block.sort_unstable();
        }
    }
    lines.concat()
}
