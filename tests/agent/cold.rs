//! Backups whose data archives lie in cold storage: what goes there, and how it comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::{Arc, Mutex};

use sealift::manifest::{ArchiveKind, TablePage};

use crate::host::{Host, files, texts};
use crate::s3::{BUCKET, Hook, S3Server};
use crate::tree::noise;

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
    let output = command.envs(server.variables()).output().unwrap();
    assert!(output.status.success(), "{}", texts(&output).1);
}

/// Keys below the bucket of the data archives that the tables name, and of all other archives.
fn archives(server: &S3Server) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut data, mut other) = (BTreeSet::new(), BTreeSet::new());
    let tables = files(&server.bucket_dir().join(FOLDER).join("tables"));
    for path in tables
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
    {
        for row in TablePage::parse(&fs::read(path).unwrap()).unwrap().rows {
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
    let output = command.envs(server.variables()).output().unwrap();
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
