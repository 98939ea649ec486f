//! Without Sealift: a plain copy of the target, and stock tools.

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, symlink};
use std::process::{Command, Stdio};

use crate::support::files::files;
use crate::support::host::{Host, texts};
use crate::support::tree::{describe, make_tree, noise};

#[test]
fn ten_increments_come_back_from_an_rsync_copy() {
    let host = Host::new();
    make_tree(&host.data());
    let database = rusqlite::Connection::open(host.data().join("app.db")).unwrap();
    database
        .execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB)")
        .unwrap();
    fs::write(host.data().join("vectors.bin"), noise(99, 3_000_000)).unwrap();
    for n in 0..10u64 {
        let vectors = fs::OpenOptions::new()
            .write(true)
            .open(host.data().join("vectors.bin"))
            .unwrap();
        vectors.write_all_at(&noise(n, 5000), n * 200_000).unwrap();
        for _ in 0..20 {
            database
                .execute("INSERT INTO t (body) VALUES (?1)", [noise(n, 900)])
                .unwrap();
        }
        fs::write(host.data().join(format!("note-{n}")), format!("day {n}")).unwrap();
        host.backup();
    }
    drop(database);
    let copied = Command::new("rsync")
        .arg("-a")
        .arg(host.path("repo/"))
        .arg(host.path("copy"))
        .status()
        .unwrap();
    assert!(copied.success());
    // The key holder's machine has these and no Sealift.
    let bin = host.path("bin");
    fs::create_dir(&bin).unwrap();
    for tool in ["python3", "age", "zstd", "ssh-keygen"] {
        let paths = std::env::var_os("PATH").unwrap();
        let found = std::env::split_paths(&paths)
            .map(|dir| dir.join(tool))
            // Not a wrapper script that would want a shell.
            .find(|path| fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF")));
        symlink(found.unwrap(), bin.join(tool)).unwrap();
    }
    fs::remove_dir_all(host.path("c.state")).unwrap();
    let output = Command::new(bin.join("python3"))
        .env_clear()
        .env("PATH", &bin)
        .current_dir(host.temp.path())
        .stdin(Stdio::null())
        .args([
            "-B",
            "recover.py",
            "copy/dalidou",
            "--identity",
            "key.txt",
            "--signer",
            &host.signer,
            "--to",
            "out",
        ])
        .output()
        .unwrap();
    let (out, err) = texts(&output);
    assert_eq!(output.status.code(), Some(0), "{out}\n{err}");
    assert_eq!(describe(&host.path("out/data")), describe(&host.data()));
}

#[test]
fn age_zstd_and_tar_open_an_archive() {
    let host = Host::new();
    fs::write(host.data().join("notes.txt"), b"as it was").unwrap();
    fs::write(host.data().join("big.bin"), noise(1, 300_000)).unwrap();
    host.backup();
    fs::create_dir(host.path("by-hand")).unwrap();
    for archive in files(&host.folder().join("archives")) {
        let line = "age -d -i key.txt \"$1\" | zstd -d | tar x -C by-hand";
        let done = Command::new("bash")
            .current_dir(host.temp.path())
            .args(["-o", "pipefail", "-c", line, "bash"])
            .arg(archive)
            .status()
            .unwrap();
        assert!(done.success());
    }
    assert_eq!(
        fs::read(host.path("by-hand/files/data/notes.txt")).unwrap(),
        b"as it was"
    );
    assert_eq!(
        fs::read(host.path("by-hand/files/data/big.bin")).unwrap(),
        noise(1, 300_000)
    );
    let seconds = |path| fs::metadata(path).unwrap().mtime();
    let by_hand = host.path("by-hand/files/data/notes.txt");
    assert_eq!(seconds(by_hand), seconds(host.data().join("notes.txt")));
}

#[test]
fn open_gives_the_same_tar() {
    let host = Host::new();
    fs::write(host.data().join("notes.txt"), noise(5, 9000)).unwrap();
    host.backup();
    for archive in files(&host.folder().join("archives")) {
        let archive = archive.display().to_string();
        let opened = host.run(&["open", &archive, "--identity", "key.txt"]);
        assert!(opened.status.success());
        let line = "age -d -i key.txt \"$1\" | zstd -d";
        let by_hand = Command::new("bash")
            .current_dir(host.temp.path())
            .args(["-o", "pipefail", "-c", line, "bash", &archive])
            .output()
            .unwrap();
        assert!(by_hand.status.success() && opened.stdout == by_hand.stdout);
    }
}

#[test]
fn manifests_verify_with_ssh_keygen() {
    let host = Host::new();
    fs::write(host.data().join("notes.txt"), b"x").unwrap();
    host.backup();
    let manifests = files(&host.folder().join("manifests"));
    let manifest = manifests
        .iter()
        .find(|path| path.extension().is_some_and(|e| e == "json"))
        .unwrap();
    let output = Command::new("ssh-keygen")
        .args([
            "-Y",
            "verify",
            "-I",
            "dalidou",
            "-n",
            "sealift-manifest",
            "-f",
        ])
        .arg(host.path("allowed_signers"))
        .arg("-s")
        .arg(format!("{}.sig", manifest.display()))
        .stdin(fs::File::open(manifest).unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", texts(&output).1);
}
