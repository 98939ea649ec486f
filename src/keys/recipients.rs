//! Recipients: strings and files → age recipients, with identities refused on sight.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io::{self, Write};
use std::path::Path;

use age::plugin::RecipientPluginV1;
use age::secrecy::ExposeSecret as _;
use age::{EncryptError, Encryptor, NoCallbacks, Recipient};
use age_core::format::{FileKey, Stanza};

use crate::base::ownership::{open_regular, read_text};
use crate::format::archive::age_payload::{NONCE_BYTES, PayloadKey, PayloadWriter};
use crate::packer::seal::SealError;

/// Of a file that lists recipients.
const MAX_LIST_BYTES: u64 = 4 << 20;

/// Who can open what is packed.
pub struct Recipients {
    /// Canonical: sorted, without comments or duplicates.
    texts: Vec<String>,
    keys: Vec<Box<dyn Recipient + Send + Sync>>,
}

impl std::fmt::Debug for Recipients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.texts).finish()
    }
}

/// A plugin may need its user's attention to encrypt; a scheduled run has none to give.
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

/// A recipient that keeps the file key which it wraps: the payload is encrypted here.
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
    /// Parses recipients and files of them (one a line, `#` comments), any number at once. Relative
    /// paths are below `base`.
    pub fn load(texts: &[String], base: &Path) -> Result<Self, SealError> {
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
            return Err(SealError::NoRecipient);
        }
        let (texts, keys) = parsed.into_iter().unzip();
        Ok(Self { texts, keys })
    }

    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// Stanzas that an object sealed to them has.
    pub fn count(&self) -> usize {
        self.keys.len()
    }

    /// Writes a header of its own to `output`; what is written to the writer follows, encrypted.
    pub(crate) fn encrypt<W: Write>(&self, mut output: W) -> Result<PayloadWriter<W>, SealError> {
        let failed = |error: &dyn std::fmt::Display| SealError::Encrypt(error.to_string());
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

    /// Seals a few bytes (for `key check`).
    pub fn seal_bytes(&self, bytes: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut writer = self.encrypt(Vec::new())?;
        let sealed = writer.write_all(bytes).and_then(|()| writer.finish());
        sealed.map_err(|error: io::Error| SealError::Encrypt(error.to_string()))
    }
}

fn looks_private(text: &str) -> bool {
    let upper = text.trim_start().to_ascii_uppercase();
    upper.starts_with("AGE-SECRET-KEY-")
        || upper.starts_with("AGE-PLUGIN-")
        || upper.contains("PRIVATE KEY-----")
}

fn collect_lines(text: &str, base: &Path, lines: &mut Vec<String>) -> Result<(), SealError> {
    if looks_private(text) {
        return Err(SealError::Identity("the list of recipients".to_owned()));
    }
    if text.starts_with("age1") || text.starts_with("ssh-") {
        lines.push(text.trim().to_owned());
        return Ok(());
    }
    let path = base.join(text);
    let content = open_regular(&path).and_then(|file| read_text(&file, MAX_LIST_BYTES));
    let content = match content {
        Ok(content) => content,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(SealError::NotARecipient(text.to_owned()));
        }
        Err(source) => {
            return Err(SealError::RecipientFile {
                path: path.display().to_string(),
                source,
            });
        }
    };
    if content.lines().any(looks_private) {
        return Err(SealError::Identity(path.display().to_string()));
    }
    let useful = |line: &&str| !line.is_empty() && !line.starts_with('#');
    lines.extend(
        content
            .lines()
            .map(str::trim)
            .filter(useful)
            .map(str::to_owned),
    );
    Ok(())
}

type Parsed = (String, Box<dyn Recipient + Send + Sync>);

fn parse(line: &str) -> Result<Parsed, SealError> {
    let wrong = || SealError::NotARecipient(line.chars().take(100).collect());
    if line.starts_with("ssh-") {
        let key: age::ssh::Recipient = line.parse().map_err(|_| wrong())?;
        // Without its comment, the same key is the same recipient.
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
                false => SealError::Plugin {
                    recipient: line.to_owned(),
                    reason: format!("{error} (is age-plugin-{name} on the PATH?)"),
                },
            }
        })?;
    let plugin = SyncPlugin(std::sync::Mutex::new(plugin));
    Ok((line.to_owned(), Box::new(plugin)))
}

/// Such a recipient has two thousand characters; its beginning will do.
fn post_quantum(line: &str) -> SealError {
    SealError::PostQuantum(line.chars().take(16).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_post_quantum_recipient_is_refused_with_the_reason() {
        // Of the right form: charset and checksum of "age1pq"; and one that is cut off.
        for text in ["age1pq1qqqqqqqqqqqqqqqqqqqqqqqqqqq", "age1pq1x"] {
            let error = Recipients::load(&[text.to_owned()], Path::new("/"))
                .err()
                .unwrap();
            let told = error.to_string();
            assert!(
                told.contains("post-quantum") && told.contains("without -pq"),
                "{told}"
            );
        }
    }
}
