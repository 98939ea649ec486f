//! Which archives a push looks at on each target.
//!
//! A push looks, by name and size, at every archive that the new snapshot may reuse without a
//! further look: those that the newest snapshot uses, those that no snapshot used yet, and those in
//! the spool. Only earlier snapshots need the others. A push looks at these in turns, folder by
//! folder of `archives/`: after at most sixteen pushes that the target answered, each was looked
//! at. A target of few archives is looked at whole every time. If a look finds anything that the
//! host does not expect, the push looks at everything (see [`run`](super::run)). Before the new
//! snapshot reuses any other archive, the packer has all of them looked at (see
//! [`rest`](super::rest)).

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;
use std::sync::Arc;

use super::error::PushError;
use super::request::Target;
use crate::base::ids::{ARCHIVES, Hash, ObjectKey};
use crate::state::State;
use crate::state::catalog::{ArchiveSize, Catalog, CatalogArchive, CatalogError};

/// Number of folders below `archives/`. Each holds the archives whose hashes begin with one byte.
const SHARDS: u16 = 256;
/// A look takes at least this many shards. Fifteen pushes take all then; if the shares change their
/// length meanwhile, a shard may be one push later.
const FEWEST_SHARDS: u16 = 18;
/// A look takes as many shards as hold about this number of archives, if those are more.
const ARCHIVES_IN_A_SHARE: usize = 256;

/// The archives of a target that a push looks at.
#[derive(Debug, Clone)]
pub enum LookScope {
    /// All of them.
    Whole,
    /// Some of them.
    Part {
        /// The archives that the new snapshot may reuse.
        named: Arc<HashSet<Hash>>,
        /// This push's share of the others, by the first byte of their hashes.
        shards: Range<u16>,
    },
}

impl LookScope {
    /// Returns whether all archives are looked at.
    pub fn is_whole(&self) -> bool {
        matches!(self, Self::Whole)
    }

    /// Returns whether the archive `hash` is looked at.
    pub fn covers(&self, hash: &Hash) -> bool {
        match self {
            Self::Whole => true,
            Self::Part { named, shards } => {
                named.contains(hash) || shards.contains(&u16::from(hash.0[0]))
            }
        }
    }

    /// Returns the shard at which the next look begins; `None` if this look takes no share.
    pub(super) fn next_shard(&self) -> Option<u16> {
        match self {
            Self::Part { shards, .. } if !shards.is_empty() => Some(shards.end % SHARDS),
            _ => None,
        }
    }
}

/// What one push looks at.
#[derive(Debug)]
pub struct LookPlan {
    /// The scope for each target, in the targets' order.
    pub(super) scopes: Vec<LookScope>,
    /// The archives that the new snapshot may reuse; empty if every scope is whole.
    pub(super) named: Vec<CatalogArchive>,
    /// For each target, in the targets' order: the part that is looked at. `None`: the scope is
    /// whole.
    pub(super) parts: Vec<Option<PartOfTarget>>,
}

/// What the catalog knows of a part of a target's archives.
#[derive(Debug)]
pub(super) struct PartOfTarget {
    /// The share of the archives that only earlier snapshots need.
    share: Vec<ArchiveSize>,
    /// The catalog's numbers of those archives, of the share and of the named ones, that the target
    /// confirmed.
    pub(super) placed: HashSet<i64>,
}

impl LookPlan {
    /// Looks at everything.
    pub fn whole(targets: &[Target]) -> Self {
        Self {
            scopes: targets.iter().map(|_| LookScope::Whole).collect(),
            named: Vec::new(),
            parts: targets.iter().map(|_| None).collect(),
        }
    }

    /// Chooses what to look at. A catalog that does not know which archives the newest snapshot
    /// uses is new or of an older version; then everything is looked at.
    pub(super) fn choose(state: &State, targets: &[Target]) -> Result<Self, PushError> {
        let mut named = state.catalog.archives_in_use()?;
        if named.is_empty() {
            return Ok(Self::whole(targets));
        }
        let spooled = state.spool.list(ARCHIVES)?;
        let spooled = spooled
            .iter()
            .filter_map(|(key, _)| ObjectKey::archive_hash(key));
        let mut hashes: HashSet<Hash> = named.iter().map(|archive| archive.row.blake3).collect();
        let spooled: Vec<Hash> = spooled.filter(|hash| hashes.insert(*hash)).collect();
        named.extend(state.catalog.archives_named(spooled)?);
        let hashes = Arc::new(hashes);
        let (mut scopes, mut parts) = (Vec::new(), Vec::new());
        for target in targets {
            let scope = scope(&state.catalog, target, &hashes)?;
            parts.push(match &scope {
                LookScope::Whole => None,
                LookScope::Part { shards, .. } => {
                    let numbers = named.iter().map(|archive| archive.n);
                    let mut placed = state.catalog.placed_among(&target.name, numbers)?;
                    let mut share = Vec::new();
                    for (archive, is_placed) in state.catalog.archives_in(shards, &target.name)? {
                        if hashes.contains(&archive.blake3) {
                            continue;
                        }
                        if is_placed {
                            placed.insert(archive.n);
                        }
                        share.push(archive);
                    }
                    Some(PartOfTarget { share, placed })
                }
            });
            scopes.push(scope);
        }
        Ok(Self {
            scopes,
            named,
            parts,
        })
    }
}

/// Returns the scope of the look at `target`; `named` are the archives that the new snapshot may
/// reuse.
fn scope(
    catalog: &Catalog,
    target: &Target,
    named: &Arc<HashSet<Hash>>,
) -> Result<LookScope, CatalogError> {
    let part = |shards| LookScope::Part {
        named: Arc::clone(named),
        shards,
    };
    let placed = catalog.count_placed(&target.name)?;
    if placed <= ARCHIVES_IN_A_SHARE || named.len() * 2 > placed {
        return Ok(LookScope::Whole);
    }
    if target.write_only {
        // Only memory is available, and all of it may be needed: to publish an earlier snapshot
        // whose archives a mark names by now.
        return Ok(LookScope::Whole);
    }
    let share = share(next_shard(catalog, &target.name)?, placed);
    let mut folders: BTreeSet<u16> = share.clone().collect();
    folders.extend(named.iter().map(|hash| u16::from(hash.0[0])));
    Ok(match target.target.looks_in_part(folders.len(), placed) {
        true => part(share),
        false => LookScope::Whole,
    })
}

/// Returns the shards to look at from `begin` on, of a target with this number of archives.
fn share(begin: u16, archives: usize) -> Range<u16> {
    let wanted = (usize::from(SHARDS) * ARCHIVES_IN_A_SHARE).div_ceil(archives.max(1));
    let wanted = u16::try_from(wanted).unwrap_or(SHARDS);
    let length = wanted.clamp(FEWEST_SHARDS, SHARDS);
    begin..begin.saturating_add(length).min(SHARDS)
}

impl LookPlan {
    /// Returns the archives to look at on the target of this index, and what the catalog knows of
    /// their placement there. `None`: the scope is whole.
    pub(super) fn known_part(&self, at: usize) -> Option<(Vec<ArchiveSize>, &PartOfTarget)> {
        let part = self.parts[at].as_ref()?;
        let named = self.named.iter().map(ArchiveSize::from);
        Some((named.chain(part.share.iter().copied()).collect(), part))
    }
}

/// Returns the shard at which the next look begins: the first one if no valid position is recorded.
fn next_shard(catalog: &Catalog, target: &str) -> Result<u16, CatalogError> {
    let text = catalog.meta(&Catalog::next_shard_key(target))?;
    let shard = text.and_then(|text| text.parse().ok());
    Ok(shard.filter(|shard| *shard < SHARDS).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_sixteen_shares_cover_every_shard() {
        for archives in [0, 1, 257, 500, 2048, 4000, 5000, 1_000_000] {
            let (mut seen, mut at, mut pushes) = (BTreeSet::new(), 0, 0);
            while seen.len() < usize::from(SHARDS) {
                let share = share(at, archives);
                at = share.end % SHARDS;
                seen.extend(share);
                pushes += 1;
            }
            assert!(pushes <= 16, "{archives}: {pushes}");
            assert_eq!(at, 0, "{archives}");
        }
        assert_eq!(share(0, 300).len(), 219);
    }

    /// Kind: the number of archives changes from push to push, and with it the length of the share.
    #[test]
    fn no_shard_waits_for_more_than_sixteen_pushes() {
        let mut random = 1_u64;
        let mut archives = 4000;
        let (mut last, mut at) = ([0; SHARDS as usize], 0);
        for push in 1..100_000 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            archives = match random >> 61 {
                0 => 2000 + (random >> 32) as usize % 3000,
                1 => archives + 100,
                _ => archives,
            };
            let share = share(at, archives);
            at = share.end % SHARDS;
            for shard in share {
                last[usize::from(shard)] = push;
            }
            let longest = last.iter().map(|seen| push - seen).max().unwrap();
            assert!(longest < 16, "push {push}: {longest}");
        }
    }

    #[test]
    fn a_share_is_as_large_as_the_target_allows() {
        assert_eq!(share(0, 300).len(), 219);
        assert_eq!(share(240, 4000), 240..256);
    }
}
