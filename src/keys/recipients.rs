//! Turns strings and files into age recipients, and encrypts to them. Refuses identities.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io::{self, Write};
use std::path::Path;

use age::plugin::RecipientPluginV1;
use age::secrecy::ExposeSecret as _;
use age::{EncryptError, Encryptor, NoCallbacks, Recipient};
use age_core::format::{FileKey, Stanza};

use super::private_key_text::private_part;
use super::recipient_file::{RecipientFileError, read_recipient_file};
use crate::format::archive::age_payload::{NONCE_BYTES, PayloadKey, PayloadWriter};

/// Why recipients cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipientError {
    /// The list is empty.
    #[error("there is no recipient, so the archives could not be decrypted")]
    None,
    /// A file of recipients cannot be read.
    #[error("cannot read recipients from {path}")]
    File {
        /// The file.
        path: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The text, shortened, is neither a recipient nor the name of a file.
    #[error(
        "{0:?} is not an age recipient (age1..., ssh-ed25519 ..., ssh-rsa ..., age1PLUGIN...) \
         nor a readable file of them"
    )]
    NotARecipient(String),
    /// The text would be a recipient without its spaces.
    #[error("{0:?} has a space in it; without the space it is a valid recipient")]
    Space(String),
    /// A private key is in the named place.
    #[error(
        "{0} holds a private key: a host that packs must never hold an identity; \
         use the public recipient"
    )]
    PrivateKey(String),
    /// The recipient, shortened, is of a kind that the age library lacks.
    #[error(
        "{0}... is a post-quantum recipient (`age-keygen -pq`), which sealift does not support: \
         its age library has no such keys yet, and there is no program age-plugin-pq on the PATH; \
         use a recipient that `sealift key generate` or `age-keygen` without -pq makes"
    )]
    PostQuantum(String),
    /// The recipient's plugin does not work.
    #[error("recipient {recipient} cannot be used: {reason}")]
    Plugin {
        /// The recipient.
        recipient: String,
        /// The plugin's error.
        reason: String,
    },
    /// Making the header, or writing, failed.
    #[error("encrypting failed: {0}")]
    Encrypt(String),
}

/// The recipients of new archives: the key holders who can decrypt them.
pub struct Recipients {
    /// Canonical texts: sorted, without comments or duplicates.
    texts: Vec<String>,
    keys: Vec<Box<dyn Recipient + Send + Sync>>,
}

impl std::fmt::Debug for Recipients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.texts).finish()
    }
}

/// A plugin without callbacks: it could ask its user something, but a scheduled run has no user.
type PluginRecipient = RecipientPluginV1<NoCallbacks>;

struct SyncPlugin(std::sync::Mutex<PluginRecipient>);

impl Recipient for SyncPlugin {
    fn wrap_file_key(
        &self,
        file_key: &FileKey,
    ) -> Result<(Vec<Stanza>, HashSet<String>), EncryptError> {
        match self.0.lock() {
            Ok(plugin) => plugin.wrap_file_key(file_key),
            Err(poisoned) => poisoned.into_inner().wrap_file_key(file_key),
        }
    }
}

/// A recipient that keeps the file key which it wraps, since [`PayloadWriter`] encrypts the
/// payload.
struct Keeping<'a> {
    recipient: &'a dyn Recipient,
    file_key: &'a RefCell<Option<FileKey>>,
}

impl Recipient for Keeping<'_> {
    fn wrap_file_key(
        &self,
        file_key: &FileKey,
    ) -> Result<(Vec<Stanza>, HashSet<String>), EncryptError> {
        let kept = FileKey::new(Box::new(*file_key.expose_secret()));
        self.file_key.replace(Some(kept));
        self.recipient.wrap_file_key(file_key)
    }
}

impl Recipients {
    /// Parses recipients and files of them. Relative paths are below `base`.
    pub fn load(texts: &[String], base: &Path) -> Result<Self, RecipientError> {
        let mut lines = Vec::new();
        for text in texts {
            collect_lines(text, base, &mut lines)?;
        }
        let mut parsed = Vec::new();
        for line in &lines {
            parsed.push(parse(line)?);
        }
        parsed.sort_by(|a, b| a.0.cmp(&b.0));
        parsed.dedup_by(|a, b| a.0 == b.0);
        if parsed.is_empty() {
            return Err(RecipientError::None);
        }
        let (texts, keys) = parsed.into_iter().unzip();
        Ok(Self { texts, keys })
    }

    /// Returns the recipients' canonical texts, sorted.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// Returns the number of recipients: a sealed object has as many stanzas.
    pub fn count(&self) -> usize {
        self.keys.len()
    }

    /// Writes an age header to `output`, and returns a writer that encrypts the payload behind it.
    pub(crate) fn encrypt<W: Write>(
        &self,
        mut output: W,
    ) -> Result<PayloadWriter<W>, RecipientError> {
        let failed = |error: &dyn std::fmt::Display| RecipientError::Encrypt(error.to_string());
        let file_key = RefCell::new(None);
        let keeping: Vec<Keeping<'_>> = self
            .keys
            .iter()
            .map(|key| Keeping {
                recipient: &**key,
                file_key: &file_key,
            })
            .collect();
        let encryptor = Encryptor::with_recipients(keeping.iter().map(|key| key as &dyn Recipient));
        let mut head = Vec::new();
        let headed = encryptor.map_err(|error| failed(&error))?;
        let headed = headed.wrap_output(&mut head).map(drop);
        headed.map_err(|error| failed(&error))?;
        let (Some(nonce), Some(file_key)) = (head.last_chunk::<NONCE_BYTES>(), file_key.take())
        else {
            return Err(failed(&"the header has no nonce or no key"));
        };
        let key = PayloadKey::derive(file_key.expose_secret(), nonce);
        let key = key.map_err(|error| failed(&error))?;
        let written = output.write_all(&head);
        written.map_err(|error| failed(&error))?;
        Ok(PayloadWriter::new(key, output))
    }

    /// Encrypts a few bytes (for `key check`).
    pub fn seal_bytes(&self, bytes: &[u8]) -> Result<Vec<u8>, RecipientError> {
        let mut writer = self.encrypt(Vec::new())?;
        let sealed = writer.write_all(bytes).and_then(|()| writer.finish());
        sealed.map_err(|error: io::Error| RecipientError::Encrypt(error.to_string()))
    }
}

/// Longest recipient that a person is shown whole; a native one has 62 characters.
const MOST_SHOWN: usize = 70;

/// Returns a recipient as a person reads it: an SSH key by its fingerprint, as `ssh-keygen -l`
/// shows it, and a long one of a plugin by its ends.
pub fn short(recipient: &str) -> String {
    if let Ok(key) = ssh_key::PublicKey::from_openssh(recipient) {
        let kind = recipient.split_whitespace().next().unwrap_or_default();
        return format!("{kind} {}", key.fingerprint(ssh_key::HashAlg::Sha256));
    }
    match recipient.char_indices().nth(MOST_SHOWN) {
        None => recipient.to_owned(),
        Some(_) => {
            let all: Vec<char> = recipient.chars().collect();
            let part = |part: &[char]| part.iter().collect::<String>();
            format!("{}...{}", part(&all[..24]), part(&all[all.len() - 8..]))
        }
    }
}

/// Appends the recipients that `text` stands for: itself, or those of the file that it names.
fn collect_lines(text: &str, base: &Path, lines: &mut Vec<String>) -> Result<(), RecipientError> {
    if private_part(text).is_some() {
        let place = "the list of recipients".to_owned();
        return Err(RecipientError::PrivateKey(place));
    }
    if text.starts_with("age1") || text.starts_with("ssh-") {
        lines.push(text.trim().to_owned());
        return Ok(());
    }
    let path = base.join(text);
    let file_lines = read_recipient_file(&path).map_err(|error| match error {
        RecipientFileError::Read(e) if e.kind() == io::ErrorKind::NotFound => {
            RecipientError::NotARecipient(text.to_owned())
        }
        RecipientFileError::Read(source) => RecipientError::File {
            path: path.display().to_string(),
            source,
        },
        RecipientFileError::PrivateKey { .. } => {
            RecipientError::PrivateKey(path.display().to_string())
        }
    })?;
    lines.extend(file_lines.into_iter().map(|line| line.text));
    Ok(())
}

type ParsedRecipient = (String, Box<dyn Recipient + Send + Sync>);

/// Parses a recipient. Returns its canonical text and its key.
fn parse(line: &str) -> Result<ParsedRecipient, RecipientError> {
    let wrong = || {
        let start = line.chars().take(100).collect();
        match is_valid_without_spaces(line) {
            true => RecipientError::Space(start),
            false => RecipientError::NotARecipient(start),
        }
    };
    if line.starts_with("ssh-") {
        let key: age::ssh::Recipient = line.parse().map_err(|_| wrong())?;
        // Keys that differ in their comment alone are the same recipient.
        let text: Vec<&str> = line.split_whitespace().take(2).collect();
        return Ok((text.join(" "), Box::new(key)));
    }
    if let Ok(key) = line.parse::<age::x25519::Recipient>() {
        return Ok((line.to_owned(), Box::new(key)));
    }
    let is_post_quantum = line.starts_with("age1pq1");
    let recipient: age::plugin::Recipient = line.parse().map_err(|_| match is_post_quantum {
        true => post_quantum(line),
        false => wrong(),
    })?;
    let name = recipient.plugin().to_owned();
    let plugin =
        RecipientPluginV1::new(&name, &[recipient], &[], NoCallbacks).map_err(|error| {
            match is_post_quantum {
                true => post_quantum(line),
                false => RecipientError::Plugin {
                    recipient: short(line),
                    reason: format!("{error} (is age-plugin-{name} on the PATH?)"),
                },
            }
        })?;
    let plugin = SyncPlugin(std::sync::Mutex::new(plugin));
    Ok((line.to_owned(), Box::new(plugin)))
}

/// Whether a recipient that was typed with spaces is valid without them.
fn is_valid_without_spaces(line: &str) -> bool {
    let joined: String = line.split_whitespace().collect();
    joined != line && joined.parse::<age::x25519::Recipient>().is_ok()
}

/// Such a recipient has two thousand characters, so the message has only its beginning.
fn post_quantum(line: &str) -> RecipientError {
    RecipientError::PostQuantum(line.chars().take(16).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_reads_fingerprints_and_ends_of_long_keys() {
        let native = "age1wwtd50lehm54edva2yxgj558d044pfqq6hm87qvx9qssys4qha5swez2ur";
        assert_eq!(short(native), native);
        // `ssh-keygen -lf` prints this fingerprint for the key of docs and samples.
        let key =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFAOtPgyXzbjT6R9JZk+0I4r8afRRhBP5Sw60pHMQaB1";
        assert!(
            short(key).starts_with("ssh-ed25519 SHA256:"),
            "{}",
            short(key)
        );
        assert_eq!(short(&format!("{key} a comment")), short(key));
        let plugin = format!("age1yubikey1{}wxyz", "q".repeat(400));
        let shown = short(&plugin);
        assert!(
            shown.starts_with("age1yubikey1qqqq") && shown.ends_with("qqqqwxyz"),
            "{shown}"
        );
        assert!(shown.chars().count() < 40, "{shown}");
    }

    #[test]
    fn a_recipient_that_was_typed_with_a_space_is_recognized() {
        let typed = "age1wwtd50lehm54edva2yxgj558d 044pfqq6hm87qvx9qssys4qha5swez2ur";
        let error = Recipients::load(&[typed.to_owned()], Path::new("/")).err();
        let error = error.unwrap().to_string();
        assert!(error.contains("has a space in it; without"), "{error}");
        let commented = format!("{} laptop", typed.replace(' ', ""));
        let error = Recipients::load(&[commented], Path::new("/")).err();
        assert!(!error.unwrap().to_string().contains("space"));
    }

    #[test]
    fn a_post_quantum_recipient_is_refused_with_the_reason() {
        // Of the right form: charset and checksum of "age1pq"; and one that is cut off.
        for text in ["age1pq1qqqqqqqqqqqqqqqqqqqqqqqqqqq", "age1pq1x"] {
            let error = Recipients::load(&[text.to_owned()], Path::new("/"))
                .err()
                .unwrap();
            let message = error.to_string();
            assert!(
                message.contains("post-quantum") && message.contains("without -pq"),
                "{message}"
            );
        }
    }
}
