//! Who may do what: tokens.
//!
//! The agent knows at most two tokens and keeps their hashes only. A token is compared by its hash,
//! in a time that does not depend on it.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use subtle::{Choice, ConstantTimeEq as _};
use zeroize::Zeroizing;

use crate::base::ids::Hash;
use crate::config::ServeConfig;
use crate::keys::secret::read_secret;

/// The environment variable that holds the token, if no file does.
const VARIABLE: &str = "SEALIFT_TOKEN";
/// Fewest characters of a token.
const SHORTEST: usize = 32;
/// Bytes of a token file that are read.
const LARGEST_FILE: u64 = 64 << 10;

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum AccessLevel {
    /// Only what needs no token.
    None,
    /// Look at everything.
    Read,
    /// Start, cancel and acknowledge, too.
    Write,
}

/// Why a token cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    /// The file cannot be read.
    #[error("cannot read the token file {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The token is too short.
    #[error(
        "the token in {place} has fewer than {SHORTEST} characters; make one with `openssl rand -hex 32`"
    )]
    Short { place: String },
    /// The token has characters that no header can carry.
    #[error(
        "the token in {place} has a blank or a character that is not ASCII; make one with `openssl rand -hex 32`"
    )]
    Characters { place: String },
    /// There is a token to look only, so everyone else could do everything.
    #[error("read_token_file needs token_file: without it every caller may do everything")]
    ReadOnly,
    /// Both tokens are the same.
    #[error("token_file and read_token_file hold the same token; make one of them again")]
    Same,
}

/// The tokens that are accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct AccessTokens {
    /// The hash of the token that may do everything. `None`: every caller may.
    write: Option<Hash>,
    /// The hash of the token that may look.
    read: Option<Hash>,
}

impl AccessTokens {
    /// Reads the tokens that the configuration and the environment name.
    pub(crate) fn load(serve: &ServeConfig) -> Result<Self, TokenError> {
        let of_file = |path: &Option<PathBuf>| path.as_deref().map(from_file).transpose();
        let write = match of_file(&serve.token_file)? {
            Some(hash) => Some(hash),
            None => match std::env::var(VARIABLE).map(Zeroizing::new) {
                Ok(text) if !text.is_empty() => Some(hash_of(&text, VARIABLE)?),
                _ => None,
            },
        };
        let read = of_file(&serve.read_token_file)?;
        match (write, read) {
            (None, Some(_)) => Err(TokenError::ReadOnly),
            (Some(write), Some(read)) if write == read => Err(TokenError::Same),
            _ => Ok(Self { write, read }),
        }
    }

    /// Returns whether callers must show a token.
    pub(crate) fn is_required(&self) -> bool {
        self.write.is_some()
    }

    /// Returns what a caller without a token may do.
    pub(super) fn without_token(&self) -> AccessLevel {
        match self.is_required() {
            true => AccessLevel::None,
            false => AccessLevel::Write,
        }
    }

    /// Returns what the caller who shows `token` may do. `None`: the token is not accepted.
    pub(super) fn of(&self, token: &[u8]) -> Option<AccessLevel> {
        let Some(write) = self.write else {
            return Some(AccessLevel::Write);
        };
        let shown = Hash::sha256(token);
        let is_write = shown.0.ct_eq(&write.0);
        let is_read = self
            .read
            .map_or(Choice::from(0), |read| shown.0.ct_eq(&read.0));
        match (bool::from(is_write), bool::from(is_read)) {
            (true, _) => Some(AccessLevel::Write),
            (_, true) => Some(AccessLevel::Read),
            _ => None,
        }
    }
}

fn from_file(path: &Path) -> Result<Hash, TokenError> {
    let failed = |source| TokenError::Read {
        path: path.to_path_buf(),
        source,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let bytes = read_secret(file.take(LARGEST_FILE)).map_err(failed)?;
    let place = path.display().to_string();
    match std::str::from_utf8(&bytes) {
        Ok(text) => hash_of(text.trim(), &place),
        Err(_) => Err(TokenError::Characters { place }),
    }
}

/// Returns the hash of the token `text`, which `place` holds.
fn hash_of(text: &str, place: &str) -> Result<Hash, TokenError> {
    let place = || place.to_owned();
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(TokenError::Characters { place: place() });
    }
    match text.len() < SHORTEST {
        true => Err(TokenError::Short { place: place() }),
        false => Ok(Hash::sha256(text.as_bytes())),
    }
}
