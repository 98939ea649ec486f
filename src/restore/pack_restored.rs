//! Writes a restored directory as a tar, for a restore in place on another machine.
//!
//! The first member is the directory's record, `restored.jsonl`. Then comes each file that it
//! lists, in its order; all that is not content is in the record. The mirror of
//! [`unpack`](super::extract::unpack), which requires exactly this stream.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::base::openat::Dir;
use crate::format::archive::tar_member::{BLOCK_BYTES, TarMember, padding};
use crate::format::index::{EntryRef, EntryType};
use crate::format::restored::{RESTORED, RestoredRecord};

/// Size of the pieces in which a file is sent and written. A piece of zeros stays a hole.
pub(super) const PIECE_BYTES: usize = 256 << 10;
const OWNER_READS: u32 = 0o400;
const OWNER_ENTERS: u32 = 0o500;
/// Blocks of zeros at the end of a tar.
pub(super) const TRAILER_BYTES: usize = 2 * BLOCK_BYTES;

/// Why a restored directory could not be sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PackRestoredError {
    /// A file cannot be read, or is not as the record says.
    #[error("cannot read {path}")]
    Read {
        /// The file's path in the directory; lossy.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The output did not take the stream.
    #[error("cannot send the restored files")]
    Write(#[source] io::Error),
}

/// Returns the tar header of the record with `size` bytes.
pub(super) fn record_member(size: u64) -> TarMember {
    TarMember {
        path: RESTORED.as_bytes().to_vec(),
        size,
        mode: 0o600,
        ..TarMember::default()
    }
}

/// Returns the tar header of a file.
pub(super) fn file_member(entry: &EntryRef<'_>) -> TarMember {
    TarMember {
        path: entry.path.to_vec(),
        size: entry.size,
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        user: entry.user.map(str::to_owned),
        group: entry.group.map(str::to_owned),
        // The index's reader has checked that the seconds fit.
        mtime_s: i64::try_from(entry.mtime_ns.div_euclid(1_000_000_000)).unwrap_or_default(),
    }
}

/// Writes `dir`, whose record is `record`, to `out`. `sent` takes the bytes of content as they are
/// written.
pub(crate) fn pack_restored(
    dir: &Dir,
    record: &RestoredRecord,
    out: &mut dyn Write,
    sent: &dyn Fn(u64),
) -> Result<(), PackRestoredError> {
    let mut packer = Packer {
        dir,
        out,
        sent,
        buffer: vec![0; PIECE_BYTES],
    };
    let (_, meta) = dir
        .open_file(RESTORED)
        .map_err(reading(RESTORED.as_bytes()))?;
    packer.member(&record_member(meta.size()))?;
    for entry in record.entries.iter() {
        if entry.kind == EntryType::File {
            packer.member(&file_member(&entry))?;
        }
    }
    packer.write(&[0; TRAILER_BYTES])?;
    packer.out.flush().map_err(PackRestoredError::Write)
}

/// Returns the bytes that the other side writes of the files in `dir`, at most: pieces that are
/// holes here are holes there.
pub(crate) fn written_bytes(dir: &Dir, record: &RestoredRecord) -> Result<u64, PackRestoredError> {
    let mut bytes = 0_u64;
    for entry in record.entries.iter() {
        if entry.kind == EntryType::File {
            let file = open_ours(dir, entry.path).map_err(reading(entry.path))?;
            bytes = bytes.saturating_add(data_pieces(&file, entry.size));
        }
    }
    Ok(bytes)
}

/// Returns the bytes of the pieces of `file` that are not within holes. A file system that shows no
/// holes has none.
fn data_pieces(file: &File, size: u64) -> u64 {
    let piece = PIECE_BYTES as u64;
    // The begin of a piece.
    let (mut at, mut bytes) = (0, 0);
    while at < size {
        let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) if data < size => data,
            Ok(_) | Err(Errno::NXIO) => break,
            Err(_) => return bytes + (size - at),
        };
        let hole = rustix::fs::seek(file, SeekFrom::Hole(data)).unwrap_or(size);
        let first = data / piece * piece;
        let end = hole.max(data + 1).next_multiple_of(piece).min(size);
        bytes += end - first.max(at);
        at = end;
    }
    bytes
}

fn reading(path: &[u8]) -> impl FnOnce(io::Error) -> PackRestoredError + use<> {
    let path = String::from_utf8_lossy(path).into_owned();
    move |source| PackRestoredError::Read { path, source }
}

/// Opens a file of the directory, which is ours. Its permissions, or those of a directory above it,
/// may keep its owner out; those that count are in the record, so the owner gets what it takes.
fn open_ours(dir: &Dir, path: &[u8]) -> io::Result<File> {
    let name = OsStr::from_bytes(path);
    match dir.open_file(name) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        other => return other.map(|(file, _)| file),
    }
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    for (end, _) in ends {
        allow(dir, OsStr::from_bytes(&path[..end]), OWNER_ENTERS)?;
    }
    allow(dir, name, OWNER_READS)?;
    dir.open_file(name).map(|(file, _)| file)
}

fn allow(dir: &Dir, name: &OsStr, permissions: u32) -> io::Result<()> {
    let mode = dir.meta(name)?.permissions();
    match mode & permissions == permissions {
        true => Ok(()),
        false => dir.set_mode(name, mode | permissions),
    }
}

struct Packer<'a> {
    dir: &'a Dir,
    out: &'a mut dyn Write,
    sent: &'a dyn Fn(u64),
    buffer: Vec<u8>,
}

impl Packer<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), PackRestoredError> {
        self.out.write_all(bytes).map_err(PackRestoredError::Write)
    }

    /// Writes the header and the content of one file, which must have the member's size.
    fn member(&mut self, member: &TarMember) -> Result<(), PackRestoredError> {
        let path = &member.path;
        let mut file = open_ours(self.dir, path).map_err(reading(path))?;
        self.write(&member.header())?;
        let mut left = member.size;
        while left > 0 {
            let most = self
                .buffer
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = match file.read(&mut self.buffer[..most]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(reading(path)(error)),
                Ok(0) => {
                    let what = io::Error::other("it has become shorter");
                    return Err(reading(path)(what));
                }
                Ok(count) => count,
            };
            let written = self.out.write_all(&self.buffer[..count]);
            written.map_err(PackRestoredError::Write)?;
            left -= count as u64;
            (self.sent)(count as u64);
        }
        self.write(&[0; BLOCK_BYTES][..padding(member.size)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_not_written() {
        // Not in the system's temporary directory, which may show no holes.
        let file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let piece = PIECE_BYTES as u64;
        let size = 9 * piece + 5;
        file.set_len(size).unwrap();
        let write = |at| std::os::unix::fs::FileExt::write_all_at(&file, b"x", at).unwrap();
        if rustix::fs::seek(&file, SeekFrom::Data(0)) != Err(Errno::NXIO) {
            return;
        }
        assert_eq!(data_pieces(&file, size), 0);
        write(2 * piece + 7);
        assert_eq!(data_pieces(&file, size), piece);
        write(3 * piece - 1);
        write(4 * piece);
        assert_eq!(data_pieces(&file, size), 2 * piece);
        write(size - 1);
        assert_eq!(data_pieces(&file, size), 2 * piece + 5);
        assert_eq!(data_pieces(&file, 0), 0);
    }
}
