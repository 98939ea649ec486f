//! Sources that are read in a snapshot of their file system: `{snapshot}` in `path`, and the scripts in `deploy/quiesce`.
//!
//! btrfs is tried on a loop file, if root runs the test and there is mkfs.btrfs. What the scripts for LVM and ZFS call is
//! recorded by programs that take the place of `lvcreate`, `zfs` and the like; no LVM and no ZFS is here to try them on.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::host::{Host, Writer, rows};
use crate::support::files::names_in;
use crate::support::host::texts;
use crate::support::is_root_for;

fn source(path: &str, before: &str, after: &str) -> String {
    format!(
        "[[source]]\nkind = \"tree\"\npath = {path:?}\nto = \"data\"\nbefore = {before:?}\nafter = {after:?}\n"
    )
}

#[test]
fn the_last_line_of_before_is_the_snapshot_in_the_path() {
    let before = "mkdir @/snap; cp -r @/live @/snap/; echo noise; echo $SEALIFT_SOURCE $SEALIFT_RUN >@/seen; echo @/snap";
    let mut host = Host::new(&source("{snapshot}/live", before, "rm -r @/snap"));
    host.write("live/file", b"content");
    let made = host.produce();
    assert_eq!(fs::read(made.dir.join("data/file")).unwrap(), b"content");
    assert!(!host.path("snap").exists());
    let seen = fs::read_to_string(host.path("seen")).unwrap();
    let (name, run) = seen.trim().split_once(' ').unwrap();
    assert!(
        name == "data" && run.starts_with("20260407T060000Z-"),
        "{seen}"
    );
    // The record has the path as it is configured, which is the same in each run.
    assert_eq!(made.snapshot.sources[0].path, "{snapshot}/live");

    for (before, expected) in [
        ("true", "printed no line for `{snapshot}`"),
        ("echo", "printed no line for `{snapshot}`"),
        ("echo not/absolute", "printed no line for `{snapshot}`"),
        ("echo @/nowhere", "nowhere/live is not there"),
        ("echo @/snap; exit 3", "exit status: 3"),
    ] {
        host.reconfigure(&source("{snapshot}/live", before, "touch @/after"));
        let said = host.failure();
        assert!(said.contains(expected), "{before}: {said}");
        fs::remove_file(host.path("after")).expect("`after` ran");
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy/quiesce")
        .join(name)
}

#[test]
fn the_scripts_parse_and_refuse_what_they_do_not_know() {
    for name in names_in(&script("")) {
        let parsed = Command::new("sh").arg("-n").arg(script(&name)).status();
        assert!(parsed.unwrap().success(), "{name}");
        let mode = fs::metadata(script(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{name}");
        for arguments in [
            &[][..],
            &["before"],
            &["before", "@"],
            &["during", "pool/set"],
        ] {
            let mut command = Command::new(script(&name));
            command
                .args(arguments)
                .env("SEALIFT_SOURCE", "s")
                .env("SEALIFT_RUN", "r");
            let output = command.output().unwrap();
            assert_eq!(output.status.code(), Some(2), "{name} {arguments:?}");
            assert!(
                texts(&output).1.starts_with("usage: "),
                "{name} {arguments:?}"
            );
        }
        let alone = Command::new(script(&name))
            .env_remove("SEALIFT_SOURCE")
            .output();
        let (out, err) = texts(&alone.unwrap());
        assert!(
            out.is_empty() && err.contains("as the before or after of a source"),
            "{err}"
        );
    }
}

/// A directory with programs that record how they are called.
struct Recorder {
    dir: tempfile::TempDir,
}

impl Recorder {
    /// `programs`: their names, and what else they do.
    fn new(programs: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("bin")).unwrap();
        for (name, does) in programs {
            let path = dir.path().join("bin").join(name);
            let text = format!("#!/bin/sh\necho \"{name} $*\" >>\"$RECORD/log\"\n{does}\n");
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self { dir }
    }

    fn run(&self, name: &str, arguments: &[&str]) -> Output {
        let path = format!("{}/bin:/usr/bin:/bin", self.dir.path().display());
        let output = Command::new(script(name))
            .args(arguments)
            .env_clear()
            .env("PATH", path)
            .env("RECORD", self.dir.path())
            .env("SEALIFT_SOURCE", "chroma")
            .env("SEALIFT_RUN", "20260407T060000Z-7")
            .env("SEALIFT_QUIESCE_DIR", self.dir.path().join("mounts"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{:?}", texts(&output));
        output
    }

    /// The calls since the last look, with `@` for the place of the mounts.
    fn calls(&self) -> Vec<String> {
        let log = self.dir.path().join("log");
        let text = fs::read_to_string(&log).unwrap_or_default();
        let _ = fs::remove_file(log);
        let mounts = self.dir.path().join("mounts").display().to_string();
        text.lines()
            .map(|line| line.replace(&mounts, "@"))
            .collect()
    }
}

#[test]
fn the_script_for_lvm_makes_mounts_and_removes_a_snapshot() {
    let recorder = Recorder::new(&[
        ("lvs", "test -e \"$RECORD/volume\""),
        ("lvcreate", "touch \"$RECORD/volume\""),
        ("lvremove", "rm \"$RECORD/volume\""),
        ("mountpoint", "test -e \"$RECORD/mounted\""),
        ("mount", "touch \"$RECORD/mounted\""),
        ("umount", "rm \"$RECORD/mounted\""),
        ("blkid", "echo xfs"),
    ]);
    let calls = || -> Vec<String> {
        let asks = |call: &String| !call.starts_with("lvs ") && !call.starts_with("mountpoint ");
        recorder.calls().into_iter().filter(asks).collect()
    };
    let made = recorder.run("lvm", &["before", "vg0/storage", "5G"]);
    let mounted = recorder.dir.path().join("mounts/chroma");
    assert_eq!(texts(&made).0, format!("{}\n", mounted.display()));
    let expected = [
        "lvcreate --snapshot --name sealift-chroma --addtag sealift-20260407T060000Z-7 --size 5G vg0/storage",
        "blkid -o value -s TYPE /dev/vg0/sealift-chroma",
        "mount -o nodev,nosuid,noexec,nouuid /dev/vg0/sealift-chroma @/chroma",
    ];
    assert_eq!(calls(), expected);
    let cleared = ["umount @/chroma", "lvremove --yes vg0/sealift-chroma"];
    // A run that was killed left it: the next one removes it first.
    recorder.run("lvm", &["before", "vg0/storage", "thin"]);
    let again = calls();
    assert_eq!(again[..2], cleared);
    assert!(
        again[2].ends_with("--setactivationskip n vg0/storage"),
        "{again:?}"
    );
    recorder.run("lvm", &["after", "vg0/storage"]);
    assert_eq!(calls(), cleared);
    assert!(!mounted.exists());
    recorder.run("lvm", &["after", "vg0/storage"]);
    assert_eq!(calls(), [""; 0]);
}

#[test]
fn the_script_for_zfs_makes_clones_and_destroys_a_snapshot() {
    // `zfs list` reports the clone, and all snapshots: one of another source must stay.
    let does = "case \"$*\" in\n\
        *'-t snapshot'*) echo tank/storage@sealift-other-20260407T060000Z-7\n\
            echo tank/storage@daily-20260407\n\
            test ! -e \"$RECORD/made\" || echo tank/storage@sealift-chroma-20260407T060000Z-7;;\n\
        list*) test -e \"$RECORD/made\";;\n\
        clone*) touch \"$RECORD/made\";;\n\
        esac";
    let recorder = Recorder::new(&[("zfs", does)]);
    let calls = || -> Vec<String> {
        let acts = |call: &String| !call.starts_with("zfs list ");
        recorder.calls().into_iter().filter(acts).collect()
    };
    let made = recorder.run("zfs", &["before", "tank/storage"]);
    let mounted = recorder.dir.path().join("mounts/chroma");
    assert_eq!(texts(&made).0, format!("{}\n", mounted.display()));
    let expected = [
        "zfs snapshot tank/storage@sealift-chroma-20260407T060000Z-7",
        "zfs clone -o mountpoint=@/chroma -o readonly=off -o setuid=off -o devices=off -o exec=off \
         tank/storage@sealift-chroma-20260407T060000Z-7 tank/storage/sealift-chroma",
    ];
    assert_eq!(calls(), expected);
    recorder.run("zfs", &["after", "tank/storage"]);
    let cleared = [
        "zfs destroy tank/storage/sealift-chroma",
        "zfs destroy tank/storage@sealift-chroma-20260407T060000Z-7",
    ];
    assert_eq!(calls(), cleared);
    assert!(!mounted.exists());
}

/// A btrfs in a file, mounted until it is dropped.
struct Btrfs {
    dir: tempfile::TempDir,
}

impl Btrfs {
    fn mounted() -> Option<Self> {
        if !is_root_for("a btrfs on a loop file") {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let (image, mount) = (dir.path().join("image"), dir.path().join("mount"));
        fs::File::create(&image)
            .unwrap()
            .set_len(256 << 20)
            .unwrap();
        fs::create_dir(&mount).unwrap();
        let done = |command: &mut Command| command.output().is_ok_and(|out| out.status.success());
        let is_made = done(Command::new("mkfs.btrfs").arg("-q").arg(&image));
        if !is_made || !done(Command::new("btrfs").arg("--version")) {
            println!("SKIPPED: there is no mkfs.btrfs, or no btrfs");
            return None;
        }
        if !done(
            Command::new("mount")
                .args(["-o", "loop"])
                .args([&image, &mount]),
        ) {
            println!("SKIPPED: a loop file cannot be mounted here");
            return None;
        }
        Some(Self { dir })
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("mount")
    }
}

impl Drop for Btrfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

/// Two databases get a row each, the second only after the first: in a copy of one moment the first has as many rows as
/// the second, or one more. A tree that is copied file by file while they are written shows more than that.
#[test]
fn a_btrfs_snapshot_shows_one_moment_of_a_tree_that_is_written() {
    let Some(btrfs) = Btrfs::mounted() else {
        return;
    };
    let data = btrfs.path().join("data");
    fs::create_dir(&data).unwrap();
    let databases = ["a.db", "b.db"].map(|name| data.join(name));
    for database in &databases {
        let made = rusqlite::Connection::open(database).unwrap();
        made.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t(x)")
            .unwrap();
    }
    let script_path = script("btrfs").display().to_string();
    let volume = btrfs.path().display().to_string();
    let hook = |verb: &str| format!("[{script_path:?}, {verb:?}, {volume:?}]");
    let host = Host::new(&format!(
        "[[source]]\nkind = \"tree\"\npath = \"{{snapshot}}/data\"\nto = \"data\"\nbefore = {}\nafter = {}\n",
        hook("before"),
        hook("after")
    ));
    let other = databases[1].display().to_string();
    let writer = Writer::start(
        &databases[0],
        &format!(
            "other=sqlite3.connect({other:?},timeout=20,isolation_level=None)\n\
             say('ready')\n\
             while True:\n db.execute('INSERT INTO t VALUES (1)')\n other.execute('INSERT INTO t VALUES (1)')\n"
        ),
    );
    // What a run left that was killed.
    let left = btrfs.path().join(".sealift-data-20260101T000000Z-1");
    let made = Command::new("btrfs")
        .args(["subvolume", "snapshot"])
        .args([&btrfs.path(), &left])
        .output();
    assert!(made.unwrap().status.success());
    for _ in 0..3 {
        std::thread::sleep(std::time::Duration::from_millis(200));
        let made = host.produce();
        assert!(
            made.snapshot.skipped.is_empty(),
            "{:?}",
            made.snapshot.skipped
        );
        let [first, second] = ["a.db", "b.db"].map(|name| rows(&made.dir.join("data").join(name)));
        assert!(first > 0 && first - second <= 1, "{first} {second}");
        assert_eq!(names_in(&btrfs.path()), ["data"]);
    }
    drop(writer);
}
