//! A restore that is stopped at any of its calls: the destination is as it was, or the complete new tree.

use std::fs;
use std::path::{Path, PathBuf};

use crate::points::{Point, try_points};
use crate::scene::{Content, Disks, Scene};

/// What a restore meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Destination {
    New,
    /// Another restore, which it takes the place of.
    Full,
    /// Another restore, in the current directory: its entries move one by one.
    FullAndCurrent,
}

struct Restores {
    scene: Scene,
    destination: Destination,
    /// What was at the destination before, if anything.
    old: Option<Content>,
    new: Content,
}

impl Restores {
    fn prepare(destination: Destination) -> Self {
        let over_old = destination != Destination::New;
        let mut scene = Scene::new(Disks::Many, false);
        scene.day(0);
        scene.ok(&["backup"]);
        let old = scene.content();
        scene.day(1);
        scene.ok(&["backup"]);
        let new = scene.content();
        let mut restores = Self {
            scene,
            destination,
            old: over_old.then_some(old),
            new,
        };
        if over_old {
            restores.restore("1");
        }
        if destination == Destination::FullAndCurrent {
            restores.scene.started_in = Some("place/out");
        }
        restores.scene.keep();
        restores
    }

    fn arguments(&self, snapshot: &str) -> Vec<String> {
        let path = |part: &str| self.scene.path(part).display().to_string();
        let (from, to) = (path("repo"), path("place/out"));
        let restore = self.scene.restore(&from, snapshot, &to);
        let overwrite = self.old.is_some().then_some("--overwrite");
        restore
            .into_iter()
            .chain(overwrite)
            .map(str::to_owned)
            .collect()
    }

    fn restore(&self, snapshot: &str) {
        let arguments = self.arguments(snapshot);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.scene.ok(&arguments);
    }

    /// What is at the destination, and what was moved aside there.
    fn found(&self) -> (Option<Content>, Vec<Content>) {
        let out = self.scene.path("place").join("out");
        let there = out.exists().then(|| Content::of(&out));
        (
            there,
            self.aside().iter().map(|path| Content::of(path)).collect(),
        )
    }

    fn aside(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut dirs = vec![self.scene.path("place"), self.scene.path("place/out")];
        while let Some(dir) = dirs.pop() {
            let entries = fs::read_dir(dir).into_iter().flatten();
            let paths = entries.map(|entry| entry.unwrap().path());
            let asides: Vec<PathBuf> = paths.filter(|path| is_aside(path)).collect();
            // One restore's aside is moved aside by the next.
            dirs.extend(asides.iter().cloned());
            found.extend(asides);
        }
        found
    }

    /// Has what was interrupted half-way finished; nothing but the command line says that it must be.
    fn resume(&self, at: &str) {
        let to = self.scene.path("place/out").display().to_string();
        let arguments = ["restore", "--resume", "--to", to.as_str()];
        let said = self.scene.ok(&arguments);
        assert!(
            said["resumed"].as_array().unwrap().len() <= 1,
            "{at}: {said}"
        );
        assert_eq!(
            self.scene.ok(&arguments)["resumed"],
            serde_json::json!([]),
            "{at}"
        );
    }

    fn attempt(&self, point: &Point) -> String {
        let arguments = self.arguments("latest");
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let ended = self.scene.meet(&arguments, point);
        let at = ended.at.as_deref().unwrap_or("its end");
        if self.destination == Destination::FullAndCurrent {
            self.resume(at);
        }
        let (there, aside) = self.found();
        let is_new = there.as_ref() == Some(&self.new);
        assert!(
            is_new || there == self.old,
            "{at}: {there:#?} {:#?} {ended:#?}",
            self.new
        );
        assert!(
            is_new || !matches!(ended.code, Some(0 | 3)),
            "{at}: {ended:#?}"
        );
        if let Some(old) = &self.old {
            let is_kept = !is_new || aside.contains(old);
            let is_whole = |one: &Content| *one == self.new || one == old;
            assert!(is_kept && aside.iter().all(is_whole), "{at}: {ended:#?}");
        }
        // A later run that finds it there will not ask for it again.
        if !(is_new && self.old.is_none()) {
            self.restore("latest");
        }
        let (there, aside) = self.found();
        assert_eq!(there.as_ref(), Some(&self.new), "{at}");
        assert!(
            self.old.as_ref().is_none_or(|old| aside.contains(old)),
            "{at}"
        );
        if !is_new {
            self.scene.assert_tidy();
        }
        format!("{:?}, {}", ended.code, if is_new { "new" } else { "old" })
    }

    fn try_all(&self, what: &str) {
        let arguments = self.arguments("latest");
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let calls = self.scene.count(&arguments);
        try_points(what, calls, 12, |point| self.attempt(point));
    }
}

fn is_aside(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_string_lossy();
    name.starts_with("out.before-restore-") || name.starts_with("content.before-restore-")
}

#[test]
fn a_restore_stopped_at_any_call_leaves_nothing_or_all() {
    if crate::tracer::is_allowed() {
        Restores::prepare(Destination::New).try_all("a restore");
    }
}

#[test]
fn a_restore_over_another_stopped_at_any_call_leaves_the_old_or_the_new() {
    if crate::tracer::is_allowed() {
        Restores::prepare(Destination::Full).try_all("a restore over another");
    }
}

#[test]
fn a_restore_over_the_current_directory_stopped_at_any_call_leaves_the_old_or_the_new() {
    if crate::tracer::is_allowed() {
        let restores = Restores::prepare(Destination::FullAndCurrent);
        restores.try_all("a restore over the current directory");
    }
}
