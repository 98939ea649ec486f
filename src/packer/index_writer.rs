//! Stores the index (header, archive lines, entry lines) as chunks in index archives.

use std::fs::File;
use std::io::{self, Read};

use super::archive_writer::{ArchiveWriter, NewMember};
use super::chunk_hash::hash_chunks;
use super::chunker::Chunker;
use super::error::{PackError, scratch_error};
use super::file_content::Runs;
use super::file_packer::PackedFiles;
use super::request::PackRequest;
use super::seal::Texture;
use crate::base::ids::{Hash, hex};
use crate::format::archive::tar_member::TarMember;
use crate::format::archive_table::ArchiveKind;
use crate::format::extent::Extent;
use crate::format::index::proof::{self, GroupValues};
use crate::format::index::{ArchiveStream, IndexHeader};
use crate::format::json::json_line;
use crate::format::manifest::IndexRef;
use crate::format::version::FORMAT;

/// Bytes of index that are cut at a time.
const STRETCH_BYTES: usize = 4 << 20;

/// Stores the index of `body`. Returns where it is, and its salt. All data archives must be sealed
/// already.
pub(super) fn seal(
    archives: &mut ArchiveWriter<'_>,
    request: &PackRequest<'_>,
    body: &PackedFiles,
) -> Result<(IndexRef, [u8; 32]), PackError> {
    let streams: Vec<ArchiveStream> = archives
        .used(ArchiveKind::Data)?
        .into_iter()
        .map(|used| ArchiveStream {
            archive: used.row.id,
            tar_bytes: used.tar_bytes,
            tar_blake3: used.tar_blake3,
        })
        .collect();
    let mut salt = [0; 32];
    getrandom::fill(&mut salt).map_err(PackError::Random)?;
    let header = header(request, body, streams.len() as u64, &salt);
    let mut archive_lines = Vec::new();
    for stream in &streams {
        archive_lines.extend(json_line(stream));
        archive_lines.push(b'\n');
    }
    let member = NewMember {
        header: TarMember {
            mode: 0o600,
            mtime_s: request.snapshot.stamp.time().timestamp(),
            ..TarMember::default()
        },
        texture: Texture::Lines,
    };
    let mut writer = IndexWriter {
        runs: Runs::new(archives, ArchiveKind::Index, &member),
        whole: blake3::Hasher::new(),
        groups: GroupValues::new(),
        bytes: 0,
    };
    // The header changes every time. A section ends a chunk, so the chunks after it can stay the
    // same.
    writer.section(header.as_slice())?;
    writer.section(archive_lines.as_slice())?;
    let entries = File::open(&body.entry_lines).map_err(|e| scratch_error(&body.entry_lines, e))?;
    writer.section(entries)?;
    let (extents, bytes, blake3, groups) = writer.finish();
    archives.count_live(&extents);
    let member = member.at(proof::MEMBER.into(), groups.len());
    archives.append_last(ArchiveKind::Index, &member, &groups)?;
    let index = IndexRef {
        extents,
        bytes,
        blake3,
    };
    Ok((index, salt))
}

/// Returns the header line.
fn header(
    request: &PackRequest<'_>,
    body: &PackedFiles,
    archives: u64,
    salt: &[u8; 32],
) -> Vec<u8> {
    let snapshot = request.snapshot;
    let mut line = json_line(&IndexHeader {
        format: FORMAT,
        host: request.host.clone(),
        stamp: snapshot.stamp,
        salt: hex(salt),
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
    line
}

struct IndexWriter<'s, 'a> {
    runs: Runs<'s, 'a>,
    whole: blake3::Hasher,
    groups: GroupValues,
    bytes: u64,
}

impl IndexWriter<'_, '_> {
    /// Stores the next part of the index, whose end also ends a chunk.
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
            self.groups.update(&buffer[before..]);
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

    /// Returns the extents, size and hash of the index, and the values of its groups.
    fn finish(self) -> (Vec<Extent>, u64, Hash, Vec<u8>) {
        let (extents, _) = self.runs.finish();
        let hash = Hash(*self.whole.finalize().as_bytes());
        (extents, self.bytes, hash, self.groups.finish())
    }
}
