//! The fuzz targets' properties on what is quick to try: every seed, real objects damaged at random, random bytes.
//!
//! `fuzz/README.md` describes how a fuzzer tries the same properties, and how the seeds are made again.

#[path = "../../../fuzz/properties.rs"]
mod properties;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sealift::base::ids::Hash;
use sealift::config::{NewConfig, NewSource, NewSourceKind, NewTarget, render_new};
use sealift::format::index::{Entry, EntryType};
use sealift::format::manifest::{ArchiveKind, Manifest};
use sealift::format::restored::{RecordWriter, RestoredFrom, RestoredHeader};
use sealift::format::signature::{MANIFEST_NAMESPACE, PRUNE_NAMESPACE, Signer};
use sealift::format::statement::{Mark, Tombstone};
use sealift::state::catalog::{ArchiveCheck, Catalog, NewArchive, NewChunk};

use crate::support::handmade_repo::{self, Repo};
use crate::support::is_long;
use crate::support::tree::noise;

type Property = fn(&[u8]);

const TARGETS: [(&str, Property); 9] = [
    ("manifest", properties::manifest),
    ("table", properties::table),
    ("index", properties::index),
    ("restored", properties::restored),
    ("archive", properties::archive),
    ("config", properties::config),
    ("signature", properties::signature),
    ("catalog", properties::catalog),
    ("statement", properties::statement),
];

fn property(target: &str) -> Property {
    let found = TARGETS.iter().find(|(name, _)| *name == target);
    found.expect("a target").1
}

/// Real objects for each target, made just now: by name, none of them secret.
fn objects(target: &str) -> BTreeMap<&'static str, Vec<u8>> {
    let mut repo = Repo::new();
    let tree = repo.path("tree");
    fs::create_dir_all(tree.join("a/b")).unwrap();
    fs::write(tree.join("a/file"), noise(1, 3000)).unwrap();
    fs::write(
        tree.join("a/b/holes"),
        [vec![0; 1 << 17], vec![1; 9000]].concat(),
    )
    .unwrap();
    fs::hard_link(tree.join("a/file"), tree.join("a/link")).unwrap();
    std::os::unix::fs::symlink("../z", tree.join("a/soft")).unwrap();
    fs::write(tree.join("z"), b"").unwrap();
    let (mut index, mut entries) = (Vec::new(), Vec::new());
    repo.push_changed(&tree, |draft| {
        draft.entries.extend(rare_entries(&draft.entries));
        draft.header.archives = draft.archives.len() as u64;
        draft.header.entries = draft.entries.len() as u64;
        index = serde_json::to_vec(&draft.header).unwrap();
        let streams = draft.archives.iter();
        let lines = streams.map(|stream| serde_json::to_vec(stream).unwrap());
        for line in lines.chain(draft.entries.iter().map(|entry| entry.to_line())) {
            index.push(b'\n');
            index.extend(line);
        }
        index.push(b'\n');
        entries.clone_from(&draft.entries);
    });
    let second = repo.push(&tree);
    let mut full = second.core.clone();
    full.marks_seen = vec!["0011223344556677".to_owned()];
    full.next_by = Some("2026-04-08T12:00:00Z".parse().unwrap());
    full.next_signer = Some(repo.signer.public_line());
    let full = Manifest::new(full, second.pages.clone());
    let key = |folder: &str| fs::read(&repo.objects(folder)[0]).unwrap();
    let objects = match target {
        "manifest" => vec![
            ("full", full.bytes),
            ("second", second.bytes),
            ("first", key("manifests")),
        ],
        "table" => vec![("page", key("tables"))],
        "index" => vec![("tree", index)],
        "restored" => records(&second, &entries),
        "archive" => vec![
            (
                "sealed",
                fs::read(repo.newest_archive(ArchiveKind::Index)).unwrap(),
            ),
            ("frames", handmade_repo::compress(&index)),
            (
                "one_frame",
                zstd::bulk::compress(&noise(3, 300), 3).unwrap(),
            ),
            (
                "bomb",
                zstd::bulk::compress(&vec![0; 16 << 20], 19).unwrap(),
            ),
        ],
        "config" => configurations(&repo),
        "signature" => signatures(),
        "catalog" => catalogs(),
        "statement" => statements(&repo),
        other => panic!("{other} is no target"),
    };
    objects.into_iter().collect()
}

/// Records of these entries: of all, and of a part without a device.
fn records(snapshot: &Manifest, entries: &[Entry]) -> Vec<(&'static str, Vec<u8>)> {
    let record = |paths: &[&[u8]], left_out: &[&[u8]], entries: &[Entry]| {
        let owned = |paths: &[&[u8]]| paths.iter().map(|path| path.to_vec()).collect::<Vec<_>>();
        let from = RestoredFrom {
            host: snapshot.core.host.clone(),
            stamp: snapshot.core.stamp,
            sequence: snapshot.core.sequence,
            signer: "SHA256:abc".to_owned(),
            core: snapshot.core_hash,
            paths: owned(paths),
        };
        let at = "2026-04-08T12:00:00.5Z".parse().unwrap();
        let header = RestoredHeader::new(&from, owned(left_out), at);
        let mut writer = RecordWriter::begin(Vec::new(), &header).unwrap();
        let written = entries
            .iter()
            .try_for_each(|entry| writer.entry(entry.clone()));
        written.and_then(|()| writer.finish()).unwrap()
    };
    let is_rare = |entry: &&Entry| entry.path.starts_with(b"zz");
    let rare: Vec<Entry> = entries.iter().filter(is_rare).cloned().collect();
    vec![
        ("whole", record(&[], &[], entries)),
        ("part", record(&[b"zz\xff", b"zza"], &[b"zz/d"], &rare)),
    ]
}

/// Entries with all that a plain tree does not have; they sort behind those of `entries`, which hold a file.
fn rare_entries(entries: &[Entry]) -> Vec<Entry> {
    let is_large = |entry: &&Entry| entry.kind == EntryType::File && entry.size > 0;
    let file = entries.iter().find(is_large).unwrap();
    let xattr = |name: &[u8], value: &[u8]| (name.to_vec(), value.to_vec());
    let torn = Entry {
        path: b"zz torn \"\n\xc3\xbc".to_vec(),
        user: Some("r\u{f6}t".to_owned()),
        group: Some("g".to_owned()),
        mtime_ns: -1,
        xattrs: [xattr(b"user.x", b"\0"), xattr(b"\xff", b"")].into(),
        torn: true,
        ..file.clone()
    };
    let bare = |path: &[u8], kind: EntryType| Entry {
        path: path.to_vec(),
        kind,
        mode: 0o7777,
        size: 0,
        blake3: None,
        extents: Vec::new(),
        torn: false,
        ..file.clone()
    };
    let device = Entry {
        rdev: Some((1, 3)),
        ..bare(b"zz\xfe", EntryType::Chardev)
    };
    let link = Entry {
        target: Some(b"\xff/..".to_vec()),
        ..bare(b"zz\xff", EntryType::Symlink)
    };
    vec![torn, bare(b"zza", EntryType::Fifo), device, link]
}

fn configurations(repo: &Repo) -> Vec<(&'static str, Vec<u8>)> {
    let small = render_new(&NewConfig {
        host: "dalidou".to_owned(),
        recipients: repo.recipients.clone(),
        signer: PathBuf::from("signer"),
        state: PathBuf::from("state"),
        sources: vec![NewSource {
            kind: NewSourceKind::Tree(PathBuf::from("/srv/photos"), Vec::new()),
            to: "photos".to_owned(),
            name: None,
        }],
        targets: vec![NewTarget {
            name: "laptop".to_owned(),
            url: "me@laptop:backups".to_owned(),
            ..NewTarget::default()
        }],
        schedule: Some("0 6 * * *".to_owned()),
        ..NewConfig::default()
    });
    let deployed = |name: &str| {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/");
        fs::read(format!("{path}{name}")).unwrap()
    };
    vec![
        ("small", small.into_bytes()),
        ("dalidou", deployed("dalidou.toml")),
        ("folder", deployed("folder.toml")),
        ("timetable", b"08:00 2MB, 18:30 off".to_vec()),
        ("size", b"64MiB".to_vec()),
    ]
}

fn signatures() -> Vec<(&'static str, Vec<u8>)> {
    let signer = Signer::generate("seed").unwrap();
    let signed = |namespace| {
        signer
            .sign(namespace, properties::MESSAGE)
            .unwrap()
            .into_bytes()
    };
    let line = signer.public_line();
    let allowed = format!(
        "# who signs\ndalidou {line}\n*,!x namespaces=\"{MANIFEST_NAMESPACE},sealift-*\" {line}\nd?l* {line}\n"
    );
    vec![
        ("manifest", signed(MANIFEST_NAMESPACE)),
        ("prune", signed(PRUNE_NAMESPACE)),
        ("allowed_signers", allowed.into_bytes()),
        ("key", line.into_bytes()),
        ("fingerprint", signer.fingerprint().into_bytes()),
    ]
}

fn catalogs() -> Vec<(&'static str, Vec<u8>)> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog.db");
    let hash = |byte: u8| Hash([byte; 32]);
    {
        // The smallest pages there are: a seed is to be small.
        let db = rusqlite::Connection::open(&path).unwrap();
        db.execute_batch("PRAGMA page_size=512; VACUUM").unwrap();
    }
    let mut catalog = Catalog::open(&path).unwrap();
    let recipient_set = catalog.remember_recipients(&["age1x".to_owned()]).unwrap();
    let archive = NewArchive {
        row: sealift::format::manifest::ArchiveRow {
            id: catalog.next_archive_id().unwrap(),
            kind: ArchiveKind::Data,
            blake3: hash(1),
            sha256: hash(2),
            bytes: 4000,
            recipient_set,
            head_sha256: hash(3),
        },
        tar_bytes: 5000,
        tar_blake3: hash(4),
    };
    let chunks = [0u8, 9].map(|byte| NewChunk {
        hash: [byte; 24],
        archive: 0,
        offset: 512,
        length: 4096,
    });
    let numbers = catalog.commit_archives(&[archive], &chunks).unwrap();
    catalog.add_placements("t", numbers).unwrap();
    let at = "2026-04-07T06:00:00Z".parse().unwrap();
    let whole = Some(true);
    catalog
        .set_check("t", &hash(1), &ArchiveCheck { at, whole })
        .unwrap();
    catalog.mark_unusable(&hash(5)).unwrap();
    let run = catalog.begin_run(at).unwrap();
    catalog.end_run(run, at, None, "complete", "").unwrap();
    drop(catalog);
    let file = fs::read(&path).unwrap();
    assert!(file.starts_with(properties::SQLITE_MAGIC));
    // A table's number, then kind and value of each column: `write_rows`.
    let rows = [
        &b"\x00\x13the writer\x0bx"[..],
        b"\x03\x98",
        &[7; 24],
        b"\x01\x01\x01\x00\x08",
        &[5; 8],
    ]
    .concat();
    // Two empty strings, five numbers, no uses, no line.
    let record = [&[0u8; 4][..], &[1; 56], &[0; 1 + 4 + 4]].concat();
    vec![("file", file), ("rows", rows), ("cache_block", record)]
}

fn statements(repo: &Repo) -> Vec<(&'static str, Vec<u8>)> {
    let host = &repo.host;
    let time = "2026-04-07T06:00:00Z".parse().unwrap();
    let tombstone = Tombstone {
        format: 1,
        host: host.clone(),
        sequence: 7,
        stamp: "20260407T060000Z".parse().unwrap(),
        core: Hash::sha256(b"core"),
        manifests: vec!["00000007-20260407T060000Z-0011223344556677".to_owned()],
        deleted_at: time,
        by: repo.signer.fingerprint(),
        newest: 9,
    };
    let [_, (key, tombstone)] = tombstone.sign(&repo.signer).unwrap();
    let mark = Mark::new(
        host.clone(),
        time,
        vec![Hash::blake3(b"x"), Hash::blake3(b"y")],
        vec![Hash::sha256(b"z")],
    );
    let (mark_name, mark) = mark.unwrap().encode();
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        ("tombstone", tombstone),
        ("mark", mark),
        ("pins", text("20260407T060000Z\n20260408T060000Z\n")),
        ("tombstone_key", text(key.as_str())),
        ("mark_key", text(mark_name.key().as_str())),
        (
            "manifest_name",
            text("00000007-20260407T060000Z-0011223344556677"),
        ),
        ("archive_id", text("00ff00ff00ff00ff.12")),
    ]
}

/// One change to an object. Places are in proportion to its length.
#[derive(Debug, Clone)]
enum Damage {
    Flip(u16, u8),
    Set(u16, Vec<u8>),
    Insert(u16, Vec<u8>),
    Delete(u16, u16),
    /// Some of another object, or of itself, from one place to another.
    Splice(u16, usize, u16, u16),
    Cut(u16),
}

fn damage() -> impl Strategy<Value = Damage> {
    let words = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..12),
        prop::sample::select(vec![
            "0",
            "-1",
            "18446744073709551615",
            "18446744073709551616",
            "1e400",
            "null",
            "[]",
            "{}",
            "\"\"",
            "[[",
            "..",
            "/",
            "\n",
            "\r\n",
            "\0",
            "*",
            "\"",
            "\\u0000",
            "\u{fffd}",
            ",",
            "::",
            "99991231T235959Z",
        ])
        .prop_map(|word| word.as_bytes().to_vec()),
    ];
    let place = any::<u16>;
    prop_oneof![
        (place(), 0..8u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        (place(), words.clone()).prop_map(|(at, word)| Damage::Set(at, word)),
        (place(), words).prop_map(|(at, word)| Damage::Insert(at, word)),
        (place(), 1..40u16).prop_map(|(at, count)| Damage::Delete(at, count)),
        (place(), any::<usize>(), place(), 1..300u16)
            .prop_map(|(at, other, from, count)| Damage::Splice(at, other, from, count)),
        place().prop_map(Damage::Cut),
    ]
}

fn place(bytes: &[u8], at: u16) -> usize {
    bytes.len() * usize::from(at) / (usize::from(u16::MAX) + 1)
}

fn apply(bytes: &mut Vec<u8>, damage: &Damage, others: &[Vec<u8>]) {
    let replace = |bytes: &mut Vec<u8>, at: u16, gone: usize, by: &[u8]| {
        let at = place(bytes, at);
        let end = bytes.len().min(at + gone);
        bytes.splice(at..end, by.iter().copied());
    };
    match damage {
        Damage::Flip(at, bit) => {
            let at = place(bytes, *at);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
        Damage::Set(at, word) => replace(bytes, *at, word.len(), word),
        Damage::Insert(at, word) => replace(bytes, *at, 0, word),
        Damage::Delete(at, count) => replace(bytes, *at, usize::from(*count), b""),
        Damage::Splice(at, other, from, count) => {
            let other = &others[other % others.len()];
            let from = place(other, *from);
            let end = other.len().min(from + usize::from(*count));
            replace(bytes, *at, usize::from(*count), &other[from..end]);
        }
        Damage::Cut(at) => bytes.truncate(place(bytes, *at)),
    }
}

fn cases(everyday: u32) -> u32 {
    if is_long() { 20 * everyday } else { everyday }
}

/// Every seed, then `everyday` damaged objects and as many of random bytes.
fn holds(target: &str, everyday: u32) {
    let property = property(target);
    let mut objects: Vec<Vec<u8>> = objects(target).into_values().collect();
    let seeds = fs::read_dir(properties::seeds(target)).unwrap();
    let seeds = seeds.map(|seed| fs::read(seed.unwrap().path()).unwrap());
    objects.extend(seeds);
    assert!(objects.len() > 1, "there are seeds");
    for object in &objects {
        property(object);
    }
    let config = Config {
        cases: cases(everyday),
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new(config);
    let damaged = (any::<usize>(), prop::collection::vec(damage(), 1..5));
    let outcome = runner.run(&damaged, |(which, damage)| {
        let mut object = objects[which % objects.len()].clone();
        for damage in &damage {
            apply(&mut object, damage, &objects);
        }
        property(&object);
        Ok(())
    });
    outcome.unwrap();
    let random = prop::collection::vec(any::<u8>(), 0..300);
    let outcome = runner.run(&random, |bytes| {
        property(&bytes);
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn any_manifest_is_read_or_refused() {
    holds("manifest", 400);
}

#[test]
fn any_page_of_the_table_is_read_or_refused() {
    holds("table", 400);
}

#[test]
fn any_index_is_read_or_refused() {
    holds("index", 200);
}

#[test]
fn any_record_of_a_restore_is_read_or_refused() {
    holds("restored", 300);
}

#[test]
fn any_archive_is_opened_or_refused() {
    holds("archive", 40);
}

#[test]
fn any_configuration_is_read_or_refused() {
    holds("config", 300);
}

#[test]
fn any_signature_and_any_key_file_is_believed_or_refused() {
    holds("signature", 200);
}

#[test]
fn any_catalog_works_by_the_third_run() {
    holds("catalog", 60);
}

#[test]
fn any_statement_is_believed_or_refused() {
    holds("statement", 300);
}

#[test]
fn real_objects_are_read_and_believed() {
    let of = |target: &str, name: &str| objects(target)[name].clone();
    assert!(Manifest::parse(&of("manifest", "second")).is_ok());
    assert!(sealift::format::manifest::TablePage::parse(&of("table", "page")).is_ok());
    let index = of("index", "tree");
    let reader = sealift::format::index::IndexReader::new(index.as_slice()).unwrap();
    assert!(reader.map(Result::unwrap).count() > 5);
    let text = String::from_utf8(of("config", "small")).unwrap();
    sealift::config::Config::parse(&text, "/nowhere/sealift.toml".as_ref()).unwrap();
    let signature = of("signature", "manifest");
    sealift::format::signature::verify(&signature, MANIFEST_NAMESPACE, properties::MESSAGE)
        .unwrap();
}

/// `SEALIFT_WRITE_SEEDS=1 cargo test --test stages fuzzed_bytes:: -- --ignored`: makes the seeds again.
#[test]
#[ignore = "writes into fuzz/seeds"]
fn seeds_are_written() {
    assert_eq!(std::env::var("SEALIFT_WRITE_SEEDS").as_deref(), Ok("1"));
    for (target, _) in TARGETS {
        let dir = properties::seeds(target);
        fs::create_dir_all(&dir).unwrap();
        for (name, bytes) in objects(target) {
            fs::write(dir.join(name), bytes).unwrap();
        }
    }
}
