//! Caches the last snapshot's files with their stat, so that unchanged files are not read again.
//!
//! The cache is a zstd stream of files in path order, in blocks with a check each. It is read in
//! step with the walk, so its size costs no memory.
//!
//! It belongs to one writer, and is put in place only after the snapshot's manifest, so the catalog
//! has every archive that it names. If the catalog forgot one nevertheless (it was set back), the
//! cache is not used. A cache that is missing, damaged or of another writer only means that files
//! are read.
//!
//! A file that could have changed after it was read without changing its times is never recorded as
//! unchanged.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::ids::{ArchiveId, WriterId};
use crate::base::openat::Meta;
use crate::format::index::{DatabaseRecord, has_wide_time, is_wide_time};
use crate::format::json::json_line;
use crate::state::figures::Grain;

use super::origin::Origin;

/// A change within this time may leave the same times: it covers coarse kernel clocks and file
/// systems that store times in steps of two seconds.
const RACY_NS: i128 = 2_000_000_000;
/// Longest path and longest index line, in bytes.
const MAX_FIELD_BYTES: u32 = 1 << 30;
/// Bytes of files after which a block is closed.
const BLOCK_BYTES: usize = 64 << 10;

/// Metadata that differs between any two states of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stat {
    /// Number of the file system's device.
    pub dev: u64,
    /// Number of the inode.
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    /// Nanoseconds since 1970.
    pub mtime_ns: i128,
    /// Time of change, in nanoseconds since 1970. For a staged file, whose time of change a hard
    /// link would alter, the time of birth (0 if the file system has none): a new copy may have the
    /// inode of a deleted one.
    pub ctime_ns: i128,
}

impl Stat {
    pub(super) fn of(meta: &Meta, origin: Origin) -> Self {
        let ns = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Self {
            dev: meta.dev(),
            ino: meta.ino(),
            size: meta.len(),
            mtime_ns: ns(meta.mtime(), meta.mtime_nsec()),
            ctime_ns: match origin {
                Origin::Staged => meta.born().map_or(0, |(seconds, rest)| ns(seconds, rest)),
                Origin::Live => ns(meta.ctime(), meta.ctime_nsec()),
            },
        }
    }

    /// Returns the stat of no file. A cached file with it never counts as unchanged.
    pub(super) fn of_none() -> Self {
        Self::default()
    }

    /// Returns whether a change right after `read_at_ns` (since 1970) could have left the same
    /// times.
    pub(super) fn is_racy(&self, origin: Origin, read_at_ns: i128) -> bool {
        let newest_ns = match origin {
            Origin::Staged => self.mtime_ns,
            Origin::Live => self.mtime_ns.max(self.ctime_ns),
        };
        newest_ns + RACY_NS > read_at_ns
    }
}

/// One file of the last snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedFile {
    /// Path within the snapshot.
    pub path: Vec<u8>,
    /// Its stat when it was read.
    pub stat: Stat,
    /// Whether it is a SQLite database.
    pub sqlite: bool,
    /// Whether it was once rewritten under the same inode with the same size.
    pub in_place: bool,
    /// How its content looked.
    pub grain: Grain,
    /// The archives that hold it, and the bytes of each one's tar stream that it uses.
    pub uses: Vec<(ArchiveId, u64)>,
    /// Its line in the index.
    pub line: Vec<u8>,
}

/// The first field of the cache.
#[derive(Serialize, Deserialize)]
struct Header {
    writer: WriterId,
    /// Counter of the next archive when the cache was written.
    #[serde(default)]
    next_counter: u64,
    databases: Vec<DatabaseRecord>,
}

type CacheInput = BufReader<zstd::Decoder<'static, BufReader<File>>>;

/// Reads the cached files in path order.
#[derive(Default)]
pub struct CacheReader {
    input: Option<CacheInput>,
    block: io::Cursor<Vec<u8>>,
    next: Option<CachedFile>,
    /// Path and grain of the last file that was passed over: no file has its path any more.
    passed: Option<(Vec<u8>, Grain)>,
    /// The databases of the last snapshot.
    pub databases: Vec<DatabaseRecord>,
    /// Whether the catalog forgot archives that it had when the cache was written. Their ids must
    /// not be used again.
    pub is_ahead: bool,
}

impl CacheReader {
    /// Opens the cache of the writer whose next archive is `next`. A cache that cannot be used
    /// counts as empty.
    pub fn open(path: &Path, next: ArchiveId) -> Self {
        Self::try_open(path, next).unwrap_or_default()
    }

    /// Opens the cache of whatever writer, to estimate how much of a snapshot is new. `None` if
    /// there is no cache, or it cannot be used.
    pub fn open_to_estimate(path: &Path) -> Option<Self> {
        let (header, input) = Self::read_header(path)?;
        Some(Self::of(header, input))
    }

    /// Returns whether the file in place at `path` within the snapshot is as it was in the last
    /// one. Calls must pass paths in ascending order.
    pub fn has_unchanged(&mut self, path: &[u8], meta: &Meta) -> bool {
        let stat = Stat::of(meta, Origin::Live);
        self.find(path).is_some_and(|file| file.stat == stat)
    }

    fn read_header(path: &Path) -> Option<(Header, CacheInput)> {
        let decoder = zstd::Decoder::new(File::open(path).ok()?).ok()?;
        let mut input = BufReader::new(decoder);
        let header = serde_json::from_slice(&read_field(&mut input).ok()?).ok()?;
        Some((header, input))
    }

    fn try_open(path: &Path, next: ArchiveId) -> Option<Self> {
        let (header, input) = Self::read_header(path)?;
        if header.writer != next.writer {
            return None;
        }
        if header.next_counter > next.counter {
            return Some(Self {
                is_ahead: true,
                ..Self::default()
            });
        }
        Some(Self::of(header, input))
    }

    fn of(header: Header, input: CacheInput) -> Self {
        let mut reader = Self {
            input: Some(input),
            block: io::Cursor::default(),
            next: None,
            passed: None,
            databases: header.databases,
            is_ahead: false,
        };
        reader.advance();
        reader
    }

    fn advance(&mut self) {
        self.next = self.read_next().ok();
        if self.next.is_none() {
            self.input = None;
        }
    }

    fn read_next(&mut self) -> io::Result<CachedFile> {
        if self.block.position() == self.block.get_ref().len() as u64 {
            let input = self.input.as_mut().ok_or(io::ErrorKind::UnexpectedEof)?;
            let block = read_field(input)?;
            if read_array(input)? != check_bytes(&block) {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.block = io::Cursor::new(block);
        }
        read_cached_file(&mut self.block)
    }

    /// Returns the file at `path`. Calls must pass paths in ascending order.
    pub fn find(&mut self, path: &[u8]) -> Option<CachedFile> {
        while let Some(next) = &self.next {
            match next.path.as_slice().cmp(path) {
                std::cmp::Ordering::Less => {
                    self.passed = self.next.take().map(|gone| (gone.path, gone.grain));
                    self.advance();
                }
                std::cmp::Ordering::Equal => {
                    let found = self.next.take();
                    self.advance();
                    return found.filter(has_its_time);
                }
                std::cmp::Ordering::Greater => return None,
            }
        }
        None
    }

    /// Returns the grain of the file that had the path `path` without its last ending, and is gone:
    /// ransomware often adds an ending. Only the file right before `path` in the order is
    /// considered.
    pub fn renamed_from(&self, path: &[u8]) -> Option<Grain> {
        let (gone, grain) = self.passed.as_ref()?;
        let ending = path.strip_prefix(gone.as_slice())?;
        let is_one = ending.len() > 1 && ending[0] == b'.' && !ending.contains(&b'/');
        is_one.then_some(*grain)
    }
}

/// Writes a new cache beside the old one; [`Self::finish`] puts it in place.
pub(super) struct CacheWriter {
    path: PathBuf,
    temp: PathBuf,
    body: zstd::Encoder<'static, BufWriter<File>>,
    /// Files that are encoded and not yet written.
    block: Vec<u8>,
    writer: WriterId,
}

impl CacheWriter {
    /// Begins the body. [`Self::finish`] puts the header, which needs the databases, in front of
    /// it. Temporary files go below `scratch`, which must be on the same file system.
    pub(super) fn create(path: &Path, scratch: &Path, writer: WriterId) -> io::Result<Self> {
        let temp = scratch.join("cache-body");
        let body = zstd::Encoder::new(BufWriter::new(crate::base::fs::create_private(&temp)?), 1)?;
        Ok(Self {
            path: path.to_path_buf(),
            temp,
            body,
            block: Vec::new(),
            writer,
        })
    }

    /// Appends a file; files must come in path order.
    pub(super) fn add(&mut self, file: &CachedFile) -> io::Result<()> {
        let out = &mut self.block;
        write_field(out, &file.path)?;
        let stat = &file.stat;
        for number in [stat.dev, stat.ino, stat.size] {
            out.write_all(&number.to_le_bytes())?;
        }
        out.write_all(&stat.mtime_ns.to_le_bytes())?;
        out.write_all(&stat.ctime_ns.to_le_bytes())?;
        let flags = u8::from(file.sqlite) | u8::from(file.in_place) << 1;
        out.write_all(&[flags | file.grain.to_bits() << 2])?;
        out.write_all(&(file.uses.len() as u32).to_le_bytes())?;
        for (archive, bytes) in &file.uses {
            out.write_all(&archive.writer.0)?;
            out.write_all(&archive.counter.to_le_bytes())?;
            out.write_all(&bytes.to_le_bytes())?;
        }
        write_field(out, &file.line)?;
        match out.len() >= BLOCK_BYTES {
            true => self.end_block(),
            false => Ok(()),
        }
    }

    fn end_block(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        write_field(&mut self.body, &self.block)?;
        self.body.write_all(&check_bytes(&self.block))?;
        self.block.clear();
        Ok(())
    }

    /// Puts the header in front and replaces the last run's cache.
    pub(super) fn finish(
        mut self,
        databases: Vec<DatabaseRecord>,
        next: ArchiveId,
    ) -> io::Result<()> {
        self.end_block()?;
        self.body.finish()?.flush()?;
        let header = json_line(&Header {
            writer: self.writer,
            next_counter: next.counter,
            databases,
        });
        let whole = self.temp.with_file_name("cache-whole");
        let mut encoder = zstd::Encoder::new(crate::base::fs::create_private(&whole)?, 1)?;
        write_field(&mut encoder, &header)?;
        let mut out = encoder.finish()?;
        // Two zstd frames, one after the other, decompress as one stream.
        io::copy(&mut File::open(&self.temp)?, &mut out)?;
        out.sync_all()?;
        fs::remove_file(&self.temp)?;
        fs::rename(&whole, &self.path)
    }
}

/// Returns the check of a block: bytes that the disk damaged must not reach an index.
fn check_bytes(block: &[u8]) -> [u8; 8] {
    let mut check = [0; 8];
    check.copy_from_slice(&blake3::hash(block).as_bytes()[..8]);
    check
}

fn write_field(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(&(bytes.len() as u32).to_le_bytes())?;
    out.write_all(bytes)
}

fn read_array<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn read_field(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let length = u32::from_le_bytes(read_array(input)?);
    if length > MAX_FIELD_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // A damaged length must not allocate that much at once.
    let mut bytes = Vec::with_capacity((length as usize).min(2 * BLOCK_BYTES));
    input.take(u64::from(length)).read_to_end(&mut bytes)?;
    match bytes.len() == length as usize {
        true => Ok(bytes),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Returns whether the file's line has its time. Versions before wide times wrote the nearest one
/// that fits 64 bits.
fn has_its_time(file: &CachedFile) -> bool {
    !is_wide_time(file.stat.mtime_ns) || has_wide_time(&file.line)
}

fn read_cached_file(input: &mut impl Read) -> io::Result<CachedFile> {
    let path = read_field(input)?;
    let stat = Stat {
        dev: u64::from_le_bytes(read_array(input)?),
        ino: u64::from_le_bytes(read_array(input)?),
        size: u64::from_le_bytes(read_array(input)?),
        mtime_ns: i128::from_le_bytes(read_array(input)?),
        ctime_ns: i128::from_le_bytes(read_array(input)?),
    };
    let [flags] = read_array(input)?;
    let count = u32::from_le_bytes(read_array(input)?);
    let mut uses = Vec::new();
    for _ in 0..count {
        let archive = ArchiveId {
            writer: WriterId(read_array(input)?),
            counter: u64::from_le_bytes(read_array(input)?),
        };
        uses.push((archive, u64::from_le_bytes(read_array(input)?)));
    }
    Ok(CachedFile {
        path,
        stat,
        sqlite: flags & 1 != 0,
        in_place: flags & 2 != 0,
        grain: Grain::from_bits(flags >> 2 & 7),
        uses,
        line: read_field(input)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_staged_copy_with_the_inode_of_a_deleted_one_is_another_file() {
        let dir = tempfile::tempdir().unwrap();
        let time = std::time::SystemTime::UNIX_EPOCH;
        let stat = |name: &str| {
            let path = dir.path().join(name);
            let file = File::create(&path).unwrap();
            file.set_modified(time).unwrap();
            let linked = path.with_extension("link");
            let stat = || Stat::of(&Meta::from(&fs::metadata(&path).unwrap()), Origin::Staged);
            let before = stat();
            fs::hard_link(&path, linked).unwrap();
            // A link from the next snapshot changes nothing.
            assert_eq!(stat(), before);
            // An inode number is reused as soon as it is free.
            Stat { ino: 7, ..before }
        };
        let old = stat("old");
        std::thread::sleep(std::time::Duration::from_millis(50));
        if old.ctime_ns != 0 {
            assert_ne!(stat("new"), old);
        }
        assert!(!old.is_racy(Origin::Staged, RACY_NS));
    }

    #[test]
    fn files_come_back_in_step_with_the_walk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache");
        let writer = WriterId([7; 8]);
        let cached = |path: &str| CachedFile {
            path: path.as_bytes().to_vec(),
            stat: Stat {
                dev: 1,
                ino: 2,
                size: 3,
                mtime_ns: -4,
                ctime_ns: 5,
            },
            sqlite: true,
            in_place: false,
            grain: Grain::Noise,
            uses: vec![(ArchiveId { writer, counter: 9 }, 10)],
            line: b"{}".to_vec(),
        };
        let mut out = CacheWriter::create(&path, dir.path(), writer).unwrap();
        for name in ["a", "b", "d"] {
            out.add(&cached(name)).unwrap();
        }
        let next = |writer, counter| ArchiveId { writer, counter };
        out.finish(Vec::new(), next(writer, 10)).unwrap();
        let mut cache = CacheReader::open(&path, next(writer, 12));
        assert_eq!(cache.find(b"a"), Some(cached("a")));
        assert_eq!(cache.find(b"b.locked"), None);
        assert_eq!(cache.renamed_from(b"b.locked"), Some(Grain::Noise));
        for other in ["b", "b.", "bb.locked", "b.d/locked", "a.locked"] {
            assert_eq!(cache.renamed_from(other.as_bytes()), None, "{other}");
        }
        assert_eq!(cache.find(b"c"), None);
        assert_eq!(cache.find(b"d"), Some(cached("d")));
        assert_eq!(cache.find(b"e"), None);
        let another = next(WriterId([8; 8]), 12);
        assert_eq!(CacheReader::open(&path, another).find(b"a"), None);
        let mut ahead = CacheReader::open(&path, next(writer, 9));
        assert!(ahead.is_ahead && ahead.find(b"a").is_none());
        fs::write(&path, b"damaged").unwrap();
        let mut damaged = CacheReader::open(&path, next(writer, 12));
        assert!(!damaged.is_ahead && damaged.find(b"a").is_none());
    }
}
