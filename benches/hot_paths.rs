//! The hot paths, each alone: `cargo bench --bench hot_paths [-- FILTER]`.
//!
//! `chunk+hash` cuts and hashes what the packer reads; `catalog` looks chunks up among a million; `seal` is
//! the tar stream's way into the spool, read back and compared, fsync included; `open` the way out; `index`
//! writes and reads entry lines.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit
)]
#![allow(clippy::too_many_arguments, unreachable_pub, missing_docs, unsafe_code)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::{self, Read as _};
use std::sync::Arc;
use std::time::Duration;

use age::secrecy::{ExposeSecret as _, SecretString};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use sealift::base::ids::{ArchiveId, Hash, ObjectKey, WriterId};
use sealift::format::index::{
    ArchiveStream, Entry, EntryType, Extent, IndexHeader, IndexReader, ValidationRecord,
};
use sealift::format::manifest::{ArchiveKind, ArchiveRow, FORMAT};
use sealift::packer::chunk_hash::hash_chunks;
use sealift::packer::chunker::{BLOCK, Chunker};
use sealift::packer::seal::{Recipients, Sealer, Texture};
use sealift::restore::open::{Identities, Prompt, open_archive};
use sealift::state::catalog::{Catalog, ChunkHash, NewArchive, NewChunk};
use sealift::state::spool::Spool;

const MIB: usize = 1 << 20;

/// Never repeats itself: as vectors, or what is compressed already.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut out);
    out
}

/// Sealift's own sources, in ever other order: compresses as text does.
fn text(bytes: usize) -> Vec<u8> {
    const SOURCE: &str = concat!(
        include_str!("../src/packer.rs"),
        include_str!("../src/state/catalog.rs"),
        include_str!("../src/restore.rs"),
        include_str!("../src/storage.rs"),
        include_str!("../docs/format.md"),
    );
    let lines: Vec<&str> = SOURCE.split_inclusive('\n').collect();
    let mut out = Vec::with_capacity(bytes + 256);
    for pick in noise(1, bytes).chunks_exact(4) {
        let pick = u32::from_le_bytes([pick[0], pick[1], pick[2], pick[3]]);
        out.extend_from_slice(lines[pick as usize % lines.len()].as_bytes());
        if out.len() >= bytes {
            break;
        }
    }
    out.truncate(bytes);
    out
}

fn chunk_and_hash(criterion: &mut Criterion) {
    let content = noise(2, 8 * MIB);
    let mut group = criterion.benchmark_group("chunk+hash");
    group.throughput(Throughput::Bytes(content.len() as u64));
    let chunkers = [
        ("fixed 4 KiB", Chunker::Fixed(BLOCK)),
        ("FastCDC, files", Chunker::Content),
        ("FastCDC, index", Chunker::Index),
    ];
    let mut chunks = Vec::new();
    for (name, chunker) in chunkers {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                chunks.clear();
                hash_chunks(&content, &chunker.cut(&content, true), &mut chunks);
                black_box(&chunks);
            });
        });
    }
    group.finish();
}

const CHUNKS: u64 = 1_000_000;
const CHUNKS_PER_ARCHIVE: u64 = 16_384;

fn chunk_hash(number: u64) -> ChunkHash {
    let mut hash = [0; 24];
    hash.copy_from_slice(&blake3::hash(&number.to_le_bytes()).as_bytes()[..24]);
    hash
}

fn fill_catalog(catalog: &mut Catalog) {
    let recipient_set = catalog.remember_recipients(&["age1".to_owned()]).unwrap();
    for start in (0..CHUNKS).step_by(CHUNKS_PER_ARCHIVE as usize) {
        let name = Hash::blake3(&start.to_le_bytes());
        let row = ArchiveRow {
            id: catalog.next_archive_id().unwrap(),
            kind: ArchiveKind::Data,
            blake3: name,
            sha256: name,
            bytes: 64 << 20,
            recipient_set: recipient_set.clone(),
            head_sha256: name,
        };
        let end = (start + CHUNKS_PER_ARCHIVE).min(CHUNKS);
        let mut chunks: Vec<_> = (start..end)
            .map(|number| NewChunk {
                hash: chunk_hash(number),
                archive: 0,
                offset: (number - start) * 4096,
                length: 4096,
            })
            .collect();
        chunks.sort_unstable();
        let archive = NewArchive {
            row,
            tar_bytes: 64 << 20,
            tar_blake3: name,
        };
        catalog.commit_archives(&[archive], &chunks).unwrap();
    }
}

fn catalog(criterion: &mut Criterion) {
    let temp = tempfile::tempdir().unwrap();
    let mut group = criterion.benchmark_group("catalog of a million chunks");
    let mut filled: Option<Catalog> = None;
    for (name, first) in [
        ("hit", 0),
        ("hit, in order of packing", 0),
        ("miss", CHUNKS),
    ] {
        // In an order that has nothing to do with where the rows lie, or that of a file read again.
        let stride = if name.contains("order") { 1 } else { 7919 };
        let wanted: Vec<ChunkHash> = (0..CHUNKS / 10)
            .map(|number| chunk_hash(first + number * stride % CHUNKS))
            .collect();
        let mut next = wanted.iter().cycle();
        group.throughput(Throughput::Elements(1));
        group.bench_function(name, |bencher| {
            let catalog = filled.get_or_insert_with(|| {
                let mut catalog = Catalog::open(&temp.path().join("catalog.db")).unwrap();
                fill_catalog(&mut catalog);
                catalog
            });
            catalog.begin_lookups().unwrap();
            bencher.iter(|| black_box(catalog.find_chunk(next.next().unwrap()).unwrap()));
        });
    }
    group.finish();
}

struct NoPrompt;

impl Prompt for NoPrompt {
    fn passphrase(&self, _what: &str) -> Option<SecretString> {
        None
    }
    fn message(&self, _text: &str) {}
}

/// A spool, and who may open what is in it.
struct Vault {
    temp: tempfile::TempDir,
    spool: Spool,
    recipients: Arc<Recipients>,
    identities: Identities,
}

impl Vault {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let identity = age::x25519::Identity::generate();
        let key = temp.path().join("key.txt");
        std::fs::write(&key, identity.to_string().expose_secret()).unwrap();
        let prompt: Arc<dyn Prompt> = Arc::new(NoPrompt);
        let recipient = [identity.to_public().to_string()];
        Self {
            spool: Spool::open(&temp.path().join("spool")).unwrap(),
            recipients: Arc::new(Recipients::load(&recipient, temp.path()).unwrap()),
            identities: Identities::load(&[key], &prompt).unwrap(),
            temp,
        }
    }

    fn sealer(&self) -> Sealer {
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        Sealer::start(self.recipients.clone(), self.spool.clone(), 3, threads).unwrap()
    }
}

/// Seals one archive; gives its key.
fn seal_one(sealer: &mut Sealer, tar: &[u8]) -> ObjectKey {
    // As members come.
    for member in tar.chunks(64 << 10) {
        sealer.write(member, Texture::Other).unwrap();
    }
    sealer.finish_archive().unwrap();
    let sealed = sealer.next_sealed().unwrap().unwrap();
    ObjectKey::archive(&sealed.blake3)
}

fn seal_and_open(criterion: &mut Criterion) {
    let contents = [("text", text(64 * MIB)), ("noise", noise(3, 64 * MIB))];
    let vault = Vault::new();
    let mut group = criterion.benchmark_group("seal 64 MiB of tar");
    group.sample_size(10);
    for (name, tar) in &contents {
        group.throughput(Throughput::Bytes(tar.len() as u64));
        let mut sealer = vault.sealer();
        group.bench_function(*name, |bencher| {
            bencher.iter(|| {
                let key = seal_one(&mut sealer, tar);
                vault.spool.remove(key.as_str()).unwrap();
            });
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("open 64 MiB of tar");
    group.sample_size(10);
    for (name, tar) in &contents {
        group.throughput(Throughput::Bytes(tar.len() as u64));
        let key = seal_one(&mut vault.sealer(), tar);
        let sealed = vault.spool.read(&key).unwrap();
        group.bench_function(*name, |bencher| {
            let mut buffer = vec![0; 256 << 10];
            bencher.iter(|| {
                let mut opened = open_archive(sealed.as_slice(), &vault.identities).unwrap();
                let mut bytes = 0;
                loop {
                    match opened.read(&mut buffer).unwrap() {
                        0 => break,
                        count => bytes += count,
                    }
                }
                assert_eq!(bytes, tar.len());
            });
        });
    }
    group.finish();
    vault.temp.close().unwrap();
}

const ENTRIES: u64 = 20_000;

/// Entries of a tree; every twentieth a database that changed here and there.
fn entries(writer: WriterId) -> Vec<Entry> {
    let file = |number: u64| {
        let extents = if number.is_multiple_of(20) { 50 } else { 1 };
        let extent = |n: u64| Extent {
            archive: Some(ArchiveId { writer, counter: 1 }),
            offset: number * 4096 + n * 8192,
            length: 4096,
        };
        Entry {
            path: format!("file-{number:08}").into_bytes(),
            kind: EntryType::File,
            mode: 0o644,
            uid: 1000,
            gid: 1000,
            user: Some("atocore".to_owned()),
            group: Some("atocore".to_owned()),
            mtime_ns: 1_775_000_000_123_456_789 + i128::from(number),
            xattrs: BTreeMap::new(),
            size: extents * 4096,
            blake3: Some(Hash::blake3(&number.to_le_bytes())),
            extents: (0..extents).map(extent).collect(),
            target: None,
            rdev: None,
            torn: false,
        }
    };
    (0..ENTRIES).map(file).collect()
}

fn line(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

fn write_lines(out: &mut impl io::Write, entries: &[Entry]) {
    for entry in entries {
        let mut line = entry.to_line();
        line.push(b'\n');
        out.write_all(&line).unwrap();
    }
}

fn index(criterion: &mut Criterion) {
    let writer = WriterId::random().unwrap();
    let entries = entries(writer);
    let header = IndexHeader {
        format: FORMAT,
        host: "dalidou".parse().unwrap(),
        stamp: "20260407T060000Z".parse().unwrap(),
        salt: "0".repeat(64),
        tags: Vec::new(),
        note: None,
        sources: Vec::new(),
        validation: ValidationRecord {
            valid: true,
            checked_at: "2026-04-07T06:00:00Z".parse().unwrap(),
            errors: Vec::new(),
        },
        databases: Vec::new(),
        skipped: Vec::new(),
        archives: 1,
        entries: ENTRIES,
    };
    let archive = ArchiveStream {
        archive: ArchiveId { writer, counter: 1 },
        tar_bytes: 1 << 40,
        tar_blake3: Hash([0; 32]),
    };
    let mut whole = [line(&header), line(&archive), Vec::new()].join(&b'\n');
    write_lines(&mut whole, &entries);
    let mut group = criterion.benchmark_group("index");
    group.throughput(Throughput::Bytes(whole.len() as u64));
    group.bench_function("write", |bencher| {
        let buffer = || Vec::with_capacity(whole.len());
        bencher.iter_batched_ref(
            buffer,
            |out| write_lines(out, &entries),
            BatchSize::LargeInput,
        );
    });
    group.bench_function("read", |bencher| {
        bencher.iter(|| {
            let reader = IndexReader::new(whole.as_slice()).unwrap();
            assert_eq!(reader.map(Result::unwrap).count() as u64, ENTRIES);
        });
    });
    group.finish();
}

criterion_group! {
    name = hot_paths;
    config = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .sample_size(20);
    targets = chunk_and_hash, catalog, seal_and_open, index
}
criterion_main!(hot_paths);
