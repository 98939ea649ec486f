//! A hand-made writer of format 1, for tests of its readers only: no catalog, no spool, no care for
//! speed. It knows docs/format.md and shares nothing with the packer but the types of the format, so
//! a misreading of the format shows when the two meet.
#![allow(dead_code)]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write as _;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _};
use sealift::ids::{ArchiveId, Hash, HostName, ObjectKey, Stamp, WriterId};
use sealift::index::{
    ArchiveStream, DatabaseRecord, Entry, EntryType, Extent, IndexHeader, ValidationRecord,
    push_extent,
};
use sealift::manifest::signature::{MANIFEST_NAMESPACE, Signer};
use sealift::manifest::{
    ArchiveKind, ArchiveRow, IndexRef, Known, Manifest, ManifestCore, Totals, paginate,
    recipient_set_name,
};
use sealift::repository::HostFolder;
use sealift::restore::open::{Identities, Prompt, SecretString, generate};
use sealift::target::{Body, ErrorKind, Listed, PutMode, PutOutcome, Target, TargetError};

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
        HostFolder {
            target: Arc::new(FolderTarget(self.path("repo"))),
            host: self.host.clone(),
        }
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
        let of_kind = self.rows.values().filter(|row| row.kind == kind);
        let row = of_kind.last().unwrap();
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
            salt: sealift::ids::hex(&salt),
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
            known: self.known.clone(),
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

/// The entries of a real directory, without content.
pub fn scan(tree: &Path) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut first_names: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
    let mut paths = Vec::new();
    list(tree, b"", &mut paths);
    paths.sort();
    for path in paths {
        let full = tree.join(std::ffi::OsStr::from_bytes(&path));
        let meta = fs::symlink_metadata(&full).unwrap();
        let kind = meta.file_type();
        let mut entry = Entry {
            kind: match () {
                () if kind.is_dir() => EntryType::Dir,
                () if kind.is_symlink() => EntryType::Symlink,
                () if kind.is_fifo() => EntryType::Fifo,
                () if kind.is_char_device() => EntryType::Chardev,
                () if kind.is_file() => EntryType::File,
                () => panic!("{full:?}"),
            },
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            user: None,
            group: None,
            mtime_ns: meta.mtime() * 1_000_000_000 + meta.mtime_nsec(),
            xattrs: BTreeMap::new(),
            size: 0,
            blake3: None,
            extents: Vec::new(),
            target: None,
            rdev: None,
            torn: false,
            path,
        };
        for name in xattr::list(&full).unwrap() {
            let value = xattr::get(&full, &name).unwrap().unwrap();
            entry.xattrs.insert(name.as_bytes().to_vec(), value);
        }
        match entry.kind {
            EntryType::File => {
                let inode = (meta.dev(), meta.ino());
                if let Some(first) = first_names.get(&inode) {
                    entry.kind = EntryType::Hardlink;
                    entry.target = Some(first.clone());
                } else {
                    first_names.insert(inode, entry.path.clone());
                    entry.size = meta.size();
                }
            }
            EntryType::Symlink => {
                let text = fs::read_link(&full).unwrap();
                entry.target = Some(text.as_os_str().as_bytes().to_vec());
            }
            EntryType::Chardev => {
                let (major, minor) = (
                    rustix::fs::major(meta.rdev()),
                    rustix::fs::minor(meta.rdev()),
                );
                entry.rdev = Some((major, minor));
            }
            _ => {}
        }
        entries.push(entry);
    }
    entries
}

fn list(tree: &Path, below: &[u8], paths: &mut Vec<Vec<u8>>) {
    for entry in fs::read_dir(tree.join(std::ffi::OsStr::from_bytes(below))).unwrap() {
        let entry = entry.unwrap();
        let mut path = below.to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend(entry.file_name().as_bytes());
        if entry.file_type().unwrap().is_dir() {
            list(tree, &path, paths);
        }
        paths.push(path);
    }
}

/// Everything a restore must bring back, one line per entry.
pub fn describe(tree: &Path) -> Vec<String> {
    let line = |entry: Entry| {
        let full = tree.join(std::ffi::OsStr::from_bytes(&entry.path));
        let content = match entry.kind {
            EntryType::File => Hash::blake3(&fs::read(&full).unwrap()).short(),
            _ => String::new(),
        };
        // A hard link has no time of its own worth comparing, but it has its file's: compare all.
        format!("{entry:?} {content}")
    };
    scan(tree).into_iter().map(line).collect()
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

/// A folder as a target, reading only.
#[derive(Debug, Clone)]
pub struct FolderTarget(pub PathBuf);

impl FolderTarget {
    fn failed(&self, operation: &'static str, key: &str, source: std::io::Error) -> TargetError {
        TargetError {
            operation,
            key: key.to_owned(),
            target: "folder".to_owned(),
            kind: match source.kind() {
                std::io::ErrorKind::NotFound => ErrorKind::NotFound,
                _ => ErrorKind::Permanent,
            },
            source: source.into(),
        }
    }
}

#[async_trait::async_trait]
impl Target for FolderTarget {
    fn label(&self) -> &str {
        "folder"
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, TargetError> {
        let entries = fs::read_dir(self.0.join(prefix))
            .into_iter()
            .flatten()
            .flatten();
        let files = entries.filter(|entry| entry.path().is_file());
        Ok(files
            .map(|entry| Listed {
                key: format!("{prefix}{}", entry.file_name().display()),
                bytes: entry.metadata().unwrap().len(),
            })
            .collect())
    }

    async fn list_folders(&self) -> Result<Vec<String>, TargetError> {
        unimplemented!()
    }

    async fn put(&self, _: &str, _: Body, _: PutMode) -> Result<PutOutcome, TargetError> {
        unimplemented!()
    }

    async fn get(&self, key: &str, _limit: u64) -> Result<Bytes, TargetError> {
        let read = fs::read(self.0.join(key));
        read.map(Bytes::from)
            .map_err(|e| self.failed("get", key, e))
    }

    async fn get_range(&self, _: &str, _: Range<u64>) -> Result<Bytes, TargetError> {
        unimplemented!()
    }

    async fn stream(
        &self,
        key: &str,
        _offset: u64,
    ) -> Result<BoxStream<'static, Result<Bytes, TargetError>>, TargetError> {
        let all = fs::read(self.0.join(key)).map_err(|e| self.failed("stream", key, e))?;
        let parts: Vec<_> = all
            .chunks(10_000)
            .map(Bytes::copy_from_slice)
            .map(Ok)
            .collect();
        Ok(futures::stream::iter(parts).boxed())
    }

    async fn delete(&self, _: &str) -> Result<(), TargetError> {
        unimplemented!()
    }
}

/// A tree with everything a Unix file system holds.
pub fn make_tree(tree: &Path) {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let make = |name: &[u8], content: &[u8]| {
        let path = tree.join(std::ffi::OsStr::from_bytes(name));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    let mode = |name: &str, mode: u32| {
        fs::set_permissions(tree.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    make(b"notes.txt", b"plain\n");
    make(b"empty", b"");
    make(b"dir/deep/er/file", &noise(1, 9000));
    make(b"dir-beside", b"sorts between dir and dir/");
    make(b"big.bin", &noise(2, 700_000));
    make(b"copy-of-big.bin", &noise(2, 700_000));
    make(b"not-utf8-\xff\xfe", b"raw name");
    make(b"dir/\xc3\xa4\xc3\xb6.txt", b"umlauts");
    make(
        format!("long/{}/end", vec!["x".repeat(200); 12].join("/")).as_bytes(),
        b"far",
    );
    let mut sparse = vec![0; 3 << 20];
    sparse[1 << 20..(1 << 20) + 5000].copy_from_slice(&noise(3, 5000));
    make(b"sparse", b"");
    use std::os::unix::fs::FileExt as _;
    let file = fs::OpenOptions::new()
        .write(true)
        .open(tree.join("sparse"))
        .unwrap();
    file.set_len(3 << 20).unwrap();
    file.write_all_at(&sparse[1 << 20..(1 << 20) + 5000], 1 << 20)
        .unwrap();
    fs::hard_link(tree.join("big.bin"), tree.join("hard")).unwrap();
    fs::hard_link(tree.join("big.bin"), tree.join("dir/hard2")).unwrap();
    symlink("notes.txt", tree.join("link")).unwrap();
    symlink("/nowhere/at/all", tree.join("dangling")).unwrap();
    symlink(
        std::ffi::OsStr::from_bytes(b"raw-\xfe"),
        tree.join("raw-link"),
    )
    .unwrap();
    fs::create_dir(tree.join("empty-dir")).unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    let owner_only = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, tree.join("fifo"), fifo, owner_only, 0).unwrap();
    let _ = xattr::set(tree.join("notes.txt"), "user.note", b"\x00\xffvalue");
    let _ = xattr::set(tree.join("dir"), "user.on-dir", b"yes");
    mode("notes.txt", 0o4640);
    mode("big.bin", 0o444);
    mode("fifo", 0o620);
    mode("empty-dir", 0o1777);
    if rustix::process::geteuid().is_root() {
        let chown = |name: &str| std::os::unix::fs::lchown(tree.join(name), Some(1000), Some(1001));
        chown("dir/deep").unwrap();
        chown("link").unwrap();
        chown("empty").unwrap();
    }
    let back = |name: &str, seconds: i64, nanos: i64| {
        let time = rustix::fs::Timespec {
            tv_sec: seconds,
            tv_nsec: nanos,
        };
        let times = rustix::fs::Timestamps {
            last_access: time,
            last_modification: time,
        };
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(rustix::fs::CWD, tree.join(name), &times, flags).unwrap();
    };
    back("notes.txt", 1_500_000_000, 123_456_789);
    back("link", 1_400_000_000, 1);
    back("empty", -5, 999_999_999);
    back("dir/deep", 1_300_000_000, 987_654_321);
    mode("dir/deep", 0o555);
}

/// Bytes that do not compress and differ by `seed`.
pub fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut out);
    out
}
