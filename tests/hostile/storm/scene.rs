//! A host whose operations run as root, a home of the other user's, a vault beside it, and the rounds of a storm.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, lchown};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::racer::{Plan, Racer, UID};
use super::vault::{SECRET, Vault, find};
use crate::support::host::Host;
use crate::support::is_long;

/// An operation that takes longer waits for something that the other user made.
const DEADLINE: Duration = Duration::from_secs(60);

pub struct Scene {
    pub host: Host,
    pub vault: Vault,
}

/// How an operation ended.
pub struct Ran {
    /// Which operation, and which round.
    pub at: String,
    pub code: Option<i32>,
    pub said: String,
}

/// What is done in each round; `home` is the other user's directory, made afresh.
pub struct Storm<'a> {
    pub what: &'a str,
    pub prepare: &'a dyn Fn(&Scene, &Path),
    /// By the round's number.
    pub plan: &'a dyn Fn(&Path, u64) -> Plan,
    pub operate: &'a dyn Fn(&Scene, u64) -> Command,
    /// What else must hold.
    pub check: &'a dyn Fn(&Scene, &Ran),
}

/// Whether this process can be root and the other user; prints why not.
pub fn is_possible() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("SKIPPED: only root can play both users of a storm test");
    }
    is_root
}

fn rounds() -> u64 {
    let asked = std::env::var("SEALIFT_TEST_STORM_ROUNDS").ok();
    let usual = if is_long() { 500 } else { 20 };
    asked.map_or(usual, |text| text.parse().unwrap())
}

impl Scene {
    /// A host with these sources in its configuration (none: the tree `data`); `more` adds to its vault.
    pub fn new(sources: &str, more: impl FnOnce(&Host, &Path)) -> Self {
        let host = Host::new();
        let open = fs::Permissions::from_mode(0o711);
        fs::set_permissions(host.temp.path(), open).unwrap();
        if !sources.is_empty() {
            let config = host.config();
            let (start, end) = (
                config.find("[[source]]").unwrap(),
                config.find("[[target]]").unwrap(),
            );
            let sources = sources.replace('@', &host.temp.path().display().to_string());
            let config = format!("{}{sources}\n{}", &config[..start], &config[end..]);
            fs::write(host.path("c.toml"), config).unwrap();
        }
        let vault = Vault::new(host.path("vault"), |dir| more(&host, dir));
        // Only root may see what is backed up and where it is kept.
        for name in ["data", "repo"] {
            let _ = fs::set_permissions(host.path(name), fs::Permissions::from_mode(0o700));
        }
        Self { host, vault }
    }

    pub fn home(&self) -> PathBuf {
        self.host.path("home")
    }

    /// Runs all rounds of a storm.
    pub fn weather(&self, storm: &Storm<'_>) {
        let (mut codes, count) = (BTreeMap::<Option<i32>, u32>::new(), rounds());
        let names = self.names();
        for round in 0..count {
            let home = self.home();
            clear(&home);
            fs::create_dir(&home).unwrap();
            (storm.prepare)(self, &home);
            give(&home);
            let mut plan = (storm.plan)(&home, round);
            plan.seed = round.wrapping_mul(7919);
            let racer = Racer::start(&plan);
            let at = format!("{}: round {} of {count}", storm.what, round + 1);
            let ran = run(
                at,
                &mut (storm.operate)(self, round),
                &self.host.path("said.log"),
            );
            drop(racer);
            *codes.entry(ran.code).or_default() += 1;
            self.assert_unharmed(&ran);
            let (at, now) = (&ran.at, self.names());
            assert_eq!(now, names, "{at}: something came or went\n{}", ran.said);
            if let Some(spied) = &plan.spied {
                let read = fs::read_to_string(&spied.noted).unwrap_or_default();
                assert_eq!(read, "", "{at}: the other user read a decrypted file");
            }
            (storm.check)(self, &ran);
        }
        println!("{}: {count} rounds, exit codes {codes:?}", storm.what);
    }

    fn assert_unharmed(&self, ran: &Ran) {
        let (at, said) = (&ran.at, &ran.said);
        assert!(
            ran.code.is_some(),
            "{at}: it waited for {DEADLINE:?} or was killed\n{said}"
        );
        assert!(
            matches!(ran.code, Some(0..=3)),
            "{at}: {:?}\n{said}",
            ran.code
        );
        assert!(
            !said.contains("panicked") && !said.contains("Traceback"),
            "{at}: {said}"
        );
        assert!(
            !said.contains(SECRET),
            "{at}: it shows what only root may read\n{said}"
        );
        let changed = self.vault.changed();
        assert!(changed.is_empty(), "{at}: outside: {changed:#?}\n{said}");
    }

    /// Names in the host's directory.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.host.temp.path()).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .filter(|name| !["said.log", "home", "repo", "c.state"].contains(&name.as_str()))
            .collect();
        names.sort();
        names
    }

    /// The newest snapshot, restored where only root is, holds nothing from the vault.
    pub fn assert_newest_is_clean(&self, ran: &Ran) {
        let out = self
            .host
            .restore_exits("latest", "c.state/checked", &[0, 3]);
        let found = find(&out, SECRET);
        assert_eq!(
            found, None,
            "{}: the snapshot holds a file from outside",
            ran.at
        );
        clear(&out);
    }
}

/// Runs it to its end, or kills it at the deadline (then it has no exit code).
fn run(at: String, command: &mut Command, log: &Path) -> Ran {
    let file = File::create(log).unwrap();
    command.stdout(file.try_clone().unwrap()).stderr(file);
    let mut child = command.spawn().unwrap();
    let end = Instant::now() + DEADLINE;
    let code = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status
                .code()
                .or_else(|| status.signal().map(|number| -number));
        }
        if Instant::now() > end {
            child.kill().unwrap();
            child.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let said = String::from_utf8_lossy(&fs::read(log).unwrap()).into_owned();
    Ran { at, code, said }
}

/// Removes a tree, if it is there.
pub fn clear(dir: &Path) {
    let removed = Command::new("rm").arg("-rf").arg(dir).status().unwrap();
    assert!(removed.success());
}

/// Makes all of a tree the other user's.
pub fn give(dir: &Path) {
    let mut left = vec![dir.to_owned()];
    while let Some(path) = left.pop() {
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
        lchown(path, Some(UID), Some(UID)).unwrap();
    }
}
