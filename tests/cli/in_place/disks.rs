//! Safety copies on another file system, full disks, and disks that cannot be written.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use super::{ONLY_SECOND, assert_unchanged, code};
use crate::support::service::Deployment;
use crate::support::small_disk::SmallDisk;

/// A directory on a file system that is not the one of the temporary directory.
fn elsewhere(deployment: &Deployment) -> Option<tempfile::TempDir> {
    let device = |path: &std::path::Path| fs::metadata(path).map(|meta| meta.dev()).ok();
    let dir = tempfile::tempdir_in("/dev/shm").ok()?;
    let is_other = device(dir.path()) != device(deployment.host.temp.path());
    if !is_other {
        eprintln!("SKIPPED: /dev/shm is on the file system of the temporary directory");
    }
    is_other.then_some(dir)
}

fn preserve_in(deployment: &Deployment, dir: &std::path::Path) {
    let line = format!("[restore]\npreserve_dir = {:?}", dir.display().to_string());
    deployment.host.edit_config("[restore]", &line);
}

#[test]
fn a_safety_copy_on_another_file_system_is_a_verified_copy_and_brings_everything_back() {
    let deployment = Deployment::new();
    let Some(dir) = elsewhere(&deployment) else {
        return;
    };
    preserve_in(&deployment, dir.path());
    let before = deployment.state();
    let (report, said) = deployment.restore(&[], 0);
    assert_eq!(deployment.generations(), [1, 1, 1, 1], "{said}");
    assert_eq!(report["items"][0]["is_copied"], true);
    assert_eq!(deployment.strangers(), Vec::<String>::new());
    assert!(
        dir.path()
            .join("pre-restore-20260409T080000Z/files/only-in-2")
            .exists()
    );
    let (again, said) = deployment.json(vec!["--json", "rollback", "--yes"], 0);
    assert_eq!(again["state"], "rolled_back");
    assert_unchanged(&deployment, &before, &said);
}

#[test]
fn a_check_that_fails_brings_the_originals_back_whatever_the_safety_copy_is() {
    for how in ["move", "copy", "elsewhere"] {
        let deployment = Deployment::new();
        let dir = elsewhere(&deployment);
        match (how, &dir) {
            ("elsewhere", None) => continue,
            ("elsewhere", Some(dir)) => preserve_in(&deployment, dir.path()),
            _ => {}
        }
        deployment.behave("leave-log");
        deployment.configure_also(ONLY_SECOND);
        let before = deployment.state();
        let number = |name: &str| fs::metadata(deployment.root().join(name)).unwrap().ino();
        let numbers = ["one/one.db", "files"].map(number);
        let arguments: &[&str] = if how == "copy" {
            &["--preserve", "copy"]
        } else {
            &[]
        };
        let (report, said) = deployment.restore(arguments, 1);
        assert_eq!(report["state"], "rolled_back", "{how}: {said}");
        assert_unchanged(&deployment, &before, how);
        assert_eq!(["one/one.db", "files"].map(number), numbers, "{how}");
    }
}

#[test]
fn a_place_for_safety_copies_that_cannot_be_written_is_refused() {
    let deployment = Deployment::new();
    let kept = deployment.host.path("kept");
    fs::create_dir(&kept).unwrap();
    let Some(disk) = SmallDisk::mount(&kept) else {
        return;
    };
    preserve_in(&deployment, &kept);
    disk.read_only(true);
    let before = deployment.state();
    let (report, said) = deployment.restore(&[], 1);
    assert_eq!(code(&report), "read_only", "{said}");
    assert_unchanged(&deployment, &before, &said);
    disk.read_only(false);
}

#[test]
fn a_full_disk_is_refused_or_undone_and_loses_nothing() {
    let deployment = Deployment::new();
    let kept = deployment.host.path("kept");
    fs::create_dir(&kept).unwrap();
    let Some(disk) = SmallDisk::mount(&kept) else {
        return;
    };
    preserve_in(&deployment, &kept);
    let before = deployment.state();
    for free in [0, 4 << 10, 40 << 10] {
        disk.fill(free);
        let (report, said) = deployment.restore(&[], 1);
        assert_eq!(code(&report), "no_space", "{free}: {said}");
        assert_unchanged(&deployment, &before, &said);
        assert_eq!(deployment.strangers(), Vec::<String>::new());
        disk.empty();
        assert_eq!(fs::read_dir(&kept).unwrap().count(), 0, "{free}");
    }
    deployment.restore(&[], 0);
    assert_eq!(deployment.generations(), [1, 1, 1, 1]);
}

/// A rename does not cross mounts, though both show the same file system, as volumes of containers do.
#[test]
fn a_safety_copy_behind_another_mount_is_a_copy() {
    let deployment = Deployment::new();
    let (kept, real) = (deployment.host.path("kept"), deployment.host.path("real"));
    fs::create_dir(&kept).unwrap();
    fs::create_dir(&real).unwrap();
    let mount = |arguments: &[&std::ffi::OsStr]| {
        let output = std::process::Command::new("mount").args(arguments).output();
        output.is_ok_and(|output| output.status.success())
    };
    if !mount(&["--bind".as_ref(), real.as_os_str(), kept.as_os_str()]) {
        eprintln!("SKIPPED: a directory cannot be mounted a second time here (it takes root)");
        return;
    }
    preserve_in(&deployment, &kept);
    let before = deployment.state();
    let (report, said) = deployment.restore(&[], 0);
    assert_eq!(report["items"][0]["is_copied"], true, "{said}");
    assert!(
        real.join("pre-restore-20260409T080000Z/files/only-in-2")
            .exists()
    );
    deployment.json(vec!["--json", "rollback", "--yes"], 0);
    assert_unchanged(&deployment, &before, "after the rollback");
    let unmounted = std::process::Command::new("umount")
        .arg("-l")
        .arg(&kept)
        .status();
    assert!(unmounted.unwrap().success());
}
