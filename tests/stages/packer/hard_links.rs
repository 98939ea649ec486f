//! Databases with several names, against a plain model: every restored database has the rows it had.
//!
//! A generated host has three sources: a tree that is read in place, one that is staged, and a single database.
//! Their databases have names in several directories, sources and outside of them, some of which are excluded. A
//! program has each open by one of its names: with rows in the log beside that name, with an empty log, or not
//! at all.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use crate::support::host::Host;
use crate::support::is_long;
use crate::support::random::Random;

const HOSTS: u64 = 4;
const HOSTS_LONG: u64 = 60;
const DATABASES: usize = 10;
const SINGLE: &str = "single/s.db";

/// A database by its names, relative to the host's directory. The first is the one that a program has open.
struct Database {
    names: Vec<String>,
    writer: Option<Connection>,
    rows: usize,
    keeps_a_log: bool,
    /// Rows are in the log beside the first name.
    has_live_log: bool,
}

struct Scene {
    host: Host,
    databases: Vec<Database>,
    excluded: Vec<String>,
}

/// Places of names; `outside` is in no source.
const DIRS: &[&str] = &[
    "data",
    "data/d",
    "data/d/deep",
    "staged",
    "staged/m",
    "outside",
];

fn add_rows(writer: &Connection, rows: usize) {
    for _ in 0..rows {
        writer
            .execute("INSERT INTO t VALUES(randomblob(300))", [])
            .unwrap();
    }
}

impl Scene {
    fn make(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let host = Host::new();
        for dir in DIRS.iter().chain(&["single"]) {
            fs::create_dir_all(host.path(dir)).unwrap();
        }
        let mut scene = Self {
            host,
            databases: Vec::new(),
            excluded: Vec::new(),
        };
        for n in 0..DATABASES {
            let database = scene.make_database(n, &mut random);
            scene.databases.push(database);
        }
        scene.configure();
        scene
    }

    fn make_database(&mut self, n: usize, random: &mut Random) -> Database {
        let mut names = Vec::new();
        for at in 0..1 + random.below(4) {
            // The order of the names is as random as that of the directories.
            let letter = char::from(b'a' + random.below(26) as u8);
            let dir = match random.one_in(12) {
                true => "outside",
                false => DIRS[random.below(DIRS.len() - 1)],
            };
            names.push(format!("{dir}/{letter}{n}-{at}.db"));
        }
        if n == 0 {
            let at = random.below(names.len() + 1);
            names.insert(at, SINGLE.to_owned());
        }
        let path = self.host.path(&names[0]);
        let writer = Connection::open(&path).unwrap();
        let keeps_a_log = !random.one_in(4);
        let mode = if keeps_a_log { "WAL" } else { "DELETE" };
        let set_up = format!(
            "PRAGMA journal_mode={mode}; PRAGMA wal_autocheckpoint=0; PRAGMA synchronous=OFF; CREATE TABLE t(x);"
        );
        writer.execute_batch(&set_up).unwrap();
        let mut rows = random.below(40);
        add_rows(&writer, rows);
        if keeps_a_log {
            writer
                .execute_batch("PRAGMA wal_checkpoint(TRUNCATE);")
                .unwrap();
        }
        let mut has_live_log = false;
        let writer = match random.below(4) {
            0 => {
                writer.close().unwrap();
                None
            }
            // The log is empty.
            1 => Some(writer),
            _ => {
                let more = 1 + random.below(60);
                add_rows(&writer, more);
                rows += more;
                has_live_log = keeps_a_log;
                Some(writer)
            }
        };
        for name in &names[1..] {
            fs::hard_link(&path, self.host.path(name)).unwrap();
        }
        for name in &names {
            let is_in_tree = name.starts_with("data/") || name.starts_with("staged/");
            if is_in_tree && random.one_in(5) {
                self.excluded.push(name.clone());
            }
        }
        Database {
            names,
            writer,
            rows,
            keeps_a_log,
            has_live_log,
        }
    }

    fn configure(&self) {
        let excludes = |tree: &str| -> String {
            let prefix = format!("{tree}/");
            let rels = self
                .excluded
                .iter()
                .filter_map(|name| name.strip_prefix(&prefix));
            let quoted: Vec<String> = rels.map(|rel| format!("\"/{rel}\"")).collect();
            format!("exclude = [{}]", quoted.join(", "))
        };
        let in_place = format!("stage = false\n{}\n", excludes("data"));
        self.host
            .edit_config("stage = false ", &format!("{in_place}#"));
        let sources = format!(
            "[[source]]\nkind = \"tree\"\npath = \"staged\"\nto = \"staged\"\n{}\n\
             [[source]]\nkind = \"sqlite\"\npath = \"{SINGLE}\"\nto = \"{SINGLE}\"\n\n[[target]]",
            excludes("staged")
        );
        self.host.edit_config("[[target]]", &sources);
    }

    /// Names that are in the backup.
    fn taken<'a>(&'a self, database: &'a Database) -> impl Iterator<Item = &'a String> {
        let is_taken =
            |name: &&String| !name.starts_with("outside/") && !self.excluded.contains(name);
        database.names.iter().filter(is_taken)
    }

    /// Whether the newest rows may be where nothing is looked for.
    fn is_in_doubt(&self, database: &Database) -> bool {
        let is_outside = |name: &String| name.starts_with("outside/");
        let is_log_seen = database.has_live_log && !is_outside(&database.names[0]);
        // All were written a moment ago, so one in rollback mode may have a journal there, too.
        database.names.iter().any(is_outside) && !is_log_seen
    }

    /// Backs up, restores to `to`, and compares with the model.
    fn check(&self, seed: u64, to: &str) {
        let mut in_doubt = Vec::new();
        for database in self
            .databases
            .iter()
            .filter(|database| self.is_in_doubt(database))
        {
            in_doubt.push(self.taken(database).cloned().collect::<Vec<_>>());
        }
        in_doubt.retain(|names| !names.is_empty());
        let code = if in_doubt.is_empty() { 0 } else { 3 };
        let report = self.host.json_exits(&["backup"], &[code]);
        let skipped = report["skipped"].as_array().unwrap();
        for names in &in_doubt {
            let is_named = skipped.iter().any(|one| {
                let reason = one["reason"].as_str().unwrap();
                names.iter().any(|name| one["path"] == name.as_str())
                    && reason.contains("in no source")
            });
            assert!(
                is_named,
                "seed {seed}: {names:?} is in doubt and not named: {skipped:?}"
            );
        }
        let restored = self.host.restore_exits("latest", to, &[code]);
        for database in &self.databases {
            let mut inodes: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
            for name in self.taken(database) {
                let path = restored.join(name);
                inodes
                    .entry(name.split('/').next().unwrap_or_default())
                    .or_default()
                    .push(fs::metadata(&path).unwrap().ino());
                for ending in ["-wal", "-shm", "-journal"] {
                    let beside = PathBuf::from(format!("{}{ending}", path.display()));
                    assert!(
                        !beside.exists(),
                        "seed {seed}: {name}{ending} is beside its database"
                    );
                }
                if !self.is_in_doubt(database) {
                    let rows = rows(&path);
                    assert_eq!(
                        rows, database.rows,
                        "seed {seed}: {name} of {:?}",
                        database.names
                    );
                }
            }
            // Links of one tree stay links.
            for (source, mut inodes) in inodes {
                inodes.dedup();
                assert_eq!(
                    inodes.len(),
                    1,
                    "seed {seed}: {source}, {:?}",
                    database.names
                );
            }
        }
    }
}

/// Rows of a database that nothing is beside.
fn rows(path: &Path) -> usize {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let url = format!("file:{}?immutable=1", path.display());
    let database = Connection::open_with_flags(url, flags).unwrap();
    let sound: String = database
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(sound, "ok", "{}", path.display());
    let rows: i64 = database
        .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
        .unwrap();
    rows as usize
}

#[test]
fn every_name_of_a_database_is_restored_with_all_its_rows() {
    let first = std::env::var("SEALIFT_TEST_SEED").map_or(1, |text| text.parse().unwrap());
    let hosts = if is_long() { HOSTS_LONG } else { HOSTS };
    let check = |seed: u64| {
        let mut scene = Scene::make(seed);
        scene.check(seed, "first");
        // Half of the open ones get more rows; the others are as they were.
        for (n, database) in scene.databases.iter_mut().enumerate() {
            if let (true, Some(writer)) = (n % 2 == 0, &database.writer) {
                add_rows(writer, 7);
                database.rows += 7;
                database.has_live_log = database.keeps_a_log;
            }
        }
        scene.check(seed, "second");
    };
    std::thread::scope(|scope| {
        for half in 0..2 {
            scope.spawn(move || {
                (first..first + hosts)
                    .filter(|n| n % 2 == half)
                    .for_each(check)
            });
        }
    });
}
