//! Tombstones and marks of a host's folder, read within limits. What is malformed, or by nobody who may say
//! so, is as if it were not there.

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

/// A mark, and who stands for it.
#[derive(Debug, Clone)]
pub struct SeenMark {
    pub name: MarkName,
    pub mark: Mark,
    pub vouched: Vouched,
}

/// The marks of a target.
#[derive(Debug, Clone, Default)]
pub struct Marks {
    /// By name.
    pub seen: Vec<SeenMark>,
    /// Marks that were not read, for there are too many or they are too large.
    pub unread: usize,
}

impl HostFolder {
    /// The believable tombstones among those that `wanted` chooses by name (sequence and stamp are the
    /// deleted snapshot's). `signers` are fingerprints of whoever signed manifests here.
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

    /// Core hashes of those of `missing` that were deleted on purpose, as believable tombstones say.
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

    /// The marks that are here, one read after the other. Those with a signature come first, so that marks which
    /// were planted do not crowd them out.
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

    /// `None`: it is not there, may not be read, or was planted to choke us.
    async fn get_small(&self, key: &ObjectKey, limit: u64) -> Result<Option<Vec<u8>>, TargetError> {
        match self.target.get(&self.key(key), limit).await {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if error.kind == ErrorKind::Unavailable => Err(error),
            Err(_) => Ok(None),
        }
    }
}
