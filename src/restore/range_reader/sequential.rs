//! Reads an archive from its begin: one without a table of its frames, or with a wrong one.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use tokio::runtime::Handle;

use super::ciphertext::{Ciphertext, Freshness};
use super::error::is_damage;
use crate::format::manifest::ArchiveRow;
use crate::restore::fetch::ArchiveError;
use crate::restore::open::{Identities, OpenArchiveError, open_archive, read_head};

/// The tar stream is cut into parts of this size, which stand for frames.
pub(super) const PART_BYTES: u64 = 8 << 20;
/// Bytes that are fetched at a time.
const FETCH_BYTES: u64 = 4 << 20;

/// What a sequential read needs.
pub(super) struct SequentialRead {
    pub(super) ciphertext: Arc<Ciphertext>,
    pub(super) identities: Arc<Identities>,
    pub(super) row: ArchiveRow,
}

impl SequentialRead {
    /// Returns the parts `needed` of the tar stream by their numbers, each with at least as many
    /// bytes as are asked for. Waits for the target, so it needs a thread that may block.
    pub(super) fn read(
        &self,
        runtime: &Handle,
        needed: &BTreeMap<u64, u64>,
    ) -> Result<BTreeMap<u64, Bytes>, ArchiveError> {
        match self.read_from(runtime, needed, Freshness::Any) {
            // The cache may be what is damaged.
            Err(error) if is_damage(&error) => self.read_from(runtime, needed, Freshness::Fetched),
            read => read,
        }
    }

    fn read_from(
        &self,
        runtime: &Handle,
        needed: &BTreeMap<u64, u64>,
        freshness: Freshness,
    ) -> Result<BTreeMap<u64, Bytes>, ArchiveError> {
        let mut sealed = SealedReader {
            read: self,
            runtime,
            freshness,
            at: 0,
            current: Bytes::new(),
            failure: None,
        };
        let found = self.parts(&mut sealed, needed);
        // That the target failed says more than what became of it.
        match sealed.failure.take() {
            Some(failure) => Err(failure),
            None => found,
        }
    }

    fn parts(
        &self,
        sealed: &mut SealedReader<'_>,
        needed: &BTreeMap<u64, u64>,
    ) -> Result<BTreeMap<u64, Bytes>, ArchiveError> {
        // Nothing is decrypted under another head than that of the row.
        let head = read_head(&mut io::BufReader::with_capacity(1, &mut *sealed));
        let head = head.map_err(ArchiveError::Open)?;
        if head.sha256() != self.row.head_sha256 {
            return Err(ArchiveError::Hash("age header"));
        }
        let mut sealed = Read::chain(head.bytes(), sealed);
        let failed = |error| ArchiveError::Open(OpenArchiveError::reading(error));
        let tar = open_archive(&mut sealed, &self.identities).map_err(ArchiveError::Open)?;
        let mut tar = tar;
        let mut found = BTreeMap::new();
        let (last, _) = needed.last_key_value().unwrap_or((&0, &0));
        let mut total = 0;
        for number in 0..=*last {
            let mut part = Vec::new();
            let read = (&mut tar).take(PART_BYTES).read_to_end(&mut part);
            read.map_err(failed)?;
            total += part.len() as u64;
            let Some(bytes) = needed.get(&number) else {
                continue;
            };
            if (part.len() as u64) < *bytes {
                let needed = number * PART_BYTES + bytes;
                let what = format!("it has {total} bytes, {needed} are needed");
                return Err(ArchiveError::Stream(what));
            }
            found.insert(number, part.into());
        }
        Ok(found)
    }
}

/// Reads the ciphertext of an archive.
struct SealedReader<'a> {
    read: &'a SequentialRead,
    runtime: &'a Handle,
    freshness: Freshness,
    /// Where the next fetch begins.
    at: u64,
    current: Bytes,
    failure: Option<ArchiveError>,
}

impl BufRead for SealedReader<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.current.is_empty() && self.failure.is_none() {
            let end = self.read.row.bytes.min(self.at + FETCH_BYTES);
            let (ciphertext, row) = (&self.read.ciphertext, &self.read.row);
            let part = ciphertext.read(row, self.at..end, self.freshness);
            match self.runtime.block_on(part) {
                Ok(part) => (self.current, self.at) = (part.bytes, end),
                Err(error) => self.failure = Some(error),
            }
        }
        match self.failure.is_some() {
            true => Err(io::Error::other("the target failed")),
            false => Ok(&self.current),
        }
    }

    fn consume(&mut self, count: usize) {
        self.current.advance(count);
    }
}

impl Read for SealedReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let source = self.fill_buf()?;
        let count = buffer.len().min(source.len());
        buffer[..count].copy_from_slice(&source[..count]);
        self.consume(count);
        Ok(count)
    }
}
