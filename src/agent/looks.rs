//! Which archives a push looks at on each target.
//!
//! A push looks, by name and size, at every archive that the new snapshot may lean on: those that the newest snapshot
//! uses, those that no snapshot used yet, and those in the spool. Only earlier snapshots need the others. A push looks
//! at these in turns, folder by folder of `archives/`, so that none goes without a look for more than sixteen pushes
//! that the target answered, and a target of few archives is looked at whole every time. If a look finds anything that
//! the host does not expect, the push looks at everything (see `push`). If the new snapshot could lean on an archive
//! that was not looked at, the packer has all of them looked at first (see `rest`).

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;
use std::sync::Arc;

use super::{AgentError, NamedTarget, State};
use crate::catalog::{ArchiveSize, Catalog, CatalogArchive, CatalogError};
use crate::ids::{ARCHIVES, Hash, ObjectKey};

/// Folders below `archives/`, each of which holds the archives whose hashes begin with one byte.
const SHARDS: u16 = 256;
/// Each is looked at within sixteen pushes.
const FEWEST_SHARDS: u16 = SHARDS / 16;
/// A look takes so many more shards as bring it to about this number of archives.
const ARCHIVES_IN_A_SHARE: usize = 256;

/// The archives of a target that a push looks at.
#[derive(Debug, Clone)]
pub enum Scope {
    Whole,
    Part {
        /// Those that the new snapshot may lean on.
        named: Arc<HashSet<Hash>>,
        /// This push's share of the others, by the first byte of their hashes.
        shards: Range<u16>,
    },
}

impl Scope {
    pub fn is_whole(&self) -> bool {
        matches!(self, Self::Whole)
    }

    /// The shard that the next look begins at.
    pub fn next_shard(&self) -> Option<u16> {
        match self {
            Self::Part { shards, .. } if !shards.is_empty() => Some(shards.end % SHARDS),
            _ => None,
        }
    }
}

/// What one push looks at.
#[derive(Debug)]
pub struct Looks {
    /// By target.
    pub scopes: Vec<Scope>,
    /// The archives that the new snapshot may lean on, unless every scope is whole.
    pub named: Vec<CatalogArchive>,
    /// By target, if its scope is a part.
    pub parts: Vec<Option<Part>>,
}

/// What the catalog knows of a part of a target's archives.
#[derive(Debug)]
pub struct Part {
    /// The share of the archives that only earlier snapshots need.
    pub share: Vec<ArchiveSize>,
    /// Those of the share and of the named ones that were confirmed on the target, by number.
    pub placed: HashSet<i64>,
}

impl Looks {
    pub fn whole(targets: &[NamedTarget]) -> Self {
        Self {
            scopes: targets.iter().map(|_| Scope::Whole).collect(),
            named: Vec::new(),
            parts: targets.iter().map(|_| None).collect(),
        }
    }

    /// Chooses what to look at. A catalog that does not know what the newest snapshot uses is new, or of an older
    /// version.
    pub fn choose(state: &State, targets: &[NamedTarget]) -> Result<Self, AgentError> {
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
                Scope::Whole => None,
                Scope::Part { shards, .. } => {
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
                    Some(Part { share, placed })
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

fn scope(
    catalog: &Catalog,
    target: &NamedTarget,
    named: &Arc<HashSet<Hash>>,
) -> Result<Scope, CatalogError> {
    let part = |shards| Scope::Part {
        named: Arc::clone(named),
        shards,
    };
    let placed = catalog.count_placed(&target.name)?;
    if placed <= ARCHIVES_IN_A_SHARE || named.len() * 2 > placed {
        return Ok(Scope::Whole);
    }
    if target.write_only {
        // Memory is all there is, and a turn through it would find nothing.
        return Ok(part(0..0));
    }
    let share = share(next_shard(catalog, &target.name)?, placed);
    let mut folders: BTreeSet<u16> = share.clone().collect();
    folders.extend(named.iter().map(|hash| u16::from(hash.0[0])));
    Ok(match target.target.looks_in_part(folders.len(), placed) {
        true => part(share),
        false => Scope::Whole,
    })
}

/// The shards to look at from `begin` on, of a target with so many archives.
fn share(begin: u16, archives: usize) -> Range<u16> {
    let wanted = (usize::from(SHARDS) * ARCHIVES_IN_A_SHARE).div_ceil(archives.max(1));
    let wanted = u16::try_from(wanted).unwrap_or(SHARDS);
    let length = wanted.clamp(FEWEST_SHARDS, SHARDS);
    begin..begin.saturating_add(length).min(SHARDS)
}

impl Looks {
    /// What is known of the archives of the target `at` that are looked at, if that is a part of them.
    pub fn known_part(&self, at: usize) -> Option<(Vec<ArchiveSize>, &Part)> {
        let part = self.parts[at].as_ref()?;
        let named = self.named.iter().map(ArchiveSize::from);
        Some((named.chain(part.share.iter().copied()).collect(), part))
    }
}

/// Where the next look begins; a position that is lost, or none, is the first shard.
fn next_shard(catalog: &Catalog, target: &str) -> Result<u16, CatalogError> {
    let text = catalog.meta(&Catalog::next_shard_key(target))?;
    let shard = text.and_then(|text| text.parse().ok());
    Ok(shard.filter(|shard| *shard < SHARDS).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_shares_at_the_most_are_everything() {
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
        assert_eq!(share(240, 4000), 240..256);
    }
}
