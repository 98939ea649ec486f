//! Each place that a run writes to, in turn on a disk that is full, on one that is read-only, and without
//! permission.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::restricted_program::{Run, give_away, ordinary_user, ran_in_a_namespace, run, wrapped};
use crate::support::checker::assert_sound;
use crate::support::files::files;
use crate::support::host::Host;
use crate::support::is_long;
use crate::support::small_disk::SmallDisk;
use crate::support::tree::{describe, noise};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    State,
    Spool,
    Snapshots,
    Target,
    Destination,
    Scratch,
}

use Place::{Destination, Scratch, Snapshots, Spool, State, Target};

impl Place {
    fn path(self) -> &'static str {
        match self {
            State => "c.state",
            Spool => "c.state/spool",
            Snapshots => "c.state/snapshots",
            Target => "repo",
            Destination => "destination",
            Scratch => "scratch",
        }
    }

    /// What is run while the place gives less.
    fn arguments(self, host: &Host) -> Vec<String> {
        let words: &[&str] = match self {
            // Quietly: what is wrong must be said even so.
            State | Spool | Snapshots | Target => &["--quiet", "backup"],
            Destination => &[
                "restore",
                "latest",
                "--from",
                "repo",
                "--identity",
                "key.txt",
                "--signer",
                &host.signer,
                "--to",
                "destination/new",
            ],
            Scratch => &[
                "sync",
                "./repo",
                "./repo2",
                "--scratch",
                "scratch",
                "--signer",
                &host.signer,
            ],
        };
        words.iter().map(|word| (*word).to_owned()).collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    Full,
    ReadOnly,
    Forbidden,
}

/// What a run must say of the place, on stderr.
struct Cell {
    place: Place,
    says: &'static [&'static str],
}

const fn cell(place: Place, says: &'static [&'static str]) -> Cell {
    Cell { place, says }
}

const FULL: [Cell; 6] = [
    cell(State, &["c.state/catalog.db", "next: make room there"]),
    cell(
        Spool,
        &["c.state/spool", "No space left", "next: make room there"],
    ),
    cell(
        Snapshots,
        &[
            "c.state/snapshots/",
            "No space left",
            "next: make room there",
        ],
    ),
    cell(
        Target,
        &[
            "/repo",
            "BEHIND",
            "No space left",
            "the next run sends it from the spool",
        ],
    ),
    cell(
        Destination,
        &[
            "destination/new",
            "nothing was changed",
            "No space left",
            "next: make room there",
        ],
    ),
    cell(Scratch, &["scratch", "No space left"]),
];

const READ_ONLY: [Cell; 6] = [
    cell(
        State,
        &[
            "c.state/lock",
            "Read-only file system",
            "next: mount it writable",
        ],
    ),
    cell(
        Spool,
        &[
            "c.state/spool",
            "Read-only file system",
            "next: mount it writable",
        ],
    ),
    cell(
        Snapshots,
        &[
            "c.state/snapshots",
            "Read-only file system",
            "next: mount it writable",
        ],
    ),
    cell(
        Target,
        &[
            "/repo",
            "BEHIND",
            "Read-only file system",
            "the next run sends it from the spool",
        ],
    ),
    cell(
        Destination,
        &[
            "destination/",
            "Read-only file system",
            "next: mount it writable",
        ],
    ),
    cell(
        Scratch,
        &[
            "scratch",
            "Read-only file system",
            "next: name a directory of your own with --scratch",
        ],
    ),
];

const FORBIDDEN: [Cell; 6] = [
    cell(
        State,
        &[
            "c.state/lock",
            "Permission denied",
            "next: check owner and mode",
        ],
    ),
    cell(
        Spool,
        &[
            "c.state/spool",
            "Permission denied",
            "next: check owner and mode",
        ],
    ),
    cell(
        Snapshots,
        &[
            "c.state/snapshots",
            "Permission denied",
            "next: check owner and mode",
        ],
    ),
    cell(
        Target,
        &[
            "/repo",
            "BEHIND",
            "Permission denied",
            "the next run sends it from the spool",
        ],
    ),
    cell(
        Destination,
        &[
            "destination/",
            "Permission denied",
            "next: check owner and mode",
        ],
    ),
    cell(
        Scratch,
        &[
            "scratch",
            "Permission denied",
            "next: name a directory of your own with --scratch",
        ],
    ),
];

/// A host of which one place will give less.
struct Story {
    /// Unmounted before its folder is removed with the host.
    disk: Option<SmallDisk>,
    host: Host,
    place: Place,
    prefix: Vec<&'static str>,
    seed: u64,
}

impl Story {
    /// One snapshot was published. `None`: it cannot be tried here, and that was printed.
    fn begin(place: Place, want: Want) -> Option<Self> {
        let host = Host::prepared(
            |dir| {
                for name in [
                    "c.state",
                    "c.state/spool",
                    "c.state/snapshots",
                    "repo",
                    "repo2",
                ] {
                    fs::create_dir(dir.join(name)).unwrap();
                }
                for name in ["destination", "scratch"] {
                    fs::create_dir(dir.join(name)).unwrap();
                }
            },
            &["--tree", "data"],
        );
        let at = host.path(place.path());
        let mut story = Self {
            host,
            place,
            prefix: Vec::new(),
            disk: None,
            seed: 0,
        };
        match want {
            Want::Full | Want::ReadOnly => story.disk = Some(SmallDisk::mount(&at)?),
            Want::Forbidden => {
                story.prefix = ordinary_user()?;
                give_away(story.host.temp.path());
            }
        }
        story.change();
        assert_eq!(story.run(&["backup"]).code, Some(0));
        Some(story)
    }

    fn run(&self, arguments: &[&str]) -> Run {
        run(&mut wrapped(&self.host, &self.prefix, arguments))
    }

    /// The data become others.
    fn change(&mut self) {
        self.seed += 1;
        let data = self.host.data();
        fs::write(data.join("large"), noise(self.seed, 400_000)).unwrap();
        let small = data.join(format!("small-{}", self.seed));
        fs::write(small, noise(self.seed, 900)).unwrap();
        if !self.prefix.is_empty() {
            give_away(&data);
        }
    }

    fn at(&self) -> PathBuf {
        self.host.path(self.place.path())
    }

    /// Takes away, or gives back.
    fn set(&self, want: Want, free: u64, taken: bool) {
        let disk = || self.disk.as_ref().unwrap();
        match (want, taken) {
            (Want::Full, true) => disk().fill(free),
            (Want::Full, false) => disk().empty(),
            (Want::ReadOnly, taken) => disk().read_only(taken),
            (Want::Forbidden, taken) => {
                let mode = if taken { 0o000 } else { 0o755 };
                fs::set_permissions(self.at(), fs::Permissions::from_mode(mode)).unwrap();
            }
        }
    }

    /// The run that wants what it does not get.
    fn attempt(&self) -> Run {
        let arguments = self.place.arguments(&self.host);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.run(&arguments)
    }

    fn restored(&self, to: &str) -> Vec<String> {
        let out = self.host.restore("latest", to);
        let described = describe(&out.join("data"));
        fs::remove_dir_all(out).unwrap();
        described
    }

    fn assert_nothing_is_left(&self) {
        let host = &self.host;
        let none = Vec::<PathBuf>::new();
        assert_eq!(files(&host.path("c.state/spool")), none);
        assert_eq!(files(&host.path("scratch")), none);
        assert!(!host.path("c.state/scratch").exists());
        let hidden = |dir: &Path| {
            let names = fs::read_dir(dir).unwrap();
            let names = names.map(|e| e.unwrap().file_name().to_string_lossy().into_owned());
            names
                .filter(|name| name.starts_with('.'))
                .collect::<Vec<_>>()
        };
        for dir in ["c.state/snapshots", "destination"] {
            assert_eq!(hidden(&host.path(dir)), Vec::<String>::new(), "{dir}");
        }
        for object in files(&host.path("repo")) {
            let name = object.strip_prefix(host.path("repo")).unwrap();
            let name = name.display().to_string();
            assert!(!name.contains("tmp"), "{name}");
        }
        assert_sound(&host.folder());
    }

    /// All of it: `free` bytes are left where room is what is wanting.
    fn tell(mut self, cell: &Cell, want: Want, free: u64) {
        let before = describe(&self.host.data());
        let published = assert_sound(&self.host.folder());
        self.change();
        self.set(want, free, true);
        let run = self.attempt();
        let what = format!(
            "{:?}, {want:?}, {free} bytes free: {}",
            cell.place,
            run.said()
        );
        println!("{what}");
        // This may be enough.
        let is_done = free > 0 && run.code == Some(0);
        if !is_done {
            assert_eq!(run.code, Some(1), "{what}");
        }
        if !is_done && free == 0 {
            run.assert_says(cell.says);
        }
        // A user who may not look at the target cannot restore from it either; root may.
        let readable = fs::read_dir(self.at()).is_ok();
        if !is_done && (readable || cell.place != Target) {
            assert_eq!(self.restored("meanwhile"), before, "{what}");
            assert_eq!(assert_sound(&self.host.folder()), published, "{what}");
        }
        self.set(want, free, false);
        let again = self.attempt();
        if is_done && cell.place == Destination {
            // It is there already.
            assert_eq!(again.code, Some(1), "{}", again.said());
            fs::remove_dir_all(self.host.path("destination/new")).unwrap();
        } else {
            assert_eq!(again.code, Some(0), "{what}{}", again.said());
        }
        self.assert_nothing_is_left();
        assert_eq!(self.run(&["backup"]).code, Some(0));
        assert_eq!(
            self.restored("after"),
            describe(&self.host.data()),
            "{what}"
        );
        match cell.place {
            Destination if !is_done => {
                let new = self.host.path("destination/new/data");
                assert_eq!(describe(&new), before);
            }
            Scratch => {
                let copy = self.host.restore_from(&self.host.path("repo2"), "copied");
                assert_eq!(describe(&copy.join("data")), before);
            }
            _ => {}
        }
        self.assert_nothing_is_left();
    }
}

fn each(cells: &[Cell], want: Want, free: &[u64]) {
    for cell in cells {
        for free in free {
            let Some(story) = Story::begin(cell.place, want) else {
                return;
            };
            story.tell(cell, want, *free);
        }
    }
}

#[test]
fn a_full_disk_anywhere_is_told_and_loses_nothing() {
    if ran_in_a_namespace("scarcity::disks::a_full_disk_anywhere_is_told_and_loses_nothing") {
        return;
    }
    // A little room lets a run come further before it fails.
    let long = [0, 8_000, 30_000, 100_000, 300_000, 700_000];
    let free = if is_long() { &long[..] } else { &long[..1] };
    each(&FULL, Want::Full, free);
}

#[test]
fn a_read_only_disk_anywhere_is_told_and_loses_nothing() {
    if ran_in_a_namespace("scarcity::disks::a_read_only_disk_anywhere_is_told_and_loses_nothing") {
        return;
    }
    each(&READ_ONLY, Want::ReadOnly, &[0]);
}

#[test]
fn a_directory_without_permission_anywhere_is_told_and_loses_nothing() {
    each(&FORBIDDEN, Want::Forbidden, &[0]);
}
