//! `cat`, and `restore` of a path: the right bytes, or an error; and no more of the target than they take.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, symlink};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use sealift::base::ids::Hash;

use super::terminal;
use crate::support::files::files;
use crate::support::handmade_repo::Repo;
use crate::support::host::{Host, SEALIFT, texts};
use crate::support::is_long;
use crate::support::s3::{BUCKET, S3Server};
use crate::support::slow_link::SlowLink;
use crate::support::tree::noise;

/// The words that read the folder target.
fn from_folder<'a>(host: &'a Host, words: &[&'a str]) -> Vec<&'a str> {
    let from = host.place();
    [&["cat"], words, &from[..]].concat()
}

fn cat(host: &Host, words: &[&str]) -> Output {
    host.run(&from_folder(host, words))
}

fn host_with_files() -> Host {
    let host = Host::new();
    let data = host.data();
    fs::write(data.join("text"), "Grüße\nmore\n").unwrap();
    fs::write(data.join("noise"), noise(1, 3_000_000)).unwrap();
    fs::write(data.join("empty"), "").unwrap();
    let dump = "CREATE TABLE t(a);\nINSERT INTO t VALUES('from a dump');\n";
    fs::write(data.join("dump.sql"), dump).unwrap();
    fs::hard_link(data.join("noise"), data.join("second name")).unwrap();
    symlink("text", data.join("link")).unwrap();
    fs::create_dir(data.join("dir")).unwrap();
    let status = Command::new("sqlite3")
        .arg(data.join("app.db"))
        .arg("CREATE TABLE t(a); WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<50000) INSERT INTO t SELECT hex(randomblob(20)) FROM n;")
        .status();
    assert!(status.unwrap().success());
    host.backup();
    host
}

#[test]
fn files_are_printed_as_they_were() {
    let host = host_with_files();
    let noise = noise(1, 3_000_000);
    let ok = |words: &[&str]| {
        let output = cat(&host, words);
        assert_eq!(output.status.code(), Some(0), "{}", texts(&output).1);
        assert_eq!(texts(&output).1, "", "{words:?}");
        output.stdout
    };
    assert_eq!(ok(&["latest", "data/text"]), "Grüße\nmore\n".as_bytes());
    assert!(ok(&["latest", "data/noise"]) == noise);
    assert!(ok(&["latest", "data/second name"]) == noise);
    assert_eq!(ok(&["latest", "./data/empty"]), b"");
    let both = ok(&["latest", "data/text", "data/empty", "data/text"]);
    assert_eq!(both, "Grüße\nmore\nGrüße\nmore\n".as_bytes());
    let part = ok(&[
        "latest",
        "data/noise",
        "--offset",
        "1MiB",
        "--length",
        "5000",
    ]);
    assert!(part == noise[1 << 20..(1 << 20) + 5000]);
    assert!(ok(&["latest", "data/noise", "--offset", "2999990"]) == noise[2_999_990..]);
    assert_eq!(ok(&["latest", "data/noise", "--offset", "4MiB"]), b"");
    // Without the cache, and with little memory.
    for more in [
        ["--cache", "none"],
        ["--cache", "here"],
        ["--memory", "32MiB"],
    ] {
        assert!(ok(&[&["latest", "data/noise"][..], &more].concat()) == noise);
    }
    assert!(!files(&host.path("here")).is_empty());
    for (path, why) in [
        ("data/dir", "is a directory"),
        ("data/link", "is a symbolic link to text"),
        ("data/nois", "data/noise"),
    ] {
        let output = cat(&host, &["latest", path]);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
        assert!(texts(&output).1.contains(why), "{}", texts(&output).1);
    }
}

#[test]
fn tools_read_what_is_printed() {
    let host = host_with_files();
    let sh = |script: &str| {
        let mut command = host.command(&["list"]);
        let program = format!("'{SEALIFT}' --config c.toml");
        let from = format!("--from repo --signer {} --identity key.txt", host.signer);
        let script = script.replace("CAT", &format!("{program} cat {from} latest"));
        let mut bash = Command::new("bash");
        bash.args(["-c", &format!("set -o pipefail; {script}")]);
        bash.env_clear().current_dir(host.temp.path());
        for (name, value) in command.stdin(Stdio::null()).get_envs() {
            bash.envs(value.map(|value| (name, value)));
        }
        let output = bash.output().unwrap();
        let (out, err) = texts(&output);
        (output.status.code(), out, err)
    };
    let (code, out, err) = sh("CAT data/noise | sha256sum");
    assert_eq!(code, Some(0), "{err}");
    assert!(
        out.starts_with(&Hash::sha256(&noise(1, 3_000_000)).to_string()),
        "{out}"
    );
    let (code, out, err) = sh(
        "CAT data/app.db > got.db && sqlite3 got.db 'PRAGMA integrity_check; SELECT count(*) FROM t'",
    );
    assert_eq!((code, out.as_str()), (Some(0), "ok\n50000\n"), "{err}");
    // sqlite3 reads SQL, not databases, from a pipe.
    let (code, out, err) =
        sh("CAT data/dump.sql | sqlite3 new.db && sqlite3 new.db 'SELECT a FROM t'");
    assert_eq!((code, out.as_str()), (Some(0), "from a dump\n"), "{err}");
    // A reader that has enough is no failure.
    let (code, out, err) = sh("CAT data/noise | head -c 3 | wc -c");
    assert_eq!((code, out.trim(), err.as_str()), (Some(0), "3", ""));
}

#[test]
fn a_local_snapshot_needs_no_identity() {
    let host = host_with_files();
    let output = host.run(&["cat", "latest", "data/text"]);
    let error = texts(&output).1;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        error.contains("data is read in place") && error.contains("sealift cat"),
        "{error}"
    );
    let staged = Host::new();
    staged.edit_config("stage = false", "stage = true ");
    fs::write(staged.data().join("file"), noise(3, 700_000)).unwrap();
    staged.backup();
    let output = staged.run(&["cat", "latest", "data/file", "--offset", "100"]);
    assert!(
        output.stdout == noise(3, 700_000)[100..],
        "{}",
        texts(&output).1
    );
    let output = staged.run(&["cat", "latest", "data/none", "data/file"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    let refused = staged.run(&["cat", "latest", "data/file", "--from", "repo"]);
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn a_terminal_gets_text_only() {
    let host = host_with_files();
    let seen = terminal::run(
        host.command(&from_folder(&host, &["latest", "data/text"])),
        &[],
    );
    assert_eq!(seen.code, 0);
    assert!(seen.bytes.contains("Grüße"));
    let seen = terminal::run(
        host.command(&from_folder(&host, &["latest", "data/noise"])),
        &[],
    );
    assert_eq!(seen.code, 1);
    assert!(
        seen.bytes
            .contains("refusing to write binary content to the terminal"),
        "{}",
        seen.bytes
    );
}

/// Kind: wrong content counts as the file.
#[test]
fn wrong_content_is_told_after_it() {
    let mut repo = Repo::new();
    let tree = repo.path("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), noise(1, 50_000)).unwrap();
    repo.push_changed(&tree, |draft| {
        for entry in &mut draft.entries {
            entry.blake3 = entry.blake3.map(|_| Hash([1; 32]));
        }
    });
    let run = |more: &[&str]| {
        let from = [
            "cat",
            "latest",
            "file",
            "--from",
            "repo",
            "--identity",
            "key.txt",
        ];
        let mut command = Command::new(SEALIFT);
        command
            .current_dir(repo.temp.path())
            .env("HOME", repo.temp.path());
        command
            .args(from)
            .arg("--accept-signer")
            .args(more)
            .output()
            .unwrap()
    };
    let output = run(&[]);
    let error = texts(&output).1;
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(output.stdout == noise(1, 50_000));
    assert!(
        error.contains("BLAKE3") && error.contains("is not the file"),
        "{error}"
    );
    // A part says nothing of the rest.
    let output = run(&["--length", "4"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 4));
}

/// Kind: a large file needs much memory.
#[test]
fn a_sparse_file_streams_in_flat_memory() {
    let host = Host::new();
    let gib: u64 = if is_long() { 10 } else { 1 };
    let bytes = gib << 30;
    let file = fs::File::create(host.data().join("sparse")).unwrap();
    file.set_len(bytes).unwrap();
    for at in 0..20 {
        file.write_all_at(&noise(at + 1, 100_000), at * (bytes / 20))
            .unwrap();
    }
    host.backup();
    let mut child = host
        .command(&from_folder(&host, &["latest", "data/sparse"]))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    let (mut read, mut buffer, mut hasher) = (0, vec![0; 1 << 20], blake3::Hasher::new());
    let mut peak = String::new();
    loop {
        let count = out.read(&mut buffer).unwrap();
        hasher.update(&buffer[..count]);
        read += count as u64;
        if peak.is_empty() && read > bytes / 20 * 19 {
            let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
            let line = status
                .lines()
                .find(|line| line.starts_with("VmHWM"))
                .unwrap();
            peak = line.split_whitespace().nth(1).unwrap().to_owned();
        }
        if count == 0 {
            break;
        }
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(read, bytes);
    let peak: u64 = peak.parse().unwrap();
    assert!(peak < 300_000, "{peak} kB");
    let mut expected = blake3::Hasher::new();
    let mut original = fs::File::open(host.data().join("sparse")).unwrap();
    std::io::copy(&mut original, &mut expected).unwrap();
    assert_eq!(hasher.finalize(), expected.finalize());
}

/// Kind: one small file costs as much as the archives it is in.
#[test]
fn one_small_file_costs_little_of_a_target() {
    let server = S3Server::start();
    let link = SlowLink::start(server.address, 1 << 30, Duration::ZERO);
    let host = Host::new();
    let wanted = noise(77, 4096);
    let dir = host.data().join("share/doc");
    fs::create_dir_all(&dir).unwrap();
    let count = if is_long() { 12_000 } else { 1500 };
    for number in 0..count {
        let mut file = fs::File::create(dir.join(format!("{number:05}.txt"))).unwrap();
        // Half text, half noise: some 8 kB when it is compressed.
        writeln!(file, "{}", "a line of some document\n".repeat(300)).unwrap();
        file.write_all(&noise(number, 8000)).unwrap();
    }
    fs::write(dir.join("00700.bin"), &wanted).unwrap();
    host.backup();
    let (url, endpoint) = (
        format!("s3://{BUCKET}/off/site"),
        format!("http://{}", link.address),
    );
    let run = |arguments: &[&str]| {
        let (_, before) = link.bytes();
        let (mut command, began) = (host.command(arguments), Instant::now());
        let output = server.output_of(&mut command);
        let took = began.elapsed();
        assert!(output.status.success(), "{}", texts(&output).1);
        (output.stdout, link.bytes().1 - before, took)
    };
    let sync = ["sync", "./repo", &url, "--to-endpoint", &server.endpoint()];
    server.ok(&mut host.command(&sync));
    let from = [
        "--from",
        &url,
        "--endpoint",
        &endpoint,
        "--signer",
        &host.signer,
    ];
    let path = "data/share/doc/00700.bin";
    let with = |first: &[&'static str], more: &[&'static str]| -> Vec<String> {
        let words = [first, &[path, "--identity", "key.txt"], more, &from[..]].concat();
        words.into_iter().map(str::to_owned).collect()
    };
    let words = |list: &[String]| -> Vec<String> { list.to_vec() };
    let run = |list: Vec<String>| run(&words(&list).iter().map(String::as_str).collect::<Vec<_>>());
    let stored = host.stored_bytes();
    let (_, listed, _) = run(vec![
        "ls".into(),
        "latest".into(),
        "--identity".into(),
        "key.txt".into(),
    ]
    .into_iter()
    .chain(from.iter().map(|word| (*word).to_owned()))
    .collect());
    let (_, bytes, took) = run(with(&["restore", "latest"], &["--to", "out"]));
    println!("stored {stored}, index and manifest {listed}, restore of 4 KiB {bytes} in {took:?}");
    assert_eq!(fs::read(host.path("out").join(path)).unwrap(), wanted);
    // The whole archive has some 12 MB.
    assert!(
        bytes - listed < 4_000_000 && bytes < stored / 2,
        "{bytes} of {stored}"
    );
    let (out, bytes, took) = run(with(&["cat", "latest"], &[]));
    println!("cat of 4 KiB {bytes} in {took:?}");
    assert!(out == wanted);
    assert!(bytes < stored / 2, "{bytes} of {stored}");
    // What is fetched the second time is no archive: listings, manifest and table.
    let (out, again, took) = run(with(&["cat", "latest"], &[]));
    println!("cat again {again} in {took:?}");
    assert!(out == wanted);
    assert!(again < 40_000, "{again}");
}
