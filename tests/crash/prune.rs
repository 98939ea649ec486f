//! A prune that is stopped at any of its calls: what stays restores, and the next one ends it.

use std::collections::BTreeSet;
use std::path::Path;

use crate::points::{Point, try_points};
use crate::scene::{Content, Disks, Scene};
use crate::support::files::files;

const PRUNE: [&str; 4] = ["prune", "--policy", "last=2", "--yes"];
const EARLIER: u64 = 6;
/// What goes where a disk is full, and is back after the next prune.
const MAKES_ROOM: [&str; 3] = [".reserve", "RECOVER.md", "recover-v4.py"];
const RESTORED_EVERY: usize = 4;

/// What a target holds of each kind: archives, pages and manifests by name; marks and tombstones, whose names are
/// new each time, by number.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    named: BTreeSet<String>,
    statements: usize,
}

impl Held {
    fn by(folder: &Path) -> Self {
        let all = files(folder).into_iter();
        let all: BTreeSet<String> = all
            .map(|path| path.strip_prefix(folder).unwrap().display().to_string())
            .filter(|key| !key.starts_with(".tmp"))
            .collect();
        let is_statement =
            |key: &String| key.starts_with("marks/") || key.starts_with("tombstones/");
        let (statements, named): (BTreeSet<String>, _) = all.into_iter().partition(is_statement);
        Self {
            named,
            statements: statements.len(),
        }
    }
}

struct Prunes {
    scene: Scene,
    /// By day, which is one less than the sequence.
    contents: Vec<Content>,
    before: BTreeSet<String>,
    after: Held,
    tried: usize,
}

impl Prunes {
    /// Of six snapshots two were forgotten and their archives marked, two are to be forgotten now; a later manifest
    /// followed the mark.
    fn prepare() -> Self {
        let mut scene = Scene::new(Disks::One, false);
        let mut contents = Vec::new();
        for day in 0..EARLIER {
            if day == 4 {
                scene.ok(&PRUNE);
            }
            scene.day(day);
            scene.ok(&["backup"]);
            contents.push(scene.content());
        }
        scene.day(EARLIER);
        scene.keep();
        let before = scene.published("repo").manifests;
        assert_eq!(before.len(), 4);
        let held = Held::by(&scene.folder("repo"));
        let done = scene.ok(&PRUNE);
        let done = &done["targets"][0]["done"];
        for what in ["freed_archives", "marked_archives"] {
            assert!(done[what].as_u64().unwrap() > 0, "{done}");
        }
        let after = Held::by(&scene.folder("repo"));
        assert!(held.named.is_superset(&after.named));
        Self {
            scene,
            contents,
            before,
            after,
            tried: 0,
        }
    }

    fn attempt(&mut self, point: &Point) -> String {
        let scene = &self.scene;
        let ended = scene.meet(&PRUNE, point);
        let at = ended.at.as_deref().unwrap_or("its end");
        scene.an_hour_passes();
        self.tried += 1;
        let restores = self.tried.is_multiple_of(RESTORED_EVERY);
        let there = scene.published("repo").manifests;
        assert!(there.is_subset(&self.before), "{at}: {there:#?}");
        let held = Held::by(&scene.folder("repo"));
        let needed = self.after.named.iter();
        let mut needed = needed.filter(|key| !MAKES_ROOM.contains(&key.as_str()));
        assert!(
            needed.all(|key| held.named.contains(key)),
            "{at}: {held:#?}"
        );
        if restores {
            let oldest: u64 = there.first().unwrap()[..8].parse().unwrap();
            let content = scene.restored("repo", &oldest.to_string());
            assert_eq!(content, self.contents[oldest as usize - 1], "{at}");
        }
        if ended.code == Some(0) {
            assert_eq!(held, self.after, "{at}: {ended:#?}");
        }
        scene.ok(&PRUNE);
        assert_eq!(Held::by(&scene.folder("repo")), self.after, "{at}");
        assert_eq!(scene.published("repo").manifests.len(), 2, "{at}");
        let report = scene.ok(&["backup"]);
        assert_eq!(report["complete"], true, "{at}: {report}");
        scene.ok(&PRUNE);
        scene.published("repo");
        scene.assert_tidy();
        if restores {
            let last = self.contents.last().unwrap();
            assert_eq!(scene.restored("repo", "6"), *last, "{at}");
            assert_eq!(scene.restored("repo", "latest"), scene.content(), "{at}");
        }
        format!("{:?}, {} left", ended.code, there.len())
    }
}

#[test]
fn a_prune_stopped_at_any_call_loses_nothing() {
    if !crate::tracer::is_allowed() {
        return;
    }
    let mut prunes = Prunes::prepare();
    let calls = prunes.scene.count(&PRUNE);
    try_points("a prune", calls, 16, |point| prunes.attempt(point));
}
