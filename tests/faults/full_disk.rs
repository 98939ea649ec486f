//! A target whose disk is full: a real one.

use crate::rsync::SshServer;
use crate::scene::{Expected, IMPATIENT, Scene, seconds};
use crate::small_disk::SmallDisk;

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
