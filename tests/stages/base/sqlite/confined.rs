//! The child opens the file that the caller opened or none, reaches nothing else, and is never waited for.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use sealift::base::sqlite::{
    Budget, Depth, Place, SqliteError, backup, backup_at, inspect, inspect_at, lock_for_read,
};

use super::shapes::SHAPES;
use crate::support::files::make_fifo;
use crate::support::host::Host;
use crate::support::is_long;
use crate::support::ran_in_own_process;

const BUSY: Duration = Duration::from_secs(5);

fn database(path: &Path, table: &str) {
    let db = Connection::open(path).unwrap();
    db.execute_batch(&format!(
        "CREATE TABLE {table}(x); INSERT INTO {table} VALUES (1)"
    ))
    .unwrap();
}

/// The children of process `parent` that check databases.
fn children(parent: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        let after_name = stat.rsplit(") ").next().unwrap_or_default();
        let is_ours = after_name.split(' ').nth(1) == Some(&parent.to_string());
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if is_ours && line.windows(12).any(|word| word == b"sqlite-child") {
            found.push(pid);
        }
    }
    found
}

fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// Exchanges two names again and again while `work` goes on.
fn exchanging(a: &Path, b: &Path, work: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        stop.store(true, Ordering::Relaxed);
        done.unwrap();
    });
}

#[test]
fn the_child_has_limits_and_no_way_out_while_it_holds_a_lock() {
    let test = "base::sqlite::confined::the_child_has_limits_and_no_way_out_while_it_holds_a_lock";
    if ran_in_own_process(test) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    database(&path, "t");
    let place = Place::of(&path).unwrap();
    let file = place.open().unwrap();
    let lock = lock_for_read(&place, &file, BUSY, None).unwrap().unwrap();
    let [pid] = children(std::process::id())[..] else {
        panic!("it has one child");
    };
    let of_child = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap();
    let text = |name: &str| String::from_utf8(of_child(name)).unwrap();
    // Landlock wants it; without Landlock and as root its root directory is the database's.
    let root = fs::read_link(format!("/proc/{pid}/root")).unwrap();
    let confined = text("status").contains("NoNewPrivs:\t1");
    assert!(
        confined || root == dir.path().canonicalize().unwrap(),
        "{root:?}"
    );
    let limits = text("limits");
    for limit in [
        "Max cpu time",
        "Max address space",
        "Max file size",
        "Max core file size",
    ] {
        let line = limits.lines().find(|line| line.starts_with(limit)).unwrap();
        assert!(!line.contains("unlimited"), "{line}");
    }
    // Nothing of ours is in its environment, and no name on its command line.
    let environment = of_child("environ");
    let variables: Vec<_> = environment
        .split(|b| *b == 0)
        .filter(|v| !v.is_empty())
        .collect();
    let allowed = [&b"SEALIFT_SQLITE_REQUEST="[..], b"LD_LIBRARY_PATH="];
    let is_allowed = |variable: &&[u8]| allowed.iter().any(|name| variable.starts_with(name));
    assert!(variables.iter().all(is_allowed));
    assert!(!text("cmdline").contains("a.db"));
    drop(lock);
    assert_eq!(children(std::process::id()), [0_u32; 0]);
}

#[test]
fn a_name_that_is_exchanged_shows_no_other_database() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, other) = (dir.path().join("a.db"), dir.path().join("b.db"));
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret.db");
    database(&ours, "ours");
    database(&secret, "secret");
    let place = Place::of(&ours).unwrap();
    let file = place.open().unwrap();
    // For a link to it, and for the very file.
    for is_link in [true, false] {
        match is_link {
            true => symlink(&secret, &other).unwrap(),
            false => drop(fs::copy(&secret, &other).unwrap()),
        }
        let (mut seen, mut refused) = (0, 0);
        exchanging(&ours, &other, || {
            for round in 0..60 {
                let checked = inspect_at(&place, &file, Depth::Structure, &Budget::of_run());
                match &checked {
                    Ok(found) => {
                        assert!(found.tables.contains_key("ours"), "{found:?}");
                        seen += 1;
                    }
                    Err(_) => refused += 1,
                }
                let copy = dir.path().join(format!("copy-{is_link}-{round}"));
                let to = Place::of(&copy).unwrap();
                if backup_at(&place, &file, &to, BUSY).is_ok() {
                    let db = Connection::open(&copy).unwrap();
                    db.query_row("SELECT x FROM ours", [], |_| Ok(())).unwrap();
                }
                if let Ok(Some(mut lock)) = lock_for_read(
                    &place,
                    &file,
                    BUSY,
                    Some((Depth::Structure, &Budget::of_run())),
                ) && let Ok(found) = lock.inspect(&place)
                {
                    assert!(found.tables.contains_key("ours"), "{found:?}");
                }
            }
        });
        assert!(seen > 0 && seen + refused == 60, "{seen} {refused}");
        // The exchanges may have ended in between.
        if fs::symlink_metadata(&ours).unwrap().ino() != file.metadata().unwrap().ino() {
            renameat_with(CWD, &ours, CWD, &other, RenameFlags::EXCHANGE).unwrap();
        }
        fs::remove_file(&other).unwrap();
    }
}

#[test]
fn a_directory_that_is_exchanged_is_not_walked_again() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (dir.path().join("d"), dir.path().join("e"));
    for (dir, table) in [(&ours, "ours"), (&theirs, "secret")] {
        fs::create_dir(dir).unwrap();
        database(&dir.join("a.db"), table);
    }
    let place = Place::of(&ours.join("a.db")).unwrap();
    let file = place.open().unwrap();
    renameat_with(CWD, &ours, CWD, &theirs, RenameFlags::EXCHANGE).unwrap();
    let found = inspect_at(&place, &file, Depth::Structure, &Budget::of_run()).unwrap();
    assert!(found.tables.contains_key("ours"), "{found:?}");
    let copy = dir.path().join("copy.db");
    backup_at(&place, &file, &Place::of(&copy).unwrap(), BUSY).unwrap();
    let db = Connection::open(&copy).unwrap();
    db.query_row("SELECT x FROM ours", [], |_| Ok(())).unwrap();
}

#[test]
fn fifos_and_links_beside_a_database_are_neither_waited_for_nor_followed() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let precious = outside.path().join("precious");
    fs::write(&precious, [0xd9; 4096]).unwrap();
    for ending in ["-wal", "-journal", "-shm", ""] {
        for is_fifo in [true, false] {
            let path = dir.path().join(format!("a{ending}-{is_fifo}.db"));
            if !ending.is_empty() {
                database(&path, "t");
            }
            let mut beside = path.clone().into_os_string();
            beside.push(ending);
            let beside = PathBuf::from(beside);
            match is_fifo {
                true => make_fifo(&beside),
                false => symlink(&precious, &beside).unwrap(),
            }
            let started = Instant::now();
            let copy = dir.path().join(format!("copy{ending}-{is_fifo}"));
            let _ = backup(&path, &copy, Duration::ZERO);
            let _ = inspect(&path, Depth::Structure, &Budget::of_run());
            let place = Place::of(&path).unwrap();
            place.has_live_journal();
            if let Ok(file) = place.open() {
                let _ = lock_for_read(&place, &file, Duration::ZERO, None);
            }
            assert!(
                started.elapsed() < Duration::from_secs(15),
                "{ending} {is_fifo}"
            );
        }
    }
    assert_eq!(fs::read(&precious).unwrap(), [0xd9; 4096]);
}

/// A journal may name another one, which SQLite deletes when it is done with it.
#[test]
fn a_planted_journal_deletes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.db");
    database(&path, "t");
    let before = fs::read(&path).unwrap();
    for name in ["x.db-mj012345678", "precious"] {
        let precious = dir.path().join(name);
        fs::write(&precious, b"x.db-journal\0").unwrap();
        let full = precious.to_str().unwrap().as_bytes();
        let magic = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
        let mut journal = magic.to_vec();
        for field in [1_u32, 0, 2, 512, 4096] {
            journal.extend(field.to_be_bytes());
        }
        journal.resize(512, 0);
        journal.extend(1_u32.to_be_bytes());
        journal.extend(&before[..4096]);
        journal.extend([0; 4]);
        journal.extend(full);
        journal.extend(u32::try_from(full.len()).unwrap().to_be_bytes());
        let sum: u32 = full.iter().map(|byte| u32::from(*byte)).sum();
        journal.extend(sum.to_be_bytes());
        journal.extend(magic);
        fs::write(dir.path().join("x.db-journal"), &journal).unwrap();
        let copy = dir.path().join("copy");
        let error = backup(&path, &copy, Duration::ZERO).unwrap_err();
        let said = format!("{error}: {:?}", std::error::Error::source(&error));
        assert!(said.contains("several databases"), "{said}");
        assert!(!copy.exists() && precious.exists());
    }
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_child_that_is_killed_leaves_its_database_unchecked() {
    if ran_in_own_process(
        "base::sqlite::confined::a_child_that_is_killed_leaves_its_database_unchecked",
    ) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("endless.db");
    SHAPES[0].1(&path);
    let checked = std::thread::scope(|scope| {
        let check = scope.spawn(|| inspect(&path, Depth::Structure, &Budget::of_run()));
        let pid = wait_for(|| children(std::process::id()).first().copied());
        std::thread::sleep(Duration::from_millis(100));
        kill(pid);
        check.join().unwrap()
    });
    let error = checked.unwrap_err();
    assert!(matches!(&error, SqliteError::Unchecked { .. }), "{error:?}");
    assert!(error.to_string().contains("was killed"), "{error}");
}

#[test]
fn no_child_outlives_the_program() {
    let host = Host::new();
    SHAPES[0].1(&host.data().join("endless.db"));
    for signal in ["-KILL", "-INT", "-TERM"] {
        let mut program = host.command(&["backup"]).spawn().unwrap();
        let child = wait_for(|| children(program.id()).first().copied());
        let pid = program.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
        program.wait().unwrap();
        wait_for(|| {
            let line = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            line.is_empty().then_some(())
        });
    }
}

/// The hash has proven the bytes, so a check that does not come to an end is a note.
#[test]
fn a_restore_whose_checks_are_killed_is_complete_and_says_so() {
    let host = Host::new();
    for i in 0..30 {
        let path = host.data().join(format!("{i}.db"));
        database(&path, "t");
        let db = Connection::open(path).unwrap();
        db.execute_batch("INSERT INTO t VALUES (randomblob(2000000))")
            .unwrap();
    }
    host.backup();
    let repo = host.path("repo").display().to_string();
    for round in 0..10 {
        let to = format!("out-{round}");
        let restore = [
            "restore",
            "--check",
            "latest",
            "--from",
            &repo,
            "--identity",
            "key.txt",
            "--signer",
            &host.signer,
            "--to",
            &to,
        ];
        let said = fs::File::create(host.path("said")).unwrap();
        let mut program = host.command(&restore).stderr(said).spawn().unwrap();
        let status = loop {
            children(program.id()).into_iter().for_each(|pid| {
                let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            });
            if let Some(status) = program.try_wait().unwrap() {
                break status;
            }
        };
        assert_eq!(status.code(), Some(0));
        for i in 0..30 {
            let name = format!("{i}.db");
            let restored = host.path(&to).join("data").join(&name);
            assert!(fs::read(host.data().join(&name)).unwrap() == fs::read(restored).unwrap());
        }
        let said = fs::read_to_string(host.path("said")).unwrap();
        if said.contains("note: verified, but not checked as a database") {
            return;
        }
    }
    panic!("no check was killed in time");
}

/// M4: an exclusive lock is waited for once, and all of a run share the time.
#[test]
fn a_locked_database_is_stored_and_named() {
    if !is_long() {
        return;
    }
    let host = Host::new();
    let held: Vec<_> = (0..3)
        .map(|i| {
            let path = host.data().join(format!("{i}.db"));
            database(&path, "t");
            let db = Connection::open(path).unwrap();
            db.execute_batch("PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE")
                .unwrap();
            db
        })
        .collect();
    let started = Instant::now();
    let report = host.json_exits(&["backup"], &[3]);
    // 30 s, the other 30 s, and nothing for the third.
    let seconds = started.elapsed().as_secs();
    assert!((55..80).contains(&seconds), "{seconds} s");
    let skipped = report["skipped"].to_string();
    assert_eq!(skipped.matches("stayed locked").count(), 3, "{skipped}");
    drop(held);
}
