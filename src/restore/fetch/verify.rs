//! Compares an archive's ciphertext, as it arrives, with its row of the archive table.
//!
//! By BLAKE3, which is also its name. The row's SHA-256 is for readers without BLAKE3.

use std::io::{self, BufRead, Read};

use bytes::{Buf as _, Bytes};
use tokio::sync::mpsc;

use super::error::ArchiveError;
use crate::base::ids::Hash;
use crate::format::manifest::ArchiveRow;
use crate::restore::open::read_head;
use crate::storage::TargetError;

/// Reads an archive and hashes it.
pub(super) struct VerifiedReader<'a> {
    receiver: mpsc::Receiver<Result<Bytes, TargetError>>,
    row: &'a ArchiveRow,
    current: Bytes,
    /// Bytes of the head, which were checked and are still to be read.
    head: Bytes,
    received_bytes: u64,
    blake3: blake3::Hasher,
    /// Why the stream ended early. `None`: it did not.
    failure: Option<ArchiveError>,
}

impl<'a> VerifiedReader<'a> {
    /// Returns a reader of the archive of `row`, whose bytes arrive at `receiver`.
    pub(super) fn new(
        receiver: mpsc::Receiver<Result<Bytes, TargetError>>,
        row: &'a ArchiveRow,
    ) -> Self {
        Self {
            receiver,
            row,
            current: Bytes::new(),
            head: Bytes::new(),
            received_bytes: 0,
            blake3: blake3::Hasher::new(),
            failure: None,
        }
    }

    /// Compares the age header and nonce with the row before anything is decrypted under them.
    pub(super) fn check_head(&mut self) -> Result<(), ArchiveError> {
        // With a buffer of one byte, nothing behind the head is taken.
        let read = read_head(&mut io::BufReader::with_capacity(1, &mut *self));
        match read {
            Ok(head) if head.sha256() == self.row.head_sha256 => {
                self.head = head.into_bytes().into();
                Ok(())
            }
            // If the whole archive is wrong too, that is the better message.
            Ok(_) => {
                self.finish()?;
                Err(ArchiveError::Hash("age header"))
            }
            Err(error) => {
                self.finish()?;
                Err(ArchiveError::Open(error))
            }
        }
    }

    /// Reads the rest and compares the whole with the row.
    pub(super) fn finish(&mut self) -> Result<(), ArchiveError> {
        self.head.clear();
        self.current.clear();
        while self.receive() {
            self.current.clear();
        }
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        if self.received_bytes != self.row.bytes {
            return Err(ArchiveError::Size {
                found: self.received_bytes.to_string(),
                expected: self.row.bytes,
            });
        }
        match Hash(*self.blake3.finalize().as_bytes()) == self.row.blake3 {
            true => Ok(()),
            false => Err(ArchiveError::Hash("BLAKE3")),
        }
    }

    /// Receives the next bytes into `current`. False: at the end, or after a failure.
    fn receive(&mut self) -> bool {
        while self.current.is_empty() && self.failure.is_none() {
            match self.receiver.blocking_recv() {
                None => return false,
                Some(Err(error)) => self.failure = Some(ArchiveError::Fetch(error)),
                Some(Ok(bytes)) => self.take(bytes),
            }
        }
        self.failure.is_none()
    }

    fn take(&mut self, bytes: Bytes) {
        self.received_bytes += bytes.len() as u64;
        if self.received_bytes > self.row.bytes {
            self.failure = Some(ArchiveError::Size {
                found: format!("more than {}", self.row.bytes),
                expected: self.row.bytes,
            });
            return;
        }
        self.blake3.update(&bytes);
        self.current = bytes;
    }
}

impl BufRead for VerifiedReader<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if !self.head.is_empty() {
            return Ok(&self.head);
        }
        match self.receive() {
            true => Ok(&self.current),
            false => Ok(&[]),
        }
    }

    fn consume(&mut self, count: usize) {
        match self.head.is_empty() {
            false => self.head.advance(count),
            true => self.current.advance(count),
        }
    }
}

impl Read for VerifiedReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let source = self.fill_buf()?;
        let count = buffer.len().min(source.len());
        buffer[..count].copy_from_slice(&source[..count]);
        self.consume(count);
        Ok(count)
    }
}
