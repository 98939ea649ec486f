//! Signing with the host's Ed25519 SSH key and deciding whose signatures count.
//!
//! Signatures are SSHSIG, so `ssh-keygen -Y verify` accepts them. A signer is trusted through a
//! [`Trust`]: a pinned fingerprint, an `allowed_signers` file, a public key, or (when the user says
//! so) whoever signed the newest manifest.

use std::{fs, io, path::Path};

use ssh_key::{Algorithm, HashAlg, LineEnding, PrivateKey, PublicKey, SshSig};

use crate::ids::HostName;

pub const MANIFEST_NAMESPACE: &str = "sealift-manifest";
pub const PRUNE_NAMESPACE: &str = "sealift-prune";

#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    #[error("cannot read {path}")]
    Read {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot write {path}")]
    Write {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("{path} is not an unencrypted OpenSSH Ed25519 private key: {reason}")]
    NotASigner { path: String, reason: String },
    #[error("the signature is malformed: {0}")]
    Malformed(String),
    #[error("the signature is for namespace {0:?}, not {1:?}")]
    Namespace(String, &'static str),
    #[error("the signature does not match what it signs")]
    Mismatch,
    #[error("line {line} of allowed_signers {path} is malformed: {reason}")]
    AllowedSigners {
        path: String,
        line: usize,
        reason: String,
    },
    #[error("{0:?} is neither a SHA256:… fingerprint, an ssh-ed25519 key nor a readable file")]
    NotATrust(String),
    #[error("cannot make a key: {0}")]
    Generate(String),
}

/// The host's signing key. It signs; it opens nothing.
pub struct Signer {
    key: PrivateKey,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({})", self.fingerprint())
    }
}

impl Signer {
    pub fn generate(comment: &str) -> Result<Self, SignatureError> {
        let mut seed = [0u8; 32];
        getrandom::fill(&mut seed).map_err(|e| SignatureError::Generate(e.to_string()))?;
        let pair = ssh_key::private::Ed25519Keypair::from_seed(&seed);
        let key = PrivateKey::new(pair.into(), comment)
            .map_err(|e| SignatureError::Generate(e.to_string()))?;
        Ok(Self { key })
    }

    pub fn load(path: &Path) -> Result<Self, SignatureError> {
        let text = fs::read_to_string(path).map_err(|source| SignatureError::Read {
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

    /// Writes the private key (0600) and `PATH.pub`; refuses to replace either.
    pub fn save(&self, path: &Path) -> Result<(), SignatureError> {
        let failed = |path: &Path, source| SignatureError::Write {
            path: path.display().to_string(),
            source,
        };
        let text = self
            .key
            .to_openssh(LineEnding::LF)
            .map_err(|e| SignatureError::Generate(e.to_string()))?;
        crate::fs::write_new(path, text.as_bytes(), 0o600).map_err(|e| failed(path, e))?;
        let mut public = path.as_os_str().to_owned();
        public.push(".pub");
        let public = Path::new(&public);
        let line = format!("{}\n", self.public_line());
        crate::fs::write_new(public, line.as_bytes(), 0o644).map_err(|e| failed(public, e))
    }

    /// `SHA256:…`, as `ssh-keygen -l` shows it.
    pub fn fingerprint(&self) -> String {
        self.key.fingerprint(HashAlg::Sha256).to_string()
    }

    pub fn public_key(&self) -> &PublicKey {
        self.key.public_key()
    }

    /// The one-line public key, with its comment.
    pub fn public_line(&self) -> String {
        self.key.public_key().to_openssh().unwrap_or_default()
    }

    /// An armored SSHSIG over `message` in `namespace`.
    pub fn sign(&self, namespace: &str, message: &[u8]) -> Result<String, SignatureError> {
        let malformed = |e: ssh_key::Error| SignatureError::Malformed(e.to_string());
        let signature = self
            .key
            .sign(namespace, HashAlg::Sha512, message)
            .map_err(malformed)?;
        signature.to_pem(LineEnding::LF).map_err(malformed)
    }
}

/// Checks an armored SSHSIG and gives the key that made it (trusted or not).
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

pub fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// One line of an `allowed_signers` file.
#[derive(Debug, Clone)]
pub struct AllowedSigner {
    principals: Vec<String>,
    /// Empty: every namespace.
    namespaces: Vec<String>,
    key: PublicKey,
}

impl AllowedSigner {
    /// `key`, for everything that `host` signs.
    pub fn for_host(host: &HostName, key: PublicKey) -> Self {
        Self {
            principals: vec![host.as_str().to_owned()],
            namespaces: Vec::new(),
            key,
        }
    }
}

/// Of a SHA-256 in base64, without padding.
const FINGERPRINT_DIGITS: usize = 43;

/// Whose manifests are believed.
#[derive(Debug, Clone)]
pub enum Trust {
    Fingerprint(String),
    Key(PublicKey),
    AllowedSigners(Vec<AllowedSigner>),
    /// Whoever signed the oldest manifest, provided that all the others follow from that signer.
    FirstSeen,
}

impl Trust {
    /// What `--signer` takes: `SHA256:…`, a public key line, or the path of an `allowed_signers`
    /// file (a lone public key file will do).
    pub fn parse(text: &str) -> Result<Self, SignatureError> {
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
        let path = Path::new(text);
        if !path.exists() {
            return Err(SignatureError::NotATrust(text.to_owned()));
        }
        let content = fs::read_to_string(path).map_err(|source| SignatureError::Read {
            path: text.to_owned(),
            source,
        })?;
        if let Ok(key) = PublicKey::from_openssh(content.trim()) {
            return Ok(Self::Key(key));
        }
        parse_allowed_signers(text, &content).map(Self::AllowedSigners)
    }

    /// Whether `key` may sign for `host` in `namespace`. [`Trust::FirstSeen`] knows nobody yet.
    pub fn accepts(&self, host: &HostName, namespace: &str, key: &PublicKey) -> bool {
        match self {
            Self::Fingerprint(pinned) => fingerprint(key) == *pinned,
            Self::Key(pinned) => pinned.key_data() == key.key_data(),
            Self::AllowedSigners(signers) => signers.iter().any(|signer| {
                let for_host = signer.principals.iter().any(|p| glob(p, host.as_str()));
                let for_use = signer.namespaces.is_empty()
                    || signer.namespaces.iter().any(|n| glob(n, namespace));
                for_host && for_use && signer.key.key_data() == key.key_data()
            }),
            Self::FirstSeen => false,
        }
    }

    /// Whether it says anything of `key` as a signer for `host`, for whatever use.
    pub fn names(&self, host: &HostName, key: &PublicKey) -> bool {
        let for_host = |signer: &AllowedSigner| {
            let mut principals = signer.principals.iter();
            principals.any(|p| glob(p, host.as_str())) && signer.key.key_data() == key.key_data()
        };
        match self {
            Self::AllowedSigners(signers) => signers.iter().any(for_host),
            _ => false,
        }
    }
}

/// `*` and `?`, as OpenSSH patterns have them. After a mismatch the last `*` takes one byte more; an earlier one
/// never needs to, so a pattern full of them takes no longer.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut next) = (0, 0);
    // Behind the last `*`, and what it does not take yet.
    let mut retry: Option<(usize, usize)> = None;
    while next < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                at += 1;
                retry = Some((at, next));
            }
            Some(b) if *b == b'?' || *b == text[next] => {
                at += 1;
                next += 1;
            }
            _ => {
                let Some((behind, from)) = retry else {
                    return false;
                };
                retry = Some((behind, from + 1));
                (at, next) = (behind, from + 1);
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// What an `allowed_signers` file says; `path` is for complaints.
pub fn parse_allowed_signers(path: &str, text: &str) -> Result<Vec<AllowedSigner>, SignatureError> {
    let mut signers = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let signer =
            parse_allowed_signer(line).map_err(|reason| SignatureError::AllowedSigners {
                path: path.to_owned(),
                line: number + 1,
                reason,
            })?;
        signers.push(signer);
    }
    Ok(signers)
}

/// `principals [options] keytype base64 [comment]`
fn parse_allowed_signer(line: &str) -> Result<AllowedSigner, String> {
    let (principals, rest) = line
        .split_once(char::is_whitespace)
        .ok_or("it has no key")?;
    let rest = rest.trim_start();
    let key_at = ["ssh-", "ecdsa-", "sk-"]
        .iter()
        .filter_map(|kind| match rest.starts_with(kind) {
            true => Some(0),
            false => rest.find(&format!(" {kind}")).map(|at| at + 1),
        })
        .min()
        .ok_or("it has no key")?;
    let (options, key) = rest.split_at(key_at);
    let mut namespaces = Vec::new();
    for option in options.trim().split(',').filter(|o| !o.is_empty()) {
        match option.split_once('=') {
            Some(("namespaces", value)) => namespaces.push(value.trim_matches('"').to_owned()),
            // A quoted list splits at its commas; what has no `=` belongs to it.
            None if !namespaces.is_empty() => namespaces.push(option.trim_matches('"').to_owned()),
            _ => return Err(format!("option {option:?} is not supported")),
        }
    }
    Ok(AllowedSigner {
        principals: principals
            .trim_matches('"')
            .split(',')
            .map(str::to_owned)
            .collect(),
        namespaces,
        key: PublicKey::from_openssh(key.trim()).map_err(|e| e.to_string())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_as_in_openssh_and_at_once() {
        for (pattern, text, expected) in [
            ("dalidou", "dalidou", true),
            ("dalidou", "dalidou2", false),
            ("d*", "dalidou", true),
            ("*", "", true),
            ("", "x", false),
            ("d?l*u", "dalidou", true),
            ("d??l*u", "dalidou", false),
            ("*ab", "aab", true),
            ("*a*b*", "xaxbx", true),
            ("*a*b", "xbxa", false),
            ("?", "", false),
            (&"*a".repeat(30), &"a".repeat(64), true),
            (&("*a".repeat(30) + "b"), &"a".repeat(64), false),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }
}
