//! What stands beside the manifests about what is to go, and what went (docs/format.md, 6 and 7).
//!
//! A **tombstone** tells a snapshot that was deleted on purpose from one that was taken away. A **mark** names
//! archives, and pages of earlier snapshots, that no manifest of its target needs any more. Both are signed. Marks
//! of November 2026 and earlier are not ([`Vouched::Nobody`]).

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use ssh_key::PublicKey;

use crate::base::ids::{Hash, HostName, MARKS, ObjectKey, Stamp, TOMBSTONES, hex, unhex};
use crate::format::manifest::{FORMAT, ManifestError, ManifestName, json_line, parse_json};
use crate::format::signature::{self, PRUNE_NAMESPACE, SignatureError, Signer, Trust};

/// A tombstone, or its signature, beyond this is ignored unread.
pub const MAX_TOMBSTONE_BYTES: u64 = 64 << 10;
/// The same for a mark: it has room for 200,000 archives.
pub const MAX_MARK_BYTES: u64 = 16 << 20;
/// Marks of one target that are read; those beyond have no force.
pub const MAX_MARKS: usize = 256;
/// Bytes of them in all.
pub const MAX_ALL_MARKS_BYTES: u64 = 64 << 20;

/// One snapshot that was deleted on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tombstone {
    pub format: u32,
    pub host: HostName,
    pub sequence: u64,
    pub stamp: Stamp,
    /// Of the snapshot that is gone.
    pub core: Hash,
    /// The names of its manifest and of its revisions.
    pub manifests: Vec<String>,
    pub deleted_at: DateTime<Utc>,
    /// The fingerprint of who deleted it; the signature proves it.
    pub by: String,
    /// The highest sequence that was there then.
    pub newest: u64,
}

impl Tombstone {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = json_line(self);
        bytes.push(b'\n');
        bytes
    }

    /// The object and its signature, each with its key.
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

    /// The name in a key such as `tombstones/….json`; `None` for signatures and strangers.
    pub fn name_of(key: &str) -> Option<ManifestName> {
        let file = key.strip_prefix(TOMBSTONES)?.strip_prefix('/')?;
        file.strip_suffix(".json")?.parse().ok()
    }

    /// Believes `bytes` if they are what `name` promises, of `host`, and signed by somebody who
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

/// Whether a tombstone by `key` is believed: `trust` lets it delete, or it signed manifests here (its
/// fingerprint is one of `signers`) and `trust` says nothing of it.
pub fn may_prune(host: &HostName, key: &PublicKey, trust: &Trust, signers: &[String]) -> bool {
    let is_signer = || signers.contains(&signature::fingerprint(key));
    trust.accepts(host, PRUNE_NAMESPACE, key) || !trust.names(host, key) && is_signer()
}

/// Archives that are to go once no packer can lean on them any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    pub format: u32,
    pub host: HostName,
    pub marked_at: DateTime<Utc>,
    /// Random: a mark is never the same as an earlier one that was heeded.
    pub nonce: String,
    pub archives: Vec<Hash>,
    /// Pages of earlier snapshots, and directories of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pages: Vec<Hash>,
}

/// Who stands for a mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vouched {
    /// It is signed by a key that [may delete](may_prune).
    Signer,
    /// No signature is beside it.
    Nobody,
    /// Why its signature does not count.
    Stranger(String),
}

impl Mark {
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

    /// The signature and then the mark, each with its key.
    pub fn sign(&self, signer: &Signer) -> Result<[(ObjectKey, Vec<u8>); 2], SignatureError> {
        let (name, bytes) = self.encode();
        let signature = signer.sign(PRUNE_NAMESPACE, &bytes)?;
        let signature = (name.signature_key(), signature.into_bytes());
        Ok([signature, (name.key(), bytes)])
    }

    /// Who stands for a mark that is `bytes`. `trust` and `signers` as for a tombstone.
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

    pub fn encode(&self) -> (MarkName, Vec<u8>) {
        let mut bytes = json_line(self);
        bytes.push(b'\n');
        (MarkName::of(&bytes), bytes)
    }

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
                "it is of another host or format".to_owned(),
            )),
        }
    }
}

/// The first 16 hex digits of the SHA-256 of a mark: its file's name, and what `marks_seen` lists.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MarkName(String);

impl MarkName {
    fn of(bytes: &[u8]) -> Self {
        Self(Hash::sha256(bytes).short())
    }

    pub fn from_key(key: &str) -> Option<Self> {
        let file = key.strip_prefix(MARKS)?.strip_prefix('/')?;
        let name = file.strip_suffix(".json")?;
        (name.len() == 16 && unhex(name).is_some()).then(|| Self(name.to_owned()))
    }

    pub fn key(&self) -> ObjectKey {
        ObjectKey::mark(self)
    }

    pub fn signature_key(&self) -> ObjectKey {
        ObjectKey::mark_signature(self)
    }

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
