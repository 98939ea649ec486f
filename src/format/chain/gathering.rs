//! Decides, manifest by manifest, which to believe.

use std::collections::{BTreeSet, HashSet};

use ssh_key::PublicKey;

use super::finding::{ChainError, Finding, StrangerManifests};
use super::{Chain, Introduction, TrustedSigner, UnverifiedManifest, VerifiedSnapshot};
use crate::base::ids::{Hash, HostName};
use crate::format::known::KnownRef;
use crate::format::manifest::{Manifest, ManifestName};
use crate::format::signature::{self, MANIFEST_NAMESPACE, Trust};

/// A manifest whose content and signature were checked.
pub struct CheckedManifest {
    name: ManifestName,
    /// The manifest and the key that signed it, or why it is refused.
    content: Result<(Manifest, PublicKey), String>,
}

impl CheckedManifest {
    /// Returns a manifest that is refused because of `reason`.
    pub fn refused(name: ManifestName, reason: String) -> Self {
        Self {
            name,
            content: Err(reason),
        }
    }
}

/// A chain in the making. Only believed manifests stay in memory, however many others an attacker
/// put beside them.
pub struct Gathering<'a> {
    host: &'a HostName,
    trust: &'a Trust,
    /// Keys that are trusted in addition to `trust`: the first seen, and announced next signers.
    trusted: Vec<PublicKey>,
    /// The signers whose manifests are believed, and those that such a manifest introduces.
    signers: Vec<TrustedSigner>,
    snapshots: Vec<VerifiedSnapshot>,
    findings: Vec<Finding>,
    /// The manifests of signers that are not trusted; the signer of the newest one is last.
    strangers: Vec<StrangerManifests>,
    /// Core hashes of those manifests.
    refused_cores: HashSet<Hash>,
    /// Number of manifests taken.
    count: usize,
}

impl<'a> Gathering<'a> {
    /// Starts with no manifest of `host`; `trust` decides whose manifests are believed.
    pub fn new(host: &'a HostName, trust: &'a Trust) -> Self {
        Self {
            host,
            trust,
            trusted: Vec::new(),
            signers: Vec::new(),
            snapshots: Vec::new(),
            findings: Vec::new(),
            strangers: Vec::new(),
            refused_cores: HashSet::new(),
            count: 0,
        }
    }

    /// Takes the next manifest, which was checked for this host. Callers pass them in the order of
    /// their names, since the `next_signer` of a believed one is trusted from there on.
    pub fn take(&mut self, checked: CheckedManifest) {
        self.count += 1;
        match checked.content {
            Ok((manifest, key)) => match self.is_trusted(&key) {
                true => self.believe(manifest, key),
                false => self.refuse_stranger(checked.name, &manifest, &key),
            },
            Err(reason) => {
                let refused = Finding::Refused(checked.name, reason);
                self.findings.push(refused);
            }
        }
    }

    fn refuse_stranger(&mut self, name: ManifestName, manifest: &Manifest, key: &PublicKey) {
        self.refused_cores.insert(manifest.core_hash);
        let signer = signature::fingerprint(key);
        let known = self.strangers.iter().position(|one| one.signer == signer);
        let mut manifests = match known {
            Some(at) => self.strangers.remove(at),
            None => StrangerManifests {
                signer,
                names: Vec::new(),
                newest_believed: None,
            },
        };
        manifests.names.push(name);
        self.strangers.push(manifests);
    }

    /// Adds a snapshot, without the parts that are needed of the newest one only: there may be
    /// thousands.
    fn add(&mut self, mut snapshot: VerifiedSnapshot) {
        snapshot.manifest.bytes = Vec::new();
        // The parser leaves room for more of them, up to a half.
        snapshot.manifest.core.index.extents.shrink_to_fit();
        let highest = self.snapshots.last().map_or(0, VerifiedSnapshot::sequence);
        if snapshot.sequence() > highest {
            let heads = self.snapshots.iter_mut().rev();
            for old in heads.take_while(|old| old.sequence() == highest) {
                if let KnownRef::Inline(known) = &mut old.manifest.core.known {
                    *known = Vec::new();
                }
            }
        }
        self.snapshots.push(snapshot);
    }

    /// Whether `key` may sign manifests here.
    fn is_trusted(&mut self, key: &PublicKey) -> bool {
        if matches!(self.trust, Trust::FirstSeen) && self.trusted.is_empty() {
            self.trusted.push(key.clone());
        }
        let is_trusted = self.trusted.iter().any(|t| t.key_data() == key.key_data());
        is_trusted || self.trust.accepts(self.host, MANIFEST_NAMESPACE, key)
    }

    /// Adds a manifest that the trusted `key` signed, and trusts the signer that it introduces.
    fn believe(&mut self, manifest: Manifest, key: PublicKey) {
        let signer = signature::fingerprint(&key);
        self.note_signer(key, None);
        if let Some(next) = &manifest.core.next_signer
            && let Ok(next) = PublicKey::from_openssh(next)
        {
            let by = Introduction {
                signer: signer.clone(),
                sequence: manifest.core.sequence,
            };
            self.note_signer(next.clone(), Some(by));
            self.trusted.push(next);
        }
        self.add(VerifiedSnapshot { manifest, signer });
    }

    /// Notes a trusted signer once. If the caller trusts it anyway, no introduction counts.
    fn note_signer(&mut self, key: PublicKey, introduced: Option<Introduction>) {
        let is_known = |one: &TrustedSigner| one.key.key_data() == key.key_data();
        if self.signers.iter().any(is_known) {
            return;
        }
        let is_given = self.trust.accepts(self.host, MANIFEST_NAMESPACE, &key);
        let introduced = introduced.filter(|_| !is_given);
        self.signers.push(TrustedSigner { key, introduced });
    }

    /// Returns the chain of the believed manifests. It is not yet compared with the earlier
    /// snapshots that its newest manifest names ([`Chain::hold_against`]).
    pub fn finish(self) -> Result<Chain, ChainError> {
        let host = self.host.clone();
        if self.count == 0 {
            return Err(ChainError::Empty(host));
        }
        if matches!(self.trust, Trust::FirstSeen) && !self.strangers.is_empty() {
            let strangers = self.strangers.into_iter().map(|one| one.signer);
            let mut signers: BTreeSet<String> = strangers.collect();
            signers.extend(self.snapshots.into_iter().map(|snapshot| snapshot.signer));
            let signers = signers.into_iter().collect::<Vec<_>>().join(", ");
            return Err(ChainError::SeveralSigners { host, signers });
        }
        let newest_believed = self.snapshots.last().map(VerifiedSnapshot::sequence);
        let mut findings = self.findings;
        let signers: Vec<String> = self.strangers.iter().map(|s| s.signer.clone()).collect();
        findings.extend(self.strangers.into_iter().map(|stranger| {
            Finding::Stranger(StrangerManifests {
                newest_believed,
                ..stranger
            })
        }));
        if self.snapshots.is_empty() {
            let newest = |finding: &&Finding| finding.refused().last().cloned();
            let newest = findings.iter().max_by_key(newest).map(Finding::to_string);
            return Err(ChainError::NothingVerified {
                host,
                count: self.count,
                newest: newest.unwrap_or_default(),
                signers,
            });
        }
        let mut chain = Chain {
            host,
            snapshots: self.snapshots,
            findings,
            known: BTreeSet::new(),
            trusted: self.signers,
            refused_cores: self.refused_cores,
        };
        chain.find_forks();
        Ok(chain)
    }
}

impl UnverifiedManifest {
    /// Checks that the content matches the name, that the signature is valid, and that the manifest
    /// is of `host`; not whether its signer is trusted.
    pub fn check(self, host: &HostName) -> CheckedManifest {
        CheckedManifest {
            content: check_signed(host, &self),
            name: self.name,
        }
    }
}

/// Returns the manifest and the key that signed it.
fn check_signed(
    host: &HostName,
    candidate: &UnverifiedManifest,
) -> Result<(Manifest, PublicKey), String> {
    let signature = candidate.signature.as_ref().ok_or("it has no signature")?;
    let manifest = Manifest::parse_named(&candidate.name, &candidate.manifest)
        .map_err(|error| error.to_string())?;
    if manifest.core.host != *host {
        return Err(format!("it belongs to host {}", manifest.core.host));
    }
    let key = signature::verify(signature, MANIFEST_NAMESPACE, &manifest.bytes)
        .map_err(|error| error.to_string())?;
    Ok((manifest, key))
}
