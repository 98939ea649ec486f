//! A hand-made writer of format 1, for tests of its readers only: no catalog, no spool, no care for
//! speed. It knows docs/format.md and shares nothing with the packer but the types of the format, so
//! a misreading of the format shows when the two meet.
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sealift::base::ids::{ArchiveId, Hash, HostName, ObjectKey, Stamp, WriterId};
use sealift::base::progress::Silent;
use sealift::base::snapshot_choice::SnapshotChoice;
use sealift::format::index::{
    ArchiveStream, DatabaseRecord, Entry, EntryType, Extent, IndexHeader, ValidationRecord,
    push_extent,
};
use sealift::format::known::KnownRef;
use sealift::format::manifest::{
    ArchiveKind, ArchiveRow, IndexRef, Known, Manifest, ManifestCore, Totals, paginate,
    recipient_set_name,
};
use sealift::format::signature::{MANIFEST_NAMESPACE, Signer, Trust};
use sealift::repository::HostFolder;
use sealift::restore::open::{Identities, Prompt, SecretString, generate};
use sealift::restore::{self, DatabaseCheck, RestoreError, RestoreReport, RestoreRequest};
use sealift::storage::{self, TargetSpec};

use super::tree::scan;

const BLOCK: usize = 4096;
/// Zeros from this size on become holes.
const HOLE: usize = 64 << 10;
/// Far smaller than real ones, so that a small tree takes several.
const ARCHIVE_BYTES: usize = 160 << 10;
const FRAME_BYTES: usize = 64 << 10;

pub const FIRST_STAMP: &str = "20260407T060000Z";

/// What a lying host changes before it seals and signs.
pub struct Draft {
    pub header: IndexHeader,
    pub archives: Vec<ArchiveStream>,
    pub entries: Vec<Entry>,
    /// Appended behind the entries as they are.
    pub raw_lines: Vec<Vec<u8>>,
}

pub struct Repo {
    pub temp: tempfile::TempDir,
    pub host: HostName,
    pub signer: Signer,
    pub key_file: PathBuf,
    pub recipients: Vec<String>,
    pub writer: WriterId,
    counter: u64,
    chunks: HashMap<Hash, Extent>,
    rows: BTreeMap<ArchiveId, ArchiveRow>,
    streams: BTreeMap<ArchiveId, ArchiveStream>,
    pub known: Vec<Known>,
    pub stamp: Stamp,
    pub databases: Vec<DatabaseRecord>,
}

impl Repo {
    pub fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let (text, recipient) = generate();
        let key_file = temp.path().join("key.txt");
        fs::write(&key_file, text).unwrap();
        let host: HostName = "dalidou".parse().unwrap();
        fs::create_dir_all(temp.path().join("repo").join(host.as_str())).unwrap();
        Self {
            host,
            signer: Signer::generate("dalidou").unwrap(),
            key_file,
            recipients: vec![recipient],
            writer: WriterId::random().unwrap(),
            counter: 0,
            chunks: HashMap::new(),
            rows: BTreeMap::new(),
            streams: BTreeMap::new(),
            known: Vec::new(),
            stamp: FIRST_STAMP.parse().unwrap(),
            databases: Vec::new(),
            temp,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// The host's folder.
    pub fn folder(&self) -> PathBuf {
        self.path("repo").join(self.host.as_str())
    }

    pub fn target(&self) -> HostFolder {
        let url = self.path("repo").display().to_string();
        let target = storage::open(&TargetSpec::from_url(&url)).unwrap();
        HostFolder::new(target, self.host.clone())
    }

    pub fn identities(&self) -> Arc<Identities> {
        load(&self.key_file).unwrap().into()
    }

    /// Objects below `folder` (`archives`, …), by key.
    pub fn objects(&self, folder: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut dirs = vec![self.folder().join(folder)];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => dirs.push(path),
                    false => found.push(path),
                }
            }
        }
        found.sort();
        found
    }

    /// The archive file of `kind` with the highest counter.
    pub fn newest_archive(&self, kind: ArchiveKind) -> PathBuf {
        let row = self.rows.values().rfind(|row| row.kind == kind).unwrap();
        self.folder().join(row.key().as_str())
    }

    pub fn newest_row(&mut self, kind: ArchiveKind) -> &mut ArchiveRow {
        let of_kind = self.rows.values_mut().filter(|row| row.kind == kind);
        of_kind.last().unwrap()
    }

    pub fn push(&mut self, tree: &Path) -> Manifest {
        self.push_changed(tree, |_| {})
    }

    /// Packs `tree` as the next snapshot; `lie` may change the index before it is sealed.
    pub fn push_changed(&mut self, tree: &Path, lie: impl FnOnce(&mut Draft)) -> Manifest {
        let mut entries = scan(tree);
        let mut tar = TarStream::default();
        for entry in &mut entries {
            if entry.kind == EntryType::File {
                let content =
                    fs::read(tree.join(std::ffi::OsStr::from_bytes(&entry.path))).unwrap();
                entry.blake3 = Some(Hash::blake3(&content));
                entry.extents = self.store(&mut tar, &entry.path, &content);
                if tar.bytes.len() > ARCHIVE_BYTES {
                    self.seal(std::mem::take(&mut tar), ArchiveKind::Data);
                }
            }
        }
        if !tar.bytes.is_empty() {
            self.seal(tar, ArchiveKind::Data);
        }
        let mut needed: Vec<ArchiveId> = entries
            .iter()
            .flat_map(|entry| entry.extents.iter().filter_map(|extent| extent.archive))
            .collect();
        needed.sort();
        needed.dedup();
        let mut draft = Draft {
            header: self.header(),
            archives: needed.iter().map(|id| self.streams[id]).collect(),
            entries,
            raw_lines: Vec::new(),
        };
        lie(&mut draft);
        self.publish(draft)
    }

    fn header(&self) -> IndexHeader {
        let mut salt = [0; 32];
        getrandom::fill(&mut salt).unwrap();
        IndexHeader {
            format: 1,
            host: self.host.clone(),
            stamp: self.stamp,
            salt: sealift::base::ids::hex(&salt),
            tags: Vec::new(),
            note: None,
            sources: Vec::new(),
            validation: ValidationRecord {
                valid: true,
                checked_at: self.stamp.time(),
                errors: Vec::new(),
            },
            databases: self.databases.clone(),
            skipped: Vec::new(),
            archives: 0,
            entries: 0,
        }
    }

    /// Cuts `content` into blocks; known ones become extents, zeros holes, the rest goes to `tar`.
    fn store(&mut self, tar: &mut TarStream, path: &[u8], content: &[u8]) -> Vec<Extent> {
        let id = self.next_id();
        let mut extents = Vec::new();
        let whole = content.len() <= 2 * BLOCK;
        let mut at = 0;
        while at < content.len() {
            let hole = content[at..].iter().take_while(|byte| **byte == 0).count() / HOLE * HOLE;
            if at.is_multiple_of(HOLE) && hole > 0 {
                let length = hole as u64;
                let (archive, offset) = (None, 0);
                push_extent(
                    &mut extents,
                    Extent {
                        archive,
                        offset,
                        length,
                    },
                );
                at += hole;
                continue;
            }
            let size = if whole { content.len() } else { BLOCK };
            let chunk = &content[at..content.len().min(at + size)];
            let extent = *self.chunks.entry(Hash::blake3(chunk)).or_insert_with(|| {
                let member = match whole {
                    true => [b"files/", path].concat(),
                    false => [b"blocks/", path, format!("/{at:016x}").as_bytes()].concat(),
                };
                Extent {
                    archive: Some(id),
                    offset: tar.add(&member, chunk),
                    length: chunk.len() as u64,
                }
            });
            push_extent(&mut extents, extent);
            at += chunk.len();
        }
        extents
    }

    pub fn next_id(&self) -> ArchiveId {
        ArchiveId {
            writer: self.writer,
            counter: self.counter + 1,
        }
    }

    fn seal(&mut self, tar: TarStream, kind: ArchiveKind) -> ArchiveId {
        let id = self.next_id();
        let plain = tar.finish();
        self.streams.insert(
            id,
            ArchiveStream {
                archive: id,
                tar_bytes: plain.len() as u64,
                tar_blake3: Hash::blake3(&plain),
            },
        );
        let sealed = seal_tar(&plain, &self.recipients);
        self.add_archive(&sealed, kind);
        id
    }

    /// Stores a sealed archive under the next id.
    pub fn add_archive(&mut self, sealed: &[u8], kind: ArchiveKind) -> ArchiveId {
        let id = self.next_id();
        self.counter += 1;
        let row = ArchiveRow {
            id,
            kind,
            blake3: Hash::blake3(sealed),
            sha256: Hash::sha256(sealed),
            bytes: sealed.len() as u64,
            recipient_set: recipient_set_name(&self.recipients),
            head_sha256: head_sha256(sealed),
        };
        self.write(row.key().as_str(), sealed);
        self.rows.insert(id, row);
        id
    }

    pub fn write(&self, key: &str, bytes: &[u8]) {
        let path = self.folder().join(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn publish(&mut self, mut draft: Draft) -> Manifest {
        draft.header.archives = draft.archives.len() as u64;
        draft.header.entries = (draft.entries.len() + draft.raw_lines.len()) as u64;
        let mut index = serde_json::to_vec(&draft.header).unwrap();
        for stream in &draft.archives {
            index.push(b'\n');
            index.extend(serde_json::to_vec(stream).unwrap());
        }
        for line in draft
            .entries
            .iter()
            .map(Entry::to_line)
            .chain(draft.raw_lines)
        {
            index.push(b'\n');
            index.extend(line);
        }
        index.push(b'\n');
        self.publish_index(
            &index,
            draft.archives.iter().map(|stream| stream.archive).collect(),
        )
    }

    /// Seals `index` in two runs and signs a manifest over it.
    pub fn publish_index(&mut self, index: &[u8], mut needed: Vec<ArchiveId>) -> Manifest {
        let mut extents = Vec::new();
        let mut tar = TarStream::default();
        let id = self.next_id();
        let cut = index.len() / 2;
        for (at, part) in [(0, &index[..cut]), (cut, &index[cut..])] {
            let offset = tar.add(format!("index/{at:016x}").as_bytes(), part);
            let (archive, length) = (Some(id), part.len() as u64);
            extents.push(Extent {
                archive,
                offset,
                length,
            });
        }
        needed.push(self.seal(tar, ArchiveKind::Index));
        let reference = IndexRef {
            extents,
            bytes: index.len() as u64,
            blake3: Hash::blake3(index),
        };
        self.publish_manifest(reference, &needed)
    }

    pub fn publish_manifest(&mut self, index: IndexRef, needed: &[ArchiveId]) -> Manifest {
        let sets = BTreeMap::from([(
            recipient_set_name(&self.recipients),
            self.recipients.clone(),
        )]);
        let rows = needed.iter().filter_map(|id| self.rows.get(id).cloned());
        let pages = paginate(rows.collect(), &sets);
        for (hash, bytes) in &pages {
            self.write(ObjectKey::table(hash).as_str(), bytes);
        }
        let core = ManifestCore {
            format: 1,
            requires: Vec::new(),
            host: self.host.clone(),
            stamp: self.stamp,
            sequence: self.known.last().map_or(1, |known| known.sequence + 1),
            parents: self
                .known
                .last()
                .map(|known| known.core)
                .into_iter()
                .collect(),
            writer: self.writer,
            machine: "0".repeat(32),
            known: KnownRef::Inline(self.known.clone()),
            marks_seen: Vec::new(),
            next_by: None,
            recipients: self.recipients.clone(),
            index,
            totals: Totals::default(),
            next_signer: None,
        };
        let manifest = Manifest::new(core, pages.iter().map(|(hash, _)| *hash).collect());
        self.sign(&manifest);
        self.known.push(manifest.as_known());
        self.stamp = self.stamp.next();
        manifest
    }

    pub fn sign(&self, manifest: &Manifest) {
        let name = manifest.name();
        let signature = self
            .signer
            .sign(MANIFEST_NAMESPACE, &manifest.bytes)
            .unwrap();
        self.write(name.signature_key().as_str(), signature.as_bytes());
        self.write(name.key().as_str(), &manifest.bytes);
    }
}

/// A tar stream and where each member's content is in it.
#[derive(Default)]
pub struct TarStream {
    bytes: Vec<u8>,
}

impl TarStream {
    /// Appends a member; gives its content's offset.
    pub fn add(&mut self, name: &[u8], content: &[u8]) -> u64 {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(0);
        let name = Path::new(std::ffi::OsStr::from_bytes(name));
        if name.as_os_str().len() > 90 {
            let record = [("path", name.as_os_str().as_bytes())];
            builder.append_pax_extensions(record).unwrap();
            header.set_path("long").unwrap();
        } else {
            header.set_path(name).unwrap();
        }
        header.set_cksum();
        builder.append(&header, content).unwrap();
        let member = builder.into_inner().unwrap();
        let member = &member[..member.len() - 1024];
        self.bytes.extend_from_slice(member);
        let padded = content.len().next_multiple_of(512);
        (self.bytes.len() - padded) as u64
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.extend([0; 1024]);
        self.bytes
    }
}

/// zstd in frames with a seek table.
pub fn compress(plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut table = Vec::new();
    let mut frames = 0u32;
    for part in plain.chunks(FRAME_BYTES) {
        let frame = zstd::encode_all(part, 3).unwrap();
        table.extend((frame.len() as u32).to_le_bytes());
        table.extend((part.len() as u32).to_le_bytes());
        out.extend(frame);
        frames += 1;
    }
    out.extend(0x184D_2A5Eu32.to_le_bytes());
    out.extend((table.len() as u32 + 9).to_le_bytes());
    out.extend(table);
    out.extend(frames.to_le_bytes());
    out.push(0);
    out.extend(0x8F92_EAB1u32.to_le_bytes());
    out
}

pub fn encrypt(plain: &[u8], recipients: &[String]) -> Vec<u8> {
    let recipients: Vec<Box<dyn age::Recipient>> = recipients
        .iter()
        .map(|text| match text.parse::<age::x25519::Recipient>() {
            Ok(recipient) => Box::new(recipient) as Box<dyn age::Recipient>,
            Err(_) => Box::new(text.parse::<age::ssh::Recipient>().unwrap()),
        })
        .collect();
    let encryptor = age::Encryptor::with_recipients(recipients.iter().map(|r| &**r)).unwrap();
    let mut writer = encryptor.wrap_output(Vec::new()).unwrap();
    writer.write_all(plain).unwrap();
    writer.finish().unwrap()
}

pub fn seal_tar(plain: &[u8], recipients: &[String]) -> Vec<u8> {
    encrypt(&compress(plain), recipients)
}

fn head_sha256(sealed: &[u8]) -> Hash {
    let dashes = sealed.windows(4).position(|w| w == b"\n---").unwrap() + 1;
    let newline = sealed[dashes..].iter().position(|b| *b == b'\n').unwrap();
    Hash::sha256(&sealed[..dashes + newline + 1 + 16])
}

pub fn load(key: &Path) -> Result<Identities, sealift::restore::open::IdentityError> {
    let silent: Arc<dyn Prompt> = Arc::new(Answer(None));
    Identities::load(&[key.to_path_buf()], &silent)
}

/// Answers every question with the same passphrase.
pub struct Answer(pub Option<&'static str>);

impl Prompt for Answer {
    fn passphrase(&self, _what: &str) -> Option<SecretString> {
        self.0.map(SecretString::from)
    }
    fn message(&self, _text: &str) {}
}

pub fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future)
}

/// The latest snapshot, all of it.
pub fn request(to: &Path) -> RestoreRequest {
    RestoreRequest {
        snapshot: SnapshotChoice::latest(),
        to: to.to_path_buf(),
        paths: Vec::new(),
        overwrite: false,
        at_least: None,
        devices: false,
        databases: DatabaseCheck::Repeat,
    }
}

/// Plans and executes, trusting the repository's own signer.
pub fn restore(repo: &Repo, request: &RestoreRequest) -> Result<RestoreReport, RestoreError> {
    let trust = Trust::Fingerprint(repo.signer.fingerprint());
    run(async {
        let folder = repo.target();
        let plan = restore::plan(&folder, request, repo.identities(), &trust).await?;
        restore::execute(plan, Arc::new(Silent)).await
    })
}
