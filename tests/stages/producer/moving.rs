//! Trees that move while they are staged, on a disk that has no room for a further attempt, and as a user that may
//! not write to what he copies.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::host::Host;
use crate::support::files::names_in;
use crate::support::small_disk::SmallDisk;

const BIG_BYTES: usize = 6 << 20;

/// The snapshot in the making, once the copy `rel` is in it.
fn partial_with(snapshots: &Path, rel: &str) -> Option<PathBuf> {
    let partial = |name: &String| name.starts_with(".partial-");
    let partial = names_in(snapshots).into_iter().find(partial)?;
    let copy = snapshots.join(partial).join(rel);
    copy.exists().then_some(copy)
}

/// Appends to `path` from when the copy `rel` is there until `stop`.
fn write_once_copied(snapshots: &Path, rel: &str, path: &Path, stop: &AtomicBool) {
    let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
    while !stop.load(Ordering::Relaxed) {
        if partial_with(snapshots, rel).is_some() {
            file.write_all(b"more").unwrap();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn names_below(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for name in names_in(dir) {
        let path = dir.join(&name);
        if path.is_dir() && !path.is_symlink() {
            found.extend(
                names_below(&path)
                    .into_iter()
                    .map(|n| format!("{name}/{n}")),
            );
        }
        found.push(name);
    }
    found.sort();
    found
}

/// Kind: an error of a further attempt loses neither the tree's first copy nor another source, and leaves nothing
/// behind.
#[test]
fn a_further_attempt_without_room_keeps_the_first_and_every_other_source() {
    let mount = tempfile::tempdir().unwrap();
    let Some(_disk) = SmallDisk::mount(mount.path()) else {
        return;
    };
    let at = mount.path().canonicalize().unwrap();
    let host = Host::new(&format!(
        "[snapshots]\ndir = \"{}/snapshots\"\n\
         [[source]]\nkind = \"tree\"\npath = \"@/live\"\nto = \"data/moving\"\n\
         [[source]]\nkind = \"tree\"\npath = \"@/moving-too\"\nto = \"data/moving-too\"\n\
         [[source]]\nkind = \"tree\"\npath = \"@/calm\"\nto = \"data/calm\"\n",
        at.display()
    ));
    // The second copy of it has no room beside the first and the filler.
    host.write("live/big", &vec![7; BIG_BYTES]);
    for n in 0..200 {
        host.write(&format!("live/last/{n}"), &[1; 5000]);
    }
    host.write("moving-too/log", b"first");
    host.write("calm/file", b"calm");
    host.write("moving-too/z/file", b"z");
    fs::create_dir(at.join("snapshots")).unwrap();
    fs::write(at.join("filler"), vec![0; 5 << 20]).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let snapshots = at.join("snapshots");
    let stop = AtomicBool::new(false);
    let made = std::thread::scope(|scope| {
        let (big, log) = (host.path("live/big"), host.path("moving-too/log"));
        let (stop, snapshots) = (&stop, &snapshots);
        scope.spawn(move || write_once_copied(snapshots, "data/moving/last", &big, stop));
        scope.spawn(move || write_once_copied(snapshots, "data/moving-too/z", &log, stop));
        let made = host.try_produce(&[]);
        stop.store(true, Ordering::Relaxed);
        made.unwrap()
    });
    assert!(
        made.snapshot.left_out.is_empty(),
        "{:?}",
        made.snapshot.left_out
    );
    let reason = |path: &str| {
        let mut skipped = made.snapshot.skipped.iter();
        let found = skipped.find(|one| one.path == path);
        found.map_or(String::new(), |one| one.reason.clone())
    };
    let moving = reason("data/moving");
    assert!(
        moving.contains("big") && moving.contains("No space left"),
        "{moving}"
    );
    assert_eq!(
        fs::read(made.dir.join("data/moving/big")).unwrap().len(),
        BIG_BYTES
    );
    assert_eq!(names_in(&made.dir.join("data/moving/last")).len(), 200);
    assert_eq!(fs::read(made.dir.join("data/calm/file")).unwrap(), b"calm");
    let all = names_below(&made.dir);
    let (again, attempt) = (".again", ".attempt");
    assert!(
        !all.iter()
            .any(|name| name.contains(again) || name.contains(attempt)),
        "{all:?}"
    );
    assert_eq!(names_in(&made.dir), ["backup-metadata.json", "data"]);
}
