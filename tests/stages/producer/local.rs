//! Snapshots that are there already: listed, taken up again, cleared away when their maker died.

use std::fs;

use super::host::Host;
use crate::support::files::names_in;
use sealift::producer::{InPlaceTrees, from_dir, list};

#[test]
fn only_stamps_are_listed_oldest_first() {
    let host = Host::atocore();
    assert!(
        list(&host.path("snapshots")).unwrap().is_empty(),
        "a missing directory holds none"
    );
    for name in [
        "20260102T000000Z",
        "20250102T000000Z",
        "invalid-20260103T000000Z",
        "20260104T000060Z",
        "old",
    ] {
        fs::create_dir_all(host.path("snapshots").join(name)).unwrap();
    }
    host.write("snapshots/20260105T000000Z", b"a file");
    host.write(
        "snapshots/20250102T000000Z/backup-metadata.json",
        b"{\"stamp\": \"x\"}",
    );
    let found = list(&host.path("snapshots")).unwrap();
    let stamps: Vec<String> = found.iter().map(|s| s.stamp.to_string()).collect();
    assert_eq!(stamps, ["20250102T000000Z", "20260102T000000Z"]);
    assert_eq!(found[0].metadata.as_ref().unwrap()["stamp"], "x");
    assert_eq!((found[0].valid, &found[1].metadata), (None, &None));
}

#[test]
fn a_snapshot_is_taken_up_as_it_was_made() {
    let host = Host::atocore();
    let made = host.try_produce(&["chroma"]).unwrap();
    let again = from_dir(&host.config, &made.dir, InPlaceTrees::Attach).unwrap();
    assert_eq!(again.stamp, made.snapshot.stamp);
    assert_eq!(again.tags, made.snapshot.tags);
    assert_eq!(again.note, made.snapshot.note);
    assert_eq!(again.sources, made.snapshot.sources);
    assert_eq!(again.databases, made.snapshot.databases);
    assert!(again.validation.valid && again.skipped.is_empty());
    assert_eq!(again.parts.len(), 1);
    assert!(again.parts[0].staged && again.parts[0].root.path() == made.dir);

    // Under another name its metadata says when it was made.
    let moved = host.path("moved");
    fs::rename(&made.dir, &moved).unwrap();
    assert_eq!(
        from_dir(&host.config, &moved, InPlaceTrees::Skip)
            .unwrap()
            .stamp,
        made.snapshot.stamp
    );
}

#[test]
fn trees_read_in_place_are_attached_or_missed() {
    let tree = "[[source]]\nkind = \"tree\"\npath = \"@/live\"\nstage = false\n";
    let later = "[[source]]\nkind = \"tree\"\npath = \"@/later\"\nstage = false\n";
    let mut host = Host::new(tree);
    host.write("live/x", b"x");
    host.write("later/x", b"x");
    let dir = host.produce().dir;
    host.reconfigure(&format!("{tree}{later}"));
    let attached = from_dir(&host.config, &dir, InPlaceTrees::Attach).unwrap();
    assert_eq!(
        attached.parts.len(),
        2,
        "only those it was made with: {:?}",
        attached.parts
    );
    assert_eq!(attached.parts[1].root.path(), host.path("live"));
    assert!(!attached.parts[1].staged && attached.skipped.is_empty());

    let alone = from_dir(&host.config, &dir, InPlaceTrees::Skip).unwrap();
    assert_eq!(alone.parts.len(), 1);
    assert_eq!(alone.skipped[0].path, "live");
    host.reconfigure(later);
    assert_eq!(
        from_dir(&host.config, &dir, InPlaceTrees::Attach)
            .unwrap()
            .skipped[0]
            .path,
        "live"
    );
}

#[test]
fn any_directory_can_be_pushed() {
    let host = Host::atocore();
    let open = host.open_database("some/app.db", "WAL");
    host.write("some/file", b"x");
    let snapshot = from_dir(&host.config, &host.path("some"), InPlaceTrees::Skip).unwrap();
    let [part] = snapshot.parts.as_slice() else {
        panic!("{:?}", snapshot.parts);
    };
    // A program may be writing to it, so the packer must take it for a live tree.
    assert!(!part.staged && part.to.is_empty() && part.root.path() == host.path("some"));
    assert!(snapshot.validation.valid);
    assert_eq!(
        snapshot.sources[0].path,
        host.path("some").to_str().unwrap()
    );
    drop(open);
    let missing = from_dir(&host.config, &host.path("none"), InPlaceTrees::Skip).unwrap_err();
    assert!(
        missing.to_string().contains("snapshot_missing"),
        "{missing}"
    );
}

#[test]
fn what_a_dead_run_left_is_cleared_and_a_living_ones_is_not() {
    let host = Host::atocore();
    host.write("snapshots/.partial-20260101T000000Z/db/half", b"x");
    host.write("snapshots/.partial-20260102T000000Z/db/half", b"x");
    let living = fs::File::open(host.path("snapshots/.partial-20260102T000000Z")).unwrap();
    rustix::fs::flock(&living, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let made = host.produce();
    assert_eq!(
        names_in(&host.path("snapshots")),
        [
            ".partial-20260102T000000Z",
            made.dir.file_name().unwrap().to_str().unwrap()
        ]
    );
}
