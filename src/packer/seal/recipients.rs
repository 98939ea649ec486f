//! Recipients: strings and files → age recipients, with identities refused on sight.

use std::fs;
use std::path::Path;

use age::plugin::RecipientPluginV1;
use age::{Encryptor, NoCallbacks, Recipient};

use super::SealError;

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
        file_key: &age_core::format::FileKey,
    ) -> Result<
        (
            Vec<age_core::format::Stanza>,
            std::collections::HashSet<String>,
        ),
        age::EncryptError,
    > {
        match self.0.lock() {
            Ok(plugin) => plugin.wrap_file_key(file_key),
            Err(poisoned) => poisoned.into_inner().wrap_file_key(file_key),
        }
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

    pub(super) fn encryptor(&self) -> Result<Encryptor, SealError> {
        let keys = self.keys.iter().map(|key| &**key as &dyn Recipient);
        Encryptor::with_recipients(keys).map_err(|e| SealError::Encrypt(e.to_string()))
    }

    /// Seals a few bytes (for `key check`).
    pub fn seal_bytes(&self, bytes: &[u8]) -> Result<Vec<u8>, SealError> {
        use std::io::Write as _;
        let mut sealed = Vec::new();
        let mut writer = self
            .encryptor()?
            .wrap_output(&mut sealed)
            .map_err(|e| SealError::Encrypt(e.to_string()))?;
        let written = writer.write_all(bytes).and_then(|()| writer.finish());
        written.map_err(|e| SealError::Encrypt(e.to_string()))?;
        Ok(sealed)
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
    let content = match fs::read_to_string(&path) {
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
    let recipient: age::plugin::Recipient = line.parse().map_err(|_| wrong())?;
    let name = recipient.plugin().to_owned();
    let plugin =
        RecipientPluginV1::new(&name, &[recipient], &[], NoCallbacks).map_err(|error| {
            SealError::Plugin {
                recipient: line.to_owned(),
                reason: format!("{error} (is age-plugin-{name} on the PATH?)"),
            }
        })?;
    let plugin = SyncPlugin(std::sync::Mutex::new(plugin));
    Ok((line.to_owned(), Box::new(plugin)))
}
