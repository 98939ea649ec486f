//! Where a restore may go, and where decrypted files may be for a while.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use crate::support::host::Host;
use crate::support::is_root_for;

const NOBODY: u32 = 65534;

fn restore<'a>(to: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let arguments = [
        "restore",
        "--from",
        "repo",
        "--accept-signer",
        "--identity",
        "key.txt",
        "--to",
        to,
    ];
    [&arguments[..], more].concat()
}

fn give(path: &Path) {
    std::os::unix::fs::lchown(path, Some(NOBODY), Some(NOBODY)).unwrap();
}

#[test]
fn a_link_of_another_user_on_the_way_is_not_followed() {
    if !is_root_for("giving files to another user") {
        return;
    }
    let host = Host::new();
    fs::write(host.data().join("a"), "a").unwrap();
    host.backup();
    fs::create_dir(host.path("victim")).unwrap();
    fs::create_dir(host.path("theirs")).unwrap();
    for (link, to) in [("theirs/link", "../victim"), ("theirs/deep", "..")] {
        symlink(to, host.path(link)).unwrap();
        give(&host.path(link));
    }
    give(&host.path("theirs"));
    for to in ["theirs/link", "theirs/link/new", "theirs/deep/victim"] {
        let (_, err) = host.exits(&restore(to, &[]), 1);
        assert!(err.contains("is a symbolic link of user 65534"), "{err}");
    }
    assert_eq!(fs::read_dir(host.path("victim")).unwrap().count(), 0);
    // A link of our own is followed.
    symlink("victim", host.path("ours")).unwrap();
    host.ok(&restore("ours", &[]));
    assert!(host.path("victim/data/a").exists());
    assert!(host.path("ours").is_symlink());
}

#[test]
fn decrypted_files_are_kept_in_no_place_where_others_can_exchange_them() {
    if !is_root_for("giving files to another user") {
        return;
    }
    let host = Host::new();
    fs::write(host.data().join("a"), "a").unwrap();
    host.backup();
    for (name, mode, owner) in [
        ("theirs", 0o755, NOBODY),
        ("open", 0o777, 0),
        ("sticky", 0o1777, 0),
    ] {
        fs::create_dir_all(host.path(name).join("inner")).unwrap();
        fs::set_permissions(host.path(name), fs::Permissions::from_mode(mode)).unwrap();
        std::os::unix::fs::chown(host.path(name), Some(owner), Some(owner)).unwrap();
    }
    let verify = |scratch: &'static str| {
        [
            "verify",
            "--from",
            "repo",
            "--accept-signer",
            "--identity",
            "key.txt",
            "--scratch",
            scratch,
        ]
    };
    for exposed in ["theirs", "theirs/inner", "open", "open/inner"] {
        let (_, err) = host.exits(&verify(exposed), 1);
        assert!(err.contains("other users can rename what is in"), "{err}");
        assert!(err.contains("--scratch"), "{err}");
    }
    for good in ["sticky", "sticky/inner"] {
        host.ok(&verify(good));
    }
    for name in ["theirs", "open", "sticky"] {
        let left = fs::read_dir(host.path(name).join("inner")).unwrap();
        assert_eq!(left.count(), 0, "{name}");
    }
}

/// Its mount points stay, so the restore says so before it moves anything.
#[test]
fn a_restore_inside_a_directory_keeps_it_and_moves_its_entries() {
    let host = Host::new();
    fs::write(host.data().join("a"), "new").unwrap();
    host.backup();
    let out = host.path("out");
    fs::create_dir_all(out.join("data")).unwrap();
    for name in ["data/a", "only-old"] {
        fs::write(out.join(name), "old").unwrap();
    }
    let here = |path: &str| host.path(path).display().to_string();
    let (repo, key) = (here("repo"), here("key.txt"));
    let mut arguments = restore(".", &["--overwrite"]);
    for argument in &mut arguments {
        match *argument {
            "repo" => *argument = &repo,
            "key.txt" => *argument = &key,
            _ => {}
        }
    }
    let ended = host.command_in(&out, &arguments).output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(fs::read_to_string(out.join("data/a")).unwrap(), "new");
    assert!(!out.join("only-old").exists());
    let asides: Vec<_> = fs::read_dir(&out)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.display()
                .to_string()
                .contains("content.before-restore-")
        })
        .collect();
    assert_eq!(asides.len(), 1);
    assert_eq!(fs::read_to_string(asides[0].join("data/a")).unwrap(), "old");
    assert_eq!(
        fs::read_to_string(asides[0].join("only-old")).unwrap(),
        "old"
    );
    let out = out.display().to_string();
    let said = host.ok(&["restore", "--resume", "--to", &out]);
    assert!(said.contains("nothing to finish"), "{said}");
}
