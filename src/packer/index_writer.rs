//! Header + archive lines + entry lines → chunks in index archives.

use std::fs::File;
use std::io::{self, Read};

use super::archive_writer::Store;
use super::chunk_hash::hash_chunks;
use super::chunker::Chunker;
use super::file_content::Runs;
use super::file_packer::PackedFiles;
use super::{PackError, PackRequest, scratch_error};
use crate::base::ids::{Hash, hex};
use crate::format::archive::tar_member::Member;
use crate::format::index::{ArchiveStream, Extent, IndexHeader};
use crate::format::manifest::{ArchiveKind, FORMAT, IndexRef, json_line};

/// Bytes of index that are cut at a time.
const STRETCH_BYTES: usize = 4 << 20;

/// Seals the index of `body`; gives where it is. All data archives must be sealed already.
pub fn seal(
    store: &mut Store<'_>,
    request: &PackRequest<'_>,
    body: &PackedFiles,
) -> Result<IndexRef, PackError> {
    let archives: Vec<ArchiveStream> = store
        .used(ArchiveKind::Data)?
        .into_iter()
        .map(|used| ArchiveStream {
            archive: used.row.id,
            tar_bytes: used.tar_bytes,
            tar_blake3: used.tar_blake3,
        })
        .collect();
    let header = header(request, body, archives.len() as u64)?;
    let mut archive_lines = Vec::new();
    for archive in &archives {
        archive_lines.extend(json_line(archive));
        archive_lines.push(b'\n');
    }
    let member = Member {
        mode: 0o600,
        mtime_s: request.snapshot.stamp.time().timestamp(),
        ..Member::default()
    };
    let mut writer = IndexWriter {
        runs: Runs::new(store, ArchiveKind::Index, &member),
        whole: blake3::Hasher::new(),
        bytes: 0,
    };
    // The header changes every time: cut behind it, so that what follows can stay the same.
    writer.section(header.as_slice())?;
    writer.section(archive_lines.as_slice())?;
    let entries = File::open(&body.entry_lines).map_err(|e| scratch_error(&body.entry_lines, e))?;
    writer.section(entries)?;
    let (extents, bytes, blake3) = writer.finish()?;
    store.count_live(&extents);
    Ok(IndexRef {
        extents,
        bytes,
        blake3,
    })
}

fn header(
    request: &PackRequest<'_>,
    body: &PackedFiles,
    archives: u64,
) -> Result<Vec<u8>, PackError> {
    let mut salt = [0; 32];
    getrandom::fill(&mut salt).map_err(PackError::Random)?;
    let snapshot = request.snapshot;
    let mut line = json_line(&IndexHeader {
        format: FORMAT,
        host: request.host.clone(),
        stamp: snapshot.stamp,
        salt: hex(&salt),
        tags: snapshot.tags.clone(),
        note: snapshot.note.clone(),
        sources: snapshot.sources.clone(),
        validation: snapshot.validation.clone(),
        databases: body.databases.clone(),
        skipped: body.skipped.clone(),
        archives,
        entries: body.totals.entries,
    });
    line.push(b'\n');
    Ok(line)
}

struct IndexWriter<'s, 'a> {
    runs: Runs<'s, 'a>,
    whole: blake3::Hasher,
    bytes: u64,
}

impl IndexWriter<'_, '_> {
    fn section(&mut self, mut input: impl Read) -> Result<(), PackError> {
        let mut buffer = Vec::new();
        loop {
            let before = buffer.len();
            let read = input
                .by_ref()
                .take(STRETCH_BYTES as u64)
                .read_to_end(&mut buffer)
                .map_err(|e: io::Error| scratch_error("the index's lines".as_ref(), e))?;
            self.whole.update(&buffer[before..]);
            self.bytes += read as u64;
            let mut chunks = Vec::new();
            let lengths = Chunker::Index.cut(&buffer, read == 0);
            let done = hash_chunks(&buffer, &lengths, &mut chunks);
            self.runs.stretch(&buffer[..done], &chunks)?;
            buffer.drain(..done);
            if read == 0 {
                return Ok(());
            }
        }
    }

    fn finish(self) -> Result<(Vec<Extent>, u64, Hash), PackError> {
        let (extents, _) = self.runs.finish();
        Ok((extents, self.bytes, Hash(*self.whole.finalize().as_bytes())))
    }
}
