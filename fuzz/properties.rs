//! What must hold of whatever bytes come in from outside: nothing panics, hangs or swells, what is accepted has
//! one meaning, and only a signer is believed.
//!
//! Each function is one fuzz target; `tests/stages/format/fuzzed_bytes.rs` puts the same ones to random and to damaged real objects.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use chrono::{DateTime, Utc};
use sealift::base::ids::{ArchiveId, Hash, HostName, ObjectKey, Stamp, WriterId};
use sealift::base::rate_schedule::Timetable;
use sealift::base::snapshot_choice::SnapshotChoice;
use sealift::config::{Config, parse_duration, parse_size};
use sealift::format::allowed_signers::parse_allowed_signers;
use sealift::format::archive::age_header::AgeHeader;
use sealift::format::chain::{Chain, ChainError, Gathering, UnverifiedManifest};
use sealift::format::index::{Entry, IndexError, IndexReader};
use sealift::format::known::{Directory, KnownPage, paginate_known};
use sealift::format::manifest::{ArchiveRow, Known, Manifest, ManifestName, TablePage, paginate};
use sealift::format::restored::{RESTORED, RecordWriter, RestoredRecord};
use sealift::format::signature::{self, MANIFEST_NAMESPACE, PRUNE_NAMESPACE, Signer, Trust};
use sealift::format::statement::{Mark, MarkName, Tombstone};
use sealift::packer::files_cache::CacheReader;

use sealift::packer::seal::Recipients;
use sealift::restore::concat_tars;
use sealift::restore::open::{
    Identities, OpenArchiveError, Prompt, SecretString, generate, open_archive,
};
use sealift::retention::{self, decide};
use sealift::state::catalog::{Catalog, CatalogError};

/// Of what an archive may swell to; a bomb is read no further.
const MOST_TAR_BYTES: u64 = 8 << 20;
/// What a signer that exists only in this process signs in [`signature`].
pub const MESSAGE: &[u8] = b"what was signed";
pub const SQLITE_MAGIC: &[u8] = b"SQLite format 3\0";

/// A host's signer and a key holder, made when first needed.
pub struct People {
    pub signer: Signer,
    pub recipients: Recipients,
    pub identities: Identities,
    /// Where files are put that must be files.
    scratch: tempfile::TempDir,
}

pub static PEOPLE: LazyLock<People> = LazyLock::new(|| {
    let memory = Path::new("/dev/shm");
    let scratch = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    let scratch = scratch.unwrap();
    let (secret, recipient) = generate();
    let key = scratch.path().join("key");
    fs::write(&key, secret).unwrap();
    let nobody: Arc<dyn Prompt> = Arc::new(Nobody);
    People {
        signer: Signer::generate("fuzz").unwrap(),
        recipients: Recipients::load(&[recipient], scratch.path()).unwrap(),
        identities: Identities::load(&[key], &nobody).unwrap(),
        scratch,
    }
});

/// Answers nothing.
struct Nobody;

impl Prompt for Nobody {
    fn passphrase(&self, _what: &str) -> Option<SecretString> {
        None
    }
    fn message(&self, _text: &str) {}
}

fn as_file<T>(bytes: &[u8], read: impl FnOnce(&Path) -> T) -> T {
    let mut file = tempfile::NamedTempFile::new_in(PEOPLE.scratch.path()).unwrap();
    file.write_all(bytes).unwrap();
    read(file.path())
}

fn noon() -> DateTime<Utc> {
    "2026-04-07T12:00:00Z".parse().unwrap()
}

/// A manifest, and the chain that it makes alone.
pub fn manifest(bytes: &[u8]) {
    let Ok(read) = Manifest::parse(bytes) else {
        return;
    };
    assert_eq!(read.bytes, bytes);
    let written = Manifest::new(read.core.clone(), read.pages.clone());
    let again = Manifest::parse(&written.bytes).expect("what is written is read");
    assert_eq!((&again.core, &again.pages), (&read.core, &read.pages));
    assert_eq!(again.core_hash, written.core_hash);
    let name = read.name();
    assert_eq!(name.to_string().parse().ok().as_ref(), Some(&name));
    assert_eq!(
        ManifestName::from_key(name.key().as_str()).as_ref(),
        Some(&name)
    );
    Manifest::parse_named(&name, bytes).expect("it is what its name promises");

    let host = &read.core.host;
    let signer = &PEOPLE.signer;
    let trust = Trust::Fingerprint(signer.fingerprint());
    let of = |signature: Option<String>| UnverifiedManifest {
        name: name.clone(),
        manifest: bytes.to_vec(),
        signature: signature.map(String::into_bytes),
    };
    let stranger = signer.sign(PRUNE_NAMESPACE, bytes).unwrap();
    for signature in [None, Some(stranger)] {
        for trust in [&trust, &Trust::FirstSeen] {
            assert!(gather(host, vec![of(signature.clone())], trust).is_err());
        }
    }
    let signed = of(Some(signer.sign(MANIFEST_NAMESPACE, bytes).unwrap()));
    let twice = vec![signed.clone(), signed];
    let mut chain = gather(host, twice, &trust).expect("it is signed");
    let latest = chain.latest().expect("there is one").manifest.name();
    assert_eq!(latest, name);
    for text in [name.stamp.to_string(), name.sequence.to_string()] {
        let choice = SnapshotChoice::parse(&text).expect(&text);
        assert_eq!(
            chain.resolve(&choice).expect(&text).sequence(),
            name.sequence
        );
    }
    let missing: HashSet<Hash> = chain.missing().iter().map(|known| known.core).collect();
    chain.accept_deletions(&missing);
    assert_eq!(chain.missing(), []);
    for finding in &chain.findings {
        let _ = finding.to_string();
    }
}

fn gather(
    host: &HostName,
    candidates: Vec<UnverifiedManifest>,
    trust: &Trust,
) -> Result<Chain, ChainError> {
    let mut gathering = Gathering::new(host, trust);
    let checked = candidates.into_iter().map(|one| one.check(host));
    checked.for_each(|one| gathering.take(one));
    gathering.finish()
}

/// An object of `tables/`: a page of the archive table, or of earlier snapshots, or a directory of the latter.
pub fn table(bytes: &[u8]) {
    if let Ok(page) = KnownPage::parse(bytes) {
        let (_, encoded) = page.encode();
        let again = KnownPage::parse(&encoded).expect("what is written is read");
        assert_eq!(again, page);
        let paged = paginate_known(&page.known, |_, _| page.made);
        let pages = paged.objects.iter();
        let pages = pages.filter_map(|(_, bytes)| KnownPage::parse(bytes).ok());
        let mut kept: Vec<Known> = pages.flat_map(|page| page.known).collect();
        kept.sort();
        assert_eq!(kept, page.known);
    }
    if let Ok(directory) = Directory::parse(bytes) {
        let again = Directory::parse(&directory.encode().1).expect("what is written is read");
        assert_eq!(again, directory);
    }
    let Ok(page) = TablePage::parse(bytes) else {
        return;
    };
    let encoded = page.encode();
    let again = TablePage::parse(&encoded).expect("what is written is read");
    assert_eq!(again, page);
    for row in &page.rows {
        assert_eq!(
            ObjectKey::archive_hash(row.key().as_str()),
            Some(row.blake3)
        );
    }
    let pages = paginate(page.rows.clone(), &page.sets);
    let mut kept: Vec<ArchiveRow> = Vec::new();
    for (hash, bytes) in pages {
        assert_eq!(hash, Hash::sha256(&bytes));
        kept.extend(TablePage::parse(&bytes).expect("a page is read").rows);
    }
    assert_eq!(kept.len(), page.rows.len());
    assert!(page.rows.iter().all(|row| kept.contains(row)));
}

/// An index: one thread reads what several read, and an entry has one line.
pub fn index(bytes: &[u8]) {
    let Ok(mut one) = IndexReader::new(bytes) else {
        return;
    };
    let entries: Result<Vec<Entry>, IndexError> = one.by_ref().collect();
    let mut many = IndexReader::new(bytes).expect("it was read before");
    match (entries, many.read_rest()) {
        (Ok(entries), Ok(list)) => {
            assert_eq!(list.len(), entries.len());
            for (number, entry) in entries.iter().enumerate() {
                let line = entry.to_line();
                let again = Entry::from_line(&line).expect("what is written is read");
                assert_eq!(again, *entry);
                assert_eq!(again.to_line(), line);
                assert_eq!(list.get(number).to_entry(), *entry);
                assert_eq!(list.position(&entry.path), Some(number));
            }
        }
        (Err(one), Err(many)) => assert_eq!(one.to_string(), many.to_string()),
        (one, many) => panic!("{:?} and {:?}", one.err(), many.err()),
    }
}

/// The record of a restore, as it is and with the last line that fits it.
pub fn restored(bytes: &[u8]) {
    let mut lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    lines.pop_if(|last| last.starts_with(b"{\"entries\":"));
    let mut sealed = lines.concat();
    let end = format!(
        "{{\"entries\":{},\"blake3\":\"{}\"}}\n",
        lines.len().saturating_sub(1),
        Hash::blake3(&sealed)
    );
    sealed.extend(end.as_bytes());
    for bytes in [bytes, &sealed] {
        let Ok(read) = RestoredRecord::read(bytes) else {
            continue;
        };
        let mut writer = RecordWriter::begin(Vec::new(), &read.header).expect("memory takes it");
        for entry in read.entries.iter() {
            assert_ne!(entry.path, RESTORED.as_bytes());
            let _ = read.covers(entry.path);
            writer
                .entry(entry.to_bare_entry())
                .expect("memory takes it");
        }
        let written = writer.finish().expect("memory takes it");
        let again = RestoredRecord::read(&written[..]).expect("what is written is read");
        assert_eq!(again.header, read.header);
        assert_eq!(again.entries.len(), read.entries.len());
        for (one, other) in again.entries.iter().zip(read.entries.iter()) {
            assert_eq!(one.to_entry(), other.to_entry());
        }
        assert_eq!((again.bytes(), again.files()), (read.bytes(), read.files()));
        // A last line of more would be another record.
        assert!(RestoredRecord::read(&[&written[..], b"\n"].concat()[..]).is_err());
    }
}

/// Reads up to [`MOST_TAR_BYTES`]; an error in it must have a name.
fn read_tar(tar: Result<impl Read, OpenArchiveError>) -> Result<Vec<u8>, OpenArchiveError> {
    let mut content = Vec::new();
    let read = tar?.take(MOST_TAR_BYTES).read_to_end(&mut content);
    read.map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => OpenArchiveError::Truncated,
        _ => OpenArchiveError::Corrupt(error.to_string()),
    })?;
    Ok(content)
}

/// Refuses more than [`MOST_TAR_BYTES`].
struct Bounded(u64);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        match self.0 > MOST_TAR_BYTES {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(bytes.len()),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An archive: as ciphertext, as what was sealed (so zstd), and as the tar stream in it.
pub fn archive(bytes: &[u8]) {
    let People {
        recipients,
        identities,
        ..
    } = &*PEOPLE;
    let _ = AgeHeader::read(&mut &bytes[..]);
    let opened = read_tar(open_archive(bytes, identities));
    assert!(opened.is_err(), "it was not sealed to this key");

    let sealed = recipients.seal_bytes(bytes).unwrap();
    let head = AgeHeader::read(&mut &sealed[..]).expect("it was sealed just now");
    assert_eq!(head.stanzas(), recipients.count());
    let expected = read_tar(zstd::Decoder::new(bytes).map_err(|_| OpenArchiveError::Truncated));
    let opened = read_tar(open_archive(&sealed[..], identities));
    assert_eq!(opened.ok(), expected.ok());
    as_file(&sealed, |path| {
        let mut out = Bounded(0);
        let joined = concat_tars(&[path.to_owned(), path.to_owned()], identities, &mut out);
        assert!(joined.is_err() || out.0.is_multiple_of(2) && out.0 >= 1024);
    });
    for cut in [1, sealed.len() / 2] {
        let cut = &sealed[..sealed.len() - cut];
        assert!(
            read_tar(open_archive(cut, identities)).is_err(),
            "it is cut"
        );
    }

    let zipped = zstd::bulk::compress(bytes, 1).unwrap();
    let sealed = recipients.seal_bytes(&zipped).unwrap();
    let opened = read_tar(open_archive(&sealed[..], identities));
    assert_eq!(opened.expect("it is whole"), bytes);
}

/// A configuration, and the small values in one.
pub fn config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = parse_size(&text);
    let _ = parse_duration(&text);
    if let Ok(table) = Timetable::parse(&text, parse_size) {
        let again = Timetable::parse(&table.to_string(), parse_size);
        assert_eq!(again.expect("what is written is read"), table);
        let capped = table.capped(1);
        assert_eq!(capped.at(noon()), Some(1));
    }
    // A folder that is not there: no path in it names a real file unless it is absolute.
    let config = match Config::parse(&text, Path::new("/nowhere/sealift/sealift.toml")) {
        Ok(config) => config,
        Err(error) => {
            let _ = error.to_string();
            return;
        }
    };
    assert!(config.state.is_absolute() && config.snapshots_dir.is_absolute());
    if let Some(next_by) = config.schedule.next_by(noon()) {
        assert!(next_by > noon());
    }
    let candidates: Vec<_> = (1..20u64)
        .map(|sequence| retention::Candidate {
            late: sequence % 3 == 0,
            whole: sequence % 5 != 0,
            sequence,
            stamp: Stamp::at(noon() - chrono::Duration::hours(300 - 7 * sequence as i64)).unwrap(),
            pinned: sequence == 3,
            tags: match sequence {
                4 => retention::TagMatch::Kept,
                6 => retention::TagMatch::Unknown,
                _ => retention::TagMatch::None,
            },
            proven: sequence == 2,
        })
        .collect();
    for target in &config.targets {
        let Some(policy) = config.retention_of(target) else {
            continue;
        };
        let reasons = decide(&candidates, &policy, noon());
        assert!(!reasons.last().expect("one for each").is_empty());
    }
}

/// A signature, a list of signers, and files that hold keys.
pub fn signature(bytes: &[u8]) {
    let host: HostName = "dalidou".parse().unwrap();
    if let Ok(key) = signature::verify(bytes, MANIFEST_NAMESPACE, MESSAGE) {
        let fingerprint = signature::fingerprint(&key);
        assert!(signature::verify(bytes, PRUNE_NAMESPACE, MESSAGE).is_err());
        assert!(signature::verify(bytes, MANIFEST_NAMESPACE, b"other").is_err());
        assert!(Trust::Fingerprint(fingerprint.clone()).accepts(&host, MANIFEST_NAMESPACE, &key));
        let pinned = Trust::Fingerprint(PEOPLE.signer.fingerprint());
        let is_ours = fingerprint == PEOPLE.signer.fingerprint();
        assert_eq!(pinned.accepts(&host, MANIFEST_NAMESPACE, &key), is_ours);
    }
    let text = String::from_utf8_lossy(bytes);
    let key = PEOPLE.signer.public_key();
    let trust = Trust::AllowedSigners(parse_allowed_signers(bytes).signers);
    let longest: HostName = "a".repeat(64).parse().unwrap();
    let line = PEOPLE.signer.public_line();
    let digits = line.split(' ').nth(1).expect("kind, key, comment");
    // As OpenSSH reads base64: whitespace does not count.
    let dense: String = text.split(['\r', '\x0b', '\x0c']).collect();
    for host in [&host, &longest] {
        let accepts = trust.accepts(host, MANIFEST_NAMESPACE, key);
        assert!(!accepts || trust.names(host, key));
        assert!(!accepts || dense.contains(digits));
    }
    // What is no path is a fingerprint, a key or nothing.
    if !text.contains(['/', '.', '\0']) && !Path::new(&*text).exists() {
        let _ = Trust::parse(&text);
    }
    let nobody: Arc<dyn Prompt> = Arc::new(Nobody);
    as_file(bytes, |path| {
        let _ = Signer::load(path);
        let _ = Identities::load(&[path.to_owned()], &nobody);
        let name = path.display().to_string();
        let _ = Recipients::load(&[name], Path::new("/nowhere"));
    });
}

/// The catalog: a file that is one or claims to be, or rows that another program wrote; and the packer's
/// cache. Whatever is wrong with a catalog, the third run at the latest works.
pub fn catalog(bytes: &[u8]) {
    let dir = tempfile::tempdir_in(PEOPLE.scratch.path()).unwrap();
    let path = dir.path().join("catalog.db");
    match bytes.starts_with(SQLITE_MAGIC) {
        true => fs::write(&path, bytes).unwrap(),
        false => write_rows(&path, bytes),
    }
    let outcomes: Vec<_> = (0..3).map(|_| use_catalog(&path)).collect();
    match &outcomes[2] {
        Ok(()) | Err(CatalogError::Version { .. }) => {}
        Err(_) => panic!("{outcomes:?}"),
    }
    let cache = dir.path().join("cache");
    let writer = WriterId([7; 8]);
    fs::write(&cache, bytes).unwrap();
    read_cache(&cache, writer);
    fs::write(&cache, cache_of(writer, bytes)).unwrap();
    read_cache(&cache, writer);
}

/// A cache that holds `block`, which passes its check.
pub fn cache_of(writer: WriterId, block: &[u8]) -> Vec<u8> {
    let header = format!("{{\"writer\":\"{writer}\",\"databases\":[]}}");
    let mut plain = Vec::new();
    for field in [header.as_bytes(), block] {
        plain.extend((field.len() as u32).to_le_bytes());
        plain.extend(field);
    }
    plain.extend(&Hash::blake3(block).0[..8]);
    zstd::bulk::compress(&plain, 1).unwrap()
}

fn read_cache(path: &Path, writer: WriterId) {
    let next = |writer| ArchiveId { writer, counter: 1 };
    let mut cache = CacheReader::open(path, next(writer));
    // Past everything.
    assert!(
        cache
            .find(&[0xff; 64])
            .is_none_or(|found| found.path == [0xff; 64])
    );
    let of_another = next(WriterId([8; 8]));
    assert!(CacheReader::open(path, of_another).find(b"a").is_none());
}

const TABLES: [(&str, usize); 8] = [
    ("meta", 2),
    ("recipient_sets", 2),
    ("archives", 12),
    ("chunks", 4),
    ("placements", 2),
    ("snapshots", 7),
    ("publications", 4),
    ("checks", 4),
];

/// Rows of values of every type, as `bytes` say: a table, then for each column a type and a value.
fn write_rows(path: &Path, bytes: &[u8]) {
    use rusqlite::types::Value;
    drop(Catalog::open(path).unwrap());
    let db = rusqlite::Connection::open(path).unwrap();
    db.execute_batch("PRAGMA synchronous=OFF; BEGIN").unwrap();
    let mut left = bytes;
    let mut take = |count: usize| {
        let (taken, rest) = left.split_at(count.min(left.len()));
        left = rest;
        taken
    };
    while let [table] = take(1) {
        let (table, columns) = TABLES[usize::from(*table) % TABLES.len()];
        let mut values = Vec::new();
        for _ in 0..columns {
            values.push(match take(1) {
                [0] | [] => Value::Null,
                [kind @ 1..=8] => {
                    let mut number = [0; 8];
                    let given = take(usize::from(*kind));
                    number[..given.len()].copy_from_slice(given);
                    Value::Integer(i64::from_le_bytes(number))
                }
                [9] => Value::Real(f64::from(take(1).len() as u8)),
                [length @ 10..=127] => {
                    let text = take(usize::from(*length) - 10);
                    Value::Text(String::from_utf8_lossy(text).into_owned())
                }
                [length, ..] => Value::Blob(take(usize::from(*length) - 128).to_vec()),
            });
        }
        let marks = vec!["?"; columns].join(",");
        let sql = format!("INSERT OR REPLACE INTO {table} VALUES({marks})");
        // What the table itself refuses was never written.
        let _ = db.execute(&sql, rusqlite::params_from_iter(values));
    }
    db.execute_batch("COMMIT").unwrap();
}

/// Everything that a run asks of it, and some of what it writes.
fn use_catalog(path: &Path) -> Result<(), CatalogError> {
    const TARGET: &str = "t";
    let mut catalog = Catalog::open(path)?;
    catalog.meta("anything")?;
    let id = catalog.next_archive_id()?;
    assert!(id.counter > 0);
    catalog.recipient_sets()?;
    catalog.about_chunks()?;
    catalog.has_chunks()?;
    catalog.find_chunk(&[0; 24])?;
    catalog.end_lookups()?;
    catalog.chunk_table(1000)?;
    let archives = catalog.archives()?;
    let hashes = archives.iter().map(|archive| archive.row.blake3);
    let named = catalog.archives_named(hashes)?;
    catalog.placed_among(TARGET, named.iter().map(|archive| archive.n))?;
    catalog.archives_in_use()?;
    catalog.archives_in(&(0..256), TARGET)?;
    catalog.archive(1)?;
    catalog.count_placed(TARGET)?;
    catalog.placed_on(TARGET)?;
    for snapshot in catalog.snapshots()?.iter() {
        catalog.publication(TARGET, &snapshot.known.core)?;
    }
    catalog.last_published(TARGET)?;
    catalog.has_published(TARGET)?;
    catalog.completed(["20260407T060000Z".parse().unwrap()])?;
    catalog.last_run()?;
    catalog.checks(TARGET)?;
    catalog.unusable()?;
    catalog.full_reading(TARGET)?;
    catalog.set_meta("anything", "else")?;
    catalog.set_placements(TARGET, archives.iter().map(|archive| archive.n))?;
    let run = catalog.begin_run(noon())?;
    catalog.end_run(run, noon(), None, "failed", "")
}

/// Statements beside the manifests, and every name.
pub fn statement(bytes: &[u8]) {
    let host: HostName = "dalidou".parse().unwrap();
    let signer = &PEOPLE.signer;
    let trust = Trust::Fingerprint(signer.fingerprint());
    let hash16 = Hash::sha256(bytes).short();
    if let Some((sequence, stamp)) = sequence_and_stamp(bytes) {
        let name = ManifestName {
            sequence,
            stamp,
            hash16: hash16.clone(),
        };
        let verify = |signature: &str, trust: &Trust| {
            Tombstone::verify(&host, &name, bytes, signature.as_bytes(), trust, &[])
        };
        let ours = signer.sign(PRUNE_NAMESPACE, bytes).unwrap();
        let other = signer.sign(MANIFEST_NAMESPACE, bytes).unwrap();
        assert_eq!(verify(&other, &trust), None);
        assert_eq!(verify(&ours, &Trust::FirstSeen), None);
        if let Some(found) = verify(&ours, &trust) {
            let [_, (key, written)] = found.sign(signer).unwrap();
            let name = Tombstone::name_of(key.as_str()).expect("it has a name");
            let signature = signer.sign(PRUNE_NAMESPACE, &written).unwrap();
            let signature = signature.as_bytes();
            let again = Tombstone::verify(&host, &name, &written, signature, &trust, &[]);
            assert_eq!(again, Some(found));
        }
    }
    let name = MarkName::from_key(&format!("marks/{hash16}.json")).expect("it is one");
    if let Ok(mark) = Mark::parse_named(&name, &host, bytes) {
        let (name, written) = mark.encode();
        let again = Mark::parse_named(&name, &host, &written).expect("what is written is read");
        assert_eq!(again, mark);
    }
    names(&String::from_utf8_lossy(bytes));
    let state = tempfile::tempdir_in(PEOPLE.scratch.path()).unwrap();
    fs::write(state.path().join("pins"), bytes).unwrap();
    if let Ok(mut pins) = sealift::state::pins::read_noted(state.path()) {
        sealift::state::pins::write(state.path(), &pins).unwrap();
        // A note becomes one line of words.
        for note in pins.values_mut() {
            let words = note.iter().flat_map(|note| note.split_whitespace());
            let words = words.collect::<Vec<_>>().join(" ");
            *note = (!words.is_empty()).then_some(words);
        }
        assert_eq!(
            sealift::state::pins::read_noted(state.path()).unwrap(),
            pins
        );
    }
    fs::write(state.path().join("figures.json"), bytes).unwrap();
    if let Ok(Some(memory)) = sealift::state::figures::load(state.path()) {
        sealift::state::figures::save(state.path(), &memory).unwrap();
        let again = sealift::state::figures::load(state.path()).unwrap();
        assert_eq!(again, Some(memory));
    }
}

/// Those of a tombstone, found without its parser.
fn sequence_and_stamp(bytes: &[u8]) -> Option<(u64, Stamp)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let after = |key: &str| text.split(key).nth(1);
    let is_digit = |c: char| c.is_ascii_digit();
    let digits = after("\"sequence\":")?.split(|c| !is_digit(c)).next()?;
    let stamp = after("\"stamp\":\"")?.split('"').next()?;
    Some((digits.parse().ok()?, stamp.parse().ok()?))
}

/// A name that is accepted is written as it was read.
fn names(text: &str) {
    fn one<T: std::str::FromStr + std::fmt::Display>(text: &str) {
        if let Ok(name) = text.parse::<T>() {
            assert_eq!(name.to_string(), text);
        }
    }
    one::<HostName>(text);
    one::<Stamp>(text);
    one::<WriterId>(text);
    one::<ArchiveId>(text);
    one::<Hash>(text);
    one::<ManifestName>(text);
    if let Some(name) = ManifestName::from_key(text) {
        assert_eq!(name.key().as_str(), text);
    }
    if let Some(name) = Tombstone::name_of(text) {
        assert_eq!(ObjectKey::tombstone(&name).as_str(), text);
    }
    if let Some(name) = MarkName::from_key(text) {
        assert_eq!(name.key().as_str(), text);
    }
    if let Some(hash) = ObjectKey::archive_hash(text) {
        assert_eq!(ObjectKey::archive(&hash).as_str(), text);
    }
    let _ = ObjectKey::archive_file_hash(text);
}

/// Where the seeds of `target` are.
pub fn seeds(target: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fuzz = match root.ends_with("fuzz") {
        true => root.to_owned(),
        false => root.join("fuzz"),
    };
    fuzz.join("seeds").join(target)
}
