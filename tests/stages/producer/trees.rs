//! Trees: staged with links to what has not changed, or read in place; filtered; never torn in silence.

use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::host::{Host, Writer, damage, rows, settle};
use crate::support::files::names_in;
use sealift::base::openat::Dir;
use sealift::base::walk::{Walked, walk};
use sealift::producer::ProduceError;

const TREE: &str = "[[source]]\nkind = \"tree\"\npath = \"@/live\"\nto = \"files\"\n";

fn inode(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

#[test]
fn unchanged_files_are_links_into_the_snapshot_before() {
    let host = Host::new(TREE);
    host.write("live/same", b"same");
    host.write("live/edited", b"before");
    host.write("live/deep/touched", b"touched");
    host.database("live/quiet.db", "DELETE");
    fs::hard_link(host.path("live/same"), host.path("live/twin")).unwrap();
    settle();
    let first = host.produce();
    let at = |rel: &str| first.dir.join("files").join(rel);
    assert_eq!(
        inode(&at("same")),
        inode(&at("twin")),
        "hard links stay hard links"
    );
    assert_ne!(
        inode(&at("same")),
        inode(&host.path("live/same")),
        "never a link into the live tree"
    );

    host.write("live/edited", b"after!");
    let mode = fs::Permissions::from_mode(0o600);
    fs::set_permissions(host.path("live/deep/touched"), mode).unwrap();
    host.write("live/new", b"new");
    let second = host.produce();
    let now = |rel: &str| second.dir.join("files").join(rel);
    for rel in ["same", "twin", "quiet.db"] {
        assert_eq!(inode(&at(rel)), inode(&now(rel)), "{rel}");
    }
    for rel in ["edited", "deep/touched"] {
        assert_ne!(inode(&at(rel)), inode(&now(rel)), "{rel}");
    }
    assert_eq!(fs::read(at("edited")).unwrap(), b"before");
    assert_eq!(fs::read(now("edited")).unwrap(), b"after!");
    assert_eq!(
        fs::metadata(now("deep/touched")).unwrap().mode() & 0o777,
        0o600
    );
    assert_eq!(second.metadata["sealift"]["sources"][0]["files"], 6);

    // What was written a moment ago could change again unseen: it is not linked.
    let third = host.produce();
    assert_ne!(inode(&now("new")), inode(&third.dir.join("files/new")));
    // Without the snapshot to link to, everything is copied.
    fs::remove_dir_all(&third.dir).unwrap();
    let fourth = host.produce();
    assert_ne!(inode(&now("same")), inode(&fourth.dir.join("files/same")));
}

#[test]
fn a_copy_has_everything_the_tree_has() {
    let host = Host::new(TREE);
    host.write("live/deep/er/file", b"x");
    fs::create_dir_all(host.path("live/empty")).unwrap();
    symlink("nowhere", host.path("live/dangling")).unwrap();
    let odd = std::ffi::OsStr::from_bytes(b"caf\xe9 \n");
    fs::write(host.path("live").join(odd), b"odd").unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mknodat(rustix::fs::CWD, host.path("live/fifo"), fifo, mode, 0).unwrap();
    let sparse = fs::File::create(host.path("live/sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    (&sparse).write_all(b"head").unwrap();
    let file = host.path("live/deep/er/file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4710)).unwrap();
    let marked = xattr::set(&file, "user.mark", b"1").is_ok();
    let past = std::time::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    for path in [&file, &host.path("live/deep"), &host.path("live/empty")] {
        fs::File::open(path).unwrap().set_modified(past).unwrap();
    }
    fs::set_permissions(host.path("live/empty"), fs::Permissions::from_mode(0o500)).unwrap();

    let made = host.produce();
    assert!(
        made.snapshot.skipped.is_empty(),
        "{:?}",
        made.snapshot.skipped
    );
    let look = |root: &Path| -> Vec<_> {
        let everything = sealift::base::walk::Filter::everything();
        let dir = Dir::open(root).unwrap();
        let found = walk(&dir, &everything).unwrap().map(|walked| match walked {
            Walked::Found(found) => found,
            other => panic!("{other:?}"),
        });
        found
            .map(|f| {
                let m = &f.meta;
                let size = if m.is_dir() { 0 } else { m.size() };
                let link = f.root.read_link(f.rel()).ok();
                (
                    f.rel,
                    m.mode(),
                    m.uid(),
                    m.mtime(),
                    m.mtime_nsec(),
                    size,
                    link,
                )
            })
            .collect()
    };
    let copy = made.dir.join("files");
    assert_eq!(look(&host.path("live")), look(&copy));
    assert_eq!(fs::read(copy.join(odd)).unwrap(), b"odd");
    assert!(
        fs::metadata(copy.join("sparse")).unwrap().blocks() < 1 << 12,
        "holes stay holes"
    );
    if marked {
        let mark = xattr::get(copy.join("deep/er/file"), "user.mark").unwrap();
        assert_eq!(mark.as_deref(), Some(&b"1"[..]));
    }
}

/// Excluded, marked, too large, and our own directories in the midst of the tree.
#[test]
fn what_is_not_wanted_is_left_out_without_a_word() {
    for in_place in [false, true] {
        let host = Host::new(&format!(
            "[snapshots]\ndir = \"@/live/snapshots\"\n\
             [[target]]\nname = \"disk\"\nurl = \"file://@/live/repo\"\n{TREE}stage = {}\n\
             exclude = [\"*.log\", \"!keep.log\", \"/top/\"]\nmax_file_size = 99\n",
            !in_place
        ));
        let tag = b"Signature: 8a477f597d28d172789f06886806bc55";
        host.write("live/cache/CACHEDIR.TAG", tag);
        for rel in [
            "cache/x",
            "private/.nobackup",
            "private/x",
            "top/x",
            "sub/top/x",
            "repo/other/x",
        ] {
            host.write(&format!("live/{rel}"), b"");
        }
        host.write("live/sub/x.log", b"");
        host.write("live/sub/keep.log", b"");
        host.write("live/big", &[0; 100]);
        host.write("live/repo/h/archives/x", b"sealed");
        host.produce();
        let made = host.produce();
        let (root, filter) = match in_place {
            false => (
                Dir::open(&made.dir.join("files")).unwrap(),
                sealift::base::walk::Filter::everything(),
            ),
            true => (
                made.snapshot.parts[1].root.dir().clone(),
                made.snapshot.parts[1].filter.clone(),
            ),
        };
        let found = walk(&root, &filter)
            .unwrap()
            .filter_map(|walked| match walked {
                Walked::Found(found) if !found.meta.is_dir() => String::from_utf8(found.rel).ok(),
                _ => None,
            });
        let found: Vec<String> = found.collect();
        let expected = [
            "cache/CACHEDIR.TAG",
            "private/.nobackup",
            "repo/other/x",
            "sub/keep.log",
            "sub/top/x",
        ];
        assert_eq!(found, expected, "in place: {in_place}");
        assert!(made.snapshot.skipped.is_empty());
    }
}

#[test]
fn a_file_that_never_holds_still_is_told_of() {
    let host = Host::new(TREE);
    let path = host.write("live/restless", &vec![1; 32 << 20]);
    host.write("live/calm", b"calm");
    let copy = fs::File::create(host.path("clone")).unwrap();
    if rustix::fs::ioctl_ficlone(&copy, fs::File::open(&path).unwrap()).is_ok() {
        return; // Here a copy is made in an instant, and is whole.
    }
    let stop = AtomicBool::new(false);
    let made = std::thread::scope(|scope| {
        let (path, stop) = (&path, &stop);
        scope.spawn(move || {
            let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
            while !stop.load(Ordering::Relaxed) {
                file.write_all(b"more").unwrap();
                std::thread::sleep(Duration::from_micros(100));
            }
        });
        let made = host.try_produce(&[]);
        stop.store(true, Ordering::Relaxed);
        made.unwrap()
    });
    let [skipped] = made.snapshot.skipped.as_slice() else {
        panic!("{:?}", made.snapshot.skipped);
    };
    assert_eq!(skipped.path, "files/restless");
    assert!(
        skipped.reason.contains("changed during each"),
        "{}",
        skipped.reason
    );
    assert!(
        made.dir.join("files/restless").exists(),
        "kept as last read"
    );
    assert_eq!(
        made.metadata["sealift"]["skipped"][0]["path"],
        "files/restless"
    );
    // It is not taken for unchanged next time, and then it is whole.
    let next = host.produce();
    assert!(next.snapshot.skipped.is_empty());
    let (live, copy) = (
        fs::read(&path).unwrap(),
        fs::read(next.dir.join("files/restless")).unwrap(),
    );
    assert!(live == copy);
}

#[test]
fn what_cannot_be_read_is_told_of() {
    if rustix::process::geteuid().is_root() {
        return; // Root reads everything.
    }
    let host = Host::new(TREE);
    let path = host.write("live/secret", b"x");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    let made = host.produce();
    assert_eq!(made.snapshot.skipped[0].path, "files/secret");
}

#[test]
fn a_database_in_a_tree_is_copied_with_what_its_log_holds() {
    let host = Host::new(TREE);
    let live = host.open_database("live/app/live.db", "WAL");
    live.execute_batch("PRAGMA wal_autocheckpoint=0; INSERT INTO t VALUES (1)")
        .unwrap();
    drop(host.open_database("live/app/busy.db", "DELETE"));
    let half_way = "db.execute('PRAGMA cache_size=1'); db.execute('BEGIN')\n\
                    db.execute('UPDATE t SET x = randomblob(3000)'); say('held'); time.sleep(600)";
    let busy = Writer::start(&host.path("live/app/busy.db"), half_way);
    host.database("live/app/quiet.db", "WAL");
    host.write(
        "live/app/notes.db-wal",
        b"no database beside it: a file like any other",
    );
    assert!(host.path("live/app/live.db-wal").exists());

    let text = format!("{TREE}lock_timeout = \"1s\"\n");
    let mut host = host;
    host.reconfigure(&text);
    settle();
    let made = host.produce();
    let dir = made.dir.join("files/app");
    assert_eq!(rows(&dir.join("live.db")), 201);
    assert_eq!(rows(&dir.join("quiet.db")), 200);
    // Its writer holds the file exclusively half-way through: named, not torn.
    assert_eq!(
        made.snapshot.skipped.len(),
        1,
        "{:?}",
        made.snapshot.skipped
    );
    assert_eq!(made.snapshot.skipped[0].path, "files/app/busy.db");
    assert_eq!(names_in(&dir), ["live.db", "notes.db-wal", "quiet.db"]);
    drop(busy);

    // A log grows, its file stays as it is: no earlier copy is taken for this one.
    live.execute_batch("INSERT INTO t VALUES (2)").unwrap();
    let woken = rusqlite::Connection::open(host.path("live/app/quiet.db")).unwrap();
    woken
        .execute_batch("PRAGMA wal_autocheckpoint=0; INSERT INTO t VALUES (2)")
        .unwrap();
    let made = host.produce();
    assert_eq!(rows(&made.dir.join("files/app/live.db")), 202);
    assert_eq!(rows(&made.dir.join("files/app/quiet.db")), 201);
    assert_eq!(rows(&made.dir.join("files/app/busy.db")), 200);
    let skipped = &made.snapshot.skipped;
    assert!(skipped.is_empty(), "{skipped:?}");
    let databases: Vec<&str> = made
        .snapshot
        .databases
        .iter()
        .map(|d| d.path.as_str())
        .collect();
    assert_eq!(
        databases,
        [
            "files/app/busy.db",
            "files/app/live.db",
            "files/app/quiet.db"
        ]
    );
}

#[test]
fn damage_in_a_tree_is_reported_or_strict() {
    let mut host = Host::new(TREE);
    damage(&host.database("live/bad.db", "DELETE"));
    let made = host.produce();
    assert_eq!(made.snapshot.skipped[0].path, "files/bad.db");
    assert!(made.snapshot.skipped[0].reason.contains("integrity_check"));
    assert!(made.dir.join("files/bad.db").exists());

    host.reconfigure(&format!("{TREE}check = \"strict\"\n"));
    let ProduceError::Invalid { errors, .. } = host.try_produce(&[]).unwrap_err() else {
        panic!("it was taken for valid");
    };
    assert_eq!(errors, ["files_integrity_check_failed"]);
}

/// A copy that went bad on the backup disk must not be linked to again and again.
#[test]
fn a_copy_gone_bad_is_replaced_after_it_was_found_out() {
    let host = Host::new(&format!("{TREE}check = \"strict\"\n"));
    host.database("live/a.db", "DELETE");
    settle();
    let first = host.produce();
    let copy = first.dir.join("files/a.db");
    let mtime = fs::metadata(&copy).unwrap().modified().unwrap();
    damage(&copy);
    fs::File::open(&copy).unwrap().set_modified(mtime).unwrap();
    assert!(matches!(
        host.try_produce(&[]),
        Err(ProduceError::Invalid { .. })
    ));
    assert_eq!(rows(&host.produce().dir.join("files/a.db")), 200);
}

#[test]
fn a_tree_read_in_place_costs_no_copy() {
    let host = Host::new(&format!("{TREE}stage = false\n"));
    host.write("live/x", b"x");
    let made = host.produce();
    assert_eq!(names_in(&made.dir), ["backup-metadata.json"]);
    let [root, tree] = made.snapshot.parts.as_slice() else {
        panic!("{:?}", made.snapshot.parts);
    };
    assert!(root.staged && root.to.is_empty() && root.root.path() == made.dir);
    assert!(!tree.staged && tree.to == b"files" && tree.root.path() == host.path("live"));
    assert!(!made.snapshot.sources[0].stage);

    fs::remove_dir_all(host.path("live")).unwrap();
    assert!(host.failure().contains("live is not there"));
}

/// Chroma as it ingests: a row goes into the database, and then a record of 100 bytes into a file beside it.
const INGEST: &str = "n = int(sys.argv[2]) if len(sys.argv) > 2 else 10**9
bin = open(sys.argv[1].replace('chroma.sqlite3', '0f.bin'), 'ab', 0)
db.execute('PRAGMA synchronous=OFF')
for i in range(n):
    db.execute('INSERT INTO t VALUES (1)')
    time.sleep(0.004)
    bin.write(b'7' * 100)
    time.sleep(0.004)
    if i == 3: say('ingesting')
";

fn chroma(sources: &str) -> Host {
    let host = Host::new(&format!("[snapshots]\ndir = \"@/snapshots\"\n{sources}"));
    drop(host.open_database("live/chroma.sqlite3", "DELETE"));
    host.write("live/0f.bin", &[7; 20_000]);
    // So that a copy takes a while.
    for n in 0..60 {
        host.write(&format!("live/segment-{n}"), &vec![n; 100_000]);
    }
    host
}

/// Rows and records of a copy.
fn pairs(copy: &Path) -> (u64, u64) {
    let bytes = fs::metadata(copy.join("0f.bin")).unwrap().len();
    (rows(&copy.join("chroma.sqlite3")), bytes / 100)
}

#[test]
fn a_tree_that_is_written_all_the_time_is_named_as_torn() {
    let host = chroma(TREE);
    let writer = Writer::start(&host.path("live/chroma.sqlite3"), INGEST);
    let made = host.produce();
    drop(writer);
    let reasons: Vec<_> = made.snapshot.skipped.iter().collect();
    let is_named = |reason: &str| {
        let names = ["0f.bin", "chroma.sqlite3"]
            .iter()
            .any(|name| reason.contains(name));
        names && reason.contains("may not fit each other")
    };
    assert!(
        reasons
            .iter()
            .any(|one| one.path == "files" && is_named(&one.reason)),
        "{reasons:?}; {:?}",
        pairs(&made.dir.join("files"))
    );
}

#[test]
fn a_tree_that_is_written_for_a_moment_is_copied_again_and_fits() {
    let host = chroma(TREE);
    let script = INGEST.replace("10**9", "12");
    let writer = Writer::start(&host.path("live/chroma.sqlite3"), &script);
    let made = host.produce();
    drop(writer);
    assert!(
        made.snapshot.skipped.is_empty(),
        "{:?}",
        made.snapshot.skipped
    );
    assert_eq!(pairs(&made.dir.join("files")), (212, 212));
    assert_eq!(names_in(&made.dir), ["backup-metadata.json", "files"]);
}

/// A tree that is taken on request only must not be written meanwhile, and neither must the preset's.
#[test]
fn a_special_tree_that_nothing_guards_is_warned_of_each_time() {
    let on_request = format!("{TREE}on_request = true\n");
    let host = chroma(&on_request);
    let warnings = |host: &Host, include: &[&str]| host.try_produce(include).unwrap().warnings;
    for _ in 0..2 {
        let warned = warnings(&host, &["files"]);
        assert!(
            warned.len() == 1 && warned[0].contains("`lock`"),
            "{warned:?}"
        );
    }
    for guard in [
        "lock = \"@/lock\"\n",
        "before = \"true\"\n",
        "stage = false\n",
    ] {
        let host = chroma(&format!("{on_request}{guard}"));
        assert_eq!(warnings(&host, &["files"]), [""; 0], "{guard}");
    }
    assert_eq!(warnings(&chroma(TREE), &[]), [""; 0]);
    assert_eq!(warnings(&Host::atocore(), &["chroma"]).len(), 1);
    assert_eq!(warnings(&Host::atocore(), &[]), [""; 0]);
}
