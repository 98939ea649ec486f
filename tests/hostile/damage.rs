//! What damage does to what: every kind of it, to every kind of object, under every operation. The table in
//! `damage/table.rs` says how each ends; the test does it and looks. docs/damage.md shows the same table.

mod scene;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use sealift::base::ids::{Hash, ObjectKey};
use sealift::format::manifest::{Manifest, ManifestName, TablePage};

use scene::{Ended, Scene};
use table::{Action, Cells, Outcome, Place, TABLE};

use crate::support::files::files;
use crate::support::is_long;
use crate::support::tree;

/// In everyday runs each tenth row; all of them with `./test --long`.
const EVERYDAY: usize = 10;

/// Archives by name, and their bytes.
type Archives = BTreeMap<String, u64>;

fn archives(folder: &Path) -> Archives {
    let all = files(&folder.join("archives")).into_iter();
    all.map(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, fs::metadata(&path).unwrap().len())
    })
    .collect()
}

/// Every manifest that can be read, with the archives that it names.
fn readable(folder: &Path) -> BTreeMap<String, Archives> {
    let mut found = BTreeMap::new();
    for path in files(&folder.join("manifests")) {
        let key = format!("manifests/{}", path.file_name().unwrap().to_string_lossy());
        let Some(name) = ManifestName::from_key(&key) else {
            continue;
        };
        let Ok(manifest) = Manifest::parse_named(&name, &fs::read(&path).unwrap()) else {
            continue;
        };
        let mut named = Archives::new();
        let all = manifest.pages.iter().all(|page| {
            let path = folder.join(ObjectKey::table(page).as_str());
            let bytes = fs::read(path).unwrap_or_default();
            let genuine = Hash::sha256(&bytes) == *page;
            let rows = TablePage::parse(&bytes).map(|page| page.rows);
            let rows = rows.unwrap_or_default();
            named.extend(rows.into_iter().map(|row| {
                let key = row.key();
                let (_, name) = key.as_str().rsplit_once('/').unwrap();
                (name.to_owned(), row.bytes)
            }));
            genuine
        });
        if all {
            found.insert(name.to_string(), named);
        }
    }
    found
}

/// What a message must hold to name an object: digits of its hash, or its snapshot's stamp.
fn names(said: &str, touched: &[PathBuf]) -> bool {
    touched.iter().any(|path| {
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        let stem = file.split('.').next().unwrap();
        let stamp = stem.split('-').nth(1).filter(|part| part.len() == 16);
        said.contains(&stem[..stem.len().min(12)]) || stamp.is_some_and(|s| said.contains(s))
    })
}

/// The newest snapshot, restored from `from`, is what `state` was.
fn restores_to(scene: &Scene, from: &str, state: &[String]) -> Result<(), String> {
    let ended = scene.restore(from, &[]);
    if ended.code != 0 {
        return Err(format!("it does not restore: {}", ended.said));
    }
    match tree::describe(&scene.host.path("out/data")) == state {
        true => Ok(()),
        false => Err("what is restored is another tree".to_owned()),
    }
}

struct Cell<'a> {
    scene: &'a Scene,
    touched: Vec<PathBuf>,
    expected: Outcome,
    /// The next snapshot leans on what is damaged.
    leaned_on: bool,
}

impl Cell<'_> {
    fn require(&self, ok: bool, what: &str, ended: &Ended) -> Result<(), String> {
        match ok {
            true => Ok(()),
            false => Err(format!("{what}: {} {}", ended.code, ended.said)),
        }
    }

    fn restore(&self) -> Result<(), String> {
        let (scene, newest) = (self.scene, self.scene.states.last().unwrap());
        let ended = scene.restore("repo", &[]);
        let out = scene.host.path("out");
        match self.expected {
            Outcome::Unaffected(_) => {
                self.require(ended.code == 0, "not restored", &ended)?;
                let same = tree::describe(&out.join("data")) == *newest;
                self.require(same, "another tree", &ended)
            }
            Outcome::Refused => {
                self.require(ended.code == 1 && !out.exists(), "not refused", &ended)?;
                self.require(names(&ended.said, &self.touched), "not named", &ended)
            }
            Outcome::Older => {
                self.require(ended.code == 0, "not restored", &ended)?;
                let found = tree::describe(&out.join("data"));
                let older = scene.states[..scene.states.len() - 1].contains(&found);
                self.require(older, "no older tree", &ended)?;
                let sequence = scene.states.len().to_string();
                let ended = scene.restore("repo", &["--at-least", &sequence]);
                let hidden = ended.code == 1 && ended.said.contains("at least");
                self.require(hidden, "--at-least did not see it", &ended)
            }
            other => Err(format!(
                "{other:?} is no outcome of a restore: {}",
                ended.said
            )),
        }
    }

    fn verify(&self) -> Result<(), String> {
        let scene = self.scene;
        let look = scene.verify(&[]);
        let read = scene.verify(&["--data"]);
        let named = |ended: &Ended| names(&ended.said, &self.touched);
        match self.expected {
            Outcome::Unaffected(_) => {
                self.require(look.code == 0, "a look found something", &look)?;
                self.require(read.code == 0, "reading found something", &read)
            }
            Outcome::Found => {
                self.require(
                    look.code == 3 && named(&look),
                    "a look found nothing",
                    &look,
                )?;
                self.require(
                    read.code == 3 && named(&read),
                    "reading found nothing",
                    &read,
                )
            }
            Outcome::Doubted => {
                let doubted = look.code == 3 && look.said.contains("was published there");
                self.require(doubted, "not doubted", &look)
            }
            Outcome::FoundByReading => {
                self.require(look.code == 0, "a look found something", &look)?;
                self.require(
                    read.code == 3 && named(&read),
                    "reading found nothing",
                    &read,
                )
            }
            other => Err(format!("{other:?} is no outcome of verify: {}", read.said)),
        }
    }

    /// Whatever happened: a manifest that is new names only what is there, complete.
    fn is_sound(&self, before: &BTreeSet<String>) -> Result<(), String> {
        for target in self.scene.folders() {
            let here = archives(&target);
            for (name, needed) in readable(&target) {
                let incomplete = needed
                    .iter()
                    .find(|(hash, bytes)| here.get(*hash) != Some(bytes));
                if let (false, Some((hash, _))) = (before.contains(&name), incomplete) {
                    return Err(format!("{name} was published, and {hash} is not whole"));
                }
            }
        }
        Ok(())
    }

    fn manifests(&self) -> BTreeSet<String> {
        let folders = self.scene.folders().into_iter();
        folders
            .flat_map(|folder| readable(&folder).into_keys())
            .collect()
    }

    fn backup(&self) -> Result<(), String> {
        let scene = self.scene;
        let before = self.manifests();
        let state = scene.change();
        let ended = scene.run(&["backup"]);
        self.is_sound(&before)?;
        let restores =
            || restores_to(scene, "repo", &state).and_then(|()| scene.others_restore(&state));
        match self.expected {
            Outcome::Unaffected(_) => {
                self.require(ended.code == 0, "not complete", &ended)?;
                restores()
            }
            Outcome::Told => {
                self.require(ended.code == 3, "not reported", &ended)?;
                restores()?;
                let ended = scene.run(&["backup"]);
                self.require(ended.code == 0, "the next is not complete", &ended)
            }
            Outcome::Noted => {
                let noted = ended.code == 0 && ended.said.contains("damaged");
                self.require(noted, "not noted", &ended)?;
                restores()
            }
            Outcome::Converges => {
                self.require([0, 1, 3].contains(&ended.code), "no end", &ended)?;
                if ended.code != 1 {
                    restores()?;
                }
                let ended = scene.run(&["backup"]);
                self.require([0, 3].contains(&ended.code), "not the next either", &ended)?;
                restores()
            }
            Outcome::Blocked => {
                // It goes on with what it has, and says so each time: the damage is not its own to undo.
                self.require(ended.code == 3, "not reported", &ended)?;
                self.require(names(&ended.said, &self.touched), "not named", &ended)?;
                restores()
            }
            Outcome::Refused => {
                self.require(ended.code == 1, "not refused", &ended)?;
                self.require(self.manifests() == before, "published", &ended)?;
                self.require(names(&ended.said, &self.touched), "not named", &ended)
            }
            Outcome::Heals => {
                self.require(ended.code == 0, "not complete", &ended)?;
                let read = scene.restore("repo", &[]);
                self.require(read.code == 1, "restored nevertheless", &read)?;
                self.require(names(&read.said, &self.touched), "not named", &read)?;
                let ended = scene.verify(&["--data", "--repair"]);
                self.require(
                    ended.code == 3 && names(&ended.said, &self.touched),
                    "not found",
                    &ended,
                )?;
                scene.host_runs(&["backup"], &[0, 3])?;
                restores()
            }
            other => Err(format!(
                "{other:?} is no outcome of a backup: {}",
                ended.said
            )),
        }
    }

    fn prune(&self) -> Result<(), String> {
        let scene = self.scene;
        let folder = scene.host.folder();
        let (before, here) = (readable(&folder), archives(&folder));
        let all = files(&folder);
        let ended = scene.prune("daily=2");
        let now = archives(&folder);
        for (name, needed) in readable(&folder) {
            for hash in needed.keys().filter(|hash| here.contains_key(*hash)) {
                if now.get(hash) != here.get(hash) {
                    return Err(format!(
                        "{hash} was deleted, and {name} names it: {}",
                        ended.said
                    ));
                }
            }
        }
        let forgot = before.len() > readable(&folder).len();
        match self.expected {
            Outcome::Unaffected(_) => {
                self.require(ended.code == 0 && forgot, "not pruned", &ended)?;
                if is_long() {
                    // What was marked goes once a backup took notice, and what stays is whole (but for what a
                    // look does not see).
                    let state = scene.change();
                    if scene.run(&["backup"]).code == 1 {
                        scene.host_runs(&["backup"], &[0, 3])?;
                    }
                    let ended = scene.prune("daily=2");
                    self.require(ended.code == 0, "not pruned again", &ended)?;
                    if !self.leaned_on {
                        restores_to(scene, "repo", &state)?;
                    }
                }
                Ok(())
            }
            Outcome::Refused => {
                self.require(ended.code == 1, "not refused", &ended)?;
                self.require(files(&folder) == all, "something was deleted", &ended)?;
                self.require(names(&ended.said, &self.touched), "not named", &ended)
            }
            Outcome::Kept(_) => self.require(
                ended.code == 0 && !forgot,
                "something was forgotten",
                &ended,
            ),
            other => Err(format!(
                "{other:?} is no outcome of a prune: {}",
                ended.said
            )),
        }
    }
}

type Operation = fn(&Cell<'_>) -> Result<(), String>;

const OPERATIONS: [(&str, Operation); 4] = [
    ("restore", |cell| cell.restore()),
    ("verify", |cell| cell.verify()),
    ("backup", |cell| cell.backup()),
    ("prune", |cell| cell.prune()),
];

fn check_row(scene: &Scene, (place, action, cells): &(Place, Action, Cells)) -> Vec<String> {
    let mut wrong = Vec::new();
    for ((name, operation), expected) in OPERATIONS.iter().zip(cells) {
        scene.reset();
        let touched = scene.damage(*place, *action);
        let cell = Cell {
            scene,
            touched,
            expected: *expected,
            leaned_on: cells.contains(&Outcome::Heals),
        };
        if let Err(why) = operation(&cell) {
            let why: String = why.chars().take(1500).collect();
            wrong.push(format!(
                "{place:?} {action:?} {name}: expected {expected:?}: {why}"
            ));
        }
    }
    wrong
}

#[test]
fn every_cell_of_the_table_ends_as_it_says() {
    let only = std::env::var("SEALIFT_DAMAGE_ONLY").unwrap_or_default();
    let chosen = |(at, row): &(usize, &(Place, Action, Cells))| match only.is_empty() {
        true => is_long() || at % EVERYDAY == 0,
        false => format!("{:?} {:?}", row.0, row.1).starts_with(&only),
    };
    let rows: Vec<_> = TABLE
        .iter()
        .enumerate()
        .filter(chosen)
        .map(|(_, row)| row)
        .collect();
    let tried = 4 * rows.len();
    let (ordinary, spooled): (Vec<_>, Vec<_>) = rows
        .into_iter()
        .partition(|row| row.0 != Place::SpoolObject);
    let wrong = Mutex::new(Vec::new());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        // Each has a scene of its own, which takes as long as some rows.
        for _ in 0..if is_long() { 2 } else { 1 } {
            scope.spawn(|| {
                let scene = Scene::new();
                while let Some(row) = ordinary.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = check_row(&scene, row);
                    wrong.lock().unwrap().extend(found);
                }
            });
        }
        scope.spawn(|| {
            if spooled.is_empty() {
                return;
            }
            let scene = Scene::with_a_target_away();
            for row in &spooled {
                let found = check_row(&scene, row);
                wrong.lock().unwrap().extend(found);
            }
        });
    });
    let wrong = wrong.into_inner().unwrap();
    println!("{}", table::render());
    println!("{} cells, {} of them tried", 4 * TABLE.len(), tried);
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// SQLite does not see every bit that flips; a wrong offset would go into every index from then on.
#[test]
fn no_flip_in_the_catalog_makes_a_wrong_extent() {
    use std::os::unix::fs::FileExt as _;
    let scene = Scene::new();
    let catalog = scene.host.path("c.state/catalog.db");
    let flips: u64 = if is_long() { 60 } else { 3 };
    for n in 0..flips {
        scene.reset();
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&catalog)
            .unwrap();
        let bytes = file.metadata().unwrap().len();
        // Behind the header, all over the file, and often where rows are: towards the end of a page.
        let page = 1 + n * 31 % (bytes / 4096 - 1);
        for at in [page * 4096 + 4000 - n * 37 % 900, page * 4096 + 3] {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            byte[0] ^= 1 << (n % 8);
            file.write_all_at(&byte, at).unwrap();
        }
        let state = scene.change();
        let ended = scene.run(&["backup"]);
        if ended.code == 1 {
            assert!(ended.said.contains("catalog"), "{n}: {}", ended.said);
            scene.host_runs(&["backup"], &[0, 3]).unwrap();
        }
        if !matches!(ended.code, 0 | 1 | 3) {
            panic!("{n}: {}", ended.said);
        }
        restores_to(&scene, "repo", &state).unwrap();
        // Without the catalog: that may be met to be damaged yet.
        let signer = ["--signer", &scene.host.signer];
        let ended = scene.run(&[&["verify", "--data", "--from", "repo"], &signer[..]].concat());
        assert_eq!(ended.code, 0, "{n}: {}", ended.said);
    }
}

#[test]
fn the_table_has_every_cell_once() {
    let rows: BTreeSet<String> = TABLE
        .iter()
        .map(|(p, a, _)| format!("{p:?} {a:?}"))
        .collect();
    assert_eq!(rows.len(), TABLE.len());
    assert_eq!(TABLE.len(), table::PLACES.len() * table::ACTIONS.len());
}

/// `SEALIFT_WRITE_DOCS=1` writes it again.
#[test]
fn the_documented_table_is_this_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/damage.md");
    let text = fs::read_to_string(&path).unwrap();
    let marker = "<!-- from tests/hostile/damage/table.rs -->\n";
    let (head, shown) = text.split_once(marker).unwrap();
    if std::env::var_os("SEALIFT_WRITE_DOCS").is_some() {
        fs::write(&path, format!("{head}{marker}{}", table::render())).unwrap();
        return;
    }
    assert_eq!(shown, table::render());
}
