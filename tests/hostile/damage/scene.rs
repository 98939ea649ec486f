//! A host with a week behind it: snapshots, some of them forgotten, marks that no backup has followed yet. And what can
//! happen to each thing.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sealift::base::ids::ObjectKey;
use sealift::format::manifest::{ArchiveKind, ArchiveRow, Manifest, TablePage};

use super::table::{Action, Place};
use crate::support::files::files;
use crate::support::host::{Host, texts};
use crate::support::tree::{describe, noise};

const DAYS: i64 = 7;
/// What is set back is set back to the end of this day.
const BACK_TO: i64 = 4;
const LIMIT: Duration = Duration::from_secs(60);

pub struct Scene {
    pub host: Host,
    /// The tree of each day, in the order of sequence.
    pub states: Vec<Vec<String>>,
    /// A second target, away until something is run.
    second: bool,
}

/// How a command ended, and all it said.
pub struct Ended {
    pub code: i32,
    pub said: String,
}

fn clock(day: i64) -> String {
    format!("2026-04-{:02}T06:00:00Z", 1 + day)
}

impl Scene {
    pub fn new() -> Self {
        let mut scene = Self::begun();
        scene.keep_good();
        scene
    }

    fn begun() -> Self {
        let mut host = Host::new();
        host.edit_config("stage = false", "stage = true ");
        fs::write(host.data().join("base"), noise(1000, 300_000)).unwrap();
        let mut states = Vec::new();
        for day in 0..DAYS {
            host.clock = Some(clock(day));
            states.push(write_day(&host, day));
            host.backup();
            if day == BACK_TO {
                copy(&host, "repo", "then-repo");
                copy(&host, "c.state", "then-state");
            }
            if day == DAYS - 2 {
                copy(&host, "c.state", "yesterday-state");
            }
            if day >= BACK_TO {
                host.ok(&["prune", "--policy", "daily=4"]);
            }
            if day == BACK_TO {
                copy(&host, "repo/dalidou/marks", "then-marks");
            }
        }
        host.ok(&["prune", "--policy", "daily=3"]);
        let other = Host::new();
        fs::write(other.data().join("theirs"), noise(7, 40_000)).unwrap();
        other.backup();
        fs::copy(
            other.path("c.state/catalog.db"),
            host.path("others-catalog"),
        )
        .unwrap();
        Self {
            host,
            states,
            second: false,
        }
    }

    /// One more day, on which a second target was away: the spool holds it.
    pub fn with_a_target_away() -> Self {
        let mut scene = Self::begun();
        let url = scene.host.path("second").display().to_string();
        let target = format!("\n[[target]]\nname = \"second\"\nurl = \"file://{url}\"\n");
        fs::write(scene.host.path("c.toml"), scene.host.config() + &target).unwrap();
        fs::write(scene.host.path("second"), "away").unwrap();
        scene.host.clock = Some(clock(DAYS));
        let state = write_day(&scene.host, DAYS);
        scene.states.push(state);
        scene.host.json_exits(&["backup"], &[3]);
        fs::remove_file(scene.host.path("second")).unwrap();
        fs::create_dir(scene.host.path("second")).unwrap();
        scene.second = true;
        scene.keep_good();
        scene
    }

    fn keep_good(&mut self) {
        self.host.clock = Some(clock(self.states.len() as i64));
        fs::create_dir(self.host.path("good")).unwrap();
        for name in self.kept() {
            copy(&self.host, name, &format!("good/{name}"));
        }
    }

    fn kept(&self) -> &[&'static str] {
        match self.second {
            true => &["repo", "c.state", "data", "second"],
            false => &["repo", "c.state", "data"],
        }
    }

    /// As it was. What is as it was stays the same file.
    pub fn reset(&self) {
        let _ = fs::remove_dir_all(self.host.path("out"));
        for name in self.kept() {
            let from = format!("{}/", self.host.path(&format!("good/{name}")).display());
            let done = Command::new("rsync")
                .args(["-aHc", "--inplace", "--delete", &from])
                .arg(self.host.path(name))
                .status();
            assert!(done.unwrap().success());
        }
    }

    /// The next day's work; gives the tree.
    pub fn change(&self) -> Vec<String> {
        write_day(&self.host, self.states.len() as i64)
    }

    /// Host folders of all targets.
    pub fn folders(&self) -> Vec<PathBuf> {
        let second = self.host.path("second/dalidou");
        let mut folders = vec![self.host.folder()];
        folders.extend((self.second && second.join("manifests").exists()).then_some(second));
        folders.retain(|folder| folder.join("archives").exists());
        folders
    }

    pub fn run(&self, arguments: &[&str]) -> Ended {
        let mut child = self
            .host
            .command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It says little: less than a pipe holds.
        let begun = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if begun.elapsed() > LIMIT {
                child.kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        let output = child.wait_with_output().unwrap();
        let (out, err) = texts(&output);
        assert!(!err.contains("panicked"), "{arguments:?}: {err}");
        let said = format!("{out}\n{err}");
        let code = output.status.code();
        let code = code.unwrap_or_else(|| panic!("{arguments:?} ended by a signal: {said}"));
        Ended { code, said }
    }

    pub fn host_runs(&self, arguments: &[&str], codes: &[i32]) -> Result<(), String> {
        let ended = self.run(arguments);
        match codes.contains(&ended.code) {
            true => Ok(()),
            false => Err(format!("{arguments:?}: {} {}", ended.code, ended.said)),
        }
    }

    pub fn restore(&self, from: &str, more: &[&str]) -> Ended {
        let _ = fs::remove_dir_all(self.host.path("out"));
        let signer = &self.host.signer;
        let arguments = [
            "restore",
            "--from",
            from,
            "--identity",
            "key.txt",
            "--to",
            "out",
        ];
        self.run(&[&arguments, &["--signer", signer][..], more].concat())
    }

    /// The second target, too, restores to `state`, and holds nothing that is not what its name says.
    pub fn others_restore(&self, state: &[String]) -> Result<(), String> {
        if !self.second {
            return Ok(());
        }
        for path in files(&self.host.path("second/dalidou/archives")) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let found = sealift::base::ids::Hash::blake3(&fs::read(&path).unwrap());
            if ObjectKey::archive_file_hash(&name) != Some(found) {
                return Err(format!(
                    "{name} was put on the second target and is another"
                ));
            }
        }
        super::restores_to(self, "second", state)
    }

    /// The one target that has a past.
    pub fn verify(&self, more: &[&str]) -> Ended {
        self.run(&[&["verify", "--target", "folder"], more].concat())
    }

    pub fn prune(&self, policy: &str) -> Ended {
        let target: &[&str] = if self.second {
            &["--target", "folder"]
        } else {
            &[]
        };
        self.run(&[&["prune", "--policy", policy], target].concat())
    }

    fn newest(&self) -> Manifest {
        let newest = below(&self.host.folder(), "manifests", ".json")
            .pop()
            .unwrap();
        Manifest::parse(&fs::read(newest).unwrap()).unwrap()
    }

    /// The newest snapshot's archives of a kind, oldest first.
    fn rows(&self, kind: ArchiveKind) -> Vec<ArchiveRow> {
        let folder = self.host.folder();
        let pages = self.newest().pages.into_iter().map(|page| {
            let bytes = fs::read(folder.join(ObjectKey::table(&page).as_str())).unwrap();
            TablePage::parse(&bytes).unwrap().rows
        });
        let mut rows: Vec<ArchiveRow> = pages.flatten().filter(|row| row.kind == kind).collect();
        rows.sort_by_key(|row| row.id.counter);
        rows
    }

    /// All of a place's kind that are there now; the one that is damaged comes first, then another.
    fn objects(&self, place: Place) -> Vec<PathBuf> {
        let folder = self.host.folder();
        let newest = self.newest().name();
        let of_folder = |keys: Vec<ObjectKey>| -> Vec<PathBuf> {
            keys.iter().map(|key| folder.join(key.as_str())).collect()
        };
        match place {
            // The oldest holds what every snapshot needs.
            Place::DataArchive => {
                let rows = self.rows(ArchiveKind::Data);
                of_folder(rows.iter().map(ArchiveRow::key).collect())
            }
            Place::IndexArchive => {
                let rows = self.rows(ArchiveKind::Index);
                let mut found = of_folder(rows.iter().rev().map(ArchiveRow::key).collect());
                // The newest index may need no other.
                found.extend(of_folder(vec![self.rows(ArchiveKind::Data)[0].key()]));
                found
            }
            Place::Manifest => below(&folder, "manifests", ".json")
                .into_iter()
                .rev()
                .collect(),
            Place::Signature => below(&folder, "manifests", ".sig")
                .into_iter()
                .rev()
                .collect(),
            Place::TablePage => {
                let own = of_folder(vec![ObjectKey::table(&self.newest().pages[0])]);
                let others = below(&folder, "tables", ".json").into_iter();
                own.clone()
                    .into_iter()
                    .chain(others.filter(|page| !own.contains(page)))
                    .collect()
            }
            Place::Catalog => vec![
                self.host.path("c.state/catalog.db"),
                self.host.path("others-catalog"),
            ],
            Place::SpoolObject => {
                let mut found = files(&self.host.path("c.state/spool/archives"));
                found.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).unwrap().len()));
                assert!(found.len() >= 2, "{found:?}");
                found
            }
            Place::SnapshotFile => {
                let dir = self
                    .host
                    .path(&format!("c.state/snapshots/{}/data", newest.stamp));
                vec![dir.join("base"), dir.join("today")]
            }
            Place::Tombstone => below(&folder, "tombstones", ".json")
                .into_iter()
                .rev()
                .collect(),
            Place::Mark => below(&folder, "marks", ".json"),
        }
    }

    /// Does it; gives what was touched.
    pub fn damage(&self, place: Place, action: Action) -> Vec<PathBuf> {
        let objects = self.objects(place);
        assert!(objects.len() > 1, "{place:?}: {objects:?}");
        let (object, other) = (objects[0].clone(), objects[1].clone());
        let bytes = fs::read(&object).unwrap();
        let mut touched = vec![object.clone()];
        match action {
            Action::Flip => {
                let mut bytes = bytes;
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                rewrite(&object, &bytes);
            }
            Action::Truncate => rewrite(&object, &bytes[..bytes.len() / 2]),
            Action::Zero => rewrite(&object, &vec![0; bytes.len()]),
            Action::Delete => fs::remove_file(&object).unwrap(),
            Action::Duplicate => touched.push(self.duplicate(place, &object)),
            Action::Swap => {
                let theirs = fs::read(&other).unwrap();
                rewrite(&object, &theirs);
                if place != Place::Catalog {
                    rewrite(&other, &bytes);
                    touched.push(other);
                }
            }
            Action::RollBack => touched.extend(self.roll_back(place, &objects)),
            Action::Replay => touched.extend(self.replay(place, &object, &other)),
            Action::Append => {
                let mut file = fs::OpenOptions::new().append(true).open(&object).unwrap();
                file.write_all(b"\0more\n").unwrap();
            }
        }
        touched
    }

    /// The same once more, under a name by which it could be taken for one of its kind.
    fn duplicate(&self, place: Place, object: &Path) -> PathBuf {
        let name = object.file_name().unwrap().to_string_lossy().into_owned();
        let twin = match place {
            // A name of the same shape: another last digit of the stem.
            Place::SnapshotFile => format!("{name}-twin"),
            Place::Catalog => format!("{name}-wal"),
            _ => {
                let cut = name.find('.').unwrap();
                let digit = if name[..cut].ends_with('0') { '1' } else { '0' };
                format!("{}{digit}{}", &name[..cut - 1], &name[cut..])
            }
        };
        let twin = object.with_file_name(twin);
        fs::copy(object, &twin).unwrap();
        if place == Place::Manifest {
            // With its signature, which is good.
            let beside = |path: &Path| PathBuf::from(format!("{}.sig", path.display()));
            fs::copy(beside(object), beside(&twin)).unwrap();
        }
        twin
    }

    /// Everything of that kind as it was some days ago: what came since is gone, what went is there again.
    fn roll_back(&self, place: Place, now: &[PathBuf]) -> Vec<PathBuf> {
        let (repo, then) = (self.host.folder(), self.host.path("then-repo/dalidou"));
        let set_back = |folder: &str, ending: &str, ours: &dyn Fn(&Path) -> bool| {
            let mut changed = Vec::new();
            for path in below(&repo, folder, ending)
                .into_iter()
                .filter(|path| ours(path))
            {
                if !then.join(path.strip_prefix(&repo).unwrap()).exists() {
                    fs::remove_file(&path).unwrap();
                    changed.push(path);
                }
            }
            for path in below(&then, folder, ending) {
                let to = repo.join(path.strip_prefix(&then).unwrap());
                if !to.exists() {
                    fs::create_dir_all(to.parent().unwrap()).unwrap();
                    fs::copy(&path, &to).unwrap();
                    changed.push(to);
                }
            }
            changed
        };
        match place {
            Place::DataArchive | Place::IndexArchive => {
                let kind = match place {
                    Place::DataArchive => ArchiveKind::Data,
                    _ => ArchiveKind::Index,
                };
                let ours: Vec<PathBuf> = self
                    .rows(kind)
                    .iter()
                    .map(|row| repo.join(row.key().as_str()))
                    .collect();
                set_back("archives", ".age", &|path| {
                    ours.contains(&path.to_path_buf())
                })
            }
            Place::Manifest => {
                let mut changed = set_back("manifests", "", &|_| true);
                for path in below(&repo, "manifests", ".json") {
                    let manifest = Manifest::parse(&fs::read(path).unwrap()).unwrap();
                    let keys = manifest.pages.iter().map(ObjectKey::table);
                    changed.extend(keys.map(|key| repo.join(key.as_str())));
                }
                changed
            }
            Place::Signature => set_back("manifests", ".sig", &|_| true),
            Place::TablePage => set_back("tables", ".json", &|_| true),
            Place::Tombstone => set_back("tombstones", "", &|_| true),
            Place::Mark => set_back("marks", ".json", &|_| true),
            Place::Catalog => {
                fs::copy(self.host.path("then-state/catalog.db"), &now[0]).unwrap();
                Vec::new()
            }
            Place::SpoolObject => {
                for path in files(&self.host.path("c.state/spool")) {
                    fs::remove_file(path).unwrap();
                }
                Vec::new()
            }
            Place::SnapshotFile => {
                let older = self.older_snapshot();
                for file in files(&older) {
                    let to = now[0].with_file_name(file.file_name().unwrap());
                    rewrite(&to, &fs::read(&file).unwrap());
                }
                Vec::new()
            }
        }
    }

    fn older_snapshot(&self) -> PathBuf {
        let mut all: Vec<PathBuf> = fs::read_dir(self.host.path("c.state/snapshots"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        all.sort();
        all[all.len() - 2].join("data")
    }

    /// Something genuine of an earlier day, where it does not belong.
    fn replay(&self, place: Place, object: &Path, other: &Path) -> Vec<PathBuf> {
        let then = self.host.path("then-repo/dalidou");
        match place {
            // A snapshot that was forgotten comes back, as it was signed.
            Place::Manifest => {
                let mut came = Vec::new();
                for path in below(&then, "manifests", "").into_iter().take(2) {
                    let to = object.with_file_name(path.file_name().unwrap());
                    fs::copy(&path, &to).unwrap();
                    if let Ok(manifest) = Manifest::parse(&fs::read(&to).unwrap()) {
                        // What it names is gone, too.
                        let keys = manifest.pages.iter().map(ObjectKey::table);
                        came.extend(keys.map(|key| self.host.folder().join(key.as_str())));
                    }
                    came.push(to);
                }
                came
            }
            Place::Catalog => {
                fs::copy(self.host.path("yesterday-state/catalog.db"), object).unwrap();
                Vec::new()
            }
            Place::SpoolObject => {
                let spool = self.host.path("c.state/spool");
                for path in below(&then, "manifests", "") {
                    let to = spool.join("manifests").join(path.file_name().unwrap());
                    fs::copy(&path, to).unwrap();
                }
                Vec::new()
            }
            Place::SnapshotFile => {
                let older = self.older_snapshot().join("today");
                rewrite(other, &fs::read(older).unwrap());
                vec![other.to_path_buf()]
            }
            // A tombstone under the name of a snapshot that lives; a mark that was followed and is gone.
            Place::Tombstone => {
                let live = self.newest().name().to_string();
                let hash = sealift::base::ids::Hash::sha256(&fs::read(object).unwrap()).short();
                let to = object
                    .with_file_name(format!("{}-{hash}.json", live.rsplit_once('-').unwrap().0));
                fs::copy(object, &to).unwrap();
                let beside = |path: &Path| PathBuf::from(format!("{}.sig", path.display()));
                fs::copy(beside(object), beside(&to)).unwrap();
                vec![to]
            }
            Place::Mark => {
                let old = files(&self.host.path("then-marks")).remove(0);
                let to = object.with_file_name(old.file_name().unwrap());
                assert!(!to.exists());
                fs::copy(old, &to).unwrap();
                vec![to]
            }
            // Another genuine one under this one's name.
            _ => {
                rewrite(object, &fs::read(other).unwrap());
                Vec::new()
            }
        }
    }
}

/// Bits change and times do not.
fn rewrite(path: &Path, bytes: &[u8]) {
    let before = fs::metadata(path).unwrap();
    fs::write(path, bytes).unwrap();
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
}

fn write_day(host: &Host, day: i64) -> Vec<String> {
    fs::write(host.data().join("today"), noise(day as u64, 30_000)).unwrap();
    fs::write(host.data().join("number"), day.to_string()).unwrap();
    describe(&host.data())
}

fn copy(host: &Host, from: &str, to: &str) {
    let done = Command::new("cp")
        .arg("-a")
        .arg(host.path(from))
        .arg(host.path(to))
        .status();
    assert!(done.unwrap().success());
}

fn below(folder: &Path, name: &str, ending: &str) -> Vec<PathBuf> {
    if !folder.join(name).exists() {
        return Vec::new();
    }
    let found = files(&folder.join(name)).into_iter();
    found
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect()
}
