//! Private keys: reading every kind that age knows, making and sealing new ones.
//!
//! A file is an age identity file, one sealed with a passphrase, or an OpenSSH private key; which,
//! its first bytes tell. What needs a passphrase is opened once, when it is loaded.

use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use age::armor::{ArmoredReader, ArmoredWriter, Format};
use age::secrecy::{ExposeSecret as _, SecretString};
use age::{DecryptError, Decryptor, Encryptor, plugin, scrypt, ssh, x25519};

use zeroize::Zeroizing;

use super::plugin::PluginIdentity;
use super::prompt::Prompt;

/// As much as age reads of an identity file.
const MAX_IDENTITY_BYTES: u64 = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot read the identity file {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not an identity: {reason}", path.display())]
    Malformed { path: PathBuf, reason: String },
    #[error("nobody gave the passphrase of {}", .0.display())]
    NoPassphrase(PathBuf),
    #[error("wrong passphrase for {}", .0.display())]
    WrongPassphrase(PathBuf),
    #[error("{} holds a public key; what opens archives is its private half", .0.display())]
    PublicKey(PathBuf),
    #[error("no identity was given")]
    None,
    #[error("cannot seal the identity with a passphrase")]
    Seal(#[source] io::Error),
}

type BoxedIdentity = Box<dyn age::Identity + Send + Sync>;

/// Everything at hand that might open an archive.
pub struct Identities {
    keys: Vec<BoxedIdentity>,
    /// The recipients whose archives these open, where that can be told.
    recipients: Vec<String>,
    /// A plugin, which is a program of its own, is among them.
    uses_programs: bool,
}

impl std::fmt::Debug for Identities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identities({} keys)", self.keys.len())
    }
}

impl Identities {
    /// Whether opening an archive starts a program: an age plugin.
    pub fn uses_programs(&self) -> bool {
        self.uses_programs
    }

    /// Reads `paths`, asking `prompt` for the passphrases of those that have one.
    pub fn load(paths: &[PathBuf], prompt: &Arc<dyn Prompt>) -> Result<Self, IdentityError> {
        let mut loaded = Self {
            keys: Vec::new(),
            recipients: Vec::new(),
            uses_programs: false,
        };
        for path in paths {
            loaded.load_file(path, prompt)?;
        }
        match loaded.keys.is_empty() {
            true => Err(IdentityError::None),
            false => Ok(loaded),
        }
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &dyn age::Identity> {
        self.keys.iter().map(|key| &**key as &dyn age::Identity)
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
                self.recipients.push(key.to_public().to_string());
                self.keys.push(Box::new(key));
            } else if let Ok(key) = line.parse::<plugin::Identity>() {
                let key = PluginIdentity::new(key, Arc::clone(prompt));
                self.uses_programs = true;
                self.keys.push(Box::new(key));
            } else if !line.is_empty() {
                // The line itself may be most of a secret: only its number is told.
                let start = line.get(..4).unwrap_or_default();
                let what = match start.eq_ignore_ascii_case("AGE-") {
                    true => "has a typing error, or is cut short",
                    false => "is no secret key",
                };
                return Err(malformed(format!("line {} {what}", number + 1)));
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
                    "age opens with ssh-ed25519 and ssh-rsa keys only",
                ));
            }
        };
        let key = ssh::Identity::Unencrypted(key);
        if let Ok(recipient) = ssh::Recipient::try_from(key.clone()) {
            self.recipients.push(recipient.to_string());
        }
        self.keys.push(Box::new(key));
        Ok(())
    }
}

/// The recipients that seal to these identities; a plugin's only where its file names it.
pub fn recipients_of(identities: &Identities) -> &[String] {
    &identities.recipients
}

/// What plugins write above their identity: `# Recipient: age1yubikey1…`.
fn plugin_recipient(comment: &str) -> Option<String> {
    let (word, value) = comment.split_once(':')?;
    let value = value.trim();
    // A native key's own comment (`public key`) repeats what is derived from the key.
    (word.trim().eq_ignore_ascii_case("recipient") && value.starts_with("age1"))
        .then(|| value.to_owned())
}

/// Some editors put a mark before the text.
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

/// Reads to the end into memory that is wiped when it is dropped. A `Vec` that grows leaves copies
/// behind; here each smaller buffer is wiped, too.
pub(crate) fn read_secret(mut from: impl io::Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut content = Zeroizing::new(vec![0; 4096]);
    let mut filled = 0;
    loop {
        match from.read(&mut content[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if filled == content.len() {
            let mut larger = Zeroizing::new(vec![0; 2 * filled]);
            larger[..filled].copy_from_slice(&content);
            content = larger;
        }
    }
    content.truncate(filled);
    Ok(content)
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
        let reason = "it is sealed to other keys, not with a passphrase";
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

/// A new native key: the identity file's text, as `age-keygen` writes it, and its recipient.
pub fn generate() -> (Zeroizing<String>, String) {
    let key = x25519::Identity::generate();
    let recipient = key.to_public().to_string();
    let created = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let secret = key.to_string();
    let secret = secret.expose_secret();
    let parts = [
        "# created: ",
        &created,
        "\n# public key: ",
        &recipient,
        "\n",
        secret,
        "\n",
    ];
    // Of the right size at once: growing would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(
        parts.iter().map(|part| part.len()).sum(),
    ));
    parts.iter().for_each(|part| text.push_str(part));
    (text, recipient)
}

/// Seals an identity file's `text` as `age -p -a` does.
pub fn seal_with_passphrase(
    text: &str,
    passphrase: SecretString,
) -> Result<Vec<u8>, IdentityError> {
    use io::Write as _;
    let seal = || -> io::Result<Vec<u8>> {
        let armor = ArmoredWriter::wrap_output(Vec::new(), Format::AsciiArmor)?;
        let mut writer = Encryptor::with_user_passphrase(passphrase).wrap_output(armor)?;
        writer.write_all(text.as_bytes())?;
        writer.finish()?.finish()
    };
    seal().map_err(IdentityError::Seal)
}
