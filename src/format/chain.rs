//! Which of a folder's manifests to believe, and in what order they stand.
//!
//! Pure: takes the bytes that a target showed and a [`Trust`], gives the verified snapshots by
//! sequence and a list of findings. `latest` is the highest verified sequence, never the newest
//! date. Nothing unverified ever becomes a [`VerifiedSnapshot`].

use std::collections::{BTreeMap, BTreeSet, HashSet};

use ssh_key::PublicKey;

use super::known::KnownRef;
use crate::base::ids::{Hash, HostName, Stamp};
use crate::format::manifest::{Known, Manifest, ManifestName};
use crate::format::signature::{self, MANIFEST_NAMESPACE, Trust};

/// A manifest's name and what the target holds under it and its `.sig`.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub name: ManifestName,
    pub manifest: Vec<u8>,
    /// `None`: there is no signature beside it.
    pub signature: Option<Vec<u8>>,
}

/// A verified manifest and who signed it.
#[derive(Debug, Clone)]
pub struct VerifiedSnapshot {
    /// Without its bytes; and without a list of earlier snapshots in itself, unless it is the newest.
    pub manifest: Manifest,
    /// `SHA256:…`
    pub signer: String,
}

impl VerifiedSnapshot {
    pub fn sequence(&self) -> u64 {
        self.manifest.core.sequence
    }

    pub fn stamp(&self) -> Stamp {
        self.manifest.core.stamp
    }
}

/// Something about the folder that its owner should know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    #[error("manifest {0} is not acceptable: {1}")]
    Refused(ManifestName, String),
    #[error("sequence {sequence} is forked: {names} both claim it (two machines under one name?)")]
    Fork { sequence: u64, names: String },
    #[error("snapshot {} (sequence {}) is known to a later one, but its manifest is missing", .0.stamp, .0.sequence)]
    Missing(Known),
    #[error("manifest {child} does not follow from {parent}, which is there under its sequence")]
    Lineage { child: ManifestName, parent: String },
    #[error("which snapshots were here before {0} cannot be told: {1}")]
    History(ManifestName, String),
}

#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    #[error("no manifest of host {0} is here")]
    Empty(HostName),
    #[error("none of the {count} manifests of host {host} is acceptable; the newest: {newest}")]
    NothingVerified {
        host: HostName,
        count: usize,
        newest: String,
    },
    #[error(
        "host {host} has manifests by unrelated signers ({signers}): pin the right one with --signer"
    )]
    SeveralSigners { host: HostName, signers: String },
    #[error("{0} names no snapshot here; the newest is {1}")]
    NoSuchSnapshot(String, String),
    #[error(
        "{text} is ambiguous, sequence {sequence} is forked: choose one of {names} (by its last 16 digits)"
    )]
    Ambiguous {
        text: String,
        sequence: u64,
        names: String,
    },
}

/// A chain in the making. Only what is believed stays in memory, however much was planted beside it.
pub struct Gathering<'a> {
    host: &'a HostName,
    trust: &'a Trust,
    /// Besides those of `trust`.
    trusted: Vec<PublicKey>,
    snapshots: Vec<VerifiedSnapshot>,
    findings: Vec<Finding>,
    /// Fingerprints.
    strangers: BTreeSet<String>,
    count: usize,
}

impl<'a> Gathering<'a> {
    /// Nothing yet of `host`, for those whom `trust` accepts.
    pub fn new(host: &'a HostName, trust: &'a Trust) -> Self {
        Self {
            host,
            trust,
            trusted: Vec::new(),
            snapshots: Vec::new(),
            findings: Vec::new(),
            strangers: BTreeSet::new(),
            count: 0,
        }
    }

    /// Takes the manifest that is next by name: a trusted one's `next_signer` is trusted from there on.
    pub fn take(&mut self, candidate: Candidate) {
        self.count += 1;
        let believed = check_signed(self.host, &candidate)
            .and_then(|(manifest, key)| self.believe(manifest, &key));
        match believed {
            Ok(snapshot) => self.add(snapshot),
            Err(reason) => {
                let refused = Finding::Refused(candidate.name, reason);
                self.findings.push(refused);
            }
        }
    }

    /// Keeps of thousands of manifests only what is asked of each.
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

    fn believe(&mut self, manifest: Manifest, key: &PublicKey) -> Result<VerifiedSnapshot, String> {
        if matches!(self.trust, Trust::FirstSeen) && self.trusted.is_empty() {
            self.trusted.push(key.clone());
        }
        let signer = signature::fingerprint(key);
        let is_trusted = self.trusted.iter().any(|t| t.key_data() == key.key_data());
        if !is_trusted && !self.trust.accepts(self.host, MANIFEST_NAMESPACE, key) {
            let reason = format!("it is signed by {signer}, which is not a trusted signer");
            self.strangers.insert(signer);
            return Err(reason);
        }
        if let Some(next) = &manifest.core.next_signer
            && let Ok(next) = PublicKey::from_openssh(next)
        {
            self.trusted.push(next);
        }
        Ok(VerifiedSnapshot { manifest, signer })
    }

    /// The chain of all that was taken; what its newest manifest says of earlier ones is not looked at yet
    /// ([`Chain::hold_against`]).
    pub fn finish(self) -> Result<Chain, ChainError> {
        let host = self.host.clone();
        if self.count == 0 {
            return Err(ChainError::Empty(host));
        }
        if matches!(self.trust, Trust::FirstSeen) && !self.strangers.is_empty() {
            let mut signers = self.strangers;
            signers.extend(self.snapshots.into_iter().map(|snapshot| snapshot.signer));
            let signers = signers.into_iter().collect::<Vec<_>>().join(", ");
            return Err(ChainError::SeveralSigners { host, signers });
        }
        if self.snapshots.is_empty() {
            return Err(ChainError::NothingVerified {
                host,
                count: self.count,
                newest: self
                    .findings
                    .last()
                    .map(Finding::to_string)
                    .unwrap_or_default(),
            });
        }
        let mut chain = Chain {
            host,
            snapshots: self.snapshots,
            findings: self.findings,
            known: BTreeSet::new(),
        };
        chain.find_forks();
        Ok(chain)
    }
}

/// A host's verified snapshots, oldest first, and what is odd about the folder.
#[derive(Debug, Clone)]
pub struct Chain {
    pub host: HostName,
    pub snapshots: Vec<VerifiedSnapshot>,
    pub findings: Vec<Finding>,
    /// What the newest manifest, or each at a fork, says was before it.
    pub known: BTreeSet<Known>,
}

impl Chain {
    /// The snapshot of the highest sequence; all of that sequence at a fork.
    pub fn heads(&self) -> Vec<VerifiedSnapshot> {
        let newest = self.latest_sequence();
        let heads = self.snapshots.iter().filter(|s| s.sequence() == newest);
        heads.cloned().collect()
    }

    pub fn latest_sequence(&self) -> u64 {
        self.snapshots.last().map_or(0, VerifiedSnapshot::sequence)
    }

    /// Looks for what `head` knows as earlier snapshots and is not here, or is another one here.
    pub fn hold_against(&mut self, head: &ManifestName, known: Vec<Known>) {
        self.check_lineage_of(head, &known);
        self.find_missing(&known);
        self.known.extend(known);
    }

    /// What later snapshots know, is not here, and has no tombstone yet.
    pub fn missing(&self) -> Vec<Known> {
        let missing = self.findings.iter().filter_map(|finding| match finding {
            Finding::Missing(known) => Some(*known),
            _ => None,
        });
        missing.collect()
    }

    /// Fingerprints of all whose manifests are believed here.
    pub fn signers(&self) -> Vec<String> {
        let signers = self.snapshots.iter().map(|s| s.signer.clone());
        let distinct: BTreeSet<String> = signers.collect();
        distinct.into_iter().collect()
    }

    /// What believable tombstones say was deleted on purpose is no finding.
    pub fn accept_deletions(&mut self, cores: &HashSet<Hash>) {
        self.findings.retain(
            |finding| !matches!(finding, Finding::Missing(known) if cores.contains(&known.core)),
        );
    }

    /// The snapshot of the highest verified sequence.
    pub fn latest(&self) -> Result<&VerifiedSnapshot, ChainError> {
        self.resolve("latest")
    }

    /// Finds `latest`, a stamp, a sequence number or the last 16 digits of a manifest's name.
    pub fn resolve(&self, text: &str) -> Result<&VerifiedSnapshot, ChainError> {
        let newest = self.snapshots.last().map_or(0, VerifiedSnapshot::sequence);
        let matches = |snapshot: &&VerifiedSnapshot| {
            let name = snapshot.manifest.name();
            match text {
                "latest" => snapshot.sequence() == newest,
                _ => {
                    name.stamp.to_string() == text
                        || name.hash16 == text
                        || text.parse() == Ok(name.sequence)
                }
            }
        };
        let found: Vec<&VerifiedSnapshot> = self.snapshots.iter().filter(matches).collect();
        let Some(last) = found.last() else {
            let newest = self
                .snapshots
                .last()
                .map_or("none".to_owned(), |s| s.stamp().to_string());
            return Err(ChainError::NoSuchSnapshot(text.to_owned(), newest));
        };
        // Several revisions of one core are one snapshot; the last by name serves.
        let same_core = |s: &&VerifiedSnapshot| s.manifest.core_hash == last.manifest.core_hash;
        if found.iter().all(same_core) {
            return Ok(last);
        }
        Err(ChainError::Ambiguous {
            text: text.to_owned(),
            sequence: last.sequence(),
            names: names(found.iter().map(|s| s.manifest.name())),
        })
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

    /// What `child` knows under a sequence that is here must be here with that hash. Of siblings that it knows, one
    /// must: targets whose histories parted have each their own.
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
        for one in known.iter().filter(|one| is_here(one) == Some(false)) {
            strange.insert(one.sequence, *one);
        }
        for one in known.iter().filter(|one| is_here(one) == Some(true)) {
            strange.remove(&one.sequence);
        }
        for known in strange.into_values() {
            self.findings.push(Finding::Lineage {
                child: child.clone(),
                parent: format!("{} (sequence {})", known.stamp, known.sequence),
            });
        }
    }

    fn find_missing(&mut self, known: &[Known]) {
        // In one pass each: the signer decides how many there are.
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
        for one in known.iter().filter(|one| !here(one)) {
            // A stranger alone under its sequence is a broken lineage, and told of as such.
            let is_replaced = sequences.contains(&one.sequence) && !found.contains(&one.sequence);
            if !is_replaced && !self.known.contains(one) {
                self.findings.push(Finding::Missing(*one));
            }
        }
    }
}

fn names(names: impl Iterator<Item = ManifestName>) -> String {
    names.map(|n| n.to_string()).collect::<Vec<_>>().join(", ")
}

/// Name = content, a well-formed signature over it, and the host that the folder says.
fn check_signed(host: &HostName, candidate: &Candidate) -> Result<(Manifest, PublicKey), String> {
    let signature = candidate
        .signature
        .as_ref()
        .ok_or("it has no signature beside it")?;
    let manifest = Manifest::parse_named(&candidate.name, &candidate.manifest)
        .map_err(|error| error.to_string())?;
    if manifest.core.host != *host {
        return Err(format!("it is of host {}", manifest.core.host));
    }
    let key = signature::verify(signature, MANIFEST_NAMESPACE, &manifest.bytes)
        .map_err(|error| error.to_string())?;
    Ok((manifest, key))
}
