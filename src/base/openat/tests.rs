use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

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
fn neither_way_of_resolving_follows_a_link_or_leaves_the_directory() {
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
fn open_does_not_wait_for_a_fifo_and_refuses_a_directory() {
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
fn a_path_too_long_for_the_kernel_is_resolved_in_parts() {
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
fn a_mode_is_set_on_the_thing_itself_and_never_through_a_link() {
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
fn clear_empties_a_directory_whatever_modes_links_and_depth_it_has() {
    let (temp, dir) = scratch();
    let root = temp.path().join("root");
    fs::create_dir_all(root.join("closed/deep/deeper")).unwrap();
    fs::write(root.join("closed/deep/file"), "x").unwrap();
    symlink(temp.path().join("beside"), root.join("closed/out")).unwrap();
    for closed in ["closed/deep", "closed"] {
        fs::set_permissions(root.join(closed), fs::Permissions::from_mode(0o000)).unwrap();
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
fn an_exchanged_private_directory_is_emptied_and_the_other_one_stays() {
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
fn a_private_directory_in_a_removed_parent_is_an_error_and_no_endless_loop() {
    let (temp, dir) = scratch();
    fs::remove_dir(temp.path().join("root")).unwrap();
    let error = PrivateDir::make(&dir, OsStr::new("p-"), |_| ()).unwrap_err();
    assert!(error.to_string().contains("gone"), "{error}");
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

use std::time::Duration;

#[test]
fn a_pinned_link_or_fifo_is_described_as_one_thing_even_if_another_takes_its_name() {
    let (_temp, dir) = scratch();
    dir.symlink(b"first", "link").unwrap();
    let pin = dir.pin("link").unwrap();
    dir.remove_file("link").unwrap();
    dir.symlink(b"second", "link").unwrap();
    assert!(pin.meta().is_symlink());
    assert_eq!(pin.read_link().unwrap(), b"first");
    assert!(pin.xattrs().is_ok());
    dir.make_node("fifo", Kind::Fifo, None).unwrap();
    let fifo = dir.pin("fifo").unwrap();
    assert_eq!(fifo.meta().kind(), Kind::Fifo);
    assert!(fifo.xattrs().is_ok());
    let (parent, name) = dir.parent_of(OsStr::new("fifo")).unwrap();
    assert!(parent.is_still(name, fifo.meta()));
}

#[test]
fn metadata_agrees_with_the_standard_library() {
    let (temp, dir) = scratch();
    dir.create_file("file", 0o640).unwrap();
    let theirs = fs::metadata(temp.path().join("root/file")).unwrap();
    assert_eq!(Meta::from(&theirs), dir.meta("file").unwrap());
    let (file, meta) = dir.open_file("file").unwrap();
    assert_eq!(meta, Meta::of_fd(&file).unwrap());
    let older: Meta = rustix::fs::fstat(&file).unwrap().into();
    assert_eq!(older.born(), None);
    assert!(older.is_same(&meta));
    assert_eq!((older.size(), older.mtime()), (meta.size(), meta.mtime()));
}

#[test]
fn a_chosen_path_follows_links_to_where_the_standard_library_does() {
    let (temp, dir) = scratch();
    let root = temp.path().join("root").canonicalize().unwrap();
    dir.make_dirs("a/b", 0o700).unwrap();
    fs::write(root.join("a/b/file"), "content").unwrap();
    symlink("a/b", root.join("way")).unwrap();
    symlink("../../way/../b/file", root.join("a/b/over")).unwrap();
    symlink(root.join("way"), root.join("absolute")).unwrap();
    symlink("round", root.join("round")).unwrap();
    symlink("gone", root.join("dangling")).unwrap();
    for path in [
        "a",
        "a/b/file",
        "way",
        "way/file",
        "a/b/over",
        "absolute/over",
        "a/../way/..",
    ] {
        let chosen = Chosen::open(&root.join(path)).unwrap();
        let canonical = root.join(path).canonicalize().unwrap();
        assert_eq!(chosen.path(), canonical, "{path}");
        assert_eq!(chosen.is_dir(), canonical.is_dir(), "{path}");
        let there = fs::metadata(&canonical).unwrap();
        assert!(chosen.meta().is_same(&Meta::from(&there)), "{path}");
    }
    let file = Chosen::open(&root.join("absolute/over")).unwrap();
    assert!(file.dir().open_file(file.name()).is_ok());
    for path in ["round", "dangling", "a/b/file/x", "gone/x", "way/file/.."] {
        let ours = Chosen::open(&root.join(path)).unwrap_err();
        let theirs = root.join(path).canonicalize().unwrap_err();
        assert_eq!(ours.kind(), theirs.kind(), "{path}");
    }
}

/// Needs root, to have links of two users.
#[test]
fn another_users_link_leads_only_to_that_users_things() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (_temp, dir) = scratch();
    let root = dir.path().to_owned();
    let make = |name: &str, owner: u32| {
        dir.create_file(name, 0o600).unwrap();
        dir.set_owner(name, FileOwner::new(owner, owner).unwrap())
            .unwrap();
    };
    make("roots", 0);
    make("theirs", 65534);
    make("others", 65533);
    dir.make_dirs("inside/of", 0o700).unwrap();
    for (link, text, owner) in [
        ("to-roots", "roots", 65534),
        ("to-theirs", "theirs", 65534),
        ("to-others", "others", 65534),
        ("roots-to-others", "others", 0),
        ("twice", "to-roots", 0),
        ("to-inside", "inside", 65534),
    ] {
        dir.symlink(text.as_bytes(), link).unwrap();
        dir.set_owner(link, FileOwner::new(owner, owner).unwrap())
            .unwrap();
    }
    for followed in ["to-theirs", "roots-to-others"] {
        Chosen::open(&root.join(followed)).unwrap();
    }
    for refused in [
        "to-roots",
        "to-others",
        "twice",
        "to-inside",
        "to-inside/of",
    ] {
        let error = Chosen::open(&root.join(refused)).unwrap_err().to_string();
        assert!(
            error.contains("a symbolic link of user 65534"),
            "{refused}: {error}"
        );
    }
}

#[test]
fn extended_attributes_of_files_directories_and_entries_are_read_as_they_were_set() {
    let (_temp, dir) = scratch();
    let name = OsStr::new("user.mark");
    let file = dir.create_file("file", 0o600).unwrap();
    if set_xattr_fd(&file, name, b"\x00\xff value").is_err() {
        return;
    }
    let sub = dir.make_dir("sub", 0o700).unwrap();
    set_xattr_fd(&sub, name, &[7; 3000]).unwrap();
    dir.set_xattr("sub", OsStr::new("user.empty"), b"").unwrap();
    assert_eq!(list_xattrs(&file).unwrap()[name], b"\x00\xff value");
    let of_sub = list_xattrs(&sub).unwrap();
    assert_eq!(of_sub[name], [7; 3000]);
    assert_eq!(of_sub[OsStr::new("user.empty")], b"");
    assert_eq!(dir.pin("sub").unwrap().xattrs().unwrap(), of_sub);
    assert_eq!(dir.xattrs("sub").unwrap(), of_sub);
    assert_eq!(dir.pin("file").unwrap().xattrs().unwrap().len(), 1);
}
