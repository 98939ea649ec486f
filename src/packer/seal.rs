//! `tar stream → zstd → age → spool`: the only place that names age recipients.
//!
//! The packer's thread cuts the tar stream into frames of 8 MiB. A few workers compress them, each
//! frame decompressed again and compared before it is let through; one writer puts them in order,
//! encrypts, hashes, and publishes the finished object in the spool. Every frame lives in one of a
//! fixed number of buffers, so memory is bounded. What was written is then parsed again as age, and
//! its stanzas counted: no object leaves the host that is not sealed to exactly its recipients.

mod compress;
mod pipeline;

pub use crate::keys::recipients::Recipients;
pub use pipeline::{SealedArchive, Sealer};

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use crate::base::ids::Hash;
use crate::state::spool::SpoolError;

/// Bytes of tar stream in one zstd frame.
pub const FRAME_BYTES: usize = 8 << 20;

/// What a stretch of tar stream is like, as far as its compression matters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Texture {
    /// Pages of a SQLite database.
    Pages,
    #[default]
    Other,
}

#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("no recipient: nothing is packed that nobody could open")]
    NoRecipient,
    #[error("cannot read recipients from {path}")]
    RecipientFile {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error(
        "{0:?} is not an age recipient (age1…, ssh-ed25519 …, ssh-rsa …, age1PLUGIN…) nor a readable file of them"
    )]
    NotARecipient(String),
    #[error(
        "{0} holds a private key: a host that packs must never hold an identity; give the public recipient"
    )]
    Identity(String),
    #[error(
        "{0}… is a post-quantum recipient (`age-keygen -pq`), to which sealift cannot seal: its age library has no such \
         keys yet, and there is no program age-plugin-pq on the PATH; give a recipient that `sealift key generate` or \
         `age-keygen` without -pq makes"
    )]
    PostQuantum(String),
    #[error("recipient {recipient} cannot be used: {reason}")]
    Plugin { recipient: String, reason: String },
    #[error("encrypting failed: {0}")]
    Encrypt(String),
    #[error("compressing failed")]
    Compress(#[source] io::Error),
    #[error(
        "a compressed frame does not decompress to what went in (bad memory or disk?); nothing was stored"
    )]
    FrameMismatch,
    #[error("the sealed object is not age with {expected} stanzas: {found}; nothing was stored")]
    NotSealed { expected: usize, found: String },
    #[error("cannot write a sealed archive into the spool {spool} (is the disk full?)")]
    Write {
        spool: String,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error("cannot start a thread for sealing")]
    Thread(#[source] io::Error),
    #[error("a sealing thread ended early")]
    ThreadGone,
}

/// What the head of an age file says without any key.
#[derive(Debug, PartialEq, Eq)]
pub struct AgeHead {
    /// Stanzas that are not grease.
    pub stanzas: usize,
    /// SHA-256 of the header and the 16-byte payload nonce.
    pub sha256: Hash,
}

const MAX_HEAD_BYTES: u64 = 1 << 20;

/// Parses an age header (`age-encryption.org/v1`) and the nonce behind it.
pub fn read_age_head(input: impl Read) -> Result<AgeHead, String> {
    use io::BufRead as _;
    let mut input = io::BufReader::with_capacity(4096, input.take(MAX_HEAD_BYTES));
    let mut hasher = Sha256::new();
    let mut line = Vec::new();
    let mut stanzas = 0;
    for number in 0.. {
        line.clear();
        input
            .read_until(b'\n', &mut line)
            .map_err(|e| e.to_string())?;
        hasher.update(&line);
        let text = line.strip_suffix(b"\n").ok_or("its header is cut off")?;
        if number == 0 {
            if text != b"age-encryption.org/v1" {
                return Err("it does not begin like an age file".to_owned());
            }
        } else if text.starts_with(b"--- ") {
            break;
        } else if let Some(stanza) = text.strip_prefix(b"-> ") {
            let tag = stanza.split(|byte| *byte == b' ').next().unwrap_or(b"");
            if !tag.ends_with(b"-grease") {
                stanzas += 1;
            }
        }
    }
    let mut nonce = [0; 16];
    input
        .read_exact(&mut nonce)
        .map_err(|_| "it ends before its payload")?;
    hasher.update(nonce);
    Ok(AgeHead {
        stanzas,
        sha256: Hash(hasher.finalize().into()),
    })
}
