use super::*;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::Duration;

fn scratch() -> (tempfile::TempDir, Dir) {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(temp.path().join("outside"), "secret").unwrap();
    fs::create_dir(temp.path().join("beside")).unwrap();
    fs::write(temp.path().join("beside/file"), "secret").unwrap();
    let dir = Dir::open(&root).unwrap();
    (temp, dir)
}

type Open = fn(BorrowedFd<'_>, &[u8], OFlags, Mode) -> rustix::io::Result<OwnedFd>;

/// Both ways of resolving answer alike.
#[test]
fn no_way_of_resolving_follows_a_link_or_leaves_the_directory() {
    let (temp, dir) = scratch();
    let root = temp.path().join("root");
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::write(root.join("a/b/file"), "inside").unwrap();
    symlink("../beside", root.join("out")).unwrap();
    symlink("a", root.join("within")).unwrap();
    symlink("/etc/passwd", root.join("a/absolute")).unwrap();
    for open in [open_beneath as Open, open_step_by_step as Open] {
        let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opens = |rel: &str| open(dir.as_fd(), rel.as_bytes(), read, Mode::empty()).is_ok();
        assert!(opens("a/b/file"));
        for refused in [
            "out/file",
            "within/b/file",
            "a/absolute",
            "out",
            "within",
            "gone",
        ] {
            assert!(!opens(refused), "{refused}");
        }
    }
    for refused in [
        "..",
        "../outside",
        "a/../a/b/file",
        "a//b/file",
        "/etc/passwd",
        "./a",
        "a/",
    ] {
        assert!(dir.open_file(refused).is_err(), "{refused}");
        assert!(dir.meta(refused).is_err(), "{refused}");
    }
    assert!(dir.meta("out").unwrap().is_symlink());
    assert!(dir.meta("out/file").is_err());
}

#[test]
fn an_open_waits_for_no_fifo_and_takes_no_directory_for_a_file() {
    let (_temp, dir) = scratch();
    dir.make_node("fifo", Kind::Fifo, None).unwrap();
    dir.make_dir("dir", 0o700).unwrap();
    for wrong in ["fifo", "dir"] {
        let error = dir.open_file(wrong).unwrap_err();
        assert_eq!(error.to_string(), "it is not a regular file", "{wrong}");
    }
    assert!(dir.open_to_write("fifo").is_err());
}

#[test]
fn a_path_longer_than_the_kernel_takes_is_resolved_in_parts() {
    let (_temp, dir) = scratch();
    let name = "d".repeat(200);
    let mut at = dir.clone();
    for _ in 0..50 {
        at = at.make_dir(&name, 0o700).unwrap();
    }
    at.create_file("file", 0o600).unwrap();
    let rel = format!("{}/file", vec![name.as_str(); 50].join("/"));
    assert!(dir.open_file(&rel).unwrap().1.is_file());
    dir.clear().unwrap();
    assert!(dir.is_empty().unwrap());
}

#[test]
fn a_mode_is_set_on_what_is_there_and_never_through_a_link() {
    let (temp, dir) = scratch();
    let outside = temp.path().join("outside");
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o640)).unwrap();
    symlink("../outside", temp.path().join("root/link")).unwrap();
    assert!(dir.set_mode("link", 0o777).is_err());
    dir.make_node("fifo", Kind::Fifo, None).unwrap();
    dir.set_mode("fifo", 0o604).unwrap();
    assert_eq!(dir.meta("fifo").unwrap().permissions(), 0o604);
    let mode = fs::metadata(&outside).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o640);
}

#[test]
fn a_cleared_directory_is_empty_whatever_its_modes_and_links_and_depth() {
    let (temp, dir) = scratch();
    let root = temp.path().join("root");
    fs::create_dir_all(root.join("closed/deep/deeper")).unwrap();
    fs::write(root.join("closed/deep/file"), "x").unwrap();
    symlink(temp.path().join("beside"), root.join("closed/out")).unwrap();
    for closed in ["closed/deep", "closed"] {
        fs::set_permissions(root.join(closed), fs::Permissions::from_mode(0)).unwrap();
    }
    let mut at = dir.clone();
    for depth in 0..300 {
        at.create_file(format!("file{depth}"), 0o600).unwrap();
        at = at.make_dir("d", 0o700).unwrap();
    }
    dir.clear().unwrap();
    assert!(dir.is_empty().unwrap());
    assert!(temp.path().join("beside/file").exists());
}

#[test]
fn a_private_directory_that_was_exchanged_is_emptied_and_the_other_one_stays() {
    let (temp, dir) = scratch();
    let private = PrivateDir::make(&dir, OsStr::new("p-"), |_| ()).unwrap();
    assert_eq!(private.meta().permissions(), 0o700);
    private.dir().create_file("decrypted", 0o600).unwrap();
    let root = temp.path().join("root");
    let ours = root.join(private.name());
    fs::rename(&ours, root.join("stolen")).unwrap();
    fs::create_dir(&ours).unwrap();
    fs::write(ours.join("kept"), "theirs").unwrap();
    let error = private.remove().unwrap_err();
    assert!(error.to_string().contains("exchanged"), "{error}");
    assert!(ours.join("kept").exists());
    assert!(!root.join("stolen/decrypted").exists());
}

#[test]
fn an_abandoned_private_directory_is_removed_and_one_in_use_is_not() {
    let (_temp, dir) = scratch();
    let prefix = OsStr::new("p-");
    let in_use = PrivateDir::make(&dir, prefix, |_| ()).unwrap();
    let abandoned = PrivateDir::make(&dir, prefix, |_| ()).unwrap();
    abandoned.dir().create_file("file", 0o600).unwrap();
    let name = abandoned.name().to_owned();
    abandoned.keep();
    drop(abandoned);
    PrivateDir::remove_abandoned(&dir, prefix, Duration::from_secs(60));
    assert!(dir.meta(&name).is_ok());
    PrivateDir::remove_abandoned(&dir, prefix, Duration::ZERO);
    assert!(dir.meta(&name).is_err());
    assert!(in_use.is_in_place());
}
