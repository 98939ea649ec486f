//! The recipients in the configuration, and the files that list more of them.
//!
//! The sealer decides whether a recipient is valid. This module refuses private keys, and the
//! host's own signer, with which the host could open its backups.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::Config;
use super::document::ConfigDocument;
use super::error::ConfigError;
use crate::base::ownership;
use crate::keys::recipient_file::{RecipientFileError, RecipientLine, read_recipient_file};

/// A recipient, or a file of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipient {
    /// A public key: `age1…`, `ssh-ed25519 …`, `ssh-rsa …`.
    Text(String),
    /// The absolute path of a file with one public key per line; `#` begins a comment line.
    File(PathBuf),
}

/// Of the host's own public key.
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
                "{text:?} is neither a recipient (age1..., ssh-ed25519 ..., ssh-rsa ...) nor a file"
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

fn read_file(path: &Path) -> Result<Vec<RecipientLine>, ConfigError> {
    read_recipient_file(path).map_err(|error| match error {
        RecipientFileError::Read(source) => ConfigError::Read {
            path: path.to_owned(),
            source,
        },
        RecipientFileError::PrivateKey { line, kind } => ConfigError::Identity {
            file: path.to_owned(),
            line,
            what: format!("this is {kind}"),
        },
    })
}

fn refuse_strange(line: &RecipientLine, path: &Path) -> Result<(), ConfigError> {
    if is_public_key(&line.text) {
        return Ok(());
    }
    Err(ConfigError::Invalid {
        file: path.to_owned(),
        line: line.number,
        // The text is not repeated: whatever it is, it may be a secret.
        what: "not a recipient (age1..., ssh-ed25519 ..., ssh-rsa ...)".to_owned(),
    })
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
                        all.insert(line.text);
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
