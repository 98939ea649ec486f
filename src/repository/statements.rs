//! Reads tombstones and marks of a host's folder, within limits. A statement that is malformed, or
//! signed by a key without that right, counts as absent.

use std::collections::HashSet;

use futures::{StreamExt as _, TryStreamExt as _};

use super::{CONCURRENT_GETS, HostFolder};
use crate::base::ids::{Hash, MARKS, ObjectKey, Stamp, TOMBSTONES};
use crate::format::manifest::ManifestName;
use crate::format::signature::Trust;
use crate::format::statement::{
    MAX_ALL_MARKS_BYTES, MAX_MARK_BYTES, MAX_MARKS, MAX_TOMBSTONE_BYTES, Mark, MarkName, Tombstone,
    Vouched,
};
use crate::storage::{ErrorKind, TargetError};

/// A prune mark, and whether its signer may prune.
#[derive(Debug, Clone)]
pub struct SeenMark {
    /// Its name on the target.
    pub name: MarkName,
    /// Its content.
    pub mark: Mark,
    /// Whose signature it carries.
    pub vouched: Vouched,
}

/// The prune marks of a target.
#[derive(Debug, Clone, Default)]
pub struct Marks {
    /// The marks that were read, by name.
    pub seen: Vec<SeenMark>,
    /// Number of marks that were not read, because there are too many or they are too large.
    pub unread: usize,
}

impl HostFolder {
    /// Reads the tombstones that `wanted` chooses by name (sequence and stamp are the deleted
    /// snapshot's), and returns those that verify. `signers` are the fingerprints of the keys that
    /// signed manifests here.
    pub async fn tombstones(
        &self,
        trust: &Trust,
        signers: &[String],
        wanted: impl Fn(&ManifestName) -> bool,
    ) -> Result<Vec<Tombstone>, TargetError> {
        let listed = self.list(TOMBSTONES).await?;
        let names = listed
            .iter()
            .filter(|(_, bytes)| **bytes <= MAX_TOMBSTONE_BYTES)
            .filter_map(|(key, _)| Tombstone::name_of(key))
            .filter(wanted);
        futures::stream::iter(names)
            .map(async |name| {
                let (key, signature) = (
                    ObjectKey::tombstone(&name),
                    ObjectKey::tombstone_signature(&name),
                );
                let read = futures::future::try_join(
                    self.get_small(&key, MAX_TOMBSTONE_BYTES),
                    self.get_small(&signature, MAX_TOMBSTONE_BYTES),
                );
                let (Some(bytes), Some(signature)) = read.await? else {
                    return Ok(None);
                };
                let host = &self.host;
                let found = Tombstone::verify(host, &name, &bytes, &signature, trust, signers);
                Ok::<_, TargetError>(found)
            })
            .buffer_unordered(CONCURRENT_GETS)
            .try_filter_map(async |found| Ok(found))
            .try_collect()
            .await
    }

    /// Returns the core hashes of the snapshots of `missing` that have a tombstone: they were
    /// deleted on purpose.
    pub async fn deletions(
        &self,
        trust: &Trust,
        signers: &[String],
        missing: &HashSet<(u64, Stamp)>,
    ) -> Result<HashSet<Hash>, TargetError> {
        if missing.is_empty() {
            return Ok(HashSet::new());
        }
        let wanted = |name: &ManifestName| missing.contains(&(name.sequence, name.stamp));
        let tombstones = self.tombstones(trust, signers, wanted).await?;
        Ok(tombstones.into_iter().map(|one| one.core).collect())
    }

    /// Reads the marks one after the other. Signed marks come first, so that planted ones cannot
    /// crowd them out.
    pub async fn marks(&self, trust: &Trust, signers: &[String]) -> Result<Marks, TargetError> {
        let listed = self.list(MARKS).await?;
        let named = listed.iter().filter_map(|(key, bytes)| {
            let name = MarkName::from_key(key)?;
            let is_signed = listed.contains_key(name.signature_key().as_str());
            Some((!is_signed, name, *bytes))
        });
        let mut named: Vec<(bool, MarkName, u64)> = named.collect();
        named.sort();
        let mut marks = Marks::default();
        let (mut tried, mut all_bytes) = (0, 0u64);
        for (is_unsigned, name, bytes) in named {
            let is_too_much = bytes > MAX_MARK_BYTES || all_bytes + bytes > MAX_ALL_MARKS_BYTES;
            if tried >= MAX_MARKS || is_too_much {
                marks.unread += 1;
                continue;
            }
            tried += 1;
            all_bytes += bytes;
            let Some(bytes) = self.get_small(&name.key(), MAX_MARK_BYTES).await? else {
                continue;
            };
            let Ok(mark) = Mark::parse_named(&name, &self.host, &bytes) else {
                continue;
            };
            let signature = match is_unsigned {
                true => None,
                false => {
                    let key = name.signature_key();
                    self.get_small(&key, MAX_TOMBSTONE_BYTES).await?
                }
            };
            let vouched = Mark::vouched(&self.host, &bytes, signature.as_deref(), trust, signers);
            marks.seen.push(SeenMark {
                name,
                mark,
                vouched,
            });
        }
        marks.seen.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(marks)
    }

    /// Returns `None` if the object is absent, unreadable, or larger than `limit`.
    pub(super) async fn get_small(
        &self,
        key: &ObjectKey,
        limit: u64,
    ) -> Result<Option<Vec<u8>>, TargetError> {
        match self.target.get(&self.key(key), limit).await {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if error.kind == ErrorKind::Unavailable => Err(error),
            Err(_) => Ok(None),
        }
    }
}
