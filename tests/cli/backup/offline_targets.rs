//! Targets that are away for weeks, and a spool that has a limit.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::support::files::bytes_below;
use crate::support::files::files;
use crate::support::free_port;
use crate::support::host::{Host, texts};
use crate::support::is_long;
use crate::support::rsync::SshServer;
use crate::support::s3::{BUCKET, Hook, S3Server, error_answer};
use crate::support::tree::{describe, noise};

/// Every object below `dir`, by its key, as its BLAKE3.
fn objects(dir: &Path) -> BTreeMap<PathBuf, sealift::base::ids::Hash> {
    let read = |path: PathBuf| {
        let content = sealift::base::ids::Hash::blake3(&fs::read(&path).unwrap());
        (path.strip_prefix(dir).unwrap().to_owned(), content)
    };
    files(dir).into_iter().map(read).collect()
}

fn ssh_target(name: &str, server: &SshServer, port: u16) -> String {
    let url = server
        .url("/b")
        .replace(&server.port().to_string(), &port.to_string());
    format!(
        "\n[[target]]\nname = \"{name}\"\nurl = \"{url}\"\nssh = \"{}\"\ntimeout = \"10s\"\nretry = \"0s\"\n",
        server.ssh()
    )
}

/// A host whose only targets are those of `targets`, with small archives and a limited spool.
fn host_with(targets: &str, limit: &str) -> Host {
    let host = Host::new();
    set_targets(&host, targets, limit);
    host
}

fn set_targets(host: &Host, targets: &str, limit: &str) {
    let config = host.config();
    let start = config.find("[[target]]").unwrap();
    let end = config.find("\n# What stays").unwrap_or(config.len());
    let head = &config[..start];
    let rest = &config[end..];
    let rest = &rest[..rest.find("\n[spool]").unwrap_or(rest.len())];
    let text = format!(
        "{head}{targets}\n{rest}\n[spool]\nlimit = \"{limit}\"\n[pack]\narchive_size = \"1MiB\"\n"
    );
    fs::write(host.path("c.toml"), text).unwrap();
}

/// Of two targets one is down for 20 days, far beyond what the spool may hold, and back on the 21st: then
/// both have the same objects. The long form is over ssh to both.
#[test]
fn a_laptop_that_was_down_for_20_days_is_brought_up_to_date_from_the_other_target() {
    let (limit, limit_bytes, day_bytes) = match is_long() {
        true => ("50MB", 50_000_000, 6_000_000),
        false => ("5MB", 5_000_000, 600_000),
    };
    let (office, laptop) = (SshServer::start(""), SshServer::start(""));
    let office_target = match is_long() {
        true => ssh_target("office", &office, office.port()),
        false => {
            let url = office.files().join("b").display().to_string();
            fs::create_dir(&url).unwrap();
            format!("\n[[target]]\nname = \"office\"\nurl = \"file://{url}\"\n")
        }
    };
    let away = office_target.clone() + &ssh_target("laptop", &laptop, free_port());
    let here = office_target + &ssh_target("laptop", &laptop, laptop.port());
    let mut host = host_with(&here, limit);
    host.clock = Some("2026-04-01T06:00:00Z".to_owned());
    fs::write(host.data().join("first"), noise(0, 1_000_000)).unwrap();
    host.ok(&["backup"]);
    set_targets(&host, &away, limit);
    let spool = host.path("c.state/spool");
    for day in 1..=20 {
        host.clock = Some(format!("2026-04-{:02}T06:00:00Z", day + 1));
        fs::write(
            host.data().join(format!("day-{day}")),
            noise(day, day_bytes),
        )
        .unwrap();
        host.exits(&["backup"], 3);
        let held = bytes_below(&spool);
        // And what belongs to no archive: manifests and their pages.
        assert!(
            held <= limit_bytes + limit_bytes / 10,
            "{held} on day {day}"
        );
    }
    let status = host.exits(&["status", "--offline"], 3).0;
    assert!(status.contains("20 snapshots behind"), "{status}");
    set_targets(&host, &here, limit);
    host.clock = Some("2026-04-22T06:00:00Z".to_owned());
    let report = host.backup();
    assert!(
        report["targets"][1]["copied_archives"].as_u64().unwrap() > 0,
        "{report}"
    );
    let [there, back] = [&office, &laptop].map(|server| server.files().join("b/dalidou"));
    assert_eq!(objects(&there), objects(&back));
    let manifests = files(&back.join("manifests"));
    assert_eq!(manifests.len(), 2 * 22);
    assert_eq!(bytes_below(&spool), 0);
    host.ok(&["status"]);
}

/// On the day that the laptop is back, the one target that has what it lacks is away: its history waits.
#[test]
fn history_waits_for_the_target_that_has_it() {
    let laptop = SshServer::start("");
    let [office, elsewhere] = ["office", "elsewhere"].map(|name| laptop.files().join(name));
    fs::create_dir(&office).unwrap();
    let office_target = format!(
        "\n[[target]]\nname = \"office\"\nurl = \"file://{}\"\n",
        office.display()
    );
    let away = office_target.clone() + &ssh_target("laptop", &laptop, free_port());
    let here = office_target + &ssh_target("laptop", &laptop, laptop.port());
    let mut host = host_with(&away, "1MB");
    for day in 1..=4 {
        host.clock = Some(format!("2026-04-{day:02}T06:00:00Z"));
        fs::write(host.data().join(format!("f{day}")), noise(day, 700_000)).unwrap();
        host.exits(&["backup"], 3);
    }
    set_targets(&host, &here, "1MB");
    fs::rename(&office, &elsewhere).unwrap();
    host.clock = Some("2026-04-05T06:00:00Z".to_owned());
    let (_, err) = host.exits(&["backup"], 3);
    assert!(
        err.contains("lacks snapshots 20260401T060000Z") && err.contains("does not answer now"),
        "{err}"
    );
    let [there, back] = [office.join("dalidou"), laptop.files().join("b/dalidou")];
    let newest = files(&back.join("manifests"));
    let newest = newest
        .iter()
        .any(|path| path.to_string_lossy().contains("20260405"));
    assert!(newest, "the newest must not wait for its history");
    fs::rename(&elsewhere, &office).unwrap();
    host.clock = Some("2026-04-06T06:00:00Z".to_owned());
    host.ok(&["backup"]);
    assert_eq!(objects(&there), objects(&back));
    assert_eq!(files(&back.join("manifests")).len(), 2 * 6);
    host.ok(&["status"]);
}

/// A laptop that has much to catch up with from the other target does not hold back what that one is to publish.
#[test]
fn a_target_that_catches_up_keeps_no_other_waiting() {
    let published_at = Arc::new(std::sync::Mutex::new(Instant::now()));
    let hook: Hook = {
        let published_at = Arc::clone(&published_at);
        Arc::new(move |request| {
            let path = request.uri().path();
            let puts = |folder: &str| request.method() == "PUT" && path.contains(folder);
            if puts("/archives/") {
                // The laptop's uploads are to end before.
                std::thread::sleep(Duration::from_millis(500));
            }
            if puts("/manifests/") && path.ends_with(".json") {
                *published_at.lock().unwrap() = Instant::now();
            }
            None
        })
    };
    let server = S3Server::start_with(hook);
    let mount = tempfile::tempdir().unwrap();
    let laptop = mount.path().join("mounted");
    let laptop_target = format!(
        "\n[[target]]\nname = \"laptop\"\nurl = \"file://{}\"\nupload = \"4MB\"\n",
        laptop.display()
    );
    let host = host_with(&(s3_target(&server.endpoint()) + &laptop_target), "1MB");
    let run = |code: i32| {
        let mut command = host.command(&["--json", "backup"]);
        let output = server.output_of(&mut command);
        let (out, err) = texts(&output);
        assert_eq!(output.status.code(), Some(code), "{out}{err}");
        serde_json::from_str::<serde_json::Value>(&out).unwrap()
    };
    fs::write(host.data().join("much"), noise(1, 16_000_000)).unwrap();
    run(3);
    fs::create_dir_all(&laptop).unwrap();
    fs::write(host.data().join("last"), noise(9, 1000)).unwrap();
    let report = run(0);
    let copied = report["targets"][1]["copied_archives"].as_u64().unwrap();
    assert!(copied > 0, "{report}");
    let before = published_at.lock().unwrap().elapsed();
    assert!(before > Duration::from_secs(2), "{before:?}");
}

/// What a target missed while the spool was emptied is named, with the way to it.
#[test]
fn what_the_spool_has_lost_is_named() {
    let mount = tempfile::tempdir().unwrap();
    let [laptop, asleep] = ["laptop", "asleep"].map(|name| mount.path().join(name));
    fs::create_dir(&laptop).unwrap();
    let mut host = Host::new();
    let target = format!(
        "[[target]]\nname = \"laptop\"\nurl = \"file://{}\"\n\n[retention]",
        laptop.display()
    );
    host.edit_config("[retention]", &target);
    let mut day = |code: i32| {
        let now = host
            .clock
            .as_deref()
            .map_or(1, |now| now[9..10].parse().unwrap());
        host.clock = Some(format!("2026-04-0{}T06:00:00Z", now + 1));
        fs::write(host.data().join("f"), noise(now, 50_000)).unwrap();
        let (_, err) = host.exits(&["backup"], code);
        if code == 3 && laptop.exists() {
            assert!(
                err.contains("lacks snapshot 20260403T060000Z")
                    && err.contains("`sealift sync FROM laptop`"),
                "{err}"
            );
        }
        if now == 2 {
            fs::remove_dir_all(host.path("c.state/spool")).unwrap();
        }
    };
    day(0);
    fs::rename(&laptop, &asleep).unwrap();
    day(3);
    fs::rename(&asleep, &laptop).unwrap();
    day(3);
    day(0);
    host.ok(&["sync", "folder", "laptop"]);
    let copied = files(&laptop.join("dalidou/manifests"));
    assert_eq!(copied.len(), 2 * 4);
}

/// A server that refuses what `refuses` says, by method and path.
fn s3_that_refuses(refuses: impl Fn(&str, &str) -> bool + Send + Sync + 'static) -> S3Server {
    let hook: Hook = Arc::new(move |request| {
        let (method, path) = (request.method().as_str(), request.uri().path());
        refuses(method, path).then(|| error_answer(403, "AccessDenied"))
    });
    S3Server::start_with(hook)
}

fn s3_target(endpoint: &str) -> String {
    format!(
        "\n[[target]]\nname = \"s3\"\nurl = \"s3://{BUCKET}/x\"\nendpoint = \"{endpoint}\"\ntimeout = \"20s\"\nretry = \"1s\"\n"
    )
}

/// Where the other target cannot be read, the laptop gets the newest in full, and the report names which
/// snapshots it will never have.
#[test]
fn without_anything_to_copy_from_a_target_begins_again_and_says_what_it_lacks() {
    let server = s3_that_refuses(|method, path| method == "GET" && path.contains("/archives/"));
    let laptop = SshServer::start("");
    let away = s3_target(&server.endpoint()) + &ssh_target("laptop", &laptop, free_port());
    let here = s3_target(&server.endpoint()) + &ssh_target("laptop", &laptop, laptop.port());
    let mut host = host_with(&away, "2MB");
    let run = |host: &Host, code: i32| {
        let output = host
            .command(&["--json", "backup"])
            .envs(server.variables())
            .output()
            .unwrap();
        let (out, err) = texts(&output);
        assert_eq!(output.status.code(), Some(code), "{out}{err}");
        (
            serde_json::from_str::<serde_json::Value>(&out).unwrap(),
            err,
        )
    };
    for day in 1..=5 {
        host.clock = Some(format!("2026-04-{day:02}T06:00:00Z"));
        fs::write(host.data().join(format!("day-{day}")), noise(day, 900_000)).unwrap();
        let (report, _) = run(&host, 3);
        // The laptop's absence does not make the others store anything twice.
        let new = report["new_archive_bytes"].as_u64().unwrap();
        assert!(new < 1_100_000, "{new} on day {day}");
    }
    set_targets(&host, &here, "2MB");
    host.clock = Some("2026-04-06T06:00:00Z".to_owned());
    let (report, err) = run(&host, 3);
    assert_eq!(report["targets"][1]["state"], "published", "{report}");
    assert!(
        err.contains("laptop") && err.contains("20260403T060000Z") && err.contains("will not have"),
        "{err}"
    );
    host.clock = Some("2026-04-07T06:00:00Z".to_owned());
    let (report, _) = run(&host, 0);
    assert!(
        report["new_archive_bytes"].as_u64().unwrap() < 100_000,
        "{report}"
    );
    let (url, ssh) = (laptop.url("/b"), laptop.ssh());
    let from = ["--from", &url, "--ssh", &ssh, "--signer", &host.signer];
    let restore = ["restore", "latest", "--identity", "key.txt", "--to", "out"];
    host.exits_any(&[&restore[..], &from[..]].concat(), &[0, 3]);
    assert_eq!(
        describe(&host.path("out").join("data")),
        describe(&host.data())
    );
}

/// A first push that the spool could never hold at once.
#[test]
fn a_first_push_larger_than_the_spool_goes_through() {
    let server = S3Server::start();
    let host = host_with(&s3_target(&server.endpoint()), "20MB");
    fs::write(host.data().join("big"), noise(1, 160_000_000)).unwrap();
    let (spool, done) = (host.path("c.state/spool"), Arc::new(AtomicBool::new(false)));
    let most = Arc::new(AtomicU64::new(0));
    let watch = {
        let (spool, done, most) = (spool.clone(), done.clone(), most.clone());
        std::thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                most.fetch_max(bytes_below(&spool.join("archives")), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            }
        })
    };
    let output = host
        .command(&["backup"])
        .envs(server.variables())
        .output()
        .unwrap();
    done.store(true, Ordering::Relaxed);
    watch.join().unwrap();
    assert!(output.status.success(), "{}", texts(&output).1);
    let most = most.load(Ordering::Relaxed);
    // What the sealer had taken in goes on top.
    assert!((1_000_000..90_000_000).contains(&most), "{most}");
    assert_eq!(bytes_below(&spool), 0);
}

/// With no target to take anything, a full spool ends the run with an error; what was sealed is of use later.
#[test]
fn a_full_spool_that_nobody_empties_ends_the_run() {
    let server = S3Server::start();
    let away = s3_target(&format!("http://127.0.0.1:{}", free_port()));
    let host = host_with(&away, "4MB");
    fs::write(host.data().join("big"), noise(1, 30_000_000)).unwrap();
    let run = |host: &Host| {
        let mut command = host.command(&["backup"]);
        server.output_of(&mut command)
    };
    let output = run(&host);
    let err = texts(&output).1;
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("limit") && err.contains("[spool]"), "{err}");
    set_targets(&host, &s3_target(&server.endpoint()), "40MB");
    let output = run(&host);
    let (out, err) = texts(&output);
    assert!(output.status.success(), "{out}{err}");
    let sealed = bytes_below(&server.bucket_dir().join("x/dalidou/archives"));
    assert!(sealed < 31_000_000, "{sealed}: something was stored twice");
}

/// What is damaged where it should be copied from is not spread, and keeps no target behind.
#[test]
fn a_damaged_copy_elsewhere_costs_one_run() {
    let laptop = SshServer::start("");
    let office = laptop.files().join("office");
    fs::create_dir(&office).unwrap();
    let office_target = format!(
        "\n[[target]]\nname = \"office\"\nurl = \"file://{}\"\n",
        office.display()
    );
    let away = office_target.clone() + &ssh_target("laptop", &laptop, free_port());
    let here = office_target + &ssh_target("laptop", &laptop, laptop.port());
    let host = host_with(&away, "1MB");
    for n in 0..4 {
        fs::write(host.data().join(format!("f{n}")), noise(n, 700_000)).unwrap();
        host.exits(&["backup"], 3);
    }
    // Everything that the spool no longer has, so that one of it must be met.
    for path in files(&office.join("dalidou/archives")) {
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    set_targets(&host, &here, "1MB");
    let mut runs = 0;
    let caught_up = |host: &Host| {
        let output = host.run(&["--json", "backup"]);
        let (out, err) = texts(&output);
        let report: serde_json::Value =
            serde_json::from_str(&out).unwrap_or_else(|_| panic!("{err}"));
        report["targets"][1]["state"] == "published"
    };
    while !caught_up(&host) {
        runs += 1;
        assert!(runs < 4, "it does not get there");
    }
    assert!(runs > 0, "nothing damaged was met");
    let (url, ssh) = (laptop.url("/b"), laptop.ssh());
    let from = ["--from", &url, "--ssh", &ssh, "--signer", &host.signer];
    let restore = ["restore", "latest", "--identity", "key.txt", "--to", "out"];
    host.exits_any(&[&restore[..], &from[..]].concat(), &[0, 3]);
    assert_eq!(
        describe(&host.path("out").join("data")),
        describe(&host.data())
    );
}

/// A slow target beside a fast one that cannot be read: packing goes at the slow one's pace, and both get all.
#[test]
fn a_pressed_spool_waits_for_a_target_that_could_not_copy_from_the_other() {
    let server = s3_that_refuses(|method, path| method == "GET" && path.contains("/archives/"));
    let slow = tempfile::tempdir().unwrap();
    let slow_target = format!(
        "\n[[target]]\nname = \"slow\"\nurl = \"file://{}\"\nupload = \"6MB\"\nconcurrency = 1\n",
        slow.path().display()
    );
    let host = host_with(&(s3_target(&server.endpoint()) + &slow_target), "8MB");
    for round in 0..2 {
        fs::write(
            host.data().join(format!("f{round}")),
            noise(round, 36_000_000 >> (4 * round)),
        )
        .unwrap();
        let output = host
            .command(&["backup"])
            .envs(server.variables())
            .output()
            .unwrap();
        let (out, err) = texts(&output);
        assert!(output.status.success(), "round {round}: {out}{err}");
    }
    let [fast, slow] = [
        server.bucket_dir().join("x/dalidou"),
        slow.path().join("dalidou"),
    ];
    let archives = |dir: &Path| {
        let all = files(&dir.join("archives")).into_iter();
        let names = all.filter(|path| path.to_string_lossy().ends_with(".age"));
        names
            .map(|path| path.file_name().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(archives(&fast), archives(&slow));
}
