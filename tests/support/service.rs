//! A deployment with a service that is not AtoCore: two databases, a JSON file and a tree, on a host that backs it up
//! and restores it in place. `service.py` is the service; its head says how it can misbehave.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::host::{Host, texts};

/// The items' names, in the configuration's order.
pub const ITEMS: [&str; 4] = ["one", "two", "settings", "files"];

pub struct Deployment {
    pub host: Host,
}

/// The whole state of the deployment, without what differs between equal states: inode numbers, times of the databases.
pub type State = Vec<String>;

impl Deployment {
    /// Generation 1, with a snapshot of it, then generation 2; the service runs, with a row that is only in its log.
    pub fn new() -> Self {
        Self::within(tempfile::tempdir().unwrap(), "")
    }

    /// The same; `restore` are further lines of `[restore]`.
    pub fn with(restore: &str) -> Self {
        Self::within(tempfile::tempdir().unwrap(), restore)
    }

    pub fn within(temp: tempfile::TempDir, restore: &str) -> Self {
        let mut deployment = Self::made(temp, |deployment| {
            format!(
                "stop = {}\nstart = {}\nstopped = {}\nstop_timeout = \"3s\"\nstart_timeout = \"10s\"\n\
                 check_timeout = \"1s\"\n{restore}",
                deployment.line("stop"),
                deployment.line("start"),
                deployment.line("stopped"),
            )
        });
        deployment.service("start");
        deployment.write_to_log();
        deployment.host.clock = Some("2026-04-09T08:00:00Z".to_owned());
        deployment
    }

    /// The same without a service: one was killed, so a row is in a log only.
    pub fn still(temp: tempfile::TempDir) -> Self {
        let mut deployment =
            Self::made(temp, |_| "stop = [\"true\"]\nstart = [\"true\"]".to_owned());
        let path = |name: &str| deployment.root().join(name);
        let log = {
            let database = rusqlite::Connection::open(path("one/one.db")).unwrap();
            let lines = "PRAGMA wal_autocheckpoint=0; INSERT INTO work VALUES ('only in the log')";
            database.execute_batch(lines).unwrap();
            ["one/one.db", "one/one.db-wal"].map(|name| (name, fs::read(path(name)).unwrap()))
        };
        for (name, content) in log {
            fs::write(path(name), content).unwrap();
        }
        deployment.host.clock = Some("2026-04-09T08:00:00Z".to_owned());
        deployment
    }

    fn made(temp: tempfile::TempDir, restore: impl Fn(&Self) -> String) -> Self {
        let host = Host::within(temp, |_| {}, &["--tree", "data"]);
        let mut deployment = Self { host };
        deployment.host.clock = Some("2026-04-08T06:00:00Z".to_owned());
        let restore = restore(&deployment);
        deployment.configure(&restore);
        fs::create_dir(deployment.root()).unwrap();
        fs::create_dir(deployment.root().join("one")).unwrap();
        deployment.become_generation(1);
        deployment.host.ok(&["snapshot"]);
        deployment.become_generation(2);
        deployment
    }

    pub fn root(&self) -> PathBuf {
        self.host.path("app")
    }

    fn script() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/service.py")
    }

    /// The words of a command, as a TOML list.
    fn line(&self, verb: &str) -> String {
        let words = [
            "python3".to_owned(),
            "-B".to_owned(),
            Self::script().display().to_string(),
            verb.to_owned(),
            self.root().display().to_string(),
        ];
        format!("{words:?}")
    }

    fn configure(&self, restore: &str) {
        let source = |kind: &str, path: &str, name: &str, more: &str| {
            format!(
                "[[source]]\nkind = {kind:?}\npath = \"app/{path}\"\nto = {name:?}\nname = {name:?}\n{more}\n\n"
            )
        };
        let sources = [
            source("sqlite", "one/one.db", "one", "mode = \"0640\""),
            source("sqlite", "two.db", "two", ""),
            source("json", "settings.json", "settings", "optional = true"),
            source("tree", "files", "files", ""),
        ];
        let commands = format!("[restore]\n{restore}\n\n");
        self.host.edit_config(
            "[[target]]",
            &format!("{}{commands}[[target]]", sources.concat()),
        );
    }

    /// Adds lines to the configuration.
    pub fn configure_also(&self, lines: &str) {
        self.host
            .edit_config("[[target]]", &format!("{lines}\n\n[[target]]"));
    }

    /// Writes everything again, with the content of this generation.
    fn become_generation(&self, generation: u64) {
        let root = self.root();
        for (index, path) in ["one/one.db", "two.db"].iter().enumerate() {
            let database = rusqlite::Connection::open(root.join(path)).unwrap();
            database
                .execute_batch(&format!(
                    "PRAGMA journal_mode=WAL; CREATE TABLE IF NOT EXISTS generation(value); DELETE FROM generation; \
                     INSERT INTO generation VALUES ({generation}); CREATE TABLE IF NOT EXISTS work(body); \
                     DELETE FROM work; INSERT INTO work VALUES (zeroblob({}))",
                    2000 * (index as u64 + generation)
                ))
                .unwrap();
        }
        fs::write(
            root.join("settings.json"),
            format!("{{\"generation\": {generation}}}\n"),
        )
        .unwrap();
        let files = root.join("files");
        let _ = fs::remove_dir_all(&files);
        fs::create_dir_all(files.join("inner")).unwrap();
        fs::write(files.join("same"), "the same").unwrap();
        fs::write(files.join("different"), format!("generation {generation}")).unwrap();
        fs::write(files.join(format!("only-in-{generation}")), "one of them").unwrap();
        symlink("same", files.join("link")).unwrap();
        fs::hard_link(files.join("same"), files.join("same-too")).unwrap();
        let _ = xattr::set(
            files.join("same"),
            "user.kept",
            generation.to_string().as_bytes(),
        );
        let inner = rusqlite::Connection::open(files.join("inner/inner.sqlite3")).unwrap();
        let rows =
            format!("CREATE TABLE generation(value); INSERT INTO generation VALUES ({generation})");
        inner.execute_batch(&rows).unwrap();
        drop(inner);
        fs::set_permissions(files.join("inner"), fs::Permissions::from_mode(0o750)).unwrap();
        fs::set_permissions(
            root.join("settings.json"),
            fs::Permissions::from_mode(0o604),
        )
        .unwrap();
    }

    /// Adds a row that is in the log only, while the service has the database open.
    fn write_to_log(&self) {
        let database = rusqlite::Connection::open(self.root().join("one/one.db")).unwrap();
        database
            .execute_batch(
                "PRAGMA wal_autocheckpoint=0; INSERT INTO work VALUES ('only in the log')",
            )
            .unwrap();
    }

    /// Runs the service's program with this verb.
    pub fn service(&self, verb: &str) {
        let output = Command::new("python3")
            .arg("-B")
            .arg(Self::script())
            .arg(verb)
            .arg(self.root())
            .output()
            .unwrap();
        assert!(output.status.success(), "{verb}: {:?}", texts(&output));
    }

    /// Says how the service misbehaves from now on.
    pub fn behave(&self, words: &str) {
        fs::write(self.root().join("behaviour"), words).unwrap();
    }

    pub fn is_running(&self) -> bool {
        self.pid().is_some()
    }

    pub fn pid(&self) -> Option<u32> {
        let pid: u32 = fs::read_to_string(self.root().join("pid"))
            .ok()?
            .trim()
            .parse()
            .ok()?;
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line)
            .contains("service.py")
            .then_some(pid)
    }

    /// The generation of each item, as its reader sees it, with the log: 0 if it is not there.
    pub fn generations(&self) -> Vec<u64> {
        generations(&self.root())
    }

    /// Everything that the deployment has: content, owners, permissions, attributes, times of what is no database.
    pub fn state(&self) -> State {
        state(&self.root())
    }

    /// The names in the deployment's directories that are no part of it.
    pub fn strangers(&self) -> Vec<String> {
        strangers(&self.root())
    }

    /// A restore in place with further arguments; its report and what it said.
    pub fn restore(&self, arguments: &[&str], code: i32) -> (serde_json::Value, String) {
        let first = ["--json", "restore", "--in-place", "--yes"];
        self.json([&first, arguments].concat(), code)
    }

    pub fn json(&self, arguments: Vec<&str>, code: i32) -> (serde_json::Value, String) {
        let (out, err) = self.host.exits(&arguments, code);
        (serde_json::from_str(&out).unwrap_or_default(), err)
    }
}

fn value(database: &rusqlite::Connection) -> u64 {
    let query = "SELECT value FROM generation";
    let value: i64 = database.query_row(query, [], |row| row.get(0)).unwrap();
    value.cast_unsigned()
}

/// The generation of each item below `root`.
pub fn generations(root: &Path) -> Vec<u64> {
    let of = |path: &str| {
        let path = root.join(path);
        if !path.exists() {
            return 0;
        }
        let database = rusqlite::Connection::open(path).unwrap();
        let check: String = database
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))
            .unwrap();
        assert_eq!(check, "ok");
        value(&database)
    };
    let settings = fs::read_to_string(root.join("settings.json")).unwrap_or_default();
    let settings: serde_json::Value = serde_json::from_str(&settings).unwrap_or_default();
    let files = [1, 2]
        .into_iter()
        .filter(|n| root.join(format!("files/only-in-{n}")).exists());
    let files: Vec<u64> = files.collect();
    assert!(files.len() <= 1, "the tree is a mixture");
    let tree = files.first().copied().unwrap_or(0);
    if tree > 0 {
        assert_eq!(of("files/inner/inner.sqlite3"), tree);
        let text = fs::read_to_string(root.join("files/different")).unwrap();
        assert_eq!(text, format!("generation {tree}"));
    }
    vec![
        of("one/one.db"),
        of("two.db"),
        settings["generation"].as_u64().unwrap_or(0),
        tree,
    ]
}

pub fn state(root: &Path) -> State {
    let mut state = Vec::new();
    for name in ["one/one.db", "two.db"] {
        let path = root.join(name);
        let meta = fs::metadata(&path).unwrap();
        let database = rusqlite::Connection::open(&path).unwrap();
        let mut query = database
            .prepare("SELECT hex(body) FROM work ORDER BY rowid")
            .unwrap();
        let rows: Vec<String> = query
            .query_map([], |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let hash = blake3::hash(rows.join(",").as_bytes());
        let value = value(&database);
        state.push(format!(
            "{name} {value} {} rows {hash} {:o} {}:{} {:?}",
            rows.len(),
            meta.mode(),
            meta.uid(),
            meta.gid(),
            xattr::list(&path).unwrap().collect::<Vec<_>>()
        ));
    }
    let settings = root.join("settings.json");
    if let Ok(meta) = fs::metadata(&settings) {
        let text = fs::read_to_string(&settings).unwrap();
        state.push(format!(
            "settings {text} {:o} {}:{} {}.{}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec()
        ));
    }
    state.extend(super::tree::describe(&root.join("files")));
    state
}

pub fn strangers(root: &Path) -> Vec<String> {
    let known = [
        "one",
        "two.db",
        "settings.json",
        "files",
        "behaviour",
        "pid",
        "late",
    ];
    let names = |dir: &Path| -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    let is_strange = |name: &String, known: &[&str]| {
        let stem = name.trim_end_matches("-wal").trim_end_matches("-shm");
        !known.contains(&stem)
    };
    let mut found: Vec<String> = names(root)
        .into_iter()
        .filter(|name| is_strange(name, &known))
        .collect();
    found.extend(
        names(&root.join("one"))
            .into_iter()
            .filter(|name| is_strange(name, &["one.db"])),
    );
    found.sort();
    found
}

impl Drop for Deployment {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.root().join("behaviour"));
        let until = Instant::now() + Duration::from_secs(2);
        while let (Some(pid), true) = (self.pid(), Instant::now() < until) {
            let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
