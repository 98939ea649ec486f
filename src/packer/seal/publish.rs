//! Checks written objects and puts them into the spool under their names.

use std::fs::File;
use std::io::BufReader;

use super::error::{SealError, unwritten};
use crate::base::ids::{Hash, ObjectKey};
use crate::format::archive::age_header::AgeHeader;
use crate::state::spool::{Spool, SpoolFile};

/// A complete archive, durable in the spool under its name.
#[derive(Debug, Clone)]
pub struct SealedArchive {
    /// BLAKE3 of the ciphertext.
    pub blake3: Hash,
    /// SHA-256 of the ciphertext.
    pub sha256: Hash,
    /// Bytes of the ciphertext.
    pub bytes: u64,
    /// SHA-256 of the age header and the payload nonce.
    pub head_sha256: Hash,
    /// Bytes of the uncompressed tar stream.
    pub tar_bytes: u64,
    /// BLAKE3 of the uncompressed tar stream.
    pub tar_blake3: Hash,
}

/// A completely written object; parts of it may not be on the disk yet.
pub(super) struct WrittenObject {
    pub(super) file: SpoolFile,
    /// BLAKE3 of the ciphertext.
    pub(super) blake3: Hash,
    /// SHA-256 of the ciphertext.
    pub(super) sha256: Hash,
    /// Bytes of the ciphertext.
    pub(super) bytes: u64,
    pub(super) tar_bytes: u64,
    pub(super) tar_blake3: Hash,
}

/// Publishes written objects in the spool.
pub(super) struct ObjectPublisher {
    /// Number of recipients, and so of stanzas.
    pub(super) stanzas: usize,
    pub(super) spool: Spool,
}

impl ObjectPublisher {
    /// Checks `object`, makes it durable and puts it into the spool under its name.
    pub(super) fn publish(&self, object: WrittenObject) -> Result<SealedArchive, SealError> {
        let head_sha256 = self.check_sealed(&object.file)?;
        let key = ObjectKey::archive(&object.blake3);
        self.spool.publish(object.file, &key)?;
        Ok(SealedArchive {
            blake3: object.blake3,
            sha256: object.sha256,
            bytes: object.bytes,
            head_sha256,
            tar_bytes: object.tar_bytes,
            tar_blake3: object.tar_blake3,
        })
    }

    /// The tripwire: the file on disk must be age, sealed to as many recipients as we have. Returns
    /// the SHA-256 of its head.
    fn check_sealed(&self, file: &SpoolFile) -> Result<Hash, SealError> {
        let expected = self.stanzas;
        let wrong = |found: String| SealError::NotSealed { expected, found };
        let written = File::open(file.path()).map_err(unwritten(&self.spool))?;
        let head = AgeHeader::read(&mut BufReader::with_capacity(4096, written));
        let head = head.map_err(|error| wrong(error.to_string()))?;
        match head.stanzas() {
            found if found == expected => Ok(head.sha256()),
            found => Err(wrong(format!("{found} stanzas"))),
        }
    }
}
