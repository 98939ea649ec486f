//! What commands that look into snapshots open for writing, as the system sees it: their cache, which holds ciphertext, and
//! what they remember of signers.

use std::fs;

use crate::support::files::files;
use crate::support::host::{Host, texts};
use crate::support::strace::{traced, written};

const PLANTED: &str = "planted-plaintext-0123456789";

#[test]
fn commands_that_look_write_only_ciphertext_and_known_signers() {
    let host = Host::new();
    let text = format!("{PLANTED}\n").repeat(50_000);
    fs::write(host.data().join("planted-name-0123"), &text).unwrap();
    let db = rusqlite::Connection::open(host.data().join("app.db")).unwrap();
    let rows = format!(
        "CREATE TABLE t(a TEXT);
         WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
         INSERT INTO t SELECT i || ' {PLANTED}' FROM n"
    );
    db.execute_batch(&rows).unwrap();
    drop(db);
    host.backup();
    fs::write(host.data().join("planted-name-0123"), format!("{text}more")).unwrap();
    host.backup();
    fs::remove_dir_all(host.data()).unwrap();
    let temp = host.path("temp");
    fs::create_dir(&temp).unwrap();
    let place = host.place();
    let sort = "SELECT DISTINCT a FROM t ORDER BY a DESC";
    let file = "data/planted-name-0123";
    // SQLite would sort 200,000 rows in a file.
    let large = "SELECT a.a FROM t a, (SELECT a FROM t LIMIT 40) b ORDER BY 1 DESC LIMIT 9";
    let looks: [&[&str]; 8] = [
        &["find", "*planted*"],
        &["find", "--rows", "t>1"],
        &["versions", file],
        &["diff", "1", "2", "--rows"],
        &["ls", "latest", "--long", "-R"],
        &["cat", "latest", file],
        &["sql", "latest", "data/app.db", sort],
        &["sql", "latest", "data/app.db", large],
    ];
    let cache = host.path(".cache/sealift");
    let remembered = host.path(".config/sealift");
    let mut opened = 0;
    for words in looks {
        let mut command = host.command(&[words, &place].concat());
        command.env("TMPDIR", &temp);
        let trace = host.path("trace");
        let output = traced(&command, &trace)
            .output()
            .expect("strace; ./test installs it");
        let (out, err) = texts(&output);
        assert_eq!(output.status.code(), Some(0), "{words:?}: {out}{err}");
        assert!(!out.trim().is_empty(), "{words:?}: {out}{err}");
        let lines = fs::read_to_string(&trace).unwrap();
        assert!(lines.contains("openat("), "{lines}");
        for path in written(&lines, host.temp.path()) {
            let is_known = path.starts_with(&cache) || path.starts_with(&remembered);
            let is_device = path.starts_with("/dev");
            assert!(is_known || is_device, "{words:?} opens {}", path.display());
            opened += usize::from(is_known);
        }
        fs::remove_file(&trace).unwrap();
    }
    assert!(opened > 3, "the cache is written");
    for path in files(&cache).into_iter().chain(files(&temp)) {
        let bytes = fs::read(&path).unwrap();
        let has = bytes.windows(7).any(|window| window == b"planted");
        assert!(!has, "{}", path.display());
    }
}
