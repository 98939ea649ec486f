//! A copy from target to target that is stopped at any of its calls: what is there is whole, and the next one ends it.

use std::path::Path;

use crate::points::{Point, try_points};
use crate::scene::{Content, Disks, Scene};
use crate::support::files::files;

const RESTORED_EVERY: usize = 4;

struct Copies {
    scene: Scene,
    contents: Vec<Content>,
    tried: usize,
}

/// Keys, without what is begun.
fn keys(folder: &Path) -> Vec<String> {
    let all = files(folder).into_iter();
    all.map(|path| path.strip_prefix(folder).unwrap().display().to_string())
        .filter(|key| !key.starts_with(".tmp"))
        .collect()
}

impl Copies {
    /// Of three snapshots one is there already.
    fn prepare() -> Self {
        let scene = Scene::new(Disks::Many, false);
        let mut copies = Self {
            scene,
            contents: Vec::new(),
            tried: 0,
        };
        for day in 0..3 {
            copies.scene.day(day);
            copies.scene.ok(&["backup"]);
            copies.contents.push(copies.scene.content());
            if day == 0 {
                copies.sync();
            }
        }
        copies.scene.keep();
        copies
    }

    fn arguments(&self) -> [String; 3] {
        let path = |part: &str| self.scene.path(part).display().to_string();
        ["sync".to_owned(), path("repo"), path("second")]
    }

    fn sync(&self) {
        self.scene
            .ok(&self.arguments().each_ref().map(|text| &**text));
    }

    fn attempt(&mut self, point: &Point) -> String {
        let scene = &self.scene;
        let ended = scene.meet(&self.arguments().each_ref().map(|text| &**text), point);
        let at = ended.at.as_deref().unwrap_or("its end");
        scene.an_hour_passes();
        self.tried += 1;
        let restores = self.tried.is_multiple_of(RESTORED_EVERY);
        let source = scene.published("repo");
        let (copied, findings) = scene.look("second");
        // One that could not be copied is named, and keeps the others from nothing.
        let is_partial = ended.code == Some(3);
        assert!(findings.is_empty() || is_partial, "{at}: {findings:#?}");
        let there = copied.manifests.len();
        assert!(
            copied.manifests.is_subset(&source.manifests),
            "{at}: {copied:#?}"
        );
        let is_complete = ended.code != Some(0) || copied == source;
        assert!(there > 0 && is_complete, "{at}: {ended:#?}");
        if restores {
            assert_eq!(scene.restored("second", "1"), self.contents[0], "{at}");
            let newest: u64 = copied.manifests.last().unwrap()[..8].parse().unwrap();
            let content = scene.restored("second", &newest.to_string());
            assert_eq!(content, self.contents[newest as usize - 1], "{at}");
        }
        self.sync();
        assert_eq!(
            keys(&scene.folder("second")),
            keys(&scene.folder("repo")),
            "{at}"
        );
        assert_eq!(scene.published("second"), source, "{at}");
        scene.assert_tidy();
        if restores {
            assert_eq!(scene.restored("second", "latest"), self.contents[2], "{at}");
        }
        format!("{:?}, {there} of 3", ended.code)
    }
}

#[test]
fn a_copy_stopped_at_any_call_names_nothing_that_it_lacks() {
    if !crate::tracer::is_allowed() {
        return;
    }
    let mut copies = Copies::prepare();
    let arguments = copies.arguments();
    let calls = copies
        .scene
        .count(&arguments.each_ref().map(|text| &**text));
    try_points("a sync", calls, 16, |point| copies.attempt(point));
}
