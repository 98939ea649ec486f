//! Kill -9 at random moments: what is published restores, the next run converges, nothing is left.

use std::fs;
use std::time::Duration;

use crate::support::files::files;
use crate::support::host::Host;
use crate::support::tree::{describe, noise};

#[test]
fn a_backup_killed_at_any_moment_loses_nothing() {
    let kills = if crate::support::is_long() { 200 } else { 12 };
    let host = Host::new();
    fs::write(
        host.path("c.toml"),
        host.config() + "\n[pack]\narchive_size = \"1MiB\"\n",
    )
    .unwrap();
    let database = host.data().join("app.db");
    let db = rusqlite::Connection::open(&database).unwrap();
    db.pragma_update(None, "journal_mode", "wal").unwrap();
    db.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB)")
        .unwrap();
    host.backup();
    let mut seed = 0u64;
    for round in 0..kills {
        for file in 0..4 {
            seed += 1;
            let size = 600_000 * (1 + (seed as usize * 7) % 3);
            fs::write(host.data().join(format!("f{file}")), noise(seed, size)).unwrap();
        }
        db.execute("INSERT INTO t (body) VALUES (?1)", [noise(seed, 20_000)])
            .unwrap();
        let mut running = host.command(&["--quiet", "backup"]).spawn().unwrap();
        // From the first instruction to well past the end.
        let moment = (round * 7919) % 160;
        std::thread::sleep(Duration::from_millis(moment as u64));
        running.kill().unwrap();
        running.wait().unwrap();
        check_everything_published(&host, round);
    }
    drop(db);
    host.backup();
    let before = describe(&host.data());
    let out = host.restore("latest", "at-the-end");
    assert_eq!(describe(&out.join("data")), before);
    leaves_nothing(&host);
}

/// Every manifest on the target names archives that are whole; the newest restores.
fn check_everything_published(host: &Host, round: u32) {
    let list = host.remote_list();
    let newest = list["snapshots"].as_array().unwrap().last().unwrap();
    let sequence = newest["sequence"].as_u64().unwrap().to_string();
    let to = format!("out-{round}");
    let out = host.restore(&sequence, &to);
    fs::remove_dir_all(out).unwrap();
    // By hand now and then, and every one of them at the end.
    if round % 10 == 3 {
        let out = host.recover("latest", &to);
        fs::remove_dir_all(out).unwrap();
    }
}

fn leaves_nothing(host: &Host) {
    let spooled = files(&host.path("c.state/spool"));
    assert_eq!(spooled, Vec::<std::path::PathBuf>::new());
    let scratch = host.path("c.state/scratch");
    if scratch.exists() {
        assert_eq!(files(&scratch), Vec::<std::path::PathBuf>::new());
    }
    let snapshots = fs::read_dir(host.path("c.state/snapshots")).unwrap();
    for entry in snapshots {
        let name = entry.unwrap().file_name();
        assert!(!name.to_string_lossy().starts_with('.'), "{name:?}");
    }
    // Every archive on the target is named by a manifest, or was sealed by a run that died and is known to the
    // catalog: pruning is what removes those. No half-written object has an object's name.
    for object in files(&host.folder()) {
        let name = object.file_name().unwrap().to_string_lossy().into_owned();
        assert!(!name.contains("tmp"), "{}", object.display());
    }
}

/// A disk that is full, as far as a process can tell: no file may grow beyond a limit.
#[test]
fn a_full_disk_loses_nothing_and_the_next_run_converges() {
    let host = Host::new();
    fs::write(host.data().join("first"), noise(1, 100_000)).unwrap();
    host.backup();
    let first = describe(&host.data());
    fs::write(host.data().join("second"), noise(2, 3_000_000)).unwrap();
    for kilobytes in [0, 4, 64, 300, 1000] {
        let line = format!("trap '' XFSZ; ulimit -f {kilobytes}; exec \"$@\"");
        let output = std::process::Command::new("bash")
            .args([
                "-c",
                &line,
                "bash",
                crate::support::host::SEALIFT,
                "--config",
                "c.toml",
                "backup",
            ])
            .current_dir(host.temp.path())
            .env("SEALIFT_MACHINE_ID", &host.machine)
            .output()
            .unwrap();
        let (out, err) = crate::support::host::texts(&output);
        assert_eq!(output.status.code(), Some(1), "{kilobytes} kB: {out}{err}");
        let is_told = err.contains("File too large") || err.contains("is the disk full");
        assert!(is_told && !err.contains("panicked"), "{err}");
        let newest = host.remote_list();
        assert_eq!(newest["snapshots"].as_array().unwrap().len(), 1);
        let out = host.restore("latest", &format!("out-{kilobytes}"));
        assert_eq!(describe(&out.join("data")), first);
    }
    host.backup();
    let out = host.restore("latest", "out");
    assert_eq!(describe(&out.join("data")), describe(&host.data()));
    leaves_nothing(&host);
}
