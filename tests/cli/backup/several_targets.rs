//! Backups to a real S3 server, to several targets, through a network that fails.

use crate::support::proxy;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::support::files::files;
use crate::support::host::{Host, texts};
use crate::support::rsync::{RsyncDaemon, SshServer};
use crate::support::s3::{BUCKET, S3Server};
use crate::support::tree::{describe, noise};

/// A host with a second target, `s3`, at `endpoint`.
fn host_with_s3(endpoint: &str, with_folder: bool) -> Host {
    let host = Host::new();
    let mut config = host.config();
    if !with_folder {
        let start = config.find("[[target]]").unwrap();
        let end = config.find("[retention]").unwrap();
        config.replace_range(start..end, "");
    }
    config += &format!(
        "\n[[target]]\nname = \"s3\"\nurl = \"s3://{BUCKET}/off/site\"\nendpoint = \"{endpoint}\"\n"
    );
    fs::write(host.path("c.toml"), config).unwrap();
    host
}

fn backup(host: &Host, server: &S3Server, code: i32) -> serde_json::Value {
    let output = server.output_of(&mut host.command(&["--json", "backup"]));
    let (out, err) = texts(&output);
    assert_eq!(output.status.code(), Some(code), "{out}{err}");
    serde_json::from_str(&out).unwrap_or_default()
}

fn restore(host: &Host, server: &S3Server, to: &str) {
    let (url, endpoint) = (format!("s3://{BUCKET}/off/site"), server.endpoint());
    server.ok(&mut host.command(&[
        "restore",
        "latest",
        "--from",
        &url,
        "--endpoint",
        &endpoint,
        "--identity",
        "key.txt",
        "--signer",
        &host.signer,
        "--to",
        to,
    ]));
    assert_eq!(
        describe(&host.path(to).join("data")),
        describe(&host.data())
    );
}

#[test]
fn a_backup_to_s3_restores_on_a_fresh_machine() {
    let server = S3Server::start();
    let host = host_with_s3(&server.endpoint(), false);
    for n in 0..3 {
        fs::write(host.data().join(format!("f{n}")), noise(n, 200_000)).unwrap();
        backup(&host, &server, 0);
    }
    restore(&host, &server, "out");
    let status = server.output_of(&mut host.command(&["status"]));
    assert!(status.status.success(), "{}", texts(&status).0);
}

#[test]
fn init_sets_up_an_s3_target_and_tries_it() {
    let server = S3Server::start();
    let host = Host::new();
    fs::remove_file(host.path("c.toml")).unwrap();
    let (url, endpoint) = (format!("s3://{BUCKET}/x"), server.endpoint());
    let recipient = host.recipient.clone();
    let init = [
        "init",
        "--host",
        "dalidou",
        "--recipient",
        &recipient,
        "--target",
        &url,
        "--endpoint",
        &endpoint,
        "--region",
        "eu-central-1",
        "--tree",
        "data",
    ];
    let output = server.output_of(&mut host.command(&init));
    let (out, err) = texts(&output);
    assert!(
        output.status.success() && out.contains("s3: can write, list, read and delete\n"),
        "{out}{err}"
    );
    server.ok(&mut host.command(&["backup"]));
}

#[test]
fn a_wrong_secret_is_told_without_showing_it() {
    let server = S3Server::start();
    let host = host_with_s3(&server.endpoint(), false);
    let output = host
        .command(&["backup"])
        .envs([
            ("AWS_ACCESS_KEY_ID", "wrong-id"),
            ("AWS_SECRET_ACCESS_KEY", "wrong-secret"),
        ])
        .output()
        .unwrap();
    let (out, err) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{out}{err}");
    assert!(!err.contains("wrong-secret") && !out.contains("wrong-secret"));
}

#[test]
fn a_target_that_is_away_catches_up_later() {
    let server = S3Server::start();
    // Nothing listens there.
    let free = std::net::TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap();
    let host = host_with_s3(&format!("http://{free}"), true);
    host.edit_config(
        "name = \"s3\"\n",
        "name = \"s3\"\ntimeout = \"2s\"\nretry = \"3s\"\n",
    );
    for n in 0..2 {
        fs::write(host.data().join(format!("f{n}")), noise(n, 100_000)).unwrap();
        let report = backup(&host, &server, 3);
        assert_eq!(report["targets"][0]["state"], "published");
        assert_eq!(report["targets"][1]["state"], "behind");
    }
    let listed = server.output_of(&mut host.command(&["list", "--target", "s3"]));
    let (_, err) = texts(&listed);
    assert_eq!(listed.status.code(), Some(1));
    let words = [
        &format!("{free} refuses the connection"),
        "tried ",
        "next: check that the network",
    ];
    assert!(words.iter().all(|word| err.contains(word)), "{err}");
    let status = host.command(&["status", "--offline"]).output().unwrap();
    assert_eq!(status.status.code(), Some(3));
    assert!(
        texts(&status).0.contains("2 snapshots behind"),
        "{}",
        texts(&status).0
    );
    let config = host
        .config()
        .replace(&format!("http://{free}"), &server.endpoint());
    fs::write(host.path("c.toml"), config).unwrap();
    let report = backup(&host, &server, 0);
    assert_eq!(report["targets"][1]["state"], "published");
    restore(&host, &server, "out");
    // All three are there, and the spool is empty.
    let manifests = files(&server.bucket_dir().join("off/site/dalidou/manifests"));
    let json = manifests
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "json"));
    assert_eq!(json.count(), 3);
    assert_eq!(
        files(&host.path("c.state/spool")),
        Vec::<std::path::PathBuf>::new()
    );
}

#[test]
fn a_new_target_gets_a_complete_snapshot() {
    let server = S3Server::start();
    let host = host_with_s3(&server.endpoint(), true);
    let both = host.config();
    let start = both.rfind("\n[[target]]").unwrap();
    fs::write(host.path("c.toml"), &both[..start]).unwrap();
    fs::write(host.data().join("old"), noise(1, 300_000)).unwrap();
    host.backup();
    fs::write(host.path("c.toml"), both).unwrap();
    fs::write(host.data().join("new"), noise(2, 1000)).unwrap();
    backup(&host, &server, 0);
    restore(&host, &server, "out");
}

#[test]
fn a_network_that_breaks_connections_costs_retries_only() {
    let server = S3Server::start();
    // Every third connection dies after a few bytes of answer.
    let cut: proxy::Cut = Arc::new(|number| (number % 3 == 1).then_some(40));
    let address = proxy::start(server.address, cut);
    let host = host_with_s3(&format!("http://{address}"), false);
    for n in 0..3 {
        fs::write(host.data().join(format!("f{n}")), noise(n, 400_000)).unwrap();
        backup(&host, &server, 0);
    }
    restore(&host, &server, "out");
}

#[test]
fn a_killed_upload_goes_on_without_repeating_itself() {
    let server = S3Server::start();
    let host = host_with_s3(&server.endpoint(), false);
    fs::write(
        host.path("c.toml"),
        host.config() + "\n[pack]\narchive_size = \"1MiB\"\n",
    )
    .unwrap();
    fs::write(host.data().join("big"), noise(1, 24_000_000)).unwrap();
    let mut command = host.command(&["--quiet", "backup"]);
    let mut running = command.envs(server.variables()).spawn().unwrap();
    let archives = server.bucket_dir().join("off/site/dalidou/archives");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !(archives.exists() && files(&archives).len() > 5) && std::time::Instant::now() < deadline
    {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    running.kill().unwrap();
    running.wait().unwrap();
    let written = |path: &std::path::Path| fs::metadata(path).unwrap().modified().unwrap();
    let before: Vec<_> = files(&archives)
        .into_iter()
        .filter(|path| path.to_string_lossy().ends_with(".age"))
        .map(|path| (written(&path), path))
        .collect();
    assert!(!before.is_empty());
    backup(&host, &server, 0);
    for (time, path) in before {
        assert_eq!(
            written(&path),
            time,
            "{} was uploaded again",
            path.display()
        );
    }
    restore(&host, &server, "out");
}

/// Every object below `dir`, with its content.
fn objects(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let read = |path: PathBuf| {
        let content = fs::read(&path).unwrap();
        (path.strip_prefix(dir).unwrap().to_owned(), content)
    };
    files(dir).into_iter().map(read).collect()
}

/// A laptop over ssh beside a folder: the same bytes on both, and each restores alone.
#[test]
fn a_backup_to_a_laptop_over_ssh_restores_from_it_alone() {
    let laptop = SshServer::start("");
    let host = Host::new();
    let mut config = host.config();
    config += &format!(
        "\n[[target]]\nname = \"laptop\"\nurl = \"{}\"\nssh = \"{}\"\nupload = \"100MB\"\n",
        laptop.url("/backups"),
        laptop.ssh()
    );
    fs::write(host.path("c.toml"), config).unwrap();
    for n in 0..3 {
        fs::write(host.data().join(format!("f{n}")), noise(n, 300_000)).unwrap();
        host.ok(&["backup"]);
    }
    host.ok(&["status"]);
    let there = laptop.files().join("backups/dalidou");
    assert_eq!(objects(&there), objects(&host.folder()));
    let (url, ssh) = (laptop.url("/backups"), laptop.ssh());
    let from = ["--from", &url, "--ssh", &ssh, "--signer", &host.signer];
    let listed = host.ok(&[&["list"], &from[..]].concat());
    assert_eq!(listed.lines().count(), 4, "{listed}");
    let restore = ["restore", "latest", "--identity", "key.txt", "--to", "out"];
    host.ok(&[&restore[..], &from[..]].concat());
    assert_eq!(
        describe(&host.path("out").join("data")),
        describe(&host.data())
    );
}

/// The same without rsync there.
#[test]
fn a_backup_by_sftp_restores_from_it_alone() {
    let nas = SshServer::start("");
    let host = Host::new();
    let (url, ssh) = (nas.sftp_url("/backups"), nas.ssh());
    let config = host.config()
        + &format!(
            "\n[[target]]\nname = \"nas\"\nurl = \"{url}\"\nssh = \"{ssh}\"\nupload = \"100MB\"\n"
        );
    fs::write(host.path("c.toml"), config).unwrap();
    for n in 0..3 {
        fs::write(host.data().join(format!("f{n}")), noise(n, 3_000_000)).unwrap();
        host.ok(&["backup"]);
    }
    host.ok(&["status"]);
    let there = nas.files().join("backups/dalidou");
    assert_eq!(objects(&there), objects(&host.folder()));
    let from = ["--from", &url, "--ssh", &ssh, "--signer", &host.signer];
    let listed = host.ok(&[&["list"], &from[..]].concat());
    assert_eq!(listed.lines().count(), 4, "{listed}");
    let restore = ["restore", "latest", "--identity", "key.txt", "--to", "out"];
    host.ok(&[&restore[..], &from[..]].concat());
    assert_eq!(
        describe(&host.path("out").join("data")),
        describe(&host.data())
    );
}

#[test]
fn init_sets_up_an_sftp_target_and_tries_it() {
    let nas = SshServer::start("");
    let host = Host::new();
    fs::remove_file(host.path("c.toml")).unwrap();
    // The one that the user's own settings would make of plain ssh.
    let own = host.path("bin/ssh");
    fs::create_dir(host.path("bin")).unwrap();
    let script = format!("#!/bin/sh\nexec /usr/bin/{} \"$@\"\n", nas.ssh());
    fs::write(&own, script).unwrap();
    fs::set_permissions(&own, fs::Permissions::from_mode(0o700)).unwrap();
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", host.path("bin").display());
    let (url, recipient) = (nas.sftp_url("/b"), host.recipient.as_str());
    let init = [
        "init",
        "--host",
        "dalidou",
        "--recipient",
        recipient,
        "--target",
        &url,
        "--tree",
        "data",
    ];
    for arguments in [&init[..], &["backup"]] {
        let mut command = host.command(arguments);
        let output = command.env("PATH", &path).output().unwrap();
        let (out, err) = texts(&output);
        assert!(output.status.success(), "{out}{err}");
        if arguments == init {
            assert!(
                out.contains("sftp: can write, list, read and delete\n"),
                "{out}{err}"
            );
        }
    }
    assert!(nas.files().join("b/dalidou/manifests").is_dir());
    // With plain ssh it is not known.
    let (out, err) = host.exits(&["status"], 3);
    assert!(format!("{out}{err}").contains("known_hosts"), "{out}{err}");
}

/// A laptop that is away stays behind, keeps no target waiting, and catches up from the spool.
#[test]
fn a_laptop_that_is_away_catches_up() {
    let laptop = SshServer::start("");
    let host = Host::new();
    let target = |port: u16| {
        let url = laptop
            .url("/b")
            .replace(&laptop.port().to_string(), &port.to_string());
        let ssh = laptop.ssh();
        format!(
            "\n[[target]]\nname = \"laptop\"\nurl = \"{url}\"\nssh = \"{ssh}\"\ntimeout = \"2s\"\nretry = \"1s\"\n"
        )
    };
    let config = host.config();
    // Nothing listens there.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = gone.local_addr().unwrap().port();
    drop(gone);
    fs::write(host.path("c.toml"), config.clone() + &target(port)).unwrap();
    for n in 0..2 {
        fs::write(host.data().join(format!("f{n}")), noise(n, 300_000)).unwrap();
        let (out, err) = host.exits(&["backup"], 3);
        assert!(format!("{out}{err}").contains("laptop"), "{out}{err}");
    }
    fs::write(host.path("c.toml"), config + &target(laptop.port())).unwrap();
    host.ok(&["backup"]);
    let there = laptop.files().join("b/dalidou");
    assert_eq!(objects(&there), objects(&host.folder()));
}

/// A target that was away gets nothing of a snapshot whose signature rotted in the spool meanwhile.
#[test]
fn a_signature_that_rotted_in_the_spool_is_not_published() {
    let host = Host::new();
    let second = format!(
        "\n[[target]]\nname = \"second\"\nurl = \"file://{}\"\n",
        host.path("second").display()
    );
    fs::write(host.path("c.toml"), host.config() + &second).unwrap();
    fs::write(host.data().join("one"), noise(1, 40_000)).unwrap();
    host.exits(&["backup"], 3);
    let spooled = files(&host.path("c.state/spool/manifests"));
    let signature = spooled
        .iter()
        .find(|path| path.to_string_lossy().ends_with(".sig"));
    let mut bytes = fs::read(signature.unwrap()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] = if bytes[middle] == b'A' { b'B' } else { b'A' };
    fs::write(signature.unwrap(), bytes).unwrap();
    fs::create_dir(host.path("second")).unwrap();
    fs::write(host.data().join("two"), noise(2, 40_000)).unwrap();
    let report = host.json_exits(&["backup"], &[3]);
    assert!(
        report["warnings"].to_string().contains("damaged"),
        "{report}"
    );
    let there = files(&host.path("second/dalidou/manifests"));
    assert_eq!(there.len(), 2, "{there:?}");
    host.ok(&["verify", "--target", "second", "--data"]);
    let out = host.restore_from(&host.path("second"), "out");
    assert_eq!(describe(&out.join("data")), describe(&host.data()));
}

/// The documented laptop: a key and a known host of its own, named to `init`.
#[test]
fn init_takes_the_ssh_of_a_laptop() {
    let laptop = SshServer::start("");
    let host = Host::new();
    fs::remove_file(host.path("c.toml")).unwrap();
    let (url, ssh) = (laptop.url("/b"), laptop.ssh());
    let init = [
        "init",
        "--host",
        "dalidou",
        "--recipient",
        &host.recipient,
        "--tree",
        "data",
    ];
    let (_, err) = host.exits(
        &[&init[..], &["--target", "repo", "--ssh", &ssh]].concat(),
        2,
    );
    assert!(err.contains("no target is reached by ssh"), "{err}");
    let more = ["--target", &url, "--target", "repo", "--ssh", &ssh];
    let out = host.ok(&[&init[..], &more].concat());
    assert!(out.contains("rsync: can write, list, read"), "{out}");
    host.ok(&["backup"]);
    assert!(laptop.files().join("b/dalidou/manifests").is_dir());
}

/// The keys that docs/operations.md recommends for a laptop: from `init` to a restore through them.
#[test]
fn a_laptop_whose_key_is_restricted_to_rrsync_will_do() {
    if Command::new("rrsync").arg("--help").output().is_err() {
        eprintln!("rrsync is not installed: not checked");
        return;
    }
    for options in ["-no-overwrite", "-no-overwrite -no-del"] {
        let below = tempfile::tempdir().unwrap();
        let laptop = SshServer::start(&format!(
            "restrict,command=\"rrsync {options} {}\" ",
            below.path().display()
        ));
        let host = Host::new();
        fs::remove_file(host.path("c.toml")).unwrap();
        let url = format!("rsync://root@127.0.0.1:{}/", laptop.port());
        let ssh = laptop.ssh();
        let init = [
            "init",
            "--host",
            "dalidou",
            "--recipient",
            &host.recipient,
            "--tree",
            "data",
        ];
        let out = host.ok(&[&init[..], &["--target", &url, "--ssh", &ssh]].concat());
        assert!(
            out.contains("rsync: can write, list") && out.contains("read"),
            "{options}: {out}"
        );
        for n in 0..2 {
            fs::write(host.data().join("f"), noise(n, 100_000)).unwrap();
            host.ok(&["backup"]);
        }
        host.ok(&["status"]);
        let from = [
            "--from",
            &url,
            "--ssh",
            &ssh,
            "--accept-signer",
            "--identity",
            "key.txt",
        ];
        host.ok(&[&["restore", "latest", "--to", "out"], &from[..]].concat());
        assert_eq!(
            describe(&host.path("out").join("data")),
            describe(&host.data())
        );
    }
}

/// A daemon that wants a name and a password takes them from the environment.
#[test]
fn a_daemon_with_a_password_takes_backups() {
    let daemon = RsyncDaemon::with_user("carol", "geheim");
    let host = Host::new();
    let target = format!(
        "[[target]]\nname = \"nas\"\nurl = \"{}\"\nretry = \"1s\"\n\n[retention]",
        daemon.spec("").url
    );
    host.edit_config("[retention]", &target);
    for (password, code) in [("geheim", 0), ("wrong", 3)] {
        let mut command = host.command(&["backup"]);
        let output = command
            .env("USER", "carol")
            .env("RSYNC_PASSWORD", password)
            .output()
            .unwrap();
        let (out, err) = texts(&output);
        assert_eq!(output.status.code(), Some(code), "{out}{err}");
        assert!(
            code == 0 || out.contains("auth failed on module m"),
            "{out}{err}"
        );
        assert!(!format!("{out}{err}").contains(password), "{out}{err}");
    }
}

/// A manifest too large to be one is not even fetched to find out.
#[test]
fn a_giant_planted_on_a_laptop_keeps_no_backup_from_it() {
    let laptop = SshServer::start("");
    let host = Host::new();
    let target = format!(
        "[[target]]\nname = \"laptop\"\nurl = \"{}\"\nssh = \"{}\"\n\n[retention]",
        laptop.url("/b"),
        laptop.ssh()
    );
    host.edit_config("[retention]", &target);
    host.ok(&["backup"]);
    let manifests = laptop.files().join("b/dalidou/manifests");
    let name = files(&manifests)
        .into_iter()
        .find(|path| path.extension().unwrap() == "json");
    let name = name
        .unwrap()
        .file_name()
        .unwrap()
        .to_string_lossy()
        .replace("00000001-", "00000009-");
    fs::File::create(manifests.join(name))
        .unwrap()
        .set_len(6 << 30)
        .unwrap();
    let (out, err) = host.exits_any(&["backup"], &[0, 3]);
    assert!(!out.contains("BEHIND"), "{out}{err}");
}

/// What is empty all of a sudden is a disk that is not mounted: nothing is written where it should be.
#[test]
fn a_disk_that_is_not_mounted_on_a_laptop_is_not_written_beside() {
    for is_sftp in [false, true] {
        let laptop = SshServer::start("");
        let (root, unplugged) = (laptop.files().join("b"), laptop.files().join("unplugged"));
        fs::create_dir(&root).unwrap();
        let host = Host::new();
        let url = if is_sftp {
            laptop.sftp_url("/b")
        } else {
            laptop.url("/b")
        };
        let target = format!(
            "[[target]]\nname = \"laptop\"\nurl = \"{url}\"\nssh = \"{}\"\n\n[retention]",
            laptop.ssh()
        );
        host.edit_config("[retention]", &target);
        fs::write(host.data().join("f"), noise(1, 100_000)).unwrap();
        host.ok(&["backup"]);
        fs::rename(&root, &unplugged).unwrap();
        fs::create_dir(&root).unwrap();
        let (out, err) = host.exits(&["backup"], 3);
        assert!(
            out.contains("BEHIND") && format!("{out}{err}").contains("is the disk mounted there?"),
            "{out}{err}"
        );
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
        fs::remove_dir(&root).unwrap();
        fs::rename(&unplugged, &root).unwrap();
        host.ok(&["backup"]);
        // Emptied on purpose: it begins again where the operator says so.
        fs::remove_dir_all(&root).unwrap();
        fs::create_dir_all(root.join("dalidou")).unwrap();
        let (out, _) = host.exits(&["backup"], 3);
        assert!(!out.contains("BEHIND"), "{out}");
        assert!(root.join("dalidou/manifests").is_dir());
    }
}
