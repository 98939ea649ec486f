//! What is restored is never open to more than it was, wherever it is restored to: by `restore` and by
//! `recover.py`, as root and as another user, whatever the destination hands down to what is made in it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::files::set_mode;
use crate::support::host::{Host, SEALIFT, texts};
use crate::support::is_root_for;

/// The user of whom nothing is, and whom the default access lists let in.
const STRANGER: u32 = 4243;
/// Who restores where it is not root.
const OTHER: u32 = 65_534;
const LISTS: [&str; 2] = ["system.posix_acl_access", "system.posix_acl_default"];

/// An access list: the rights of the owner, of user 4243, of the group, the mask, and of all others.
fn list(rights: [u16; 5]) -> Vec<u8> {
    let ids = [u32::MAX, STRANGER, u32::MAX, u32::MAX, u32::MAX];
    let tags = [0x01_u16, 0x02, 0x04, 0x10, 0x20];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for ((tag, right), id) in tags.into_iter().zip(rights).zip(ids) {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(right.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// A host whose one snapshot has an entry of every kind, with odd rights.
fn host() -> Host {
    let host = Host::new();
    let data = host.data();
    for (dir, mode) in [
        ("open", 0o755),
        ("closed", 0o750),
        ("shared", 0o2770),
        ("sticky", 0o1777),
    ] {
        fs::create_dir(data.join(dir)).unwrap();
        fs::write(data.join(dir).join("file"), dir).unwrap();
        set_mode(&data.join(dir).join("file"), 0o640);
        set_mode(&data.join(dir), mode);
    }
    for (name, mode) in [
        ("none", 0o000),
        ("private", 0o600),
        ("all", 0o666),
        ("program", 0o4755),
        ("group", 0o2755),
    ] {
        fs::write(data.join(name), name).unwrap();
        set_mode(&data.join(name), mode);
    }
    // Comes in pieces, and is proven at the end.
    let large = fs::File::create(data.join("large")).unwrap();
    large.set_len(3_000_000).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&large, b"in the middle", 1_500_000).unwrap();
    set_mode(&data.join("large"), 0o640);
    let database = rusqlite::Connection::open(data.join("app.db")).unwrap();
    let statements = "CREATE TABLE t(x); INSERT INTO t VALUES (1)";
    database.execute_batch(statements).unwrap();
    set_mode(&data.join("app.db"), 0o660);
    fs::hard_link(data.join("private"), data.join("second")).unwrap();
    symlink("private", data.join("link")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, data.join("fifo"), 0o620.into()).unwrap();
    set_mode(&data.join("fifo"), 0o620);
    // Lists of its own are kept.
    for (name, kind) in [("all", LISTS[0]), ("open", LISTS[0]), ("open", LISTS[1])] {
        let _ = xattr::set(data.join(name), kind, &list([7, 4, 0, 4, 0]));
    }
    if rustix::process::geteuid().is_root() {
        for name in ["closed", "closed/file", "fifo", "app.db", "large"] {
            chown(data.join(name), Some(1000), Some(1001)).unwrap();
        }
        for (name, mode) in [("closed/file", 0o640), ("app.db", 0o660)] {
            set_mode(&data.join(name), mode);
        }
    }
    host.backup();
    set_mode(host.temp.path(), 0o711);
    host
}

/// Owner, group, mode and access lists of everything below `dir`, by path.
fn rights(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![dir.to_owned()];
    while let Some(at) = left.pop() {
        let meta = fs::symlink_metadata(&at).unwrap();
        let lists = LISTS.map(|name| xattr::get(&at, name).ok().flatten());
        let lists = lists.map(|list| list.map(|bytes| hex(&bytes)));
        let text = match meta.is_symlink() {
            true => format!("{}:{} link", meta.uid(), meta.gid()),
            false => format!(
                "{}:{} {:04o} {lists:?}",
                meta.uid(),
                meta.gid(),
                meta.mode() & 0o7777
            ),
        };
        found.insert(at.strip_prefix(dir).unwrap().to_owned(), text);
        if meta.is_dir() {
            left.extend(
                fs::read_dir(&at)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
    }
    found
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a destination hands down.
const HANDED_DOWN: [(&str, u32, Option<[u16; 5]>); 5] = [
    ("nothing", 0o755, None),
    ("its group", 0o2777, None),
    ("a list for a user", 0o777, Some([7, 7, 5, 7, 0])),
    ("a list for all", 0o777, Some([7, 7, 7, 7, 7])),
    (
        "its group and a list for all",
        0o2777,
        Some([7, 7, 7, 7, 7]),
    ),
];

/// Makes the directory, of group 4242, that hands it down. `false`: this file system has no access lists.
fn destination(path: &Path, (_, mode, default): (&str, u32, Option<[u16; 5]>)) -> bool {
    fs::create_dir(path).unwrap();
    let _ = chown(path, None, Some(4242));
    set_mode(path, mode);
    default.is_none_or(|rights| xattr::set(path, LISTS[1], &list(rights)).is_ok())
}

/// Runs it with that umask, as `user` if there is one.
fn run(host: &Host, arguments: &[&str], umask: &str, dir: &Path, user: Option<u32>) -> Output {
    let script = format!("umask {umask}; exec \"$@\"");
    let mut command = match user {
        None => Command::new("sh"),
        Some(user) => {
            let mut command = Command::new("setpriv");
            let id = user.to_string();
            command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "sh"]);
            command.env("PATH", "/usr/local/bin:/usr/bin:/bin");
            command
        }
    };
    command.args(["-c", &script, "sh"]).args(arguments);
    command
        .env("HOME", host.path("home"))
        .env_remove("SEALIFT_CONFIG");
    command.current_dir(dir).output().unwrap()
}

fn by_sealift<'a>(host: &'a Host, key: &'a str, repo: &'a str) -> Vec<&'a str> {
    let from = [
        SEALIFT,
        "restore",
        "latest",
        "--from",
        repo,
        "--identity",
        key,
    ];
    [&from[..], &["--signer", &host.signer]].concat()
}

/// `restore` and `recover.py`.
fn ways(host: &Host) -> [Vec<String>; 2] {
    let (key, repo) = (host.path("key.txt"), host.path("repo"));
    let (key, repo) = (key.to_str().unwrap(), repo.to_str().unwrap());
    let sealift = by_sealift(host, key, repo);
    let (script, folder) = (host.path("recover.py"), format!("{repo}/dalidou"));
    let script = script.to_str().unwrap();
    let by_hand = [
        "python3",
        "-B",
        script,
        &folder,
        "--identity",
        key,
        "--signer",
        &host.signer,
    ];
    [sealift, by_hand.to_vec()].map(|words| words.into_iter().map(str::to_owned).collect())
}

#[test]
fn what_root_restores_has_the_rights_that_it_had_whatever_is_handed_down() {
    if !is_root_for("a restore for other users") {
        return;
    }
    let host = host();
    let expected = rights(&host.data());
    for (number, handed) in HANDED_DOWN.into_iter().enumerate() {
        let dest = host.path(&format!("dest{number}"));
        if !destination(&dest, handed) {
            eprintln!("SKIPPED: no access lists here");
            continue;
        }
        for umask in ["000", "077"] {
            for (by, way) in ways(&host).into_iter().enumerate() {
                let what = format!("{}, umask {umask}, way {by}", handed.0);
                let out = dest.join(format!("out-{umask}-{by}"));
                let mut words: Vec<&str> = way.iter().map(String::as_str).collect();
                words.extend(["--to", out.to_str().unwrap()]);
                let output = run(&host, &words, umask, host.temp.path(), None);
                assert_eq!(
                    output.status.code(),
                    Some(0),
                    "{what}: {:?}",
                    texts(&output)
                );
                assert_eq!(rights(&out.join("data")), expected, "{what}");
                let top = fs::metadata(&out).unwrap();
                // Whatever the umask: what is in it may be secret.
                assert_eq!((top.gid(), top.mode() & 0o7777), (0, 0o700), "{what}");
                let inherited = LISTS.map(|name| xattr::get(&out, name).ok().flatten());
                assert_eq!(inherited, [None, None], "{what}");
            }
        }
    }
}

/// A directory that is there keeps its own rights, lists included; what comes into it inherits none of them.
#[test]
fn a_destination_that_is_there_keeps_its_rights_and_hands_none_down() {
    if !is_root_for("a restore for other users") {
        return;
    }
    let host = host();
    let expected = rights(&host.data());
    for (number, handed) in HANDED_DOWN.into_iter().enumerate() {
        for (how, full, inside) in [
            ("empty", false, false),
            ("full", true, false),
            ("inside", true, true),
        ] {
            let what = format!("{}, {how}", handed.0);
            let dest = host.path(&format!("dest{number}-{how}"));
            if !destination(&dest, handed) {
                continue;
            }
            // A mask that is more than the group has.
            let access = handed.2.map(|_| list([7, 7, 0, 7, 0]));
            if let Some(access) = &access {
                xattr::set(&dest, LISTS[0], access).unwrap();
            }
            if full {
                fs::write(dest.join("old"), "old").unwrap();
            }
            let before = rights(&dest)[Path::new("")].clone();
            let way = ways(&host)[0].clone();
            let mut words: Vec<&str> = way.iter().map(String::as_str).collect();
            let to = dest.to_str().unwrap();
            words.extend(["--overwrite", "--to", if inside { "." } else { to }]);
            let dir = if inside { &dest } else { host.temp.path() };
            let output = run(&host, &words, "000", dir, None);
            assert_eq!(
                output.status.code(),
                Some(0),
                "{what}: {:?}",
                texts(&output)
            );
            assert_eq!(rights(&dest.join("data")), expected, "{what}");
            assert_eq!(rights(&dest)[Path::new("")], before, "{what}");
        }
    }
}

#[test]
fn what_another_user_restores_is_his_and_open_to_nobody_else() {
    if !is_root_for("a restore for other users") {
        return;
    }
    let host = host();
    let opened = Command::new("chmod")
        .args(["-R", "a+rX"])
        .arg(host.path("repo"))
        .status();
    assert!(opened.unwrap().success());
    for name in ["recover.py", "key.txt"] {
        set_mode(&host.path(name), 0o644);
    }
    fs::create_dir(host.path("home")).unwrap();
    // Another owner's program has no set-id bit, nor has a directory of another group.
    let of_other = |path: &Path, text: &str| {
        let text = text.split_once(' ').unwrap().1;
        let text = match path.to_str().unwrap() {
            "program" => text.replacen("4755", "0755", 1),
            "group" => text.replacen("2755", "0755", 1),
            "shared" => text.replacen("2770", "0770", 1),
            _ => text.to_owned(),
        };
        (path.to_owned(), format!("{OTHER}:{OTHER} {text}"))
    };
    let expected: BTreeMap<_, _> = rights(&host.data())
        .iter()
        .map(|(path, text)| of_other(path, text))
        .collect();
    for (number, handed) in HANDED_DOWN.into_iter().enumerate() {
        let dest = host.path(&format!("dest{number}"));
        if !destination(&dest, handed) {
            continue;
        }
        chown(&dest, Some(OTHER), None).unwrap();
        // Changing the owner took it away.
        set_mode(&dest, handed.1);
        for (by, way) in ways(&host).into_iter().enumerate() {
            let what = format!("{}, way {by}", handed.0);
            let out = dest.join(format!("out{by}"));
            let mut words: Vec<&str> = way.iter().map(String::as_str).collect();
            words.extend(["--to", out.to_str().unwrap()]);
            let output = run(&host, &words, "022", &dest, Some(OTHER));
            let (_, err) = texts(&output);
            assert_eq!(output.status.code(), Some(3), "{what}: {err}");
            assert!(err.contains("set-user-ID or set-group-ID"), "{what}: {err}");
            assert_eq!(rights(&out.join("data")), expected, "{what}");
        }
    }
}

/// Kind: the two ways back disagree on what was to be expected. A host with security labels would always end with 3.
#[test]
fn labels_that_only_root_can_set_are_no_fault_of_another_users_restore() {
    if !is_root_for("a restore for other users") {
        return;
    }
    let host = Host::new();
    fs::write(host.data().join("labelled"), "x").unwrap();
    let label = ("trusted.label", b"secret".as_slice());
    if xattr::set(host.data().join("labelled"), label.0, label.1).is_err() {
        eprintln!("SKIPPED: this file system takes no such attribute");
        return;
    }
    host.backup();
    set_mode(host.temp.path(), 0o711);
    let opened = Command::new("chmod")
        .args(["-R", "a+rX"])
        .arg(host.path("repo"))
        .status();
    assert!(opened.unwrap().success());
    for name in ["recover.py", "key.txt"] {
        set_mode(&host.path(name), 0o644);
    }
    fs::create_dir(host.path("home")).unwrap();
    let dest = host.path("dest");
    fs::create_dir(&dest).unwrap();
    chown(&dest, Some(OTHER), None).unwrap();
    for (by, way) in ways(&host).into_iter().enumerate() {
        let out = dest.join(format!("out{by}"));
        let mut words: Vec<&str> = way.iter().map(String::as_str).collect();
        words.extend(["--to", out.to_str().unwrap()]);
        let output = run(&host, &words, "022", &dest, Some(OTHER));
        let (_, err) = texts(&output);
        assert_eq!(output.status.code(), Some(0), "way {by}: {err}");
        assert!(err.contains("only root can set"), "way {by}: {err}");
    }
}

/// Kind: a destination keeps less than it should, and no message says so.
#[test]
fn what_a_file_system_without_attributes_loses_is_counted_and_opens_nothing() {
    if !is_root_for("a restore for other users") {
        return;
    }
    let host = Host::new();
    let data = host.data();
    for (name, access) in [("opened", [6, 6, 0, 6, 0]), ("shut", [6, 0, 4, 4, 4])] {
        fs::write(data.join(name), name).unwrap();
        if xattr::set(data.join(name), LISTS[0], &list(access)).is_err() {
            eprintln!("SKIPPED: no access lists here");
            return;
        }
    }
    for number in 0..9 {
        let path = data.join(format!("noted{number}"));
        fs::write(&path, "x").unwrap();
        xattr::set(&path, "user.note", b"kept").unwrap();
    }
    host.backup();
    let Some(ram) = Ram::mount(&host.path("ram")) else {
        return;
    };
    for (by, way) in ways(&host).into_iter().enumerate() {
        let out = ram.0.join(format!("out{by}"));
        let mut words: Vec<&str> = way.iter().map(String::as_str).collect();
        words.extend(["--to", out.to_str().unwrap()]);
        if by == 0 {
            words.insert(1, "--json");
        }
        let output = run(&host, &words, "022", host.temp.path(), None);
        let (said, err) = texts(&output);
        assert_eq!(output.status.code(), Some(3), "{err}");
        let mode = |name: &str| fs::metadata(out.join("data").join(name)).unwrap().mode() & 0o7777;
        // The group had nothing: the mask is not its. And user 4243 could not read it.
        assert_eq!((mode("opened"), mode("shut")), (0o600, 0o600), "way {by}");
        if by == 1 {
            assert!(err.contains("of 9: cannot set user.note"), "{err}");
            assert!(
                err.contains("of 2: cannot set system.posix_acl_access"),
                "{err}"
            );
            assert!(err.contains("and 4 more"), "{err}");
            continue;
        }
        assert!(
            err.contains("2 entries did not keep their access list (ACL)"),
            "{err}"
        );
        assert!(
            err.contains("9 entries did not keep extended attributes (user.note: "),
            "{err}"
        );
        assert!(err.contains("data/noted4 and 4 more"), "{err}");
        let report: serde_json::Value = serde_json::from_str(&said).unwrap();
        let lost = report["not_kept"].as_array().unwrap();
        let counted = |kind: &str| {
            let one = lost.iter().find(|one| one["kind"] == kind);
            one.unwrap_or_else(|| panic!("{kind}: {report}"))["count"].as_u64()
        };
        assert_eq!(
            (counted("access_list"), counted("attributes")),
            (Some(2), Some(9))
        );
        assert_eq!(lost.len(), 2, "{report}");
    }
}

/// A file system that keeps modes and times, and no attributes.
struct Ram(PathBuf);

impl Ram {
    fn mount(at: &Path) -> Option<Self> {
        fs::create_dir(at).unwrap();
        let output = Command::new("mount")
            .args(["-t", "ramfs", "sealift-test"])
            .arg(at)
            .output();
        if output.is_ok_and(|output| output.status.success()) {
            return Some(Self(at.to_owned()));
        }
        eprintln!("SKIPPED: nothing can be mounted here");
        None
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}
