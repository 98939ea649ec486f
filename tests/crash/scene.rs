//! A host whose state, whose targets and whose place for restores are disks that can fail.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use sealift::format::chain::Finding;
use sealift::format::signature::Trust;
use sealift::repository::HostFolder;
use sealift::storage::{TargetSpec, open};

use crate::disk::Disk;
use crate::points::{Event, Point};
use crate::support::checker::{Published, assert_sound};
use crate::support::host::Host;
use crate::support::tree::{describe, noise};
use crate::tracer::{Ended, Fault, run};

/// The host's state and its snapshots; two targets; where restores and copies go; temporary files.
const PARTS: [&str; 5] = ["state", "repo", "second", "place", "scratch"];

/// What a snapshot should bring back, or did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    trees: Vec<Vec<String>>,
    rows: Vec<Vec<u8>>,
}

impl Content {
    pub fn of(root: &Path) -> Self {
        let database = rusqlite::Connection::open(root.join("db/app.db")).unwrap();
        let mut query = database.prepare("SELECT body FROM t ORDER BY id").unwrap();
        let rows = query.query_map([], |row| row.get(0)).unwrap();
        Self {
            trees: vec![describe(&root.join("data")), describe(&root.join("staged"))],
            rows: rows.map(Result::unwrap).collect(),
        }
    }
}

/// Which of the parts can fail alone.
#[derive(Debug, Clone, Copy)]
pub enum Disks {
    One,
    Many,
}

pub struct Scene {
    pub host: Host,
    key: String,
    /// Names of the disks' roots.
    disks: Vec<String>,
    /// The part in which commands are started, if not where the host is.
    pub started_in: Option<&'static str>,
    runtime: tokio::runtime::Runtime,
}

impl Scene {
    /// With a tree that is read in place, one that is staged, and a database. All [parts](PARTS) are on one disk,
    /// or each has its own.
    pub fn new(disks: Disks, second_target: bool) -> Self {
        // In memory where there is such a place: what a disk loses is decided here.
        let temp = tempfile::Builder::new()
            .prefix("crash-")
            .tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir());
        let prepare = |dir: &Path| {
            for name in ["staged", "db"] {
                fs::create_dir(dir.join(name)).unwrap();
            }
            let database = rusqlite::Connection::open(dir.join("db/app.db")).unwrap();
            let table = "CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB)";
            database.execute_batch(table).unwrap();
        };
        let host = Host::within(temp.unwrap(), prepare, &["--tree", "data"]);
        for name in ["c.state", "repo"] {
            let _ = fs::remove_dir_all(host.path(name));
        }
        let disks = match disks {
            Disks::One => vec!["disk".to_owned()],
            Disks::Many => PARTS.map(|part| format!("disk-{part}")).to_vec(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        let scene = Self {
            key: host.path("key.txt").display().to_string(),
            host,
            disks,
            started_in: None,
            runtime,
        };
        scene.configure(second_target);
        for disk in &scene.disks {
            fs::create_dir(scene.host.path(disk)).unwrap();
        }
        for part in ["repo", "second", "place", "scratch"] {
            fs::create_dir(scene.path(part)).unwrap();
        }
        scene
    }

    fn configure(&self, second_target: bool) {
        let path = |part: &str| self.path(part).display().to_string();
        let edit = |from: &str, to: &str| self.host.edit_config(from, to);
        edit("\"c.state\"", &format!("{:?}", path("state")));
        edit(&self.host.path("repo").display().to_string(), &path("repo"));
        let more = "[[source]]\nkind = \"tree\"\npath = \"staged\"\nto = \"staged\"\n\n\
                    [[source]]\nkind = \"sqlite\"\npath = \"db/app.db\"\nto = \"db/app.db\"\n\n[[target]]";
        edit("[[target]]", more);
        if second_target {
            let url = path("second");
            let second = format!("[[target]]\nname = \"second\"\nurl = \"file://{url}\"\n\n");
            edit("# What stays", &(second + "# What stays"));
        }
    }

    /// Where a part of it is.
    pub fn path(&self, part: &str) -> PathBuf {
        let own = format!("disk-{}", part.split('/').next().unwrap());
        let disk = self.disks.iter().find(|disk| **disk == own);
        self.host.path(disk.unwrap_or(&self.disks[0])).join(part)
    }

    /// Goes to a day, and changes what it should change: a part of every source.
    pub fn day(&mut self, day: u64) {
        self.host.clock = Some(format!("2026-03-{:02}T06:00:00Z", day + 1));
        let write = |name: &str, seed: u64, bytes: usize| {
            fs::write(self.host.path(name), noise(1000 * day + seed, bytes)).unwrap();
        };
        write("data/changed", 1, 20_000);
        write(&format!("data/new-{day}"), 2, 6_000);
        write("staged/changed", 3, 9_000);
        if day == 0 {
            write("data/kept", 4, 30_000);
            write("staged/kept", 5, 8_000);
            for tree in ["data", "staged"] {
                let tree = self.host.path(tree);
                fs::create_dir(tree.join("empty")).unwrap();
                symlink("kept", tree.join("link")).unwrap();
                fs::hard_link(tree.join("kept"), tree.join("kept-too")).unwrap();
            }
        }
        let database = rusqlite::Connection::open(self.host.path("db/app.db")).unwrap();
        let body = noise(1000 * day + 6, 9_000);
        let insert = "INSERT INTO t (body) VALUES (?1)";
        database.execute(insert, [body]).unwrap();
    }

    /// What is there to back up.
    pub fn content(&self) -> Content {
        Content::of(self.host.temp.path())
    }

    /// Keeps the disks as they are, for [`Self::reset`].
    pub fn keep(&self) {
        fs::create_dir(self.host.path("template")).unwrap();
        self.copy(".", "template");
    }

    /// Makes the disks what they were when they were kept.
    pub fn reset(&self) {
        for name in &self.disks {
            fs::remove_dir_all(self.host.path(name)).unwrap();
        }
        self.copy("template", ".");
    }

    fn copy(&self, from: &str, to: &str) {
        let from = Path::new(from);
        let copied = Command::new("cp")
            .current_dir(self.host.temp.path())
            .arg("-a")
            .args(self.disks.iter().map(|name| from.join(name)))
            .arg(to)
            .status();
        assert!(copied.unwrap().success());
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match self.started_in {
            Some(part) => self.host.command_in(&self.path(part), arguments),
            None => self.host.command(arguments),
        };
        command.env("TMPDIR", self.path("scratch"));
        command
    }

    /// How many calls a command makes that change a file, and nothing fails.
    pub fn count(&self, arguments: &[&str]) -> usize {
        self.reset();
        let mut disks = self.disks();
        let ended = run(self.command(arguments), &mut disks, Fault::None);
        assert_eq!(ended.code, Some(0), "{ended:#?}");
        disks.iter().for_each(Disk::forget);
        ended.calls
    }

    fn disks(&self) -> Vec<Disk> {
        let disk = |name: &String| Disk::at(&self.host.path(name));
        self.disks.iter().map(disk).collect()
    }

    /// The disks as they were kept, and a command that meets `point`.
    pub fn meet(&self, arguments: &[&str], point: &Point) -> Ended {
        self.reset();
        let mut disks = self.disks();
        if point.event == Event::CatalogTorn {
            disks.iter_mut().for_each(|disk| disk.lie_of("catalog.db"));
        }
        let ended = run(self.command(arguments), &mut disks, point.fault());
        let told = !ended.said.contains("panicked") && ended.code.is_none_or(|code| code != 2);
        assert!(told, "{ended:#?}");
        for disk in disks {
            match point.losses(ended.code) {
                Some(losses) => drop(disk.power_off(losses)),
                None => disk.forget(),
            }
        }
        ended
    }

    /// The program with nothing in its way, which it must make good use of.
    pub fn ok(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.command(&[&["--json"], arguments].concat()).output();
        let output = output.unwrap();
        let (out, err) = crate::support::host::texts(&output);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {out}{err}");
        serde_json::from_str(&out).unwrap()
    }

    /// The program where it may fail, but not badly.
    pub fn may_fail(&self, arguments: &[&str]) -> Option<i32> {
        let output = self.command(arguments).output().unwrap();
        let (out, err) = crate::support::host::texts(&output);
        let code = output.status.code();
        let is_told = matches!(code, Some(0 | 1 | 3)) && !err.contains("panicked");
        assert!(is_told, "{arguments:?}: {code:?}, {out}{err}");
        code
    }

    /// Leftovers become old enough to be cleared.
    pub fn an_hour_passes(&self) {
        let then = SystemTime::now() - Duration::from_secs(3600);
        for path in self.everything() {
            let is_leftover = [".tmp/", ".sealift-tmp-", "/sealift-"];
            let text = self.inside(&path);
            if is_leftover.iter().any(|part| text.contains(part)) {
                File::open(path).unwrap().set_modified(then).unwrap();
            }
        }
    }

    /// Every file and directory on the disks.
    fn everything(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut dirs: Vec<PathBuf> = self.disks.iter().map(|disk| self.host.path(disk)).collect();
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    dirs.push(entry.path());
                }
                found.push(entry.path());
            }
        }
        found
    }

    fn inside(&self, path: &Path) -> String {
        let inside = path.strip_prefix(self.host.temp.path()).unwrap();
        inside.display().to_string()
    }

    pub fn folder(&self, target: &str) -> PathBuf {
        self.path(target).join("dalidou")
    }

    /// What is on a target, where nothing may be wrong or missing or strange.
    pub fn published(&self, target: &str) -> Published {
        let (published, findings) = self.look(target);
        assert_eq!(findings, Vec::new());
        published
    }

    /// What is on a target, where nothing may be wrong, and what is strange there.
    pub fn look(&self, target: &str) -> (Published, Vec<Finding>) {
        let published = assert_sound(&self.folder(target));
        if published.manifests.is_empty() {
            return (published, Vec::new());
        }
        let url = self.path(target).display().to_string();
        let opened = open(&TargetSpec::from_url(&url)).unwrap();
        let folder = HostFolder::new(opened, "dalidou".parse().unwrap());
        let trust = Trust::parse(&self.host.signer).unwrap();
        let chain = self.runtime.block_on(folder.chain(&trust)).unwrap();
        assert_eq!(chain.snapshots.len(), published.manifests.len());
        (published, chain.findings)
    }

    /// What a snapshot brings back from a target.
    pub fn restored(&self, target: &str, snapshot: &str) -> Content {
        let (from, to) = (self.path(target), self.path("place").join("restored"));
        let (from, to) = (from.display().to_string(), to.display().to_string());
        self.ok(&self.restore(&from, snapshot, &to));
        let content = Content::of(Path::new(&to));
        fs::remove_dir_all(to).unwrap();
        content
    }

    pub fn restore<'a>(&'a self, from: &'a str, snapshot: &'a str, to: &'a str) -> [&'a str; 10] {
        let (signer, key) = (&self.host.signer, self.key.as_str());
        [
            "restore",
            snapshot,
            "--from",
            from,
            "--signer",
            signer,
            "--identity",
            key,
            "--to",
            to,
        ]
    }

    /// Nothing that a run which died has left is there any more.
    pub fn assert_tidy(&self) {
        let is_left = |path: &PathBuf| {
            let text = self.inside(path);
            let is_begun = ["partial-", ".tmp/", ".sealift-tmp-", "/sealift-"];
            let is_waiting = path.is_file() && text.contains("/spool/");
            is_waiting
                || text.contains("/state/scratch/")
                || is_begun.iter().any(|part| text.contains(part))
        };
        let mut left = self.everything();
        left.retain(is_left);
        assert_eq!(left, Vec::<PathBuf>::new());
    }
}
