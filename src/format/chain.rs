//! Decides which of a folder's manifests to believe, and orders them.
//!
//! A pure computation: from the bytes that a target returned and a [`Trust`] it makes the verified
//! snapshots, by sequence, and a list of findings. `latest` is the highest verified sequence, never
//! the newest date. Nothing unverified ever becomes a [`VerifiedSnapshot`].

mod finding;
mod gathering;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use ssh_key::PublicKey;

use crate::base::ids::{Hash, HostName, Stamp};
use crate::base::snapshot_choice::{Nearest, SnapshotChoice};
use crate::format::allowed_signers::AllowedSigner;
use crate::format::known::Known;
use crate::format::manifest::{Manifest, ManifestName};
use crate::format::signature::{self, Trust};
pub use finding::{ChainError, Finding, StrangerManifests};
pub use gathering::{CheckedManifest, Gathering};

/// A manifest and its signature, as the target returned them.
#[derive(Debug, Clone)]
pub struct UnverifiedManifest {
    /// The name under which the target holds the manifest.
    pub name: ManifestName,
    /// The object's bytes.
    pub manifest: Vec<u8>,
    /// The signature's bytes; `None` if the target has none for it.
    pub signature: Option<Vec<u8>>,
}

/// A verified manifest and who signed it.
#[derive(Debug, Clone)]
pub struct VerifiedSnapshot {
    /// The manifest, without its bytes. An inline list of earlier snapshots is kept only in the
    /// newest one.
    pub manifest: Manifest,
    /// The signer's fingerprint, `SHA256:…`.
    pub signer: String,
}

impl VerifiedSnapshot {
    /// Returns the snapshot's sequence.
    pub fn sequence(&self) -> u64 {
        self.manifest.core.sequence
    }

    /// Returns the snapshot's stamp.
    pub fn stamp(&self) -> Stamp {
        self.manifest.core.stamp
    }

    /// Returns the choice of exactly this snapshot: by its hash, which no other shares.
    pub fn choice(&self) -> SnapshotChoice {
        SnapshotChoice::by_hash(&self.manifest.name().hash16)
    }
}

/// A signer that nothing introduces to the readers who trust the one before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignerChange {
    /// Fingerprint of the signer of the oldest snapshot.
    pub pinned: String,
    /// Fingerprint of the signer of the newest.
    pub signer: String,
}

/// A host's verified snapshots and the irregularities of its folder.
#[derive(Debug, Clone)]
pub struct Chain {
    /// The host.
    pub host: HostName,
    /// The verified snapshots, oldest first.
    pub snapshots: Vec<VerifiedSnapshot>,
    /// The irregularities, in the order in which they were found.
    pub findings: Vec<Finding>,
    /// The earlier snapshots that the newest manifest names; at a fork, those of each head.
    pub known: BTreeSet<Known>,
    /// The signers whose manifests are believed, and those that such a manifest introduces, in
    /// the order in which they appear.
    pub trusted: Vec<TrustedSigner>,
    /// Core hashes of the sound manifests whose signer is not trusted.
    refused_cores: HashSet<Hash>,
}

/// A signer whose manifests are believed.
#[derive(Debug, Clone)]
pub struct TrustedSigner {
    /// Its public key.
    pub key: PublicKey,
    /// The manifest that introduces it; `None` if the reader trusts it by itself.
    pub introduced: Option<Introduction>,
}

impl TrustedSigner {
    /// Returns the fingerprint, `SHA256:…`.
    pub fn fingerprint(&self) -> String {
        signature::fingerprint(&self.key)
    }
}

/// A manifest that introduces a signer (`next_signer`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introduction {
    /// Fingerprint of its signer.
    pub signer: String,
    /// Its sequence.
    pub sequence: u64,
}

impl Chain {
    /// Returns the snapshot of the highest sequence; at a fork, all of that sequence.
    pub fn heads(&self) -> Vec<VerifiedSnapshot> {
        let newest = self.latest_sequence();
        let heads = self.snapshots.iter().filter(|s| s.sequence() == newest);
        heads.cloned().collect()
    }

    /// Returns the highest verified sequence; 0 if there is no snapshot.
    pub fn latest_sequence(&self) -> u64 {
        self.snapshots.last().map_or(0, VerifiedSnapshot::sequence)
    }

    /// Compares the chain with the earlier snapshots that `head` names: reports those that are
    /// missing, and those whose sequence belongs to another snapshot here.
    pub fn hold_against(&mut self, head: &ManifestName, known: Vec<Known>) {
        self.check_lineage_of(head, &known);
        self.find_missing(&known);
        self.known.extend(known);
    }

    /// Returns the snapshots that later ones name, that are not here and that have no tombstone
    /// yet.
    pub fn missing(&self) -> Vec<Known> {
        let missing = self.findings.iter().filter_map(|finding| match finding {
            Finding::Missing(known) => Some(*known),
            _ => None,
        });
        missing.collect()
    }

    /// Returns the trust in exactly the signers of this chain.
    pub fn trust(&self) -> Trust {
        let signers = self.trusted.iter();
        let signers = signers.map(|one| AllowedSigner::for_host(&self.host, one.key.clone()));
        Trust::AllowedSigners(signers.collect())
    }

    /// Whether the snapshot of this core is here, but signed by a key that is not trusted.
    pub fn is_of_stranger(&self, core: &Hash) -> bool {
        self.refused_cores.contains(core)
    }

    /// Returns the fingerprints of all signers whose manifests are believed here.
    pub fn signers(&self) -> Vec<String> {
        let signers = self.snapshots.iter().map(|s| s.signer.clone());
        let distinct: BTreeSet<String> = signers.collect();
        distinct.into_iter().collect()
    }

    /// Returns the signers of the oldest and of the newest snapshot here, if a reader who trusts
    /// only that of the oldest refuses the newest: no manifest that such a reader believes
    /// announces its signer.
    pub fn signer_change(&self) -> Option<SignerChange> {
        let pinned = &self.snapshots.first()?.signer;
        let mut trusted = BTreeSet::from([pinned.clone()]);
        let mut newest = None;
        for snapshot in &self.snapshots {
            let is_believed = trusted.contains(&snapshot.signer);
            newest = (!is_believed).then_some(snapshot);
            let next = snapshot.manifest.core.next_signer.as_deref();
            trusted.extend(
                next.filter(|_| is_believed)
                    .and_then(signature::fingerprint_of_line),
            );
        }
        newest.map(|newest| SignerChange {
            pinned: pinned.clone(),
            signer: newest.signer.clone(),
        })
    }

    /// Returns the finding about a manifest that is damaged or not trusted, and that `choice` could
    /// mean rather than `chosen`. Then it is unknown which snapshot is meant.
    pub fn doubt(&self, choice: &SnapshotChoice, chosen: &VerifiedSnapshot) -> Option<&Finding> {
        let place = (chosen.stamp(), chosen.sequence());
        let could_be = |name: &ManifestName| choice.could_be((name.stamp, name.sequence), place);
        let mut findings = self.findings.iter();
        findings.find(|finding| finding.refused().iter().any(could_be))
    }

    /// Drops the findings about missing snapshots that valid tombstones name: those were deleted on
    /// purpose. `cores` are the core hashes of the tombstones.
    pub fn accept_deletions(&mut self, cores: &HashSet<Hash>) {
        self.findings.retain(
            |finding| !matches!(finding, Finding::Missing(known) if cores.contains(&known.core)),
        );
    }

    /// Returns the snapshot of the highest verified sequence. A fork is an error.
    pub fn latest(&self) -> Result<&VerifiedSnapshot, ChainError> {
        self.resolve(&SnapshotChoice::latest())
    }

    /// Returns the snapshot that `choice` means; its tags are the caller's business.
    pub fn resolve(&self, choice: &SnapshotChoice) -> Result<&VerifiedSnapshot, ChainError> {
        self.best_of(choice, &self.admitted(choice))
    }

    /// Returns the snapshots that `choice` admits, except for its tags, the preferred first. Of
    /// several revisions of one core it returns one.
    pub fn by_preference(
        &self,
        choice: &SnapshotChoice,
    ) -> Result<Vec<&VerifiedSnapshot>, ChainError> {
        let mut left = self.admitted(choice);
        let mut ordered = Vec::new();
        loop {
            let best = self.best_of(choice, &left)?;
            ordered.push(best);
            left.retain(|other| other.manifest.core_hash != best.manifest.core_hash);
            if left.is_empty() {
                return Ok(ordered);
            }
        }
    }

    fn admitted(&self, choice: &SnapshotChoice) -> Vec<&VerifiedSnapshot> {
        let admits = |snapshot: &&VerifiedSnapshot| {
            let hash = std::iter::once_with(|| snapshot.manifest.name().hash16);
            choice.admits(snapshot.stamp(), Some(snapshot.sequence()), hash)
        };
        self.snapshots.iter().filter(admits).collect()
    }

    /// Returns the preferred one of the `admitted` snapshots.
    fn best_of<'a>(
        &self,
        choice: &SnapshotChoice,
        admitted: &[&'a VerifiedSnapshot],
    ) -> Result<&'a VerifiedSnapshot, ChainError> {
        let rank = |s: &VerifiedSnapshot| choice.rank(s.stamp(), Some(s.sequence()));
        let best = admitted.iter().map(|s| rank(s)).max();
        let found = admitted.iter().filter(|s| Some(rank(s)) == best);
        let found: Vec<&VerifiedSnapshot> = found.copied().collect();
        let Some(last) = found.last() else {
            return Err(self.no_such(choice));
        };
        // Several revisions of one core are one snapshot; the last by name represents it.
        let same_core = |s: &&VerifiedSnapshot| s.manifest.core_hash == last.manifest.core_hash;
        if found.iter().all(same_core) {
            return Ok(last);
        }
        Err(ChainError::Ambiguous {
            text: choice.to_string(),
            sequence: last.sequence(),
            names: names(found.iter().map(|s| s.manifest.name())),
        })
    }

    fn no_such(&self, choice: &SnapshotChoice) -> ChainError {
        let nearest = choice.nearest(self.snapshots.iter().map(VerifiedSnapshot::stamp));
        let near = match (nearest == Nearest::default(), self.snapshots.last()) {
            (true, Some(newest)) => format!("; the newest is {}", newest.stamp()),
            _ => nearest.to_string(),
        };
        let wanted = choice.to_string();
        ChainError::NoSuchSnapshot { wanted, near }
    }

    fn find_forks(&mut self) {
        let mut by_sequence: BTreeMap<u64, Vec<&VerifiedSnapshot>> = BTreeMap::new();
        for snapshot in &self.snapshots {
            by_sequence
                .entry(snapshot.sequence())
                .or_default()
                .push(snapshot);
        }
        for (sequence, siblings) in by_sequence {
            let first = siblings[0].manifest.core_hash;
            if siblings.iter().any(|s| s.manifest.core_hash != first) {
                self.findings.push(Finding::Fork {
                    sequence,
                    names: names(siblings.iter().map(|s| s.manifest.name())),
                });
            }
        }
    }

    /// Reports the earlier snapshots that `child` names, if their sequence is here but belongs to
    /// another snapshot. If `child` names several of one sequence, one of them must be here: after
    /// histories parted, each target has its own.
    pub fn check_lineage_of(&mut self, child: &ManifestName, known: &[Known]) {
        let mut cores: BTreeMap<u64, Vec<Hash>> = BTreeMap::new();
        for snapshot in &self.snapshots {
            let core = snapshot.manifest.core_hash;
            cores.entry(snapshot.sequence()).or_default().push(core);
        }
        let is_here = |known: &Known| {
            let here = cores.get(&known.sequence);
            here.map(|here| here.contains(&known.core))
        };
        let mut strange: BTreeMap<u64, Known> = BTreeMap::new();
        for other in known.iter().filter(|known| is_here(known) == Some(false)) {
            strange.insert(other.sequence, *other);
        }
        for present in known.iter().filter(|known| is_here(known) == Some(true)) {
            strange.remove(&present.sequence);
        }
        for known in strange.into_values() {
            self.findings.push(Finding::Lineage {
                child: child.clone(),
                parent: format!("{} (sequence {})", known.stamp, known.sequence),
            });
        }
    }

    fn find_missing(&mut self, known: &[Known]) {
        // One pass over each list, since the signer decides how long they are.
        let cores: HashSet<Hash> = self
            .snapshots
            .iter()
            .map(|s| s.manifest.core_hash)
            .collect();
        let sequences: HashSet<u64> = self
            .snapshots
            .iter()
            .map(VerifiedSnapshot::sequence)
            .collect();
        let here = |known: &&Known| cores.contains(&known.core);
        let found: HashSet<u64> = known.iter().filter(here).map(|k| k.sequence).collect();
        for absent in known.iter().filter(|known| !here(known)) {
            // If only another snapshot has its sequence, that is a broken lineage, reported as
            // such.
            let sequence = absent.sequence;
            let is_replaced = sequences.contains(&sequence) && !found.contains(&sequence);
            // It is there, and a finding says that its signer is not trusted.
            let is_replaced = is_replaced || self.refused_cores.contains(&absent.core);
            if !is_replaced && !self.known.contains(absent) {
                self.findings.push(Finding::Missing(*absent));
            }
        }
    }
}

fn names(names: impl Iterator<Item = ManifestName>) -> String {
    names.map(|n| n.to_string()).collect::<Vec<_>>().join(", ")
}
