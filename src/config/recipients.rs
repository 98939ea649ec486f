//! The recipients in the configuration, and the files that list more of them.
//!
//! The sealer decides whether a recipient is valid. This module refuses private keys, and the
//! host's own signer, with which the host could open its backups.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::Config;
use super::check::private_part;
use super::document::ConfigDocument;
use super::error::ConfigError;
use crate::base::ownership;

/// A recipient, or a file of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipient {
    /// A public key: `age1…`, `ssh-ed25519 …`, `ssh-rsa …`.
    Text(String),
    /// The absolute path of a file with one public key per line; `#` begins a comment line.
    File(PathBuf),
}

/// Largest file of recipients that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

impl Recipient {
    pub(super) fn validate(
        text: &str,
        span: &Range<usize>,
        document: &ConfigDocument<'_>,
    ) -> Result<Self, ConfigError> {
        let text = text.trim();
        if is_public_key(text) {
            return Ok(Self::Text(text.to_owned()));
        }
        if text.is_empty() {
            return Err(document.invalid(span, "an empty recipient"));
        }
        let path = document.resolve(text);
        // A missing file is reported when it is needed: a listing does not need the recipients.
        if path.exists() {
            for line in read_file(&path)? {
                refuse_strange(&line, &path)?;
            }
        } else if !text.contains('/') && !text.contains('.') {
            let what = format!(
                "{text:?} is neither a recipient (age1…, ssh-ed25519 …, ssh-rsa …) nor a file"
            );
            return Err(document.invalid(span, what));
        }
        Ok(Self::File(path))
    }
}

fn is_public_key(text: &str) -> bool {
    ["age1", "ssh-ed25519 ", "ssh-rsa "]
        .iter()
        .any(|start| text.starts_with(start))
}

/// Returns the file's lines with their numbers, without comments and empty lines.
fn read_file(path: &Path) -> Result<Vec<(usize, String)>, ConfigError> {
    let failed = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    // Opened once, so the checked file is the one that is read.
    let file = ownership::open_regular(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let message = "not a list of recipients";
        return Err(failed(std::io::Error::other(message)));
    }
    let text = String::from_utf8_lossy(&bytes);
    let numbered = text.lines().enumerate();
    Ok(numbered
        .map(|(index, line)| (index + 1, line.trim().to_owned()))
        .filter(|(_, line)| {
            // `age-keygen` writes the public key as a comment into the identity file, so comments
            // are searched for private keys, too.
            private_part(line).is_some() || !(line.is_empty() || line.starts_with('#'))
        })
        .collect())
}

/// Refuses a line that is not a public key.
fn refuse_strange((line, text): &(usize, String), path: &Path) -> Result<(), ConfigError> {
    let (file, line) = (path.to_owned(), *line);
    if let Some(what) = private_part(text) {
        let what = format!("this is {what}");
        return Err(ConfigError::Identity { file, line, what });
    }
    if !is_public_key(text) {
        // The text is not repeated, since it may be a secret.
        let what = "not a recipient (age1…, ssh-ed25519 …, ssh-rsa …)".to_owned();
        return Err(ConfigError::Invalid { file, line, what });
    }
    Ok(())
}

impl Config {
    /// Returns all recipients, sorted and each once; files are read now. The sealer refuses an
    /// empty list.
    pub fn read_recipients(&self) -> Result<Vec<String>, ConfigError> {
        let mut all = BTreeSet::new();
        for recipient in &self.recipients {
            match recipient {
                Recipient::Text(text) => {
                    all.insert(text.clone());
                }
                Recipient::File(path) => {
                    for line in read_file(path)? {
                        refuse_strange(&line, path)?;
                        all.insert(line.1);
                    }
                }
            }
        }
        self.refuse_own_signer(&all)?;
        Ok(all.into_iter().collect())
    }

    fn refuse_own_signer(&self, recipients: &BTreeSet<String>) -> Result<(), ConfigError> {
        let mut public = self.signer.clone().into_os_string();
        public.push(".pub");
        let file = ownership::open_regular(Path::new(&public));
        let Ok(text) = file.and_then(|file| ownership::read_text(&file, MAX_FILE_BYTES)) else {
            return Ok(());
        };
        let Some(key) = text.split_whitespace().nth(1) else {
            return Ok(());
        };
        if recipients
            .iter()
            .any(|r| r.split_whitespace().nth(1) == Some(key))
        {
            return Err(ConfigError::Identity {
                file: self.file.clone(),
                line: 1,
                what: "a recipient is the host's own signer".to_owned(),
            });
        }
        Ok(())
    }
}
