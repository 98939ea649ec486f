//! The other user: a child process (this test binary once more) that has become uid 65534 and exchanges names as fast
//! as it can, until it is killed. He goes by what he sees: fixed pairs of names, and names that appear.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};

use crate::support::files::make_fifo;
use crate::support::random::Random;

pub const UID: u32 = 65_534;
/// What the racer does, as JSON, in the child's environment.
const VARIABLE: &str = "SEALIFT_STORM_RACER";
/// Pairs that came up by themselves and are exchanged on and on: the newest of them.
const MOST_FLIPPED: usize = 4;

/// What the other user does.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Plan {
    /// Names that are exchanged with each other on and on.
    pub pairs: Vec<(PathBuf, PathBuf)>,
    /// Names that are exchanged once, at some moment of the operation.
    pub once: Vec<(PathBuf, PathBuf)>,
    /// Directories of his, each with [`decoys`] in it, and what a name that appears there contains.
    pub watched: Vec<(PathBuf, String)>,
    /// What he must not get to read.
    pub spied: Option<Spied>,
    /// Decides what is done to which name, and when.
    pub seed: u64,
}

/// Text that may not be read below names that appear in a directory, and where the racer notes that he read it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spied {
    pub dir: PathBuf,
    pub part: String,
    pub text: String,
    pub noted: PathBuf,
}

/// Names of the decoys in a watched directory.
const DECOYS: [&str; 5] = [".z-file", ".z-dir", ".z-empty", ".z-fifo", ".z-own"];
/// What programs are known to make in directories of their own.
const KNOWN: [&str; 9] = [
    "restored", "sealed", "tar", "index", "tree", "work", "content", "journal", "d0",
];

/// Puts decoys into a directory of the other user's: links to a file and to directories of the vault, a FIFO, and a
/// directory whose names all are links into the vault.
pub fn decoys(dir: &Path, vault: &Path) {
    let link = |to: &str, name: &str| symlink(vault.join(to), dir.join(name)).unwrap();
    link("recorded", ".z-file");
    link("closed", ".z-dir");
    link("empty", ".z-empty");
    make_fifo(&dir.join(".z-fifo"));
    let own = dir.join(".z-own");
    fs::create_dir(&own).unwrap();
    for name in KNOWN {
        symlink(vault.join("closed").join(name), own.join(name)).unwrap();
    }
}

/// The running child; killed when dropped.
pub struct Racer {
    child: Child,
}

impl Racer {
    /// Starts the child and waits until it is the other user.
    pub fn start(plan: &Plan) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["storm::racer::is_the_other_user", "--exact", "--nocapture"])
            .env(VARIABLE, serde_json::to_string(plan).unwrap())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let racer = Self { child };
        let pid = Pid::from_raw(racer.child.id().cast_signed());
        let status = waitpid(pid, Some(WaitPidFlag::WUNTRACED)).unwrap();
        assert!(
            matches!(status, WaitStatus::Stopped(..)),
            "the racer ended: {status:?}"
        );
        kill(pid, Signal::SIGCONT).unwrap();
        racer
    }
}

impl Drop for Racer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test by itself: the child runs it.
#[test]
fn is_the_other_user() {
    let Ok(plan) = std::env::var(VARIABLE) else {
        return;
    };
    let plan: Plan = serde_json::from_str(&plan).unwrap();
    nix::unistd::setgroups(&[]).unwrap();
    let (uid, gid) = (Uid::from_raw(UID), Gid::from_raw(UID));
    nix::unistd::setresgid(gid, gid, gid).unwrap();
    nix::unistd::setresuid(uid, uid, uid).unwrap();
    // It ends with the test that started it.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).unwrap();
    kill(Pid::this(), Signal::SIGSTOP).unwrap();
    race(plan);
}

/// A moment in an operation: half of them in its first milliseconds.
fn delay(random: &mut Random) -> Duration {
    Duration::from_micros(match random.below(2) {
        0 => 1 << random.below(16),
        _ => random.below(500_000) as u64,
    })
}

fn race(plan: Plan) -> ! {
    let mut random = Random::new(plan.seed);
    let mut flipped: Vec<(PathBuf, PathBuf)> = Vec::new();
    let mut seen: HashSet<OsString> = HashSet::new();
    // (when, the name, the decoy)
    let mut later: Vec<(Instant, PathBuf, PathBuf)> = Vec::new();
    for (one, other) in &plan.once {
        let when = Instant::now() + delay(&mut random);
        later.push((when, one.clone(), other.clone()));
    }
    let mut turn = 0_u64;
    // In half of the rounds an operation gets far before anything is exchanged.
    let is_patient = plan.seed.is_multiple_of(2);
    loop {
        turn += 1;
        for (one, other) in plan.pairs.iter().chain(&flipped) {
            exchange(one, other);
        }
        for (dir, part) in &plan.watched {
            for name in new_names(dir, part, &mut seen) {
                let path = dir.join(&name);
                let decoy = dir.join(DECOYS[random.below(5)]);
                let way = if is_patient { 3 } else { random.below(4) };
                match way {
                    0 => exchange(&path, &decoy),
                    1 => {
                        flipped.push((path, decoy));
                        if flipped.len() > MOST_FLIPPED {
                            flipped.remove(0);
                        }
                    }
                    2 => replace(&path, &decoy),
                    _ => {
                        let when = Instant::now() + delay(&mut random);
                        later.push((when, path, decoy));
                    }
                }
            }
        }
        later.retain(|(when, path, decoy)| {
            let is_due = *when <= Instant::now();
            if is_due {
                exchange(path, decoy);
            }
            !is_due
        });
        if let Some(spied) = &plan.spied {
            spy(spied);
        }
        // Now and then what he has is in its place for longer than a moment.
        if turn.is_multiple_of(64) {
            std::thread::sleep(Duration::from_micros(random.below(500) as u64));
        }
    }
}

fn exchange(one: &Path, other: &Path) {
    let _ = renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE);
}

/// Moves a name away and puts a link (or a FIFO) in its place, which needs no exchange.
fn replace(path: &Path, decoy: &Path) {
    let away = path.with_file_name(format!(".stolen-{}", std::process::id()));
    if fs::rename(path, &away).is_ok() && fs::rename(decoy, path).is_err() {
        let _ = fs::rename(&away, path);
    }
}

fn new_names(dir: &Path, part: &str, seen: &mut HashSet<OsString>) -> Vec<OsString> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_meant = name
            .as_bytes()
            .windows(part.len())
            .any(|window| window == part.as_bytes());
        let is_decoy = DECOYS.iter().any(|decoy| name == *decoy);
        if is_meant && !is_decoy && seen.insert(dir.join(&name).into()) {
            found.push(name);
        }
    }
    found
}

/// Reads what he can below the names that appeared, three levels down.
fn spy(spied: &Spied) {
    let mut dirs: Vec<(PathBuf, usize)> = Vec::new();
    for entry in fs::read_dir(&spied.dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().contains(&spied.part) {
            dirs.push((entry.path(), 0));
        }
    }
    while let Some((dir, depth)) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && depth < 3 => dirs.push((entry.path(), depth + 1)),
                Ok(kind) if kind.is_file() && can_read(&entry.path(), &spied.text) => {
                    let _ = fs::write(&spied.noted, entry.path().as_os_str().as_bytes());
                }
                _ => {}
            }
        }
    }
}

fn can_read(path: &Path, text: &str) -> bool {
    let opened = fs::OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(path);
    let content = opened.and_then(std::io::read_to_string);
    content.is_ok_and(|content| content.contains(text))
}
