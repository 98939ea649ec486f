//! Two targets of which one is away, state that is lost in part, sources that come and go: what lies
//! between the stories that the other tests tell.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::files::files;
use crate::support::host::Host;
use crate::support::tree::{describe, noise};

/// A host with a second folder target, `repo-b`.
fn host_with_two_targets() -> Host {
    let host = Host::new();
    let second = host.path("repo-b").display().to_string();
    fs::create_dir(&second).unwrap();
    let config = format!(
        "{}\n[[target]]\nname = \"b\"\nurl = \"file://{second}\"\n",
        host.config()
    );
    fs::write(host.path("c.toml"), config).unwrap();
    host
}

/// Takes a folder target away until the guard is dropped.
struct Away<'a>(&'a Host, &'static str);

impl<'a> Away<'a> {
    fn take(host: &'a Host, name: &'static str) -> Self {
        if host.path(name).exists() {
            fs::rename(host.path(name), host.path("away")).unwrap();
        }
        fs::write(host.path(name), b"no directory").unwrap();
        Self(host, name)
    }
}

impl Drop for Away<'_> {
    fn drop(&mut self) {
        fs::remove_file(self.0.path(self.1)).unwrap();
        if self.0.path("away").exists() {
            fs::rename(self.0.path("away"), self.0.path(self.1)).unwrap();
        }
    }
}

fn fill(host: &Host, n: u64) -> Vec<String> {
    fs::write(host.data().join("changing"), noise(n, 50_000)).unwrap();
    fs::write(host.data().join(format!("file-{n}")), noise(n + 99, 9_000)).unwrap();
    describe(&host.data())
}

/// Restores from the folder target `from`.
fn restore_from(host: &Host, from: &str, snapshot: &str, to: &str) -> Vec<String> {
    let arguments = [
        "restore",
        snapshot,
        "--from",
        from,
        "--identity",
        "key.txt",
        "--signer",
        &host.signer,
        "--to",
        to,
    ];
    host.exits_any(&arguments, &[0]);
    describe(&host.path(to).join("data"))
}

#[test]
fn targets_whose_histories_parted_are_restorable_after_they_meet() {
    let host = host_with_two_targets();
    fill(&host, 1);
    host.backup();
    {
        let _away = Away::take(&host, "repo");
        for n in [2, 3] {
            fill(&host, n);
            host.json_exits(&["backup"], &[3]);
        }
    }
    // The host is rebuilt while only the target that lags is there: it continues from what that knows.
    fs::remove_dir_all(host.path("c.state")).unwrap();
    {
        let _away = Away::take(&host, "repo-b");
        fill(&host, 4);
        host.json_exits(&["backup"], &[3]);
    }
    // The other one comes back with two snapshots that this state directory never saw.
    let state = fill(&host, 5);
    host.json_exits(&["backup"], &[0, 3]);
    assert_eq!(restore_from(&host, "repo-b", "latest", "from-b"), state);
    assert_eq!(restore_from(&host, "repo", "latest", "from-a"), state);
    let state = fill(&host, 6);
    host.json_exits(&["backup"], &[0, 3]);
    assert_eq!(restore_from(&host, "repo", "latest", "again"), state);
}

#[test]
fn status_expects_of_a_target_only_what_it_can_still_get() {
    let host = Host::new();
    fill(&host, 1);
    host.backup();
    fs::remove_dir_all(host.path("c.state")).unwrap();
    fill(&host, 2);
    host.backup();
    let (out, _) = host.exits(&["status"], 0);
    assert!(out.contains("): ok"), "{out}");
    let second = host.path("repo-b").display().to_string();
    fs::create_dir(&second).unwrap();
    let config = format!(
        "{}\n[[target]]\nname = \"b\"\nurl = \"file://{second}\"\n",
        host.config()
    );
    fs::write(host.path("c.toml"), config).unwrap();
    fill(&host, 3);
    host.backup();
    host.exits(&["status"], 0);
    {
        let _away = Away::take(&host, "repo-b");
        fill(&host, 4);
        host.json_exits(&["backup"], &[3]);
        let (out, _) = host.exits(&["status", "--offline"], 3);
        assert!(out.contains("1 snapshot behind"), "{out}");
    }
    host.backup();
    host.exits(&["status"], 0);
}

#[test]
fn a_lost_catalog_does_not_cost_what_only_the_spool_holds() {
    let host = Host::new();
    let mut states = Vec::new();
    {
        let _away = Away::take(&host, "repo");
        for n in [1, 2] {
            states.push(fill(&host, n));
            host.exits(&["backup"], 1);
        }
        for name in ["catalog.db", "catalog.db-wal", "catalog.db-shm"] {
            let _ = fs::remove_file(host.path("c.state").join(name));
        }
        states.push(fill(&host, 3));
        host.exits(&["backup"], 1);
    }
    host.json_exits(&["backup"], &[0, 3]);
    for (at, state) in states.iter().enumerate() {
        let sequence = (at + 1).to_string();
        let out = format!("out-{sequence}");
        assert_eq!(restore_from(&host, "repo", &sequence, &out), *state);
    }
    assert_eq!(files(&host.path("c.state/spool")).len(), 0);
}

#[test]
fn a_database_that_fails_its_check_is_told_of_every_time() {
    let host = Host::new();
    let path = host.data().join("a.db");
    let made = Command::new("python3")
        .arg("-c")
        .arg(
            "import sqlite3,sys\nc=sqlite3.connect(sys.argv[1])\n\
             c.execute('create table t(a text)')\nc.execute('create index i on t(a)')\n\
             c.executemany('insert into t values(?)',[(str(i)*50,) for i in range(2000)])\nc.commit()",
        )
        .arg(&path)
        .status()
        .unwrap();
    assert!(made.success());
    damage(&path);
    // Old enough not to be read for its age alone.
    let old = Command::new("touch")
        .args(["-d", "2026-01-01T00:00:00Z"])
        .arg(&path)
        .status()
        .unwrap();
    assert!(old.success());
    std::thread::sleep(std::time::Duration::from_millis(2_300));
    for _ in 0..3 {
        let report = host.json_exits(&["backup"], &[3]);
        assert!(report["skipped"].to_string().contains("a.db"), "{report}");
    }
}

/// Overwrites a page in the middle.
fn damage(path: &Path) {
    use std::os::unix::fs::FileExt as _;
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let pages = file.metadata().unwrap().len() / 4096;
    file.write_all_at(&[7; 4096], pages / 2 * 4096).unwrap();
}

/// Adds a tree that is read in place at `to`.
fn add_tree(host: &Host, to: &str, more: &str) {
    let path = host.path(to);
    fs::create_dir(&path).unwrap();
    let config = format!(
        "{}\n[[source]]\nkind = \"tree\"\nstage = false\nname = \"{to}\"\nto = \"{to}\"\npath = \"{}\"\n{more}",
        host.config(),
        path.display()
    );
    fs::write(host.path("c.toml"), config).unwrap();
}

#[test]
fn a_file_replaced_between_its_names_does_not_lend_them_its_content() {
    let host = Host::new();
    // `data-b` is read between `data` and what is in it: `data/first` has been looked at by then.
    add_tree(&host, "data-b", "");
    fs::write(host.path("data-b/big"), noise(3, 80_000_000)).unwrap();
    let (first, second) = (host.data().join("first"), host.data().join("second"));
    fs::write(&first, b"old content").unwrap();
    fs::hard_link(&first, &second).unwrap();
    fs::hard_link(&first, host.data().join("third")).unwrap();
    fs::write(host.path("replacement"), b"new content").unwrap();
    let mut backup = host.command(&["backup"]).spawn().unwrap();
    let spool = host.path("c.state/spool/tmp");
    while !spool.exists() || files(&spool).is_empty() {
        assert!(backup.try_wait().unwrap().is_none());
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    fs::rename(host.path("replacement"), &first).unwrap();
    assert!(backup.wait().unwrap().success());
    let out = host.restore("latest", "out");
    let content = |name: &str| fs::read_to_string(out.join("data").join(name)).unwrap();
    assert_eq!(content("second"), "old content");
    assert_eq!(content("third"), "old content");
    assert_eq!(content("first"), "new content");
}

#[test]
fn a_source_taken_now_and_then_is_stored_once() {
    let host = Host::new();
    add_tree(&host, "vectors", "on_request = true\n");
    fill(&host, 1);
    host.backup();
    fs::write(host.path("vectors/store"), noise(7, 3_000_000)).unwrap();
    host.json(&["backup", "--include", "vectors"]);
    for n in 2..6 {
        fill(&host, n);
        host.backup();
        let report = host.json(&["backup", "--include", "vectors"]);
        let new = report["new_archive_bytes"].as_u64().unwrap();
        assert!(new < 100_000, "{report}");
    }
    let out = host.restore("latest", "out");
    assert!(fs::read(out.join("vectors/store")).unwrap() == noise(7, 3_000_000));
}

/// Some of it the catalog knows by then, of some it has not heard.
#[test]
fn what_comes_again_in_one_run_is_stored_once() {
    let host = Host::new();
    let config = host.config() + "\n[pack]\narchive_size = \"1MiB\"\n";
    fs::write(host.path("c.toml"), config).unwrap();
    let content = noise(7, 20 << 20);
    fs::write(host.data().join("a.bin"), &content).unwrap();
    fs::write(host.data().join("b.bin"), noise(8, 6 << 20)).unwrap();
    fs::write(host.data().join("c.bin"), &content).unwrap();
    let report = host.json(&["backup"]);
    let new = report["new_archive_bytes"].as_u64().unwrap();
    assert!(new < (26 << 20) + 500_000, "{report}");
    let out = host.restore("latest", "out");
    assert_eq!(describe(&out.join("data")), describe(&host.data()));
    fs::write(host.data().join("d.bin"), &content).unwrap();
    let report = host.json(&["backup"]);
    let new = report["new_archive_bytes"].as_u64().unwrap();
    assert!(new < 100_000, "{report}");
}

#[test]
fn what_is_deeper_than_a_path_may_be_long_is_backed_up() {
    let host = Host::new();
    let made = Command::new("python3")
        .arg("-c")
        .arg(
            "import os\nfor _ in range(25):\n os.mkdir('d'*200); os.chdir('d'*200)\n\
             open('bottom','w').write('found')",
        )
        .current_dir(host.data())
        .status()
        .unwrap();
    assert!(made.success());
    let report = host.json_exits(&["backup"], &[0]);
    assert_eq!(report["skipped"].as_array().unwrap().len(), 0, "{report}");
    let out = host.restore_exits("latest", "out", &[0]);
    let bottom = Command::new("python3")
        .arg("-c")
        .arg(
            "import os\nfor _ in range(25):\n os.chdir('d'*200)\n\
             assert open('bottom').read() == 'found'",
        )
        .current_dir(out.join("data"))
        .status()
        .unwrap();
    assert!(bottom.success());
}

#[test]
fn databases_whose_names_are_no_text_restore() {
    use std::os::unix::ffi::OsStrExt as _;
    let host = Host::new();
    for (rows, name) in [(10, &b"\xfe.db"[..]), (20, &b"\xff.db"[..])] {
        let made = Command::new("python3")
            .arg("-c")
            .arg(
                "import sqlite3,sys\nc=sqlite3.connect('x')\nc.execute('create table t(a)')\n\
                 c.executemany('insert into t values(?)',[(i,) for i in range(int(sys.argv[1]))])\n\
                 c.commit()",
            )
            .arg(rows.to_string())
            .current_dir(host.temp.path())
            .status()
            .unwrap();
        assert!(made.success());
        let to = host.data().join(std::ffi::OsStr::from_bytes(name));
        fs::rename(host.path("x"), to).unwrap();
    }
    host.backup();
    let out = host.restore("latest", "out");
    assert_eq!(describe(&out.join("data")), describe(&host.data()));
}

#[test]
fn small_files_are_stored_once() {
    let host = Host::new();
    for n in 0..500 {
        fs::write(host.data().join(format!("f{n}")), format!("number {n}")).unwrap();
    }
    host.backup();
    for _ in 0..2 {
        let report = host.backup();
        let new = report["totals"]["new_bytes"].as_u64().unwrap();
        // Only the snapshot's own metadata is new.
        assert!(new < 1_000, "{report}");
    }
    fs::write(host.data().join("f7"), b"changed").unwrap();
    let report = host.backup();
    let new = report["totals"]["new_bytes"].as_u64().unwrap();
    assert!(new < 1_000, "{report}");
    let out = host.restore("latest", "out");
    assert_eq!(describe(&out.join("data")), describe(&host.data()));
}

#[test]
fn a_catalog_that_turns_out_damaged_on_the_way_is_replaced_by_the_next_run() {
    use std::os::unix::fs::FileExt as _;
    let host = Host::new();
    for n in 0..4_000 {
        fs::write(host.data().join(format!("f{n}")), format!("number {n}")).unwrap();
    }
    host.backup();
    let catalog = host.path("c.state/catalog.db");
    let file = fs::OpenOptions::new().write(true).open(&catalog).unwrap();
    let pages = file.metadata().unwrap().len() / 4096;
    // Its head and what is read first stay good.
    for page in 12..pages {
        file.write_all_at(&[0xa5; 4096], page * 4096).unwrap();
    }
    drop(file);
    fs::write(host.data().join("new"), noise(1, 500_000)).unwrap();
    let (_, err) = host.exits(&["backup"], 1);
    assert!(err.contains("damaged"), "{err}");
    assert!(err.contains("run"), "{err}");
    host.json_exits(&["backup"], &[0, 3]);
    let out = host.restore("latest", "out");
    assert_eq!(describe(&out.join("data")), describe(&host.data()));
    host.backup();
}

/// An S3 server that lists nothing and never answers a put; gives its address.
fn server_that_hangs_on_puts() -> std::net::SocketAddr {
    use std::io::{Read as _, Write as _};
    const EMPTY: &str = "<?xml version=\"1.0\"?><ListBucketResult><Name>b</Name><KeyCount>0</KeyCount>\
                         <MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated></ListBucketResult>";
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut request = Vec::new();
                let mut buffer = [0; 4096];
                while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                    match stream.read(&mut buffer) {
                        Ok(count) if count > 0 => request.extend(&buffer[..count]),
                        _ => return,
                    }
                }
                if !request.starts_with(b"GET") {
                    std::thread::sleep(std::time::Duration::from_secs(600));
                }
                let length = EMPTY.len();
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
                );
                let _ = stream.write_all(format!("{head}{EMPTY}").as_bytes());
            });
        }
    });
    address
}

#[test]
fn a_target_that_hangs_keeps_no_other_waiting() {
    let host = Host::new();
    let address = server_that_hangs_on_puts();
    let hanging = format!(
        "[[target]]\nname = \"s3\"\nurl = \"s3://b/p\"\nendpoint = \"http://{address}\"\ntimeout = \"2s\"\n\n[[target]]"
    );
    host.edit_config("[[target]]", &hanging);
    fill(&host, 1);
    let mut backup = host
        .command(&["backup"])
        .env("AWS_ACCESS_KEY_ID", "a")
        .env("AWS_SECRET_ACCESS_KEY", "b")
        .env("AWS_REGION", "r")
        .spawn()
        .unwrap();
    // It has its manifest while the other one's uploads still wait for an answer.
    let start = std::time::Instant::now();
    let manifests = host.folder().join("manifests");
    while !manifests.exists() || files(&manifests).len() < 2 {
        assert!(backup.try_wait().unwrap().is_none());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let published = start.elapsed();
    assert_eq!(backup.wait().unwrap().code(), Some(3));
    assert!(published < start.elapsed() / 2, "{published:?}");
    assert_eq!(
        restore_from(&host, "repo", "latest", "out"),
        describe(&host.data())
    );
}

/// Kind: a file of the configuration is opened by its name, and what has that name waits for a writer without end.
#[test]
fn a_fifo_that_the_configuration_names_is_refused_at_once() {
    let host = Host::new();
    let fifo = host.path("fifo").display().to_string();
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let config = host.config();
    let line_of = |key: &str| {
        let line = config.lines().find(|line| line.starts_with(key));
        line.unwrap_or_default().to_owned()
    };
    for (what, old, new) in [
        ("signer", line_of("signer ="), format!("signer = {fifo:?}")),
        ("next_signer", line_of("signer ="), {
            format!("{}\nnext_signer = {fifo:?}", line_of("signer ="))
        }),
        (
            "recipients",
            line_of("recipients ="),
            format!("recipients = [{fifo:?}]"),
        ),
    ] {
        fs::write(host.path("c.toml"), config.replace(&old, &new)).unwrap();
        let mut command = Command::new("timeout");
        let backup = host.command(&["backup"]);
        command
            .arg("20")
            .arg(backup.get_program())
            .args(backup.get_args());
        let set = backup
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?)));
        let done = command.envs(set).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(2), "{what}: {said}");
        assert!(
            said.contains("fifo") && said.contains("not a regular file"),
            "{what}: {said}"
        );
    }
    fs::write(host.path("c.toml"), config).unwrap();
    host.backup();
}
