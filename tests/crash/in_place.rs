//! A restore in place, and its rollback, stopped at any of their calls: afterwards each item is wholly the old or the new
//! one, and after `--resume` all are, also if the system made the data one state while it booted, or the application
//! was started before either.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::disk::Disk;
use crate::points::{Event, Point, try_points};
use crate::support::is_long;
use crate::support::service::{Deployment, State, generations, state};
use crate::tracer::{Ended, Fault, run};

/// What happens after the machine is on again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// The restore is resumed.
    Resume,
    /// It is made one state while the system boots, and resumed later.
    Boot,
    /// The application starts first, and writes.
    Application,
}

const THEN: [Then; 3] = [Then::Resume, Then::Boot, Then::Application];
/// The host's state and its snapshots; its data.
const DISKS: [&str; 2] = ["c.state", "app"];
const OLD: [u64; 4] = [2; 4];
const NEW: [u64; 4] = [1; 4];
/// The stamp of the safety copy.
const STAMP: &str = "20260409T080000Z";

struct InPlace {
    deployment: Deployment,
    arguments: &'static [&'static str],
    /// The command puts the old content back.
    is_rollback: bool,
    before: State,
}

impl InPlace {
    fn prepare(arguments: &'static [&'static str]) -> Self {
        let temp = tempfile::Builder::new()
            .prefix("crash-")
            .tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir());
        let deployment = Deployment::still(temp.unwrap());
        let before = Self::state_of_copy(&deployment, &deployment.root());
        let is_rollback = arguments[0] == "rollback";
        if is_rollback {
            let restore: &[&str] = match arguments.contains(&"--discard-changes") {
                false => &["restore", "--in-place", "--yes"],
                true => &["restore", "--in-place", "--yes", "--preserve", "copy"],
            };
            deployment.host.ok(restore);
        }
        fs::create_dir(deployment.host.path("template")).unwrap();
        let in_place = Self {
            deployment,
            arguments,
            is_rollback,
            before,
        };
        in_place.copy(".", "template");
        in_place
    }

    /// What is below `root`, looked at in a copy: looking closes a log.
    fn state_of_copy(deployment: &Deployment, root: &Path) -> State {
        let copy = deployment.host.path("looked-at");
        let _ = fs::remove_dir_all(&copy);
        assert!(
            Command::new("cp")
                .arg("-a")
                .arg(root)
                .arg(&copy)
                .status()
                .unwrap()
                .success()
        );
        state(&copy)
    }

    fn copy(&self, from: &str, to: &str) {
        let copied = Command::new("cp")
            .current_dir(self.deployment.host.temp.path())
            .arg("-a")
            .args(DISKS.map(|name| Path::new(from).join(name)))
            .arg(to)
            .status();
        assert!(copied.unwrap().success());
    }

    fn reset(&self) {
        for name in DISKS {
            fs::remove_dir_all(self.deployment.host.path(name)).unwrap();
        }
        self.copy("template", ".");
    }

    fn disks(&self) -> Vec<Disk> {
        DISKS
            .map(|name| Disk::at(&self.deployment.host.path(name)))
            .into()
    }

    fn count(&self) -> usize {
        let ended = self.undisturbed();
        assert_eq!(ended.code, Some(0), "{ended:#?}");
        ended.calls
    }

    /// Of a command that may end with warnings.
    fn count_any(&self) -> usize {
        let ended = self.undisturbed();
        assert!(matches!(ended.code, Some(0 | 3)), "{ended:#?}");
        ended.calls
    }

    fn undisturbed(&self) -> Ended {
        self.reset();
        let mut disks = self.disks();
        let command = self.deployment.host.command(self.arguments);
        let ended = run(command, &mut disks, Fault::None);
        disks.iter().for_each(Disk::forget);
        ended
    }

    fn meet(&self, point: &Point) -> Ended {
        self.reset();
        let mut disks = self.disks();
        let command = self.deployment.host.command(self.arguments);
        let ended = run(command, &mut disks, point.fault());
        assert!(
            !ended.said.contains("panicked") && ended.code != Some(2),
            "{ended:#?}"
        );
        for disk in disks {
            match point.losses(ended.code) {
                Some(losses) => drop(disk.power_off(losses)),
                None => disk.forget(),
            }
        }
        ended
    }

    /// The number of the file whose rename is followed.
    fn number_of_settings(&self) -> u64 {
        let path = self.deployment.root().join("settings.json");
        fs::metadata(path).unwrap().ino()
    }

    fn resume(&self, more: &[&str], at: &str) {
        let arguments = [&["--json", "restore", "--resume"], more].concat();
        let (out, err) = self.deployment.host.exits_any(&arguments, &[0, 1, 3]);
        let said = format!("{at}: {out}{err}");
        let report: serde_json::Value = serde_json::from_str(&out).expect(&said);
        let state = report["state"].as_str().unwrap_or_default();
        let is_settled = matches!(state, "none" | "committed" | "rolled_back" | "undone");
        // The system starts the service, and the rest comes later.
        let waits = [
            "swapped",
            "starting",
            "started",
            "checking",
            "rollback_starting",
            "rollback_checked",
        ];
        let is_one = is_settled || (!more.is_empty() && waits.contains(&state));
        assert!(is_one, "{said}");
    }

    fn attempt(&self, point: &Point, then: Then) -> String {
        if point.event == Event::CatalogTorn {
            return "not tried: it opens no catalog".to_owned();
        }
        self.reset();
        let ended = self.meet(point);
        let at = format!(
            "{then:?} after {}: {:?}: {}",
            ended.at.as_deref().unwrap_or("its end"),
            ended.code,
            ended.said
        );
        let root = self.deployment.root();
        match then {
            Then::Resume => {}
            Then::Boot => {
                self.resume(&["--boot"], &at);
                let found = generations(&root);
                assert!(found == OLD || found == NEW, "{found:?} {at}");
            }
            Then::Application => {
                // Each item is wholly one or the other; and the application writes.
                let found = generations(&root);
                assert!(
                    found.iter().all(|one| [1, 2].contains(one)),
                    "{found:?} {at}"
                );
                let database = rusqlite::Connection::open(root.join("one/one.db")).unwrap();
                database
                    .execute_batch("INSERT INTO work VALUES ('written meanwhile')")
                    .unwrap();
                // As most programs write a file: another one takes its name.
                let (settings, next) = (root.join("settings.json"), root.join("settings.next"));
                fs::copy(&settings, &next).unwrap();
                fs::rename(next, settings).unwrap();
            }
        }
        self.resume(&[], &at);
        let found = generations(&root);
        let is_new = found == NEW;
        assert!(is_new || found == OLD, "{found:?} {at}");
        // A command that ended well did what it said.
        assert!(
            is_new != self.is_rollback || ended.code != Some(0),
            "{found:?} {at}"
        );
        let old = match is_new {
            true => self.safety_copy(),
            false => root.clone(),
        };
        if then != Then::Application {
            assert_eq!(
                Self::state_of_copy(&self.deployment, &old),
                self.before,
                "{at}"
            );
        }
        let left = self.deployment.strangers();
        let is_known = |name: &String| {
            ["pre-restore", "failed-restore", "post-restore"]
                .iter()
                .any(|kind| name.contains(kind))
        };
        assert!(left.iter().all(is_known), "{left:?} {at}");
        // The next command is not kept from its work.
        self.deployment.host.ok(&["rollback", "--list"]);
        self.deployment.host.ok(&["validate"]);
        let code = ended.code;
        format!("{code:?}, {}", if is_new { "new" } else { "old" })
    }

    /// The safety copy in the form of the deployment.
    fn safety_copy(&self) -> PathBuf {
        let (root, copy) = (self.deployment.root(), self.deployment.host.path("safety"));
        let _ = fs::remove_dir_all(&copy);
        fs::create_dir_all(copy.join("one")).unwrap();
        for name in ["one/one.db", "two.db", "settings.json", "files"] {
            // A database that could not be closed up is kept with its log.
            for ending in ["", "-wal", "-journal"] {
                let from = root.join(format!("{name}.pre-restore-{STAMP}{ending}"));
                if !ending.is_empty() && !from.exists() {
                    continue;
                }
                let copied = Command::new("cp")
                    .arg("-a")
                    .arg(from)
                    .arg(copy.join(format!("{name}{ending}")))
                    .status();
                assert!(copied.unwrap().success());
            }
        }
        copy
    }

    fn try_all(&self, what: &str) {
        let calls = self.count();
        let each = if is_long() { 3 } else { 1 };
        try_points(what, calls, 18, |point| {
            let first = point.seed as usize;
            let mut seen = String::new();
            for number in 0..each {
                seen = self.attempt(point, THEN[(first + number) % THEN.len()]);
            }
            seen
        });
    }
}

#[test]
fn a_restore_in_place_stopped_at_any_call_leaves_all_old_or_all_new() {
    if crate::tracer::is_allowed() {
        InPlace::prepare(&["restore", "--in-place", "--yes"]).try_all("a restore in place");
    }
}

#[test]
fn a_restore_in_place_with_a_copy_stopped_at_any_call_leaves_all_old_or_all_new() {
    if crate::tracer::is_allowed() {
        let arguments = &["restore", "--in-place", "--yes", "--preserve", "copy"];
        InPlace::prepare(arguments).try_all("a restore in place with a copy");
    }
}

#[test]
fn a_rollback_stopped_at_any_call_leaves_all_old_or_all_new() {
    if crate::tracer::is_allowed() {
        InPlace::prepare(&["rollback", "--yes"]).try_all("a rollback");
    }
}

#[test]
fn a_rollback_from_a_copy_stopped_at_any_call_leaves_all_old_or_all_new() {
    if crate::tracer::is_allowed() {
        InPlace::prepare(&["rollback", "--yes", "--discard-changes"])
            .try_all("a rollback from a copy");
    }
}

/// The safety copy is the old file itself, under another name.
#[test]
fn the_safety_copy_is_renamed_and_never_written() {
    let temp = tempfile::tempdir().unwrap();
    let in_place = InPlace {
        deployment: Deployment::still(temp),
        arguments: &[],
        is_rollback: false,
        before: Vec::new(),
    };
    let number = in_place.number_of_settings();
    in_place
        .deployment
        .host
        .ok(&["restore", "--in-place", "--yes"]);
    let kept = in_place
        .deployment
        .root()
        .join(format!("settings.json.pre-restore-{STAMP}"));
    assert_eq!(fs::metadata(kept).unwrap().ino(), number);
}

/// A deployment whose first database SQLite cannot open: a restore keeps its file and its log as they are.
struct Unopenable {
    in_place: InPlace,
}

const GARBAGE: &[u8] = b"SQLite format 3\0 and then nothing that is a database";
const ITS_LOG: &[u8] = b"rows that are in the log only";

impl Unopenable {
    fn prepare(arguments: &'static [&'static str]) -> Self {
        let deployment = Deployment::still(tempfile::tempdir().unwrap());
        fs::write(deployment.root().join("one/one.db"), GARBAGE).unwrap();
        fs::write(deployment.root().join("one/one.db-wal"), ITS_LOG).unwrap();
        let _ = fs::remove_file(deployment.root().join("one/one.db-shm"));
        fs::create_dir(deployment.host.path("template")).unwrap();
        let in_place = InPlace {
            deployment,
            arguments,
            is_rollback: false,
            before: Vec::new(),
        };
        in_place.copy(".", "template");
        Self { in_place }
    }

    /// Whether file and log at `path` are those from before the restore.
    fn is_as_before(path: &Path) -> bool {
        let log = PathBuf::from(format!("{}-wal", path.display()));
        fs::read(path).is_ok_and(|content| content == GARBAGE)
            && fs::read(log).is_ok_and(|content| content == ITS_LOG)
    }

    fn attempt(&self, point: &Point) -> String {
        if point.event == Event::CatalogTorn {
            return "not tried: it opens no catalog".to_owned();
        }
        let ended = self.in_place.meet(point);
        let at = format!(
            "after {}: {:?}: {}",
            ended.at.as_deref().unwrap_or("its end"),
            ended.code,
            ended.said
        );
        if point.seed % 2 == 1 {
            self.in_place.resume(&["--boot"], &at);
        }
        self.in_place.resume(&[], &at);
        let root = self.in_place.deployment.root();
        let live = root.join("one/one.db");
        let is_old = Self::is_as_before(&live);
        let kept = root.join(format!("one/one.db.pre-restore-{STAMP}"));
        match is_old {
            // All others are old, too.
            true => assert!(root.join("files/only-in-2").exists(), "{at}"),
            false => {
                // The new database never meets the old log, and the old one is kept with its own.
                assert_eq!(generations(&root), NEW, "{at}");
                assert!(Self::is_as_before(&kept), "{at}");
            }
        }
        format!("{:?}, {}", ended.code, if is_old { "old" } else { "new" })
    }

    fn try_all(&self, what: &str) {
        let calls = self.in_place.count_any();
        try_points(what, calls, 18, |point| self.attempt(point));
    }
}

#[test]
fn a_database_that_cannot_be_opened_is_kept_with_its_log_wherever_the_restore_is_stopped() {
    if crate::tracer::is_allowed() {
        Unopenable::prepare(&["restore", "--in-place", "--yes"])
            .try_all("a restore over a database that cannot be opened");
    }
}

#[test]
fn a_copied_database_that_cannot_be_opened_is_kept_with_its_log_wherever_the_restore_is_stopped() {
    if crate::tracer::is_allowed() {
        let arguments = &["restore", "--in-place", "--yes", "--preserve", "copy"];
        Unopenable::prepare(arguments)
            .try_all("a restore with a copy over a database that cannot be opened");
    }
}
