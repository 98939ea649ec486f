//! A backup that is stopped at any of its calls: what was published stays, the next one is complete.

use crate::points::{Event, Point, try_points};
use crate::scene::{Content, Disks, Scene};

/// A host with `earlier` backups behind it, and what each of them holds.
struct Backups {
    scene: Scene,
    targets: &'static [&'static str],
    earlier: Vec<Content>,
    tried: usize,
}

/// Every so often what is there is restored, too.
const RESTORED_EVERY: usize = 4;

impl Backups {
    fn prepare(scene: Scene, targets: &'static [&'static str], earlier: u64) -> Self {
        let mut all = Self {
            scene,
            targets,
            earlier: Vec::new(),
            tried: 0,
        };
        for day in 0..earlier {
            all.scene.day(day);
            all.scene.ok(&["backup"]);
            all.earlier.push(all.scene.content());
        }
        // What was written a moment ago is not trusted to be as it was.
        std::thread::sleep(std::time::Duration::from_millis(2100));
        if earlier > 0 {
            all.scene.ok(&["backup"]);
            all.earlier.push(all.scene.content());
        }
        all.scene.day(earlier);
        all.scene.keep();
        all
    }

    fn attempt(&mut self, point: &Point) -> String {
        let ended = self.scene.meet(&["backup"], point);
        let (before, now) = (self.earlier.len(), self.scene.content());
        let at = ended.at.as_deref().unwrap_or("its end");
        self.scene.an_hour_passes();
        let mut new = 0;
        self.tried += 1;
        let restores = self.tried.is_multiple_of(RESTORED_EVERY);
        for target in self.targets {
            let published = self.scene.published(target).manifests.len();
            let is_there = published == before || published == before + 1;
            let is_complete = ended.code != Some(0) || published == before + 1;
            assert!(
                is_there && is_complete,
                "{published} on {target}: {at}, {ended:#?}"
            );
            new += published - before;
            if restores && before > 0 {
                assert_eq!(self.scene.restored(target, "1"), self.earlier[0], "{at}");
            }
            // A link that cannot be made is a copy, and a source that cannot be read is left out: the run says so.
            let is_other = ["hard links of one file are copies", "left out: the source"];
            let is_other = is_other.iter().any(|text| ended.said.contains(text));
            if published > before && !is_other {
                assert_eq!(self.scene.restored(target, "latest"), now, "{at}");
            }
        }
        let mut codes = vec![ended.code];
        if point.event == Event::CatalogTorn {
            // Damage is reported when it is met, which need not be in the first run.
            for _ in 0..3 {
                codes.push(self.scene.may_fail(&["backup"]));
                for target in self.targets {
                    self.scene.published(target);
                }
            }
        }
        let report = self.scene.ok(&["backup"]);
        assert_eq!(report["complete"], true, "{at}: {report}");
        let mut all = Vec::new();
        for target in self.targets {
            let published = self.scene.published(target);
            assert!(published.manifests.len() > before, "{at}");
            assert_eq!(self.scene.restored(target, "latest"), now, "{at}");
            if restores && before > 0 {
                assert_eq!(self.scene.restored(target, "1"), self.earlier[0], "{at}");
            }
            all.push(published);
        }
        assert!(
            all.iter().all(|published| *published == all[0]),
            "{at}: {all:#?}"
        );
        self.scene.assert_tidy();
        format!("{codes:?}, on {new} of {}", self.targets.len())
    }

    fn try_all(&mut self, what: &str, everyday: usize) {
        let calls = self.scene.count(&["backup"]);
        try_points(what, calls, everyday, |point| self.attempt(point));
    }
}

#[test]
fn a_first_backup_stopped_at_any_call_loses_nothing() {
    if !crate::tracer::is_allowed() {
        return;
    }
    let mut backups = Backups::prepare(Scene::new(Disks::One, false), &["repo"], 0);
    backups.try_all("a first backup", 12);
}

#[test]
fn a_second_backup_stopped_at_any_call_loses_nothing() {
    if !crate::tracer::is_allowed() {
        return;
    }
    let mut backups = Backups::prepare(Scene::new(Disks::One, false), &["repo"], 1);
    backups.try_all("a second backup", 16);
}

#[test]
fn a_backup_to_two_targets_stopped_at_any_call_loses_nothing() {
    if !crate::tracer::is_allowed() {
        return;
    }
    let scene = Scene::new(Disks::Many, true);
    let mut backups = Backups::prepare(scene, &["repo", "second"], 1);
    backups.try_all("a backup to two targets", 16);
}
