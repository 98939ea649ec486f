use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::*;

/// Returns the content of every file below a directory, by path; stamps in names are shortened.
fn content(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![root.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let rel = path.strip_prefix(root).unwrap().display().to_string();
                found.insert(rel, fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

fn files(root: &Path, names: &[&str], says: &str) {
    for name in names {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, says).unwrap();
    }
}

struct Scene {
    temp: tempfile::TempDir,
    to: Dir,
}

const OLD: [&str; 4] = ["both", "dir/inner", "only-old", "z"];
const NEW: [&str; 4] = ["both", "dir/other", "only-new", "z"];
/// Names in the old content, the new one, or both: a step for each.
const STEPS: usize = 5;

impl Scene {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        files(temp.path(), &OLD, "old");
        let to = Dir::open(temp.path()).unwrap();
        Self { temp, to }
    }

    fn stage(&self) -> (PrivateDir, Dir) {
        let staging = PrivateDir::make(&self.to, INSIDE_PREFIX.as_ref(), |_| ()).unwrap();
        let tree = staging.dir().make_dir(TREE, 0o700).unwrap();
        files(
            &self.temp.path().join(staging.name()).join(TREE),
            &NEW,
            "new",
        );
        (staging, tree)
    }

    /// Stops as if the process died after `steps` entries.
    fn die_after(&self, steps: usize) {
        let (staging, tree) = self.stage();
        let items = plan_moves(&self.to, &tree, staging.name(), true).unwrap();
        assert_eq!(items.len(), STEPS);
        let plan = MovePlan {
            stamp: "20260101T000000Z".parse().unwrap(),
            aside: Some("aside".to_owned()),
            items,
        };
        let mut journal = Journal::create(staging.dir(), JOURNAL).unwrap();
        journal.append(&plan).unwrap();
        let moves = Moves::begin(&self.to, &tree, &plan).unwrap();
        for item in &plan.items[..steps] {
            moves.forward(item).unwrap();
        }
        staging.keep();
    }

    fn assert_new(&self) {
        let mut expected: BTreeMap<String, String> = NEW
            .iter()
            .map(|name| ((*name).to_owned(), "new".to_owned()))
            .collect();
        expected.extend(
            OLD.iter()
                .map(|name| (format!("aside/{name}"), "old".to_owned())),
        );
        assert_eq!(content(self.temp.path()), expected);
    }
}

#[test]
fn a_restore_that_died_at_any_step_is_finished_once() {
    for steps in 0..=STEPS {
        let scene = Scene::new();
        scene.die_after(steps);
        let resumed = resume(&scene.to).unwrap();
        assert_eq!(resumed.len(), 1, "{steps}");
        let aside = scene.temp.path().join("aside");
        assert_eq!(resumed[0].moved_aside.as_deref(), Some(aside.as_path()));
        scene.assert_new();
        assert!(resume(&scene.to).unwrap().is_empty());
    }
}

#[test]
fn entries_that_others_add_meanwhile_are_moved_aside_and_never_lost() {
    for steps in 0..=STEPS {
        let scene = Scene::new();
        scene.die_after(steps);
        // An application starts between two steps, and writes its files again.
        let there = |name: &str| scene.temp.path().join(name);
        for name in ["both", "only-new", "z", "unknown"] {
            let _ = fs::remove_file(there(name));
            fs::write(there(name), "other").unwrap();
        }
        let others = 4;
        resume(&scene.to).unwrap();
        let found = content(scene.temp.path());
        let count = |says: &str| found.values().filter(|text| *text == says).count();
        assert_eq!(count("other"), others, "{steps}: {found:?}");
        assert_eq!(found["unknown"], "other");
        for name in ["both", "only-new", "z"] {
            // Either it came after the new entry and replaced that, or it was moved aside.
            let aside = found
                .iter()
                .any(|(path, says)| path.starts_with(&format!("aside/{name}")) && says == "other");
            assert!(aside || found[name] == "other", "{steps}: {found:?}");
        }
    }
}

#[test]
fn undone_steps_leave_the_old_content() {
    for steps in 0..=STEPS {
        let scene = Scene::new();
        let before = content(scene.temp.path());
        let (staging, tree) = scene.stage();
        let items = plan_moves(&scene.to, &tree, staging.name(), true).unwrap();
        let plan = MovePlan {
            stamp: "20260101T000000Z".parse().unwrap(),
            aside: Some("aside".to_owned()),
            items,
        };
        let moves = Moves::begin(&scene.to, &tree, &plan).unwrap();
        for item in &plan.items[..steps] {
            moves.forward(item).unwrap();
        }
        moves.undo(&plan.items[..steps]).unwrap();
        moves.withdraw(&plan).unwrap();
        let staged = content(&scene.temp.path().join(staging.name()).join(TREE));
        assert_eq!(staged.len(), NEW.len());
        drop(moves);
        staging.remove().unwrap();
        assert_eq!(content(scene.temp.path()), before, "{steps}");
    }
}

#[test]
fn a_running_restore_is_left_alone_and_a_torn_plan_is_ignored() {
    let scene = Scene::new();
    let (staging, _tree) = scene.stage();
    assert_eq!(
        resume(&scene.to).unwrap_err().kind(),
        io::ErrorKind::WouldBlock
    );
    let journal = scene.temp.path().join(staging.name()).join(JOURNAL);
    fs::write(&journal, "{\"n\":1,\"crc\":\"00").unwrap();
    let name = staging.name().to_owned();
    staging.keep();
    drop(staging);
    assert!(!is_interrupted(&scene.to, &name));
    assert!(resume(&scene.to).unwrap().is_empty());
    assert_eq!(content(scene.temp.path())["both"], "old");
}
