//! A target whose disk is full: a real one.

use std::fs;

use super::scene::{Expected, IMPATIENT, Scene, seconds};
use crate::support::host::Host;
use crate::support::rsync::SshServer;
use crate::support::small_disk::SmallDisk;
use crate::support::tree::{describe, noise};

/// A signature fits, an archive does not.
const FREE_BYTES: u64 = 100_000;

#[test]
fn a_folder_on_a_full_disk_is_told_and_made_up_for() {
    let mount = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(mount.path()) else {
        return;
    };
    let url = format!("file://{}", mount.path().display());
    let target = format!("[[target]]\nname = \"stick\"\nurl = \"{url}\"\n\n");
    let scene = Scene::new("stick", &target, mount.path().join("dalidou"));
    let expected = Expected {
        within: seconds(5),
        says: &["cannot put", "No space left on device"],
    };
    scene.survives(&expected, |_, on| match on {
        true => disk.fill(FREE_BYTES),
        false => disk.empty(),
    });
}

#[test]
fn a_laptop_with_a_full_disk_is_told_and_made_up_for() {
    let laptop = SshServer::start("");
    let Some(disk) = SmallDisk::mount(&laptop.files()) else {
        return;
    };
    let target = format!(
        "[[target]]\nname = \"laptop\"\nurl = \"{}\"\nssh = \"{}\"\n{IMPATIENT}\n",
        laptop.url(""),
        laptop.ssh()
    )
    .replace("timeout = \"1s\"", "timeout = \"5s\"");
    let scene = Scene::new("laptop", &target, laptop.files().join("dalidou"));
    let expected = Expected {
        within: seconds(20),
        says: &["cannot put", "a disk is full", "No space left on device"],
    };
    scene.survives_once(&expected, |_, on| match on {
        true => disk.fill(FREE_BYTES),
        false => disk.empty(),
    });
}

/// A host whose only target is the folder `url`.
fn host_of(url: &str) -> Host {
    let host = Host::new();
    let own = format!("file://{}", host.path("repo").display());
    host.edit_config(&own, url);
    host
}

fn back_up(host: &mut Host, day: u32, bytes: usize, codes: &[i32]) -> serde_json::Value {
    host.clock = Some(format!("2026-11-{day:02}T06:00:00Z"));
    fs::write(host.data().join("a"), noise(u64::from(day), bytes)).unwrap();
    host.json_exits(&["backup"], codes)
}

const LAST: [&str; 4] = ["prune", "--policy", "last=1", "--yes"];

/// Kind: what frees a disk needs room on it first. Filled by others, by a version that kept no reserve or one
/// that did, it is pruned, takes the backup that takes notice of the mark, and is freed.
#[test]
fn a_folder_full_to_the_last_byte_is_pruned_and_freed() {
    for has_reserve in [true, false] {
        let mount = tempfile::tempdir().unwrap();
        let Some(disk) = SmallDisk::mount(mount.path()) else {
            return;
        };
        let mut host = host_of(&format!("file://{}", mount.path().display()));
        for day in 1..=4 {
            back_up(&mut host, day, 2_000_000, &[0]);
        }
        let folder = mount.path().join("dalidou");
        assert!(folder.join(".reserve").is_file());
        if !has_reserve {
            fs::remove_file(folder.join(".reserve")).unwrap();
        }
        disk.fill(0);
        let (_, err) = host.exits_any(&LAST, &[0, 3]);
        assert_eq!(
            err.contains("the recovery documents were deleted"),
            !has_reserve,
            "{err}"
        );
        host.clock = Some("2026-11-05T06:00:00Z".to_owned());
        fs::write(host.data().join("b"), noise(5, 100)).unwrap();
        host.backup();
        host.ok(&LAST);
        let stat = rustix::fs::statvfs(mount.path()).unwrap();
        assert!(stat.f_bavail * stat.f_frsize > 4_000_000);
        for name in [".reserve", "RECOVER.md", "recover-v4.py"] {
            assert!(folder.join(name).is_file(), "{name}");
        }
        host.ok(&["verify", "--data"]);
        host.ok(&["list", "--target", "folder"]);
    }
}

#[test]
fn a_laptop_full_to_the_last_byte_is_pruned() {
    let laptop = SshServer::start("");
    let Some(disk) = SmallDisk::mount(&laptop.files()) else {
        return;
    };
    for scheme in ["rsync", "sftp"] {
        let mut host = host_of(&laptop.url("").replace("rsync:", &format!("{scheme}:")));
        let impatient = IMPATIENT.replace("timeout = \"1s\"", "timeout = \"5s\"");
        let ssh = format!("[[target]]\nssh = \"{}\"\n{impatient}", laptop.ssh());
        host.edit_config("[[target]]\n", &ssh);
        fs::create_dir_all(laptop.files().join("dalidou")).unwrap();
        for day in 1..=2 {
            back_up(&mut host, day, 500_000, &[0]);
        }
        assert!(
            laptop.files().join("dalidou/.reserve").is_file(),
            "{scheme}"
        );
        disk.fill(0);
        host.exits_any(&LAST, &[0, 3]);
        let manifests = fs::read_dir(laptop.files().join("dalidou/manifests")).unwrap();
        // One snapshot's, and its signature.
        assert_eq!(manifests.count(), 2, "{scheme}");
        disk.empty();
        fs::remove_dir_all(laptop.files().join("dalidou")).unwrap();
    }
}

/// Kind: the first of several that fails keeps all that follow it back.
#[test]
fn a_newer_snapshot_that_fits_does_not_wait_for_an_older_one_that_does_not() {
    let mount = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(mount.path()) else {
        return;
    };
    let mut host = host_of(&format!("file://{}", mount.path().display()));
    fs::write(host.data().join("still"), noise(99, 10_000)).unwrap();
    back_up(&mut host, 1, 1000, &[0]);
    disk.fill(2_000_000);
    host.clock = Some("2026-11-02T06:00:00Z".to_owned());
    fs::write(host.data().join("large"), noise(7, 4_000_000)).unwrap();
    let (_, err) = host.exits(&["backup"], 1);
    assert!(err.contains("no target has it"), "{err}");
    fs::remove_file(host.data().join("large")).unwrap();
    let report = back_up(&mut host, 3, 1000, &[3]);
    assert_eq!(report["targets"][0]["state"], "published", "{report}");
    let warned = report["warnings"].to_string();
    assert!(warned.contains("20261102T060000Z"), "{report}");
    assert!(
        warned.contains("`sealift prune` makes room there"),
        "{report}"
    );
    let sequences = |host: &Host| {
        let listed = host.json_exits(&["list", "--target", "folder"], &[0, 3]);
        let snapshots = listed["snapshots"].as_array().unwrap().clone();
        let sequences = snapshots
            .iter()
            .map(|one| one["sequence"].as_u64().unwrap());
        sequences.collect::<Vec<u64>>()
    };
    assert_eq!(sequences(&host), [1, 3]);
    let out = host.restore_from(mount.path(), "out");
    assert_eq!(describe(&out.join("data")), describe(&host.data()));
    // The large file went on purpose.
    host.ok(&["ack", "shrunk"]);
    // Once there is room, the older one comes, too.
    disk.empty();
    back_up(&mut host, 4, 1000, &[0]);
    assert_eq!(sequences(&host), [1, 2, 3, 4]);
    host.ok(&["verify", "--data"]);
}
