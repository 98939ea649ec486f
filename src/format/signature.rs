//! Signs with the host's Ed25519 SSH key and decides whose signatures count.
//!
//! Signatures are SSHSIG, so `ssh-keygen -Y verify` accepts them. A signer is trusted through a
//! [`Trust`]: a pinned fingerprint, an `allowed_signers` file, a public key, or (if the operator
//! agrees) the signer of the oldest manifest.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use ssh_key::{Algorithm, HashAlg, LineEnding, PrivateKey, PublicKey, SshSig};
use zeroize::Zeroizing;

use crate::base::ids::HostName;
use crate::base::ownership::{open_regular, read_text};
use crate::format::allowed_signers::{AllowedSigner, parse_allowed_signers};

/// SSHSIG namespace of signatures on manifests.
pub const MANIFEST_NAMESPACE: &str = "sealift-manifest";
/// SSHSIG namespace of signatures on tombstones and prune marks.
pub const PRUNE_NAMESPACE: &str = "sealift-prune";

/// Why signing, verifying or reading a key failed.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// A key or `allowed_signers` file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A key file cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The file is not a key that can sign manifests.
    #[error("{path} is not an unencrypted OpenSSH Ed25519 private key: {reason}")]
    NotASigner {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The signature is not an SSHSIG.
    #[error("the signature is malformed: {0}")]
    Malformed(String),
    /// The signature was made for another namespace: the one found, the one expected.
    #[error("the signature is for namespace {0:?}, not {1:?}")]
    Namespace(String, &'static str),
    /// The signature was made over other bytes or by another key.
    #[error("the signature does not match the signed file")]
    Mismatch,
    /// No line of the file has an effect.
    #[error("{path} is neither a public key nor an allowed_signers file; line {line}: {reason}")]
    AllowedSigners {
        /// The file.
        path: String,
        /// Number of its first malformed line, from 1.
        line: usize,
        /// What is wrong with that line.
        reason: String,
    },
    /// The text is in none of the forms that `--signer` accepts.
    #[error("{0:?} is neither a SHA256:... fingerprint, an ssh-ed25519 key nor a readable file")]
    NotATrust(String),
    /// A new key cannot be made, or its text cannot be written.
    #[error("cannot make a key: {0}")]
    Generate(String),
}

/// The host's signing key. It cannot decrypt anything.
pub struct Signer {
    key: PrivateKey,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({})", self.fingerprint())
    }
}

impl Signer {
    /// Makes a new key; `comment` is part of its public line.
    pub fn generate(comment: &str) -> Result<Self, SignatureError> {
        let mut seed = Zeroizing::new([0u8; 32]);
        getrandom::fill(&mut *seed).map_err(|e| SignatureError::Generate(e.to_string()))?;
        let pair = ssh_key::private::Ed25519Keypair::from_seed(&seed);
        let key = PrivateKey::new(pair.into(), comment)
            .map_err(|e| SignatureError::Generate(e.to_string()))?;
        Ok(Self { key })
    }

    /// Reads an unencrypted OpenSSH Ed25519 private key.
    pub fn load(path: &Path) -> Result<Self, SignatureError> {
        let text = open_regular(path).and_then(|file| read_text(&file, MAX_KEY_BYTES));
        let text = text
            .map(Zeroizing::new)
            .map_err(|source| SignatureError::Read {
                path: path.display().to_string(),
                source,
            })?;
        let not = |reason: String| SignatureError::NotASigner {
            path: path.display().to_string(),
            reason,
        };
        let key = PrivateKey::from_openssh(&text).map_err(|e| not(e.to_string()))?;
        if key.is_encrypted() {
            return Err(not("it is protected by a passphrase".to_owned()));
        }
        if key.algorithm() != Algorithm::Ed25519 {
            return Err(not(format!("it is an {} key", key.algorithm())));
        }
        Ok(Self { key })
    }

    /// Reads the public key file of the next signer, without surrounding blanks.
    pub fn read_next(path: &Path) -> io::Result<String> {
        let text = open_regular(path).and_then(|file| read_text(&file, MAX_KEY_BYTES))?;
        Ok(text.trim().to_owned())
    }

    /// Writes the private key (0600) and `PATH.pub`. Refuses to replace either.
    pub fn save(&self, path: &Path) -> Result<(), SignatureError> {
        let failed = |path: &Path, source| SignatureError::Write {
            path: path.display().to_string(),
            source,
        };
        let text = self
            .key
            .to_openssh(LineEnding::LF)
            .map_err(|e| SignatureError::Generate(e.to_string()))?;
        crate::base::fs::write_new(path, text.as_bytes(), 0o600).map_err(|e| failed(path, e))?;
        let mut public = path.as_os_str().to_owned();
        public.push(".pub");
        let public = Path::new(&public);
        let line = format!("{}\n", self.public_line());
        crate::base::fs::write_new(public, line.as_bytes(), 0o644).map_err(|e| failed(public, e))
    }

    /// Returns `SHA256:…`, as `ssh-keygen -l` shows it.
    pub fn fingerprint(&self) -> String {
        self.key.fingerprint(HashAlg::Sha256).to_string()
    }

    /// Returns the public key.
    pub fn public_key(&self) -> &PublicKey {
        self.key.public_key()
    }

    /// Returns the one-line public key, with its comment.
    pub fn public_line(&self) -> String {
        self.key.public_key().to_openssh().unwrap_or_default()
    }

    /// Returns an armored SSHSIG over `message` in `namespace`.
    pub fn sign(&self, namespace: &str, message: &[u8]) -> Result<String, SignatureError> {
        let malformed = |e: ssh_key::Error| SignatureError::Malformed(e.to_string());
        let signature = self
            .key
            .sign(namespace, HashAlg::Sha512, message)
            .map_err(malformed)?;
        signature.to_pem(LineEnding::LF).map_err(malformed)
    }
}

/// Checks an armored SSHSIG and returns the key that made it, trusted or not.
pub fn verify(
    signature: &[u8],
    namespace: &'static str,
    message: &[u8],
) -> Result<PublicKey, SignatureError> {
    let signature =
        SshSig::from_pem(signature).map_err(|e| SignatureError::Malformed(e.to_string()))?;
    if signature.namespace() != namespace {
        let found = signature.namespace().chars().take(80).collect();
        return Err(SignatureError::Namespace(found, namespace));
    }
    let key = PublicKey::from(signature.public_key().clone());
    key.verify(namespace, message, &signature)
        .map_err(|_| SignatureError::Mismatch)?;
    Ok(key)
}

/// Returns `SHA256:…`, as `ssh-keygen -l` shows it.
pub fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// Returns the fingerprint of an OpenSSH public key line. `None`: it is not one.
pub fn fingerprint_of_line(line: &str) -> Option<String> {
    let key = PublicKey::from_openssh(line).ok()?;
    Some(fingerprint(&key))
}

/// Largest `allowed_signers` file that is read, in bytes.
const MAX_SIGNERS_BYTES: u64 = 16 << 20;
/// Largest key file that is read, in bytes.
const MAX_KEY_BYTES: u64 = 64 << 10;
/// Digits of a SHA-256 in base64, without padding.
const FINGERPRINT_DIGITS: usize = 43;

/// Whose manifests are believed.
#[derive(Debug, Clone)]
pub enum Trust {
    /// The key with this fingerprint (`SHA256:…`).
    Fingerprint(String),
    /// This key.
    Key(PublicKey),
    /// The keys of an `allowed_signers` file.
    AllowedSigners(Vec<AllowedSigner>),
    /// The signer of the oldest manifest, provided that all others follow from that signer.
    FirstSeen,
}

impl Trust {
    /// Parses the value of `--signer`: `SHA256:…`, a public key line, or the path of an
    /// `allowed_signers` file or of a public key file.
    pub fn parse(text: &str) -> Result<Self, SignatureError> {
        Self::parse_noting(text, |_| {})
    }

    /// Parses like [`Self::parse`]; `note` receives a sentence about each line of the file that has
    /// no effect.
    pub fn parse_noting(text: &str, note: impl FnMut(String)) -> Result<Self, SignatureError> {
        if let Some(digest) = text.strip_prefix("SHA256:") {
            let digest = digest.trim_end_matches('=');
            let is_base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/');
            return match digest.len() == FINGERPRINT_DIGITS && digest.chars().all(is_base64) {
                true => Ok(Self::Fingerprint(format!("SHA256:{digest}"))),
                false => Err(SignatureError::NotATrust(text.to_owned())),
            };
        }
        if let Ok(key) = PublicKey::from_openssh(text) {
            return Ok(Self::Key(key));
        }
        match File::open(text) {
            Ok(file) => Self::read(text, file, note),
            Err(error) if is_no_path(&error) => Err(SignatureError::NotATrust(text.to_owned())),
            Err(source) => {
                let path = text.to_owned();
                Err(SignatureError::Read { path, source })
            }
        }
    }

    /// Reads an `allowed_signers` or public key file that is open; `path` is for messages.
    pub fn read(
        path: &str,
        file: impl io::Read,
        mut note: impl FnMut(String),
    ) -> Result<Self, SignatureError> {
        let failed = |source| SignatureError::Read {
            path: path.to_owned(),
            source,
        };
        let mut content = Vec::new();
        file.take(MAX_SIGNERS_BYTES + 1)
            .read_to_end(&mut content)
            .map_err(failed)?;
        if content.len() as u64 > MAX_SIGNERS_BYTES {
            let message = format!("it is larger than {} MiB", MAX_SIGNERS_BYTES >> 20);
            return Err(failed(io::Error::other(message)));
        }
        if let Some(key) = lone_key(&content) {
            return Ok(Self::Key(key));
        }
        let listed = parse_allowed_signers(&content);
        if let ([], [first, ..]) = (listed.signers.as_slice(), listed.ignored.as_slice()) {
            return Err(SignatureError::AllowedSigners {
                path: path.to_owned(),
                line: first.number,
                reason: first.reason.clone(),
            });
        }
        for line in &listed.ignored {
            let (number, reason) = (line.number, &line.reason);
            note(format!("line {number} of {path} has no effect: {reason}"));
        }
        Ok(Self::AllowedSigners(listed.signers))
    }

    /// Returns the fingerprints of the keys that may sign manifests, each once.
    pub fn fingerprints(&self) -> Vec<String> {
        let mut all = match self {
            Self::Fingerprint(pinned) => vec![pinned.clone()],
            Self::Key(pinned) => vec![fingerprint(pinned)],
            Self::AllowedSigners(signers) => {
                let keys = signers
                    .iter()
                    .filter_map(|one| one.key_in(MANIFEST_NAMESPACE));
                keys.map(|key| fingerprint(&key)).collect()
            }
            Self::FirstSeen => Vec::new(),
        };
        let mut seen = std::collections::BTreeSet::new();
        all.retain(|one| seen.insert(one.clone()));
        all
    }

    /// Returns whether `key` may sign for `host` in `namespace`. [`Trust::FirstSeen`] accepts no
    /// key by itself.
    pub fn accepts(&self, host: &HostName, namespace: &str, key: &PublicKey) -> bool {
        match self {
            Self::Fingerprint(pinned) => fingerprint(key) == *pinned,
            Self::Key(pinned) => pinned.key_data() == key.key_data(),
            Self::AllowedSigners(signers) => {
                // `ssh-keygen -Y verify` also uses the time now, not one from the signature.
                let now = crate::base::clock::now().timestamp();
                let mut signers = signers.iter();
                signers.any(|signer| signer.accepts(host, namespace, key, now))
            }
            Self::FirstSeen => false,
        }
    }

    /// Returns whether an `allowed_signers` line lets `key` sign as `principal` in `namespace`.
    pub fn accepts_principal(&self, principal: &[u8], namespace: &str, key: &PublicKey) -> bool {
        let Self::AllowedSigners(signers) = self else {
            return false;
        };
        let now = crate::base::clock::now().timestamp();
        let mut signers = signers.iter();
        signers.any(|signer| signer.accepts_principal(principal, namespace, key, now))
    }

    /// Returns whether an `allowed_signers` line names `key` as a signer for `host`, for any use.
    pub fn names(&self, host: &HostName, key: &PublicKey) -> bool {
        match self {
            Self::AllowedSigners(signers) => signers.iter().any(|s| s.names(host, key)),
            _ => false,
        }
    }
}

/// Returns whether opening failed because no file has such a name.
fn is_no_path(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidFilename, InvalidInput, NotADirectory, NotFound};
    let kinds = [InvalidFilename, InvalidInput, NotADirectory, NotFound];
    kinds.contains(&error.kind())
}

/// Returns the key if the file holds one public key and nothing else.
fn lone_key(content: &[u8]) -> Option<PublicKey> {
    let text = std::str::from_utf8(content).ok()?.trim();
    match text.lines().count() {
        1 => PublicKey::from_openssh(text).ok(),
        _ => None,
    }
}
