//! Asks the key holder for a passphrase, a touch or a choice.

use std::env;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

pub use age::secrecy::SecretString;
use zeroize::Zeroizing;

use super::secret::read_secret;

/// Environment variable with the path of a file whose first line is the passphrase, for use without
/// a terminal.
pub const PASSPHRASE_FILE: &str = "SEALIFT_PASSPHRASE_FILE";

/// A way to ask the key holder. `None` means that there was no answer.
pub trait Prompt: Send + Sync {
    /// Asks for a secret; `what` names it, such as `Passphrase of key.txt`.
    fn passphrase(&self, what: &str) -> Option<SecretString>;

    /// Shows a request of the key's hardware, such as to touch it.
    fn message(&self, text: &str);

    /// Asks to choose between `yes` and `no`; `None` if that is not possible here.
    fn confirm(&self, _question: &str, _yes: &str, _no: Option<&str>) -> Option<bool> {
        None
    }
}

/// Answers every question for a passphrase with the first line of a file.
pub struct FilePrompt {
    path: PathBuf,
    /// The prompt that shows messages.
    shown_by: Arc<dyn Prompt>,
}

impl FilePrompt {
    /// Answers from the file at `path`; `shown_by` shows messages.
    pub fn new(path: PathBuf, shown_by: Arc<dyn Prompt>) -> Self {
        Self { path, shown_by }
    }

    /// Returns a prompt that reads `$SEALIFT_PASSPHRASE_FILE` if it is set, else `otherwise`.
    pub fn from_env(otherwise: Arc<dyn Prompt>) -> Arc<dyn Prompt> {
        match env::var_os(PASSPHRASE_FILE) {
            Some(path) if !path.is_empty() => Arc::new(Self::new(path.into(), otherwise)),
            _ => otherwise,
        }
    }
}

impl FilePrompt {
    fn read(&self) -> io::Result<Zeroizing<Vec<u8>>> {
        let text = read_secret(File::open(&self.path)?)?;
        match std::str::from_utf8(&text) {
            Ok(_) => Ok(text),
            Err(_) => Err(io::Error::other("it is not text")),
        }
    }
}

impl Prompt for FilePrompt {
    fn passphrase(&self, _what: &str) -> Option<SecretString> {
        match self.read() {
            Ok(text) => {
                let text = std::str::from_utf8(&text).ok()?;
                text.lines().next().map(SecretString::from)
            }
            Err(error) => {
                let path = self.path.display();
                self.shown_by
                    .message(&format!("cannot read the passphrase file {path}: {error}"));
                None
            }
        }
    }

    fn message(&self, text: &str) {
        self.shown_by.message(text);
    }
}
