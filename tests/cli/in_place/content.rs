//! Where the content of `restore --in-place` comes from: a restored directory, a target, or the key holder's machine.
//! Whatever is wrong with it, and wherever it breaks off, the live data are as they were.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use rusqlite::Connection;
use serde_json::Value;

use crate::support::files::{files, names_in};
use crate::support::host::{Host, SEALIFT, texts};
use crate::support::is_long;
use crate::support::rsync::SshServer;
use crate::support::tree::{describe, noise};

/// A host with a database, a JSON file and a tree, which have changed since its only backup.
struct Scene {
    host: Host,
    /// The live data at the time of the backup.
    old: Vec<String>,
    /// The live data now.
    new: Vec<String>,
}

fn live(host: &Host) -> PathBuf {
    host.path("live")
}

fn rows(host: &Host) -> u32 {
    let db = Connection::open(live(host).join("app.db")).unwrap();
    db.query_row("SELECT count(*) FROM t", [], |row| row.get(0))
        .unwrap()
}

fn add_row(host: &Host) {
    let db = Connection::open(live(host).join("app.db")).unwrap();
    db.execute("INSERT INTO t VALUES (zeroblob(2000))", [])
        .unwrap();
}

/// Everything below `live` but the database, of which a restore makes another file of the same rows; and the rows.
fn look(host: &Host) -> Vec<String> {
    let mut found = describe(&live(host));
    found.retain(|line| !line.contains("pre-restore") && !line.contains("path: [97, 112, 112"));
    found.push(format!("{} rows", rows(host)));
    found
}

impl Scene {
    fn new() -> Self {
        let prepare = |dir: &Path| {
            let live = dir.join("live");
            fs::create_dir_all(live.join("photos/deep")).unwrap();
            let db = Connection::open(live.join("app.db")).unwrap();
            db.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)")
                .unwrap();
            fs::write(live.join("registry.json"), "{\"projects\": []}").unwrap();
            fs::write(live.join("photos/a"), noise(1, 3000)).unwrap();
            fs::write(live.join("photos/deep/b"), noise(2, 9000)).unwrap();
            fs::hard_link(live.join("photos/a"), live.join("photos/c")).unwrap();
        };
        let sources = [
            "--sqlite",
            "live/app.db",
            "--json-file",
            "live/registry.json",
            "--tree",
            "live/photos",
        ];
        let host = Host::prepared(prepare, &sources);
        let text = format!("{}\n[restore]\npreserve_dir = \"safe\"\n", host.config());
        fs::write(host.path("c.toml"), text).unwrap();
        fs::create_dir(host.path("safe")).unwrap();
        host.backup();
        let old = look(&host);
        add_row(&host);
        fs::write(live(&host).join("registry.json"), "{\"projects\": [1]}").unwrap();
        fs::write(live(&host).join("photos/new"), "new").unwrap();
        fs::remove_file(live(&host).join("photos/a")).unwrap();
        let new = look(&host);
        assert_ne!(old, new);
        Self { host, old, new }
    }

    /// The live data are those of the backup.
    fn assert_restored(&self) {
        assert_eq!(look(&self.host), self.old);
    }

    /// The live data are as they were, nothing is open, and nothing decrypted is left.
    fn assert_untouched(&self) {
        assert_eq!(look(&self.host), self.new);
        self.assert_clean();
    }

    /// No directory for content in transit is left.
    fn assert_clean(&self) {
        let state = self.host.path("c.state");
        for dir in [state, live(&self.host), self.host.temp.path().to_owned()] {
            let left = names_in(&dir);
            let is_scratch = |name: &&String| name.starts_with("sealift-in-place-");
            assert_eq!(left.iter().find(is_scratch), None, "{}", dir.display());
        }
    }

    fn in_place<'a>(&self, more: &[&'a str]) -> Vec<&'a str> {
        [&["restore", "--in-place", "--yes"][..], more].concat()
    }

    /// Runs it, expecting a failure that changes nothing; gives what it said.
    fn refused(&self, more: &[&str], code: i32) -> String {
        let (out, err) = self.host.exits(&self.in_place(more), code);
        self.assert_untouched();
        format!("{out}{err}")
    }
}

/// The next step that `text` names.
fn next(text: &str) -> &str {
    text.lines()
        .find(|line| line.trim_start().starts_with("next:"))
        .unwrap_or_else(|| panic!("{text}"))
}

#[test]
fn a_restored_directory_is_put_in_place() {
    let scene = Scene::new();
    scene.host.restore("latest", "out");
    let output = scene.host.run(&scene.in_place(&["--dir", "out"]));
    let (out, err) = texts(&output);
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    scene.assert_restored();
    scene.assert_clean();
    // The directory stays, and its record is not put in place.
    assert!(scene.host.path("out/restored.jsonl").exists());
    assert!(
        files(&live(&scene.host))
            .iter()
            .all(|path| !path.ends_with("restored.jsonl"))
    );
}

#[test]
fn a_directory_that_is_not_what_was_restored_is_refused() {
    let scene = Scene::new();
    scene.host.restore("latest", "good");
    let copy = |name: &str| {
        let copied = std::process::Command::new("cp")
            .arg("-a")
            .args(["good", name])
            .current_dir(scene.host.temp.path())
            .status();
        assert!(copied.unwrap().success());
        scene.host.path(name)
    };
    let photos = "photos/deep/b";
    type Damage<'a> = (&'a str, &'a dyn Fn(&Path), &'a str);
    let damages: [Damage<'_>; 8] = [
        (
            "no-record",
            &|dir| fs::remove_file(dir.join("restored.jsonl")).unwrap(),
            "has no restored.jsonl",
        ),
        (
            "cut",
            &|dir| {
                let record = fs::read(dir.join("restored.jsonl")).unwrap();
                fs::write(dir.join("restored.jsonl"), &record[..record.len() / 2]).unwrap();
            },
            "truncated",
        ),
        (
            "later",
            &|dir| {
                let record = fs::read_to_string(dir.join("restored.jsonl")).unwrap();
                fs::write(
                    dir.join("restored.jsonl"),
                    record.replacen("\"restored\":1", "\"restored\":2", 1),
                )
                .unwrap();
            },
            "use a newer one",
        ),
        (
            "missing",
            &|dir| fs::remove_file(dir.join(photos)).unwrap(),
            "photos/deep/b is missing",
        ),
        (
            "changed",
            &|dir| {
                let mut content = fs::read(dir.join(photos)).unwrap();
                content[77] ^= 1;
                fs::write(dir.join(photos), content).unwrap();
            },
            "photos/deep/b has other content",
        ),
        (
            "shorter",
            &|dir| fs::write(dir.join(photos), "short").unwrap(),
            "has 5 bytes, 9000 were restored",
        ),
        (
            "link",
            &|dir| {
                fs::remove_file(dir.join("registry.json")).unwrap();
                std::os::unix::fs::symlink("/etc/passwd", dir.join("registry.json")).unwrap();
            },
            "registry.json is not a file",
        ),
        (
            "more",
            &|dir| fs::write(dir.join("photos/.DS_Store"), "x").unwrap(),
            "photos/.DS_Store",
        ),
    ];
    for (name, damage, said) in damages {
        damage(&copy(name));
        let text = scene.refused(&["--dir", name], 1);
        assert!(text.contains(said), "{name}: {text}");
        assert!(said.contains("newer") || !next(&text).is_empty());
    }
    // What is beside the sources does no harm, and is named.
    let beside = copy("beside");
    fs::write(beside.join("notes"), "mine").unwrap();
    let (out, err) = scene.host.exits(&scene.in_place(&["--dir", "beside"]), 0);
    assert!(
        err.contains("beside/notes was not restored there"),
        "{out}{err}"
    );
    scene.assert_restored();
}

#[test]
fn a_part_is_put_in_place_with_only_the_sources_that_it_has() {
    let scene = Scene::new();
    let host = &scene.host;
    let part = |to: &str, paths: &[&str]| drop(host.ok(&host.restore_words(paths, to)));
    part("photos-only", &["photos"]);
    part("deep-only", &["photos/deep"]);
    let text = scene.refused(&["--dir", "photos-only"], 1);
    assert!(
        text.contains("without all of app.db, registry.json"),
        "{text}"
    );
    assert!(next(&text).contains("--only"), "{text}");
    let text = scene.refused(&["--dir", "deep-only", "--only", "photos"], 1);
    assert!(text.contains("without all of photos"), "{text}");
    host.exits_any(
        &scene.in_place(&["--dir", "photos-only", "--only", "photos"]),
        &[0, 3],
    );
    let photos = |lines: &[String]| {
        let is_photo = |line: &&String| line.contains("path: [112, 104");
        lines.iter().filter(is_photo).cloned().collect::<Vec<_>>()
    };
    let now = look(host);
    assert_eq!(photos(&now), photos(&scene.old));
    assert_eq!(now.last(), scene.new.last());
}

#[test]
fn an_identity_is_used_on_a_host_that_makes_backups_only_on_demand() {
    let scene = Scene::new();
    let from = [
        "--from",
        "repo",
        "--identity",
        "key.txt",
        "--signer",
        &scene.host.signer,
    ];
    let text = scene.refused(&from, 2);
    assert!(text.contains("can copy an identity"), "{text}");
    assert!(
        next(&text).contains("--via") && next(&text).contains("--identity-on-this-host"),
        "{text}"
    );
    let text = scene.refused(&["--from", "repo"], 2);
    assert!(text.contains("needs an identity"), "{text}");
    scene
        .host
        .ok(&scene.in_place(&[&from[..], &["--identity-on-this-host"]].concat()));
    scene.assert_restored();
    scene.assert_clean();
}

#[test]
fn a_target_that_is_damaged_changes_nothing() {
    let scene = Scene::new();
    for archive in files(&scene.host.folder().join("archives")) {
        let mut bytes = fs::read(&archive).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&archive, bytes).unwrap();
    }
    let from = [
        "--from",
        "repo",
        "--identity",
        "key.txt",
        "--signer",
        &scene.host.signer,
        "--identity-on-this-host",
    ];
    scene.refused(&from, 1);
}

/// The command of `--via` that leads to the program on this machine, as another one would run it: with the host's
/// configuration, and `through` before it.
fn via(host: &Host, through: &str) -> String {
    let bin = Path::new(SEALIFT).parent().unwrap().display().to_string();
    let machine = &host.machine;
    let config = host.path("c.toml").display().to_string();
    format!(
        "{through}env -i PATH={bin}:/usr/bin:/bin HOME=/nowhere SEALIFT_CONFIG={config} SEALIFT_MACHINE_ID={machine}"
    )
}

/// Runs a restore by push on the key holder's machine, which has no configuration.
fn push(host: &Host, via: &str, more: &[&str]) -> Output {
    let holder = host.path("holder");
    let _ = fs::create_dir(&holder);
    let repo = host.path("repo").display().to_string();
    let key = host.path("key.txt").display().to_string();
    let mut command = std::process::Command::new(SEALIFT);
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", &holder)
        .current_dir(&holder)
        .stdin(Stdio::null())
        .args(["restore", "latest", "--from", &repo, "--identity", &key])
        .args(["--signer", &host.signer, "--in-place", "--via", via])
        .args(more);
    command.output().unwrap()
}

/// The same with an expected exit code; gives stdout and stderr as one text.
fn push_exits(host: &Host, via: &str, more: &[&str], code: i32) -> String {
    let output = push(host, via, more);
    let (out, err) = texts(&output);
    assert_eq!(output.status.code(), Some(code), "{out}\n{err}");
    format!("{out}{err}")
}

#[test]
fn a_restore_by_push_puts_the_content_in_place() {
    let scene = Scene::new();
    let text = push_exits(&scene.host, &via(&scene.host, ""), &[], 0);
    assert!(text.contains("dalidou: restored"), "{text}");
    scene.assert_restored();
    scene.assert_clean();
}

/// A check that passes with the data of now, and fails with those of the backup.
fn demand_the_new(scene: &Scene) {
    let registry = live(&scene.host).join("registry.json");
    let check = format!(
        "[[check]]\nname = \"new\"\nfile = {{ path = \"{}\", contains = \"[1]\" }}\n",
        registry.display()
    );
    let text = scene.host.config();
    let text = text.replace("[restore]", "[restore]\ncheck_timeout = \"2s\"");
    fs::write(scene.host.path("c.toml"), format!("{text}\n{check}")).unwrap();
}

#[test]
fn options_pass_through() {
    let scene = Scene::new();
    demand_the_new(&scene);
    let host = &scene.host;
    let there = via(host, "");
    let text = push_exits(host, &there, &["--dry-run"], 0);
    assert!(text.contains("dry run"), "{text}");
    scene.assert_untouched();
    for (name, said) in [
        ("no such", "is not the name of a source"),
        ("nothing", "there is no source \"nothing\""),
    ] {
        let text = push_exits(host, &there, &["--only", name], 2);
        assert!(text.contains(said), "{text}");
        scene.assert_untouched();
    }
    push_exits(
        host,
        &there,
        &[
            "--no-checks",
            "--only",
            "registry_json",
            "--preserve",
            "copy",
        ],
        0,
    );
    let registry = fs::read_to_string(host.path("live/registry.json")).unwrap();
    assert_eq!(registry, "{\"projects\": []}");
    assert_eq!(look(host).last(), scene.new.last());
}

#[test]
fn a_failing_check_rolls_back_and_says_so_on_the_other_side() {
    let scene = Scene::new();
    demand_the_new(&scene);
    let output = push(&scene.host, &via(&scene.host, ""), &["--json"]);
    let (out, err) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{out}\n{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["host"], "dalidou");
    assert_eq!(report["restore"]["state"], "rolled_back", "{report}");
    assert!(
        !report["error"]["text"].as_str().unwrap().is_empty(),
        "{report}"
    );
    assert_eq!(look(&scene.host), scene.new);
}

/// The stream of a restore by push, as the other side gets it.
fn stream(scene: &Scene) -> Vec<u8> {
    let copy = scene.host.path("stream");
    let through = format!("sh -c 'tee {} | \"$@\"' sh ", copy.display());
    push_exits(&scene.host, &via(&scene.host, &through), &["--dry-run"], 0);
    scene.assert_untouched();
    fs::read(copy).unwrap()
}

/// Gives `bytes` to the receiving program, as if the connection ended after them.
fn receive(host: &Host, bytes: &[u8]) -> Output {
    let mut child = host
        .command(&["--json", "restore", "--in-place", "--stdin", "--yes"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may end before it has read all.
    let _ = child.stdin.take().unwrap().write_all(bytes);
    child.wait_with_output().unwrap()
}

fn events(output: &Output) -> Vec<Value> {
    let lines = std::str::from_utf8(&output.stdout).unwrap().lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_stream_that_breaks_at_any_byte_changes_nothing() {
    let scene = Scene::new();
    let stream = stream(&scene);
    assert!(stream.ends_with(b"go\n"), "{} bytes", stream.len());
    let end = stream.len() - 3;
    let step = if is_long() { 97 } else { stream.len() / 24 };
    let mut cuts: Vec<usize> = (0..end).step_by(step.max(1)).collect();
    cuts.extend([1, 511, 512, 513, end - 1024, end - 1, end, end + 1, end + 2]);
    for at in cuts {
        let output = receive(&scene.host, &stream[..at]);
        assert_eq!(output.status.code(), Some(1), "{at}: {:?}", texts(&output));
        scene.assert_untouched();
        let events = events(&output);
        let is = |kind: &str| events.iter().any(|event| event["event"] == kind);
        assert_eq!(is("received"), at >= end, "{at}");
        assert!(is("ready") && !is("verdict"), "{at}: {events:?}");
        let report = &events.last().unwrap()["report"];
        let text = report["errors"][0]["next"].as_str().unwrap();
        assert!(text.contains("nothing was changed"), "{at}: {report}");
    }
    // One byte more than the word is another stream.
    let output = receive(&scene.host, &[&stream[..], b"\n"].concat());
    assert_eq!(output.status.code(), Some(1), "{:?}", texts(&output));
    scene.assert_untouched();
    let output = receive(&scene.host, &stream);
    assert_eq!(output.status.code(), Some(0), "{:?}", texts(&output));
    scene.assert_restored();
    scene.assert_clean();
    let events = events(&output);
    let kinds: Vec<&str> = events
        .iter()
        .map(|event| event["event"].as_str().unwrap())
        .collect();
    assert_eq!(kinds.last(), Some(&"report"));
    assert_eq!(kinds[kinds.len() - 2], "verdict");
    assert_eq!(events[events.len() - 2]["verdict"]["state"], "committed");
}

#[test]
fn a_stream_that_changed_on_the_way_changes_nothing() {
    let scene = Scene::new();
    let stream = stream(&scene);
    let step = if is_long() { 211 } else { stream.len() / 16 };
    for at in (7..stream.len() - 3).step_by(step.max(1)) {
        let mut changed = stream.clone();
        changed[at] ^= 4;
        let output = receive(&scene.host, &changed);
        assert_eq!(output.status.code(), Some(1), "{at}: {:?}", texts(&output));
        scene.assert_untouched();
    }
}

#[test]
fn a_connection_that_breaks_is_told_on_the_key_holders_side() {
    let scene = Scene::new();
    for bytes in [0, 1, 700, 5000, 20_000] {
        let through = format!("sh -c 'head -c {bytes} | \"$@\"' sh ");
        let text = push_exits(&scene.host, &via(&scene.host, &through), &[], 1);
        assert!(text.contains("broke off"), "{bytes}: {text}");
        assert!(next(&text).contains("nothing was changed"), "{text}");
        scene.assert_untouched();
    }
    // Once it may go on, it does, whether its answers arrive or not.
    let through = "sh -c '\"$@\" | sed -u /received/q' sh ";
    let text = push_exits(&scene.host, &via(&scene.host, through), &[], 1);
    assert!(
        text.contains("the connection was lost while dalidou"),
        "{text}"
    );
    assert!(next(&text).contains("sealift rollback --list"), "{text}");
    scene.assert_restored();
    scene.assert_clean();
}

#[test]
fn another_side_that_is_no_such_sealift_is_named() {
    let scene = Scene::new();
    let host = &scene.host;
    let script = |name: &str, text: &str| {
        let dir = host.path(name);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("sealift"), format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(dir.join("sealift"), fs::Permissions::from_mode(0o755)).unwrap();
        format!("env PATH={}:/usr/bin:/bin", dir.display())
    };
    let old = "echo \"error: unexpected argument '--in-place' found\" >&2; exit 2";
    let other = "echo '{\"event\":\"ready\",\"exchange\":9,\"host\":\"x\",\"version\":\"7.1\"}'; cat >/dev/null";
    let broken = "echo 'sealift: killed' >&2; exit 137";
    let cases = [
        (
            "env PATH=/usr/bin:/bin".to_owned(),
            "there is no sealift at",
            "install sealift there",
        ),
        (script("old", old), "too old", "install sealift"),
        (script("other", other), "version 7.1", "on both machines"),
        (script("broken", broken), "sealift: killed", "by hand"),
        (
            "ssh-that-is-not-there root@x".to_owned(),
            "cannot start ssh-that-is-not-there",
            "--via takes a command",
        ),
        ("false".to_owned(), "cannot reach a sealift", "by hand"),
    ];
    for (via, said, step) in cases {
        let text = push_exits(host, &via, &[], 1);
        assert!(text.contains(said), "{via}: {text}");
        assert!(next(&text).contains(step), "{via}: {text}");
        scene.assert_untouched();
    }
    let text = push_exits(host, "ssh 'x", &[], 2);
    assert!(text.contains("quote"), "{text}");
    // Its configuration cannot be read, for one: its own words arrive.
    let good = via(host, "");
    fs::write(host.path("c.toml"), "no = configuration").unwrap();
    let text = push_exits(host, &good, &[], 2);
    assert!(
        text.contains("refuses") && text.contains("c.toml"),
        "{text}"
    );
}

#[test]
fn over_ssh_the_host_sees_nothing_of_the_identity() {
    let scene = Scene::new();
    let host = &scene.host;
    // A host that keeps all that it gets: arguments, environment, and standard input.
    let spy = host.path("spy");
    fs::create_dir(&spy).unwrap();
    let (seen, config) = (host.path("seen"), host.path("c.toml"));
    fs::create_dir(&seen).unwrap();
    let text = format!(
        "#!/bin/sh\necho \"$0 $@\" >>{seen}/arguments\nenv >>{seen}/environment\n\
         export SEALIFT_CONFIG={config} SEALIFT_MACHINE_ID={machine}\n\
         tee {seen}/input | {SEALIFT} \"$@\"\n",
        seen = seen.display(),
        config = config.display(),
        machine = host.machine,
    );
    fs::write(spy.join("sealift"), text).unwrap();
    fs::set_permissions(spy.join("sealift"), fs::Permissions::from_mode(0o755)).unwrap();
    let server = SshServer::configured("", "LogLevel DEBUG3\n");
    let ssh = format!(
        "{} -p {} {} env PATH={}:/usr/bin:/bin",
        server.ssh(),
        server.port(),
        server.login(),
        spy.display()
    );
    let secret = fs::read_to_string(host.path("key.txt")).unwrap();
    let secret = secret
        .lines()
        .find(|line| line.starts_with("AGE-SECRET-KEY-"))
        .unwrap();
    push_exits(host, &ssh, &[], 0);
    scene.assert_restored();
    scene.assert_clean();
    let mut all = server.log().into_bytes();
    for file in files(&seen) {
        all.extend(fs::read(file).unwrap());
    }
    let all = String::from_utf8_lossy(&all);
    assert!(all.contains("--stdin") && all.contains("photos/deep/b"));
    for hidden in [secret, "key.txt", "--identity", "holder"] {
        assert!(!all.contains(hidden), "{hidden}");
    }
    // A connection that is cut in both directions.
    add_row(host);
    let before = look(host);
    let target: std::net::SocketAddr = format!("127.0.0.1:{}", server.port()).parse().unwrap();
    let length = fs::metadata(seen.join("input")).unwrap().len() as usize;
    for bytes in [0, 2500, 6000, 6000 + length / 2] {
        let proxy = crate::support::proxy::start_upward(target, bytes);
        let ssh = format!(
            "{} -o HostKeyAlias=[127.0.0.1]:{} -p {} {} env PATH={}:/usr/bin:/bin",
            server.ssh(),
            server.port(),
            proxy.port(),
            server.login(),
            spy.display()
        );
        let text = push_exits(host, &ssh, &[], 1);
        assert!(!next(&text).is_empty(), "{text}");
        // The receiving program may need a moment to see that.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let is_clean = || {
            names_in(&host.path("c.state"))
                .iter()
                .all(|name| !name.starts_with("sealift-in-place"))
        };
        while !is_clean() && std::time::Instant::now() < until {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        scene.assert_clean();
        assert_eq!(look(host), before, "{bytes}");
    }
}
