//! Reads private keys of every kind that age knows.
//!
//! A file is an age identity file, one sealed with a passphrase, or an OpenSSH private key; its
//! first bytes show which. A key with a passphrase is opened once, when it is loaded.

mod typing_error;

use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use age::armor::ArmoredReader;
use age::secrecy::SecretString;
use age::{DecryptError, Decryptor, plugin, scrypt, ssh, x25519};
use zeroize::Zeroizing;

use super::plugin::PluginIdentity;
use super::prompt::Prompt;
use super::secret::read_secret;

/// Bytes that are read of an identity file; age has the same limit.
const MAX_IDENTITY_BYTES: u64 = 16 << 20;

/// Why an identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read.
    #[error("cannot read the identity file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The file is none of the known kinds, or is damaged.
    #[error("{} is not an identity: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it; never a part of its text.
        reason: String,
    },
    /// The key has a passphrase, and the prompt returned none.
    #[error("no passphrase given for {}", .0.display())]
    NoPassphrase(PathBuf),
    /// The key does not open with the passphrase.
    #[error("wrong passphrase for {}", .0.display())]
    WrongPassphrase(PathBuf),
    /// The file holds a recipient.
    #[error("{} holds a public key; decrypting needs the private key", .0.display())]
    PublicKey(PathBuf),
    /// There is no file to load.
    #[error("no identity was given")]
    None,
    /// A new identity could not be sealed.
    #[error("cannot seal the identity with a passphrase")]
    Seal(#[source] io::Error),
}

type BoxedIdentity = Box<dyn age::Identity + Send + Sync>;

/// The loaded private keys.
pub struct Identities {
    keys: Vec<BoxedIdentity>,
    /// The recipients of these keys, as far as they are known.
    recipients: Vec<String>,
    /// Those of them whose private key this process holds.
    own_recipients: Vec<String>,
    /// The plugin of each key that is used through one, which is a separate program.
    plugins: Vec<String>,
}

impl std::fmt::Debug for Identities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identities({} keys)", self.keys.len())
    }
}

impl Identities {
    /// Returns whether decrypting starts a program: an age plugin.
    pub fn uses_programs(&self) -> bool {
        !self.plugins.is_empty()
    }

    /// Reads the keys in `paths`; asks `prompt` for passphrases.
    pub fn load(paths: &[PathBuf], prompt: &Arc<dyn Prompt>) -> Result<Self, IdentityError> {
        let mut loaded = Self {
            keys: Vec::new(),
            recipients: Vec::new(),
            own_recipients: Vec::new(),
            plugins: Vec::new(),
        };
        for path in paths {
            loaded.load_file(path, prompt)?;
        }
        match loaded.keys.is_empty() {
            true => Err(IdentityError::None),
            false => Ok(loaded),
        }
    }

    /// Returns the text of the identity file at `path`, decrypted if a passphrase protects it: for
    /// a copy on paper.
    pub fn decrypted_text(
        path: &Path,
        prompt: &Arc<dyn Prompt>,
    ) -> Result<Zeroizing<String>, IdentityError> {
        let content = read_file(path)?;
        let content = without_mark(&content).trim_ascii_start();
        let is_sealed = content.starts_with(b"age-encryption.org/")
            || content.starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----");
        let opened = match is_sealed {
            true => open_sealed(path, content, prompt)?,
            false => Zeroizing::new(content.to_vec()),
        };
        let text = std::str::from_utf8(&opened).map_err(|_| IdentityError::Malformed {
            path: path.to_path_buf(),
            reason: "it is not text".to_owned(),
        })?;
        Ok(Zeroizing::new(text.to_owned()))
    }

    /// Returns the recipients of these identities. A plugin's recipient is known only if its file
    /// names it.
    pub fn recipients(&self) -> &[String] {
        &self.recipients
    }

    /// Returns the recipients of those keys that this process holds itself.
    pub fn own_recipients(&self) -> &[String] {
        &self.own_recipients
    }

    /// Returns the plugin of each key that is elsewhere.
    pub fn plugins(&self) -> &[String] {
        &self.plugins
    }

    /// Returns the keys, in the order of the files.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &dyn age::Identity> {
        self.keys.iter().map(|key| &**key as &dyn age::Identity)
    }

    fn add_own(&mut self, recipient: String) {
        self.own_recipients.push(recipient.clone());
        self.recipients.push(recipient);
    }

    fn load_file(&mut self, path: &Path, prompt: &Arc<dyn Prompt>) -> Result<(), IdentityError> {
        let content = read_file(path)?;
        if is_utf16(&content) {
            return Err(IdentityError::Malformed {
                path: path.to_path_buf(),
                reason: "it is UTF-16; save it as UTF-8".to_owned(),
            });
        }
        let content = without_mark(&content);
        let starts_with = |start: &[u8]| content.trim_ascii_start().starts_with(start);
        if starts_with(b"age-encryption.org/") || starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----")
        {
            let opened = open_sealed(path, content.trim_ascii_start(), prompt)?;
            return self.add_age(path, &opened, prompt);
        }
        if starts_with(b"-----BEGIN ") {
            return self.add_ssh(path, content.trim_ascii_start(), prompt);
        }
        if starts_with(b"ssh-") || starts_with(b"age1") {
            return Err(IdentityError::PublicKey(path.to_path_buf()));
        }
        self.add_age(path, content, prompt)
    }

    fn add_age(
        &mut self,
        path: &Path,
        content: &[u8],
        prompt: &Arc<dyn Prompt>,
    ) -> Result<(), IdentityError> {
        let malformed = |reason: String| IdentityError::Malformed {
            path: path.to_path_buf(),
            reason,
        };
        let text =
            std::str::from_utf8(content).map_err(|_| malformed("it is not text".to_owned()))?;
        let before = self.keys.len();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if let Some(comment) = line.strip_prefix('#') {
                self.recipients.extend(plugin_recipient(comment));
            } else if let Ok(key) = line.parse::<x25519::Identity>() {
                self.add_own(key.to_public().to_string());
                self.keys.push(Box::new(key));
            } else if let Ok(key) = line.parse::<plugin::Identity>() {
                self.plugins.push(key.plugin().to_owned());
                let key = PluginIdentity::new(key, Arc::clone(prompt));
                self.keys.push(Box::new(key));
            } else if !line.is_empty() {
                if typing_error::is_broken_over_lines(text, &is_age_identity) {
                    let reason = "its key is broken over several lines; join them to one";
                    return Err(malformed(reason.to_owned()));
                }
                // The line may be most of a secret, so the message has only its number.
                let fault = typing_error::of_identity(line, &is_age_identity);
                return Err(malformed(format!("line {} {fault}", number + 1)));
            }
        }
        match self.keys.len() == before {
            true => Err(malformed("it holds no secret key".to_owned())),
            false => Ok(()),
        }
    }

    fn add_ssh(
        &mut self,
        path: &Path,
        content: &[u8],
        prompt: &Arc<dyn Prompt>,
    ) -> Result<(), IdentityError> {
        let malformed = |reason: &str| IdentityError::Malformed {
            path: path.to_path_buf(),
            reason: reason.to_owned(),
        };
        let key = ssh::Identity::from_buffer(content, None)
            .map_err(|_| malformed("it is a damaged or unknown kind of private key"))?;
        let key = match key {
            ssh::Identity::Encrypted(locked) => {
                let passphrase = ask(path, prompt)?;
                let opened = locked.decrypt(passphrase);
                opened.map_err(|_| IdentityError::WrongPassphrase(path.to_path_buf()))?
            }
            ssh::Identity::Unencrypted(key) => key,
            ssh::Identity::Unsupported(_) => {
                return Err(malformed(
                    "age decrypts with ssh-ed25519 and ssh-rsa keys only",
                ));
            }
        };
        let key = ssh::Identity::Unencrypted(key);
        if let Ok(recipient) = ssh::Recipient::try_from(key.clone()) {
            self.add_own(recipient.to_string());
        }
        self.keys.push(Box::new(key));
        Ok(())
    }
}

/// Whether `text` is a native or a plugin's identity.
fn is_age_identity(text: &str) -> bool {
    text.parse::<x25519::Identity>().is_ok() || text.parse::<plugin::Identity>().is_ok()
}

/// Returns the recipient in the comment that plugins write above their identity:
/// `# Recipient: age1yubikey1…`.
fn plugin_recipient(comment: &str) -> Option<String> {
    let (word, value) = comment.split_once(':')?;
    let value = value.trim();
    // The comment above a native key (`public key`) is not needed: its recipient is derived from
    // it.
    (word.trim().eq_ignore_ascii_case("recipient") && value.starts_with("age1"))
        .then(|| value.to_owned())
}

/// Removes the byte order mark that some editors put before the text.
fn without_mark(content: &[u8]) -> &[u8] {
    content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content)
}

fn is_utf16(content: &[u8]) -> bool {
    content.starts_with(b"\xff\xfe") || content.starts_with(b"\xfe\xff")
}

fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    let content = File::open(path).and_then(|file| read_secret(file.take(MAX_IDENTITY_BYTES)));
    content.map_err(|source| IdentityError::Read {
        path: path.to_path_buf(),
        source,
    })
}

fn ask(path: &Path, prompt: &Arc<dyn Prompt>) -> Result<SecretString, IdentityError> {
    prompt
        .passphrase(&format!("Passphrase of {}", path.display()))
        .ok_or_else(|| IdentityError::NoPassphrase(path.to_path_buf()))
}

/// Opens an identity file that age sealed with a passphrase, armored or not.
fn open_sealed(
    path: &Path,
    sealed: &[u8],
    prompt: &Arc<dyn Prompt>,
) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    let malformed = |reason: String| IdentityError::Malformed {
        path: path.to_path_buf(),
        reason,
    };
    let decryptor = Decryptor::new_buffered(BufReader::new(ArmoredReader::new(sealed)))
        .map_err(|error| malformed(error.to_string()))?;
    if !decryptor.is_scrypt() {
        let reason = "it is encrypted to other keys, not with a passphrase";
        return Err(malformed(reason.to_owned()));
    }
    let key = scrypt::Identity::new(ask(path, prompt)?);
    let opened = decryptor.decrypt(std::iter::once(&key as &dyn age::Identity));
    let opened = opened.map_err(|error| match error {
        DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed => {
            IdentityError::WrongPassphrase(path.to_path_buf())
        }
        other => malformed(other.to_string()),
    })?;
    read_secret(opened).map_err(|error| malformed(error.to_string()))
}
