//! Decides which of a folder's manifests to believe, and orders them.
//!
//! A pure computation: from the bytes that a target returned and a [`Trust`] it makes the verified
//! snapshots, by sequence, and a list of findings. `latest` is the highest verified sequence, never
//! the newest date. Nothing unverified ever becomes a [`VerifiedSnapshot`].

use std::collections::{BTreeMap, BTreeSet, HashSet};

use ssh_key::PublicKey;

use crate::base::ids::{Hash, HostName, Stamp};
use crate::base::snapshot_choice::{Nearest, SnapshotChoice};
use crate::format::allowed_signers::AllowedSigner;
use crate::format::known::{Known, KnownRef};
use crate::format::manifest::{Manifest, ManifestName};
use crate::format::signature::{self, MANIFEST_NAMESPACE, Trust};

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

/// An irregularity of the folder that the operator should know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// The manifest cannot be believed, and why.
    #[error("manifest {0} is not acceptable: {1}")]
    Refused(ManifestName, String),
    /// Manifests that are sound, but signed by a key that is not trusted.
    #[error("{0}")]
    Stranger(StrangerManifests),
    /// Manifests with different cores have the same sequence.
    #[error("sequence {sequence} is forked: {names} both claim it (two machines under one name?)")]
    Fork {
        /// The sequence.
        sequence: u64,
        /// Names of the manifests.
        names: String,
    },
    /// A later manifest names a snapshot that the folder lacks.
    #[error(
        "snapshot {} (sequence {}): its manifest is missing, though a later snapshot refers to it",
        .0.stamp, .0.sequence
    )]
    Missing(Known),
    /// A manifest names, under a sequence that is here, a snapshot that is not.
    #[error("manifest {child} does not follow from {parent}, although that sequence is here")]
    Lineage {
        /// The later manifest.
        child: ManifestName,
        /// Stamp and sequence of the snapshot that it names.
        parent: String,
    },
    /// The pages of a manifest's earlier snapshots cannot be read, and why.
    #[error("cannot determine which snapshots were here before {0}: {1}")]
    History(ManifestName, String),
}

impl Finding {
    /// Returns the manifests that are here and are not believed.
    pub fn refused(&self) -> &[ManifestName] {
        match self {
            Self::Refused(name, _) => std::slice::from_ref(name),
            Self::Stranger(manifests) => &manifests.names,
            _ => &[],
        }
    }

    /// Returns the next step for the reader; `None` if it depends on the command.
    pub fn next(&self) -> Option<&'static str> {
        match self {
            Self::Stranger(manifests) => Some(manifests.next()),
            _ => None,
        }
    }
}

/// The manifests of one signer who is not trusted. Each is sound otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StrangerManifests {
    /// The signer's fingerprint, `SHA256:…`.
    pub signer: String,
    /// The manifests, by name; at least one.
    pub names: Vec<ManifestName>,
    /// The sequence of the newest believed manifest; `None` if there is none.
    pub newest_believed: Option<u64>,
}

impl StrangerManifests {
    /// Whether one of the manifests is not older than every believed one.
    pub fn are_newest(&self) -> bool {
        let newest = self.names.last().map(|name| name.sequence);
        newest >= self.newest_believed
    }

    /// Returns the next step for the reader.
    pub fn next(&self) -> &'static str {
        match self.are_newest() {
            true => NEXT_OF_NEWER,
            false => NEXT_OF_OLDER,
        }
    }
}

/// The next step if the newest snapshots are signed by a stranger.
const NEXT_OF_NEWER: &str = "on the host, compare the fingerprint (`ssh-keygen -lf /etc/sealift/signer.pub`). If it is the host's new \
     signer, trust both: --signer FILE with an allowed_signers file that lists the old and the new one, or \
     `sealift remote trust`. If not, someone else writes to this target";
const NEXT_OF_OLDER: &str = "if that was the host's signer then (see the paper page, or `allowed_signers` on the host), trust both: --signer FILE \
     with an allowed_signers file that lists the old and the new one, or `sealift remote trust`";

impl std::fmt::Display for StrangerManifests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let signer = &self.signer;
        match self.names.as_slice() {
            [first, .., last] => write!(
                f,
                "{} snapshots (sequence {} to {}, {} to {}) are refused: they are signed by {signer}, which is not a \
                 trusted signer",
                self.names.len(),
                first.sequence,
                last.sequence,
                first.stamp,
                last.stamp,
            )?,
            [only] => write!(
                f,
                "manifest {only} is refused: it is signed by {signer}, which is not a trusted signer"
            )?,
            [] => {}
        }
        match self.are_newest() {
            true => write!(f, " and was introduced by none"),
            false => write!(f, " (an earlier signer of the host?)"),
        }
    }
}

/// Why a folder has no chain, or a chain does not have the requested snapshot.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The folder has no manifest.
    #[error("no manifest of host {0} is here")]
    Empty(HostName),
    /// No manifest is believed.
    #[error("none of the {count} manifests of host {host} is acceptable; the newest: {newest}")]
    NothingVerified {
        /// The host.
        host: HostName,
        /// Number of its manifests.
        count: usize,
        /// The finding about the newest.
        newest: String,
        /// Fingerprints of the signers of sound manifests; the last is that of the newest.
        signers: Vec<String>,
    },
    /// Without a pinned signer, nothing says which of several to trust.
    #[error(
        "host {host} has manifests by unrelated signers ({signers}): \
         pin the right one with --signer"
    )]
    SeveralSigners {
        /// The host.
        host: HostName,
        /// Fingerprints of the signers.
        signers: String,
    },
    /// No snapshot is the requested one.
    #[error("no snapshot {wanted} on this target{near}")]
    NoSuchSnapshot {
        /// The request.
        wanted: String,
        /// `; the newest is …`, or the ones nearest to a date.
        near: String,
    },
    /// Several different snapshots match the request.
    #[error(
        "{text} is ambiguous, sequence {sequence} is forked: \
         choose one of {names} (by its last 16 digits)"
    )]
    Ambiguous {
        /// The request.
        text: String,
        /// The forked sequence.
        sequence: u64,
        /// Names of the manifests that match.
        names: String,
    },
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

    /// Takes the next manifest; callers pass them in the order of their names, since the
    /// `next_signer` of a believed one is trusted from there on.
    pub fn take(&mut self, candidate: UnverifiedManifest) {
        self.count += 1;
        match check_signed(self.host, &candidate) {
            Ok((manifest, key)) => match self.is_trusted(&key) {
                true => self.believe(manifest, key),
                false => self.refuse_stranger(candidate.name, &manifest, &key),
            },
            Err(reason) => {
                let refused = Finding::Refused(candidate.name, reason);
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

/// Checks that the content matches the name, that the signature is valid, and that the manifest is
/// of `host`. Returns the manifest and the key that signed it.
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
