//! Opening sealed archives: age, then zstd, giving the tar stream. The mirror of `packer/seal`.
//!
//! This module and its children are the only ones that name age identities. What comes out is
//! authenticated by age chunk by chunk, but anyone who knows the recipients can seal: who wrote an
//! archive is told only by the hashes of a signed manifest, which [`super::fetch`] compares.

mod concat_tars;

pub use crate::keys::generate::{generate, seal_with_passphrase};
pub use crate::keys::identities::{Identities, IdentityError};
pub use crate::keys::prompt::{FilePrompt, PASSPHRASE_FILE, Prompt, SecretString};
pub use age::secrecy::ExposeSecret;
pub use concat_tars::{JoinError, open_to_tar};

use std::cell::RefCell;
use std::io::{self, BufRead, BufReader, Read};

use age::{DecryptError, Decryptor, Identity};
use age_core::format::{FileKey, Stanza};

use crate::format::archive::age_header::{AgeHeader, AgeHeaderError};
use crate::format::archive::age_payload::{PayloadKey, PayloadReader};

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("none of the identities opens it; it is sealed to {0} recipients")]
    NoMatchingKey(usize),
    #[error("it is cut short")]
    Truncated,
    #[error("its content is damaged: {0}")]
    Corrupt(String),
    #[error("this machine has not enough memory to open it")]
    NoMemory,
    #[error("the key could not be used: {0}")]
    Key(String),
}

impl OpenError {
    /// What an error met while reading the tar stream means.
    pub(crate) fn reading(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated,
            io::ErrorKind::OutOfMemory => Self::NoMemory,
            // zstd has but a text for it.
            _ if error.to_string().contains("not enough memory") => Self::NoMemory,
            _ => Self::Corrupt(error.to_string()),
        }
    }
}

/// Reads the age header and the payload nonce behind it.
pub(super) fn read_head(input: &mut impl BufRead) -> Result<AgeHeader, OpenError> {
    AgeHeader::read(input).map_err(|error| match error {
        AgeHeaderError::Truncated => OpenError::Truncated,
        AgeHeaderError::Read(error) => OpenError::reading(error),
        AgeHeaderError::NotAge | AgeHeaderError::TooLong => OpenError::Corrupt(error.to_string()),
    })
}

/// The tar stream of a sealed archive; [`OpenError::reading`] tells what an error within it means.
pub fn open_archive<R: Read + Send>(
    input: R,
    identities: &Identities,
) -> Result<impl Read + use<R>, OpenError> {
    let mut input = BufReader::with_capacity(128 << 10, input);
    let head = read_head(&mut input)?;
    let plain = PayloadReader::new(payload_key(&head, identities)?, input);
    zstd::stream::read::Decoder::with_buffer(plain).map_err(OpenError::reading)
}

/// An identity that keeps the file key which it unwraps: the payload is decrypted here.
struct Keeping<'a> {
    identity: &'a dyn Identity,
    file_key: &'a RefCell<Option<FileKey>>,
}

impl Keeping<'_> {
    fn keep(&self, unwrapped: &Option<Result<FileKey, DecryptError>>) {
        if let Some(Ok(file_key)) = unwrapped {
            let kept = FileKey::new(Box::new(*file_key.expose_secret()));
            self.file_key.replace(Some(kept));
        }
    }
}

impl Identity for Keeping<'_> {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, DecryptError>> {
        let unwrapped = self.identity.unwrap_stanza(stanza);
        self.keep(&unwrapped);
        unwrapped
    }

    fn unwrap_stanzas(&self, stanzas: &[Stanza]) -> Option<Result<FileKey, DecryptError>> {
        let unwrapped = self.identity.unwrap_stanzas(stanzas);
        self.keep(&unwrapped);
        unwrapped
    }
}

/// The key of the payload behind `head`, which the header's own key vouches for.
fn payload_key(head: &AgeHeader, identities: &Identities) -> Result<PayloadKey, OpenError> {
    let file_key = RefCell::new(None);
    let keeping: Vec<Keeping<'_>> = identities
        .keys()
        .map(|identity| Keeping {
            identity,
            file_key: &file_key,
        })
        .collect();
    let keys = keeping.iter().map(|key| key as &dyn Identity);
    // Nothing is read of the payload; what comes back is that the header's MAC is right.
    Decryptor::new_buffered(head.bytes())
        .and_then(|decryptor| decryptor.decrypt(keys).map(drop))
        .map_err(|error| from_age(error, head.stanzas()))?;
    let Some(file_key) = file_key.take() else {
        return Err(OpenError::Corrupt("its header gives no key".to_owned()));
    };
    PayloadKey::derive(file_key.expose_secret(), &head.nonce()).map_err(OpenError::reading)
}

fn from_age(error: DecryptError, stanzas: usize) -> OpenError {
    match error {
        DecryptError::NoMatchingKeys => OpenError::NoMatchingKey(stanzas),
        DecryptError::Io(error) => OpenError::reading(error),
        DecryptError::KeyDecryptionFailed
        | DecryptError::Plugin(_)
        | DecryptError::PluginResolve(_) => OpenError::Key(error.to_string()),
        other => OpenError::Corrupt(other.to_string()),
    }
}

/// Whether any of the identities opens `sealed`.
pub fn opens(identities: &Identities, sealed: &[u8]) -> bool {
    Decryptor::new(sealed).is_ok_and(|decryptor| {
        let opened = decryptor.decrypt(identities.keys());
        opened.is_ok_and(|mut plain| io::copy(&mut plain, &mut io::sink()).is_ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_not_damaged_for_want_of_memory() {
        // ZSTD_error_memory_allocation.
        let code = zstd::zstd_safe::ErrorCode::MAX - 63;
        let text = zstd::zstd_safe::get_error_name(code);
        for error in [io::Error::other(text), io::ErrorKind::OutOfMemory.into()] {
            assert!(matches!(OpenError::reading(error), OpenError::NoMemory));
        }
        let damaged = OpenError::reading(io::Error::other("Data corruption detected"));
        assert!(matches!(damaged, OpenError::Corrupt(_)));
    }
}
