//! `recover.py` among other users: what it makes has the rights that were recorded, and no more.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown, symlink};
use std::process::{Command, Output};

use crate::support::files::set_mode;
use crate::support::host::{Host, texts};
use crate::support::is_root_for;

const OTHER: u32 = 65_534;

/// A host with one snapshot of a few files of root's.
fn host() -> Host {
    let host = Host::new();
    let data = host.data();
    fs::create_dir(data.join("dir")).unwrap();
    for (name, mode) in [("open", 0o664), ("dir/closed", 0o640), ("program", 0o4755)] {
        fs::write(data.join(name), name).unwrap();
        set_mode(&data.join(name), mode);
    }
    fs::create_dir(data.join("shared")).unwrap();
    set_mode(&data.join("shared"), 0o2775);
    set_mode(&data.join("dir"), 0o750);
    host.backup();
    // The other user can come here.
    set_mode(host.temp.path(), 0o711);
    host
}

/// An access list that opens what is made in the directory to user 65534.
fn default_acl() -> Vec<u8> {
    let no_id = u32::MAX;
    let entries = [
        (0x01_u16, 7_u16, no_id),
        (0x02, 7, OTHER),
        (0x04, 7, no_id),
        (0x10, 7, no_id),
        (0x20, 7, no_id),
    ];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(rights.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

#[test]
fn a_shared_destination_changes_no_group_and_opens_nothing() {
    if !is_root_for("a restore for other users") {
        return;
    }
    let host = host();
    let shared = host.path("dest");
    fs::create_dir(&shared).unwrap();
    chown(&shared, None, Some(4242)).unwrap();
    set_mode(&shared, 0o2777);
    let has_acl = xattr::set(&shared, "system.posix_acl_default", &default_acl()).is_ok();
    let out = host.recover("latest", "dest/out");
    for name in [
        "",
        "data",
        "data/dir",
        "data/dir/closed",
        "data/open",
        "data/program",
    ] {
        let path = out.join(name);
        let (found, meta) = (name, fs::metadata(&path).unwrap());
        assert_eq!((meta.uid(), meta.gid()), (0, 0), "{found}");
        for kind in ["access", "default"] {
            let list = xattr::get(&path, format!("system.posix_acl_{kind}"));
            assert!(!has_acl || list.unwrap().is_none(), "{found}: {kind}");
        }
    }
    let mode = |name: &str| fs::metadata(out.join(name)).unwrap().mode() & 0o7777;
    assert_eq!(mode("data/open"), 0o664);
    assert_eq!(mode("data/dir/closed"), 0o640);
    assert_eq!(mode("data/dir"), 0o750);
    assert_eq!(mode("data/program"), 0o4755);
    assert_eq!(mode("") & 0o7022, 0);
}

/// A directory that was closed before stays closed.
#[test]
fn an_empty_destination_keeps_others_out() {
    let host = host();
    fs::create_dir(host.path("dest")).unwrap();
    set_mode(&host.path("dest"), 0o700);
    let out = host.recover("latest", "dest");
    assert_eq!(fs::metadata(out).unwrap().mode() & 0o7777, 0o700);
}

/// Runs the script as the other user.
fn by_other(host: &Host, to: &str) -> Output {
    let key = host.path("home/key.txt");
    fs::copy(host.path("key.txt"), &key).unwrap();
    chown(&key, Some(OTHER), Some(OTHER)).unwrap();
    let opened = Command::new("chmod")
        .args(["-R", "a+rX"])
        .arg(host.path("repo"))
        .status();
    assert!(opened.unwrap().success());
    set_mode(&host.path("recover.py"), 0o644);
    Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .args(["python3", "-B", "recover.py", "repo/dalidou"])
        .args([
            "--identity",
            "home/key.txt",
            "--signer",
            &host.signer,
            "--to",
            to,
        ])
        // Not a Python of root's own.
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", host.path("home"))
        .current_dir(host.temp.path())
        .output()
        .unwrap()
}

#[test]
fn what_another_user_recovers_has_no_set_user_id_and_is_named() {
    if !is_root_for("a restore for other users") {
        return;
    }
    let host = host();
    fs::create_dir(host.path("home")).unwrap();
    chown(host.path("home"), Some(OTHER), Some(4242)).unwrap();
    set_mode(&host.path("home"), 0o2755);
    let output = by_other(&host, "home/out");
    let (_, err) = texts(&output);
    assert_eq!(output.status.code(), Some(3), "{err}");
    let said =
        "of 2: restored without set-user-ID or set-group-ID, since the owner is another one: ";
    assert!(err.contains(said), "{err}");
    for name in ["data/program", "data/shared"] {
        assert!(err.contains(name), "{err}");
    }
    assert!(
        err.contains("have not the owner or group that was recorded"),
        "{err}"
    );
    let out = host.path("home/out/data");
    let look = |name: &str| {
        let meta = fs::metadata(out.join(name)).unwrap();
        (meta.uid(), meta.gid(), meta.mode() & 0o7777)
    };
    assert_eq!(look("program"), (OTHER, OTHER, 0o755));
    assert_eq!(look("shared"), (OTHER, OTHER, 0o775));
    assert_eq!(look("dir/closed"), (OTHER, OTHER, 0o640));
}

#[test]
fn links_of_another_user_on_the_way_are_not_followed() {
    if !is_root_for("a restore for other users") {
        return;
    }
    let host = host();
    for name in ["vault", "home"] {
        fs::create_dir(host.path(name)).unwrap();
    }
    let link = host.path("home/link");
    symlink(host.path("vault"), &link).unwrap();
    // Root's own link counts only where root alone can put one.
    chown(host.path("home"), Some(OTHER), Some(OTHER)).unwrap();
    let said = host.recover_refused("latest", "home/link/out");
    assert!(said.contains("cannot enter link in"), "{said}");
    assert_eq!(fs::read_dir(host.path("vault")).unwrap().count(), 0);
    symlink("vault", host.path("mine")).unwrap();
    host.recover("latest", "mine/deep/er/out");
    assert!(host.path("vault/deep/er/out/data/open").is_file());
}
