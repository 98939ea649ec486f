//! Someone who has an identity and can write the target changes lines of an index: the archive is at its place, under its
//! own head, and each of its chunks is authentic. A restore, `cat` and `sql` read only parts of an index, and refuse nevertheless.

use std::cell::RefCell;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use age::secrecy::ExposeSecret as _;
use age::{DecryptError, Decryptor, Identity};
use age_core::format::{FileKey, Stanza};
use sealift::format::archive::age_header::AgeHeader;
use sealift::format::archive::age_payload::{PayloadKey, PayloadReader, PayloadWriter};
use sealift::format::archive::seek_table;

use crate::support::host::{Host, texts};

/// Enough that their index is searched.
const FILES: u32 = 16_000;

/// An identity that discloses the file key of an archive.
struct Disclosing<'a>(&'a dyn Identity, RefCell<Option<[u8; 16]>>);

impl Identity for Disclosing<'_> {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, DecryptError>> {
        let unwrapped = self.0.unwrap_stanza(stanza)?;
        Some(unwrapped.inspect(|key| {
            self.1.replace(Some(*key.expose_secret()));
        }))
    }
}

/// The compressed stream of an archive, and what it takes to seal another one in its place.
struct Opened {
    head: AgeHeader,
    file_key: [u8; 16],
    stream: Vec<u8>,
}

impl Opened {
    fn new(archive: &Path, identity: &dyn Identity) -> Self {
        let sealed = fs::read(archive).unwrap();
        let mut rest = sealed.as_slice();
        let head = AgeHeader::read(&mut rest).unwrap();
        let disclosing = Disclosing(identity, RefCell::default());
        let decryptor = Decryptor::new_buffered(sealed.as_slice()).unwrap();
        drop(
            decryptor
                .decrypt(std::iter::once(&disclosing as &dyn Identity))
                .unwrap(),
        );
        let file_key = disclosing.1.take().unwrap();
        let key = PayloadKey::derive(&file_key, &head.nonce()).unwrap();
        let mut stream = Vec::new();
        PayloadReader::new(key, rest)
            .read_to_end(&mut stream)
            .unwrap();
        Self {
            head,
            file_key,
            stream,
        }
    }

    fn seal(self) -> Vec<u8> {
        let key = PayloadKey::derive(&self.file_key, &self.head.nonce()).unwrap();
        let mut writer = PayloadWriter::new(key, self.head.into_bytes());
        writer.write_all(&self.stream).unwrap();
        writer.finish().unwrap()
    }

    /// Replaces `from` by `to`, of the same length, in the frame that has it. All sizes stay: the frame is compressed harder,
    /// and a skippable one fills what that saves. Returns false if no frame has `from`.
    fn forge(&mut self, from: &[u8], to: &[u8]) -> bool {
        let stream_bytes = self.stream.len() as u64;
        let table_bytes = seek_table::table_bytes(&self.stream).unwrap() as usize;
        let table = &self.stream[self.stream.len() - table_bytes..];
        for frame in seek_table::decode(table, stream_bytes).unwrap() {
            let place = frame.compressed.start as usize..frame.compressed.end as usize;
            let bytes = (frame.content.end - frame.content.start) as usize;
            let mut content = zstd::bulk::decompress(&self.stream[place.clone()], bytes).unwrap();
            let Some(at) = content.windows(from.len()).position(|part| part == from) else {
                continue;
            };
            content[at..at + from.len()].copy_from_slice(to);
            let forged = zstd::bulk::compress(&content, 19).unwrap();
            let left = place.len() - forged.len();
            let filler = u32::try_from(left - 8).unwrap();
            let skippable = [0x184D_2A50_u32.to_le_bytes(), filler.to_le_bytes()].concat();
            let filled = [forged, skippable, vec![0; filler as usize]].concat();
            assert_eq!(filled.len(), place.len());
            self.stream[place].copy_from_slice(&filled);
            return true;
        }
        false
    }
}

fn archives(host: &Host) -> Vec<PathBuf> {
    let folders = fs::read_dir(host.folder().join("archives")).unwrap();
    let folders = folders.map(|folder| folder.unwrap().path());
    let files = folders.flat_map(|folder| fs::read_dir(folder).unwrap());
    files.map(|file| file.unwrap().path()).collect()
}

#[test]
fn a_line_that_was_changed_with_the_key_of_its_archive_is_refused() {
    let host = Host::new();
    let data = host.data();
    for number in 0..FILES {
        let dir = data.join(format!("{:03}", number / 100));
        if number % 100 == 0 {
            fs::create_dir(&dir).unwrap();
        }
        let file = dir.join(format!("{number:06}"));
        fs::write(&file, number.to_string()).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    }
    host.backup();
    let path = "data/040/004077";
    let run = |words: &[&str]| {
        let from = host.place();
        host.run(&[words, &from[..]].concat())
    };
    let restored = run(&["restore", "latest", path, "--to", "before"]);
    assert!(restored.status.success(), "{}", texts(&restored).1);

    let text = fs::read_to_string(host.path("key.txt")).unwrap();
    let secret = text
        .lines()
        .find(|line| line.starts_with("AGE-SECRET-KEY"))
        .unwrap();
    let identity: age::x25519::Identity = secret.parse().unwrap();
    // The file becomes a program that everybody may change.
    let line = |mode: u32| format!("{{\"path\":\"{path}\",\"type\":\"file\",\"mode\":{mode},");
    let (from, to) = (line(0o644), line(0o777));
    let mut forged = 0;
    for archive in archives(&host) {
        let mut opened = Opened::new(&archive, &identity);
        if opened.forge(from.as_bytes(), to.as_bytes()) {
            let sealed = opened.seal();
            assert_eq!(sealed.len() as u64, fs::metadata(&archive).unwrap().len());
            fs::write(&archive, sealed).unwrap();
            forged += 1;
        }
    }
    assert_eq!(forged, 1);
    for words in [
        &["restore", "latest", path, "--to", "after"][..],
        &["restore", "latest", "data/040", "--to", "after"],
        &["cat", "latest", path, "--cache", "none"],
    ] {
        let output = run(words);
        let (out, error) = texts(&output);
        assert!(!output.status.success(), "{words:?}");
        assert!(out.is_empty(), "{out}");
        assert!(
            error.contains("BLAKE3 is not the manifest's"),
            "{words:?}: {error}"
        );
        assert!(!host.path("after").exists());
    }
}
