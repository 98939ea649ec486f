//! One sealed archive on a target that counts what is asked of it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use sealift::base::ids::{ArchiveId, Hash, WriterId};
use sealift::format::archive::seek_table::SeekTable;
use sealift::format::manifest::{ArchiveKind, ArchiveRow};
use sealift::repository::{ArchiveTable, HostFolder};
use sealift::restore::open::{Identities, generate};
use sealift::restore::{RangeReader, RangeReaderOptions};
use sealift::storage::{Body, ErrorKind, Listed, PutMode, PutOutcome, Storage, TargetError};

use crate::support::handmade_repo::load;
use crate::support::tree::noise;

/// What the archive's end says of its frames.
#[derive(Debug, Clone, Copy)]
pub enum Table {
    Right,
    /// There is none.
    Absent,
    /// The frames fill the archive, but each begins elsewhere.
    Shifted,
}

pub struct Scene {
    pub target: Arc<OneObject>,
    pub row: ArchiveRow,
    pub tar: Vec<u8>,
    /// The frames and their table.
    stream: Vec<u8>,
    recipient: age::x25519::Recipient,
    identities: Arc<Identities>,
}

/// Encrypts `stream` to `recipient`, as anyone can who knows it.
fn seal(stream: &[u8], recipient: &age::x25519::Recipient) -> Vec<u8> {
    let recipients = std::iter::once(recipient as &dyn age::Recipient);
    let mut sealed = Vec::new();
    let encryptor = age::Encryptor::with_recipients(recipients).unwrap();
    let mut writer = encryptor.wrap_output(&mut sealed).unwrap();
    writer.write_all(stream).unwrap();
    writer.finish().unwrap();
    sealed
}

pub fn memory_only() -> RangeReaderOptions {
    RangeReaderOptions {
        cache_dir: None,
        cache_bytes: 0,
        memory_bytes: 256 << 20,
    }
}

pub fn with_cache(dir: &Path) -> RangeReaderOptions {
    RangeReaderOptions {
        cache_dir: Some(dir.to_owned()),
        cache_bytes: 1 << 30,
        ..memory_only()
    }
}

fn content(seed: u64, bytes: usize) -> Vec<u8> {
    match seed {
        0 => (0..bytes)
            .map(|at| b"some text, again. "[at % 18])
            .collect(),
        seed => noise(seed, bytes),
    }
}

impl Scene {
    /// An archive with frames of these contents: a seed and a size each; the seed 0 is text.
    pub fn new(frames: &[(u64, usize)], kind: Table) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let (secret, recipient) = generate();
        let key = temp.path().join("key");
        std::fs::write(&key, secret).unwrap();
        let (mut tar, mut stream) = (Vec::new(), Vec::new());
        let mut table = SeekTable::default();
        for (number, (seed, bytes)) in frames.iter().enumerate() {
            let content = content(*seed, *bytes);
            let frame = zstd::bulk::compress(&content, 3).unwrap();
            let shift = match (kind, number) {
                (Table::Shifted, 0) if frames.len() > 1 => 1,
                (Table::Shifted, last) if last > 0 && last + 1 == frames.len() => -1,
                _ => 0,
            };
            table.add(frame.len().saturating_add_signed(shift), content.len());
            tar.extend(content);
            stream.extend(frame);
        }
        if !matches!(kind, Table::Absent) {
            stream.extend(table.encode());
        }
        let recipient: age::x25519::Recipient = recipient.parse().unwrap();
        let sealed = seal(&stream, &recipient);
        let head = sealed.windows(5).position(|at| at == b"\n--- ").unwrap() + 1;
        let line = sealed[head..]
            .iter()
            .position(|byte| *byte == b'\n')
            .unwrap();
        let row = ArchiveRow {
            id: ArchiveId {
                writer: WriterId::random().unwrap(),
                counter: 1,
            },
            kind: ArchiveKind::Data,
            blake3: Hash::blake3(&sealed),
            sha256: Hash::sha256(&sealed),
            bytes: sealed.len() as u64,
            recipient_set: "0123456789abcdef".to_owned(),
            head_sha256: Hash::sha256(&sealed[..head + line + 1 + 16]),
        };
        Self {
            target: Arc::new(OneObject::new(sealed)),
            row,
            tar,
            stream,
            recipient,
            identities: Arc::new(load(&key).unwrap()),
        }
    }

    /// Returns another archive of the same content, the same size and for the same recipient.
    pub fn sealed_again(&self) -> Vec<u8> {
        // A header has a part of random length.
        let mut tries = (0..100_000).map(|_| seal(&self.stream, &self.recipient));
        let same = tries.find(|sealed| sealed.len() as u64 == self.row.bytes);
        same.expect("one of the same size")
    }

    pub fn reader(&self, options: RangeReaderOptions) -> RangeReader {
        let folder = HostFolder::new(self.target.clone(), "web1".parse().unwrap());
        RangeReader::new(folder, self.identities.clone(), options)
    }

    pub fn table(&self) -> ArchiveTable {
        ArchiveTable {
            rows: BTreeMap::from([(self.row.id, self.row.clone())]),
            sets: BTreeMap::new(),
        }
    }
}

#[derive(Debug)]
pub struct OneObject {
    sealed: Mutex<Bytes>,
    requests: Mutex<Vec<Range<u64>>>,
    pub streams: AtomicUsize,
    pub has_ranges: AtomicBool,
    is_frozen: AtomicBool,
    wait: Mutex<Duration>,
}

impl OneObject {
    fn new(sealed: Vec<u8>) -> Self {
        Self {
            sealed: Mutex::new(sealed.into()),
            requests: Mutex::default(),
            streams: AtomicUsize::new(0),
            has_ranges: AtomicBool::new(true),
            is_frozen: AtomicBool::new(false),
            wait: Mutex::default(),
        }
    }

    pub fn sealed(&self) -> Vec<u8> {
        self.sealed.lock().unwrap().to_vec()
    }

    pub fn set(&self, sealed: Vec<u8>) {
        *self.sealed.lock().unwrap() = sealed.into();
    }

    pub fn requests(&self) -> Vec<Range<u64>> {
        self.requests.lock().unwrap().clone()
    }

    pub fn freeze(&self) {
        self.is_frozen.store(true, Ordering::Relaxed);
    }

    pub fn wait(&self, time: Duration) {
        *self.wait.lock().unwrap() = time;
    }

    fn error(&self, key: &str, kind: ErrorKind) -> TargetError {
        TargetError {
            operation: "get",
            key: key.to_owned(),
            target: "shelf".to_owned(),
            kind,
            source: "no".into(),
        }
    }
}

#[async_trait::async_trait]
impl Storage for OneObject {
    fn label(&self) -> &str {
        "shelf"
    }

    async fn list(&self, _: &str) -> Result<Vec<Listed>, TargetError> {
        Ok(Vec::new())
    }

    async fn list_folders(&self) -> Result<Vec<String>, TargetError> {
        Ok(Vec::new())
    }

    async fn put(&self, key: &str, _: Body, _: PutMode) -> Result<PutOutcome, TargetError> {
        Err(self.error(key, ErrorKind::Denied))
    }

    async fn get(&self, key: &str, _: u64) -> Result<Bytes, TargetError> {
        Err(self.error(key, ErrorKind::Denied))
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, TargetError> {
        self.requests.lock().unwrap().push(range.clone());
        let wait = *self.wait.lock().unwrap();
        tokio::time::sleep(wait).await;
        if self.is_frozen.load(Ordering::Relaxed) {
            return Err(self.error(key, ErrorKind::Frozen));
        }
        let sealed = self.sealed.lock().unwrap();
        match range.end <= sealed.len() as u64 {
            true => Ok(sealed.slice(range.start as usize..range.end as usize)),
            false => Err(self.error(key, ErrorKind::Permanent)),
        }
    }

    fn has_ranges(&self) -> bool {
        self.has_ranges.load(Ordering::Relaxed)
    }

    async fn stream(
        &self,
        _: &str,
        _: u64,
    ) -> Result<BoxStream<'static, Result<Bytes, TargetError>>, TargetError> {
        self.streams.fetch_add(1, Ordering::Relaxed);
        let sealed = self.sealed.lock().unwrap().clone();
        let pieces: Vec<_> = sealed.chunks(100_000).map(Bytes::copy_from_slice).collect();
        Ok(futures::stream::iter(pieces.into_iter().map(Ok)).boxed())
    }

    async fn delete(&self, key: &str) -> Result<(), TargetError> {
        Err(self.error(key, ErrorKind::Denied))
    }
}
