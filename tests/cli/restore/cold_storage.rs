//! Backups whose data archives are in cold storage: what goes there, and how it comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::{Arc, Mutex};

use sealift::format::manifest::{ArchiveKind, TablePage};

use crate::support::files::files;
use crate::support::host::{Host, texts};
use crate::support::s3::{BUCKET, Hook, S3Server, error_answer};
use crate::support::tree::{describe, noise};

const FOLDER: &str = "off/site/dalidou";

/// A host with one target, in S3, and lines of configuration for it.
fn host(server: &S3Server, lines: &str) -> Host {
    let host = Host::new();
    let mut config = host.config();
    let start = config.find("[[target]]").unwrap();
    let end = config.find("[retention]").unwrap();
    let endpoint = server.endpoint();
    let target = format!(
        "[[target]]\nname = \"s3\"\nurl = \"s3://{BUCKET}/off/site\"\nendpoint = \"{endpoint}\"\n{lines}\n\n"
    );
    config.replace_range(start..end, &target);
    fs::write(host.path("c.toml"), config).unwrap();
    host
}

fn backup(host: &Host, server: &S3Server) {
    let mut command = host.command(&["backup"]);
    server.ok(&mut command);
}

/// Keys below the bucket of the data archives that the tables name, and of all other archives.
fn archives(server: &S3Server) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut data, mut other) = (BTreeSet::new(), BTreeSet::new());
    let tables = files(&server.bucket_dir().join(FOLDER).join("tables"));
    for path in tables
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
    {
        let page = TablePage::parse(&fs::read(path).unwrap()).ok();
        // The others belong to earlier snapshots.
        for row in page.into_iter().flat_map(|page| page.rows) {
            let set = match row.kind {
                ArchiveKind::Data => &mut data,
                ArchiveKind::Index => &mut other,
            };
            set.insert(format!("{FOLDER}/{}", row.key()));
        }
    }
    (data, other)
}

/// Data archives go into their class, everything else into the other: straight from packing, and from the
/// spool of a run whose target was away.
#[test]
fn only_data_archives_go_into_cold_storage() {
    let classes: Arc<Mutex<BTreeMap<String, String>>> = Arc::default();
    let record = classes.clone();
    let hook: Hook = Arc::new(move |request| {
        if request.method() == "PUT" {
            let class = request.headers().get("x-amz-storage-class");
            let class = class.map_or("", |class| class.to_str().unwrap());
            let key = request.uri().path().replacen(&format!("/{BUCKET}/"), "", 1);
            record.lock().unwrap().insert(key, class.to_owned());
        }
        None
    });
    let server = S3Server::start_with(hook);
    let host = host(
        &server,
        "data_class = \"REDUCED_REDUNDANCY\"\nclass = \"STANDARD\"",
    );
    fs::write(host.data().join("first"), noise(1, 300_000)).unwrap();
    backup(&host, &server);
    let there = host.config();
    let away = there.replace(&server.endpoint(), "http://127.0.0.1:9");
    let away = away.replace("endpoint =", "retry = \"0s\"\nendpoint =");
    fs::write(host.path("c.toml"), away).unwrap();
    fs::write(host.data().join("second"), noise(2, 300_000)).unwrap();
    let mut command = host.command(&["backup"]);
    let output = server.output_of(&mut command);
    assert!(!output.status.success());
    fs::write(host.path("c.toml"), there).unwrap();
    backup(&host, &server);

    let (data, index) = archives(&server);
    assert!(data.len() >= 2 && index.len() >= 2, "{data:?} {index:?}");
    let classes = classes.lock().unwrap();
    for key in &data {
        assert_eq!(classes[key], "REDUCED_REDUNDANCY", "{key}");
    }
    let others = classes.iter().filter(|(key, _)| !data.contains(*key));
    let others: BTreeSet<&str> = others.map(|(_, class)| class.as_str()).collect();
    assert_eq!(others, BTreeSet::from(["STANDARD"]), "{classes:?}");
    assert!(index.iter().all(|key| classes.contains_key(key)));
    assert!(classes.keys().any(|key| key.ends_with("RECOVER.md")));
}

/// A bucket whose class for data archives cannot be read at once.
#[derive(Default)]
struct Freezer {
    /// Data archives, as their class tells, in the order in which they came.
    cold: Vec<String>,
    /// Of those what may not be read.
    frozen: BTreeSet<String>,
    asked: BTreeSet<String>,
    /// Reads of data archives, but for those that look at the first byte only.
    read: usize,
    /// Reads that were not let through.
    refused: usize,
}

fn freezing_server() -> (S3Server, Arc<Mutex<Freezer>>) {
    let freezer: Arc<Mutex<Freezer>> = Arc::default();
    let shared = freezer.clone();
    let hook: Hook = Arc::new(move |request| {
        let mut freezer = shared.lock().unwrap();
        let key = request.uri().path().replacen(&format!("/{BUCKET}/"), "", 1);
        let query = request.uri().query().unwrap_or_default();
        match request.method().as_str() {
            "PUT" => {
                let class = request.headers().get("x-amz-storage-class");
                if class.is_some_and(|class| class == "REDUCED_REDUNDANCY") {
                    freezer.cold.push(key);
                }
                None
            }
            "GET" if freezer.frozen.contains(&key) => {
                freezer.refused += 1;
                Some(error_answer(403, "InvalidObjectState"))
            }
            "GET" if freezer.cold.contains(&key) => {
                let range = request.headers().get("range");
                freezer.read += usize::from(range.is_none_or(|range| range != "bytes=0-0"));
                None
            }
            "POST" if query.starts_with("restore=") => Some(match freezer.asked.insert(key) {
                true => http::Response::builder()
                    .status(202)
                    .body(String::new())
                    .unwrap(),
                false => error_answer(409, "RestoreAlreadyInProgress"),
            }),
            _ => None,
        }
    });
    (S3Server::start_with(hook), freezer)
}

/// Three backups of a file each in the freezer's bucket.
fn frozen_host() -> (S3Server, Arc<Mutex<Freezer>>, Host) {
    let (server, freezer) = freezing_server();
    let host = host(&server, "data_class = \"REDUCED_REDUNDANCY\"");
    for n in 0..3 {
        fs::write(host.data().join(format!("f{n}")), noise(n, 200_000)).unwrap();
        backup(&host, &server);
    }
    assert_eq!(freezer.lock().unwrap().cold.len(), 3);
    (server, freezer, host)
}

/// Runs a command that reads the target from its URL alone: exit code, stdout, stderr.
fn from_target(
    host: &Host,
    server: &S3Server,
    arguments: &[&str],
) -> (Option<i32>, String, String) {
    let url = format!("s3://{BUCKET}/off/site");
    let endpoint = server.endpoint();
    let from = [
        "--from",
        &url,
        "--endpoint",
        &endpoint,
        "--signer",
        &host.signer,
    ];
    let mut command = host.command(&[arguments, &from[..]].concat());
    let output = server.output_of(&mut command);
    let (out, err) = texts(&output);
    (output.status.code(), out, err)
}

/// What restores that did not end well left beside their destination.
fn leftovers(host: &Host) -> Vec<String> {
    let names = fs::read_dir(host.temp.path()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains("partial")).collect()
}

const RESTORE: [&str; 6] = ["restore", "latest", "--identity", "key.txt", "--to", "out"];

/// The whole way: looking costs no thawing, a restore says what it would take, asks for it when told to, and
/// is done with the same command some hours later.
#[test]
fn a_restore_from_cold_storage_asks_waits_and_succeeds() {
    let (server, freezer, host) = frozen_host();
    let all: BTreeSet<String> = freezer.lock().unwrap().cold.iter().cloned().collect();
    freezer.lock().unwrap().frozen = all.clone();

    let (code, out, err) = from_target(&host, &server, &["ls", "latest", "--identity", "key.txt"]);
    assert!(code == Some(0) && out.contains("f2"), "{out}{err}");
    let (code, out, err) = from_target(&host, &server, &["list"]);
    assert!(code == Some(0) && out.lines().count() == 4, "{out}{err}");
    let touched = |freezer: &Freezer| freezer.read + freezer.refused;
    assert_eq!(
        touched(&freezer.lock().unwrap()),
        0,
        "looking reads no data archive"
    );

    let (code, _, err) = from_target(&host, &server, &RESTORE);
    assert_eq!(code, Some(1), "{err}");
    assert!(
        err.contains("3 of the 3 archives that this needs, 6"),
        "{err}"
    );
    assert!(err.contains("next:") && err.contains("--thaw"), "{err}");
    assert!(!host.path("out").exists());
    assert_eq!(leftovers(&host), [""; 0]);
    assert!(
        freezer.lock().unwrap().asked.is_empty(),
        "no option says so"
    );

    let plan = [&["--json"], &RESTORE[..], &["--thaw", "--dry-run"]].concat();
    let (code, out, err) = from_target(&host, &server, &plan);
    assert_eq!(code, Some(0), "{err}");
    let plan: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(plan["frozen_archives"], 3);
    assert!(plan["frozen_bytes"].as_u64() > Some(600_000), "{plan}");
    assert!(freezer.lock().unwrap().asked.is_empty(), "a dry run");

    for words in [
        "for 7 days: 3 requested now",
        "for 7 days: 3 under way already",
    ] {
        let (code, _, err) = from_target(&host, &server, &[&RESTORE[..], &["--thaw"]].concat());
        assert_eq!(code, Some(1), "{err}");
        assert!(
            err.contains(words) && err.contains("run the same command again"),
            "{err}"
        );
        assert!(err.contains("5 to 12 hours"), "{err}");
        assert_eq!(freezer.lock().unwrap().asked, all);
        assert!(!host.path("out").exists());
    }

    freezer.lock().unwrap().frozen.clear();
    let (code, _, err) = from_target(&host, &server, &[&RESTORE[..], &["--thaw=30"]].concat());
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(describe(&host.path("out/data")), describe(&host.data()));
}

/// What can be read is not fetched only to be fetched again once the rest is thawed.
#[test]
fn nothing_is_fetched_while_the_newest_or_the_oldest_is_frozen() {
    let (server, freezer, host) = frozen_host();
    for end in [0, 2] {
        let key = freezer.lock().unwrap().cold[end].clone();
        freezer.lock().unwrap().frozen = BTreeSet::from([key]);
        let (code, _, err) = from_target(&host, &server, &RESTORE);
        assert!(
            code == Some(1) && err.contains("1 of the 3 archives"),
            "{err}"
        );
        assert_eq!(freezer.lock().unwrap().read, 0);
    }
}

/// As a rule of the bucket may have it: what neither the oldest nor the newest archive shows is found when it
/// is met, and then all of it is.
#[test]
fn archives_frozen_in_the_middle_are_all_found() {
    let (server, freezer, host) = frozen_host();
    let middle = freezer.lock().unwrap().cold[1].clone();
    freezer.lock().unwrap().frozen.insert(middle.clone());
    let (code, _, err) = from_target(&host, &server, &[&RESTORE[..], &["--thaw=1"]].concat());
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("1 of the 3 archives"), "{err}");
    assert_eq!(freezer.lock().unwrap().asked, BTreeSet::from([middle]));
    assert!(!host.path("out").exists());
    assert_eq!(leftovers(&host), [""; 0]);
    // What lies elsewhere comes without it.
    let single = [
        "restore",
        "latest",
        "data/f0",
        "data/f2",
        "--identity",
        "key.txt",
        "--to",
        "out",
    ];
    let (code, _, err) = from_target(&host, &server, &single);
    assert_eq!(code, Some(0), "{err}");
}

/// An index that was frozen by a rule of the bucket is asked for like anything else.
#[test]
fn a_frozen_index_is_told_and_asked_for() {
    let (server, freezer, host) = frozen_host();
    let (_, index) = archives(&server);
    freezer.lock().unwrap().frozen = index.clone();
    let (code, _, err) = from_target(&host, &server, &RESTORE);
    assert!(code == Some(1) && err.contains("--thaw"), "{err}");
    let dry = [&RESTORE[..], &["--thaw", "--dry-run"]].concat();
    assert_eq!(from_target(&host, &server, &dry).0, Some(1));
    assert!(freezer.lock().unwrap().asked.is_empty(), "a dry run");
    let (code, _, err) = from_target(&host, &server, &[&RESTORE[..], &["--thaw"]].concat());
    assert!(code == Some(1) && err.contains("requested now"), "{err}");
    let freezer = freezer.lock().unwrap();
    assert!(
        !freezer.asked.is_empty() && freezer.asked.is_subset(&index),
        "{:?}",
        freezer.asked
    );
}

/// What cannot be read now is not said to be damaged, and is read when its turn comes.
#[test]
fn verify_tells_what_lies_in_cold_storage_from_what_is_damaged() {
    let (server, freezer, host) = frozen_host();
    let all: BTreeSet<String> = freezer.lock().unwrap().cold.iter().cloned().collect();
    freezer.lock().unwrap().frozen = all;
    let verify = |arguments: &[&str], code: i32| {
        let mut command = host.command(&[&["--json", "verify"], arguments].concat());
        let output = server.output_of(&mut command);
        let (out, err) = texts(&output);
        assert_eq!(output.status.code(), Some(code), "{out}{err}");
        let report: serde_json::Value = serde_json::from_str(&out).unwrap();
        report["targets"][0].clone()
    };
    let target = verify(&["--data"], 0);
    assert_eq!(target["frozen_archives"], 3, "{target}");
    assert_eq!(target["read_archives"], 3, "{target}");
    let target = verify(&["--identity", "key.txt"], 0);
    assert_eq!(target["restored"][0]["state"], "frozen", "{target}");
    let thawed = freezer.lock().unwrap().frozen.pop_first().unwrap();
    let path = server.bucket_dir().join(thawed);
    let mut bytes = fs::read(&path).unwrap();
    bytes[1000] ^= 1;
    fs::write(&path, bytes).unwrap();
    let target = verify(&["--data"], 3);
    assert_eq!(target["frozen_archives"], 2, "{target}");
    assert_eq!(target["problems"].as_array().unwrap().len(), 1, "{target}");
    assert_eq!(target["problems"][0]["kind"], "archive_damaged");
}
