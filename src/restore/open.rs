//! Opens sealed archives: age, then zstd; returns the tar stream. The mirror of `packer/seal`.
//!
//! Outside of `keys`, only this module names age identities. The output is authenticated by age
//! chunk by chunk, but anyone who knows the recipients can seal an archive. Who wrote it is proven
//! only by the hashes in a signed manifest, which [`super::fetch`] compares.

pub use crate::keys::generate::{generate, seal_with_passphrase};
pub use crate::keys::identities::{Identities, IdentityError};
pub use crate::keys::prompt::{FilePrompt, PASSPHRASE_FILE, Prompt, SecretString};
pub use age::secrecy::ExposeSecret;

use std::cell::RefCell;
use std::io::{self, BufRead};

use age::{DecryptError, Decryptor, Identity};
use age_core::format::{FileKey, Stanza};

use crate::base::no_memory::is_lack_of_memory;
use crate::format::archive::age_header::{AgeHeader, AgeHeaderError};
use crate::format::archive::age_payload::{PayloadKey, PayloadReader};
use crate::format::archive::frame_reader::FrameReader;

/// Why a sealed archive could not be opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenArchiveError {
    /// It is encrypted to other recipients.
    #[error("none of the identities can decrypt it (encrypted to {recipients} recipient{})", plural(*recipients))]
    NoMatchingKey {
        /// Recipients in its age header.
        recipients: usize,
    },
    /// It ends too early.
    #[error("it is cut short")]
    Truncated,
    /// It breaks the format.
    #[error("its content is damaged: {0}")]
    Corrupt(String),
    /// The decompressor could not get its memory.
    #[error("this machine does not have enough memory to open it")]
    NoMemory,
    /// An identity matches, but failed: a plugin's error, for one.
    #[error("the key could not be used: {0}")]
    Key(String),
}

impl OpenArchiveError {
    /// Returns the meaning of an error that arose while the tar stream was read.
    pub(crate) fn reading(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated,
            _ if is_lack_of_memory(&error) => Self::NoMemory,
            _ => Self::Corrupt(error.to_string()),
        }
    }
}

fn plural(count: usize) -> &'static str {
    match count {
        1 => "",
        _ => "s",
    }
}

/// Reads the age header and the payload nonce behind it.
pub(super) fn read_head(input: &mut impl BufRead) -> Result<AgeHeader, OpenArchiveError> {
    AgeHeader::read(input).map_err(|error| match error {
        AgeHeaderError::Truncated => OpenArchiveError::Truncated,
        AgeHeaderError::Read(error) => OpenArchiveError::reading(error),
        AgeHeaderError::NotAge | AgeHeaderError::TooLong => {
            OpenArchiveError::Corrupt(error.to_string())
        }
    })
}

/// Returns the tar stream of a sealed archive. [`OpenArchiveError::reading`] interprets the errors
/// of reading it.
pub fn open_archive<R: BufRead + Send>(
    mut input: R,
    identities: &Identities,
) -> Result<impl BufRead + use<R>, OpenArchiveError> {
    let head = read_head(&mut input)?;
    let plain = PayloadReader::new(payload_key(&head, identities)?, input);
    FrameReader::new(plain).map_err(OpenArchiveError::reading)
}

/// An identity that captures the file key it unwraps, since the payload is decrypted by our own
/// code.
struct CapturingIdentity<'a> {
    identity: &'a dyn Identity,
    file_key: &'a RefCell<Option<FileKey>>,
}

impl CapturingIdentity<'_> {
    fn keep(&self, unwrapped: &Option<Result<FileKey, DecryptError>>) {
        if let Some(Ok(file_key)) = unwrapped {
            let kept = FileKey::new(Box::new(*file_key.expose_secret()));
            self.file_key.replace(Some(kept));
        }
    }
}

impl Identity for CapturingIdentity<'_> {
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

/// Returns the key of the payload behind `head`. Checks the MAC of the header.
pub(super) fn payload_key(
    head: &AgeHeader,
    identities: &Identities,
) -> Result<PayloadKey, OpenArchiveError> {
    let file_key = RefCell::new(None);
    let keeping: Vec<CapturingIdentity<'_>> = identities
        .keys()
        .map(|identity| CapturingIdentity {
            identity,
            file_key: &file_key,
        })
        .collect();
    let keys = keeping.iter().map(|key| key as &dyn Identity);
    // This reads nothing of the payload; it succeeds if the header's MAC is right.
    Decryptor::new_buffered(head.bytes())
        .and_then(|decryptor| decryptor.decrypt(keys).map(drop))
        .map_err(|error| from_age(error, head.stanzas()))?;
    let Some(file_key) = file_key.take() else {
        return Err(OpenArchiveError::Corrupt(
            "its header gives no key".to_owned(),
        ));
    };
    PayloadKey::derive(file_key.expose_secret(), &head.nonce()).map_err(OpenArchiveError::reading)
}

fn from_age(error: DecryptError, stanzas: usize) -> OpenArchiveError {
    match error {
        DecryptError::NoMatchingKeys => OpenArchiveError::NoMatchingKey {
            recipients: stanzas,
        },
        DecryptError::Io(error) => OpenArchiveError::reading(error),
        DecryptError::KeyDecryptionFailed
        | DecryptError::Plugin(_)
        | DecryptError::PluginResolve(_) => OpenArchiveError::Key(error.to_string()),
        other => OpenArchiveError::Corrupt(other.to_string()),
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
    fn a_lack_of_memory_does_not_count_as_damage() {
        // ZSTD_error_memory_allocation.
        let code = zstd::zstd_safe::ErrorCode::MAX - 63;
        let text = zstd::zstd_safe::get_error_name(code);
        // As the decoder reports it before it has a context.
        let early = "zstd could not allocate a decompression context";
        for error in [
            io::Error::other(text),
            io::Error::other(early),
            io::ErrorKind::OutOfMemory.into(),
        ] {
            assert!(matches!(
                OpenArchiveError::reading(error),
                OpenArchiveError::NoMemory
            ));
        }
        let damaged = OpenArchiveError::reading(io::Error::other("Data corruption detected"));
        assert!(matches!(damaged, OpenArchiveError::Corrupt(_)));
    }
}
