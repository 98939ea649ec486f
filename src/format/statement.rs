//! Signed statements about deletion, beside the manifests (docs/format.md, 6 and 7).
//!
//! A **tombstone** distinguishes a snapshot that was deleted on purpose from one that an attacker
//! removed. A **mark** names archives, and pages of earlier snapshots, that no manifest of its
//! target needs any more. Both are signed. Marks of November 2026 and earlier are not
//! ([`Vouched::Nobody`]).

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use ssh_key::PublicKey;

use crate::base::ids::{Hash, HostName, MARKS, ObjectKey, Stamp, TOMBSTONES, hex, unhex};
use crate::format::json::{ManifestError, json_line, parse_json};
use crate::format::manifest::ManifestName;
use crate::format::signature::{self, PRUNE_NAMESPACE, SignatureError, Signer, Trust};
use crate::format::version::FORMAT;

/// Largest tombstone, and largest signature of one, that is read, in bytes.
pub const MAX_TOMBSTONE_BYTES: u64 = 64 << 10;
/// Largest mark that is read, in bytes: room for 200,000 archives.
pub const MAX_MARK_BYTES: u64 = 16 << 20;
/// Most marks of one target that are read; further ones have no effect.
pub const MAX_MARKS: usize = 256;
/// Most bytes that are read of all marks of one target.
pub const MAX_ALL_MARKS_BYTES: u64 = 64 << 20;

/// One snapshot that was deleted on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tombstone {
    /// [`FORMAT`].
    pub format: u32,
    /// The snapshot's host.
    pub host: HostName,
    /// The snapshot's sequence.
    pub sequence: u64,
    /// The snapshot's stamp.
    pub stamp: Stamp,
    /// Core hash of the deleted snapshot.
    pub core: Hash,
    /// Names of its manifest and of the manifest's revisions.
    pub manifests: Vec<String>,
    /// When it was deleted.
    pub deleted_at: DateTime<Utc>,
    /// Fingerprint of the key that deleted it; the signature proves it.
    pub by: String,
    /// Highest sequence on the target at that time.
    pub newest: u64,
}

impl Tombstone {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = json_line(self);
        bytes.push(b'\n');
        bytes
    }

    /// Returns the signature and the tombstone, each with its key.
    pub fn sign(&self, signer: &Signer) -> Result<[(ObjectKey, Vec<u8>); 2], SignatureError> {
        let bytes = self.encode();
        let name = ManifestName {
            sequence: self.sequence,
            stamp: self.stamp,
            hash16: Hash::sha256(&bytes).short(),
        };
        let signature = signer.sign(PRUNE_NAMESPACE, &bytes)?;
        Ok([
            (
                ObjectKey::tombstone_signature(&name),
                signature.into_bytes(),
            ),
            (ObjectKey::tombstone(&name), bytes),
        ])
    }

    /// Returns the name in a key such as `tombstones/….json`; `None` for a signature or any other
    /// object.
    pub fn name_of(key: &str) -> Option<ManifestName> {
        let file = key.strip_prefix(TOMBSTONES)?.strip_prefix('/')?;
        file.strip_suffix(".json")?.parse().ok()
    }

    /// Returns the tombstone if its content matches `name` and `host`, and its signer
    /// [may delete](may_prune).
    pub fn verify(
        host: &HostName,
        name: &ManifestName,
        bytes: &[u8],
        signature: &[u8],
        trust: &Trust,
        signers: &[String],
    ) -> Option<Self> {
        let parsed: Self = parse_json(bytes).ok()?;
        let is_named = Hash::sha256(bytes).short() == name.hash16
            && (parsed.sequence, parsed.stamp) == (name.sequence, name.stamp);
        if !is_named || parsed.format != FORMAT || parsed.host != *host {
            return None;
        }
        let key = signature::verify(signature, PRUNE_NAMESPACE, bytes).ok()?;
        may_prune(host, &key, trust, signers).then_some(parsed)
    }
}

/// Returns whether `key` may sign tombstones and marks: `trust` lets it delete, or it signed
/// manifests here (its fingerprint is one of `signers`) and `trust` does not name it.
pub fn may_prune(host: &HostName, key: &PublicKey, trust: &Trust, signers: &[String]) -> bool {
    let is_signer = || signers.contains(&signature::fingerprint(key));
    trust.accepts(host, PRUNE_NAMESPACE, key) || !trust.names(host, key) && is_signer()
}

/// Archives to delete once no packer can reuse them any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// [`FORMAT`].
    pub format: u32,
    /// The host whose folder it is in.
    pub host: HostName,
    /// When it was made.
    pub marked_at: DateTime<Utc>,
    /// Random hex digits, so that a mark never equals an earlier one that a packer followed.
    pub nonce: String,
    /// The archives, by hash.
    pub archives: Vec<Hash>,
    /// Pages of earlier snapshots to delete, and directories of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pages: Vec<Hash>,
}

/// Who vouches for a mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vouched {
    /// A key that [may delete](may_prune) signed it.
    Signer,
    /// It has no signature.
    Nobody,
    /// Its signature does not count, and why.
    Stranger(String),
}

impl Mark {
    /// Makes a mark with a new nonce; sorts the hashes.
    pub fn new(
        host: HostName,
        marked_at: DateTime<Utc>,
        mut archives: Vec<Hash>,
        mut pages: Vec<Hash>,
    ) -> Result<Self, getrandom::Error> {
        let mut nonce = [0; 8];
        getrandom::fill(&mut nonce)?;
        archives.sort();
        pages.sort();
        Ok(Self {
            format: FORMAT,
            host,
            marked_at,
            nonce: hex(&nonce),
            archives,
            pages,
        })
    }

    /// Returns the signature and the mark, each with its key.
    pub fn sign(&self, signer: &Signer) -> Result<[(ObjectKey, Vec<u8>); 2], SignatureError> {
        let (name, bytes) = self.encode();
        let signature = signer.sign(PRUNE_NAMESPACE, &bytes)?;
        let signature = (name.signature_key(), signature.into_bytes());
        Ok([signature, (name.key(), bytes)])
    }

    /// Returns who vouches for the mark in `bytes`. `trust` and `signers` as in [`may_prune`].
    pub fn vouched(
        host: &HostName,
        bytes: &[u8],
        signature: Option<&[u8]>,
        trust: &Trust,
        signers: &[String],
    ) -> Vouched {
        let Some(signature) = signature else {
            return Vouched::Nobody;
        };
        match signature::verify(signature, PRUNE_NAMESPACE, bytes) {
            Ok(key) if may_prune(host, &key, trust, signers) => Vouched::Signer,
            Ok(key) => {
                let who = signature::fingerprint(&key);
                Vouched::Stranger(format!("it is signed by {who}, which may not prune"))
            }
            Err(error) => Vouched::Stranger(error.to_string()),
        }
    }

    /// Returns the mark's name and bytes.
    pub fn encode(&self) -> (MarkName, Vec<u8>) {
        let mut bytes = json_line(self);
        bytes.push(b'\n');
        (MarkName::of(&bytes), bytes)
    }

    /// Parses a mark and checks that it matches `name` and `host`.
    pub fn parse_named(
        name: &MarkName,
        host: &HostName,
        bytes: &[u8],
    ) -> Result<Self, ManifestError> {
        let found = MarkName::of(bytes);
        if found != *name {
            return Err(ManifestError::NameMismatch {
                promised: name.to_string(),
                found: found.to_string(),
            });
        }
        let mark: Self = parse_json(bytes)?;
        match mark.format == FORMAT && mark.host == *host {
            true => Ok(mark),
            false => Err(ManifestError::Malformed(
                "it belongs to another host or format".to_owned(),
            )),
        }
    }
}

/// The name of a mark's file, which manifests list in `marks_seen`: the first 16 hex digits of its
/// SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MarkName(String);

impl MarkName {
    fn of(bytes: &[u8]) -> Self {
        Self(Hash::sha256(bytes).short())
    }

    /// Returns the name in a key such as `marks/….json`; `None` for any other object.
    pub fn from_key(key: &str) -> Option<Self> {
        let file = key.strip_prefix(MARKS)?.strip_prefix('/')?;
        let name = file.strip_suffix(".json")?;
        (name.len() == 16 && unhex(name).is_some()).then(|| Self(name.to_owned()))
    }

    /// Returns the key of the mark.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::mark(self)
    }

    /// Returns the key of the mark's signature.
    pub fn signature_key(&self) -> ObjectKey {
        ObjectKey::mark_signature(self)
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MarkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::signature::MANIFEST_NAMESPACE;

    fn tombstone(host: &str) -> Tombstone {
        Tombstone {
            format: FORMAT,
            host: host.parse().unwrap(),
            sequence: 7,
            stamp: "20260407T060000Z".parse().unwrap(),
            core: Hash::sha256(b"core"),
            manifests: Vec::new(),
            deleted_at: DateTime::UNIX_EPOCH,
            by: String::new(),
            newest: 9,
        }
    }

    #[test]
    fn a_tombstone_is_believed_by_name_host_and_signer() {
        let (signer, stranger) = (
            Signer::generate("a").unwrap(),
            Signer::generate("b").unwrap(),
        );
        let host: HostName = "dalidou".parse().unwrap();
        let verify = |from: &Signer, of: &str, trust: &Trust, signers: &[String]| {
            let [(_, signature), (key, bytes)] = tombstone(of).sign(from).unwrap();
            let name = Tombstone::name_of(key.as_str()).unwrap();
            let found = Tombstone::verify(&host, &name, &bytes, &signature, trust, signers);
            let cut = &bytes[..bytes.len() - 2];
            assert!(Tombstone::verify(&host, &name, cut, &signature, trust, signers).is_none());
            found.is_some()
        };
        let pinned = Trust::Fingerprint(signer.fingerprint());
        assert!(verify(&signer, "dalidou", &pinned, &[]));
        assert!(!verify(&signer, "other", &pinned, &[]));
        assert!(!verify(&stranger, "dalidou", &pinned, &[]));
        assert!(verify(
            &signer,
            "dalidou",
            &Trust::FirstSeen,
            &[signer.fingerprint()]
        ));
        assert!(!verify(
            &stranger,
            "dalidou",
            &Trust::FirstSeen,
            &[signer.fingerprint()]
        ));
        // A key that may sign manifests and nothing else may delete nothing.
        let file = tempfile::NamedTempFile::new().unwrap();
        let line = format!(
            "dalidou namespaces=\"{MANIFEST_NAMESPACE}\" {}\n",
            signer.public_line()
        );
        std::fs::write(file.path(), line).unwrap();
        let listed = Trust::parse(&file.path().display().to_string()).unwrap();
        assert!(!verify(
            &signer,
            "dalidou",
            &listed,
            &[signer.fingerprint()]
        ));
    }

    #[test]
    fn two_marks_of_the_same_archives_are_two() {
        let host: HostName = "dalidou".parse().unwrap();
        let archives = vec![Hash::blake3(b"x")];
        let time = DateTime::UNIX_EPOCH;
        let mark = || Mark::new(host.clone(), time, archives.clone(), Vec::new()).unwrap();
        let ((one, bytes), (other, _)) = (mark().encode(), mark().encode());
        assert_ne!(one, other);
        assert_eq!(MarkName::from_key(one.key().as_str()), Some(one.clone()));
        assert!(Mark::parse_named(&one, &host, &bytes).is_ok());
        assert!(Mark::parse_named(&other, &host, &bytes).is_err());
    }

    #[test]
    fn a_mark_is_vouched_for_by_a_trusted_signature_only() {
        let host: HostName = "dalidou".parse().unwrap();
        let key = || Signer::generate("test").unwrap();
        let (signer, stranger) = (key(), key());
        let trust = Trust::Fingerprint(signer.fingerprint());
        let mark = Mark::new(host.clone(), DateTime::UNIX_EPOCH, Vec::new(), Vec::new()).unwrap();
        let [(signature_key, signature), (key, bytes)] = mark.sign(&signer).unwrap();
        assert_eq!(signature_key.as_str(), format!("{key}.sig"));
        let vouched = |signature: Option<&[u8]>, bytes: &[u8]| {
            Mark::vouched(&host, bytes, signature, &trust, &[])
        };
        assert_eq!(vouched(Some(&signature), &bytes), Vouched::Signer);
        assert_eq!(vouched(None, &bytes), Vouched::Nobody);
        let [(_, by_stranger), _] = mark.sign(&stranger).unwrap();
        let changed = [&bytes[..], b"\n"].concat();
        let for_manifests = signer.sign(signature::MANIFEST_NAMESPACE, &bytes).unwrap();
        for (signature, bytes) in [
            (&by_stranger[..], &bytes),
            (&signature[..], &changed),
            (for_manifests.as_bytes(), &bytes),
            (b"none", &bytes),
        ] {
            let found = vouched(Some(signature), bytes);
            assert!(matches!(found, Vouched::Stranger(_)), "{found:?}");
        }
    }
}
