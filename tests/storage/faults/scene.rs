//! A host with two targets, of which one will fail, and the story that every fault is put through.

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::checker::{Published, assert_sound};
use crate::support::files::files;
use crate::support::host::{Host, texts};
use crate::support::s3::{BUCKET, S3Server};
use crate::support::tree::{describe, noise};

/// More than what the proxies let through, in one archive.
pub const CONTENT_BYTES: usize = 400_000;
/// The retry budget and the timeout of the target that fails.
pub const IMPATIENT: &str = "timeout = \"1s\"\nretry = \"1s\"\n";

/// How a run ended.
pub struct Run {
    pub code: Option<i32>,
    /// What it printed, wherever.
    pub said: String,
    pub took: Duration,
}

/// What a run must say of its failing target, and by when.
pub struct Expected<'a> {
    pub within: Duration,
    pub says: &'a [&'a str],
}

pub struct Scene {
    pub host: Host,
    /// The failing target's name.
    pub name: &'static str,
    /// The failing target's host folder, as files.
    pub folder: PathBuf,
    /// What gets a process in there.
    variables: Vec<(String, String)>,
    changes: Cell<u64>,
    restores: Cell<u64>,
}

impl Scene {
    /// With a bucket of `server`, reached at `endpoint`, before a folder.
    pub fn with_s3(server: &S3Server, endpoint: &str) -> Self {
        let target = format!(
            "[[target]]\nname = \"s3\"\nurl = \"s3://{BUCKET}/off/site\"\nendpoint = \"{endpoint}\"\n{IMPATIENT}\n"
        );
        let mut scene = Self::new("s3", &target, server.bucket_dir().join("off/site/dalidou"));
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        scene.variables = server.variables().into_iter().map(owned).collect();
        scene
    }

    /// With `target` of the configuration, named `name`, that keeps this host's files in `folder`.
    pub fn new(name: &'static str, target: &str, folder: PathBuf) -> Self {
        let host = Host::new();
        let config = host.config();
        let at = config.find("[[target]]").unwrap();
        let config = [&config[..at], target, &config[at..]].concat();
        fs::write(host.path("c.toml"), config).unwrap();
        Self {
            host,
            name,
            folder,
            variables: Vec::new(),
            changes: Cell::new(0),
            restores: Cell::new(0),
        }
    }

    /// The data become others, in part.
    pub fn change(&self) {
        let seed = self.changes.get() + 1;
        self.changes.set(seed);
        let data = self.host.data();
        fs::write(data.join("large"), noise(seed, CONTENT_BYTES)).unwrap();
        fs::write(data.join(format!("small-{seed}")), noise(100 + seed, 1000)).unwrap();
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.host.command(arguments);
        command.envs(self.variables.iter().cloned());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Run {
        let began = Instant::now();
        let output = self.command(arguments).output().unwrap();
        let took = began.elapsed();
        let (out, err) = texts(&output);
        Run {
            code: output.status.code(),
            said: out + &err,
            took,
        }
    }

    /// A run that must end so, and must give nothing away.
    pub fn exits(&self, arguments: &[&str], code: i32) -> Run {
        let run = self.run(arguments);
        assert_eq!(run.code, Some(code), "{}", run.said);
        for (name, value) in &self.variables {
            assert!(!run.said.contains(value), "{name} is shown: {}", run.said);
        }
        assert!(!run.said.contains("panicked"), "{}", run.said);
        run
    }

    /// A run that ends so because of the fault.
    pub fn fails(&self, arguments: &[&str], code: i32, expected: &Expected<'_>) -> Run {
        let run = self.exits(arguments, code);
        let line = run
            .said
            .lines()
            .find(|line| line.contains(" on ") || line.contains("BEHIND"));
        let line = line.unwrap_or(&run.said).trim();
        println!(
            "{}: {:.1} s, exit {code}: {line}",
            arguments[0],
            run.took.as_secs_f64()
        );
        assert!(
            run.took < expected.within,
            "took {:?}: {}",
            run.took,
            run.said
        );
        assert!(run.said.contains(self.name), "{}", run.said);
        for words in expected.says {
            assert!(
                run.said.contains(words),
                "{words:?} is not in: {}",
                run.said
            );
        }
        run
    }

    /// What is published on the healthy target, and on the other; nothing there may lack anything.
    pub fn published(&self) -> (Published, Published) {
        (
            assert_sound(&self.host.folder()),
            assert_sound(&self.folder),
        )
    }

    fn new_directory(&self) -> String {
        self.restores.set(self.restores.get() + 1);
        format!("restored-{}", self.restores.get())
    }

    /// The newest snapshot on the healthy target is what the data are now.
    pub fn assert_healthy_has_all(&self) {
        let to = self.new_directory();
        let out = self.host.restore("latest", &to);
        assert_eq!(describe(&out.join("data")), describe(&self.host.data()));
    }

    /// So is that of the other, with nothing but it at hand.
    pub fn assert_other_has_all(&self) {
        let to = self.new_directory();
        let arguments = [
            "restore",
            "--target",
            self.name,
            "--identity",
            "key.txt",
            "--to",
            &to,
        ];
        self.exits(&arguments, 0);
        let out = self.host.path(&to).join("data");
        assert_eq!(describe(&out), describe(&self.host.data()));
    }

    /// Both have the same, all of it, and nothing waits.
    pub fn assert_converged(&self) {
        let (healthy, other) = self.published();
        assert_eq!(healthy, other);
        assert_eq!(
            files(&self.host.path("c.state/spool")),
            Vec::<PathBuf>::new()
        );
        self.assert_healthy_has_all();
        self.assert_other_has_all();
    }

    /// Runs `work` where the healthy target is not there: a disk that is not mounted.
    pub fn alone<T>(&self, work: impl FnOnce() -> T) -> T {
        let (repo, away) = (self.host.path("repo"), self.host.path("repo-away"));
        fs::rename(&repo, &away).unwrap();
        let done = work();
        assert!(!repo.exists());
        fs::rename(away, repo).unwrap();
        done
    }

    /// The whole story: all is well; the fault is there, beside a healthy target, then alone; it is gone.
    pub fn survives(&self, expected: &Expected<'_>, fault: impl Fn(&Self, bool)) {
        self.stays_behind(expected, &fault);
        let published = self.published();
        self.change();
        self.alone(|| self.fails(&["backup"], 1, expected));
        assert_eq!(self.published(), published, "no target has that one");
        fault(self, false);
        self.catches_up(4);
    }

    /// The story without its middle, for targets that take their time.
    pub fn survives_once(&self, expected: &Expected<'_>, fault: impl Fn(&Self, bool)) {
        self.stays_behind(expected, &fault);
        fault(self, false);
        self.catches_up(3);
    }

    fn stays_behind(&self, expected: &Expected<'_>, fault: &impl Fn(&Self, bool)) {
        self.change();
        self.exits(&["backup"], 0);
        let (_, before) = self.published();
        fault(self, true);
        self.change();
        self.fails(&["backup"], 3, expected);
        self.assert_healthy_has_all();
        let (healthy, other) = self.published();
        assert_eq!(healthy.manifests.len(), 2);
        assert_eq!(other.manifests, before.manifests, "the fault was none");
    }

    fn catches_up(&self, snapshots: usize) {
        self.change();
        self.exits(&["backup"], 0);
        assert_eq!(self.published().0.manifests.len(), snapshots);
        self.assert_converged();
    }
}

pub fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}
